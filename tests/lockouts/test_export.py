"""The record as files: every row once, in order, in UTC, and nothing that a spreadsheet would run."""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
import resource
import sys
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unicodedata import normalize
from uuid import uuid4

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection
from django.test import override_settings

from axes_async.inspection import export
from axes_async.models import AccessFailureLog, AccessLog
from axes_async.utils import reset
from tests.actions import failure, success

Drain = Callable[[], int]
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)

pytestmark = [pytest.mark.django_db, pytest.mark.database]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def run(*arguments: str, **streams: Any) -> str:
    out = io.StringIO()
    call_command("axes_export", *arguments, stdout=out, **streams)
    return out.getvalue()


def lines(*arguments: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run(*arguments).splitlines()]


def log_failures(number: int, *, at: datetime = NOON, step: timedelta = timedelta(), **values: Any) -> None:
    rows = [
        AccessFailureLog(event_id=uuid4(), attempt_time=at + place * step, username=f"user {place}", **values)
        for place in range(number)
    ]
    AccessFailureLog.objects.bulk_create(rows, batch_size=500)


@pytest.fixture
def record(drain: Drain) -> None:
    """Record a login, three failures of which the last locks, one attempt turned away, and an unlock."""
    success("alice")
    for _ in range(4):
        failure("alice")
    drain()
    reset(ip="192.0.2.1", reason="phoned", by="root")


def test_each_kind_is_told_with_what_it_has(record: None) -> None:
    rows = lines("--format", "jsonl")
    assert [row["kind"] for row in rows] == ["failures"] * 4 + ["logins", "unlocks"]
    assert [row["outcome"] for row in rows[:4]] == ["failed", "failed", "locked", "turned away"]
    assert (rows[3]["turned_away"], rows[4]["username"], rows[4]["logout_time"]) == (1, "alice", None)
    assert (rows[5]["by"], rows[5]["reason"], rows[5]["ip_address"]) == ("root", "phoned", "192.0.2.1")


def test_kinds_are_chosen(record: None) -> None:
    assert [row["kind"] for row in lines("--format", "jsonl", "--kind", "unlocks", "logins")] == ["unlocks", "logins"]


def test_csv_has_one_header_and_a_cell_for_each_column(record: None) -> None:
    rows = list(csv.DictReader(io.StringIO(run())))
    assert tuple(rows[0]) == export.COLUMNS
    assert [(row["kind"], row["outcome"], row["by"]) for row in rows[3:]] == [
        ("failures", "turned away", ""),
        ("logins", "", ""),
        ("unlocks", "", "root"),
    ]


def test_csv_of_nothing_is_a_header_and_no_line_of_json() -> None:
    assert run() == ",".join(f'"{name}"' for name in export.COLUMNS) + "\r\n"
    assert run("--format", "jsonl") == ""


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)", " =1", "＝1", '=cmd|" /C calc"!A0'])
def test_no_cell_is_a_formula(name: str) -> None:
    AccessFailureLog.objects.create(username=name, user_agent='a, "quoted" agent', attempt_time=NOON)
    (row,) = csv.DictReader(io.StringIO(run("--kind", "failures"), newline=""))
    assert row["username"] == f"'{name}"
    assert row["user_agent"] == 'a, "quoted" agent'
    assert lines("--format", "jsonl", "--kind", "failures")[0]["username"] == name


def names_in_csv(*names: str) -> list[str]:
    lines = "".join(export.as_csv({"username": name} for name in names))
    return [row["username"] for row in csv.DictReader(io.StringIO(lines, newline=""))]


def cells_by_csv(line: str, separator: str) -> list[str]:
    """Return cells as a program sees them that takes a quote at the beginning of a cell for one."""
    (cells,) = csv.reader([line], delimiter=separator)
    return cells


def cells_between_quotes(line: str, separator: str) -> list[str]:
    """Return cells as a program sees them to which any quote begins or ends a part in which nothing separates."""
    parts = line.split('"')
    parts[1::2] = [part.replace(separator, "\0") for part in parts[1::2]]
    return [cell.replace("\0", separator) for cell in "".join(parts).split(separator)]


def cells_without_quotes(line: str, separator: str) -> list[str]:
    """Return cells as a program sees them to which a quote is a character, or is dropped at either end of a cell."""
    cells = line.split(separator)
    return [*cells, *(cell.strip('" ') for cell in cells)]


def begins_a_formula(cell: str) -> bool:
    """Return whether ``cell`` does, once what shows nothing is dropped in front, and what is like ASCII is ASCII."""
    sign = re.sub(r"^[\s\u034f\u115f\u1160\u200b\u2800\u3164\ufe0f\ufeff\uffa0]+", "", cell)[:1]
    return normalize("NFKC", sign)[:1] in {"=", "+", "-", "@", "\N{MINUS SIGN}"}


