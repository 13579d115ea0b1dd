"""A reset, applied at its place among the events: attempts go, and the failures they stand for, from every counter.

The store is told totals, not differences, so that doing it again after a crash changes nothing.
"""

from __future__ import annotations

import logging
from collections import Counter as Tally
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar
from uuid import UUID

from django.db import transaction
from django.db.models import F, Q, QuerySet

from axes_async import signals
from axes_async.client import canonical_address, canonical_username
from axes_async.clock import as_datetime, now_ms
from axes_async.conf import get_settings
from axes_async.events import AttemptEvent, parameters_of
from axes_async.ledger import standing_of, state_of
from axes_async.models import AccessAttempt, AccessReset, AttemptCounter
from axes_async.policy import PARAMETERS, Parameter, Rule, counters_for
from axes_async.stores.base import OutboxStore, Store
from axes_async.tasks.rows import PORTION, ip_address_key, upsert, username_key

log = logging.getLogger(__name__)

ADJUSTED = 100
"""Counters that the store is told of in one step: a few milliseconds, in which it serves nobody else."""

Item = TypeVar("Item")
Keys = tuple[int, tuple[str, ...]]
"""A counter's parameters, as bits, and the key of each."""


def apply_reset(event: AttemptEvent, store: Store, using: str) -> None:
    """Carry the reset out: on rows and counters that earlier events have made, and on no later ones."""
    attempts, counters = reached_by(event, using)
    lifted: Tally[str] = Tally()
    if event.extra["reach"] != "all":
        for row, amount in _standing_for(attempts, using):
            lifted[row.digest] = min(row.failures, row.failures - standing_of(row, event.time) + amount)
    _lift_whole(counters.filter(lifted__lt=F("failures")), event, store, using)
    for digests in portions(lifted):
        _lift(AttemptCounter.objects.using(using).filter(digest__in=digests), lifted, event, store, using)
    _forget_strays(event, store, using)
    gone, _ = attempts.delete()
    AccessReset.objects.using(using).create(
        event_id=UUID(event.id),
        reset_time=as_datetime(event.time),
        reach={"username": event.username, "ip_address": event.ip_address, "reach": event.extra["reach"]},
        attempts=gone,
    )


def _forget_strays(event: AttemptEvent, store: Store, using: str) -> None:
    """Reach counters that no row speaks of: their events found no room in the outbox, or the database was replaced."""
    if not isinstance(store, OutboxStore) or event.extra["reach"] == "rows":
        return
    lease = get_settings().lease_ms
    for digests in store.digests() if event.extra["reach"] == "all" else [_named_by(event)]:
        known = AttemptCounter.objects.using(using).filter(digest__in=digests).values_list("digest", flat=True)
        for part in portions(sorted(set(digests) - set(known)), ADJUSTED):
            store.forget(part, before=event.time, lease=lease)


def _named_by(event: AttemptEvent) -> list[str]:
    """Return the counters whose values are all named by the reset, whatever rules there are, or have been."""
    values: dict[Parameter, str | None] = {
        "ip_address": canonical_address(event.ip_address or ""),
        "username": canonical_username(event.username),
    }
    combinations: list[tuple[Parameter, ...]] = [("ip_address", "username")]
    if event.extra["reach"] == "either" or not all(values.values()):
        combinations += [("ip_address",), ("username",)]
    rules = [Rule(parameters=together, limit=0, cooloff=None) for together in combinations]
    return [counter.digest for counter in counters_for(rules, values)]


def reached_by(event: AttemptEvent, using: str) -> tuple[QuerySet[AccessAttempt], QuerySet[AttemptCounter]]:
    """Return the attempts that a reset removes, and the counters that it takes back whole."""
    attempts = AccessAttempt.objects.using(using).all()
    counters = AttemptCounter.objects.using(using).all()
    reach = event.extra["reach"]
    if reach == "all":
        return attempts, counters
    if reach == "rows":
        return attempts.filter(key__in=event.extra["rows"]), counters.none()
    wanted = Q()
    for key, name in (
        (ip_address_key(event.ip_address or ""), "ip_address"),
        (username_key(event.username), "username"),
    ):
        if key:
            wanted = wanted | Q(**{f"{name}_key": key}) if reach == "either" else wanted & Q(**{f"{name}_key": key})
    if not wanted:
        return attempts.none(), counters.none()
    return attempts.filter(wanted), counters.filter(wanted)


