"""When celery beat runs what; imports no models, so that settings may use it."""

from __future__ import annotations

from typing import Any


def beat_schedule(
    *, drain_every: float = 5, expire_every: float = 60, purge_every: float = 3600, queue: str | None = None
) -> dict[str, dict[str, Any]]:
    """Return entries for ``CELERY_BEAT_SCHEDULE``.

    :param drain_every: seconds between drains; most are started by a nudge, this one makes good the lost nudges.
    :param expire_every: seconds between looks for attempts that have cooled off.
    :param purge_every: seconds between looks for log rows that are older than the settings keep them.
    :param queue: Celery queue of the tasks, as ``AXES_CELERY_QUEUE``; ``None`` for the project's default queue.
    """

    def entry(task: str, every: float) -> dict[str, Any]:
        options: dict[str, Any] = {"expires": max(1.0, every)}
        if queue is not None:
            options["queue"] = queue
        return {"task": task, "schedule": every, "options": options}

    return {
        "axes_async.drain": entry("axes_async.drain", drain_every),
        "axes_async.expire": entry("axes_async.expire", expire_every),
        "axes_async.purge": entry("axes_async.purge", purge_every),
    }
