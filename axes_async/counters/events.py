"""What happened, as it travels: the event of one attempt, and its wire form.

Pure values: no Django, no Celery, no store. The store adds what became of the counters, in the step that changed them.
"""

from __future__ import annotations

import json
import re
from binascii import a2b_base64, b2a_base64
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import lru_cache
from itertools import accumulate
from secrets import randbits
from typing import Any, Self

from axes_async.counters.rules import DIGEST_LENGTH, PARAMETERS, Parameter


class Kind(StrEnum):
    FAILED = "failed"
    BLOCKED = "blocked"
    LOGGED_IN = "logged_in"
    LOGGED_OUT = "logged_out"


def new_id(now: int) -> str:
    """Return a new UUID version 7 (RFC 9562, 5.7) in hexadecimal; ``now`` is in epoch milliseconds."""
    random = randbits(74)
    return f"{now & (1 << 48) - 1:012x}7{random >> 62:03x}{0b10 << 62 | random & (1 << 62) - 1:016x}"


def parameter_bits(parameters: Iterable[Parameter]) -> int:
    """Return which of ``PARAMETERS`` there are, as a bit for each in their order."""
    return sum(1 << PARAMETERS.index(parameter) for parameter in parameters)


def parameters_of(bits: int) -> tuple[Parameter, ...]:
    """Return the parameters that ``parameter_bits`` made ``bits`` of."""
    return tuple(name for place, name in enumerate(PARAMETERS) if bits >> place & 1)


LARGEST = 1024
"""Bytes of a wire form at most, whatever a client sent. That of one or two changes fits by the bounds of its texts."""

OUTCOME, CHANGE = 25, 82
"""Bytes that an outcome takes at most without changes, and that each of them adds."""

_CHANGE = re.compile(
    rf"([\w-]{{{DIGEST_LENGTH}}}):([1-7]):(\d+):(\d{{1,16}}):(\d{{1,16}})(?::(\d{{1,16}})(?::(\d{{1,16}}))?)?", re.ASCII
)


@dataclass(frozen=True, slots=True)
class CounterChange:
    """What one step of a store did to one counter.

    Wire form, as ``counter.lua`` writes it too: ``digest:parameters:flags:limit:expires_at``, then ``:locked_until``
    and ``:end`` where they are not 0.
    """

    digest: str
    parameters: tuple[Parameter, ...]
    limit: int
    """The limit in force; 0: it never locks."""
    counted: bool = False
    cleared: bool = False
    locked: bool = False
    """Whether the counter was locked after the step."""
    prolonged: bool = False
    """Whether the step started the cool-off of a lockout anew."""
    expires_at: int = 0
    """When the counter starts over, in epoch milliseconds; 0: only by a reset."""
    locked_until: int = 0
    """When the lockout of a tier ends, in epoch milliseconds."""
    end: int = 0
    """When this very failure expires, in epoch milliseconds, under a rule with a rolling window."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the change in ``text``; raises ``ValueError`` for what is none."""
        found = _CHANGE.fullmatch(text)
        if found is None:
            raise ValueError("no change of a counter")
        digest, *numbers = found.groups("0")
        bits, flags, limit, expires_at, locked_until, end = map(int, numbers)
        counted, cleared, locked, prolonged = (flags & flag != 0 for flag in (1, 2, 4, 8))
        who = digest, parameters_of(bits), limit
        return cls(*who, counted, cleared, locked, prolonged, expires_at, locked_until, end)

    def text(self) -> str:
        flags = self.counted | self.cleared << 1 | self.locked << 2 | self.prolonged << 3
        numbers = [parameter_bits(self.parameters), flags, self.limit, self.expires_at]
        if self.locked_until or self.end:
            numbers += [self.locked_until, self.end] if self.end else [self.locked_until]
        return ":".join([self.digest, *map(str, numbers)])


