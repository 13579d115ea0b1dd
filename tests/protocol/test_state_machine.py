"""The failure protocol on a real Valkey and the test's database, by sequences of actions that Hypothesis makes up.

What docs/protocol.md promises is looked at after every guess, after every sync, and once all is mended in the end.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.db import transaction
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from axes_async import clock
from axes_async.counters.events import Kind
from axes_async.errors import StoreUnavailable
from axes_async.models import AccessFailureLog, AttemptCounter, OutboxEvent, StoreState, database
from axes_async.stores import recent
from axes_async.stores.database.mode import exclusive_state
from axes_async.stores.database.rows import keep_state, name_client, new_row, state_of
from axes_async.stores.factory import database_name, forget, get_store
from axes_async.stores.redis.store import RedisStore
from axes_async.stores.results import Verdict
from axes_async.tasks.drain import drain_batch, drain_to_end, readable
from axes_async.tasks.reset import mend, reset
from axes_async.tasks.sync import needs_sync, sync_store
from tests.protocol.site import (
    RULE,
    USERS,
    KilledError,
    Server,
    Time,
    Web,
    beside,
    counter,
    empty_tables,
    ids_in_database,
    interrupted,
)
from tests.tasks.agreement import in_store_and_rows

pytestmark = [
    pytest.mark.django_db(transaction=True),
    # A worker that is killed in these tests leaves cursors open.
    pytest.mark.filterwarnings("ignore:.*ServerSideCursor.*:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

STEP = 500
"""Milliseconds from one action to the next: a sync that died keeps others away for four actions."""

WEBS = st.integers(0, 2)
USER = st.sampled_from(USERS)
MOMENT = st.integers(1, 40)
"""Which statement or command of the worker is the last, or the one beside which something happens."""


@dataclass(slots=True)
class Book:
    """What must be true of one user's counter."""

    guesses: int = 0
    """Passwords that reached the hasher since the last reset or clear; no fewer than what counted when all was calm."""
    certain: set[str] = field(default_factory=set)
    """Ids of failures that count, unless they were lost."""
    possible: set[str] = field(default_factory=set)
    """Ids of failures that may count, beside those of ``base``."""
    base: int = 0
    is_locked: bool = False
    """Whether store and rows had the lockout."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """A password that is being looked at."""

    web: int
    token: str
    user: str


class FailureProtocol(RuleBasedStateMachine):
    """Three web processes, a worker, two users and one rule."""

    server: Server
    closed: int
    time: Time
    is_interrupted = False

    def __init__(self) -> None:
        super().__init__()
        self.server.begin()
        empty_tables()
        forget()
        store = get_store()
        assert isinstance(store, RedisStore)
        self.worker = store
        namespace = f"axes:{database_name()}"
        self.webs = [Web(self.server.url, namespace, self.time, self.note_fault) for _ in range(3)]
        self.books = {user: Book() for user in USERS}
        self.open: list[Attempt] = []
        self.settled: set[str] = set()
        """Ids of the failures that a store has taken."""
        self.lost: set[str] = set()
        self.losses = self.tokens = 0
        assert sync_store(self.worker)

    # Logins.

    @rule(web=WEBS, user=USER, times=st.integers(1, 3))
    def guess(self, web: int, user: str, times: int) -> None:
        self.pass_time()
        for _ in range(times):
            if (attempt := self.reserve(web, user)) is not None:
                self.fail(attempt)

    @rule(web=WEBS, user=USER)
    def guess_once(self, web: int, user: str) -> None:
        self.guess(web, user, 1)

    @rule(web=WEBS, user=USER)
    def begin(self, web: int, user: str) -> None:
        self.pass_time()
        if (attempt := self.reserve(web, user)) is not None:
            self.open.append(attempt)

    @precondition(lambda self: self.open)
    @rule(number=st.integers(0, 5), how=st.sampled_from(["fail", "succeed", "release"]))
    def settle(self, number: int, how: str) -> None:
        self.pass_time()
        attempt = self.open.pop(number % len(self.open))
        getattr(self, how)(attempt)

    # The worker.

    @rule(job=st.sampled_from(["sync", "drain", "reset", "reset_all", "finish_reset"]), user=USER)
    def work(self, job: str, user: str) -> None:
        getattr(self, job)(*([user] if job == "reset" else []))

    def drain(self) -> None:
        self.pass_time()
        with suppress(StoreUnavailable):
            drain_batch(readable(self.worker))

    def sync(self) -> None:
        self.pass_time()
        with suppress(StoreUnavailable):
            if sync_store(self.worker):
                self.check_calm()

    def reset(self, user: str) -> None:
        self.pass_time()
        self.forgive([user], partial(reset, username=user))

    def reset_all(self) -> None:
        self.pass_time()
        self.forgive(USERS, reset)

    def finish_reset(self) -> None:
        self.pass_time()
        if StoreState.objects.filter(reset_all_pending=True).exists():
            self.forgive(USERS, lambda: mend(get_store()))

    @rule(job=st.sampled_from(["sync", "drain", "reset", "reset_all"]), user=USER, at=MOMENT)
    def kill_worker(self, job: str, user: str, at: int) -> None:
        def die() -> None:
            self.losses += job != "drain"  # Between complete and commit, both decide.
            raise KilledError

        self.run_with(job, user, at, die)

    @rule(
        job=st.sampled_from(["sync", "drain", "reset", "reset_all"]),
        user=USER,
        at=MOMENT,
        what=st.sampled_from(["guess", "begin", "settle", "flush", "freeze", "cut"]),
        web=WEBS,
        other=USER,
    )
    def happen_meanwhile(self, job: str, user: str, at: int, what: str, web: int, other: str) -> None:
        def act() -> None:
            with suppress(StoreUnavailable):
                if what == "guess" and (attempt := self.reserve(web, other)) is not None:
                    self.fail(attempt)
                elif what == "begin":
                    if (attempt := self.reserve(web, other)) is not None:
                        self.open.append(attempt)
                elif what == "settle" and self.open:
                    self.fail(self.open.pop())
                elif what == "flush":
                    self.flush()
                elif what == "freeze" and not self.server.is_frozen:
                    self.freeze()
                elif what == "cut" and not self.webs[web].is_cut:
                    self.cut(web)

        self.run_with(job, user, at, partial(beside, act))

    def run_with(self, job: str, user: str, at: int, action: Callable[[], None]) -> None:
        self.is_interrupted = True
        with suppress(KilledError), interrupted(self.worker, at, action):
            getattr(self, job)(*([user] if job == "reset" else []))
        self.is_interrupted = False
        self.worker.close()

    # Rows.

    @rule(user=USER)
    def import_failure(self, user: str) -> None:
        """Count a failure in a row, as the importer does."""
        self.pass_time()
        web, one = self.webs[0], counter(user)
        event, using = web.event(Kind.FAILED, user), database()
        with transaction.atomic():
            state = exclusive_state(using)
            row = AttemptCounter.objects.select_for_update().filter(pk=one.digest).first()
            if row is None:
                row = new_row(one.digest, RULE.parameters, at=self.time.now)
                name_client(row, event)
            kept = state_of(row, void=state.void_generation)
            kept.count(RULE, self.time.now)
            keep_state(row, kept, at=self.time.now, limit=RULE.limit, generation=state.generation)
            row.dirty = True
            row.save()
        self.books[user].certain.add(event.id)
        self.books[user].possible.add(event.id)

    # Faults.

    @rule(how=st.sampled_from(["flush", "restart_empty", "save", "restart_old"]))
    def lose_counters(self, how: str) -> None:
        getattr(self, how)()

    @rule(what=st.sampled_from(["freeze", "cut", "lose_answer"]), web=WEBS)
    def part(self, what: str, web: int) -> None:
        """Freeze the server or cut a process off, or mend that."""
        if what == "freeze" and self.server.is_frozen:
            self.server.thaw()
        elif what == "freeze":
            self.freeze()
        elif what == "lose_answer":
            self.webs[web].store.loses_answer = True
        elif self.webs[web].is_cut:
            self.webs[web].heal()
        else:
            self.cut(web)

    @rule(ms=st.sampled_from([STEP, 5000]))
    def look_again(self, ms: int) -> None:
        """Have each process find out whether the store is back."""
        self.time.now += ms
        for web in self.webs:
            web.look()

    def save(self) -> None:
        if not self.server.is_frozen:
            self.server.save()

    def flush(self) -> None:
        if not self.server.is_frozen:
            self.lose()
            self.server.client.flushall()

    def restart_empty(self) -> None:
        self.lose()
        self.server.restart(old=False)

    def restart_old(self) -> None:
        if self.server.saved:
            self.lose()
            self.server.restart(old=True)

    def freeze(self) -> None:
        self.losses += 1
        self.server.freeze()

    def cut(self, web: int) -> None:
        self.losses += 1
        self.webs[web].cut(self.closed)

    # What all of these are made of.

    def pass_time(self) -> None:
        self.time.now += STEP

    def reserve(self, web: int, user: str) -> Attempt | None:
        self.tokens += 1
        attempt, book = Attempt(web, f"{self.tokens:032x}", user), self.books[user]
        result = self.webs[web].reserve(attempt.token, user)
        if result.verdict != Verdict.ALLOWED:
            return None
        book.guesses += 1
        assert not book.is_locked, f"{user} was locked in store and rows, and is let in"
        most = RULE.limit * (1 + self.losses)
        assert book.guesses <= most, f"{book.guesses} guesses of {user}, {self.losses} losses"
        return attempt

    def fail(self, attempt: Attempt) -> None:
        web, book = self.webs[attempt.web], self.books[attempt.user]
        event = web.event(Kind.FAILED, attempt.user)
        book.possible.add(event.id)
        web.fail(attempt.token, attempt.user, event)
        book.certain.add(event.id)
        self.settled.add(event.id)

    def succeed(self, attempt: Attempt) -> None:
        book = self.books[attempt.user]
        self.webs[attempt.web].succeed(attempt.token, attempt.user)
        book.guesses = 0
        book.certain.clear()

    def release(self, attempt: Attempt) -> None:
        self.webs[attempt.web].release(attempt.token, attempt.user)
        self.books[attempt.user].guesses -= 1

    def forgive(self, users: Any, job: Callable[[], Any]) -> None:
        before = {user: set(self.books[user].possible) for user in users}
        for user in users:
            book = self.books[user]
            book.guesses, book.is_locked = 0, False
            book.certain.clear()
        with suppress(StoreUnavailable):  # The rows are reset, and the next sync tells the store.
            job()
        for user in users:
            book = self.books[user]
            book.guesses, book.base = 0, 0
            book.certain.clear()
            book.possible -= before[user]

    def note_fault(self) -> None:
        self.losses += 1

    def lose(self) -> None:
        self.losses += 1
        self.lost |= self.settled - ids_in_database()

    def check_calm(self) -> None:
        """After a sync: with nothing broken any more, the counting of losses begins anew."""
        broken = self.server.is_frozen or any(web.is_cut or web.asks_database for web in self.webs)
        if self.is_interrupted or self.server.is_frozen or needs_sync(self.worker):
            return  # The look itself must not be interrupted.
        stored, rows = in_store_and_rows(self.worker)
        for user, book in self.books.items():
            in_store, in_row = (found.get(counter(user).digest, 0) for found in (stored, rows))
            least = min(RULE.limit, len(book.certain - self.lost))
            assert in_store >= least, f"{in_store} failures of {user} in the store, no fewer than {least} were counted"
            book.is_locked = book.is_locked or min(in_store, in_row) >= RULE.limit
            if not broken:
                book.guesses = in_store
                book.base, book.possible = max(in_store, in_row), set()
        if not broken:
            self.losses = 0

    def teardown(self) -> None:
        try:
            self.check_end()
        finally:
            self.worker.client.close()
            for web in self.webs:
                web.close()

    def check_end(self) -> None:
        if self.server.is_frozen:
            self.server.thaw()
        for web in self.webs:
            web.heal()
            web.look()
        # Nothing is to fail any more, however busy this machine is.
        self.worker.client.connection_pool.connection_kwargs.update(socket_timeout=60, socket_connect_timeout=60)
        self.worker.close()
        for _ in range(5):
            self.time.now += 5000
            self.finish_reset()
            if sync_store(self.worker):
                break
        else:
            raise AssertionError(f"no end of the sync: {self.worker.key()}, {StoreState.objects.get()}")
        drain_to_end(self.worker)
        assert not needs_sync(self.worker)
        assert not OutboxEvent.objects.exists()
        stored, rows = in_store_and_rows(self.worker)
        assert stored == rows
        for user, book in self.books.items():
            count = rows.get(counter(user).digest, 0)
            least, most = min(RULE.limit, len(book.certain - self.lost)), book.base + len(book.possible)
            assert least <= count <= most, f"{user}: {count} failures, {least} to {most} were counted"
        logged = [one.hex for one in AccessFailureLog.objects.values_list("event_id", flat=True)]
        assert len(logged) == len(set(logged))
        assert self.settled - self.lost <= set(logged)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Return a Valkey of these tests' own."""
    one = Server()
    yield one
    if one.is_frozen:
        one.thaw()
    one.stop()


