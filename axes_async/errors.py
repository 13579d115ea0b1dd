"""The one tree of exceptions that axes_async raises of its own."""

from __future__ import annotations

from django.core.exceptions import PermissionDenied


class AxesError(Exception):
    """Root of every exception defined by axes_async."""


class StoreUnavailable(AxesError):
    """The store that holds the counters did not answer in time, or answered with an error."""


class StoreBusy(StoreUnavailable):
    """The store may well answer, but this process has no connection to spare for asking it."""


class StoreCold(StoreUnavailable):
    """The store answers, and has lost counters that could not be taken from the rows."""


class StoreFlushed(StoreUnavailable):
    """The store has lost counters, and takes no step until each process has told what it has heard of them."""

    def __init__(self, generation: str, left: int) -> None:
        """Name the generation that began with the loss, and the milliseconds that are ``left``."""
        super().__init__(f"The store was flushed, and is left alone for {left} ms.")
        self.generation, self.left = generation, left


class StoreReturned(AxesError):
    """The store is in use again by others, so that what the rows say is not the whole any more."""


class AttemptDenied(AxesError, PermissionDenied):
    """The client may not try a password now.

    A ``PermissionDenied``, so that Django's ``authenticate()`` stops at it and an uncaught one is no server error;
    ``AxesMiddleware`` turns the response into the lockout response.
    """
