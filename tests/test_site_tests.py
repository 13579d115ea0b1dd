"""A site's own tests: they never touch its live store or its live database, and leave nothing to the next test."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from secrets import token_hex
from typing import Any

import pytest
import redis
from django.apps import apps

from tests import servers
from tests.example import Query, on_postgres, on_sqlite

ROOT = Path(__file__).parents[1]

SETTINGS = """
from axes_async.tasks.schedule import beat_schedule

SECRET_KEY = "site"
ALLOWED_HOSTS = ["testserver"]
USE_TZ = True
ROOT_URLCONF = "site_urls"
DATABASES = {"default": %(database)r}
CACHES = {"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": %(store)r}}
INSTALLED_APPS = [
    "django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions", "django_celery_results",
    "axes_async",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware", "django.contrib.auth.middleware.AuthenticationMiddleware",
    "axes_async.middleware.AxesMiddleware",
]
AUTHENTICATION_BACKENDS = [
    "axes_async.backends.AxesStandaloneBackend", "django.contrib.auth.backends.ModelBackend",
]
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
CELERY_BROKER_URL = %(broker)r
CELERY_RESULT_BACKEND = "django-db"
CELERY_BEAT_SCHEDULE = beat_schedule()

from celery import Celery
app = Celery("site")
app.config_from_object("django.conf:settings", namespace="CELERY")
"""

URLS = """
from django.contrib.auth import authenticate, login
from django.http import HttpResponse
from django.urls import path

def sign_in(request):
    user = authenticate(request, username=request.POST["username"], password=request.POST["password"])
    if user is None:
        return HttpResponse("wrong", status=401)
    login(request, user)
    return HttpResponse(status=204)

urlpatterns = [path("sign-in/", sign_in)]
"""

TESTS = """
from concurrent.futures import ThreadPoolExecutor

from django.contrib.auth.models import User
from django.test import Client, TestCase, TransactionTestCase

from axes_async.models import AccessAttempt, AccessFailureLog, AccessLog, AttemptCounter, OutboxEvent
from axes_async.utils import reset

class Lockout:
    def setUp(self):
        User.objects.create_user("alice", password="right")

    def post(self, password, client=None):
        return (client or self.client).post("/sign-in/", {"username": "alice", "password": password}).status_code

    def lock(self):
        self.assertEqual(AccessAttempt.objects.count(), 0, "left by another test")
        self.assertEqual([self.post("wrong") for _ in range(3)], [401, 401, 429])
        self.assertEqual(AccessAttempt.objects.get().failures_since_start, 3)
        self.assertEqual(AccessFailureLog.objects.count(), 3)
        self.assertEqual(OutboxEvent.objects.count(), 0)
        self.assertEqual(self.post("right"), 429)

    def test_locked(self):
        self.lock()

    def test_locked_again(self):
        self.lock()

    def test_reset(self):
        self.lock()
        self.assertEqual(reset(username="alice"), 1)
        self.assertEqual(AccessAttempt.objects.count(), 0)
        self.assertEqual(self.post("right"), 204)
        self.assertEqual(AccessLog.objects.get().username, "alice")

    def test_others(self):
        self.assertEqual(self.post("right"), 204)

class InTransactions(Lockout, TestCase):
    pass

class InMoreTransactions(Lockout, TestCase):
    pass

class WithoutTransactions(Lockout, TransactionTestCase):
    pass
"""

PYTEST = """
import pytest
from django.contrib.auth.models import User
from axes_async.models import AccessAttempt

def lock(client):
    User.objects.create_user("alice", password="right")
    assert AccessAttempt.objects.count() == 0
    codes = [client.post("/sign-in/", {"username": "alice", "password": "wrong"}).status_code for _ in range(3)]
    assert codes == [401, 401, 429]
    assert AccessAttempt.objects.get().failures_since_start == 3

@pytest.mark.django_db
@pytest.mark.parametrize("time", range(2))
def test_locked(client, time):
    lock(client)

@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("time", range(2))
def test_locked_without_a_transaction(client, time):
    lock(client)
