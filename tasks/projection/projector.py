"""The projector: events become rows of logs (``logs.py``), attempts and counters (``counters.py``), in their order.

Call it under the writer lock, in the transaction that moves the cursor.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

from django.db.models import Model

from axes_async.clock import as_datetime, as_ms
from axes_async.conf import get_settings
from axes_async.counters.events import AttemptEvent, Kind, parameters_of
from axes_async.counters.rules import PARAMETERS
from axes_async.login.rules_in_force import longest_cooloff
from axes_async.models import AccessAttempt, AccessFailureLog, AccessLog, OutboxEvent, StoreState
from axes_async.tasks.projection import counters
from axes_async.tasks.projection.bulk import ATTEMPT_KEY, PORTION, WHO, Columns, Moments, portions, who
from axes_async.tasks.projection.counters import Entry, Group, Told, counters_of, group_of, keys_under
from axes_async.tasks.projection.logs import LogWriter
from axes_async.tasks.projection.news import note_lockouts
from axes_async.tasks.projection.rollups import roll_up

COUNTED = ("attempt_time", "first_attempt_time", "failures_since_start", "expires_at")

ATTEMPT_FIELDS = (*COUNTED, "path_info", "http_accept")
"""What is set where an attempt has a row already."""

ATTEMPT = (*WHO, "key", *counters.KEYS, *COUNTED[1:])


class Projector:
    """Writes one batch of events to the database ``using``."""

    def __init__(self, using: str) -> None:
        self.using, self.settings = using, get_settings()
        state = StoreState.current(using)
        self.void, self.void_attempts_until = state.void_generation, state.void_attempts_until
        self.moments = Moments(using)

    def write(self, entries: Iterable[Entry]) -> list[Entry]:
        """Write what ``entries`` tell, and no event twice; return those that were written."""
        new = self._unapplied(list(entries))
        roll_up(new, self.using)
        for part in _parts(new):
            self._write(part)
        return new

    def _unapplied(self, entries: list[Entry]) -> list[Entry]:
        """Return the entries whose events have no row yet; an event of the store may be in the outbox table too."""
        logged: set[str] = set()
        for model, kinds in ((AccessFailureLog, (Kind.FAILED, Kind.BLOCKED)), (AccessLog, (Kind.LOGGED_IN,))):
            logged |= self._found(model, [entry.event.id for entry in entries if entry.event.kind in kinds])
        of_store = logged | self._found(OutboxEvent, [e.event.id for e in entries if e.generation is not None])
        if not of_store:
            return entries
        return [e for e in entries if e.event.id not in (logged if e.generation is None else of_store)]

    def _found(self, model: type[Model], ids: list[str]) -> set[str]:
        found = Columns(model, ("event_id",), self.using).find(("event_id",), [(event_id,) for event_id in ids])
        return {event_id.hex for (event_id,) in found}

    def _write(self, entries: Sequence[Entry]) -> None:
        LogWriter(self.using, self.moments).write([entry.event for entry in entries])
        told: dict[str, list[Told]] = {}
        cleared: set[Group] = set()
        for entry in entries:
            for change in entry.event.changes:
                if entry.generation is not None:
                    told.setdefault(change.digest, []).append(Told(change, entry, entry.generation))
                elif change.cleared:
                    cleared.add(entry.group_of(change))
        replayed = counters.Replayed()
        if told:
            replayed = counters.replay(told, self.using, void=self.void, moments=self.moments)
        counted = [entry for entry in entries if self._makes_attempt(entry, replayed.void)]
        self._attempts(counted)
        if channels := self.settings.channels("lockouts"):
            note_lockouts([entry.event for entry in counted], channels, self.using)
        self._keep_shown(replayed.locked)
        self._clear(cleared | replayed.cleared)

    def _makes_attempt(self, entry: Entry, void: dict[str, int]) -> bool:
        event, generation = entry.event, entry.generation
        if event.kind is not Kind.FAILED:
            return False
        if generation is None or not (event.changes and void):
            return generation is None or generation > self.void
        return any(generation > max(self.void, void.get(change.digest, -1)) for change in event.changes)

    def _attempts(self, entries: list[Entry]) -> None:
        rows = self._known_attempts({(entry.keys["ip_address"], entry.attempt_key) for entry in entries})
        latest: dict[str, Entry] = {}
        for entry in entries:
            at, key = entry.event.time, entry.attempt_key
            last, first, failures, end = rows.get(key, (0, 0, 0, 0))
            if not failures or 0 < end <= at:
                last, first, failures = at, at, 0
            rows[key] = max(last, at), first, failures + 1, self._end(entry.event)
            latest[key] = entry
        moments, values = self.moments, []
        for key, entry in latest.items():
            last, first, failures, end = rows[key]
            keys = [entry.keys[name] for name in PARAMETERS]
            values.append((*who(entry.event, moments[last]), key, *keys, moments[first], failures, moments[end]))
        Columns(AccessAttempt, ATTEMPT, self.using).upsert(values, key=ATTEMPT_KEY, fields=ATTEMPT_FIELDS)

    def _known_attempts(self, keys: Collection[tuple[str, str]]) -> dict[str, tuple[int, int, int, int]]:
        """Return what was counted for these attempts, but for those that a reset of everything has yet to delete."""
        until = self.void_attempts_until
        found = Columns(AccessAttempt, (*ATTEMPT_KEY, *COUNTED), self.using).find(ATTEMPT_KEY, keys)
        return {
            key: (as_ms(last), as_ms(first), failures, 0 if end is None else as_ms(end))
            for _, key, last, first, failures, end in found
            if until is None or last > until
        }

    def _end(self, event: AttemptEvent) -> int:
        """Return when the last of the event's counters starts over; 0 if one does so only by a reset."""
        ends = [change.expires_at for change in event.changes]
        if ends:
            return 0 if 0 in ends else max(ends)
        cooloff = longest_cooloff(self.settings)
        return 0 if cooloff is None else event.time + round(cooloff.total_seconds() * 1000)

    def _keep_shown(self, locked: dict[Group, int]) -> None:
        """Have attempts last as long as the lockout they stand for, which later ones may have set or prolonged."""
        ends = {group: as_datetime(until) for group, until in locked.items() if until}
        if not ends:
            return
        short: dict[int, AccessAttempt] = {}
        for group, found in self._attempts_of(ends, expires_at__lt=max(ends.values())):
            attempt = short.get(found.pk, found)
            if attempt.expires_at is not None and attempt.expires_at < ends[group]:
                attempt.expires_at = ends[group]
                short[attempt.pk] = attempt
        AccessAttempt.objects.using(self.using).bulk_update(short.values(), ["expires_at"], batch_size=PORTION)

    def _clear(self, cleared: set[Group]) -> None:
        """Delete the attempts that counted in counters that a login has cleared, and count in none that is left."""
        found = {attempt.pk: attempt for _, attempt in self._attempts_of(cleared)}
        for part in portions(found.values()):
            left = {group_of(row) for row in counters_of(part, self.using)}
            kinds = {kind for kind, _ in left}
            gone = [row.pk for row in part if not any((kind, keys_under(kind, row)) in left for kind in kinds)]
            AccessAttempt.objects.using(self.using).filter(pk__in=gone).delete()

    def _attempts_of(self, groups: Collection[Group], **condition: Any) -> Iterator[tuple[Group, AccessAttempt]]:
        """Return the attempts that count in these counters, each with its counter, under every kind of rules anew."""
        for bits in {bits for bits, _ in groups}:
            columns = zip(*[keys for kind, keys in groups if kind == bits], strict=True)
            named = {f"{name}_key__in": set(keys) for name, keys in zip(parameters_of(bits), columns, strict=True)}
            for attempt in AccessAttempt.objects.using(self.using).filter(**named, **condition):
                group = bits, keys_under(bits, attempt)
                if group in groups:
                    yield group, attempt


def _parts(entries: Sequence[Entry]) -> Iterator[list[Entry]]:
    """Return ``entries`` in parts, in each of which nothing counts in a counter after a login has cleared it.

    What was cleared takes attempts with it, and a later failure is one of a new attempt.
    """
    part: list[Entry] = []
    cleared: set[str] = set()
    for entry in entries:
        changes = entry.event.changes
        if cleared and any(change.digest in cleared for change in changes):
            yield part
            part, cleared = [], set()
        part.append(entry)
        cleared.update(change.digest for change in changes if change.cleared)
    if part:
        yield part
