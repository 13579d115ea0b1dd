"""The pages of unlocking by mail: to ask for a link, and to confirm what it leads to."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from functools import cache, partial
from pathlib import Path
from threading import Thread
from typing import Any

from django.conf import settings as django_settings
from django.contrib.auth import get_user_model
from django.db import Error, connections, transaction
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import resolve_url
from django.template.loader import render_to_string
from django.urls import NoReverseMatch, get_script_prefix, is_valid_path, reverse
from django.utils.cache import add_never_cache_headers
from django.utils.text import capfirst
from django.utils.translation import get_language
from django.utils.translation import gettext_lazy as _
from django.views.decorators.csrf import csrf_protect
from django.views.decorators.http import require_http_methods, require_safe

from axes_async.client.identity import client_of
from axes_async.client.normalize import ROW_LENGTH, storable
from axes_async.conf import get_settings
from axes_async.delivery import publisher
from axes_async.errors import AxesError
from axes_async.login.lockout_page import UNLOCK, assets, url_of
from axes_async.models import database
from axes_async.notify.links import names_in
from axes_async.notify.pace import give_back, is_taken, prolong, take
from axes_async.utils import reset

log = logging.getLogger(__name__)

ASKED, ASKED_IN = 5, timedelta(hours=1)
"""How many links one client may ask for, and in what time."""

CLAIM = timedelta(minutes=1)
"""How long a link is taken for used whose unlocking has begun, and has not ended: whoever does it may die."""

SOON = 5
"""Seconds after which unlocking may be possible that is not now."""

ASSETS = {"page.css": "text/css; charset=utf-8", "page.js": "text/javascript; charset=utf-8"}

TEXTS = {
    "ask": (
        _("Unlock your account"),
        _("Enter the name that you log in with. If it is locked, its owner gets a mail with a link that unlocks it."),
    ),
    "sent": (
        _("Check your mail"),
        _("If there is an account with this name and it is locked, a mail with a link is on its way to its owner."),
    ),
    "often": (_("Please wait"), _("Too many requests. Please try again later.")),
    "confirm": (_("Unlock your account"), _("This clears the failed attempts under your name.")),
    "done": (_("Your account is unlocked"), _("You can log in again.")),
    "dead": (_("This link does not work any more"), _("It was used already, or it is too old.")),
    "failed": (_("Please wait"), _("Unlocking is not possible at the moment. Please try again in a moment.")),
}
"""The heading and the text of each page."""


class ThenResponse(HttpResponse):
    """A response that does something once the client has it: whatever that takes, the client cannot tell.

    In a thread of its own, since the end of the connection, or the next answer on it, would tell. What runs at once in
    a site's tests runs in the test's transaction.
    """

    then: Callable[[], object] | None = None

    def close(self) -> None:
        """Close, and do it."""
        super().close()
        then, self.then = self.then, None
        if then is None:
            return
        if publisher.is_immediate():
            _do(then)
        else:
            Thread(target=_do_apart, args=(then,)).start()


def _do(then: Callable[[], object]) -> None:
    try:
        then()
    except Exception:
        log.exception("A mail with a link to unlock was not sent.")


def _do_apart(then: Callable[[], object]) -> None:
    try:
        _do(then)
    finally:
        connections.close_all()


@csrf_protect
@require_http_methods(["GET", "HEAD", "POST"])
def ask(request: HttpRequest) -> HttpResponse:
    """Ask for a link. The answer is the same for every name; a client that asks for many is told to wait."""
    _only_if_on()
    name = request.POST.get("username", "").strip()
    if not name or not storable(name) or len(name) > ROW_LENGTH:
        return _page(request, "ask", 400 if request.method == "POST" else 200)
    if not take("unlock request", client_of(request, None).canonical["ip_address"] or "", every=ASKED_IN, times=ASKED):
        response = _page(request, "often", 429)
        response["Retry-After"] = str(ASKED_IN // timedelta(seconds=1))
        return response
    response = _page(request, "sent")
    url = request.build_absolute_uri(reverse(UNLOCK))
    language = get_language() or django_settings.LANGUAGE_CODE
    response.then = partial(publisher.hand_over, publisher.UNLOCK_MAIL, name, url, language)
    return response


@transaction.non_atomic_requests
@csrf_protect
@require_http_methods(["GET", "HEAD", "POST"])
def confirm(request: HttpRequest, token: str) -> HttpResponse:
    """Show what a link is for, which mail servers may follow too; unlock when a person confirms it, once."""
    _only_if_on()
    names = names_in(token)
    if not names or is_taken("unlock link", token):
        return _page(request, "dead", 410)
    if request.method != "POST":
        return _page(request, "confirm")
    if not take("unlock link", token, every=CLAIM):
        return _page(request, "dead", 410)
    try:
        for name in names:
            reset(username=name, reason="Unlocked by mail.", by=names[0])
        prolong("unlock link", token, every=timedelta(seconds=get_settings().unlock_link_age))
    except (AxesError, Error) as error:
        log.error("An account was not unlocked by mail (%s).", error)
        with suppress(Error):  # Of a database that is away.
            connection = connections[database()]
            if not connection.in_atomic_block:  # As in a test.
                connection.close_if_unusable_or_obsolete()
            give_back("unlock link", token)
        response = _page(request, "failed", 503)
        response["Retry-After"] = str(SOON)
        return response
    return _page(request, "done")


@require_safe
def asset(request: HttpRequest, name: str) -> HttpResponse:
    """Return a file of our pages, for a site without static files."""
    if name not in ASSETS:
        raise Http404
    headers = {"Cache-Control": "public, max-age=3600", "X-Content-Type-Options": "nosniff"}
    return HttpResponse(_read(name), content_type=ASSETS[name], headers=headers)


@cache
def _read(name: str) -> bytes:
    return (Path(__file__).parent.parent / "static" / "axes_async" / name).read_bytes()


def _only_if_on() -> None:
    settings = get_settings()
    if not (settings.enabled and settings.unlock_by_mail):
        raise Http404


def _page(request: HttpRequest, step: str, status: int = 200) -> ThenResponse:
    heading, message = TEXTS[step]
    model = get_user_model()
    context: dict[str, Any] = {
        **assets(),
        "step": step,
        "heading": heading,
        "message": message,
        "label": capfirst(model._meta.get_field(model.USERNAME_FIELD).verbose_name),  # type: ignore[union-attr]
        "unlock_url": reverse(UNLOCK),
        "login_url": _login_url(),
    }
    response = ThenResponse(render_to_string("axes_async/unlock.html", context, request), status=status)
    add_never_cache_headers(response)
    response["Referrer-Policy"] = "same-origin"  # The address of the page is the link.
    return response


def _login_url() -> str:
    """Return where the site logs people in: ``LOGIN_URL``, which Django sets on sites without it too, or the admin."""
    try:
        url = resolve_url(django_settings.LOGIN_URL)
    except NoReverseMatch:
        url = ""
    if "://" in url or is_valid_path("/" + url.removeprefix(get_script_prefix())):
        return url
    return url_of("admin:login")
