"""The matrix: the tests that need no minutes, under every Python and Django that we say we run under.

``make matrix`` runs all of it. A Python that is not installed is skipped, with a message; those of pyenv are found.
"""

from __future__ import annotations

import os
from pathlib import Path

import nox

PYTHONS = ("3.11", "3.12", "3.13", "3.14")
DJANGOS = {"5.2": PYTHONS, "6.0": PYTHONS[1:], "6.1": PYTHONS[1:]}
"""Each Django with the Pythons that it takes."""

SLOW = ("tests/faults", "tests/test_packaging.py", "tests/test_end_to_end.py")
"""Left out: they make processes and environments of their own, and take their minutes."""

nox.options.error_on_missing_interpreters = False
nox.options.default_venv_backend = "venv"
nox.options.reuse_venv = "yes"

pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
os.environ["PATH"] = os.pathsep.join([os.environ["PATH"], *map(str, sorted(pyenv.glob("versions/*/bin")))])


@nox.session
@nox.parametrize(("python", "django"), [(python, django) for django, pythons in DJANGOS.items() for python in pythons])
def tests(session: nox.Session, django: str) -> None:
    """Run the tests on PostgreSQL; what stands behind ``--`` goes to pytest."""
    session.install("--quiet", "--upgrade", "pip>=25.1")
    session.install("--quiet", "--editable", ".", "--group", "test", f"django=={django}.*")
    session.run("python", "-c", "import django, sys; print('Python', sys.version, '- Django', django.__version__)")
    ignored = [f"--ignore={path}" for path in SLOW]
    session.run("python", "-m", "pytest", "-q", "-m", "not long", *ignored, *session.posargs)
