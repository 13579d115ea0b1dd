"""The rows in Django's admin: to look at, to search, and to lift a lockout by deleting its attempts."""

from __future__ import annotations

from typing import Any

from django.conf import settings as django_settings
from django.contrib import admin
from django.db.models import QuerySet
from django.utils.translation import gettext_lazy as _

from axes_async.admin.attempts import AccessAdmin, AccessAttemptAdmin
from axes_async.admin.columns import SHORT, outcome_badge, text_column, time_column
from axes_async.admin.dashboard import DashboardAdmin
from axes_async.admin.filters import LoggedOutFilter, OutcomeFilter, ResetTimeFilter, ScopeFilter, TimeFilter
from axes_async.admin.lockouts import LockoutAdmin
from axes_async.admin.read_only import ReadOnlyAdmin
from axes_async.inspection.search import Bounds, Found, Term, find_in_resets
from axes_async.models import AccessAttempt, AccessFailureLog, AccessLog, AccessReset, Lockout
from axes_async.models.rollups import Dashboard


class AccessLogAdmin(AccessAdmin):
    """Logins and logouts."""

    list_display = ("shown_time", "ip_address", "short_username", "shown_logout", "short_path", "short_agent")
    list_filter = (TimeFilter, LoggedOutFilter)
    fieldsets = (
        (None, {"fields": ("shown_username", "ip_address", "shown_time", "shown_logout")}),
        (_("Request"), {"fields": ("shown_path", "shown_agent", "shown_accept", "session_hash")}),
    )
    shown_logout = time_column("logout_time", _("logout time"))


class AccessFailureLogAdmin(AccessAdmin):
    """Failures, and attempts that met a lockout."""

    list_display = ("shown_time", "outcome", "ip_address", "short_username", "short_path", "short_agent")
    list_filter = (TimeFilter, OutcomeFilter)
    fieldsets = (
        (None, {"fields": ("shown_username", "ip_address", "shown_time", "outcome")}),
        (_("Request"), {"fields": ("shown_path", "shown_agent", "shown_accept")}),
    )

    @admin.display(description=_("outcome"))
    def outcome(self, failure: AccessFailureLog) -> str:
        return outcome_badge(failure)


class AccessResetAdmin(ReadOnlyAdmin):
    """Who lifted lockouts, when and why."""

    ordering = ("-reset_time",)
    search_fields = ("username", "ip_address", "by", "reason")
    list_display = (
        "shown_time",
        "scope",
        "ip_address",
        "short_username",
        "attempts",
        "counters",
        "shown_by",
        "short_reason",
    )
    list_filter = (ResetTimeFilter, ScopeFilter)
    search_help_text = _("A part of a name or of a reason, an IP address, or a network such as 192.0.2.0/24")
    sortable_by = ("shown_time",)
    fieldsets = (
        (None, {"fields": ("shown_time", "scope", "shown_username", "ip_address", "attempts", "counters")}),
        (None, {"fields": ("shown_by", "shown_reason")}),
    )
    shown_time = time_column("reset_time", _("reset time"))
    shown_by = text_column("by", _("by"))
    shown_reason = text_column("reason", _("reason"))
    short_reason = text_column("reason", _("reason"), at_most=SHORT)

    def search(self, rows: QuerySet[Any], term: Term, bounds: Bounds) -> Found:
        return find_in_resets(rows, term)


if getattr(django_settings, "AXES_ENABLE_ADMIN", True):  # A value of a wrong type is for the system checks to report.
    admin.site.register(AccessAttempt, AccessAttemptAdmin)
    admin.site.register(AccessLog, AccessLogAdmin)
    admin.site.register(AccessFailureLog, AccessFailureLogAdmin)
    admin.site.register(AccessReset, AccessResetAdmin)
    admin.site.register(Dashboard, DashboardAdmin)
    admin.site.register(Lockout, LockoutAdmin)