@dataclass(frozen=True, slots=True)
class AttemptEvent:
    """One thing that happened to one client; never holds a password.

    Wire form: ``outcome body``. The body is a JSON list that is known before the store's step. The outcome,
    ``repeats|at|change|change…``, is added by the step, and has no space in it.
    """

    kind: Kind
    id: str
    """A UUID version 7 in hexadecimal."""
    username: str | None = None
    ip_address: str | None = None
    user_agent: str = ""
    http_accept: str = ""
    path_info: str = ""
    extra: dict[str, Any] = field(default_factory=dict)
    """What few have: ``session`` and ``login`` of a login or logout; ``address``, where it is no address; ``scope``,
    which is ``admin`` in an admin site."""
    repeats: int = 0
    """Of a blocked attempt: how many the lockout has turned away by now, this one included."""
    at: int = 0
    """When the store's step was done, by the store's clock, in epoch milliseconds; 0 before it."""
    changes: tuple[CounterChange, ...] = ()
    """What the step did to counters."""

    @property
    def time(self) -> int:
        """When it happened, in epoch milliseconds: by the store's clock, or by that in the id before the step."""
        return self.at or int(self.id[:12], 16)

    @property
    def locked(self) -> bool:
        """Whether the attempt met a lockout or set one."""
        return self.kind is Kind.BLOCKED or any(change.locked for change in self.changes)

    def body(self) -> str:
        """Return the part of the wire form that is known before the store's step; the id is in base64 there."""
        short = b2a_base64(bytes.fromhex(self.id), newline=False).rstrip(b"=").decode()
        who = _encoded(self.username, self.ip_address, self.user_agent, self.http_accept, self.path_info)
        return f'["{self.kind}","{short}",{who}{"," + _encode(self.extra) if self.extra else ""}]'

    def line(self) -> str:
        """Return the body in ASCII, for a log: no character of a name changes how the log is shown."""
        return json.dumps(json.loads(self.body()))

    def wire(self) -> str:
        outcome = "|".join([str(self.repeats), str(self.at), *(change.text() for change in self.changes)])
        return f"{outcome} {self.body()}"

    @classmethod
    def parse(cls, wire: str | bytes) -> Self:
        """Return the event of a wire form; raises ``ValueError`` for anything else, whatever its shape."""
        text = wire.decode() if isinstance(wire, bytes) else wire
        outcome, _, body = text.partition(" ")
        try:
            kind, short, username, ip_address, user_agent, http_accept, path_info, *rest = json.loads(body)
            event_id, extra = a2b_base64(f"{short}==").hex(), rest[0] if rest else {}
            repeats, at, *changes = outcome.split("|")
            texts: list[object] = [
                username or "",
                ip_address or "",
                user_agent,
                http_accept,
                path_info,
                *extra.values(),
            ]
            who = Kind(kind), event_id, username, ip_address, user_agent, http_accept, path_info
            event = cls(*who, extra, int(repeats), int(at), tuple(map(CounterChange.parse, changes)))
        except (TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"no event: {error}") from error
        if len(event_id) != 32 or not all(isinstance(text, str) for text in texts):
            raise ValueError("no event: a part of it has another type")
        return event

    def fitted(self, changes: int) -> Self:
        """Return this event with so much of its texts cut that it stays within ``LARGEST`` bytes with ``changes``."""
        if changes <= 2:
            return self
        event, room = self, LARGEST - OUTCOME - changes * CHANGE
        for name in ("http_accept", "path_info", "user_agent"):
            over = len(event.body().encode()) - room
            if over > 0:
                text = getattr(event, name)
                cut: dict[str, Any] = {name: wire_beginning(text, max(0, wire_bytes(text) - over))}
                event = replace(event, **cut)
        return event

    def applied(self, changes: Iterable[CounterChange], *, at: int, repeats: int = 0) -> Self:
        """Return this event with what the store's step adds."""
        return replace(self, changes=tuple(changes), at=at, repeats=repeats)


def wire_bytes(text: str) -> int:
    """Return how many bytes ``text`` takes in an event, without the quotes around it."""
    return len(_encode(text).encode()) - 2


def wire_beginning(text: str, most: int) -> str:
    """Return as much of ``text`` as takes at most ``most`` bytes in an event."""
    if wire_bytes(text) <= most:
        return text
    sizes = accumulate(map(wire_bytes, text))
    return text[: sum(size <= most for size in sizes)]


_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode
"""As short as JSON can be."""


@lru_cache(maxsize=256)
def _encoded(*texts: str | None) -> str:
    """Return ``texts`` as they stand in a JSON list; the steps of one attempt tell the same of its client."""
    return _encode(texts)[1:-1]


def worth_a_row(repeats: int) -> bool:
    """Return whether the blocked attempt number ``repeats`` of one lockout is recorded: one to ten, then doublings."""
    if repeats <= 10:
        return True
    tens, rest = divmod(repeats, 10)
    return rest == 0 and tens & (tens - 1) == 0
