"""System checks: an installation that would protect nobody says so, with a hint."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.checks import run_checks
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.test import override_settings

from axes_async.backends import AxesBackend, AxesStandaloneBackend
from axes_async.middleware import AxesMiddleware

MIDDLEWARE = "axes_async.middleware.AxesMiddleware"
BACKEND = "axes_async.backends.AxesStandaloneBackend"
MODEL = "django.contrib.auth.backends.ModelBackend"
SESSIONS = "django.contrib.sessions.middleware.SessionMiddleware"
AUTH = "django.contrib.auth.middleware.AuthenticationMiddleware"


class OwnMiddleware(AxesMiddleware):
    """A site's own version."""


class OwnBackend(AxesStandaloneBackend):
    """A site's own version."""


class OwnFullBackend(AxesBackend):
    """A site's own version of the other one."""


def found(**settings: Any) -> list[str]:
    with override_settings(**settings):
        return [message.id or "" for message in run_checks(tags=["axes_async"])]


def test_the_test_site_is_set_up_as_it_should_be() -> None:
    assert found() == []


@pytest.mark.parametrize(
    ("middleware", "expected"),
    [
        ([SESSIONS, AUTH, MIDDLEWARE], []),
        ([SESSIONS, AUTH, "tests.checks.test_project.OwnMiddleware"], []),
        ([MIDDLEWARE], []),
        ([], ["axes_async.W001"]),
        ([SESSIONS, AUTH], ["axes_async.W001"]),
        ([MIDDLEWARE, SESSIONS, MIDDLEWARE], ["axes_async.W001"]),
        ([MIDDLEWARE, "tests.checks.test_project.OwnMiddleware"], ["axes_async.W001"]),
        ([MIDDLEWARE, SESSIONS, AUTH], ["axes_async.W002"]),
        ([SESSIONS, "tests.checks.test_project.OwnMiddleware", AUTH], ["axes_async.W002"]),
        (["no.such.middleware", MIDDLEWARE], []),
    ],
)
def test_the_middleware_is_there_once_and_last(middleware: list[str], expected: list[str]) -> None:
    assert found(MIDDLEWARE=middleware) == expected


@pytest.mark.parametrize(
    ("backends", "expected"),
    [
        ([BACKEND, MODEL], []),
        (["axes_async.backends.AxesBackend"], []),
        ([BACKEND, BACKEND, MODEL], []),  # The second one finds the place that the first has taken.
        (["tests.checks.test_project.OwnBackend", MODEL], []),
        (["tests.checks.test_project.OwnFullBackend"], []),
        ([], ["axes_async.W003"]),
        ([MODEL], ["axes_async.W003"]),
        ([MODEL, BACKEND], ["axes_async.W004"]),
        ([MODEL, "tests.checks.test_project.OwnBackend"], ["axes_async.W004"]),
        (["no.such.backend", BACKEND], ["axes_async.W004"]),
    ],
)
def test_the_backend_is_there_and_first(backends: list[str], expected: list[str]) -> None:
    assert found(AUTHENTICATION_BACKENDS=backends) == expected


@pytest.mark.parametrize(
    "settings",
    [
        {"AXES_FAILURE_LIMIT": 0},
        {"AXES_LOCKOUT_PARAMETERS": ["ip"]},
        {"AXES_COOLOFF_TIME": "no.such.path"},
        {"AXES_CACHE": "no such alias"},
        {"AXES_ENABLED": "no"},
        {"CACHES": {"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache"}}},
        {"CACHES": {"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": "nonsense"}}},
    ],
    ids=str,
)
def test_a_setting_that_cannot_be_used_is_an_error(settings: dict[str, Any]) -> None:
    assert found(**settings) == ["axes_async.E001"]


def test_the_error_names_the_setting_and_stops_manage_py() -> None:
    with override_settings(AXES_FAILURE_LIMIT="3"), pytest.raises(SystemCheckError, match="AXES_FAILURE_LIMIT is '3'"):
        call_command("check")


@pytest.mark.parametrize("settings", [{"MIDDLEWARE": []}, {"AUTHENTICATION_BACKENDS": []}], ids=str)
def test_every_warning_says_what_to_do(settings: dict[str, Any]) -> None:
    with override_settings(**settings):
        (message,) = run_checks(tags=["axes_async"])
    assert "axes_async." in str(message.hint)


def test_what_is_switched_off_is_not_checked() -> None:
    assert found(AXES_ENABLED=False, MIDDLEWARE=[], AUTHENTICATION_BACKENDS=[]) == []


def test_what_is_switched_off_needs_no_store() -> None:
    assert found(AXES_ENABLED=False, AXES_CACHE="no such alias") == []


@pytest.mark.parametrize(("store", "expected"), [("cache", True), ("database", False)])
def test_a_cache_of_one_process_is_no_fault_of_a_site_that_counts_in_its_database(store: str, expected: bool) -> None:
    with override_settings(AXES_CACHE="memory", AXES_STORE=store):
        ids = [message.id for message in run_checks(tags=["axes_async"], include_deployment_checks=True)]
    assert ("axes_async.W005" in ids) is expected
