"""What happened, as it travels: the event of one attempt and its wire form.

Pure values: no Django, no Celery, no store. The state of the counters is added by the store, in the same step that
changes them.
"""

from __future__ import annotations

import json
from binascii import a2b_base64, b2a_base64
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import lru_cache
from secrets import randbits
from typing import Any, Self

from axes_async.counters.rules import PARAMETERS, Counter, Parameter


class Kind(StrEnum):
    """What an event tells."""

    FAILED = "failed"
    BLOCKED = "blocked"
    LOGGED_IN = "logged_in"
    LOGGED_OUT = "logged_out"
    RESET = "reset"


def new_id(now: int) -> str:
    """Return a new UUID version 7 (RFC 9562, 5.7) as 32 hexadecimal digits; ``now`` is in epoch milliseconds."""
    random = randbits(74)
    return f"{now & (1 << 48) - 1:012x}7{random >> 62:03x}{0b10 << 62 | random & (1 << 62) - 1:016x}"


def parameter_bits(parameters: Iterable[Parameter]) -> int:
    """Return which of ``PARAMETERS`` there are, as a bit for each in their order."""
    return sum(1 << PARAMETERS.index(parameter) for parameter in parameters)


def parameters_of(bits: int) -> tuple[Parameter, ...]:
    """Return the parameters that ``parameter_bits`` made ``bits`` of."""
    return tuple(name for place, name in enumerate(PARAMETERS) if bits >> place & 1)


_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode
"""As short as JSON can be."""

_CLEARED, _ALONE, _ALIKE = 1, 2, 4
"""Flags of a counter's wire form: the life was ended; each failure ends alone; all of them at the same time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CounterState:
    """A counter as the store saw it in the step that made an event."""

    digest: str
    parameters: tuple[Parameter, ...]
    epoch: int
    """When this life of the counter began, in epoch milliseconds: a cleared counter that counts again has a new one."""
    failures: int
    """All failures of this life, those taken back since included."""
    lifted: int
    """Failures of this life that resets took back."""
    expires_at: int
    """When the counter starts over, in epoch milliseconds; 0: only by a reset."""
    limit: int
    """Failures at which it locks, of tiers the limit that was in force; 0: never."""
    cleared: bool = False
    """Whether the step ended this life."""
    locked_until: int = 0
    """When the lockout of a tier that is in force ends, in epoch milliseconds; 0 without one."""
    ends: tuple[int, ...] = ()
    """When each failure ends, where each does so alone. The wire form has the last end, or that all are the same."""

    @property
    def standing(self) -> int:
        """The failures that still count."""
        return 0 if self.cleared else max(0, self.failures - self.lifted)

    @property
    def locked(self) -> bool:
        """Whether the counter was locked after the step."""
        return 0 < self.limit <= self.standing

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the state in ``text``, as ``common.lua`` and ``CounterState.text`` write it."""
        digest, *numbers = text.split(":")
        bits, epoch, failures, lifted, lasts, limit, *more = map(int, numbers)
        flags, lock = (*more, 0, 0)[:2]
        expires_at = epoch + lasts if lasts else 0
        alike = max(1, failures - lifted) if flags & _ALIKE else 1
        return cls(
            digest=digest,
            parameters=parameters_of(bits),
            epoch=epoch,
            failures=failures,
            lifted=lifted,
            expires_at=expires_at,
            limit=limit,
            cleared=bool(flags & _CLEARED),
            locked_until=epoch + lock if lock else 0,
            ends=(expires_at,) * alike if flags & _ALONE else (),
        )

    def text(self) -> str:
        """Return the wire form: ends as their distance from the epoch, then flags and a lockout's end where needed."""
        flags = _CLEARED if self.cleared else 0
        if self.ends:
            flags |= _ALONE | (_ALIKE if len(self.ends) > 1 and self.ends[0] == self.ends[-1] else 0)
        more = [flags, self.locked_until - self.epoch] if self.locked_until else [flags] if flags else []
        numbers = (
            parameter_bits(self.parameters),
            self.epoch,
            self.failures,
            self.lifted,
            (self.expires_at - self.epoch or 1) if self.expires_at else 0,
            self.limit,
            *more,
        )
        return ":".join([self.digest, *map(str, numbers)])


