"""A site of django-axes or django-defender, with their own migrations and real logins, moves over as the guide says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import redis

from tests import servers

BASE = """
from pathlib import Path
SECRET_KEY = "tests"
ALLOWED_HOSTS = ["testserver"]
USE_TZ = True
ROOT_URLCONF = "old_urls"
DATABASES = {{"default": {{"ENGINE": "django.db.backends.sqlite3", "NAME": Path(__file__).parent / "db.sqlite3"}}}}
CACHES = {{"default": {{"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": "{cache}"}}}}
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
INSTALLED_APPS = [
    "django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions", "django_celery_results",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]
TEMPLATES = [{{
    "BACKEND": "django.template.backends.django.DjangoTemplates", "DIRS": [Path(__file__).parent], "APP_DIRS": True,
}}]
CELERY_RESULT_BACKEND = "django-db"
AXES_FAILURE_LIMIT = 4
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_ENABLE_ACCESS_FAILURE_LOG = True
DEFENDER_REDIS_URL = "{defender}"
DEFENDER_COOLOFF_TIME = 600
"""

WITH = {
    "axes": """
from base_settings import *
INSTALLED_APPS += ["axes"]
MIDDLEWARE += ["axes.middleware.AxesMiddleware"]
AUTHENTICATION_BACKENDS = ["axes.backends.AxesStandaloneBackend", "django.contrib.auth.backends.ModelBackend"]
""",
    "defender": """
from base_settings import *
INSTALLED_APPS += ["defender"]
MIDDLEWARE += ["defender.middleware.FailedLoginMiddleware"]
""",
    "axes_async": """
from base_settings import *
INSTALLED_APPS += ["axes_async"]
MIDDLEWARE += ["axes_async.middleware.AxesMiddleware"]
AUTHENTICATION_BACKENDS = ["axes_async.backends.AxesStandaloneBackend", "django.contrib.auth.backends.ModelBackend"]
""",
}

URLS = """
from django.contrib.auth.views import LoginView
from django.urls import path
urlpatterns = [path("login/", LoginView.as_view(template_name="login.html", next_page="/"))]
"""

STEPS = """
import json
import sys
from io import StringIO
import django
django.setup()
from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import Client

def visit(tries):
    if not User.objects.exists():
        User.objects.create_user("alice", password="right")
    for one in tries.split():
        password, address = one.split("@")
        response = Client(REMOTE_ADDR=address).post("/login/", {"username": "alice", "password": password})
        locked = response.status_code == 429 or b"locked" in response.content
        yield "locked" if locked else "in" if response.status_code == 302 else "wrong"

def manage(*command):
    told = StringIO()
    call_command(*command, stdout=told)
    return told.getvalue()

steps = json.load(sys.stdin)
print(json.dumps([manage(*step) if isinstance(step, list) else " ".join(visit(step)) for step in steps]))
"""


class Site:
    """A project in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        """Write its files."""
        self.folder = folder
        base = BASE.format(cache=servers.valkey_url(5), defender=servers.valkey_url(6))
        (folder / "base_settings.py").write_text(base)
        for name, settings in WITH.items():
            (folder / f"with_{name}.py").write_text(settings)
        (folder / "old_urls.py").write_text(URLS)
        (folder / "login.html").write_text("{{ form }}")
        (folder / "steps.py").write_text(STEPS)

    def run(self, package: str, *steps: list[str] | str) -> list[str]:
        """Take steps, one after another, in a process with the settings for ``package``; return what each told.

        :param steps: a list is a command of Django's; a string is passwords to try, each as ``password@address``.
        """
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("DJANGO", "AXES"))}
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "steps.py"],
            cwd=self.folder,
            env=inherited | {"DJANGO_SETTINGS_MODULE": f"with_{package}", "PYTHONPATH": str(self.folder)},
            input=json.dumps(steps),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        told: list[str] = json.loads(done.stdout)
        return told


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """Return a new project, with no counters anywhere."""
    with redis.Redis.from_url(servers.valkey_url()) as client:
        client.flushall()
    return Site(tmp_path)


A, B, C = "203.0.113.7", "198.51.100.8", "192.0.2.9"


@pytest.mark.timeout(180)
def test_a_site_of_django_axes_keeps_its_lockouts_its_history_and_its_commands(site: Site) -> None:
    before = site.run("axes", ["migrate", "-v0"], f"{f'wrong@{A} ' * 4} right@{A}", f"wrong@{B} wrong@{B} right@{C}")
    assert before[1:] == ["wrong wrong wrong locked locked", "wrong wrong in"]

    _, told, again, *visits, listed, reset, after = site.run(
        "axes_async",
        ["migrate", "-v0"],
        ["axes_import"],
        ["axes_import"],
        f"right@{A} right@{B}",
        f"wrong@{B} " * 3,
        ["axes_list_attempts"],
        ["axes_reset_ip_username", A, "alice"],
        f"right@{A} right@{B}",
    )
    assert "1 lockouts in force." in told
    assert "axes_accesslog: 1 rows read: 1 logins." in told
    assert again.count("nothing new") == 3
    assert visits == ["locked in", "wrong locked locked"]
    assert f"{A}\talice\t" in listed
    assert reset == "1 attempts removed.\n"
    assert after == "in locked"

    site.run("axes", ["migrate", "axes", "zero", "-v0"])
    assert site.run("axes_async", f"right@{B} right@{C}") == ["locked in"]


@pytest.mark.timeout(180)
def test_a_site_of_defender_keeps_its_failures_and_its_history(site: Site) -> None:
    before = site.run("defender", ["migrate", "-v0"], f"{f'wrong@{A} ' * 5} right@{A}")
    assert before[1] == "wrong wrong wrong locked locked locked"

    _, told, after = site.run(
        "axes_async", ["migrate", "-v0"], ["axes_import", "--from", "defender"], f"right@{A} right@{B}"
    )
    assert told == "defender_accessattempt: 4 rows read: 4 attempts, 4 failures.\n1 lockouts in force.\n"
    assert after == "locked in"
