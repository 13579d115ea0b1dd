"""Which lockouts attempts stand for, as far as the rows know: the admin and the commands show them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime
from typing import Any

from django.db.models import CharField, Exists, OuterRef, Q
from django.db.models.functions import Concat
from django.db.models.lookups import In

from axes_async.client.keys import counter_columns
from axes_async.clock import as_datetime, now_ms
from axes_async.counters.events import parameters_of
from axes_async.counters.rules import PARAMETERS
from axes_async.inspection.search import BOUNDS, window
from axes_async.inspection.standings import LABELS, end_of_lockout
from axes_async.models import AccessAttempt, AttemptCounter, database
from axes_async.stores.database.rows import state_of
from axes_async.tasks.projection.bulk import portions
from axes_async.tasks.projection.counters import counters_of, existing_kinds, group_of, keys_under
from axes_async.text import printable

PORTION = 1000
"""Attempts of one query: an SQLite of some systems takes 32,766 parameters, and an attempt has up to 12."""

LATEST = 1000
"""Lockouts whose attempts are listed together."""

COUNTER_KEYS = ("digest", *(f"{name}_key" for name in PARAMETERS))


def lockouts_of(attempts: Collection[AccessAttempt]) -> dict[str, list[AttemptCounter]]:
    """Return the counters that are locked now and count an attempt's client, by the attempt's ``key``.

    One query for each ``PORTION`` of attempts.
    """
    kinds, at = range(1, 1 << len(PARAMETERS)), as_datetime(now_ms())
    locked: dict[Any, AttemptCounter] = {}
    for some in portions(attempts, PORTION):
        locked |= {group_of(counter): counter for counter in counters_of(some, database()).locked(at)}
    return {
        attempt.key: [locked[group] for bits in kinds if (group := (bits, keys_under(bits, attempt))) in locked]
        for attempt in attempts
    }


def end_of(counters: Iterable[AttemptCounter]) -> datetime | None:
    """Return when the last of these lockouts ends; ``None``: only by a reset."""
    ends = [end_of_lockout(state_of(counter), counter.limit) for counter in counters]
    return None if 0 in ends else as_datetime(max(ends))


def name_of(counter: AttemptCounter) -> str:
    """Return whom a counter is of, such as "IP address 203.0.113.7, username alice"."""
    shown = {"ip_address": counter.ip_address, "username": printable(counter.username or "")}
    return ", ".join(f"{LABELS[name]} {shown.get(name, '')}".strip() for name in parameters_of(counter.parameters))


def is_locked() -> Q:
    """Return the condition that an attempt belongs to a counter that is locked now, as far as the rows know.

    One subquery for each set of parameters that counters have, so that each finds its counter by an indexed key.
    """
    locked = AttemptCounter.objects.locked(as_datetime(now_ms()))
    found = Q(pk__in=[])
    for bits in existing_kinds(database()):
        keys = {column: OuterRef(of_attempt) for column, of_attempt in counter_columns(bits).items()}
        found |= Q(Exists(locked.filter(parameters=bits, **keys)))
    return found


def of_latest_lockouts() -> Q:
    """Return the condition that an attempt belongs to one of the ``LATEST`` lockouts, as far as the rows know.

    There may be millions of attempts: so the lockouts are looked for first, and their attempts by indexed keys.
    """
    near = AttemptCounter.objects.using(database()).filter(near_limit=True)
    since = window(near, "changed_at", BOUNDS.latest)
    locked = (near if since is None else near.filter(changed_at__gte=since)).locked(as_datetime(now_ms()))
    keys: dict[int, list[tuple[str, ...]]] = {}
    for counter in locked.order_by("-changed_at").only("parameters", *COUNTER_KEYS)[:LATEST]:
        values = tuple(getattr(counter, column) for column in counter_columns(counter.parameters))
        keys.setdefault(counter.parameters, []).append(values)
    found = Q(pk__in=[])
    for bits, together in keys.items():
        columns = tuple(counter_columns(bits).values())
        one = Q(**{f"{columns[-1]}__in": {values[-1] for values in together}})
        if len(columns) > 1:
            joined = Concat(*columns, output_field=CharField())
            one &= Q(In(joined, ["".join(values) for values in together]))
        found |= one
    return found
