"""Moving over from django-axes and django-defender: who was locked is locked, nothing is lost, nothing counts twice."""

from __future__ import annotations

import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

import pytest
import redis
import time_machine
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client, override_settings

from axes_async.client.identity import client_of
from axes_async.conf import get_settings
from axes_async.login.rules_in_force import counters_of
from axes_async.management.commands import axes_import
from axes_async.models import AccessAttempt, AccessFailureLog, AccessLog, AttemptCounter, DrainCursor
from axes_async.receivers import LOGIN_ID
from axes_async.stores.contract import Store
from axes_async.stores.redis.store import RedisStore
from axes_async.tasks.expire import expire
from axes_async.tasks.importing import counts, importer
from axes_async.tasks.importing.sources import MOST_FAILURES
from axes_async.tasks.reset import reset
from axes_async.tasks.sync import sync_store
from tests import old_tables
from tests.actions import failure, request_from
from tests.labels import label
from tests.tasks.importing.old_site import COMMITS, NOON, attempts, move, tries

Drain = Callable[[], int]
Post = Callable[..., Any]

pytestmark = [
    pytest.mark.django_db(transaction=COMMITS),
    pytest.mark.database,
    pytest.mark.usefixtures("_tables_go", "_noon"),
]

A, B, C = "203.0.113.7", "198.51.100.8", "192.0.2.9"
BOTH: list[Any] = [["ip_address", "username"]]
NO_STORE = {"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": "redis://127.0.0.1:1/0"}}


GetsIn = Callable[..., bool]


def everything() -> list[Any]:
    """Return all that the import may write, but for the times at which it did."""
    written: list[Any] = []
    for model in (AccessAttempt, AccessLog, AccessFailureLog, AttemptCounter):
        names = [field.name for field in model._meta.fields if field.name not in {"id", "changed_at", "since"}]
        written.append(sorted(model._default_manager.values_list(*names), key=str))
    return written


@pytest.mark.usefixtures("_axes")
def test_a_client_that_was_locked_is_locked_and_one_that_was_not_is_not(gets_in: GetsIn, post: Post) -> None:
    attempts({"ip_address": A, "failures_since_start": 3}, {"ip_address": B, "failures_since_start": 2})
    assert move() == (
        "axes_accessattempt: 2 rows read: 2 attempts.\naxes_accesslog: nothing new.\n"
        "axes_accessfailurelog: nothing new.\n1 lockouts in force.\n"
    )
    assert not gets_in(A)
    assert gets_in(B)
    assert post(REMOTE_ADDR=B).status_code == 429, "the third failure locks"
    assert gets_in(C)


@pytest.mark.usefixtures("_axes")
def test_time_at_the_end_of_all_times_stops_no_import(gets_in: GetsIn) -> None:
    attempts({"ip_address": B, "failures_since_start": 3}, at=datetime.max.replace(tzinfo=UTC))
    attempts({"ip_address": A, "failures_since_start": 3})
    move()
    assert not gets_in(A)


@pytest.mark.usefixtures("_axes")
@pytest.mark.parametrize("command", [["axes_reset"], ["axes_reset_ip", A], ["axes_reset_username", "alice"]], ids=str)
def test_a_lockout_that_was_imported_can_be_lifted(gets_in: GetsIn, command: list[str], drain: Drain) -> None:
    attempts({"ip_address": A, "failures_since_start": 30})
    move()
    call_command(*command, stdout=io.StringIO())
    drain()
    assert gets_in(A)
    move()
    assert gets_in(A), "it is not imported again"


@pytest.mark.usefixtures("_axes")
@pytest.mark.parametrize(
    ("rules", "locked"),
    [
        (["ip_address"], {("alice", A), ("bob", A)}),
        (["username"], {("alice", A), ("alice", B)}),
        (BOTH, {("alice", A)}),
        (["ip_address", "username"], {("alice", A), ("alice", B), ("bob", A)}),
    ],
    ids=label,
)
def test_failures_count_under_the_rules_of_the_settings(
    post: Post, rules: list[Any], locked: set[tuple[str, str]]
) -> None:
    attempts(*({"ip_address": A, "user_agent": agent} for agent in ("one", "two", "three")))
    with override_settings(AXES_LOCKOUT_PARAMETERS=rules):
        move()
        clients = [(name, address) for name in ("alice", "bob") for address in (A, B)]
        turned_away = {c for c in clients if post(c[0], REMOTE_ADDR=c[1]).status_code == 429}
    assert turned_away == locked


