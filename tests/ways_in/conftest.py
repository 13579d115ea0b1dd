"""Sites with settings of their own are left to the processes that ``test_sites`` starts for them."""

from __future__ import annotations

from pathlib import Path

from django.conf import settings

HERE = Path(__file__).parent
SITES = sorted(path.parent.name for path in HERE.glob("*/settings.py"))


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Collect a site's folder only under its own settings."""
    if collection_path.parent == HERE and collection_path.name in SITES:
        return f"tests.ways_in.{collection_path.name}.settings" != settings.SETTINGS_MODULE
    return None
