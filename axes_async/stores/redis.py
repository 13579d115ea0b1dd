"""Counters and outbox in Redis or Valkey: each step is one Lua script, and one round trip.

The client is our own, with bounded waits and without retries: a step that is sent twice would count twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache, lru_cache, partial
from hashlib import sha1
from importlib.resources import files
from secrets import token_hex
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError
from redis.retry import Retry

from axes_async.errors import StoreBusy, StoreCold, StoreUnavailable
from axes_async.events import AttemptEvent, CounterState, Kind, parameter_bits
from axes_async.policy import Counter, Rule
from axes_async.stores.base import DeadLetter, Outbox, OutboxStore, Outcome, Rows, Verdict
from axes_async.stores.line import Line, packed

POOL_SIZE = 256
"""Connections a process opens at most; they are opened as threads need them."""

POOL_WAIT = 0.2
"""Seconds that a thread beyond these waits for one of them."""

NUDGE_LASTS = 5_000
"""Milliseconds after which a nudge that brought no drain may be repeated."""

SCANNED = 500
"""Keys that the server looks at in one go when all counters are wanted; a millisecond or less."""

GENERATIONS = 3
"""How often a step is tried on a store that is flushed again and again meanwhile."""

STEPS = ("reserve", "fail", "succeed", "peek", "record", "adjust")
"""The scripts that common.lua is prepended to."""

SCRIPTS = (*STEPS, "release", "trim", "forget", "outbox", "warmth", "rest", "put_back")
"""All of them."""


@cache
def script(name: str) -> tuple[str, str]:
    """Return the source of the script ``name`` and its SHA-1, by which a server that has it knows it."""
    folder = files(__package__)
    source = folder.joinpath(f"{name}.lua").read_text(encoding="utf-8")
    if name in STEPS:
        source = folder.joinpath("common.lua").read_text(encoding="utf-8") + source
    return source, sha1(source.encode(), usedforsecurity=False).hexdigest()


def build_client(url: str, options: Mapping[str, Any], *, timeout: float) -> redis.Redis:
    """Return a client for the server at ``url``, with ``timeout`` in seconds to connect and to answer.

    ``options`` are keyword arguments of redis-py's connection, such as ``username`` and ``password``.
    """
    pool = redis.BlockingConnectionPool.from_url(
        url.replace("valkey", "redis", 1) if url.startswith("valkey") else url,
        **{
            **options,
            "max_connections": POOL_SIZE,
            "timeout": POOL_WAIT,
            "socket_timeout": timeout,
            "socket_connect_timeout": timeout,
            "retry": Retry(NoBackoff(), 0),
            "decode_responses": False,
        },
    )
    return redis.Redis(connection_pool=pool)


class RedisStore(OutboxStore):
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
        self.client = client
        self.outbox_max = outbox_max
        self.line = Line(client.connection_pool, size=POOL_SIZE, wait=POOL_WAIT) if ours else None
        self.rows = rows
        self.database = database if rows is not None else ""
        tag = "{" + namespace.translate(str.maketrans("", "", "{}")) + "}"
        self._counter = f"{tag}:c:"
        self.outbox_key, self.nudged_key, self.overflow_key = (f"{tag}:{name}" for name in ("outbox", "nudged", "over"))
        self.dead_letters_key, self.probe_key = f"{tag}:dead", f"{tag}:probe"
        self.warmth_key, self.born_key = f"{tag}:warmth", f"{tag}:born"
        self._fixed_keys = (self.outbox_key, self.nudged_key, self.overflow_key, self.warmth_key, self.born_key)

    def close(self) -> None:
        """Close the connections that are our own and not in use now."""
        if self.line is not None:
            self.line.close()
            self.client.close()

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
        verdict, until, nudge, repeats, *told = self._step("reserve", counters, now, token, lease, event, flag)
        limit = _limit_reached(text.rpartition(b":")[0] for text in told) if until else 0
        return Outcome(Verdict(verdict), until, limit, nudge=bool(nudge), repeats=repeats, told=told)

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
        until, newly, nudge, *told = self._step("fail", [*counters, *release], now, token, lease, event, flag)
        verdict = Verdict.LOCKED if until else Verdict.ALLOWED
        limit = _limit_reached(text.rpartition(b":")[0] for text in told) if until else 0
        return Outcome(verdict, until, limit, newly_locked=bool(newly), nudge=bool(nudge), told=told)

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
        self._run("release", [self._counter + counter.digest for counter in counters], [token])

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
            self._run("adjust", *self._for_states(states, now, lease, ""))

    def states(self, counters: Sequence[Counter], *, now: int) -> list[CounterState]:
        """See ``Store.states``."""
        texts = self._step("peek", counters, now, "", 0, None, "")[1:]
        return [CounterState.parse(text.decode()) for text in texts]

    def read(self, after: str, count: int) -> list[tuple[str, AttemptEvent | bytes]]:
        """See ``OutboxStore.read``."""
        entries = self._call(lambda: self.client.xrange(self.outbox_key, min=f"({after}", count=count))
        return [(position.decode(), self._event(fields)) for position, fields in entries]

    def trim(self, name: str, position: str) -> None:
        """See ``OutboxStore.trim``."""
        milliseconds, _, number = position.partition("-")
        self._run("trim", [self.outbox_key, self.born_key], [name, f"{milliseconds}-{int(number) + 1}"])

    def digests(self) -> Iterator[list[str]]:
        """See ``OutboxStore.digests``."""
        place = 0
        while True:
            place, keys = self._call(partial(self.client.scan, place, match=f"{self._counter}*", count=SCANNED))
            if keys:
                yield [key.decode().removeprefix(self._counter) for key in keys]
            if not place:
                return

    def forget(self, digests: Sequence[str], *, before: int, lease: int) -> None:
        """See ``OutboxStore.forget``."""
        if digests:
            self._run("forget", [self._counter + digest for digest in digests], [before, lease])

    def probe(self) -> None:
        """See ``Store.probe``."""
        if self.line is not None:
            self._call(partial(self.line.send, packed(("SET", self.probe_key, 1, "PX", 1000))))
        else:
            self._call(partial(self.client.set, self.probe_key, 1, px=1000))

    def eviction(self) -> str:
        """See ``OutboxStore.eviction``."""
        try:
            told = self._call(lambda: self.client.info("memory")).get("maxmemory_policy", "")
        except AttributeError:
            return ""
        return str(told)

    def outbox(self) -> Outbox:
        """See ``OutboxStore.outbox``."""
        name, last, events, oldest = self._run("outbox", [self.outbox_key, self.born_key], [])
        return Outbox(name.decode(), last.decode(), events, oldest.decode())

    def is_cold(self) -> bool:
        """See ``OutboxStore.is_cold``."""
        return bool(self.database) and self._warmth() != f"warm:{self.database}"

    def cool(self) -> None:
        """See ``OutboxStore.cool``."""
        self._call(lambda: self.client.set(self.warmth_key, f"cold:{token_hex(4)}"))

    def rebuild(self, states: Iterable[Sequence[CounterState]], *, now: int, lease: int) -> bool:
        """See ``OutboxStore.rebuild``."""
        if not self._warmth().startswith("cold:"):
            self.cool()
        warmth = self._warmth()
        flag = f"rebuild {warmth.removeprefix('cold:')}"
        for portion in states:
            if self._run("adjust", *self._for_states(portion, now, lease, flag)) < 0:
                return False
        return self._warm_up(warmth)

    def _warmth(self) -> str:
        return (self._call(lambda: self.client.get(self.warmth_key)) or b"").decode()

    def _warm_up(self, cold: str) -> bool:
        return bool(self._run("warmth", [self.warmth_key], [cold, f"warm:{self.database}"]))

    def rest(self, position: str, *, linger: int = 0) -> bool:
        """See ``OutboxStore.rest``."""
        return bool(self._run("rest", [self.outbox_key, self.nudged_key], [position, linger]))

    def set_aside(self, entry: bytes, error: str) -> None:
        """See ``OutboxStore.set_aside``."""
        self._call(lambda: self.client.xadd(self.dead_letters_key, {"entry": entry, "error": error}))

    def dead_letters(self, after: str, count: int) -> list[DeadLetter]:
        """See ``OutboxStore.dead_letters``."""
        entries = self._call(lambda: self.client.xrange(self.dead_letters_key, min=f"({after}", count=count))
        return [DeadLetter(place.decode(), kept[b"entry"], kept[b"error"].decode()) for place, kept in entries]

    def dead_letter_count(self) -> int:
        """See ``OutboxStore.dead_letter_count``."""
        return int(self._call(lambda: self.client.xlen(self.dead_letters_key)))

    def put_back(self, letter: DeadLetter, body: str, outcome: str) -> None:
        """See ``OutboxStore.put_back``."""
        self._run("put_back", [self.outbox_key, self.born_key, self.dead_letters_key], [letter.position, body, outcome])

    def overflow(self) -> int:
        """See ``OutboxStore.overflow``."""
        return int(self._call(lambda: self.client.get(self.overflow_key)) or 0)

    @staticmethod
    def _event(fields: Mapping[bytes, bytes]) -> AttemptEvent | bytes:
        try:
            return AttemptEvent.parse(fields[b"v1"], fields[b"c"].decode())
        except (KeyError, ValueError, TypeError):
            return repr(fields).encode()

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
            keys.append(self._counter + counter.digest)
            arguments += _of_rule(counter.rule)
        for _ in range(GENERATIONS):
            try:
                return self._run(name, keys, arguments)
            except StoreCold:
                asked = self._asked([counter.digest for counter in counters])
                arguments[len(arguments) - 4 * len(counters) + 3 :: 4] = asked
        raise StoreCold("The store is flushed faster than its counters can be taken from the rows.")

    def _asked(self, digests: Sequence[str]) -> list[str]:
        """Return what the rows say of counters, as ``common.lua`` takes it; if they count nothing at all, be warm."""
        if self.rows is None:
            return ["-"] * len(digests)
        warmth = self._warmth()
        if self.rows.is_empty():
            self._warm_up(warmth)
        known = self.rows.states(digests)
        return [_seed(known[digest]) if digest in known else "-" for digest in digests]

    def _for_states(
        self, states: Sequence[CounterState], now: int, lease: int, flag: str
    ) -> tuple[list[str], list[str | int]]:
        """Return keys and arguments of ``adjust.lua``."""
        keys = [*self._fixed_keys, *(self._counter + state.digest for state in states)]
        arguments: list[str | int] = [now, "", lease, "", self.outbox_max, NUDGE_LASTS, flag, self.database]
        for state in states:
            arguments += state.limit, 0, parameter_bits(state.parameters), _seed(state)
        return keys, arguments

    def _run(self, name: str, keys: Sequence[str], arguments: Sequence[str | int]) -> Any:
        source, sha = script(name)
        try:
            if self.line is not None:
                command = packed(("EVALSHA", sha, len(keys), *keys, *arguments))
                return self._call(partial(self.line.send, command))
            return self._call(partial(self.client.evalsha, sha, len(keys), *keys, *arguments))
        except NoScriptError:
            self._get_to_know()
            return self._call(partial(self.client.eval, source, len(keys), *keys, *arguments))

    def _get_to_know(self) -> None:
        """Give the server all scripts. One that had none was restarted, or took over: its counters may be old ones."""
        scripts = [script(name) for name in SCRIPTS]
        known = self._call(lambda: self.client.script_exists(*[sha for _, sha in scripts]))
        if self.database and not any(known):
            self.cool()
        for source, _ in scripts:
            self._call(partial(self.client.script_load, source))

    @staticmethod
    def _call(command: Callable[[], Any]) -> Any:
        try:
            return command()
        except NoScriptError:
            raise
        except (RedisError, OSError) as error:
            if str(error).startswith("AXESCOLD"):
                raise StoreCold(str(error)) from None
            if str(error) == "No connection available.":
                raise StoreBusy(f"All of {POOL_SIZE} connections are in use.") from error
            raise StoreUnavailable(f"{type(error).__name__}: {error}") from error


@lru_cache(maxsize=1024)
def _of_rule(rule: Rule) -> tuple[int | str, int, int, str]:
    """Return what the scripts are told of a counter under ``rule``, of which the rows have not been asked."""
    tiers = ",".join(f"{tier.failures}/{tier.lasts_ms}" for tier in rule.tiers)
    window = -rule.window_ms if rule.rolling else rule.window_ms
    return tiers or rule.limit, window, parameter_bits(rule.parameters), ""


def _limit_reached(texts: Iterable[bytes]) -> int:
    """Return the lowest limit that one of the counters has reached, each given by its wire form."""
    states = [CounterState.parse(text.decode()) for text in texts]
    return min((state.limit for state in states if state.locked), default=0)


def _seed(state: CounterState) -> str:
    ends = ",".join(map(str, state.ends))
    return f"{state.epoch}:{state.failures}:{state.lifted}:{state.expires_at}:{state.locked_until}:{ends}"
