"""The self-test: a guesser that is nobody must be locked at the limit, and its rows must appear.

Each link of the chain is looked at in turn and told of. What was counted is taken back at the end, and nothing else.
How a guess is made is in the subclasses: in this process (``selftest_here.py``) or over HTTP (``selftest_http.py``).
"""

from __future__ import annotations

import secrets
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from itertools import product
from typing import Any

from django.contrib.auth import get_user_model
from django.core.checks import ERROR, run_checks
from django.core.exceptions import ImproperlyConfigured
from django.db.models import Q

from axes_async.clock import as_datetime, now_ms
from axes_async.conf import CHANNELS, AxesSettings, get_settings
from axes_async.counters.rules import Counter
from axes_async.delivery import publisher
from axes_async.errors import AxesError
from axes_async.inspection.attempts import lockouts_of, name_of
from axes_async.inspection.standings import has_private_store
from axes_async.models import AccessAttempt, AccessFailureLog, AttemptCounter, Notice, database
from axes_async.notify.pace import key_of
from axes_async.stores.factory import get_failover, get_store
from axes_async.tasks.drain import drain_to_end, readable
from axes_async.tasks.reset import reset
from axes_async.tasks.status import status

REASON = "axes_selftest"
"""What the record of the reset says."""

MOST = 50
"""Guesses that are made at most; half of what is an attack by default (``AXES_NOTIFY_ATTACK``)."""

SPAN = timedelta(hours=1)
"""How far the clocks of the servers may differ, and how long no news is told of the lockout if nobody cleans up."""

PAUSE = 0.1
"""Seconds between two looks at the rows."""

BREAKS = {"axes_async.W001", "axes_async.W003", "axes_async.W004"}
"""Warnings of a middleware or backend without which the chain is broken."""


class State(StrEnum):
    OK = "ok"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Link:
    """One link of the chain, and what was found there."""

    name: str
    state: State
    found: str


class Ended(Exception):
    """A link is broken, or is not looked at; ``stop``: those behind it cannot be looked at then."""

    def __init__(self, found: str, state: State = State.FAILED, *, stop: bool = False) -> None:
        super().__init__(found)
        self.found, self.state, self.stop = found, state, stop


