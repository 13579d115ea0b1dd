"""Unlocking by mail: who gets a link, what it does, and what a stranger learns."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from celery import current_app
from celery.exceptions import SoftTimeLimitExceeded
from django.contrib import admin
from django.contrib.auth.models import User
from django.contrib.auth.views import LoginView
from django.core import mail
from django.core.mail.backends.locmem import EmailBackend
from django.db import InterfaceError, OperationalError
from django.test import Client, override_settings
from django.urls import include, path

from axes_async.checks.settings import check_response
from axes_async.conf import get_settings
from axes_async.errors import StoreUnavailable
from axes_async.models import AccessReset, Notice
from axes_async.notify.links import make_token
from axes_async.stores.redis.store import RedisStore
from axes_async.tasks import unlock_mail as unlock_mail_task
from axes_async.tasks.purge import purge
from axes_async.tasks.unlock_mail import unlock_mail
from axes_async.unlock import views
from tests.actions import failure
from tests.conftest import PASSWORD
from tests.login.test_responses import BROWSER, locked_out
from tests.person.test_page import Page
from tests.site import home, sign_in

Post = Callable[..., Any]
NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)
RULES = [{"parameters": ["username", "ip_address"], "limit": 3}]

urlpatterns = [
    path("axes/", include("axes_async.unlock.urls")),
    path("sign-in/", sign_in),
    path("admin/", admin.site.urls),
]
with_login = [*urlpatterns, path("accounts/login/", LoginView.as_view()), path("elsewhere/", home)]

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("unlock_on", "clock")]


@pytest.fixture
def unlock_on(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a site with the pages, whose tasks run at once."""
    monkeypatch.setitem(current_app.conf, "task_always_eager", True)
    settings.ROOT_URLCONF, settings.AXES_UNLOCK_BY_MAIL = __name__, True
    settings.AXES_LOCKOUT_RULES = RULES


@pytest.fixture
def clock() -> Iterator[time_machine.Coordinates]:
    """Return the clock, standing at noon."""
    with time_machine.travel(NOON, tick=False) as coordinates:
        yield coordinates


@pytest.fixture
def owner(alice: User) -> User:
    """Return alice, who has a mail address, locked out."""
    User.objects.filter(pk=alice.pk).update(email="alice@example.com")
    alice.refresh_from_db()
    for _ in range(3):
        failure("alice", "127.0.0.1")
    return alice


def ask(client: Client, name: str = "alice", **extra: Any) -> Any:
    return client.post("/axes/unlock/", {"username": name}, **extra)


def link() -> str:
    """Return the path of the link in the one mail that was sent."""
    (sent,) = mail.outbox
    (found,) = re.findall(r"^http://testserver(/\S+)$", str(sent.body), re.MULTILINE)
    return found


def test_a_locked_out_person_is_led_to_a_link_by_mail_that_unlocks(
    client: Client, owner: User, post: Post, clock: time_machine.Coordinates
) -> None:
    shown = Page(post(password=PASSWORD, HTTP_ACCEPT=BROWSER))
    assert "/axes/unlock/" in shown.all("a", "href")
    asked = client.get("/axes/unlock/")
    assert (asked.status_code, Page(asked).all("input", "name")[-1]) == (200, "username")
    assert "Check your mail" in Page(ask(client)).text
    (sent,) = mail.outbox
    assert (sent.to, sent.subject) == (["alice@example.com"], "testserver: Unlock your account")
    assert post(password=PASSWORD).status_code == 429
    looked_at = client.get(link())
    assert (looked_at.status_code, looked_at["Referrer-Policy"]) == (200, "same-origin")
    assert "no-store" in looked_at["Cache-Control"]
    assert post(password=PASSWORD).status_code == 429, "a look, as a mail server takes one, unlocks nothing"
    assert "Your account is unlocked" in Page(client.post(link())).text
    assert post(password=PASSWORD).status_code == 204
    (record,) = AccessReset.objects.all()
    assert (record.username, record.by, record.reason) == ("alice", "alice", "Unlocked by mail.")


def test_a_link_works_once(client: Client, owner: User) -> None:
    ask(client)
    assert [client.post(link()).status_code for _ in range(2)] == [200, 410]
    assert client.get(link()).status_code == 410
    assert AccessReset.objects.count() == 1


def test_a_link_works_for_a_while(client: Client, owner: User, clock: time_machine.Coordinates, settings: Any) -> None:
    settings.AXES_UNLOCK_LINK_AGE = 600
    ask(client)
    clock.shift(600)
    assert client.get(link()).status_code == 200
    clock.shift(1)
    assert [client.get(link()).status_code, client.post(link()).status_code] == [410, 410]


