"""How events leave a web process: the bounded nudge, and the delivery of events that no outbox holds.

Tasks are sent by name: a web process needs none of the worker's code. It runs a task itself only where there is no
worker: without a broker, with ``task_always_eager``, and in a site's tests.
"""

from __future__ import annotations

import logging
import os
from contextlib import nullcontext
from functools import cache, partial
from importlib import import_module
from typing import Any

from celery import current_app
from django.db import DatabaseError, InterfaceError, connections
from kombu import pools
from kombu.exceptions import LimitExceeded

from axes_async import telemetry
from axes_async.conf import get_settings
from axes_async.counters.events import AttemptEvent
from axes_async.delivery.circuit_breaker import CircuitBreaker
from axes_async.delivery.lock_waits import short_lock_waits
from axes_async.errors import StoreUnavailable
from axes_async.models import database
from axes_async.stores import factory
from axes_async.stores.results import StepResult
from axes_async.stores.shared import waits_for_end

log = logging.getLogger(__name__)

DRAIN = "axes_async.drain"
EXPIRE = "axes_async.expire"
RESET = "axes_async.reset"
UNLOCK_MAIL = "axes_async.unlock_mail"
WRITE = "axes_async.write"
NOTIFY = "axes_async.notify"
WATCH = "axes_async.watch"

PUBLISH_TIMEOUT = 0.1
"""Seconds for each wait of a publish: for a connection of the pool, to connect, to send."""

PUBLISHERS = 10
"""Messages that a process sends at once; nudges are few, and others wait as long as a publish may take."""

DRAIN_EXPIRES = 60
"""Seconds after which a nudge that no worker took is worth nothing: beat has drained since."""

_broker = CircuitBreaker(retry_interval=5.0, name="broker")
_syncs = CircuitBreaker(retry_interval=1.0)
"""The nudges of a process because its store cannot decide; what has failed is the store."""


def follow_up(result: StepResult) -> None:
    """Do what a step of the store leaves to do: nudge the worker, or deliver the event. Never raises."""
    if result.nudge:
        nudge()
    if result.event is not None:
        deliver(result.event)


def nudge() -> None:
    """Tell a worker that there is something to drain, or to sync. One that gets lost is made good by beat."""
    if has_worker():
        outcome = "sent" if publish(DRAIN, expires=DRAIN_EXPIRES) else "not_sent"
    elif waits_for_end(DRAIN, nudge, database()):
        return
    else:
        _run_here(DRAIN)
        outcome = "run_here"
    telemetry.count("nudges", outcome)


def nudge_for_sync() -> None:
    """Nudge, but at most once a second: the store cannot decide, and a sync may mend that."""
    if _syncs.allows():
        _syncs.failed()
        nudge()


def deliver(event: AttemptEvent) -> None:
    """Have an event written that no outbox holds: by a worker, else in this process, else as an ERROR log line."""
    if waits_for_end(event.id, partial(deliver, event), database()):
        return
    if not hand_over(WRITE, event.wire()):
        log.error("Event not written, neither by a worker nor here: %s", event.line())


def hand_over(name: str, *args: Any, **named: Any) -> bool:
    """Have a worker run the task ``name``, or this process if none is told; return whether that went through."""
    return (has_worker() and publish(name, *args, named=named)) or _run_here(name, *args, **named)


def has_worker() -> bool:
    """Return whether tasks go to a worker, and are not run in this process."""
    return has_broker() and not is_immediate()


def has_broker() -> bool:
    """Return whether the project names a broker; Celery's own default of a RabbitMQ on this host does not count."""
    conf = current_app.conf
    return bool(conf.broker_url or conf.broker_write_url) or "CELERY_BROKER_URL" in os.environ


def publish(
    name: str,
    *args: Any,
    named: dict[str, Any] | None = None,
    expires: float | None = None,
    countdown: float | None = None,
) -> bool:
    """Send the task ``name``, within a fraction of a second or not at all; return whether it was sent.

    After a failure, nothing is sent for a few seconds. ``expires`` and ``countdown``, in seconds, are Celery's;
    ``named`` are arguments that go by name.
    """
    if not _broker.allows():
        return False
    queue = get_settings().celery_queue
    try:
        with _producers(os.getpid()).acquire(block=True, timeout=PUBLISH_TIMEOUT) as producer:
            current_app.send_task(
                name,
                args,
                named,
                producer=producer,
                retry=False,
                ignore_result=True,
                expires=expires,
                countdown=countdown,
                **({"queue": queue} if queue else {}),
            )
    except LimitExceeded:
        log.warning("The broker was not told of %s: all of %d connections to it are in use.", name, PUBLISHERS)
        return False
    except Exception as error:  # noqa: BLE001  (a transport may raise anything, and a login must go on)
        _broker.failed()
        log.warning("The broker did not take %s (%s: %s).", name, type(error).__name__, error)
        return False
    _broker.succeeded()
    return True


def broker_error() -> str | None:
    """Return what stands against the broker, asked now; ``None`` if it answers, or where the project has none."""
    if not has_broker():
        return None
    try:
        with bounded_connection() as connection:
            connection.ensure_connection(max_retries=0, timeout=PUBLISH_TIMEOUT)
    except Exception as error:  # noqa: BLE001  (a transport may raise anything)
        return f"{type(error).__name__}: {error}"
    return None


@cache
def _producers(pid: int) -> Any:
    """Return the pool of producers on our own bounded connections; a forked process makes its own.

    None of kombu's own pools, which it finds by what they are connected to: a child would get that of its parent.
    """
    pool: Any = pools.ProducerPool  # It has no types.
    return pool(bounded_connection().Pool(limit=PUBLISHERS), limit=PUBLISHERS)


def bounded_connection(timeout: float | None = None) -> Any:
    """Return a connection of our own, with ``timeout`` in seconds for each of its waits, or ``PUBLISH_TIMEOUT``.

    The project's may wait for ever on a broker that accepts and stays silent.
    """
    timeout = PUBLISH_TIMEOUT if timeout is None else timeout
    waits = "connect_timeout", "socket_timeout", "socket_connect_timeout", "read_timeout", "write_timeout"
    options = {
        **(current_app.conf.broker_transport_options or {}),
        **dict.fromkeys(waits, timeout),
        "max_retries": 0,
        "retry_on_timeout": False,
    }
    return current_app.connection_for_write(connect_timeout=timeout, transport_options=options)


def is_immediate() -> bool:
    """Return whether tasks run at once, in the caller's transaction: in tests, and where Celery is told so."""
    return bool(current_app.conf.task_always_eager) or factory.is_eager()


def _run_here(name: str, *args: Any, **named: Any) -> bool:
    """Run a task of ours in this process; return whether it went through."""
    import_module("axes_async.tasks")
    try:
        with nullcontext() if factory.is_eager() else short_lock_waits(connections[database()]):
            current_app.tasks[name].run(*args, **named)
    except (DatabaseError, InterfaceError, StoreUnavailable):
        log.exception("%s did not go through in this process.", name)
        return False
    return True
