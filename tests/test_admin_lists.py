"""The admin's lists of long tables: what is typed is found, by indexes, and no page reads more than it may."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from copy import copy
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
import time_machine
from django.apps import apps
from django.contrib.auth.models import User
from django.db import connection
from django.http import QueryDict
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from axes_async.admin.columns import to_the_second
from axes_async.inspection import attempts, search
from axes_async.models import AccessAttempt, AccessFailureLog, AccessLog, AccessReset, AttemptCounter
from tests.actions import failure
from tests.labels import label

pytestmark = [pytest.mark.django_db, pytest.mark.database]

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
MODELS = ("accessattempt", "accesslog", "accessfailurelog")
CLIENTS = (
    ("alice", "203.0.113.7"),
    ("ALICE", "203.0.113.8"),
    ("alison", "203.0.112.9"),
    ("bob", "198.51.100.8"),
    ("bob", "2001:db8:1::7"),
    ("100%", "2001:db8:2::7"),
)


@pytest.fixture
def client(db: None) -> Iterator[Client]:
    """Return a superuser's browser, at noon."""
    with time_machine.travel(NOON, tick=False):
        client = Client()
        client.force_login(User.objects.create_superuser("root"), "tests.site.CountingBackend")
        AccessLog.objects.all().delete()
        yield client


@pytest.fixture
def rows(client: Client) -> None:
    """Write a row of each client to each table, one a minute."""
    for place, (username, address) in enumerate(CLIENTS):
        who: dict[str, Any] = {"username": username, "ip_address": address}
        at = NOON - timedelta(minutes=place)
        AccessAttempt.objects.create(**who, attempt_time=at, failures_since_start=1)
        AccessLog.objects.create(**who, attempt_time=at)
        AccessFailureLog.objects.create(**who, attempt_time=at)
        AccessReset.objects.create(**who, reset_time=at, scope="both", by="helen", reason="called the helpdesk")


def listed(client: Client, model: str, **query: Any) -> Any:
    response = client.get(reverse(f"admin:axes_async_{model}_changelist"), query)
    assert response.status_code == 200
    return response.context["cl"]


def found(client: Client, model: str, **query: Any) -> list[tuple[str, str]]:
    return [(row.username, row.ip_address) for row in listed(client, model, **query).result_list]


def statements(queries: CaptureQueriesContext) -> list[str]:
    """Return what was asked of tables that may be long."""
    return [query["sql"] for query in queries if re.search(r"axes_async_access", query["sql"])]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    ("term", "addresses"),
    [
        ("alice", {"203.0.113.7"}),
        (" alice ", {"203.0.113.7"}),
        ("ａｌｉｃｅ", {"203.0.113.7"}),
        ("bob", {"198.51.100.8", "2001:db8:1::7"}),
        ("ali", set()),
        ("ali*", {"203.0.113.7", "203.0.112.9"}),
        ("ALI*", {"203.0.113.7", "203.0.113.8", "203.0.112.9"}),
        ("100%", {"2001:db8:2::7"}),
        ("%*", set()),
        ("1*", {"2001:db8:2::7"}),
        ("203.0.113.7", {"203.0.113.7"}),
        ("::ffff:203.0.113.7", {"203.0.113.7"}),
        ("2001:DB8:1:0::7", {"2001:db8:1::7"}),
        ("203.0.113.0/24", {"203.0.113.7", "203.0.113.8"}),
        ("203.0.113.99/23", {"203.0.113.7", "203.0.113.8", "203.0.112.9"}),
        ("203.0.0.0/8", {"203.0.113.7", "203.0.113.8", "203.0.112.9"}),
        ("198.51.100.8/32", {"198.51.100.8"}),
        ("2001:db8:1::/48", {"2001:db8:1::7"}),
        ("2001:db8:1::/64", {"2001:db8:1::7"}),
        ("2001:db8::/32", {"2001:db8:1::7", "2001:db8:2::7"}),
        ("192.0.2.0/24", set()),
    ],
)
def test_rows_are_found_by_what_was_typed(
    client: Client, rows: None, model: str, term: str, addresses: set[str]
) -> None:
    expected = set(addresses)
    if "203.0.113.7" in addresses and term.strip() in {"alice", "ａｌｉｃｅ", "ali*"}:
        is_folded = connection.vendor == "mysql" or (model == "accessattempt" and "*" not in term)
        expected |= {"203.0.113.8"} if is_folded else set()  # A key, or a collation, that takes both names for one.
    assert {address for _, address in found(client, model, q=term)} == expected


