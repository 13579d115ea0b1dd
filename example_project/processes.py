"""Ports and locks: what the runner and Valkey's process ask before they start anything."""

import fcntl
import os
import socket
from pathlib import Path
from typing import TextIO

from django.core.exceptions import ImproperlyConfigured

from . import env

HOST = "127.0.0.1"


class StartError(Exception):
    """The site cannot be started; the text tells the reader why and what to do."""


def port_from(name: str, default: int) -> int:
    """The port in the environment variable `name`. Raises `StartError` when it is no port."""
    try:
        port = env.positive_integer(name, default)
    except ImproperlyConfigured as error:
        raise StartError(str(error)) from None
    if port > 65535:
        raise StartError(f"The environment variable {name} has {port}, which is above 65535, the highest port.")
    return port


def hold_port() -> socket.socket:
    """A socket on a port that nobody uses, for a server that is about to be started.

    While it is open, Linux gives that port to no other program. Elsewhere the server could not listen there either.
    """
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind((HOST, 0))
    return held


def claim_port(port: int, name: str) -> None:
    """Raise `StartError` unless a server could listen on `port` now; `name` is the variable that chooses another."""
    other = f"Choose another port with the environment variable {name}, such as {name}={min(port + 1, 65535)}."
    with socket.socket() as probe:
        # As servers do: the closed connections of an earlier run do not hold the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except PermissionError:
            raise StartError(f"Port {port} is reserved for the system's administrator. {other}") from None
        except OSError:
            raise StartError(f"Port {port} is taken: another program listens on it. {other}") from None


def hold_lock(path: Path) -> TextIO:
    """Lock the file at `path` for as long as the returned file is open, here or in a child that was handed it.

    The file says which process holds it. Raises `StartError` when another one does.
    """
    # Not truncated when opened: until it is locked, what it says is another process's.
    file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = file.read().strip() or "unknown"
        file.close()
        raise StartError(
            f"It is already running in this checkout, as process {holder}. "
            f"Stop it with Ctrl-C in its terminal, or with `kill {holder}`."
        ) from None
    write_holder(file, os.getpid())
    return file


def write_holder(file: TextIO, process: int) -> None:
    """Note in a held lock file which process to stop."""
    file.seek(0)
    file.truncate()
    file.write(f"{process}\n")
    file.flush()
