"""The link that unlocks: signed, so that nobody makes one up, and expiring. Its view sees to it that it works once."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from django.contrib.auth import get_user_model
from django.contrib.auth.base_user import AbstractBaseUser
from django.core import signing

from axes_async.conf import get_settings
from axes_async.notify.accounts import names_by_mail

SALT = "axes_async.unlock"


def make_token(owner: AbstractBaseUser, names: Sequence[str]) -> str:
    """Return a token that unlocks ``names``, as long as they are those of ``owner``."""
    return signing.dumps([str(owner.pk), *names], salt=SALT)


def names_in(token: str) -> list[str]:
    """Return the names that a token was made for, and that its owner, who is active, still has.

    None for a token that is forged or too old.
    """
    try:
        age = timedelta(seconds=get_settings().unlock_link_age)
        pk, *names = signing.loads(token, salt=SALT, max_age=age)
    except signing.BadSignature:
        return []
    owner = get_user_model()._default_manager.filter(pk=pk).first()
    theirs = [] if owner is None else names_by_mail(owner)
    return [name for name in names if name in theirs]