ODD = (
    *("x" * 3000, "*" * 50, "10.0.0.0/99", "10.0.0/8", "::/0", "0.0.0.0/0", "/", "fe80::1%eth0/64"),
    *("\U0010ffff*", "\ud7ff*", "\u3164", "a\ufffd*", "%_\\*"),
)


@pytest.mark.parametrize("model", [*MODELS, "accessreset", "lockout"])
@pytest.mark.parametrize("term", ODD, ids=ascii)
def test_odd_input_is_no_error(client: Client, rows: None, model: str, term: str) -> None:
    url = reverse(f"admin:axes_async_{model}_changelist")
    assert client.get(url, {"q": term}).status_code == 200


@pytest.mark.parametrize("model", [*MODELS, "accessreset", "lockout"])
def test_a_nul_character_is_refused_in_words(client: Client, rows: None, model: str) -> None:
    response = client.get(reverse(f"admin:axes_async_{model}_changelist"), {"q": "ali\x00ce"})
    assert [str(message) for message in response.context["messages"]] == ["Null characters are not allowed."]


@pytest.mark.parametrize("model", [*MODELS, "accessreset"])
def test_the_page_says_what_can_be_typed(client: Client, rows: None, model: str) -> None:
    page = client.get(reverse(f"admin:axes_async_{model}_changelist")).content.decode()
    assert "a network such as 192.0.2.0/24" in page


@pytest.mark.parametrize(
    ("term", "number"), [("helen", 6), ("helpdesk", 6), ("lic", 2), ("203.0.113.0/24", 2), ("x", 0)]
)
def test_unlocks_are_found_by_parts_of_their_texts_too(client: Client, rows: None, term: str, number: int) -> None:
    assert len(found(client, "accessreset", q=term)) == number


@pytest.mark.parametrize("model", [*MODELS, "accessreset"])
@pytest.mark.parametrize(("span", "number"), [("hour", 1), ("day", 2), ("week", 3), ("month", 4), ("rubbish", 5)])
def test_rows_of_a_span_of_time(client: Client, model: str, span: str, number: int) -> None:
    table: Any = apps.get_model("axes_async", model)
    for hours in (0, 2, 48, 24 * 20, 24 * 60):
        at = NOON - timedelta(hours=hours)
        if model == "accessreset":
            table.objects.create(reset_time=at, scope="all")
        else:
            of_attempts = {"failures_since_start": 1} if model == "accessattempt" else {}
            table.objects.create(username=f"user{hours}", attempt_time=at, **of_attempts)
    assert listed(client, model, time=span).result_count == number


def test_logins_by_whether_they_have_ended(client: Client, rows: None) -> None:
    AccessLog.objects.filter(username="bob").update(logout_time=NOON)
    counts = {
        choice: listed(client, "accesslog", logged_out=choice).result_count for choice in ("yes", "no", "rubbish")
    }
    assert counts == {"yes": 2, "no": 4, "rubbish": 6}


def test_unlocks_by_their_scope(client: Client, rows: None) -> None:
    AccessReset.objects.filter(username="bob").update(scope="all")
    assert [listed(client, "accessreset", scope=scope).result_count for scope in ("all", "either", "no")] == [2, 0, 6]


