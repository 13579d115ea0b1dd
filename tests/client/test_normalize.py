"""Which name an attempt is for: fields, callables, the form that counters use, and how log messages name a client."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from django.contrib.auth import authenticate
from django.contrib.auth.models import User
from django.contrib.auth.signals import user_login_failed
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, HttpResponse
from django.test import Client, RequestFactory
from django.urls import path

from axes_async.client.display import client_str
from axes_async.client.normalize import CANONICAL_LENGTH, fold_username
from axes_async.decorators import axes_dispatch
from axes_async.login.steps import client_behind
from axes_async.models import AccessAttempt, AccessLog
from axes_async.tasks.reset import reset
from axes_async.utils import reset_request
from tests.actions import failure
from tests.conftest import PASSWORD
from tests.site import CountingBackend, sign_in

Post = Callable[..., Any]
Drain = Callable[[], int]
ASKED: list[tuple[HttpRequest | None, Mapping[str, Any] | None]] = []

pytestmark = [pytest.mark.django_db]


@axes_dispatch
def own_login(request: HttpRequest) -> HttpResponse:
    """Refuse every password, and tell so by a signal."""
    CountingBackend.count()
    user_login_failed.send(__name__, credentials={"login": request.POST["login"]}, request=request)
    return HttpResponse("wrong", status=401)


urlpatterns = [path("sign-in/", sign_in), path("own/", own_login)]


@pytest.fixture(autouse=True)
def _by_name(settings: Any) -> None:
    settings.ROOT_URLCONF = "tests.client.test_normalize"
    settings.AXES_LOCKOUT_PARAMETERS = ["username"]
    ASKED.clear()


def of_tenant(request: HttpRequest | None, credentials: Mapping[str, Any] | None) -> str | None:
    """Put the tenant before the name, and remember who asked."""
    ASKED.append((request, credentials))
    name = (credentials or {}).get("username") or (request.POST.get("login") if request is not None else None)
    return f"{request.headers.get('X-Tenant', '')}/{name}" if name and request is not None else name


def only_letters(username: str) -> str:
    """Leave out dots and what follows a plus, as some mail servers do."""
    return username.partition("+")[0].replace(".", "").lower()


def lookups(username: str) -> str:
    """Fail as a lookup does."""
    raise KeyError("mine")


def test_the_field_of_the_form_and_of_credentials_can_be_named(client: Client, settings: Any) -> None:
    settings.AXES_USERNAME_FORM_FIELD = "login"
    answers = [client.post("/own/", {"login": " Alice", "username": f"other {number}"}) for number in range(4)]
    assert [answer.status_code for answer in answers] == [401, 401, 429, 429]
    assert CountingBackend.checks == 3
    assert authenticate(RequestFactory().post("/"), login="alice", username="bob", password="wrong") is None
    assert CountingBackend.checks == 3


@pytest.mark.parametrize("content_type", ["application/json", "application/x-www-form-urlencoded"])
def test_the_named_field_is_read_from_json_as_from_a_form(client: Client, settings: Any, content_type: str) -> None:
    settings.AXES_USERNAME_FORM_FIELD = "login"
    request = RequestFactory().post("/", b'{"login": "alice"}' if "json" in content_type else b"login=alice",
                                    content_type=content_type)  # fmt: skip
    assert client_behind(request, None).username == "alice"


def test_djangos_own_login_works_with_a_field_of_the_sites_own(alice: User, post: Post, settings: Any) -> None:
    settings.AXES_USERNAME_FORM_FIELD, settings.AXES_RESET_ON_SUCCESS = "login", "account"
    for _ in range(2):
        assert [post().status_code for _ in range(2)] == [401, 401]
        assert post(password=PASSWORD).status_code == 204


@pytest.mark.parametrize("setting", [of_tenant, "tests.client.test_normalize.of_tenant"])
def test_a_callable_says_which_name_is_tried(
    alice: User, post: Post, drain: Drain, settings: Any, setting: Any
) -> None:
    settings.AXES_USERNAME_CALLABLE = setting
    assert [post(HTTP_X_TENANT="one").status_code for _ in range(4)] == [401, 401, 429, 429]
    assert post(password=PASSWORD, HTTP_X_TENANT="two").status_code == 204
    drain()
    assert AccessAttempt.objects.get().username == "one/alice"
    assert AccessLog.objects.get().username == "alice"
    assert reset(username="ONE/alice") == 1
    assert post(password=PASSWORD, HTTP_X_TENANT="one").status_code == 204


def test_a_callable_is_asked_once_for_an_attempt_with_request_and_credentials(post: Post, settings: Any) -> None:
    settings.AXES_USERNAME_CALLABLE = of_tenant
    assert post().status_code == 401
    ((request, credentials),) = ASKED
    assert isinstance(request, HttpRequest)
    assert credentials == {"username": "alice", "password": "wrong"}


def test_a_callable_is_asked_again_when_credentials_become_known(client: Client, settings: Any) -> None:
    settings.AXES_USERNAME_CALLABLE = of_tenant
    assert [client.post("/own/", {"login": "alice"}).status_code for _ in range(4)] == [401, 401, 429, 429]
    assert [credentials for _, credentials in ASKED] == [None, {"login": "alice"}] * 3 + [None]


def test_another_name_tried_in_the_same_request_is_another_attempt(settings: Any) -> None:
    settings.AXES_USERNAME_CALLABLE = of_tenant
    for _ in range(3):
        request = RequestFactory().post("/")
        for name in ("alice", "bob"):
            assert authenticate(request, username=name, password="wrong") is None
    assert CountingBackend.checks == 6
    assert authenticate(RequestFactory().post("/"), username="bob", password="wrong") is None
    assert CountingBackend.checks == 6


def test_a_login_clears_what_its_callable_names(alice: User, post: Post, settings: Any) -> None:
    settings.AXES_USERNAME_CALLABLE, settings.AXES_RESET_ON_SUCCESS = of_tenant, "account"
    for _ in range(2):
        assert [post(HTTP_X_TENANT="one").status_code for _ in range(2)] == [401, 401]
        assert post(password=PASSWORD, HTTP_X_TENANT="one").status_code == 204


def test_without_a_request_a_callable_has_none(settings: Any) -> None:
    settings.AXES_USERNAME_CALLABLE = of_tenant
    assert authenticate(None, username="alice", password="wrong") is None
    assert {request for request, _ in ASKED} == {None}


def test_the_canonicalizer_says_which_names_are_one(alice: User, post: Post, drain: Drain, settings: Any) -> None:
    settings.AXES_USERNAME_CANONICALIZER = "tests.client.test_normalize.only_letters"
    names = ["al.ice", "alice+a", " ALICE+b ", "a.l.i.c.e"]
    assert [post(name).status_code for name in names] == [401, 401, 429, 429]
    assert post("bob").status_code == 401
    assert post("+").status_code == post("...").status_code == 401
    drain()
    assert sorted(AccessAttempt.objects.values_list("username", flat=True)) == [
        " ALICE+b ", "+", "...", "al.ice", "alice+a", "bob",
    ]  # fmt: skip
    assert reset(username="Alice+anything") == 3
    assert post(password=PASSWORD).status_code == 204


@pytest.mark.parametrize("name", ["+", ".", " .. "])
def test_a_name_that_comes_to_nothing_locks_nobody(post: Post, settings: Any, name: str) -> None:
    settings.AXES_USERNAME_CANONICALIZER = only_letters
    assert [post(name).status_code for _ in range(5)] == [401] * 5


def test_a_reset_of_a_name_that_comes_to_nothing_is_no_reset_of_everything(
    post: Post, drain: Drain, rf: RequestFactory, settings: Any
) -> None:
    settings.AXES_USERNAME_CANONICALIZER = only_letters
    for name in ("alice", "alice", "alice", "+"):
        post(name)
    drain()
    with pytest.raises(ValueError, match="empty"):
        reset(username="+")
    assert reset_request(rf.post("/", {"username": "+"})) == 0
    settings.AXES_LOCKOUT_PARAMETERS = ["username", "ip_address"]
    assert reset_request(rf.post("/", {"username": " + "}, REMOTE_ADDR="192.0.2.99")) == 0
    assert AccessAttempt.objects.count() == 2
    assert post().status_code == 429


def test_a_canonicalizer_of_the_sites_own_can_stand_on_ours(post: Post, settings: Any) -> None:
    settings.AXES_USERNAME_CANONICALIZER = lambda username: fold_username(username).removesuffix("@example.com")
    names = ["Alice@EXAMPLE.com", "alice", "\uff21lice", "ALICE@example.com"]
    assert [post(name).status_code for name in names] == [401, 401, 429, 429]


def test_a_canonicalizer_is_spared_names_that_nobody_has(post: Post, settings: Any) -> None:
    given: list[str] = []
    settings.AXES_USERNAME_CANONICALIZER = lambda username: given.append(username) or username
    for name in ("", " ", "x" * (CANONICAL_LENGTH + 1)):
        assert post(name).status_code == 401
    assert given == []


def test_what_a_canonicalizer_returns_must_be_text(client: Client, settings: Any) -> None:
    settings.AXES_USERNAME_CANONICALIZER = len
    with pytest.raises(ImproperlyConfigured, match=r"^AXES_USERNAME_CANONICALIZER is .* returns text or None, not 5"):
        client.post("/sign-in/", {"username": "alice", "password": "wrong"})


@pytest.mark.parametrize("name", ["AXES_USERNAME_CANONICALIZER", "AXES_USERNAME_CALLABLE"])
def test_the_error_of_a_callable_for_names_is_the_sites_to_see(client: Client, settings: Any, name: str) -> None:
    calls: list[Any] = []

    def broken(*given: Any) -> str:
        calls.append(given)
        raise TypeError("mine")

    setattr(settings, name, broken)
    with pytest.raises(TypeError, match="mine"):
        client.post("/sign-in/", {"username": "alice", "password": "wrong"})
    assert (len(calls), CountingBackend.checks) == (1, 0)


def test_an_event_that_the_canonicalizer_cannot_take_is_set_aside_and_the_others_are_written(
    post: Post, drain: Drain, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    post("alice")
    settings.AXES_USERNAME_CANONICALIZER = lookups
    settings.AXES_LOCKOUT_PARAMETERS = ["ip_address"]
    drain()
    assert "mine" in caplog.text
    assert AccessAttempt.objects.count() == 0


@pytest.mark.parametrize("password", [7, True, ["x"], {"x": 1}], ids=repr)
def test_a_password_under_another_name_that_is_no_text_is_a_wrong_one(settings: Any, password: Any) -> None:
    settings.AXES_PASSWORD_FORM_FIELD = "pin"
    assert authenticate(RequestFactory().post("/"), username="alice", pin=password, password=PASSWORD) is None
    assert CountingBackend.checks == 0


# How log messages name a client.


def message_of(caplog: pytest.LogCaptureFixture, part: str = "Locked out") -> str:
    """Return the one log message that says ``part``."""
    (message,) = [record.getMessage() for record in caplog.records if part in record.getMessage()]
    return message


AGENT = {"HTTP_USER_AGENT": 'curl/8 "x"', "REMOTE_ADDR": "203.0.113.7"}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, 'ip_address: "203.0.113.7", username: "alice", user_agent: "curl/8 \\"x\\""'),
        ({"AXES_VERBOSE": False}, 'username: "alice"'),
        ({"AXES_SENSITIVE_PARAMETERS": ["user_agent"]},
         'ip_address: "203.0.113.7", username: "alice", user_agent: "MASKED"'),
        ({"AXES_SENSITIVE_PARAMETERS": ["username", "ip_address"]},
         'ip_address: "MASKED", username: "MASKED", user_agent: "curl/8 \\"x\\""'),
        ({"AXES_PASSWORD_FORM_FIELD": "user_agent"},
         'ip_address: "203.0.113.7", username: "alice", user_agent: "MASKED"'),
    ],
)  # fmt: skip
def test_a_lockout_is_told_with_the_client_as_far_as_it_may_be_shown(
    post: Post, settings: Any, caplog: pytest.LogCaptureFixture, options: dict[str, Any], expected: str
) -> None:
    for name, value in options.items():
        setattr(settings, name, value)
    for _ in range(3):
        post(**AGENT)
    told = re.sub("masked:[0-9a-f]{12}", "MASKED", message_of(caplog))
    assert told.endswith(f'{{{expected}, path_info: "/sign-in/"}}.')


def test_a_callable_names_the_client(post: Post, settings: Any, caplog: pytest.LogCaptureFixture) -> None:
    given: list[tuple[Any, ...]] = []

    def named(*arguments: Any) -> str:
        given.append(arguments)
        return f"{arguments[0]}\nfrom {arguments[1]}"

    settings.AXES_CLIENT_STR_CALLABLE = named
    for _ in range(3):
        post(**AGENT)
    assert message_of(caplog).endswith(r": alice\nfrom 203.0.113.7.")
    assert len(given) == 4, "once for each message: three failures, one lockout"
    username, address, agent, path_info, request = given[-1]
    assert (username, address, agent, path_info) == ("alice", "203.0.113.7", 'curl/8 "x"', "/sign-in/")
    assert isinstance(request, HttpRequest)


def test_the_error_of_a_callable_for_messages_is_the_sites_to_see_and_the_failure_counts(
    client: Client, post: Post, settings: Any
) -> None:
    def broken(*arguments: Any) -> str:
        raise ValueError("mine")

    settings.AXES_CLIENT_STR_CALLABLE = broken
    for _ in range(3):
        with pytest.raises(ValueError, match="mine"):
            post()
    settings.AXES_CLIENT_STR_CALLABLE = None
    assert post().status_code == 429


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("%s %d %(x)s {} {0.__class__}", "%s %d %(x)s {} {0.__class__}"),
        ("al\r\nERROR ice", r"al\r\nERROR ice"),
        ("\x1b[2Jalice\x9b", r"\x1b[2Jalice\x9b"),
        ("\u202ealice\u2028", r"\u202ealice\u2028"),
        ("ali\x00ce", r"ali\\x00ce"),
        ('a", ip_address: "192.0.2.1', r"a\", ip_address: \"192.0.2.1"),
        ("\u00e9\u4e2d", "\u00e9\u4e2d"),
    ],
)
def test_no_name_breaks_or_forges_a_log_message(
    rf: RequestFactory, settings: Any, caplog: pytest.LogCaptureFixture, name: str, shown: str
) -> None:
    for _ in range(3):
        authenticate(rf.post("/"), username=name, password="wrong")
    if "\x00" in name:
        assert CountingBackend.checks == 0
    message = message_of(caplog)
    assert f'username: "{shown}"' in message
    assert message.isprintable()


def test_a_client_without_a_name_is_told_as_such(caplog: pytest.LogCaptureFixture, settings: Any) -> None:
    caplog.set_level(logging.INFO, "axes_async")
    assert client_str(client_behind(None, None), None, ()) == (
        '{ip_address: None, username: None, user_agent: "", path_info: ""}'
    )


@pytest.mark.parametrize("padded", ["alice" + " " * 1_100, " alice", "\t" * 1_100 + "alice", "ALICE\u3000"])
def test_a_name_that_is_padded_is_the_same_name(settings: Any, padded: str) -> None:
    settings.AXES_LOCKOUT_PARAMETERS = ["username"]
    looked_at = [failure(name, f"192.0.2.{number}") for number, name in enumerate(["alice", padded, "alice", padded])]
    assert looked_at == [True, True, True, False]
