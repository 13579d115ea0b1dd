"""Realistic values: a browser's headers, addresses, usernames, and the counters and events they make.

No Django: what is here goes to a store directly, as the guard would send it.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

from axes_async.clock import now_ms
from axes_async.counters.events import AttemptEvent, Kind, new_id
from axes_async.counters.rules import Counter, Parameter, Rule, counters_for

CHROME = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36"
)
CHROME_ACCEPT = (
    "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8,"
    "application/signed-exchange;v=b3;q=0.7"
)
HOUR = 3600.0
BY_ADDRESS: tuple[tuple[Parameter, ...], ...] = (("ip_address",),)
"""The rule that is the default."""
BY_ADDRESS_AND_PAIR: tuple[tuple[Parameter, ...], ...] = (("ip_address",), ("ip_address", "username"))


def address(number: int) -> str:
    """Return the IPv4 address number ``number``, written with as many characters as most are (12 to 15)."""
    return str(IPv4Address(int(IPv4Address("100.100.100.100")) + number))


def address6(number: int) -> str:
    """Return an IPv6 address in the /64 number ``number``."""
    return str(IPv6Address(int(IPv6Address("2001:db8:85a3:0:1319:8a2e:370:7344")) + (number << 64)))


def username(number: int) -> str:
    """Return a username of 12 characters."""
    return f"user.{number:07d}"


def counters(
    address: str,
    username: str,
    *,
    rules: tuple[tuple[Parameter, ...], ...] = BY_ADDRESS,
    limit: int = 3,
    cooloff: float | None = HOUR,
) -> tuple[Counter, ...]:
    """Return the counters of an attempt."""
    from axes_async.client.normalize import canonical_address, canonical_username

    return counters_for(
        [Rule(parameters=rule, limit=limit, cooloff=cooloff) for rule in rules],
        {
            "ip_address": canonical_address(address),
            "username": canonical_username(username),
            "user_agent": CHROME,
        },
    )


def event(kind: Kind, address: str, username: str, **extra: str) -> AttemptEvent:
    """Return an event of now."""
    return AttemptEvent(
        kind=kind,
        id=new_id(now_ms()),
        username=username,
        ip_address=address,
        user_agent=CHROME,
        http_accept=CHROME_ACCEPT,
        path_info="/accounts/login/",
        extra=dict(extra),
    )
