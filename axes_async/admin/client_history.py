"""What the page of an attempt shows of its client: its counters, its latest failures, and its last login."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.contrib.admin import AdminSite
from django.contrib.admin.utils import quote
from django.http import HttpRequest
from django.urls import NoReverseMatch, reverse

from axes_async.admin.columns import failures_of_limit, outcome_badge, to_the_second, until_badge
from axes_async.inspection.standings import standings, words_for
from axes_async.models import AccessAttempt, AccessFailureLog, AccessLog, database
from axes_async.tasks.projection.counters import counters_of
from axes_async.text import printable

MOST = 20
"""Counters, and failures, that are shown."""


def history_of(attempt: AccessAttempt, request: HttpRequest, site: AdminSite) -> dict[str, Any]:
    """Return what the template shows; of the logs, what the user may view."""
    may = request.user.has_perm
    who = {"username": attempt.username, "ip_address": attempt.ip_address}
    shown: dict[str, Any] = {"counters": list(_counters(attempt, site, can_unlock=may("axes_async.unlock_lockout")))}
    if may("axes_async.view_accessfailurelog"):
        latest = AccessFailureLog.objects.using(database()).filter(**who).order_by("-attempt_time")[:MOST]
        shown["failures"] = [
            (to_the_second(row.attempt_time), outcome_badge(row), printable(row.path_info), printable(row.user_agent))
            for row in latest
        ]
    if may("axes_async.view_accesslog"):
        logins = AccessLog.objects.using(database()).filter(username=attempt.username).order_by("-attempt_time")
        last = None if attempt.username is None else logins.first()
        shown["last_login"] = "-" if last is None else f"{to_the_second(last.attempt_time)}, {last.ip_address or '-'}"
    return shown


def _counters(attempt: AccessAttempt, site: AdminSite, *, can_unlock: bool) -> Iterator[tuple[str, str, str, str]]:
    """Return each counter in words, how it stands, and where it is unlocked, if that is of use and allowed."""
    rows = list(counters_of([attempt], database())[:MOST])
    _source, stand = standings(rows)
    for row in rows:
        standing, url = stand[row.digest], ""
        if not standing.failures:
            continue
        if can_unlock and standing.is_locked:
            try:
                name = "admin:axes_async_lockout_unlock"
                url = reverse(name, args=[quote(row.pk)], current_app=site.name)
            except NoReverseMatch:  # A site may show attempts in an admin that has no lockouts.
                url = ""
        yield words_for(row), failures_of_limit(standing), until_badge(standing), url
