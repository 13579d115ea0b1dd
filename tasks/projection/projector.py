"""The projector: events become rows of logs (``logs.py``), attempts and counters (``counters.py``), in their order.

Call it under the writer lock, in the transaction that moves the cursor.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from django.db.models import Model

from axes_async.client.keys import address_of, attempt_key, keys_of, user_agent_key, username_key
from axes_async.clock import as_datetime, as_ms
from axes_async.conf import get_settings
from axes_async.counters.events import AttemptEvent, Kind, parameter_bits, parameters_of
from axes_async.counters.rules import PARAMETERS, Parameter
from axes_async.login.rules import longest_cooloff
from axes_async.models import AccessAttempt, AccessFailureLog, AccessLog, OutboxEvent, StoreState
from axes_async.tasks.projection import counters
from axes_async.tasks.projection.bulk import ATTEMPT_KEY, PORTION, WHO, Columns, Moments, portions, who
from axes_async.tasks.projection.counters import Group, Told, counters_of, keys_under
from axes_async.tasks.projection.logs import LogWriter
from axes_async.tasks.projection.resets import void_attempts_until

ATTEMPT_FIELDS = (
    "attempt_time",
    "first_attempt_time",
    "failures_since_start",
    "expires_at",
    "path_info",
    "http_accept",
)
"""What is set where an attempt has a row already."""

ATTEMPT = (
    *WHO,
    "key",
    *counters.KEYS,
    "first_attempt_time",
    "failures_since_start",
    "expires_at",
)


class Entry(NamedTuple):
    """An event, and the generation that it was appended in; ``None``: its step has changed the counter rows itself."""

    event: AttemptEvent
    generation: int | None


class _Keys(NamedTuple):
    attempt: str
    client: dict[Parameter, str]


class Projector:
    """Writes one batch of events to the database ``using``."""

    def __init__(self, using: str) -> None:
        self.using, self.settings = using, get_settings()
        found = StoreState.objects.using(using).filter(pk=1).values_list("void_generation", flat=True).first()
        self.void = -1 if found is None else found
        self.void_attempts_until = void_attempts_until(using)
        self.moments = Moments(using)
        self._known: dict[tuple[str | None, str, str], _Keys] = {}

    def write(self, entries: Iterable[Entry]) -> None:
        """Write what ``entries`` tell, and no event twice."""
        for portion in _parts(self._unapplied(list(entries))):
            self._write(portion)

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
        """Return which of ``ids`` have a row."""
        return {found.hex for (found,) in Columns(model, ("event_id",), self.using).find("event_id", ids)}

    def _write(self, entries: Sequence[Entry]) -> None:
        LogWriter(self.using, self.moments).write([entry.event for entry in entries])
        told: dict[str, list[Told]] = {}
        for event, generation in entries:
            if generation is not None:
                for change in event.changes:
                    told.setdefault(change.digest, []).append(Told(change, event, generation, self._keys(event).client))
        replayed = (
            counters.replay(told, self.using, void=self.void, moments=self.moments) if told else counters.Replayed()
        )
        self._attempts([entry.event for entry in entries if self._makes_attempt(entry, replayed.void)])
        self._keep_shown(replayed.locked)
        self._clear(replayed.cleared | self._cleared_by_steps(entries))

    def _keys(self, event: AttemptEvent) -> _Keys:
        """Return the keys of a client, which are worked out once a batch."""
        client = event.username, address_of(event), event.user_agent
        keys = self._known.get(client)
        if keys is None:
            keys = self._known[client] = _Keys(attempt_key(event), _keys_of(event))
        return keys

    def _makes_attempt(self, entry: Entry, void: dict[str, int]) -> bool:
        """Return whether an event is a failure that no reset has voided."""
        event, generation = entry
        if event.kind is not Kind.FAILED:
            return False
        if generation is None or not (event.changes and void):
            return generation is None or generation > self.void
        return any(generation > max(self.void, void.get(change.digest, -1)) for change in event.changes)

    def _attempts(self, events: list[AttemptEvent]) -> None:
        keyed = [(self._keys(event), event) for event in events]
        rows = self._known_attempts({(keys.client["ip_address"], keys.attempt) for keys, _ in keyed})
        for keys, event in keyed:
            at = event.time
            last, first, failures, end = rows.get(keys.attempt, _NO_ATTEMPT)[:4]
            if not failures or 0 < end <= at:
                last, first, failures = at, at, 0
            rows[keys.attempt] = max(last, at), first, failures + 1, self._end(event), event, keys
        moments = self.moments
        values = [
            (
                *who(event, moments[last]),
                keys.attempt,
                *[keys.client[name] for name in PARAMETERS],
                moments[first],
                failures,
                moments[end],
            )
            for last, first, failures, end, event, keys in rows.values()
            if event is not None
        ]
        Columns(AccessAttempt, ATTEMPT, self.using).upsert(values, key=ATTEMPT_KEY, fields=ATTEMPT_FIELDS)

    def _known_attempts(self, pairs: set[tuple[str, str]]) -> dict[str, Any]:
        """Return the attempts that have rows, but for those that a reset of everything has yet to delete."""
        names = (*ATTEMPT_KEY, "attempt_time", "first_attempt_time", "failures_since_start", "expires_at")
        until = self.void_attempts_until
        return {
            key: (as_ms(last), as_ms(first), failures, 0 if end is None else as_ms(end), None, None)
            for _, key, last, first, failures, end in Columns(AccessAttempt, names, self.using).find_pairs(
                ATTEMPT_KEY, list(pairs)
            )
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
        ends: dict[int, dict[tuple[str, ...], datetime]] = {}
        for (bits, keys), until in locked.items():
            if until:
                ends.setdefault(bits, {})[keys] = as_datetime(until)
        for bits, until_by_keys in ends.items():
            early = attempts_of(bits, until_by_keys, self.using).filter(expires_at__lt=max(until_by_keys.values()))
            short = []
            for attempt in early:
                end = until_by_keys.get(keys_under(bits, attempt))
                if end is not None and attempt.expires_at is not None and attempt.expires_at < end:
                    attempt.expires_at = end
                    short.append(attempt)
            AccessAttempt.objects.using(self.using).bulk_update(short, ["expires_at"], batch_size=PORTION)

    def _cleared_by_steps(self, entries: Sequence[Entry]) -> set[Group]:
        """Return the counters that steps of the database have cleared."""
        groups: set[Group] = set()
        for event, generation in entries:
            for change in event.changes if generation is None else ():
                if change.cleared:
                    keys = self._keys(event).client
                    bits = parameter_bits(change.parameters)
                    groups.add((bits, tuple(keys[name] for name in parameters_of(bits))))
        return groups

    def _clear(self, cleared: set[Group]) -> None:
        """Delete the attempts that counted in counters that a login has cleared, and count in none that is left."""
        by_bits: dict[int, list[tuple[str, ...]]] = {}
        for bits, keys in cleared:
            by_bits.setdefault(bits, []).append(keys)
        for bits, groups in by_bits.items():
            theirs = set(groups)
            found = [row for row in attempts_of(bits, groups, self.using) if keys_under(bits, row) in theirs]
            for part in portions(found):
                left = {counters.group_of(row) for row in counters_of(part, self.using, void=self.void)}
                kinds = {kind for kind, _ in left}
                gone = [row.pk for row in part if not any((kind, keys_under(kind, row)) in left for kind in kinds)]
                AccessAttempt.objects.using(self.using).filter(pk__in=gone).delete()


def _keys_of(event: AttemptEvent) -> dict[Parameter, str]:
    """Return what ``keys_of`` does; the digest of a counter of an address alone is that address's key."""
    if event.ip_address:
        for change in event.changes:
            if change.parameters == ("ip_address",):
                return {
                    "ip_address": change.digest,
                    "username": username_key(event.username),
                    "user_agent": user_agent_key(event.user_agent),
                }
    return keys_of(event)


_NO_ATTEMPT: tuple[Any, ...] = (0, 0, 0, 0)


def attempts_of(bits: int, groups: Iterable[tuple[str, ...]], using: str) -> Any:
    """Return the attempts that count in counters with these parameters and keys, and perhaps some others."""
    values = list(zip(*groups, strict=True))
    named = {f"{name}_key__in": set(values[place]) for place, name in enumerate(parameters_of(bits))}
    return AccessAttempt.objects.using(using).filter(**named)


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
