"""Figures for Prometheus and OpenTelemetry, as ``AXES_METRICS`` names them. Labels never hold a name or an address.

``site`` reads what is true of the whole site; listeners of ``telemetry`` keep what only a process knows.
"""

from __future__ import annotations

from importlib import import_module

from django.core.exceptions import ImproperlyConfigured

from axes_async.conf import get_settings

BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
"""Seconds: a step takes about 0.5 ms in Redis and 5 ms in a database, and is given up after 0.25 s or so."""


def start() -> None:
    """Have what ``AXES_METRICS`` names be kept from now on; repeating it changes nothing.

    Raises ``ImproperlyConfigured`` where the package for it is not installed.
    """
    for name in get_settings().metrics:
        try:
            module = import_module(f"axes_async.metrics.{name}")
        except ImportError as error:
            raise ImproperlyConfigured(
                f"AXES_METRICS has {name!r}, which needs a package: pip install 'axes_async[{name}]' ({error})."
            ) from error
        module.start()
