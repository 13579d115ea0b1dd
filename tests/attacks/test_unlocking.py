"""Strangers at the pages of unlocking by mail: what they learn, and what they break."""

# ruff: noqa: F811  (a fixture is imported, and is an argument)

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import pytest
import requests
from celery import current_app
from django.contrib.auth.models import User
from django.core import mail
from django.test import Client

from tests.actions import failure
from tests.attacks.standing import LIMIT, Web, start_web  # noqa: F401  (a fixture)
from tests.waiting import PATIENCE, until

pytestmark = pytest.mark.django_db(transaction=True)


def ask_to_the_end(web: Web, name: str) -> bytes:
    """Ask for a link to unlock an account; return all that comes until the site closes the connection."""
    page = requests.get(f"http://127.0.0.1:{web.port}/axes/unlock/", timeout=PATIENCE)
    (token,) = re.findall(r'csrfmiddlewaretoken" value="(\w+)"', page.text)
    body = urlencode({"username": name, "csrfmiddlewaretoken": token})
    head = [
        "POST /axes/unlock/ HTTP/1.1",
        "Host: 127.0.0.1",
        "Connection: close",
        "Content-Type: application/x-www-form-urlencoded",
        f"Content-Length: {len(body)}",
        f"Cookie: csrftoken={page.cookies['csrftoken']}",
    ]
    with socket.create_connection(("127.0.0.1", web.port), timeout=PATIENCE / 2) as connection:
        connection.sendall("\r\n".join([*head, "", body]).encode())
        with connection.makefile("rb") as answer:
            return answer.read()


def test_the_end_of_the_connection_does_not_tell_whether_a_mail_is_sent(
    alice: User, start_web: Callable[..., Web]
) -> None:
    User.objects.filter(pk=alice.pk).update(email="alice@example.com")
    web = start_web(
        "threads",
        AXES_UNLOCK_BY_MAIL=True,
        CELERY_BROKER_URL=None,
        EMAIL_BACKEND="tests.attacks.standing_site.StandingMail",
    )
    for number in range(1, LIMIT + 1):
        web.let_go(number)
        web.post("/sync/", "wrong")
    assert ask_to_the_end(web, "nobody").startswith(b"HTTP/1.1 200 ")
    assert ask_to_the_end(web, "alice").startswith(b"HTTP/1.1 200 ")
    until(lambda: web.looked_at() == LIMIT + 1, what="the mail is being sent")
    web.let_go()


def nobody_but_a_mail_address(username: str) -> str | None:
    return username if "@" in username else None


@pytest.mark.parametrize(
    ("username", "canonicalizer"), [("\u3164", None), ("guest", f"{__name__}.nobody_but_a_mail_address")]
)
def test_a_link_works_for_an_owner_whose_username_is_none_to_the_counters(
    client: Client, settings: Any, monkeypatch: pytest.MonkeyPatch, username: str, canonicalizer: str | None
) -> None:
    monkeypatch.setitem(current_app.conf, "task_always_eager", True)
    settings.ROOT_URLCONF, settings.AXES_UNLOCK_BY_MAIL = "tests.attacks.standing_site", True
    settings.AXES_USERNAME_CANONICALIZER = canonicalizer
    User.objects.create_user(username, email="owner@example.com")
    for _ in range(4):
        failure("owner@example.com", "127.0.0.1")
    client.post("/axes/unlock/", {"username": "owner@example.com"})
    (link,) = re.findall(r"http://testserver(/\S+)", str(mail.outbox[0].body))
    assert client.post(link).status_code == 200
    assert failure("owner@example.com", "127.0.0.1")
