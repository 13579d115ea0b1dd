"""Filters of the admin's lists, none of which reads a whole table."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils.dateparse import parse_datetime
from django.utils.timezone import get_default_timezone, is_aware, make_aware, make_naive
from django.utils.translation import gettext_lazy as _

from axes_async.clock import as_datetime, now_ms
from axes_async.inspection.attempts import is_locked, of_latest_lockouts
from axes_async.inspection.search import BOUNDS, NARROW, Bounds

BEFORE = "before"
"""The parameter of the time that a list ends at. No choice of a filter sets it, but the link to earlier rows."""


class Filter(admin.SimpleListFilter):
    """A filter of some fixed choices."""

    bounds: Bounds | None = None
    """How many rows can be looked at, where no index leads to what is chosen."""
    few = False
    """Whether the rows that are chosen are few, so that sorting them costs the least."""


class TimeFilter(Filter):
    """The rows of the last hour, day, week or month; and before a time, where a list is too long for its pages."""

    title = _("time")
    parameter_name = "time"
    field = "attempt_time"
    spans = (
        ("hour", timedelta(hours=1), _("Past hour")),
        ("day", timedelta(days=1), _("Past 24 hours")),
        ("week", timedelta(days=7), _("Past 7 days")),
        ("month", timedelta(days=30), _("Past 30 days")),
    )

    def __init__(self, request: HttpRequest, params: dict[str, Any], model: Any, model_admin: Any) -> None:
        super().__init__(request, params, model, model_admin)
        self.before = _time("".join(params.pop(BEFORE, [])[-1:]))

    def expected_parameters(self) -> list[str | None]:
        return [self.parameter_name, BEFORE]

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [(name, text) for name, _span, text in self.spans]

    def choices(self, changelist: Any) -> Any:
        for choice in super().choices(changelist):
            query = choice["query_string"]
            yield choice if self.before is None else {**choice, "query_string": _without_before(changelist, query)}

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        span = {name: span for name, span, _text in self.spans}.get(self.value() or "")
        if span is not None:
            queryset = queryset.filter(**{f"{self.field}__gte": as_datetime(now_ms()) - span})
        return queryset if self.before is None else queryset.filter(**{f"{self.field}__lt": self.before})


class ResetTimeFilter(TimeFilter):
    field = "reset_time"


class LockedOutFilter(Filter):
    """Attempts of clients that are locked out now, or the others."""

    title = _("locked out")
    parameter_name = "locked_out"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [("yes", _("Yes")), ("no", _("No"))]

    @property
    def few(self) -> bool:  # type: ignore[override]
        return self.value() == "yes"

    @property
    def bounds(self) -> Bounds | None:  # type: ignore[override]
        return NARROW if self.value() == "no" else None

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        wanted = self.value()
        if wanted == "no":
            return queryset.filter(~is_locked())
        return queryset.filter(of_latest_lockouts()) if wanted == "yes" else queryset


class OutcomeFilter(Filter):
    """What came of an attempt. An index leads to those that a lockout has met; most others were a wrong password."""

    title = _("outcome")
    parameter_name = "outcome"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [("wrong", _("wrong password")), ("locked", _("locked out")), ("away", _("turned away"))]

    @property
    def bounds(self) -> Bounds | None:  # type: ignore[override]
        return BOUNDS if self.value() == "wrong" else None

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        found = {
            "wrong": Q(locked_out=False),
            "locked": Q(locked_out=True, repeats=0),
            "away": Q(locked_out=True, repeats__gt=0),
        }
        return queryset.filter(found.get(self.value() or "", Q()))


class LoggedOutFilter(Filter):
    """Logins that have ended by a logout, or the others."""

    title = _("logged out")
    parameter_name = "logged_out"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [("yes", _("Yes")), ("no", _("No"))]

    @property
    def bounds(self) -> Bounds | None:  # type: ignore[override]
        return BOUNDS if self.value() in {"yes", "no"} else None

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        wanted = self.value()
        return queryset.filter(logout_time__isnull=wanted == "no") if wanted in {"yes", "no"} else queryset


class ScopeFilter(Filter):
    title = _("scope")
    parameter_name = "scope"

    @property
    def bounds(self) -> Bounds | None:  # type: ignore[override]
        return BOUNDS if self.value() else None

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return list(model_admin.model.SCOPES)

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        value = self.value()
        return queryset.filter(scope=value) if value in dict(self.lookup_choices) else queryset


def _time(text: str) -> datetime | None:
    """Return the time in ``text`` as rows have it; ``None`` if it is none."""
    try:
        moment = parse_datetime(text)
        if moment is None:
            return None
        if is_aware(moment):
            moment = moment.astimezone(UTC)
        if is_aware(moment) == is_aware(as_datetime(now_ms())):
            return moment
        zone = get_default_timezone()
        return make_naive(moment, zone) if is_aware(moment) else make_aware(moment, zone)
    except (ValueError, OverflowError):
        return None


def _without_before(changelist: Any, query: str) -> str:
    return "&".join(part for part in query.split("&") if not part.lstrip("?").startswith(f"{BEFORE}="))
