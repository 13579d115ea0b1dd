"""What a site's own code calls to lift lockouts."""

from __future__ import annotations

from django.http import HttpRequest

from axes_async.client.identity import identify
from axes_async.client.normalize import canonical_username
from axes_async.conf import get_settings
from axes_async.login.rules_in_force import rules_for


def reset(
    ip: str | None = None,
    username: str | None = None,
    ip_or_username: bool = False,
    *,
    reason: str = "",
    by: str = "",
) -> int:
    """Remove attempts and lift the lockouts they stand for, in this process; return how many attempts went.

    :param ip: only those of this address.
    :param username: only those of this name; with ``ip``, only those of the name from that address.
    :param ip_or_username: with both, those of either.
    :param reason: why; the row of the reset keeps it.
    :param by: who asked for it; the row keeps it too.
    :raises ValueError: if ``ip`` is no address, or ``username`` is empty.

    Without arguments, everything. The outbox is written to the rows first, so that no late event can lock again.
    """
    from axes_async.tasks.reset import reset as reset_task

    gone: int = reset_task(ip=ip, username=username, ip_or_username=ip_or_username, reason=reason, by=by)
    return gone


def reset_request(request: HttpRequest) -> int:
    """Reset what the lockout rules count of the client behind ``request``; return how many attempts went.

    The name is taken from the form, or else from the query parameter ``username``. Nothing is reset
    if no rule counts the client.
    """
    client = identify(request, None)
    username = client.username or request.GET.get("username") or None
    credentials = {"username": username} if username else None
    rules = [set(rule.parameters) for rule in rules_for(get_settings(), request, credentials)]
    together = any({"ip_address", "username"} <= rule for rule in rules)
    ip = client.ip_address if any("ip_address" in rule for rule in rules) else None
    if not any("username" in rule for rule in rules) or canonical_username(username) is None:
        username = None
    if not ip and not username:
        return 0
    return reset(ip=ip, username=username, ip_or_username=bool(ip and username) and not together)
