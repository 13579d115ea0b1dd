"""The page that a person sees who was turned away, where a site has none of its own."""

from __future__ import annotations

from math import ceil
from typing import Any

from django.apps import apps
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, HttpResponse
from django.shortcuts import resolve_url
from django.template import TemplateDoesNotExist
from django.template.loader import get_template
from django.templatetags.static import static
from django.urls import NoReverseMatch, reverse

from axes_async.clock import until_in_words
from axes_async.conf import get_settings

TEMPLATE = "axes_async/locked_out.html"

UNLOCK = "axes_async:unlock"

PASSWORD_RESET = ("password_reset", "account_reset_password", "admin_password_reset")
"""What the page to reset a password is called in the URLs of Django, of allauth and of Django's admin."""


def wants_page(request: HttpRequest) -> bool:
    """Return whether the client names HTML among what it accepts, as browsers do, and likes no text better."""
    accept = request.META.get("HTTP_ACCEPT", "").lower()
    try:
        return "html" in accept and request.get_preferred_type(["text/html", "text/plain"]) == "text/html"
    except ValueError:  # Django 6 does not read headers beyond some length.
        return False


def lockout_page(request: HttpRequest, context: dict[str, Any], status: int) -> HttpResponse | None:
    """Return the page; ``None`` on a site whose template engines do not find it.

    It says nothing of whether an account exists. A site's own page of the same name comes before ours.
    """
    try:
        template = get_template(TEMPLATE)
    except TemplateDoesNotExist:
        return None
    wait = context["retry_after"]
    context = {
        **context,
        **assets(),
        "remaining": None if wait is None else in_words(wait),
        "again_url": request.get_full_path(),
        "unlock_url": url_of(UNLOCK) if get_settings().unlock_by_mail else "",
        "password_reset_url": _password_reset_url(),
    }
    return HttpResponse(template.render(context, request), status=status)


def assets() -> dict[str, str]:
    """Return where the style and the script of our pages are; '' on a site that serves neither: pages do without."""
    return {"style_url": _asset_url("page.css"), "script_url": _asset_url("page.js")}


def in_words(seconds: int) -> str:
    """Return ``seconds``, rounded up to minutes, in Django's own words: "1 hour, 5 minutes"."""
    return until_in_words(ceil(seconds / 60) * 60_000, 0)


def url_of(*names: str) -> str:
    """Return the first of the URLs with these names that the site has, else ''."""
    for name in names:
        try:
            return reverse(name)
        except NoReverseMatch:
            continue
    return ""


def _password_reset_url() -> str:
    own = get_settings().password_reset_url
    if own is None:
        return url_of(*PASSWORD_RESET)
    try:
        return resolve_url(str(own))
    except NoReverseMatch:  # The checks report it; a person who is locked out is not to meet an error.
        return ""


def _asset_url(name: str) -> str:
    """Return where a file of ours is: among the static files, which a policy of the site allows, or at our URLs."""
    if apps.is_installed("django.contrib.staticfiles"):
        try:
            return static(f"axes_async/{name}")
        except (ValueError, ImproperlyConfigured):  # Not collected, or nowhere to be served from.
            pass
    try:
        return reverse("axes_async:asset", args=[name])
    except NoReverseMatch:
        return ""
