"""What is counted and when it locks: rules, counters and their keys.

Pure functions on plain values: no Django, no Redis, no clock.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from hashlib import blake2b
from typing import Literal

Parameter = Literal["ip_address", "username", "user_agent"]
PARAMETERS: tuple[Parameter, ...] = ("ip_address", "username", "user_agent")

DIGEST_LENGTH = 22
"""Characters of a digest: 128 bits in URL-safe base64 without padding."""


def milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))


@dataclass(frozen=True, slots=True, order=True)
class LockoutTier:
    """One step of a progressive lockout: so many failures lock for so long."""

    failures: int
    cooloff: timedelta

    @property
    def lasts_ms(self) -> int:
        return milliseconds(self.cooloff.total_seconds())


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What is counted together, how far, and for how long."""

    parameters: tuple[Parameter, ...]
    """The values that make one counter, in the order of ``PARAMETERS``."""
    limit: int
    """Failures that lock the counter, with tiers those of the first; 0 never locks."""
    cooloff: float | None
    """Seconds after which the counter starts over, ``None``: only a reset ends it.

    They run from the last failure, and with tiers from the end of the last lockout.
    """
    tiers: tuple[LockoutTier, ...] = ()
    """Steps of a progressive lockout, from the fewest failures to the most; beyond the last, each failure locks."""
    rolling: bool = False
    """Whether each failure ends alone, a cool-off after it was made; needs a limit and a cool-off, and no tiers."""

    @property
    def window_ms(self) -> int:
        """The cool-off in milliseconds; 0 where only a reset ends it."""
        return 0 if self.cooloff is None else milliseconds(self.cooloff)

    def limit_at(self, standing: int, *, locked: bool) -> int:
        """Return the limit in force at so many failures: in a tier's lockout the one reached, else the next one."""
        if not self.tiers:
            return self.limit
        reached = 0
        for tier in self.tiers:
            if tier.failures > standing:
                return reached if locked and reached else tier.failures
            reached = tier.failures
        return standing if locked else standing + 1

    def lockout_ms(self, limit: int) -> int:
        """Return how long reaching ``limit``, of tiers any one, locks, in milliseconds; 0: until a reset."""
        if not self.tiers:
            return self.window_ms
        return next((tier.lasts_ms for tier in reversed(self.tiers) if tier.failures <= limit), 0)


@dataclass(frozen=True, slots=True)
class Counter:
    """One rule applied to one client."""

    rule: Rule
    digest: str
    """Names the counter in every store: equal for equal canonical values under the same rule, and only then."""


def digest_of(values: Iterable[tuple[str, str]]) -> str:
    """Return a digest of named values in which no two different inputs run together.

    Each value stands behind its name and its length, so that ``("a", "b|c")`` and ``("a|b", "c")`` differ.
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
        if all(value or (name == "user_agent" and len(parts) > 1) for name, value in parts):
            counters.append(Counter(rule, digest_of(parts)))
    return tuple(counters)
