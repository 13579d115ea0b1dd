"""Steps that are part of a caller's transaction: where that is rolled back, they are done again when the request ends.

On SQLite, a step cannot be written beside the transaction of a request, since there is one writer at a time. In a
``TestCase``, a second connection would see nothing of the test.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, replace
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


shared_steps: ContextVar[list[SharedStep] | None] = ContextVar("axes_async_shared_steps", default=None)
"""Those of the request that is being served; ``None`` outside of any, where nobody would do them again."""


def shares_transaction(connection: Any) -> bool:
    """Return whether a step has to be part of the transaction that its caller is in."""
    return connection.vendor == "sqlite" or any(_is_of_test(block) for block in connection.atomic_blocks)


def note_shared(step: Step, result: StepResult, using: str) -> None:
    """Note that ``step`` was done, if it told of an event, and is part of a transaction that the request may undo."""
    noted, connection = shared_steps.get(), connections[using]
    if noted is None or not shares_transaction(connection) or all(map(_is_of_test, connection.atomic_blocks)):
        return
    if step.event is None or (step.kind is StepKind.RESERVE and result.verdict is not Verdict.LOCKED):
        return
    # Its reservations are undone as well, and none is to be made where the lockout has ended meanwhile.
    noted.append(shared := SharedStep(replace(step, held=False, lease=0), connection))
    transaction.on_commit(shared, using=using)


def _is_of_test(block: Any) -> bool:
    return bool(getattr(block, "_from_testcase", False))
