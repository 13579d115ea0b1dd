"""System checks of the settings: their names, their values, and those that only make sense together."""

from __future__ import annotations

from dataclasses import fields
from difflib import get_close_matches
from typing import Any

from django.conf import settings as django_settings
from django.core import checks
from django.core.checks import CheckMessage, register
from django.core.exceptions import ImproperlyConfigured
from django.shortcuts import resolve_url
from django.template import TemplateDoesNotExist
from django.template.loader import get_template
from django.urls import NoReverseMatch, reverse

from axes_async.checks import Warnings, check, warning
from axes_async.conf import AxesSettings, get_settings
from axes_async.login.lockout_page import UNLOCK, url_of
from axes_async.login.rules_in_force import cooloffs
from axes_async.notify.mail import email_field
from axes_async.stores.factory import get_store

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


@register("axes_async")
def check_settings(app_configs: object, **kwargs: Any) -> list[CheckMessage]:
    """Report the first setting that cannot be used, and a store that cannot be built."""
    try:
        if get_settings().enabled:
            get_store()
    except ImproperlyConfigured as error:
        return [checks.Error(str(error), id="axes_async.E001")]
    return []


@register("axes_async")
def check_names(app_configs: object, **kwargs: Any) -> list[CheckMessage]:
    """Report each ``AXES_*`` name that nothing reads, with what to write in its place."""
    found: list[CheckMessage] = []
    for name in sorted(name for name in dir(django_settings) if name.startswith("AXES_")):
        if name in RENAMED:
            told = f"{name} is an old name of django-axes, which axes_async does not read."
            found.append(warning(10, told, RENAMED[name]))
        elif name in WITHOUT_EFFECT:
            told = f"{name} is a setting of django-axes that has no effect in axes_async."
            found.append(warning(10, told, WITHOUT_EFFECT[name]))
        elif name not in KNOWN:
            near = get_close_matches(name, KNOWN, n=1)
            hint = f"Did you mean {near[0]}?" if near else "docs/settings.md has all of them."
            found.append(warning(9, f"{name} is no setting of axes_async.", hint))
    return found


@check()
def check_proxies(settings: AxesSettings) -> Warnings:
    """Report headers in which a proxy tells of the client where no proxy is believed, and an order of no proxies."""
    if settings.client_ip_callable is not None:
        return
    named = set(settings.ipware_meta_precedence_order) - {"REMOTE_ADDR"}
    counted = settings.ipware_proxy_count is not None or bool(settings.ipware_proxy_trusted_ips)
    if not settings.trusted_proxies and (named or counted):
        yield warning(
            11,
            "AXES_IPWARE_* settings have no effect without AXES_TRUSTED_PROXIES: no forwarding header is read.",
            "Set it to the addresses that requests come to Django from (REMOTE_ADDR), such as ['127.0.0.1'] or "
            "['10.0.0.0/8'], or ['unix']. Behind a proxy, all clients are one address until then.",
        )
    if settings.ipware_proxy_order == "right-most" and not counted:
        yield warning(
            17,
            'AXES_IPWARE_PROXY_ORDER = "right-most" has no effect without AXES_IPWARE_PROXY_COUNT or '
            "AXES_IPWARE_PROXY_TRUSTED_IPS: the client is the first address from the right that is no trusted proxy.",
            "Set one of them if the client stands at the right end of the header, and else remove it.",
        )


@check()
def check_lists(settings: AxesSettings) -> Warnings:
    """Report a list that nothing uses, and a rule that has no list."""
    if settings.ip_whitelist:
        if not (settings.never_lockout_whitelist or settings.only_whitelist):
            told = "AXES_IP_WHITELIST has no effect without AXES_NEVER_LOCKOUT_WHITELIST or AXES_ONLY_WHITELIST."
            yield warning(12, told, "Set the one that you mean to True.")
    elif settings.only_whitelist:
        told = "AXES_ONLY_WHITELIST is on and AXES_IP_WHITELIST is empty, so that everybody is refused."
        yield warning(12, told, "Set AXES_IP_WHITELIST.")
    elif settings.never_lockout_whitelist:
        told = "AXES_NEVER_LOCKOUT_WHITELIST is on and AXES_IP_WHITELIST is empty, so that nobody is exempt."
        yield warning(12, told, "Set AXES_IP_WHITELIST.")


