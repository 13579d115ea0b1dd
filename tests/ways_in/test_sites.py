"""Sites that need settings of their own: each one's tests run in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests import servers
from tests.ways_in.conftest import HERE, SITES

ROOT = HERE.parent.parent


@pytest.mark.parametrize("site", SITES)
def test_the_site(site: str) -> None:
    """``pytest --ds tests.ways_in.SITE.settings tests/ways_in/SITE`` runs one alone."""
    environment = {**os.environ, "AXES_TEST_DATABASE": "sqlite"}
    environment["AXES_TEST_REDIS_URL"] = servers.valkey_url().removesuffix("/0")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--ds", f"tests.ways_in.{site}.settings", HERE / site],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
