"""Ready formatters for the records of ``axes_async.audit``: a strict line, and JSON in the Elastic Common Schema.

Whatever a client has sent, a record is one line, and nothing of it can pass for another part of the line. Settings name
these classes, so nothing here needs the app registry.
"""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Any

AUDIT = "axes_async.audit"
"""The logger of attempts."""

NUMBERS = ("limit", "repeats", "retries")
"""What some events have beside the client."""

OUTCOMES = {
    "authn_login_fail": ("start", "failure"),
    "authn_login_lock": ("info", "failure"),
    "authn_login_fail_max": ("start", "failure"),
    "authn_login_success": ("start", "success"),
    "authn_login_successafterfail": ("start", "success"),
    "session_expired": ("end", "success"),
}
"""The ECS ``event.type`` and ``event.outcome`` of each event."""


class LineFormatter(logging.Formatter):
    """Writes logfmt: ``name=value`` pairs in a fixed order, on one line of ASCII.

    What strangers have sent comes last, quoted and escaped as in JSON; up to ``user=`` a line holds nothing of theirs
    but a parsed address. ``-`` stands for what is not known.
    """

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        pairs = [f"time={at}", f"level={record.levelname}", f"logger={record.name}"]
        if _is_audit(record):
            said = record.__dict__
            pairs += [f"event={_term(record)}", f"ip={said['ip_address'] or '-'}", f"id={said['event_id']}"]
            pairs += [f"{name}={said[name]}" for name in NUMBERS if name in said]
            pairs += [f"user={_quoted(said['username'])}", f"path={_quoted(said['path_info'])}"]
            pairs.append(f"agent={_quoted(said['user_agent'])}")
        else:
            pairs.append(f"message={_quoted(record.getMessage())}")
        if record.exc_info:
            pairs.append(f"error={_quoted(self.formatException(record.exc_info))}")
        return " ".join(pairs)


class EcsFormatter(logging.Formatter):
    """Writes ECS JSON with ``ecs_logging``, whose options it takes; install ``axes_async[ecs]``."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        from ecs_logging import StdlibFormatter

        self._ecs = StdlibFormatter(**options)

    def format(self, record: logging.LogRecord) -> str:
        line: str = self._ecs.format(logging.makeLogRecord(_ecs_of(record)) if _is_audit(record) else record)
        return line


def _is_audit(record: logging.LogRecord) -> bool:
    return record.name == AUDIT and hasattr(record, "event_id")


def _term(record: logging.LogRecord) -> str:
    """Return the event without the name and the details that OWASP appends."""
    term: str = record.__dict__["event"].partition(":")[0]
    return term


def _quoted(text: str | None) -> str:
    return "-" if text is None else json.dumps(text)


def _ecs_of(record: logging.LogRecord) -> dict[str, Any]:
    """Return the attributes of ``record``, with the fields of ECS in place of ours."""
    said = dict(record.__dict__)
    name, address = said.pop("username"), said.pop("ip_address")
    kind, outcome = OUTCOMES[_term(record)]
    said["event"] = {
        "kind": "event",
        "category": ["authentication"],
        "type": [kind],
        "outcome": outcome,
        "action": _term(record),
        "id": said.pop("event_id"),
        "dataset": AUDIT,
    }
    if name is not None:
        said["user"] = {"name": name}
    if address is not None:
        # An index refuses what is no address in a field of type ip.
        said["source"] = {"address": address} if address.startswith("masked:") else {"address": address, "ip": address}
    said["user_agent"] = {"original": said["user_agent"]}
    said["url"] = {"path": said.pop("path_info")}
    numbers = {number: said.pop(number) for number in NUMBERS if number in said}
    return {**said, "axes": numbers} if numbers else said
