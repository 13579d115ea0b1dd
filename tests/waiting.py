"""Waiting for what another thread, process or server is about to do. No test may depend on how long that takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PATIENCE = 60.0
"""Seconds after which something is taken for broken. A busy machine is slow, and no reason to fail."""


def until(condition: Callable[[], T], *, seconds: float = PATIENCE, what: str = "") -> T:
    """Return what ``condition`` returns as soon as it is true; fail after ``seconds``."""
    give_up = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < give_up, f"still not so after {seconds} seconds: {what or condition}"
        time.sleep(0.01)
    return result
