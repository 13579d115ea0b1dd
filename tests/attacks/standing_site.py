"""The views of the site that is attacked."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from asgiref.sync import sync_to_async
from django.contrib.auth import aauthenticate, alogin, authenticate, login
from django.contrib.auth.backends import BaseBackend
from django.contrib.auth.hashers import MD5PasswordHasher, check_password
from django.contrib.auth.models import User
from django.contrib.auth.signals import user_login_failed
from django.core.mail.backends.base import BaseEmailBackend
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.urls import include, path

from axes_async import guard
from axes_async.backends import AxesStandaloneBackend
from axes_async.decorators import axes_dispatch
from tests.attacks.standing_process import is_over, passwords_looked_at, stand_still


class StandingHasher(MD5PasswordHasher):
    """Stands still over a password until the test lets it go on."""

    def verify(self, password: str, encoded: str) -> bool:
        """Wait, and verify."""
        stand_still()
        return super().verify(password, encoded)


class StandingMail(BaseEmailBackend):
    """Stands still over a mail until the test lets it go on."""

    def send_messages(self, email_messages: Any) -> int:
        """Wait, and send nothing."""
        stand_still()
        return len(email_messages)


class BrokenBackend(BaseBackend):
    """Is asked in vain, as a directory that is down."""

    async def aauthenticate(self, request: HttpRequest | None, **credentials: Any) -> None:
        """Raise an error."""
        raise RuntimeError("The directory is down.")

    def authenticate(self, request: HttpRequest | None, username: str, password: str) -> None:
        """Tell Django by the names what this backend takes."""


def traced(method: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """Do nothing, as a decorator that hides the arguments."""

    async def wrapper(*args: Any, **kwargs: Any) -> None:
        await method(*args, **kwargs)

    return wrapper


class OwnAxesBackend(AxesStandaloneBackend):
    """Has a method of its own in between."""

    @traced
    async def aauthenticate(self, request: HttpRequest | None, **credentials: Any) -> None:
        """Do as ever."""
        await super().aauthenticate(request, **credentials)


class SyncBackend(BaseBackend):
    """Has no async method of its own: Django's runs the sync one in a thread."""

    def authenticate(self, request: HttpRequest | None, **credentials: Any) -> User | None:
        """Check the password."""
        user = User.objects.get(username=credentials["username"])
        return user if check_password(credentials["password"], user.password) else None


class AsyncBackend(BaseBackend):
    """Has its passwords looked at in threads that any request may use, as Django itself does from version 6 on."""

    async def aauthenticate(self, request: HttpRequest | None, **credentials: Any) -> User | None:
        """Check the password."""
        user = await User.objects.aget(username=credentials["username"])
        check = sync_to_async(check_password, thread_sensitive=False)
        return user if await check(credentials["password"], user.password) else None

    def authenticate(self, request: HttpRequest | None, username: str, password: str) -> None:
        """Tell Django by the names what this backend takes."""


def credentials_in(request: HttpRequest) -> dict[str, Any]:
    return {name: request.POST.get(name) for name in ("username", "password")}


def sync_view(request: HttpRequest) -> HttpResponse:
    user = authenticate(request, **credentials_in(request))
    if user is not None:
        login(request, user)
    return HttpResponse(status=401 if user is None else 204)


@axes_dispatch
async def in_time_dispatched(request: HttpRequest) -> HttpResponse:
    """Give up something before the check."""
    with suppress(TimeoutError):
        async with asyncio.timeout(0):
            await asyncio.Event().wait()
    return HttpResponse(status=204)


@axes_dispatch
async def caught(request: HttpRequest) -> HttpResponse:
    """Answer for a directory that is down."""
    with suppress(RuntimeError):
        await aauthenticate(request, **credentials_in(request))
    return HttpResponse(status=500)


async def in_time_in_block(request: HttpRequest) -> HttpResponse:
    """Give up something else in a block, and log somebody in."""
    given = credentials_in(request)
    async with guard.attempt(request, given) as attempt:
        with suppress(TimeoutError):
            async with asyncio.timeout(0):
                await asyncio.Event().wait()
        await attempt.alogged_in(given["username"])
    return HttpResponse(status=204)


async def async_view(request: HttpRequest) -> HttpResponse:
    user = await aauthenticate(request, **credentials_in(request))
    if user is not None:
        await alogin(request, user)
    return HttpResponse(status=401 if user is None else 204)


async def in_time(request: HttpRequest) -> HttpResponse:
    """Check a password, as an API does that logs nobody in, and give up what comes next."""
    user = await aauthenticate(request, **credentials_in(request))
    with suppress(TimeoutError):
        async with asyncio.timeout(0):
            await asyncio.Event().wait()
    return HttpResponse(status=401 if user is None else 204)


async def own_check(request: HttpRequest) -> HttpResponse:
    """Check the password without Django's ``authenticate``."""
    given = credentials_in(request)
    async with guard.attempt(request, given) as attempt:
        user = await User.objects.aget(username=given["username"])
        check = sync_to_async(check_password, thread_sensitive="thread" not in request.GET)
        if await check(given["password"], user.password):
            await attempt.alogged_in(given["username"])
            return HttpResponse(status=204)
        await attempt.afailed()
    return HttpResponse(status=401)


