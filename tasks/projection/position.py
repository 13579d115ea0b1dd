"""Where in the outbox the rows stand: behind the last event that is written, also if the store has lost some."""

from __future__ import annotations

import logging

from axes_async.counters.events import AttemptEvent
from axes_async.cursor import database
from axes_async.models import AccessFailureLog, AccessLog, AccessReset, DrainCursor
from axes_async.stores.contract import Outbox, OutboxStore

log = logging.getLogger(__name__)

PORTION = 1000
"""Events that are looked up at once."""


def find_place(cursor: DrainCursor, source: Outbox, store: OutboxStore) -> None:
    """Have the cursor stand behind the last event of this outbox that is written."""
    if source.name != cursor.outbox:
        if cursor.outbox and source.name:
            log.warning("The outbox is a new one, the store was flushed or replaced; reading it from its beginning.")
        cursor.position, cursor.outbox = "0-0", source.name
    elif _order(source.last) < _order(cursor.position):
        log.error("The outbox ends before what is written of it: the store has lost data and is rebuilt.")
        cursor.position = _last_written(store)
        store.cool()


def _last_written(store: OutboxStore) -> str:
    """Return the position of the last event that has a row; an event is known by its id."""
    place, last = "0-0", "0-0"
    while entries := store.read(place, PORTION):
        ids = [entry.id for _, entry in entries if isinstance(entry, AttemptEvent)]
        written = {
            row.hex
            for model in (AccessFailureLog, AccessLog, AccessReset)
            for row in model.objects.using(database()).filter(event_id__in=ids).values_list("event_id", flat=True)
        }
        for position, entry in entries:
            if isinstance(entry, AttemptEvent) and entry.id in written:
                last = position
        place = entries[-1][0]
    return last


def _order(position: str) -> tuple[int, int]:
    milliseconds, _, number = position.partition("-")
    return int(milliseconds), int(number)
