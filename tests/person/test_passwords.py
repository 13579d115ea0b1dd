"""A new password unlocks the name of its user, if the site wants that."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
from celery import current_app
from django.contrib import admin
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import User
from django.contrib.auth.views import PasswordResetConfirmView, PasswordResetView
from django.core import mail
from django.db import transaction
from django.db.models import CharField
from django.db.models.signals import post_save
from django.test import Client, override_settings
from django.test.utils import isolate_apps
from django.urls import path

from axes_async.models import AccessReset
from axes_async.unlock import passwords
from tests.actions import failure
from tests.site import home, sign_in

Post = Callable[..., Any]

urlpatterns = [
    path("sign-in/", sign_in),
    path("reset/", PasswordResetView.as_view(success_url="/home/"), name="password_reset"),
    path(
        "reset/<uidb64>/<token>/", PasswordResetConfirmView.as_view(success_url="/home/"), name="password_reset_confirm"
    ),
    path("home/", home),
    path("admin/", admin.site.urls),  # The views borrow its templates.
]

pytestmark = [pytest.mark.django_db]
NEW = "another horse battery staple"


@pytest.fixture(autouse=True)
def _site(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(current_app.conf, "task_always_eager", True)
    settings.ROOT_URLCONF, settings.AXES_UNLOCK_ON_PASSWORD_RESET = __name__, True
    settings.AXES_LOCKOUT_RULES = [{"parameters": ["username", "ip_address"], "limit": 3}]


@pytest.fixture
def locked(alice: User) -> User:
    """Return alice, locked out."""
    for name in ("alice", "bob"):
        for _ in range(3):
            failure(name, "127.0.0.1")
    return alice


def test_a_completed_password_reset_unlocks_the_name_and_no_other(
    client: Client, post: Post, locked: User, django_capture_on_commit_callbacks: Any
) -> None:
    User.objects.filter(pk=locked.pk).update(email="alice@example.com")
    client.post("/reset/", {"email": "alice@example.com"})
    (found,) = re.findall(r"http://testserver(/\S+)", str(mail.outbox[0].body))
    form = client.get(found, follow=True).redirect_chain[-1][0]
    with django_capture_on_commit_callbacks(execute=True):
        client.post(form, {"new_password1": NEW, "new_password2": NEW})
    assert post("alice", NEW).status_code == 204
    assert post("bob").status_code == 429
    (record,) = AccessReset.objects.all()
    assert (record.username, record.by, record.reason) == ("alice", "alice", passwords.REASON)


@pytest.mark.parametrize("off", [{}, {"AXES_UNLOCK_ON_PASSWORD_RESET": False}, {"AXES_ENABLED": False}])
def test_a_password_that_is_set_in_another_way_unlocks_too_if_that_is_on(
    locked: User, off: dict[str, bool], django_capture_on_commit_callbacks: Any
) -> None:
    locked.set_password(NEW)
    with override_settings(**off), django_capture_on_commit_callbacks(execute=True):
        locked.save()
    assert AccessReset.objects.exists() is (not off)


def test_what_sets_no_new_password_unlocks_nobody(
    locked: User, settings: Any, django_capture_on_commit_callbacks: Any
) -> None:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.PBKDF2PasswordHasher", *settings.PASSWORD_HASHERS]
    locked.refresh_from_db()
    with django_capture_on_commit_callbacks(execute=True):
        locked.save()
        assert locked.check_password("correct horse battery staple"), "which makes a new hash of it"
        locked.refresh_from_db()
        new = User(username="new")
        new.set_password(NEW)
        new.save()
        User(pk=99, username="loaded", password=make_password(NEW)).save_base(raw=True)
    assert locked.password.startswith("pbkdf2")
    assert not AccessReset.objects.exists()


@isolate_apps("django.contrib.auth")
def test_a_password_of_another_model_unlocks_no_account_of_the_same_name(
    locked: User, django_capture_on_commit_callbacks: Any
) -> None:
    class Customer(AbstractBaseUser):
        name = CharField(max_length=9)
        USERNAME_FIELD = "name"

        class Meta:
            app_label = "auth"

    customer = Customer(name="alice")
    customer.set_password(NEW)
    with django_capture_on_commit_callbacks(execute=True):
        post_save.send(Customer, instance=customer, created=False, using="default")
    assert not AccessReset.objects.exists()


def refuse(name: str) -> str:
    """Canonicalise no name, as a site's own function does that has an error."""
    raise RuntimeError(name)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("is_atomic", [True, False])
def test_whatever_goes_wrong_with_unlocking_the_password_is_saved(
    alice: User, settings: Any, is_atomic: bool, caplog: pytest.LogCaptureFixture
) -> None:
    settings.AXES_USERNAME_CANONICALIZER = refuse
    alice.set_password(NEW)
    with transaction.atomic() if is_atomic else nullcontext():
        alice.save()
    alice.refresh_from_db()
    assert alice.check_password(NEW)
    assert "RuntimeError" in caplog.text


def test_a_change_that_is_rolled_back_unlocks_nobody(locked: User, django_capture_on_commit_callbacks: Any) -> None:
    locked.set_password(NEW)
    with django_capture_on_commit_callbacks() as waiting:
        locked.save()
    assert len(waiting) == 1
    assert not AccessReset.objects.exists()
