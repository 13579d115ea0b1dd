"""A new password unlocks the name of its user: ``AXES_UNLOCK_ON_PASSWORD_RESET``."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.base_user import AbstractBaseUser
from django.db import transaction
from django.db.models.signals import post_save

from axes_async.client.normalize import as_text
from axes_async.conf import get_settings
from axes_async.delivery import publisher
from axes_async.notify.accounts import may_unlock

log = logging.getLogger(__name__)

REASON = "The password was set anew."


def connect() -> None:
    """Connect the receiver; repeating it changes nothing."""
    post_save.connect(on_saved, dispatch_uid="axes_async.password_set")


def on_saved(sender: Any, instance: Any, created: bool, using: str, **kwargs: Any) -> None:
    """Unlock a user whose password was set, in whatever way: Django sends no signal of its own.

    ``_password`` is what ``set_password`` leaves until the user is saved, and what a new hash of the same one does not.
    """
    # A site may have a second model with passwords, whose names are not the accounts' names.
    if created or not isinstance(instance, get_user_model()) or getattr(instance, "_password", None) is None:
        return
    settings = get_settings()
    if settings.enabled and settings.unlock_on_password_reset:
        transaction.on_commit(partial(_unlock, instance), using=using)


def _unlock(user: AbstractBaseUser) -> None:
    """Unlock ``user``; nothing that goes wrong keeps the password from being saved, or the caller from going on."""
    try:
        name = as_text(user.get_username())
        if name and may_unlock(user, name):
            publisher.hand_over(publisher.RESET, username=name, reason=REASON, by=name)
    except Exception:
        log.exception("A user whose password was set is not unlocked.")
