"""Whose account a name means, as its owner is told of a lockout."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from celery import current_app
from django.contrib.auth.models import User
from django.core import mail
from django.db import IntegrityError, transaction

from axes_async.tasks.notify import notify
from axes_async.tasks.projection import news
from tests.actions import failure

Drain = Callable[[], int]

pytestmark = [pytest.mark.django_db, pytest.mark.database]


@pytest.fixture(autouse=True)
def _site(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(current_app.conf, "task_always_eager", True)
    settings.AXES_STORE, settings.AXES_NOTIFY, settings.AXES_NOTIFY_OWNER = "database", ["ops@example.com"], True
    settings.AXES_LOCKOUT_RULES = [{"parameters": ["username"], "limit": 3}]


@pytest.fixture
def told(drain: Drain) -> Callable[..., list[str]]:
    """Return a function that tells of lockouts of names, and returns the addresses of the owners that hear of it."""

    def tell(*names: str) -> list[str]:
        for name in names:
            for _ in range(3):
                failure(name)
        drain()
        notify()
        addresses = [to for sent in mail.outbox for to in sent.to]
        assert addresses[0] == "ops@example.com"
        return sorted(addresses[1:])

    return tell


Told = Callable[..., list[str]]


@pytest.mark.parametrize(
    ("username", "tried"), [("Alice", "alice"), ("alice", "ALICE"), ("Alice", "\uff21lice"), ("alice", "alice\u200b")]
)
def test_an_owner_is_told_however_the_name_was_spelt(told: Told, username: str, tried: str) -> None:
    User.objects.create_user(username, email="owner@example.com")
    assert told(tried) == ["owner@example.com"]


def test_a_mail_shows_what_cannot_be_seen_in_a_name(told: Told) -> None:
    User.objects.create_user("al\x1b[31mice\u202e", email="owner@example.com")
    told("al\x1b[31mice\u202e")
    assert "username: al\\x1b[31mice\\u202e\n" in mail.outbox[-1].body


def test_an_owner_is_told_however_the_address_was_spelt(told: Told) -> None:
    User.objects.create_user("carl", email="Carl.Smith@example.com")
    assert told("carl.SMITH@example.com") == ["Carl.Smith@example.com"]


def test_a_name_that_some_databases_take_for_another_keeps_nobody_from_being_told(told: Told) -> None:
    for name in ("alice", "Bob"):
        User.objects.create_user(name, email=f"{name}@example.com")
    assert told("alic\u00e9", "\U0001f600", "BOB") == ["Bob@example.com"]


def test_a_username_is_meant_before_the_address_of_another(told: Told) -> None:
    User.objects.create_user("vic@example.com", email="own@example.com")
    User.objects.create_user("mallory", email="Vic@example.com")
    assert told("vic@example.com") == ["own@example.com"]


def test_a_username_of_somebody_inactive_is_not_the_address_of_another(told: Told) -> None:
    User.objects.create_user("vic@example.com", email="own@example.com", is_active=False)
    User.objects.create_user("mallory", email="vic@example.com")
    assert told("vic@example.com") == []


@pytest.mark.parametrize(("tried", "owners"), [("Alice", ["1@example.com"]), ("ALICE", [])])
def test_of_names_that_differ_in_case_the_one_that_was_typed_is_meant(
    told: Told, tried: str, owners: list[str]
) -> None:
    User.objects.create_user("alice", email="0@example.com")
    try:
        with transaction.atomic():
            User.objects.create_user("Alice", email="1@example.com")
    except IntegrityError:
        pytest.skip("This database takes them for one.")
    assert told(tried) == owners


def test_a_flood_of_lockouts_still_tells_owners_whose_names_were_typed_as_they_are(
    told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(news, "ANY_CASE", 0)
    for name in ("alice", "bob"):
        User.objects.create_user(name, email=f"{name}@example.com")
    assert told("alice", "bob", "carol") == ["alice@example.com", "bob@example.com"]


def refuse(name: str) -> str:
    """Canonicalise no name, as a site's own function does that has an error."""
    raise RuntimeError(name)


def test_operators_are_told_though_no_owner_can_be_looked_for(told: Told, settings: Any, drain: Drain) -> None:
    User.objects.create_user("alice", email="alice@example.com")
    for _ in range(3):
        failure("alice")
    drain()
    settings.AXES_USERNAME_CANONICALIZER = refuse
    assert told() == []
