"""Accounts that strangers have registered beside somebody else's: two to the database, and one to the counters."""

from __future__ import annotations

from typing import Any

import pytest
from celery import current_app
from django.contrib.auth.forms import UserCreationForm
from django.contrib.auth.models import User
from django.core import mail
from django.test import Client

from axes_async.client.normalize import canonical_username, is_plain
from axes_async.models import AccessReset
from tests.actions import failure, success

pytestmark = pytest.mark.django_db

LIMIT = 3
PASSWORD = "a horse of another stable"

TWINS = {
    "a digit of another script": ("bob1", "bob\u0661"),
    "a Hangul filler": ("bob", "bob\u3164"),
    "a tatweel": ("bob", "b\u0640ob"),
    "a letter that is two in upper case": ("jessica", "je\u00dfica"),
}


@pytest.fixture(params=TWINS.values(), ids=TWINS)
def twins(request: pytest.FixtureRequest) -> tuple[User, User]:
    """Return an account, and one that a stranger has made by Django's own form."""
    name, other = request.param
    assert canonical_username(other) == name
    form = UserCreationForm({"username": other, "password1": PASSWORD, "password2": PASSWORD})
    form.instance.email = "mallory@example.com"
    return User.objects.create_user(name), form.save()


@pytest.fixture(autouse=True)
def _site(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(current_app.conf, "task_always_eager", True)
    settings.ROOT_URLCONF, settings.AXES_UNLOCK_BY_MAIL = "tests.attacks.standing_site", True
    settings.AXES_UNLOCK_ON_PASSWORD_RESET = True
    settings.AXES_LOCKOUT_RULES = [{"parameters": ["username"], "limit": LIMIT}]


@pytest.mark.parametrize("clears", [True, "account"])
def test_logins_of_a_twin_leave_the_failures_of_the_other(twins: tuple[User, User], settings: Any, clears: Any) -> None:
    settings.AXES_RESET_ON_SUCCESS = clears
    one, other = twins
    looked_at = 0
    for _ in range(2 * LIMIT):
        looked_at += failure(one.username)
        success(other.username)
    assert looked_at == LIMIT


def test_a_login_of_a_twin_clears_the_address_where_that_is_wanted(twins: tuple[User, User], settings: Any) -> None:
    settings.AXES_RESET_ON_SUCCESS, settings.AXES_LOCKOUT_RULES = True, [{"parameters": "ip_address", "limit": LIMIT}]
    assert [failure("somebody"), success(twins[1].username)] * LIMIT == [True, True] * LIMIT


def test_a_new_password_of_a_twin_unlocks_nobody_else(
    twins: tuple[User, User], django_capture_on_commit_callbacks: Any
) -> None:
    for _ in range(LIMIT):
        failure(twins[0].username)
    for user in reversed(twins):
        assert not failure(twins[0].username), "only the owner unlocks"
        user.set_password("another " + PASSWORD)
        with django_capture_on_commit_callbacks(execute=True):
            user.save()
    assert failure(twins[0].username)


def test_a_twin_gets_no_link_that_unlocks_the_other(twins: tuple[User, User], client: Client) -> None:
    for _ in range(LIMIT):
        failure(twins[0].username)
    assert client.post("/axes/unlock/", {"username": twins[1].username}).status_code == 200
    assert mail.outbox == []
    assert not AccessReset.objects.exists()


@pytest.fixture
def squatter(db: None) -> User:
    """Return an account whose username is somebody else's mail address, by which that one logs in, too."""
    User.objects.create_user("victim", "victim@example.com")
    return User.objects.create_user("Victim@example.com", "mallory@example.com")


def test_a_new_password_unlocks_nobody_whose_mail_address_is_the_username(
    squatter: User, django_capture_on_commit_callbacks: Any
) -> None:
    for _ in range(LIMIT):
        failure("victim@example.com")
    squatter.set_password("another " + PASSWORD)
    with django_capture_on_commit_callbacks(execute=True):
        squatter.save()
    assert not failure("victim@example.com")


def test_a_link_unlocks_nobody_whose_mail_address_is_the_username(squatter: User, client: Client) -> None:
    for _ in range(LIMIT):
        failure("victim@example.com")
    client.post("/axes/unlock/", {"username": squatter.username})
    assert mail.outbox == []


@pytest.mark.parametrize("address", ["mallory@example.com", "MALLORY@example.com"])
def test_whose_username_is_the_own_address_is_unlocked_by_a_new_password(
    db: None, address: str, django_capture_on_commit_callbacks: Any
) -> None:
    user = User.objects.create_user("mallory@example.com", address)
    for _ in range(LIMIT):
        failure(user.username)
    user.set_password(PASSWORD)
    with django_capture_on_commit_callbacks(execute=True):
        user.save()
    assert failure(user.username)


@pytest.mark.parametrize(
    "name",
    [
        "bob",
        "BOB",
        " bob",
        "\u0131",
        "jos\u00e9",
        "jose\u0301",
        "\u03b3\u03b9\u03ce\u03c1\u03b3\u03bf\u03c2",
        "\u0438\u0432\u0430\u043d",
        "\u4e2d",
        "\uff42",
    ],
)
def test_names_as_people_have_them_are_plain(name: str) -> None:
    assert is_plain(name)


def test_where_the_site_says_which_names_are_one_it_is_believed(settings: Any) -> None:
    settings.AXES_USERNAME_CANONICALIZER = "axes_async.client.normalize.fold_username"
    assert is_plain("bob\u3164")
