"""What the store told this process of counters last: few guesses are lost with a store that goes away."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from threading import Lock

from axes_async.clock import now_ms
from axes_async.counters.rules import Counter

SIZE = 4096
"""Counters that are remembered; beyond them, the one whose answer is the oldest is dropped."""

FRESH_MS = 60_000
"""Milliseconds after which an answer is not used any more."""


class RecentAnswers:
    """The latest number of failures of each counter, and when it was told, by the clock of this host."""

    def __init__(self) -> None:
        self._answers: OrderedDict[str, tuple[int, int]] = OrderedDict()
        self._lock = Lock()

    def note(self, counters: Sequence[Counter], failures: Sequence[int]) -> None:
        """Remember the failures that the store has told of."""
        if not any(failures) and not self._answers:
            return
        now = now_ms()
        with self._lock:
            for counter, count in zip(counters, failures, strict=False):
                self._answers.pop(counter.digest, None)
                if count:
                    self._answers[counter.digest] = count, now
            while len(self._answers) > SIZE:
                self._answers.popitem(last=False)

    def count_up(self, counters: Iterable[Counter]) -> None:
        """Add the failure that was counted elsewhere than in the store."""
        with self._lock:
            for counter in counters:
                if counter.digest in self._answers:
                    failures, known_at = self._answers[counter.digest]
                    self._answers[counter.digest] = failures + 1, known_at

    def forget(self, counters: Iterable[Counter]) -> None:
        """Drop what is known of counters that a login has cleared."""
        with self._lock:
            for counter in counters:
                self._answers.pop(counter.digest, None)

    def known(self, counters: Iterable[Counter]) -> dict[str, tuple[int, int]]:
        """Return the failures that are known, and since when, by digest; none is older than its cool-off."""
        if not self._answers:
            return {}
        now, found = now_ms(), {}
        for counter in counters:
            answer = self._answers.get(counter.digest)
            if answer is not None and now - answer[1] < min(FRESH_MS, counter.rule.window_ms or FRESH_MS):
                found[counter.digest] = answer
        return found
