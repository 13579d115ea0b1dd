"""What a reset takes back in the rows, in the caller's transaction under the writer lock."""

from __future__ import annotations

import logging
from collections import Counter as Sums
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from django.db import transaction
from django.db.models import F, Q
from django.db.models.functions import Greatest

from axes_async import signals
from axes_async.client.keys import ADDRESS, ip_address_key, kinds_with, username_key
from axes_async.client.normalize import canonical_address, canonical_username
from axes_async.clock import EARLIEST, as_datetime, as_ms
from axes_async.counters.events import AttemptEvent, Kind, parameters_of
from axes_async.counters.rules import Parameter, Rule, counters_for
from axes_async.models import AccessAttempt, AttemptCounter, StoreState
from axes_async.stores.database.rows import (
    STATE_FIELDS,
    keep_state,
    name_client,
    new_row,
    reservations_of,
    state_of,
)
from axes_async.tasks.projection.bulk import delete_portions, portions, upsert
from axes_async.tasks.projection.counters import counters_of, existing_kinds, group_of, keys_under

log = logging.getLogger(__name__)

FETCHED = 2000
"""Rows that come from the database in one go, where there may be millions."""

PORTION = 5000
"""Rows that are deleted in one transaction after a reset of everything, or once they have expired."""

NOTHING_COUNTS: dict[str, Any] = {
    "failures": 0,
    "since": None,
    "expires_at": None,
    "locked_until": None,
    "ends": "",
    "blocked": 0,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What a reset is to reach."""

    kind: Literal["all", "both", "either", "rows", "counter"]
    username: str | None = None
    ip_address: str | None = None
    rows: Sequence[str] = ()
    """``AccessAttempt.key`` of each."""
    counter: Mapping[Parameter, str] = field(default_factory=dict)
    """The key of each value of a counter that is named."""

    @property
    def keys(self) -> Mapping[Parameter, str]:
        if self.counter:
            return self.counter
        keys: dict[Parameter, str] = {
            "ip_address": ip_address_key(self.ip_address or ""),
            "username": username_key(self.username),
        }
        return {name: key for name, key in keys.items() if key}

    def joined(self, conditions: Sequence[Q]) -> Q:
        """Return what meets all of ``conditions``, or any of them, as the scope wants; nothing does without any."""
        joined = Q()
        for one in conditions:
            joined = joined | one if self.kind == "either" else joined & one
        return joined or Q(pk__in=[])


@dataclass(frozen=True, slots=True, kw_only=True)
class Reset:
    """One reset of some.

    :param at: when it is done, in epoch milliseconds.
    :param marks: what is set in each row that is reached.
    """

    scope: Scope
    using: str
    at: int
    marks: dict[str, Any]

    def take_back(self) -> tuple[int, int]:
        """Take back what the scope reaches; return how many attempts went, and from how many counters failures did."""
        attempts = attempts_in(self.scope, self.using)
        shares = self._shares(attempts)
        counters = self._clear_named() + self._forgive(shares)
        return attempts.delete()[0], counters

    def _clear_named(self) -> int:
        """Clear the counters that are named; return how many counted anything."""
        named = AttemptCounter.objects.using(self.using).filter(counters_in(self.scope))
        if "dirty" in self.marks:
            self._make_named()
        counted = named.counting()
        if signals.user_unlocked.has_listeners():
            for row in counted.iterator(chunk_size=FETCHED):
                if is_locked(row, self.at):
                    announce(row, self.using)
        number: int = counted.count()
        changed_at = Greatest(F("changed_at"), as_datetime(self.at))
        named.update(**NOTHING_COUNTS, **self.marks, changed_at=changed_at)
        return number

    def _make_named(self) -> None:
        """Make rows of counters that are named and have none, as their events may have found no room in the outbox."""
        if self.scope.counter:
            return
        values: dict[Parameter, str | None] = {
            "ip_address": canonical_address(self.scope.ip_address or ""),
            "username": canonical_username(self.scope.username),
        }
        combinations: list[tuple[Parameter, ...]] = [("ip_address", "username")]
        if self.scope.kind == "either" or not all(values.values()):
            combinations += [("ip_address",), ("username",)]
        rules = [Rule(parameters=together, limit=0, cooloff=None) for together in combinations]
        client = AttemptEvent(kind=Kind.FAILED, id="", username=self.scope.username, ip_address=self.scope.ip_address)
        missing = []
        for counter in counters_for(rules, values) if self.scope.keys else ():
            missing.append(new_row(counter.digest, counter.rule.parameters, at=self.at))
            name_client(missing[-1], client)
        AttemptCounter.objects.using(self.using).bulk_create(missing, ignore_conflicts=True)

    def _shares(self, attempts: Any) -> Sums[str]:
        """Return the counters that are shared with others, and how many of their failures are those of ``attempts``."""
        shares: Sums[str] = Sums()
        kinds = list(existing_kinds(self.using))
        named = counters_in(self.scope)
        for rows in portions(attempts.order_by().iterator(chunk_size=FETCHED), FETCHED):
            theirs: Sums[Any] = Sums()
            for bits in kinds:
                for row in rows:
                    theirs[bits, keys_under(bits, row)] += row.failures_since_start
            found = counters_of(rows, self.using, kinds).exclude(named)
            for counter in found.only("parameters", "username_key", "ip_address_key", "user_agent_key"):
                shares[counter.digest] += theirs[group_of(counter)]
        return +shares

    def _forgive(self, shares: Sums[str]) -> int:
        """Take so many failures of each counter back; return of how many there were any."""
        number = 0
        for digests in portions(sorted(shares)):
            rows = list(AttemptCounter.objects.using(self.using).counting().filter(digest__in=digests))
            for row in rows:
                state, was_locked = state_of(row), is_locked(row, self.at)
                state.expire(self.at)
                number += bool(state.forgive(shares[row.digest], row.limit, self.at))
                keep_state(row, state, at=self.at, limit=row.limit, generation=row.generation)
                row.blocked = row.blocked if is_locked(row, self.at) else 0
                for name, value in self.marks.items():
                    setattr(row, name, value)
                if was_locked and not is_locked(row, self.at):
                    announce(row, self.using)
            fields = (*STATE_FIELDS, "blocked", *self.marks)
            upsert(AttemptCounter, rows, key=["digest"], fields=fields, using=self.using)
        return number


def attempts_in(scope: Scope, using: str) -> Any:
    """Return the attempts that a reset removes, but for those that an earlier reset has voided."""
    attempts = AccessAttempt.objects.using(using).all()
    until = StoreState.current(using).void_attempts_until
    if until is not None:
        attempts = attempts.filter(attempt_time__gt=until)
    if scope.kind == "all":
        return attempts
    if scope.kind == "rows":
        return attempts.filter(key__in=scope.rows)
    return attempts.filter(scope.joined([Q(**{f"{name}_key": key}) for name, key in scope.keys.items()]))


def counters_in(scope: Scope) -> Q:
    """Return what the counters have in common that are named, each of which is taken back whole."""
    conditions = []
    for name, key in scope.keys.items():
        one = Q(**{f"{name}_key": key}, parameters__in=kinds_with(name, alone=name != "ip_address"))
        conditions.append(one | Q(digest=key, parameters=ADDRESS) if name == "ip_address" else one)
    return scope.joined(conditions)


def is_locked(row: Any, at: int) -> bool:
    state = state_of(row)
    state.expire(at)
    return 0 < row.limit <= state.failures and (not state.locked_until or state.locked_until > at)


def announce(row: Any, using: str) -> None:
    """Send ``user_unlocked`` when the transaction is committed."""
    if not signals.user_unlocked.has_listeners():
        return
    parameters, username, ip_address = list(parameters_of(row.parameters)), row.username, row.ip_address

    def send() -> None:
        results = signals.user_unlocked.send_robust(
            sender=AttemptCounter, parameters=parameters, username=username, ip_address=ip_address
        )
        for receiver, error in results:
            if isinstance(error, Exception):
                log.error("A receiver of user_unlocked failed: %r", receiver, exc_info=error)

    transaction.on_commit(send, using=using)


def void_all(state: StoreState, using: str, *, void: int, at: int) -> tuple[int, int]:
    """Have no row of the generation ``void`` or before count; return how many attempts and counters there were.

    The caller saves ``state``. The rows are deleted afterwards, by ``delete_void``.
    """
    counters = AttemptCounter.objects.using(using).counting()
    number = attempts_in(Scope(kind="all"), using).count(), counters.count()
    state.void_generation, state.voided_at = void, as_datetime(at)
    last = AccessAttempt.objects.using(using).order_by("-attempt_time").values_list("attempt_time", flat=True).first()
    state.void_attempts_until = last or as_datetime(EARLIEST)
    return number


def delete_void(using: str) -> None:
    """Delete the rows that a reset of everything has voided, in portions."""
    state = StoreState.current(using)
    if state.voided_at is None or state.void_attempts_until is None:
        return
    attempts = AccessAttempt.objects.using(using).filter(attempt_time__lte=state.void_attempts_until)
    delete_portions(attempts, "attempt_time", PORTION)
    at, counters = as_ms(state.voided_at), AttemptCounter.objects.using(using)

    def choose(void: list[AttemptCounter]) -> list[AttemptCounter]:
        for row in void:
            if is_locked(row, at):
                announce(row, using)
        # The store may have to be told of a dirty one, and a reservation is one also after a reset.
        kept = {row.pk for row in void if row.dirty or reservations_of(row, at)}
        counters.filter(pk__in=kept).update(**NOTHING_COUNTS)
        return [row for row in void if row.pk not in kept]

    delete_portions(counters.filter(generation__lte=state.void_generation), "digest", PORTION, choose=choose)
    # Unless there was another reset meanwhile.
    StoreState.objects.using(using).filter(void_generation=state.void_generation).update(void_attempts_until=None)