BEFORE = [
    "",
    "ua;",
    "ua,",
    "ua|",
    "ua\t",
    'ua"',
    'ua;"',
    'ua";"',
    'ua;""',
    '";',
    '",',
    "ua; ",
    "ua;;",
    ";,",
    "; \t",
    '" "',
]
INVISIBLE = [
    "",
    " ",
    "\u00a0",
    "\u3000",
    "\u200b",
    "\ufeff",
    "\u3164",
    "\u115f",
    "\uffa0",
    "\u2800",
    "\ufe0f",
    "\u034f",
]


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("cells", [cells_by_csv, cells_between_quotes, cells_without_quotes])
def test_no_spreadsheet_finds_a_formula(cells: Callable[[str, str], list[str]], separator: str) -> None:
    for before, unseen, sign in itertools.product(BEFORE, INVISIBLE, "=+-@＝﹣"):
        text = f"{before}{unseen}{sign}1+1;"
        for row in ({"username": text}, {"username": "a;", "user_agent": text, "reason": f'{text}"'}):
            line = "".join(export.as_csv([row])).splitlines()[1]
            assert not [cell for cell in cells(line, separator) if begins_a_formula(cell)], line


def test_whatever_is_normalised_to_a_formula_is_none() -> None:
    signs = [sign for sign in map(chr, range(sys.maxunicode + 1)) if begins_a_formula(sign)]
    assert {"=", "\N{FULLWIDTH EQUALS SIGN}", "\N{SMALL COMMERCIAL AT}"} <= set(signs)
    assert names_in_csv(*signs) == [f"'{sign}" for sign in signs]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ('alice;=HYPERLINK("x";"y")', 'alice;\'=HYPERLINK("x";"y")'),
        ('a";"=1', 'a";"\'=1'),
        ("a; -b, +c", "a;' -b,' +c"),
    ],
)
def test_an_apostrophe_stands_where_a_formula_would_begin(text: str, shown: str) -> None:
    assert names_in_csv(text) == [shown]


@pytest.mark.parametrize(
    "text",
    [
        "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
        "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
        "anne-marie+test@example.com",
        "张三@example.com",
        "/a/?b=c;d=e",
        "'=1",
        "O'Neill - 5",
    ],
)
def test_what_begins_no_formula_stays_as_it_is(text: str) -> None:
    assert names_in_csv(text) == [text]


@pytest.mark.parametrize(
    ("name", "shown"),
    [("\t=1", "\\t=1"), ("\r=1", "\\r=1"), ("a\nb", "a\\nb"), ("\x1b[2J", "\\x1b[2J"), ("a\u202eb", "a\\u202eb")],
)
def test_no_cell_drives_a_terminal_or_turns_its_line(name: str, shown: str) -> None:
    AccessFailureLog.objects.create(username=name, attempt_time=NOON)
    (row,) = csv.DictReader(io.StringIO(run("--kind", "failures"), newline=""))
    assert row["username"] == shown
    assert lines("--format", "jsonl", "--kind", "failures")[0]["username"] == name


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ((), [0, 1, 2, 3]),
        (("--from", "2026-03-02"), [2, 3]),
        (("--to", "2026-03-02"), [0, 1]),
        (("--from", "2026-03-01T22:00:01Z", "--to", "2026-03-02T01:00:00+02:00"), []),
        (("--from", "2026-03-01T23:00:00+01:00", "--to", "2026-03-02T08:00:01"), [1, 2]),
    ],
    ids=str,
)
def test_the_time_runs_from_to_before_in_utc(arguments: tuple[str, ...], found: list[int]) -> None:
    log_failures(4, at=NOON, step=timedelta(hours=10))
    rows = lines("--format", "jsonl", *arguments)
    assert [row["username"] for row in rows] == [f"user {place}" for place in found]
    assert all(row["time"].endswith("Z") for row in rows)


@override_settings(TIME_ZONE="America/Chicago")
def test_times_are_in_utc_wherever_the_site_is() -> None:
    log_failures(1)
    assert lines("--format", "jsonl")[0]["time"] == "2026-03-01T12:00:00.000Z"


def test_every_row_comes_once_also_at_one_and_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "PORTION", 3)
    log_failures(7)
    log_failures(6, at=NOON + timedelta(seconds=1), step=timedelta(seconds=1))
    ids = [row["id"] for row in lines("--format", "jsonl")]
    assert len(ids) == len(set(ids)) == 13


def test_memory_does_not_grow_with_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "PORTION", 100)

    def peak() -> int:
        tracemalloc.start()
        for _ in export.as_csv(export.records("failures", None, None)):
            pass
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    log_failures(200)
    peak()
    few = peak()
    log_failures(4000, at=NOON + timedelta(hours=1))
    assert peak() < 2 * few


def test_ecs_has_the_fields_of_the_schema(record: None) -> None:
    failed, *_, login, unlock = lines("--format", "ecs")
    assert failed["event"]["action"] == "authn_login_fail"
    assert (failed["event"]["category"], failed["event"]["outcome"]) == (["authentication"], "failure")
    assert (failed["user"], failed["source"]["ip"]) == ({"name": "alice"}, "192.0.2.1")
    assert failed["ecs"] == {"version": "8.11.0"}
    assert failed["@timestamp"].endswith("Z")
    assert (login["event"]["type"], login["event"]["outcome"]) == (["start"], "success")
    assert (unlock["user"]["name"], unlock["event"]["reason"]) == ("root", "phoned")


