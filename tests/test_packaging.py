"""What is published: the wheel, the sdist, and a new project that has nothing but the wheel."""

from __future__ import annotations

import json
import sys
import tarfile
import zipfile
from pathlib import Path, PurePath

import pytest

from tests import servers
from tests.packages import ROOT, build, run

FILES = ("*.py", "*.lua", "*.html", "*.txt", "*.css", "*.js", "*.po", "*.mo", "py.typed")

SETTINGS = """
INSTALLED_APPS += ["django_celery_results", "axes_async"]
MIDDLEWARE += ["axes_async.middleware.AxesMiddleware"]
AUTHENTICATION_BACKENDS = [
    "axes_async.backends.AxesStandaloneBackend",
    "django.contrib.auth.backends.ModelBackend",
]
CACHES = {{"default": {{"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": "{cache}"}}}}
CELERY_BROKER_URL = "{broker}"
CELERY_RESULT_BACKEND = "django-db"
from axes_async.tasks.schedule import beat_schedule
CELERY_BEAT_SCHEDULE = beat_schedule()
ALLOWED_HOSTS = ["testserver"]
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
DATABASES["default"]["OPTIONS"] = {{"transaction_mode": "IMMEDIATE"}}
"""

CELERY = """
import os
from celery import Celery
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "site1.settings")
app = Celery("site1")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
"""

STORY = """
import json
from io import StringIO
from site1.celery import app
app.loader.import_default_modules()
told = [sorted(name for name in app.tasks if name.startswith("axes_async."))]
from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import Client
User.objects.create_superuser("alice", password="right")
client = Client()
def enter(password):
    return client.post("/admin/login/", {"username": "alice", "password": password}).status_code
told.append([enter("wrong"), enter("wrong"), enter("wrong"), enter("right")])
for command in (
    ["check"],
    ["makemigrations", "--check", "--dry-run"],
    ["axes_reset", "--dry-run"],
    ["axes_reset"],
    ["axes_list_attempts"],
):
    call_command(*command, stdout=(out := StringIO()), stderr=out)
    told.append(out.getvalue())
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the wheel and the sdist."""
    return build(tmp_path_factory.mktemp("built")).parent


def source_files() -> set[str]:
    """Return every file of the package, under the name it is installed by."""
    names = set()
    for top, installed in (("axes_async", "axes_async"), ("tasks", "axes_async/tasks")):
        for pattern in FILES:
            found = (ROOT / top).rglob(pattern)
            names |= {f"{installed}/{path.relative_to(ROOT / top).as_posix()}" for path in found}
    return names


def test_the_wheel_holds_every_file_of_the_package_and_claims_no_other_name(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert names == source_files()


def test_the_sdist_from_which_the_wheel_is_built_holds_the_licence(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        assert any(PurePath(name).parts[1:] == ("LICENSE",) for name in archive.getnames())


@pytest.mark.timeout(240)
def test_a_new_project_with_the_wheel_alone_migrates_locks_and_resets(built: Path, tmp_path: Path) -> None:
    (wheel,) = built.glob("*.whl")
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv", folder=tmp_path)
    python = tmp_path / "venv" / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-compile")
    run(*pip, wheel, folder=tmp_path)
    run(python, "-m", "django", "startproject", "site1", tmp_path, folder=tmp_path)
    settings = SETTINGS.format(cache=servers.valkey_url(2), broker=servers.valkey_url(3))
    with (tmp_path / "site1" / "settings.py").open("a") as file:
        file.write(settings)
    (tmp_path / "site1" / "celery.py").write_text(CELERY)
    (tmp_path / "site1" / "__init__.py").write_text("from site1.celery import app\n")

    run(python, "manage.py", "migrate", folder=tmp_path)
    told = run(python, "-c", STORY, folder=tmp_path, DJANGO_SETTINGS_MODULE="site1.settings")
    tasks, statuses, checked, migrations, dry, reset, left = json.loads(told)
    expected = (
        "drain",
        "expire",
        "mail",
        "notify",
        "purge",
        "reset",
        "sync",
        "unlock_mail",
        "watch",
        "webhook",
        "write",
    )
    assert tasks == [f"axes_async.{name}" for name in expected]
    assert statuses == [200, 200, 429, 429]
    assert "no issues" in checked
    assert "No changes detected" in migrations
    assert (dry, reset, left) == ("1 attempts would be removed.\n", "1 attempts removed.\n", "")