@check()
def check_rules(settings: AxesSettings) -> Warnings:
    """Report settings of rules that others leave without effect."""
    if settings.use_attempt_expiration and not any(cooloffs(settings)):
        told = "AXES_USE_ATTEMPT_EXPIRATION has no effect without a cool-off, after which a failure could end."
        yield warning(14, told, "Set AXES_COOLOFF_TIME.")
    if settings.lockout_rules is not None and hasattr(django_settings, "AXES_LOCKOUT_PARAMETERS"):
        told = "AXES_LOCKOUT_PARAMETERS has no effect beside AXES_LOCKOUT_RULES, which name their own."
        yield warning(15, told, "Remove one of them.")
    if settings.lockout_tiers is not None and settings.lockout_rules is None:
        for name in ("AXES_FAILURE_LIMIT", "AXES_COOLOFF_TIME"):
            if hasattr(django_settings, name):
                yield warning(15, f"{name} has no effect beside AXES_LOCKOUT_TIERS.", "Remove one of them.")


@check()
def check_admin(settings: AxesSettings) -> Warnings:
    """Report that only the admin is guarded, and that there is none."""
    if settings.only_admin_site:  # A project that serves nothing may have no URLs to look at.
        try:
            reverse("admin:index")
        except NoReverseMatch:
            told = "AXES_ONLY_ADMIN_SITE is on and the URLs have no admin, so that nobody is ever turned away."
            yield warning(13, told, "Remove it, or add admin.site.urls.")


@check()
def check_notify(settings: AxesSettings) -> Warnings:
    """Report news that nobody gets."""
    if bool(settings.notify_webhook) is not bool(settings.notify_webhook_secret):
        told = "AXES_NOTIFY_WEBHOOK and AXES_NOTIFY_WEBHOOK_SECRET need each other: no webhook is sent."
        yield warning(31, told, "Set both, or none.")
    if settings.channels("attacks") and not settings.enable_access_failure_log:
        told = "No attack is told of, since AXES_ENABLE_ACCESS_FAILURE_LOG is off: they are seen by its rows."
        yield warning(31, told, 'Set it to True, or leave "attacks" out of AXES_NOTIFY_ON.')
    for name, is_on in (("AXES_NOTIFY_OWNER", settings.notify_owner), ("AXES_UNLOCK_BY_MAIL", settings.unlock_by_mail)):
        if is_on and not email_field():
            told = f"{name} reaches nobody: the user model has no field for mail addresses."
            yield warning(31, told, "Name the field in the model's EMAIL_FIELD.")


@check()
def check_response(settings: AxesSettings) -> Warnings:
    """Report a lockout template or a URL that is not there."""
    if settings.lockout_template is not None:
        try:
            get_template(settings.lockout_template)
        except TemplateDoesNotExist:
            told = f"AXES_LOCKOUT_TEMPLATE is {settings.lockout_template!r}, which no template loader finds."
            yield warning(16, told, "Name one that is there.")
    for name, url in (
        ("AXES_LOCKOUT_URL", settings.lockout_url),
        ("AXES_PASSWORD_RESET_URL", settings.password_reset_url),
    ):
        try:
            if url:
                resolve_url(str(url))
        except NoReverseMatch:
            told = f"{name} is {str(url)!r}, which is neither a URL nor the name of one."
            yield warning(16, told, "Name one that is in the URLs.")
    if settings.unlock_by_mail and not url_of(UNLOCK):
        told = "AXES_UNLOCK_BY_MAIL is on, and the URLs have no page for it."
        yield warning(30, told, 'Add path("axes/", include("axes_async.unlock.urls")).')


@check(deploy=True)
def check_addresses(settings: AxesSettings) -> Warnings:
    """Report that every rule needs an address, which an attempt outside of any request has not."""
    named = settings.lockout_parameters
    if settings.lockout_rules is not None:
        named = tuple(rule.parameters for rule in settings.lockout_rules)
    if not callable(named) and all("ip_address" in together for together in named):
        told = "Every rule has 'ip_address': passwords that are tried outside of any request are not counted."
        hint = "If code of yours calls authenticate() there, add a rule for the username, with a limit of its own."
        yield checks.Info(told, hint=hint, id="axes_async.I001")
