"""The ``AXES_*`` settings as one typed, frozen object.

Read from Django's settings when first asked for, dropped when a test overrides one; nothing is ever written back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from datetime import timedelta
from functools import cache, partial
from typing import Any, Literal

from django.conf import settings as django_settings
from django.core.signals import setting_changed
from django.http import HttpRequest
from django.utils.functional import Promise

from axes_async.conf import addresses, lockout_rules, validators
from axes_async.conf.networks import NOWHERE, Networks
from axes_async.counters.rules import LockoutTier

__all__ = ["AxesSettings", "LockoutTier", "get_settings"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AxesSettings:
    """Every setting of axes_async, checked and in its final type; field ``name`` is the setting ``AXES_NAME``.

    Compared and hashed as the object it is, so that what is worked out from settings can be kept for as long as them.
    """

    enabled: bool = True
    """``False`` makes the whole package inert."""
    username_form_field: str | None = None
    """Field of forms and credentials that holds the username; ``None`` for the user model's ``USERNAME_FIELD``."""
    password_form_field: str = "password"  # noqa: S105  (the name of a field)
    """Name of the password among credentials."""
    username_callable: Callable[[HttpRequest | None, Mapping[str, Any] | None], Any] | None = None
    """Returns the username of a request and credentials."""
    username_canonicalizer: Callable[[str], str | None] | None = None
    """Returns the form of a username that counters use; ``None`` for ``client.normalize.fold_username``."""
    client_ip_callable: Callable[[HttpRequest], Any] | None = None
    """Returns the address of the client behind a request."""
    client_str_callable: Callable[..., Any] | None = None
    """Returns the text that names a client in log messages."""
    sensitive_parameters: tuple[str, ...] = ("username", "ip_address")
    """What log messages that name a client mask."""
    verbose: bool = True
    """Whether log messages name a client by all that is known of it, or by what the counters are made of."""
    trusted_proxies: Networks = NOWHERE
    """Peers whose forwarding headers are read."""
    ipware_meta_precedence_order: tuple[str, ...] = ("REMOTE_ADDR",)
    """Headers, as keys of ``META``, in which trusted proxies name the client."""
    ipware_proxy_order: Literal["left-most", "right-most"] = "left-most"
    """At which end of such a header the client stands."""
    ipware_proxy_count: int | None = None
    """Proxies that stand in such a header behind the client."""
    ipware_proxy_trusted_ips: tuple[str, ...] = ()
    """The proxies that stand in such a header behind the client."""
    ipv4_prefix: int = 32
    """Bits of an IPv4 address that tell clients apart."""
    ipv6_prefix: int = 64
    """Bits of an IPv6 address that do: a site is given a /64 or more (RFC 6177), and can rotate through the rest."""
    whitelist_callable: Callable[[HttpRequest | None, Mapping[str, Any] | None], Any] | None = None
    """Returns whether a request with credentials is exempt."""
    ip_whitelist: Networks = NOWHERE
    """Addresses that the two settings below speak of."""
    never_lockout_whitelist: bool = False
    """Whether clients from these addresses are exempt."""
    only_whitelist: bool = False
    """Whether clients from other addresses are refused, and these exempt."""
    ip_blacklist: Networks = NOWHERE
    """Addresses whose clients are refused."""
    never_lockout_get: bool = False
    """Whether GET requests are exempt."""
    only_admin_site: bool = False
    """Whether lockouts keep clients from the admin only."""
    failure_limit: lockout_rules.Limit = 3
    """Failures after which a counter locks, or what returns them for a request and credentials."""
    lock_out_at_failure: bool = True
    """``False`` counts and logs, and never locks."""
    lockout_parameters: lockout_rules.Parameters = (("ip_address",),)
    """What is counted: one counter per inner tuple; or what returns that for a request and credentials."""
    lockout_rules: tuple[lockout_rules.RuleSetting, ...] | None = None
    """What is counted, each with a limit and a cool-off of its own; used in place of ``lockout_parameters``."""
    lockout_tiers: tuple[LockoutTier, ...] | None = None
    """A lockout that is the longer the more failures there were; used in place of limit and cool-off."""
    cooloff_time: validators.CoolOff = None
    """How long failures and lockouts last after the last failure; ``None`` until a reset."""
    use_attempt_expiration: bool = False
    """Whether each failure ends alone, a cool-off after it was made, and not all of them after the last one."""
    reset_on_success: bool | Literal["account"] = False
    """What a login clears: nothing, counters whose rule holds the username, or all of the attempt's counters."""
    reset_cool_off_on_failure_during_lockout: bool = False
    """Whether an attempt during a lockout starts its cool-off anew."""
    http_response_code: int = 429
    """Status of the lockout response."""
    enable_retry_after_header: bool = True
    """Whether the lockout response has ``Retry-After``, where the lockout ends by itself."""
    lockout_callable: validators.LockoutCallable | None = None
    """Makes the lockout response out of the request, the view's response and the credentials."""
    lockout_template: str | None = None
    """Template of the lockout page."""
    lockout_url: str | Promise | None = None
    """Where locked out clients are sent: a URL, or the name of one."""
    cooloff_message: str | Promise | None = None
    """What the lockout response says while the lockout ends by itself; ``None`` for our own words."""
    permalock_message: str | Promise | None = None
    """What it says where only a reset ends the lockout; ``None`` for our own words."""
    allowed_cors_origins: tuple[str, ...] = ()
    """Origins whose pages may read the lockout response in JSON; ``*`` is all of them."""
    enable_admin: bool = True
    """Whether the rows are in the admin."""
    enable_access_failure_log: bool = True
    """Whether each failure gets an ``AccessFailureLog`` row."""
    disable_access_log: bool = False
    """Whether logins and logouts go without ``AccessLog`` rows."""
    access_log_age: timedelta | None = None
    """How long ``AccessLog`` rows are kept; ``None`` for ever. This one and those below are what ``purge`` goes by."""
    access_failure_log_age: timedelta | None = None
    """How long ``AccessFailureLog`` rows are kept."""
    access_reset_age: timedelta | None = None
    """How long ``AccessReset`` rows are kept."""
    access_failure_log_per_user_limit: int | None = None
    """How many ``AccessFailureLog`` rows of one username are kept, the latest; ``None`` for all."""
    store: Literal["cache", "database"] = "cache"
    """Where logins are counted: on the server of ``cache`` or ``redis_client``, or in the database alone."""
    test_store: Literal["database", "cache"] = "database"
    """What takes the store's place while Django's test runner has replaced the databases: ``"database"`` counts in the
    test's own transaction, ``"cache"`` keeps the store that ``store`` names, under keys of the test database."""
    cache: str = "default"
    """Alias in ``CACHES`` whose server holds counters and outbox."""
    redis_client: Callable[[], Any] | None = None
    """Returns a redis-py compatible client to use in place of the one built from the cache's ``LOCATION``."""
    reserve_wait: float = 1.0
    """Seconds an attempt waits at most while open reservations of the same client leave no room."""
    reserve_lease: float = 30.0
    """Seconds after which a reservation that was never settled ends."""
    store_timeout: float = 0.07
    """Seconds to wait for the store's connection, and for its answer."""
    on_store_failure: Literal["database", "deny", "allow"] = "database"
    """Who decides on logins while the store cannot: the database, or nobody, so that all are denied or allowed."""
    store_retry_interval: float = 1.0
    """Seconds between two probes of a store that is away; logins do not wait for it meanwhile."""
    outbox_max: int = 1_000_000
    """Events the outbox holds at most; what comes after that is counted, not kept."""
    celery_queue: str | None = None
    """Celery queue for our messages; ``None`` for the project's default queue."""

    @property
    def exempts_nobody(self) -> bool:
        """Whether nobody is exempt or refused."""
        return not (
            self.whitelist_callable is not None
            or self.never_lockout_whitelist
            or self.only_whitelist
            or self.ip_blacklist
            or self.never_lockout_get
            or self.only_admin_site
        )

    @property
    def lease_ms(self) -> int:
        """``reserve_lease`` in milliseconds."""
        return max(1, round(self.reserve_lease * 1000))

    @property
    def purges(self) -> bool:
        """Whether any log row is to go some day."""
        kept = (self.access_log_age, self.access_failure_log_age, self.access_reset_age)
        return any(age is not None for age in kept) or self.access_failure_log_per_user_limit is not None

    def cooloff_for(self, request: HttpRequest | None) -> float | None:
        """Return the cool-off in seconds for ``request``; ``None`` when only a reset ends a lockout.

        Raises ``ImproperlyConfigured`` when a callable ``AXES_COOLOFF_TIME`` returns something else.
        """
        return validators.seconds_of("AXES_COOLOFF_TIME", self.cooloff_time, request)


