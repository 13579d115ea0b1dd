"""System checks of the ``AXES_*`` names a site sets, and of settings that only make sense together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from difflib import get_close_matches
from typing import Any

from django.apps import AppConfig
from django.conf import settings as django_settings
from django.core import checks
from django.core.checks import CheckMessage
from django.core.exceptions import ImproperlyConfigured
from django.shortcuts import resolve_url
from django.template import TemplateDoesNotExist
from django.template.loader import get_template
from django.urls import NoReverseMatch, reverse

from axes_async.conf import AxesSettings, get_settings
from axes_async.login.rules import has_no_cooloff

KNOWN = tuple(f"AXES_{field.name.upper()}" for field in fields(AxesSettings))

RENAMED = {
    "AXES_DISABLE_SUCCESS_ACCESS_LOG": "Set AXES_DISABLE_ACCESS_LOG.",
    "AXES_LOGIN_FAILURE_LIMIT": "Set AXES_FAILURE_LIMIT.",
    "AXES_META_PRECEDENCE_ORDER": "Set AXES_IPWARE_META_PRECEDENCE_ORDER, and AXES_TRUSTED_PROXIES.",
    "AXES_PROXY_COUNT": "Set AXES_IPWARE_PROXY_COUNT, and AXES_TRUSTED_PROXIES.",
    "AXES_PROXY_ORDER": "Set AXES_IPWARE_PROXY_ORDER, and AXES_TRUSTED_PROXIES.",
    "AXES_PROXY_TRUSTED_IPS": "Set AXES_IPWARE_PROXY_TRUSTED_IPS, and AXES_TRUSTED_PROXIES.",
    "AXES_BEHIND_REVERSE_PROXY": "Set AXES_TRUSTED_PROXIES to the addresses of the proxies.",
    "AXES_NUM_PROXIES": "Set AXES_TRUSTED_PROXIES to the addresses of the proxies.",
    "AXES_REVERSE_PROXY_HEADER": "Set AXES_IPWARE_META_PRECEDENCE_ORDER, and AXES_TRUSTED_PROXIES.",
    "AXES_ONLY_USER_FAILURES": 'Set AXES_LOCKOUT_PARAMETERS = ["username"].',
    "AXES_LOCK_OUT_BY_USER_OR_IP": 'Set AXES_LOCKOUT_PARAMETERS = ["username", "ip_address"].',
    "AXES_LOCK_OUT_BY_COMBINATION_USER_AND_IP": 'Set AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]].',
    "AXES_USE_USER_AGENT": 'Put "user_agent" into an inner list of AXES_LOCKOUT_PARAMETERS.',
}
"""Names that django-axes has given up, or still takes beside newer ones; here the newer ones alone count."""

WITHOUT_EFFECT = {
    "AXES_HANDLER": "Remove it: there is one way to count; AXES_CACHE names the server that it is done on.",
    "AXES_LOGGER": 'Remove it, and give the logger "axes_async" its level and handlers in LOGGING.',
}
"""Names of django-axes that there is nothing for here."""


def check_names(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Report each ``AXES_*`` name that nothing reads, with what to write in its place."""
    found: list[CheckMessage] = []
    for name in sorted(name for name in dir(django_settings) if name.startswith("AXES_")):
        if name in KNOWN:
            continue
        if name in RENAMED:
            told = f"{name} is an old name of django-axes, which axes_async does not read."
            found.append(checks.Warning(told, hint=RENAMED[name], id="axes_async.W010"))
        elif name in WITHOUT_EFFECT:
            told = f"{name} is a setting of django-axes that has no effect in axes_async."
            found.append(checks.Warning(told, hint=WITHOUT_EFFECT[name], id="axes_async.W010"))
        else:
            near = get_close_matches(name, KNOWN, n=1)
            hint = f"Did you mean {near[0]}?" if near else "docs/settings.md has all of them."
            found.append(checks.Warning(f"{name} is no setting of axes_async.", hint=hint, id="axes_async.W009"))
    return found


