"""What is the same on every database: the store that is reset, arguments that are refused, the broker."""

from __future__ import annotations

import socket
from itertools import product
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import override_settings
from kombu.exceptions import OperationalError

from axes_async.management import reset_command
from tests.celery import app
from tests.labels import label
from tests.management.actions import BOTH, A, Fail, GetsIn, run

pytestmark = [pytest.mark.django_db]


RULES: list[list[Any]] = [
    ["ip_address"],
    ["username"],
    ["ip_address", "username"],
    BOTH,
    [["ip_address", "username"], "username"],
    [["ip_address", "username", "user_agent"], ["ip_address", "user_agent"]],
]


@pytest.mark.parametrize(
    ("cache", "rules"),
    [*product(["default", "memory"], RULES), ("table", RULES[-1])],
    ids=label,
)
def test_each_reset_really_unlocks_in_every_store_and_with_combined_rules(
    fail: Fail, gets_in: GetsIn, monkeypatch: pytest.MonkeyPatch, cache: str, rules: list[Any]
) -> None:
    call_command("createcachetable")
    monkeypatch.setitem(app.conf, "task_always_eager", cache != "default")
    with override_settings(AXES_CACHE=cache, AXES_LOCKOUT_PARAMETERS=rules):
        for command in (
            ["axes_reset"],
            ["axes_reset_ip", A],
            ["axes_reset_username", "alice"],
            ["axes_reset_ip_username", A, "alice"],
        ):
            assert fail("alice", A) == [401, 401, 429], f"before {command} it counts from nothing"
            assert not gets_in("alice", A), command
            assert run(*command) == "1 attempts removed.\n", command
            assert gets_in("alice", A), command
        assert fail("alice", A) == [401, 401, 429]


def test_one_bad_argument_is_refused_clearly_and_resets_nothing(fail: Fail, gets_in: GetsIn) -> None:
    fail("alice", A)
    for wrong in (["203.0.113"], ["--username", " "], ["--username", ""], [""], ["nowhere", "--queue"]):
        with pytest.raises(CommandError, match=r"is not an IP address|is empty") as refused:
            run("axes_reset", A, *wrong)
        assert refused.value.returncode == 2, wrong
        assert not gets_in("alice", A), wrong


BAD = [
    ["axes_reset_ip", A, "203.0.113"],
    ["axes_reset_ip", ""],
    ["axes_reset_ip"],
    ["axes_reset_username", "alice", " "],
    ["axes_reset_username"],
    ["axes_reset_ip_username", "alice", A],
    ["axes_reset_ip_username", A, ""],
    ["axes_reset_ip_username", A],
    ["axes_reset_ip_username", A, "alice", "bob"],
    ["axes_reset_logs", "--age", "-1"],
    ["axes_reset_logs", "--age", "30 days"],
    ["axes_reset_failure_logs", "--age", "99999999999"],
]


def test_a_command_with_a_bad_argument_fails_clearly_and_does_nothing(fail: Fail, gets_in: GetsIn) -> None:
    fail("alice", A)
    for command in BAD:
        with pytest.raises(CommandError) as refused:
            run(*command)
        # Called as code, Django raises what its own parser refuses without a status; from a shell that is 2, too.
        assert refused.value.returncode == 2 or str(refused.value).startswith("Error: "), command
        assert not gets_in("alice", A), command


def test_without_a_broker_a_queued_reset_fails_clearly(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**kwargs: Any) -> None:
        raise OperationalError("no broker")

    monkeypatch.setattr("axes_async.tasks.reset.reset.apply_async", refuse)
    with pytest.raises(CommandError, match="no broker"):
        run("axes_reset", "--queue")


def test_a_broker_that_accepts_and_stays_silent_does_not_hold_a_queued_reset_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reset_command, "BROKER_TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(app.conf, "broker_url", f"redis://127.0.0.1:{silent.getsockname()[1]}/0")
        with pytest.raises(CommandError, match="Timeout"):
            run("axes_reset", "--queue")
