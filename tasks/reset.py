"""The reset behind ``utils.reset``, ``axes_reset`` and the admin: an event like any other, applied in its turn."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from celery import shared_task

from axes_async.client.normalize import as_text, canonical_username, row_text
from axes_async.clock import now_ms
from axes_async.conf import get_settings
from axes_async.conf.networks import parse_address
from axes_async.counters.events import AttemptEvent, Kind, new_id
from axes_async.cursor import database, held_cursor
from axes_async.delivery import publisher as outbox
from axes_async.errors import AxesError, StoreUnavailable
from axes_async.models import AccessReset
from axes_async.stores.contract import OutboxStore
from axes_async.stores.factory import get_store
from axes_async.tasks.direct import DirectStore
from axes_async.tasks.drain import drain_batch
from axes_async.tasks.projection.projector import Fold
from axes_async.tasks.projection.resets import reached_by


@shared_task(name="axes_async.reset")
def reset(
    ip: str | None = None,
    username: str | None = None,
    ip_or_username: bool = False,
    rows: Sequence[str] | None = None,
) -> int:
    """Remove attempts, and lift the lockouts they stand for; return how many attempts went.

    :param ip: of this address; and of those that are counted with it, of an IPv6 address its whole /64.
    :param username: of this name, in any case and width; with ``ip``, those of the name from that address.
    :param ip_or_username: with both, those of either.
    :param rows: the ``AccessAttempt.key`` of each that is to go, in place of the others.
    :raises ValueError: if ``ip`` is no address, or ``username`` is empty.
    :raises StoreUnavailable: if the store cannot be reached, unless ``AXES_ON_STORE_FAILURE`` is ``"database"``.

    With no argument at all, everything.
    """
    event = reset_event(ip=ip, username=username, ip_or_username=ip_or_username, rows=rows)
    store, using = get_store(), database()
    try:
        store.record(event)
    except StoreUnavailable:
        if get_settings().on_store_failure != "database":
            raise
        store = DirectStore()  # Lifts what counts while the store is away; the store is told when it is back.
        store.record(event)
    done = AccessReset.objects.using(using).filter(event_id=UUID(event.id))
    if isinstance(store, OutboxStore):
        while drain_batch(store) and not done.exists():
            pass
        if drain_batch(store):
            outbox.nudge()  # A worker goes on with what came in meanwhile.
    elif not isinstance(store, DirectStore):
        with held_cursor():
            Fold(store, using).apply([event])
    result = done.first()
    if result is None:
        raise AxesError("The reset was recorded, but it could not be carried out; see the log of the drain.")
    return result.attempts


def count(ip: str | None = None, username: str | None = None, ip_or_username: bool = False) -> int:
    """Return how many attempts ``reset`` would remove; writes what the outbox holds first."""
    store = get_store()
    while isinstance(store, OutboxStore) and drain_batch(store):
        pass
    event = reset_event(ip=ip, username=username, ip_or_username=ip_or_username)
    return reached_by(event, database())[0].count()


def reset_event(
    *,
    ip: str | None = None,
    username: str | None = None,
    ip_or_username: bool = False,
    rows: Sequence[str] | None = None,
) -> AttemptEvent:
    """Return the event of a reset; see ``reset`` for arguments and errors."""
    address, username = None if ip is None else parse_address(str(ip)), as_text(username)
    if ip is not None and address is None:
        raise ValueError(f"{ip!r} is not an IP address.")
    if username is not None and canonical_username(username) is None:
        raise ValueError("A username to reset is empty.")
    reach = "both" if not ip_or_username else "either"
    if ip is None and username is None:
        reach = "all"
    return AttemptEvent(
        kind=Kind.RESET,
        id=new_id(now_ms()),
        username=None if username is None else row_text(username, tell_apart=True),
        ip_address=None if address is None else str(address),
        extra={"reach": reach} if rows is None else {"reach": "rows", "rows": list(rows)},
    )
