"""The record of failures, logins and unlocks as files that auditors and their tools read; in UTC, row by row."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from django.db.models import Model, Q
from django.utils.timezone import get_default_timezone, is_naive, make_aware

from axes_async import __version__
from axes_async.models import AccessFailureLog, AccessLog, AccessReset
from axes_async.text import printable

PORTION = 2000
"""Rows that are in memory at a time."""

CLIENT = ("username", "ip_address", "user_agent", "http_accept", "path_info")

COLUMNS = (
    *("kind", "time", "id", *CLIENT, "outcome", "turned_away"),
    *("logout_time", "session", "scope", "attempts", "counters", "by", "reason"),
)
"""Of a CSV file: those of all kinds, so that one file may hold them all."""

FORMULA = "=+-@＝＋－＠﹦﹢﹣﹫⁼⁺⁻₌₊₋−﬩⩵⩶"
"""What a spreadsheet takes for the beginning of a formula, and what stands for it once a program has normalised it."""

CELL_BEGINS = re.compile(rf'(^|[;,|"])(?=(?:[^\w!-~]|[\u115f\u1160\u3164\uffa0])*[{re.escape(FORMULA)}])')
"""Matches where a formula begins: in a cell, or behind what another spreadsheet takes for a separator or a quote (see
OWASP, CSV Injection). Its sign may stand behind what shows nothing. Python takes some of that for letters."""

DATASET = "axes_async.audit"
ECS_VERSION, OCSF_VERSION = "8.11.0", "1.3.0"

Record = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Kind:
    """A table that can be exported."""

    model: type[Model]
    time: str
    """The column that says when it happened; an index leads to it."""
    columns: tuple[str, ...]
    id: str = "event_id"


KINDS = {
    "failures": Kind(AccessFailureLog, "attempt_time", (*CLIENT, "locked_out", "repeats")),
    "logins": Kind(AccessLog, "attempt_time", (*CLIENT, "logout_time", "session_hash")),
    "unlocks": Kind(
        AccessReset,
        "reset_time",
        ("username", "ip_address", "scope", "attempts", "counters", "by", "reason"),
        id="id",
    ),
}


def records(name: str, since: datetime | None, until: datetime | None) -> Iterator[Record]:
    """Return the rows of a kind from ``since`` to before ``until``, the oldest first, a portion at a time."""
    kind = KINDS[name]
    rows = kind.model._default_manager.order_by(kind.time, "pk")
    if since is not None:
        rows = rows.filter(**{f"{kind.time}__gte": since})
    if until is not None:
        rows = rows.filter(**{f"{kind.time}__lt": until})
    names = dict.fromkeys(("pk", kind.time, kind.id, *kind.columns))
    portion: Any = list(rows.values(*names)[:PORTION])
    while portion:
        yield from (_record(name, kind, row) for row in portion)
        time, pk = portion[-1][kind.time], portion[-1]["pk"]
        behind = rows.filter(Q(**{f"{kind.time}__gt": time}) | Q(pk__gt=pk), **{f"{kind.time}__gte": time})
        portion = list(behind.values(*names)[:PORTION]) if len(portion) == PORTION else []


def _record(name: str, kind: Kind, row: Mapping[str, Any]) -> Record:
    record: dict[str, Any] = {"kind": name, "time": _utc(row[kind.time]), "id": str(row[kind.id])}
    record |= {column: row[column] for column in kind.columns}
    if name == "failures":
        repeats, locked = record.pop("repeats"), record.pop("locked_out")
        record["outcome"] = "turned away" if repeats else "locked" if locked else "failed"
        record["turned_away"] = repeats
    elif name == "logins":
        record["logout_time"] = record["logout_time"] and _utc(record["logout_time"])
        record["session"] = record.pop("session_hash")
    return record


def _utc(moment: datetime) -> str:
    return aware(moment).astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def aware(moment: datetime) -> datetime:
    """Return ``moment`` with its time zone; a row of a site without ``USE_TZ`` is in the site's own."""
    return make_aware(moment, get_default_timezone()) if is_naive(moment) else moment


