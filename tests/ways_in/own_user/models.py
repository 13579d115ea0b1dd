"""A user model that is loaded before axes_async is, and uses it all the same."""

from __future__ import annotations

from typing import Any, ClassVar

from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.db import models
from django.dispatch import receiver

from axes_async import conf, decorators, guard, middleware, signals, utils  # noqa: F401  (a site may need any of them)
from axes_async.models import AccessAttempt
from axes_async.tasks import reset  # noqa: F401

LOCKED: list[str] = []


class MemberManager(BaseUserManager["Member"]):
    """Makes members."""

    def create_user(self, email: str, password: str) -> Member:
        """Return a new member."""
        member = self.model(email=self.normalize_email(email))
        member.set_password(password)
        member.save(using=self._db)
        return member


class Member(AbstractBaseUser):
    """Somebody with an e-mail address."""

    email = models.EmailField(unique=True)

    USERNAME_FIELD = "email"
    objects: ClassVar[MemberManager] = MemberManager()

    def lift_lockouts(self) -> int:
        """Lift the lockouts of this member; return how many attempts went."""
        return utils.reset(username=self.email)

    def attempts(self) -> models.QuerySet[AccessAttempt]:
        """Return the attempts at this member's account that count."""
        return AccessAttempt.objects.filter(username=self.email)


@receiver(signals.user_locked_out)
def note(sender: Any, username: str, **kwargs: Any) -> None:
    """Keep the name."""
    LOCKED.append(username)
