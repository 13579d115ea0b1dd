"""One account under many names: whatever the lookup takes for one name is to be one counter."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from typing import Any

import pytest
from django.contrib.auth import authenticate
from django.contrib.auth.backends import ModelBackend
from django.contrib.auth.models import User
from django.contrib.auth.signals import user_logged_in
from django.contrib.sessions.backends.db import SessionStore
from django.db import connections, models
from django.http import HttpRequest
from django.test import RequestFactory

from axes_async.models import AccessAttempt, AccessFailureLog, AttemptCounter
from axes_async.tasks.drain import drain
from axes_async.tasks.reset import reset
from tests.actions import failure
from tests.site import CountingBackend

pytestmark = [pytest.mark.django_db, pytest.mark.database]
LIMIT = 5
KEY = uuid.UUID("0b8a5c0e-7f1d-4c2a-9e3b-5d6f7a8b9c0d")


@pytest.fixture(autouse=True)
def _by_name(settings: Any) -> None:
    settings.AXES_LOCKOUT_PARAMETERS, settings.AXES_FAILURE_LIMIT = ["username"], LIMIT


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return the accounts whose password was looked at, one for each guess."""
    pks: list[Any] = []
    check = User.check_password

    def counted(user: User, password: Any) -> bool:
        pks.append(user.pk)
        return check(user, password)

    monkeypatch.setattr(User, "check_password", counted)
    return pks


class IgnoringCase(ModelBackend):
    """A backend of a site where case does not matter."""

    def authenticate(
        self, request: HttpRequest | None, username: Any = None, password: Any = None, **kwargs: Any
    ) -> User | None:
        """Look for the name in any case."""
        user = User.objects.filter(username__iexact=username).first()
        return user if user is not None and user.check_password(password) else None


class ByMail(ModelBackend):
    """A backend of a site where users give their e-mail address."""

    def authenticate(  # type: ignore[override]
        self, request: HttpRequest | None, email: Any = None, password: Any = None, **kwargs: Any
    ) -> User | None:
        """Look for the address."""
        user = User.objects.filter(email=email).first()
        return user if user is not None and user.check_password(password) else None


class TextOfUuid(models.CharField):  # type: ignore[type-arg]
    """A UUID kept as text, as the field of names."""

    def to_python(self, value: Any) -> Any:
        """Read any spelling."""
        return models.UUIDField().to_python(value)

    def get_prep_value(self, value: Any) -> str:
        """Write the usual one."""
        return str(self.to_python(value))


def guess(number: int, **names: Any) -> None:
    """Try a wrong password from an address of its own."""
    request = RequestFactory().post("/", REMOTE_ADDR=f"198.51.100.{number % 250}")
    assert authenticate(request, password=f"guess {number}", **names) is None


def guess_all(names: list[Any]) -> None:
    for number, name in enumerate(names):
        guess(number, username=name)


SPELLINGS: dict[str, Callable[[int, int], Any]] = {
    "zeros": lambda key, n: "0" * n + str(key),
    "space": lambda key, n: " " * n + str(key) + "\t",
    "sign": lambda key, n: "+" + "0" * n + str(key),
    "digits": lambda key, n: str(key).zfill(9 + n).translate({48 + digit: 0x660 + digit for digit in range(10)}),
    "underscores": lambda key, n: "0_" * n + str(key),
    "fractions of JSON": lambda key, n: key + n / 1000,
    "more zeros than a row keeps": lambda key, n: "0" * (300 + n) + str(key),
}


@pytest.mark.parametrize("spell", SPELLINGS.values(), ids=SPELLINGS)
def test_a_number_is_one_name_in_every_spelling(
    alice: User, found: list[Any], monkeypatch: pytest.MonkeyPatch, spell: Any
) -> None:
    monkeypatch.setattr(User, "USERNAME_FIELD", "id")
    guess_all([spell(alice.pk, number) for number in range(100)])
    assert found == [alice.pk] * LIMIT
    drain()
    assert reset(username=str(alice.pk)) > 0
    guess(0, username=alice.pk)
    assert found == [alice.pk] * (LIMIT + 1)


