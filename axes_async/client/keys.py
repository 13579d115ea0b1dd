"""Keys of the values that counters are made of: rows of one client are found by them, whatever way it was typed."""

from __future__ import annotations

from functools import lru_cache

from axes_async.client.normalize import canonical_address, canonical_username
from axes_async.counters.events import AttemptEvent, parameter_bits, parameters_of
from axes_async.counters.rules import PARAMETERS, Parameter, digest_of

ADDRESS = parameter_bits(("ip_address",))
"""``AttemptCounter.parameters`` of a rule of the address alone. Its digest is the address's key, and needs no index."""


def username_key(username: str | None) -> str:
    """Return the key that variants of one name share; '' without a name."""
    canonical = canonical_username(username)
    return digest_of([("username", canonical)]) if canonical else ""


def ip_address_key(ip_address: str) -> str:
    """Return the key that the addresses of one client share; '' without an address."""
    canonical = canonical_address(ip_address)
    return digest_of([("ip_address", canonical)]) if canonical else ""


@lru_cache(maxsize=1024)
def user_agent_key(user_agent: str) -> str:
    """Return the key of an agent; that of no agent is one like any other."""
    return digest_of([("user_agent", user_agent)])


def keys_of(event: AttemptEvent) -> dict[Parameter, str]:
    # A counter of the address alone tells the address's key: working it out costs a drain a seventh of its time.
    by_address = [change.digest for change in event.changes if change.parameters == ("ip_address",)]
    return {
        "username": username_key(event.username),
        "ip_address": by_address[0] if by_address else ip_address_key(address_of(event)),
        "user_agent": user_agent_key(event.user_agent),
    }


def address_of(event: AttemptEvent) -> str:
    """Return the address, or what the server gave in its place."""
    return event.ip_address or event.extra.get("address", "")


def attempt_key(event: AttemptEvent) -> str:
    """Return what names the ``AccessAttempt`` of an event: its username, address and agent as the row shows them."""
    return attempt_key_of(event.username, address_of(event), event.user_agent)


def attempt_key_of(username: str | None, address: str, user_agent: str) -> str:
    """Return what names the ``AccessAttempt`` of these values, as its row shows them."""
    return digest_of([("username", username or ""), ("ip_address", address), ("user_agent", user_agent)])


def kinds_with(parameter: Parameter, *, alone: bool = True) -> list[int]:
    """Return ``AttemptCounter.parameters`` of each kind of rule that has ``parameter``; ``alone``: or nothing else."""
    kinds = [bits for bits in range(1, 1 << len(PARAMETERS)) if parameter in parameters_of(bits)]
    return kinds if alone else [bits for bits in kinds if bits != parameter_bits((parameter,))]


def counter_columns(bits: int) -> dict[str, str]:
    """Return the columns by which the counters of an attempt under a kind of rules are found, and what they equal."""
    if bits == ADDRESS:
        return {"digest": "ip_address_key"}
    return {f"{name}_key": f"{name}_key" for name in parameters_of(bits)}
