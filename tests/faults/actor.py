"""A process of the site: ``python -m tests.faults.actor`` reads one JSON command a line, and answers with one line.

A command is the name of a function below and its arguments. Each password that reaches the hasher is noted in a file,
so that it counts even if this process is killed before it has told anybody.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.faults.settings")
django.setup()

from django.core.management import call_command  # noqa: E402
from django.db import DatabaseError, InterfaceError, close_old_connections, connection, connections  # noqa: E402

from axes_async import guard  # noqa: E402
from axes_async.errors import AttemptDenied, StoreUnavailable  # noqa: E402
from axes_async.login import unsettled  # noqa: E402
from axes_async.models import AccessFailureLog, DrainCursor, OutboxEvent  # noqa: E402
from axes_async.stores.contract import Position  # noqa: E402
from axes_async.stores.factory import get_store  # noqa: E402
from axes_async.stores.redis.store import RedisStore  # noqa: E402
from axes_async.tasks.drain import drain as drain_task  # noqa: E402
from axes_async.tasks.expire import expire as expire_task  # noqa: E402
from axes_async.tasks.sync import needs_sync  # noqa: E402
from axes_async.tasks.sync import sync as sync_task  # noqa: E402
from tests import celery as _celery  # noqa: E402, F401
from tests.actions import request_from  # noqa: E402

FOLDER = Path(os.environ["AXES_FAULTS_FOLDER"])
"""Holds the notes of all processes of a test, and the file ``stop``, which ends their loops."""

NOTES = os.open(FOLDER / f"seen-{os.getpid()}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)


def hash_password(kind: str, username: str, address: str) -> None:
    """Stand for the hasher: note that it was given a password. ``kind`` is "wrong" or "right"."""
    os.write(NOTES, f"{kind} {address} {username}\n".encode())


def guess(username: str, address: str) -> bool:
    """Try a wrong password; return whether it was looked at."""
    try:
        with guard.attempt(request_from(address), {"username": username}) as attempt:
            hash_password("wrong", username, address)
            attempt.failed()
    except AttemptDenied:
        return False
    return True


def log_in(username: str, address: str) -> bool:
    """Try the right password; return whether it was looked at."""
    try:
        with guard.attempt(request_from(address), {"username": username}) as attempt:
            hash_password("right", username, address)
            attempt.logged_in(username)
    except AttemptDenied:
        return False
    return True


def stopped() -> bool:
    return (FOLDER / "stop").exists()


def migrate() -> None:
    """Make the tables."""
    call_command("migrate", verbosity=0)


def fail(clients: list[tuple[str, str]]) -> list[bool]:
    """Try a wrong password for each username and address; return which were looked at."""
    close_old_connections()
    return [guess(*client) for client in clients]


def succeed(username: str, address: str) -> bool:
    """Try the right password; return whether it was looked at."""
    close_old_connections()
    return log_in(username, address)


def attack(locked: list[str], threads: int = 3) -> int:
    """Guess and log in until the test says stop; return how many tries that were.

    The guesses go to an address that changes several times a second, the same in every process, or to an earlier one;
    some go to ``locked`` addresses. Each try has a username of its own, which tells its row.
    """

    def one(thread: int) -> int:
        chance, tries = random.Random(f"{os.getpid()} {thread}"), 0
        try:
            while not stopped():
                close_old_connections()
                tries += 1
                username = f"p{os.getpid()}t{thread}n{tries}"
                newest = int(time.time() * 6)
                victim = newest - chance.choice((0, 0, 0, chance.randint(0, 40)))
                kind = chance.random()
                if kind < 0.1:
                    guess(username, chance.choice(locked))
                elif kind < 0.2:
                    log_in(username, f"198.51.100.{chance.randint(0, 255)}")
                else:
                    guess(username, f"10.{victim >> 16 & 255}.{victim >> 8 & 255}.{victim & 255}")
                time.sleep(0.003)
            return tries
        finally:
            connections.close_all()

    with ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(one, range(threads)))


def drain() -> int:
    """Run the drain as a worker does: with connections that are looked at between tasks."""
    close_old_connections()
    written: int = drain_task()
    return written


def expire() -> None:
    """Run the expiry as a worker does."""
    close_old_connections()
    expire_task()


def sync() -> None:
    """Run the sync as a worker does."""
    close_old_connections()
    sync_task()


def work() -> int:
    """Drain and sync until the test says stop, as a worker with beat does; return how many events were written."""
    written = 0
    while not stopped():
        for task in (drain, sync):
            try:
                written += task() or 0
            except (DatabaseError, InterfaceError, StoreUnavailable) as error:
                print(f"{type(error).__name__}: {error}")  # A worker logs it, and does the next task.
                time.sleep(0.2)
        time.sleep(0.05)
    return written


def is_at_rest() -> bool:
    """Return whether this process has nothing left that no store could take, and that is to be done later."""
    return unsettled._backlog._thread is None


def settled() -> bool:
    """Drain and sync; return whether everything is written, and the store complete and in step with the rows."""
    drain()
    sync()
    store = get_store()
    assert isinstance(store, RedisStore)
    cursor = DrainCursor.objects.filter(name="outbox").first() or DrainCursor()
    waiting = store.read(Position.parse(cursor.position), 1)
    return not (waiting or needs_sync(store) or OutboxEvent.objects.exists())


def die_in(task: str, *, where: str, nth: int) -> bool:
    """Do ``task`` in a child that kills itself at its ``nth`` SQL statement or store command; return whether it did.

    ``where`` is "sql" (before the statement), "store" (before the command) or "answer" (after the command).
    """
    connections.close_all()
    get_store().close()
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1] == signal.SIGKILL
    calls = 0

    def count() -> None:
        nonlocal calls
        calls += 1
        if calls == nth:
            os.kill(os.getpid(), signal.SIGKILL)

    def before_sql(execute: Callable[..., Any], *args: Any) -> Any:
        count()
        return execute(*args)

    original = RedisStore.call

    def around_command(*args: Any, **options: Any) -> Any:
        if where == "store":
            count()
        result = original(*args, **options)
        if where == "answer":
            count()
        return result

    try:
        if where == "sql":
            connection.execute_wrappers.append(before_sql)
        else:
            RedisStore.call = around_command  # type: ignore[method-assign]
        COMMANDS[task]()
        os._exit(0)
    finally:
        os._exit(1)


def rows() -> list[str | None]:
    """Return the usernames of the failure log in the order of its rows."""
    close_old_connections()
    return list(AccessFailureLog.objects.order_by("id").values_list("username", flat=True))


COMMANDS: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (migrate, fail, succeed, attack, drain, expire, sync, is_at_rest, settled, work, die_in, rows)
}


def main() -> None:
    """Answer commands until there are no more."""
    answers, sys.stdout = sys.stdout, sys.stderr
    print('{"answer": "ready"}', file=answers, flush=True)
    for line in sys.stdin:
        name, arguments = json.loads(line)
        try:
            told = {"answer": COMMANDS[name](**arguments)}
        except Exception:  # noqa: BLE001  (the test that asked fails with it)
            told = {"error": traceback.format_exc()}
        print(json.dumps(told), file=answers, flush=True)


if __name__ == "__main__":
    main()
