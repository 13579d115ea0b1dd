"""What log records say of a client. Whatever it has sent, a message stays one line that shows what is in it."""

from __future__ import annotations

from collections.abc import Iterable

from django.http import HttpRequest
from django.utils.crypto import salted_hmac

from axes_async.client.identity import Client
from axes_async.conf import get_settings
from axes_async.counters.rules import PARAMETERS, Counter
from axes_async.text import printable

FIELDS = (*PARAMETERS, "path_info")
"""What a record may say, under the names of the rows' columns."""

DIGITS = 12
"""Of a masked value's digest, in hexadecimal: two of 100,000 values look the same in one of 50,000 such logs."""


def client_str(client: Client, request: HttpRequest | None, counters: Iterable[Counter]) -> str:
    """Return the text that names ``client`` in a log message.

    ``AXES_CLIENT_STR_CALLABLE`` decides, if there is one. Else it is ``{name: "value", ...}`` with the path, and with
    all of ``PARAMETERS`` if ``AXES_VERBOSE``, or those that ``counters`` are made of.
    """
    settings = get_settings()
    if settings.client_str_callable is not None:
        told = settings.client_str_callable(
            client.username, client.ip_address, client.user_agent, client.path_info, request
        )
        return printable(str(told))
    counted = {"path_info"}.union(*[counter.rule.parameters for counter in counters])
    parts = [
        f"{name}: {_quoted(value)}" for name, value in _said(client).items() if name in counted or settings.verbose
    ]
    return "{" + ", ".join(parts) + "}"


def fields_of(client: Client) -> dict[str, str | None]:
    """Return what a record says of ``client`` in its fields, safe to print."""
    return {name: None if value is None else printable(value) for name, value in _said(client).items()}


def _said(client: Client) -> dict[str, str | None]:
    """Return each of ``FIELDS``, with a digest in place of what ``AXES_SENSITIVE_PARAMETERS`` names."""
    settings = get_settings()
    masked = {*settings.sensitive_parameters, settings.password_form_field}
    return {
        name: _masked(name, client) if name in masked and getattr(client, name) else getattr(client, name)
        for name in FIELDS
    }


def _masked(name: str, client: Client) -> str:
    """Return a digest, keyed with ``SECRET_KEY``, that tells clients apart just as the counters do."""
    value = next((value for parameter, value in client.canonical.items() if parameter == name), None)
    data = (value or getattr(client, name)).encode("utf-8", "surrogatepass")
    digest = salted_hmac(f"axes_async.log.{name}", data, algorithm="sha256")
    return f"masked:{digest.hexdigest()[:DIGITS]}"


def _quoted(value: str | None) -> str:
    return "None" if value is None else '"' + printable(value.replace("\\", "\\\\").replace('"', '\\"')) + '"'