@pytest.mark.parametrize(
    "token",
    ["x", "a:b:c", make_token(User(pk=10**6), ["alice"]), "%00", "é" * 300],
    ids=["none", "parts", "gone", "nul", "long"],
)
def test_a_link_that_nobody_sent_unlocks_nothing(client: Client, owner: User, token: str) -> None:
    assert client.post(f"/axes/unlock/{token}/").status_code == 410
    with override_settings(SECRET_KEY="of somebody else"):
        forged = make_token(owner, ["alice"])
    assert client.post(f"/axes/unlock/{forged}/").status_code == 410
    assert not AccessReset.objects.exists()


def test_a_link_needs_the_token_of_the_form(client: Client, owner: User) -> None:
    ask(client)
    strict = Client(enforce_csrf_checks=True)
    assert strict.post(link()).status_code == 403
    (token,) = [
        attrs["value"] for tag, attrs in Page(strict.get(link())).tags if attrs.get("name") == "csrfmiddlewaretoken"
    ]
    assert strict.post(link(), {"csrfmiddlewaretoken": token}).status_code == 200


def test_every_name_gets_the_same_answer_and_only_a_locked_owner_a_mail(client: Client, owner: User) -> None:
    User.objects.create_user("bob", email="bob@example.com")
    User.objects.create_user("mute", is_active=False, email="mute@example.com")
    for name in ("mute", "nobody", "poor"):
        for _ in range(3):
            failure(name, "127.0.0.1")
    User.objects.create_user("poor")
    names = ("alice", "bob", "nobody", "mute", "poor", "nobody@example.com", "A" * 255, "alice\u202e")
    answers = [ask(client, name, REMOTE_ADDR=f"192.0.2.{place}") for place, name in enumerate(names)]
    shown = {re.sub(rb'value="\w{64}"', b"", answer.content) for answer in answers}
    assert (len(shown), {answer.status_code for answer in answers}) == (1, {200})
    assert [sent.to for sent in mail.outbox] == [["alice@example.com"]]


@pytest.mark.parametrize("name", ["", "   ", "a\x00b", "x" * 256])
def test_what_no_account_is_called_is_asked_for_again(client: Client, name: str) -> None:
    answer = ask(client, name)
    assert (answer.status_code, Page(answer).all("input", "name")[-1]) == (400, "username")
    assert not Notice.objects.exists()


