"""Events become rows: the database is a fold of the outbox.

Everything here runs while the cursor is held, in the caller's transaction, and in the order of the events.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from uuid import UUID

from django.db.models import Q

from axes_async.clock import as_datetime
from axes_async.conf import AxesSettings, get_settings
from axes_async.counters.events import AttemptEvent, CounterState, Kind, parameters_of, worth_a_row
from axes_async.login.rules import longest_cooloff
from axes_async.models import AccessAttempt, AccessFailureLog, AccessLog, AttemptCounter
from axes_async.stores.contract import Store
from axes_async.tasks.projection.counters import COUNTER_FIELDS, counter_row, outlived
from axes_async.tasks.projection.resets import Keys, apply_reset, counters_of, keys_under, portions
from axes_async.tasks.projection.rows import PORTION, attempt_key, insert, keys_of, upsert

ATTEMPT_FIELDS = (
    "attempt_time",
    "first_attempt_time",
    "failures_since_start",
    "expires_at",
    "path_info",
    "http_accept",
)


class Fold:
    """Applies events to rows, many at a time; those that take something back end a portion."""

    def __init__(self, store: Store, using: str, *, counters: bool = True) -> None:
        """Write to the database ``using``; resets reach the counters in ``store``.

        Without ``counters``, the table of counters is left alone: the caller has written it.
        """
        self.store = store
        self.using = using
        self.counters = counters
        self.settings: AxesSettings = get_settings()
        self.pending: list[AttemptEvent] = []

    def apply(self, events: Iterable[AttemptEvent]) -> None:
        """Write ``events``, in their order."""
        for event in events:
            if event.kind is Kind.RESET:
                self.flush()
                apply_reset(event, self.store, self.using)
                continue
            self.pending.append(event)
            if event.kind is Kind.LOGGED_IN and event.counters:
                self.flush()
                self._clear(event)
        self.flush()

    def flush(self) -> None:
        """Write what has gathered."""
        events, self.pending = self.pending, []
        if self.settings.enable_access_failure_log:
            self._failure_logs([event for event in events if event.kind is Kind.FAILED or _is_blocked_row(event)])
        if not self.settings.disable_access_log:
            self._logins([event for event in events if event.kind is Kind.LOGGED_IN])
            self._logouts([event for event in events if event.kind is Kind.LOGGED_OUT])
        self._attempts([event for event in events if event.kind is Kind.FAILED])
        if self.counters:
            self._counters([event for event in events if event.kind in (Kind.FAILED, Kind.BLOCKED) and event.counters])

    def _failure_logs(self, events: list[AttemptEvent]) -> None:
        rows = [
            AccessFailureLog(**_who(event), event_id=UUID(event.id), locked_out=event.locked, repeats=event.repeats)
            for event in events
        ]
        insert(AccessFailureLog, rows, using=self.using)

    def _logins(self, events: list[AttemptEvent]) -> None:
        rows = [
            AccessLog(**_who(event), event_id=UUID(event.id), session_hash=event.extra.get("session", ""))
            for event in events
        ]
        insert(AccessLog, rows, using=self.using)

    def _logouts(self, events: list[AttemptEvent]) -> None:
        """Set the time of the logout on its login: by the login's id, or for want of that by the session."""
        by_id = {UUID(event.extra["login"]): event for event in events if "login" in event.extra}
        by_session = {
            event.extra["session"]: event for event in events if "session" in event.extra and "login" not in event.extra
        }
        if not by_id and not by_session:
            return
        logins = AccessLog.objects.using(self.using).filter(
            Q(event_id__in=by_id) | Q(session_hash__in=by_session), logout_time=None
        )
        ended = []
        for login in logins:
            event = by_id.get(login.event_id) or by_session[login.session_hash]
            login.logout_time = as_datetime(event.time)
            ended.append(login)
        upsert(AccessLog, ended, key="id", fields=["logout_time"], using=self.using)

    def _attempts(self, events: list[AttemptEvent]) -> None:
        keyed = [(attempt_key(event), event) for event in events]
        known = AccessAttempt.objects.using(self.using).filter(key__in={key for key, _ in keyed})
        rows = {row.key: row for row in known}
        for key, event in keyed:
            time = as_datetime(event.time)
            row = rows.get(key)
            if row is None or (row.expires_at is not None and row.expires_at <= time):
                named = {f"{name}_key": value for name, value in keys_of(event).items()}
                who = _who(event)
                row = AccessAttempt(**who, **named, key=key, first_attempt_time=time, failures_since_start=0)
                rows[key] = row
            row.failures_since_start += 1
            row.attempt_time = max(row.attempt_time, time)
            row.path_info, row.http_accept = event.path_info, event.http_accept
            row.expires_at = self._expiry(event)
        written = list(rows.values())
        for row in written:
            row.pk = None
        upsert(AccessAttempt, written, key="key", fields=ATTEMPT_FIELDS, using=self.using)

    def _expiry(self, event: AttemptEvent) -> datetime | None:
        """Return when the last of the event's counters starts over; ``None`` if one does so only by a reset."""
        ends = [state.expires_at for state in event.counters]
        if not ends:
            cooloff = longest_cooloff(self.settings)
            return None if cooloff is None else as_datetime(event.time) + cooloff
        return None if 0 in ends else as_datetime(max(ends))

    def _counters(self, events: list[AttemptEvent]) -> None:
        latest: dict[str, tuple[AttemptEvent, CounterState]] = {}
        alone: dict[str, list[tuple[int, CounterState]]] = {}
        for event in events:
            for state in event.counters:
                latest[state.digest] = event, state
                if state.ends:
                    alone.setdefault(state.digest, []).append((event.time, state))
        known = AttemptCounter.objects.using(self.using).filter(digest__in=latest)
        before = {
            row.digest: row for row in known.only("epoch", "failures", "lifted", "locked_until", "expires_at", "ends")
        }
        # An event may come late, out of the dead letters say: it takes nothing back of what later ones have told.
        rows = [
            counter_row(event, state, before.get(digest), alone.get(digest, []))
            for digest, (event, state) in latest.items()
            if not outlived(state, before.get(digest), event.time)
        ]
        upsert(AttemptCounter, rows, key="digest", fields=COUNTER_FIELDS, using=self.using)
        self._keep_shown([row for row in rows if row.expires_at and 0 < row.limit <= row.failures - row.lifted])

    def _keep_shown(self, locked: list[AttemptCounter]) -> None:
        """Have attempts last as long as the lockout they stand for, which later ones may have set or prolonged."""
        ends: dict[int, dict[Keys, datetime]] = {}
        for row in locked:
            if row.expires_at is not None:
                ends.setdefault(row.parameters, {})[keys_under(row.parameters, row)] = row.expires_at
        for bits, until in ends.items():
            names = [f"{name}_key" for name in parameters_of(bits)]
            sharing = {f"{name}__in": {keys[place] for _, keys in until} for place, name in enumerate(names)}
            early = AccessAttempt.objects.using(self.using).filter(**sharing, expires_at__lt=max(until.values()))
            short = []
            for attempt in early.only("expires_at", *names):
                end = until.get(keys_under(bits, attempt))
                if end is not None and attempt.expires_at is not None and attempt.expires_at < end:
                    attempt.expires_at = end
                    short.append(attempt)
            AccessAttempt.objects.using(self.using).bulk_update(short, ["expires_at"], batch_size=PORTION)

    def _clear(self, event: AttemptEvent) -> None:
        """Take back what a login cleared: the counters, and the attempts that count in none that is left."""
        cleared = AttemptCounter.objects.using(self.using).filter(digest__in=[state.digest for state in event.counters])
        counted = Q(pk__in=[])
        for row in cleared:
            counted |= Q(**{f"{name}_key": getattr(row, f"{name}_key") for name in parameters_of(row.parameters)})
        if self.counters:
            for state in event.counters:
                cleared.filter(digest=state.digest, epoch=state.epoch).delete()
        attempts = AccessAttempt.objects.using(self.using).filter(counted)
        for rows in portions(list(attempts)):
            standing = {keys_under(counter.parameters, counter) for counter in counters_of(rows, self.using)}
            rules = {bits for bits, _ in standing}
            gone = [row.pk for row in rows if not any(keys_under(bits, row) in standing for bits in rules)]
            AccessAttempt.objects.using(self.using).filter(pk__in=gone).delete()


def _is_blocked_row(event: AttemptEvent) -> bool:
    """Return whether a blocked attempt gets a row; some only tell that it has prolonged its lockout."""
    return event.kind is Kind.BLOCKED and worth_a_row(event.repeats)


def _who(event: AttemptEvent) -> dict[str, object]:
    return {
        "username": event.username,
        "ip_address": event.ip_address,
        "user_agent": event.user_agent,
        "http_accept": event.http_accept,
        "path_info": event.path_info,
        "attempt_time": as_datetime(event.time),
    }
