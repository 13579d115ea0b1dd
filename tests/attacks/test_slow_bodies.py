"""Clients that send their headers, and their body much later: no reservation is worth anything by then."""

# ruff: noqa: F811  (a fixture is imported, and is an argument)

from __future__ import annotations

import io
import json
import socket
from collections.abc import Callable

import pytest
import redis
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory

from axes_async.decorators import axes_dispatch
from tests.actions import counter_keys, reservations_held
from tests.attacks.standing import LIMIT, Web, start_web  # noqa: F401  (a fixture)
from tests.waiting import PATIENCE, until

pytestmark = pytest.mark.django_db(transaction=True)

BODY = json.dumps({"username": "alice", "password": "wrong"}).encode()


def begin(web: Web) -> socket.socket:
    """Send all but the body."""
    head = [
        "POST /program/ HTTP/1.1",
        "Host: 127.0.0.1",
        "Content-Type: text/plain",
        f"Content-Length: {len(BODY)}",
        "Connection: close",
    ]
    connection = socket.create_connection(("127.0.0.1", web.port), timeout=PATIENCE)
    connection.sendall("\r\n".join([*head, "", ""]).encode())
    return connection


def end(connection: socket.socket) -> int:
    with connection, connection.makefile("rb") as answer:
        connection.sendall(BODY)
        return int(answer.readline().split()[1])


def leases(valkey: redis.Redis) -> dict[str, int]:
    """Return when each reservation on the Valkey ends, in its own epoch milliseconds."""
    counters = [valkey.hgetall(key) for key in counter_keys(valkey)]
    return {name: int(end) for counter in counters for name, end in counter.items() if name[0] == "r"}  # type: ignore[union-attr]


def is_past(valkey: redis.Redis, ms: int) -> bool:
    seconds, microseconds = valkey.time()  # type: ignore[misc]
    return seconds * 1000 + microseconds // 1000 > ms


def test_no_more_passwords_are_looked_at_than_the_limit_if_their_bodies_come_after_the_lease(
    alice: User, start_web: Callable[..., Web], valkey: redis.Redis
) -> None:
    web = start_web("threads", AXES_RESERVE_LEASE=6, DATA_UPLOAD_MAX_MEMORY_SIZE=len(BODY) - 1)
    web.let_go()
    clients = [begin(web) for _ in range(LIMIT)]
    until(lambda: len(leases(valkey)) == LIMIT, what="the site waits for their bodies")
    first = max(leases(valkey).values())
    until(lambda: is_past(valkey, first), what="the leases that they had at first have ended")
    assert [end(begin(web)) for _ in range(2)] == [429] * 2
    assert [end(client) for client in clients] == [401] * (LIMIT - 1) + [429]
    assert web.looked_at() == LIMIT


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_a_body_is_there_before_a_reservation_is_made(valkey: redis.Redis, method: str) -> None:
    held = []

    class Trickle(io.BytesIO):
        def read(self, *args: int) -> bytes:
            held.append(reservations_held(valkey))
            return super().read(*args)

    @axes_dispatch
    def view(request: HttpRequest) -> HttpResponse:
        assert reservations_held(valkey) == 1
        return HttpResponse(request.read())

    request = RequestFactory().generic(method, "/", BODY, content_type="text/plain")
    request._stream = Trickle(BODY)  # type: ignore[attr-defined]
    assert view(request).content == BODY
    assert held == [0] * len(held) != []
    assert reservations_held(valkey) == 0
