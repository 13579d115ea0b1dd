"""A real worker tells of a lockout over a real mail server and a real receiver, though both are in trouble at first."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User

from axes_async.models import AccessFailureLog
from axes_async.stores.redis.store import RedisStore
from tests.actions import failure
from tests.faults.conftest import database_of_test, environment, own_store, own_valkey  # noqa: F401  (fixtures)
from tests.faults.machines import Valkey
from tests.faults.test_celery_worker import WORKER, sessions
from tests.notify.sinks import WRITTEN, MailServer, Receiver
from tests.nursery import Process
from tests.waiting import until

RULES = [{"parameters": ["username", "ip_address"], "limit": 3}]

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def _worker(
    own_valkey: Valkey,  # noqa: F811
    mail_server: MailServer,
    receiver: Receiver,
    tmp_path: Path,
) -> Iterator[None]:
    settings = {
        "AXES_NOTIFY": ["ops@example.com"],
        "AXES_NOTIFY_OWNER": True,
        "AXES_NOTIFY_WEBHOOK": receiver.url,
        "AXES_NOTIFY_WEBHOOK_SECRET": WRITTEN,
        "AXES_LOCKOUT_RULES": RULES,
        "EMAIL_HOST": "127.0.0.1",
        "EMAIL_PORT": mail_server.port,
    }
    before = sessions()
    known = environment(tmp_path, database_of_test(), own_valkey.url, f"{own_valkey.url}/1", settings)
    worker = Process(*WORKER, "-s", str(tmp_path / "beat"), environment=known)
    yield
    worker.kill()
    until(lambda: sessions() <= before, what="the database has noticed that it is gone")


@pytest.mark.timeout(240)
@pytest.mark.usefixtures("_worker")
def test_a_worker_tells_until_it_is_heard_and_writes_rows_meanwhile(
    own_store: RedisStore,  # noqa: F811
    mail_server: MailServer,
    receiver: Receiver,
    settings: Any,
) -> None:
    settings.AXES_LOCKOUT_RULES = RULES
    User.objects.create_user("alice", email="alice@example.com")
    mail_server.refusals, receiver.answers = 1, [503]
    for _ in range(3):
        failure("alice", "192.0.2.1")
    until(lambda: len(receiver.seen) > 0, what="the webhook was refused")
    failure("bob", "192.0.2.2")
    until(AccessFailureLog.objects.filter(username="bob").exists, what="the drain goes on")
    until(lambda: receiver.taken and len(mail_server.messages) == 2, what="everybody is told")
    first, second = receiver.seen
    assert first["webhook-id"] == second["webhook-id"]
    assert receiver.taken[0]["data"]["lockouts"][0]["username"] == "alice"
    assert {message["To"] for message in mail_server.messages} == {"ops@example.com", "alice@example.com"}
