"""Lists that stay fast however long the table is: searched by an index, counted to a bound, or of the latest rows."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from django.contrib.admin.views.main import PAGE_VAR, ChangeList
from django.core.paginator import Paginator
from django.db import connections
from django.db.models import DateTimeField, ExpressionWrapper, F, Q, QuerySet
from django.http import HttpRequest
from django.utils.formats import number_format
from django.utils.translation import gettext as _

from axes_async.admin.columns import to_the_second
from axes_async.admin.filters import BEFORE, Filter, TimeFilter
from axes_async.inspection.search import BOUNDS, LISTED, Found, read, window

if TYPE_CHECKING:
    AnyPaginator = Paginator[Any]
else:
    AnyPaginator = Paginator  # Generic only in its type stubs.


def times_of(rows: QuerySet[Any]) -> QuerySet[Any]:
    """Return the first column that ``rows`` are sorted by, in their order.

    Without an order, PostgreSQL may read the table from its beginning to rows that are at its end. Of one column, an
    index may have all of it.
    """
    first: Any = rows.query.order_by[0]
    column = first.removeprefix("-") if isinstance(first, str) else first.expression
    return rows.order_by(first).values_list(column, flat=True)


class BoundedPaginator(AnyPaginator):
    """Pages of a table, of which only the first ``LISTED`` rows are counted. To count millions takes seconds."""

    @cached_property
    def count(self) -> int:
        rows: Any = self.object_list
        return int(times_of(rows)[:LISTED].count())


class BoundedList(ChangeList):
    """Rows by time, the latest first, of which no request reads more than it can in a moment."""

    since: datetime | None = None
    """The rows since then are all that were looked at; ``None``: all there are."""

    @property
    def time(self) -> str:
        return str(self.model_admin.ordering[0]).removeprefix("-")  # type: ignore[index]

    @property
    def is_bounded(self) -> bool:
        """Whether there may be more rows than are counted."""
        return bool(self.result_count >= LISTED)

    @property
    def note(self) -> str:
        if self.is_bounded:
            most = number_format(LISTED, use_l10n=True, force_grouping=True)
            return _("Only the first %s are listed. Search or filter to see others.") % most
        return "" if self.since is None else _("Rows since %s were looked at.") % to_the_second(self.since)

    @property
    def earlier(self) -> str:
        """The query for the rows that follow; '' if there is none."""
        before = self.since
        if not self._has_times or (self.is_bounded and not self._is_latest_first):
            return ""
        if self.is_bounded:
            last: Any = next(iter(times_of(self.queryset)[LISTED - 1 : LISTED]), None)
            before = last and last + timedelta(microseconds=1)
        return "" if before is None else self.get_query_string({BEFORE: before.isoformat()}, remove=[PAGE_VAR])

    def get_ordering_field(self, field_name: Any) -> Any:
        return super().get_ordering_field(field_name) if field_name in (self.sortable_by or ()) else None

    def get_queryset(self, request: HttpRequest, exclude_parameters: Any = None) -> QuerySet[Any]:
        rows = super().get_queryset(request, exclude_parameters)
        self._is_latest_first = str(next(iter(rows.query.order_by), "")).startswith("-")
        specs, term = self.filter_specs, read(self.query)
        times = [spec for spec in specs if isinstance(spec, TimeFilter)]
        admin: Any = self.model_admin
        self._has_times, within = bool(times), admin.listed(self.root_queryset)
        for spec in times:
            within = spec.queryset(request, within)
        filters = [spec for spec in specs if isinstance(spec, Filter)]
        few, scanned = any(spec.chosen.few for spec in filters), [spec.bounds for spec in filters if spec.bounds]
        if term is not None:
            found: Found = admin.search(within, term, min(scanned, default=BOUNDS))
        else:
            since = window(within, self.time, min(scanned).latest) if scanned else None
            found = Found(condition=Q(), since=since)
        self.since = found.since
        rows = rows.filter(found.condition)
        if found.since is not None:
            rows = rows.filter(**{f"{self.time}__gte": found.since})
        return self._sorted(rows) if found.few or few else rows

    def _sorted(self, rows: QuerySet[Any]) -> QuerySet[Any]:
        """Have PostgreSQL look for ``rows``, then sort them.

        Else it might go through the index of time until a page is full, which may be at the end of the table.
        """
        if connections[rows.db].vendor != "postgresql":
            return rows
        time = ExpressionWrapper(F(self.time) + timedelta(0), output_field=DateTimeField())
        return rows.order_by(time.desc() if self._is_latest_first else time.asc(), *rows.query.order_by[1:])
