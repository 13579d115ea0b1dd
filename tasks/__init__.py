"""The Celery side: what a worker runs. Installed as ``axes_async.tasks``, and found there by Celery's autodiscovery."""

from importlib import import_module

from django.apps import apps

MODULES = ("drain", "expire", "notify", "purge", "reset", "sync", "unlock_mail", "write_one")


def load() -> None:
    """Import the modules that register tasks; they need the models."""
    for name in MODULES:
        import_module(f"{__name__}.{name}")


if apps.models_ready:
    load()
