"""The settings: defaults, what each takes, what it refuses and how it says so."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import FrozenInstanceError, fields
from datetime import timedelta
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory, override_settings
from django.utils.translation import gettext_lazy

from axes_async.conf import AxesSettings, LockoutTier, get_settings
from axes_async.conf.lockout_rules import RuleSetting
from axes_async.conf.networks import Networks
from axes_async.conf.validators import seconds_of
from tests import servers
from tests.labels import short_label
from tests.test_docs import ROOT

SEEN: list[HttpRequest | None] = []


def an_hour(request: HttpRequest | None) -> float:
    """Return a cool-off of one hour, and remember who asked."""
    SEEN.append(request)
    return 1


def seven(request: HttpRequest | None, credentials: Any) -> int:
    """Return a limit."""
    return 7


def answer(request: HttpRequest, response: HttpResponse | None, credentials: Any) -> HttpResponse:
    """Answer a locked out client."""
    return HttpResponse(status=418)


async def answer_later(request: HttpRequest, response: HttpResponse | None, credentials: Any) -> HttpResponse:
    """Answer in a way that sync code could not wait for."""
    return HttpResponse(status=418)


LATER = gettext_lazy("Yes")
DEFAULTS: dict[str, Any] = {
    "enabled": True,
    "username_form_field": None,
    "password_form_field": "password",
    "username_callable": None,
    "username_canonicalizer": None,
    "client_ip_callable": None,
    "client_str_callable": None,
    "sensitive_parameters": (),
    "verbose": True,
    "trusted_proxies": Networks(),
    "ipware_meta_precedence_order": ("REMOTE_ADDR",),
    "ipware_proxy_order": "left-most",
    "ipware_proxy_count": None,
    "ipware_proxy_trusted_ips": (),
    "ipv4_prefix": 32,
    "ipv6_prefix": 64,
    "whitelist_callable": None,
    "ip_whitelist": Networks(),
    "never_lockout_whitelist": False,
    "only_whitelist": False,
    "ip_blacklist": Networks(),
    "never_lockout_get": False,
    "only_admin_site": False,
    "failure_limit": 3,
    "lock_out_at_failure": True,
    "lockout_parameters": (("ip_address",),),
    "lockout_rules": None,
    "lockout_tiers": None,
    "cooloff_time": None,
    "use_attempt_expiration": False,
    "reset_on_success": False,
    "reset_cool_off_on_failure_during_lockout": False,
    "http_response_code": 429,
    "enable_retry_after_header": True,
    "lockout_callable": None,
    "lockout_template": None,
    "lockout_url": None,
    "cooloff_message": None,
    "permalock_message": None,
    "notify": (),
    "notify_webhook": None,
    "notify_webhook_secret": (),
    "notify_on": ("lockouts", "attacks", "health"),
    "notify_pause": 900.0,
    "notify_attack": 100,
    "notify_owner": False,
    "password_reset_url": None,
    "unlock_by_mail": False,
    "unlock_link_age": 3600.0,
    "unlock_on_password_reset": False,
    "allowed_cors_origins": (),
    "enable_admin": True,
    "enable_access_failure_log": True,
    "disable_access_log": False,
    "access_log_age": None,
    "access_failure_log_age": None,
    "access_reset_age": None,
    "access_failure_log_per_user_limit": None,
    "store": "cache",
    "test_store": "database",
    "cache": "default",
    "redis_client": None,
    "reserve_wait": 1.0,
    "reserve_lease": 30.0,
    "store_timeout": 0.07,
    "on_store_failure": "database",
    "store_retry_interval": 1.0,
    "outbox_max": 1_000_000,
    "outbox_max_bytes": 512 * 1024 * 1024,
    "celery_queue": None,
    "metrics": (),
    "metrics_token": None,
}
BOOLEANS = (
    "AXES_ENABLED",
    "AXES_USE_ATTEMPT_EXPIRATION",
    "AXES_LOCK_OUT_AT_FAILURE",
    "AXES_RESET_COOL_OFF_ON_FAILURE_DURING_LOCKOUT",
    "AXES_ENABLE_ACCESS_FAILURE_LOG",
    "AXES_DISABLE_ACCESS_LOG",
    "AXES_ENABLE_RETRY_AFTER_HEADER",
    "AXES_ENABLE_ADMIN",
    "AXES_NOTIFY_OWNER",
    "AXES_UNLOCK_BY_MAIL",
    "AXES_UNLOCK_ON_PASSWORD_RESET",
    "AXES_VERBOSE",
    "AXES_NEVER_LOCKOUT_WHITELIST",
    "AXES_ONLY_WHITELIST",
    "AXES_NEVER_LOCKOUT_GET",
    "AXES_ONLY_ADMIN_SITE",
)
AGES = ("AXES_ACCESS_LOG_AGE", "AXES_ACCESS_FAILURE_LOG_AGE", "AXES_ACCESS_RESET_AGE")
CALLABLES = (
    "AXES_USERNAME_CALLABLE",
    "AXES_USERNAME_CANONICALIZER",
    "AXES_CLIENT_IP_CALLABLE",
    "AXES_CLIENT_STR_CALLABLE",
    "AXES_WHITELIST_CALLABLE",
)
LISTS = ("AXES_IP_WHITELIST", "AXES_IP_BLACKLIST", "AXES_TRUSTED_PROXIES")
NETWORKS: list[tuple[object, object]] = [
    (None, Networks()),
    ([], Networks()),
    (["203.0.113.7"], Networks((IPv4Network("203.0.113.7"),))),
    ((" 203.0.113.0/24 ", "2001:DB8::/32"), Networks((IPv4Network("203.0.113.0/24"), IPv6Network("2001:db8::/32")))),
    ({"::ffff:203.0.113.0/120"}, Networks((IPv4Network("203.0.113.0/24"),))),
    ({"64:ff9b::203.0.113.0/120"}, Networks((IPv4Network("203.0.113.0/24"),))),
    ([IPv4Network("10.0.0.0/8")], Networks((IPv4Network("10.0.0.0/8"),))),
]
NO_NETWORKS = ["203.0.113.7", 7, [""], ["203.0.113.9/24"], ["example.com"], [7], [None], {"203.0.113.7": 1}, [[]]]
REFUSED: dict[str, list[object]] = {
    **{name: [None, 1, 0, "True", ""] for name in BOOLEANS},
    **{name: [1, "", "no.such.module", "os.path", object()] for name in CALLABLES},
    **dict.fromkeys(LISTS, NO_NETWORKS),
    "AXES_USERNAME_FORM_FIELD": ["", 1, ["username"]],
    "AXES_PASSWORD_FORM_FIELD": [None, "", 1],
    "AXES_SENSITIVE_PARAMETERS": ["username", 1, [""], [1], {"username": 1}],
    "AXES_IPWARE_META_PRECEDENCE_ORDER": ["REMOTE_ADDR", 1, [" "], [None]],
    "AXES_IPWARE_PROXY_ORDER": [None, "leftmost", 1, ["left-most"]],
    "AXES_IPWARE_PROXY_COUNT": [-1, "1", 1.0, True, 33],
    "AXES_IPWARE_PROXY_TRUSTED_IPS": ["10.1.", [""], ["example.com"], ["10.0.0.0/99"], [1]],
    "AXES_IPV4_PREFIX": [None, 0, 33, "24", True],
    "AXES_IPV6_PREFIX": [None, 0, 129, "64", 64.0],
    "AXES_FAILURE_LIMIT": [None, 0, -1, 2.0, "3", True, float("nan"), "", "no.such.module", "os.path", [3]],
    "AXES_LOCKOUT_PARAMETERS": [
        None, "ip_address", [], [[]], ["ip"], ["username", 1], [["username", "Ip_address"]], [None], {"username"},
        [["username", ["ip_address"]]], [[["username"]]], "no.such.module", "os.path", "", 3,
    ],
    "AXES_LOCKOUT_RULES": [
        [], {}, "username", ["username"], [{}], [{"limit": 3}], [{"parameters": ["username"], "failures": 3}],
        [{"parameters": "username", "tiers": [(3, 1)], "limit": 3}], {"parameters": ["username"]}, [None],
        "no.such.module", lambda request, credentials: [],
    ],
    "AXES_LOCKOUT_TIERS": [
        [], {}, 3, "3", [3], [(3,)], [(3, None)], [(3, 1), (3, 2)], [(6, 1), (3, 2)], [{"failures": 3, "cooloff": 1}],
        [(3, 1, 2)], [None], "no.such.module", lambda request, credentials: [],
    ],
    "AXES_COOLOFF_TIME": [
        True, 0, -1, 0.0, -0.5, float("nan"), float("inf"), 1e300, 10**400, timedelta(0), timedelta(seconds=-1),
        timedelta(microseconds=1), timedelta.max, [1], b"1", "", "1", "no.such.module", ".x", "..x.y", "os.path",
    ],
    "AXES_RESET_ON_SUCCESS": [None, 1, 0, "Account", "username", ["account"]],
    **{
        name: [
            True, False, 0, -1, 0.01, 36_501, float("nan"), float("inf"), 10**400, "", "30", timedelta(0),
            timedelta(minutes=59), timedelta.max, [30],
        ]
        for name in AGES
    },
    "AXES_ACCESS_FAILURE_LOG_PER_USER_LIMIT": [True, False, 0, -1, 1.5, "1000", float("nan"), 2**31],
    "AXES_HTTP_RESPONSE_CODE": [None, 99, 600, "429", 429.0, True],
    "AXES_LOCKOUT_CALLABLE": [
        1, "", "no.such.module", "os.path", ["tests.conf.test_settings.answer"], lambda: None, lambda request: None,
        lambda request, response, credentials, more: None, answer_later,
    ],
    "AXES_LOCKOUT_TEMPLATE": ["", 1, ["locked.html"]],
    "AXES_LOCKOUT_URL": ["", 1, ["/locked/"]],
    "AXES_NOTIFY": ["ops@example.com", ["ops"], ["a@b@c"], ["a@b\r\nBcc: c@d"], [None], 1, {"a@b": 1}],
    "AXES_NOTIFY_WEBHOOK": [
        "", 1, "ftp://a.example/", "a.example", "https://", "https://a.example/ b", "https://a.example/ü",
        "https://a:b@a.example/", ["https://a.example/"],
        "http://[bad/", "https://[a.example]/", "https://a..b/", "http://.a/", f"http://{'a' * 64}.example/",
        "http://a.example:abc/", "http://a.example:65536/", "http://a.example:0/", "http://:80/",
    ],
    "AXES_NOTIFY_WEBHOOK_SECRET": [],  # No error shows it: tests/notify/test_webhook.py.
    "AXES_NOTIFY_ON": ["health", ["everything"], [["health"]], 1],
    "AXES_NOTIFY_PAUSE": [None, 0, -1, "1", True, float("nan"), float("inf")],
    "AXES_NOTIFY_ATTACK": [None, 0, 10_001, 1.5, "1", True],
    "AXES_PASSWORD_RESET_URL": ["", 1, ["/forgotten/"]],
    "AXES_UNLOCK_LINK_AGE": [None, 0, -1, "1", True, float("nan"), float("inf")],
    "AXES_COOLOFF_MESSAGE": ["", 1, ["Wait."]],
    "AXES_PERMALOCK_MESSAGE": ["", 1, ["Never."]],
    "AXES_ALLOWED_CORS_ORIGINS": [
        True, 1, "", "null", "example.com", "https://", "https://a.example/path", "https://a.example, https://b.example/",
        ["*"], ["https://a.example", None], [["https://a.example"]], {"https://a.example": 1},
    ],
    "AXES_CACHE": [None, "", 1, ["default"]],
    "AXES_REDIS_CLIENT": [1, "", "no.such.module", "os.path", object()],
    "AXES_RESERVE_WAIT": [None, -1, "1", True, float("nan"), float("inf"), timedelta(seconds=1), 10**400],
    "AXES_ON_STORE_FAILURE": [None, True, "", "Deny", "ignore"],
    "AXES_STORE": [None, True, "", "redis", "Cache"],
    "AXES_TEST_STORE": [None, True, "", "redis", "Database"],
    "AXES_STORE_RETRY_INTERVAL": [None, 0, -1, "1", True, float("nan"), float("inf")],
    "AXES_RESERVE_LEASE": [None, 0, -1, "1", True, float("nan"), float("inf")],
    "AXES_STORE_TIMEOUT": [None, 0, -0.1, "1", True, float("nan"), float("inf")],
    "AXES_OUTBOX_MAX": [None, 0, -1, 1e6, "1", True],
    "AXES_OUTBOX_MAX_BYTES": [None, 0, -1, 999_999, 1e6, "1", True],
    "AXES_CELERY_QUEUE": ["", 1, ["axes"]],
    "AXES_METRICS": ["prometheus", ["statsd"], [1], True, [["prometheus"]]],
    "AXES_METRICS_TOKEN": ["", 1, b"token"],
}  # fmt: skip
TAKEN: dict[str, list[tuple[object, object]]] = {
    **{name: [(True, True), (False, False)] for name in BOOLEANS},
    **{
        name: [
            (None, None),
            (30, timedelta(days=30)),
            (0.5, timedelta(hours=12)),
            (timedelta(hours=1), timedelta(hours=1)),
        ]
        for name in AGES
    },
    "AXES_ACCESS_FAILURE_LOG_PER_USER_LIMIT": [(None, None), (1, 1), (1000, 1000)],
    **{name: [(None, None), (dict, dict), ("builtins.dict", dict)] for name in CALLABLES},
    **dict.fromkeys(LISTS, NETWORKS),
    "AXES_TRUSTED_PROXIES": [*NETWORKS, (["unix"], Networks(unix=True)),
                             (["unix", "::1"], Networks((IPv6Network("::1"),), unix=True))],
    "AXES_USERNAME_FORM_FIELD": [(None, None), ("email", "email")],
    "AXES_PASSWORD_FORM_FIELD": [("pin", "pin")],
    "AXES_SENSITIVE_PARAMETERS": [([], ()), (None, ()), (["username"], ("username",))],
    "AXES_IPWARE_META_PRECEDENCE_ORDER": [
        (("HTTP_X_REAL_IP", "REMOTE_ADDR"), ("HTTP_X_REAL_IP", "REMOTE_ADDR")), ([], ()),
    ],
    "AXES_IPWARE_PROXY_ORDER": [("left-most", "left-most"), ("right-most", "right-most")],
    "AXES_IPWARE_PROXY_COUNT": [(None, None), (0, 0), (2, 2)],
    "AXES_IPWARE_PROXY_TRUSTED_IPS": [(None, ()), (["10.1.", "10.0.0.0/8", "::1"], ("10.1.", "10.0.0.0/8", "::1"))],
    "AXES_IPV4_PREFIX": [(24, 24), (1, 1)],
    "AXES_IPV6_PREFIX": [(48, 48), (128, 128)],
    "AXES_FAILURE_LIMIT": [(1, 1), (1000, 1000), (seven, seven), ("tests.conf.test_settings.seven", seven)],
    "AXES_LOCKOUT_PARAMETERS": [
        (["username"], (("username",),)),
        (("ip_address", "username"), (("ip_address",), ("username",))),
        ([["username", "ip_address"]], (("ip_address", "username"),)),
        ([("user_agent", "username", "ip_address")], (("ip_address", "username", "user_agent"),)),
        (["ip_address", ["username", "user_agent"]], (("ip_address",), ("username", "user_agent"))),
        ([["username", "ip_address"], ["ip_address", "username"]], (("ip_address", "username"),)),
        ([["username", "username"], "username"], (("username",),)),
        ([{"username", "ip_address"}], (("ip_address", "username"),)),
        ("tests.conf.test_settings.seven", seven),
        (seven, seven),
    ],
    "AXES_LOCKOUT_RULES": [
        (None, None),
        ([{"parameters": "username"}], (RuleSetting(parameters=("username",)),)),
        (
            ({"parameters": ["username", "ip_address"], "limit": 5, "cooloff": 2}, {"parameters": ["username"]}),
            (
                RuleSetting(parameters=("ip_address", "username"), limit=5, cooloff=timedelta(hours=2)),
                RuleSetting(parameters=("username",)),
            ),
        ),
        (
            [{"parameters": ("user_agent",), "limit": "tests.conf.test_settings.seven", "cooloff": "tests.conf.test_settings.an_hour"}],  # noqa: E501
            (RuleSetting(parameters=("user_agent",), limit=seven, cooloff=an_hour),),
        ),
        (
            [{"parameters": "username", "tiers": [(3, 1)]}],
            (RuleSetting(parameters=("username",), tiers=(LockoutTier(3, timedelta(hours=1)),)),),
        ),
        ([{"parameters": {"username"}, "cooloff": None}], (RuleSetting(parameters=("username",), cooloff=None),)),
    ],
    "AXES_LOCKOUT_TIERS": [
        (None, None),
        ([(3, 0.25)], (LockoutTier(3, timedelta(minutes=15)),)),
        (
            [LockoutTier(failures=3, cooloff=timedelta(minutes=5)), (6, timedelta(hours=1)), [7, 24]],
            (
                LockoutTier(3, timedelta(minutes=5)),
                LockoutTier(6, timedelta(hours=1)),
                LockoutTier(7, timedelta(days=1)),
            ),
        ),
    ],
    "AXES_COOLOFF_TIME": [
        (None, None),
        (timedelta(minutes=5), timedelta(minutes=5)),
        (2, timedelta(hours=2)),
        (0.25, timedelta(minutes=15)),
        (timedelta(milliseconds=1), timedelta(milliseconds=1)),
        (timedelta(days=36_500), timedelta(days=36_500)),
        ("tests.conf.test_settings.an_hour", an_hour),
    ],
    "AXES_RESET_ON_SUCCESS": [(False, False), ("account", "account"), (True, True)],
    "AXES_HTTP_RESPONSE_CODE": [(403, 403), (200, 200), (599, 599)],
    "AXES_LOCKOUT_CALLABLE": [
        (None, None),
        (answer, answer),
        ("tests.conf.test_settings.answer", answer),
        (dict, dict),
    ],
    "AXES_LOCKOUT_TEMPLATE": [(None, None), ("locked.html", "locked.html")],
    "AXES_LOCKOUT_URL": [(None, None), ("/locked/", "/locked/"), ("locked", "locked"), (LATER, LATER)],
    "AXES_NOTIFY": [(None, ()), ([], ()), (["ops@example.com"], ("ops@example.com",))],
    "AXES_NOTIFY_WEBHOOK": [
        (None, None),
        *((url, url) for url in ("https://a.example/x?y=@", "http://localhost:8080", "http://[::1]:80/", "https://ü.de")),
    ],
    "AXES_NOTIFY_WEBHOOK_SECRET": [(None, ())],
    "AXES_NOTIFY_ON": [([], ()), (["health", "lockouts"], ("health", "lockouts"))],
    "AXES_NOTIFY_PAUSE": [(1, 1.0), (86_400, 86_400.0)],
    "AXES_NOTIFY_ATTACK": [(1, 1), (10_000, 10_000)],
    "AXES_PASSWORD_RESET_URL": [(None, None), ("/forgotten/", "/forgotten/"), (LATER, LATER)],
    "AXES_UNLOCK_LINK_AGE": [(0.5, 0.5), (60, 60.0)],
    "AXES_COOLOFF_MESSAGE": [(None, None), ("Wait.", "Wait."), (LATER, LATER)],
    "AXES_PERMALOCK_MESSAGE": [(None, None), ("Never.", "Never."), (LATER, LATER)],
    "AXES_ALLOWED_CORS_ORIGINS": [
        (None, ()),
        ("*", ("*",)),
        ("https://a.example", ("https://a.example",)),
        (["HTTPS://A.example", "http://localhost:8080"], ("https://a.example", "http://localhost:8080")),
        ([], ()),
    ],
    "AXES_CACHE": [("memory", "memory")],
    "AXES_REDIS_CLIENT": [(None, None), (dict, dict), ("builtins.dict", dict)],
    "AXES_RESERVE_WAIT": [(0, 0.0), (2, 2.0), (0.5, 0.5)],
    "AXES_ON_STORE_FAILURE": [("database", "database"), ("deny", "deny"), ("allow", "allow")],
    "AXES_STORE": [("cache", "cache"), ("database", "database")],
    "AXES_TEST_STORE": [("database", "database"), ("cache", "cache")],
    "AXES_STORE_RETRY_INTERVAL": [(0.5, 0.5), (10, 10.0)],
    "AXES_RESERVE_LEASE": [(0.001, 0.001), (60, 60.0)],
    "AXES_STORE_TIMEOUT": [(0.05, 0.05), (1, 1.0)],
    "AXES_OUTBOX_MAX": [(1, 1), (10**9, 10**9)],
    "AXES_OUTBOX_MAX_BYTES": [(1_000_000, 1_000_000), (2**40, 2**40)],
    "AXES_CELERY_QUEUE": [(None, None), ("logins", "logins")],
    "AXES_METRICS": [
        (None, ()), ([], ()), (["prometheus", "opentelemetry"], ("prometheus", "opentelemetry")),
    ],
    "AXES_METRICS_TOKEN": [(None, None), ("s3cret", "s3cret")],
}  # fmt: skip


def pairs(table: dict[str, list[Any]]) -> list[Any]:
    return [
        pytest.param(name, value, id=f"{name}-{short_label(value)}")
        for name, values in table.items()
        for value in values
    ]


def field_of(name: str) -> Any:
    return getattr(get_settings(), name.removeprefix("AXES_").lower())


def test_every_setting_has_a_documented_default() -> None:
    assert {field.name: getattr(AxesSettings(), field.name) for field in fields(AxesSettings)} == DEFAULTS


def test_every_setting_is_tried_here() -> None:
    names = {f"AXES_{name.upper()}" for name in DEFAULTS}
    assert names == set(TAKEN) == set(REFUSED)


@pytest.mark.parametrize(("name", "given_and_read"), pairs(TAKEN))
def test_a_good_value_is_read_in_its_final_type(name: str, given_and_read: tuple[Any, Any]) -> None:
    given, expected = given_and_read
    with override_settings(**{name: given}):
        value = field_of(name)
        assert value == expected
        assert type(value) is type(expected)


@pytest.mark.parametrize(("name", "value"), pairs(REFUSED))
def test_a_bad_value_is_refused_by_name_value_and_what_is_taken(name: str, value: object) -> None:
    with override_settings(**{name: value}), pytest.raises(ImproperlyConfigured) as refusal:
        get_settings()
    message = str(refusal.value)
    assert message.startswith(name)
    assert repr(value) in message
    assert "takes" in message or "cannot be imported" in message


def test_a_text_that_may_be_none_says_so() -> None:
    with override_settings(AXES_CELERY_QUEUE=""), pytest.raises(ImproperlyConfigured, match="takes None or a text"):
        get_settings()


@pytest.mark.parametrize(
    ("name", "number"), [("AXES_FAILURE_LIMIT", "a whole number"), ("AXES_COOLOFF_TIME", "a number of hours")]
)
def test_a_number_that_is_a_text_is_told_of_numbers_too(name: str, number: str) -> None:
    with override_settings(**{name: "3"}), pytest.raises(ImproperlyConfigured, match=rf"is '3'.* takes .*{number}"):
        get_settings()


def test_a_limit_that_no_column_can_hold_is_refused() -> None:
    with override_settings(AXES_FAILURE_LIMIT=2**31), pytest.raises(ImproperlyConfigured):
        get_settings()


def test_an_unknown_lockout_parameter_is_told_the_known_ones() -> None:
    with override_settings(AXES_LOCKOUT_PARAMETERS=["email"]), pytest.raises(ImproperlyConfigured) as refusal:
        get_settings()
    assert all(name in str(refusal.value) for name in ("email", "ip_address", "username", "user_agent"))


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ([{"parameters": ["username"]}, {"parameters": ["email"]}], "[1]['parameters'] is ['email']"),
        ([{"parameters": []}], "[0]['parameters'] is []"),
        ([{"parameters": ["username"], "limit": 0}], "[0]['limit'] is 0"),
        ([{"parameters": ["username"], "limit": None}], "[0]['limit'] is None"),
        ([{"parameters": ["username"], "cooloff": -1}], "[0]['cooloff'] is -1"),
        ([{"parameters": ["username"], "cooloff": "default"}], "[0]['cooloff'] is 'default'"),
        ([{"parameters": "username", "tiers": [(0, 1)]}], "[0]['tiers'] is 0"),
        ([{"parameters": "username", "tiers": [(3, -1)]}], "[0]['tiers'] is -1"),
        ([{"parameters": "username"}, {"parameters": ["username"]}], "parameters that no other rule has"),
    ],
)
def test_a_bad_part_of_a_rule_is_named(rules: object, said: str) -> None:
    with override_settings(AXES_LOCKOUT_RULES=rules), pytest.raises(ImproperlyConfigured) as refusal:
        get_settings()
    assert str(refusal.value).startswith("AXES_LOCKOUT_RULES[")
    assert said in str(refusal.value)


def test_settings_are_read_when_first_asked_for_and_kept() -> None:
    with override_settings(AXES_FAILURE_LIMIT="never asked for"):
        pass
    assert get_settings() is get_settings()


def test_an_override_is_honoured_and_dropped() -> None:
    with override_settings(AXES_FAILURE_LIMIT=7):
        assert get_settings().failure_limit == 7
        with override_settings(AXES_FAILURE_LIMIT=8):
            assert get_settings().failure_limit == 8
        assert get_settings().failure_limit == 7
    assert get_settings().failure_limit == 3


def cooloff_for(request: HttpRequest | None) -> float | None:
    """Return the cool-off in force, in seconds."""
    return seconds_of("AXES_COOLOFF_TIME", get_settings().cooloff_time, request)


def test_a_deleted_setting_falls_back_to_its_default() -> None:
    with override_settings(AXES_FAILURE_LIMIT=7):
        assert get_settings().failure_limit == 7
        with override_settings():
            del django_settings.AXES_FAILURE_LIMIT
            get_settings.cache_clear()
            assert get_settings().failure_limit == 3
    get_settings.cache_clear()


def test_nothing_is_written_onto_djangos_settings() -> None:
    before = [name for name in dir(django_settings) if name.startswith("AXES_")]
    get_settings.cache_clear()
    cooloff_for(None)
    assert [name for name in dir(django_settings) if name.startswith("AXES_")] == before


def test_settings_cannot_be_changed_in_place() -> None:
    with pytest.raises(FrozenInstanceError):
        get_settings().failure_limit = 9  # type: ignore[misc]


@pytest.mark.parametrize(("value", "seconds"), [(None, None), (timedelta(minutes=1), 60.0), (2, 7200.0), (0.5, 1800.0)])
def test_a_cool_off_is_the_same_for_every_request(value: object, seconds: float | None, rf: RequestFactory) -> None:
    with override_settings(AXES_COOLOFF_TIME=value):
        assert cooloff_for(None) == cooloff_for(rf.get("/")) == seconds


@pytest.mark.parametrize("setting", ["tests.conf.test_settings.an_hour", an_hour])
def test_a_callable_cool_off_is_given_the_request_once(setting: object, rf: RequestFactory) -> None:
    SEEN.clear()
    request = rf.get("/")
    with override_settings(AXES_COOLOFF_TIME=setting):
        assert SEEN == []
        assert cooloff_for(request) == 3600
        assert [request] == SEEN
        assert cooloff_for(None) == 3600
        assert [request, None] == SEEN


@pytest.mark.parametrize(
    ("returned", "seconds"), [(None, None), (timedelta(seconds=9), 9.0), (1, 3600.0), (1.5, 5400.0)]
)
def test_a_callable_may_return_every_form_of_a_cool_off(returned: Any, seconds: float | None) -> None:
    with override_settings(AXES_COOLOFF_TIME=lambda request: returned):
        assert cooloff_for(None) == seconds


@pytest.mark.parametrize("rubbish", ["1", 0, -1, float("nan"), True, [], timedelta(0), an_hour], ids=short_label)
def test_a_callable_that_returns_rubbish_is_refused_by_name(rubbish: object) -> None:
    with (
        override_settings(AXES_COOLOFF_TIME=lambda request: rubbish),
        pytest.raises(ImproperlyConfigured, match=r"^AXES_COOLOFF_TIME is .* takes a callable"),
    ):
        cooloff_for(None)


@pytest.mark.parametrize("error", [TypeError("mine"), ValueError("mine")], ids=repr)
def test_the_error_of_a_callable_is_not_hidden(error: Exception) -> None:
    calls = []

    def broken(request: HttpRequest | None) -> float:
        calls.append(request)
        raise error

    setting: Callable[..., float] = broken
    with override_settings(AXES_COOLOFF_TIME=setting), pytest.raises(type(error), match="mine"):
        cooloff_for(None)
    assert calls == [None]


async def asks_later(*_: Any) -> bool:
    """Say no, to whoever waits for it."""
    return False


@pytest.mark.parametrize(
    "name",
    [
        "WHITELIST_CALLABLE",
        "CLIENT_IP_CALLABLE",
        "USERNAME_CALLABLE",
        "USERNAME_CANONICALIZER",
        "CLIENT_STR_CALLABLE",
        "FAILURE_LIMIT",
        "LOCKOUT_PARAMETERS",
        "COOLOFF_TIME",
    ],
)
def test_an_async_callable_whose_answer_nobody_awaits_is_refused_at_the_start(settings: Any, name: str) -> None:
    setattr(settings, f"AXES_{name}", asks_later)
    with pytest.raises(ImproperlyConfigured, match=f"AXES_{name}"):
        get_settings()


SITE = """
from tests.settings import *
for name in [name for name in globals() if name.startswith("AXES_")]:
    del globals()[name]
