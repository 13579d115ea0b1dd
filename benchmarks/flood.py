"""Whether one worker keeps up with a site under attack: gunicorn, a Celery worker and the attacker on the same machine.

Passwords are guessed over HTTP as fast as the site answers, each for another username from another address: every guess
is an event of its own, and nothing is locked. The worker writes meanwhile, and goes on until nothing is left.
"""

from __future__ import annotations

import argparse
import os
import selectors
import socket
import time
from itertools import count
from urllib.parse import urlencode

from benchmarks import load
from benchmarks.broken import PATIENCE, Site, running_site
from benchmarks.figures import heading, row, verdict

CONNECTIONS = 4
"""Connections of the attacker for each process of gunicorn, which has two threads."""

WIDTHS = (14, 14, 14, 14, 16, 18, 16)


def guess(number: int) -> bytes:
    """Return the request of guess number ``number``."""
    body = urlencode({"username": load.username(number), "password": "wrong"})
    return (
        "POST /sign-in/ HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/x-www-form-urlencoded\r\n"
        f"User-Agent: {load.CHROME}\r\nAccept: {load.CHROME_ACCEPT}\r\nX-Client: {load.address(number)}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n{body}"
    ).encode()


def attack(port: int, connections: int, seconds: float) -> int:
    """Guess on so many connections at once; return how many guesses were answered."""
    numbers, answered, end = count(), 0, time.monotonic() + seconds
    with selectors.DefaultSelector() as selector:

        def send(connection: socket.socket | None = None) -> None:
            connection = connection or socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
            connection.sendall(guess(next(numbers)))
            selector.register(connection, selectors.EVENT_READ, bytearray())

        for _ in range(connections):
            send()
        while selector.get_map():
            for key, _ in selector.select():
                connection, reply = key.fileobj, key.data
                assert isinstance(connection, socket.socket)
                received = connection.recv(65536)
                reply += received
                if received and not is_whole(reply):
                    continue
                selector.unregister(connection)
                if reply:
                    assert reply.startswith(b"HTTP/1.1 401"), bytes(reply[:200])
                    answered += 1
                is_closed = not received or b"connection: close" in reply.lower()
                if is_closed or time.monotonic() > end:
                    connection.close()
                if time.monotonic() <= end:
                    send(None if is_closed else connection)
    return answered


def is_whole(reply: bytearray) -> bool:
    """Return whether an answer has arrived to its end: its last chunk, or as many bytes as it tells."""
    head, _, body = reply.lower().partition(b"\r\n\r\n")
    if b"transfer-encoding: chunked" in head:
        return body.endswith(b"0\r\n\r\n")
    _, _, length = head.partition(b"content-length: ")
    return bool(length) and len(body) >= int(length.split(b"\r\n")[0])


def rows_of(site: Site) -> int:
    """Return how many failures have a row."""
    ((number,),) = site.sql("SELECT count(*) FROM axes_async_accessfailurelog WHERE username LIKE 'user.%'")
    return int(number)


def flood(site: Site, seconds: float) -> bool:
    """Attack, and print what came of it; return whether the worker kept up."""
    began = time.monotonic()
    made = attack(site.socket.getsockname()[1], CONNECTIONS * site.webs, seconds)
    took = time.monotonic() - began
    backlog = int(site.valkey.client.xlen(site.name("outbox")))
    written, ended = rows_of(site), time.monotonic()
    while rows_of(site) < made and time.monotonic() < ended + PATIENCE:
        time.sleep(0.05)
    drained = time.monotonic() - ended
    assert rows_of(site) == made, f"{rows_of(site):,} rows of {made:,} guesses"
    kept_up = written / made
    row(
        str(site.webs),
        f"{made / took:,.0f}",
        f"{written / took:,.0f}",
        f"{backlog:,}",
        f"{drained:,.1f}",
        f"{backlog / drained:,.0f}" if drained > 0.1 and backlog else "-",
        f"{os.getloadavg()[0]:.1f}",
        verdict(kept_up, at_least=0.9),
        widths=WIDTHS,
    )
    return kept_up >= 0.9


def main() -> int:
    """Print a line for each number of processes; return 1 if a worker did not keep up."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--webs", type=int, nargs="+", default=[1, 2, 4], help="gunicorn's processes (default 1 2 4)")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long the attack lasts (default 20)")
    options = parser.parse_args()
    from tests.faults.machines import Postgres

    heading("benchmarks.flood", "Events that a site under attack makes, and that one worker writes meanwhile")
    headings = ("made/s", "written/s", "backlog", "s to drain it", "events/s then", "load", "written of made")
    row("gunicorns", *headings, widths=WIDTHS)
    fine = []
    postgres = Postgres()
    try:
        for webs in options.webs:
            with running_site(postgres, webs=webs) as site:
                fine.append(flood(site, options.seconds))
    finally:
        postgres.stop()
    return 0 if all(fine) else 1


if __name__ == "__main__":
    raise SystemExit(main())
