"""The short path to a Redis or Valkey server: packed commands over connections of our own, each sent once.

redis-py's ``execute_command`` costs several times the wire, for retries, callbacks and metrics. A step of the store
needs none of these, since it must not be sent twice. How a connection is made (address, TLS, password, Sentinel,
cluster node), redis-py decides: by the pool of the client that the store was given.
"""

from __future__ import annotations

import os
import select
import time
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from threading import Condition, Lock
from typing import Any

from redis.exceptions import (
    AskError,
    ClusterDownError,
    ConnectionError,  # noqa: A004  (redis-py's own)
    MasterDownError,
    MovedError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TimeoutError,  # noqa: A004
    TryAgainError,
)

from axes_async.errors import StoreBusy

SIZE = 256
"""Connections that a process opens at most; they are opened as threads need them."""

WAIT = 10.0
"""Seconds that a thread beyond these waits for one. It is this process that keeps it waiting, and not the store."""

ELSEWHERE = (MovedError, AskError, TryAgainError, ClusterDownError, ReadOnlyError, MasterDownError)
"""What a server says that is not, or not now, the one to ask."""

CLOSED = "Connection closed by server."
"""What redis-py says where the other side has closed a connection in due form."""

POLL = getattr(select, "poll", None)
"""Looks at a connection in less than a microsecond; Windows has none."""

NO_RETRIES: dict[str, Any] = {"retry": None, "retry_on_timeout": False, "retry_on_error": []}


class Route:
    """Where connections go: to the server of a client, or to the node of a cluster that has our keys.

    :param client: a redis-py client; for Sentinel, each new connection asks for the primary by itself.
    :param key: one of our keys; all of them are in one slot.
    """

    def __init__(self, client: Any, key: str) -> None:
        self._client, self._key = client, key
        self._outdated, self._lock = False, Lock()

    def pool(self) -> Any:
        """Return redis-py's pool for the server that has our keys now."""
        if not hasattr(self._client, "get_node_from_key"):
            return self._client.connection_pool
        if self._outdated:
            self._look_up()
        return self._client.get_redis_connection(self._client.get_node_from_key(self._key)).connection_pool

    def connection(self) -> Any:
        """Return a new connection that is not open yet.

        It is made as ``make_connection`` of redis-py's pool makes it, but that counts its connections, and never
        forgets one.
        """
        pool = self.pool()
        return pool.connection_class(**{**pool.connection_kwargs, **NO_RETRIES})

    def forget(self) -> None:
        """Look the node up again before the next connection is made."""
        self._outdated = True

    def _look_up(self) -> None:
        if not self._lock.acquire(timeout=WAIT):
            raise ConnectionError("Another thread asks the cluster for its nodes.")
        try:
            if self._outdated:
                self._client.nodes_manager.initialize()
                self._outdated = False
        finally:
            self._lock.release()


