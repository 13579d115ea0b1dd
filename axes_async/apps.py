"""The Django app."""

from __future__ import annotations

import sys

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class AxesAsyncConfig(AppConfig):
    name = "axes_async"
    verbose_name = _("Axes")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Connect what has to be there before the first request."""
        from axes_async import metrics, receivers
        from axes_async.checks import database, project, settings  # noqa: F401  (they register themselves)
        from axes_async.stores import factory
        from axes_async.unlock import passwords

        metrics.start()
        factory.note_databases()
        receivers.connect()
        passwords.connect()
        # Settings that take their beat schedule from axes_async.tasks import that package before models can be.
        if tasks := sys.modules.get("axes_async.tasks"):
            tasks.load()