class GiveUp:
    """``async with`` it, a block of code ends in a ``TimeoutError`` as soon as the hasher stands over a password."""

    async def __aenter__(self) -> None:
        self.limit, self.before = asyncio.timeout(None), passwords_looked_at()
        self.alarm = asyncio.create_task(self.watch())
        await self.limit.__aenter__()

    async def watch(self) -> None:
        while passwords_looked_at() == self.before:  # noqa: ASYNC110  (a thread looks)
            await asyncio.sleep(0.01)
        if not self.limit.expired():
            self.limit.reschedule(0)

    async def __aexit__(self, *exc_info: Any) -> bool | None:
        self.alarm.cancel()
        return await self.limit.__aexit__(*exc_info)


async def giving_up(request: HttpRequest) -> HttpResponse:
    """Give up a check, in the way that the query names, as soon as the hasher stands over the password."""
    given, way = credentials_in(request), request.GET["way"]
    for _ in range(int(request.GET.get("times", 1))):
        if way == "in its block":
            async with guard.attempt(request, given):
                await until_given_up(sync_to_async(stand_still, thread_sensitive=False)())
        elif way == "own check":
            await until_given_up(own_check(request))
        elif way == "sync check":
            await until_given_up(sync_to_async(authenticate, thread_sensitive=False)(request, **given))
        elif way == "in view":
            await until_given_up(aauthenticate(request, **given))
        elif way == "dispatched":
            await axes_dispatch(dispatched)(request)
        elif way == "child task":
            await asyncio.gather(until_given_up(aauthenticate(request, **given)))
        elif way == "errors":
            await asyncio.gather(aauthenticate(request, **given))
        elif way == "errors that are caught":
            await asyncio.gather(aauthenticate(request, **given), return_exceptions=True)
        elif way == "errors in a group":
            async with asyncio.TaskGroup() as group:
                group.create_task(aauthenticate(request, **given))
        elif way == "own thread":
            await until_given_up(in_own_thread(authenticate, request, **given))
        elif way == "cancelled thread":
            check = asyncio.create_task(asyncio.to_thread(authenticate, request, **given))
            await until_given_up(asyncio.shield(check))
            check.cancel()
        else:
            running.add(check := asyncio.create_task(aauthenticate(request, **given)))
            await until_given_up(asyncio.shield(check))
            if way == "cancelled task":
                check.cancel()
        if "counts" in request.GET:
            await user_login_failed.asend(sender=__name__, credentials={"username": given["username"]}, request=request)
    return HttpResponse(status=202)  # What is worse is logged in a thread of the pool in which passwords are looked at.


async def dispatched(request: HttpRequest) -> HttpResponse:
    await until_given_up(aauthenticate(request, **credentials_in(request)))
    return HttpResponse()


async def in_own_thread(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Begin only when it is awaited, as all that is given up: ``GiveUp`` has counted the passwords before."""
    return await asyncio.wrap_future(POOL.submit(function, *args, **kwargs))


async def until_given_up(check: Awaitable[Any]) -> None:
    with suppress(TimeoutError):
        async with GiveUp():
            await check


POOL = ThreadPoolExecutor(10)
running: set[asyncio.Task[Any]] = set()


def bare_view(request: HttpRequest) -> HttpResponse:
    """Check a password without passing the request on."""
    return HttpResponse(status=401 if authenticate(**credentials_in(request)) is None else 204)


async def async_bare_view(request: HttpRequest) -> HttpResponse:
    """Do as ``bare_view``."""
    return HttpResponse(status=401 if await aauthenticate(**credentials_in(request)) is None else 204)


def stream(request: HttpRequest) -> StreamingHttpResponse:
    """Check a password in the stream, and go on until the test ends it or the client is gone."""

    def parts() -> Iterator[str]:
        authenticate(request, **credentials_in(request))
        while not is_over():
            yield "checked. "
            time.sleep(0.01)

    return StreamingHttpResponse(parts())


async def async_stream(request: HttpRequest) -> StreamingHttpResponse:
    """Do as ``stream``."""

    async def parts() -> AsyncIterator[str]:
        await aauthenticate(request, **credentials_in(request))
        while not is_over():
            yield "checked. "
            await asyncio.sleep(0.01)

    return StreamingHttpResponse(parts())


@axes_dispatch
def program(request: HttpRequest) -> HttpResponse:
    """Check a password in JSON, whatever the type of the body is said to be, and however long it is."""
    return HttpResponse(status=401 if authenticate(request, **json.load(request)) is None else 204)


urlpatterns = [
    path("program/", program),
    path("axes/", include("axes_async.unlock.urls")),
    path("bare/", bare_view),
    path("async-bare/", async_bare_view),
    path("stream/", stream),
    path("async-stream/", async_stream),
    path("sync/", sync_view),
    path("async/", async_view),
    path("own/", own_check),
    path("giving-up/", giving_up),
    path("in-time/", in_time),
    path("in-time/block/", in_time_in_block),
    path("in-time/dispatched/", in_time_dispatched),
    path("caught/", caught),
]
