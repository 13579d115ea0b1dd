"""Python processes forked from one that has loaded the libraries: to load them takes longer than most of what they do.

Settings, models and whatever of ours depends on them are each process's own, as if it had been started from nothing.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import runpy
import signal
import socket
import sys
from functools import cache
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from typing import IO

from tests.waiting import PATIENCE

LOADED = [
    "celery.app.base",
    "django.contrib.admin.options",
    "django.contrib.auth.hashers",
    "django.core.servers.basehttp",
    "django.test",
    "opentelemetry.sdk.metrics",
    "psycopg",
    "redis.asyncio",
    "smtplib",
]
"""What most of them import, and what needs no settings."""


@cache
def _nursery() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(LOADED)
    return context


class Process:
    """What ``python -m MODULE ARGUMENTS`` would be, in a session of its own, with pipes for its input and output."""

    def __init__(
        self,
        module: str,
        *arguments: str,
        environment: dict[str, str],
        listener: socket.socket | None = None,
        log: IO[bytes] | None = None,
        loaded: bool = True,
    ) -> None:
        """Start it.

        :param environment: all of its environment.
        :param listener: a socket that it inherits; ``{fd}`` in an argument stands for its number.
        :param log: what it prints goes there, and its errors too, and ``stdout`` stays empty.
        :param loaded: whether it has the libraries already.
        """
        read, stdin = _nursery().Pipe(duplex=False)
        stdout, write = _nursery().Pipe(duplex=False)
        self.stdin, self.stdout = os.fdopen(os.dup(stdin.fileno()), "w"), os.fdopen(os.dup(stdout.fileno()))
        place = None if log is None else os.fspath(log.name)
        self._process = _nursery().Process(
            target=_become, args=(module, arguments, environment, read, write, listener, place, loaded), daemon=True
        )
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid
        for end in (read, stdin, stdout, write):
            end.close()

    def send_signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def kill(self) -> int:
        """End it and its children, wherever they are; return how it ended."""
        if self._process.exitcode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            self._process.kill()  # It may not have had the time to begin a session.
        for pipe in (self.stdin, self.stdout):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
        self._process.join(PATIENCE)
        assert self._process.exitcode is not None
        return self._process.exitcode


def _become(
    module: str,
    arguments: tuple[str, ...],
    environment: dict[str, str],
    read: Connection,
    write: Connection,
    listener: socket.socket | None,
    log: str | None,
    loaded: bool,
) -> None:
    """Be that process."""
    os.setsid()
    os.dup2(read.fileno(), 0)
    os.dup2(write.fileno(), 1)
    if log is not None:
        place = os.open(log, os.O_WRONLY | os.O_APPEND)
        os.dup2(place, 1)
        os.dup2(place, 2)
    read.close()
    write.close()
    number = "" if listener is None else listener.fileno()
    arguments = tuple(argument.format(fd=number) for argument in arguments)
    if not loaded:
        if listener is not None:
            listener.set_inheritable(True)
        os.execve(sys.executable, [sys.executable, "-m", module, *arguments], environment)  # noqa: S606
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w", buffering=1)  # noqa: SIM115
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