class ConnectionPool:
    """Sends commands over a bounded number of connections.

    :param route: makes the connections.
    :param greeting: the packed command that is sent first on each of them.
    """

    def __init__(self, route: Route, *, greeting: bytes) -> None:
        self._route, self._greeting = route, greeting
        self._free: deque[Any] = deque()
        self._freed, self._waiting = Condition(), 0
        self._pid = 0

    def send(self, command: bytes, *, patience: float = 0.0) -> Any:
        """Send a packed command, once, and return its reply, with bytes for texts.

        :param patience: seconds to wait for the reply, if that is longer than what the client waits.

        Raises what redis-py raises, and ``StoreBusy``. A command is sent again only to the cluster node that the first
        one has named in its stead.
        """
        try:
            return self._send(command, patience)
        except MovedError:
            return self._send(command, patience)

    def send_apart(self, command: bytes) -> Any:
        """Send a packed command over a connection that is opened for it and closed after it."""
        connection = self._open()
        try:
            return _exchange(connection, command)
        finally:
            connection.disconnect()

    def close(self) -> None:
        """Close the connections that nobody is using now; the next command opens one again."""
        if self._pid != os.getpid():
            return
        for _ in range(len(self._free)):
            try:
                connection = self._free.pop()
            except IndexError:
                break
            if connection is not None:
                connection.disconnect()
            self._free.appendleft(None)

    def _send(self, command: bytes, patience: float) -> Any:
        if self._pid != os.getpid():
            self._start_over()  # The parent's sockets are the parent's.
        free = self._free
        connection = self._take(free)
        try:
            if connection is not None and not _usable(connection):
                connection.disconnect()
                connection = None
            if connection is None:
                connection = self._open()
            return _exchange(connection, command, patience)
        except BaseException as error:
            refused = isinstance(error, ResponseError) and not isinstance(error, ELSEWHERE)
            if connection is not None and not refused:
                connection.disconnect()  # A late reply must not become the next command's.
                connection = None
            if isinstance(error, Exception) and not refused:
                # Whatever struck this connection has likely struck the others.
                self._route.forget()
                self.close()
            raise
        finally:
            self._give(free, connection)

    def _open(self) -> Any:
        connection = self._route.connection()
        try:
            connection.connect()
            _exchange(connection, self._greeting)
        except BaseException:
            connection.disconnect()
            raise
        return connection

    def _start_over(self) -> None:
        size = min(SIZE, self._route.pool().max_connections)
        self._free = deque([None] * size)
        self._freed, self._waiting = Condition(), 0
        self._pid = os.getpid()

    def _give(self, free: deque[Any], connection: Any) -> None:
        free.append(connection)
        if self._waiting:
            with self._freed:
                self._freed.notify()

    def _take(self, free: deque[Any]) -> Any:
        """Return the connection that was used last, or an empty place for one, waiting for it if need be."""
        with suppress(IndexError):
            return free.pop()
        give_up = time.monotonic() + WAIT
        with self._freed:
            self._waiting += 1
            try:
                while (left := give_up - time.monotonic()) > 0:
                    with suppress(IndexError):
                        return free.pop()
                    self._freed.wait(left)
            finally:
                self._waiting -= 1
        raise StoreBusy("All connections to the store are in use.")


def _exchange(connection: Any, command: bytes, patience: float = 0.0) -> Any:
    usual = connection.socket_timeout
    is_patient = usual is not None and patience > usual
    if is_patient:
        connection._sock.settimeout(patience)
    connection.send_packed_command((command,), check_health=False)
    while True:
        try:
            reply = connection.read_response(disable_decoding=True, disconnect_on_error=False)
            break
        except TimeoutError:
            # The time may be over because this process looked too late, as a busy event loop does.
            if POLL is None or not _has_input(connection):
                raise
    if is_patient:
        connection._sock.settimeout(usual)
    return reply


def is_broken(error: BaseException) -> bool:
    """Return whether ``error`` says that the other side has closed a connection that was open."""
    closed = ConnectionResetError, ConnectionAbortedError, BrokenPipeError
    return isinstance(error, closed) or (
        isinstance(error, ConnectionError) and (isinstance(error.__context__, closed) or str(error) == CLOSED)
    )


def _has_input(connection: Any) -> bool:
    poll = select.poll()
    poll.register(connection._sock, select.POLLIN)
    return bool(poll.poll(0))


def _usable(connection: Any) -> bool:
    """Return whether a connection is open, and nothing has come in on it that nobody asked for."""
    if POLL is not None and not _has_input(connection):
        return True
    try:
        return not connection.can_read(0)  # With TLS, what has come in may be no reply.
    except (RedisError, OSError):
        return False


def bulk(text: str) -> str:
    """Return one part of a command, as the protocol writes it (RESP: a bulk string)."""
    return f"${len(text) if text.isascii() else len(text.encode())}\r\n{text}\r\n"


def packed(parts: Iterable[str | bytes | int]) -> bytes:
    """Return the command that ``parts`` make, as the protocol writes it (RESP: an array of bulk strings)."""
    texts = [part if isinstance(part, bytes) else str(part).encode() for part in parts]
    return b"*%d\r\n%b" % (len(texts), b"".join([b"$%d\r\n%b\r\n" % (len(text), text) for text in texts]))
