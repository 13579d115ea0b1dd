"""How long the lists of the admin take over tables of millions of rows, with every filter and every kind of search.

PostgreSQL makes the rows itself. What is looked for is what a planner guesses wrong: names that are everywhere, and
names and lockouts that are only among the oldest rows. Then the rate of the purge is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator
from statistics import median
from typing import Any

APPS = ("admin", "auth", "contenttypes", "messages", "sessions")
MIDDLEWARE = ("sessions.middleware.Session", "auth.middleware.Authentication", "messages.middleware.Message")
PROCESSORS = ("template.context_processors.request", "contrib.auth.context_processors.auth")
SITE = {
    "ROOT_URLCONF": "benchmarks.admin",
    "ALLOWED_HOSTS": ["testserver"],
    "STATIC_URL": "static/",
    "AUTHENTICATION_BACKENDS": ["django.contrib.auth.backends.ModelBackend"],
    "INSTALLED_APPS": [*(f"django.contrib.{app}" for app in APPS), "axes_async"],
    "MIDDLEWARE": [
        *(f"django.contrib.{name}Middleware" for name in MIDDLEWARE),
        "axes_async.middleware.AxesMiddleware",
    ],
    "TEMPLATES": [
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "APP_DIRS": True,
            "OPTIONS": {
                "context_processors": [
                    *(f"django.{name}" for name in PROCESSORS),
                    "django.contrib.messages.context_processors.messages",
                ]
            },
        }
    ],
}
os.environ.setdefault("BENCH_SETTINGS", json.dumps(SITE))
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "benchmarks.settings")

import django  # noqa: E402

django.setup()

from django.contrib import admin  # noqa: E402
from django.contrib.auth.models import User  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.db import connection  # noqa: E402
from django.test import Client  # noqa: E402
from django.test.utils import CaptureQueriesContext  # noqa: E402
from django.urls import path, reverse  # noqa: E402

from axes_async.client.keys import ip_address_key, username_key  # noqa: E402
from axes_async.inspection.search import LISTED  # noqa: E402
from axes_async.models import AccessAttempt, AccessFailureLog, AccessLog, AccessReset, AttemptCounter  # noqa: E402
from axes_async.stores.factory import get_store  # noqa: E402
from axes_async.tasks.purge import PORTION, delete_over_limit  # noqa: E402
from axes_async.tasks.sync import sync_store  # noqa: E402
from benchmarks.drain import digest  # noqa: E402
from benchmarks.figures import heading, row, verdict  # noqa: E402

urlpatterns = [path("admin/", admin.site.urls)]

TARGET = 200.0
"""Milliseconds that a page may take."""

TIMES = 5
PORTIONS = 500_000
"""Rows of one INSERT."""

WIDTHS = (18, 34, 8, 12, 10)
PROXY, NETWORK = "203.0.113.7", "198.51.100."

NAME = """CASE WHEN i <= {rows} / 50 THEN 'ancient' WHEN i % 10 = 0 THEN 'admin' WHEN i = {rows} / 2 THEN 'rare'
    WHEN i % 10 < 4 THEN 'user.' || i % 1000 ELSE 'guess.' || i END"""
PIECES = {
    "address": f"""CASE WHEN i % 10 = 5 THEN '{PROXY}'::inet WHEN i % 10 IN (6, 7) THEN ('{NETWORK}' || i % 256)::inet
    WHEN i % 100 = 8 THEN '2001:db8::'::inet + i ELSE '10.0.0.0'::inet + i % 16000000 END""",
    "event": "(lpad(to_hex(1600000000000 + i), 12, '0') || substr(md5('event' || i), 1, 20))::uuid",
    "request": "'Mozilla/5.0 (X11; Linux x86_64) Gecko', 'text/html', '/login/'",
    **{letter: digest(letter) for letter in "abc"},
}
AT = "now() - ({rows} - i) * interval '30 days' / {rows}"
"""Of row ``i``; the last one is of now."""

FILL = {
    AccessFailureLog: """
    INSERT INTO axes_async_accessfailurelog (username, ip_address, user_agent, http_accept, path_info, attempt_time,
        event_id, locked_out, repeats)
    SELECT {name}, {address}, {request}, {at}, {event}, i < {rows} / 2 AND i % 50 = 4,
        CASE WHEN i < {rows} / 2 AND i % 50 = 4 AND i % 500 <> 4 THEN 7 ELSE 0 END
    FROM generate_series({first}, {last}) i""",
    AccessAttempt: """
    INSERT INTO axes_async_accessattempt (username, ip_address, user_agent, http_accept, path_info, attempt_time, key,
        username_key, ip_address_key, user_agent_key, first_attempt_time, failures_since_start, expires_at)
    SELECT name, address, {request}, {at}, {a}, COALESCE(names.key, {b}),
        COALESCE(addresses.key, {c}), 'one', {at}, 1, NULL
    FROM (SELECT i, {name} AS name, {address} AS address FROM generate_series({first}, {last}) i) made
    LEFT JOIN known names ON names.value = name LEFT JOIN known addresses ON addresses.value = host(address)""",
    AccessLog: """
    INSERT INTO axes_async_accesslog (username, ip_address, user_agent, http_accept, path_info, attempt_time, event_id,
        session_hash, logout_time)
    SELECT {name}, {address}, {request}, {at}, {event}, '', CASE WHEN i < {rows} / 100 THEN now() END
    FROM generate_series({first}, {last}) i""",
    AttemptCounter: """
    INSERT INTO axes_async_attemptcounter (digest, parameters, username_key, ip_address_key, user_agent_key, ip_address,
        failures, since, "limit", expires_at, ends, blocked, changed_at, reservations, generation, void_generation,
        dirty)
    SELECT {c}, 1, '', {c}, '', '10.0.0.0'::inet + i, CASE WHEN i % 500 = 4 THEN 3 WHEN i % 10 > 7
        THEN 2 ELSE 1 END, {at}, 3, now() + interval '1 day', '', 0, {at}, '', 1, -1, FALSE
    FROM generate_series({first}, {last}) i""",
    AccessReset: """
    INSERT INTO axes_async_accessreset (reset_time, scope, username, ip_address, attempts, counters, by, reason)
    SELECT {at}, 'both', {name}, {address}, 1, 1, 'helpdesk', 'called' FROM generate_series({first}, {last}) i""",
}
SHARES = {AccessFailureLog: 1, AccessAttempt: 10, AccessLog: 10, AttemptCounter: 20, AccessReset: 100}
"""By what the number of failures is divided."""

KINDS: dict[str, Any] = {
    "accessfailurelog": AccessFailureLog,
    "accessattempt": AccessAttempt,
    "accesslog": AccessLog,
    "accessreset": AccessReset,
}

PER_PAGE = 100
"""Rows that Django's admin shows on a page, if not told otherwise."""

