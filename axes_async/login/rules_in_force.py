"""Which rules an attempt is counted under: the settings, asked for this request and these credentials.

``counters.rules`` says what a rule is, and which counters it makes; ``conf.lockout_rules``, what the settings may be.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from functools import cache, lru_cache

from django.http import HttpRequest

from axes_async.client.identity import Client
from axes_async.conf import AxesSettings
from axes_async.conf.lockout_rules import RETURNED, Credentials, Limit, RuleSetting, combinations, whole_limit
from axes_async.conf.validators import CoolOff, seconds_of
from axes_async.counters.rules import Counter, LockoutTier, Rule, counters_for

log = logging.getLogger(__name__)


def counters_of(
    settings: AxesSettings, request: HttpRequest | None, credentials: Credentials, client: Client
) -> tuple[Counter, ...]:
    """Return the counters that an attempt of ``client`` belongs to, by each of its names; see ``rules_for``."""
    rules = rules_for(settings, request, credentials)
    if client.canonical["ip_address"] is None and any("ip_address" in rule.parameters for rule in rules):
        tell_of_no_request() if request is None else tell_of_no_address()
    counters = counters_for(rules, client.canonical)
    for other in client.others:
        counters += tuple(counter for counter in counters_for(rules, other.canonical) if counter not in counters)
    return counters


@cache
def tell_of_no_request() -> None:
    """Log, once in a process, that attempts are made that rules with an address do not count."""
    log.warning(
        "A password is tried outside of any request, so without an address: rules with 'ip_address' do not count it. "
        "Pass the request, or add a rule for the username."
    )


@cache
def tell_of_no_address() -> None:
    """Log, once in a process, that requests come that rules with an address do not count."""
    log.warning(
        "A password is tried in a request without an address, as they come through a Unix socket: rules with "
        "'ip_address' do not count it. Name the web server in AXES_TRUSTED_PROXIES, as 'unix', if it sends the "
        "client's address in a header; or have AXES_CLIENT_IP_CALLABLE return it."
    )


def rules_for(settings: AxesSettings, request: HttpRequest | None, credentials: Credentials) -> tuple[Rule, ...]:
    """Return the rules for one attempt.

    Of the callables among the settings, those that a rule needs are called, once each. Raises
    ``ImproperlyConfigured``, naming the setting, for one that returns something it does not take.
    """
    fixed = fixed_rules(settings)
    return _asked(settings, request, credentials) if fixed is None else fixed


def longest_lockout(settings: AxesSettings, request: HttpRequest | None) -> int:
    """Return how long the longest of all lockouts lasts that a failure may set now, in milliseconds.

    0: until a reset. With tiers, the first one counts.
    """
    lengths = [rule.lockout_ms(rule.limit) for rule in rules_for(settings, request, None)]
    return max(lengths) if lengths and all(lengths) else 0


def longest_cooloff(settings: AxesSettings) -> timedelta | None:
    """Return the longest cool-off of all rules; ``None`` if one has none, or is only known with a request."""
    every = cooloffs(settings)
    known = [cooloff for cooloff in every if isinstance(cooloff, timedelta)]
    return max(known) if len(known) == len(every) else None


def cooloffs(settings: AxesSettings) -> list[CoolOff]:
    """Return the cool-off of each rule; ``None`` where only a reset ends its lockouts."""
    # A rule without parameters stands for those of AXES_LOCKOUT_PARAMETERS.
    given = (RuleSetting(parameters=()),) if settings.lockout_rules is None else settings.lockout_rules
    return [
        _longest(tiers)
        if (tiers := _tiers(settings, rule))
        else (settings.cooloff_time if rule.cooloff == "default" else rule.cooloff)
        for rule in given
    ]


def _tiers(settings: AxesSettings, rule: RuleSetting) -> tuple[LockoutTier, ...]:
    """Return the tiers of a rule: its own, or those for all if it has neither a limit nor a cool-off of its own."""
    if rule.tiers is None and rule.limit == rule.cooloff == "default":
        return settings.lockout_tiers or ()
    return rule.tiers or ()


def _longest(tiers: tuple[LockoutTier, ...]) -> timedelta:
    return max(tier.cooloff for tier in tiers)


@lru_cache(maxsize=8)
def fixed_rules(settings: AxesSettings) -> tuple[Rule, ...] | None:
    """Return the rules if they are the same for every attempt, else ``None``."""
    given: list[object] = [settings.lockout_parameters, settings.failure_limit, settings.cooloff_time]
    for rule in settings.lockout_rules or ():
        given += [rule.limit, rule.cooloff]
    return None if any(callable(value) for value in given) else _asked(settings, None, None)


def _asked(settings: AxesSettings, request: HttpRequest | None, credentials: Credentials) -> tuple[Rule, ...]:
    @cache
    def limit_for_all() -> int:
        return limit("AXES_FAILURE_LIMIT", settings.failure_limit)

    @cache
    def cooloff_for_all() -> float | None:
        return seconds_of("AXES_COOLOFF_TIME", settings.cooloff_time, request)

    def limit(name: str, value: Limit) -> int:
        return whole_limit(name, value(request, credentials), takes=RETURNED) if callable(value) else value

    def in_force(name: str, rule: RuleSetting) -> Rule:
        failures, tiers = 0, _tiers(settings, rule)
        if tiers:
            if settings.lock_out_at_failure:
                failures = tiers[0].failures
            cooloff: float | None = _longest(tiers).total_seconds()
            return Rule(parameters=rule.parameters, limit=failures, cooloff=cooloff, tiers=tiers if failures else ())
        if settings.lock_out_at_failure:
            failures = limit_for_all() if rule.limit == "default" else limit(f"{name}['limit']", rule.limit)
        if rule.cooloff == "default":
            cooloff = cooloff_for_all()
        else:
            cooloff = seconds_of(f"{name}['cooloff']", rule.cooloff, request)
        rolling = settings.use_attempt_expiration and failures > 0 and cooloff is not None
        return Rule(parameters=rule.parameters, limit=failures, cooloff=cooloff, rolling=rolling)

    given = settings.lockout_rules
    if given is None:
        named = settings.lockout_parameters
        if callable(named):
            named = combinations("AXES_LOCKOUT_PARAMETERS", named(request, credentials), takes=RETURNED)
        given = tuple(RuleSetting(parameters=together) for together in named)
    return tuple(in_force(f"AXES_LOCKOUT_RULES[{place}]", rule) for place, rule in enumerate(given))
