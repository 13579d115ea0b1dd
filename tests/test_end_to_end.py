"""The example site as ``make run`` starts it: Valkey, web server, worker and beat as processes, spoken to over HTTP."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests import servers
from tests.waiting import PATIENCE, until

ROOT = Path(__file__).resolve().parent.parent
COOLOFF = 8
PASSWORD = "demo-password-1"


class Site:
    """A running example site."""

    def __init__(self, environment: dict[str, str], port: int) -> None:
        """Start all lines of the Procfile."""
        self.environment, self.url = environment, f"http://127.0.0.1:{port}"
        self.process = subprocess.Popen([sys.executable, "-m", "example_project.run"], cwd=ROOT, env=environment)

    def is_up(self) -> bool:
        assert self.process.poll() is None, "the site has stopped"
        try:
            return requests.get(self.url, timeout=PATIENCE).ok
        except requests.ConnectionError:
            return False

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=PATIENCE)

    def manage(self, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "example_project/manage.py", *arguments],
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def rows(self, model: str) -> list[dict[str, Any]]:
        return [row["fields"] for row in json.loads(self.manage("dumpdata", f"axes_async.{model}"))]

    def api(self, password: str, username: str = "demo") -> requests.Response:
        return requests.post(
            f"{self.url}/api/login/", json={"username": username, "password": password}, timeout=PATIENCE
        )

    def form(self, session: requests.Session, password: str) -> requests.Response:
        page = session.get(f"{self.url}/login/", timeout=PATIENCE)
        fields = {"username": "demo", "password": password, "csrfmiddlewaretoken": token_in(page.text)}
        return session.post(f"{self.url}/login/", data=fields, timeout=PATIENCE)


def token_in(page: str) -> str:
    found = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page)
    assert found is not None
    return found[1]


@pytest.fixture(params=["sqlite", "postgres"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    """Return the example site, running on each database in turn."""
    port = servers.Port()
    environment = {name: value for name, value in os.environ.items() if name not in {"REDIS_URL", "DATABASE_URL"}}
    environment |= {
        "VAR_DIR": str(tmp_path),
        "PORT": str(port.number),
        "DJANGO_SETTINGS_MODULE": "example_project.settings",
        "AXES_COOLOFF_SECONDS": str(COOLOFF),
        "AXES_DRAIN_EVERY": "1",
        "AXES_EXPIRE_EVERY": "1",
    }
    if request.param == "postgres":
        database = servers.postgres()
        name = f"site{port.number}"
        servers.postgres_server().create_database(name)
        environment["DATABASE_URL"] = f"postgresql://{database['USER']}@{database['HOST'].replace('/', '%2F')}/{name}"
    port.lend()
    site = Site(environment, port.number)
    try:
        until(site.is_up, what="the site is up")
        yield site
    finally:
        site.stop()
        port.close()


@pytest.mark.timeout(240)
def test_a_guesser_is_locked_out_recorded_reset_and_let_in_after_the_cool_off(site: Site) -> None:
    guesses = [site.api(f"guess {number}") for number in range(3)]
    assert [response.status_code for response in guesses] == [403, 403, 429]
    assert 0 < int(guesses[-1].headers["Retry-After"]) <= COOLOFF

    refused = site.api(PASSWORD)
    assert (refused.status_code, "sessionid" in refused.cookies) == (429, False)
    assert 0 < int(refused.headers["Retry-After"]) <= COOLOFF
    assert refused.json()["username"] == "demo"

    failures = until(lambda: len(rows := site.rows("accessfailurelog")) >= 4 and rows)
    assert [row["locked_out"] for row in failures[-4:]].count(False) == 2
    (attempt,) = site.rows("accessattempt")
    assert (attempt["username"], attempt["ip_address"], attempt["failures_since_start"]) == ("demo", "127.0.0.1", 3)
    assert attempt["path_info"] == "/api/login/"

    assert "1 attempts removed." in site.manage("axes_reset", "127.0.0.1")
    assert site.rows("accessattempt") == []

    browser = requests.Session()
    welcome = site.form(browser, PASSWORD)
    assert welcome.ok
    assert "demo" in welcome.text
    assert browser.post(
        f"{site.url}/logout/", data={"csrfmiddlewaretoken": token_in(welcome.text)}, timeout=PATIENCE
    ).ok
    log = until(lambda: [row for row in site.rows("accesslog") if row["logout_time"]])[0]
    assert (log["username"], log["ip_address"]) == ("demo", "127.0.0.1")
    assert log["logout_time"] > log["attempt_time"]

    stranger = requests.Session()
    assert [site.form(stranger, "wrong").status_code for _ in range(2)] == [200, 200]
    locked = site.form(stranger, "wrong")
    assert locked.status_code == 429
    wait = int(locked.headers["Retry-After"])
    assert site.api(PASSWORD).status_code == 429
    until(lambda: site.api(PASSWORD).status_code == 200, seconds=wait + 5)
    until(lambda: site.rows("accessattempt") == [])

    tasks = {row["fields"]["task_name"] for row in json.loads(site.manage("dumpdata", "django_celery_results"))}
    assert "axes_async.expire" in tasks


@pytest.mark.timeout(120)
@pytest.mark.parametrize("site", ["sqlite"], indirect=True)
def test_a_simulated_attack_gets_the_limit_through_and_prints_the_rows(site: Site) -> None:
    told = site.manage("simulate_attack", "--url", site.url, "--guesses", "40", "--parallel", "20")
    assert "AccessAttempt" in told or "access attempt" in told.lower()
    (attempt,) = site.rows("accessattempt")
    assert attempt["failures_since_start"] == 3
    task = site.manage("axes_reset", "--queue").strip()
    assert re.fullmatch(r"[0-9a-f-]{36}", task)
    until(lambda: site.rows("accessattempt") == [])
    assert site.api(PASSWORD).status_code == 200
