"""Write one event that came as a Celery message. Cache stores have no outbox, so this is the best they can do."""

from __future__ import annotations

import logging

from celery import shared_task

from axes_async.clock import as_ms
from axes_async.counters.events import AttemptEvent
from axes_async.delivery import publisher
from axes_async.models import StoreState, database
from axes_async.tasks.drain import write as write_entries
from axes_async.tasks.projection import totals
from axes_async.tasks.projection.counters import Entry
from axes_async.tasks.projection.writer_lock import writer_lock

log = logging.getLogger(__name__)


@shared_task(name=publisher.WRITE, ignore_result=True)
def write(wire: str) -> None:
    """Write one event, given in its wire form; one that is written already is left alone."""
    try:
        event = AttemptEvent.parse(wire)
    except ValueError as error:
        log.error("A message holds no event (%s): %s", error, ascii(wire))
        return
    using = database()
    with writer_lock() as cursor:
        state = StoreState.current(using)
        is_void = state.voided_at is not None and event.time <= as_ms(state.voided_at)
        totals.add(cursor, write_entries([Entry(event, -1 if is_void else state.generation)], None, using))
        cursor.save(using=using, update_fields=["totals"])
