"""What sites call on django-axes' handler, answered from the store; there is no other handler to choose."""

from __future__ import annotations

from django.http import HttpRequest

from axes_async.client.exemptions import Exemption, exemption_of
from axes_async.conf import get_settings
from axes_async.conf.lockout_rules import Credentials
from axes_async.errors import StoreUnavailable
from axes_async.login.steps import client_and_counters
from axes_async.stores.factory import get_failover
from axes_async.utils import reset


class AxesProxyHandler:
    """Questions about a client. They count nothing, record nothing, and leave the response to whoever asks.

    They are one look at the store: what keeps a guess from being made after it is ``guard.attempt``.
    """

    @classmethod
    def is_allowed(cls, request: HttpRequest, credentials: Credentials = None) -> bool:
        """Return whether the client may try a password: it is not locked out, and that can be known."""
        try:
            return not cls.is_locked(request, credentials)
        except StoreUnavailable:
            return False

    @staticmethod
    def is_locked(request: HttpRequest, credentials: Credentials = None) -> bool:
        """Return whether the client is locked out, or refused; raises ``StoreUnavailable`` where that is not known."""
        settings = get_settings()
        if not settings.enabled:
            return False
        client, counters = client_and_counters(settings, request, credentials)
        exemption = exemption_of(settings, request, credentials, client)
        if exemption is not Exemption.NONE:
            return exemption is Exemption.REFUSED
        return bool(get_failover().peek(counters).locked_until)

    @staticmethod
    def get_failures(request: HttpRequest, credentials: Credentials = None) -> int:
        """Return how many failures count against the client, under the rule by which they are most.

        Raises ``StoreUnavailable`` where that cannot be known.
        """
        settings = get_settings()
        if not settings.enabled:
            return 0
        _, counters = client_and_counters(settings, request, credentials)
        return max((state.failures for state in get_failover().states(counters)), default=0)

    @staticmethod
    def reset_attempts(
        *, ip_address: str | None = None, username: str | None = None, ip_or_username: bool = False
    ) -> int:
        """Do as ``utils.reset``."""
        return reset(ip=ip_address, username=username, ip_or_username=ip_or_username)
