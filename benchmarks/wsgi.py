"""The site as gunicorn and a Celery worker run it, where servers are broken under it (``faults.py``, ``sync.py``)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

import django
from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "benchmarks.settings")
django.setup()

from django.core.wsgi import get_wsgi_application  # noqa: E402

app = Celery("benchmarks", set_as_current=True)
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()

_django = get_wsgi_application()


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Serve a request as if it came from the address that the load has put into ``X-Client``."""
    environ["REMOTE_ADDR"] = environ.get("HTTP_X_CLIENT", environ.get("REMOTE_ADDR", ""))
    return _django(environ, start_response)  # type: ignore[no-any-return]
