"""Telling people: operators of lockouts, attacks and trouble, by mail and webhook; owners of their own lockouts.

What is told is decided here, and each message is a task of its own, which a worker repeats until it is taken.
"""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from random import shuffle
from smtplib import SMTPRecipientsRefused
from typing import Any

from celery import shared_task
from django.conf import settings as django_settings
from django.contrib.auth.base_user import AbstractBaseUser

from axes_async.client.normalize import as_text
from axes_async.clock import as_datetime, now_ms
from axes_async.conf import AxesSettings, get_settings
from axes_async.counters.rules import digest_of
from axes_async.delivery import publisher
from axes_async.delivery.silence import unless_silent
from axes_async.errors import AxesError
from axes_async.models import AccessFailureLog, Notice, database
from axes_async.notify import mail, webhook
from axes_async.notify.pace import give_back, is_taken, take
from axes_async.tasks.projection.news import News, forget, gather
from axes_async.tasks.status import status
from axes_async.text import printable

log = logging.getLogger(__name__)

GATHERED = timedelta(minutes=5)
"""How long lockouts are gathered for one message. The first after a quiet time is told at once."""

OWNER_PAUSE = timedelta(minutes=15)
"""How often one owner is told at most."""

ATTACK_IN = timedelta(minutes=5)
"""In what time ``AXES_NOTIFY_ATTACK`` attempts that fail are an attack."""

TOO_LATE = timedelta(days=1)
"""After this, what cannot be sent to an owner is not tried again."""

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
    """Tell of the lockouts that wait to be told of, over each channel that has not done so a moment ago."""
    settings = get_settings()
    for channel in settings.channels("lockouts"):
        with _later("lockouts", channel):
            _tell_of_lockouts(channel, settings)


@shared_task(name=publisher.WATCH, ignore_result=True)
def watch() -> None:
    """Tell of an attack, of trouble, and of lockouts that still wait."""
    settings = get_settings()
    for news, look in (("attacks", _attack), ("health", _trouble)):
        channels = settings.channels(news)
        seen = look(settings) if channels else {}
        for channel in channels:
            with _later(news, channel):
                _tell_of(news, seen, channel, settings)
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


@contextmanager
def _later(news: str, channel: str) -> Iterator[None]:
    """Let nothing that goes wrong over one channel reach the others: it is told the next time."""
    try:
        yield
    except Exception as error:  # noqa: BLE001  (a mail backend may raise anything)
        log.error("News of %s are told later, by %s (%s: %s).", news, channel, type(error).__name__, error)


def _tell_of_lockouts(channel: str, settings: AxesSettings) -> None:
    """Tell over ``channel`` what waits for it, and then forget that: who dies between them tells it twice."""
    now, pause = as_datetime(now_ms()), timedelta(seconds=settings.notify_pause)
    due = Notice.objects.using(database()).filter(channel=channel, until__lte=now).exclude(waiting="")
    if not due.exists() or not take("news", channel, every=min(GATHERED, pause)):
        return
    try:
        # No transaction is open while they are told: a server that is slow would hold up drains, on SQLite everybody.
        told = gather(due, owners=channel == "owner")
        if channel == "owner":
            is_through = _tell_owners(told)
        else:
            listed, total, is_through = [_shown(lockout) for lockout in told.latest], len(told.counts), True
            context = {"lockouts": listed, "total": total, "more": total - len(listed)}
            _tell(channel, "lockouts", context, json.dumps(context), settings, at=told.latest[0]["at"])
    except Exception:
        give_back("news", channel)
        raise
    forget(told, until=now + pause)
    if not is_through:
        give_back("news", channel)


