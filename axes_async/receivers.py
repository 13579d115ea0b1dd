"""Django's signals, handed to the settlement of logins, and to what a request leaves to do."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.signals import user_logged_in, user_logged_out, user_login_failed
from django.contrib.sessions.backends.base import SessionBase
from django.core.signals import request_finished
from django.http import HttpRequest

from axes_async.conf import get_settings
from axes_async.login import settlement, steps

LOGIN_ID = "_axes_login"
"""Session key under which a login's id waits for the logout; the session's own key may change in between."""


def connect() -> None:
    """Connect the receivers; repeating it changes nothing."""
    user_login_failed.connect(on_login_failed, dispatch_uid="axes_async.login_failed")
    user_logged_in.connect(on_logged_in, dispatch_uid="axes_async.logged_in")
    user_logged_out.connect(on_logged_out, dispatch_uid="axes_async.logged_out")
    request_finished.connect(steps.end_left, dispatch_uid="axes_async.request_finished")


def on_login_failed(
    sender: Any, credentials: Mapping[str, Any] | None = None, request: HttpRequest | None = None, **kwargs: Any
) -> None:
    settlement.fail(request, credentials)


def on_logged_in(sender: Any, user: AbstractBaseUser, request: HttpRequest | None = None, **kwargs: Any) -> None:
    session = getattr(request, "session", None)
    login = settlement.succeed(request, user.get_username(), session_hash=session_hash(session))
    # Only a session that is going to be saved anyway: a login without one must not create one.
    if login and session is not None and session.modified and not get_settings().disable_access_log:
        session[LOGIN_ID] = login


def on_logged_out(
    sender: Any, user: AbstractBaseUser | None = None, request: HttpRequest | None = None, **kwargs: Any
) -> None:
    """Record a logout; that of somebody who was not logged in is none."""
    if user is not None:
        session = getattr(request, "session", None)
        login = session.get(LOGIN_ID, "") if session is not None and session.accessed else ""
        settlement.log_out(request, user.get_username(), session_hash=session_hash(session), login=login)


def session_hash(session: SessionBase | None) -> str:
    """Return the SHA-256 of the session's key in hexadecimal: it tells sessions apart and opens none; '' without."""
    key = session.session_key if session is not None else None
    return sha256(key.encode()).hexdigest() if key else ""
