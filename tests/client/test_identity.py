"""Who is asking: what rows show of a client, and in which forms two clients are one."""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import pytest
from django.contrib.auth import authenticate
from django.contrib.auth.backends import BaseBackend
from django.contrib.auth.models import User
from django.http import HttpRequest
from django.test import Client, RequestFactory
from django.test.client import MULTIPART_CONTENT
from hypothesis import assume, given
from hypothesis import strategies as st

from axes_async.client.alike import IGNORABLE
from axes_async.client.identity import identify
from axes_async.client.normalize import (
    CANONICAL_LENGTH,
    INVISIBLE,
    ROW_LENGTH,
    canonical_address,
    canonical_username,
    row_text,
    storable,
)
from axes_async.conf.networks import parse_address
from axes_async.models import AccessFailureLog, AccessLog
from axes_async.utils import reset
from tests.actions import request_from
from tests.conftest import PASSWORD
from tests.site import CountingBackend

Post = Callable[..., Any]
Drain = Callable[[], int]

ANY_TEXT = st.text(st.characters(), max_size=400)  # Surrogates and NUL, too.
NAMES = st.text(string.ascii_lowercase + string.digits + "|:.@-_+'\u00e9\u0431\u4e2d", min_size=1, max_size=30)


class Unspeakable:
    """What cannot even be shown."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


def test_a_client_is_read_from_a_form_post(rf: RequestFactory) -> None:
    request = rf.post(
        "/accounts/login/",
        {"username": " Alice "},
        REMOTE_ADDR="203.0.113.7",
        HTTP_USER_AGENT="curl/8",
        HTTP_ACCEPT="text/html",
    )
    client = identify(request, None)
    assert (client.username, client.ip_address) == (" Alice ", "203.0.113.7")
    assert (client.user_agent, client.http_accept, client.path_info) == ("curl/8", "text/html", "/accounts/login/")
    assert client.canonical == {"username": "alice", "ip_address": "203.0.113.7", "user_agent": "curl/8"}


def test_credentials_count_before_the_form(rf: RequestFactory) -> None:
    assert identify(rf.post("/", {"username": "form"}), {"username": "given"}).username == "given"
    assert identify(rf.post("/", {"username": "form"}), {"token": "t"}).username is None


@pytest.mark.parametrize("method", ["get", "put", "head"])
def test_only_a_post_brings_a_name_in_its_form(rf: RequestFactory, method: str) -> None:
    assert identify(getattr(rf, method)("/?username=alice"), None).username is None


def test_without_a_request_only_the_name_is_known() -> None:
    client = identify(None, {"username": "alice"})
    assert client.canonical == {"username": "alice", "ip_address": None, "user_agent": ""}
    assert (client.username, client.ip_address, client.user_agent, client.path_info) == ("alice", None, "", "")


@pytest.mark.parametrize("credentials", [None, {}, {"password": "p"}])
def test_with_nothing_at_all_nothing_is_known(credentials: Mapping[str, Any] | None) -> None:
    assert set(identify(None, credentials).canonical.values()) == {None, ""}


@pytest.mark.parametrize(
    ("given", "shown"),
    [(12, "12"), (0, "0"), (["a", 1], "['a', 1]"), ({"a": 1}, "{'a': 1}"), (None, None), (b"x", "b'x'"),
     (Unspeakable(), "Unspeakable"), (10**9999, "int"), (True, "True"), ([], "[]")],
    ids=lambda value: f"{type(value).__name__}",
)  # fmt: skip
def test_a_name_of_any_type_has_a_text(given: object, shown: str | None) -> None:
    assert identify(None, {"username": given}).username == shown


@pytest.fixture
def _email_as_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a user model whose users are known by their e-mail address."""
    monkeypatch.setattr(User, "USERNAME_FIELD", "email")


@pytest.mark.usefixtures("_email_as_name")
def test_a_name_is_looked_for_as_django_does(rf: RequestFactory) -> None:
    assert identify(None, {"email": "a@b.c", "username": "alice"}).username == "alice"
    assert identify(None, {"username": "alice"}).username == "alice"
    assert identify(rf.post("/", {"email": "a@b.c"}), None).username == "a@b.c"


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"\xff", "application/json"),
        (b"", "multipart/form-data"),
        (b"x", "multipart/form-data"),
        (b"x", "multipart/form-data; boundary=" + "b" * 300),
        (b"--x\r\nContent-Disposition: form-data; name=username\r\n\r\nal", "multipart/form-data; boundary=x"),
        (b"username=alice", "application/x-www-form-urlencoded; charset=utf-16"),
        (b"&".join(b"a=1" for _ in range(1001)), "application/x-www-form-urlencoded"),
        (b"username=%00", "no content type at all"),
    ],
)
def test_a_body_that_is_no_good_form_brings_no_error(rf: RequestFactory, body: bytes, content_type: str) -> None:
    client = identify(rf.post("/", body, content_type=content_type), None)
    assert client.ip_address == "127.0.0.1"
    assert client.username in {None, "al"}


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ('{"username": "alice"}', "alice"),
        ('{"username": 7}', "7"),
        ('{"username": null}', None),
        ('{"user": "alice"}', None),
        ('["username"]', None),
        ("[" * 100_000, None),
        ('"username"', None),
        ("{", None),
        ("", None),
    ],
    ids=lambda text: f"{text!r:.20}",
)
def test_a_name_is_read_from_a_json_object(rf: RequestFactory, body: str, name: str | None) -> None:
    assert identify(rf.post("/", body, content_type="application/json"), None).username == name


