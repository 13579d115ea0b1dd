"""The counters of a store that was flushed or replaced, taken from the rows again."""

from __future__ import annotations

import logging

from celery import shared_task

from axes_async.clock import now_ms
from axes_async.conf import get_settings
from axes_async.ledger import Ledger
from axes_async.stores.contract import OutboxStore
from axes_async.stores.factory import get_store

log = logging.getLogger(__name__)


@shared_task(name="axes_async.rebuild")
def rebuild() -> bool:
    """Take every counter from the rows again; return whether that came to its end.

    Counters that logins touch meanwhile are taken over with what has happened to them, and nothing of that is undone.
    Raises ``StoreUnavailable`` and ``DatabaseError``.
    """
    store = get_store()
    if not isinstance(store, OutboxStore):
        return True
    store.cool()
    return rebuild_if_cold(store)


def rebuild_if_cold(store: OutboxStore) -> bool:
    """Rebuild a cold store; return whether it is warm now."""
    if not store.is_cold():
        return True
    done = store.rebuild(Ledger().portions(), now=now_ms(), lease=get_settings().lease_ms)
    log.info("The counters were taken from the rows." if done else "The store was flushed while it was rebuilt.")
    return done