@pytest.mark.parametrize("model", ["accesslog", "accessfailurelog"])
@pytest.mark.parametrize("term", ["bob", "203.0.113.7", "ali*", "203.0.113.0/24"])
def test_of_too_many_rows_the_latest_are_listed_and_a_link_leads_on(
    client: Client, model: str, term: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bounds = search.Bounds(found=4, latest=4)
    monkeypatch.setattr("axes_async.admin.lists.BOUNDS", bounds)
    table: Any = apps.get_model("axes_async", model)
    for minutes in range(10):
        name = "alice" if "*" in term else "bob"
        table.objects.create(username=name, ip_address="203.0.113.7", attempt_time=NOON - timedelta(minutes=minutes))
    seen, query = [], {"q": term}
    for _ in range(5):
        changes = listed(client, model, **query)
        seen += [row.attempt_time for row in changes.result_list]
        if not changes.earlier:
            break
        assert changes.note == f"Rows since {to_the_second(changes.since)} were looked at."
        query = {**query, "before": QueryDict(changes.earlier[1:])["before"]}
    assert sorted(set(seen)) == [NOON - timedelta(minutes=minutes) for minutes in reversed(range(10))]
    assert changes.note == ""


@pytest.mark.parametrize(
    ("model", "query"),
    [
        ("accessattempt", {"q": "bob"}),
        ("accessattempt", {"q": "bo*"}),
        ("accessattempt", {"q": "203.0.113.0/24"}),
        ("accessattempt", {"q": "203.0.0.0/8"}),
        ("accessattempt", {"locked_out": "no"}),
        ("accesslog", {"logged_out": "yes"}),
        ("accesslog", {"logged_out": "no"}),
        ("accessfailurelog", {"outcome": "wrong"}),
    ],
    ids=str,
)
def test_where_no_index_leads_the_latest_rows_alone_are_looked_at(
    client: Client, model: str, query: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bounds = search.Bounds(found=2, latest=4)
    for name in ("axes_async.admin.lists.BOUNDS", "axes_async.admin.filters.BOUNDS", "axes_async.admin.filters.NARROW"):
        monkeypatch.setattr(name, bounds)
    table: Any = apps.get_model("axes_async", model)
    of_attempts = {"failures_since_start": 1} if model == "accessattempt" else {}
    for number in range(9):
        at = NOON - timedelta(minutes=number)
        row = table(username="bob", ip_address=f"203.0.113.{number}", attempt_time=at, **of_attempts)
        if query.get("logged_out") == "yes":
            row.logout_time = NOON
        row.save()
    changes = listed(client, model, **query)
    assert [row.attempt_time for row in changes.result_list] == [NOON - timedelta(minutes=n) for n in range(5)]
    assert to_the_second(NOON - timedelta(minutes=4)) in changes.note


def test_a_full_list_leads_on_to_earlier_rows(client: Client, rows: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("axes_async.admin.lists.LISTED", 4)
    page = client.get(reverse("admin:axes_async_accessfailurelog_changelist")).content.decode()
    (link,) = re.findall(r'<a href="([^"]*)">Earlier rows</a>', page)
    response = client.get(reverse("admin:axes_async_accessfailurelog_changelist") + link.replace("&amp;", "&"))
    assert [row.username for row in response.context["cl"].result_list] == ["bob", "bob", "100%"], "none is left out"
    assert "Earlier rows" not in response.content.decode()


def test_a_choice_of_time_leads_back_from_earlier_rows(client: Client, rows: None) -> None:
    url = reverse("admin:axes_async_accesslog_changelist")
    page = client.get(url, {"before": "2026-01-01T00:00:00+00:00", "logged_out": "no"}).content.decode()
    for text, query in (("All", "?logged_out=no"), ("Past hour", "?logged_out=no&amp;time=hour")):
        assert f'<a href="{query}">{text}</a>' in page


@pytest.mark.parametrize("before", ["rubbish", "2026-99-99", "9999-12-31T23:59:59-23:59", ""])
def test_a_broken_time_is_as_none(client: Client, rows: None, before: str) -> None:
    assert listed(client, "accesslog", before=before).result_count == 6


@pytest.mark.parametrize("model", [*MODELS, "accessreset"])
def test_lists_are_sorted_by_time_alone(client: Client, rows: None, model: str) -> None:
    latest_first = found(client, model)
    columns = listed(client, model).list_display
    assert found(client, model, o=columns.index("shown_time")) == latest_first[::-1]
    for column in ("ip_address", "short_username"):
        assert found(client, model, o=columns.index(column)) == latest_first


def test_a_page_behind_the_last_is_not_looked_for(client: Client) -> None:
    AccessLog.objects.bulk_create(AccessLog(event_id=uuid4()) for _ in range(101))
    url = reverse("admin:axes_async_accesslog_changelist")
    with CaptureQueriesContext(connection) as queries:
        response: Any = client.get(url, {"p": "100000"})
    assert (response.status_code, response.url) == (302, f"{url}?e=1")
    assert len(statements(queries)) == 1, "the rows were counted, to a bound"


@pytest.mark.parametrize(
    ("rule", "tries", "locked"),
    [
        (["username", "ip_address"], ["alice@192.0.2.1 a"] * 3 + ["bob@192.0.2.2 a"] * 3, {"alice", "bob"}),
        (["username", "ip_address"], ["alice@192.0.2.1 a"] * 2 + ["bob@192.0.2.2 a"] * 3, {"bob"}),
        ("user_agent", ["alice@192.0.2.1 a"] * 2 + ["bob@192.0.2.2 a"], {"alice", "bob"}),
        ("username", ["alice@192.0.2.1 a"] * 3 + ["bob@192.0.2.1 a"], {"alice"}),
    ],
    ids=label,
)
def test_attempts_by_whether_they_are_locked_out(
    client: Client, drain: Callable[[], int], settings: Any, rule: Any, tries: list[str], locked: set[str]
) -> None:
    settings.AXES_LOCKOUT_PARAMETERS = [rule]
    # Of pairs, neither of these is locked, though each of their values is that of somebody who is.
    crossed = ["alice@192.0.2.2 b", "bob@192.0.2.1 b"]
    for one in [*crossed, *tries] if isinstance(rule, list) else [*tries, "eve@192.0.2.9 b"]:
        username, address, agent = one.replace("@", " ").split()
        failure(username, address, agent)
    drain()
    everybody = {(row.username, row.ip_address) for row in AccessAttempt.objects.all()}
    of_tries = {tuple(one.partition(" ")[0].split("@")) for one in tries}
    expected = {who for who in of_tries if who[0] in locked}
    assert set(found(client, "accessattempt", locked_out="yes")) == expected
    assert set(found(client, "accessattempt", locked_out="no")) == everybody - expected


def test_of_many_lockouts_the_latest_are_looked_for(
    client: Client, drain: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "LATEST", 1)
    for address in ("192.0.2.1", "192.0.2.2"):
        for _ in range(3):
            failure("alice", address)
    drain()
    AttemptCounter.objects.filter(ip_address="192.0.2.1").update(changed_at=NOON + timedelta(hours=1))
    assert found(client, "accessattempt", locked_out="yes") == [("alice", "192.0.2.1")]


PLANS = [
    (model, query)
    for model, queries in {
        "accessfailurelog": [{}, {"time": "week"}, {"outcome": "locked"}, {"outcome": "away"}, {"o": "1"}],
        "accesslog": [{}, {"time": "day"}, {"logged_out": "yes"}],
        "accessattempt": [{}, {"time": "hour"}],
        "accessreset": [{}, {"scope": "all"}, {"q": "helen"}],
    }.items()
    for query in queries
] + [
    (model, {"q": term})
    for model in MODELS
    for term in ("alice", "ＢＯＢ", "ali*", "203.0.113.7", "203.0.113.0/24", "2001:db8::/32", "10.0.0.0/8")
]


@pytest.mark.parametrize(("model", "query"), PLANS, ids=str)
def test_an_index_leads_to_every_row(client: Client, rows: None, model: str, query: dict[str, str]) -> None:
    if connection.vendor != "postgresql":
        pytest.skip("plans are those of PostgreSQL")
    with CaptureQueriesContext(connection) as queries:
        listed(client, model, **query)
    asked = statements(queries)
    assert asked
    assert not [
        sql for sql in asked if "DISTINCT" in sql or "COUNT(" in sql.partition("FROM (")[0].partition("LIMIT")[2]
    ]
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")
        for sql in asked:
            cursor.execute(f"EXPLAIN {sql}")
            plan = "\n".join(line for (line,) in cursor.fetchall())
            assert "Seq Scan on axes_async" not in plan, f"{sql}\n{plan}"
        cursor.execute("SET LOCAL enable_seqscan = on")


@pytest.mark.parametrize(
    ("model", "query", "numbers"),
    [
        ("accessfailurelog", {"q": "alice"}, [3, 3]),
        ("accessfailurelog", {"q": "Alice"}, [4, 4]),
        # Up to two values are asked for one by one.
        ("accessfailurelog", {"q": "ali*"}, [5, 4]),
        ("accessfailurelog", {"q": "203.0.113.0/24"}, [5, 5]),
        ("accesslog", {"q": "203.0.113.7", "logged_out": "no"}, [3, 3]),
        ("accessattempt", {"q": "alice"}, [4, 4]),
        ("accessattempt", {"q": "alice", "locked_out": "yes"}, [3, 3]),
        ("accessattempt", {"locked_out": "no"}, [10, 10]),
    ],
    ids=str,
)
def test_a_search_costs_a_few_queries_however_many_rows(
    client: Client, rows: None, model: str, query: dict[str, str], numbers: list[int]
) -> None:
    if connection.vendor != "postgresql":
        pytest.skip("others have no recursion along an index")
    counts = []
    for _ in range(2):
        with CaptureQueriesContext(connection) as queries:
            listed(client, model, **query)
        counts.append(len([one for one in queries if "axes_async" in one["sql"]]))
        table: Any = apps.get_model("axes_async", model)
        more = [copy(row) for row in table.objects.all() for _ in range(5)]
        for place, row in enumerate(more):
            row.pk, row.username = None, f"{row.username}{place // 3 or ''}"
            if model == "accessattempt":
                row.ip_address, row.key = f"192.0.2.{place}", ""
            else:
                row.event_id = table._meta.get_field("event_id").get_default()
        table.objects.bulk_create(more)
    assert counts == numbers
