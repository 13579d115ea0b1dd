"""Settlements that no store could do: a thread tries them again, so that what happened still counts."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from axes_async.conf import get_settings
from axes_async.delivery import publisher
from axes_async.errors import StoreUnavailable
from axes_async.login.backlog import Backlog
from axes_async.stores.factory import get_failover
from axes_async.stores.results import StepResult
from axes_async.stores.step import Step

log = logging.getLogger(__name__)

SECONDS = 60.0
"""How long a settlement is tried again: a database that fails over is away for less."""

PAUSE = 0.2
"""Seconds between two tries while no store answers."""

MOST = 10_000
"""Settlements of this process that wait at most; each is about 2 kB."""


@dataclass(frozen=True, slots=True)
class Unsettled:
    """A step, when its reservations were asked for, and what is to be told of its result."""

    step: Step
    reserved_at: float
    tell: Callable[[StepResult], object]
    since: float

    def settle(self) -> StepResult:
        """Do a step that may have been done: while the reservations last, they show it; then, it may count twice."""
        store = get_failover()
        lasts = time.monotonic() < self.reserved_at + get_settings().reserve_lease / 2
        is_sure = lasts and self.step.held_in == store.generation
        return store.do(replace(self.step, held_in=self.step.held_in if is_sure else None, again=is_sure))


def try_later(step: Step, reserved_at: float, tell: Callable[[StepResult], object]) -> bool:
    """Have ``step`` done as soon as a store answers; return False if it will not be tried."""
    return _backlog.add(Unsettled(step, reserved_at, tell, time.monotonic()))


def _is_done(one: Unsettled) -> bool:
    """Try it once; return whether it needs no other try."""
    try:
        result = one.settle()
    except StoreUnavailable as error:
        if time.monotonic() < one.since + SECONDS:
            time.sleep(PAUSE)
            return False
        log.error("Given up, no store answered for %d s (%s): %s", SECONDS, error, one.step.line)
        return True
    except Exception:
        log.exception("Given up: %s", one.step.line)
        return True
    log.warning("Counted or recorded after all: %s", one.step.line)
    try:
        publisher.follow_up(result)
        one.tell(result)
    except Exception:
        log.exception("What follows from it did not go through: %s", one.step.line)
    return True


_backlog = Backlog("axes-async-unsettled", _is_done, most=MOST)
