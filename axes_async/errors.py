"""The one tree of exceptions that axes_async raises of its own."""

from __future__ import annotations

from django.core.exceptions import PermissionDenied


class AxesError(Exception):
    """Root of every exception defined by axes_async."""


class StoreUnavailable(AxesError):
    """The store that holds the counters did not answer in time, or answered with an error."""


class StoreDisconnected(StoreUnavailable):
    """A connection to the store was closed before the answer had come; the store itself may be well."""


class StoreBusy(StoreUnavailable):
    """The store may well answer, but this process has no connection to spare for asking it."""


class StoreIncomplete(StoreUnavailable):
    """The store answers, and has not all counters of our database: the database decides."""


class StoreReturned(AxesError):
    """The store decides again: its generation is newer than the one that the caller knew."""

    def __init__(self, generation: int) -> None:
        super().__init__(f"The store decides again, in generation {generation}.")
        self.generation = generation


class AttemptDenied(AxesError, PermissionDenied):
    """The client may not try a password now.

    A ``PermissionDenied``, so that Django's ``authenticate()`` stops at it and an uncaught one is no server error;
    ``AxesMiddleware`` turns the response into the lockout response.
    """
