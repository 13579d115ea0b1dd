"""What people type into the search box of a list, and how its rows are found without reading the whole table.

An index leads to the rows of a name, an address or a small network. Where it leads to too many of them, or where there
is none, the latest rows alone are looked at, and the list says back to when.
"""

from __future__ import annotations

import operator
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import reduce
from ipaddress import IPv4Network, ip_address, ip_network
from itertools import islice
from typing import Any, Literal, NamedTuple

from django.db import connections
from django.db.models import Q, QuerySet

from axes_async.client.keys import ip_address_key, username_key
from axes_async.client.normalize import canonical_address, canonical_username, shown_name
from axes_async.conf.networks import Network, Networks, parse_address, parse_network
from axes_async.inspection.distinct import cutoff_of_each, distinct_between, latest_of_each

LISTED = 10_000
"""Rows that a list can be turned through, page by page."""


class Bounds(NamedTuple):
    """How many rows a request may look at."""

    found: int = 5_000
    """Of those that an index leads to: each may be on a page of its own, and is read for the count and for the list."""
    latest: int = 50_000
    """Of the latest ones, where each has to be looked at: they take 50 ms."""


BOUNDS = Bounds()
NARROW = Bounds(found=2_500, latest=5_000)
"""Where looking at a row takes a subquery."""

TEXT = Bounds(latest=10_000)
"""Where several columns of a row are searched for a text."""

VALUES = 300
"""Names or addresses that a prefix or a network may stand for: a /24 of IPv4 has fewer."""

LONGEST_ADDRESS = 100

