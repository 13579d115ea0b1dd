"""Columns of the admin's lists: strangers' text, times and badges."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from django.contrib import admin
from django.db.models import Model
from django.utils.html import format_html
from django.utils.timezone import is_aware, localtime

from axes_async.clock import as_datetime, now_ms
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
