"""What the settings of addresses may be: networks, and the proxies that a client is found behind.

As in ``validators``: a value that is not taken raises ``ImproperlyConfigured``. It names the setting, what it got and
what it takes.
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network

from axes_async.conf import validators
from axes_async.conf.networks import MOST_HOPS, Network, Networks, ipware, parse_network


def networks(name: str, value: object, *, unix: bool = False) -> Networks:
    """Read a list of addresses and networks; ``None`` is none. With ``unix``, that word stands for a Unix socket."""
    takes = "a list of addresses and networks such as '203.0.113.7' or '2001:db8::/32'"
    takes += ", without bits beyond the prefix" + (", and 'unix' for a Unix socket" if unix else "")
    if value is None:
        return Networks()
    if not isinstance(value, list | tuple | set | frozenset):
        validators.refuse(name, value, takes)
    read: list[Network] = []
    for item in value:
        if unix and item == "unix":
            continue
        try:
            read.append(parse_network(str(item) if isinstance(item, IPv4Network | IPv6Network) else item))
        except (ValueError, AttributeError):
            validators.refuse(name, value, takes)
    return Networks(tuple(read), unix=unix and "unix" in value)


def proxy_count(name: str, value: object) -> int | None:
    """Read how many proxies there are, or ``None``."""
    return None if value is None else validators.integer(name, value, least=0, most=MOST_HOPS)


def hops(name: str, value: object) -> tuple[str, ...]:
    """Read the proxies behind the client as python-ipware takes them; ``None`` is none."""
    read = validators.texts(name, value)
    try:
        ipware((), True, None, read)
    except ValueError:
        validators.refuse(name, value, "a list of addresses, networks and beginnings of addresses, one for each proxy")
    return read
