"""Networks and addresses: read from text, looked up, grouped for counters, and the finder of a client among proxies.

Where a request has its address is worked out in ``client/address.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from python_ipware import IpWare

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

TRANSLATED = IPv6Network("64:ff9b::/96")
"""Where a translator puts the addresses of IPv4 clients in front of a server that speaks IPv6 alone."""

MOST_HOPS = 32
"""Parts of a header that are looked at, from the right."""


@dataclass(frozen=True)
class Networks:
    """Networks in which an address is looked up, at the cost of one set for each length of prefix."""

    networks: tuple[Network, ...] = ()
    unix: bool = False
    """Whether a peer without an address, on a Unix socket, is one of them."""

    @cached_property
    def _starts(self) -> list[tuple[int, int, set[int]]]:
        """The version, the bits of the host and the starts of the networks that have these in common."""
        starts: dict[tuple[int, int], set[int]] = {}
        for network in self.networks:
            host = network.max_prefixlen - network.prefixlen
            starts.setdefault((network.version, host), set()).add(int(network.network_address) >> host)
        return [(version, host, found) for (version, host), found in starts.items()]

    def __contains__(self, address: Address | None) -> bool:
        if address is None:
            return False
        value, version = int(address), address.version
        return any(version == each and value >> host in starts for each, host, starts in self._starts)

    def __bool__(self) -> bool:
        return bool(self.networks) or self.unix

    def holds_peer(self, text: str) -> bool:
        """Return whether ``text``, a ``REMOTE_ADDR``, is the address of one of these."""
        return parse_address(text) in self if text.strip() else self.unix


NOWHERE = Networks()


def parse_network(text: str) -> Network:
    """Return the network in ``text``, an address or CIDR; that of IPv4 within IPv6 is the IPv4 one.

    Raises ``ValueError`` if it is neither, or if it has bits set beyond its prefix.
    """
    network = ip_network(text.strip())
    if isinstance(network, IPv6Network) and network.prefixlen >= 96:
        start = _within(network.network_address)
        if start is not None:
            return IPv4Network((start, network.prefixlen - 96))
    return network


@lru_cache(maxsize=4096)
def parse_address(text: str) -> Address | None:
    """Return the address in ``text``, which may carry a port or an IPv6 zone; ``None`` if there is none in it.

    An IPv4 address mapped into IPv6 (RFC 4291, 2.5.5.2), or translated into it (RFC 6052, 2.1), is the IPv4 address.
    """
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (_within(address) or address) if isinstance(address, IPv6Address) else address


def _within(address: IPv6Address) -> IPv4Address | None:
    """Return the IPv4 address that is mapped or translated into ``address``; ``None`` if there is none."""
    return IPv4Address(int(address) & 0xFFFF_FFFF) if address in TRANSLATED else address.ipv4_mapped


@lru_cache(maxsize=4096)
def group_of(text: str, ipv4_prefix: int, ipv6_prefix: int) -> str | None:
    """Return what addresses are compared by: the network of so many bits, or the whole address where it has no more.

    An IPv6 address that is made of an IPv4 one is that: with 6to4 (RFC 3056) whoever has one has 65,536 networks, and
    with Teredo (RFC 4380) one for each port. Lists do not take it for that, since others can send from it.

    A text that is no address is compared as it is, under a name that no address has; an empty one is ``None``.
    """
    address = parse_address(text)
    if address is None:
        return f"not an address: {text.strip()}" if text.strip() else None
    if isinstance(address, IPv6Address):
        _, behind_nat = address.teredo or (None, None)
        inner = address.sixtofour or behind_nat
        if inner is None:
            return str(IPv6Network((int(address), ipv6_prefix), strict=False))
        address = inner
    if ipv4_prefix == address.max_prefixlen:
        return str(address)
    return str(IPv4Network((int(address), ipv4_prefix), strict=False))


@lru_cache(maxsize=64)
def ipware(names: tuple[str, ...], leftmost: bool, count: int | None, hops: tuple[str, ...]) -> IpWare:
    """Return python-ipware's finder of the client in headers; raises ``ValueError`` for hops that it does not take."""
    return IpWare(precedence=names, leftmost=leftmost, proxy_count=count, proxy_list=list(hops) or None)
