"""Settlements that no store could do: a thread tries them again, so that what happened still counts."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from axes_async.delivery import publisher
from axes_async.errors import StoreUnavailable
from axes_async.login.backlog import Backlog
from axes_async.stores.results import StepResult

log = logging.getLogger(__name__)

SECONDS = 60.0
"""How long a settlement is tried again: a database that fails over is away for less."""

PAUSE = 0.2
"""Seconds between two tries while no store answers."""

MOST = 10_000
"""Settlements of this process that wait at most; each is about 2 kB."""


@dataclass(frozen=True, slots=True)
class Unsettled:
    """A settlement, what is to be told of its result, and its event as a line of the log."""

    settle: Callable[[], StepResult]
    tell: Callable[[StepResult], object]
    line: str
    since: float


def try_later(settle: Callable[[], StepResult], tell: Callable[[StepResult], object], line: str) -> bool:
    """Have ``settle`` done as soon as a store answers; return False if it will not be tried."""
    return _backlog.add(Unsettled(settle, tell, line, time.monotonic()))


def _is_done(one: Unsettled) -> bool:
    """Try it once; return whether it needs no other try."""
    try:
        result = one.settle()
    except StoreUnavailable as error:
        if time.monotonic() < one.since + SECONDS:
            time.sleep(PAUSE)
            return False
        log.error("Given up, no store answered for %d s (%s): %s", SECONDS, error, one.line)
        return True
    except Exception:
        log.exception("Given up: %s", one.line)
        return True
    log.warning("Counted or recorded after all: %s", one.line)
    try:
        publisher.follow_up(result)
        one.tell(result)
    except Exception:
        log.exception("What follows from it did not go through: %s", one.line)
    return True


_backlog = Backlog("axes-async-unsettled", _is_done, most=MOST)
