"""The loads that a drain is measured with, sent through a store as the guard would, and the rows they must become.

What must be there is worked out from what was done, by plain counting, and not by any code that is being measured.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable
from dataclasses import dataclass, field

from axes_async.counters.events import Kind
from axes_async.stores.contract import OutboxStore
from axes_async.stores.results import Verdict
from axes_async.stores.step import Step, StepKind
from benchmarks import load

LIMIT = 3
LEASE = 30_000
BLOCKED = 12
"""Tries of an attacker that is locked out; the first ten get a row each."""


@dataclass
class Expected:
    """The rows that must be there after a drain."""

    events: int = 0
    failures: Tally[str] = field(default_factory=Tally)
    """``AccessAttempt.failures_since_start``, by address."""
    failed: int = 0
    locked: int = 0
    """Of the rows of ``AccessFailureLog``: all, and those that met a lockout or set one."""
    blocked: int = 0
    logins: int = 0
    logouts: int = 0


class Play:
    """Sends attempts to a store, and notes what must become of them."""

    def __init__(self, store: OutboxStore, *, first: int = 0) -> None:
        """Send to ``store``.

        :param first: the number of the first client.
        """
        self.store, self.first = store, first
        self.expected = Expected()
        self._wrong: Tally[str] = Tally()

    def fail(self, number: int) -> None:
        """Guess wrong, as client ``number``; or be turned away, where it is locked out."""
        address, username = load.address(self.first + number), load.username(self.first + number)
        counters = load.counters(address, username, limit=LIMIT)
        blocked, failed = (load.event(kind, address, username) for kind in (Kind.BLOCKED, Kind.FAILED))
        token = failed.id[-16:]
        answer = self.store.do(Step(StepKind.RESERVE, token, counters, event=blocked, lease=LEASE))
        self._wrong[address] += 1
        turned_away = self._wrong[address] - LIMIT
        if (answer.verdict is Verdict.LOCKED) is not (turned_away > 0):
            raise AssertionError(
                f"The store answered try {self._wrong[address]} of {LIMIT} with {answer.verdict.name}."
            )
        if turned_away > 0:
            if turned_away <= 10:
                self.expected.events += 1
                self.expected.blocked += 1
                self.expected.locked += 1
            return
        self.store.do(Step(StepKind.FAIL, token, counters, event=failed))
        self.expected.events += 1
        self.expected.failed += 1
        self.expected.locked += turned_away == 0
        self.expected.failures[address] += 1

    def log_in_and_out(self, number: int) -> None:
        """Log in as client ``number``, and out again."""
        address, username = load.address(self.first + number), load.username(self.first + number)
        session = f"{number:064x}"
        login = load.event(Kind.LOGGED_IN, address, username, session=session)
        counters = load.counters(address, username, limit=LIMIT)
        self.store.do(Step(StepKind.SUCCEED, login.id[-16:], counters, event=login))
        self.store.do(
            Step(StepKind.RECORD, event=load.event(Kind.LOGGED_OUT, address, username, session=session, login=login.id))
        )
        self.expected.events += 2
        self.expected.logins += 1
        self.expected.logouts += 1


def distinct(play: Play, events: int) -> None:
    """Guess once from each of many addresses."""
    for number in range(events):
        play.fail(number)


def repeated(play: Play, events: int) -> None:
    """Guess three times from each of many addresses, all of which are at it at once."""
    for _ in range(LIMIT):
        for number in range(events // LIMIT):
            play.fail(number)


def mixed(play: Play, events: int) -> None:
    """Guess, be locked out, log in and out, in groups that go on side by side."""
    group, number = 20, 0
    while play.expected.events < events:
        attackers, users = (range(start, start + group) for start in (number, number + group))
        for step in range(LIMIT + BLOCKED):
            for attacker in attackers:
                play.fail(attacker)
            for user in users if step % 5 == 0 else ():
                play.log_in_and_out(user * 10 + step)
        number += 2 * group


LOADS: dict[str, Callable[[Play, int], None]] = {"distinct": distinct, "repeated": repeated, "mixed": mixed}