SEARCHES = {
    "a name that is everywhere": "admin",
    "the same in another form": "ＡＤＭＩＮ",
    "a name of a thousand": "user.77",
    "a name of one row": "rare",
    "a name of the oldest rows": "ancient",
    "a beginning of a thousand names": "user.*",
    "a beginning of millions": "guess.*",
    "a beginning of one name": "anci*",
    "an address that is everywhere": PROXY,
    "an IPv6 address": "2001:db8::6c",
    "an address of one row": "10.0.0.9",
    "a network of 256 addresses": NETWORK + "0/24",
    "a network of millions": "10.0.0.0/8",
    "a network of IPv6": "2001:db8::/32",
    "nothing": "nobody.at.all",
    "a beginning of nothing": "zzz*",
    "a network of nothing": "192.0.2.0/25",
}
TIME = {"the past hour": {"time": "hour"}, "the past week": {"time": "week"}}
FILTERS: dict[str, dict[str, dict[str, str]]] = {
    "accessfailurelog": {
        **TIME,
        **{f"outcome: {outcome}": {"outcome": outcome} for outcome in ("wrong", "locked", "away")},
        "locked, of the past week": {"outcome": "locked", "time": "week"},
        "locked, of admin": {"outcome": "locked", "q": "admin"},
        "locked, of a network": {"outcome": "locked", "q": "10.0.0.0/8"},
        "turned away, of user.*": {"outcome": "away", "q": "user.*"},
        "admin in the past hour": {"q": "admin", "time": "hour"},
        "the oldest first": {"o": "0"},
    },
    "accessattempt": {
        **TIME,
        "locked out": {"locked_out": "yes"},
        "not locked out": {"locked_out": "no"},
        "locked out, of admin": {"locked_out": "yes", "q": "admin"},
        "not locked out, of a network": {"locked_out": "no", "q": NETWORK + "0/24"},
        "not locked out, of an address": {"locked_out": "no", "q": PROXY},
    },
    "accesslog": {
        **TIME,
        "logged out": {"logged_out": "yes"},
        "not logged out": {"logged_out": "no"},
        "logged out, of admin": {"logged_out": "yes", "q": "admin"},
    },
    "accessreset": {**TIME, "scope: all": {"scope": "all"}, "a text in the reason": {"q": "call"}},
    "lockout": {"near the limit": {"state": "near"}, "of one rule": {"rule": "1"}},
}


def fill(failures: int) -> None:
    """Write the rows. Indexes are made afterwards, which takes a tenth of the time."""
    with connection.cursor() as cursor:
        cursor.execute("CREATE TEMPORARY TABLE known (value text PRIMARY KEY, key text)")
        names = ["admin", "rare", "ancient", *(f"user.{number}" for number in range(1000))]
        addresses = [PROXY, *(f"{NETWORK}{number}" for number in range(256))]
        known = [*((name, username_key(name)) for name in names), *((one, ip_address_key(one)) for one in addresses)]
        cursor.executemany("INSERT INTO known VALUES (%s, %s)", known)
        for model, statement in FILL.items():
            rows = failures // SHARES[model]
            cursor.execute(
                "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = %s AND indexdef NOT LIKE %s",
                [model._meta.db_table, "% UNIQUE %"],
            )
            indexes = cursor.fetchall()
            for name, _definition in indexes:
                cursor.execute(f'DROP INDEX "{name}"')
            for first in range(1, rows + 1, PORTIONS):
                last = min(rows, first + PORTIONS - 1)
                pieces = {**PIECES, "name": NAME.format(rows=rows), "at": AT.format(rows=rows)}
                cursor.execute(statement.format(first=first, last=last, rows=rows, **pieces))
            for _name, definition in indexes:
                cursor.execute(definition)
        cursor.execute("VACUUM ANALYZE")
        cursor.execute("CHECKPOINT")


