"""The rows by themselves: made by hand as with django-axes, and asked which counters lock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import IntegrityError, transaction
from django.utils import timezone

from axes_async.client.keys import attempt_key, ip_address_key, keys_of, user_agent_key, username_key
from axes_async.clock import as_ms
from axes_async.counters.events import AttemptEvent, Kind, new_id
from axes_async.models import AccessAttempt, AccessFailureLog, AccessLog, AttemptCounter, StoreState
from tests.labels import label

pytestmark = [pytest.mark.django_db, pytest.mark.database]

A, B = "203.0.113.7", "198.51.100.8"
NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
AGENT = "curl/8"


def attempt(**values: Any) -> AccessAttempt:
    """Make a row as a site that knew django-axes does."""
    given = {"username": "alice", "ip_address": A, "user_agent": AGENT, "failures_since_start": 3}
    return AccessAttempt.objects.create(**{**given, **values})


def test_attempt_made_by_hand_needs_only_client_and_failures() -> None:
    row = AccessAttempt.objects.create(username="alice", ip_address=A, failures_since_start=1)
    row.refresh_from_db()
    assert (row.user_agent, row.http_accept, row.path_info, row.expires_at) == ("", "", "", None)
    assert timedelta() <= timezone.now() - row.attempt_time < timedelta(minutes=1)
    assert timedelta() <= timezone.now() - row.first_attempt_time < timedelta(minutes=1)


def test_keys_of_row_made_by_hand_are_those_of_events() -> None:
    event = AttemptEvent(kind=Kind.FAILED, id=new_id(0), username="Alice", ip_address=A, user_agent=AGENT)
    row = attempt(username="Alice")
    row.refresh_from_db()
    assert row.key == attempt_key(event)
    assert {name: getattr(row, f"{name}_key") for name in keys_of(event)} == keys_of(event)


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ({"username": None}, ("", ip_address_key(A), user_agent_key(AGENT))),
        ({"ip_address": None}, (username_key("alice"), "", user_agent_key(AGENT))),
        ({"user_agent": ""}, (username_key("alice"), ip_address_key(A), user_agent_key(""))),
        ({"username": "ALICE "}, (username_key("alice"), ip_address_key(A), user_agent_key(AGENT))),
        ({"ip_address": "2001:db8::1"}, (username_key("alice"), ip_address_key("2001:db8::2"), user_agent_key(AGENT))),
    ],
    ids=["no name", "no address", "no agent", "spelling", "network"],
)
def test_keys_are_those_of_canonical_values(values: dict[str, Any], found: tuple[str, ...]) -> None:
    row = attempt(**values)
    assert (row.username_key, row.ip_address_key, row.user_agent_key) == found


def test_rows_created_in_bulk_have_keys() -> None:
    rows = [AccessAttempt(username=name, ip_address=A, failures_since_start=1) for name in ("alice", "bob")]
    AccessAttempt.objects.bulk_create(rows)
    assert AccessAttempt.objects.get(username_key=username_key("BOB")).username == "bob"
    assert AccessAttempt.objects.filter(ip_address_key=ip_address_key(A)).values("key").distinct().count() == 2


@pytest.mark.parametrize("fields", [None, ["username"], {"username", "path_info"}], ids=label)
def test_keys_change_with_the_name_whatever_fields_are_saved(fields: Any) -> None:
    row = attempt()
    before = row.key
    row.username = "bob"
    row.save(update_fields=fields)
    row.refresh_from_db()
    assert row.username_key == username_key("bob")
    assert row.key != before


def test_row_that_is_there_is_updated_by_update_or_create() -> None:
    attempt()
    client = {"username": "alice", "ip_address": A, "user_agent": AGENT}
    row, made = AccessAttempt.objects.update_or_create(**client, defaults={"failures_since_start": 9})
    assert (made, row.failures_since_start, AccessAttempt.objects.count()) == (False, 9, 1)


def test_keys_of_what_was_no_address_stay_when_the_row_is_saved() -> None:
    event = AttemptEvent(kind=Kind.FAILED, id=new_id(0), username="alice", extra={"address": "unix:"}, user_agent=AGENT)
    named = {f"{name}_key": key for name, key in keys_of(event).items()}
    row = attempt(ip_address=None, key=attempt_key(event), **named)
    row.failures_since_start = 4
    row.save()
    row.refresh_from_db()
    assert (row.key, row.ip_address_key) == (attempt_key(event), named["ip_address_key"])


@pytest.mark.parametrize("values", [{}, {"username": None}, {"ip_address": None}], ids=str)
def test_second_row_of_a_client_is_refused(values: dict[str, Any]) -> None:
    attempt(**values)
    with pytest.raises(IntegrityError), transaction.atomic():
        attempt(**values)
    attempt(**values, user_agent="another")
    assert AccessAttempt.objects.count() == 2


def test_logs_made_by_hand_need_no_event() -> None:
    logs = [AccessLog.objects.create(username="alice", ip_address=A) for _ in range(2)]
    AccessFailureLog.objects.bulk_create(AccessFailureLog(username="alice", ip_address=A) for _ in range(2))
    failures = AccessFailureLog.objects.all()
    assert len({row.event_id for row in (*logs, *failures)}) == 4
    for row in (*logs, *failures):
        assert row.event_id.version == 7
        assert timedelta() <= timezone.now() - row.attempt_time < timedelta(minutes=1)


def test_texts_begin_as_those_of_django_axes() -> None:
    who = {"username": "alice", "ip_address": A, "attempt_time": NOON}
    assert str(attempt(attempt_time=NOON)) == f"Attempted Access: {NOON}, 3 × alice @ {A}"
    assert str(AccessLog(**who)) == f"Access Log for alice @ {NOON}"
    assert str(AccessFailureLog(**who)) == f"Failed access: alice @ {A}, {NOON}"
    assert str(AccessFailureLog(**who, locked_out=True)) == f"Failed access: alice @ {A}, {NOON}, locked out"
    assert "a\u202eb" not in str(AccessLog(username="a\u202eb"))


def counter(**values: Any) -> None:
    """Make the row of a counter that is locked at noon, but for ``values``."""
    given: dict[str, Any] = {"digest": "d", "parameters": 1, "failures": 3, "limit": 3, "changed_at": NOON}
    AttemptCounter.objects.create(**{**given, **values})


def locked(at: datetime) -> bool:
    return AttemptCounter.objects.locked(at).exists()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, True),
        ({"failures": 2}, False),
        ({"failures": 4}, True),
        ({"failures": 0, "limit": 0}, False),
        ({"limit": 0}, False),
        ({"limit": 2**31 - 1}, False),
        ({"limit": 2**31 - 1, "ends": "1", "failures": 1}, False),
        ({"expires_at": NOON + timedelta(seconds=1)}, True),
        ({"expires_at": NOON}, False),
        ({"expires_at": NOON + timedelta(hours=1), "locked_until": NOON + timedelta(seconds=1)}, True),
        ({"expires_at": NOON + timedelta(hours=1), "locked_until": NOON}, False),
    ],
    ids=str,
)
def test_counter_is_locked_at_its_limit_while_its_time_lasts(values: dict[str, Any], expected: bool) -> None:
    counter(**values)
    assert locked(NOON) is expected


@pytest.mark.parametrize("others", [0, 1, 5])
def test_counter_with_a_window_is_locked_until_fewer_failures_are_left_than_its_limit(others: int) -> None:
    until = NOON + timedelta(minutes=10)
    ends = [*[NOON] * others, until, until + timedelta(minutes=1), until + timedelta(minutes=2)]
    counter(failures=len(ends), ends=",".join(str(as_ms(end)) for end in ends), expires_at=ends[-1])
    assert [locked(until - timedelta(milliseconds=1)), locked(until)] == [True, False]


def test_counter_of_a_voided_generation_is_not_locked() -> None:
    counter(generation=7)
    assert locked(NOON)
    StoreState.objects.update_or_create(pk=1, defaults={"generation": 8, "void_generation": 6})
    assert locked(NOON)
    StoreState.objects.update(void_generation=7)
    assert not locked(NOON)
