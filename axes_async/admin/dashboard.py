"""The pages of the dashboard: what goes on now, and what went on in the last hour, day and week."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import path
from django.utils import formats, timezone
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from axes_async.admin.read_only import ReadOnlyAdmin
from axes_async.dashboard.charts import stacked
from axes_async.dashboard.figures import MOST_LOCKED, SPANS, history, locked_now, now_figures, top_values
from axes_async.tasks.status import Status, status
from axes_async.text import printable

MOST_WAITING = 100_000
"""How far what waits in tables is counted."""

SPAN_NAMES = {"1h": _("1 hour"), "24h": _("24 hours"), "7d": _("7 days")}

OUTCOMES = (_("failed"), _("turned away"), _("logged in"))

TOP_NAMES = {
    "name": _("Names"),
    "address": _("Addresses"),
    "network": _("Networks"),
    "agent": _("User agents"),
}

PARAMETER_NAMES = {
    "username": _("name"),
    "ip_address": _("address"),
    "user_agent": _("agent"),
}


class DashboardAdmin(ReadOnlyAdmin):
    """Stands where the list of a model would be; its permission is ``axes_async.view_dashboard``."""

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """Show everything; ``?span=`` is one of ``SPANS``, and anything else is the first of them."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        chosen = request.GET.get("span")
        chosen = chosen if chosen in SPANS else "1h"
        span, now = SPANS[chosen], timezone.now()
        buckets = history(span, now)
        times = [_time(bucket.start, chosen) for bucket in buckets]
        rules = sorted(sum((bucket.lockouts for bucket in buckets), Counter()))
        context = {
            **self.admin_site.each_context(request),
            "title": _("Dashboard"),
            "opts": self.opts,
            "now": now,
            "spans": [(name, text, name == chosen) for name, text in SPAN_NAMES.items()],
            "figures": now_figures(now),
            "locked": {name: _bounded(number) for name, number in locked_now(now).items()},
            "status": (seen := status(at_most=MOST_WAITING)),
            "problems": _problems(seen, now),
            "outcomes": _chart(
                _("Attempts"),
                [*OUTCOMES],
                [(bucket.failed, bucket.turned_away, bucket.logged_in) for bucket in buckets],
                times,
            ),
            "lockouts": _chart(
                _("Lockouts by rule"),
                [" + ".join(str(PARAMETER_NAMES[name]) for name in rule.split("+")) for rule in rules],
                [tuple(bucket.lockouts[rule] for rule in rules) for bucket in buckets],
                times,
            ),
            "tops": [
                (TOP_NAMES[kind], [(printable(value), count) for value, count in values])
                for kind, values in top_values(span, now).items()
            ],
            **(extra_context or {}),
        }
        return TemplateResponse(request, "axes_async/dashboard.html", context)

    def get_urls(self) -> list[Any]:
        page = self.admin_site.admin_view(self.status_view)
        return [path("status/", page, name="axes_async_dashboard_status"), *super().get_urls()]

    def status_view(self, request: HttpRequest) -> HttpResponse:
        """Show all that ``axes_status`` prints, and first what needs a person.

        It waits for nobody for long: the store and the broker have a few seconds, and rows are counted up to a bound.
        """
        if not self.has_view_permission(request):
            raise PermissionDenied
        now, seen = timezone.now(), status(at_most=MOST_WAITING + 1)
        counted = {"dirty counters": seen.dirty_counters, "table backlog": seen.table_backlog}
        over = {name for name, number in counted.items() if (number or 0) > MOST_WAITING}
        context = {
            **self.admin_site.each_context(request),
            "title": _("Status"),
            "opts": self.opts,
            "now": now,
            "problems": _problems(seen, now),
            "facts": [(name, _over(MOST_WAITING) if name in over else value) for name, value in seen.facts()],
        }
        return TemplateResponse(request, "axes_async/status.html", context)


def _problems(seen: Status, now: datetime) -> list[str]:
    return [gettext(text) % values for text, values in seen.found(now)]


def _chart(title: Any, names: list[Any], values: Sequence[tuple[int, ...]], times: list[str]) -> dict[str, Any]:
    """Return a chart, and the same figures as a table without the rows that hold nothing."""
    told = [
        f"{time}: " + ", ".join(f"{number} {name}" for number, name in zip(numbers, names, strict=True))
        for time, numbers in zip(times, values, strict=True)
    ]
    rows = [(time, numbers) for time, numbers in zip(times, values, strict=True) if any(numbers)]
    sums = [sum(numbers) for numbers in zip(*values, strict=True)] if names else []
    return {
        "title": title,
        "legend": list(enumerate(zip(names, sums, strict=True))),
        "chart": stacked(values, told, times),
        "names": names,
        "rows": rows[::-1],
    }


def _time(start: datetime, span: str) -> str:
    local = timezone.localtime(start) if timezone.is_aware(start) else start
    time = formats.time_format(local, "H:i")
    return f"{formats.date_format(local, 'D')} {time}" if span == "7d" else time


def _bounded(number: int) -> str:
    return f"{number:,}" if number <= MOST_LOCKED else _over(MOST_LOCKED)


def _over(number: int) -> str:
    return str(_("over %(number)s") % {"number": f"{number:,}"})