"""

FAIL = """
import django
django.setup()
from django.core.management import call_command
from django.test import RequestFactory
from axes_async.login import reservation, settlement
from axes_async.stores.factory import get_store
from axes_async.tasks.sync import sync
call_command("migrate", verbosity=0)
sync()
request = RequestFactory().post("/sign-in/", REMOTE_ADDR="127.0.0.1")
reservation.reserve(request, {"username": "alice"})
settlement.fail(request, {"username": "alice"})
print(type(get_store()).__name__)
"""


class Site:
    """A project in a folder, with a live store and a live database."""

    def __init__(self, folder: Path, database: dict[str, Any], store: servers.Valkey, query: Query) -> None:
        self.folder, self.store, self.query = folder, store, query
        parts = {"database": database, "store": f"{store.url}/0", "broker": f"{store.url}/1"}
        (folder / "site_settings.py").write_text(SETTINGS % parts)
        (folder / "site_urls.py").write_text(URLS)
        (folder / "tests.py").write_text(TESTS)
        (folder / "test_with_pytest.py").write_text(PYTEST)
        (folder / "pytest.ini").write_text("[pytest]\nDJANGO_SETTINGS_MODULE = site_settings\npythonpath = .\n")

    def run(self, *arguments: str) -> str:
        """Run Python on the project; return what it printed."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("DJANGO", "PYTEST"))}
        environment["DJANGO_SETTINGS_MODULE"] = "site_settings"
        environment["PYTHONPATH"] = os.pathsep.join([str(self.folder), str(ROOT)])
        command = [sys.executable, *arguments]
        done = subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False, timeout=100
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def rows(self) -> dict[str, list[tuple[Any, ...]]]:
        """Return what is in each of our tables on the live site."""
        tables = [model._meta.db_table for model in apps.get_app_config("axes_async").get_models()]
        return {table: self.query(f"SELECT * FROM {table} ORDER BY 1") for table in tables}  # noqa: S608

    def kept(self) -> dict[str, Any]:
        """Return all that is on the live server, in the store and at the broker."""
        found = {}
        for number in range(2):
            with redis.Redis.from_url(f"{self.store.url}/{number}") as client:
                found |= {f"{number} {key!r}": client.dump(key) for key in client.keys("*")}
        return {key: value for key, value in found.items() if ":nudged" not in key}  # It ends by itself.


@pytest.fixture(scope="module", params=[pytest.param("sqlite", marks=pytest.mark.long), "postgres"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    asking: AbstractContextManager[Query]
    if request.param == "sqlite":
        database = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(folder / "live.sqlite3")}
        asking = nullcontext(on_sqlite(folder / "live.sqlite3"))
    else:
        name = f"live_{token_hex(4)}"
        servers.postgres_server().create_database(name)
        database = {**servers.postgres(), "NAME": name}
        asking = on_postgres(database, name)
    store = servers.Valkey()
    with asking as query:
        yield Site(folder, database, store, query)
    store.stop()


MANAGE = ["-m", "django", "test", "tests", "--noinput"]
PYTEST_RUN = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "test_with_pytest.py"]
RUNS = {
    "manage.py test": [MANAGE],
    "parallel": [[*MANAGE, "--parallel", "2", "--reverse"]],
    "keepdb": [[*MANAGE, "--keepdb"]] * 2,
    "pytest": [[*PYTEST_RUN, "--reuse-db"]] * 2,
    "xdist": [[*PYTEST_RUN, "-n", "2", "--create-db"]],
}
QUICK = {"manage.py test"}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("how", [pytest.param(how, marks=[pytest.mark.long] * (how not in QUICK)) for how in RUNS])
def test_a_sites_tests_lock_and_leave_the_live_site_alone(site: Site, how: str) -> None:
    assert "RedisStore" in site.run("-c", FAIL).splitlines()
    before, rows = site.kept(), site.rows()
    assert before, "the live site has counted"
    assert rows["axes_async_storestate"], "the live site has been synced"
    for arguments in RUNS[how]:
        said = site.run(*arguments)
        assert re.search(r"Ran 12 tests|4 passed", said), said
    assert site.rows() == rows
    assert site.kept() == before
