"""What a login clears, and what it must not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import redis
from django.contrib.auth import authenticate, login
from django.contrib.auth.backends import ModelBackend
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.test import Client
from django.urls import path

from axes_async.decorators import axes_dispatch
from axes_async.models import AccessAttempt, AttemptCounter
from tests.actions import failure, failures_stored, success
from tests.conftest import PASSWORD
from tests.urls import urlpatterns as site_urls

Drain = Callable[[], int]
HOME = "203.0.113.7"

pytestmark = [pytest.mark.django_db]


@axes_dispatch
def own_check(request: HttpRequest) -> HttpResponse:
    """Log in by a field that only this view knows, with a check of its own."""
    user = User.objects.get(username=request.POST["login"])
    if not user.check_password(request.POST["password"]):
        return HttpResponse("wrong", status=401)
    login(request, user, backend="tests.site.CountingBackend")
    return HttpResponse(status=204)


@axes_dispatch
def djangos_check(request: HttpRequest) -> HttpResponse:
    """Log in by a field that only this view knows, with Django's check."""
    user = authenticate(request, username=request.POST["login"], password=request.POST["password"])
    if user is None:
        return HttpResponse("wrong", status=401)
    login(request, user)
    return HttpResponse(status=204)


class EmailBackend(ModelBackend):
    """Takes an e-mail address in place of the name, as many sites do."""

    def authenticate(self, request: HttpRequest | None, username: Any = None, password: Any = None, **more: Any) -> Any:
        """Check the password of the account with this address."""
        user = User.objects.filter(email=username or more.get("email")).first()
        return user if user is not None and user.check_password(password) else None


urlpatterns = [*site_urls, path("own-check/", own_check), path("djangos-check/", djangos_check)]


@pytest.mark.urls(__name__)
@pytest.mark.parametrize("how", [True, "account"])
@pytest.mark.parametrize("url", ["/own-check/", "/djangos-check/"])
def test_a_login_to_ones_own_account_does_not_clear_a_name_that_stands_beside_it_in_the_form(
    alice: User, client: Client, settings: Any, how: Any, url: str
) -> None:
    settings.AXES_LOCKOUT_PARAMETERS, settings.AXES_RESET_ON_SUCCESS = ["username"], how
    User.objects.create_user("mallory", password="mine")
    looked_at = 0
    for _ in range(5):
        looked_at += failure() + failure()
        form = {"username": "alice", "login": "mallory", "password": "mine"}
        client.post(url, form)
    assert looked_at == 3


@pytest.mark.parametrize("how", [True, "account"])
def test_a_login_by_email_clears_the_name_and_the_email(
    alice: User, client: Client, settings: Any, drain: Drain, valkey: redis.Redis, how: Any
) -> None:
    settings.AXES_LOCKOUT_PARAMETERS, settings.AXES_RESET_ON_SUCCESS = ["username"], how
    settings.AUTHENTICATION_BACKENDS = ["axes_async.backends.AxesStandaloneBackend", f"{__name__}.EmailBackend"]
    User.objects.filter(pk=alice.pk).update(email="alice@example.com")
    failure("alice")
    for _ in range(2):
        client.post("/sign-in/", {"username": "alice@example.com", "password": "wrong"})
    drain()
    assert AccessAttempt.objects.count() == AttemptCounter.objects.count() == 2
    answer = client.post("/sign-in/", {"username": "alice@example.com", "password": PASSWORD})
    assert answer.status_code == 204
    drain()
    assert failures_stored(valkey) == []
    assert not AttemptCounter.objects.filter(failures__gt=0).exists()
    assert AccessAttempt.objects.count() == 0


def test_a_login_to_ones_own_account_does_not_clear_the_address(any_store: str, settings: Any) -> None:
    settings.AXES_LOCKOUT_PARAMETERS = ["ip_address", "username"]
    settings.AXES_RESET_ON_SUCCESS = "account"
    looked_at = 0
    for number in range(4):
        looked_at += failure(f"victim{number}", HOME)
        success("mallory", HOME)
    assert looked_at == 3
