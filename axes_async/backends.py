"""The way in through ``django.contrib.auth``: a backend that reserves a place before any other sees the password."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.backends import BaseBackend, ModelBackend
from django.http import HttpRequest

from axes_async import guard
from axes_async.client import storable
from axes_async.errors import AttemptDenied
from axes_async.state import Attempt


class AxesStandaloneBackend(BaseBackend):
    """Stops attempts that may not be made; logs nobody in. First in ``AUTHENTICATION_BACKENDS``."""

    def authenticate(
        self, request: HttpRequest | None, username: Any = None, password: Any = None, **credentials: Any
    ) -> None:
        """Return ``None``, so that the next backend is asked, or raise ``AttemptDenied``, so that none is."""
        with_name = _named(username, credentials)
        _refuse_denied(guard.reserve(request, with_name))
        _refuse_unstorable(username, password, *credentials.values())

    async def aauthenticate(
        self, request: HttpRequest | None, username: Any = None, password: Any = None, **credentials: Any
    ) -> None:
        """Do as ``authenticate``."""
        with_name = _named(username, credentials)
        _refuse_denied(await guard.areserve(request, with_name))
        _refuse_unstorable(username, password, *credentials.values())


class AxesBackend(AxesStandaloneBackend, ModelBackend):
    """As ``AxesStandaloneBackend``, with the permission methods of ``ModelBackend`` beside it."""


def _named(username: Any, credentials: dict[str, Any]) -> dict[str, Any]:
    return credentials if username is None else {"username": username, **credentials}


def _refuse_denied(attempt: Attempt | None) -> None:
    if attempt is not None and attempt.denied:
        raise AttemptDenied("This client may not try a password now.")


def _refuse_unstorable(*values: Any) -> None:
    """Let text that no database can hold, and no hasher encode, fail as wrong rather than break the next backend."""
    if not all(storable(value) for value in values if isinstance(value, str)):
        raise AttemptDenied("A credential holds a character that no account's can.")