@pytest.mark.usefixtures("_axes")
@override_settings(AXES_COOLOFF_TIME=timedelta(minutes=10), AXES_LOCKOUT_PARAMETERS=["username"])
def test_a_lockout_ends_when_its_cool_off_does(clock: time_machine.Coordinates, gets_in: GetsIn) -> None:
    attempts({"ip_address": A, "failures_since_start": 3}, at=NOON - timedelta(minutes=9))
    attempts({"username": "bob", "failures_since_start": 3}, at=NOON - timedelta(minutes=10))
    assert move().startswith("axes_accessattempt: 2 rows read: 1 attempts, 1 attempts whose cool-off is over.\n")
    assert AccessAttempt.objects.get().username == "alice"
    clock.shift(59)
    assert not gets_in(B)
    clock.shift(1)
    assert gets_in(B)


@pytest.mark.usefixtures("_axes")
@override_settings(AXES_COOLOFF_TIME=timedelta(minutes=10))
def test_an_expiration_of_django_axes_prolongs_what_counts(clock: time_machine.Coordinates, gets_in: GetsIn) -> None:
    attempts({"ip_address": A, "failures_since_start": 3}, at=NOON - timedelta(minutes=11))
    old_tables.expire(1, NOON + timedelta(minutes=5))
    move()
    assert AccessAttempt.objects.get().expires_at == NOON + timedelta(minutes=5)
    clock.shift(299)
    assert not gets_in(A)
    clock.shift(1)
    assert gets_in(A)


@pytest.mark.usefixtures("_axes")
def test_without_a_cool_off_old_failures_count_for_ever(gets_in: GetsIn) -> None:
    attempts({"ip_address": A, "failures_since_start": 3}, at=NOON - timedelta(days=3000))
    old_tables.expire(1, NOON - timedelta(days=2999))
    move()
    assert not gets_in(A)


@pytest.mark.usefixtures("_axes")
def test_logs_are_copied_with_all_that_we_keep_of_them() -> None:
    out = NOON - timedelta(minutes=5)
    old_tables.insert(
        "axes_accesslog",
        {"session_hash": "ab" * 32, "logout_time": out},
        {"username": None, "ip_address": None, "user_agent": "<unknown>", "path_info": "<unknown>"},
        at=NOON - timedelta(hours=1),
    )
    old_tables.insert("axes_accessfailurelog", {"locked_out": True}, {"ip_address": "2001:db8::1"}, at=NOON)
    assert "axes_accesslog: 2 rows read: 2 logins.\naxes_accessfailurelog: 2 rows read: 2 failures.\n" in move()
    first, second = AccessLog.objects.order_by("pk")
    assert (first.username, first.ip_address, first.user_agent, first.http_accept, first.path_info) == (
        "alice", "192.0.2.1", "tests", "text/html", "/sign-in/",
    )  # fmt: skip
    assert (first.attempt_time, first.logout_time, first.session_hash) == (NOON - timedelta(hours=1), out, "ab" * 32)
    assert (second.username, second.ip_address, second.user_agent, second.path_info) == (None, None, "", "")
    logs = AccessFailureLog.objects.order_by("pk").values_list("locked_out", "ip_address", "repeats")
    assert list(logs) == [(True, "192.0.2.1", 0), (False, "2001:db8::1", 0)]


@pytest.mark.usefixtures("_axes")
def test_a_login_that_django_axes_has_seen_gets_its_logout_here(
    alice: User, client: Client, drain: Drain, clock: time_machine.Coordinates
) -> None:
    client.force_login(alice)
    session = client.session
    del session[LOGIN_ID]
    session.save()
    AccessLog.objects.all().delete()
    seen = sha256(str(session.session_key).encode()).hexdigest()
    old_tables.insert("axes_accesslog", {"session_hash": seen}, {"session_hash": "of another"}, at=NOON)
    move()
    clock.shift(60)
    client.logout()
    drain()
    outs = AccessLog.objects.exclude(session_hash="").order_by("pk").values_list("session_hash", "logout_time")
    assert dict(outs) == {seen: NOON + timedelta(minutes=1), "of another": None}


