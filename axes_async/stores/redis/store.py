"""Counters in Redis or Valkey: each step is one Lua script, and one round trip."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import chain, islice
from typing import Any

from axes_async.counters.events import AttemptEvent, CounterState, Kind, parameter_bits
from axes_async.counters.rules import Counter, Rule
from axes_async.errors import StoreCold, StoreFlushed
from axes_async.stores.contract import Place, Rows
from axes_async.stores.redis.outbox import RedisOutbox
from axes_async.stores.results import Outcome, Verdict

NUDGE_LASTS = 5_000
"""Milliseconds after which a nudge that brought no drain may be repeated."""

SCANNED = 500
"""Keys that the server looks at in one go when all counters are wanted; a millisecond or less."""

GLOB = re.compile(r"[*?\[\]^\\]")
"""What has a meaning in a pattern of ``SCAN``."""

HELD_AT_ONCE = 500
"""Places that the server takes over in one go."""

GENERATIONS = 3
"""How often a step is tried on a store that is flushed again and again meanwhile."""


class RedisStore(RedisOutbox):
    """The contract on one Redis or Valkey server, or on a cluster through a client given to us.

    :param client: a redis-py compatible client.
    :param namespace: goes into every key; sites that share a server differ in it.
    :param outbox_max: events that the outbox holds at most.
    :param database: names the database that the counters must be complete for.
    :param rows: what that database says of them; without it, whatever the server has is taken as complete.
    :param ours: whether the client is one of ``build_client``, whose way of sending commands can be shortened.
    """

    def __init__(
        self,
        client: Any,
        *,
        namespace: str = "axes",
        outbox_max: int = 1_000_000,
        database: str = "",
        rows: Rows | None = None,
        ours: bool = False,
    ) -> None:
        """Keep the client; nothing is sent yet."""
        super().__init__(client, namespace=namespace, database=database if rows is not None else "", ours=ours)
        self.outbox_max, self.rows = outbox_max, rows
        self._met = ""
        self._fixed_keys = (self.outbox_key, self.nudged_key, self.overflow_key, self.warmth_key, self.born_key)

    def reserve(
        self,
        token: str,
        counters: Sequence[Counter],
        event: AttemptEvent | None,
        *,
        now: int,
        lease: int,
        extend: bool,
    ) -> Outcome:
        """See ``Store.reserve``."""
        flag = "1" if extend else "0"
        reply = self._step("reserve", counters, now, token, lease, event, flag)
        verdict, until, nudge, repeats, *told = reply.split(b"|")
        if verdict == b"0":
            return Outcome(told=told)
        limit = _limit_told(told) if until != b"0" else 0
        return Outcome(Verdict(int(verdict)), int(until), limit, nudge=nudge == b"1", repeats=int(repeats), told=told)

    def fail(
        self,
        token: str,
        counters: Sequence[Counter],
        release: Sequence[Counter],
        event: AttemptEvent,
        *,
        now: int,
        lease: int,
        extend: bool,
        again: bool = False,
    ) -> Outcome:
        """See ``Store.fail``."""
        flag = f"{int(extend)}{int(again)}{len(release)}"
        reply = self._step("fail", [*counters, *release], now, token, lease, event, flag)
        until, newly, nudge, *told = reply.split(b"|")
        if until == b"0":
            return Outcome(nudge=nudge == b"1", told=told)
        limit, newly_locked = _limit_told(told), newly == b"1"
        return Outcome(Verdict.LOCKED, int(until), limit, newly_locked, nudge=nudge == b"1", told=told)

    def succeed(
        self,
        token: str,
        counters: Sequence[Counter],
        clear: Sequence[Counter],
        event: AttemptEvent,
        *,
        now: int,
        lease: int,
        always: bool,
        again: bool = False,
    ) -> Outcome:
        """See ``Store.succeed``."""
        kept = [counter for counter in counters if counter not in clear]
        flag = f"{int(always)}{int(again)}{len(clear)}"
        every = [*kept, *clear]
        nudge, *standing = self._step("succeed", every, now, token, lease, event, flag)
        found = (
            {counter.digest: failures for counter, failures in zip(every, standing, strict=True)} if standing else None
        )
        return Outcome(nudge=bool(nudge), standing=found)

    def release(self, token: str, counters: Sequence[Counter], *, now: int) -> None:
        """See ``Store.release``."""
        self.run("release", [self.counter_prefix + counter.digest for counter in counters], [token])

    def peek(self, counters: Sequence[Counter], *, now: int) -> Outcome:
        """See ``Store.peek``."""
        ends, *texts = self._step("peek", counters, now, "", 0, None, "")
        if not int(ends):
            return Outcome()
        return Outcome(Verdict.LOCKED, int(ends), _limit_reached(texts))

    def record(self, event: AttemptEvent) -> Outcome:
        """See ``Store.record``."""
        flag = f"{event.repeats}{'!' if event.kind is Kind.RESET else ''}"
        (nudge,) = self._step("record", (), 0, "", 0, event, flag)
        return Outcome(nudge=bool(nudge))

    def adjust(self, states: Sequence[CounterState], *, now: int, lease: int) -> None:
        """See ``Store.adjust``."""
        if states:
            self.run("adjust", *self._for_states(states, now, lease, ""))

    def states(self, counters: Sequence[Counter], *, now: int) -> list[CounterState]:
        """See ``Store.states``."""
        texts = self._step("peek", counters, now, "", 0, None, "")[1:]
        return [CounterState.parse(text.decode()) for text in texts]

    def digests(self) -> Iterator[list[str]]:
        """See ``OutboxStore.digests``."""
        pattern = GLOB.sub(r"\\\g<0>", self.counter_prefix) + "*"
        # On a cluster, that asks every node.
        keys = self.call(lambda: self.client.scan_iter(match=pattern, count=SCANNED))
        while portion := self.call(lambda: list(islice(keys, SCANNED))):
            yield [key.decode().removeprefix(self.counter_prefix) for key in portion]

    def forget(self, digests: Sequence[str], *, before: int, lease: int) -> None:
        """See ``OutboxStore.forget``."""
        if digests:
            self.run("forget", [self.counter_prefix + digest for digest in digests], [before, lease])

    def hold(self, places: Sequence[Place], *, now: int) -> None:
        """See ``OutboxStore.hold``."""
        for first in range(0, len(places), HELD_AT_ONCE):
            some = places[first : first + HELD_AT_ONCE]
            arguments: list[str | int] = [now]
            for place in some:
                arguments += place.token, place.end
            self.run("hold", [self.counter_prefix + place.digest for place in some], arguments)

    def is_cold(self) -> bool:
        """See ``OutboxStore.is_cold``."""
        return bool(self.database) and self._warmth() != f"warm:{self.database}"

    def rebuild(self, states: Iterable[Sequence[CounterState]], *, now: int, lease: int) -> bool:
        """See ``OutboxStore.rebuild``."""
        if not self._warmth().startswith("cold:"):
            self.cool()
        warmth = self._warmth()
        flag = f"rebuild {warmth.removeprefix('cold:')}"
        for portion in chain([()], states):
            while (done := self.run("adjust", *self._for_states(portion, now, lease, flag))) < -1:
                time.sleep(-done / 1000)
            if done < 0:
                return False
        return self._warm_up(warmth)

    def _warmth(self) -> str:
        return (self.call(lambda: self.client.get(self.warmth_key)) or b"").decode()

    def _warm_up(self, cold: str) -> bool:
        return bool(self.run("warmth", [self.warmth_key], [cold, f"warm:{self.database}"]))

    def _step(
        self,
        name: str,
        counters: Sequence[Counter],
        now: int,
        token: str,
        lease: int,
        event: AttemptEvent | None,
        flag: str,
    ) -> Any:
        """Run a script with the keys and arguments that ``common.lua`` names; in a cold store, ask the rows first."""
        keys = [*self._fixed_keys]
        body = "" if event is None else event.body()
        arguments: list[str | int] = [
            now, token, lease, body, self.outbox_max, NUDGE_LASTS, flag, self.database,
        ]  # fmt: skip
        for counter in counters:
            keys.append(self.counter_prefix + counter.digest)
            arguments += _of_rule(counter.rule)
        for _ in range(GENERATIONS):
            try:
                return self.run(name, keys, arguments)
            except StoreFlushed as error:
                if not self._is_new(error.generation):
                    raise
            except StoreCold:
                asked = self._asked([counter.digest for counter in counters])
                arguments[len(arguments) - 4 * len(counters) + 3 :: 4] = asked
        raise StoreCold("The store is flushed faster than its counters can be taken from the rows.")

    def _is_new(self, generation: str) -> bool:
        """Return whether a store that lacks its counters has none to miss, by the rows; else have told what was heard.

        That is a new store, or one that was emptied on purpose together with the tables, as between tests.
        """
        if self.rows is None or generation == self._met:
            return False
        self._met = generation
        is_new = self.rows.is_empty()
        self.when_flushed(not is_new)
        return is_new and self._warm_up(f"cold:{generation}")

    def _asked(self, digests: Sequence[str]) -> list[str]:
        """Return what the rows say of counters, as ``common.lua`` takes it; if they count nothing at all, be warm."""
        if self.rows is None:
            return ["-"] * len(digests)
        warmth = self._warmth()
        known = self.rows.states(digests)
        if known is None:
            self._warm_up(warmth)
            known = {}
        return [_seed(known[digest]) if digest in known else "-" for digest in digests]

    def _for_states(
        self, states: Sequence[CounterState], now: int, lease: int, flag: str
    ) -> tuple[list[str], list[str | int]]:
        """Return keys and arguments of ``adjust.lua``."""
        keys = [*self._fixed_keys, *(self.counter_prefix + state.digest for state in states)]
        arguments: list[str | int] = [now, "", lease, "", self.outbox_max, NUDGE_LASTS, flag, self.database]
        for state in states:
            arguments += state.limit, 0, parameter_bits(state.parameters), _seed(state)
        return keys, arguments


@lru_cache(maxsize=1024)
def _of_rule(rule: Rule) -> tuple[int | str, int, int, str]:
    """Return what the scripts are told of a counter under ``rule``, of which the rows have not been asked."""
    tiers = ",".join(f"{tier.failures}/{tier.lasts_ms}" for tier in rule.tiers)
    window = -rule.window_ms if rule.rolling else rule.window_ms
    return tiers or rule.limit, window, parameter_bits(rule.parameters), ""


def _limit_told(told: Iterable[bytes]) -> int:
    """Return the lowest limit that one of the counters has reached, each as a script told of it."""
    return _limit_reached(text.rpartition(b":")[0] for text in told)


def _limit_reached(texts: Iterable[bytes]) -> int:
    """Return the lowest limit that one of the counters has reached, each given by its wire form."""
    states = [CounterState.parse(text.decode()) for text in texts]
    return min((state.limit for state in states if state.locked), default=0)


def _seed(state: CounterState) -> str:
    ends = ",".join(map(str, state.ends))
    return f"{state.epoch}:{state.failures}:{state.lifted}:{state.expires_at}:{state.locked_until}:{ends}"
