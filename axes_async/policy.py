"""What is counted and when it locks: rules, counters and their keys.

Pure functions on plain values: no Django, no Redis, no clock.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal

Parameter = Literal["ip_address", "username", "user_agent"]
PARAMETERS: tuple[Parameter, ...] = ("ip_address", "username", "user_agent")

IDENTIFYING = {"ip_address", "username"}
"""Parameters that tell clients apart by themselves; an agent alone is shared by millions."""

DIGEST_LENGTH = 22
"""Characters of a digest: 128 bits in URL-safe base64 without padding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What is counted together, how far, and for how long."""

    parameters: tuple[Parameter, ...]
    """The values that make one counter, in the order of ``PARAMETERS``."""
    limit: int
    """Failures that lock the counter; 0 never locks."""
    cooloff: float | None
    """Seconds after the last failure at which the counter starts over; ``None``: only a reset ends it."""

    @property
    def window_ms(self) -> int:
        """The cool-off in milliseconds; 0 where only a reset ends it."""
        return 0 if self.cooloff is None else max(1, round(self.cooloff * 1000))


@dataclass(frozen=True, slots=True)
class Counter:
    """One rule applied to one client."""

    rule: Rule
    digest: str
    """Names the counter in every store: equal for equal canonical values under the same rule, and only then."""


def digest_of(values: Iterable[tuple[str, str]]) -> str:
    """Return a digest of named values in which no two different inputs run together.

    Each name and value is prefixed with its length, so that ``("a", "b|c")`` and ``("a|b", "c")`` differ, and a
    username never equals an address.
    """
    state = blake2b(digest_size=16)
    for name, value in values:
        data = value.encode("utf-8", "surrogatepass")
        state.update(f"{name}:{len(data)}:".encode())
        state.update(data)
    return urlsafe_b64encode(state.digest()).rstrip(b"=").decode("ascii")


def counters_for(rules: Iterable[Rule], values: Mapping[Parameter, str | None]) -> tuple[Counter, ...]:
    """Return the counters that an attempt with these canonical ``values`` belongs to.

    A rule with a missing address or username is skipped, so that clients without one never share a counter. A missing
    user agent is a value like any other beside an address or a username (else leaving the header out would escape the
    rule), and skips the rule where it stands alone.
    """
    counters = []
    for rule in rules:
        parts = [(name, values.get(name) or "") for name in rule.parameters]
        told_apart = [value for name, value in parts if name in IDENTIFYING]
        if all(told_apart) if told_apart else all(value for _, value in parts):
            counters.append(Counter(rule, digest_of(parts)))
    return tuple(counters)
