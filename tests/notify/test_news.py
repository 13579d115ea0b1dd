"""What operators and owners are told, and how often."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import django
import pytest
import time_machine
from celery import current_app
from django.contrib.auth.models import User
from django.core import mail
from django.core.mail.backends.locmem import EmailBackend
from django.db import connections
from django.db.models import F

from axes_async.checks.settings import check_notify
from axes_async.conf import get_settings
from axes_async.counters.events import AttemptEvent
from axes_async.delivery import publisher, silence
from axes_async.models import Notice
from axes_async.notify import webhook
from axes_async.stores.contract import Position
from axes_async.stores.redis.store import RedisStore
from axes_async.tasks.expire import expire
from axes_async.tasks.notify import notify, send_mail, send_webhook, watch
from axes_async.tasks.projection import news
from axes_async.tasks.purge import purge
from axes_async.tasks.write_one import write
from tests.actions import failure
from tests.notify.sinks import WRITTEN, MailServer, Receiver, Silent
from tests.waiting import PATIENCE, until

Drain = Callable[[], int]

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("clock")]


@pytest.fixture(autouse=True)
def _site(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(current_app.conf, "task_always_eager", True)
    settings.AXES_NOTIFY = ["ops@example.com"]
    settings.AXES_COOLOFF_TIME = timedelta(minutes=30)
    settings.AXES_LOCKOUT_RULES = [{"parameters": ["username", "ip_address"], "limit": 3}]


def lock(*names: str, address: str = "192.0.2.1") -> None:
    for name in names:
        for _ in range(3):
            failure(name, address)


def subjects() -> list[str]:
    return [str(sent.subject) for sent in mail.outbox]


def test_a_lockout_is_told_with_rule_limit_and_end(drain: Drain) -> None:
    lock("alice")
    drain()
    assert mail.outbox == [], "a drain sends nothing by itself"
    notify()
    (sent,) = mail.outbox
    assert (sent.to, sent.from_email) == (["ops@example.com"], "root@localhost")
    assert sent.subject == "[Django] Locked out: address 192.0.2.1, username alice"
    assert "3 failures, at 2030-01-01T12:00:00Z, locked until 2030-01-01T12:30:00Z" in str(sent.body)
    notify()
    assert len(mail.outbox) == 1


def test_a_webhook_tells_the_same(drain: Drain, settings: Any, receiver: Receiver) -> None:
    settings.AXES_NOTIFY, settings.AXES_NOTIFY_WEBHOOK = [], receiver.url
    settings.AXES_NOTIFY_WEBHOOK_SECRET = WRITTEN
    settings.AXES_COOLOFF_TIME = None
    lock("a\nlice")
    drain()
    notify()
    (message,) = receiver.taken
    assert (message["type"], message["timestamp"]) == ("axes_async.lockouts", "2030-01-01T12:00:00Z")
    assert message["data"] == {
        "total": 1,
        "more": 0,
        "lockouts": [
            {
                "parameters": ["ip_address", "username"],
                "username": "a\nlice",
                "ip_address": "192.0.2.1",
                "user_agent": "tests",
                "path": "/sign-in/",
                "limit": 3,
                "at": "2030-01-01T12:00:00Z",
                "until": None,
                "count": 1,
                "what": "address 192.0.2.1, username a\\nlice",
            }
        ],
    }
    assert mail.outbox == []


def test_lockouts_are_gathered_for_five_minutes_after_the_first(drain: Drain, clock: time_machine.Coordinates) -> None:
    lock("first")
    drain()
    notify()
    lock("second", "third")
    drain()
    notify()
    clock.shift(299)
    notify()
    assert len(mail.outbox) == 1
    clock.shift(1)
    notify()
    assert subjects()[1:] == ["[Django] 2 lockouts"]


def test_the_same_lockout_is_told_once_in_a_quarter_of_an_hour(
    drain: Drain, clock: time_machine.Coordinates, settings: Any
) -> None:
    settings.AXES_COOLOFF_TIME = timedelta(minutes=1)
    for _ in range(3):
        lock("alice")
        drain()
        notify()
        clock.shift(299)
    assert len(mail.outbox) == 1
    clock.shift(3)
    notify()
    assert len(mail.outbox) == 2
    assert "2 lockouts since the last message" in str(mail.outbox[1].body)


def test_of_a_flood_the_latest_are_listed_and_the_others_counted(drain: Drain, clock: time_machine.Coordinates) -> None:
    for number in range(25):
        lock(f"name{number:02}")
        clock.shift(0.001)
    drain()
    notify()
    (sent,) = mail.outbox
    body = str(sent.body)
    assert (sent.subject, "and 5 more." in body) == ("[Django] 25 lockouts", True)
    assert ("name24" in body, "name05" in body, "name04" in body) == (True, True, False)


def test_no_name_leaves_its_line(drain: Drain) -> None:
    lock("alice\r\nBcc: all@example.com", "{{ settings.SECRET_KEY }}", "<b>\u202egnp")
    drain()
    notify()
    (sent,) = mail.outbox
    assert sent.recipients() == ["ops@example.com"]
    assert r"username alice\r\nBcc: all@example.com" in str(sent.body)
    assert "{{ settings.SECRET_KEY }}" in str(sent.body)
    assert r"<b>\u202egnp" in str(sent.body)


def test_a_tier_tells_its_own_end_and_each_of_its_lockouts(
    drain: Drain, clock: time_machine.Coordinates, settings: Any
) -> None:
    settings.AXES_LOCKOUT_RULES = [
        {"parameters": "username", "tiers": [(2, timedelta(minutes=20)), (3, timedelta(hours=2))]}
    ]
    for minutes in (0, 21):
        clock.shift(timedelta(minutes=minutes))
        lock("alice")
        drain()
        notify()
    assert [str(sent.body).count("locked until") for sent in mail.outbox] == [1, 1]
    assert "2 failures, at 2030-01-01T12:00:00Z, locked until 2030-01-01T12:20:00Z" in str(mail.outbox[0].body)
    assert "3 failures, at 2030-01-01T12:21:00Z, locked until 2030-01-01T14:21:00Z" in str(mail.outbox[1].body)


def test_an_event_that_comes_twice_is_told_once(
    drain: Drain, redis_store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(current_app.conf, "task_always_eager", False)
    lock("alice")
    events = [event for _, event in redis_store.read(Position(0, 0), 10)]
    assert len(events) == 3
    drain()
    for event in events:
        assert isinstance(event, AttemptEvent)
        write(event.wire())
    assert Notice.objects.get().count == 1


@pytest.mark.parametrize(
    "off",
    [
        {"AXES_NOTIFY": []},
        {"AXES_NOTIFY_ON": ["health"]},
        {"AXES_NOTIFY": [], "AXES_NOTIFY_WEBHOOK": "https://x.example/"},
    ],
)
def test_what_is_off_costs_nothing_and_says_nothing(drain: Drain, settings: Any, off: dict[str, Any]) -> None:
    for name, value in off.items():
        setattr(settings, name, value)
    lock("alice")
    drain()
    notify()
    assert (mail.outbox, Notice.objects.count()) == ([], 0)


def test_a_broker_that_is_away_loses_no_news(
    drain: Drain, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    lock("alice")
    drain()
    with monkeypatch.context() as away:
        away.setattr(publisher, "has_worker", lambda: True)
        away.setattr(publisher, "publish", lambda *args, **options: False)
        notify()
    assert "told later" in caplog.text
    notify()
    assert len(mail.outbox) == 1


def test_a_mail_server_in_trouble_holds_up_no_expiry_and_loses_no_news(
    drain: Drain, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(self: EmailBackend, messages: Any) -> int:
        raise ConnectionRefusedError("no mail today")

    lock("alice")
    with monkeypatch.context() as broken:
        broken.setattr(EmailBackend, "send_messages", refuse)
        expire()
    assert "no mail today" in caplog.text
    expire()
    assert len(mail.outbox) == 1


SMTP = "django.core.mail.backends.smtp.EmailBackend"


@pytest.mark.parametrize(
    "has_mailers",
    [
        False,
        pytest.param(True, marks=pytest.mark.skipif(django.VERSION < (6, 1), reason="Django 6.1 brought MAILERS.")),
    ],
)
def test_a_mail_goes_out_over_smtp_and_a_silent_server_is_not_waited_for_for_ever(
    settings: Any, mail_server: MailServer, has_mailers: bool
) -> None:
    if has_mailers:
        options = {"host": "127.0.0.1", "port": mail_server.port}
        settings.MAILERS = {"default": {"BACKEND": SMTP, "OPTIONS": options}}
    else:
        settings.EMAIL_BACKEND, settings.EMAIL_HOST, settings.EMAIL_PORT = SMTP, "127.0.0.1", mail_server.port
    context = {"problems": ["Events wait."], "prefix": "[x] "}
    mail_server.refusals = 1
    with pytest.raises(OSError, match="try later"):
        send_mail.run("health", context, ["ops@example.com"])
    send_mail.run("health", context, ["ops@example.com"])
    (sent,) = mail_server.messages
    assert (sent["Subject"], sent["To"]) == ("[x] Logins: Events wait.", "ops@example.com")


@pytest.mark.django_db(transaction=True)
def test_a_slow_mail_server_holds_up_no_drain_and_what_happens_meanwhile_is_told_later(
    drain: Drain, settings: Any, clock: time_machine.Coordinates
) -> None:
    settings.EMAIL_BACKEND = f"{__name__}.Slow"
    lock("alice")
    drain()
    notify()
    assert len(mail.outbox) == 1
    clock.shift(timedelta(minutes=15))
    notify()
    assert subjects()[1:] == ["[Django] Locked out: address 192.0.2.1, username alice"]


class Slow(EmailBackend):
    """Sends nothing before a drain elsewhere has noted one more lockout of each client."""

    def send_messages(self, messages: Any) -> int:
        noted = threading.Thread(target=self.note)
        noted.start()
        noted.join(PATIENCE)
        assert not noted.is_alive(), "a drain waits for the mail server"
        return super().send_messages(messages)

    @staticmethod
    def note() -> None:
        try:
            Notice.objects.exclude(waiting="").update(count=F("count") + 1)
        finally:
            connections.close_all()


def test_of_more_lockouts_than_one_query_reads_the_latest_are_listed(
    drain: Drain, clock: time_machine.Coordinates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(news, "PORTION", 10)
    for number in range(25):
        lock(f"name{number:02}")
        clock.shift(0.001)
    drain()
    notify()
    (sent,) = mail.outbox
    listed = re.findall(r"username (name\d\d)", str(sent.body))
    assert (listed, "and 5 more." in str(sent.body)) == ([f"name{n:02}" for n in range(24, 4, -1)], True)


class TestSilence:
    """A server that takes connections and says nothing: drains wait for the same workers."""

    @pytest.fixture(autouse=True)
    def _impatient(self, monkeypatch: pytest.MonkeyPatch, settings: Any, silent: Silent) -> None:
        monkeypatch.setattr(silence, "SLOW", 0)
        monkeypatch.setattr(webhook, "PATIENCE", 0.01)
        settings.EMAIL_BACKEND = SMTP
        settings.EMAIL_HOST, settings.EMAIL_PORT, settings.EMAIL_TIMEOUT = "127.0.0.1", silent.port, 0.01
        settings.AXES_NOTIFY_WEBHOOK = f"http://127.0.0.1:{silent.port}/"
        settings.AXES_NOTIFY_WEBHOOK_SECRET = WRITTEN

    @pytest.mark.parametrize("server", ["mail", "webhook"])
    def test_it_is_not_waited_for_again_at_once(self, server: str, silent: Silent) -> None:
        def tell() -> None:
            if server == "mail":
                send_mail.run("health", {"problems": ["Events wait."]}, ["ops@example.com"])
            else:
                send_webhook.run("msg_1", "{}")

        for _ in range(3):
            with pytest.raises(OSError):  # noqa: PT011  (what a task is tried again for)
                tell()
        until(lambda: silent.connections, what="it was asked")
        assert silent.connections == 1

    def test_one_is_no_reason_to_leave_the_other_alone(
        self, receiver: Receiver, settings: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with pytest.raises(OSError, match="timed out"):
            send_mail.run("health", {"problems": ["Events wait."]}, ["ops@example.com"])
        settings.AXES_NOTIFY_WEBHOOK = receiver.url
        monkeypatch.setattr(webhook, "PATIENCE", PATIENCE)
        send_webhook.run("msg_1", "{}")
        assert receiver.taken == [{}]


class TestAttacks:
    """Many failures in five minutes, whether they lock anybody or not."""

    @pytest.fixture(autouse=True)
    def _attack(self, settings: Any) -> None:
        settings.AXES_NOTIFY_ATTACK, settings.AXES_NOTIFY_ON = 10, ["attacks"]

    def test_a_spray_is_told_with_those_who_do_it_and_whom_it_hits(self, drain: Drain) -> None:
        for number in range(9):
            failure("root", f"192.0.2.{number % 2}")
        drain()
        watch()
        assert mail.outbox == []
        failure("\u202eevil", "192.0.2.1")
        drain()
        watch()
        (sent,) = mail.outbox
        assert sent.subject == "[Django] Attack on the login: 10 attempts in 5 minutes"
        assert "192.0.2.1: " in str(sent.body)
        assert r"\u202eevil: 1" in str(sent.body)

    def test_it_is_told_again_after_a_quarter_of_an_hour(self, drain: Drain, clock: time_machine.Coordinates) -> None:
        for minutes in (0, 10, 5):
            clock.shift(timedelta(minutes=minutes))
            for number in range(10):
                failure(f"name{number}", "192.0.2.1")
            drain()
            watch()
        assert len(mail.outbox) == 2

    def test_what_is_long_ago_is_no_attack(self, drain: Drain, clock: time_machine.Coordinates) -> None:
        for number in range(10):
            failure(f"name{number}", "192.0.2.1")
        drain()
        clock.shift(301)
        watch()
        assert mail.outbox == []

    def test_a_site_that_keeps_no_failures_is_told_that_none_is_seen(self, settings: Any) -> None:
        settings.AXES_ENABLE_ACCESS_FAILURE_LOG = False
        assert [found.id for found in check_notify(get_settings())] == ["axes_async.W031"]


class TestHealth:
    """What ``axes_status`` says that needs a person."""

    @pytest.fixture(autouse=True)
    def _trouble(self, settings: Any, redis_store: RedisStore) -> None:
        settings.AXES_NOTIFY_ON = ["health"]
        redis_store.set_aside(b"broken", "cannot be read")

    def test_trouble_is_told_when_it_lasts(self, clock: time_machine.Coordinates) -> None:
        watch()
        assert mail.outbox == []
        clock.shift(60)
        watch()
        assert subjects() == ["[Django] Logins: 1 events could not be written: manage.py axes_dead_letters shows them."]

    def test_more_of_the_same_is_no_news_for_a_quarter_of_an_hour(
        self, clock: time_machine.Coordinates, redis_store: RedisStore
    ) -> None:
        for _ in range(15):
            watch()
            clock.shift(60)
            redis_store.set_aside(b"broken", "cannot be read")
        assert len(mail.outbox) == 1
        for _ in range(5):
            watch()
            clock.shift(60)
        assert len(mail.outbox) == 2

    def test_other_trouble_is_news(self, clock: time_machine.Coordinates, redis_store: RedisStore) -> None:
        for _ in range(2):
            watch()
            clock.shift(60)
        failure()
        clock.shift(120)
        for _ in range(2):
            watch()
            clock.shift(60)
        assert "Events wait since" in subjects()[1]
        assert "could not be written" not in str(mail.outbox[1].body)

    def test_what_the_broker_did_not_take_is_told_next_time(
        self, clock: time_machine.Coordinates, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        watch()
        with monkeypatch.context() as away:
            away.setattr(publisher, "has_worker", lambda: True)
            away.setattr(publisher, "publish", lambda *args, **options: False)
            watch()
        watch()
        assert len(mail.outbox) == 1


class TestOwners:
    """AXES_NOTIFY_OWNER."""

    @pytest.fixture(autouse=True)
    def _owners(self, settings: Any) -> None:
        settings.AXES_NOTIFY, settings.AXES_NOTIFY_OWNER = [], True

    @staticmethod
    def told() -> list[list[str]]:
        return sorted(sent.to for sent in mail.outbox)

    def test_an_owner_is_told_and_nobody_else(self, drain: Drain) -> None:
        User.objects.create_user("alice", email="alice@example.com")
        User.objects.create_user("bob", email="bob@example.com")
        User.objects.create_user("gone", email="gone@example.com", is_active=False)
        User.objects.create_user("mute")
        lock("Alice", "nobody", "gone", "mute", "a\x00b", "\ud800")
        drain()
        notify()
        (sent,) = mail.outbox
        assert (sent.to, sent.subject) == (["alice@example.com"], "Your account is locked")
        assert "192.0.2.1" in str(sent.body)

    def test_an_owner_is_known_by_a_mail_address_that_nobody_shares(self, drain: Drain) -> None:
        for number, address in enumerate(["one@example.com", "two@example.com", "two@example.com"]):
            User.objects.create_user(f"user{number}", email=address)
        lock("one@example.com", "two@example.com")
        drain()
        notify()
        assert self.told() == [["one@example.com"]]

    def test_one_account_is_told_once_in_a_quarter_of_an_hour(
        self, drain: Drain, clock: time_machine.Coordinates, settings: Any
    ) -> None:
        settings.AXES_NOTIFY_PAUSE = 1
        User.objects.create_user("alice", email="alice@example.com")
        for place, minutes in enumerate((0, 14, 1)):
            clock.shift(timedelta(minutes=minutes))
            lock("alice", address=f"192.0.2.{place}")
            drain()
            notify()
        assert len(mail.outbox) == 2

    def test_nobody_is_told_of_an_address(self, drain: Drain, settings: Any) -> None:
        settings.AXES_LOCKOUT_RULES = [{"parameters": "ip_address", "limit": 3}]
        User.objects.create_user("alice", email="alice@example.com")
        lock("alice")
        drain()
        notify()
        assert mail.outbox == []

    def test_a_mail_that_could_not_be_sent_counts_as_none(
        self, drain: Drain, monkeypatch: pytest.MonkeyPatch, settings: Any, clock: time_machine.Coordinates
    ) -> None:
        def refuse(self: EmailBackend, messages: Any) -> int:
            raise ConnectionRefusedError("no mail today")

        settings.AXES_NOTIFY_PAUSE = 1
        User.objects.create_user("alice", email="alice@example.com")
        lock("alice")
        drain()
        with monkeypatch.context() as broken:
            broken.setattr(EmailBackend, "send_messages", refuse)
            notify()
        clock.shift(2)
        lock("alice", address="192.0.2.2")
        drain()
        notify()
        assert len(mail.outbox) == 1

    def test_a_flood_of_names_that_nobody_has_keeps_no_owner_from_being_told(
        self, drain: Drain, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(news, "OWNERS", 2)
        monkeypatch.setattr(news, "PORTION", 2)
        for name in ("alice", "bob"):
            User.objects.create_user(name, email=f"{name}@example.com")
        lock("alice", "nobody1", "nobody2", "nobody3", "nobody4", "bob", "nobody5", "nobody6", "nobody7")
        drain()
        notify()
        assert self.told() == [["alice@example.com"], ["bob@example.com"]]

    def test_an_address_that_is_none_keeps_nobody_else_from_being_told(self, drain: Drain) -> None:
        broken = "no\naddress@example.com"
        for name, address in (("a", broken), ("b", "b@example.com"), ("c", broken), ("d", "d@example.com")):
            User.objects.create_user(name)
            User.objects.filter(username=name).update(email=address)
        lock("a", "b", "c", "d")
        expire()
        assert self.told() == [["b@example.com"], ["d@example.com"]]

    def test_a_mail_server_that_is_away_is_not_waited_for_once_for_each_owner(
        self, drain: Drain, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tried: list[Any] = []

        def refuse(self: EmailBackend, messages: Any) -> int:
            tried.extend(messages)
            raise TimeoutError("no mail today")

        monkeypatch.setattr(EmailBackend, "send_messages", refuse)
        for name in ("alice", "bob", "carol"):
            User.objects.create_user(name, email=f"{name}@example.com")
        lock("alice", "bob", "carol")
        drain()
        notify()
        assert len(tried) == 1


def test_an_attack_that_could_not_be_told_is_told_the_next_time(
    drain: Drain, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: EmailBackend, messages: Any) -> int:
        raise ConnectionRefusedError("no mail today")

    settings.AXES_NOTIFY_ON, settings.AXES_NOTIFY_ATTACK = ["attacks"], 3
    lock("alice")
    with monkeypatch.context() as broken:
        broken.setattr(EmailBackend, "send_messages", refuse)
        expire()
    expire()
    assert [subject[:25] for subject in subjects()] == ["[Django] Attack on the lo"]


def test_a_mail_that_a_provider_did_not_take_is_tried_again_whatever_it_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[Any] = []

    class ProviderError(Exception):
        pass

    def refuse(self: EmailBackend, messages: Any) -> int:
        tried.extend(messages)
        raise ProviderError("no mail today")

    monkeypatch.setattr(EmailBackend, "send_messages", refuse)
    done = send_mail.apply(args=("health", {"problems": ["Events wait."]}, ["ops@example.com"]))
    assert (done.state, len(tried)) == ("FAILURE", 11)


def test_news_that_wait_are_not_forgotten_by_the_purge(drain: Drain, clock: time_machine.Coordinates) -> None:
    lock("alice")
    drain()
    clock.shift(timedelta(hours=2))
    purge()
    notify()
    assert len(mail.outbox) == 1
    clock.shift(timedelta(hours=2))
    purge()
    assert not Notice.objects.exists()


@pytest.mark.parametrize(
    "half", [{"AXES_NOTIFY_WEBHOOK": "https://x.example/"}, {"AXES_NOTIFY_WEBHOOK_SECRET": WRITTEN}]
)
def test_half_a_webhook_is_reported(settings: Any, half: dict[str, str]) -> None:
    for name, value in half.items():
        setattr(settings, name, value)
    assert [found.id for found in check_notify(get_settings())] == ["axes_async.W031"]


@pytest.mark.parametrize("name", ["AXES_NOTIFY_OWNER", "AXES_UNLOCK_BY_MAIL"])
def test_owners_without_a_field_for_mail_addresses_are_reported(
    settings: Any, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    setattr(settings, name, True)
    assert not [*check_notify(get_settings())]
    monkeypatch.setattr(User, "EMAIL_FIELD", "no_such_field")
    (found,) = check_notify(get_settings())
    assert (found.id, found.msg.split()[0]) == ("axes_async.W031", name)


def test_the_web_process_of_a_site_without_a_worker_notes_and_tells_nothing(
    drain: Drain, django_capture_on_commit_callbacks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []
    monkeypatch.setattr(publisher, "publish", lambda name, *args, **options: sent.append(name))
    with django_capture_on_commit_callbacks(execute=True):
        lock("alice")
        drain()
    assert (sent, mail.outbox) == ([], [])
    assert json.loads(Notice.objects.get().waiting)["username"] == "alice"


def test_a_worker_is_asked_to_tell_as_soon_as_lockouts_are_written(
    drain: Drain, django_capture_on_commit_callbacks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []
    monkeypatch.setattr(publisher, "has_worker", lambda: True)
    monkeypatch.setattr(publisher, "publish", lambda name, *args, **options: sent.append(name))
    with django_capture_on_commit_callbacks(execute=True):
        lock("alice")
        drain()
    assert sent == [publisher.DRAIN, publisher.NOTIFY]
    assert mail.outbox == []
