"""What happened to attempts, as log records in the vocabulary of OWASP; what a record says of a client is decided here.

The vocabulary: https://cheatsheetseries.owasp.org/cheatsheets/Logging_Vocabulary_Cheat_Sheet.html
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import NamedTuple

from django.http import HttpRequest

from axes_async.client.display import client_str
from axes_async.client.identity import Client
from axes_async.counters.rules import Counter
from axes_async.text import printable

log = logging.getLogger("axes_async.audit")


class LogContext(NamedTuple):
    """All that a log record of an event may name."""

    client: Client
    event_id: str
    request: HttpRequest | None
    counters: Iterable[Counter] = ()

    def __str__(self) -> str:
        return client_str(self.client, self.request, self.counters)


def login_failed(context: LogContext) -> None:
    """Log that a password was wrong."""
    if log.isEnabledFor(logging.WARNING):
        _write(logging.WARNING, "authn_login_fail", "Login failed", context)


def locked_out(context: LogContext) -> None:
    """Log that a failure has set a lockout."""
    if log.isEnabledFor(logging.WARNING):
        _write(logging.WARNING, "authn_login_lock", "Locked out after repeated failures", context, "maxretries")


def turned_away(context: LogContext, *, limit: int, repeats: int) -> None:
    """Log that a lockout has turned ``repeats`` attempts away by now, this one the last of them."""
    text = "Turned away while locked out"
    if log.isEnabledFor(logging.WARNING):
        _write(logging.WARNING, "authn_login_fail_max", text, context, str(limit), repeats=repeats)


def logged_in(context: LogContext, *, retries: int) -> None:
    """Log a login, and the failures that counted against the name before it."""
    if not log.isEnabledFor(logging.INFO):
        return
    if retries:
        text = "Logged in after failures"
        _write(logging.INFO, "authn_login_successafterfail", text, context, str(retries), retries=retries)
    else:
        _write(logging.INFO, "authn_login_success", "Logged in", context)


def logged_out(context: LogContext) -> None:
    """Log a logout."""
    if log.isEnabledFor(logging.INFO):
        _write(logging.INFO, "session_expired", "Logged out", context, "logout")


def fields_of(client: Client) -> dict[str, str | None]:
    """Return what a record says of ``client``, under the names of the rows' columns and safe to print."""
    return {
        "username": None if client.username is None else printable(client.username),
        "ip_address": client.ip_address,
        "user_agent": printable(client.user_agent),
        "path_info": printable(client.path_info),
    }


def _write(level: int, term: str, text: str, context: LogContext, *details: str, **more: int) -> None:
    """Log ``text``, with the event as OWASP writes it, ``term:username,details``, and its parts beside it."""
    fields = fields_of(context.client)
    said = ",".join([fields["username"] or "", *details])
    event = f"{term}:{said}" if said else term
    log.log(
        level, "%s: %s.", text, str(context), extra={"event": event, "event_id": context.event_id, **fields, **more}
    )
