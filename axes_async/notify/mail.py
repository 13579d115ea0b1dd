"""Mails: the address of an account, and what is sent."""

from __future__ import annotations

from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.base_user import AbstractBaseUser
from django.core import mail
from django.core.exceptions import FieldDoesNotExist
from django.template.loader import render_to_string

PATIENCE = 30.0
"""Seconds to wait for a mail server where the site's settings say nothing: Django would wait for ever."""


def email_field() -> str:
    """Return the user model's field of mail addresses; '' for a model without."""
    model = get_user_model()
    name = model.get_email_field_name()
    try:
        model._meta.get_field(name)
    except FieldDoesNotExist:
        return ""
    return name


def address_of(user: AbstractBaseUser) -> str:
    return str(getattr(user, email_field(), None) or "")


def send(template: str, context: dict[str, Any], to: list[str], *, sender: str | None = None) -> None:
    """Send what ``axes_async/mail/TEMPLATE.txt`` makes of ``context``: its first line is the subject.

    Raises whatever the site's mail backend does: those of providers have exceptions of their own.
    """
    subject, _, body = render_to_string(f"axes_async/mail/{template}.txt", context).strip().partition("\n")
    # Django 6.1 has MAILERS, and deprecates get_connection().
    connection: Any = mail.mailers.default if hasattr(mail, "mailers") else mail.get_connection()
    if getattr(connection, "timeout", PATIENCE) is None:
        connection.timeout = PATIENCE
    connection.send_messages([mail.EmailMessage(subject.strip(), body.strip() + "\n", sender, to)])
