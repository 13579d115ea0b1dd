"""Each channel stands for itself: what one has taken is not sent to it again, whatever happens to the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from smtplib import SMTPRecipientsRefused
from typing import Any

import pytest
import time_machine
from celery import current_app
from django.contrib.auth.models import User
from django.core import mail
from django.core.mail.backends.locmem import EmailBackend

from axes_async.delivery import publisher
from axes_async.models import Notice
from axes_async.stores.redis.store import RedisStore
from axes_async.tasks import notify as notify_module
from axes_async.tasks.expire import expire
from axes_async.tasks.notify import notify, watch
from tests.actions import failure
from tests.notify.sinks import WRITTEN, Receiver

Drain = Callable[[], int]

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("clock")]


@pytest.fixture(autouse=True)
def _site(settings: Any, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a site without a worker, with both channels for operators."""
    monkeypatch.setitem(current_app.conf, "task_always_eager", True)
    settings.AXES_NOTIFY = ["ops@example.com"]
    settings.AXES_NOTIFY_WEBHOOK, settings.AXES_NOTIFY_WEBHOOK_SECRET = receiver.url, WRITTEN
    settings.AXES_NOTIFY_ATTACK = 3
    settings.AXES_COOLOFF_TIME = timedelta(minutes=30)
    settings.AXES_LOCKOUT_RULES = [{"parameters": ["username"], "limit": 3}]


@pytest.fixture(params=["lockouts", "attacks", "health"])
def tell(request: pytest.FixtureRequest, settings: Any, redis_store: RedisStore) -> Callable[[], object]:
    """Return a function that does what beat does, on a site that has news of one kind."""
    settings.AXES_NOTIFY_ON = [request.param]
    if request.param == "health":
        redis_store.set_aside(b"broken", "cannot be read")
        watch()
    else:
        lock("alice")
    return expire


def lock(*names: str) -> None:
    for name in names:
        for _ in range(3):
            failure(name)


@contextmanager
def failing(error: BaseException, *, to: str = "", sent: int = 0) -> Iterator[list[Any]]:
    """Have mails fail: those to ``to``, or all but the first ``sent``; give the mails that were tried."""
    deliver, tried = EmailBackend.send_messages, list[Any]()

    def refuse(self: EmailBackend, messages: Any) -> int:
        tried.extend(messages)
        if len(tried) <= sent or (to and to not in messages[0].to):
            return deliver(self, messages)
        raise error

    with pytest.MonkeyPatch.context() as broken:
        broken.setattr(EmailBackend, "send_messages", refuse)
        yield tried


def recipients() -> list[str]:
    return sorted(to for sent in mail.outbox for to in sent.to)


def test_a_receiver_in_trouble_keeps_no_mail_back_and_doubles_none(
    tell: Callable[[], object], receiver: Receiver, clock: time_machine.Coordinates
) -> None:
    receiver.answers = [500, 500, 500]
    for _ in range(3):
        tell()
        clock.shift(60)
    assert (len(receiver.seen), len(mail.outbox)) == (3, 1)
    tell()
    assert (len(receiver.taken), len(mail.outbox)) == (1, 1)
    assert len({headers["webhook-id"] for headers in receiver.seen}) == 1, "one message, however often it is sent"
    tell()
    assert (len(receiver.taken), len(mail.outbox)) == (1, 1)


def test_a_mail_server_in_trouble_keeps_no_webhook_back_and_doubles_none(
    tell: Callable[[], object], receiver: Receiver
) -> None:
    with failing(ConnectionRefusedError("no mail today")) as tried:
        for _ in range(3):
            tell()
    assert (len(tried), len(receiver.seen)) == (3, 1)
    tell()
    assert (len(mail.outbox), len(receiver.taken)) == (1, 1)


def test_what_is_told_again_after_the_pause_is_another_message(
    tell: Callable[[], object], receiver: Receiver, clock: time_machine.Coordinates, settings: Any
) -> None:
    tell()
    clock.shift(timedelta(minutes=14))
    tell()
    clock.shift(timedelta(minutes=1))
    if settings.AXES_NOTIFY_ON != ["health"]:
        lock("bob")
    tell()
    first, second = {headers["webhook-id"] for headers in receiver.seen}
    assert first != second


