"""The form behind the JSON login: which usernames and passwords are worth a look into the database."""

from typing import Any

from django import forms
from django.contrib.auth.forms import UsernameField
from django.core.exceptions import ValidationError

MAX_LENGTH = 128


class TextField(forms.CharField):
    """Text and nothing that only looks like it: JSON also sends numbers and lists."""

    def to_python(self, value: Any) -> Any:
        """Refuse what is no string, and half of a surrogate pair, which JSON can spell but nothing can store."""
        if value is not None and not isinstance(value, str):
            raise ValidationError("This must be a string.", code="type")
        try:
            (value or "").encode()
        except UnicodeEncodeError:
            raise ValidationError("This is not valid Unicode text.", code="unicode") from None
        return super().to_python(value)


class UsernameTextField(UsernameField, TextField):
    """A username, in the one Unicode form that Django stores it in."""


class LoginForm(forms.Form):
    """A username and a password. Blanks around a password belong to it."""

    username = UsernameTextField(max_length=MAX_LENGTH)
    password = TextField(max_length=MAX_LENGTH, strip=False)
