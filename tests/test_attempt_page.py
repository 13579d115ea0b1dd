"""The page of one attempt: what counts against its client, what it did lately, and how it is unlocked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.admin.utils import quote
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse

from axes_async.models import AccessAttempt, AttemptCounter
from tests.conftest import PASSWORD
from tests.site import CountingBackend

BACKEND = f"{CountingBackend.__module__}.{CountingBackend.__name__}"
A, B = "203.0.113.7", "198.51.100.8"

pytestmark = [pytest.mark.django_db, pytest.mark.database]


def page_of(client: Client, address: str) -> str:
    pk = AccessAttempt.objects.get(ip_address=address).pk
    response = client.get(reverse("admin:axes_async_accessattempt_change", args=[pk]))
    assert response.status_code == 200
    return str(response.content.decode())


def person(*permissions: str) -> Client:
    user = User.objects.create_user("helper", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Client()
    client.force_login(user, BACKEND)
    return client


@pytest.fixture(autouse=True)
def _attempts(alice: User, post: Callable[..., Any], drain: Callable[[], int]) -> None:
    """Have an address locked that was turned away once, and another one that has failed once; then a login."""
    for _ in range(4):
        post(REMOTE_ADDR=A, HTTP_USER_AGENT="curl/8")
    post(REMOTE_ADDR=B, HTTP_USER_AGENT="wget/1")
    post(password=PASSWORD, REMOTE_ADDR="192.0.2.9")
    drain()


def test_it_shows_counters_failures_and_the_last_login() -> None:
    client = Client()
    client.force_login(User.objects.create_superuser("root"), BACKEND)
    page = page_of(client, A)
    (counter,) = AttemptCounter.objects.filter(ip_address=A)
    assert f"address {A}</td><td>3 of 3</td>" in page
    assert reverse("admin:axes_async_lockout_unlock", args=[quote(counter.pk)]) in page
    assert page.count("wrong password") == 2
    assert page.count("turned away (1st)") == 1
    assert "wget/1" not in page
    assert "192.0.2.9</p>" in page
    assert f"address {B}</td><td>1 of 3</td>" in page_of(client, B)
    assert "/unlock/" not in page_of(client, B), "it is not locked"


def test_each_part_needs_its_permission() -> None:
    page = page_of(person("view_accessattempt"), A)
    assert "3 of 3" in page
    for hidden in ("/unlock/", "wrong password", "192.0.2.9"):
        assert hidden not in page


def test_whoever_may_unlock_finds_the_link() -> None:
    assert "/unlock/" in page_of(person("view_accessattempt", "unlock_lockout"), A)


def test_the_page_asks_as_often_for_many_failures_as_for_one(
    django_assert_num_queries: Callable[..., Any], post: Callable[..., Any], drain: Callable[[], int]
) -> None:
    client = Client()
    client.force_login(User.objects.create_superuser("root"), BACKEND)
    page_of(client, B)
    url = reverse("admin:axes_async_accessattempt_change", args=[AccessAttempt.objects.get(ip_address=B).pk])
    with django_assert_num_queries(7):
        client.get(url)
    post(REMOTE_ADDR=B, HTTP_USER_AGENT="wget/1")
    drain()
    with django_assert_num_queries(7):
        assert client.get(url).content.decode().count("wrong password") == 2
