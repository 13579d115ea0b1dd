"""What holds for a test run as a whole: its order, and what it says at its end.

Skips of one reason are told on one line, and how much passed on which database.

``python -m tests.summary`` prints what the runs have noted whose ``AXES_TESTED`` named the same file.
"""

from __future__ import annotations

import os
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
from django.conf import settings

TESTED = os.environ.pop("AXES_TESTED", "")
"""A file to which each test run adds a line: passed, failed, database.

It is taken out of the environment: the processes that share the tests among them are part of this run.
"""

DATABASES = {"postgres": "PostgreSQL", "sqlite": "SQLite", "mysql": "MariaDB"}


FIRST = (
    *("test_state_machine.py", "test_site_tests.py", "test_end_to_end.py", "test_packaging.py", "test_sites.py"),
    *("faults", "attacks"),
)
"""Files and folders whose tests take longest; begun last, one process would wait for the other."""


MARKING = ("pytest.mark.database", "tests.stores.places")
"""What a file says that has tests of every database, or the conftest.py beside it: the mark, or where it is from."""


@cache
def marks(file: Path) -> bool:
    """Return whether a file of tests may have some that run on every database."""
    texts = [path.read_text(encoding="utf-8") for path in (file, file.with_name("conftest.py")) if path.is_file()]
    return any(word in text for word in MARKING for text in texts)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out files that have nothing for ``-m database``: each process would import all of them."""
    is_asked_for = config.option.markexpr != "database" or not collection_path.match("test_*.py")
    return None if is_asked_for or marks(collection_path) else True


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest; the order within a file stays.

    An id with an address of memory in it is another one in each process, and the processes could not share the tests.
    """
    unstable = [item.nodeid for item in items if " at 0x" in item.nodeid]
    if unstable:
        raise pytest.UsageError(f"Give the parameters of this test ids of their own: {unstable[0]}")
    if hidden := [item.nodeid for item in items if item.get_closest_marker("database") and not marks(item.path)]:
        raise pytest.UsageError(f"-m database would not find this test, for want of {MARKING}: {hidden[0]}")
    items.sort(key=lambda item: next((at for at, name in enumerate(FIRST) if name in item.path.parts), len(FIRST)))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Tell the skips, and note the figures."""
    stats = terminalreporter.stats
    reasons = Counter(report.longrepr[2].removeprefix("Skipped: ") for report in stats.get("skipped", ()))
    for reason, count in sorted(reasons.items()):
        terminalreporter.write_line(f"{count} skipped: {reason}")
    if TESTED:
        passed, failed = len(stats.get("passed", ())), len(stats.get("failed", ())) + len(stats.get("error", ()))
        Path(TESTED).parent.mkdir(parents=True, exist_ok=True)
        with Path(TESTED).open("a", encoding="utf-8") as file:
            file.write(f"{passed} {failed} {DATABASES[settings.DATABASE]}\n")


def main() -> None:
    """Print what passed on which database."""
    passed: Counter[str] = Counter()
    for line in Path(TESTED).read_text(encoding="utf-8").splitlines():
        count, _, database = line.split()
        passed[database] += int(count)
    print(", ".join(f"{count} passed on {database}" for database, count in passed.items()))


if __name__ == "__main__":
    main()