def test_the_mail_is_sent_after_the_answer_so_that_nobody_can_tell_by_the_clock(
    client: Client, owner: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[bool] = []
    monkeypatch.setattr(views.publisher, "hand_over", lambda *args: closed.append(True))
    request = client.get("/axes/unlock/").wsgi_request
    request.method, request._dont_enforce_csrf_checks = "POST", True  # type: ignore[attr-defined]
    request.POST = {"username": "alice"}  # type: ignore[assignment]
    response = views.ask(request)
    assert closed == []
    response.close()
    response.close()
    assert closed == [True]


class ProviderError(Exception):
    """As the API of a provider of mails has its own, which are nothing of ``smtplib``."""


@pytest.mark.parametrize("error", [ConnectionRefusedError, ProviderError, SoftTimeLimitExceeded])
def test_a_mail_server_in_trouble_is_no_answer_to_a_stranger(
    client: Client,
    owner: User,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: type[Exception],
) -> None:
    def refuse(self: EmailBackend, messages: Any) -> int:
        raise error

    with monkeypatch.context() as broken:
        broken.setattr(EmailBackend, "send_messages", refuse)
        assert "Check your mail" in Page(ask(client)).text
    assert "was not sent" in caplog.text
    ask(client)
    assert len(mail.outbox) == 1, "what was not sent may be sent again"


def test_one_account_gets_one_mail_in_a_quarter_of_an_hour(
    client: Client, owner: User, clock: time_machine.Coordinates
) -> None:
    for _ in range(2):
        ask(client)
    clock.shift(timedelta(minutes=15) - timedelta(seconds=1))
    ask(client)
    assert len(mail.outbox) == 1
    clock.shift(1)
    ask(client)
    assert len(mail.outbox) == 2


def test_one_client_may_ask_five_times_an_hour(client: Client, clock: time_machine.Coordinates) -> None:
    assert [ask(client, f"name{number}").status_code for number in range(7)] == [200] * 5 + [429] * 2
    refused = ask(client)
    assert (refused["Retry-After"], "Too many requests" in Page(refused).text) == ("3600", True)
    assert ask(client, REMOTE_ADDR="192.0.2.9").status_code == 200
    clock.shift(3600)
    assert ask(client).status_code == 200


def test_attempts_from_elsewhere_hide_no_lockout_of_the_name(
    client: Client, owner: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unlock_mail_task, "LOOKED_AT", 2)
    for number in range(3):
        failure("alice", f"192.0.2.{number}")
    ask(client)
    assert len(mail.outbox) == 1


@pytest.mark.parametrize("tried", ["Bob", "bob", "Bob@example.com", "bob@EXAMPLE.com"])
@pytest.mark.parametrize("asked", ["Bob", "BOB", "bob@example.com"])
def test_a_link_is_sent_by_whichever_name_of_the_account_it_is_asked_for(
    client: Client, db: None, tried: str, asked: str
) -> None:
    User.objects.create_user("Bob", email="bob@example.com")
    for _ in range(3):
        failure(tried, "127.0.0.1")
    ask(client, asked)
    client.post(link())
    assert failure(tried, "127.0.0.1")


@pytest.mark.parametrize("address", ["vic@example.com", "own@example.com"])
def test_a_stranger_who_registers_with_the_username_of_another_as_address_keeps_no_link_from_its_owner(
    client: Client, db: None, address: str
) -> None:
    User.objects.create_user("vic@example.com", email=address)
    User.objects.create_user("mallory", email="vic@example.com")
    for _ in range(3):
        failure("vic@example.com", "127.0.0.1")
    ask(client, "vic@example.com")
    assert [sent.to for sent in mail.outbox] == ([["vic@example.com"]] if address == "vic@example.com" else [])


def test_a_link_unlocks_no_name_that_the_account_was_given_since(client: Client, db: None) -> None:
    User.objects.create_user("victim", email="victim@example.com")
    mallory = User.objects.create_user("victim@example.com", email="mallory@example.com")
    for name in ("victim@example.com", "mallory@example.com"):
        for _ in range(3):
            failure(name, "127.0.0.1")
    ask(client, "mallory@example.com")
    User.objects.filter(pk=mallory.pk).update(email="victim@example.com")
    assert client.post(link()).status_code == 410
    assert not failure("victim@example.com", "127.0.0.1")


@pytest.mark.parametrize("change", [{"username": "alice2", "email": "new@example.com"}, {"is_active": False}])
def test_a_link_is_dead_once_the_account_is_inactive_or_has_other_names(
    client: Client, owner: User, change: dict[str, Any]
) -> None:
    ask(client)
    User.objects.filter(pk=owner.pk).update(**change)
    User.objects.create_user("alice3" if "is_active" in change else "alice", email="other@example.com")
    assert [client.get(link()).status_code, client.post(link()).status_code] == [410, 410]
    assert not AccessReset.objects.exists()


def test_who_logs_in_by_mail_address_is_found_by_it_and_both_names_are_unlocked(client: Client, owner: User) -> None:
    for _ in range(3):
        failure("Alice@example.com", "127.0.0.1")
    ask(client, "Alice@example.com")
    client.post(link())
    assert [failure(name, "127.0.0.1") for name in ("alice", "alice@example.com")] == [True, True]


def test_an_address_that_two_accounts_have_is_nobodys(client: Client, owner: User) -> None:
    User.objects.create_user("second", email="ALICE@example.com")
    for _ in range(3):
        failure("alice@example.com", "127.0.0.1")
    ask(client, "alice@example.com")
    assert mail.outbox == []


def test_the_mail_is_in_the_language_of_the_page(client: Client, owner: User, settings: Any) -> None:
    settings.MIDDLEWARE = ["django.middleware.locale.LocaleMiddleware", *settings.MIDDLEWARE]
    ask(client, HTTP_ACCEPT_LANGUAGE="de")
    assert "Konto entsperren" in str(mail.outbox[0].subject)


@pytest.mark.parametrize("error", [OperationalError, InterfaceError])
def test_what_cannot_be_unlocked_now_can_be_with_the_same_link_later(
    client: Client, owner: User, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def fail(**kwargs: Any) -> int:
        raise error("away")

    ask(client)
    with monkeypatch.context() as broken:
        broken.setattr(views, "reset", fail)
        refused = client.post(link())
    assert (refused.status_code, refused["Retry-After"]) == (503, "5")
    assert client.post(link()).status_code == 200


def test_a_link_works_again_after_a_minute_if_nothing_could_be_noted(
    client: Client, owner: User, monkeypatch: pytest.MonkeyPatch, clock: time_machine.Coordinates
) -> None:
    def fail(*args: Any, **kwargs: Any) -> int:
        raise OperationalError("away")

    ask(client)
    with monkeypatch.context() as broken:
        broken.setattr(views, "reset", fail)
        broken.setattr(views, "give_back", fail)
        assert client.post(link()).status_code == 503
    clock.shift(59)
    assert client.post(link()).status_code == 410
    clock.shift(1)
    assert client.post(link()).status_code == 200
    clock.shift(60)
    assert client.post(link()).status_code == 410


def test_nobody_is_told_that_an_account_is_unlocked_whose_store_knows_nothing_of_it(
    client: Client, owner: User, redis_store: RedisStore, monkeypatch: pytest.MonkeyPatch, post: Post
) -> None:
    def silent(*args: Any, **options: Any) -> str:
        raise StoreUnavailable("silent")

    ask(client)
    with monkeypatch.context() as broken:
        broken.setattr(RedisStore, "push", silent)
        assert client.post(link()).status_code == 503
    assert post(password=PASSWORD).status_code == 429
    assert "Your account is unlocked" in Page(client.post(link())).text
    assert post(password=PASSWORD).status_code == 204


@pytest.mark.parametrize("off", [{"AXES_UNLOCK_BY_MAIL": False}, {"AXES_ENABLED": False}])
def test_a_site_that_has_it_off_has_no_such_pages(
    client: Client, owner: User, off: dict[str, bool], post: Post
) -> None:
    token = make_token(owner, ["alice"])
    with override_settings(**off):
        urls = ("/axes/unlock/", f"/axes/unlock/{token}/")
        assert [client.get(url).status_code for url in urls] + [client.post(url).status_code for url in urls] == [
            404
        ] * 4
        assert "Unlock by mail" not in Page(locked_out(post, HTTP_ACCEPT=BROWSER)).text
    assert not AccessReset.objects.exists()


def test_a_site_without_static_files_gets_ours_by_our_urls(client: Client, post: Post) -> None:
    shown = Page(locked_out(post, HTTP_ACCEPT=BROWSER))
    urls = [*shown.all("link", "href"), *shown.all("script", "src")]
    assert urls == ["/axes/assets/page.css", "/axes/assets/page.js"]
    files = [client.get(str(url)) for url in urls]
    kinds = [file["Content-Type"] for file in files]
    assert kinds == ["text/css; charset=utf-8", "text/javascript; charset=utf-8"]
    assert b"axes-card" in files[0].content
    assert client.get("/axes/assets/base.html").status_code == 404


@pytest.mark.parametrize(
    ("urls", "login_url", "href"),
    [
        (urlpatterns, "/accounts/login/", "/admin/login/"),
        (with_login, "/accounts/login/", "/accounts/login/"),
        (with_login, "nowhere", "/admin/login/"),
        (with_login, "https://id.example/login", "https://id.example/login"),
    ],
)
def test_whoever_has_unlocked_is_led_to_the_login(
    client: Client, owner: User, settings: Any, urls: Any, login_url: str, href: str
) -> None:
    settings.LOGIN_URL = login_url
    ask(client)
    settings.ROOT_URLCONF = tuple(urls)
    assert Page(client.post(link())).all("a", "href") == [href]


def test_what_is_over_is_forgotten(client: Client, owner: User, clock: time_machine.Coordinates) -> None:
    ask(client)
    client.post(link())
    clock.shift(1800)
    purge()
    assert Notice.objects.count() == 2, "the request and the link, both within their hour"
    clock.shift(1800)
    purge()
    assert not Notice.objects.exists()


@pytest.mark.parametrize("urls", [__name__, "tests.urls"])
def test_a_site_that_has_forgotten_the_urls_is_told(settings: Any, urls: str) -> None:
    settings.ROOT_URLCONF = urls
    assert [found.id for found in check_response(get_settings())] == ([] if urls == __name__ else ["axes_async.W030"])


@pytest.mark.parametrize("error", [ConnectionRefusedError, ProviderError, StoreUnavailable])
def test_a_worker_whose_mail_did_not_go_tries_again(
    owner: User, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    tried: list[Any] = []

    def refuse(self: EmailBackend, messages: Any) -> int:
        tried.extend(messages)
        raise error("no mail today")

    monkeypatch.setattr(EmailBackend, "send_messages", refuse)
    done = unlock_mail.apply(args=("alice", "http://testserver/axes/unlock/", "en"))
    assert (done.state, len(tried)) == ("FAILURE", 6)


def test_a_mail_server_that_never_ends_holds_no_worker_for_ever() -> None:
    assert 0 < unlock_mail.soft_time_limit <= 60
