"""The ``AXES_*`` settings as one typed, frozen object.

Read from Django's settings when first asked for, dropped when a test overrides one; nothing is ever written back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import cache, partial
from typing import Annotated, Any, Literal, get_type_hints

from django.conf import settings as django_settings
from django.core.signals import setting_changed
from django.http import HttpRequest
from django.utils.functional import Promise

from axes_async.conf import lockout_rules as rules
from axes_async.conf import validators
from axes_async.conf.networks import MOST_HOPS, NOWHERE, Networks
from axes_async.counters.rules import LockoutTier, milliseconds

__all__ = ["AxesSettings", "LockoutTier", "get_settings"]

NEWS = ("lockouts", "attacks", "health")
"""What operators can be told of."""

CHANNELS = ("webhook", "mail", "owner")
"""Over what people are told: operators by webhook and by mail, and owners by mail, of lockouts alone."""

Flag = Annotated[bool, validators.boolean]
Text = Annotated[str, validators.text]
Name = Annotated[str | None, validators.optional_text]
Texts = Annotated[tuple[str, ...], validators.texts]
LazyText = Annotated[str | Promise | None, validators.lazy_text]
Function = Annotated[Callable[..., Any] | None, validators.optional_dotted]
AskedOfCredentials = Annotated[
    Callable[[HttpRequest | None, Mapping[str, Any] | None], Any] | None, validators.optional_dotted
]
Addresses = Annotated[Networks, validators.networks]
Seconds = Annotated[float, partial(validators.seconds, positive=True)]
Age = Annotated[timedelta | None, validators.age]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AxesSettings:
    """Every setting of axes_async, in its final type; field ``name`` is the setting ``AXES_NAME``, beside its reader.

    ``docs/settings.md`` says what each means. Compared and hashed as the object it is, so that what is worked out from
    settings can be kept for as long as them.
    """

    enabled: Flag = True

    username_form_field: Name = None
    password_form_field: Text = "password"  # noqa: S105  (the name of a field)
    username_callable: AskedOfCredentials = None
    username_canonicalizer: Annotated[Callable[[str], str | None] | None, validators.optional_dotted] = None
    client_ip_callable: Annotated[Callable[[HttpRequest], Any] | None, validators.optional_dotted] = None
    client_str_callable: Function = None
    sensitive_parameters: Texts = ()
    verbose: Flag = True

    trusted_proxies: Annotated[Networks, partial(validators.networks, unix=True)] = NOWHERE
    ipware_meta_precedence_order: Texts = ("REMOTE_ADDR",)
    ipware_proxy_order: Annotated[
        Literal["left-most", "right-most"], partial(validators.choice, choices=("left-most", "right-most"))
    ] = "left-most"
    ipware_proxy_count: Annotated[int | None, partial(validators.integer, least=0, most=MOST_HOPS, optional=True)] = (
        None
    )
    ipware_proxy_trusted_ips: Annotated[tuple[str, ...], validators.hops] = ()
    ipv4_prefix: Annotated[int, partial(validators.integer, least=1, most=32)] = 32
    ipv6_prefix: Annotated[int, partial(validators.integer, least=1, most=128)] = 64
    """A site is given a /64 or more (RFC 6177), and can rotate through the rest."""

    whitelist_callable: AskedOfCredentials = None
    ip_whitelist: Addresses = NOWHERE
    never_lockout_whitelist: Flag = False
    only_whitelist: Flag = False
    ip_blacklist: Addresses = NOWHERE
    never_lockout_get: Flag = False
    only_admin_site: Flag = False

    failure_limit: Annotated[rules.Limit, rules.limit] = 3
    lock_out_at_failure: Flag = True
    lockout_parameters: Annotated[rules.Parameters, rules.parameters] = (("ip_address",),)
    lockout_rules: Annotated[tuple[rules.RuleSetting, ...] | None, rules.rules] = None
    lockout_tiers: Annotated[tuple[LockoutTier, ...] | None, rules.tiers] = None
    cooloff_time: Annotated[validators.CoolOff, validators.cooloff] = None
    use_attempt_expiration: Flag = False
    reset_on_success: Annotated[bool | Literal["account"], validators.reset_on_success] = False
    reset_cool_off_on_failure_during_lockout: Flag = False

    http_response_code: Annotated[int, partial(validators.integer, least=200, most=599)] = 429
    enable_retry_after_header: Flag = True
    lockout_callable: Annotated[validators.LockoutCallable | None, validators.lockout_callable] = None
    lockout_template: Name = None
    lockout_url: LazyText = None
    cooloff_message: LazyText = None
    permalock_message: LazyText = None
    password_reset_url: LazyText = None
    unlock_by_mail: Flag = False
    unlock_link_age: Seconds = 3600.0
    unlock_on_password_reset: Flag = False
    allowed_cors_origins: Annotated[tuple[str, ...], validators.origins] = ()

    notify: Annotated[tuple[str, ...], validators.mail_addresses] = ()
    notify_webhook: Annotated[str | None, validators.web_address] = None
    notify_webhook_secret: Annotated[tuple[bytes, ...], validators.webhook_secrets] = ()
    notify_on: Annotated[tuple[str, ...], partial(validators.subset, choices=NEWS)] = NEWS
    notify_pause: Seconds = 900.0
    notify_attack: Annotated[int, partial(validators.integer, least=1, most=10_000)] = 100
    notify_owner: Flag = False

    enable_admin: Flag = True
    enable_access_failure_log: Flag = True
    disable_access_log: Flag = False
    access_log_age: Age = None
    access_failure_log_age: Age = None
    access_reset_age: Age = None
    access_failure_log_per_user_limit: Annotated[
        int | None, partial(validators.integer, least=1, most=validators.MOST, optional=True)
    ] = None

    store: Annotated[Literal["cache", "database"], partial(validators.choice, choices=("cache", "database"))] = "cache"
    test_store: Annotated[Literal["database", "cache"], partial(validators.choice, choices=("database", "cache"))] = (
        "database"
    )
    cache: Text = "default"
    redis_client: Function = None
    reserve_wait: Annotated[float, partial(validators.seconds, positive=False)] = 1.0
    reserve_lease: Seconds = 30.0
    store_timeout: Seconds = 0.07
    on_store_failure: Annotated[
        Literal["database", "deny", "allow"], partial(validators.choice, choices=("database", "deny", "allow"))
    ] = "database"
    store_retry_interval: Seconds = 1.0
    outbox_max: Annotated[int, partial(validators.integer, least=1)] = 1_000_000
    outbox_max_bytes: Annotated[int, partial(validators.integer, least=1_000_000)] = 2**29
    celery_queue: Name = None

    metrics: Annotated[tuple[str, ...], partial(validators.subset, choices=("prometheus", "opentelemetry"))] = ()
    metrics_token: Name = None

    def channels(self, news: str) -> list[str]:
        """Return those of ``CHANNELS`` that tell of ``news``, one of ``NEWS``."""
        is_told = news in self.notify_on
        is_on = {
            "webhook": is_told and self.notify_webhook and self.notify_webhook_secret,
            "mail": is_told and self.notify,
            "owner": news == "lockouts" and self.notify_owner,
        }
        return [channel for channel in CHANNELS if is_on[channel]]

    @property
    def has_notices(self) -> bool:
        """Whether anything is on that leaves rows of ``Notice``."""
        return bool(self.unlock_by_mail or self.notify_owner or self.notify or self.notify_webhook)

    @property
    def lease_ms(self) -> int:
        return milliseconds(self.reserve_lease)


@cache
def get_settings() -> AxesSettings:
    """Return the settings in force.

    Raises ``ImproperlyConfigured``, naming the setting, what it got and what it takes, for a value of a wrong type or
    out of range.
    """
    values = {}
    for field, annotated in _annotations().items():
        name = f"AXES_{field.upper()}"
        if hasattr(django_settings, name):
            (read,) = annotated.__metadata__
            values[field] = read(name, getattr(django_settings, name))
    return AxesSettings(**values)


@cache
def _annotations() -> dict[str, Any]:
    return get_type_hints(AxesSettings, include_extras=True)


def _forget(*, setting: str, **kwargs: object) -> None:
    if setting.startswith("AXES_"):
        get_settings.cache_clear()


setting_changed.connect(_forget, dispatch_uid="axes_async.conf")
