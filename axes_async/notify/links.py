"""The link that unlocks: signed, so that nobody makes one up, and expiring. Its view sees to it that it works once."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from django.core import signing

from axes_async.conf import get_settings

SALT = "axes_async.unlock"


def make_token(names: Sequence[str]) -> str:
    """Return a token for whoever owns the account that logs in under ``names``."""
    return signing.dumps(list(names), salt=SALT)


def names_in(token: str) -> list[str]:
    """Return the names that a token was made for; none for one that is forged or too old."""
    try:
        age = timedelta(seconds=get_settings().unlock_link_age)
        names: list[str] = signing.loads(token, salt=SALT, max_age=age)
    except signing.BadSignature:
        return []
    return names