_VALIDATORS: Mapping[str, Callable[[str, object], Any]] = {
    "enabled": validators.boolean,
    "username_form_field": validators.optional_text,
    "password_form_field": validators.text,
    "username_callable": validators.optional_dotted,
    "username_canonicalizer": validators.optional_dotted,
    "client_ip_callable": validators.optional_dotted,
    "client_str_callable": validators.optional_dotted,
    "sensitive_parameters": validators.texts,
    "verbose": validators.boolean,
    "trusted_proxies": partial(addresses.networks, unix=True),
    "ipware_meta_precedence_order": validators.texts,
    "ipware_proxy_order": partial(validators.choice, choices=("left-most", "right-most")),
    "ipware_proxy_count": addresses.proxy_count,
    "ipware_proxy_trusted_ips": addresses.hops,
    "ipv4_prefix": partial(validators.integer, least=1, most=32),
    "ipv6_prefix": partial(validators.integer, least=1, most=128),
    "whitelist_callable": validators.optional_dotted,
    "ip_whitelist": addresses.networks,
    "never_lockout_whitelist": validators.boolean,
    "only_whitelist": validators.boolean,
    "ip_blacklist": addresses.networks,
    "never_lockout_get": validators.boolean,
    "only_admin_site": validators.boolean,
    "failure_limit": lockout_rules.limit,
    "lock_out_at_failure": validators.boolean,
    "lockout_parameters": lockout_rules.parameters,
    "lockout_rules": lockout_rules.rules,
    "lockout_tiers": lockout_rules.tiers,
    "cooloff_time": validators.cooloff,
    "use_attempt_expiration": validators.boolean,
    "reset_on_success": validators.reset_on_success,
    "reset_cool_off_on_failure_during_lockout": validators.boolean,
    "http_response_code": partial(validators.integer, least=200, most=599),
    "enable_retry_after_header": validators.boolean,
    "lockout_callable": validators.lockout_callable,
    "lockout_template": validators.optional_text,
    "lockout_url": validators.lazy_text,
    "cooloff_message": validators.lazy_text,
    "permalock_message": validators.lazy_text,
    "allowed_cors_origins": validators.origins,
    "enable_admin": validators.boolean,
    "enable_access_failure_log": validators.boolean,
    "disable_access_log": validators.boolean,
    "access_log_age": validators.age,
    "access_failure_log_age": validators.age,
    "access_reset_age": validators.age,
    "access_failure_log_per_user_limit": partial(validators.optional_integer, least=1, most=validators.MOST),
    "store": partial(validators.choice, choices=("cache", "database")),
    "test_store": partial(validators.choice, choices=("database", "cache")),
    "cache": validators.text,
    "redis_client": validators.optional_dotted,
    "reserve_wait": partial(validators.seconds, positive=False),
    "reserve_lease": partial(validators.seconds, positive=True),
    "store_timeout": partial(validators.seconds, positive=True),
    "on_store_failure": validators.on_store_failure,
    "store_retry_interval": partial(validators.seconds, positive=True),
    "outbox_max": partial(validators.integer, least=1),
    "celery_queue": validators.optional_text,
}


@cache
def get_settings() -> AxesSettings:
    """Return the settings in force.

    Raises ``ImproperlyConfigured``, naming the setting, what it got and what it takes, for a value of a wrong type or
    out of range.
    """
    values = {}
    for field in fields(AxesSettings):
        name = f"AXES_{field.name.upper()}"
        if hasattr(django_settings, name):
            values[field.name] = _VALIDATORS[field.name](name, getattr(django_settings, name))
    return AxesSettings(**values)


def _forget(*, setting: str, **kwargs: object) -> None:
    if setting.startswith("AXES_"):
        get_settings.cache_clear()


setting_changed.connect(_forget, dispatch_uid="axes_async.conf")
