"""What a frame tells of code that has had a password looked at, and what an error that has left it does."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

import pytest

from axes_async.login.frames import has_returned, is_running, was_ended_by

FRAMES: list[FrameType] = []


def at_once() -> None:
    FRAMES.append(sys._getframe())


def with_a_value() -> int:
    FRAMES.append(sys._getframe())
    return len(FRAMES)


def out_of_blocks() -> str:
    FRAMES.append(sys._getframe())
    try:
        for name in ("one", "two"):
            with suppress(ValueError):
                return name
    finally:
        FRAMES.append(FRAMES[-1])
    return "never"


def in_an_error() -> None:
    FRAMES.append(sys._getframe())
    raise LookupError


async def as_a_task(seconds: float) -> int:
    FRAMES.append(sys._getframe())
    await asyncio.sleep(seconds)
    return 1


async def with_a_timeout() -> None:
    FRAMES.append(sys._getframe())
    async with asyncio.timeout(0):
        await asyncio.Event().wait()


@pytest.mark.parametrize("code", [at_once, with_a_value, out_of_blocks])
def test_code_that_returns_has_returned(code: Callable[[], object]) -> None:
    code()
    assert has_returned(FRAMES[-1])
    assert not is_running(FRAMES[-1])


def test_code_at_work_has_not() -> None:
    assert not has_returned(sys._getframe())
    assert is_running(sys._getframe())


def test_code_that_an_error_has_left_has_not_and_the_error_tells() -> None:
    with pytest.raises(LookupError) as caught:
        in_an_error()
    frame = FRAMES[-1]
    assert not has_returned(frame)
    assert not is_running(frame)
    assert was_ended_by(frame, caught.value)
    wrapped = RuntimeError("behind a group, and its own cause")
    wrapped.__cause__, wrapped.__context__ = wrapped, ExceptionGroup("of one", [caught.value])
    assert was_ended_by(frame, wrapped)
    assert not was_ended_by(frame, LookupError())


async def test_a_task_that_returns_has_returned() -> None:
    await as_a_task(0)
    assert has_returned(FRAMES[-1])


async def test_a_task_that_was_stopped_has_not_ended() -> None:
    with pytest.raises(TimeoutError) as caught:
        async with asyncio.timeout(0):
            await as_a_task(60)
    assert not has_returned(FRAMES[-1])
    assert not was_ended_by(FRAMES[-1], caught.value)


async def test_nor_has_one_that_has_stopped_its_own_thread() -> None:
    with pytest.raises(TimeoutError) as caught:
        await with_a_timeout()
    assert not was_ended_by(FRAMES[-1], caught.value)
