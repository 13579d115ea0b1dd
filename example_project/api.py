"""The JSON login and logout of programs. Whatever is sent here, the answer is JSON and never a server error.

The passwords are checked in `custom_auth`; the shape of what may be sent is in `forms`.
"""

import json
from collections.abc import Callable, Mapping
from functools import wraps

from django.core.exceptions import BadRequest, RequestDataTooBig, SuspiciousOperation
from django.http import HttpRequest, HttpResponse, JsonResponse, UnreadablePostError
from django.http.multipartparser import MultiPartParserError
from django.views.decorators.csrf import csrf_exempt

from axes_async import guard
from axes_async.decorators import axes_dispatch

from .custom_auth import custom_authenticate, custom_login, custom_logout, report_failure
from .forms import LoginForm

View = Callable[[HttpRequest], HttpResponse]

_FORM_TYPES = frozenset({"application/x-www-form-urlencoded", "multipart/form-data"})


class UnreadableBodyError(Exception):
    """A body that no username and password can be taken from; has the status and the text of the answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def json_endpoint(view: View) -> View:
    """A view for programs: POST only, answers in JSON even to what Django refuses.

    It is exempt from the CSRF check, which protects browsers: a program has no page to take a token from.
    """

    @csrf_exempt
    @wraps(view)
    def endpoint(request: HttpRequest) -> HttpResponse:
        if request.method != "POST":
            return JsonResponse({"message": "Only POST is allowed here."}, status=405, headers={"Allow": "POST"})
        try:
            return view(request)
        except _REFUSALS as error:
            unreadable = explain(error)
            return JsonResponse({"errors": {"body": [str(unreadable)]}}, status=unreadable.status)

    return endpoint


@json_endpoint
@axes_dispatch
def login(request: HttpRequest) -> HttpResponse:
    """Log in: 200, 403 for wrong credentials, 400 (or 413) for a body that has none; all but 200 count as failures."""
    try:
        fields = read_fields(request)
    except UnreadableBodyError as error:
        report_failure(request, None)
        return JsonResponse({"errors": {"body": [str(error)]}}, status=error.status)
    form = LoginForm(fields)
    if not form.is_valid():
        name = fields.get("username")
        report_failure(request, name if isinstance(name, str) else None)
        return JsonResponse({"errors": form.errors}, status=400)
    username, password = form.cleaned_data["username"], form.cleaned_data["password"]
    # Holds one of the guesses that are left: of many sent at once, no more than the limit reach the password check.
    with guard.attempt(request, {"username": username}):
        user = custom_authenticate(request, username, password)
        if user is None:
            return JsonResponse({"message": "The username or the password is wrong."}, status=403)
        custom_login(request, user)
    return JsonResponse({"message": "success!"})


@json_endpoint
def logout(request: HttpRequest) -> HttpResponse:
    """Log out; nobody being logged in is no error. Browsers send no session cookie here from another site's page."""
    custom_logout(request)
    return JsonResponse({"message": "success!"})


def read_fields(request: HttpRequest) -> Mapping[str, object]:
    """The fields of a form or of a JSON object. Raises `UnreadableBodyError` when there are none."""
    try:
        if request.content_type in _FORM_TYPES:
            return request.POST.dict()
        if request.content_type == "application/json":
            return parse_json(request.body)
    except _REFUSALS as error:
        raise explain(error) from None
    raise UnreadableBodyError(400, "Send a form or a JSON object.")


def parse_json(body: bytes) -> dict[str, object]:
    """The members of a JSON object. Raises `UnreadableBodyError` for any other body."""
    try:
        # JSON is UTF-8 (RFC 8259, section 8.1); given bytes, json.loads would guess at other encodings.
        content = json.loads(body.decode())
    except (ValueError, RecursionError):
        raise UnreadableBodyError(400, "This is not JSON that can be read.") from None
    if not isinstance(content, dict):
        raise UnreadableBodyError(400, "Send a JSON object.")
    return content


# What Django raises while a body is read.
_REFUSALS = (BadRequest, MultiPartParserError, SuspiciousOperation, UnreadablePostError)


def explain(error: Exception) -> UnreadableBodyError:
    """What to tell the client about a body that Django refused."""
    if isinstance(error, RequestDataTooBig):
        return UnreadableBodyError(413, "The body is too large.")
    return UnreadableBodyError(400, "The body cannot be read.")
