"""Names that are numbers in the database: what is typed may be no number, or one that no column takes."""

from __future__ import annotations

from typing import Any

import pytest
from celery import current_app
from django.core import mail

from axes_async.tasks.drain import drain
from axes_async.tasks.notify import notify
from axes_async.tasks.unlock_mail import unlock_mail
from tests.actions import failure
from tests.ways_in.numbers.models import Customer

pytestmark = [pytest.mark.django_db]

TOO_LARGE = "99999999999999999999"
URL = "http://testserver/axes/unlock/"


@pytest.fixture(autouse=True)
def five(db: None, monkeypatch: pytest.MonkeyPatch) -> Customer:
    """Return the customer with the number 5."""
    monkeypatch.setitem(current_app.conf, "task_always_eager", True)
    return Customer.objects.create(number=5, email="five@example.com")


def lock(*names: str) -> None:
    for name in names:
        for _ in range(3):
            failure(name)


def told() -> list[str]:
    return sorted(to for sent in mail.outbox for to in sent.to)


@pytest.mark.parametrize("names", [["5"], ["abc", "5"], [TOO_LARGE, "5"], ["-" + TOO_LARGE, "5", "1.5", "1e999"]])
def test_names_that_are_no_number_of_the_column_keep_nobody_from_being_told(names: list[str]) -> None:
    lock(*names)
    drain()
    notify()
    assert told() == ["five@example.com", "ops@example.com"]


@pytest.mark.parametrize("name", ["5", "05", "\u0665", "FIVE@example.com"])
def test_a_link_is_sent_for_each_spelling_of_the_number_and_for_the_address(name: str) -> None:
    lock("5")
    unlock_mail(name, URL, "en")
    assert told() == ["five@example.com"]


@pytest.mark.parametrize("name", [TOO_LARGE, "abc", "nobody@example.com"])
def test_what_no_number_is_gets_no_link(name: str) -> None:
    lock(name)
    unlock_mail(name, URL, "en")
    assert told() == []


def test_a_new_password_is_saved_and_unlocks(five: Customer, django_capture_on_commit_callbacks: Any) -> None:
    lock("5")
    five.set_password("new")
    with django_capture_on_commit_callbacks(execute=True):
        five.save()
    assert Customer.objects.get().check_password("new")
    assert failure("5")
