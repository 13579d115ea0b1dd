"""Telling people: operators of lockouts, attacks and trouble, by mail and webhook; owners of their own lockouts.

What is told is decided here, and each message is a task of its own, which a worker repeats until it is taken.
"""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from smtplib import SMTPRecipientsRefused
from typing import Any

from celery import shared_task
from django.conf import settings as django_settings
from django.contrib.auth.base_user import AbstractBaseUser

from axes_async.clock import as_datetime, now_ms
from axes_async.conf import AxesSettings, get_settings
from axes_async.counters.events import new_id
from axes_async.delivery import publisher
from axes_async.delivery.silence import unless_silent
from axes_async.errors import AxesError
from axes_async.models import AccessFailureLog, Notice, database
from axes_async.notify import mail, webhook
from axes_async.notify.pace import give_back, take
from axes_async.tasks.projection.news import Lockout, forget, gather
from axes_async.tasks.status import status
from axes_async.text import printable

log = logging.getLogger(__name__)

GATHERED = timedelta(minutes=5)
"""How long lockouts are gathered for one message. The first after a quiet time is told at once."""

OWNER_PAUSE = timedelta(minutes=15)
"""How often one owner is told at most."""

ATTACK_IN = timedelta(minutes=5)
"""In what time ``AXES_NOTIFY_ATTACK`` attempts that fail are an attack."""

LOOKED_AT = 10_000
"""Rows that are read to say who attacks whom."""

TOP = 5

SEEN = timedelta(minutes=10)
"""Trouble is told when it is seen twice in this time: a sync of a moment is none."""

BOUND = 60
"""Seconds after which a task is taken for stuck, in a worker that can interrupt it."""

AGAIN: dict[str, Any] = {
    "autoretry_for": (Exception,),  # Mail backends of providers have exceptions of their own.
    "soft_time_limit": BOUND,
    "retry_backoff": 5,
    "retry_backoff_max": 600,
    "max_retries": 10,
    "ignore_result": True,
}
"""A server that is away is asked again after seconds, then minutes, for up to forty of them."""


class NotSent(AxesError):
    """The broker did not take a message: it is told next time."""


@shared_task(name="axes_async.mail", **AGAIN)
def send_mail(template: str, context: dict[str, Any], to: list[str], sender: str | None = None) -> None:
    """Send one mail; see ``notify.mail.send``."""
    with unless_silent("mail"):
        mail.send(template, context, to, sender=sender)


