"""The page that says what a login of a name from an address would meet now, and why."""

from __future__ import annotations

from typing import Any

from django import forms
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.translation import gettext_lazy as _

from axes_async.admin.read_only import ReadOnlyAdmin
from axes_async.client.normalize import CANONICAL_LENGTH, canonical_username
from axes_async.conf.networks import parse_address
from axes_async.inspection.explain import explain, own_address
from axes_async.inspection.explanation import standing_words
from axes_async.inspection.standings import Source

SOURCES = {
    Source.STORE: _("As the store has it now."),
    Source.DATABASE: _("As the database has it now, which decides."),
    Source.ROWS: _("As last written: the store could not be asked, and may know more."),
}


class ExplainForm(forms.Form):
    username = forms.CharField(label=_("username"), required=False, max_length=CANONICAL_LENGTH)
    ip = forms.CharField(label=_("IP address"), required=False, max_length=100)

    def asked(self) -> tuple[str | None, str | None]:
        return self.cleaned_data["username"] or None, self.cleaned_data["ip"] or None

    def clean(self) -> dict[str, Any]:
        data = self.cleaned_data
        if data.get("ip") and parse_address(data["ip"]) is None:
            self.add_error("ip", _("This is not an IP address."))
        # A canonicalizer of the site's own may say that a text is no name.
        if canonical_username(data.get("username")) is None and (data.get("username") or not data.get("ip")):
            self.add_error(None, _("Enter a username, an IP address, or both."))
        return data


def explain_page(model_admin: ReadOnlyAdmin, request: HttpRequest) -> HttpResponse:
    """Return the page with its form, and with the answer once the form was filled in.

    :raises PermissionDenied: without the permission to look at lockouts.
    """
    if not model_admin.has_view_permission(request):
        raise PermissionDenied
    form = ExplainForm(request.GET or None)
    seen = explain(*form.asked()) if form.is_valid() else None
    context = {
        **model_admin.admin_site.each_context(request),
        "title": _("Explain"),
        "opts": model_admin.opts,
        "form": form,
        "seen": seen,
        "source": "" if seen is None else SOURCES[seen.source],
        "own_address": _("This page was asked for from %s.") % own_address(request),
        "counters": [
            (one.words, [(label, standing and standing_words(standing)) for label, standing in one.both()])
            for one in (seen.counters if seen else ())
        ],
        "media": model_admin.media,
    }
    return TemplateResponse(request, "admin/axes_async/lockout/explain.html", context)