def check_proxies(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Report headers in which a proxy tells of the client where no proxy is believed, and an order of no proxies."""
    settings = _settings()
    if settings is None or settings.client_ip_callable is not None:
        return []
    found: list[CheckMessage] = []
    named = set(settings.ipware_meta_precedence_order) - {"REMOTE_ADDR"}
    counted = settings.ipware_proxy_count is not None or bool(settings.ipware_proxy_trusted_ips)
    if not settings.trusted_proxies and (named or counted):
        told = "AXES_IPWARE_* settings have no effect without AXES_TRUSTED_PROXIES: no forwarding header is read."
        hint = (
            "Set it to the addresses that requests come to Django from (REMOTE_ADDR), such as ['127.0.0.1'] or "
            "['10.0.0.0/8'], or ['unix']. Behind a proxy, all clients are one address until then."
        )
        found.append(checks.Warning(told, hint=hint, id="axes_async.W011"))
    if settings.ipware_proxy_order == "right-most" and not counted:
        told = (
            'AXES_IPWARE_PROXY_ORDER = "right-most" has no effect without AXES_IPWARE_PROXY_COUNT or '
            "AXES_IPWARE_PROXY_TRUSTED_IPS: the client is the first address from the right that is no trusted proxy."
        )
        hint = "Set one of them if the client stands at the right end of the header, and else remove it."
        found.append(checks.Warning(told, hint=hint, id="axes_async.W017"))
    return found


def check_lists(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Report a list that nothing uses, and a rule that has no list."""
    settings = _settings()
    if settings is None:
        return []
    if settings.only_whitelist and not settings.ip_whitelist:
        told = "AXES_ONLY_WHITELIST is on and AXES_IP_WHITELIST is empty, so that everybody is refused."
        return [checks.Warning(told, hint="Set AXES_IP_WHITELIST.", id="axes_async.W012")]
    if settings.never_lockout_whitelist and not settings.ip_whitelist:
        told = "AXES_NEVER_LOCKOUT_WHITELIST is on and AXES_IP_WHITELIST is empty, so that nobody is exempt."
        return [checks.Warning(told, hint="Set AXES_IP_WHITELIST.", id="axes_async.W012")]
    if settings.ip_whitelist and not (settings.never_lockout_whitelist or settings.only_whitelist):
        told = "AXES_IP_WHITELIST has no effect without AXES_NEVER_LOCKOUT_WHITELIST or AXES_ONLY_WHITELIST."
        return [checks.Warning(told, hint="Set the one that you mean to True.", id="axes_async.W012")]
    return []


def check_rules(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Report settings of rules that others leave without effect."""
    settings = _settings()
    if settings is None:
        return []
    found: list[CheckMessage] = []
    if settings.use_attempt_expiration and has_no_cooloff(settings):
        told = "AXES_USE_ATTEMPT_EXPIRATION has no effect without a cool-off, after which a failure could end."
        found.append(checks.Warning(told, hint="Set AXES_COOLOFF_TIME.", id="axes_async.W014"))
    rules = settings.lockout_rules
    if rules is not None and hasattr(django_settings, "AXES_LOCKOUT_PARAMETERS"):
        told = "AXES_LOCKOUT_PARAMETERS has no effect beside AXES_LOCKOUT_RULES, which name their own."
        found.append(checks.Warning(told, hint="Remove one of them.", id="axes_async.W015"))
    if settings.lockout_tiers is not None and rules is None:
        for name in ("AXES_FAILURE_LIMIT", "AXES_COOLOFF_TIME"):
            if hasattr(django_settings, name):
                told = f"{name} has no effect beside AXES_LOCKOUT_TIERS."
                found.append(checks.Warning(told, hint="Remove one of them.", id="axes_async.W015"))
    return found


def check_admin(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Report that only the admin is guarded, and that there is none."""
    settings = _settings()
    if settings is None or not settings.only_admin_site:
        return []
    try:
        reverse("admin:index")
    except NoReverseMatch:
        told = "AXES_ONLY_ADMIN_SITE is on and the URLs have no admin, so that nobody is ever turned away."
        return [checks.Warning(told, hint="Remove it, or add admin.site.urls.", id="axes_async.W013")]
    return []


def check_response(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Report a lockout template or URL that is not there: the first lockout would end in an error."""
    settings = _settings()
    if settings is None:
        return []
    found: list[CheckMessage] = []
    if settings.lockout_template is not None:
        try:
            get_template(settings.lockout_template)
        except TemplateDoesNotExist:
            told = f"AXES_LOCKOUT_TEMPLATE is {settings.lockout_template!r}, which no template loader finds."
            found.append(checks.Warning(told, hint="Name one that is there.", id="axes_async.W016"))
    if settings.lockout_url is not None:
        try:
            resolve_url(str(settings.lockout_url))
        except NoReverseMatch:
            told = f"AXES_LOCKOUT_URL is {str(settings.lockout_url)!r}, which is neither a URL nor the name of one."
            found.append(checks.Warning(told, hint="Name one that is in the URLs.", id="axes_async.W016"))
    return found


def _settings() -> AxesSettings | None:
    """Return the settings in force; ``None`` if they are off, or cannot be read, which another check says."""
    try:
        settings = get_settings()
    except ImproperlyConfigured:
        return None
    return settings if settings.enabled else None
