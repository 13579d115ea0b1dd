"""The self-test in this process: every link that may be broken is told, and nothing of others is touched."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import current_app
from django.contrib.auth.models import User
from django.core import mail
from django.core.management import CommandError, call_command
from django.http import HttpRequest

from axes_async.models import AccessAttempt, AccessFailureLog, AccessReset, AttemptCounter, Notice
from axes_async.stores.redis.store import RedisStore
from axes_async.tasks.notify import watch
from tests.actions import failure, failures_stored, kept_keys, reservations_held
from tests.conftest import REFUSED
from tests.faults.conftest import database_of_test, environment, own_store, own_valkey  # noqa: F401  (fixtures)
from tests.faults.machines import Valkey
from tests.faults.test_celery_worker import WORKER, sessions
from tests.nursery import Process
from tests.waiting import PATIENCE, until

pytestmark = pytest.mark.django_db(transaction=True)

LINKS = ["settings", "store", "guesser", "broker", "rows", "counters", "cleanup"]
BACKEND = "axes_async.backends.AxesStandaloneBackend"
NO_STORE = {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": REFUSED}


def told(*arguments: str) -> tuple[dict[str, tuple[str, str]], str]:
    """Run the self-test; return the state of each link and what it found, and the error at the end."""
    out, error = io.StringIO(), ""
    try:
        call_command("axes_selftest", *arguments, stdout=out, stderr=io.StringIO())
    except CommandError as end:
        error = str(end)
    lines = (line.split(maxsplit=2) for line in out.getvalue().splitlines())
    return {line[0]: (line[1], line[2]) for line in lines if line[0] in LINKS}, error


def states(links: dict[str, tuple[str, str]]) -> list[str]:
    return [links[name][0] for name in LINKS]


def nothing_is_left() -> bool:
    return not (AccessAttempt.objects.exists() or AccessFailureLog.objects.exists() or Notice.objects.exists())


@pytest.fixture
def _no_worker_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have this process write the rows, as on a site without a broker."""
    monkeypatch.setitem(current_app.conf, "task_always_eager", True)


@pytest.mark.timeout(240)
def test_all_is_well_on_a_site_with_a_worker(own_store: RedisStore, own_valkey: Valkey, tmp_path: Path) -> None:  # noqa: F811
    known = environment(tmp_path, database_of_test(), own_valkey.url, f"{own_valkey.url}/1", {})
    before = sessions()
    worker = Process(*WORKER, "-s", str(tmp_path / "beat"), environment=known)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "django", "axes_selftest", "--wait", str(PATIENCE)],
            env=known,
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        worker.kill()
    until(lambda: sessions() <= before, what="the database has noticed that it is gone")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line.split(maxsplit=2) for line in done.stdout.splitlines()]
    assert [line[:2] for line in lines[:-1]] == [[name, "ok"] for name in LINKS]
    assert "let in 3 times, then locked" in done.stdout
    assert "access attempts count 3, access failures have 4" in done.stdout
    assert lines[-1] == ["All", "is", "well."]
    assert nothing_is_left()
    (record,) = AccessReset.objects.all()
    assert (record.reason, record.attempts, record.counters) == ("axes_selftest", 1, 1)


USERNAME = [{"parameters": "username", "limit": 4}]
AGENT = [{"parameters": "user_agent", "limit": 2}]
RULES = [{"parameters": ["username", "ip_address"], "limit": 2}, {"parameters": "ip_address", "limit": 50}]


@pytest.mark.parametrize(
    ("rules", "limit"),
    [
        ({}, 3),
        ({"AXES_LOCKOUT_RULES": USERNAME}, 4),
        ({"AXES_LOCKOUT_RULES": AGENT}, 2),
        ({"AXES_LOCKOUT_RULES": RULES}, 2),
        ({"AXES_LOCKOUT_PARAMETERS": lambda request, credentials: ["username"]}, 3),
        ({"AXES_FAILURE_LIMIT": lambda request, credentials: 5}, 5),
        ({"AXES_LOCKOUT_TIERS": [(2, 1), (4, 2)]}, 2),
        ({"AXES_USE_ATTEMPT_EXPIRATION": True, "AXES_COOLOFF_TIME": timedelta(hours=1)}, 3),
        ({"AXES_FAILURE_LIMIT": 1}, 1),
        ({"AXES_TRUSTED_PROXIES": ["127.0.0.1", "10.0.0.0/8"]}, 3),
        ({"AXES_ONLY_ADMIN_SITE": True}, 3),
        ({"AXES_IPV6_PREFIX": 16}, 3),
        ({"AXES_ENABLE_ACCESS_FAILURE_LOG": False}, 3),
        ({"AXES_STORE": "database"}, 3),
        ({"AXES_CACHE": "memory"}, 3),
    ],
    ids=[
        *("default", "rule of names", "rule of agents", "several rules", "chosen rules", "chosen limits"),
        *("tiers", "rolling window", "limit 1", "proxies", "admin site alone", "wide networks", "no failure log"),
        *("database", "memory"),
    ],
)
@pytest.mark.usefixtures("_no_worker_needed")
def test_guesser_is_locked_under_any_rule_and_leaves_nothing(
    rules: dict[str, Any], limit: int, settings: Any, valkey: redis.Redis
) -> None:
    for name, value in rules.items():
        setattr(settings, name, value)
    links, error = told("--wait", "0")
    assert states(links) == ["ok", "ok", "ok", "skipped", "ok", "ok", "ok"], links
    assert error == ""
    assert f"let in {limit} times" in links["guesser"][1]
    assert nothing_is_left()
    assert not AttemptCounter.objects.filter(failures__gt=0).exists()
    assert not any(failures_stored(valkey))
    assert {record.reason for record in AccessReset.objects.all()} == {"axes_selftest"}