def named(request, credentials):
    return "alice"
AXES_USERNAME_CALLABLE = named
AXES_TRUSTED_PROXIES = ["10.0.0.0/8"]
"""


TELL = """
import django
django.setup()
from types import SimpleNamespace
from celery import Celery
from celery.worker.control import conf
from kombu.serialization import dumps
from axes_async.login import reservation
from axes_async.conf import get_settings
reservation.reserve(None, {"username": "alice"})
assert get_settings().trusted_proxies
for options in ({"namespace": "CELERY"}, {}):
    app = Celery("site", set_as_current=False)
    app.config_from_object("django.conf:settings", **options)
    print(dumps(conf(SimpleNamespace(app=app)), "json")[2])
"""


def test_a_worker_can_tell_its_settings_after_ours_were_read(tmp_path: Path) -> None:
    """As it answers ``inspect conf``: Celery tells all of Django's settings, with a namespace and without."""
    (tmp_path / "told_settings.py").write_text(SITE)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)]),
        "DJANGO_SETTINGS_MODULE": "told_settings",
        "AXES_TEST_DATABASE": "sqlite",
        "AXES_TEST_REDIS_URL": servers.valkey_url().rpartition("/")[0],
    }
    done = subprocess.run([sys.executable, "-c", TELL], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == 2
    for answer in answers:
        assert answer["AXES_TRUSTED_PROXIES"] == ["10.0.0.0/8"]
        assert {name for name in answer if name[:5] == "AXES_"} == {"AXES_TRUSTED_PROXIES", "AXES_USERNAME_CALLABLE"}