def _tell_of(news: str, seen: dict[str, Any], channel: str, settings: AxesSettings) -> None:
    """Tell over ``channel`` of those subjects in ``seen`` that it has not told of for a while."""
    now, pause = now_ms(), timedelta(seconds=settings.notify_pause)
    subjects = [subject for subject in seen if take(f"{news} {channel}", subject, every=pause)]
    if not subjects:
        return
    context = {"problems": [seen[subject] for subject in subjects]} if news == "health" else seen[""]
    # Until it is told it is the same message, though its numbers change; what is told after the pause is another one.
    message = json.dumps([now // (pause // timedelta(milliseconds=1) or 1), *subjects])
    try:
        _tell(channel, news, context, message, settings, at=now)
    except Exception:
        for subject in subjects:
            give_back(f"{news} {channel}", subject)
        raise


def _tell(channel: str, news: str, context: dict[str, Any], message: str, settings: AxesSettings, *, at: int) -> None:
    """Send ``context`` to operators. Raises ``NotSent``, or what the sending does.

    :param message: what the message is told apart by: a receiver knows one that comes again.
    :param at: when what it tells happened, in epoch milliseconds.
    """
    if channel == "webhook":
        body = {"type": f"axes_async.{news}", "timestamp": _iso(at), "data": context}
        _send(send_webhook, f"msg_{digest_of([(news, message)])}", json.dumps(body))
    else:
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


def _tell_owners(told: News) -> bool:
    """Tell each owner; put off those who could not be told. Return False if that was left off, for want of a server."""
    owners = list(told.owners.values())
    shuffle(owners)  # So that no mail on which the server breaks off keeps the same others waiting each time.
    for place, owner in enumerate(owners):
        if is_taken("owner mail", str(owner.account.pk)):
            continue
        try:
            _send(send_mail, "owner", _for_owner(owner.lockout, owner.account), [mail.address_of(owner.account)])
        except Exception as error:  # noqa: BLE001  (what has no @ is in some databases, and breaks Django's mails)
            # To wait for a server as often as there are owners could take hours.
            is_away = isinstance(error, (NotSent, OSError)) and not isinstance(error, SMTPRecipientsRefused)
            untold = owners[place:] if is_away else [owner]
            log.warning("%d owners are not told of a lockout now (%s: %s).", len(untold), type(error).__name__, error)
            for each in untold:
                if each.lockout["at"] > now_ms() - TOO_LATE // timedelta(milliseconds=1):
                    told.put_off(each)
            if is_away:
                return False
        else:
            take("owner mail", str(owner.account.pk), every=OWNER_PAUSE)
    return True


def _for_owner(lockout: dict[str, Any], owner: AbstractBaseUser) -> dict[str, Any]:
    shown = _shown(lockout)
    return {
        "username": printable(as_text(owner.get_username()) or ""),
        "ip_address": shown["ip_address"],
        "at": shown["at"],
        "until": shown["until"],
    }


def _attack(settings: AxesSettings) -> dict[str, Any]:
    """Return what an attack looks like that is going on, as the one subject ''."""
    recent = AccessFailureLog.objects.using(database()).filter(attempt_time__gt=as_datetime(now_ms()) - ATTACK_IN)
    rows = list(recent.order_by("-attempt_time").values_list("ip_address", "username")[:LOOKED_AT])
    if len(rows) < settings.notify_attack:
        return {}
    addresses, names = (Counter(values) for values in zip(*rows, strict=True))
    attack = {
        "attempts": len(rows),
        "minutes": ATTACK_IN // timedelta(minutes=1),
        "addresses": len(addresses),
        "usernames": len(names),
        "top_addresses": [[address or "-", times] for address, times in addresses.most_common(TOP)],
        "top_usernames": [[printable(name or "-"), times] for name, times in names.most_common(TOP)],
    }
    return {"": attack}


def _trouble(settings: AxesSettings) -> dict[str, Any]:
    """Return what ``axes_status`` says that needs a person, and has said for a while, by what it says but numbers."""
    return {
        subject: problem
        for problem in status().problems(as_datetime(now_ms()))
        if not take("health seen", subject := re.sub(r"\d+", "", problem), every=SEEN)
    }
