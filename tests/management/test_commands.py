"""Lifting lockouts, by command and by code: what was to go is gone, what was not is not."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any

import pytest
import redis
import time_machine
from celery.signals import task_retry
from django.core.management import CommandError, call_command
from django.db import OperationalError as DatabaseOperationalError
from django.db import connection, transaction
from django.test import RequestFactory, override_settings

from axes_async import signals
from axes_async.errors import StoreUnavailable
from axes_async.management import reset_command
from axes_async.management.commands import axes_list_attempts
from axes_async.models import AccessAttempt, AccessFailureLog, AccessReset, AttemptCounter
from axes_async.tasks.expire import expire
from axes_async.tasks.reset import reset as reset_task
from axes_async.utils import reset, reset_request
from tests import servers
from tests.celery import app
from tests.labels import label
from tests.management.actions import BOTH, A, B, C, Fail, GetsIn, run

Drain = Callable[[], int]
NO_STORE = {"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": "redis://127.0.0.1:1/0"}}

pytestmark = [pytest.mark.django_db, pytest.mark.database]


@pytest.mark.parametrize("drained", [True, False])
def test_a_reset_of_everything_lifts_every_lockout(fail: Fail, gets_in: GetsIn, drain: Drain, drained: bool) -> None:
    fail("alice", A)
    fail("bob", B)
    if drained:
        drain()
    assert run("axes_reset") == "2 attempts removed.\n"
    assert gets_in("alice", A)
    assert gets_in("bob", B)


def test_without_attempts_a_reset_says_so() -> None:
    assert run("axes_reset") == run("axes_reset", A) == run("axes_reset", "--dry-run") == "No attempts found.\n"


def test_a_failure_that_was_not_written_before_a_reset_cannot_lock_after_it(
    fail: Fail, gets_in: GetsIn, drain: Drain
) -> None:
    fail("alice", A, 5)
    run("axes_reset")
    drain()
    assert not AccessAttempt.objects.exists()
    assert gets_in("alice", A)
    assert fail("alice", A) == [401, 401, 429]


@pytest.mark.parametrize("spelling", [A, f"{A}:8080", f"::ffff:{A}", f" {A} "])
def test_a_reset_of_an_address_lifts_its_lockout_alone(fail: Fail, gets_in: GetsIn, spelling: str) -> None:
    fail("alice", A)
    fail("alice", B)
    assert run("axes_reset", spelling) == "1 attempts removed.\n"
    assert gets_in("alice", A)
    assert not gets_in("alice", B)


def test_a_reset_of_several_addresses_lifts_each(fail: Fail, gets_in: GetsIn) -> None:
    for address in (A, B, C):
        fail("alice", address)
    run("axes_reset", A, B)
    assert [gets_in("alice", address) for address in (A, B, C)] == [True, True, False]


def test_a_reset_of_an_ipv6_address_is_one_of_its_network(fail: Fail, gets_in: GetsIn) -> None:
    fail("alice", "2001:db8::1", 2)
    fail("alice", "2001:db8::2", 1)
    assert not gets_in("alice", "2001:db8::3")
    run("axes_reset", "2001:db8::4")
    assert gets_in("alice", "2001:db8::3")


@override_settings(AXES_LOCKOUT_PARAMETERS=["username"])
@pytest.mark.parametrize("spelling", ["alice", "ALICE", " Alice ", "\uff21lice"])
def test_a_reset_of_a_name_lifts_its_lockout_in_any_spelling(fail: Fail, gets_in: GetsIn, spelling: str) -> None:
    fail("Alice", A)
    fail("bob", A)
    run("axes_reset", "--username", spelling)
    assert gets_in("alice", C)
    assert not gets_in("bob", C)


@override_settings(AXES_LOCKOUT_PARAMETERS=["username", "ip_address"])
def test_names_and_addresses_of_one_command_are_resets_of_their_own(fail: Fail, gets_in: GetsIn) -> None:
    fail("alice", A)
    fail("bob", B)
    run("axes_reset", B, "--username", "alice", "nobody")
    assert gets_in("alice", A)
    assert gets_in("bob", B)


def test_a_dry_run_says_what_would_go_and_lifts_nothing(fail: Fail, gets_in: GetsIn, drain: Drain) -> None:
    fail("alice", A)
    fail("bob", B)
    drain()
    assert run("axes_reset", A, "--dry-run") == "1 attempts would be removed.\n"
    assert run("axes_reset", "--dry-run", "--queue") == "2 attempts would be removed.\n"
    assert not gets_in("alice", A)
    assert not AccessReset.objects.exists()


@override_settings(AXES_LOCKOUT_PARAMETERS=BOTH)
@pytest.mark.parametrize(
    ("command", "opened"),
    [
        (["axes_reset"], {("alice", A), ("alice", B), ("bob", A), ("bob", B)}),
        (["axes_reset_ip", A], {("alice", A), ("bob", A)}),
        (["axes_reset_ip", A, B], {("alice", A), ("alice", B), ("bob", A), ("bob", B)}),
        (["axes_reset_username", "alice"], {("alice", A), ("alice", B)}),
        (["axes_reset_username", "alice", "bob"], {("alice", A), ("alice", B), ("bob", A), ("bob", B)}),
        (["axes_reset_ip_username", A, "alice"], {("alice", A)}),
        (["axes_reset_ip_username", C, "alice"], set()),
    ],
    ids=label,
)
def test_each_reset_command_lifts_what_it_names_and_counts_it(
    fail: Fail, gets_in: GetsIn, command: list[str], opened: set[tuple[str, str]]
) -> None:
    clients = [(name, address) for name in ("alice", "bob") for address in (A, B)]
    for client in clients:
        fail(*client)
    assert run(*command, "--dry-run") == (
        f"{len(opened)} attempts would be removed.\n" if opened else "No attempts found.\n"
    )
    assert run(*command) == (f"{len(opened)} attempts removed.\n" if opened else "No attempts found.\n")
    assert {client for client in clients if gets_in(*client)} == opened


ODD_NAMES = [
    "o'brien; DROP TABLE users", 'say "hi"', "100%_*?[a-z]", "a b  c", "back\\slash", "\u0130stanbul", "\U0001f600",
    "tab\tin\nit", "a\x00b", "-rf", "--dry-run", "x" * 300, "@file", "{name}",
]  # fmt: skip


@override_settings(AXES_LOCKOUT_PARAMETERS=["username"])
@pytest.mark.parametrize("command", [["axes_reset_username"], ["axes_reset_ip_username", A]], ids=str)
def test_a_name_with_odd_characters_is_reset_like_any_other(fail: Fail, gets_in: GetsIn, command: list[str]) -> None:
    assert fail("bob", A)[-1] == 429
    for name in ODD_NAMES:
        assert fail(name, A)[-1] == 429, ascii(name)
        assert run(*command, "--", name) == "1 attempts removed.\n", ascii(name)
        assert fail(name, B, 1) == [401], ascii(name)
        assert not gets_in("bob", C), ascii(name)


@pytest.mark.parametrize(("setting", "queue"), [(None, "celery"), ("logins", "logins")])
def test_a_queued_reset_prints_its_id_and_waits_for_a_worker(
    fail: Fail, gets_in: GetsIn, setting: str | None, queue: str
) -> None:
    fail("alice", A)
    with override_settings(AXES_CELERY_QUEUE=setting):
        task_id = run("axes_reset", A, "--queue").strip()
    with redis.Redis.from_url(servers.valkey_url(1)) as broker:
        messages = [json.loads(message)["headers"] for message in broker.lrange(queue, 0, -1)]
    assert [message["task"] for message in messages if message["id"] == task_id] == ["axes_async.reset"]
    assert not gets_in("alice", A)


def test_without_a_store_a_reset_fails_clearly_and_changes_nothing(fail: Fail, gets_in: GetsIn) -> None:
    fail("alice", A)
    with override_settings(CACHES=NO_STORE, AXES_ON_STORE_FAILURE="deny"):
        with pytest.raises(CommandError):
            run("axes_reset")
        with pytest.raises(StoreUnavailable):
            reset()
    assert not gets_in("alice", A)


def test_a_worker_resets_when_the_store_is_back(fail: Fail, gets_in: GetsIn, settings: Any) -> None:
    fail("alice", A)
    ours = settings.CACHES

    def come_back(**told: Any) -> None:
        settings.CACHES = ours

    settings.CACHES, settings.AXES_ON_STORE_FAILURE = NO_STORE, "deny"
    task_retry.connect(come_back)
    try:
        assert reset_task.apply(kwargs={"ip": A}).get() == 1
    finally:
        task_retry.disconnect(come_back)
    assert gets_in("alice", A)


@pytest.mark.parametrize(
    "command",
    [["axes_reset"], ["axes_reset", "--dry-run"], ["axes_reset_logs"], ["axes_sync"], ["axes_list_attempts"]],
    ids=" ".join,
)
def test_without_a_database_a_command_says_so_in_a_line(command: list[str]) -> None:
    def away(*args: Any) -> None:
        raise DatabaseOperationalError("no such table")

    with connection.execute_wrapper(away), pytest.raises(CommandError, match="The database cannot be used: no such"):
        run(*command)


def test_a_reset_keeps_who_asked_for_it_and_why(fail: Fail, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reset_command, "getuser", lambda: "helen")
    fail("alice", A)
    fail("bob", B)
    run("axes_reset_ip", A, "--reason", "called the helpdesk")
    run("axes_reset")
    done = AccessReset.objects.order_by("pk").values_list("by", "reason", "ip_address", "attempts")
    assert list(done) == [("helen", "called the helpdesk", A, 1), ("helen", "", None, 1)]


@pytest.mark.parametrize("error", [KeyError("uid not found"), OSError("No username set in the environment")], ids=str)
def test_a_user_without_a_name_is_noted_by_number(
    fail: Fail, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def no_name() -> str:
        raise error

    monkeypatch.setattr(reset_command, "getuser", no_name)
    fail("alice", A)
    run("axes_reset")
    assert AccessReset.objects.get().by == f"uid {os.getuid()}"


def test_code_may_say_who_asked_for_a_reset_and_why(fail: Fail) -> None:
    fail("alice", A)
    assert reset(ip=A, reason="a support form", by="helen") == 1
    done = AccessReset.objects.get()
    assert (done.by, done.reason, done.scope) == ("helen", "a support form", "both")


def test_a_reason_that_is_too_long_is_refused(fail: Fail, gets_in: GetsIn) -> None:
    fail("alice", A)
    with pytest.raises(CommandError, match="255"):
        run("axes_reset", "--reason", "x" * 256)
    assert not gets_in("alice", A)


def test_rows_made_by_hand_are_listed_and_reset() -> None:
    AccessAttempt.objects.create(username="Alice", ip_address=A, failures_since_start=3)
    AccessAttempt.objects.bulk_create([AccessAttempt(username="bob", ip_address=B, failures_since_start=1)])
    assert sorted(run("axes_list_attempts").splitlines()) == [f"{B}\tbob\t1\t-", f"{A}\tAlice\t3\t-"]
    assert run("axes_reset_username", "ALICE") == "1 attempts removed.\n"
    assert run("axes_reset_ip", B) == "1 attempts removed.\n"
    assert not AccessAttempt.objects.exists()


@override_settings(AXES_COOLOFF_TIME=timedelta(minutes=1), AXES_RESET_COOL_OFF_ON_FAILURE_DURING_LOCKOUT=True)
@pytest.mark.parametrize("logged", [True, False])
def test_a_lockout_that_was_prolonged_is_still_shown_and_lifted(
    fail: Fail, gets_in: GetsIn, drain: Drain, logged: bool
) -> None:
    with (
        override_settings(AXES_ENABLE_ACCESS_FAILURE_LOG=logged),
        time_machine.travel(datetime(2030, 1, 1, tzinfo=UTC), tick=False) as clock,
    ):
        fail("alice", A)
        clock.shift(50)
        fail("alice", A)
        clock.shift(20)
        drain()
        expire()
        assert not gets_in("alice", A)
        assert run("axes_reset") == "1 attempts removed.\n"
        assert gets_in("alice", A)


def test_attempts_are_listed_one_a_line_the_latest_first(fail: Fail, drain: Drain) -> None:
    fail("alice", A, 1)
    fail("bob", B, 2)
    drain()
    assert run("axes_list_attempts") == f"{B}\tbob\t2\t-\n{A}\talice\t1\t-\n"


@pytest.mark.parametrize(
    ("rules", "ends"),
    [
        ({}, "until a reset"),
        ({"AXES_COOLOFF_TIME": timedelta(minutes=5)}, "until 2030-01-01 00:06:00 UTC"),
        (
            {"AXES_LOCKOUT_TIERS": [(3, timedelta(minutes=10)), (6, timedelta(hours=1))]},
            "until 2030-01-01 00:11:00 UTC",
        ),
        (
            {"AXES_USE_ATTEMPT_EXPIRATION": True, "AXES_COOLOFF_TIME": timedelta(minutes=7)},
            "until 2030-01-01 00:07:00 UTC",
        ),
        (
            {"AXES_LOCKOUT_RULES": [
                {"parameters": "ip_address", "limit": 3, "cooloff": timedelta(minutes=2)},
                {"parameters": "username", "limit": 3, "cooloff": timedelta(minutes=9)},
            ]},
            "until 2030-01-01 00:10:00 UTC",
        ),
    ],
    ids=["no cool-off", "cool-off", "tiers", "window", "two rules"],
)  # fmt: skip
def test_the_list_says_what_is_locked_and_until_when(
    fail: Fail, drain: Drain, rules: dict[str, Any], ends: str
) -> None:
    with override_settings(**rules), time_machine.travel(datetime(2030, 1, 1, tzinfo=UTC), tick=False) as clock:
        fail("bob", B, 1)
        fail("alice", A, 1)
        clock.shift(60)
        fail("alice", A, 2)
        drain()
        assert set(run("axes_list_attempts").splitlines()) == {f"{A}\talice\t3\t{ends}", f"{B}\tbob\t1\t-"}


def test_an_attempt_that_shares_a_locked_counter_is_listed_as_locked(fail: Fail, drain: Drain) -> None:
    fail("alice", A, 2)
    fail("bob", A, 1)
    drain()
    assert [line.split("\t")[3] for line in run("axes_list_attempts").splitlines()] == ["until a reset"] * 2


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


def test_a_person_sees_columns_under_headings(fail: Fail, drain: Drain) -> None:
    fail("alice", A, 3)
    fail("somebody.else", B, 1)
    drain()
    shown = Terminal()
    call_command("axes_list_attempts", stdout=shown)
    assert shown.getvalue() == (
        "ADDRESS       USERNAME       FAILURES  LOCKED\n"
        "198.51.100.8  somebody.else  1         -\n"
        "203.0.113.7   alice          3         until a reset\n"
    )


@pytest.mark.django_db(transaction=True)
def test_failures_that_no_worker_has_written_are_told(fail: Fail, drain: Drain) -> None:
    fail("alice", A, 2)
    told = StringIO()
    call_command("axes_list_attempts", stdout=StringIO(), stderr=told)
    assert told.getvalue() == "2 events are not in this list yet: a worker has still to write them.\n"
    drain()
    call_command("axes_list_attempts", stdout=StringIO(), stderr=(told := StringIO()))
    assert told.getvalue() == ""


def test_a_store_that_is_away_is_told_below_the_list(fail: Fail, drain: Drain) -> None:
    fail("alice", A, 1)
    drain()
    told = StringIO()
    with override_settings(CACHES=NO_STORE):
        call_command("axes_list_attempts", stdout=(listed := StringIO()), stderr=told)
    assert listed.getvalue() == f"{A}\talice\t1\t-\n"
    assert "The store cannot be read" in told.getvalue()


def test_a_long_list_is_read_in_portions(
    monkeypatch: pytest.MonkeyPatch, django_assert_num_queries: Callable[..., Any]
) -> None:
    monkeypatch.setattr(axes_list_attempts, "PORTION", 2)
    for number in range(5):
        AccessAttempt.objects.create(username=f"user{number}", ip_address=A, failures_since_start=1)
    # Three portions and the lockouts of each, what has failed meanwhile, and what is not written yet.
    with django_assert_num_queries(8) as asked:
        assert [line.split("\t")[1] for line in run("axes_list_attempts").splitlines()] == [
            f"user{number}" for number in (4, 3, 2, 1, 0)
        ]
    attempts = [query["sql"] for query in asked.captured_queries if "failures_since_start" in query["sql"]]
    assert sum("LIMIT 2" in sql for sql in attempts) == 4


def test_an_attempt_that_fails_while_it_would_be_listed_is_not_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(axes_list_attempts, "PORTION", 1)
    last = AccessAttempt.objects.create(username="alice", ip_address=A, failures_since_start=1)
    AccessAttempt.objects.create(username="bob", ip_address=B, failures_since_start=1)

    class Screen(StringIO):
        def write(self, text: str) -> int:
            AccessAttempt.objects.filter(pk=last.pk).update(attempt_time=datetime.now(UTC) + timedelta(hours=1))
            return super().write(text)

    screen = Screen()
    call_command("axes_list_attempts", stdout=screen)
    assert [line.split("\t")[1] for line in screen.getvalue().splitlines()] == ["bob", "alice"]


@override_settings(AXES_COOLOFF_TIME=timedelta(minutes=5))
def test_an_attempt_that_has_cooled_off_is_not_listed(fail: Fail, drain: Drain) -> None:
    fail("alice", A, 1)
    drain()
    with time_machine.travel(datetime.now(UTC) + timedelta(minutes=6)):
        assert run("axes_list_attempts") == ""


@pytest.mark.parametrize(
    ("name", "shown"), [("a\x1b[2J\tb\r\nc", r"a\x1b[2J\tb\r\nc"), ("\u202eevil", r"\u202eevil"), ("\u00e9", "\u00e9")]
)
def test_a_listed_name_cannot_command_the_terminal(fail: Fail, drain: Drain, name: str, shown: str) -> None:
    fail(name, A, 1)
    drain()
    assert run("axes_list_attempts") == f"{A}\t{shown}\t1\t-\n"


@pytest.mark.parametrize(
    ("arguments", "opened"),
    [
        ({}, {("alice", A), ("alice", B), ("bob", A), ("bob", B)}),
        ({"ip": A}, {("alice", A), ("bob", A)}),
        ({"username": "alice"}, {("alice", A), ("alice", B)}),
        ({"ip": A, "username": "alice"}, {("alice", A)}),
        ({"ip": A, "username": "alice", "ip_or_username": True}, {("alice", A), ("alice", B), ("bob", A)}),
        ({"ip": C}, set()),
        ({"username": "nobody"}, set()),
    ],
    ids=label,
)
@override_settings(AXES_LOCKOUT_PARAMETERS=BOTH)
def test_a_reset_reaches_the_counters_of_a_combination(
    fail: Fail, gets_in: GetsIn, arguments: dict[str, Any], opened: set[tuple[str, str]]
) -> None:
    clients = [(name, address) for name in ("alice", "bob") for address in (A, B)]
    for client in clients:
        assert fail(*client)[-1] == 429
    assert reset(**arguments) == len(opened)
    assert {client for client in clients if gets_in(*client)} == opened


@override_settings(AXES_LOCKOUT_PARAMETERS=["ip_address", "username"])
def test_a_reset_takes_back_from_the_other_rules_only_what_it_removed(
    fail: Fail, gets_in: GetsIn, drain: Drain
) -> None:
    fail("alice", A, 2)
    fail("alice", B, 1)
    assert not gets_in("alice", C)
    assert reset(ip=A) == 1
    assert gets_in("alice", C)
    assert fail("alice", C, 2) == [401, 429], "the failure from the other address still counts"


def test_a_reset_of_one_name_leaves_an_address_the_failures_of_the_others(fail: Fail, gets_in: GetsIn) -> None:
    fail("alice", A, 2)
    fail("bob", A, 1)
    assert reset(ip=A, username="alice") == 1
    assert gets_in("alice", A)
    assert fail("bob", A, 2) == [401, 429]


@pytest.mark.parametrize("arguments", [{"ip": "garbage"}, {"ip": ""}, {"username": ""}, {"username": "  "}], ids=str)
def test_what_names_nobody_resets_nobody(fail: Fail, gets_in: GetsIn, arguments: dict[str, Any]) -> None:
    fail("alice", A)
    with pytest.raises(ValueError, match=r"is not an IP address|is empty"):
        reset(**arguments)
    assert not gets_in("alice", A)


@override_settings(AXES_LOCKOUT_PARAMETERS=["ip_address", "username"])
def test_each_lifted_lockout_is_announced_once(
    fail: Fail, django_capture_on_commit_callbacks: Callable[..., Any]
) -> None:
    told: list[tuple[Any, ...]] = []

    def hear(parameters: list[str], username: str | None, ip_address: str | None, **kwargs: Any) -> None:
        told.append((tuple(parameters), username, ip_address))

    signals.user_unlocked.connect(hear)
    fail("alice", A)
    with django_capture_on_commit_callbacks(execute=True):
        reset()
        reset()
    assert sorted(told) == [(("ip_address",), None, A), (("username",), "alice", None)]


def test_a_reset_in_a_transaction_that_is_rolled_back_loses_no_event(fail: Fail, drain: Drain) -> None:
    fail("alice", A, 2)
    with suppress(RuntimeError), transaction.atomic():
        reset(ip=B)
        raise RuntimeError
    drain()
    assert AccessFailureLog.objects.count() == 2
    assert AccessAttempt.objects.get().failures_since_start == 2


@pytest.mark.parametrize(
    ("rules", "opened"),
    [
        (["ip_address"], {("alice", A), ("bob", A)}),
        (["username"], {("alice", A), ("alice", B)}),
        (BOTH, {("alice", A)}),
        (["ip_address", "username"], {("alice", A)}),
    ],
    ids=label,
)
def test_a_reset_of_a_request_reaches_what_the_rules_count_of_its_client(
    fail: Fail, gets_in: GetsIn, rf: RequestFactory, rules: list[Any], opened: set[tuple[str, str]]
) -> None:
    with override_settings(AXES_LOCKOUT_PARAMETERS=rules):
        for name in ("alice", "bob"):
            for address in (A, B):
                fail(name, address)
        request = rf.post("/", {"username": "alice"}, REMOTE_ADDR=A)
        reset_request(request)
        got_in = {(n, a) for n in ("alice", "bob") for a in (A, B) if gets_in(n, a)}
    assert got_in == opened


def test_a_reset_of_a_request_that_no_rule_counts_resets_nobody(
    fail: Fail, gets_in: GetsIn, rf: RequestFactory
) -> None:
    fail("alice", A)
    with override_settings(AXES_LOCKOUT_PARAMETERS=["user_agent"]):
        assert reset_request(rf.post("/", {"username": "alice"}, REMOTE_ADDR=A)) == 0
    assert not gets_in("alice", A)


def test_a_request_may_name_the_user_in_its_query(fail: Fail, gets_in: GetsIn, rf: RequestFactory) -> None:
    with override_settings(AXES_LOCKOUT_PARAMETERS=["username"]):
        fail("alice", A)
        assert reset_request(rf.get("/?username=ALICE", REMOTE_ADDR=C)) == 1
        assert gets_in("alice", A)


@pytest.mark.parametrize("url", ["/", "/?username=", "/?username=%20"])
def test_a_request_of_nobody_resets_nobody(fail: Fail, gets_in: GetsIn, rf: RequestFactory, url: str) -> None:
    fail("alice", A)
    assert reset_request(rf.get(url, REMOTE_ADDR="")) == 0
    assert not gets_in("alice", A)


def test_a_lockout_in_a_plain_cache_is_lifted_as_well(
    fail: Fail, gets_in: GetsIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(app.conf, "task_always_eager", True)
    with override_settings(AXES_CACHE="memory"):
        assert fail("alice", A)[-1] == 429
        assert AttemptCounter.objects.get().failures == 3
        assert run("axes_reset", A) == "1 attempts removed.\n"
        assert gets_in("alice", A)
