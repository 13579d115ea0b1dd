"""Columns of the admin's lists: strangers' text, times and badges."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from django.contrib import admin
from django.contrib.humanize.templatetags.humanize import ordinal
from django.db.models import Model
from django.utils.html import format_html
from django.utils.timezone import is_aware, localtime
from django.utils.translation import get_language
from django.utils.translation import gettext_lazy as _

from axes_async.clock import as_datetime, now_ms, until_in_words
from axes_async.inspection.standings import Standing
from axes_async.models import AccessFailureLog
from axes_async.text import printable

SHORT, SHORTER = 40, 24
"""Characters of a stranger's text in a list; the whole text is shown on hover, and on the row's own page."""


def text_column(name: str, label: Any, *, at_most: int | None = None) -> Callable[[Any, Model], str | None]:
    """Return a column for the field ``name`` with a stranger's text in it: characters that disguise it are escaped."""

    @admin.display(description=label, ordering=name)
    def shown(self: Any, row: Model) -> str | None:
        value = getattr(row, name)
        if value is None:
            return None
        text = printable(value)
        if at_most is None:
            return text
        shown, title = (text, "") if len(text) <= at_most else (f"{text[: at_most - 1]}…", text)
        return format_html('<span class="axes-short" title="{}">{}</span>', title, shown)

    return shown


def time_column(name: str, label: Any) -> Callable[[Any, Model], str | None]:
    """Return a column for the time ``name``; that of Django's has no seconds, and guesses come by the dozen."""

    @admin.display(description=label, ordering=name)
    def shown(self: Any, row: Model) -> str | None:
        value = getattr(row, name)
        return None if value is None else format_html('<span class="axes-time">{}</span>', to_the_second(value))

    return shown


def to_the_second(moment: datetime, *, short: bool = False) -> str:
    """Return ``moment`` in the site's time zone; ``short``: without the date, if that is today's."""
    local, now = (localtime(time) if is_aware(time) else time for time in (moment, as_datetime(now_ms())))
    return f"{local:%H:%M:%S}" if short and local.date() == now.date() else f"{local:%Y-%m-%d %H:%M:%S}"


def badge(kind: str, text: Any, title: str = "") -> str:
    return format_html('<span class="axes-outcome axes-{}" title="{}">{}</span>', kind, title, text)


def outcome_badge(failure: AccessFailureLog) -> str:
    if failure.repeats:
        number = ordinal(failure.repeats) if (get_language() or "en").startswith("en") else failure.repeats
        return badge("turned-away", f"{_('turned away')} ({number})")
    if failure.locked_out:
        return badge("locked-out", _("locked out"))
    return badge("wrong-password", _("wrong password"))


def until_badge(standing: Standing) -> str:
    if not standing.is_locked:
        return badge("open", _("not locked"))
    if standing.seconds_left is None:
        return badge("locked-out", _("until unlocked"))
    left: Any = _("less than a minute")
    if standing.seconds_left >= 60:
        left = until_in_words(standing.locked_until, standing.at, depth=1)
    return badge("locked-out", left, to_the_second(as_datetime(standing.locked_until)))


def failures_of_limit(standing: Standing) -> str:
    return _("%(failures)s of %(limit)s") % {"failures": standing.failures, "limit": standing.limit}
