"""What a request leaves to do when it ends, and its transactions with it.

Steps that are part of a transaction of the request are done again if that is rolled back. What this process does itself
for want of a worker waits for the end: in the transaction, it would hold locks for as long, and be undone with it.

On SQLite, a step cannot be written beside the transaction of a request, since there is one writer at a time. In a
``TestCase``, a second connection would see nothing of the test.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from threading import local
from typing import Any

from django.db import connections, transaction

from axes_async.counters.rules import Counter
from axes_async.stores.results import StepResult, Verdict
from axes_async.stores.step import Step, StepKind


@dataclass(slots=True, eq=False)
class SharedStep:
    """A step that tells of an event; called when the transaction is committed that it is part of."""

    step: Step
    connection: Any
    tell: Callable[[StepResult], object] = field(default=lambda result: None)
    """Called with the result of the step when it is done again."""
    is_committed: bool = False

    def __call__(self) -> None:
        self.is_committed = True

    def forget(self) -> None:
        """Wait for no commit."""
        self.connection.run_on_commit = [each for each in self.connection.run_on_commit if each[1] is not self]


@dataclass(slots=True, eq=False)
class RequestEnd:
    """What is left to do when a request ends."""

    steps: list[SharedStep] = field(default_factory=list)
    calls: dict[object, Callable[[], object]] = field(default_factory=dict)
    is_over: bool = False
    """Whether it has ended; tasks that it has started may go on, and have nothing to wait for."""

    def __bool__(self) -> bool:
        return bool(self.steps or self.calls)

    def take_undone(self, counters: Sequence[Counter] | None = None) -> list[SharedStep]:
        """Return what was rolled back, in its order, once.

        :param counters: only what has changed one of these; ``None`` for all.
        """
        asked = None if counters is None else {counter.digest for counter in counters}
        theirs = {each.connection for each in self.steps}
        waiting = {id(call) for connection in theirs for _, call, *_ in connection.run_on_commit}
        undone = []
        for each in [*self.steps]:
            if id(each) in waiting or not (each.is_committed or _is_on(each.step, asked)):
                continue
            with suppress(ValueError):  # Another thread of the request may have been faster.
                self.steps.remove(each)
                if not each.is_committed:
                    undone.append(each)
        return undone

    def forget_steps(self) -> None:
        """Leave what was not rolled back as it is."""
        for each in self.steps:
            each.forget()
        self.steps.clear()


request_end: ContextVar[RequestEnd | None] = ContextVar("axes_async_request_end", default=None)
"""That of the request that is being served; ``None`` outside of any, where nothing can wait for its end."""

_left = local()
"""What requests of each thread have left to a middleware: ``ends``, each with the test that it was in."""


def hand_on(end: RequestEnd, using: str) -> bool:
    """Return whether the transaction goes on after the request: ``end`` is left to whoever has begun it.

    That is the request around it, or a middleware, whose transaction has ended when the response is closed.
    """
    connection = connections[using]
    if not _is_in_transaction(connection):
        return False
    around = request_end.get()
    if around is None:
        _left.ends = [*getattr(_left, "ends", ()), (end, _test_around(connection))]
    else:
        around.steps += end.steps
        around.calls = {**end.calls, **around.calls}
    return True


def take_left(using: str) -> list[RequestEnd]:
    """Return what requests of this thread have left to middleware, once; nothing inside of a request.

    What a test has left, as it has called a middleware itself, is nothing to the next one.
    """
    ends = getattr(_left, "ends", [])
    if not ends or request_end.get() is not None:
        return []
    _left.ends, test = [], _test_around(connections[using])
    return [end for end, its_test in ends if its_test == test]


def shares_transaction(connection: Any) -> bool:
    """Return whether a step has to be part of the transaction that its caller is in."""
    return connection.vendor == "sqlite" or any(_is_of_test(block) for block in connection.atomic_blocks)


def note_shared(step: Step, result: StepResult, using: str) -> None:
    """Note that ``step`` was done, if it told of an event, and is part of a transaction that the request may undo."""
    if step.kind is StepKind.RESERVE and result.verdict is not Verdict.LOCKED:
        return
    if shared := _share(step, using):
        transaction.on_commit(shared, using=using)
        # As the first: what another of these raises is no rollback.
        shared.connection.run_on_commit.insert(0, shared.connection.run_on_commit.pop())


def note_undone(step: Step, tell: Callable[[StepResult], object], using: str) -> bool:
    """Return whether ``step``, which the transaction did not take that it had to be part of, is left to the end."""
    shared = _share(step, using)
    if shared is not None:
        shared.tell = tell
    return shared is not None


def _share(step: Step, using: str) -> SharedStep | None:
    end, connection = request_end.get(), connections[using]
    if step.event is None or end is None or end.is_over:
        return None
    if not shares_transaction(connection) or not _is_in_transaction(connection):
        return None
    # Its reservations are undone as well, and none is to be made where the lockout has ended meanwhile.
    end.steps.append(shared := SharedStep(replace(step, held_in=None, lease=0), connection))
    return shared


def waits_for_end(key: object, call: Callable[[], object], using: str) -> bool:
    """Return whether the request is in a transaction. If so, ``call`` is called, once for a ``key``, at its end."""
    end = request_end.get()
    if end is None or end.is_over or not _is_in_transaction(connections[using]):
        return False
    end.calls.setdefault(key, call)
    return True


def _is_in_transaction(connection: Any) -> bool:
    """Return whether the caller is in a transaction of its own; the one around a test is none."""
    return not all(map(_is_of_test, connection.atomic_blocks))


def _is_on(step: Step, digests: set[str] | None) -> bool:
    if digests is None:
        return True
    is_change = step.kind in {StepKind.FAIL, StepKind.SUCCEED}
    return is_change and any(counter.digest in digests for counter in step.all_counters)


def _test_around(connection: Any) -> list[Any]:
    return list(filter(_is_of_test, connection.atomic_blocks))


def _is_of_test(block: Any) -> bool:
    return bool(getattr(block, "_from_testcase", False))
