"""What the settings of rules may be: parameters, limits, and rules with their own.

As in ``validators``: a value that is not taken raises ``ImproperlyConfigured``. It names the setting, what it got and
what it takes. What callables return is read here too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

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
    if isinstance(value, str) or callable(value):
        return validators.dotted(
            name, value, f"a whole number from 1 to {validators.MOST}, or a callable or its dotted path"
        )
    return whole_limit(name, value)


def combinations(name: str, value: object, takes: str = "a callable or its dotted path") -> Combinations:
    """Read what is counted: the parameters of each rule, in the order of ``PARAMETERS``."""
    takes = f"a list of {', '.join(PARAMETERS)}, or of lists of these to use them together, or {takes}"
    if not isinstance(value, list | tuple) or not value:
        validators.refuse(name, value, takes)
    read: list[tuple[Parameter, ...]] = []
    for item in value:
        together = _together(item)
        if together is None:
            validators.refuse(name, value, takes)
        if together not in read:
            read.append(together)
    return tuple(read)


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
        if "parameters" not in keys or not (
            keys <= {"parameters", "limit", "cooloff"} or (len(keys) == 2 and "tiers" in keys)
        ):
            validators.refuse(name, value, takes)
        part = f"{name}[{place}]"
        together = _together(item["parameters"])
        if together is None:
            validators.refuse(f"{part}['parameters']", item["parameters"], f"one of {', '.join(PARAMETERS)}, or a list")
        if together in read:
            validators.refuse(f"{part}['parameters']", item["parameters"], "parameters that no other rule has")
        own: dict[str, Any] = {}
        if "limit" in item:
            own["limit"] = limit(f"{part}['limit']", item["limit"])
        if "cooloff" in item:
            own["cooloff"] = validators.cooloff(f"{part}['cooloff']", item["cooloff"])
        if "tiers" in item:
            own["tiers"] = tiers(f"{part}['tiers']", item["tiers"])
        read[together] = RuleSetting(parameters=together, **own)
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
        if not isinstance(pair, list | tuple) or len(pair) != 2 or pair[1] is None:
            validators.refuse(name, value, takes)
        failures, lasts = whole_limit(name, pair[0], takes), validators.duration(name, pair[1], takes)
        if lasts is None or (read and read[-1].failures >= failures):
            validators.refuse(name, value, takes)
        read.append(LockoutTier(failures, lasts))
    return tuple(read)


def _together(item: object) -> tuple[Parameter, ...] | None:
    """Return one rule's parameters in the order of ``PARAMETERS``; ``None`` for what are none."""
    together = [item] if isinstance(item, str) else item
    if not isinstance(together, list | tuple | set | frozenset) or not together:
        return None
    if not all(isinstance(parameter, str) and parameter in PARAMETERS for parameter in together):
        return None
    return cast("tuple[Parameter, ...]", tuple(parameter for parameter in PARAMETERS if parameter in together))
