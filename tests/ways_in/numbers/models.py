"""A user model whose username is no text."""

from typing import ClassVar

from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.db import models


class Customer(AbstractBaseUser):
    """Somebody with a number."""

    number = models.BigIntegerField(unique=True)
    email = models.EmailField(blank=True)

    USERNAME_FIELD = "number"
    objects: ClassVar[BaseUserManager["Customer"]] = BaseUserManager()