def test_a_uuid_is_one_name_in_every_spelling(alice: User, found: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    User.objects.filter(pk=alice.pk).update(username=str(KEY))
    monkeypatch.setattr(User._meta.get_field("username"), "__class__", TextOfUuid)
    spellings = [
        str(KEY), KEY.hex, str(KEY).upper(), f"urn:uuid:{KEY}", f"{{{KEY}}}", f"{{{{{KEY}}}}}", f"uuid:{KEY}", KEY,
        *["-".join(KEY.hex[place : place + size] for place in range(0, 32, size)) for size in range(1, 32)],
    ]  # fmt: skip
    guess_all(spellings)
    assert found == [alice.pk] * LIMIT


ALICES = {
    "zero width": ["al\u200bice" + "\u200c" * number for number in range(100)],
    "controls": [f"a{chr(code)}lice" for code in [*range(1, 9), *range(14, 32), *range(127, 133), *range(134, 160)]],
    "bidi": [f"{mark}alice{mark * number}" for mark in "\u202a\u202d\u2066\u200e" for number in range(9)],
    "variation": [f"alice{chr(code)}" for code in (*range(0xFE00, 0xFE10), *range(0xE0100, 0xE0130))],
    "tags": [f"alice{chr(code)}" for code in range(0xE0020, 0xE0060)],
    "marks without weight": [f"al{chr(code)}ice" for code in (*range(0x591, 0x5B0), 0x640, *range(0x6D6, 0x6DC))],
    "more than is normalised": ["alice" + "\u200b" * (2000 + number) for number in range(100)],
    "case": ["".join(letters) for letters in product("aA\uff41", "l", "iI\u0131\u0130\u24d8", "cC", "eE")],
    "styles": [
        "".join(letters) for letters in product("a\U0001d400\U0001f170\u0363", "l", "i\U0001f158", "c\u217d", "e")
    ],
}


@pytest.mark.parametrize("names", ALICES.values(), ids=ALICES)
@pytest.mark.usefixtures("alice")
def test_a_name_is_one_whatever_is_in_it_that_collations_do_not_see(names: list[str]) -> None:
    guess_all(names)
    assert CountingBackend.checks == LIMIT
    drain()
    assert {row.username_key for row in AttemptCounter.objects.all()} == {
        row.username_key for row in AccessAttempt.objects.all()
    }
    assert reset(username="Alice") > 0
    guess(0, username="alice")
    assert CountingBackend.checks == LIMIT + 1


@pytest.mark.usefixtures("db")
@pytest.mark.parametrize("length", [1, 2000])
def test_an_account_whose_name_nobody_sees_is_counted_as_others_are(
    length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("axes_async.client.normalize.CANONICAL_LENGTH", 1000)
    tried = [failure("\u3164" * length, f"192.0.2.{number}") for number in range(LIMIT + 1)]
    assert tried == [True] * LIMIT + [False]
    assert failure(" ", "192.0.2.99"), "no name is nobody's"


def test_digits_of_all_scripts_are_one() -> None:
    guess_all([f"alice{one}{two}" for one in "1\u0661\u06f1\u0967\u2460\u2776" for two in "7\u0667\u06f7\u096d\u2466"])
    assert CountingBackend.checks == LIMIT


def test_a_lookup_that_ignores_case_has_one_counter_for_dotless_letters(
    alice: User, found: list[Any], settings: Any
) -> None:
    settings.AUTHENTICATION_BACKENDS = ["axes_async.backends.AxesStandaloneBackend", f"{__name__}.IgnoringCase"]
    User.objects.filter(pk=alice.pk).update(username="kilissi")
    letters = ["kK\u212a", "iI\u0131", "lL", "iI\u0131", "sS\u017f", "sS\u017f", "iI\u0131"]
    guess_all(["".join(name) for name in product(*letters)][:200])
    assert len(found) <= LIMIT


def test_what_backends_prefer_is_counted_though_another_name_comes_with_it(alice: User, found: list[Any]) -> None:
    for number in range(100):
        guess(number, username="alice", email=f"{number}@example.com", login=f"{number}")
    assert found == [alice.pk] * LIMIT


def test_the_field_of_the_model_is_not_preferred_to_the_keyword(
    alice: User, found: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    User.objects.filter(pk=alice.pk).update(email="alice@example.com")
    monkeypatch.setattr(User, "USERNAME_FIELD", "email")
    for number in range(100):
        guess(number, username="alice@example.com", email=f"{number}@example.com")
    assert found == [alice.pk] * LIMIT


@pytest.mark.parametrize("store", ["cache", "database"])
def test_every_name_that_is_given_is_counted_and_can_be_reset(
    alice: User, found: list[Any], settings: Any, store: str
) -> None:
    settings.AXES_STORE = settings.AXES_TEST_STORE = store
    settings.AXES_LOCKOUT_PARAMETERS = ["username", "ip_address"]
    settings.AUTHENTICATION_BACKENDS = ["axes_async.backends.AxesStandaloneBackend", f"{__name__}.ByMail"]
    User.objects.filter(pk=alice.pk).update(email="alice@example.com")
    for number in range(20):
        guess(number, username=f"stranger {number}", email="alice@example.com")
    assert found == [alice.pk] * LIMIT
    drain()
    counters = AttemptCounter.objects.filter(failures__gt=0)
    assert sorted(counters.values_list("username", flat=True).exclude(username=None)) == [
        "alice@example.com", *[f"stranger {number}" for number in range(LIMIT)],
    ]  # fmt: skip
    assert {row.failures for row in counters.exclude(ip_address=None)} == {1}, "an address counts an attempt once"
    assert AccessFailureLog.objects.filter(username="alice@example.com", locked_out=False).count() == LIMIT - 1
    assert reset(username="alice@example.com") > 0
    guess(99, username="stranger", email="alice@example.com")
    assert found == [alice.pk] * (LIMIT + 1)


def test_a_login_under_two_names_clears_neither_name_of_somebody_else(alice: User, settings: Any) -> None:
    settings.AXES_RESET_ON_SUCCESS = "account"
    User.objects.create_user("mallory", password="mallory's own")
    guess_all(["alice"] * (LIMIT - 1))
    request = RequestFactory().post("/")
    request.session = SessionStore()
    user = authenticate(request, username="mallory", email="alice", password="mallory's own")
    assert user is not None
    user_logged_in.send(User, request=request, user=user)
    guess_all(["alice"] * 5)
    assert CountingBackend.checks == LIMIT - 1 + 1 + 1


@pytest.mark.django_db(transaction=True)
def test_guesses_side_by_side_under_many_spellings_are_no_more(alice: User) -> None:
    ready = threading.Barrier(16)

    def try_one(number: int) -> None:
        ready.wait()
        try:
            guess(number, username="alice" + "\u200b" * number, email=f"x{number % 3}")
        finally:
            connections.close_all()

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(try_one, range(16)))
    assert CountingBackend.checks <= LIMIT
