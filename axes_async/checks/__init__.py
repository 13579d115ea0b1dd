"""System checks: what is missing, in the wrong order, or has no effect, with a hint at how to mend it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from django.core import checks
from django.core.checks import CheckMessage, Tags
from django.core.exceptions import ImproperlyConfigured

from axes_async.conf import get_settings

Warnings = Iterator[CheckMessage]


def warning(number: int, told: str, hint: str) -> CheckMessage:
    return checks.Warning(told, hint=hint, id=f"axes_async.W{number:03}")


def check(*tags: str, **options: Any) -> Callable[[Callable[..., Warnings]], Any]:
    """Register what looks for faults in the settings in force: while they can be read, and are on.

    With the tag of databases, it also gets the aliases that are to be looked at. It has this tag alone: from Django 6.1
    on, a check whose other tag is asked for is given all databases, whether or not there is one to ask.
    """
    of_databases = Tags.database in tags

    def register(find: Callable[..., Warnings]) -> Any:
        def run(app_configs: object, databases: Sequence[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
            try:
                settings = get_settings()
            except ImproperlyConfigured:
                return []  # ``check_settings`` reports it.
            asked = [databases or ()] if of_databases else []
            return list(find(settings, *asked)) if settings.enabled else []

        own = () if of_databases else ("axes_async",)
        return checks.register(run, *own, *tags, **options)

    return register
