"""What a request leaves to do when it ends, and its transactions with it.

Steps that are part of a transaction of the request are done again if that is rolled back. What this process does itself
for want of a worker waits for the end: in the transaction, it would hold locks for as long, and be undone with it.

On SQLite, a step cannot be written beside the transaction of a request, since there is one writer at a time. In a
``TestCase``, a second connection would see nothing of the test.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any

from django.db import connections, transaction

from axes_async.stores.results import StepResult, Verdict
from axes_async.stores.step import Step, StepKind


@dataclass(slots=True, eq=False)
class SharedStep:
    """A step that tells of an event; called when the transaction is committed that it is part of."""

    step: Step
    connection: Any
    is_committed: bool = False

    def __call__(self) -> None:
        self.is_committed = True

    def is_undone(self) -> bool:
        """Return whether it was rolled back; it does not wait for a commit any more."""
        waiting = self.connection.run_on_commit
        self.connection.run_on_commit = others = [each for each in waiting if each[1] is not self]
        return not self.is_committed and len(others) == len(waiting)


@dataclass(slots=True, eq=False)
class RequestEnd:
    """What is left to do when a request ends."""

    steps: list[SharedStep] = field(default_factory=list)
    calls: dict[object, Callable[[], object]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.steps or self.calls)


request_end: ContextVar[RequestEnd | None] = ContextVar("axes_async_request_end", default=None)
"""That of the request that is being served; ``None`` outside of any, where nothing can wait for its end."""


def shares_transaction(connection: Any) -> bool:
    """Return whether a step has to be part of the transaction that its caller is in."""
    return connection.vendor == "sqlite" or any(_is_of_test(block) for block in connection.atomic_blocks)


def note_shared(step: Step, result: StepResult, using: str) -> None:
    """Note that ``step`` was done, if it told of an event, and is part of a transaction that the request may undo."""
    end, connection = request_end.get(), connections[using]
    if end is None or not shares_transaction(connection) or not _is_in_transaction(connection):
        return
    if step.event is None or (step.kind is StepKind.RESERVE and result.verdict is not Verdict.LOCKED):
        return
    # Its reservations are undone as well, and none is to be made where the lockout has ended meanwhile.
    end.steps.append(shared := SharedStep(replace(step, held_in=None, lease=0), connection))
    transaction.on_commit(shared, using=using)


def waits_for_end(key: object, call: Callable[[], object], using: str) -> bool:
    """Return whether the request is in a transaction. If so, ``call`` is called, once for a ``key``, at its end."""
    end = request_end.get()
    if end is None or not _is_in_transaction(connections[using]):
        return False
    end.calls.setdefault(key, call)
    return True


def _is_in_transaction(connection: Any) -> bool:
    """Return whether the caller is in a transaction of its own; the one around a test is none."""
    return not all(map(_is_of_test, connection.atomic_blocks))


def _is_of_test(block: Any) -> bool:
    return bool(getattr(block, "_from_testcase", False))
