"""Counters as people see them: in words, as they stand now, and what is behind them.

Which counters there are, the rows say. How they stand, the store says, if it can be asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from django.db.models import OuterRef, Subquery
from django.db.models.functions import Lower
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from axes_async import clock
from axes_async.client.normalize import canonical_address
from axes_async.conf import get_settings
from axes_async.counters.events import parameter_bits, parameters_of
from axes_async.counters.rules import Counter, Parameter, Rule
from axes_async.counters.state import CounterState
from axes_async.errors import StoreUnavailable
from axes_async.login.rules_in_force import fixed_rules
from axes_async.models import AccessAttempt, AccessLog, AttemptCounter, StoreState, database
from axes_async.stores.cache import CacheStore
from axes_async.stores.database.rows import reservations_of, state_of
from axes_async.stores.database.store import DatabaseStore
from axes_async.stores.factory import get_failover, get_store
from axes_async.stores.results import SeenCounter
from axes_async.text import printable

BEHIND = 3
"""Names or addresses that are shown of those behind a lockout."""

LOOKED_AT = 8
"""Attempts that are read for them: one name may have tried with several agents."""


LABELS: Mapping[Parameter, Any] = {
    "username": gettext_lazy("username"),
    "ip_address": gettext_lazy("IP address"),
    "user_agent": gettext_lazy("user agent"),
}


class Source(StrEnum):
    """Where it is known from how counters stand."""

    STORE = "store"
    DATABASE = "database"
    """The rows, and they are what decides."""
    ROWS = "rows"
    """The rows, though the store decides: it could not be asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How a counter stands at a time; times are in epoch milliseconds."""

    seen: SeenCounter
    limit: int
    """The limit in force; 0: it never locks."""
    at: int
    decides: bool = True
    """Whether it is known from what decides. The rows do not have all of it as long as the store decides."""

    @property
    def failures(self) -> int:
        return self.seen.state.failures

    @property
    def is_locked(self) -> bool:
        state = self.seen.state
        return 0 < self.limit <= state.failures and (not state.locked_until or state.locked_until > self.at)

    @property
    def locked_until(self) -> int:
        """When the lockout ends; 0: only by a reset."""
        return end_of_lockout(self.seen.state, self.limit)

    @property
    def seconds_left(self) -> int | None:
        """How long the lockout still lasts, rounded up; ``None``: until a reset."""
        return -(-(self.locked_until - self.at) // 1000) if self.locked_until else None


def end_of_lockout(state: CounterState, limit: int) -> int:
    """Return when a lockout at ``limit`` ends, in epoch milliseconds; 0: only by a reset."""
    return state.locked_until or (state.ends[-limit] if state.ends else state.expires_at)


@dataclass(frozen=True, slots=True)
class Background:
    """What is behind a counter."""

    values: Sequence[str] = ()
    """Names that were tried from its address, or addresses that its name was tried from."""
    more: bool = False
    """Whether there are more of them."""
    last_success: datetime | None = None
    """The last login of its name; without a name, from its address."""


def words_for(counter: AttemptCounter) -> str:
    """Return what a counter counts, such as "alice from 203.0.113.7"; it may be no row of the table."""
    parameters = parameters_of(counter.parameters)
    name, address = printable(counter.username or "?"), _address_of(counter)
    if "username" in parameters and "ip_address" in parameters:
        words = _("%(name)s from %(address)s") % {"name": name, "address": address}
    elif "username" in parameters:
        words = _("%s from anywhere") % name
    elif "ip_address" in parameters:
        words = _("address %s") % address
    else:
        return _("one user agent")
    return f"{words}, {_('one user agent')}" if "user_agent" in parameters else words


def rule_words(parameters: Iterable[Parameter]) -> str:
    """Return what a rule counts by, such as "username + IP address"."""
    return " + ".join(str(label) for name, label in LABELS.items() if name in parameters)


def _address_of(counter: AttemptCounter) -> str:
    if counter.ip_address is None:
        return "?"
    group = canonical_address(counter.ip_address)
    return group if group and "/" in group else counter.ip_address


def kinds_in_force() -> list[int]:
    """Return ``AttemptCounter.parameters`` of each rule in force; all that may be, where a callable names them."""
    rules = fixed_rules(get_settings())
    kinds = range(1, 8) if rules is None else [parameter_bits(rule.parameters) for rule in rules]
    return list(dict.fromkeys(kinds))


def standings(rows: Sequence[AttemptCounter]) -> tuple[Source, dict[str, Standing]]:
    """Return how the counters of ``rows`` stand now, by digest, and what says so.

    The store is asked once, for all of them. Where it cannot be asked, the rows are looked at.
    """
    counters = [
        Counter(Rule(parameters=parameters_of(row.parameters), limit=row.limit, cooloff=None), row.digest)
        for row in rows
    ]
    at, rules = now(), {parameter_bits(rule.parameters): rule for rule in fixed_rules(get_settings()) or ()}
    source, seen = see(counters)
    if seen is None:
        void = StoreState.current(database()).void_generation
        seen = [seen_in(row, at, void=void) for row in rows]
    found = {}
    for row, one in zip(rows, seen, strict=True):
        rule = rules.get(row.parameters)
        limit = row.limit if rule is None else one.state.limit(rule, at)
        found[row.digest] = Standing(seen=one, limit=limit, at=at, decides=source is not Source.ROWS)
    return source, found


def see(counters: Sequence[Counter]) -> tuple[Source, list[SeenCounter] | None]:
    """Ask the store that decides, once. Without an answer, the rows have to do: as what decides, or in its place."""
    store, failover = get_store(), get_failover()
    if isinstance(store, DatabaseStore):
        return Source.DATABASE, None
    if has_private_store():
        return Source.ROWS, None
    if failover.asks_primary:
        try:
            return Source.STORE, store.look(counters)
        except StoreUnavailable:
            pass
    return Source.DATABASE if StoreState.current(database()).mode == StoreState.DATABASE else Source.ROWS, None


def has_private_store() -> bool:
    """Return whether each process has a store of its own, so that none can tell what the others count."""
    store = get_store()
    return isinstance(store, CacheStore) and not store.shared


def seen_in(row: AttemptCounter, at: int, *, void: int) -> SeenCounter:
    """Return what a row says of its counter."""
    state = state_of(row, void=void)
    state.expire(at)
    return SeenCounter(state, row.blocked if state.failures else 0, len(reservations_of(row, at)))


def backgrounds(rows: Sequence[AttemptCounter]) -> dict[str, Background]:
    """Return what is behind the counters of ``rows``, by digest; one query, which reads little of each."""
    attempts = AccessAttempt.objects.order_by()
    names = attempts.filter(ip_address_key=OuterRef("ip_address_key")).values("username")
    addresses = attempts.filter(username_key=OuterRef("username_key")).values("ip_address")
    logins = AccessLog.objects.order_by("-attempt_time").values("attempt_time")
    columns: dict[str, Any] = {
        "of_name": Subquery(logins.filter(username=OuterRef("username"))[:1]),
        "of_lower_name": Subquery(logins.filter(username=Lower(OuterRef("username")))[:1]),
        "of_address": Subquery(logins.filter(ip_address=OuterRef("ip_address"))[:1]),
    }
    for place in range(LOOKED_AT):
        columns[f"name_{place}"] = Subquery(names[place : place + 1])
        columns[f"address_{place}"] = Subquery(addresses[place : place + 1])
    counters: Any = AttemptCounter.objects.filter(pk__in=[row.pk for row in rows])
    return {values["digest"]: _background(values) for values in counters.values("digest", "parameters", **columns)}


def _background(values: Mapping[str, Any]) -> Background:
    parameters = parameters_of(values["parameters"])
    logins = ["of_name", "of_lower_name"] if "username" in parameters else ["of_address"]
    last = max((values[name] for name in logins if values[name] is not None), default=None)
    if "username" in parameters and "ip_address" in parameters:
        return Background(last_success=last)
    column = "address" if "username" in parameters else "name"
    found = [values[f"{column}_{place}"] for place in range(LOOKED_AT)]
    shown = list(dict.fromkeys(printable(value) for value in found if value))
    more = len(shown) > BEHIND or all(values[f"{column}_{place}"] is not None for place in range(LOOKED_AT))
    return Background(shown[:BEHIND], more, last)


def now() -> int:
    """Return the time that lockouts are looked at, in epoch milliseconds."""
    return (clock.fixed_ms or clock.now_ms)()
