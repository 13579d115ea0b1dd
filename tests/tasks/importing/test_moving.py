"""A site of django-axes or django-defender, with their own migrations and real logins, moves over as the guide says."""

from __future__ import annotations

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

VISIT = """
import sys
import django
django.setup()
from django.contrib.auth.models import User
from django.test import Client
if not User.objects.exists():
    User.objects.create_user("alice", password="right")
for step in sys.argv[1:]:
    password, address = step.split("@")
    response = Client(REMOTE_ADDR=address).post("/login/", {"username": "alice", "password": password})
    locked = response.status_code == 429 or b"locked" in response.content
    print("locked" if locked else "in" if response.status_code == 302 else "wrong")
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
        (folder / "visit.py").write_text(VISIT)

    def run(self, package: str, *arguments: str) -> str:
        """Run a Python program with the settings for ``package``; return what it printed."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("DJANGO", "AXES"))}
        done = subprocess.run(
            [sys.executable, "-W", "ignore", *arguments],
            cwd=self.folder,
            env=inherited | {"DJANGO_SETTINGS_MODULE": f"with_{package}", "PYTHONPATH": str(self.folder)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def manage(self, package: str, *arguments: str) -> str:
        """Run a command of Django's."""
        return self.run(package, "-m", "django", *arguments)

    def visit(self, package: str, *steps: str) -> list[str]:
        """Try passwords, each given as ``password@address``; return how each was answered."""
        return self.run(package, "visit.py", *steps).split()


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """Return a new project, with no counters anywhere."""
    with redis.Redis.from_url(servers.valkey_url()) as client:
        client.flushall()
    return Site(tmp_path)


A, B, C = "203.0.113.7", "198.51.100.8", "192.0.2.9"


@pytest.mark.timeout(180)
def test_a_site_of_django_axes_keeps_its_lockouts_its_history_and_its_commands(site: Site) -> None:
    site.manage("axes", "migrate", "-v0")
    assert site.visit("axes", *[f"wrong@{A}"] * 4, f"right@{A}") == ["wrong"] * 3 + ["locked"] * 2
    assert site.visit("axes", f"wrong@{B}", f"wrong@{B}", f"right@{C}") == ["wrong", "wrong", "in"]

    site.manage("axes_async", "migrate", "-v0")
    told = site.manage("axes_async", "axes_import")
    assert "1 lockouts in force." in told
    assert "axes_accesslog: 1 rows read: 1 logins." in told
    assert site.manage("axes_async", "axes_import").count("nothing new") == 3

    assert site.visit("axes_async", f"right@{A}", f"right@{B}") == ["locked", "in"]
    assert site.visit("axes_async", *[f"wrong@{B}"] * 3) == ["wrong", "locked", "locked"]
    assert f"{A}\talice\t" in site.manage("axes_async", "axes_list_attempts")
    assert site.manage("axes_async", "axes_reset_ip_username", A, "alice") == "1 attempts removed.\n"
    assert site.visit("axes_async", f"right@{A}", f"right@{B}") == ["in", "locked"]
    site.manage("axes", "migrate", "axes", "zero", "-v0")
    assert site.visit("axes_async", f"right@{B}", f"right@{C}") == ["locked", "in"]


@pytest.mark.timeout(180)
def test_a_site_of_defender_keeps_its_failures_and_its_history(site: Site) -> None:
    site.manage("defender", "migrate", "-v0")
    assert site.visit("defender", *[f"wrong@{A}"] * 5, f"right@{A}") == ["wrong"] * 3 + ["locked"] * 3

    site.manage("axes_async", "migrate", "-v0")
    told = site.manage("axes_async", "axes_import", "--from", "defender")
    assert told == "defender_accessattempt: 4 rows read: 4 attempts, 4 failures.\n1 lockouts in force.\n"
    assert site.visit("axes_async", f"right@{A}", f"right@{B}") == ["locked", "in"]
