"""The example site as ``make run`` starts it: Valkey, web server, worker and beat as processes, spoken to over HTTP."""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import requests

from tests.example import PASSWORD, Site, example_site, token_in
from tests.waiting import PATIENCE, until


@pytest.fixture
def start_site(tmp_path: Path) -> Iterator[Callable[..., Site]]:
    """Return a function that starts the example site on a database, with some environment variables."""
    with ExitStack() as running:
        yield lambda database, **variables: running.enter_context(example_site(tmp_path, database, **variables))


@pytest.mark.timeout(300)
def test_guesser_is_locked_out_recorded_and_let_in_after_a_reset(start_site: Callable[..., Site]) -> None:
    site = start_site("postgres", AXES_COOLOFF_SECONDS="3600")
    guesses = [site.api(f"guess {number}") for number in range(3)]
    assert [response.status_code for response in guesses] == [403, 403, 429]
    assert 0 < int(guesses[-1].headers["Retry-After"]) <= 3600

    refused = site.api(PASSWORD)
    assert (refused.status_code, "sessionid" in refused.cookies) == (429, False)
    assert refused.json()["username"] == "demo"

    until(lambda: len(site.rows("accessfailurelog")) == 4, what="the worker writes")
    assert [locked for (locked,) in site.rows("accessfailurelog", "locked_out")] == [False, False, True, True]
    columns = "username", "host(ip_address)", "failures_since_start", "path_info"
    assert site.rows("accessattempt", *columns) == [("demo", "127.0.0.1", 3, "/api/login/")]

    assert "1 attempts removed." in site.manage("axes_reset", "127.0.0.1")
    assert site.rows("accessattempt") == []

    browser = requests.Session()
    welcome = site.form(browser, PASSWORD)
    assert welcome.ok
    assert "demo" in welcome.text
    fields = {"csrfmiddlewaretoken": token_in(welcome.text)}
    assert browser.post(f"{site.url}/logout/", data=fields, timeout=PATIENCE).ok
    ended = until(lambda: [row for row in site.rows("accesslog", "username", "attempt_time", "logout_time") if row[2]])
    ((username, began, over),) = ended
    assert username == "demo"
    assert over > began

    assert site.api("guess").status_code == 403
    until(lambda: site.rows("accessattempt", "failures_since_start") == [(1,)], what="the worker writes")
    site.query("UPDATE axes_async_accessattempt SET expires_at = attempt_time RETURNING id")
    until(lambda: site.rows("accessattempt") == [], what="beat and worker remove what has expired")
    results = "SELECT task_name FROM django_celery_results_taskresult"
    until(lambda: ("axes_async.expire",) in site.query(results), what="the result is stored")


@pytest.mark.long
@pytest.mark.timeout(300)
def test_guesser_is_let_in_after_the_cool_off(start_site: Callable[..., Site]) -> None:
    site = start_site("sqlite", AXES_COOLOFF_SECONDS="3")
    stranger = requests.Session()
    began = time.monotonic()
    while (locked := site.form(stranger, "wrong")).status_code != 429:  # On a slow machine the first may expire.
        pass
    assert 0 < int(locked.headers["Retry-After"]) <= 3
    until(lambda: site.api(PASSWORD).status_code == 200, what="the cool-off is over")
    assert time.monotonic() - began > 3
    until(lambda: site.rows("accessattempt") == [], what="beat and worker remove what has expired")


@pytest.mark.long
@pytest.mark.timeout(300)
def test_simulated_attack_gets_the_limit_through_and_prints_the_rows(start_site: Callable[..., Site]) -> None:
    site = start_site("sqlite")
    box = site.box()
    assert (box["Ready"], box["Admin"]) == (f"{site.url}/", f"{site.url}/admin/")
    assert (box["Login"], box["Stop"]) == (f"demo / {PASSWORD}", "Ctrl-C")
    told = site.typed(*shlex.split(box["Attack"]), "--guesses", "40", "--parallel", "20")
    assert "access attempt" in told.lower() or "AccessAttempt" in told
    assert site.rows("accessattempt", "failures_since_start") == [(3,)]
    task = site.manage("axes_reset", "--queue").strip()
    assert re.fullmatch(r"[0-9a-f-]{36}", task)
    until(lambda: site.rows("accessattempt") == [], what="the worker does the reset")
    assert site.api(PASSWORD).status_code == 200