@pytest.mark.usefixtures("_axes")
@pytest.mark.parametrize("lost", [False, True], ids=["", "the mark is lost"])
def test_a_second_run_changes_nothing(valkey: redis.Redis, lost: bool) -> None:
    attempts(*({"ip_address": A, "user_agent": agent} for agent in ("one", "two", "three")))
    old_tables.insert("axes_accesslog", {}, {}, at=NOON)
    old_tables.insert("axes_accessfailurelog", {}, {}, at=NOON)
    move()
    before = everything()
    if lost:
        DrainCursor.objects.filter(name__startswith="import:").delete()
        with connection.cursor() as cursor:
            cursor.execute("DELETE FROM axes_accessattempt")
    assert [line.partition(": ")[2] for line in move().splitlines()[1 if lost else 0 : 3]] == (
        ["2 rows read: nothing to keep."] * 2 if lost else ["nothing new."] * 3
    )
    assert everything() == before


@pytest.mark.usefixtures("_axes")
def test_a_million_failures_of_a_locked_client_count_as_what_locks_it(gets_in: GetsIn, drain: Drain) -> None:
    attempts({"ip_address": A, "failures_since_start": 1_000_000})
    move()
    attempts({"ip_address": A, "failures_since_start": 1_000_000, "user_agent": "another"})
    move()
    row = AttemptCounter.objects.get()
    assert row.failures == 1000
    assert sum(AccessAttempt.objects.values_list("failures_since_start", flat=True)) == 2_000_000
    assert not gets_in(A)
    drain()
    assert reset(ip=A) == 2
    assert gets_in(A)


@pytest.mark.usefixtures("_axes")
def test_a_later_run_copies_what_is_new(gets_in: GetsIn) -> None:
    attempts({"ip_address": A, "failures_since_start": 2})
    move()
    attempts({"ip_address": A, "username": "bob"})
    assert "axes_accessattempt: 1 rows read: 1 attempts.\n" in move()
    assert not gets_in(A)
    assert AttemptCounter.objects.get().failures == 3


@pytest.mark.usefixtures("_axes")
def test_a_run_that_is_killed_in_the_middle_goes_on(gets_in: GetsIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importer, "PORTION", 2)
    attempts(*({"ip_address": A, "user_agent": f"agent {number}"} for number in range(9)))
    write, portions = counts.Counts.write, []

    def killed(self: Any) -> None:
        write(self)
        portions.append(1)
        if len(portions) == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(counts.Counts, "write", killed)
        with pytest.raises(KeyboardInterrupt):
            move()
    assert AccessAttempt.objects.count() == 4
    assert not gets_in(A), "what is written holds already"
    assert "axes_accessattempt: 5 rows read: 5 attempts.\n" in move()
    assert AttemptCounter.objects.get().failures == 9
    assert not gets_in(A)


