"""The status in the admin: all that ``axes_status`` prints, what needs a person first, whatever is away."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from datetime import UTC, datetime
from uuid import UUID

import pytest
from celery import current_app
from django.contrib.auth.models import Permission, User
from django.core.management import call_command
from django.test import Client
from django.utils.html import escape
from django.utils.translation import override

from axes_async.admin import dashboard as dashboard_page
from axes_async.clock import now_ms
from axes_async.counters.events import AttemptEvent, Kind, new_id
from axes_async.delivery import publisher
from axes_async.models import AttemptCounter, OutboxEvent
from axes_async.stores.redis.store import RedisStore
from axes_async.tasks.expire import expire
from tests.actions import failure
from tests.faults.conftest import own_store, own_valkey  # noqa: F401  (fixtures)
from tests.faults.machines import Valkey

Drain = Callable[[], int]
DASHBOARD = "/admin/axes_async/dashboard/"
URL = f"{DASHBOARD}status/"

pytestmark = pytest.mark.django_db


def facts(page: str) -> dict[str, str]:
    return dict(re.findall(r'<tr><th scope="row">(.*?)</th><td>(.*?)</td></tr>', page))


def problems(page: str) -> list[str]:
    if 'class="axes-problems"' not in page:
        return []
    return re.findall(r"<li>(.*?)</li>", page[page.index('class="axes-problems"') : page.index("</section>")])


def waiting_event(at: int) -> None:
    event = AttemptEvent(kind=Kind.FAILED, id=new_id(at), username="alice", at=at)
    OutboxEvent.objects.create(event_id=UUID(event.id), wire=event.wire())


def test_shown_to_those_alone_that_may_see_the_dashboard(client: Client) -> None:
    assert client.get(URL).status_code == 302
    user = User.objects.create_user("staff", is_staff=True)
    client.force_login(user, "tests.site.CountingBackend")
    assert client.get(URL).status_code == 403
    user.user_permissions.add(Permission.objects.get(codename="view_dashboard"))
    assert client.get(URL).status_code == 200
    assert f'href="{URL}"' in client.get(DASHBOARD).content.decode()


@pytest.mark.django_db(transaction=True)
def test_says_all_that_the_command_prints(admin_client: Client, drain: Drain) -> None:
    failure()
    drain()
    expire()
    out = io.StringIO()
    call_command("axes_status", stdout=out)
    printed = {line[:16].strip(): escape(line[16:]) for line in out.getvalue().splitlines()}
    page = admin_client.get(URL).content.decode()
    assert facts(page) == printed
    assert {"complete": "yes", "backlog": "0", "store error": "-"}.items() <= printed.items()
    assert "Nothing needs a person." in page


def test_what_needs_a_person_comes_first(admin_client: Client) -> None:
    waiting_event(now_ms() - 3_600_000)
    page = admin_client.get(URL).content.decode()
    (problem,) = problems(page)
    assert problem.startswith("Events wait since ")
    assert page.index(problem) < page.index('<th scope="row">store</th>')
    assert "Nothing needs a person." not in page


def test_problems_are_told_in_the_language_of_the_reader(admin_client: Client) -> None:
    waiting_event(now_ms() - 3_600_000)
    with override("de"):
        for url in (URL, DASHBOARD):
            (problem,) = problems(admin_client.get(url).content.decode())
            assert problem.endswith(": Läuft ein Worker, und Beat?")


def test_an_error_from_elsewhere_is_text(admin_client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(current_app.conf, "broker_url", "nonsense<script>://")
    page = admin_client.get(URL).content.decode()
    assert problems(page)[0].startswith("The broker takes no messages: ")
    assert "nonsense<script>" not in page
    ours = page[page.index('<div id="content-main"') : page.index("<!-- SVGs -->")]
    assert not re.search(r"<script|<img|style=|on\w+=\"|https?://", ours)


@pytest.mark.usefixtures("own_store")
def test_store_and_broker_that_are_frozen_hold_up_neither_page(
    admin_client: Client,
    own_valkey: Valkey,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(current_app.conf, "broker_url", f"{own_valkey.url}/1")
    assert problems(admin_client.get(URL).content.decode()) == []
    monkeypatch.setattr(publisher, "PUBLISH_TIMEOUT", 0.1)
    own_valkey.freeze()
    try:
        for url in (URL, DASHBOARD):
            found = problems(admin_client.get(url).content.decode())
            assert [problem.partition(":")[0] for problem in found] == [
                "The store cannot be reached",
                "The broker takes no messages",
            ]
    finally:
        own_valkey.thaw()


def test_rows_are_counted_up_to_a_bound(admin_client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dashboard_page, "MOST_WAITING", 2)
    for number in range(3):
        waiting_event(now_ms())
        now = datetime.now(UTC)
        AttemptCounter.objects.create(digest=str(number), parameters=1, limit=3, changed_at=now, dirty=number < 2)
    found = facts(admin_client.get(URL).content.decode())
    assert (found["table backlog"], found["dirty counters"]) == ("over 2", "2")


def test_dead_letters_are_told(admin_client: Client, redis_store: RedisStore) -> None:
    redis_store.set_aside(b"\xff[", "not an event")
    page = admin_client.get(URL).content.decode()
    assert problems(page) == ["1 events could not be written: manage.py axes_dead_letters shows them."]
    assert facts(page)["dead letters"] == "1"
