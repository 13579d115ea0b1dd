"""What an explanation holds, and how it is said: in sentences, and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from django.utils.translation import gettext as _

from axes_async.client.exemptions import Exemption
from axes_async.client.identity import Client
from axes_async.clock import until_in_words
from axes_async.conf import AxesSettings
from axes_async.conf.networks import parse_address
from axes_async.inspection.standings import Source, Standing
from axes_async.text import printable


class Outcome(StrEnum):
    """What the attempt would meet."""

    OFF = "off"
    REFUSED = "refused"
    EXEMPT = "exempt"
    COUNTED = "counted"
    NO_RULE = "no rule"
    UNAVAILABLE = "unavailable"
    UNCHECKED = "unchecked"
    LOCKED = "locked"
    BUSY = "busy"
    CHECKED = "checked"


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """One counter of the attempt."""

    words: str
    store: Standing | None
    """As the store has it, if it could be asked."""
    rows: Standing | None
    """As the rows have it, if there is one."""

    @property
    def decisive(self) -> Standing | None:
        return self.store or self.rows

    def both(self) -> list[tuple[str, Standing | None]]:
        return [(_("store"), self.store), (_("rows"), self.rows)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    client: Client
    settings: AxesSettings
    exemption: Exemption
    reason: str
    """The setting behind the exemption; '' without one."""
    source: Source
    counters: list[Counted]
    others: list[str]
    """Lockouts of the same name or address that this very attempt would not meet."""
    outcome: Outcome
    at: int

    @property
    def locked_until(self) -> int | None:
        """When the longest lockout that it meets ends, in epoch ms; 0: by an unlock; ``None``: it meets none."""
        met = [one.decisive for one in self.counters if one.decisive is not None and one.decisive.is_locked]
        ends = [standing.locked_until for standing in met]
        return None if not ends else 0 if 0 in ends else max(ends)

    @property
    def left(self) -> int | None:
        """How many failures more would lock; ``None``: none would."""
        counts = [one.decisive for one in self.counters if one.decisive is not None and one.decisive.limit]
        return min((one.limit - one.failures for one in counts), default=None)

    def as_json(self) -> dict[str, Any]:
        client = self.client
        return {
            "username": {"shown": client.username, "counted_as": client.canonical["username"]},
            "ip_address": {"shown": client.ip_address, "counted_as": client.canonical["ip_address"]},
            "worked_out": list(self.worked_out()),
            "exemption": self.exemption.name.lower(),
            "setting": self.reason,
            "asked": self.source,
            "counters": [
                {"counter": one.words, "store": _facts(one.store), "rows": _facts(one.rows)} for one in self.counters
            ],
            "other_lockouts": self.others,
            "outcome": self.outcome,
            "locked_until": self.locked_until,
            "failures_left": self.left,
        }

    def worked_out(self) -> Iterator[str]:
        """Return how the address and the name are worked out, each as a sentence."""
        settings, address = self.settings, parse_address(self.client.ip_address or "")
        canonical = self.client.canonical
        for value, counted in (
            (self.client.ip_address, canonical["ip_address"]),
            (self.client.username, canonical["username"]),
        ):
            if value is not None:
                shown = {"value": printable(value), "counted": printable(counted or "-")}
                yield _("%(value)s counts as %(counted)s.") % shown
        if settings.client_ip_callable is not None:
            yield _("The address of a request is what %s returns.") % "AXES_CLIENT_IP_CALLABLE"
        elif address is not None and address in settings.trusted_proxies:
            yield _("%s is a trusted proxy: clients behind it are found in the header that it sends.") % address
        else:
            yield _("The address of a request is %s, and behind a trusted proxy the one in its header.") % "REMOTE_ADDR"
        if settings.username_callable is not None:
            yield _("The username of a request is what %s returns.") % "AXES_USERNAME_CALLABLE"

    def verdict(self) -> str:
        """Return what the attempt would meet, as a sentence."""
        texts = {
            Outcome.OFF: _("Nothing is counted and nobody is locked out: %s is off.") % "AXES_ENABLED",
            Outcome.REFUSED: _("The attempt would be turned away, by %s.") % self.reason,
            Outcome.EXEMPT: _("The password would be checked, and a failure would not count, by %s.") % self.reason,
            Outcome.COUNTED: _("The password would be checked; a failure counts but never locks, by %s.") % self.reason,
            Outcome.NO_RULE: _("The password would be checked: no rule counts this client."),
            Outcome.UNAVAILABLE: _("The attempt would be turned away: the store cannot be asked."),
            Outcome.UNCHECKED: _("The password would be checked: the store cannot be asked, and nothing is counted."),
            Outcome.BUSY: _("The attempt would wait: as many passwords as are left are being checked now."),
            Outcome.CHECKED: _("The password would be checked."),
        }
        if self.outcome is Outcome.LOCKED:
            return _("The attempt would be turned away: %s.") % _end(self.locked_until or 0, self.at)
        if self.outcome is Outcome.CHECKED and self.left is not None:
            return texts[self.outcome] + " " + _("Failures until the next lockout: %s.") % self.left
        return texts[self.outcome]


def standing_words(standing: Standing) -> str:
    """Return how a counter stands, such as "5 of 5; locked for 12 minutes; turned away: 3; …"."""
    parts = [_("%(failures)s of %(limit)s") % {"failures": standing.failures, "limit": standing.limit}]
    parts.append(_end(standing.locked_until, standing.at) if standing.is_locked else _("not locked"))
    if standing.decides:
        parts += [_("turned away") + f": {standing.seen.blocked}"]
        parts += [_("password checks under way") + f": {standing.seen.reservations}"]
    return "; ".join(parts)


def _end(until: int, at: int) -> str:
    if not until:
        return _("locked until unlocked")
    left = until_in_words(until, at) if until - at >= 60_000 else _("less than a minute")
    return _("locked for %s") % left


def _facts(standing: Standing | None) -> dict[str, Any] | None:
    if standing is None:
        return None
    return {
        "failures": standing.failures,
        "limit": standing.limit,
        "reservations": standing.seen.reservations if standing.decides else None,
        "locked": standing.is_locked,
        "seconds_left": standing.seconds_left if standing.is_locked else None,
        "turned_away": standing.seen.blocked if standing.decides else None,
    }