@pytest.mark.usefixtures("_axes")
def test_a_run_that_is_killed_before_its_sync_is_made_good_by_the_next(
    gets_in: GetsIn, drain: Drain, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts({"ip_address": A, "failures_since_start": 2})
    with monkeypatch.context() as killed:
        killed.setattr(axes_import.Command, "_sync", lambda self: None)
        move()
    assert AttemptCounter.objects.get().dirty
    failure("alice", A)
    assert gets_in(A)
    assert "axes_accessattempt: nothing new.\n" in move()
    assert not AttemptCounter.objects.get().dirty
    assert not gets_in(A)


@pytest.mark.usefixtures("_axes")
def test_what_a_killed_run_has_left_reaches_the_store_with_the_next_drain(
    gets_in: GetsIn, drain: Drain, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts({"ip_address": A, "failures_since_start": 3})
    with monkeypatch.context() as killed:
        killed.setattr(axes_import.Command, "_sync", lambda self: None)
        move()
    drain()
    assert not gets_in(A)


@pytest.mark.usefixtures("_axes")
def test_a_dry_run_says_what_would_be_copied_and_changes_nothing(
    gets_in: GetsIn, redis_store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = redis_store.key()
    monkeypatch.setattr(importer, "PORTION", 2)
    attempts(*({"ip_address": A, "user_agent": agent} for agent in ("one", "two", "three")))
    old_tables.insert("axes_accesslog", {}, {}, {}, at=NOON)
    assert move("--dry-run") == (
        "axes_accessattempt: 3 rows would be read: 3 attempts.\naxes_accesslog: 3 rows would be read: 3 logins.\n"
        "axes_accessfailurelog: nothing new.\n"
    )
    assert everything() == [[], [], [], []]
    assert not DrainCursor.objects.filter(name__startswith="import:").exists()
    assert redis_store.key() == key
    assert gets_in(A)


@pytest.mark.usefixtures("_axes")
@pytest.mark.parametrize("drained", [True, False])
def test_what_has_counted_here_meanwhile_is_added(gets_in: GetsIn, drain: Drain, drained: bool) -> None:
    failure("alice", A)
    if drained:
        drain()
    attempts({"ip_address": A, "failures_since_start": 2, "user_agent": "tests"})
    move()
    assert not gets_in(A)
    assert AccessAttempt.objects.get().failures_since_start == 3
    assert reset(ip=A) == 1
    assert gets_in(A)


@pytest.mark.usefixtures("_axes")
def test_failures_after_a_reset_of_ours_are_not_taken_back_by_it(gets_in: GetsIn, drain: Drain) -> None:
    for _ in range(3):
        failure("alice", A)
    reset()
    failure("alice", A)
    attempts({"ip_address": A, "failures_since_start": 1})
    move()
    assert gets_in(A)
    failure("alice", A)
    assert not gets_in(A)


ODD = [
    {"username": "x" * 255}, {"username": ""}, {"username": "  "}, {"username": None}, {"ip_address": None},
    {"username": None, "ip_address": None}, {"username": "\U0001f600\u202e\u0130"}, {"username": "tab\tand\nline"},
    {"user_agent": "y" * 255}, {"user_agent": ""}, {"http_accept": "z" * 1025}, {"failures_since_start": 2**31 - 1},
    {"failures_since_start": 0}, {"ip_address": "2001:db8::1"}, {"ip_address": "::ffff:192.0.2.5"},
    {"username": "%s {0} $1 'quoted' \\"},
]  # fmt: skip
ODDER = [
    {"username": "x" * 3000}, {"username": "a\x00b"}, {"ip_address": "unknown"}, {"ip_address": ""},
    {"ip_address": "192.0.2.1:80"}, {"ip_address": "q" * 300}, {"failures_since_start": -1},
    {"failures_since_start": 2**40}, {"user_agent": "\x00" * 255}, {"path_info": "p" * 4000},
]  # fmt: skip
"""What a database without types lets in."""


@pytest.mark.usefixtures("_axes")
def test_odd_values_lose_nothing_and_break_nothing(drain: Drain) -> None:
    odd = [*ODD, *(ODDER if connection.vendor == "sqlite" else [])]
    rows: list[dict[str, Any]] = [{"user_agent": f"agent {number}", **row} for number, row in enumerate(odd)]
    attempts(*rows)
    of_logs = [{name: value for name, value in row.items() if name != "failures_since_start"} for row in rows]
    old_tables.insert("axes_accesslog", *of_logs, {"session_hash": "s" * 64}, at=NOON)
    old_tables.insert("axes_accessfailurelog", *of_logs, at=NOON)
    move()
    assert AccessLog.objects.count() == len(rows) + 1
    assert AccessFailureLog.objects.count() == len(rows)
    counted = [failures for row in rows if (failures := min(MOST_FAILURES, row.get("failures_since_start", 1))) > 0]
    assert sorted(AccessAttempt.objects.values_list("failures_since_start", flat=True)) == sorted(counted)
    before = everything()
    move()
    assert everything() == before
    failure("alice", "192.0.2.200")
    drain()


@pytest.mark.usefixtures("_axes")
@override_settings(AXES_LOCKOUT_PARAMETERS=["username"])
@pytest.mark.parametrize("spelling", ["ALICE", " alice ", "\uff21lice"])
def test_spellings_of_one_name_are_one_client(gets_in: GetsIn, spelling: str) -> None:
    attempts({"username": spelling, "failures_since_start": 2}, {"username": "alice"})
    move()
    assert not gets_in(C)


@pytest.mark.usefixtures("_axes")
@override_settings(AXES_LOCKOUT_PARAMETERS=[["ip_address", "user_agent"]])
def test_a_client_without_an_agent_stays_itself(post: Post) -> None:
    attempts({"ip_address": A, "user_agent": "<unknown>", "failures_since_start": 3})
    move()
    assert post(REMOTE_ADDR=A).status_code == 429
    assert post(REMOTE_ADDR=A, headers={"User-Agent": "other"}).status_code == 401


@pytest.mark.parametrize(
    ("table", "without"),
    [
        ("axes_accesslog", ["session_hash"]),
        ("axes_accesslog", ["session_hash", "logout_time", "http_accept"]),
        ("axes_accessfailurelog", ["locked_out"]),
        ("axes_accessattempt", ["get_data", "post_data"]),
    ],
    ids=label,
)
def test_columns_that_an_older_version_lacks_are_not_missed(table: str, without: list[str]) -> None:
    old_tables.create(table, without=without)
    old_tables.insert(table, dict.fromkeys(without, ...), at=NOON)
    assert move().startswith(f"{table}: 1 rows read: 1 ")


def test_a_table_that_cannot_be_understood_is_refused() -> None:
    old_tables.create("axes_accessattempt", without=["failures_since_start"])
    with pytest.raises(CommandError, match="axes_accessattempt has no column failures_since_start"):
        move()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "has none of the tables axes_accessattempt, .*defender_accessattempt"),
        (["--from", "defender"], "has none of the tables defender_accessattempt"),
        (["--from", "fail2ban"], "invalid choice"),
        (["--database", "old"], "DATABASES has no entry 'old'; it has default"),
    ],
    ids=label,
)
def test_where_there_is_nothing_to_import_it_says_so(arguments: list[str], message: str) -> None:
    with pytest.raises(CommandError, match=message):
        move(*arguments)


