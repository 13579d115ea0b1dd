"""The views and the password check of the test site."""

from __future__ import annotations

import threading
import time
from typing import Any, ClassVar

from django.contrib.auth import aauthenticate, alogin, authenticate, login
from django.contrib.auth.backends import ModelBackend
from django.http import HttpRequest, HttpResponse

from axes_async import guard


class CountingBackend(ModelBackend):
    """Django's own check, counted, and as slow as a test wants it."""

    checks: ClassVar[int] = 0
    seconds: ClassVar[float] = 0.0
    _lock: ClassVar[threading.Lock] = threading.Lock()

    def authenticate(
        self, request: HttpRequest | None, username: Any = None, password: Any = None, **kwargs: Any
    ) -> Any:
        """Count, wait, check."""
        self.count()
        return super().authenticate(request, username=username, password=password, **kwargs)

    @classmethod
    def count(cls) -> None:
        """Count a check, and take as long as one takes."""
        with cls._lock:
            cls.checks += 1
        time.sleep(cls.seconds)

    async def aauthenticate(
        self, request: HttpRequest | None, username: Any = None, password: Any = None, **kwargs: Any
    ) -> Any:
        """Count and check."""
        type(self).checks += 1
        return await super().aauthenticate(request, username=username, password=password, **kwargs)


def sign_in(request: HttpRequest) -> HttpResponse:
    """Log in: 204, or 401."""
    user = authenticate(request, username=request.POST.get("username"), password=request.POST.get("password"))
    if user is None:
        return HttpResponse("wrong", status=401)
    login(request, user)
    return HttpResponse(status=204)


def nobody(request: HttpRequest) -> HttpResponse:
    """Refuse every password after the usual wait, without a database: 401."""
    credentials = {"username": request.POST["username"]}
    with guard.attempt(request, credentials) as attempt:
        CountingBackend.count()
        attempt.failed()
    return HttpResponse("wrong", status=401)


async def async_sign_in(request: HttpRequest) -> HttpResponse:
    """Log in, asynchronously: 204, or 401."""
    user = await aauthenticate(request, username=request.POST.get("username"), password=request.POST.get("password"))
    if user is None:
        return HttpResponse("wrong", status=401)
    await alogin(request, user)
    return HttpResponse(status=204)


def check_only(request: HttpRequest) -> HttpResponse:
    """Check a password and log nobody in, as token logins do: 204, or 401."""
    user = authenticate(request, username=request.POST.get("username"), password=request.POST.get("password"))
    return HttpResponse(status=401 if user is None else 204)


def home(request: HttpRequest) -> HttpResponse:
    """Show a page."""
    return HttpResponse("home")
