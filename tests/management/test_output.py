"""Where the commands write: readers that go, disks that are full, terminals that lack a character."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from io import BytesIO, TextIOWrapper
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from tests.management.actions import A, Fail

Drain = Callable[[], int]
DISK = Path("/dev/full")
FULL = "The output cannot be written: No space left on device"

pytestmark = [pytest.mark.django_db]
needs_full = pytest.mark.skipif(not DISK.exists(), reason="Linux alone has a file that is always full.")


def program(lines: int, status: int = 0) -> list[str]:
    """Return what runs a command that writes lines and exits, once something is in its input."""
    text = (
        "import sys, django; from django.conf import settings; settings.configure(); django.setup()\n"
        "from axes_async.management.base import AxesCommand\n"
        "class Command(AxesCommand):\n"
        "    requires_system_checks = []\n"
        "    def handle(self, *args, **options):\n"
        f"        for _ in range({lines}):\n"
        "            self.stdout.write('x' * 100)\n"
        f"        sys.exit({status})\n"
        "sys.stdin.readline()\n"
        "Command().run_from_argv(['manage.py', 'command'])\n"
    )
    return [sys.executable, "-c", text]


def environment(unbuffered: str = "") -> dict[str, str]:
    return {**os.environ, "PYTHONUNBUFFERED": unbuffered}  # What was held back is written once more at the end.


@pytest.mark.parametrize(("lines", "status"), [(1, 0), (5000, 0), (1, 1)])
def test_a_reader_that_has_seen_enough_is_no_error(lines: int, status: int) -> None:
    process = subprocess.Popen(
        program(lines, status),
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    process.stdin.write(b"go\n")
    process.stdin.close()
    assert (process.stderr.read(), process.wait()) == (b"", status)
    process.stderr.close()


@needs_full
@pytest.mark.parametrize(("lines", "unbuffered"), [(1, ""), (5000, ""), (1, "1")])
def test_a_full_disk_is_told_in_one_line(lines: int, unbuffered: str) -> None:
    with DISK.open("wb") as full:
        done = subprocess.run(
            program(lines),
            env=environment(unbuffered),
            input=b"go\n",
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert (done.stderr.decode(), done.returncode) == (f"CommandError: {FULL}\n", 1)


def test_a_closed_output_is_told_in_one_line() -> None:
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *program(1)],
        env=environment(),
        input=b"go\n",
        stderr=subprocess.PIPE,
        check=False,
    )
    assert (done.stderr, done.returncode) == (b"CommandError: There is no output to write to.\n", 1)


@needs_full
@pytest.mark.parametrize(
    "arguments",
    [
        ["axes_dead_letters"],
        ["axes_explain", "alice"],
        ["axes_export"],
        ["axes_export", "--format", "jsonl"],
        ["axes_list_attempts"],
        ["axes_reset"],
        ["axes_reset_logs"],
        ["axes_status"],
    ],
    ids=" ".join,
)
def test_each_command_tells_of_a_full_disk(arguments: list[str], fail: Fail, drain: Drain) -> None:
    fail("alice", A)
    drain()
    full = DISK.open("w")
    with pytest.raises(CommandError, match=FULL):
        call_command(*arguments, stdout=full)
    with pytest.raises(OSError, match="No space left"):
        full.close()


@pytest.mark.parametrize(
    ("encoding", "shown"), [("ascii", r"\xe4\u4f60"), ("latin-1", "ä\\u4f60"), ("utf-8", "ä\u4f60")]
)
def test_a_character_that_the_terminal_lacks_is_escaped(fail: Fail, drain: Drain, encoding: str, shown: str) -> None:
    fail("ä\u4f60", A, 1)
    drain()
    terminal = TextIOWrapper(written := BytesIO(), encoding)
    call_command("axes_list_attempts", stdout=terminal)
    assert written.getvalue().decode(encoding) == f"{A}\t{shown}\t1\t-\n"
