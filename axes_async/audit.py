"""What happened to attempts, as log records in the vocabulary of OWASP; what a record says of a client is decided here.

The vocabulary: https://cheatsheetseries.owasp.org/cheatsheets/Logging_Vocabulary_Cheat_Sheet.html
"""

from __future__ import annotations

import logging

from axes_async.client import Client
from axes_async.text import printable

log = logging.getLogger(__name__)


def login_failed(client: Client, event_id: str) -> None:
    """Tell of a password that was wrong."""
    if log.isEnabledFor(logging.WARNING):
        _tell(logging.WARNING, "authn_login_fail", "Login failed: %r from %s.", client, event_id)


def locked_out(client: Client, event_id: str) -> None:
    """Tell that a failure has set a lockout."""
    text = "Locked out after repeated failures: %r from %s."
    if log.isEnabledFor(logging.WARNING):
        _tell(logging.WARNING, "authn_login_lock", text, client, event_id, "maxretries")


def turned_away(client: Client, event_id: str, *, limit: int, repeats: int) -> None:
    """Tell that a lockout has turned ``repeats`` attempts away by now, this one the last of them."""
    text = "Turned away while locked out: %r from %s."
    if log.isEnabledFor(logging.WARNING):
        _tell(logging.WARNING, "authn_login_fail_max", text, client, event_id, str(limit), repeats=repeats)


def logged_in(client: Client, event_id: str, *, retries: int) -> None:
    """Tell of a login, and of the failures of the name that stood against it."""
    if not log.isEnabledFor(logging.INFO):
        return
    if retries:
        text = "Logged in after failures: %r from %s."
        _tell(logging.INFO, "authn_login_successafterfail", text, client, event_id, str(retries), retries=retries)
    else:
        _tell(logging.INFO, "authn_login_success", "Logged in: %r from %s.", client, event_id)


def logged_out(client: Client, event_id: str) -> None:
    """Tell of a logout."""
    if log.isEnabledFor(logging.INFO):
        _tell(logging.INFO, "session_expired", "Logged out: %r from %s.", client, event_id, "logout")


def fields_of(client: Client) -> dict[str, str | None]:
    """Return what a record says of ``client``, under the names of the rows' columns and safe to print."""
    return {
        "username": None if client.username is None else printable(client.username),
        "ip_address": client.ip_address,
        "user_agent": printable(client.user_agent),
        "path_info": printable(client.path_info),
    }


def _tell(level: int, term: str, text: str, client: Client, event_id: str, *details: str, **more: int) -> None:
    """Log ``text``, with the event as OWASP writes it, ``term:username,details``, and its parts beside it."""
    fields = fields_of(client)
    said = ",".join([fields["username"] or "", *details])
    event = f"{term}:{said}" if said else term
    extra = {"event": event, "event_id": event_id, **fields, **more}
    log.log(level, text, fields["username"], fields["ip_address"], extra=extra)
