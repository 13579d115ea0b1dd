"""The example site as ``make run`` starts it: Valkey, web server, worker and beat as processes."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import psycopg
import requests

from tests import servers
from tests.waiting import PATIENCE, until

ROOT = Path(__file__).resolve().parent.parent
PASSWORD = "demo-password-1"

QUICK_SETTINGS = """
from example_project.settings import *
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
"""
"""Those of the example site, where a password takes a quarter of a second of computing."""

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


@contextmanager
def example_site(folder: Path, database: str, **variables: str) -> Iterator[Site]:
    """Run the example site on a database, with some environment variables; what it writes goes to ``folder``."""
    (folder / "quick_settings.py").write_text(QUICK_SETTINGS)
    port = servers.Port()
    environment = {name: value for name, value in os.environ.items() if name not in {"REDIS_URL", "DATABASE_URL"}}
    environment |= {
        "VAR_DIR": str(folder),
        "PORT": str(port.number),
        "DJANGO_SETTINGS_MODULE": "quick_settings",
        "PYTHONPATH": str(folder),
        "AXES_DRAIN_EVERY": "1",
        "AXES_EXPIRE_EVERY": "1",
        **variables,
    }
    asking: AbstractContextManager[Query] = nullcontext(on_sqlite(folder / "db.sqlite3"))
    if database == "postgres":
        name = f"site{port.number}"
        server = servers.postgres_server()
        server.create_database(name)
        asking = on_postgres(server.options, name)
        host = server.options["HOST"].replace("/", "%2F")
        environment["DATABASE_URL"] = f"postgresql://postgres@{host}/{name}"
    port.lend()
    with asking as query:
        site = Site(environment, query)
        try:
            until(site.says_ready, what="the site is ready")
            yield site
        finally:
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


@contextmanager
def on_postgres(options: dict[str, Any], name: str) -> Iterator[Query]:
    host, user = options["HOST"], options["USER"]
    with psycopg.connect(host=host, user=user, dbname=name, autocommit=True) as connection:
        yield lambda text: connection.execute(text.encode()).fetchall()
