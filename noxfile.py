"""The matrix: the tests that need no minutes, under every Python and Django that we say we run under.

``make matrix`` runs all of it, ``make test-newest`` the part in which Djangos differ, on the newest one. A Python that
is not installed is skipped, with a message; those of pyenv are found.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import nox

PYTHONS = ("3.11", "3.12", "3.13", "3.14")
DJANGOS = {"5.2": PYTHONS, "6.0": PYTHONS[1:], "6.1": PYTHONS[1:]}
"""Each Django with the Pythons that it takes."""

NEWEST = "6.1"

SLOW = ("tests/faults", "tests/test_packaging.py", "tests/test_end_to_end.py")
"""Left out: they make processes and environments of their own, and take their minutes."""

DIFFERING = ("attacks/test_streams.py", "checks", "login", "management", "notify", "person", "ways_in")
"""Tests of what Django changes most: mails, checks, commands, its ways in, and how it serves a response."""

nox.options.error_on_missing_interpreters = False
nox.options.default_venv_backend = "venv"
nox.options.reuse_venv = "yes"

pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
os.environ["PATH"] = os.pathsep.join([os.environ["PATH"], *map(str, sorted(pyenv.glob("versions/*/bin")))])


def is_at_hand(python: str) -> bool:
    return shutil.which(f"python{python}") is not None


@nox.session
@nox.parametrize(("python", "django"), [(python, django) for django, pythons in DJANGOS.items() for python in pythons])
def tests(session: nox.Session, django: str) -> None:
    """Run the tests on PostgreSQL; what stands behind ``--`` goes to pytest."""
    _install(session, django)
    ignored = [f"--ignore={path}" for path in SLOW]
    session.run("python", "-m", "pytest", "-q", "-m", "not long", *ignored, *session.posargs)


def _install(session: nox.Session, django: str) -> None:
    session.install("--quiet", "--upgrade", "pip>=25.1")
    session.install("--quiet", "--editable", ".", "--group", "test", f"django=={django}.*")
    session.run("python", "-c", "import django, sys; print('Python', sys.version, '- Django', django.__version__)")


@nox.session(python=next(filter(is_at_hand, reversed(DJANGOS[NEWEST])), PYTHONS[-1]))
def newest(session: nox.Session) -> None:
    """Run the tests of what differs, on the newest Django, by the newest Python at hand."""
    _install(session, NEWEST)
    session.run(
        *("python", "-m", "pytest", "-q", "-n", "3", "--dist", "loadfile", "-m", "not long"),
        *[f"tests/{name}" for name in DIFFERING],
        *session.posargs,
    )