@pytest.fixture
def machine(server: Server, settings: Any, monkeypatch: pytest.MonkeyPatch, closed_port: int) -> type[FailureProtocol]:
    """Return the state machine, on this server and at a set time."""
    time = Time()
    monkeypatch.setattr(clock, "fixed_ms", time)
    monkeypatch.setattr(recent, "now_ms", time)
    settings.CACHES = {
        **django_settings.CACHES,
        "default": {**django_settings.CACHES["default"], "LOCATION": server.url},
    }
    settings.AXES_STORE_TIMEOUT = 0.1
    members = {"server": server, "closed": closed_port, "time": time}
    return type("FailureProtocol", (FailureProtocol,), members)


EXAMPLES = int(os.environ.get("AXES_PROTOCOL_EXAMPLES", "0"))
"""How many random examples to run (``make test-protocol``); 0: the same few each time."""

OPTIONS = settings(
    stateful_step_count=30,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.parametrize("examples", [15, pytest.param(25, marks=pytest.mark.long)])
def test_promises_hold_over_any_faults(machine: type[FailureProtocol], examples: int) -> None:
    if EXAMPLES:
        run_state_machine_as_test(machine, settings=settings(OPTIONS, max_examples=EXAMPLES))
    else:
        run_state_machine_as_test(machine, settings=settings(OPTIONS, max_examples=examples, derandomize=True))
