"""A reset, applied at its place among the events: attempts go, and the failures they stand for, from every counter.

The store is told totals, not differences, so that doing it again after a crash changes nothing.
"""

from __future__ import annotations

import logging
from collections import Counter as Tally
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import TypeVar
from uuid import UUID

from django.db import transaction
from django.db.models import F, Q, QuerySet

from axes_async import signals
from axes_async.client.normalize import canonical_address, canonical_username
from axes_async.clock import as_datetime, now_ms
from axes_async.conf import get_settings
from axes_async.counters.events import AttemptEvent, parameters_of
from axes_async.counters.rules import PARAMETERS, Parameter, Rule, counters_for
from axes_async.ledger import standing_of, state_of
from axes_async.models import AccessAttempt, AccessReset, AttemptCounter
from axes_async.stores.contract import OutboxStore, Store
from axes_async.tasks.projection.rows import PORTION, ip_address_key, upsert, username_key

log = logging.getLogger(__name__)

ADJUSTED = 100
"""Counters that the store is told of in one step: a few milliseconds, in which it serves nobody else."""

FETCHED = 2000
"""Rows that come from the database in one go, where there may be millions."""

Item = TypeVar("Item")
Keys = tuple[int, tuple[str, ...]]
"""A counter's parameters, as bits, and the key of each."""

KINDS = range(1, 1 << len(PARAMETERS))
"""The sets of parameters that a rule may have, as bits."""


def apply_reset(event: AttemptEvent, store: Store, using: str) -> None:
    """Carry the reset out: on rows and counters that earlier events have made, and on no later ones."""
    attempts, counters = reached_by(event, using)
    amounts = Tally() if event.extra["reach"] == "all" else _standing_for(attempts, using)
    _lift_whole(counters.filter(lifted__lt=F("failures")), event, store, using)
    for digests in portions(amounts):
        _lift(AttemptCounter.objects.using(using).filter(digest__in=digests), amounts, event, store, using)
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
    wanted, named = Q(), Q()
    for key, name in (
        (ip_address_key(event.ip_address or ""), "ip_address"),
        (username_key(event.username), "username"),
    ):
        if key:
            kinds = [bits for bits in KINDS if name in parameters_of(bits)]
            of_attempts, of_counters = Q(**{f"{name}_key": key}), Q(**{f"{name}_key": key}, parameters__in=kinds)
            wanted = wanted | of_attempts if reach == "either" else wanted & of_attempts
            named = named | of_counters if reach == "either" else named & of_counters
    if not wanted:
        return attempts.none(), counters.none()
    return attempts.filter(wanted), counters.filter(named)


def counters_of(
    attempts: Iterable[AccessAttempt], using: str, kinds: Iterable[int] = KINDS
) -> QuerySet[AttemptCounter]:
    """Return the counters with failures left, of these kinds of rules, that ``attempts`` may count in, with their keys.

    A counter of several values is looked for by all of them: each alone may be that of a million others.
    """
    rows, shared = list(attempts), Q(pk__in=[])
    for bits in kinds:
        keys = {f"{name}_key": {getattr(row, f"{name}_key") for row in rows} - {""} for name in parameters_of(bits)}
        shared |= Q(parameters=bits, **{f"{name}__in": values for name, values in keys.items()})
    named = [f"{name}_key" for name in PARAMETERS]
    return AttemptCounter.objects.using(using).filter(shared, lifted__lt=F("failures")).only("parameters", *named)


def _kinds(using: str) -> Iterator[int]:
    """Return the kinds of rules that there are counters of; each is a step in an index."""
    last: int | None = 0
    while last is not None:
        behind = AttemptCounter.objects.using(using).filter(parameters__gt=last).order_by("parameters")
        last = behind.values_list("parameters", flat=True).first()
        if last is not None:
            yield last


def keys_under(bits: int, row: AccessAttempt | AttemptCounter) -> Keys:
    """Return the keys of ``row`` that a counter with these parameters is made of."""
    return bits, tuple(getattr(row, f"{name}_key") for name in parameters_of(bits))


def portions(items: Iterable[Item], size: int = PORTION) -> Iterator[list[Item]]:
    """Return ``items`` in lists of at most ``size``."""
    rest = iter(items)
    while portion := list(islice(rest, size)):
        yield portion


def _standing_for(attempts: QuerySet[AccessAttempt], using: str) -> Tally[str]:
    """Return the counters that ``attempts`` count in, with the failures that are theirs."""
    amounts: Tally[str] = Tally()
    kinds = list(_kinds(using))
    for rows in portions(attempts.order_by().iterator(chunk_size=FETCHED)):
        theirs: Tally[Keys] = Tally()
        for bits in kinds:
            for row in rows:
                theirs[keys_under(bits, row)] += row.failures_since_start
        for counter in counters_of(rows, using, kinds):
            amounts[counter.digest] += theirs[keys_under(counter.parameters, counter)]
    return +amounts


def _lift(
    counters: QuerySet[AttemptCounter], amounts: Mapping[str, int], event: AttemptEvent, store: Store, using: str
) -> None:
    """Take so many failures of each counter back, in store and rows."""
    rows, totals = [], []
    for row in counters:
        total = min(row.failures, row.failures - standing_of(row, event.time) + amounts[row.digest])
        if row.lifted < total:
            rows.append(row)
            totals.append(total)
    _take_back(zip(rows, totals, strict=True), event, store, using)
    _note_whole(counters.filter(pk__in=[row.pk for row in rows if row.lifted == row.failures]), event)
    some = [row for row in rows if row.lifted < row.failures]
    upsert(AttemptCounter, some, key="digest", fields=["lifted", "locked_until", "updated_at"], using=using)


def _lift_whole(counters: QuerySet[AttemptCounter], event: AttemptEvent, store: Store, using: str) -> None:
    """Take all failures of ``counters`` back; there may be millions of them."""
    needed = ["parameters", "epoch", "failures", "lifted", "limit", "expires_at", "locked_until", "ends"]
    if signals.user_unlocked.has_listeners():
        needed += ["username", "ip_address"]
    rows = counters.only(*needed).iterator(chunk_size=FETCHED)
    _take_back(((row, row.failures) for row in rows), event, store, using)
    _note_whole(counters, event)


def _note_whole(counters: QuerySet[AttemptCounter], event: AttemptEvent) -> None:
    """Note in the rows that all failures of ``counters`` are taken back."""
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