def as_csv(rows: Iterable[Record]) -> Iterator[str]:
    """Return lines of CSV (RFC 4180), the names of the columns first. No cell begins a formula or drives a terminal.

    That also holds for a spreadsheet that splits at semicolons, or does not heed quotes.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, quoting=csv.QUOTE_ALL)
    writer.writerow(COLUMNS)
    for row in rows:
        writer.writerow([_cell(row.get(name)) for name in COLUMNS])
        yield buffer.getvalue()
        buffer.seek(0)
        buffer.truncate()
    yield buffer.getvalue()


def _cell(value: Any) -> Any:
    return CELL_BEGINS.sub(r"\1'", printable(value)) if isinstance(value, str) else value


def _lines(shape: Callable[[Record], Any], rows: Iterable[Record]) -> Iterator[str]:
    return (json.dumps(shape(row)) + "\n" for row in rows)


def _ecs(row: Record) -> dict[str, Any]:
    """Return an event of the Elastic Common Schema; actions are named as in the log (``docs/logging.md``)."""
    is_unlock, is_login = row["kind"] == "unlocks", row["kind"] == "logins"
    actions = {"failed": "authn_login_fail", "locked": "authn_login_lock", "turned away": "authn_login_fail_max"}
    event = {
        "kind": "event",
        "category": ["iam" if is_unlock else "authentication"],
        "type": ["admin", "change"] if is_unlock else ["start" if is_login else "info"],
        "outcome": "success" if is_unlock or is_login else "failure",
        "action": "unlock" if is_unlock else "authn_login_success" if is_login else actions[row["outcome"]],
        "id": row["id"],
        "dataset": DATASET,
        "reason": row.get("reason") or None,
        "end": row.get("logout_time"),
    }
    name = {"name": row["username"]}
    said = {
        "@timestamp": row["time"],
        "ecs": {"version": ECS_VERSION},
        "event": event,
        "user": {"name": row["by"] or None, "target": name} if is_unlock else name,
        "source": {"address": row["ip_address"], "ip": row["ip_address"]},
        "user_agent": {"original": row.get("user_agent")},
        "url": {"path": row.get("path_info")},
        "axes": {key: row.get(key) for key in ("turned_away", "scope", "attempts", "counters")},
    }
    return _without_empty(said)


def _ocsf(row: Record) -> dict[str, Any]:
    """Return an event of the Open Cybersecurity Schema Framework: Authentication, or Account Change for an unlock."""
    is_unlock, is_login = row["kind"] == "unlocks", row["kind"] == "logins"
    # An unlock is none of the activities of this version.
    class_uid, activity, named = (3001, 99, "Unlock") if is_unlock else (3002, 1, "Logon")
    succeeded = is_unlock or is_login
    said = {
        "metadata": {
            "version": OCSF_VERSION,
            "uid": row["id"],
            "log_name": row["kind"],
            "product": {"name": "axes_async", "vendor_name": "axes_async", "version": __version__},
        },
        "category_uid": 3,
        "class_uid": class_uid,
        "activity_id": activity,
        "activity_name": named,
        "type_uid": class_uid * 100 + activity,
        "time": round(datetime.fromisoformat(row["time"]).timestamp() * 1000),
        "severity_id": 1 if succeeded else 3 if row["outcome"] == "locked" else 2,
        "status_id": 1 if succeeded else 2,
        "status_detail": row.get("reason") if is_unlock else row.get("outcome"),
        "user": {"name": row["username"] or "-"},
        "actor": {"user": {"name": row.get("by") or None}},
        "service": None if is_unlock else {"name": "login"},
        "src_endpoint": {"ip": row["ip_address"]},
        "http_request": {"user_agent": row.get("user_agent"), "url": {"path": row.get("path_info")}},
        "unmapped": {
            key: row.get(key) for key in ("turned_away", "logout_time", "session", "scope", "attempts", "counters")
        },
    }
    return _without_empty(said)


def _without_empty(said: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``said`` without what is empty: an index refuses an empty text as an address."""
    kept = {key: _without_empty(value) if isinstance(value, dict) else value for key, value in said.items()}
    return {key: value for key, value in kept.items() if value not in (None, "", {})}


FORMATS: Mapping[str, Callable[[Iterable[Record]], Iterator[str]]] = {
    "csv": as_csv,
    "jsonl": partial(_lines, dict),
    "ecs": partial(_lines, _ecs),
    "ocsf": partial(_lines, _ocsf),
}
