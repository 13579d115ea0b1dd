"""What is left to do when a request, and its transaction, has ended.

Two things are. A step that was part of the request's transaction is done again if that was rolled back. And what this
process does for want of a worker waits: inside the transaction it would hold its locks, and be rolled back with it.

Only two kinds of steps are part of such a transaction. SQLite has one writer at a time, so a step cannot be written
beside it. In a ``TestCase``, a second connection would see nothing of the test.
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
    """A step that tells of an event. As an ``on_commit`` hook, it learns that its transaction was committed."""

    step: Step
    connection: Any
    tell: Callable[[StepResult], object] = field(default=lambda result: None)
    """Called with the result of the step when it is done again."""
    is_committed: bool = False

    def __call__(self) -> None:
        self.is_committed = True

    def forget(self) -> None:
        """Wait for the commit no longer."""
        self.connection.run_on_commit = [each for each in self.connection.run_on_commit if each[1] is not self]


@dataclass(slots=True, eq=False)
class RequestEnd:
    """What is left to do when a request ends."""

    steps: list[SharedStep] = field(default_factory=list)
    calls: dict[object, Callable[[], object]] = field(default_factory=dict)
    is_over: bool = False
    """Whether it has ended. A task that it has started may go on, and waits for nothing."""

    def __bool__(self) -> bool:
        return bool(self.steps or self.calls)

    def take_undone(self, counters: Sequence[Counter] | None = None) -> list[SharedStep]:
        """Remove the steps that were rolled back, and return them in the order in which they were done.

        :param counters: if given, only steps that have changed one of them.
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
        """Drop the steps that may yet be committed: nobody does them again."""
        for each in self.steps:
            each.forget()
        self.steps.clear()


request_end: ContextVar[RequestEnd | None] = ContextVar("axes_async_request_end", default=None)
"""That of the request that is being served; ``None`` outside of any, where nothing can wait for its end."""

_left = local()
"""``ends``: those of this thread's requests that wait for the transaction of a middleware, each with its test."""


def hand_on(end: RequestEnd, using: str) -> bool:
    """If the transaction goes on after the request, keep ``end`` until it is over, and return True.

    A request around this one has begun it, or a middleware, whose transaction is over when the response is closed.
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
    """Remove what ``hand_on`` keeps for this thread, and return it; nothing while a request is being served.

    A test that calls a middleware itself may leave something, which is dropped in the next test.
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
    """Note that ``step`` was done, if it tells of an event and is part of a transaction that may be rolled back."""
    if step.kind is StepKind.RESERVE and result.verdict is not Verdict.LOCKED:
        return
    if shared := _share(step, using):
        transaction.on_commit(shared, using=using)
        # First in line: Django calls no hook behind one that raises, and that is no rollback.
        shared.connection.run_on_commit.insert(0, shared.connection.run_on_commit.pop())


def note_undone(step: Step, tell: Callable[[StepResult], object], using: str) -> bool:
    """Keep ``step`` for the request's end, if its transaction had to take it and did not; return whether it is kept."""
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
    """Keep ``call`` for the end of a request in a transaction, one for each ``key``; return whether it is kept."""
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