def counters_of(attempts: Iterable[AccessAttempt], using: str) -> Iterator[AttemptCounter]:
    """Return the counters with failures left that share a value with one of ``attempts``."""
    rows = list(attempts)
    shared = Q()
    for name in PARAMETERS:
        shared |= Q(**{f"{name}_key__in": {getattr(row, f"{name}_key") for row in rows} - {""}})
    yield from AttemptCounter.objects.using(using).filter(shared, lifted__lt=F("failures"))


def keys_under(bits: int, row: AccessAttempt | AttemptCounter) -> Keys:
    """Return the keys of ``row`` that a counter with these parameters is made of."""
    return bits, tuple(getattr(row, f"{name}_key") for name in parameters_of(bits))


def portions(items: Iterable[Item], size: int = PORTION) -> Iterator[list[Item]]:
    """Return ``items`` in lists of at most ``size``."""
    rest = iter(items)
    while portion := list(islice(rest, size)):
        yield portion


def _standing_for(attempts: QuerySet[AccessAttempt], using: str) -> Iterator[tuple[AttemptCounter, int]]:
    """Return each counter that ``attempts`` count in, with the failures that are theirs."""
    amounts: Tally[str] = Tally()
    counters: dict[str, AttemptCounter] = {}
    for rows in portions(attempts.iterator(chunk_size=PORTION)):
        found = list(counters_of(rows, using))
        theirs: Tally[Keys] = Tally()
        for bits in {counter.parameters for counter in found}:
            for row in rows:
                theirs[keys_under(bits, row)] += row.failures_since_start
        for counter in found:
            counters[counter.digest] = counter
            amounts[counter.digest] += theirs[keys_under(counter.parameters, counter)]
    return ((counter, amounts[digest]) for digest, counter in counters.items() if amounts[digest])


def _lift(
    counters: QuerySet[AttemptCounter], lifted: dict[str, int], event: AttemptEvent, store: Store, using: str
) -> None:
    """Take failures back, in store and rows: up to ``lifted`` of each counter."""
    rows = [row for row in counters if row.lifted < lifted[row.digest]]
    _take_back(((row, lifted[row.digest]) for row in rows), event, store, using)
    upsert(AttemptCounter, rows, key="digest", fields=["lifted", "locked_until", "updated_at"], using=using)


def _lift_whole(counters: QuerySet[AttemptCounter], event: AttemptEvent, store: Store, using: str) -> None:
    """Take all failures of ``counters`` back; there may be millions of them."""
    rows = counters.defer("username_key", "ip_address_key", "user_agent_key", "blocked").iterator(chunk_size=PORTION)
    _take_back(((row, row.failures) for row in rows), event, store, using)
    counters.update(lifted=F("failures"), locked_until=None, updated_at=as_datetime(event.time))


def _take_back(rows: Iterable[tuple[AttemptCounter, int]], event: AttemptEvent, store: Store, using: str) -> None:
    """Have ``store`` take back so many failures of each counter in ``rows``, and tell of lockouts that this lifts."""
    now, lease, time = now_ms(), get_settings().lease_ms, as_datetime(event.time)
    for part in portions(rows, ADJUSTED):
        for row, lifted in part:
            before, row.lifted, row.updated_at = standing_of(row, event.time), lifted, time
            ends = row.locked_until or row.expires_at
            if standing_of(row, event.time) < row.limit:
                row.locked_until = None
                if row.limit <= before and (ends is None or ends > time):
                    _announce(row, using)
        store.adjust([state_of(row) for row, _ in part], now=now, lease=lease)


def _announce(row: AttemptCounter, using: str) -> None:
    if not signals.user_unlocked.has_listeners():
        return
    parameters = list(parameters_of(row.parameters))

    def send() -> None:
        results = signals.user_unlocked.send_robust(
            sender=AttemptCounter, parameters=parameters, username=row.username, ip_address=row.ip_address
        )
        for receiver, error in results:
            if isinstance(error, Exception):
                log.error("A receiver of user_unlocked failed: %r", receiver, exc_info=error)

    transaction.on_commit(send, using=using)