@pytest.mark.usefixtures("_no_worker_needed")
def test_nothing_of_others_is_touched(settings: Any, valkey: redis.Redis) -> None:
    settings.AXES_LOCKOUT_RULES = [*RULES, {"parameters": "username", "limit": 40}]
    failure("mallory", "2001:db8::1")
    failure("mallory", "203.0.113.7")
    before = failures_stored(valkey), [*AccessAttempt.objects.values_list()], [*AccessFailureLog.objects.values_list()]
    assert told("--wait", "0")[1] == ""
    after = failures_stored(valkey), [*AccessAttempt.objects.values_list()], [*AccessFailureLog.objects.values_list()]
    assert ([count for count in after[0] if count], *after[1:]) == before


@pytest.mark.usefixtures("_no_worker_needed")
def test_nobody_is_told_of_the_lockout_and_others_still_are(settings: Any) -> None:
    settings.AXES_NOTIFY, settings.AXES_NOTIFY_OWNER = ["ops@example.com"], True
    assert told("--wait", "0")[1] == ""
    watch()
    assert mail.outbox == []
    for _ in range(3):
        failure("mallory", "203.0.113.7")
    watch()
    assert ["203.0.113.7" in message.body for message in mail.outbox] == [True]


def test_without_a_worker_the_rows_are_missed(valkey: redis.Redis) -> None:
    links, error = told("--wait", "0.1")
    assert states(links) == ["ok", "ok", "ok", "ok", "failed", "ok", "ok"]
    assert "No worker has written the rows within 0.1 s" in links["rows"][1]
    assert error == "Broken: rows."
    assert nothing_is_left()
    assert not any(failures_stored(valkey))


def test_broker_that_is_away_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(current_app.conf, "broker_url", REFUSED)
    links, _ = told()
    assert states(links) == ["ok", "ok", "ok", "failed", "skipped", "ok", "ok"]
    assert nothing_is_left()


@pytest.mark.parametrize(("on_failure", "guesser"), [("database", "ok"), ("deny", "failed")])
@pytest.mark.usefixtures("_no_worker_needed")
def test_store_that_is_away_is_told(settings: Any, on_failure: str, guesser: str) -> None:
    settings.AXES_ON_STORE_FAILURE = on_failure
    settings.CACHES = {**settings.CACHES, "default": NO_STORE}
    links, error = told("--wait", "0")
    assert (links["store"][0], links["guesser"][0]) == ("failed", guesser)
    assert "The store cannot be reached" in links["store"][1]
    assert "store" in error
    assert nothing_is_left()


@pytest.mark.usefixtures("_no_worker_needed")
def test_flushed_store_is_told(valkey: redis.Redis) -> None:
    valkey.flushall()
    links, _ = told("--wait", "0")
    assert links["store"][0] == "failed"
    assert "not complete" in links["store"][1]
    assert nothing_is_left()


@pytest.mark.usefixtures("_no_worker_needed")
def test_backend_that_is_missing_is_told(settings: Any) -> None:
    settings.AUTHENTICATION_BACKENDS = ["tests.site.CountingBackend"]
    links, error = told("--wait", "0")
    assert states(links) == ["failed", "ok", "failed", "skipped", "skipped", "skipped", "ok"]
    assert "AxesStandaloneBackend" in links["guesser"][1]
    assert error == "Broken: settings, guesser."
    assert nothing_is_left()


@pytest.mark.usefixtures("_no_worker_needed")
def test_middleware_that_is_missing_is_told(settings: Any) -> None:
    settings.MIDDLEWARE = [path for path in settings.MIDDLEWARE if "Axes" not in path]
    links, error = told("--wait", "0")
    assert "AxesMiddleware is missing from MIDDLEWARE" in links["settings"][1]
    assert error == "Broken: settings."