@pytest.mark.parametrize("content_type", [MULTIPART_CONTENT, "application/json", "application/x-www-form-urlencoded"])
def test_a_body_that_somebody_read_before_brings_no_error(rf: RequestFactory, content_type: str) -> None:
    body: Any = {"username": "alice"} if content_type == MULTIPART_CONTENT else '{"username": "alice"}'
    request = rf.post("/", body, content_type=content_type)
    request.read()
    assert identify(request, None).username is None


@given(ANY_TEXT, ANY_TEXT, ANY_TEXT)
def test_whatever_is_sent_a_row_can_hold_it(username: str, agent: str, path: str) -> None:
    request = HttpRequest()
    request.META = {"HTTP_USER_AGENT": agent, "HTTP_ACCEPT": agent, "REMOTE_ADDR": username}
    request.path_info = path
    client = identify(request, {"username": username})
    for text in (client.username or "", client.user_agent, client.http_accept, client.path_info):
        assert len(text) <= ROW_LENGTH
        assert storable(text)


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=ROW_LENGTH))
def test_a_text_that_a_row_can_hold_is_kept_as_it_is(text: str) -> None:
    assert row_text(text) == row_text(text, tell_apart=True) == text


@given(st.text(min_size=1, max_size=9), st.text(min_size=1, max_size=9))
def test_long_texts_with_one_beginning_stay_apart_in_rows(one: str, other: str) -> None:
    assume(one != other)
    beginning = "x" * ROW_LENGTH
    assert row_text(beginning + one, tell_apart=True) != row_text(beginning + other, tell_apart=True)


@pytest.mark.parametrize(("text", "good"), [("", True), ("a\u4e2d", True), ("a\x00", False), ("\ud800", False)])
def test_what_a_database_can_hold_is_known(text: str, good: bool) -> None:
    assert storable(text) is good


@given(NAMES)
def test_case_space_and_width_variants_of_a_name_are_one(name: str) -> None:
    wide = name.translate({code: code + 0xFEE0 for code in range(0x21, 0x7F)})
    variants = {name, name.upper(), f"  {name}\t", wide, f"\u3000{wide}\u00a0", wide.upper()}
    assert {canonical_username(variant) for variant in variants} == {canonical_username(name)}


@given(NAMES, NAMES)
def test_different_names_are_never_one(one: str, other: str) -> None:
    assume(one != other)
    assert canonical_username(one) != canonical_username(other)


@given(ANY_TEXT)
def test_a_name_without_anything_in_it_is_none_and_every_other_counts(name: str) -> None:
    canonical = canonical_username(name)
    assert (canonical is None) == (not name.strip())
    assert (canonical in (None, INVISIBLE)) == (not IGNORABLE.sub("", name).strip())


@pytest.mark.parametrize("one", ["stra\u00dfe", "\u00e9", "\u2460", "\ufb01le", "\u01c4", "\u0130"])
def test_normalising_a_name_twice_changes_nothing_more(one: str) -> None:
    once = canonical_username(one)
    assert canonical_username(once) == once


def test_a_very_long_name_is_compared_as_it_is() -> None:
    longest = "A" * CANONICAL_LENGTH
    assert canonical_username(longest) == longest.lower()
    assert canonical_username(longest + "A") == longest + "A"