def test_a_message_that_tells_more_is_another_one(
    settings: Any, receiver: Receiver, clock: time_machine.Coordinates
) -> None:
    settings.AXES_NOTIFY_ON = ["lockouts"]
    receiver.answers = [500]
    for name in ("alice", "bob"):
        lock(name)
        expire()
    assert receiver.taken[0]["data"]["total"] == 2
    first, second = [headers["webhook-id"] for headers in receiver.seen]
    assert first != second, "a receiver that had the first one would not look at the other"


def test_a_broker_that_takes_one_message_of_two_is_given_the_other_later(
    settings: Any, drain: Drain, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.AXES_NOTIFY_ON = ["lockouts"]
    answers, sent = [True, False], list[str]()

    def publish(name: str, *args: Any, **options: Any) -> bool:
        sent.append(name)
        return answers.pop(0) if answers else True

    lock("alice")
    drain()
    monkeypatch.setattr(publisher, "has_worker", lambda: True)
    monkeypatch.setattr(publisher, "publish", publish)
    for _ in range(3):
        notify()
    assert sent == ["axes_async.webhook", "axes_async.mail", "axes_async.mail"]


class TestOwners:
    """Mails to owners, which are many messages over one channel."""

    @pytest.fixture(autouse=True)
    def _owners(self, settings: Any, clock: time_machine.Coordinates) -> None:
        settings.AXES_NOTIFY, settings.AXES_NOTIFY_WEBHOOK, settings.AXES_NOTIFY_OWNER = [], None, True
        for name in ("alice", "bob", "carol"):
            User.objects.create_user(name, email=f"{name}@example.com")
        lock("alice", "bob", "carol")

    def test_who_could_not_be_told_is_told_the_next_time(self) -> None:
        with failing(ConnectionRefusedError("no mail today")) as tried:
            expire()
        assert len(tried) == 1
        expire()
        assert recipients() == ["alice@example.com", "bob@example.com", "carol@example.com"]
        expire()
        assert len(mail.outbox) == 3

    def test_a_server_that_goes_away_in_between_gets_each_mail_once(self, clock: time_machine.Coordinates) -> None:
        with failing(ConnectionRefusedError("no mail today"), sent=1):
            expire()
        assert len(mail.outbox) == 1
        clock.shift(timedelta(minutes=16))
        expire()
        assert recipients() == ["alice@example.com", "bob@example.com", "carol@example.com"]

    @pytest.mark.parametrize("error", [SMTPRecipientsRefused({}), ValueError("no address"), RuntimeError("HTTP 400")])
    def test_a_mail_that_is_refused_keeps_nobody_else_waiting_and_is_tried_for_a_day(
        self, clock: time_machine.Coordinates, error: Exception
    ) -> None:
        with failing(error, to="bob@example.com") as tried:
            expire()
            assert recipients() == ["alice@example.com", "carol@example.com"]
            clock.shift(timedelta(hours=23))
            expire()
            assert len(tried) == 4
            clock.shift(timedelta(hours=1))
            expire()
        expire()
        assert (len(tried), len(mail.outbox)) == (5, 2)
        assert not Notice.objects.exclude(waiting="").exists()

    def test_a_process_that_dies_while_it_tells_loses_nobody(self, clock: time_machine.Coordinates) -> None:
        class KilledError(BaseException):
            pass

        with failing(KilledError(), sent=1), pytest.raises(KilledError):
            expire()
        clock.shift(notify_module.GATHERED)
        expire()
        assert recipients() == ["alice@example.com", "bob@example.com", "carol@example.com"]

    def test_operators_in_trouble_keep_no_owner_waiting(self, settings: Any) -> None:
        settings.AXES_NOTIFY = ["ops@example.com"]
        lock("dora")
        User.objects.create_user("dora", email="dora@example.com")
        with failing(ConnectionRefusedError("no mail today"), to="ops@example.com"):
            expire()
        assert recipients() == [f"{name}@example.com" for name in ("alice", "bob", "carol", "dora")]
