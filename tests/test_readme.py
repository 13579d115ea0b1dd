"""The README does what it says: each snippet is run, and its quick start makes a site of a new project."""

from __future__ import annotations

import ast
import os
import re
import shlex
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import redis
import requests
from django.core.management import get_commands

from tests import servers
from tests.packages import ROOT, build, run
from tests.waiting import PATIENCE, until

README = (ROOT / "README.md").read_text(encoding="utf-8")


class Snippet(NamedTuple):
    """A block of code, and the text before it."""

    language: str
    """``""`` for an indented block."""
    code: str
    before: str

    @property
    def file(self) -> str:
        """The file of the project that the text before it names, if it does."""
        named = re.search(r"`(\w+/\w+\.py)`$", self.before.rstrip())
        return named[1] if named else ""

    @property
    def is_settings(self) -> bool:
        """Whether it sets nothing but settings."""
        parts = ast.parse(self.code).body if self.language == "python" and not self.file else []
        others = [part for part in parts if not isinstance(part, ast.Import | ast.ImportFrom)]
        names = [ast.unparse(part.targets[0]) for part in others if isinstance(part, ast.Assign)]
        return bool(names) and len(names) == len(others) and all(name.isupper() for name in names)


def snippets() -> Iterator[Snippet]:
    blocks = r"^```(\w+)\n(.*?)^```$|(?<=\n\n)((?:    [^\n]*\n|\n(?=    ))+)"
    for found in re.finditer(blocks, README, re.MULTILINE | re.DOTALL):
        language, fenced, indented = found.groups()
        code = fenced or re.sub(r"^    ", "", indented, flags=re.MULTILINE)
        yield Snippet(language or "", code, README[: found.start()])


ALL = list(snippets())
PYTHON = [one for one in ALL if one.language == "python"]
SETTINGS = [one for one in PYTHON if one.is_settings]
FILES = {one.file: one.code for one in PYTHON if one.file}
CODE = [one for one in PYTHON if not one.is_settings and not one.file]
SHELL = [line for one in ALL if not one.language for line in one.code.splitlines()]
QUOTED = re.findall(r"`(?:python manage\.py )?((?:axes_|check)[a-z_]*(?: [^`]+)?)`", README)
COMMANDS = [line for line in QUOTED if line.split()[0] in get_commands()]
"""What the text has one run with ``manage.py``."""


def test_snippets_are_those_that_these_tests_run() -> None:
    assert {one.language for one in ALL} == {"", "python"}
    assert [one.code.split("\n", 1)[0] for one in CODE] == [
        "from axes_async import guard",
        "from axes_async.signals import user_locked_out, user_unlocked",
    ]
    assert list(FILES) == ["mysite/celery.py", "mysite/__init__.py"]
    assert len(SETTINGS) == 4
    assert len(COMMANDS) >= 8


def test_targets_and_commands_of_the_checkout_are_there() -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    named = re.findall(r"\bmake ([a-z-]+)(?: [A-Z]+=\S+)?`", README)
    assert {*named, *[line.split()[1] for line in SHELL if line.startswith("make ")]} <= {*targets}
    lines = [line.split() for line in SHELL if line.startswith(".venv/bin/python ")]
    assert [words[1] for words in lines] == ["example_project/manage.py"] * 2
    for words in lines:
        assert words[2] in get_commands() or (ROOT / f"example_project/management/commands/{words[2]}.py").is_file()


@pytest.mark.parametrize("snippet", CODE, ids=lambda snippet: snippet.code.split("\n", 1)[0])
def test_code_runs(snippet: Snippet) -> None:
    exec(compile(snippet.code, "README.md", "exec"), {})  # noqa: S102


