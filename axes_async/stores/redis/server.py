"""A Redis or Valkey server as the store speaks to it: one script, one round trip, bounded waits and no retries.

A step that is sent twice would count twice. What the scripts mean is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from hashlib import sha1
from importlib.resources import files
from secrets import token_hex
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.exceptions import MaxConnectionsError, NoScriptError, RedisClusterException, RedisError
from redis.retry import Retry

from axes_async.errors import StoreBusy, StoreCold, StoreFlushed, StoreUnavailable
from axes_async.stores.redis.connection import Line, packed

POOL_SIZE = 256
"""Connections a process opens at most; they are opened as threads need them."""

POOL_WAIT = 0.2
"""Seconds that a thread beyond these waits for one of them."""

EXHAUSTED = ("No connection available.", "Too many connections")
"""What redis-py's pools say when all of their connections are in use: the server has no part in that."""

FAULTS = (RedisError, RedisClusterException, OSError)
"""What redis-py raises where a server cannot be used; that of a cluster is none of its own kind."""

STEPS = ("reserve", "fail", "succeed", "peek", "record", "adjust")
"""The scripts that common.lua is prepended to."""

SCRIPTS = (*STEPS, "release", "hold", "trim", "forget", "outbox", "warmth", "rest", "put_back")
"""All of them."""


@cache
def script(name: str) -> tuple[str, str]:
    """Return the source of the script ``name`` and its SHA-1, by which a server that has it knows it."""
    folder = files(__package__) / "scripts"
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


class LateClient:
    """A client that cannot be made yet, since the server is away; it is made by the first command that can.

    :param make: returns the client, or raises one of ``FAULTS``.
    """

    def __init__(self, make: Callable[[], Any]) -> None:
        """Make nothing yet."""
        self._make, self._client = make, None

    def __getattr__(self, name: str) -> Any:
        """Return what the client has under ``name``."""
        if self._client is None:
            self._client = self._make()
        return getattr(self._client, name)


class Server:
    """One server, or a cluster through a client given to us, and the names of what is kept there.

    :param client: a redis-py compatible client.
    :param namespace: goes into every key; sites that share a server differ in it.
    :param database: names the database that the counters must be complete for; '' for none.
    :param ours: whether the client is one of ``build_client``, whose way of sending commands can be shortened.
    """

    def __init__(self, client: Any, *, namespace: str, database: str, ours: bool) -> None:
        """Keep the client; nothing is sent yet."""
        self.client = client
        self.line = Line(client.connection_pool, size=POOL_SIZE, wait=POOL_WAIT) if ours else None
        self.database = database
        tag = "{" + namespace.translate(str.maketrans("", "", "{}")) + "}"
        self.counter_prefix = f"{tag}:c:"
        self.outbox_key, self.nudged_key, self.overflow_key = (f"{tag}:{name}" for name in ("outbox", "nudged", "over"))
        self.dead_letters_key, self.probe_key = f"{tag}:dead", f"{tag}:probe"
        self.warmth_key, self.born_key = f"{tag}:warmth", f"{tag}:born"

    def close(self) -> None:
        """Close the connections that are our own and not in use now."""
        if self.line is not None:
            self.line.close()
            self.client.close()

    def cool(self) -> None:
        """Have every counter taken from the rows again before it is used; see ``OutboxStore.cool``."""
        self._cool(lost=False)

    def _cool(self, *, lost: bool) -> None:
        # By its source: a server that knows no script is made cold before it is given any.
        source, _ = script("cool")
        self.call(lambda: self.client.eval(source, 1, self.warmth_key, token_hex(4), int(lost)))

    def run(self, name: str, keys: Sequence[str], arguments: Sequence[str | int]) -> Any:
        """Run the script ``name`` and return its reply; raises ``StoreUnavailable`` and its kinds."""
        source, sha = script(name)
        try:
            if self.line is not None:
                command = packed(("EVALSHA", sha, len(keys), *keys, *arguments))
                return self.call(partial(self.line.send, command))
            return self.call(lambda: self.client.evalsha(sha, len(keys), *keys, *arguments))
        except NoScriptError:
            self._get_to_know()
            return self.call(lambda: self.client.eval(source, len(keys), *keys, *arguments))

    def _get_to_know(self) -> None:
        """Give the server all scripts. One that had none was restarted, or took over: its counters may be old ones."""
        scripts = [script(name) for name in SCRIPTS]
        known = self.call(lambda: self.client.script_exists(*[sha for _, sha in scripts]))
        if self.database and not any(known):
            self._cool(lost=True)
        for source, _ in scripts:
            self.call(partial(self.client.script_load, source))

    @staticmethod
    def call(command: Callable[[], Any]) -> Any:
        """Return what ``command`` does; what redis-py raises comes as ``StoreUnavailable`` and its kinds."""
        try:
            return command()
        except NoScriptError:
            raise
        except FAULTS as error:
            told = str(error)
            if told.startswith("AXESCOLD"):
                raise StoreCold(told) from None
            if told.startswith("AXESLOST"):
                _, generation, left = told.split()
                raise StoreFlushed(generation, int(left)) from None
            if isinstance(error, MaxConnectionsError) or told in EXHAUSTED:
                raise StoreBusy("All connections of the client are in use.") from error
            raise StoreUnavailable(f"{type(error).__name__}: {error}") from error