@pytest.mark.parametrize(
    ("name", "value", "link", "state", "what"),
    [
        ("AXES_ENABLED", False, "settings", "failed", "AXES_ENABLED is off"),
        ("AXES_FAILURE_LIMIT", "three", "settings", "failed", "AXES_FAILURE_LIMIT"),
        ("AXES_LOCK_OUT_AT_FAILURE", False, "guesser", "skipped", "AXES_LOCK_OUT_AT_FAILURE is off"),
        ("AXES_FAILURE_LIMIT", 1000, "guesser", "skipped", "the smallest limit that is left is 1000"),
        ("AXES_ONLY_WHITELIST", True, "guesser", "skipped", "would be refused, by AXES_ONLY_WHITELIST"),
        ("AXES_WHITELIST_CALLABLE", lambda r, c: True, "guesser", "failed", "exempt, by AXES_WHITELIST_CALLABLE"),
        ("AXES_USERNAME_CANONICALIZER", lambda name: "one", "guesser", "skipped", "counts as one"),
        ("AXES_CLIENT_IP_CALLABLE", lambda request: "203.0.113.7", "guesser", "failed", "counts as from 203.0.113.7"),
        ("AXES_WHITELIST_CALLABLE", lambda r, c: 1 // 0, "guesser", "failed", "ZeroDivisionError"),
    ],
)
def test_what_keeps_a_guesser_from_being_locked_is_told_before_anything_counts(
    settings: Any, valkey: redis.Redis, name: str, value: object, link: str, state: str, what: str
) -> None:
    setattr(settings, name, value)
    links, error = told("--wait", "0")
    assert links[link][0] == state
    assert what in links[link][1]
    assert error == ("" if state == "skipped" else f"Broken: {link}.")
    assert failures_stored(valkey) == []
    assert nothing_is_left()


@pytest.mark.usefixtures("_no_worker_needed")
def test_an_exempt_range_is_left_for_the_other_one(settings: Any) -> None:
    settings.AXES_IP_WHITELIST, settings.AXES_NEVER_LOCKOUT_WHITELIST = ["::/0"], True
    links, error = told("--wait", "0")
    assert error == ""
    assert "from 192.0.2." in links["guesser"][1]
    settings.AXES_IP_WHITELIST = ["::/0", "0.0.0.0/0"]
    links, error = told("--wait", "0")
    assert "is exempt, by AXES_IP_WHITELIST" in links["guesser"][1]
    assert error == "Broken: guesser."


class LetsAllIn:
    """A backend that believes everybody."""

    def authenticate(self, request: HttpRequest, username: str, password: str) -> User:
        return User(username="somebody")


@pytest.mark.usefixtures("_no_worker_needed")
def test_backend_that_lets_everybody_in_is_told(settings: Any) -> None:
    settings.AUTHENTICATION_BACKENDS = [BACKEND, f"{__name__}.LetsAllIn"]
    links, error = told("--wait", "0")
    assert "A backend has let the guesser in" in links["guesser"][1]
    assert error == "Broken: guesser."


class Interrupts:
    """A backend during which somebody presses Ctrl-C, at the second guess."""

    guesses = 0

    def authenticate(self, request: HttpRequest, username: str, password: str) -> None:
        type(self).guesses += 1
        if self.guesses == 2:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture
def _interruptible() -> Iterator[None]:
    """Have SIGINT interrupt this process, also if it was started in the background, where shells ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_interruptible")
def test_interrupted_run_cleans_up(settings: Any, valkey: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Interrupts, "guesses", 0)
    settings.AUTHENTICATION_BACKENDS = [BACKEND, f"{__name__}.Interrupts"]
    out = io.StringIO()
    with pytest.raises(CommandError, match="Interrupted") as ended:
        call_command("axes_selftest", stdout=out)
    assert ended.value.returncode == 130
    assert "1 attempts and 1 access failures deleted" in out.getvalue()
    assert nothing_is_left()
    assert not any(failures_stored(valkey))
    assert reservations_held(valkey) == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("--wait", "-1"),
        ("--wait", "nan"),
        ("--json",),
        ("--address", "192.0.2.1"),
        ("--url", "ftp://127.0.0.1/"),
        ("--url", "127.0.0.1:8000"),
        ("--url", "http://127.0.0.1:99999/"),
        ("--url", "http://127.0.0.1/", "--address", "nowhere"),
    ],
)
def test_bad_input_is_refused_and_nothing_is_done(arguments: tuple[str, ...], valkey: redis.Redis) -> None:
    with pytest.raises(CommandError) as refused:
        call_command("axes_selftest", *arguments)
    assert refused.value.returncode == 2
    assert kept_keys(valkey) == []
