"""Which account a name means. Notices, links that unlock and new passwords ask here, and go by one rule.

A name means the account that has it for its username, else the one that has it for its mail address. Names are compared
as counters compare them: who is locked under a name is the one who is told. Of several usernames, the one that is spelt
like the name is meant, else none is; nor is one of several accounts with a mail address, which anybody can register.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.core.exceptions import ValidationError
from django.db import DataError, transaction
from django.db.models import CharField, TextField, Value
from django.db.models.functions import Upper

from axes_async.client.normalize import as_text, canonical_username, is_plain, storable
from axes_async.notify.mail import address_of, email_field

REFUSALS = (DataError, ValidationError, ArithmeticError, TypeError, ValueError)
"""What a column raises that is asked for what it cannot hold, such as a number that is too large."""


def accounts_of(names: Collection[str], *, any_case: bool = True) -> dict[str, AbstractBaseUser]:
    """Return the account that each of ``names`` means, whether it is active or not; names that mean none are left out.

    :param any_case: ask for names in another case, too. The database reads the whole table for that, once for all,
        unless it has an index of the upper case.
    """
    usernames = _having(get_user_model().USERNAME_FIELD, names, any_case)
    meant = {name: _spelt(name, users) for name, users in usernames.items()}
    meant |= _having_address([name for name in names if name not in usernames], any_case)
    return {name: users[0] for name, users in meant.items() if len(users) == 1}


def reachable_account(name: str) -> AbstractBaseUser | None:
    """Return the account that ``name`` means, if it is active and has a mail address."""
    user = accounts_of([name]).get(name)
    return user if user is not None and is_reachable(user) else None


def is_reachable(user: AbstractBaseUser) -> bool:
    return user.is_active and bool(address_of(user))


def may_unlock(user: AbstractBaseUser, name: str, *, mailbox: str = "") -> bool:
    """Return whether ``user`` may have the failures under ``name`` taken back: it means this account, and nobody else.

    A username that is the mail address of another account may be what that one logs in by.

    :param mailbox: the address to which the permission is sent. Who reads it owns that name, whoever else claims it.
    """
    if canonical_username(name) is None or not is_plain(name):
        return False
    # A username means whoever spells it like that. Who has a mail address is asked for in any case.
    if accounts_of([name], any_case="@" in name).get(name) != user:
        return False
    if BaseUserManager.normalize_email(name) == BaseUserManager.normalize_email(mailbox):
        return True
    return all(other == user for other in _having_address([name], any_case=True).get(name, ()))


def names_by_mail(user: AbstractBaseUser) -> list[str]:
    """Return the names of ``user`` that a link unlocks, if it is sent to the account's mail address."""
    if not is_reachable(user):
        return []
    mailbox, names = address_of(user), dict[str | None, str]()
    for name in (as_text(user.get_username()), mailbox):
        if name and may_unlock(user, name, mailbox=mailbox):
            names.setdefault(canonical_username(name), name)
    return [*names.values()]


def _having_address(names: Iterable[str], any_case: bool) -> dict[str, list[AbstractBaseUser]]:
    field = email_field()
    if not field or field == get_user_model().USERNAME_FIELD:
        return {}
    return _having(field, [name for name in names if "@" in name], any_case)


def _spelt(name: str, users: list[AbstractBaseUser]) -> list[AbstractBaseUser]:
    return [user for user in users if as_text(user.get_username()) == name] or users


def _having(column: str, names: Collection[str], any_case: bool) -> dict[str, list[AbstractBaseUser]]:
    """Return the accounts that have each name in ``column``; names that nobody has are left out.

    Rows are matched here, not by what was asked for: a column may ignore case or accents, and hold no text.
    """
    forms = {name: form for name in names if storable(name) and (form := canonical_username(name)) is not None}
    users: dict[str | None, dict[Any, AbstractBaseUser]] = {}
    for user in _ask(column, [*{*forms, *forms.values()}], any_case):
        users.setdefault(canonical_username(as_text(getattr(user, column))), {})[user.pk] = user
    return {name: [*users[form].values()] for name, form in forms.items() if form in users}


def _ask(column: str, texts: list[str], any_case: bool) -> list[AbstractBaseUser]:
    """Return the rows that have one of ``texts`` in ``column``; a text that cannot be asked for hides no other."""
    if not texts:
        return []
    model = get_user_model()
    rows: Any = model._default_manager.all()
    rows = rows.using(rows.db)  # A router may name another database each time.
    try:
        with transaction.atomic(rows.db):  # PostgreSQL ends the caller's transaction, if it refuses a statement of it.
            if any_case and isinstance(model._meta.get_field(column), (CharField, TextField)):
                upper = [Upper(Value(text)) for text in texts]
                return list(rows.alias(axes_upper=Upper(column)).filter(axes_upper__in=upper))
            return list(rows.filter(**{f"{column}__in": texts}))
    except REFUSALS:  # What is no fault of a text, such as a database that is away, goes to the caller.
        if len(texts) == 1:
            return []
    half = len(texts) // 2
    return _ask(column, texts[:half], any_case) + _ask(column, texts[half:], any_case)
