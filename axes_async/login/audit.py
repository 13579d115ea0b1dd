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


class Occasion(NamedTuple):
    """An event, and all that a record of it may name."""

    client: Client
    event_id: str
    request: HttpRequest | None
    counters: Iterable[Counter] = ()


def login_failed(occasion: Occasion) -> None:
    """Tell of a password that was wrong."""
    if log.isEnabledFor(logging.WARNING):
        _tell(logging.WARNING, "authn_login_fail", "Login failed", occasion)


def locked_out(occasion: Occasion) -> None:
    """Tell that a failure has set a lockout."""
    if log.isEnabledFor(logging.WARNING):
        _tell(logging.WARNING, "authn_login_lock", "Locked out after repeated failures", occasion, "maxretries")


def turned_away(occasion: Occasion, *, limit: int, repeats: int) -> None:
    """Tell that a lockout has turned ``repeats`` attempts away by now, this one the last of them."""
    text = "Turned away while locked out"
    if log.isEnabledFor(logging.WARNING):
        _tell(logging.WARNING, "authn_login_fail_max", text, occasion, str(limit), repeats=repeats)


def logged_in(occasion: Occasion, *, retries: int) -> None:
    """Tell of a login, and of the failures of the name that stood against it."""
    if not log.isEnabledFor(logging.INFO):
        return
    if retries:
        text = "Logged in after failures"
        _tell(logging.INFO, "authn_login_successafterfail", text, occasion, str(retries), retries=retries)
    else:
        _tell(logging.INFO, "authn_login_success", "Logged in", occasion)


def logged_out(occasion: Occasion) -> None:
    """Tell of a logout."""
    if log.isEnabledFor(logging.INFO):
        _tell(logging.INFO, "session_expired", "Logged out", occasion, "logout")


def fields_of(client: Client) -> dict[str, str | None]:
    """Return what a record says of ``client``, under the names of the rows' columns and safe to print."""
    return {
        "username": None if client.username is None else printable(client.username),
        "ip_address": client.ip_address,
        "user_agent": printable(client.user_agent),
        "path_info": printable(client.path_info),
    }


def _tell(level: int, term: str, text: str, occasion: Occasion, *details: str, **more: int) -> None:
    """Log ``text``, with the event as OWASP writes it, ``term:username,details``, and its parts beside it."""
    client, event_id, request, counters = occasion
    fields = fields_of(client)
    said = ",".join([fields["username"] or "", *details])
    event = f"{term}:{said}" if said else term
    extra = {"event": event, "event_id": event_id, **fields, **more}
    log.log(level, "%s: %s.", text, client_str(client, request, counters), extra=extra)
