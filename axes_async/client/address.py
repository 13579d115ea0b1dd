"""The address of a request: its peer, or what trusted proxies in front of it have told of the client.

Settings come in by argument. What is done with an address is not decided here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from axes_async.conf import AxesSettings
from axes_async.conf.networks import MOST_HOPS, Networks, ipware, parse_address

FORWARDED_FOR = "HTTP_X_FORWARDED_FOR"
"""The header that trusted proxies are taken to write, where no other is named."""

LONGEST_HOP = 100
"""Characters of an address with brackets, a zone and a port: what is longer is none."""


def address_behind(meta: Mapping[str, Any], settings: AxesSettings) -> str:
    """Return the client's address as text; '' if there is none.

    That is ``REMOTE_ADDR``, unless it is a trusted proxy's: only then is a header read, since anybody can send one. In
    it, python-ipware finds the client where the settings tell how many proxies, or which, stand behind it. Else, and
    where it finds none because a hop is missing, the client is the first address from the right that is no trusted
    proxy.
    """
    peer = str(meta.get("REMOTE_ADDR") or "")
    if not settings.trusted_proxies or not settings.trusted_proxies.holds_peer(peer):
        return peer
    names = tuple(name for name in settings.ipware_meta_precedence_order if name != "REMOTE_ADDR") or (FORWARDED_FOR,)
    # Of several headers one alone is believed: whoever could make ipware drop it would choose the next one's value.
    name = next((name for name in names if isinstance(meta.get(name), str) and meta[name].strip()), None)
    if name is None:
        return peer
    header = meta[name]
    count, hops = settings.ipware_proxy_count, settings.ipware_proxy_trusted_ips
    if count is not None or hops:
        found, _ = ipware(names, settings.ipware_proxy_order == "left-most", count, hops).get_client_ip({name: header})
        if found is not None:
            return str(found)
    return _first_stranger(header, settings.trusted_proxies) or peer


def _first_stranger(header: str, trusted: Networks) -> str:
    """Return the first address from the right that is not ``trusted``, or the last one that is; '' if there is none.

    Each proxy appends the address of its peer, so what a client has sent itself stands to the left of its own address.
    What is no address ends the search: nobody whom we trust has written what stands left of it.
    """
    furthest = ""
    for part in reversed(header.rsplit(",", MOST_HOPS)):
        text = _forwarded_for(part) if "=" in part else part.strip()
        address = parse_address(text) if len(text) <= LONGEST_HOP else None
        if address is None:
            break
        furthest = text
        if address not in trusted:
            break
    return furthest


def _forwarded_for(element: str) -> str:
    """Return the ``for`` of one element of a ``Forwarded`` header (RFC 7239, 4); '' without it."""
    for pair in element.split(";"):
        name, _, value = pair.partition("=")
        if name.strip().lower() == "for":
            return value.strip().strip('"')
    return ""
