"""Filters of the admin's lists, none of which reads a whole table."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, NamedTuple

from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest, QueryDict
from django.utils.dateparse import parse_datetime
from django.utils.timezone import get_default_timezone, is_aware, make_aware, make_naive
from django.utils.translation import gettext_lazy as _

from axes_async.clock import as_datetime, now_ms
from axes_async.inspection.attempts import is_locked, of_latest_lockouts
from axes_async.inspection.search import BOUNDS, NARROW, Bounds
from axes_async.models import AccessReset

BEFORE = "before"
"""The parameter of the time that a list ends at. No choice of a filter sets it, but the link to earlier rows."""


class Choice(NamedTuple):
    text: Any
    condition: Callable[[], Q]
    bounds: Bounds | None = None
    """How many rows can be looked at, where no index leads to what is chosen."""
    few: bool = False
    """Whether the rows that are chosen are few, so that sorting them costs the least."""


class Filter(admin.SimpleListFilter):
    """A filter of some fixed choices; a value that is none of them chooses all rows."""

    def offered(self) -> dict[str, Choice]:
        return {}

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [(value, choice.text) for value, choice in self.offered().items()]

    @property
    def chosen(self) -> Choice:
        return self.offered().get(self.value() or "", Choice("", Q))

    @property
    def bounds(self) -> Bounds | None:
        return self.chosen.bounds

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(self.chosen.condition())


class TimeFilter(Filter):
    """The rows of the last hour, day, week or month; and before a time, where a list is too long for its pages."""

    title = _("time")
    parameter_name = "time"
    field = "attempt_time"

    def __init__(self, request: HttpRequest, params: dict[str, Any], model: Any, model_admin: Any) -> None:
        super().__init__(request, params, model, model_admin)
        self.before = _time("".join(params.pop(BEFORE, [])[-1:]))

    def expected_parameters(self) -> list[str | None]:
        return [self.parameter_name, BEFORE]

    def offered(self) -> dict[str, Choice]:
        return {
            "hour": Choice(_("Past hour"), partial(self._past, timedelta(hours=1))),
            "day": Choice(_("Past 24 hours"), partial(self._past, timedelta(days=1))),
            "week": Choice(_("Past 7 days"), partial(self._past, timedelta(days=7))),
            "month": Choice(_("Past 30 days"), partial(self._past, timedelta(days=30))),
        }

    def _past(self, span: timedelta) -> Q:
        return Q(**{f"{self.field}__gte": as_datetime(now_ms()) - span})

    def choices(self, changelist: Any) -> Any:
        for choice in super().choices(changelist):
            query = QueryDict(choice["query_string"].removeprefix("?"), mutable=True)
            query.pop(BEFORE, None)
            yield {**choice, "query_string": f"?{query.urlencode()}"}

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        queryset = super().queryset(request, queryset)
        return queryset if self.before is None else queryset.filter(**{f"{self.field}__lt": self.before})


class ResetTimeFilter(TimeFilter):
    field = "reset_time"


class LockedOutFilter(Filter):
    title = _("locked out")
    parameter_name = "locked_out"

    def offered(self) -> dict[str, Choice]:
        return {
            "yes": Choice(_("Yes"), of_latest_lockouts, few=True),
            "no": Choice(_("No"), lambda: ~is_locked(), NARROW),
        }


class OutcomeFilter(Filter):
    """What came of an attempt. An index leads to those that a lockout has met; most others were a wrong password."""

    title = _("outcome")
    parameter_name = "outcome"

    def offered(self) -> dict[str, Choice]:
        return {
            "wrong": Choice(_("wrong password"), partial(Q, locked_out=False), BOUNDS),
            "locked": Choice(_("locked out"), partial(Q, locked_out=True, repeats=0)),
            "away": Choice(_("turned away"), partial(Q, locked_out=True, repeats__gt=0)),
        }


class LoggedOutFilter(Filter):
    title = _("logged out")
    parameter_name = "logged_out"

    def offered(self) -> dict[str, Choice]:
        return {
            "yes": Choice(_("Yes"), partial(Q, logout_time__isnull=False), BOUNDS),
            "no": Choice(_("No"), partial(Q, logout_time__isnull=True), BOUNDS),
        }


class ScopeFilter(Filter):
    title = _("scope")
    parameter_name = "scope"

    def offered(self) -> dict[str, Choice]:
        return {value: Choice(text, partial(Q, scope=value), BOUNDS) for value, text in AccessReset.SCOPES}


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
