"""What waits behind the logins of a process is served, whatever became of the thread that served before."""

from __future__ import annotations

import threading

import pytest

from axes_async.login.backlog import Backlog
from tests.waiting import until


def test_what_is_not_done_waits_anew_behind_the_others() -> None:
    served: list[str] = []

    def serve(one: str) -> bool:
        served.append(one)
        return one != "again" or served.count("again") == 2

    lined_up = threading.Event()
    backlog = Backlog[str]("test", serve, most=10, rests=lambda: float(not lined_up.wait()))
    for one in ("again", "other"):
        assert backlog.add(one)
    lined_up.set()
    until(lambda: backlog._thread is None, what="all is served")
    assert served == ["again", "other", "again"]


def test_a_thing_that_breaks_the_thread_keeps_nothing_from_being_served(monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[str] = []

    def serve(one: str) -> bool:
        if one == "broken":
            raise OSError("no more")
        served.append(one)
        return True

    monkeypatch.setattr(threading, "excepthook", lambda told: None)
    backlog = Backlog[str]("test", serve, most=10)
    assert backlog.add("broken")
    until(lambda: backlog._thread is not None and not backlog._thread.is_alive(), what="its thread has ended")
    assert backlog.add("next")
    until(lambda: served == ["next"], what="the next one is served")


def test_no_more_wait_than_may() -> None:
    go = threading.Event()
    backlog = Backlog[int]("test", lambda one: True, most=2, rests=lambda: float(not go.wait()))
    assert [backlog.add(one) for one in range(3)] == [True, True, False]
    go.set()
