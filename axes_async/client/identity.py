"""Who is asking: username, address, agent, path and accept of one attempt.

Each in two forms: what a row shows, and what a counter's key is made of (``normalize.py``). What is done with them is
not decided here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from django.contrib.auth import get_user_model
from django.core.exceptions import BadRequest, SuspiciousOperation
from django.http import HttpRequest
from django.http.multipartparser import MultiPartParserError
from django.http.request import RawPostDataException, UnreadablePostError

from axes_async.client.address import address_behind
from axes_async.client.normalize import as_text, canonical_address, canonical_username, row_text
from axes_async.conf import get_settings
from axes_async.conf.networks import parse_address
from axes_async.counters.rules import Parameter

SECRET = re.compile("api|token|key|secret|password|signature", re.IGNORECASE)
"""Names of credentials that Django masks before it tells of a failure."""

MASKED = "********************"
"""What it puts in their place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    username: str | None = None
    ip_address: str | None = None
    user_agent: str = ""
    http_accept: str = ""
    path_info: str = ""
    not_an_address: str = ""
    """What the server gave for an address, where it is none."""
    canonical: Mapping[Parameter, str | None]
    given: object = None
    """What the username was taken from, see ``source_of``."""


def identify(
    request: HttpRequest | None, credentials: Mapping[str, Any] | None, *, seen: Client | None = None
) -> Client:
    """Return the client behind ``request`` and ``credentials``; either may be ``None``.

    Nothing that was sent makes it raise; what the site's own callables raise is raised.

    :param seen: a client of the same request, whose address needs not be worked out again.
    """
    settings = get_settings()
    username = username_from(request, credentials)
    given = username if settings.username_callable is None else source_of(request, credentials)
    return client_of(request, username, given=given, seen=seen)


def client_of(
    request: HttpRequest | None, username: object, *, given: object = None, seen: Client | None = None
) -> Client:
    """Return the client behind ``request`` that tries ``username``, which need be no text; see ``identify``."""
    username = as_text(username)
    shown = None if username is None else row_text(username, tell_apart=True)
    name = canonical_username(username)
    if seen is not None:
        return replace(seen, username=shown, canonical={**seen.canonical, "username": name}, given=given)
    meta: Mapping[str, Any] = request.META if request is not None else {}
    address = _address(request)
    agent = as_text(meta.get("HTTP_USER_AGENT")) or ""
    parsed = parse_address(address)
    return Client(
        username=shown,
        ip_address=None if parsed is None else str(parsed),
        user_agent=row_text(agent, tell_apart=True),
        http_accept=row_text(as_text(meta.get("HTTP_ACCEPT")) or ""),
        path_info="" if request is None else row_text(request.path_info),
        not_an_address=row_text(address.strip()) if parsed is None else "",
        canonical={"username": name, "ip_address": canonical_address(address), "user_agent": agent},
        given=given,
    )


def username_from(request: HttpRequest | None, credentials: Mapping[str, Any] | None) -> str | None:
    """Return the name that is being tried, as text; ``None`` where there is none.

    ``AXES_USERNAME_CALLABLE`` decides, if there is one. Else credentials count first: under
    ``AXES_USERNAME_FORM_FIELD``, the user model's ``USERNAME_FIELD``, ``username``, then its e-mail field. Without
    credentials, ``AXES_USERNAME_FORM_FIELD`` (by default ``USERNAME_FIELD``) in the form, or in the JSON object, is
    read.
    """
    if (ask := get_settings().username_callable) is not None:
        return as_text(ask(request, credentials))
    names = _name_fields()
    if credentials:
        return as_text(next((value for name in names if (value := credentials.get(name)) is not None), None))
    if request is None or request.method != "POST":
        return None
    try:
        if request.content_type != "application/json":
            return as_text(request.POST.get(names[0]))
        body = json.loads(request.body)
        return as_text(body.get(names[0])) if isinstance(body, dict) else None
    except _BROKEN_BODY:
        return None  # The view meets the same broken body and answers for it.


def source_of(request: HttpRequest | None, credentials: Mapping[str, Any] | None) -> object:
    """Return what tells the attempts of one request apart, without asking ``AXES_USERNAME_CALLABLE`` again.

    That is the username, or where a callable finds it, what it was given: the credentials less those that Django masks
    in its signal of a failure.
    """
    if get_settings().username_callable is None:
        return username_from(request, credentials)
    return None if credentials is None else {k: v for k, v in credentials.items() if not SECRET.search(k)}


def is_masked(credentials: Mapping[str, Any] | None) -> bool:
    """Return whether Django has masked the very name: that of a ``USERNAME_FIELD`` such as ``employee_key``."""
    return credentials is not None and any(
        credentials.get(name) == MASKED and SECRET.search(name) for name in _name_fields()
    )


def _name_fields() -> tuple[str, ...]:
    """Return where a name is looked for among credentials; in a form, under the first of these."""
    model = get_user_model()
    field = get_settings().username_form_field or model.USERNAME_FIELD
    return field, model.USERNAME_FIELD, "username", model.get_email_field_name()


def _address(request: HttpRequest | None) -> str:
    if request is None:
        return ""
    settings = get_settings()
    if settings.client_ip_callable is not None:
        return as_text(settings.client_ip_callable(request)) or ""
    return address_behind(request.META, settings)


_BROKEN_BODY = (
    BadRequest,
    LookupError,
    MultiPartParserError,
    RawPostDataException,
    RecursionError,
    SuspiciousOperation,
    UnreadablePostError,
    ValueError,
)
"""What reading a form or JSON may raise; the last is json's, and one is for a charset that is none of texts."""
