"""The way in through ``django.contrib.auth``: a backend that makes a reservation before any other sees the password."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature
from typing import Any

from django.contrib.auth.backends import ModelBackend
from django.http import HttpRequest

from axes_async.client.normalize import storable
from axes_async.conf import get_settings
from axes_async.errors import AttemptDenied
from axes_async.login.attempt import Attempt
from axes_async.login.frames import code_that_asks
from axes_async.login.reservation import areserve, reserve


class AxesStandaloneBackend:
    """Stops attempts that may not be made; logs nobody in. First in ``AUTHENTICATION_BACKENDS``.

    Not a ``BaseBackend``: ``force_login`` takes the first backend with a ``get_user`` for one that can load users.
    """

    def authenticate(self, request: HttpRequest | None, **credentials: Any) -> None:
        """Return ``None``, so that the next backend is asked, or raise ``AttemptDenied``, so that none is."""
        _refuse(reserve(request, credentials, code_that_asks()), credentials)

    async def aauthenticate(self, request: HttpRequest | None, **credentials: Any) -> None:
        """Do as ``authenticate``."""
        _refuse(await areserve(request, credentials, code_that_asks()), credentials)


# Django asks for the signature of each backend with each login, and working it out takes longer than many a query.
AxesStandaloneBackend.authenticate.__signature__ = signature(AxesStandaloneBackend.authenticate)  # type: ignore[attr-defined]


class AxesBackend(AxesStandaloneBackend, ModelBackend):  # type: ignore[misc]  # Any credentials, not only these.
    """As ``AxesStandaloneBackend``, with the permission methods of ``ModelBackend`` beside it."""


def _refuse(attempt: Attempt | None, credentials: Mapping[str, Any]) -> None:
    """Refuse what is denied, and let credentials that no account has fail as wrong ones.

    They would break the next backend: text that no database holds and no hasher encodes, and what JSON brings in place
    of a password.
    """
    if attempt is not None and attempt.denied:
        raise AttemptDenied("This client may not try a password now.")
    fit = all(storable(value) for value in credentials.values() if isinstance(value, str))
    passwords = (credentials.get("password"), credentials.get(get_settings().password_form_field))
    if not fit or any(isinstance(password, bool | int | float | list | dict) for password in passwords):
        raise AttemptDenied("No account has credentials like these.")
