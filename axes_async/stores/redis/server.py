"""A Redis or Valkey server as the store speaks to it: one function call, one round trip, bounded waits and no retries.

A step that is sent twice would count twice. What the functions mean is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from typing import Any

import redis
from redis.exceptions import RedisClusterException, RedisError, ResponseError

from axes_async import clock
from axes_async.errors import StoreDisconnected, StoreUnavailable
from axes_async.stores.redis.connection import SIZE, ConnectionPool, Route, is_broken, packed
from axes_async.stores.redis.library import library, script

FAULTS = (RedisError, RedisClusterException, OSError)
"""What redis-py raises where a server cannot be used; that of a cluster is none of its own kind."""


def build_client(url: str, options: Mapping[str, Any], *, timeout: float) -> redis.Redis:
    """Return a client for the server at ``url``, with ``timeout`` in seconds to connect and to answer.

    ``options`` are keyword arguments of redis-py's connection, such as ``username`` and ``password``.
    """
    url = url.replace("valkey", "redis", 1) if url.startswith("valkey") else url
    return redis.Redis.from_url(
        url, **options, max_connections=SIZE, socket_timeout=timeout, socket_connect_timeout=timeout
    )


def fixed_time() -> str:
    """Return the time that a test has set, '' for that of the server."""
    return "" if clock.fixed_ms is None else str(clock.fixed_ms())


class LateClient:
    """A client that cannot be made yet, since the server is away; it is made by the first command that can.

    :param make: returns the client, or raises one of ``FAULTS``.
    """

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make, self._client = make, None

    def __getattr__(self, name: str) -> Any:
        if self._client is None:
            self._client = self._make()
        return getattr(self._client, name)


class Server:
    """One server, or one slot of a cluster, and the names of what is kept there.

    :param client: a redis-py client: ``redis.Redis``, that of a Sentinel, or ``RedisCluster``.
    :param namespace: goes into every key; sites, and databases, that share a server differ in it.
    """

    def __init__(self, client: Any, *, namespace: str) -> None:
        self.client = client
        # Everything is in one slot of a cluster: a function touches counters and outbox.
        tag = "{" + namespace.translate(str.maketrans("", "", "{}")) + "}"
        self.counter_prefix = f"{tag}:c:"
        self.state_key, self.outbox_key, self.dead_letters_key = f"{tag}:key", f"{tag}:outbox", f"{tag}:dead"
        self.nudged_key, self.overflow_key, self.probe_key = f"{tag}:nudged", f"{tag}:over", f"{tag}:probe"
        self.trimmed_key, self.loaded_key = f"{tag}:trimmed", f"{tag}:loaded"

    @cached_property
    def pool(self) -> ConnectionPool:
        """The connections of this process to the server."""
        greeting = packed(("EVAL", script("connect"), 1, self.state_key))
        return ConnectionPool(Route(self.client, self.state_key), greeting=greeting)

    def close(self) -> None:
        self.pool.close()

    def probe(self) -> None:
        self._guarded(self.pool.send_apart, packed(("SET", self.probe_key, 1, "PX", 1000)))

    def run(self, name: str, keys: Sequence[str], arguments: Sequence[str | int], *, patience: float = 0.0) -> Any:
        """Call the function ``name`` and return its reply."""
        return self.call(packed(("FCALL", library().prefix + name, len(keys), *keys, *arguments)), patience=patience)

    def command(self, *parts: str | bytes | int, patience: float = 0.0) -> Any:
        """Do one command of the server's and return its reply."""
        return self.call(packed(parts), patience=patience)

    def call(self, command: bytes, *, patience: float = 0.0) -> Any:
        """Send a packed command, once, and return its reply.

        :param patience: seconds to wait for the reply, if that is longer than a login waits.

        A server that does not know our functions is given them: that changes no key, and it has done nothing yet.
        Raises ``StoreUnavailable``, and ``StoreBusy`` where this process has no connection to spare.
        """
        return self._guarded(partial(self._call, patience=patience), command)

    def _call(self, command: bytes, patience: float) -> Any:
        try:
            return self.pool.send(command, patience=patience)
        except ResponseError as error:
            if "Function not found" not in str(error):
                raise
        try:
            self.pool.send(packed(("FUNCTION", "LOAD", library().source)))
        except ResponseError as error:
            if "already exists" not in str(error):  # Another process may have been faster.
                raise
        return self.pool.send(command, patience=patience)

    @staticmethod
    def _guarded(send: Callable[[bytes], Any], command: bytes) -> Any:
        try:
            return send(command)
        except FAULTS as error:
            unavailable = StoreDisconnected if is_broken(error) else StoreUnavailable
            raise unavailable(f"{type(error).__name__}: {error}") from error
