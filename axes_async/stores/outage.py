"""Whether a store is there: asked once for all who suspect that it is not, then by a thread until it answers again."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future
from threading import Event, Lock, Thread

from axes_async import telemetry
from axes_async.errors import StoreDisconnected, StoreUnavailable
from axes_async.stores.contract import Store

log = logging.getLogger(__name__)

PROBES = 6
"""How often a probe is sent whose connection breaks each time."""


class Watch:
    """Looks after one store.

    :param retry_interval: seconds between two probes of a store that is away.
    :param on_return: called when the store answers again, just before ``is_away`` ends.
    """

    def __init__(self, store: Store, *, retry_interval: float, on_return: Callable[[], None]) -> None:
        self.store, self.retry_interval, self.on_return = store, retry_interval, on_return
        self.is_away = False
        self._lock = Lock()
        self._probe: Future[bool] | None = None
        self._thread: Thread | None = None
        self._closed = Event()

    def answers(self, suspicion: StoreUnavailable) -> bool:
        """Probe the store; return False, and watch it from now on, if it is away.

        Threads that ask meanwhile share one probe.
        """
        with self._lock:
            probe, is_mine = self._probe, self._probe is None
            if probe is None:
                probe = self._probe = Future()
        if not is_mine:
            return probe.result()
        answers = False
        try:
            answers = self._is_there()
            if not answers:
                self._lose(suspicion)
        finally:
            with self._lock:
                self._probe = None
            probe.set_result(answers)
        return answers

    def close(self) -> None:
        """End the thread, at its next look."""
        self._closed.set()

    def _lose(self, suspicion: StoreUnavailable) -> None:
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                thread = Thread(target=self._wait_for_it, name="axes-async-store", daemon=True)
                try:
                    thread.start()  # It waits before it asks.
                except RuntimeError as error:  # The process has as many threads as it may: the next step asks again.
                    log.error("The store is away (%s), and nothing can look after it (%s).", suspicion, error)
                    return
                self._thread = thread
            if not self.is_away:
                telemetry.breaker("store", is_open=True)
                log.error("The store is away (%s). AXES_ON_STORE_FAILURE says what happens to logins.", suspicion)
            self.is_away = True

    def _is_there(self) -> bool:
        for _ in range(PROBES):
            try:
                self.store.probe()
            except StoreDisconnected:
                continue
            except StoreUnavailable:
                return False
            return True
        return False

    def _wait_for_it(self) -> None:
        while not self._closed.wait(self.retry_interval):
            if self._is_there():
                with self._lock:
                    self._thread = None
                    self.on_return()
                    self.is_away = False
                telemetry.breaker("store", is_open=False)
                log.warning("The store is back.")
                return
