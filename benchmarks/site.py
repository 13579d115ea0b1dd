"""The view, the password check and the URLs of the measured site."""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import redis
from django.conf import settings
from django.contrib.auth import authenticate, login
from django.contrib.auth.backends import BaseBackend
from django.contrib.auth.models import User
from django.contrib.auth.signals import user_logged_in, user_login_failed
from django.db import Error
from django.http import HttpRequest, HttpResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from benchmarks import servers
from benchmarks.settings import SITE

PASSWORD = "correct horse battery staple"


NOTES = os.environ.get("BENCH_NOTES", "")
"""A folder in which each process notes every password that reaches the check; '' for none."""


@cache
def _notes(pid: int) -> int:
    return os.open(Path(NOTES) / f"checked-{pid}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)


def note(line: str) -> None:
    """Write a line to the notes of this process; it is there even if the process is killed next."""
    os.write(_notes(os.getpid()), line.encode())


class KnownPassword(BaseBackend):
    """A password check without hashing and SQL: what is left of a request is Django's own work and the package's."""

    checks: ClassVar[int] = 0
    seconds: ClassVar[float] = 0.0
    user: ClassVar[User | None] = None
    _lock: ClassVar[threading.Lock] = threading.Lock()

    def authenticate(
        self, request: HttpRequest | None, username: str | None = None, password: str | None = None, **kwargs: Any
    ) -> User | None:
        """Count, wait as long as is asked for, and compare."""
        with self._lock:
            type(self).checks += 1
        if NOTES and request is not None:
            note(f"{request.META['REMOTE_ADDR']} {username}\n")
            with suppress(Error):  # A login has a connection to the database, where that one is there.
                User.objects.filter(username=username).first()
        if self.seconds:
            time.sleep(self.seconds)
        return self.user if password == PASSWORD else None


class SlowPassword(BaseBackend):
    """A check that takes ``BENCH_SECONDS``; "right" is everybody's password."""

    def authenticate(self, request: HttpRequest | None, username: str, password: str, **kwargs: Any) -> User | None:
        """Note the password, wait, and compare."""
        note(f"{password} {username}\n")
        time.sleep(settings.BENCH_SECONDS)
        return User.objects.get_or_create(username=username)[0] if password == "right" else None


class RoundTrip(BaseBackend):
    """The least that any protection needs: ask the store before the password check, tell it after."""

    def __init__(self) -> None:
        """Share one client, as a package would."""
        self.client = store_client()

    def authenticate(self, request: HttpRequest | None, **credentials: Any) -> None:
        """Ask."""
        self.client.get("bench:get")


@cache
def store_client() -> redis.Redis:
    """Return redis-py's default client."""
    return redis.Redis.from_url(servers.redis_url())


def tell(**kwargs: Any) -> None:
    """Tell."""
    store_client().get("bench:get")


if SITE == "two_gets":
    user_login_failed.connect(tell)
    user_logged_in.connect(tell)


def _sign_in(request: HttpRequest) -> HttpResponse:
    user = authenticate(request, username=request.POST["username"], password=request.POST["password"])
    if user is None:
        return HttpResponse("wrong", status=401)
    login(request, user)
    return HttpResponse(status=204)


sign_in = csrf_exempt(_sign_in)
if SITE == "defender":
    watch_login = import_module("defender.decorators").watch_login

    sign_in = csrf_exempt(watch_login(status_code=401)(_sign_in))

urlpatterns = [path("sign-in/", sign_in)]