@pytest.mark.usefixtures("_axes")
def test_only_the_package_that_is_asked_for_is_read() -> None:
    old_tables.create("defender_accessattempt")
    assert "axes" not in move("--from", "defender")
    assert "defender" not in move("--from", "axes")
    assert "defender" in move()


@override_settings(AXES_COOLOFF_TIME=timedelta(minutes=5))
def test_the_tries_of_defender_become_logs_and_failures_that_count(gets_in: GetsIn) -> None:
    old_tables.create("defender_accessattempt")
    tries({"ip_address": A}, ago=timedelta(minutes=6))
    tries({"ip_address": A}, {"ip_address": A}, {"ip_address": B, "username": "bob", "login_valid": True})
    assert move() == (
        "defender_accessattempt: 4 rows read: 2 attempts, 1 attempts whose cool-off is over, 1 logins, 3 failures.\n"
        "0 lockouts in force.\n"
    )
    assert AccessLog.objects.get().username == "bob"
    tries({"ip_address": A, "username": "bob"})
    assert move().endswith("1 lockouts in force.\n")
    assert not gets_in(A)
    assert AccessFailureLog.objects.count() == 4


@override_settings(AXES_LOCKOUT_PARAMETERS=["username"])
def test_in_defender_a_login_takes_back_the_failures_before_it(gets_in: GetsIn, post: Post) -> None:
    old_tables.create("defender_accessattempt")
    tries({}, {}, {"username": "ALICE", "login_valid": True}, {"username": "alice", "login_valid": True}, {}, {})
    tries({"username": "bob", "login_valid": True}, {"username": "alice", "ip_address": B, "login_valid": True})
    move()
    assert AccessFailureLog.objects.count() == 4
    assert AccessAttempt.objects.get().failures_since_start == 2
    assert gets_in(C)
    post(REMOTE_ADDR=C)
    assert not gets_in(C)


