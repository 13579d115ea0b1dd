"""Steps of many threads in one transaction: each has its own answer, and nobody waits for one that is not coming."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
from django.db import OperationalError, connection, connections, transaction

from axes_async import group_commit
from axes_async.cursor import held_cursor
from axes_async.errors import StoreReturned
from axes_async.group_commit import MOST, Group
from axes_async.models import DrainCursor
from axes_async.stores import autonomous as apart
from tests.stores.test_store_away import until

PATIENCE = 10
THREADS = 6
Step = Callable[[DrainCursor], Any]


@dataclass
class Database:
    """Stands for the one that the cursor is held in; each transaction is a cursor of its own."""

    is_free: threading.Event = field(default_factory=threading.Event)
    begun: list[DrainCursor] = field(default_factory=list)
    committed: list[DrainCursor] = field(default_factory=list)
    away: Exception | None = None

    @contextmanager
    def held_cursor(self) -> Iterator[DrainCursor]:
        """Wait until the database is free; a transaction that ends in an error is not committed."""
        cursor = DrainCursor()
        self.begun.append(cursor)
        assert self.is_free.wait(PATIENCE)
        if self.away is not None:
            raise self.away
        yield cursor
        self.committed.append(cursor)


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> Database:
    database = Database()
    monkeypatch.setattr(group_commit, "held_cursor", database.held_cursor)
    return database


@pytest.fixture
def group() -> Group:
    return Group()


def all_at_once(group: Group, database: Database, steps: list[Step]) -> list[Future[Any]]:
    """Have a thread for each step; the database is free when all are waiting for it."""
    with ThreadPoolExecutor(len(steps)) as pool:
        waiting = []
        for step in steps:
            waiting.append(pool.submit(group.do, step))
            until(lambda: len(group._waiting) == len(waiting))
        database.is_free.set()
    return waiting


def test_threads_that_wait_at_the_same_time_share_a_transaction_and_keep_their_order(
    group: Group, database: Database
) -> None:
    order: list[int] = []

    def numbered(number: int, cursor: DrainCursor) -> tuple[int, DrainCursor]:
        order.append(number)
        return number, cursor

    done = all_at_once(group, database, [partial(numbered, number) for number in range(THREADS)])
    assert order == [*range(THREADS)]
    assert [one.result() for one in done] == [(number, database.committed[0]) for number in range(THREADS)]
    assert len(database.begun) == 1


def test_one_at_a_time_each_has_a_transaction(group: Group, database: Database) -> None:
    database.is_free.set()
    first, second = group.do(lambda cursor: cursor), group.do(lambda cursor: cursor)
    assert [first, second] == database.committed


def test_no_transaction_grows_without_bound(group: Group, database: Database) -> None:
    cursors = [one.result() for one in all_at_once(group, database, [lambda cursor: cursor] * (MOST + 2))]
    assert len(database.committed) == 2
    assert [sum(one is cursor for one in cursors) for cursor in database.committed] == [MOST, 2]


def test_a_step_that_is_not_to_be_done_here_keeps_nobody_from_theirs(group: Group, database: Database) -> None:
    def leave(cursor: DrainCursor) -> None:
        raise StoreReturned

    one, two, three = all_at_once(group, database, [lambda cursor: 1, leave, lambda cursor: 3])
    assert (one.result(), three.result()) == (1, 3)
    with pytest.raises(StoreReturned):
        two.result()
    assert len(database.committed) == 1


@pytest.mark.parametrize("place", range(3))
def test_a_step_that_fails_fails_for_its_own_thread_alone(group: Group, database: Database, place: int) -> None:
    def fail(cursor: DrainCursor) -> None:
        raise OperationalError

    steps: list[Step] = [lambda cursor: cursor] * 3
    steps[place] = fail
    done = all_at_once(group, database, steps)
    with pytest.raises(OperationalError):
        done.pop(place).result()
    assert {id(one.result()) for one in done} == {id(cursor) for cursor in database.committed}
    assert len(database.committed) == 2, "what was done together was rolled back, and is done one by one"


def test_without_a_database_each_is_told_so_and_nobody_waits_for_another(group: Group, database: Database) -> None:
    database.away = OperationalError("away")
    for one in all_at_once(group, database, [lambda cursor: cursor] * THREADS):
        with pytest.raises(OperationalError, match="away"):
            one.result()
    assert len(database.begun) == 1 + THREADS
    database.away = None
    assert group.do(lambda cursor: "back") == "back"


@pytest.mark.parametrize("end", [OperationalError, KeyboardInterrupt])
def test_what_may_have_been_committed_is_not_done_again_and_not_taken_for_done(
    group: Group, database: Database, monkeypatch: pytest.MonkeyPatch, end: type[BaseException]
) -> None:
    """A connection that is lost, or a thread that is interrupted, at the end of a transaction does not tell."""
    done: list[int] = []

    @contextmanager
    def lost_at_the_end() -> Iterator[DrainCursor]:
        with database.held_cursor() as cursor:
            yield cursor
        raise end

    monkeypatch.setattr(group_commit, "held_cursor", lost_at_the_end)
    leader, *others = all_at_once(group, database, [lambda cursor: done.append(1)] * THREADS)
    assert isinstance(leader.exception(), OperationalError if end is OperationalError else end)
    assert all(isinstance(one.exception(), OperationalError) for one in others)
    assert len(done) == THREADS


def test_a_single_step_is_not_done_again(group: Group, database: Database) -> None:
    database.is_free.set()
    database.away = OperationalError()
    with pytest.raises(OperationalError):
        group.do(lambda cursor: cursor)
    assert len(database.begun) == 1


@pytest.mark.parametrize("when", ["waiting", "appointed"])
def test_a_thread_that_is_interrupted_leaves_its_turn_to_the_next(
    group: Group, database: Database, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """As by a timeout of gevent, which may come anywhere."""

    class Interrupted(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            if when == "appointed":
                assert super().wait(PATIENCE)
            raise KeyboardInterrupt

    monkeypatch.setattr(group_commit, "MOST", 1)
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(group.do, lambda cursor: 1)
        until(lambda: bool(database.begun))
        with monkeypatch.context() as during:
            during.setattr(group_commit, "Event", Interrupted)
            second = pool.submit(group.do, lambda cursor: 2)
            until(lambda: second.done() if when == "waiting" else len(group._waiting) == 2)
        third = pool.submit(group.do, lambda cursor: 3)
        until(lambda: group._waiting[-1].step(DrainCursor()) == 3)
        database.is_free.set()
        assert isinstance(second.exception(PATIENCE), KeyboardInterrupt)
        assert [first.result(PATIENCE), third.result(PATIENCE)] == [1, 3]
    assert len(database.committed) == 2


@pytest.mark.django_db(transaction=True)
def test_a_leader_that_is_interrupted_in_a_transaction_of_its_own_has_nothing_done_twice() -> None:
    """Its steps are done by another thread, which knows nothing of the interruption."""
    if connection.vendor == "sqlite":
        pytest.skip("A database in memory has no second connection that waits for the first.")
    group, done, ends = Group(), list[str](), threading.Event()
    held = threading.Event()

    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    def slow(cursor: DrainCursor) -> None:
        done.append("leader")
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        assert ends.wait(PATIENCE)

    def follow() -> None:
        until(lambda: len(group._waiting) == 1)
        try:
            group.do(lambda cursor: done.append("follower"))
        finally:
            connection.close()

    def hold() -> None:
        """Keep the leader waiting until it has a follower."""
        try:
            with held_cursor():
                held.set()
                until(lambda: len(group._waiting) == 2)
        finally:
            connection.close()

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with ThreadPoolExecutor(2) as pool:
            pool.submit(hold)
            assert held.wait(PATIENCE)
            follower = pool.submit(follow)
            with pytest.raises(KeyboardInterrupt), transaction.atomic():
                group.do(slow)
            threading.Timer(0.3, ends.set).start()
            follower.result(PATIENCE)
    finally:
        signal.signal(signal.SIGALRM, before)
        apart._elsewhere(os.getpid()).submit(connections.close_all).result(PATIENCE)
    assert done == ["leader", "follower"]


@pytest.mark.django_db(transaction=True)
@pytest.mark.database
def test_no_thread_has_its_step_rolled_back_with_the_transaction_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite has one writer, so what is counted in a transaction belongs to it: to that of its own thread alone."""
    if connection.vendor != "sqlite":
        pytest.skip("Other databases have a second connection for this.")

    def nobody(*args: object) -> Group:
        raise AssertionError("others may be waiting there")

    monkeypatch.setattr(group_commit, "_group", nobody)
    with transaction.atomic():
        assert group_commit.in_group(lambda cursor: connection.in_atomic_block)
    with pytest.raises(AssertionError):
        group_commit.in_group(lambda cursor: None)
