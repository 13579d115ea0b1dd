"""What the pages of all our rows have in common: they are looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from django.contrib import admin
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.core.exceptions import BadRequest, ValidationError
from django.core.paginator import Paginator
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext_lazy as _

from axes_async.admin.columns import SHORTER, text_column
from axes_async.admin.lists import BoundedList, BoundedPaginator
from axes_async.client.normalize import storable
from axes_async.inspection.search import Bounds, Found, Term

if TYPE_CHECKING:
    ModelAdmin = admin.ModelAdmin[Any]
else:
    ModelAdmin = admin.ModelAdmin  # Generic only in its type stubs.


class ReadOnlyAdmin(ModelAdmin):
    """Nothing can be added or changed, nor deleted unless ``deletable``.

    ``ordering`` begins with the column of the time.
    """

    deletable = False
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER  # To count each choice of a filter is to read the whole log.
    paginator: ClassVar[type[Paginator[Any]]] = BoundedPaginator
    shown_username = text_column("username", _("username"))
    short_username = text_column("username", _("username"), at_most=SHORTER)

    class Media:
        css: ClassVar = {"all": ["axes_async/admin.css"]}

    def get_object(self, request: HttpRequest, object_id: str, from_field: Any = None) -> Any:
        return super().get_object(request, object_id, from_field) if storable(object_id) else None

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """Show the list, or do an action of it; rows that are chosen by what is no key get 400."""
        for chosen in request.POST.getlist(ACTION_CHECKBOX_NAME):
            try:
                key = self.opts.pk.to_python(chosen)
            except ValidationError as error:
                raise BadRequest("A chosen row has no such key.") from error
            if not storable(str(key)):
                raise BadRequest("A chosen row has no such key.")
        return super().changelist_view(request, extra_context)

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        """Return whether a query may ask for ``lookup``: of the table's columns, for those alone that a filter offers.

        Any other reads the whole table, and a pattern that a stranger has written into a link may take hours.
        """
        fields = {name for field in self.opts.concrete_fields for name in (field.name, field.attname)}
        column = lookup.partition("__")[0]
        offered = [each[0] if isinstance(each, tuple) else each for each in self.list_filter]
        by_field = {each.partition("__")[0] for each in offered if isinstance(each, str)}
        by_class = {getattr(each, "parameter_name", None) for each in offered}
        return column not in {*fields, "pk"} or column in by_field or lookup in by_class

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False  # Only a drain writes rows.

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False  # A record that can be edited proves nothing.

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return self.deletable and super().has_delete_permission(request, obj)  # Rows of a log stay until the purge.

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[BoundedList]:
        return BoundedList

    def get_search_results(self, request: HttpRequest, queryset: Any, search_term: str) -> tuple[Any, bool]:
        return queryset, False  # The list does it, which knows the times asked for.

    def listed(self, rows: QuerySet[Any]) -> QuerySet[Any]:
        """Return those of ``rows`` that the list may show, all of which an index of the time leads to."""
        return rows

    def search(self, rows: QuerySet[Any], term: Term, bounds: Bounds) -> Found:
        """Return how ``term`` is found among ``rows``, which are limited by their time alone."""
        raise NotImplementedError