class SelfTest:
    """One run: ``links``, and then in any case ``clean``.

    :param wait: how many seconds rows may take to appear.
    :param by: who asked for it, for the record of the reset.
    """

    def __init__(self, *, wait: float, by: str) -> None:
        model = get_user_model()
        self.token = secrets.token_hex(8)
        self.name, self.agent = f"axes-selftest-{self.token}", f"axes_selftest/{self.token}"
        if model.get_email_field_name() == model.USERNAME_FIELD:
            self.name += "@example.invalid"  # Nobody has it (RFC 2606), and forms take it.
        self.password = secrets.token_hex(16)
        self.address: str | None = None
        """Where the guesses come from, if it is known, as the site sees it."""
        self.wait, self.by = wait, by
        self.began = as_datetime(now_ms())
        self.guesses = 0
        """How many of them should have been counted."""
        self.turned_away = 0
        """How many more should have a row of their own, as turned away."""
        self.has_guessed = False
        self.is_stopped = False
        self.is_awaited = True
        """Whether a worker may yet write the rows."""
        self.muted: list[str] = []

    @property
    @abstractmethod
    def steps(self) -> Sequence[tuple[str, Callable[[], str]]]:
        """The links by name. Each step returns what it found, or raises."""

    def links(self) -> Iterator[Link]:
        """Look at one link after the other."""
        for name, step in self.steps:
            yield Link(name, State.SKIPPED, "not reached") if self.is_stopped else self._link(name, step)

    def clean(self) -> Link:
        """Take back what was counted, and delete the rows of it."""
        link = self._link("cleanup", self._clean)
        if link.state is State.FAILED:
            return Link(link.name, link.state, f"{link.found} Do it later: manage.py axes_reset_username {self.name}")
        return link

    def _link(self, name: str, step: Callable[[], str]) -> Link:
        try:
            return Link(name, State.OK, step())
        except Ended as ended:
            self.is_stopped = ended.stop
            return Link(name, ended.state, ended.found)
        except AxesError as error:
            self.is_stopped = True
            return Link(name, State.FAILED, str(error))
        except Exception as error:  # noqa: BLE001  (whatever a site's own code raises breaks the link)
            self.is_stopped = True
            return Link(name, State.FAILED, f"{type(error).__name__}: {error}")

    def look_at_settings(self) -> str:
        try:
            is_enabled = get_settings().enabled
        except ImproperlyConfigured as error:
            raise Ended(str(error), stop=True) from error
        if not is_enabled:
            raise Ended("AXES_ENABLED is off: nothing is counted, and nobody is locked out.", stop=True)
        told = [message for message in run_checks() if not message.is_silenced()]
        broken = [f"{one.msg} ({one.id})" for one in told if one.level >= ERROR or one.id in BREAKS]
        if broken:
            raise Ended(" ".join(broken))
        return "the settings can be read, and no system check has an error"

    def look_at_store(self) -> str:
        seen = status(at_most=1)
        if seen.database_error:
            raise Ended(f"The database cannot be read: {seen.database_error}", stop=True)
        if seen.store_error:
            raise Ended(f"The store cannot be reached: {seen.store_error}")
        if seen.complete is False:
            raise Ended("The store is not complete, and the database decides: manage.py axes_sync, or a worker, syncs.")
        if has_private_store():
            return f"{seen.store}; each process has counters of its own, so the limit holds in each alone"
        return f"{seen.store}, complete" if seen.complete else seen.store

    def look_at_broker(self) -> str:
        if not publisher.has_worker():
            publisher.nudge()
            raise Ended("there is no broker: this process writes the rows", State.SKIPPED)
        if error := publisher.broker_error():
            self.is_awaited = False
            raise Ended(f"The broker takes no messages: {error}")
        if not publisher.publish(publisher.DRAIN, expires=publisher.DRAIN_EXPIRES):
            raise Ended("The broker did not take the nudge; the log says why.")
        return "it took a nudge"

    def look_at_rows(self) -> str:
        """Wait for the rows of all guesses; without a worker, write them here, so that the next links can be seen."""
        began, was_awaited = time.monotonic(), self.is_awaited
        if not was_awaited or not self.await_rows(self._are_written):
            self.is_awaited = False
            if not self.await_rows(self._are_written):
                raise Ended(self.without_rows(), stop=True)
            if not was_awaited:
                raise Ended("no worker can be told; this process has written the rows now", State.SKIPPED)
            queue = f" of the queue {name}" if (name := get_settings().celery_queue) else ""
            told = f"No worker{queue} has written the rows within {self.wait:g} s, and this process has done it now."
            raise Ended(f"{told} Is a worker running, with this broker, and beat?")
        found = f"access attempts count {self.failures()}"
        if get_settings().enable_access_failure_log:
            found += f", access failures have {self.logs().count()}"
        return f"{found}, after {time.monotonic() - began:.1f} s"

    def look_at_counters(self) -> str:
        self.await_rows(lambda: bool(self.locked()))
        if not (locked := self.locked()):
            raise Ended("The rows have the failures, and no counter that is locked.")
        return "locked: " + "; ".join(name_of(counter) for counter in locked)

    def without_rows(self) -> str:
        """Return what it means that there are no rows, though this process has written all there was."""
        return (
            "The guesses have left nothing in the store and the database that this process uses. "
            "manage.py axes_dead_letters shows events that could not be written."
        )

    def attempts(self) -> Any:
        """Return the attempts of the guesser: nobody else has its name or its agent."""
        found = AccessAttempt.objects.using(database()).filter(attempt_time__gte=self.began - SPAN)
        return found.filter(Q(user_agent=self.agent) | Q(username=self.name))

    def logs(self) -> Any:
        found = AccessFailureLog.objects.using(database()).filter(attempt_time__gte=self.began - SPAN)
        return found.filter(Q(user_agent=self.agent) | Q(username=self.name))

    def failures(self) -> int:
        return sum(self.attempts().values_list("failures_since_start", flat=True))

    def locked(self) -> list[AttemptCounter]:
        """Return the counters of the guesser that are locked, as far as the rows know."""
        return [counter for counters in lockouts_of(list(self.attempts())).values() for counter in counters]

    def await_rows(self, condition: Callable[[], bool]) -> bool:
        """Return whether ``condition`` becomes true in time; where no worker writes rows, once this process has."""
        if not self.is_awaited:
            self._write_here()
        give_up = time.monotonic() + (self.wait if self.is_awaited else 0)
        while not (is_so := condition()) and time.monotonic() < give_up:
            time.sleep(PAUSE)
        return is_so

    def mute(self, counters: Sequence[Counter]) -> None:
        """Have nobody told of the lockout; news of a counter that waits to be told by now is let be."""
        now = as_datetime(now_ms())
        for counter, channel in product(counters, CHANNELS):
            key = key_of(f"lockout {channel}", counter.digest)
            row = {"until": now + SPAN, "channel": channel}
            if Notice.objects.using(database()).get_or_create(key=key, defaults=row)[1]:
                self.muted.append(key)

    def _are_written(self) -> bool:
        turned_away = self.turned_away if get_settings().enable_access_failure_log else 0
        return self.failures() >= self.guesses and self.logs().filter(repeats__gt=0).count() >= turned_away

    def _write_here(self) -> None:
        drain_to_end(readable(get_store()))

    def _clean(self) -> str:
        if not self.has_guessed:
            return "nothing was counted"
        using = database()
        self._write_here()
        keys = list(self.attempts().values_list("key", flat=True))
        if keys:
            # Only the share of these attempts: others may count in the same counters.
            reset(rows=keys, reason=REASON, by=self.by)
        elif self.guesses:
            reset(username=self.name, ip=self.own_address, ip_or_username=True, reason=REASON, by=self.by)
        gone = self.logs().delete()[0]
        Notice.objects.using(using).filter(key__in=self.muted).delete()
        return f"the counters are reset, {len(keys)} attempts and {gone} access failures deleted"

    @property
    def own_address(self) -> str | None:
        """The address, if it is nobody else's."""
        return None


def failures_left(settings: AxesSettings, counters: Sequence[Counter], *, made: int = 0) -> int:
    """Return how many failures more lock one of ``counters``, as the store that decides has them.

    Raises ``Ended`` if none ever locks, or only after too many, and ``StoreUnavailable``.

    :param made: how many failures there are that the store of this process may not know of.
    """
    left = []
    for counter, seen in zip(counters, get_failover().look(counters), strict=True):
        if limit := seen.state.limit(counter.rule, now_ms()):
            left.append(limit - max(seen.state.failures, made))
    if not left:
        why = "" if settings.lock_out_at_failure else ": AXES_LOCK_OUT_AT_FAILURE is off"
        raise Ended(f"no rule locks this client{why}", State.SKIPPED, stop=True)
    if min(left) > MOST:
        told = f"the smallest limit that is left is {min(left)}, and no more than {MOST} guesses are made"
        raise Ended(told, State.SKIPPED, stop=True)
    return max(min(left), 0)
