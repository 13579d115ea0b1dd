"""The database store without its bounds, where many threads are at it at once: a busy machine is slow."""

from __future__ import annotations

from collections.abc import Callable

from axes_async.stores import autonomous
from axes_async.stores.database import mode, retries
from tests.waiting import PATIENCE


def take_all_the_time(put: Callable[[object, str, object], object] = setattr) -> None:
    """Let steps wait for each other as long as it takes; ``put`` sets an attribute of a module."""
    for module, name in ((retries, "STATE_PATIENCE"), (retries, "PATIENCE"), (autonomous, "PATIENCE")):
        put(module, name, PATIENCE)
    for name in ("STATEMENT_MS", "FROZEN_MS"):
        put(mode, name, int(PATIENCE * 1000))
