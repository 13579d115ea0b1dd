"""Entries of the outbox that are no events, or hold what no row takes: each is set aside, and nothing waits for it."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
import redis
from django.core.management import call_command

from axes_async.clock import now_ms
from axes_async.counters.events import AttemptEvent, CounterChange, Kind, new_id
from axes_async.models import AccessAttempt, AccessFailureLog, AccessLog, AttemptCounter, OutboxEvent
from axes_async.stores.redis.store import RedisStore
from axes_async.tasks.write_one import write
from tests.actions import failure
from tests.tasks.agreement import in_store_and_rows

Drain = Callable[[], int]

pytestmark = pytest.mark.django_db(transaction=True)

DIGEST = "A" * 22
NOW = 1_777_636_800_000


def entry(*, outcome: str = f"0|{NOW}|{DIGEST}:1:1:3:0", **parts: Any) -> bytes:
    """Return a failure on the wire with some parts of its body replaced; ``None`` leaves a part out."""
    body = json.loads(
        AttemptEvent(Kind.FAILED, new_id(NOW), "mallory", "192.0.2.66", "agent", "*/*", "/sign-in/").body()
    )
    names = ("kind", "id", "username", "ip_address", "user_agent", "http_accept", "path_info", "extra")
    whole = {**dict(zip(names, body, strict=False)), **parts}
    return f"{outcome} {json.dumps([part for part in whole.values() if part is not None])}".encode()


def change(text: str) -> bytes:
    return entry(outcome=f"0|{NOW}|{text}")


POISON = {
    "nothing": b"",
    "not UTF-8": b"\xff\xfe\x00",
    "no JSON": b"0|0 {",
    "a number": b"0|0 7",
    "an object": b'0|0 {"kind": "failed"}',
    "a million levels": b"0|0 " + b"[" * 1_000_000,
    "a thousand levels in a name": entry(username="@").replace(b'"@"', b"[" * 1000 + b"]" * 1000),
    "a thousand levels beside it": entry(extra={"session": "@"}).replace(b'"@"', b"[" * 900 + b"]" * 900),
    "a million digits for a name": entry(username="@").replace(b'"@"', b"9" * 1_000_000),
    "a million digits for a time": entry(outcome=f"0|{'9' * 1_000_000}"),
    "a name that is a list": entry(username=["alice"]),
    "a name that is a number": entry(username=7),
    "a name that is true": entry(username=True),
    "a name with NUL": entry(username="al\x00ice"),
    "a name with half a character": entry(username="al\ud800ice"),
    "a name of a million characters": entry(username="x" * 1_000_000),
    "an agent that is an object": entry(user_agent={"a": 1}),
    "a path with NUL": entry(path_info="\x00"),
    "an address that is none": entry(ip_address="999.999.999.999"),
    "an address with NUL": entry(ip_address="192.0.2.1\x00"),
    "an unknown kind": entry(kind="promoted"),
    "a kind that is a list": entry(kind=["failed"]),
    "an id that is no UUID": entry(id="nonsense"),
    "an id that is a number": entry(id=7),
    "an id that is not ASCII": entry(id="é" * 22),
    "no path": entry(path_info=None),
    "all but the kind missing": b'0|0 ["failed"]',
    "more than it may have": entry(extra=[1, 2, 3]),
    "a session that is a list": entry(kind="logged_in", extra={"session": ["x"]}),
    "a session that is too long": entry(kind="logged_in", extra={"session": "x" * 1000}),
    "a login that is a number": entry(kind="logged_out", extra={"login": 7}),
    "a login that is no UUID": entry(kind="logged_out", extra={"login": "nonsense"}),
    "a session of a logout that is an object": entry(kind="logged_out", extra={"session": {}}),
    "an address for want of one that is a number": entry(ip_address=None, extra={"address": 7}).replace(
        b'"mallory"', b'"mallory", null'
    ),
    "a digest that is too long": change(f"{DIGEST * 2}:1:1:3:0"),
    "a digest that is too short": change("A:1:1:3:0"),
    "no digest": change(":1:1:3:0"),
    "a digest with NUL": change(f"{DIGEST[:-1]}\x00:1:1:3:0"),
    "a digest with a comma and a quote": change("A,B'\"{}\\" + "A" * 14 + ":1:1:3:0"),
    "a digest of another alphabet": change(f"{'é' * 22}:1:1:3:0"),
    "numbers that are none": change(f"{DIGEST}:one:1:3:0"),
    "too few numbers": change(f"{DIGEST}:1"),
    "too many numbers": change(f"{DIGEST}:1:1:3:0:0:0:0:0"),
    "a counter of nothing": change(f"{DIGEST}:0:1:3:0"),
    "a counter of nothing that is cleared": change(f"{DIGEST}:0:2:3:0"),
    "a counter of an unknown value": change(f"{DIGEST}:8:1:3:0"),
    "a counter of less than nothing": change(f"{DIGEST}:-1:1:3:0"),
    "a limit beyond all columns": change(f"{DIGEST}:1:1:{10**30}:0"),
    "a limit below zero": change(f"{DIGEST}:1:1:-3:0"),
    "an end beyond the calendar": change(f"{DIGEST}:1:1:3:{10**18}"),
    "an end before the calendar": change(f"{DIGEST}:1:1:3:{-(10**18)}"),
    "a lockout beyond the calendar": change(f"{DIGEST}:1:1:3:0:{10**15}"),
    "a time beyond the calendar": entry(outcome=f"0|{10**18}"),
    "a time beyond all clocks": entry(outcome=f"0|{10**30}"),
    "a time of the id beyond the calendar": entry(outcome="0|0", id="/" * 22),
    "repetitions beyond all columns": entry(kind="blocked", outcome=f"{10 * 2**40}|{NOW}"),
    "repetitions below zero": entry(kind="blocked", outcome=f"-7|{NOW}"),
}


def people_fail() -> None:
    for number in range(3):
        failure(f"user{number}", f"198.51.100.{number}")


def check_people(*, times: int) -> None:
    """Check that what people did is written, and no more."""
    assert AccessFailureLog.objects.filter(username__startswith="user").count() == 3 * times
    attempts = AccessAttempt.objects.filter(username__startswith="user")
    counters = AttemptCounter.objects.filter(ip_address__startswith="198.51.100.")
    assert list(attempts.values_list("failures_since_start", flat=True)) == [times] * 3
    assert list(counters.values_list("failures", flat=True)) == [times] * 3


def check_agreement(store: RedisStore) -> None:
    stored, rows = in_store_and_rows(store)
    assert stored == rows


@pytest.mark.parametrize("poison", POISON.values(), ids=POISON)
def test_poison_is_set_aside_and_what_people_did_before_and_after_it_is_written(
    drain: Drain, redis_store: RedisStore, poison: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    people_fail()
    redis_store.client.xadd(redis_store.outbox_key, {"e": poison}, id="1-*")
    people_fail()
    assert drain() == 7
    assert redis_store.size().events == 0
    check_people(times=2)
    check_agreement(redis_store)
    assert not AccessAttempt.objects.filter(username="mallory").exists()
    (letter,) = redis_store.dead_letters("0-0", 10)
    assert letter.entry == poison or len(letter.entry) > 20
    people_fail()
    assert drain() == 3
    call_command("axes_dead_letters")
    (line,) = capsys.readouterr().out.splitlines()
    assert line.replace("\t", "").isprintable()


FIELDS = {
    "another field": {"v1": "[", "c": ""},
    "the field and another one": {"e": entry(), "f": "x"},
    "a field that is not UTF-8": {b"\xff": b"\xfe"},
    "a field without a name": {"": ""},
    "a thousand fields": {f"field{number}": number for number in range(1000)},
}


@pytest.mark.parametrize("fields", FIELDS.values(), ids=FIELDS)
def test_an_entry_with_other_fields_is_set_aside(drain: Drain, redis_store: RedisStore, fields: dict[Any, Any]) -> None:
    people_fail()
    redis_store.client.xadd(redis_store.outbox_key, fields, id="1-*")
    people_fail()
    assert drain() == 7
    assert redis_store.size().events == 0
    check_people(times=2)
    assert len(redis_store.dead_letters("0-0", 10)) == 1


def test_all_of_it_at_once_and_put_back_leaves_what_people_did(drain: Drain, redis_store: RedisStore) -> None:
    def letters() -> int:
        return len(redis_store.dead_letters("0-0", 1000))

    people_fail()
    for poison in POISON.values():
        redis_store.client.xadd(redis_store.outbox_key, {"e": poison}, id="1-*")
    people_fail()
    assert drain() == len(POISON) + 6
    assert letters() == len(POISON)
    call_command("axes_dead_letters", "--retry", stdout=io.StringIO())
    drain()
    assert letters() == len(POISON)
    check_people(times=2)
    check_agreement(redis_store)


@pytest.mark.parametrize("poison", POISON.values(), ids=POISON)
def test_poison_in_the_table_and_in_a_message_stops_nobody(
    drain: Drain, redis_store: RedisStore, poison: bytes
) -> None:
    text = poison.decode(errors="replace").replace("\x00", "")
    OutboxEvent.objects.create(event_id=uuid4(), wire=text)
    people_fail()
    write(text)
    people_fail()
    drain()
    assert not OutboxEvent.objects.exists()
    check_people(times=2)


def test_an_event_that_is_sent_twice_is_written_once(drain: Drain, redis_store: RedisStore) -> None:
    twice = AttemptEvent(Kind.FAILED, new_id(now_ms()), "alice", "192.0.2.1")
    done = twice.applied([CounterChange(DIGEST, ("ip_address",), 3, counted=True)], at=now_ms())
    for _ in range(2):
        redis_store.client.xadd(redis_store.outbox_key, {"e": done.wire()}, id="1-*")
    people_fail()
    drain()
    assert AccessFailureLog.objects.filter(username="alice").count() == 1
    assert AttemptCounter.objects.get(digest=DIGEST).failures == 1
    assert redis_store.dead_letters("0-0", 10) == []
    assert not AccessLog.objects.exists()


def test_poison_that_a_full_store_cannot_keep_is_logged_and_holds_up_nothing(
    drain: Drain, redis_store: RedisStore, valkey: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    people_fail()
    redis_store.client.xadd(redis_store.outbox_key, {"e": "no \x1b[2J event"}, id="1-*")
    people_fail()
    valkey.config_set("maxmemory-policy", "noeviction")
    valkey.config_set("maxmemory", "1mb")
    try:
        assert drain() == 7
        check_people(times=2)
        assert redis_store.size().events == 0
        assert redis_store.dead_letters("0-0", 10) == []
    finally:
        valkey.config_set("maxmemory", "0")
    assert r"no \x1b[2J event" in caplog.text
