"""Mails: who owns an account, and what is sent."""

from __future__ import annotations

from collections.abc import Collection
from smtplib import SMTPException
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.base_user import AbstractBaseUser
from django.core.exceptions import FieldDoesNotExist, MultipleObjectsReturned, ObjectDoesNotExist, ValidationError
from django.core.mail import EmailMessage, get_connection
from django.template.loader import render_to_string

from axes_async.client.normalize import canonical_username, storable

FAILURES = (OSError, SMTPException)
"""What a mail server that is away or in trouble makes Django raise; it may be well again later."""

PATIENCE = 30.0
"""Seconds to wait for a mail server where ``EMAIL_TIMEOUT`` says nothing: Django would wait for ever."""


def owner_of(name: str) -> AbstractBaseUser | None:
    """Return the active user who logs in as ``name``: by username, or by a mail address that nobody else has.

    ``None`` for one without a mail address.
    """
    model, field = get_user_model(), email_field()
    if not field or not storable(name):
        return None
    try:
        user = model._default_manager.get_by_natural_key(name)
    except (ObjectDoesNotExist, MultipleObjectsReturned, ValueError, ValidationError):  # Usernames may be UUIDs.
        found = list(model._default_manager.filter(**{f"{field}__iexact": name})[:2]) if "@" in name else []
        if len(found) != 1:
            return None
        user = found[0]
    return user if user.is_active and address_of(user) else None


def is_anothers(name: str, owner: AbstractBaseUser) -> bool:
    """Return whether ``name`` is the mail address of another user, who may log in by it. Anybody can register it."""
    model, field = get_user_model(), email_field()
    if not field or "@" not in name or field == model.USERNAME_FIELD:
        return False
    return model._default_manager.filter(**{f"{field}__iexact": name}).exclude(pk=owner.pk).exists()


def owners_of(names: Collection[str]) -> dict[str, AbstractBaseUser]:
    """Return the owners of accounts by the name that each logs in as, like ``owner_of``, in two queries for all."""
    model, field, found = get_user_model(), email_field(), dict[str, AbstractBaseUser]()
    if not field:
        return found
    wanted = {form: name for name in names if storable(name) for form in (canonical_username(name) or name, name)}
    for column, forms in ((model.USERNAME_FIELD, [*wanted]), (field, [form for form in wanted if "@" in form])):
        users: dict[str, list[AbstractBaseUser]] = {}
        forms = [form for form in forms if _fits(model._meta.get_field(column), form)]
        for user in model._default_manager.filter(**{f"{column}__in": forms}):
            users.setdefault(str(getattr(user, column)), []).append(user)
        for form, owners in users.items():
            if len(owners) == 1 and owners[0].is_active and address_of(owners[0]):
                found.setdefault(wanted[form], owners[0])
    return found


def _fits(field: Any, text: str) -> bool:
    """Return whether a column can be asked for ``text``: usernames may be numbers."""
    try:
        field.to_python(text)
    except ValidationError:
        return False
    return True


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

    Raises one of ``FAILURES``.
    """
    subject, _, body = render_to_string(f"axes_async/mail/{template}.txt", context).strip().partition("\n")
    connection: Any = get_connection()
    if getattr(connection, "timeout", PATIENCE) is None:
        connection.timeout = PATIENCE
    EmailMessage(subject.strip(), body.strip() + "\n", sender, to, connection=connection).send()
