"""A store that may go away: what is done instead, and when it is asked again.

After a fault no login waits for the store any more; a thread of this process looks after it until it answers.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from importlib import import_module
from typing import Any, Literal

from django.db import DatabaseError, InterfaceError

from axes_async.clock import now_ms
from axes_async.counters.events import AttemptEvent, CounterState, untouched
from axes_async.counters.rules import Counter
from axes_async.errors import StoreBusy, StoreCold, StoreFlushed, StoreReturned, StoreUnavailable
from axes_async.heard import Heard
from axes_async.stores.contract import OutboxStore, Store
from axes_async.stores.results import Outcome, Verdict

log = logging.getLogger(__name__)

DECIDING = {"reserve", "peek", "states"}
"""Steps that decide; what the others tell must be kept, in the store or else in the rows."""

REPEATABLE = {"reserve", "release", "peek", "states"}
"""Steps that come to the same when they are done twice."""

REPEATS = 5
"""How often a step is tried on a store that is slow and not away."""

OnFailure = Literal["database", "deny", "allow"]


class FailoverStore:
    """The steps of a login on ``primary``, or on what ``on_failure`` says while it is away.

    :param primary: the store to use.
    :param on_failure: ``"database"`` decides from the rows and writes them in the request; ``"deny"`` raises
        ``StoreUnavailable``; ``"allow"`` lets everything through and leaves the events in the log, as errors.
    :param rest: seconds between two looks at a primary that is away.
    """

    def __init__(self, primary: Store, *, on_failure: OnFailure, rest: float) -> None:
        """Start with a primary that is taken to be there."""
        self.primary, self.on_failure, self.rest = primary, on_failure, rest
        self.is_away = False
        self._lock = threading.Lock()
        self._look: threading.Thread | None = None
        self._watcher: threading.Thread | None = None
        self._answers_again = False
        self._was_flushed = False
        self.heard = Heard()
        if isinstance(primary, OutboxStore):
            primary.when_flushed = self._note_flush

    def reserve(self, token: str, counters: Sequence[Counter], event: AttemptEvent | None, **options: Any) -> Outcome:
        """See ``Store.reserve``."""
        while True:
            began = time.monotonic()
            outcome: Outcome = self._step("reserve", token, counters, event, **options)
            if not outcome.told:
                return outcome
            self.heard.note(counters, outcome.told, event, now=options["now"])
            if outcome.verdict is Verdict.ALLOWED and options["lease"]:
                self.heard.hold(token, counters, end=options["now"] + options["lease"])
            if not self.heard.lost_since(began):
                return outcome
            # The others have been told of all but this place, so it is asked for again.
            self.heard.settle(token)
            options["now"] = now_ms()

    def fail(
        self, token: str, counters: Sequence[Counter], release: Sequence[Counter], event: AttemptEvent, **options: Any
    ) -> Outcome:
        """See ``Store.fail``."""
        began = time.monotonic()
        outcome: Outcome = self._step("fail", token, counters, release, event, **options)
        if outcome.told:
            self.heard.note(counters, outcome.told, event, now=options["now"])
            self.heard.let_go(token)
            if self.heard.lost_since(began):
                self._tell(settled=token)
        return outcome

    def succeed(
        self, token: str, counters: Sequence[Counter], clear: Sequence[Counter], event: AttemptEvent, **options: Any
    ) -> Outcome:
        """See ``Store.succeed``."""
        outcome: Outcome = self._step("succeed", token, counters, clear, event, **options)
        if not self.is_away:
            self.heard.settle(token)
            self.heard.clear((counter.digest for counter in clear), now=options["now"])
        return outcome

    def release(self, token: str, counters: Sequence[Counter], *, now: int) -> None:
        """See ``Store.release``."""
        self._step("release", token, counters, now=now)
        self.heard.settle(token)

    def peek(self, counters: Sequence[Counter], *, now: int) -> Outcome:
        """See ``Store.peek``."""
        outcome: Outcome = self._step("peek", counters, now=now)
        return outcome

    def record(self, event: AttemptEvent) -> Outcome:
        """See ``Store.record``."""
        outcome: Outcome = self._step("record", event)
        return outcome

    def _step(self, name: str, *args: Any, held: bool = False, **options: Any) -> Any:
        """Do a step on the primary, or else what ``on_failure`` says; ``held``: the attempt has reservations there."""
        reason, away = StoreUnavailable("The store is away."), False
        for repeated in range(REPEATS):
            away = not self.is_there()
            if away:
                break
            began = time.monotonic()
            try:
                return getattr(self.primary, name)(*args, **options)
            except StoreFlushed as error:
                if name == "reserve":
                    return Outcome(Verdict.BUSY, wait=error.left)
                reason = error
                time.sleep(error.left / 1000)
            except StoreBusy as error:
                if name in DECIDING:
                    raise  # The store knows more than the rows do, which may be behind it.
                reason = error
                break
            except StoreCold as error:
                reason = error
                break
            except StoreUnavailable as error:
                reason = error
                away = self._is_lost(error, began)
                if away:
                    break
                # A slow answer or a lost connection, and no store that is away. A step of an attempt that holds a place
                # shows by that place whether it was done; of others it cannot be known.
                if held:
                    options["again"] = True
                elif name not in REPEATABLE:
                    break
                log.warning("The store was slow (%s); asking again (%d).", error, repeated + 1)
        if self.on_failure == "deny":
            raise reason
        if self.on_failure == "allow":
            log.error("Let through without a store (%s): %s %s", reason, name, [*_events(args)])
            return [untouched(counter) for counter in args[0]] if name == "states" else Outcome()
        options.pop("again", None)
        if away and name == "reserve" and self.primary.has_outbox and (wait := self.heard.unsure()):
            return Outcome(Verdict.BUSY, wait=wait)
        return self._in_rows(name, away, *args, held=held, **options)

    def _answers(self) -> bool:
        """Return whether the primary can be written to now."""
        try:
            self.primary.probe()
        except StoreUnavailable:
            return False
        return True

    def _in_rows(self, name: str, away: bool, *args: Any, held: bool, **options: Any) -> Any:
        """Do the step on the rows; the code for that is the worker's, and imported when it is first needed."""
        if held or name == "release":
            self.heard.settle(args[0])
        try:
            return getattr(self._direct(away=away), name)(*args, **options)
        except StoreReturned:
            # For others it is there. Should it not be for us, the next step finds that out, and stays with the rows.
            self.is_away = False
            return self._step(name, *args, held=held, **options)
        except (DatabaseError, InterfaceError) as error:
            raise StoreUnavailable(f"Neither the store nor the database can be used: {error}") from error

    def _direct(self, *, away: bool = True) -> Any:
        return import_module("axes_async.tasks.direct").DirectStore(self.heard, away=away)

    def _is_lost(self, error: StoreUnavailable, began: float) -> bool:
        """Return whether the store is away: one thread looks for all who suspect it, and the rows are told meanwhile.

        So what this process has heard is there for the others by the time that any of them decides on rows.
        """
        with self._lock:
            look = self._look
            is_first = not self.is_away and (look is None or not look.is_alive())
            if is_first:
                self._was_flushed = False
                self.heard.lose(now=now_ms(), began=began)
                look = self._look = threading.Thread(target=self._look_at_it, args=(error,), name="axes-async-look")
                look.start()
        if is_first:
            self._tell()
        if look is not None:
            look.join()
        return self.is_away

    def _look_at_it(self, error: StoreUnavailable) -> None:
        if not self._answers():
            self._lose(error)

    def _note_flush(self, counted: bool) -> None:
        """Tell what this process has heard of a store that has lost it, and have that hold its places again.

        Where the rows have ``counted`` nothing, the store is a new one: what was heard before is of another.
        """
        if not counted:
            self.heard = Heard()
            return
        self._was_flushed = True
        self.heard.forgotten(now=now_ms())
        if isinstance(self.primary, OutboxStore):
            self.primary.hold(self.heard.places(now=now_ms()), now=now_ms())
        self._tell()

    def _tell(self, *, settled: str = "") -> None:
        """Have the rows know what this process has heard, if they are going to be asked.

        They may have been told of a place of the attempt ``settled``, which the store has ended since.
        """
        if (self.on_failure == "database" or self._was_flushed) and self.heard:
            try:
                direct = self._direct(away=not self._was_flushed)
                direct.tell()
                if settled:
                    direct.release(settled, (), now=now_ms())
            except (DatabaseError, InterfaceError) as error:
                log.warning("What was heard of the store could not be told to the rows (%s).", error)

    def _lose(self, error: StoreUnavailable) -> None:
        with self._lock:
            if not self.is_away:
                log.error("The store is away (%s); logins are handled as AXES_ON_STORE_FAILURE says.", error)
            self.is_away, self._answers_again = True, False
        self._watch()

    def is_there(self) -> bool:
        """Return whether the store is in use; one that has been seen to answer again is from here on.

        It takes over first what rows have counted meanwhile: here, in a login, since the thread that looks after the
        store has no business with the database.
        """
        if not self.is_away:
            return True
        if not self._answers_again:
            self._watch()
            return False
        if not self._lock.acquire(blocking=False):
            return False
        try:
            if self.on_failure == "database" and isinstance(self.primary, OutboxStore):
                self._direct().hand_back(self.primary)
            self.is_away = False
        except (StoreUnavailable, DatabaseError, InterfaceError) as error:
            log.warning("The store is yet to be told of what was counted without it (%s).", error)
            return False
        finally:
            self._answers_again = False
            self._lock.release()
        log.warning("The store is back.")
        return True

    def _watch(self) -> None:
        """Have a thread look after the store; a forked process has to start its own."""
        if self._watcher is not None and self._watcher.is_alive():
            return
        with self._lock:
            if self._watcher is None or not self._watcher.is_alive():
                self._watcher = threading.Thread(target=self._wait_for_it, name="axes-async-store", daemon=True)
                self._watcher.start()

    def _wait_for_it(self) -> None:
        """Look until the store can be written to."""
        while self.is_away and not self._answers_again:
            time.sleep(self.rest)
            self._answers_again = self._answers()

    def states(self, counters: Sequence[Counter], *, now: int) -> list[CounterState]:
        """See ``Store.states``."""
        states: list[CounterState] = self._step("states", counters, now=now)
        return states


def _events(args: tuple[Any, ...]) -> list[str]:
    return [argument.line() for argument in args if isinstance(argument, AttemptEvent)]
