"""A site that the state machine acts on: web processes, a worker that may be killed, and a Valkey that may be lost."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Thread
from typing import Any

from django.db import connection, connections

from axes_async.counters.events import AttemptEvent, Kind, new_id
from axes_async.counters.rules import Counter, Rule, counters_for
from axes_async.errors import StoreUnavailable
from axes_async.models import (
    AccessAttempt,
    AccessFailureLog,
    AccessLog,
    AccessReset,
    AttemptCounter,
    DrainCursor,
    OutboxEvent,
    StoreState,
)
from axes_async.stores.database.store import DatabaseStore
from axes_async.stores.failover import FailoverStore
from axes_async.stores.redis.server import build_client
from axes_async.stores.redis.store import RedisStore
from axes_async.stores.results import StepResult
from axes_async.stores.step import Step, StepKind
from tests import servers
from tests.faults.machines import Valkey

TIMEOUT = 0.1
"""Seconds that a frozen store costs, and that one in order never takes."""

LEASE = 3_600_000
"""Milliseconds: no reservation ends by itself."""

RULE = Rule(parameters=("username",), limit=2, cooloff=None)
USERS = ("ann", "bob")

TABLES = (
    AccessAttempt,
    AccessFailureLog,
    AccessLog,
    AccessReset,
    AttemptCounter,
    DrainCursor,
    OutboxEvent,
    StoreState,
)


class KilledError(BaseException):
    """Ends a worker wherever it is; nothing that it does afterwards reaches a server."""


class Time:
    """The time of all servers and processes, in epoch milliseconds; it moves between two actions only."""

    now = 1_800_000_000_000

    def __call__(self) -> int:
        return self.now


class Remote(RedisStore):
    """The store of a web process, of which one answer may be lost on the way."""

    loses_answer = False
    on_fault: Callable[[], None]

    def call(self, command: bytes, *, patience: float = 0.0) -> Any:
        lost, self.loses_answer = self.loses_answer, False
        try:
            reply = super().call(command, patience=patience)
        except StoreUnavailable:
            self.on_fault()
            raise
        if lost:
            self.on_fault()
            raise StoreUnavailable("The answer was lost on the way.")
        return reply


class Web:
    """A web process: a store on connections of its own, what takes its place, and what it remembers."""

    def __init__(self, url: str, namespace: str, time: Time, on_fault: Callable[[], None]) -> None:
        self.client = build_client(url, {}, timeout=TIMEOUT)
        self.address = self.client.connection_pool.connection_kwargs
        self.port = self.address["port"]
        self.store, self.time = Remote(self.client, namespace=namespace), time
        self.store.on_fault = on_fault
        # Its watch never looks by itself: `look` does that when the machine wants it.
        self.held_in: dict[str, int] = {}
        self.logins = FailoverStore(self.store, DatabaseStore(replaces=self.store), retry_interval=100_000)

    def reserve(self, token: str, user: str) -> StepResult:
        generation = self.logins.generation
        result = self.logins.do(
            Step(StepKind.RESERVE, token, [counter(user)], event=self.event(Kind.BLOCKED, user), lease=LEASE)
        )
        self.held_in[token] = generation or self.logins.generation
        return result

    def fail(self, token: str, user: str, event: AttemptEvent) -> StepResult:
        return self.logins.do(Step(StepKind.FAIL, token, [counter(user)], event=event, held_in=self.held_in.get(token)))

    def succeed(self, token: str, user: str) -> StepResult:
        event, one = self.event(Kind.LOGGED_IN, user), [counter(user)]
        held_in = self.held_in.get(token)
        return self.logins.do(Step(StepKind.SUCCEED, token, one, event=event, clear=one, held_in=held_in))

    def release(self, token: str, user: str) -> None:
        self.logins.release(token, [counter(user)])

    def event(self, kind: Kind, user: str) -> AttemptEvent:
        return AttemptEvent(kind=kind, id=new_id(self.time.now), username=user, ip_address="192.0.2.1")

    @property
    def is_cut(self) -> bool:
        return bool(self.address["port"] != self.port)

    @property
    def asks_database(self) -> bool:
        """Whether it would ask the database first."""
        return self.logins.is_away or self.logins._is_behind

    def cut(self, port: int) -> None:
        self.address["port"] = port
        self.store.close()

    def heal(self) -> None:
        self.address["port"] = self.port

    def look(self) -> None:
        """Do what the watch does in its thread."""
        watch = self.logins.watch
        if watch.is_away and watch._is_there():
            watch.on_return()
            watch.is_away = False

    def close(self) -> None:
        self.logins.close()
        self.client.close()


def counter(user: str) -> Counter:
    (one,) = counters_for([RULE], {"username": user})
    return one


class Server(Valkey):
    """The Valkey, frozen or not, and the file that was saved last."""

    is_frozen = False
    saved = False

    def begin(self) -> None:
        """Be empty, as at the start."""
        if self.is_frozen:
            self.thaw()
        if self.process is None:
            self.start()
        self.client.flushall()
        self.saved = False

    def freeze(self) -> None:
        super().freeze()
        self.is_frozen = True

    def thaw(self) -> None:
        """Let it go on: it does what it was sent meanwhile."""
        super().thaw()
        self.is_frozen = False
        for _ in range(3):
            self.client.ping()

    def save(self) -> None:
        self.client.save()
        shutil.copy(self.folder / "dump.rdb", self.folder / "kept.rdb")
        self.saved = True

    def restart(self, *, old: bool) -> None:
        """Kill it, and start it with what was saved or with nothing."""
        self.kill()
        self.is_frozen = False
        with suppress(FileNotFoundError):
            (self.folder / "dump.rdb").unlink()
        if old:
            shutil.copy(self.folder / "kept.rdb", self.folder / "dump.rdb")
        self.start()


def empty_tables() -> None:
    """Have the database be that of a new site."""
    for model in TABLES:
        model._default_manager.all().delete()


def ids_in_database() -> set[str]:
    """Return the ids of the failures that a loss of the store does not touch."""
    found = OutboxEvent.objects.values_list("event_id").union(AccessFailureLog.objects.values_list("event_id"))
    return {one.hex for (one,) in found}


@contextmanager
def interrupted(store: RedisStore, at: int, action: Callable[[], None]) -> Iterator[None]:
    """Do ``action`` before statement, commit or command number ``at`` of this thread's database and ``store``.

    If it raises ``KilledError``, nothing that follows is done either, but for the rollback.
    """
    left, killed = at, False
    call, commit = store.call, connection._commit

    def look() -> None:
        nonlocal left, killed
        left -= 1
        if killed:
            raise KilledError
        if left == 0:
            try:
                action()
            except KilledError:
                killed = True
                raise

    def on_command(command: bytes, **options: Any) -> Any:
        look()
        return call(command, **options)

    def on_statement(execute: Callable[..., Any], *arguments: Any) -> Any:
        look()
        return execute(*arguments)

    def on_commit() -> None:
        try:
            look()
        except KilledError:
            connection._rollback()
            raise
        commit()

    store.call, connection._commit = on_command, on_commit  # type: ignore[method-assign]
    try:
        with connection.execute_wrapper(on_statement):
            yield
    finally:
        del store.call, connection._commit


def beside(action: Callable[[], None]) -> None:
    """Do ``action`` in a thread, which has a database connection of its own; raise what it raises."""
    raised: list[BaseException] = []

    def work() -> None:
        try:
            action()
        except BaseException as error:  # noqa: BLE001  (it is the caller's)
            raised.append(error)
        finally:
            connections.close_all()

    thread = Thread(target=work)
    thread.start()
    thread.join()
    if raised:
        raise raised[0]


def closed_port() -> servers.Port:
    return servers.Port()
