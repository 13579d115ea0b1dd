"""Webhooks: signed as the specification says, and sent nowhere else."""

from __future__ import annotations

import base64
import time
from typing import Any
from urllib.error import HTTPError, URLError

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from axes_async.conf import get_settings
from axes_async.notify import webhook
from tests.notify.sinks import SECRET, WRITTEN, Endless, Receiver, running
from tests.waiting import until


def test_a_signature_is_that_of_the_specifications_own_example() -> None:
    secret = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    signed = webhook.signature(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_message_is_taken_by_a_receiver_that_verifies_it(receiver: Receiver) -> None:
    webhook.post(receiver.url, [b"o" * 24, SECRET], "msg_1", b'{"type": "x"}', at=int(time.time()))
    assert receiver.taken == [{"type": "x"}]
    (headers,) = receiver.seen
    assert (headers["webhook-id"], headers["content-type"]) == ("msg_1", "application/json")
    assert len(headers["webhook-signature"].split()) == 2


@pytest.mark.parametrize("status", [302, 401, 429, 500, 503])
def test_what_is_not_taken_is_a_failure_and_no_redirect_is_followed(receiver: Receiver, status: int) -> None:
    receiver.answers = [status]
    with pytest.raises(HTTPError):
        webhook.post(receiver.url, [SECRET], "msg_1", b"{}", at=1)
    assert len(receiver.seen) == 1


def test_nobody_is_a_failure_too(closed_port: int) -> None:
    with pytest.raises(URLError, match="refused"):
        webhook.post(f"http://127.0.0.1:{closed_port}/", [SECRET], "msg_1", b"{}", at=1)


def test_an_answer_without_end_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook, "PATIENCE", 0.1)
    server = Endless()
    with running(server), pytest.raises(TimeoutError):
        webhook.post(server.url, [SECRET], "msg_1", b"{}", at=1)
    until(server.is_left.is_set, what="the connection is closed")


def test_a_receiver_that_wants_no_more_is_heard(receiver: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    receiver.answers = [410]
    webhook.post(receiver.url, [SECRET], "msg_1", b"{}", at=1)
    assert "wants no more" in caplog.text


@pytest.mark.parametrize(
    "value", ["whsec_short", WRITTEN[:-1] + "!", "x" * 200, 7, b"0" * 30, [WRITTEN, None], {"a": WRITTEN}, "whsec_"]
)
def test_a_secret_that_is_none_is_refused_and_not_shown(value: Any) -> None:
    with override_settings(AXES_NOTIFY_WEBHOOK_SECRET=value), pytest.raises(ImproperlyConfigured) as refused:
        get_settings()
    assert "AXES_NOTIFY_WEBHOOK_SECRET" in str(refused.value)
    assert WRITTEN[6:20] not in str(refused.value)


@pytest.mark.parametrize(
    ("value", "read"),
    [(None, ()), ([], ()), (WRITTEN, (SECRET,)), (WRITTEN[6:], (SECRET,)), ([WRITTEN] * 2, (SECRET, SECRET))],
)
def test_secrets_are_read_as_the_specification_writes_them(value: Any, read: tuple[bytes, ...]) -> None:
    with override_settings(AXES_NOTIFY_WEBHOOK_SECRET=value):
        assert get_settings().notify_webhook_secret == read
