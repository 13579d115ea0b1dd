"""The rows in Django's admin: to look at, to search, and to lift a lockout by deleting its attempts."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from django.conf import settings as django_settings
from django.contrib import admin, messages
from django.db import router, transaction
from django.db.models import Exists, Model, OuterRef, Q, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.translation import gettext_lazy as _

from axes_async.client.keys import counter_columns
from axes_async.clock import as_datetime, now_ms
from axes_async.counters.rules import PARAMETERS
from axes_async.errors import AxesError
from axes_async.models import AccessAttempt, AccessFailureLog, AccessLog, AccessReset, AttemptCounter
from axes_async.text import printable

if TYPE_CHECKING:
    ModelAdmin = admin.ModelAdmin[Any]
else:
    ModelAdmin = admin.ModelAdmin  # Generic only in its type stubs.

PORTION = 500
"""Attempts that one reset names."""

REASON = "deleted in the admin"


def _shown(name: str, label: Any) -> Callable[[Any, Model], str | None]:
    """Return a column for the field ``name`` with a stranger's text in it: characters that disguise it are escaped."""

    @admin.display(description=label, ordering=name)
    def shown(self: Any, row: Model) -> str | None:
        value = getattr(row, name)
        return None if value is None else printable(value)

    return shown


class ReadOnlyAdmin(ModelAdmin):
    """Nothing can be added or changed, nor deleted unless ``deletable``."""

    deletable = False
    show_full_result_count = False
    shown_username = _shown("username", _("username"))

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False  # Only a drain writes rows.

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False  # A record that can be edited proves nothing.

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return self.deletable and super().has_delete_permission(request, obj)  # Rows of a log stay until the purge.


class AccessAdmin(ReadOnlyAdmin):
    """What attempts, logins and failures have in common."""

    ordering = ("-attempt_time",)
    search_fields = ("username", "ip_address", "user_agent", "path_info")
    readonly_fields: ClassVar[tuple[str, ...]] = ("shown_username", "shown_agent", "shown_accept", "shown_path")
    shown_agent = _shown("user_agent", _("user agent"))
    shown_accept = _shown("http_accept", _("HTTP accept"))
    shown_path = _shown("path_info", _("path"))


