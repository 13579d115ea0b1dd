"""The attempts in the admin: what counts now. Deleting them is a reset; of however many, in portions."""

from __future__ import annotations

from collections import Counter as Sums
from collections.abc import Callable, Iterable
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.actions import delete_selected
from django.contrib.admin.utils import model_ngettext
from django.contrib.admin.views.main import ChangeList
from django.db import router, transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.utils.html import format_html
from django.utils.translation import gettext_lazy as _

from axes_async.admin.client_history import history_of
from axes_async.admin.columns import SHORT, SHORTER, badge, text_column, time_column, to_the_second
from axes_async.admin.filters import LockedOutFilter, TimeFilter
from axes_async.admin.read_only import ReadOnlyAdmin
from axes_async.errors import AxesError
from axes_async.inspection.attempts import end_of, lockouts_of, name_of
from axes_async.inspection.search import Bounds, Found, Term, find_in_attempts, find_in_log
from axes_async.models import AccessAttempt
from axes_async.tasks.reset import reset

PORTION = 500
"""Attempts that one reset names, and the most that are named before they are deleted."""

REASON = "deleted in the admin"

DELETES = _("Deleting attempts takes their failures back, and ends the lockouts that need them.")


class AccessAdmin(ReadOnlyAdmin):
    """What attempts, logins and failures have in common."""

    ordering = ("-attempt_time",)
    sortable_by = ("shown_time",)  # By no other column does an index lead through the rows.
    search_fields = ("username", "ip_address")
    search_help_text = _(
        "A whole name, the beginning of one and a star (ali*), an IP address, or a network such as 192.0.2.0/24"
    )
    shown_time = time_column("attempt_time", _("attempt time"))
    shown_agent = text_column("user_agent", _("user agent"))
    short_agent = text_column("user_agent", _("user agent"), at_most=SHORT)
    shown_accept = text_column("http_accept", _("HTTP accept"))
    shown_path = text_column("path_info", _("path"))
    short_path = text_column("path_info", _("path"), at_most=SHORTER)

    def search(self, rows: QuerySet[Any], term: Term, bounds: Bounds) -> Found:
        return find_in_log(rows, term, bounds)


class AccessAttemptAdmin(AccessAdmin):
    """The failures that count now. Deleting attempts resets them: every counter gives their failures back."""

    deletable = True
    actions = ("delete_selected",)
    list_display = (
        "shown_time",
        "locked_out",
        "ip_address",
        "short_username",
        "failures_since_start",
        "short_agent",
        "shown_end",
    )
    list_filter = (TimeFilter, LockedOutFilter)
    fieldsets = (
        (None, {"fields": ("shown_username", "ip_address", "failures_since_start", "locked_out")}),
        (_("Times"), {"fields": ("shown_first", "shown_time", "shown_end")}),
        (_("Last request"), {"fields": ("shown_path", "shown_agent", "shown_accept")}),
    )
    shown_first = time_column("first_attempt_time", _("first attempt time"))
    shown_end = time_column("expires_at", _("expires at"))

    def search(self, rows: QuerySet[Any], term: Term, bounds: Bounds) -> Found:
        return find_in_attempts(rows, term, bounds)

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

    def render_change_form(self, request: HttpRequest, context: Any, *args: Any, **kwargs: Any) -> HttpResponse:
        if (attempt := kwargs.get("obj")) is not None:
            context |= {"axes_history": history_of(attempt, request, self.admin_site)}
        return super().render_change_form(request, context, *args, **kwargs)

    def delete_model(self, request: HttpRequest, obj: AccessAttempt) -> None:
        self._reset(request, [obj.key])

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[AccessAttempt]) -> None:
        self._reset(request, list(queryset.values_list("key", flat=True)))

    @admin.action(permissions=["delete"], description=_("Delete selected %(verbose_name_plural)s"))
    def delete_selected(self, request: HttpRequest, queryset: QuerySet[AccessAttempt]) -> HttpResponse | None:
        """Delete as the admin does it; where there are many, in portions, and without naming each of them first."""
        if queryset[PORTION : PORTION + 1]:
            return self._delete_many(request, queryset)
        with transaction.atomic(using=router.db_for_write(AccessAttempt)):
            page: HttpResponse | None = delete_selected(self, request, queryset)
        return page

    def _delete_many(self, request: HttpRequest, queryset: QuerySet[AccessAttempt]) -> HttpResponse | None:
        attempts = queryset.order_by("pk")
        if not request.POST.get("post"):
            is_all = request.POST.get("select_across") == "1"
            context = {
                **self.admin_site.each_context(request),
                "title": _("Delete multiple objects"),
                "subtitle": DELETES,
                "opts": self.opts,
                "number": attempts.count(),
                "is_all": is_all,
                # The admin wants one, also where all are meant.
                "selected": attempts.values_list("pk", flat=True)[: 1 if is_all else None],
                "media": self.media,
            }
            return TemplateResponse(request, "admin/axes_async/accessattempt/delete_many.html", context)
        last = attempts.values_list("pk", flat=True).last()
        gone, after, using = 0, 0, router.db_for_write(AccessAttempt)
        try:
            while some := list(attempts.filter(pk__gt=after, pk__lte=last)[:PORTION]):
                with transaction.atomic(using=using):
                    self.log_deletions(request, some)  # type: ignore[arg-type]
                    self._reset(request, [attempt.key for attempt in some])
                gone, after = gone + len(some), some[-1].pk
        except AxesError as error:
            text = _("The store of the counters could not be reached, so not everything was deleted: %s")
            self.message_user(request, text % error, messages.ERROR)
        if gone:
            done = {"count": gone, "items": model_ngettext(self.opts, gone)}
            self.message_user(request, _("Successfully deleted %(count)d %(items)s.") % done, messages.SUCCESS)
        return None

    def delete_view(self, request: HttpRequest, object_id: str, extra_context: Any = None) -> HttpResponse:
        return self._or_say_why(super().delete_view, request, object_id, extra_context)

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        return self._or_say_why(super().changelist_view, request, extra_context)

    def _or_say_why(self, view: Callable[..., HttpResponse], request: HttpRequest, *args: Any) -> HttpResponse:
        """Say what a deletion does, and where the attempts could not be deleted, say that."""
        try:
            response = view(request, *args)
        except AxesError as error:
            text = _("Nothing was deleted, since the store of the counters could not be reached: %s")
            self.message_user(request, text % error, messages.ERROR)
            return HttpResponseRedirect(request.get_full_path())
        if isinstance(response, TemplateResponse) and "perms_lacking" in (response.context_data or {}):
            response.context_data = {**(response.context_data or {}), "subtitle": DELETES}
        return response

    def _reset(self, request: HttpRequest, keys: list[str]) -> None:
        reset(rows=keys, reason=REASON, by=request.user.get_username())