class Site:
    """A new project that followed the README, with nothing of this checkout but the wheel."""

    def __init__(self, folder: Path, wheel: Path) -> None:
        self.folder, self.running = folder, dict[Path, subprocess.Popen[bytes]]()
        run(sys.executable, "-m", "venv", "--without-pip", folder / "venv", folder=folder)
        self.python = folder / "venv" / "bin" / "python"
        pip = (sys.executable, "-m", "pip", "--python", self.python, "install", "--quiet", "--no-compile")
        run(*pip, "--no-index", "--no-deps", wheel, folder=folder)
        # What the package depends on is taken from here: no index is needed.
        (ours,) = (folder / "venv").glob("lib/*/site-packages")
        (ours / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
        run(self.python, "-m", "django", "startproject", "mysite", folder, folder=folder)
        for name, code in FILES.items():
            (folder / name).write_text(code)
        self.settings("settings", SETTINGS[0], SETTINGS[1])

    def settings(self, module: str, *snippets: Snippet) -> None:
        """Write settings: "# ..." in a list stands for what it has, and the servers are those of the tests."""
        code = "\n".join(snippet.code for snippet in snippets)
        code = re.sub(r"^(\w+) = \[\n    # \.\.\.\n", r"\1 = [\n    *\1,\n", code, flags=re.MULTILINE)
        for database in (0, 1):
            code = code.replace(f"redis://127.0.0.1:6379/{database}", servers.valkey_url(2 + database))
        file = self.folder / "mysite" / f"{module}.py"
        file.write_text((file.read_text() if file.exists() else "from mysite.settings import *\n") + code)

    def words(self, line: str) -> list[str]:
        """Return a command of the README with the environment's own programs."""
        program, *arguments = shlex.split(line)
        return [*{"python": [str(self.python)], "celery": [str(self.python), "-m", "celery"]}[program], *arguments]

    def shell(self, line: str, **environment: str) -> str:
        return run(*self.words(line), folder=self.folder, **environment)

    def start(self, line: str) -> Path:
        """Start a command that goes on; return the file that it prints to."""
        printed = self.folder / f"printed-{len(self.running)}"
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("DJANGO", "AXES"))}
        with printed.open("wb") as file:
            self.running[printed] = subprocess.Popen(
                self.words(line),
                cwd=self.folder,
                env=inherited | {"PYTHONUNBUFFERED": "1"},
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        return printed

    def stop(self) -> None:
        for process in self.running.values():
            process.terminate()
        for printed, process in self.running.items():
            process.wait(timeout=PATIENCE)
            print(process.args, printed.read_text(), sep="\n")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """Return the site, with tables, and nothing in its Valkey."""
    for database in (2, 3):
        with redis.Redis.from_url(servers.valkey_url(database)) as client:
            client.flushdb()
    (tmp_path / "built").mkdir()
    site = Site(tmp_path, build(tmp_path / "built"))
    yield site
    site.stop()


def visitor(url: str) -> Callable[[str], int]:
    """Return a function that tries a password on the login page of the admin, as a browser does."""
    session = requests.Session()
    session.trust_env = False

    def enter(password: str) -> int:
        session.get(f"{url}admin/login/", timeout=PATIENCE)
        token = session.cookies["csrftoken"]
        fields = {"username": "root", "password": password, "csrfmiddlewaretoken": token}
        answer = session.post(f"{url}admin/login/", data=fields, timeout=PATIENCE, allow_redirects=False)
        return answer.status_code

    return enter


@pytest.mark.long
def test_quick_start_word_for_word(site: Site) -> None:
    first, *background = [line for line in SHELL if line.startswith(("python manage.py", "celery "))]
    site.shell(first)
    assert "no issues" in site.shell("python manage.py check")
    site.shell("python manage.py createsuperuser --noinput --username root --email root@example.com",
               DJANGO_SUPERUSER_PASSWORD="right")  # fmt: skip
    for line in background:
        site.start(line)
    printed = site.start("python manage.py runserver --noreload 127.0.0.1:0")
    started = until(lambda: re.search(r"server at (http://127\.0\.0\.1:\d+/)", printed.read_text()), what="it listens")
    assert started is not None
    enter = visitor(started[1])

    assert [enter("wrong") for _ in range(5)] == [200, 200, 200, 200, 429]
    assert enter("right") == 429
    attempts = until(lambda: site.shell("python manage.py axes_list_attempts"), what="a worker writes the rows")
    assert attempts.startswith("127.0.0.1\troot\t5\tuntil ")
    assert site.shell("python manage.py axes_reset").strip() == "1 attempts removed."
    assert enter("right") == 302

    for line in dict.fromkeys(COMMANDS):
        site.shell(f"python manage.py {line}")
    for place, snippet in enumerate(SETTINGS[2:]):
        site.settings(f"other{place}", snippet)
        assert "no issues" in site.shell(f"python manage.py check --settings mysite.other{place}")