def untouched(counter: Counter) -> CounterState:
    """Return the state of a counter that has counted nothing."""
    return CounterState(
        digest=counter.digest,
        parameters=counter.rule.parameters,
        epoch=0,
        failures=0,
        lifted=0,
        expires_at=0,
        limit=counter.rule.limit,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptEvent:
    """One thing that happened to one client; never holds a password."""

    kind: Kind
    id: str
    """A UUID version 7 in hexadecimal; its first 48 bits are the time of the attempt."""
    username: str | None = None
    ip_address: str | None = None
    user_agent: str = ""
    http_accept: str = ""
    path_info: str = ""
    extra: dict[str, Any] = field(default_factory=dict)
    """What only one kind has: ``session`` and ``login`` of a login or logout, what a ``reset`` is to reach."""
    repeats: int = 0
    """Of a blocked attempt: how many the lockout has turned away by now, this one included."""
    counters: tuple[CounterState, ...] = ()
    """The counters that the step changed."""

    @property
    def time(self) -> int:
        """When it happened, in epoch milliseconds."""
        return int(self.id[:12], 16)

    @property
    def locked(self) -> bool:
        """Whether the attempt met a lockout or set one."""
        return self.kind is Kind.BLOCKED or any(state.locked for state in self.counters)

    def body(self) -> str:
        """Return the part of the wire form that is known before the store's step; the id is in base64 there."""
        short = b2a_base64(bytes.fromhex(self.id), newline=False).rstrip(b"=").decode()
        who = _encoded(self.username, self.ip_address, self.user_agent, self.http_accept, self.path_info)
        return f'["{self.kind}","{short}",{who}{"," + _encode(self.extra) if self.extra else ""}]'

    def line(self) -> str:
        """Return the body in ASCII, for a log: no character of a name changes how the log is shown."""
        return json.dumps(json.loads(self.body()), separators=(",", ":"))

    def outcome(self) -> str:
        """Return the part of the wire form that the store's step adds."""
        return "|".join([str(self.repeats), *(state.text() for state in self.counters)])

    def wire(self) -> bytes:
        """Return both parts as one JSON list, as an event that is set aside is kept."""
        return _encode([self.body(), self.outcome()]).encode()

    @classmethod
    def parse(cls, body: str | bytes, outcome: str) -> Self:
        """Return the event of a wire form; raises ``ValueError`` for what is none."""
        parts = json.loads(body)
        if not isinstance(parts, list) or not 7 <= len(parts) <= 8:
            raise ValueError("an event is a list of seven or eight parts")
        kind, short, username, ip_address, user_agent, http_accept, path_info, *extra = parts
        event_id = a2b_base64(f"{short}==").hex()
        if len(event_id) != 32:
            raise ValueError("an event's id has 16 bytes")
        repeats, *states = outcome.split("|")
        return cls(
            kind=Kind(kind),
            id=event_id,
            username=username,
            ip_address=ip_address,
            user_agent=user_agent,
            http_accept=http_accept,
            path_info=path_info,
            extra=extra[0] if extra else {},
            repeats=int(repeats),
            counters=tuple(CounterState.parse(state) for state in states),
        )

    def seen(self, counters: Iterable[CounterState], *, repeats: int = 0) -> Self:
        """Return this event with what the store's step adds."""
        return replace(self, counters=tuple(counters), repeats=repeats)


@lru_cache(maxsize=256)
def _encoded(*texts: str | None) -> str:
    """Return ``texts`` as they stand in a JSON list; the two steps of one attempt tell the same of its client."""
    return _encode(texts)[1:-1]


def worth_a_row(repeats: int) -> bool:
    """Return whether the blocked attempt number ``repeats`` of one lockout is recorded: one to ten, then doublings."""
    if repeats <= 10:
        return True
    tens, rest = divmod(repeats, 10)
    return rest == 0 and tens & (tens - 1) == 0
