"""The short way to a Redis or Valkey server: packed commands over connections of our own, one at a time each.

redis-py's ``execute_command`` costs several times the wire, for retries, callbacks and metrics. A step of the store
needs none of these, since it must not be sent twice; connections, authentication and replies stay redis-py's.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import redis
from redis.exceptions import RedisError, ResponseError

from axes_async.errors import StoreBusy

FRESH = 1.0
"""Seconds for which a connection that has just been used is taken to be open still."""

PAUSE = 0.001
"""Seconds between two looks for a connection that has come free."""


class Line:
    """Sends commands to one server, on at most ``size`` connections.

    :param pool: makes the connections; none of them is ever taken from it or given back to it.
    :param size: threads that may be sending at once; those beyond wait.
    :param wait: seconds that they wait at most, before ``StoreBusy``.
    """

    def __init__(self, pool: redis.ConnectionPool, *, size: int, wait: float) -> None:
        """Open nothing yet."""
        self._pool, self._size, self._wait = pool, size, wait
        self._start_over()

    def send(self, command: bytes) -> Any:
        """Send a packed command, once, and return its reply; raises what redis-py raises, and ``StoreBusy``."""
        if self._pid != os.getpid():
            self._start_over()  # The parent's sockets are the parent's.
        connection: Any
        connection, used = self._take()
        try:
            if connection is None:
                connection = self._pool.make_connection()
                connection.connect()
            elif time.monotonic() - used > FRESH and not _usable(connection):
                connection.disconnect()
                connection.connect()
            connection.send_packed_command((command,), check_health=False)
            return connection.read_response()
        except ResponseError:
            raise
        except BaseException:
            if connection is not None:
                connection.disconnect()  # A late reply must not become the next command's.
            raise
        finally:
            self._free.append((connection, time.monotonic()))

    def close(self) -> None:
        """Close the connections that nobody is using now; the next command opens one again."""
        for _ in range(self._size):
            try:
                connection, used = self._free.pop()
            except IndexError:
                break
            if connection is not None:
                connection.disconnect()
            self._free.appendleft((None, used))

    def _start_over(self) -> None:
        self._free: deque[tuple[Any, float]] = deque([(None, 0.0)] * self._size)
        self._pid = os.getpid()

    def _take(self) -> tuple[Any, float]:
        """Return the connection that was used last, or an empty place for one, waiting for it if need be."""
        give_up = time.monotonic() + self._wait
        while True:
            with suppress(IndexError):
                return self._free.pop()
            if time.monotonic() > give_up:
                raise StoreBusy(f"All of {self._size} connections are in use.")
            time.sleep(PAUSE)


def _usable(connection: Any) -> bool:
    """Return whether a connection is open, and nothing has come in on it that nobody asked for."""
    try:
        return not connection.can_read(0)
    except (RedisError, OSError):
        return False


def packed(parts: Iterable[object]) -> bytes:
    """Return the command that ``parts`` make, as the protocol writes it (RESP: an array of bulk strings)."""
    texts = [part if type(part) is str else str(part) for part in parts]
    bulks = [f"${len(text) if text.isascii() else len(text.encode())}\r\n{text}\r\n" for text in texts]
    return f"*{len(texts)}\r\n{''.join(bulks)}".encode()
