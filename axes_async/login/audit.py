"""What happened to attempts, as log records in the vocabulary of OWASP; what a record says of a client is decided here.

The vocabulary: https://cheatsheetseries.owasp.org/cheatsheets/Logging_Vocabulary_Cheat_Sheet.html
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from django.http import HttpRequest

from axes_async.client.display import client_str, fields_of
from axes_async.client.identity import Client
from axes_async.counters.rules import Counter

log = logging.getLogger("axes_async.audit")

TERMS = {
    "authn_login_fail": (logging.WARNING, "Login failed"),
    "authn_login_lock": (logging.WARNING, "Locked out after repeated failures"),
    "authn_login_fail_max": (logging.WARNING, "Turned away while locked out"),
    "authn_login_success": (logging.INFO, "Logged in"),
    "authn_login_successafterfail": (logging.INFO, "Logged in after failures"),
    "session_expired": (logging.INFO, "Logged out"),
}
"""The level and the text of each record."""


def write(
    term: str,
    event_id: str,
    client: Client,
    request: HttpRequest | None,
    counters: Iterable[Counter] = (),
    details: object = None,
    **more: int,
) -> None:
    """Log what ``term`` stands for, with the event as OWASP writes it, ``term:username,details``, and its parts."""
    level, text = TERMS[term]
    if not log.isEnabledFor(level):
        return
    fields = {"event_id": event_id, **fields_of(client)}
    said = ",".join([fields["username"] or "", *([] if details is None else [str(details)])])
    event = f"{term}:{said}" if said else term
    log.log(level, "%s: %s.", text, client_str(client, request, counters), extra={"event": event, **fields, **more})
