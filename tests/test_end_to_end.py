"""The example site as ``make run`` starts it: Valkey, web server, worker and beat as processes, spoken to over HTTP."""

from __future__ import annotations

import os
import re
import shlex
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import requests

from tests import servers
from tests.waiting import PATIENCE, until

ROOT = Path(__file__).resolve().parent.parent
PASSWORD = "demo-password-1"

Query = Callable[[str], list[tuple[Any, ...]]]


class Site:
    """A running example site."""

    def __init__(self, environment: dict[str, str], query: Query) -> None:
        """Start all lines of the Procfile."""
        self.environment, self.query = environment, query
        self.url = f"http://127.0.0.1:{environment['PORT']}"
        self.printed = Path(environment["VAR_DIR"]) / "printed"
        with self.printed.open("w") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "example_project.run"],
                cwd=ROOT,
                env=environment,
                stdout=file,
                stderr=subprocess.STDOUT,
            )

    def says_ready(self) -> bool:
        assert self.process.poll() is None, "the site has stopped"
        return "| Ready" in self.printed.read_text()

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=PATIENCE)
        print(self.printed.read_text())

    def box(self) -> dict[str, str]:
        """Return what the box below the banners tells."""
        return dict(re.findall(r"^\| (\w+) +(.+?) +\|$", self.printed.read_text(), re.MULTILINE))

    def manage(self, *arguments: str) -> str:
        return self.typed(sys.executable, "example_project/manage.py", *arguments)

    def typed(self, *words: str) -> str:
        """Run a command in another terminal."""
        done = subprocess.run(
            words,
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def rows(self, table: str, *columns: str) -> list[tuple[Any, ...]]:
        return self.query(f"SELECT {', '.join(columns or ('id',))} FROM axes_async_{table} ORDER BY id")  # noqa: S608

    def api(self, password: str, username: str = "demo") -> requests.Response:
        fields = {"username": username, "password": password}
        return requests.post(f"{self.url}/api/login/", json=fields, timeout=PATIENCE)

    def form(self, session: requests.Session, password: str) -> requests.Response:
        page = session.get(f"{self.url}/login/", timeout=PATIENCE)
        fields = {"username": "demo", "password": password, "csrfmiddlewaretoken": token_in(page.text)}
        return session.post(f"{self.url}/login/", data=fields, timeout=PATIENCE)


def token_in(page: str) -> str:
    found = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page)
    assert found is not None
    return found[1]


@pytest.fixture
def start_site(tmp_path: Path) -> Iterator[Callable[..., Site]]:
    """Return a function that starts the example site on a database, with some environment variables."""
    port, started = servers.Port(), []

    def start(database: str, **variables: str) -> Site:
        environment = {name: value for name, value in os.environ.items() if name not in {"REDIS_URL", "DATABASE_URL"}}
        environment |= {
            "VAR_DIR": str(tmp_path),
            "PORT": str(port.number),
            "DJANGO_SETTINGS_MODULE": "example_project.settings",
            "AXES_DRAIN_EVERY": "1",
            "AXES_EXPIRE_EVERY": "1",
            **variables,
        }
        query = on_sqlite(tmp_path / "db.sqlite3")
        if database == "postgres":
            name = f"site{port.number}"
            server = servers.postgres_server()
            server.create_database(name)
            query = on_postgres(server.options, name)
            folder = server.options["HOST"].replace("/", "%2F")
            environment["DATABASE_URL"] = f"postgresql://postgres@{folder}/{name}"
        port.lend()
        started.append(Site(environment, query))
        until(started[-1].says_ready, what="the site is ready")
        return started[-1]

    yield start
    for site in started:
        site.stop()
    port.close()


def on_sqlite(file: Path) -> Query:
    def query(text: str) -> list[tuple[Any, ...]]:
        connection = sqlite3.connect(file, timeout=PATIENCE)
        try:
            return connection.execute(text).fetchall()
        finally:
            connection.close()

    return query


def on_postgres(options: dict[str, Any], name: str) -> Query:
    def query(text: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(host=options["HOST"], user=options["USER"], dbname=name) as connection:
            return connection.execute(text.encode()).fetchall()

    return query


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
    results = "SELECT task_name FROM django_celery_results_taskresult"
    assert ("axes_async.expire",) in site.query(results)


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
