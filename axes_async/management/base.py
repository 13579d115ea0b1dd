"""What every command of ours does: an error is one clear line, and a reader that has seen enough is none."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import Error
from kombu.exceptions import KombuError

from axes_async.errors import AxesError, StoreUnavailable

BAR = 30
"""Characters of a progress bar."""


class Output:
    """A stream for text that escapes what its encoding lacks, and raises ``CommandError`` where it takes no more."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> None:
        with self._told():
            try:
                self._stream.write(text)
            except UnicodeEncodeError:
                encoding = getattr(self._stream, "encoding", None) or "ascii"
                self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding))

    def write_utf8(self, text: str) -> None:
        """Write ``text`` as it is, in UTF-8 whatever the encoding of the stream: for what becomes a file."""
        with self._told():
            binary = getattr(self._stream, "buffer", None)
            if binary is None:
                self._stream.write(text)
                return
            rest = text.encode()
            while rest:  # An unbuffered stream may take a part.
                rest = rest[binary.write(rest) :]

    def flush(self) -> None:
        if hasattr(self._stream, "flush"):
            with self._told():
                self._stream.flush()

    @contextmanager
    def _told(self) -> Iterator[None]:
        if self._stream is None:  # Such as `>&-`.
            raise CommandError("There is no output to write to.")
        try:
            yield
        except OSError as error:
            if self._stream is sys.stdout:
                # Python flushes once more at its exit, and would complain.
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
            if isinstance(error, BrokenPipeError):
                raise
            raise CommandError(f"The output cannot be written: {error.strerror or error}") from error


class AxesCommand(BaseCommand):
    def __init__(self, stdout: Any = None, *args: Any, **options: Any) -> None:
        super().__init__(Output(stdout or sys.stdout), *args, **options)  # type: ignore[arg-type]

    def execute(self, *args: Any, **options: Any) -> str | None:
        if options.get("stdout"):
            options["stdout"] = Output(options["stdout"])
        try:
            try:
                told: str | None = super().execute(*args, **options)
                return told
            finally:
                with suppress(BrokenPipeError):
                    self.stdout.flush()
        except BrokenPipeError:
            return None  # Such as `| head`.
        except Error as error:
            raise CommandError(f"The database cannot be used: {error}") from error
        except StoreUnavailable as error:
            raise CommandError(f"The store cannot be used: {error}") from error
        except KombuError as error:
            raise CommandError(f"The broker takes no messages: {error}") from error
        except AxesError as error:
            raise CommandError(str(error)) from error

    def show_bar(self, name: str, part: float, told: str) -> None:
        """Draw a progress bar over the last one; ``part`` is what is done, from 0 to 1."""
        bar = "#" * min(BAR, int(part * BAR))
        self.stderr.write(f"\r{name}[{bar:-<{BAR}}] {told}", style_func=str, ending="")
        self.stderr.flush()
