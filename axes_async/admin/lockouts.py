"""Lockouts in the admin: what is locked now and what will be soon, why, and a button that unlocks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, cast

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.utils import quote, unquote
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import PermissionDenied
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils.html import format_html
from django.utils.translation import gettext_lazy as _

from axes_async.admin.columns import failures_of_limit, to_the_second, until_badge
from axes_async.admin.explain import SOURCES, explain_page
from axes_async.admin.filters import Choice, Filter, TimeFilter
from axes_async.admin.read_only import ReadOnlyAdmin
from axes_async.client.normalize import ROW_LENGTH
from axes_async.clock import as_datetime
from axes_async.counters.events import parameters_of
from axes_async.errors import AxesError
from axes_async.inspection.search import BOUNDS, Bounds, Found, Term
from axes_async.inspection.standings import (
    Background,
    Source,
    backgrounds,
    kinds_in_force,
    now,
    rule_words,
    standings,
    words_for,
)
from axes_async.models import CounterQuerySet, Lockout
from axes_async.tasks.projection.resets import Scope, counters_in
from axes_async.tasks.reset import reset

PER_PAGE = 50
"""Lockouts on a page: the store is asked about so many in one call."""

MOST_UNLOCKED = 100
"""Lockouts that one request unlocks, each of which takes some milliseconds."""


class ReasonForm(forms.Form):
    reason = forms.CharField(label=_("reason"), max_length=ROW_LENGTH, widget=forms.TextInput(attrs={"size": 60}))


class StateFilter(Filter):
    title = _("state")
    parameter_name = "state"
    bounds = BOUNDS  # Millions may be near their limit, and whether a row is locked, no index knows.

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [("locked", _("locked now")), ("near", _("near the limit"))]

    def choices(self, changelist: Any) -> Iterator[Any]:
        """Return the two: a list of everything that is counted would answer nobody."""
        chosen = self.value() if self.value() == "near" else "locked"
        for value, text in self.lookup_choices:
            query = changelist.get_query_string({self.parameter_name: value})
            yield {"selected": value == chosen, "query_string": query, "display": text}

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        counters, at = cast("CounterQuerySet", queryset), as_datetime(now())
        return counters.near(at) if self.value() == "near" else counters.locked(at).filter(near_limit=True)


class RuleFilter(Filter):
    title = _("rule")
    parameter_name = "rule"

    def offered(self) -> dict[str, Choice]:
        return {
            str(bits): Choice(rule_words(parameters_of(bits)), partial(Q, parameters=bits)) for bits in kinds_in_force()
        }


class LockoutTimeFilter(TimeFilter):
    field = "changed_at"


class LockoutAdmin(ReadOnlyAdmin):
    """Counters that are locked now, or nearly."""

    list_display = (
        "what",
        "until_when",
        "unlock_link",
        "failures_of_limit",
        "turned_away",
        "since_when",
        "behind",
        "last_success",
    )
    list_filter = (StateFilter, RuleFilter, LockoutTimeFilter)
    list_per_page = PER_PAGE
    list_max_show_all = PER_PAGE
    ordering = ("-changed_at",)
    sortable_by = ()
    search_fields = ("username", "ip_address")
    search_help_text = _("A whole username or an IP address")
    actions = ("unlock",)
    fields = (
        "what",
        "failures_of_limit",
        "since_when",
        "until_when",
        "turned_away",
        "open_reservations",
        "behind",
        "last_success",
    )

    def has_unlock_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("axes_async.unlock_lockout")

    def listed(self, rows: QuerySet[Any]) -> QuerySet[Any]:
        return rows.filter(near_limit=True)

    def search(self, rows: QuerySet[Any], term: Term, bounds: Bounds) -> Found:
        """Find by the keys that counters are found by: variants of one name are one, and indexes lead there."""
        scope = Scope(kind="either", username=term.text, ip_address=term.address or None)
        return Found(condition=counters_in(scope), few=True)

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        return super().changelist_view(request, {"title": self.opts.verbose_name_plural, **(extra_context or {})})

    def get_changelist_instance(self, request: HttpRequest) -> ChangeList:
        changes = super().get_changelist_instance(request)
        changes.result_list = list(changes.result_list)
        source = _describe(changes.result_list)
        for row in changes.result_list:
            row.can_be_unlocked = self.has_unlock_permission(request)
        changes.source = SOURCES[source]  # type: ignore[attr-defined]
        return changes

    def get_object(self, request: HttpRequest, object_id: str, from_field: Any = None) -> Any:
        row = super().get_object(request, object_id, from_field)
        if row is not None:
            row.source = SOURCES[_describe([row])]
        return row

    def render_change_form(self, request: HttpRequest, context: Any, *args: Any, **kwargs: Any) -> HttpResponse:
        row = kwargs.get("obj")
        can_unlock = row is not None and row.standing.is_locked and self.has_unlock_permission(request)
        context |= {"title": words_for(row), "subtitle": row.source, "can_unlock": can_unlock} if row else {}
        return super().render_change_form(request, context, *args, **kwargs)

    def get_urls(self) -> list[Any]:
        view = self.admin_site.admin_view
        return [
            path("explain/", view(partial(explain_page, self)), name="axes_async_lockout_explain"),
            path("<path:object_id>/unlock/", view(self.unlock_view), name="axes_async_lockout_unlock"),
            *super().get_urls(),
        ]

    def unlock_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ask for a reason, then unlock one."""
        if not self.has_unlock_permission(request):
            raise PermissionDenied
        row = self.get_object(request, unquote(object_id))
        if row is None:
            self.message_user(request, _("This lockout has ended."), messages.WARNING)
        page = None if row is None else self._unlock(request, [row])
        return page or HttpResponseRedirect(self._url("changelist"))

    @admin.action(description=_("Unlock"), permissions=["unlock"])
    def unlock(self, request: HttpRequest, queryset: QuerySet[Lockout]) -> HttpResponse | None:
        rows = list(queryset[: MOST_UNLOCKED + 1])
        if len(rows) > MOST_UNLOCKED:
            self.message_user(request, _("At most %s can be unlocked at once.") % MOST_UNLOCKED, messages.ERROR)
            return None
        _describe(rows)
        return self._unlock(request, rows)

    def _url(self, view: str, *args: str) -> str:
        return reverse(f"admin:axes_async_lockout_{view}", args=args, current_app=self.admin_site.name)

    def _unlock(self, request: HttpRequest, rows: Sequence[Any]) -> HttpResponse | None:
        """Unlock ``rows`` if the reason is there, and say so; else return the page that asks for it."""
        form = ReasonForm(request.POST if "reason" in request.POST else None)
        if not form.is_valid():
            context = {
                **self.admin_site.each_context(request),
                "title": _("Unlock"),
                "opts": self.opts,
                "rows": [(row.pk, words_for(row), failures_of_limit(row.standing)) for row in rows],
                "reach": _(
                    "Unlocking an address lifts the lockouts of every name from it as well; unlocking a name, those of "
                    "the name from every address."
                ),
                "form": form,
                "is_action": "action" in request.POST,
                "media": self.media,
            }
            return TemplateResponse(request, "admin/axes_async/lockout/unlock.html", context)
        done = []
        try:
            for row in rows:
                reset(counter=row.pk, reason=form.cleaned_data["reason"], by=request.user.get_username())
                done.append(words_for(row))
        except AxesError as error:
            text = _("The store of the counters could not be reached, so not everything was unlocked: %s")
            self.message_user(request, text % error, messages.ERROR)
        if done:
            self.message_user(request, _("Unlocked: %s") % "; ".join(done), messages.SUCCESS)
        return None

    @admin.display(description=_("what is locked"))
    def what(self, row: Any) -> str:
        return words_for(row)

    @admin.display(description=_("failed logins"))
    def failures_of_limit(self, row: Any) -> str:
        return failures_of_limit(row.standing)

    @admin.display(description=_("since"))
    def since_when(self, row: Any) -> str:
        return _time(row.changed_at)

    @admin.display(description=_("locked until"))
    def until_when(self, row: Any) -> str:
        return until_badge(row.standing)

    @admin.display(description=_("turned away"))
    def turned_away(self, row: Any) -> Any:
        return row.standing.seen.blocked if row.standing.decides else self.get_empty_value_display()

    @admin.display(description=_("password checks under way"))
    def open_reservations(self, row: Any) -> Any:
        return row.standing.seen.reservations if row.standing.decides else self.get_empty_value_display()

    @admin.display(description=_("names or addresses behind it"))
    def behind(self, row: Any) -> str:
        background: Background = row.background
        return ", ".join(background.values) + (" …" if background.more else "") or self.get_empty_value_display()

    @admin.display(description=_("last login"))
    def last_success(self, row: Any) -> str:
        last = row.background.last_success
        return self.get_empty_value_display() if last is None else _time(last)

    @admin.display(description="")
    def unlock_link(self, row: Any) -> str:
        if not row.can_be_unlocked or not row.standing.is_locked:
            return ""
        url = self._url("unlock", quote(row.pk))
        return format_html('<a class="axes-unlock" href="{}">{}</a>', url, _("Unlock"))


def _describe(rows: Sequence[Any]) -> Source:
    """Note in each row how it stands and what is behind it; return what says so."""
    source, stand = standings(rows)
    behind: Mapping[str, Background] = backgrounds(rows) if rows else {}
    for row in rows:
        row.standing, row.background = stand[row.pk], behind.get(row.pk, Background())
    return source


def _time(moment: Any) -> str:
    return format_html(
        '<span class="axes-time" title="{}">{}</span>', to_the_second(moment), to_the_second(moment, short=True)
    )
