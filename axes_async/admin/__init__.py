"""The rows in Django's admin: to look at, to search, and to lift a lockout by deleting its attempts."""

from __future__ import annotations

from collections import Counter as Sums
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import Any, ClassVar

from django.conf import settings as django_settings
from django.contrib import admin, messages
from django.contrib.admin.views.main import ChangeList
from django.contrib.humanize.templatetags.humanize import ordinal
from django.core.paginator import Paginator
from django.db import router, transaction
from django.db.models import Model, Q, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.utils.html import format_html
from django.utils.translation import get_language
from django.utils.translation import gettext_lazy as _

from axes_async.admin.columns import SHORT, SHORTER, badge, text_column, time_column, to_the_second
from axes_async.admin.lockouts import LockoutAdmin
from axes_async.admin.read_only import ReadOnlyAdmin
from axes_async.dashboard.page import DashboardAdmin
from axes_async.errors import AxesError
from axes_async.inspection.attempts import end_of, is_locked, lockouts_of, name_of
from axes_async.models import AccessAttempt, AccessFailureLog, AccessLog, AccessReset, Lockout
from axes_async.models.rollups import Dashboard

PORTION = 500
"""Attempts that one reset names."""

REASON = "deleted in the admin"


class AccessAdmin(ReadOnlyAdmin):
    """What attempts, logins and failures have in common."""

    ordering = ("-attempt_time",)
    search_fields = ("username", "ip_address", "user_agent", "path_info")
    shown_time = time_column("attempt_time", _("attempt time"))
    shown_agent = text_column("user_agent", _("user agent"))
    short_agent = text_column("user_agent", _("user agent"), at_most=SHORT)
    shown_accept = text_column("http_accept", _("HTTP accept"))
    shown_path = text_column("path_info", _("path"))
    short_path = text_column("path_info", _("path"), at_most=SHORTER)

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> Any:
        return [field for _label, options in self.fieldsets or () for field in options["fields"]]


