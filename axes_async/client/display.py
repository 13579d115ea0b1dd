"""How log messages name a client. Whatever it has sent, a message stays one line that shows what is in it."""

from __future__ import annotations

from collections.abc import Iterable

from django.http import HttpRequest

from axes_async.client.identity import MASKED, Client
from axes_async.conf import get_settings
from axes_async.counters.rules import PARAMETERS, Counter
from axes_async.text import printable


def client_str(client: Client, request: HttpRequest | None, counters: Iterable[Counter]) -> str:
    """Return the text that names ``client`` in a log message.

    ``AXES_CLIENT_STR_CALLABLE`` decides, if there is one. Else it is ``{name: "value", ...}`` with the path, and with
    all of ``PARAMETERS`` if ``AXES_VERBOSE``, or those that ``counters`` are made of; what
    ``AXES_SENSITIVE_PARAMETERS`` names is masked.
    """
    settings = get_settings()
    if settings.client_str_callable is not None:
        told = settings.client_str_callable(
            client.username, client.ip_address, client.user_agent, client.path_info, request
        )
        return printable(str(told))
    counted = {"path_info"}.union(*[counter.rule.parameters for counter in counters])
    masked = {*settings.sensitive_parameters, settings.password_form_field}
    parts = [
        f"{name}: {_quoted(MASKED if name in masked else getattr(client, name))}"
        for name in (*PARAMETERS, "path_info")
        if name in counted or settings.verbose
    ]
    return "{" + ", ".join(parts) + "}"


def _quoted(value: str | None) -> str:
    return "None" if value is None else '"' + printable(value.replace("\\", "\\\\").replace('"', '\\"')) + '"'
