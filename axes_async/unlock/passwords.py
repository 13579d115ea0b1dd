"""A new password unlocks the name of its user: ``AXES_UNLOCK_ON_PASSWORD_RESET``."""

from __future__ import annotations

from functools import partial
from typing import Any

from django.contrib.auth import get_user_model
from django.db import transaction
from django.db.models.signals import post_save

from axes_async.client.normalize import canonical_username, is_plain
from axes_async.conf import get_settings
from axes_async.delivery import publisher
from axes_async.notify.mail import is_anothers

RESET = "axes_async.reset"
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
    settings, name = get_settings(), instance.get_username()
    if not (settings.enabled and settings.unlock_on_password_reset):
        return
    if canonical_username(name) is not None and is_plain(name) and not is_anothers(name, instance):
        unlock = partial(publisher.hand_over, RESET, username=name, reason=REASON, by=name)
        transaction.on_commit(unlock, using=using, robust=True)
