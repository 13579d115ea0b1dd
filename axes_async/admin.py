"""The rows in Django's admin: to look at, to search, and to lift a lockout by deleting the attempts it stands for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.contrib.admin.views.main import ChangeList
from django.db import connections, router, transaction
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.translation import gettext_lazy as _

from axes_async.errors import AxesError
from axes_async.models import AccessAttempt, AccessFailureLog, AccessLog

if TYPE_CHECKING:
    ModelAdmin = admin.ModelAdmin[Any]
else:
    ModelAdmin = admin.ModelAdmin  # Generic only in its type stubs.

PORTION = 500
"""Attempts that one reset event names."""


class ReadOnlyAdmin(ModelAdmin):
    """What all three have in common: nothing can be added or changed."""

    date_hierarchy = "attempt_time"
    ordering = ("-attempt_time",)
    search_fields = ("username", "ip_address", "user_agent", "path_info")
    show_full_result_count = False

    def get_changelist_instance(self, request: HttpRequest) -> ChangeList:
        """Do without the dates to choose from where the database knows no time zones, as a new MySQL or MariaDB."""
        changes = super().get_changelist_instance(request)
        if not connections[changes.queryset.db].features.has_zoneinfo_database:
            changes.date_hierarchy = None
        return changes

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Return ``False``: only a drain writes rows."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Return ``False``: a record that can be edited is none."""
        return False


@admin.register(AccessAttempt)
class AccessAttemptAdmin(ReadOnlyAdmin):
    """The failures that count now; deleting some takes them back from every counter."""

    list_display = ("attempt_time", "ip_address", "username", "failures_since_start", "expires_at", "user_agent")
    list_filter = ("attempt_time", "path_info")
    fieldsets = (
        (None, {"fields": ("username", "ip_address", "failures_since_start")}),
        (_("Times"), {"fields": ("first_attempt_time", "attempt_time", "expires_at")}),
        (_("Last request"), {"fields": ("path_info", "user_agent", "http_accept")}),
    )

    def delete_model(self, request: HttpRequest, obj: AccessAttempt) -> None:
        """Reset one attempt."""
        self._reset([obj.key])

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[AccessAttempt]) -> None:
        """Reset the attempts that were chosen."""
        self._reset(list(queryset.values_list("key", flat=True)))

    def delete_view(self, request: HttpRequest, object_id: str, extra_context: Any = None) -> HttpResponse:
        """Delete one, or say why not."""
        with self._all_or_nothing(request):
            return super().delete_view(request, object_id, extra_context)
        return HttpResponseRedirect(reverse("admin:axes_async_accessattempt_changelist"))

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """List, and delete those that were chosen, or say why not."""
        if request.method != "POST":
            return super().changelist_view(request, extra_context)
        with self._all_or_nothing(request):
            return super().changelist_view(request, extra_context)
        return HttpResponseRedirect(request.get_full_path())

    def _reset(self, keys: list[str]) -> None:
        from axes_async.tasks.reset import reset

        for start in range(0, len(keys), PORTION):
            reset(rows=keys[start : start + PORTION])

    @contextmanager
    def _all_or_nothing(self, request: HttpRequest) -> Iterator[None]:
        """Undo the admin's own log of a deletion that could not be made."""
        try:
            with transaction.atomic(using=router.db_for_write(AccessAttempt)):
                yield
        except AxesError as error:
            text = _("Nothing was deleted, since the store of the counters could not be reached: %s")
            self.message_user(request, text % error, messages.ERROR)


class LogAdmin(ReadOnlyAdmin):
    """A log: nothing can be deleted from it either."""

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Return ``False``."""
        return False


@admin.register(AccessLog)
class AccessLogAdmin(LogAdmin):
    """Logins and logouts."""

    list_display = ("attempt_time", "logout_time", "ip_address", "username", "user_agent", "path_info")
    list_filter = ("attempt_time", "logout_time", "path_info")
    fieldsets = (
        (None, {"fields": ("username", "ip_address", "attempt_time", "logout_time")}),
        (_("Request"), {"fields": ("path_info", "user_agent", "http_accept", "session_hash")}),
    )


@admin.register(AccessFailureLog)
class AccessFailureLogAdmin(LogAdmin):
    """Failures, and attempts that a lockout turned away."""

    list_display = ("attempt_time", "ip_address", "username", "locked_out", "repeats", "user_agent", "path_info")
    list_filter = ("attempt_time", "locked_out", "path_info")
    fieldsets = (
        (None, {"fields": ("username", "ip_address", "attempt_time", "locked_out", "repeats")}),
        (_("Request"), {"fields": ("path_info", "user_agent", "http_accept")}),
    )
