"""News of lockouts, noted in the transaction that writes their events: so none is forgotten, or told and not written.

They are told later, by a task of their own: no mail server holds up a drain.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from heapq import nlargest
from operator import itemgetter
from typing import Any

from django.contrib.auth.base_user import AbstractBaseUser
from django.db import transaction
from django.db.models import QuerySet

from axes_async.clock import as_datetime, now_ms
from axes_async.counters.events import AttemptEvent, CounterChange
from axes_async.delivery import publisher
from axes_async.models import Notice, database
from axes_async.notify.accounts import accounts_of, is_reachable
from axes_async.notify.pace import key_of
from axes_async.tasks.projection.bulk import portions, upsert
from axes_async.tasks.projection.rollups import lockouts_of
from axes_async.tasks.projection.writer_lock import writer_lock

log = logging.getLogger(__name__)

PORTION = 500

LISTED = 20
"""Lockouts that a message names; of the others it says how many there are."""

OWNERS = 1000
"""Owners that are told at one time: in a flood, more mails would do more harm than good."""

ANY_CASE = 5000
"""Lockouts for whose owners all spellings are looked for: that may read the table of users. After so many, in a flood,
an owner is found by the name as it is spelt."""

Lockout = dict[str, Any]


@dataclass(slots=True)
class Owner:
    """An owner whose account is locked."""

    account: AbstractBaseUser
    lockout: Lockout
    """The latest."""
    keys: list[str] = field(default_factory=list)
    """Of the notices of all of them."""


@dataclass(slots=True)
class News:
    """The lockouts that wait to be told of."""

    counts: dict[str, int] = field(default_factory=dict)
    """How often each happened, by the key of its notice."""
    latest: list[Lockout] = field(default_factory=list)
    owners: dict[Any, Owner] = field(default_factory=dict)
    """Owners whose own account is locked, by primary key."""

    def put_off(self, owner: Owner) -> None:
        """Have ``owner`` told later."""
        for key in owner.keys:
            del self.counts[key]


def note_lockouts(events: Iterable[AttemptEvent], channels: Iterable[str], using: str) -> None:
    """Note the lockouts that ``events``, all of them failures, have set; whoever calls it holds the writer lock.

    Each of ``channels`` has rows of its own: what one could not tell holds up no other, and is not told twice by it.
    """
    now = as_datetime(now_ms())
    news: dict[str, Notice] = {}
    for event in events:
        for change in lockouts_of(event):
            text = json.dumps(_lockout(event, change))
            for channel in channels:
                # Where an address is locked, whoever was tried last from there is not meant.
                if channel != "owner" or "username" in change.parameters:
                    key = key_of(f"lockout {channel}", change.digest)
                    notice = news.setdefault(key, Notice(key=key, until=now, channel=channel))
                    notice.waiting, notice.count = text, notice.count + 1
    for some in portions(news.values(), PORTION):
        for known in Notice.objects.using(using).filter(key__in=[notice.key for notice in some]):
            news[known.key].count += known.count
        upsert(Notice, some, key=["key"], fields=["waiting", "count"], using=using)
    if news:
        transaction.on_commit(_tell_soon, using=using, robust=True)


def gather(due: QuerySet[Notice], *, owners: bool) -> News:
    """Read what the notices ``due`` have to tell; with ``owners``, look for the accounts that are locked.

    All of them are looked at. Whoever floods a site with names that nobody has keeps no owner from being told.
    """
    told, after = News(), ""
    while rows := list(due.filter(key__gt=after).order_by("key")[:PORTION]):
        after = rows[-1].key
        told.counts.update((row.key, row.count) for row in rows)
        lockouts = {row.key: {**json.loads(row.waiting), "count": row.count} for row in rows}
        told.latest = nlargest(LISTED, [*told.latest, *lockouts.values()], key=itemgetter("at"))
        if owners:
            try:
                _find_owners(told.owners, lockouts, any_case=len(told.counts) <= ANY_CASE)
            except Exception:  # (a user model of the site's own may raise anything)
                log.exception("Some owners are not told of lockouts.")
    return told


def _find_owners(known: dict[Any, Owner], lockouts: Mapping[str, Lockout], *, any_case: bool) -> None:
    """Add those whose own account is locked, by lockouts by the keys of their notices."""
    named: dict[str, list[str]] = {}
    for key in sorted(lockouts, key=lambda key: lockouts[key]["at"]):
        named.setdefault(lockouts[key]["username"] or "", []).append(key)
    for name, account in accounts_of([name for name in named if name], any_case=any_case).items():
        if not is_reachable(account) or (account.pk not in known and len(known) >= OWNERS):
            continue
        latest = lockouts[named[name][-1]]
        owner = known.setdefault(account.pk, Owner(account, latest))
        owner.keys += named[name]
        owner.lockout = max(owner.lockout, latest, key=itemgetter("at"))


def forget(told: News, until: datetime) -> None:
    """Note that ``told`` was told, and is not to be told again before ``until``; what came meanwhile waits for then."""
    for keys in portions(told.counts, PORTION):
        with writer_lock():
            rows = list(Notice.objects.using(database()).filter(key__in=keys))
            for row in rows:
                row.until, row.count = until, max(row.count - told.counts[row.key], 0)
                row.waiting = row.waiting if row.count else ""
            upsert(Notice, rows, key=["key"], fields=["until", "waiting", "count"], using=database())


def _tell_soon() -> None:
    """Have a worker tell of them. Without one, the next expiry does: this may be the process that serves a login."""
    if publisher.has_worker():
        publisher.publish(publisher.NOTIFY, expires=publisher.DRAIN_EXPIRES)


def _lockout(event: AttemptEvent, change: CounterChange) -> Lockout:
    return {
        "parameters": change.parameters,
        "username": event.username,
        "ip_address": event.ip_address,
        "user_agent": event.user_agent,
        "path": event.path_info,
        "limit": change.limit,
        "at": event.time,
        "until": change.locked_until or change.expires_at,
    }