@pytest.mark.usefixtures("_axes")
@override_settings(AXES_ACCESS_LOG_AGE=30, AXES_ACCESS_FAILURE_LOG_AGE=1)
def test_log_rows_that_the_purge_would_delete_are_left_out() -> None:
    for days in (40, 20, 0):
        old_tables.insert("axes_accesslog", {}, at=NOON - timedelta(days=days))
        old_tables.insert("axes_accessfailurelog", {}, at=NOON - timedelta(days=days))
    told = move()
    assert "axes_accesslog: 3 rows read: 2 logins, 1 log rows past their age.\n" in told
    assert "axes_accessfailurelog: 3 rows read: 1 failures, 2 log rows past their age.\n" in told


@pytest.mark.usefixtures("_axes")
def test_with_the_store_away_the_next_drain_brings_it_there(gets_in: GetsIn, drain: Drain) -> None:
    attempts({"ip_address": A, "failures_since_start": 3})
    with override_settings(CACHES=NO_STORE):
        assert "1 lockouts in force." in move()
    drain()
    assert not gets_in(A)


@pytest.mark.usefixtures("_axes")
@pytest.mark.parametrize("cache", ["memory", "table"])
@override_settings(AXES_COOLOFF_TIME=timedelta(minutes=10))
def test_a_plain_cache_gets_the_counters_too(
    gets_in: GetsIn, post: Post, clock: time_machine.Coordinates, cache: str
) -> None:
    call_command("createcachetable")
    attempts({"ip_address": A, "failures_since_start": 30}, {"ip_address": B, "failures_since_start": 2})
    with override_settings(AXES_CACHE=cache):
        move()
        move()
        assert not gets_in(A)
        assert gets_in(B)
        assert post(REMOTE_ADDR=B).status_code == 429
        assert reset(ip=A) == 1
        assert gets_in(A)
        clock.shift(timedelta(minutes=10))
        assert gets_in(B)


@pytest.mark.usefixtures("_axes")
@override_settings(AXES_STORE="database")
def test_where_the_database_is_the_store_nothing_is_left_to_sync(gets_in: GetsIn, post: Post, drain: Drain) -> None:
    attempts({"ip_address": A, "failures_since_start": 30}, {"ip_address": B, "failures_since_start": 2})
    assert move().endswith("1 lockouts in force.\n")
    assert not AttemptCounter.objects.filter(dirty=True).exists()
    assert [gets_in(A), gets_in(B)] == [False, True]
    assert post(REMOTE_ADDR=B).status_code == 429
    drain()
    assert reset(ip=A) == 1
    assert gets_in(A)


@pytest.mark.usefixtures("_axes")
def test_a_reset_of_everything_that_was_interrupted_takes_nothing_of_the_import(
    gets_in: GetsIn, drain: Drain, monkeypatch: pytest.MonkeyPatch
) -> None:
    failure("alice", B)
    drain()
    with monkeypatch.context() as killed:
        killed.setattr("axes_async.tasks.reset.delete_void", lambda using: None)
        reset()
    attempts({"ip_address": A, "failures_since_start": 3})
    move()
    expire()
    assert AccessAttempt.objects.get().ip_address == A
    assert not gets_in(A)


@pytest.mark.usefixtures("_axes")
def test_two_thousand_clients_move_over_in_portions(gets_in: GetsIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importer, "PORTION", 300)
    attempts(
        *(
            {"ip_address": f"10.0.{n // 250}.{n % 250}", "username": f"user{n}", "failures_since_start": n % 5}
            for n in range(2000)
        )
    )
    assert "axes_accessattempt: 2000 rows read: 1600 attempts.\n" in (told := move())
    assert told.endswith("800 lockouts in force.\n")
    assert [gets_in(f"10.0.4.{n}") for n in range(10)] == [True, True, True, False, False] * 2


class Terminal(io.StringIO):
    """What a person looks at."""

    def isatty(self) -> bool:
        """Say so."""
        return True


@pytest.mark.usefixtures("_axes")
def test_a_person_sees_how_far_it_is_and_a_log_file_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importer, "PORTION", 500)
    attempts(*({"user_agent": f"agent {number}"} for number in range(1250)))
    shown, logged = Terminal(), io.StringIO()
    call_command("axes_import", "--dry-run", stdout=io.StringIO(), stderr=shown)
    call_command("axes_import", stdout=io.StringIO(), stderr=logged)
    first_line = shown.getvalue().split("\n")[0]
    states = [state.split("]")[1].strip() for state in first_line.split("\r")[1:]]
    assert states == ["500 of 1,250", "1,000 of 1,250", "1,250 of 1,250"]
    assert logged.getvalue() == ""