LAST_CHARACTER, SURROGATES = 0x10FFFF, range(0xD800, 0xE000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """What was typed: one of the four."""

    kind: Literal["name", "prefix", "address", "network"]
    text: str
    """As it was typed, of a prefix without the star."""
    address: str = ""
    inside: Network | None = None

    @property
    def network(self) -> Network:
        if self.inside is None:
            raise TypeError(f"{self.text!r} is no network.")
        return self.inside

    @property
    def names(self) -> list[str]:
        """The name, or the beginning of it, as rows may have it: as typed, and as it is compared."""
        typed = shown_name(self.text) if self.kind == "name" else self.text
        return list(dict.fromkeys(name for name in (typed, canonical_username(self.text)) if name))


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The rows of a term."""

    condition: Q
    since: datetime | None = None
    """The rows since then are all that were looked at; ``None``: all there are."""
    few: bool = False
    """Whether sorting them costs less than going through the table in the order of time until a page is full."""


def read(text: str) -> Term | None:
    """Return what ``text`` asks for: a network, an address, the beginning of a name before a star, or a name."""
    text = text.strip()
    short = text if len(text) <= LONGEST_ADDRESS else ""
    if not text.strip("*"):
        return None
    if text.endswith("*"):
        return Term(kind="prefix", text=text.rstrip("*"))
    if "/" in short and (network := _network(short)) is not None:
        if network.num_addresses == 1:
            return Term(kind="address", text=text, address=str(network.network_address))
        return Term(kind="network", text=text, inside=network)
    if short and (address := parse_address(short)) is not None:
        return Term(kind="address", text=text, address=str(address))
    return Term(kind="name", text=text)


def _network(text: str) -> Network | None:
    """Return the network in ``text``, bits beyond its prefix dropped; ``None`` if it is none."""
    try:
        return parse_network(str(ip_network(text, strict=False)))
    except ValueError:
        return None


def window(rows: QuerySet[Any], time: str, size: int) -> datetime | None:
    """Return since when there are about ``size`` of ``rows``, by the column ``time``; ``None`` if there are no more."""
    return next(iter(rows.order_by(f"-{time}").values_list(time, flat=True)[size : size + 1]), None)


def find_in_log(rows: QuerySet[Any], term: Term, bounds: Bounds = BOUNDS) -> Found:
    """Find ``term`` in a log, which has indexes of names and of addresses, each with the time."""
    values = _values(rows, term)
    if values is None:
        return _in_window(rows, term, bounds)
    column = "username" if term.kind in {"name", "prefix"} else "ip_address"
    return _of_values(rows, column, values, bounds)


def find_in_attempts(rows: QuerySet[Any], term: Term, bounds: Bounds = BOUNDS) -> Found:
    """Find ``term`` among the attempts, whose indexes are of keys: one of all variants of a name, one of an address."""
    if term.kind == "prefix":
        return _in_window(rows, term, bounds)
    if term.kind == "name":
        column, exact, keys = "username_key", Q(), [username_key(term.text)]
    elif term.kind == "address":
        column, exact, keys = "ip_address_key", Q(ip_address=term.address), [ip_address_key(term.address)]
    else:
        named = _keys_in(term.network)
        if named is None:
            return _in_window(rows, term, bounds)
        column, exact, keys = "ip_address_key", _inside(rows, term.network), named
    since = _since(rows, column, keys, bounds)
    return Found(condition=Q(**{f"{column}__in": keys}) & exact, since=since, few=since is None)


def find_in_resets(rows: QuerySet[Any], term: Term) -> Found:
    """Find ``term`` among the latest resets, and a text in any of their columns: nothing else leads to them."""
    since = window(rows, "reset_time", TEXT.latest)
    if term.kind == "network":
        return Found(condition=_inside(rows, term.network, since=since), since=since)
    if term.kind == "address":
        return Found(condition=Q(ip_address=term.address), since=since)
    texts = ("username", "by", "reason")
    conditions = [Q(**{f"{column}__icontains": name}) for column in texts for name in term.names]
    return Found(condition=reduce(operator.or_, conditions), since=since)


def _of_values(rows: QuerySet[Any], column: str, values: Sequence[str], bounds: Bounds) -> Found:
    """Find the rows whose ``column`` is one of ``values``, as long as there are no more than can be listed.

    An index of the column and the time leads to them.
    """
    condition, each = Q(**{f"{column}__in": values}), bounds.found // max(len(values), 1)
    is_postgresql = connections[rows.db].vendor == "postgresql"
    if len(values) <= 2:  # One name, as it was typed and as it is compared, or one address.
        ends = [window(rows.filter(**{column: value}), "attempt_time", each) for value in values]
        since = max((moment for moment in ends if moment is not None), default=None)
    elif is_postgresql:
        since = cutoff_of_each(rows, column, values, each)
    else:
        since = _since(rows, column, values, bounds)
    if is_postgresql and values:
        # Twice as many: some may be of the same moment as the last one.
        latest = rows if since is None else rows.filter(attempt_time__gte=since)
        condition = latest_of_each(latest, column, values, 2 * each)
    return Found(condition=condition, since=since, few=True)


def _since(rows: QuerySet[Any], column: str, values: Collection[str], bounds: Bounds) -> datetime | None:
    """Return since when rows are looked at, if more of them than can be listed have one of ``values``."""
    # In the order of the index: PostgreSQL would rather go through the table until it has found so many.
    some = rows.filter(**{f"{column}__in": values}).order_by(column)[: bounds.found + 1]
    return window(rows, "attempt_time", bounds.latest) if some.count() > bounds.found else None


def _in_window(rows: QuerySet[Any], term: Term, bounds: Bounds) -> Found:
    """Find the beginning of a name, or a network, in the latest rows."""
    since = window(rows, "attempt_time", bounds.latest)
    if term.kind == "prefix":
        begins = [_between(rows, name, after(name)) for name in term.names]
        return Found(condition=reduce(operator.or_, begins), since=since)
    return Found(condition=_inside(rows, term.network, since=since), since=since)


def _values(rows: QuerySet[Any], term: Term) -> list[str] | None:
    """Return the names or addresses that a term stands for; ``None`` if there are too many."""
    if term.kind == "name":
        return term.names
    if term.kind == "address":
        return [term.address]
    vendor, found = connections[rows.db].vendor, list[str]()
    if term.kind == "network":
        if vendor != "postgresql":
            return _addresses(term.network)
        ends = [(str(term.network[0]), str(term.network[-1]))]
        column = "ip_address"
    else:
        ends = [(name, after(name)) for name in term.names]
        column = "username"
    for first, last in ends:
        if vendor == "postgresql":
            found += distinct_between(rows, column, first, last, VALUES + 1)
        else:
            names = rows.filter(_between(rows, first, last)).order_by(column).values_list(column, flat=True)
            found += names.distinct()[: VALUES + 1]
    values = list(dict.fromkeys(found))
    return values if len(values) <= VALUES else None


def _between(rows: QuerySet[Any], first: str, last: str) -> Q:
    """Return the condition that a name begins with ``first``; it comes before ``last``, in the order of code points."""
    if connections[rows.db].vendor == "sqlite":  # Its LIKE takes no index.
        return Q(username__gte=first, username__lt=last) if last else Q(username__gte=first)
    # With the usual collations of MySQL, it is the one without case that takes an index.
    lookup = "istartswith" if connections[rows.db].vendor == "mysql" else "startswith"
    return Q(**{f"username__{lookup}": first})


def after(prefix: str) -> str:
    """Return the first text behind all that begin with ``prefix``, by code points; '' if nothing is behind them."""
    while prefix:
        last = ord(prefix[-1]) + 1
        if last <= LAST_CHARACTER:
            return prefix[:-1] + chr(SURROGATES.stop if last in SURROGATES else last)
        prefix = prefix[:-1]
    return ""


def _inside(rows: QuerySet[Any], network: Network, *, since: datetime | None = None) -> Q:
    """Return the condition that an address lies in ``network``; as text, no address can be compared with its ends.

    :param since: where addresses are text and too many to be named, those of the rows since then are looked at.
    """
    if connections[rows.db].vendor == "postgresql":
        return Q(ip_address__gte=str(network[0]), ip_address__lte=str(network[-1]))
    addresses = _addresses(network)
    if addresses is None:
        wanted, time = Networks((network,)), rows.model._meta.ordering[0].removeprefix("-")
        seen = rows.filter(**{f"{time}__gte": since}) if since is not None else rows
        texts = seen.exclude(ip_address=None).order_by(f"-{time}").values_list("ip_address", flat=True)
        inside = (text for text in dict.fromkeys(texts[: BOUNDS.latest]) if ip_address(text) in wanted)
        addresses = list(islice(inside, VALUES))
    return Q(ip_address__in=addresses)


def _addresses(network: Network) -> list[str] | None:
    """Return the addresses in ``network``; ``None`` if there are too many."""
    return list(map(str, network)) if network.num_addresses <= VALUES else None


def _keys_in(network: Network) -> list[str] | None:
    """Return the keys of the addresses in ``network``; ``None`` if there are too many."""
    group = canonical_address(str(network[0])) or ""
    size = ip_network(group).num_addresses if "/" in group else 1
    if network.num_addresses // size > VALUES:
        return None
    start, kind = int(network[0]), IPv4Network if network.version == 4 else type(network)
    starts = (
        kind((start + place * size, network.max_prefixlen)) for place in range(max(network.num_addresses // size, 1))
    )
    return list(dict.fromkeys(ip_address_key(str(one.network_address)) for one in starts))
