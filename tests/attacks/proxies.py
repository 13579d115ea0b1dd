"""A place between a site and its Valkey where answers are late, and connections break."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Coroutine
from typing import Any

from tests import servers
from tests.waiting import PATIENCE


class Proxy:
    """Passes on what comes, over any number of connections."""

    def __init__(self, port: int) -> None:
        """Listen on a port of its own, before the server at ``port``."""
        self.target, self.delay = port, 0.0
        """``delay``: seconds for which each answer is kept back."""
        self.unasked = self.unanswered = 0
        """How many of the next steps are cut off: before the server has them, or when it has done them."""
        self.socket = servers.bound()
        self.port: int = self.socket.getsockname()[1]
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.tasks: set[asyncio.Task[None]] = set()
        self.server = self._call(asyncio.start_server(self._serve, sock=self.socket, backlog=4096))

    @property
    def url(self) -> str:
        return f"redis://{servers.HOST}:{self.port}"

    def stop(self) -> None:
        self._call(self._end())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()

    def _call(self, what: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(what, self.loop).result(PATIENCE)

    async def _end(self) -> None:
        self.server.close()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        there = None
        try:
            from_server, there = await asyncio.open_connection(servers.HOST, self.target)
            await self._pass(reader, writer, from_server, there)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self.tasks.discard(task)
            for one in (writer, there):
                if one is not None:
                    one.close()

    async def _pass(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        from_server: asyncio.StreamReader,
        there: asyncio.StreamWriter,
    ) -> None:
        asked = asyncio.ensure_future(reader.read(2**16))
        answered = asyncio.ensure_future(from_server.read(2**16))
        is_cut = False
        try:
            while True:
                await asyncio.wait({asked, answered}, return_when=asyncio.FIRST_COMPLETED)
                if asked.done():
                    command = asked.result()
                    if not command:
                        return
                    if b"FCALL" in command:
                        if self.unasked:
                            self.unasked -= 1
                            return
                        if self.unanswered:
                            self.unanswered -= 1
                            is_cut = True
                    there.write(command)
                    asked = asyncio.ensure_future(reader.read(2**16))
                if answered.done():
                    answer = answered.result()
                    if not answer or is_cut:
                        return
                    if self.delay:
                        await asyncio.sleep(self.delay)
                    writer.write(answer)
                    answered = asyncio.ensure_future(from_server.read(2**16))
        finally:
            for one in (asked, answered):
                one.cancel()
                with contextlib.suppress(asyncio.CancelledError, OSError):
                    await one
