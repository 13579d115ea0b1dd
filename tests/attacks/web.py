"""The password check of the attacked site, which web servers load by its settings."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.auth.backends import BaseBackend
from django.http import HttpRequest

from tests import celery as _celery  # noqa: F401  (the app that messages go through)

FOLDER = Path(os.environ["AXES_FAULTS_FOLDER"])


class NotingBackend(BaseBackend):
    """Finds every password wrong, without a database, after the time that a hasher takes; notes it in a file."""

    def authenticate(self, request: HttpRequest | None, username: Any = None, password: Any = None) -> None:
        assert request is not None
        note = f"wrong {request.META['HTTP_X_FORWARDED_FOR']} {username}\n"
        with (FOLDER / f"seen-{os.getpid()}").open("a") as file:
            file.write(note)
        time.sleep(settings.HASHER_SECONDS)
