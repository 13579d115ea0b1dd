"""Lockouts in the admin: what is locked, live, and a button that unlocks with a reason."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis
import time_machine
from django.contrib.admin.utils import quote
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client, override_settings
from django.urls import reverse
from django.utils import timezone
from django.utils.timezone import localtime

from axes_async.admin.lockouts import StateFilter
from axes_async.client.keys import username_key
from axes_async.inspection.search import Bounds
from axes_async.models import AccessAttempt, AccessLog, AccessReset, AttemptCounter, Lockout
from tests.actions import failure, success
from tests.conftest import REFUSED

Drain = Callable[[], int]
A, B = "192.0.2.1", "198.51.100.8"
BACKEND = "tests.site.CountingBackend"
NO_STORE = {"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": REFUSED}}
BY_PAIR = [["username", "ip_address"]]

pytestmark = [pytest.mark.django_db, pytest.mark.database]


@pytest.fixture
def operator(db: None, drain: Drain) -> Client:
    """Return a client that is logged in as a superuser."""
    client = Client()
    client.force_login(User.objects.create_superuser("root"), BACKEND)
    drain()
    AccessLog.objects.all().delete()
    return client


def url(view: str = "changelist", *args: object) -> str:
    return reverse(f"admin:axes_async_lockout_{view}", args=args)


def lock(username: str = "alice", address: str = A, failures: int = 3) -> None:
    for _ in range(failures):
        failure(username, address)


def shown(client: Client, **query: str) -> list[str]:
    """Return what the list says is locked, or nearly."""
    changes = client.get(url(), query).context["cl"]
    return [changes.model_admin.what(row) for row in changes.result_list]


def cells(client: Client, **query: str) -> dict[str, str]:
    """Return the text of each column of the first row."""
    changes = client.get(url(), query).context["cl"]
    row, model_admin = changes.result_list[0], changes.model_admin
    return {name: str(getattr(model_admin, name)(row)) for name in model_admin.list_display if name != "unlock_link"}


def unlock(client: Client, *digests: str, **form: str) -> Any:
    return client.post(url(), {"action": "unlock", "_selected_action": digests, **form}, follow=True)


def texts(response: Any) -> list[str]:
    return [str(message) for message in response.context["messages"]]


def test_lockouts_come_first_under_axes(operator: Client, drain: Drain) -> None:
    apps = operator.get("/admin/").context["app_list"]
    (axes,) = (app for app in apps if app["app_label"] == "axes_async")
    assert axes["models"][0]["name"].strip() == "Lockouts"


def test_a_lockout_is_listed_in_words_with_all_that_is_known(operator: Client, drain: Drain) -> None:
    success("carol", A)
    lock("alice", A, failures=2)
    lock("bob", A, failures=3)
    drain()
    row = cells(operator)
    assert row["what"] == f"address {A}"
    assert row["failures_of_limit"] == "3 of 3"
    assert "until unlocked" in row["until_when"]
    assert (row["turned_away"], sorted(row["behind"].split(", "))) == ("2", ["alice", "bob"])
    login = AccessLog.objects.get()
    assert f"{localtime(login.attempt_time):%H:%M:%S}" in row["last_success"]


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        (["ip_address"], f"address {A}"),
        (["username"], "alice from anywhere"),
        (BY_PAIR, f"alice from {A}"),
        (["user_agent"], "one user agent"),
        ([["username", "user_agent"]], "alice from anywhere, one user agent"),
        ([["username", "ip_address", "user_agent"]], f"alice from {A}, one user agent"),
    ],
)
def test_every_rule_has_words_and_its_lockouts_can_be_lifted(
    operator: Client, drain: Drain, settings: Any, rules: Any, words: str
) -> None:
    settings.AXES_LOCKOUT_PARAMETERS = rules
    lock()
    drain()
    assert shown(operator) == [words]
    unlock(operator, Lockout.objects.get().pk, reason="phoned")
    assert shown(operator) == []
    assert failure()


@override_settings(AXES_IPV6_PREFIX=64)
def test_an_ipv6_address_is_shown_as_the_network_that_counts(operator: Client, drain: Drain) -> None:
    lock(address="2001:db8::1")
    drain()
    assert shown(operator) == ["address 2001:db8::/64"]


def test_a_name_that_disguises_itself_is_shown_escaped(operator: Client, drain: Drain, settings: Any) -> None:
    settings.AXES_LOCKOUT_PARAMETERS = ["username"]
    lock("root\u202etoor<b>")
    drain()
    page = operator.get(url()).content.decode()
    assert r"root\u202etoor&lt;b&gt; from anywhere" in page
    assert "\u202e" not in page


@pytest.mark.parametrize("state", ["near", "locked", "", "rubbish"])
def test_locked_now_is_listed_unless_near_the_limit_is_asked_for(operator: Client, drain: Drain, state: str) -> None:
    lock(address=A)
    lock(address=B, failures=2)
    lock(address="192.0.2.9", failures=1)
    drain()
    listed = shown(operator, state=state) if state else shown(operator)
    assert listed == [f"address {B if state == 'near' else A}"]


def test_the_list_is_filtered_by_rule(operator: Client, drain: Drain, settings: Any) -> None:
    settings.AXES_LOCKOUT_PARAMETERS = ["ip_address", "username"]
    lock()
    drain()
    page = operator.get(url())
    rules = next(spec for spec in page.context["cl"].filter_specs if spec.parameter_name == "rule")
    assert [text for _, text in rules.lookup_choices] == ["IP address", "username"]
    names = {text: bits for bits, text in rules.lookup_choices}
    assert shown(operator, rule=names["username"]) == ["alice from anywhere"]
    assert shown(operator, rule=names["IP address"]) == [f"address {A}"]
    assert len(shown(operator, rule="rubbish")) == 2


@pytest.mark.parametrize(
    ("term", "found"), [("ALICE", 1), (" alice ", 1), ("ali", 0), (A, 2), ("192.0.2", 0), ("bob", 1), ("%", 0)]
)
def test_lockouts_are_found_by_whole_name_and_address(
    operator: Client, drain: Drain, settings: Any, term: str, found: int
) -> None:
    settings.AXES_LOCKOUT_PARAMETERS = BY_PAIR
    lock("alice")
    lock("bob")
    lock("carol", B)
    drain()
    assert len(shown(operator, q=term)) == found


def test_failures_that_are_not_yet_written_are_shown_from_the_store(operator: Client, drain: Drain) -> None:
    lock()
    drain()
    assert cells(operator)["turned_away"] == "0"
    failure()
    page = operator.get(url())
    assert "As the store has it now." in page.content.decode()
    assert cells(operator)["turned_away"] == "1"


def test_a_lockout_that_the_store_has_lifted_is_shown_as_open(operator: Client, drain: Drain, valkey: Any) -> None:
    lock()
    drain()
    for key in valkey.keys("*:c:*"):
        valkey.delete(key)
    assert "not locked" in cells(operator)["until_when"]


def test_the_rows_are_shown_where_the_store_cannot_be_asked(operator: Client, drain: Drain) -> None:
    lock()
    drain()
    with override_settings(CACHES=NO_STORE):
        page = operator.get(url())
        assert "the store could not be asked" in page.content.decode()
        assert shown(operator) == [f"address {A}"]
        assert cells(operator)["turned_away"] == "-"
        lock(address=B)
        drain()
        page = operator.get(url())
        assert "As the database has it now, which decides." in page.content.decode()
        assert shown(operator) == [f"address {B}", f"address {A}"]


def test_the_database_is_what_decides_without_redis(operator: Client, drain: Drain, settings: Any) -> None:
    settings.AXES_STORE = "database"
    lock()
    assert "As the database has it now, which decides." in operator.get(url()).content.decode()
    assert cells(operator)["failures_of_limit"] == "3 of 3"


@override_settings(AXES_COOLOFF_TIME=timedelta(minutes=5))
def test_the_remaining_time_counts_down_to_the_end(operator: Client, drain: Drain) -> None:
    with time_machine.travel(datetime.now(UTC), tick=False) as clock:
        lock()
        drain()
        assert "5\xa0minutes" in cells(operator)["until_when"]
        clock.shift(270)
        assert "less than a minute" in cells(operator)["until_when"]
        clock.shift(30)
        assert shown(operator) == []


@override_settings(AXES_LOCKOUT_TIERS=[(2, timedelta(minutes=10)), (4, timedelta(hours=1))])
def test_a_tier_that_has_ended_is_near_the_next_one(operator: Client, drain: Drain) -> None:
    with time_machine.travel(datetime.now(UTC), tick=False) as clock:
        lock(failures=2)
        drain()
        assert "10\xa0minutes" in cells(operator)["until_when"]
        clock.shift(601)
        assert shown(operator) == []
        assert cells(operator, state="near")["failures_of_limit"] == "2 of 4"


def test_unlocking_asks_for_a_reason_and_is_recorded(operator: Client, drain: Drain) -> None:
    lock(address=A)
    lock(address=B)
    drain()
    one = AttemptCounter.objects.get(ip_address=A)
    asked = unlock(operator, one.pk)
    assert f"address {A} (3 of 3)" in asked.content.decode()
    assert not AccessReset.objects.exists()
    refused = unlock(operator, one.pk, reason="  ")
    assert "This field is required." in refused.content.decode()
    assert not failure(address=A)
    done = unlock(operator, one.pk, reason="phoned the helpdesk")
    assert texts(done) == [f"Unlocked: address {A}"]
    assert [failure(address=A), failure(address=B)] == [True, False]
    record = AccessReset.objects.get()
    assert (record.scope, record.ip_address, record.by, record.reason) == (
        "counter", A, "root", "phoned the helpdesk"
    )  # fmt: skip
    assert "one lockout" in operator.get(reverse("admin:axes_async_accessreset_changelist")).content.decode()


def test_the_button_of_one_lockout_unlocks_it(operator: Client, drain: Drain) -> None:
    lock()
    drain()
    one = Lockout.objects.get()
    link = url("unlock", one.pk.replace("_", "_5F"))
    assert link in operator.get(url()).content.decode()
    assert link in operator.get(url("change", one.pk.replace("_", "_5F"))).content.decode()
    assert operator.get(link).status_code == 200
    assert not failure()
    assert operator.post(link, {"reason": "phoned"}).status_code == 302
    assert failure()


def test_a_reset_of_an_address_ends_the_share_of_its_attempts_elsewhere(
    operator: Client, drain: Drain, settings: Any
) -> None:
    settings.AXES_LOCKOUT_RULES = [{"parameters": "ip_address", "limit": 2}, {"parameters": "username", "limit": 9}]
    lock("alice", A, failures=2)
    lock("alice", B, failures=1)
    drain()
    unlock(operator, AttemptCounter.objects.get(ip_address=A).pk, reason="phoned")
    assert AttemptCounter.objects.get(username_key=username_key("alice")).failures == 1
    assert [attempt.ip_address for attempt in AccessAttempt.objects.all()] == [B]


def test_a_lockout_that_has_ended_meanwhile_is_no_error(operator: Client, drain: Drain) -> None:
    lock()
    drain()
    digest = Lockout.objects.get().pk
    AttemptCounter.objects.all().delete()
    assert unlock(operator, digest, reason="late").status_code == 200
    missing = operator.get(url("unlock", digest.replace("_", "_5F")), follow=True)
    assert texts(missing) == ["This lockout has ended."]
    assert not AccessReset.objects.exists()


def test_more_than_are_unlocked_at_once_are_refused(
    operator: Client, drain: Drain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("axes_async.admin.lockouts.MOST_UNLOCKED", 1)
    lock(address=A)
    lock(address=B)
    drain()
    response = unlock(operator, *Lockout.objects.values_list("pk", flat=True), reason="phoned")
    assert texts(response) == ["At most 1 can be unlocked at once."]
    assert not failure(address=A)


def test_a_store_that_is_down_is_an_error_message_and_nothing_is_unlocked(operator: Client, drain: Drain) -> None:
    lock()
    drain()
    with override_settings(CACHES=NO_STORE, AXES_ON_STORE_FAILURE="deny"):
        response = unlock(operator, Lockout.objects.get().pk, reason="phoned")
    assert any("could not be reached" in text for text in texts(response))
    assert not failure()


@pytest.mark.parametrize(
    ("permissions", "statuses"),
    [((), [403, 403, 403]), (("view",), [200, 200, 403]), (("view", "unlock"), [200, 200, 200])],
)
def test_looking_and_unlocking_need_their_permissions(
    db: None, drain: Drain, permissions: tuple[str, ...], statuses: list[int]
) -> None:
    lock()
    drain()
    user = User.objects.create_user("clerk", is_staff=True)
    names = [f"{name}_lockout" for name in permissions]
    user.user_permissions.set(Permission.objects.filter(codename__in=names))
    assert user.user_permissions.count() == len(names)
    client = Client()
    client.force_login(user, BACKEND)
    digest = Lockout.objects.get().pk
    quoted = digest.replace("_", "_5F")
    answers = [client.get(url()), client.get(url("change", quoted)), client.get(url("unlock", quoted))]
    assert [answer.status_code for answer in answers] == statuses
    unlock(client, digest, reason="phoned")
    assert client.post(url("unlock", quoted), {"reason": "phoned"}).status_code in {302, 403}
    assert AccessReset.objects.exists() is ("unlock" in permissions)
    if permissions:
        assert (b"/unlock/" in answers[0].content) is ("unlock" in permissions)


@pytest.mark.parametrize("view", ["change", "history", "unlock"])
def test_what_no_database_can_hold_names_no_lockout(operator: Client, view: str) -> None:
    assert operator.get(url(view, "_00")).status_code == 302


@pytest.mark.parametrize("view", ["add", "delete"])
def test_counters_are_neither_made_nor_deleted_here(operator: Client, drain: Drain, view: str) -> None:
    lock()
    drain()
    one = Lockout.objects.get()
    assert operator.post(url(view, *([one.pk] if view == "delete" else [])), {"post": "yes"}).status_code == 403
    assert operator.post(url("change", one.pk.replace("_", "_5F")), {"failures": "0"}).status_code == 403
    assert Lockout.objects.get().failures == 3


def test_the_list_costs_the_same_few_queries_and_one_call_however_long_it_is(
    operator: Client, drain: Drain, django_assert_num_queries: Callable[..., Any], valkey: redis.Redis
) -> None:
    def calls() -> int:
        return sum(int(stat["calls"]) for name, stat in valkey.info("commandstats").items() if "fcall" in name)  # type: ignore[union-attr]

    lock()
    drain()
    operator.get(url())
    for number in range(20):
        lock(address=f"203.0.113.{number}")
    drain()
    before = calls()
    with django_assert_num_queries(6):  # Session, user, since when, count, rows, what is behind them.
        assert len(operator.get(url()).context["cl"].result_list) == 21
    assert calls() == before + 1


def test_of_very_many_lockouts_the_latest_are_looked_at_and_a_link_leads_on(
    operator: Client, drain: Drain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StateFilter, "bounds", Bounds(latest=2))
    for number in range(5):
        lock(address=f"203.0.113.{number}")
    drain()
    for number in range(5):
        at = datetime.now(UTC) - timedelta(minutes=number)
        AttemptCounter.objects.filter(ip_address=f"203.0.113.{number}").update(changed_at=at)
    first = operator.get(url()).context["cl"]
    assert [row.ip_address for row in first.result_list] == [f"203.0.113.{number}" for number in (0, 1, 2)]
    assert "were looked at" in first.note
    second = operator.get(url() + first.earlier).context["cl"]
    assert [row.ip_address for row in second.result_list] == ["203.0.113.3", "203.0.113.4"]
    assert second.note == ""


def test_a_users_page_leads_to_the_lockouts_of_that_user(operator: Client, drain: Drain, settings: Any) -> None:
    settings.AXES_LOCKOUT_PARAMETERS = ["username"]
    user = User.objects.create_user("al ice&co")
    lock("al ice&co")
    drain()
    page = operator.get(reverse("admin:auth_user_change", args=[user.pk])).content.decode()
    link = f"{url()}?q=al%20ice%26co"
    assert f'href="{link}"' in page
    assert "History" in page
    assert len(operator.get(link).context["cl"].result_list) == 1


@pytest.mark.parametrize("query", [{}, {"state": "near"}, {"rule": "1"}], ids=str)
def test_an_index_leads_to_the_few_lockouts_among_many_counters(
    operator: Client, drain: Drain, settings: Any, query: dict[str, str]
) -> None:
    settings.AXES_LOCKOUT_PARAMETERS = ["ip_address", "username"]
    lock()
    drain()
    now = timezone.now()
    many = [
        AttemptCounter(digest=f"{number:022}", parameters=1, failures=1, limit=9, changed_at=now, generation=1)
        for number in range(3000)
    ]
    AttemptCounter.objects.bulk_create(many, batch_size=500)
    if connection.vendor != "mysql":  # There, it commits.
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE")
    rows = operator.get(url(), query).context["cl"].queryset
    assert "axes_async_near" in rows[:50].explain()


UNKNOWN = ["ä", "\u0662", "\N{GRINNING FACE}", "x" * 22]


@pytest.mark.parametrize("key", UNKNOWN, ids=ascii)
@pytest.mark.parametrize("view", ["change", "delete", "unlock"])
def test_a_key_that_nothing_has_leads_back(operator: Client, view: str, key: str) -> None:
    lock()
    response = operator.get(url(view, quote(key)))
    assert response.status_code == (403 if view == "delete" else 302)
    assert not AccessReset.objects.exists()


@pytest.mark.parametrize("key", UNKNOWN, ids=ascii)
def test_an_action_leaves_out_a_key_that_nothing_has(operator: Client, drain: Drain, key: str) -> None:
    lock()
    drain()
    response = unlock(operator, key, Lockout.objects.get().pk, reason="phoned")
    assert texts(response) == [f"Unlocked: address {A}"]
