"""Where rows go."""

from __future__ import annotations

from typing import Any

from django.db.models import Model


class AttemptsRouter:
    """Sends the models of axes_async to ``attempts``, and nothing else."""

    def db_for_read(self, model: type[Model], **hints: Any) -> str | None:
        """Name the database to read ours from."""
        return "attempts" if model._meta.app_label == "axes_async" else None

    db_for_write = db_for_read

    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool:
        """Have our tables there alone, and no other tables there."""
        return (db == "attempts") == (app_label == "axes_async")