class LockedOutFilter(admin.SimpleListFilter):
    """Attempts of clients that are locked out now, or the others."""

    title = _("locked out")
    parameter_name = "locked_out"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [("yes", _("Yes")), ("no", _("No"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        wanted = self.value()
        if wanted not in {"yes", "no"}:
            return queryset
        return queryset.filter(is_locked() if wanted == "yes" else ~is_locked())


class AccessAttemptAdmin(AccessAdmin):
    """The failures that count now. Deleting attempts resets them: every counter gives their failures back."""

    deletable = True
    paginator: ClassVar[type[Paginator[Any]]] = Paginator  # "Select all" must mean all.
    list_display = (
        "shown_time",
        "locked_out",
        "ip_address",
        "short_username",
        "failures_since_start",
        "short_agent",
        "shown_end",
    )
    list_filter = (LockedOutFilter, "attempt_time")
    fieldsets = (
        (None, {"fields": ("shown_username", "ip_address", "failures_since_start", "locked_out")}),
        (_("Times"), {"fields": ("shown_first", "shown_time", "shown_end")}),
        (_("Last request"), {"fields": ("shown_path", "shown_agent", "shown_accept")}),
    )
    shown_first = time_column("first_attempt_time", _("first attempt time"))
    shown_end = time_column("expires_at", _("expires at"))

    def get_changelist_instance(self, request: HttpRequest) -> ChangeList:
        """Look for the lockouts of a page in one query."""
        changes = super().get_changelist_instance(request)
        found = lockouts_of(changes.result_list)
        for attempt in changes.result_list:
            attempt.lockouts = found[attempt.key]
        return changes

    @admin.display(description=_("locked out"))
    def locked_out(self, attempt: Any) -> str | None:
        """Return until when, if a counter of this client is locked, whoever else's failures it counts too."""
        listed = hasattr(attempt, "lockouts")
        lockouts = attempt.lockouts if listed else lockouts_of([attempt])[attempt.key]
        if not lockouts:
            return None
        end, names = end_of(lockouts), "; ".join(map(name_of, lockouts))
        text = _("until a reset") if end is None else _("until %s") % to_the_second(end, short=True)
        return badge("locked-out", text, names) if listed else format_html("{} {}", badge("locked-out", text), names)

    def get_deleted_objects(self, objs: Iterable[Any], request: HttpRequest) -> tuple[Any, ...]:
        """Tell of each attempt the lockouts that its deletion ends, and those that others' failures keep up."""
        objs = list(objs)
        _links, counts, perms_needed, protected = super().get_deleted_objects(objs, request)
        lockouts, gone, ended = lockouts_of(objs), Sums[str](), set()
        for attempt in objs:
            gone.update({counter.digest: attempt.failures_since_start for counter in lockouts[attempt.key]})
        told: list[Any] = []
        for attempt in objs:
            failures = f"{_('failed logins')}: {attempt.failures_since_start}"
            told += [f"{attempt.shown_name} @ {attempt.ip_address}, {failures}", []]
            for counter in lockouts[attempt.key]:
                ends = counter.failures - gone[counter.digest] < counter.limit
                ended |= {counter.digest} if ends else set()
                text = _("unlocks: %s") if ends else _("stays locked, by failures of others: %s")
                told[-1].append(text % name_of(counter))
        return told, {**counts, _("lockouts that end"): len(ended)}, perms_needed, protected

    def delete_model(self, request: HttpRequest, obj: AccessAttempt) -> None:
        self._reset(request, [obj.key])

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[AccessAttempt]) -> None:
        self._reset(request, list(queryset.values_list("key", flat=True)))

    def delete_view(self, request: HttpRequest, object_id: str, extra_context: Any = None) -> HttpResponse:
        return self._or_say_why(super().delete_view, request, object_id, extra_context)

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        return self._or_say_why(super().changelist_view, request, extra_context)

    def _or_say_why(self, view: Callable[..., HttpResponse], request: HttpRequest, *args: Any) -> HttpResponse:
        """Roll the admin's own log entry back if the attempts could not be deleted; say what a deletion does."""
        using = router.db_for_write(AccessAttempt)
        try:
            with transaction.atomic(using=using) if request.method == "POST" else nullcontext():
                response = view(request, *args)
        except AxesError as error:
            text = _("Nothing was deleted, since the store of the counters could not be reached: %s")
            self.message_user(request, text % error, messages.ERROR)
            return HttpResponseRedirect(request.get_full_path())
        if isinstance(response, TemplateResponse) and "perms_lacking" in (response.context_data or {}):
            text = _("Deleting attempts takes their failures back, and ends the lockouts that need them.")
            response.context_data = {**(response.context_data or {}), "subtitle": text}
        return response

    def _reset(self, request: HttpRequest, keys: list[str]) -> None:
        from axes_async.tasks.reset import reset

        by = request.user.get_username()
        for start in range(0, len(keys), PORTION):
            reset(rows=keys[start : start + PORTION], reason=REASON, by=by)


class AccessLogAdmin(AccessAdmin):
    """Logins and logouts."""

    list_display = ("shown_time", "ip_address", "short_username", "shown_logout", "short_path", "short_agent")
    list_filter = ("attempt_time", "logout_time")
    fieldsets = (
        (None, {"fields": ("shown_username", "ip_address", "shown_time", "shown_logout")}),
        (_("Request"), {"fields": ("shown_path", "shown_agent", "shown_accept", "session_hash")}),
    )
    shown_logout = time_column("logout_time", _("logout time"))


class OutcomeFilter(admin.SimpleListFilter):
    title = _("outcome")
    parameter_name = "outcome"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [("wrong", _("wrong password")), ("locked", _("locked out")), ("away", _("turned away"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        found = {
            "wrong": Q(locked_out=False),
            "locked": Q(locked_out=True, repeats=0),
            "away": Q(repeats__gt=0),
        }
        return queryset.filter(found.get(self.value() or "", Q()))


class AccessFailureLogAdmin(AccessAdmin):
    """Failures, and attempts that met a lockout."""

    list_display = ("shown_time", "outcome", "ip_address", "short_username", "short_path", "short_agent")
    list_filter = (OutcomeFilter, "attempt_time")
    fieldsets = (
        (None, {"fields": ("shown_username", "ip_address", "shown_time", "outcome")}),
        (_("Request"), {"fields": ("shown_path", "shown_agent", "shown_accept")}),
    )

    @admin.display(description=_("outcome"))
    def outcome(self, failure: AccessFailureLog) -> str:
        if failure.repeats:
            number = ordinal(failure.repeats) if (get_language() or "en").startswith("en") else failure.repeats
            return badge("turned-away", f"{_('turned away')} ({number})")
        if failure.locked_out:
            return badge("locked-out", _("locked out"))
        return badge("wrong-password", _("wrong password"))


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
    list_filter = ("reset_time", "scope")
    readonly_fields: ClassVar = ("shown_time", "shown_username", "shown_by", "shown_reason")
    fieldsets = (
        (None, {"fields": ("shown_time", "scope", "shown_username", "ip_address", "attempts", "counters")}),
        (None, {"fields": ("shown_by", "shown_reason")}),
    )
    shown_time = time_column("reset_time", _("reset time"))
    shown_by = text_column("by", _("by"))
    shown_reason = text_column("reason", _("reason"))
    short_reason = text_column("reason", _("reason"), at_most=SHORT)


if getattr(django_settings, "AXES_ENABLE_ADMIN", True):  # A value of a wrong type is for the system checks to report.
    admin.site.register(AccessAttempt, AccessAttemptAdmin)
    admin.site.register(AccessLog, AccessLogAdmin)
    admin.site.register(AccessFailureLog, AccessFailureLogAdmin)
    admin.site.register(AccessReset, AccessResetAdmin)
    admin.site.register(Dashboard, DashboardAdmin)
    admin.site.register(Lockout, LockoutAdmin)
