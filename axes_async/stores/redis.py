"""Counters and outbox in Redis or Valkey: each step is one Lua script, and one round trip.

The client is our own, with bounded waits and without retries: a step that is sent twice would count twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from hashlib import sha1
from importlib.resources import files
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError
from redis.retry import Retry

from axes_async.errors import StoreUnavailable
from axes_async.events import AttemptEvent, CounterState, Kind, parameter_bits
from axes_async.policy import Counter
from axes_async.stores.base import Lift, OutboxStore, Outcome, Verdict

POOL_SIZE = 64
"""Connections a process opens at most; more threads than that wait for one, a few milliseconds each."""

POOL_WAIT = 5.0
"""Seconds to wait for a connection that other threads use: a busy pool is no store that is down."""

NUDGE_LASTS = 5_000
"""Milliseconds after which a nudge that brought no drain may be repeated."""

STEPS = ("reserve", "fail", "succeed", "peek", "record")
"""The scripts that common.lua is prepended to."""


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
    """

    def __init__(self, client: Any, *, namespace: str = "axes", outbox_max: int = 1_000_000) -> None:
        """Keep the client; nothing is sent yet."""
        self.client = client
        self.outbox_max = outbox_max
        tag = "{" + namespace.translate(str.maketrans("", "", "{}")) + "}"
        self._counter = f"{tag}:c:"
        self.outbox_key, self.nudged_key, self.overflow_key = (f"{tag}:{name}" for name in ("outbox", "nudged", "over"))
        self.dead_letters_key = f"{tag}:dead"
        self._fixed_keys = (self.outbox_key, self.nudged_key, self.overflow_key)

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
        verdict, until, nudge = self._step("reserve", counters, now, token, lease, event, "1" if extend else "0")
        return Outcome(Verdict(verdict), locked_until=until, nudge=bool(nudge))

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
    ) -> Outcome:
        """See ``Store.fail``."""
        flag = f"{int(extend)}{len(release)}"
        until, newly, nudge = self._step("fail", [*counters, *release], now, token, lease, event, flag)
        verdict = Verdict.LOCKED if until else Verdict.ALLOWED
        return Outcome(verdict, locked_until=until, newly_locked=bool(newly), nudge=bool(nudge))

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
    ) -> Outcome:
        """See ``Store.succeed``."""
        kept = [counter for counter in counters if counter not in clear]
        flag = f"{int(always)}{len(clear)}"
        (nudge,) = self._step("succeed", [*kept, *clear], now, token, lease, event, flag)
        return Outcome(nudge=bool(nudge))

    def release(self, token: str, counters: Sequence[Counter], *, now: int) -> None:
        """See ``Store.release``."""
        self._run("release", [self._counter + counter.digest for counter in counters], [token])

    def peek(self, counters: Sequence[Counter], *, now: int) -> Outcome:
        """See ``Store.peek``."""
        until = int(self._step("peek", counters, now, "", 0, None, "")[0])
        return Outcome(Verdict.LOCKED if until else Verdict.ALLOWED, locked_until=until)

    def record(self, event: AttemptEvent) -> Outcome:
        """See ``Store.record``."""
        (nudge,) = self._step("record", (), 0, "", 0, event, "always" if event.kind is Kind.RESET else "")
        return Outcome(nudge=bool(nudge))

    def lift(self, lifts: Sequence[Lift], *, now: int, lease: int) -> None:
        """See ``Store.lift``."""
        if not lifts:
            return
        arguments = [number for lift in lifts for number in (lift.epoch, lift.lifted)]
        self._run("lift", [self._counter + lift.digest for lift in lifts], [*arguments, lease])

    def states(self, counters: Sequence[Counter], *, now: int) -> list[CounterState]:
        """See ``Store.states``."""
        texts = self._step("peek", counters, now, "", 0, None, "")[1:]
        return [CounterState.parse(text.decode()) for text in texts]

    def read(self, after: str, count: int) -> list[tuple[str, AttemptEvent | bytes]]:
        """See ``OutboxStore.read``."""
        entries = self._call(lambda: self.client.xrange(self.outbox_key, min=f"({after}", count=count))
        return [(position.decode(), self._event(fields)) for position, fields in entries]

    def trim(self, position: str) -> None:
        """See ``OutboxStore.trim``."""
        milliseconds, _, number = position.partition("-")
        behind = f"{milliseconds}-{int(number) + 1}"
        self._call(lambda: self.client.xtrim(self.outbox_key, minid=behind, approximate=False))

    def rest(self, position: str) -> bool:
        """See ``OutboxStore.rest``."""
        return bool(self._run("rest", [self.outbox_key, self.nudged_key], [position]))

    def set_aside(self, entry: bytes, error: str) -> None:
        """See ``OutboxStore.set_aside``."""
        self._call(lambda: self.client.xadd(self.dead_letters_key, {"entry": entry, "error": error}))

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
        """Run a script with the keys and arguments that ``common.lua`` names."""
        keys = [*self._fixed_keys]
        arguments: list[str | int] = [
            now,
            token,
            lease,
            "" if event is None else event.body(),
            self.outbox_max,
            NUDGE_LASTS,
            flag,
        ]
        for counter in counters:
            rule = counter.rule
            keys.append(self._counter + counter.digest)
            arguments += rule.limit, rule.window_ms, parameter_bits(rule.parameters)
        return self._run(name, keys, arguments)

    def _run(self, name: str, keys: Sequence[str], arguments: Sequence[str | int]) -> Any:
        source, sha = script(name)
        try:
            return self._call(lambda: self.client.evalsha(sha, len(keys), *keys, *arguments))
        except NoScriptError:
            return self._call(lambda: self.client.eval(source, len(keys), *keys, *arguments))

    @staticmethod
    def _call(command: Callable[[], Any]) -> Any:
        try:
            return command()
        except NoScriptError:
            raise
        except (RedisError, OSError) as error:
            raise StoreUnavailable(f"{type(error).__name__}: {error}") from error
