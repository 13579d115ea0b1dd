"""The mail with the link that unlocks. A worker looks whether there is anything to unlock, and for whom.

So whoever asks for it gets the same answer, as fast, for every name.
"""

from __future__ import annotations

from datetime import timedelta
from urllib.parse import urlsplit

from celery import shared_task
from django.utils.translation import override

from axes_async.clock import as_datetime, now_ms
from axes_async.delivery import publisher
from axes_async.delivery.silence import unless_silent
from axes_async.models import AttemptCounter, database
from axes_async.notify import mail
from axes_async.notify.accounts import names_by_mail, reachable_account
from axes_async.notify.links import make_token
from axes_async.notify.pace import give_back, take
from axes_async.tasks.notify import AGAIN
from axes_async.tasks.projection.counters import counters_of
from axes_async.tasks.projection.resets import attempts_in, counters_in
from axes_async.tasks.reset import check_arguments, count

PAUSE = timedelta(minutes=15)
"""How often one account gets such a mail at most."""

LOOKED_AT = 1000
"""Attempts of the name whose counters are looked at that have no name in them: an attacker may have made a million."""


@shared_task(name=publisher.UNLOCK_MAIL, **{**AGAIN, "max_retries": 5})
def unlock_mail(name: str, url: str, language: str) -> None:
    """Mail a link to the owner of the account that ``name`` means, if it is locked and has got none for a while.

    :param url: of the page at which unlocking begins; the link leads below it.
    :param language: of whoever has asked.
    """
    owner = reachable_account(name)
    # An account has two names, and people try one and ask by the other.
    names = [each for each in names_by_mail(owner) if is_locked(each)] if owner is not None else []
    if owner is None or not names or not take("unlock mail", str(owner.pk), every=PAUSE):
        return
    try:
        with override(language), unless_silent("mail"):
            context = {"url": f"{url}{make_token(owner, names)}/", "site": urlsplit(url).netloc, "user": owner}
            mail.send("unlock", context, [mail.address_of(owner)])
    except Exception:
        give_back("unlock mail", str(owner.pk))
        raise


def is_locked(name: str) -> bool:
    """Return whether a counter is locked that attempts under ``name`` count in; first writes what outboxes hold."""
    if not count(username=name):
        return False
    using = database()
    scope, now = check_arguments(username=name), as_datetime(now_ms())
    if AttemptCounter.objects.using(using).locked(now).filter(counters_in(scope)).exists():
        return True
    counters = counters_of(list(attempts_in(scope, using)[:LOOKED_AT]), using)
    return counters.locked(now).exists()
