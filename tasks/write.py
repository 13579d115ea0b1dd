"""The way of an event that no outbox holds: from a cache that is no Redis, one message each, as well as it goes."""

from __future__ import annotations

from uuid import UUID

from celery import shared_task

from axes_async.counters.events import AttemptEvent
from axes_async.cursor import database, held_cursor
from axes_async.delivery import publisher as outbox
from axes_async.models import AccessFailureLog, AccessLog
from axes_async.stores.factory import get_store
from axes_async.tasks.projection.projector import Fold


@shared_task(name=outbox.WRITE, ignore_result=True)
def write(wire: list[str]) -> None:
    """Write one event, given as its wire form ``[body, outcome]``; one that is written already is left alone."""
    event = AttemptEvent.parse(*wire)
    with held_cursor():
        using = database()
        if not _is_written(event, using):
            Fold(get_store(), using).apply([event])


def _is_written(event: AttemptEvent, using: str) -> bool:
    event_id = UUID(event.id)
    return any(model.objects.using(using).filter(event_id=event_id).exists() for model in (AccessFailureLog, AccessLog))