class LockedOutFilter(admin.SimpleListFilter):
    """Attempts of clients that are locked out now, or the others."""

    title = _("locked out")
    parameter_name = "locked_out"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [("yes", _("Yes")), ("no", _("No"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        wanted = self.value()
        return queryset.filter(is_locked=wanted == "yes") if wanted in {"yes", "no"} else queryset


class AccessAttemptAdmin(AccessAdmin):
    """The failures that count now. Deleting attempts resets them: every counter gives their failures back."""

    deletable = True
    list_display = (
        "attempt_time",
        "ip_address",
        "shown_username",
        "failures_since_start",
        "locked_out",
        "expires_at",
        "shown_agent",
    )
    list_filter = (LockedOutFilter, "attempt_time")
    readonly_fields = (*AccessAdmin.readonly_fields, "locked_out")
    fieldsets = (
        (None, {"fields": ("shown_username", "ip_address", "failures_since_start", "locked_out")}),
        (_("Times"), {"fields": ("first_attempt_time", "attempt_time", "expires_at")}),
        (_("Last request"), {"fields": ("shown_path", "shown_agent", "shown_accept")}),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[AccessAttempt]:
        attempts: QuerySet[AccessAttempt] = super().get_queryset(request)
        return attempts.annotate(is_locked=_is_locked())

    @admin.display(description=_("locked out"), ordering="is_locked")
    def locked_out(self, attempt: Any) -> Any:
        """Return yes if a counter of this client is locked, whoever else's failures it counts too; else nothing."""
        return _("Yes") if attempt.is_locked else None

    def delete_model(self, request: HttpRequest, obj: AccessAttempt) -> None:
        self._reset(request, [obj.key])

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[AccessAttempt]) -> None:
        self._reset(request, list(queryset.values_list("key", flat=True)))

    def delete_view(self, request: HttpRequest, object_id: str, extra_context: Any = None) -> HttpResponse:
        return self._or_say_why(super().delete_view, request, object_id, extra_context)

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        return self._or_say_why(super().changelist_view, request, extra_context)

    def _or_say_why(self, view: Callable[..., HttpResponse], request: HttpRequest, *args: Any) -> HttpResponse:
        """Roll the admin's own log entry back if the attempts could not be deleted."""
        if request.method != "POST":
            return view(request, *args)
        try:
            with transaction.atomic(using=router.db_for_write(AccessAttempt)):
                return view(request, *args)
        except AxesError as error:
            text = _("Nothing was deleted, since the store of the counters could not be reached: %s")
            self.message_user(request, text % error, messages.ERROR)
            return HttpResponseRedirect(request.get_full_path())

    def _reset(self, request: HttpRequest, keys: list[str]) -> None:
        from axes_async.tasks.reset import reset

        by = request.user.get_username()
        for start in range(0, len(keys), PORTION):
            reset(rows=keys[start : start + PORTION], reason=REASON, by=by)


def _is_locked() -> Q:
    """Return the condition that an attempt belongs to a counter that is locked now, as far as the rows know.

    One subquery for each set of parameters that a rule may have, so that each finds its counter by an indexed key.
    """
    locked = AttemptCounter.objects.locked(as_datetime(now_ms()))
    found = Q()
    for bits in range(1, 1 << len(PARAMETERS)):
        keys = {column: OuterRef(of_attempt) for column, of_attempt in counter_columns(bits).items()}
        found |= Q(Exists(locked.filter(parameters=bits, **keys)))
    return found


class AccessLogAdmin(AccessAdmin):
    """Logins and logouts."""

    list_display = ("attempt_time", "logout_time", "ip_address", "shown_username", "shown_agent", "shown_path")
    list_filter = ("attempt_time", "logout_time")
    fieldsets = (
        (None, {"fields": ("shown_username", "ip_address", "attempt_time", "logout_time")}),
        (_("Request"), {"fields": ("shown_path", "shown_agent", "shown_accept", "session_hash")}),
    )


class AccessFailureLogAdmin(AccessAdmin):
    """Failures, and attempts that met a lockout."""

    list_display = (
        "attempt_time",
        "ip_address",
        "shown_username",
        "locked_out",
        "repeats",
        "shown_agent",
        "shown_path",
    )
    list_filter = ("attempt_time", "locked_out")
    fieldsets = (
        (None, {"fields": ("shown_username", "ip_address", "attempt_time", "locked_out", "repeats")}),
        (_("Request"), {"fields": ("shown_path", "shown_agent", "shown_accept")}),
    )


class AccessResetAdmin(ReadOnlyAdmin):
    """Who lifted lockouts, when and why."""

    ordering = ("-reset_time",)
    search_fields = ("username", "ip_address", "by", "reason")
    readonly_fields: ClassVar[tuple[str, ...]] = ("shown_username", "shown_by", "shown_reason")
    list_display = (
        "reset_time",
        "scope",
        "ip_address",
        "shown_username",
        "attempts",
        "counters",
        "shown_by",
        "shown_reason",
    )
    list_filter = ("reset_time", "scope")
    fieldsets = (
        (None, {"fields": ("reset_time", "scope", "shown_username", "ip_address", "attempts", "counters")}),
        (None, {"fields": ("shown_by", "shown_reason")}),
    )
    shown_by = _shown("by", _("by"))
    shown_reason = _shown("reason", _("reason"))


if getattr(django_settings, "AXES_ENABLE_ADMIN", True):  # A value of a wrong type is for the system checks to report.
    admin.site.register(AccessAttempt, AccessAttemptAdmin)
    admin.site.register(AccessLog, AccessLogAdmin)
    admin.site.register(AccessFailureLog, AccessFailureLogAdmin)
    admin.site.register(AccessReset, AccessResetAdmin)
