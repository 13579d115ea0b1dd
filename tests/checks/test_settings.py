"""What ``manage.py check`` says of names that nothing reads, and of settings that only make sense together."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.checks import run_checks
from django.test import override_settings

from axes_async.checks.settings import KNOWN, RENAMED, WITHOUT_EFFECT
from tests.test_docs import ROOT

urlpatterns: list[Any] = []


def found(**settings: Any) -> list[tuple[str | None, str, str | None]]:
    """Return the id, message and hint of each."""
    with override_settings(**settings):
        return [(message.id, message.msg, message.hint) for message in run_checks(tags=["axes_async"])]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("AXES_FAILURE_LIMITS", "AXES_FAILURE_LIMIT"),
        ("AXES_COOL_OFF_TIME", "AXES_COOLOFF_TIME"),
        ("AXES_IP_WHITELISTS", "AXES_IP_WHITELIST"),
        ("AXES_LOCKOUT_PARAMETER", "AXES_LOCKOUT_PARAMETERS"),
        ("AXES_TRUSTED_PROXY", "AXES_TRUSTED_PROXIES"),
    ],
)
def test_a_misspelt_name_is_told_the_nearest_right_one(name: str, meant: str) -> None:
    ((kind, message, hint),) = found(**{name: 5})
    assert (kind, message) == ("axes_async.W009", f"{name} is no setting of axes_async.")
    assert hint == f"Did you mean {meant}?"


def test_a_name_that_is_near_to_none_is_told_where_they_are() -> None:
    ((kind, _, hint),) = found(AXES_ZZZZ=5)
    assert (kind, hint) == ("axes_async.W009", "docs/settings.md has all of them.")


@pytest.mark.parametrize("name", [*RENAMED, *WITHOUT_EFFECT])
def test_a_setting_of_django_axes_without_effect_is_told_what_to_do(name: str) -> None:
    ((kind, message, hint),) = found(**{name: None})
    assert kind == "axes_async.W010"
    assert message.startswith(name)
    assert hint is not None
    assert hint.endswith(".")


def test_hints_name_settings_that_there_are() -> None:
    named = {
        word.strip(".,:;()")
        for hint in (*RENAMED.values(), *WITHOUT_EFFECT.values())
        for word in hint.split()
        if word.startswith("AXES_")
    }
    assert named
    assert named <= set(KNOWN)
    assert not set(KNOWN) & {*RENAMED, *WITHOUT_EFFECT}


def test_what_django_axes_8_3_would_report_or_not_read_is_documented() -> None:
    text = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    old = {"AXES_LOGIN_FAILURE_LIMIT", "AXES_BEHIND_REVERSE_PROXY", "AXES_NUM_PROXIES", "AXES_REVERSE_PROXY_HEADER"}
    assert [name for name in (*RENAMED, *WITHOUT_EFFECT) if f"`{name}`" not in text and name not in old] == []


def test_names_are_read_from_the_settings_in_force_alone() -> None:
    with override_settings(AXES_FAILURE_LIMITS=5):
        assert found() != []
    assert found() == []


@pytest.mark.parametrize(
    "settings",
    [
        {"AXES_IPWARE_META_PRECEDENCE_ORDER": ["HTTP_X_FORWARDED_FOR", "REMOTE_ADDR"]},
        {"AXES_IPWARE_PROXY_COUNT": 1},
        {"AXES_IPWARE_PROXY_TRUSTED_IPS": ["10.1."]},
    ],
    ids=str,
)
def test_headers_that_nobody_is_believed_to_send_are_reported(settings: dict[str, Any]) -> None:
    ((kind, _, hint),) = found(**settings)
    assert kind == "axes_async.W011"
    assert "all clients are one address" in str(hint)
    assert found(**settings, AXES_TRUSTED_PROXIES=["10.0.0.1"]) == []
    assert found(**settings, AXES_CLIENT_IP_CALLABLE=str) == []
    assert found(**settings, AXES_ENABLED=False) == []


@pytest.mark.parametrize("trusted", [[], ["10.0.0.1"]], ids=str)
def test_an_order_of_proxies_that_are_neither_counted_nor_named_is_reported(trusted: list[str]) -> None:
    settings = {"AXES_IPWARE_PROXY_ORDER": "right-most", "AXES_TRUSTED_PROXIES": trusted}
    ((kind, message, _),) = found(**settings)
    assert kind == "axes_async.W017"
    assert "has no effect" in message
    for counted in ({"AXES_IPWARE_PROXY_COUNT": 1}, {"AXES_IPWARE_PROXY_TRUSTED_IPS": ["10.1."]}):
        assert "axes_async.W017" not in {kind for kind, _, _ in found(**settings, **counted)}
    assert found(**{**settings, "AXES_IPWARE_PROXY_ORDER": "left-most"}) == []
    assert found(**settings, AXES_CLIENT_IP_CALLABLE=str) == []


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"AXES_ONLY_WHITELIST": True}, ["everybody is refused"]),
        ({"AXES_NEVER_LOCKOUT_WHITELIST": True}, ["nobody is exempt"]),
        ({"AXES_IP_WHITELIST": ["10.0.0.1"]}, ["has no effect"]),
        ({"AXES_IP_WHITELIST": ["10.0.0.1"], "AXES_ONLY_WHITELIST": True}, []),
        ({"AXES_IP_WHITELIST": ["10.0.0.1"], "AXES_NEVER_LOCKOUT_WHITELIST": True}, []),
        ({"AXES_IP_BLACKLIST": ["10.0.0.1"]}, []),
    ],
    ids=str,
)
def test_a_list_without_a_use_and_a_use_without_a_list_are_reported(
    settings: dict[str, Any], expected: list[str]
) -> None:
    messages = found(**settings)
    assert [kind for kind, _, _ in messages] == ["axes_async.W012"] * len(expected)
    assert all(part in message for part, (_, message, _) in zip(expected, messages, strict=True))


def test_an_admin_that_is_alone_guarded_and_missing_is_reported() -> None:
    assert found(AXES_ONLY_ADMIN_SITE=True) == []
    ((kind, message, _),) = found(AXES_ONLY_ADMIN_SITE=True, ROOT_URLCONF="tests.checks.test_settings")
    assert kind == "axes_async.W013"
    assert "nobody is ever turned away" in message


def test_a_project_that_has_no_urls_is_checked(settings: Any) -> None:
    del settings.ROOT_URLCONF
    assert found() == []


def test_a_setting_that_cannot_be_read_is_reported_once() -> None:
    kinds = [kind for kind, _, _ in found(AXES_IP_BLACKLIST=["nonsense"], AXES_ONLY_ADMIN_SITE=True)]
    assert kinds == ["axes_async.E001"]


RULES = [{"parameters": "username", "cooloff": 1}, {"parameters": "ip_address"}]
TIERS = [(3, 1), (6, 24)]


@pytest.mark.parametrize(
    ("settings", "kinds"),
    [
        ({"AXES_USE_ATTEMPT_EXPIRATION": True}, ["axes_async.W014"]),
        ({"AXES_USE_ATTEMPT_EXPIRATION": True, "AXES_COOLOFF_TIME": 1}, []),
        ({"AXES_USE_ATTEMPT_EXPIRATION": True, "AXES_LOCKOUT_RULES": RULES}, []),
        ({"AXES_LOCKOUT_RULES": RULES, "AXES_FAILURE_LIMIT": 5, "AXES_COOLOFF_TIME": 1}, []),
        ({"AXES_LOCKOUT_RULES": RULES, "AXES_LOCKOUT_PARAMETERS": ["username"]}, ["axes_async.W015"]),
        ({"AXES_LOCKOUT_TIERS": TIERS}, []),
        (
            {"AXES_LOCKOUT_TIERS": TIERS, "AXES_FAILURE_LIMIT": 5, "AXES_COOLOFF_TIME": 1},
            ["axes_async.W015", "axes_async.W015"],
        ),
        ({"AXES_LOCKOUT_TIERS": TIERS, "AXES_FAILURE_LIMIT": 5, "AXES_LOCKOUT_RULES": RULES}, []),
    ],
    ids=str,
)
def test_a_setting_that_others_leave_without_effect_is_reported(settings: dict[str, Any], kinds: list[str]) -> None:
    assert [kind for kind, _, _ in found(**settings)] == kinds


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"AXES_LOCKOUT_TEMPLATE": "nowhere.html"}, ["AXES_LOCKOUT_TEMPLATE"]),
        ({"AXES_LOCKOUT_TEMPLATE": "admin/base.html"}, []),
        ({"AXES_LOCKOUT_URL": "nowhere"}, ["AXES_LOCKOUT_URL"]),
        ({"AXES_LOCKOUT_URL": "admin:index"}, []),
        ({"AXES_LOCKOUT_URL": "/locked/?for=long"}, []),
        ({"AXES_LOCKOUT_URL": "nowhere", "AXES_ENABLED": False}, []),
    ],
    ids=str,
)
def test_a_lockout_page_that_is_not_there_is_reported(settings: dict[str, Any], names: list[str]) -> None:
    messages = found(**settings)
    assert [kind for kind, _, _ in messages] == ["axes_async.W016"] * len(names)
    assert all(message.startswith(f"{name} is ") for name, (_, message, _) in zip(names, messages, strict=True))


BOTH = {"parameters": ["username", "ip_address"], "limit": 5}
NAME = {"parameters": "username", "limit": 50}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, True),
        ({"AXES_LOCKOUT_PARAMETERS": [["username", "ip_address"], "ip_address"]}, True),
        ({"AXES_LOCKOUT_PARAMETERS": ["ip_address", "username"]}, False),
        ({"AXES_LOCKOUT_RULES": [BOTH]}, True),
        ({"AXES_LOCKOUT_RULES": [BOTH, NAME]}, False),
        ({"AXES_LOCKOUT_PARAMETERS": lambda request, credentials: ["ip_address"]}, False),
    ],
    ids=["default", "both or the address", "a name", "rules of both", "rules with a name", "a callable"],
)
def test_rules_that_all_need_an_address_are_told_before_a_deployment(settings: dict[str, Any], expected: bool) -> None:
    with override_settings(**settings):
        found = run_checks(tags=["axes_async"], include_deployment_checks=True)
    assert ("axes_async.I001" in [message.id for message in found]) is expected