@pytest.mark.parametrize(
    ("given", "shown", "canonical"),
    [
        ("203.0.113.7", "203.0.113.7", "203.0.113.7"),
        (" 203.0.113.7 ", "203.0.113.7", "203.0.113.7"),
        ("203.0.113.7:443", "203.0.113.7", "203.0.113.7"),
        ("::ffff:203.0.113.7", "203.0.113.7", "203.0.113.7"),
        ("[::ffff:203.0.113.7]:80", "203.0.113.7", "203.0.113.7"),
        ("64:ff9b::203.0.113.7", "203.0.113.7", "203.0.113.7"),
        ("64:ff9b::cb00:7107", "203.0.113.7", "203.0.113.7"),
        ("64:ff9b::1:cb00:7107", "64:ff9b::1:cb00:7107", "64:ff9b::/64"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:DB8:1:2::9", "2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("[2001:db8:1:2::9]:8443", "2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::1", "fe80::/64"),
        ("[fe80::1%25eth0]:80", "fe80::1", "fe80::/64"),
    ],
)
def test_an_address_is_found_in_each_of_its_spellings(given: str, shown: str, canonical: str) -> None:
    assert str(parse_address(given)) == shown
    assert canonical_address(given) == canonical


@pytest.mark.parametrize("garbage", ["unknown", "203.0.113", "203.0.113.256", "1.2.3.4, 5.6.7.8", "[", "::1::", "\x00"])
def test_garbage_shares_a_counter_with_no_address_and_no_other_garbage(garbage: str) -> None:
    request = HttpRequest()
    request.META = {"REMOTE_ADDR": garbage}
    client = identify(request, None)
    assert client.ip_address is None
    assert client.canonical["ip_address"] not in {None, "", canonical_address("127.0.0.1"), canonical_address("other")}


@pytest.mark.parametrize("meta", [{}, {"REMOTE_ADDR": ""}, {"REMOTE_ADDR": None}, {"REMOTE_ADDR": " "}])
def test_no_address_is_nobodys_address(meta: dict[str, Any]) -> None:
    request = HttpRequest()
    request.META = meta
    assert identify(request, None).canonical["ip_address"] is None


@given(ANY_TEXT)
def test_no_text_makes_an_address_raise(text: str) -> None:
    address = parse_address(text)
    assert address is None or canonical_address(text) == canonical_address(str(address))


def test_credentials_that_name_an_email_alone_are_counted_on_the_username_rule(alice: User, settings: Any) -> None:
    settings.AXES_LOCKOUT_PARAMETERS = ["username"]
    for number in range(6):
        assert authenticate(request_from(f"192.0.2.{number}"), email="alice@example.com", password="wrong") is None
    assert CountingBackend.checks == 3


class KeyBackend(BaseBackend):
    """Looks at keys, and knows none."""

    seen: ClassVar[list[str]] = []

    def authenticate(
        self, request: HttpRequest | None, employee_key: Any = None, pin: Any = None, **kwargs: Any
    ) -> None:
        """Take note."""
        self.seen.append(employee_key)


class Telephone:
    """A name that is no text, as fields of other packages have them."""

    def __init__(self, number: str) -> None:
        """Keep the number."""
        self.number = number

    def __str__(self) -> str:
        return self.number


def name_sent(request: HttpRequest | None, credentials: Mapping[str, Any] | None) -> Any:
    """Return the name as an ``AXES_USERNAME_CALLABLE`` does."""
    return credentials["username"] if credentials else None


@pytest.mark.django_db
@pytest.mark.parametrize("ask", [None, name_sent])
@pytest.mark.parametrize("kind", [int, Telephone])
def test_a_user_whose_name_is_no_text_logs_in_and_out_and_is_reset(
    monkeypatch: pytest.MonkeyPatch, settings: Any, post: Post, drain: Drain, client: Client, kind: Any, ask: Any
) -> None:
    settings.AXES_LOCKOUT_PARAMETERS, settings.AXES_USERNAME_CALLABLE = ["username"], ask
    settings.AXES_RESET_ON_SUCCESS = "account"
    User.objects.create_user("5550123", password=PASSWORD)
    monkeypatch.setattr(User, "get_username", lambda user: kind(user.username))
    assert [post("5550123", password).status_code for password in ("wrong", "wrong", PASSWORD)] == [401, 401, 204]
    assert client.post("/logout/").status_code == 302
    drain()
    log = AccessLog.objects.get()
    assert (log.username, log.logout_time is None) == ("5550123", False)
    assert [post("5550123").status_code for _ in range(3)] == [401, 401, 429]
    assert reset(username=kind("5550123")) == 1
    assert post("5550123", PASSWORD).status_code == 204


@pytest.mark.django_db
@pytest.mark.parametrize("rule", ["username", ["ip_address", "username"]])
def test_a_name_that_django_masks_in_its_signal_is_counted_as_itself(
    rf: RequestFactory, settings: Any, drain: Drain, rule: Any
) -> None:
    settings.AUTHENTICATION_BACKENDS = ["axes_async.backends.AxesStandaloneBackend", f"{__name__}.KeyBackend"]
    settings.AXES_USERNAME_FORM_FIELD, settings.AXES_LOCKOUT_PARAMETERS = "employee_key", [rule]
    KeyBackend.seen.clear()
    for key in [*("E-1",) * 5, "E-2"]:
        assert authenticate(rf.post("/"), employee_key=key, pin="0000") is None
    assert KeyBackend.seen == ["E-1", "E-1", "E-1", "E-2"]
    drain()
    assert set(AccessFailureLog.objects.values_list("username", flat=True)) == {"E-1", "E-2"}