def test_ocsf_has_what_its_classes_require(record: None) -> None:
    rows = lines("--format", "ocsf")
    required = {"activity_id", "category_uid", "class_uid", "metadata", "severity_id", "time", "type_uid", "user"}
    assert all(required <= row.keys() and row["user"]["name"] for row in rows)
    assert all(row["type_uid"] == row["class_uid"] * 100 + row["activity_id"] for row in rows)
    assert [(row["class_uid"], row["status_id"]) for row in rows] == [(3002, 2)] * 4 + [(3002, 1), (3001, 1)]
    assert all("service" in row for row in rows if row["class_uid"] == 3002)
    login = AccessLog.objects.get()
    assert abs(rows[4]["time"] - login.attempt_time.timestamp() * 1000) < 1


def test_a_row_without_name_and_address_has_no_empty_field() -> None:
    AccessFailureLog.objects.create(username=None, ip_address=None, attempt_time=NOON)
    (row,) = lines("--format", "ecs")
    assert not {"user", "source", "url", "user_agent"} & row.keys()


def test_a_terminal_sees_how_far_it_is_and_a_file_does_not() -> None:
    log_failures(3)
    terminal = Terminal()
    run("--kind", "failures", stderr=terminal)
    assert "failures  [##############################] 3" in terminal.getvalue()
    silent = io.StringIO()
    run(stderr=silent)
    assert silent.getvalue() == ""


def test_a_file_is_written_and_none_overwritten(tmp_path: Path) -> None:
    log_failures(2)
    path = tmp_path / "failures.jsonl"
    assert run("--format", "jsonl", "--output", str(path)) == ""
    assert len(path.read_text().splitlines()) == 2
    path.write_text("mine")
    with pytest.raises(CommandError) as error:
        run("--output", str(path))
    assert (error.value.returncode, path.read_text()) == (2, "mine")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_what_is_redirected_to_a_file_is_utf8_whatever_the_terminal_is(encoding: str) -> None:
    for name in ("\u4f60", "ä"):
        AccessFailureLog.objects.create(username=name, attempt_time=NOON)
    out = io.TextIOWrapper(written := io.BytesIO(), encoding, newline="\r")
    call_command("axes_export", stdout=out)
    assert written.getvalue() == run().encode()
    assert written.getvalue().count(b"\r\n") == 3


class Trickle(io.BytesIO):
    """Takes ten bytes at a time, as an unbuffered stream may."""

    def write(self, data: Any) -> int:
        return super().write(data[:10])


def test_an_unbuffered_stream_gets_every_byte() -> None:
    log_failures(2)
    out = io.TextIOWrapper(written := Trickle(), write_through=True)
    call_command("axes_export", stdout=out)
    assert written.getvalue() == run().encode()


def test_a_full_disk_leaves_no_part_of_a_record(tmp_path: Path) -> None:
    log_failures(3)
    path = tmp_path / "failures.csv"
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limit[1]))
    try:
        with pytest.raises(CommandError, match="File too large") as error:
            run("--output", str(path))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert (error.value.returncode, path.exists()) == (1, False)


def test_an_export_that_fails_leaves_no_part_of_a_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log_failures(3)
    monkeypatch.setattr(export, "PORTION", 2)
    path = tmp_path / "failures.csv"
    with connection.execute_wrapper(Once()), pytest.raises(CommandError, match="The database cannot be used"):
        run("--kind", "failures", "--output", str(path))
    assert not path.exists()
    run("--kind", "failures", "--output", str(path))
    assert len(path.read_text().splitlines()) == 4


class Once:
    """Lets one query through."""

    def __init__(self) -> None:
        """Let none have been asked."""
        self.asked = 0

    def __call__(self, execute: Callable[..., Any], *arguments: Any) -> Any:
        self.asked += 1
        if self.asked > 1:
            raise OperationalError("the connection was closed")
        return execute(*arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--from", "yesterday"),
        ("--to", "2026-02-30"),
        ("--from", "2026-03-02", "--to", "2026-03-01"),
        ("--from", "2026-03-01", "--to", "2026-03-01"),
        ("--from", "0001-01-01T00:00:00+14:00"),
        ("--to", "9999-12-31T23:59:59-14:00"),
        ("--output", "/nowhere/at/all.csv"),
    ],
    ids=str,
)
def test_arguments_that_make_no_sense_end_with_status_2(arguments: tuple[str, ...]) -> None:
    with pytest.raises(CommandError) as error:
        run(*arguments)
    assert error.value.returncode == 2


@pytest.mark.parametrize("arguments", [("--kind", "passwords"), ("--format", "xml"), ("--kind",)], ids=str)
def test_unknown_kinds_and_formats_are_refused(arguments: tuple[str, ...]) -> None:
    with pytest.raises(CommandError):
        run(*arguments)
