"""Counters in Redis or Valkey: each step is one function of the server, and one round trip."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from axes_async.counters.events import parameter_bits
from axes_async.counters.rules import Counter, Rule
from axes_async.counters.state import CounterState, ends_of
from axes_async.errors import StoreIncomplete
from axes_async.stores.redis.connection import bulk
from axes_async.stores.redis.library import library
from axes_async.stores.redis.outbox import RedisOutbox
from axes_async.stores.redis.server import fixed_time
from axes_async.stores.results import SeenCounter, StepResult, Verdict
from axes_async.stores.step import Step, StepKind

TRIES = 3
"""How often a step is sent whose generation is another one each time."""

ARGUMENTS = 8
"""How many a step has beside the rules of its counters (``steps.lua``)."""

VERDICTS = tuple(Verdict)


class RedisStore(RedisOutbox):
    """The contract on one Redis (7 or newer) or Valkey server, by whatever client, or on one slot of a cluster.

    :param client: a redis-py client: ``redis.Redis``, that of a Sentinel, or ``RedisCluster``.
    :param namespace: goes into every key; sites, and databases, that share a server differ in it.
    :param outbox_max: events that the outbox holds at most.
    :param outbox_max_bytes: memory of the server that the outbox takes at most; looked at once it is a long one.
    """

    def __init__(
        self, client: Any, *, namespace: str = "axes", outbox_max: int = 1_000_000, outbox_max_bytes: int = 2**29
    ) -> None:
        super().__init__(client, namespace=namespace)
        self.generation = 0
        keys = (self.state_key, self.outbox_key, self.nudged_key, self.overflow_key)
        self._fixed_keys, self._bulk_max = "".join(map(bulk, keys)), bulk(str(outbox_max)) + bulk(str(outbox_max_bytes))

    def do(self, step: Step) -> StepResult:
        reply = self._told(step.kind, step, _flags(step))
        verdict, until, limit, newly, nudge, repeats, *failures = map(int, reply.split(b"|"))
        return StepResult(
            VERDICTS[verdict], until, limit, newly == 1, nudge == 1, repeats=repeats, failures=tuple(failures)
        )

    def look(self, counters: Sequence[Counter]) -> list[SeenCounter]:
        if not counters:
            return []
        return [_seen(text) for text in self._told("look", Step(StepKind.PEEK, counters=counters)).decode().split("|")]

    def _told(self, name: str, step: Step, flags: str = "") -> bytes:
        """Call a function of ``steps.lua`` in the generation that is in force, and return its reply."""
        counters, event = step.all_counters, step.event
        parts = [f"*{3 + 4 + ARGUMENTS + 2 * len(counters)}\r\n$5\r\nFCALL\r\n", bulk(library().prefix + name)]
        parts += bulk(str(4 + len(counters))), self._fixed_keys
        parts += [bulk(self.counter_prefix + counter.digest) for counter in counters]
        place = len(parts)
        parts += "", bulk(fixed_time()), bulk(step.token), bulk(str(step.lease))
        parts += bulk("" if event is None else event.body()), self._bulk_max, bulk(flags)
        parts += [_of_rule(counter.rule) for counter in counters]
        for _ in range(TRIES):
            generation = self.generation
            self.sent_in = generation or self.sent_in  # In none, nothing is done.
            parts[place] = bulk(str(generation))
            reply: bytes = self.call("".join(parts).encode())
            if not reply.startswith((b"i", b"g")):
                return reply
            if reply == b"incomplete":
                raise StoreIncomplete("The store does not have all counters of our database.")
            if step.again:
                raise StoreIncomplete("The generation has changed; the database knows whether the step was done.")
            self.generation = int(reply.split()[1])
        raise StoreIncomplete("The generation of the store changes faster than a step can be sent.")


def _flags(step: Step) -> str:
    """Return the argument that the function of each step has for itself."""
    match step.kind:
        case StepKind.RESERVE:
            return f"{step.extend:d}"
        case StepKind.FAIL:
            return f"{step.extend:d}{step.again:d}{len(step.release)}"
        case StepKind.SUCCEED:
            cleared = {counter.digest for counter in step.clear}
            each = ["1" if counter.digest in cleared else "0" for counter in step.counters]
            return f"{step.always:d}{step.again:d}{''.join(each)}"
        case StepKind.RECORD if step.event is not None:
            return str(step.event.repeats)
    return ""


@lru_cache(maxsize=1024)
def _of_rule(rule: Rule) -> str:
    """Return a rule as ``rules.lua`` takes it, packed."""
    text = f"{rule.limit}:{rule.window_ms}:{parameter_bits(rule.parameters)}"
    if rule.tiers:
        text += ":" + ",".join([f"{tier.failures}/{tier.lasts_ms}" for tier in rule.tiers])
    elif rule.rolling:
        text += ":r"
    return bulk(text)


def _seen(text: str) -> SeenCounter:
    *numbers, ends = text.split(":")
    failures, since, expires_at, locked_until, blocked, reservations = map(int, numbers)
    return SeenCounter(CounterState(failures, since, expires_at, locked_until, ends_of(ends)), blocked, reservations)