@pytest.mark.django_db(transaction=True)
@override_settings(AXES_FAILURE_LIMIT=100_000, AXES_LOCKOUT_PARAMETERS=["ip_address", "username"])
def test_beside_logins_and_drains_every_failure_counts_once(
    store: Store, drain: Drain, monkeypatch: pytest.MonkeyPatch
) -> None:
    if connection.vendor == "sqlite":
        pytest.skip("a database in memory has one connection")
    monkeypatch.setattr(importer, "PORTION", 10)
    old_tables.create("axes_accessattempt")
    try:
        attempts(
            *({"ip_address": A, "user_agent": f"agent {number}", "failures_since_start": 2} for number in range(300))
        )

        def fail() -> None:
            for _ in range(40):
                failure("alice", A)
            connection.close()

        def drain_now_and_then() -> None:
            for _ in range(20):
                drain()
            connection.close()

        with ThreadPoolExecutor(5) as pool:
            done = [pool.submit(work) for work in (fail, fail, fail, drain_now_and_then)]
            move()
            for work in done:
                work.result()
        drain()
    finally:
        with connection.cursor() as cursor:
            cursor.execute("DROP TABLE axes_accessattempt")
    counters = counters_of(get_settings(), None, None, client_of(request_from(A), "alice"))
    assert sync_store(store)
    assert [state.failures for state in store.states(counters)] == [720, 720]
    assert [row.failures for row in AttemptCounter.objects.all()] == [720, 720]
    assert sum(AccessAttempt.objects.values_list("failures_since_start", flat=True)) == 720


@pytest.mark.usefixtures("_axes")
@pytest.mark.parametrize("cache", ["default", "memory"])
def test_failures_are_taken_over_into_tiers_and_windows(
    settings: Any, post: Post, clock: time_machine.Coordinates, cache: str, drain: Drain
) -> None:
    settings.AXES_CACHE = cache
    settings.AXES_LOCKOUT_TIERS = [(3, timedelta(minutes=5)), (6, timedelta(hours=1))]
    attempts(
        {"ip_address": A, "failures_since_start": 4},
        {"ip_address": B, "failures_since_start": 2},
        {"ip_address": C, "failures_since_start": 7},
    )
    assert "2 lockouts in force" in move()
    assert [post(REMOTE_ADDR=address).status_code for address in (A, B, C)] == [429, 429, 429]
    clock.shift(301)
    drain()
    assert [post(REMOTE_ADDR=A).status_code for _ in range(3)] == [401, 429, 429]
    assert [post(REMOTE_ADDR=B).status_code for _ in range(3)] == [401, 401, 429]
    assert post(REMOTE_ADDR=C).status_code == 429
    clock.shift(3600)
    assert [post(REMOTE_ADDR=address).status_code for address in (A, C)] == [429, 429], "the last tier again"


@pytest.mark.usefixtures("_axes")
@pytest.mark.parametrize("cache", ["default", "memory"])
def test_failures_are_taken_over_into_a_window(
    settings: Any, post: Post, clock: time_machine.Coordinates, cache: str
) -> None:
    settings.AXES_CACHE = cache
    settings.AXES_USE_ATTEMPT_EXPIRATION, settings.AXES_COOLOFF_TIME = True, timedelta(minutes=10)
    attempts({"ip_address": A, "failures_since_start": 40}, {"ip_address": B, "failures_since_start": 2})
    assert "1 lockouts in force" in move()
    clock.shift(60)
    assert [post(REMOTE_ADDR=A).status_code for _ in range(2)] == [429, 429]
    assert [post(REMOTE_ADDR=B).status_code for _ in range(2)] == [429, 429]
    clock.shift(481)
    assert [post(REMOTE_ADDR=A).status_code for _ in range(3)] == [401, 401, 429]
    assert [post(REMOTE_ADDR=B).status_code for _ in range(3)] == [401, 429, 429]