def pages() -> Iterator[tuple[str, str, str, dict[str, str]]]:
    """Return what is looked at: the list, words for it, and its URL with its query."""
    for model, filters in FILTERS.items():
        changelist = reverse(f"admin:axes_async_{model}_changelist")
        yield model, "first page", changelist, {}
        last = 2 if model == "lockout" else max(1, min(LISTED, KINDS[model]._default_manager.count()) // PER_PAGE)
        yield model, "last page", changelist, {"p": str(last)}
        for words, query in filters.items():
            yield model, words, changelist, query
        searches = SEARCHES if model != "lockout" else {words: SEARCHES[words] for words in list(SEARCHES)[:3]}
        for words, text in searches.items():
            yield model, words, changelist, {"q": text}
        if model == "lockout":
            continue
        row = KINDS[model]._default_manager.first()
        yield model, "a row's own page", reverse(f"admin:axes_async_{model}_change", args=[row.pk]), {}


def measure(client: Client, url: str, query: dict[str, str]) -> tuple[float, float, int]:
    """Return the milliseconds of a page and of its SQL, the medians, and the number of its queries."""
    whole, sql, number = [], [], 0
    for _ in range(TIMES):
        started = time.perf_counter()
        answer = client.get(url, query)
        whole.append((time.perf_counter() - started) * 1000)
        if answer.status_code != 200:
            raise AssertionError(f"{url} {query}: {answer.status_code}")
    for _ in range(TIMES):
        with CaptureQueriesContext(connection) as queries:
            client.get(url, query)
        sql.append(sum(float(one["time"]) for one in queries) * 1000)
        number = len(queries)
    return median(whole), median(sql), number


def show_pages(only: str) -> bool:
    """Print a line for each page; return whether all met their target."""
    client = Client()
    client.force_login(User.objects.get_or_create(username="root", is_staff=True, is_superuser=True)[0])
    row("list", "what", "ms", "ms of SQL", "queries", "", widths=WIDTHS)
    slow = 0
    for model, words, url, query in pages():
        if only and only not in model:
            continue
        whole, sql, number = measure(client, url, query)
        slow += whole >= TARGET
        shown = verdict(whole, below=TARGET)
        row(model, words, f"{whole:,.0f}", f"{sql:,.0f}", str(number), shown, widths=WIDTHS)
    print(f"\n{slow} pages missed the target.\n")
    return not slow


def show_sizes() -> None:
    """Print how large the tables and their indexes are."""
    with connection.cursor() as cursor:
        for model in SHARES:
            cursor.execute(
                "SELECT c.relname, pg_relation_size(c.oid) FROM pg_class c LEFT JOIN pg_index i ON i.indexrelid = c.oid"
                " WHERE %s::regclass IN (c.oid, i.indrelid) ORDER BY i.indexrelid NULLS FIRST",
                [model._meta.db_table],
            )
            for name, size in cursor.fetchall():
                row("", name, f"{size / 1e6:,.0f} MB", widths=(2, 64, 12))


def show_purge(limit: int) -> bool:
    """Print how many rows a second go that are more than ``limit`` of a name."""
    started = time.perf_counter()
    gone = delete_over_limit(limit)
    rate = gone / (time.perf_counter() - started)
    print(f"\nPurge to {limit:,} rows a name, {PORTION:,} a transaction: {gone:,} rows, {rate:,.0f} rows/s, ", end="")
    print(verdict(rate, at_least=20_000))
    return rate >= 20_000


def main() -> int:
    """Print a line for each page, the sizes, and the purge's rate; return 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000, help="failures; a tenth of attempts and of logins")
    parser.add_argument("--keep", action="store_true", help="delete nothing: no purge")
    parser.add_argument("--list", default="", help="only that list, such as accessattempt")
    options = parser.parse_args()
    heading("benchmarks.admin", "Lists of the admin over millions of rows on PostgreSQL, medians of five")
    call_command("migrate", verbosity=0)
    sync_store(get_store())
    if not AccessFailureLog.objects.exists():  # Those of a database that was filled before are measured as they are.
        started = time.perf_counter()
        fill(options.rows)
        print(f"{options.rows:,} failures and the other rows made in {time.perf_counter() - started:,.0f} s\n")
    fine = show_pages(options.list)
    show_sizes()
    return 0 if (options.keep or show_purge(1000)) and fine else 1


if __name__ == "__main__":
    raise SystemExit(main())