@shared_task(name="axes_async.webhook", **AGAIN)
def send_webhook(message_id: str, body: str) -> None:
    """Send one message to ``AXES_NOTIFY_WEBHOOK``."""
    settings = get_settings()
    if settings.notify_webhook is not None:
        secrets = settings.notify_webhook_secret
        with unless_silent("webhook"):
            webhook.post(settings.notify_webhook, secrets, message_id, body.encode(), at=now_ms() // 1000)


@shared_task(name=publisher.NOTIFY, ignore_result=True)
def notify() -> None:
    """Tell of the lockouts that wait to be told of, unless that was done a moment ago."""
    settings, now = get_settings(), as_datetime(now_ms())
    if not (settings.notify_owner or settings.tells_of("lockouts")):
        return
    pause = timedelta(seconds=settings.notify_pause)
    due = Notice.objects.using(database()).exclude(waiting="").filter(until__lte=now)
    if not due.exists() or not take("news", "lockouts", every=min(GATHERED, pause)):
        return
    try:
        # No transaction is open while they are told: a server that is slow would hold up drains, on SQLite everybody.
        told = gather(due, owners=settings.notify_owner)
        if settings.tells_of("lockouts"):
            listed = [_shown(lockout) for lockout in told.latest]
            total = len(told.counts)
            _tell("lockouts", {"lockouts": listed, "total": total, "more": total - len(listed)}, settings)
    except NotSent as error:
        give_back("news", "lockouts")
        log.warning("Lockouts are told later (%s).", error)
        return
    except Exception:
        give_back("news", "lockouts")
        raise
    forget(told, until=now + pause)
    _tell_owners(told.owners.values())


@shared_task(name=publisher.WATCH, ignore_result=True)
def watch() -> None:
    """Tell of an attack, of trouble, and of lockouts that still wait."""
    settings = get_settings()
    pause = timedelta(seconds=settings.notify_pause)
    for news, look in (("attacks", _attack), ("health", _trouble)):
        context = look(settings, pause) if settings.tells_of(news) else None
        if context:
            try:
                _tell(news, context, settings)
            except Exception as error:  # noqa: BLE001  (a mail backend may raise anything; it is told next time)
                log.error("News of %s were not told (%s: %s).", news, type(error).__name__, error)
                for subject in context.get("problems", [""]):
                    give_back(news, _numberless(subject))
    notify()


def watch_soon() -> None:
    """Have a worker do that; without one, do it here, and let nothing that goes wrong reach the caller."""
    if not get_settings().has_notices:
        return
    if publisher.has_worker():
        publisher.publish(publisher.WATCH, expires=publisher.DRAIN_EXPIRES)
        return
    try:
        watch()
    except Exception as error:  # noqa: BLE001  (a mail backend may raise anything)
        log.error("Not everything could be told (%s: %s).", type(error).__name__, error)


def _tell(news: str, context: dict[str, Any], settings: AxesSettings) -> None:
    """Send ``context`` to all that are to be told. Raises ``NotSent``."""
    if settings.notify_webhook is not None and settings.notify_webhook_secret:
        now = now_ms()
        body = {"type": f"axes_async.{news}", "timestamp": _iso(now), "data": context}
        _send(send_webhook, f"msg_{new_id(now)}", json.dumps(body))
    if settings.notify:
        prefix = str(django_settings.EMAIL_SUBJECT_PREFIX)
        _send(send_mail, news, {**context, "prefix": prefix}, list(settings.notify), django_settings.SERVER_EMAIL)


def _send(task: Any, *args: Any) -> None:
    if not publisher.has_worker():
        task.run(*args)
    elif not publisher.publish(task.name, *args):
        raise NotSent("the broker takes no messages")


def _shown(lockout: dict[str, Any]) -> dict[str, Any]:
    """Return a lockout as messages tell it: in words, and with times as ISO 8601 writes them."""
    words = {
        "ip_address": f"address {lockout['ip_address']}",
        "username": f"username {printable(lockout['username'] or '')}",
        "user_agent": f"user agent {printable(lockout['user_agent'])}",
    }
    return {
        **lockout,
        "what": ", ".join(words[name] for name in lockout["parameters"]),
        "at": _iso(lockout["at"]),
        "until": _iso(lockout["until"]) if lockout["until"] else None,
    }


def _iso(ms: int) -> str:
    return datetime.fromtimestamp(ms // 1000, tz=UTC).isoformat().replace("+00:00", "Z")


def _tell_owners(owners: Collection[tuple[AbstractBaseUser, Lockout]]) -> None:
    for place, (owner, lockout) in enumerate(owners):
        if not take("owner mail", str(owner.pk), every=OWNER_PAUSE):
            continue
        try:
            _send(send_mail, "owner", _for_owner(lockout, owner), [mail.address_of(owner)])
        except Exception as error:  # noqa: BLE001  (what has no @ is in some databases, and breaks Django's mails)
            give_back("owner mail", str(owner.pk))
            log.warning("An owner is not told of a lockout (%s: %s).", type(error).__name__, error)
            if isinstance(error, (NotSent, OSError)) and not isinstance(error, SMTPRecipientsRefused):
                # To wait for a server as often as there are owners could take hours.
                log.warning("Nor are %d others.", len(owners) - place - 1)
                return


def _for_owner(lockout: dict[str, Any], owner: AbstractBaseUser) -> dict[str, Any]:
    shown = _shown(lockout)
    return {
        "username": owner.get_username(),
        "ip_address": shown["ip_address"],
        "at": shown["at"],
        "until": shown["until"],
    }


def _attack(settings: AxesSettings, pause: timedelta) -> dict[str, Any] | None:
    """Return what an attack looks like that is going on, unless it was told a while ago."""
    recent = AccessFailureLog.objects.using(database()).filter(attempt_time__gt=as_datetime(now_ms()) - ATTACK_IN)
    rows = list(recent.order_by("-attempt_time").values_list("ip_address", "username")[:LOOKED_AT])
    if len(rows) < settings.notify_attack or not take("attacks", "", every=pause):
        return None
    addresses, names = (Counter(values) for values in zip(*rows, strict=True))
    return {
        "attempts": len(rows),
        "minutes": ATTACK_IN // timedelta(minutes=1),
        "addresses": len(addresses),
        "usernames": len(names),
        "top_addresses": [[address or "-", times] for address, times in addresses.most_common(TOP)],
        "top_usernames": [[printable(name or "-"), times] for name, times in names.most_common(TOP)],
    }


def _trouble(settings: AxesSettings, pause: timedelta) -> dict[str, Any] | None:
    """Return what ``axes_status`` says that needs a person, and was not told a while ago."""
    lasting = [
        problem
        for problem in status().problems(as_datetime(now_ms()))
        if not take("health seen", _numberless(problem), every=SEEN)
    ]
    news = [problem for problem in lasting if take("health", _numberless(problem), every=pause)]
    return {"problems": news} if news else None


def _numberless(problem: str) -> str:
    """Return what a problem is called, however many of it there are and since when."""
    return re.sub(r"\d+", "", problem)
