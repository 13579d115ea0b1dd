"""``python -m tests.attacks.standing_process uvicorn`` or ``threads``: serves the site, and prints its port.

``threads`` is Django's server with a thread for each connection.
"""

from __future__ import annotations

import asyncio
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests import servers
from tests.waiting import until

THREADS = 20
"""Passwords that may be looked at at once: more than any test has. Python would have few on a host of one processor."""


def is_over(number: int = 0) -> bool:
    """Return whether the test lets all go on, or the password that was looked at as the first, the second ..."""
    folder = Path(os.environ["AXES_FAULTS_FOLDER"])
    return (folder / "go").exists() or (folder / f"go-{number}").exists()


def passwords_looked_at() -> int:
    """Return how many passwords the hasher was given."""
    notes = Path(os.environ["AXES_FAULTS_FOLDER"]) / "looked-at"
    return len(notes.read_text()) if notes.exists() else 0


def stand_still() -> None:
    """Note that a password is being looked at, and wait until the test lets that go on."""
    with (Path(os.environ["AXES_FAULTS_FOLDER"]) / "looked-at").open("a") as notes:
        notes.write(".")
        notes.flush()
        number = notes.tell()
    until(lambda: is_over(number), what="to be let go")


def serve(server: str) -> None:
    """Be the site."""
    import django

    django.setup()
    listener = servers.bound()
    listener.listen(1024)
    if server == "uvicorn":
        import uvicorn
        from django.core.asgi import get_asgi_application

        config = uvicorn.Config(get_asgi_application(), lifespan="off", ws="none", log_level="critical")

        async def run() -> None:
            asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS))
            await uvicorn.Server(config).serve(sockets=[listener])

        print(listener.getsockname()[1], flush=True)
        asyncio.run(run())
    else:
        from django.core.servers.basehttp import ThreadedWSGIServer, WSGIRequestHandler
        from django.core.wsgi import get_wsgi_application

        class Quiet(WSGIRequestHandler):
            def log_message(self, *args: Any) -> None:
                """Say nothing."""

        one = ThreadedWSGIServer(listener.getsockname(), Quiet, bind_and_activate=False)
        one.socket.close()
        one.socket = listener
        one.server_name, one.server_port = listener.getsockname()
        one.setup_environ()
        one.set_app(get_wsgi_application())
        print(one.server_port, flush=True)
        one.serve_forever()


if __name__ == "__main__":
    serve(sys.argv[1])
