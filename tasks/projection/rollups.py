"""The rollups of a batch of events: a few rows, read and written once for the whole batch."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from ipaddress import ip_network
from typing import Any

from django.db import connections

from axes_async.clock import as_datetime
from axes_async.counters.events import AttemptEvent, CounterChange, Kind, worth_a_row
from axes_async.models import AccessAttempt
from axes_async.models.rollups import AttemptRollup, TopValues
from axes_async.tasks.projection.counters import Entry
from axes_async.tasks.projection.sketches import add_distinct, keep_heaviest

MINUTE, HOUR = 60_000, 3_600_000
"""In milliseconds."""

KEPT_FOR = timedelta(days=15)
"""How long rollups are kept: two weeks can be compared."""

KINDS = ("name", "address", "network", "agent")


def roll_up(entries: Sequence[Entry], using: str) -> None:
    """Add ``entries`` to the rollups. Call it under the writer lock: nobody else writes these rows."""
    minutes = _grouped(entries, MINUTE)
    rows = AttemptRollup.objects.using(using).in_bulk(minutes)
    late = _after_failures(entries, using)
    for minute, some in minutes.items():
        row = rows.setdefault(minute, AttemptRollup(minute=minute))
        _add(row, some)
        row.after_failures += sum(entry.event.id in late for entry in some)
    _save(AttemptRollup, list(rows.values()), ("minute",), using)
    hours = _grouped(_refused(entries), HOUR)
    tops = {(top.hour, top.kind): top for top in TopValues.objects.using(using).filter(hour__in=hours)}
    for hour, some in hours.items():
        for kind, counts in _values(some).items():
            top = tops.setdefault((hour, kind), TopValues(hour=hour, kind=kind))
            counts.update(json.loads(top.counts))
            keep_heaviest(counts)
            top.counts = json.dumps(counts)
    _save(TopValues, list(tops.values()), ("hour", "kind"), using)


def drop_old_rollups(now: datetime, using: str) -> None:
    """Delete the rollups that nobody looks at any more."""
    AttemptRollup.objects.using(using).filter(minute__lt=now - KEPT_FOR).delete()
    TopValues.objects.using(using).filter(hour__lt=now - KEPT_FOR).delete()


def turned_away(event: AttemptEvent) -> int:
    """Return how many attempts an event of one that a lockout turned away stands for: those since the row before it.

    One that has no row only tells that a lockout was prolonged.
    """
    if event.repeats <= 10:
        return 1
    return event.repeats // 2 if worth_a_row(event.repeats) else 0


def lockouts_of(event: AttemptEvent) -> list[CounterChange]:
    """Return the counters that an event has locked: one that was locked before counts no failure."""
    return [change for change in event.changes if change.counted and change.locked]


def _grouped(entries: Sequence[Entry], length: int) -> dict[datetime, list[Entry]]:
    """Return ``entries`` by when the minute or the hour of each begins."""
    numbered: dict[int, list[Entry]] = defaultdict(list)
    for entry in entries:
        numbered[entry.event.time // length].append(entry)
    found: dict[datetime, list[Entry]] = defaultdict(list)
    for number, some in numbered.items():
        found[as_datetime(number * length)] += some  # Without USE_TZ, two hours of a year are one.
    return found


def _after_failures(entries: Sequence[Entry], using: str) -> set[str]:
    """Return the ids of the logins of names that have failures which count; their rows are written after this."""
    logins = {entry.event.id: entry.keys["username"] for entry in entries if entry.event.kind is Kind.LOGGED_IN}
    if not logins:
        return set()
    known = AccessAttempt.objects.using(using).filter(username_key__in=set(logins.values())).order_by()
    # Distinct: of one name, an attacker may have made a million.
    failed, found = set(known.values_list("username_key", flat=True).distinct()), set()
    for entry in entries:
        if entry.event.kind is Kind.FAILED:
            failed.add(entry.keys["username"])
        elif entry.event.id in logins and logins[entry.event.id] in failed:
            found.add(entry.event.id)
    return found


def _refused(entries: Sequence[Entry]) -> list[Entry]:
    return [entry for entry in entries if entry.event.kind in (Kind.FAILED, Kind.BLOCKED)]


def _add(row: AttemptRollup, entries: Sequence[Entry]) -> None:
    lockouts = Counter(json.loads(row.lockouts))
    for entry in entries:
        event = entry.event
        if event.kind is Kind.FAILED:
            row.failed += 1
            for change in lockouts_of(event):
                lockouts["+".join(change.parameters)] += 1
        elif event.kind is Kind.BLOCKED:
            row.turned_away += turned_away(event)
        elif event.kind is Kind.LOGGED_IN:
            row.logged_in += 1
    row.lockouts = json.dumps(lockouts)
    refused = _refused(entries)
    row.names = add_distinct(bytes(row.names), {key for e in refused if (key := e.keys["username"])})
    row.addresses = add_distinct(bytes(row.addresses), {key for e in refused if (key := e.keys["ip_address"])})


def _values(entries: Sequence[Entry]) -> dict[str, Counter[str]]:
    """Return how often each name, address, network and agent comes."""
    failed = [entry.event for entry in entries if entry.event.kind is Kind.FAILED]
    names = Counter(event.username or "" for event in failed)
    addresses = Counter(event.ip_address or "" for event in failed)
    agents, networks = Counter(event.user_agent for event in failed), Counter[str]()
    for event in (entry.event for entry in entries if entry.event.kind is Kind.BLOCKED):
        times = turned_away(event)
        names[event.username or ""] += times
        addresses[event.ip_address or ""] += times
        agents[event.user_agent] += times
    for address, times in addresses.items():
        networks[network_of(address) if address else ""] += times
    found = {"name": names, "address": addresses, "network": networks, "agent": agents}
    for counts in found.values():
        counts.pop("", None)
    return found


@lru_cache(maxsize=4096)
def network_of(address: str) -> str:
    """Return the network that an address is likely routed in: a /24, or of IPv6 a /48."""
    if "." in address and ":" not in address:
        return f"{address.rpartition('.')[0]}.0/24"
    return str(ip_network(f"{address}/48", strict=False))


def _save(model: type[AttemptRollup | TopValues], rows: list[Any], key: tuple[str, ...], using: str) -> None:
    targets = connections[using].features.supports_update_conflicts_with_target
    fields = [f.name for f in model._meta.concrete_fields if f.name not in {"id", *key}]
    model._default_manager.using(using).bulk_create(
        rows, update_conflicts=True, unique_fields=key if targets else None, update_fields=fields
    )
