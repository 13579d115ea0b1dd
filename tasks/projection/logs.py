"""The logs: what an event tells becomes a row of ``AccessFailureLog`` or ``AccessLog``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from django.db.models import Q

from axes_async.clock import as_datetime
from axes_async.conf import get_settings
from axes_async.counters.events import AttemptEvent, Kind, worth_a_row
from axes_async.models import AccessFailureLog, AccessLog
from axes_async.tasks.projection.bulk import WHO, Columns, Moments, upsert, who


class LogWriter:
    """Writes the log rows of events to the database ``using``, as far as the settings want them."""

    def __init__(self, using: str, moments: Moments) -> None:
        self.using, self.moments, self.settings = using, moments, get_settings()

    def write(self, events: Sequence[AttemptEvent]) -> None:
        """Write the rows of events that have none yet."""
        if self.settings.enable_access_failure_log:
            self._failures(events)
        if not self.settings.disable_access_log:
            self._logins([event for event in events if event.kind is Kind.LOGGED_IN])
            self._logouts([event for event in events if event.kind is Kind.LOGGED_OUT])

    def _who(self, event: AttemptEvent) -> tuple[Any, ...]:
        return who(event, self.moments[event.time])

    def _failures(self, events: Sequence[AttemptEvent]) -> None:
        rows = [
            (*self._who(event), event.id, event.locked, event.repeats)
            for event in events
            if event.kind is Kind.FAILED or (event.kind is Kind.BLOCKED and worth_a_row(event.repeats))
        ]
        Columns(AccessFailureLog, (*WHO, "event_id", "locked_out", "repeats"), self.using).insert(rows)

    def _logins(self, events: list[AttemptEvent]) -> None:
        rows = [(*self._who(event), event.id, event.extra.get("session", "")) for event in events]
        Columns(AccessLog, (*WHO, "event_id", "session_hash"), self.using).insert(rows)

    def _logouts(self, events: list[AttemptEvent]) -> None:
        """Set the time of the logout on its login: by the login's id, or for want of that by the session."""
        if not events:
            return
        by_id = {UUID(event.extra["login"]): event for event in events if "login" in event.extra}
        by_session = {
            event.extra["session"]: event for event in events if "session" in event.extra and "login" not in event.extra
        }
        wanted = Q(event_id__in=by_id) | Q(session_hash__in=by_session) & ~Q(session_hash="")
        ended = []
        for login in AccessLog.objects.using(self.using).filter(wanted, logout_time=None):
            event = by_id.get(login.event_id) or by_session[login.session_hash]
            login.logout_time = as_datetime(event.time)
            ended.append(login)
        upsert(AccessLog, ended, key=["event_id"], fields=["logout_time"], using=self.using)
