"""What the settings of rules may be: parameters, limits, and rules with their own.

As in ``validators``: a value that is not taken raises ``ImproperlyConfigured``. It names the setting, what it got and
what it takes. What callables return is read here too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from django.http import HttpRequest

from axes_async.conf import validators
from axes_async.counters.rules import PARAMETERS, LockoutTier, Parameter

Credentials = Mapping[str, Any] | None
Combinations = tuple[tuple[Parameter, ...], ...]
Limit = int | Callable[[HttpRequest | None, Credentials], int]
Parameters = Combinations | Callable[[HttpRequest | None, Credentials], object]

RETURNED = "a callable that returns one of those"
"""What the error says of a callable's answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleSetting:
    """A rule as the settings have it: parts of it may be callables, or left to the settings for all rules."""

    parameters: tuple[Parameter, ...]
    limit: Limit | Literal["default"] = "default"
    cooloff: validators.CoolOff | Literal["default"] = "default"
    tiers: tuple[LockoutTier, ...] | None = None


def whole_limit(name: str, value: object, takes: str = "a callable or its dotted path") -> int:
    """Read a limit that is a number; ``takes`` is what the error says beside that."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= validators.MOST:
        validators.refuse(name, value, f"a whole number from 1 to {validators.MOST}, or {takes}")
    return value


def limit(name: str, value: object) -> Limit:
    """Read a limit: a number, or what returns one for a request and credentials."""
    takes = f"a whole number from 1 to {validators.MOST}, or a callable or its dotted path"
    is_asked = isinstance(value, str) or callable(value)
    return validators.dotted(name, value, takes) if is_asked else whole_limit(name, value)


def combinations(name: str, value: object, takes: str = "a callable or its dotted path") -> Combinations:
    """Read what is counted: the parameters of each rule, in the order of ``PARAMETERS``."""
    takes = f"a list of {', '.join(PARAMETERS)}, or of lists of these to use them together, or {takes}"
    read = [_together(item) for item in value] if isinstance(value, list | tuple) else []
    if not read or not all(read):
        validators.refuse(name, value, takes)
    return tuple(dict.fromkeys(read))


def parameters(name: str, value: object) -> Parameters:
    """Read what is counted: the parameters of each rule, or what returns them for a request and credentials."""
    if callable(value) or (isinstance(value, str) and "." in value):
        return validators.dotted(name, value)
    return combinations(name, value)


def rules(name: str, value: object) -> tuple[RuleSetting, ...] | None:
    """Read rules, each a mapping with ``parameters`` and, as its own, ``limit`` and ``cooloff``, or ``tiers``."""
    if value is None:
        return None
    takes = "None, or a list of dicts with 'parameters', and as the rule's own 'limit' and 'cooloff', or 'tiers'"
    if not isinstance(value, list | tuple) or not value:
        validators.refuse(name, value, takes)
    read: dict[tuple[Parameter, ...], RuleSetting] = {}
    for place, item in enumerate(value):
        keys = item.keys() if isinstance(item, Mapping) else set()
        own = keys - {"parameters"}
        if own == keys or not (own <= {"limit", "cooloff"} or own == {"tiers"}):
            validators.refuse(name, value, takes)
        part = f"{name}[{place}]"
        together = _together(item["parameters"])
        if not together or together in read:
            takes = "parameters that no other rule has" if together else f"one of {', '.join(PARAMETERS)}, or a list"
            validators.refuse(f"{part}['parameters']", item["parameters"], takes)
        parts = {key: READERS[key](f"{part}['{key}']", item[key]) for key in own}
        read[together] = RuleSetting(parameters=together, **parts)
    return tuple(read.values())


def tiers(name: str, value: object) -> tuple[LockoutTier, ...] | None:
    """Read the steps of a progressive lockout: ``LockoutTier`` objects, or pairs of failures and a cool-off."""
    if value is None:
        return None
    takes = (
        "None, or a list of LockoutTier(failures, cooloff) or (failures, cooloff), from the fewest failures to the "
        "most, each with a cool-off that is a timedelta or a number of hours"
    )
    if not isinstance(value, list | tuple) or not value:
        validators.refuse(name, value, takes)
    read: list[LockoutTier] = []
    for item in value:
        pair = (item.failures, item.cooloff) if isinstance(item, LockoutTier) else item
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            validators.refuse(name, value, takes)
        failures, lasts = whole_limit(name, pair[0], takes), validators.duration(name, pair[1], takes)
        if lasts is None or (read and read[-1].failures >= failures):
            validators.refuse(name, value, takes)
        read.append(LockoutTier(failures, lasts))
    return tuple(read)


READERS: dict[str, Callable[[str, object], Any]] = {"limit": limit, "cooloff": validators.cooloff, "tiers": tiers}
"""Of what a rule may have as its own."""


def _together(item: object) -> tuple[Parameter, ...]:
    """Return one rule's parameters in the order of ``PARAMETERS``; none for what are none."""
    named = [item] if isinstance(item, str) else item
    if not isinstance(named, list | tuple | set | frozenset) or not all(name in PARAMETERS for name in named):
        return ()
    return tuple(parameter for parameter in PARAMETERS if parameter in named)
