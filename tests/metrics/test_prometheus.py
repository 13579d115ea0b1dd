"""What a process tells, and the page that Prometheus scrapes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.core.exceptions import ImproperlyConfigured
from django.test import Client, RequestFactory
from django.urls import include, path
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families

from axes_async import metrics, telemetry
from axes_async.delivery import publisher
from axes_async.errors import StoreUnavailable
from axes_async.metrics import prometheus, views
from axes_async.stores.factory import get_failover
from tests.celery import app
from tests.conftest import PASSWORD, REFUSED
from tests.site import CountingBackend

Post = Callable[..., Any]

ROOT = Path(__file__).resolve().parents[2]
TOKEN = {"HTTP_AUTHORIZATION": "Bearer s3cret"}

urlpatterns = [path("", include("tests.urls")), path("metrics/", views.metrics)]

pytestmark = [pytest.mark.django_db, pytest.mark.urls(__name__), pytest.mark.usefixtures("prometheus_on")]


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0


@pytest.fixture
def grown() -> Iterator[Callable[..., float]]:
    """Return how much a figure of this process has grown in this test."""
    before = {(s.name, *sorted(s.labels.items())): s.value for family in REGISTRY.collect() for s in family.samples}

    def grown(name: str, **labels: str) -> float:
        return value(name, **labels) - before.get((name, *sorted(labels.items())), 0)

    return grown


def scraped(client: Client, query: str = "", **extra: Any) -> dict[tuple[str, ...], float]:
    """Return what the page tells, by name and labels."""
    response = client.get(f"/metrics/{query}", **{**TOKEN, **extra})
    assert response.status_code == 200
    families = text_string_to_metric_families(response.content.decode())
    return {(s.name, *sorted(s.labels.values())): s.value for family in families for s in family.samples}


# What a process tells.


def test_each_step_is_timed_and_told_with_its_end(alice: User, post: Post, grown: Any) -> None:
    for _ in range(3):
        post()
    post()
    post(password=PASSWORD, REMOTE_ADDR="203.0.113.8")
    for step, outcome, times in (
        ("reserve", "allowed", 4),
        ("reserve", "locked", 1),
        ("fail", "done", 3),
        ("succeed", "done", 1),
    ):
        assert grown("axes_steps_total", step=step, store="primary", outcome=outcome) == times
    assert grown("axes_step_seconds_count", step="reserve", store="primary") == 5
    assert 0 < grown("axes_step_seconds_sum", step="reserve", store="primary") < 60


def test_steps_of_the_database_in_the_stores_place_are_told(post: Post, grown: Any, settings: Any) -> None:
    settings.CACHES = {**settings.CACHES, "default": {**settings.CACHES["default"], "LOCATION": REFUSED}}
    post()
    for step in ("reserve", "fail"):
        assert grown("axes_fallbacks_total", step=step) == 1
        outcome = "allowed" if step == "reserve" else "done"
        assert grown("axes_steps_total", step=step, store="fallback", outcome=outcome) == 1
    assert grown("axes_steps_total", step="reserve", store="primary", outcome="unavailable") >= 1
    assert value("axes_breaker_open", part="store") == 1
    watch = get_failover().watch
    watch.close()
    telemetry.breaker("store", is_open=False)


def test_an_attempt_that_waits_and_gives_up_is_told(post: Post, grown: Any, settings: Any) -> None:
    from axes_async import guard

    settings.AXES_FAILURE_LIMIT, settings.AXES_RESERVE_WAIT = 1, 0
    with guard.attempt(RequestFactory().post("/"), {"username": "bob"}):
        assert post().status_code == 429
    assert grown("axes_busy_waits_total", outcome="given_up") == 1
    assert grown("axes_steps_total", step="reserve", store="primary", outcome="busy") == 1


def test_an_attempt_that_waits_until_another_one_ends_is_told(
    post: Post, grown: Any, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from axes_async import guard
    from axes_async.login import reservation

    settings.AXES_FAILURE_LIMIT, settings.AXES_RESERVE_WAIT = 1, 30
    with guard.attempt(RequestFactory().post("/"), {"username": "bob"}) as other, monkeypatch.context() as patch:
        clock = SimpleNamespace(monotonic=time.monotonic, sleep=lambda seconds: other.logged_in("bob"))
        patch.setattr(reservation, "time", clock)  # Of this module alone: threads sleep, too.
        attempt = reservation.reserve(RequestFactory().post("/"), {"username": "alice"})
    assert grown("axes_busy_waits_total", outcome="ended") == 1
    assert attempt is not None
    assert attempt.reserved
    reservation.release([attempt])


def test_nudges_and_the_breaker_of_the_broker_are_told(post: Post, grown: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    publisher._producers.cache_clear()
    publisher.nudge()
    assert grown("axes_nudges_total", outcome="sent") == 1
    monkeypatch.setattr(app.conf, "broker_url", REFUSED)
    publisher._producers.cache_clear()
    publisher.nudge()
    assert grown("axes_nudges_total", outcome="not_sent") == 1
    assert value("axes_breaker_open", part="broker") == 1
    monkeypatch.undo()
    publisher._producers.cache_clear()
    publisher._broker.succeeded()
    assert value("axes_breaker_open", part="broker") == 0


@pytest.mark.parametrize("method", ["begin", "end", "count"])
def test_no_login_fails_by_a_listener(
    alice: User, post: Post, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, method: str
) -> None:
    class Broken(telemetry.Listener):
        pass

    def broken(*args: Any, **options: Any) -> Any:
        raise OSError("the disk is full")

    monkeypatch.setattr(Broken, method, broken)
    monkeypatch.setattr(telemetry, "listeners", (Broken(),))
    CountingBackend.seconds = 0
    assert post().status_code == 401
    assert post(password=PASSWORD).status_code == 204
    publisher.nudge()
    assert "A listener of AXES_METRICS has failed." in caplog.text


@pytest.mark.parametrize("kind", [StoreUnavailable, *StoreUnavailable.__subclasses__()], ids=lambda kind: kind.__name__)
def test_each_way_in_which_a_store_fails_has_a_name_of_its_own(grown: Any, kind: type[StoreUnavailable]) -> None:
    def raising(error: BaseException) -> None:
        raise error

    with pytest.raises(kind), telemetry.step("fail", "primary"):
        raising(kind())
    with pytest.raises(ZeroDivisionError), telemetry.step("fail", "primary"):
        raising(ZeroDivisionError())
    name = telemetry.OUTCOMES[kind]
    assert list(telemetry.OUTCOMES.values()).count(name) == 1
    for outcome in (name, "error"):
        assert grown("axes_steps_total", step="fail", store="primary", outcome=outcome) == 1


def test_nothing_is_told_while_nobody_listens(post: Post, grown: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry, "listeners", ())
    post()
    assert grown("axes_steps_total", step="fail", store="primary", outcome="done") == 0


# The page.


@pytest.fixture(autouse=True)
def _token(settings: Any) -> None:
    settings.AXES_METRICS_TOKEN = "s3cret"


def test_the_page_tells_of_site_and_process(client: Client, post: Post, drain: Callable[[], int]) -> None:
    post()
    drain()
    seen = scraped(client)
    assert seen["axes_attempts_total", "failed", "site"] == 1
    assert seen["axes_up", "store"] == seen["axes_up", "database"] == 1
    assert seen["axes_step_seconds_count", "fail", "primary"] >= 1
    assert any(name[0] == "python_info" for name in seen), "what else is in the default registry"


def test_the_page_is_fresh_and_read_only(client: Client) -> None:
    response = client.get("/metrics/", **TOKEN)
    assert response["Content-Type"].startswith("text/plain")
    assert "no-store" in response["Cache-Control"]
    assert client.head("/metrics/", **TOKEN).status_code == 200
    assert client.post("/metrics/", **TOKEN).status_code == 405


def test_a_scraper_may_ask_for_openmetrics_and_for_some_series(client: Client) -> None:
    response = client.get("/metrics/", HTTP_ACCEPT="application/openmetrics-text; version=1.0.0", **TOKEN)
    assert response["Content-Type"].startswith("application/openmetrics-text")
    assert response.content.endswith(b"# EOF\n")
    assert {name[0] for name in scraped(client, "?name[]=axes_up")} == {"axes_up"}


@pytest.mark.parametrize("accept", ["text/plain; version=abc", "application/openmetrics-text; version=1.x", ";;"])
def test_a_scraper_that_asks_for_nonsense_gets_text(client: Client, accept: str) -> None:
    response = client.get("/metrics/", HTTP_ACCEPT=accept, **TOKEN)
    assert response.status_code == 200
    assert "axes_up" in response.content.decode()


@pytest.mark.parametrize(
    "given", ["", "Bearer", "Bearer wrong", "Basic s3cret", "s3cret", "Bearer s3cret2", "Bearer é"]
)
def test_whoever_has_no_token_sees_nothing(client: Client, given: str) -> None:
    response = client.get("/metrics/", HTTP_AUTHORIZATION=given)
    assert (response.status_code, response.content) == (401, b"")
    assert response["WWW-Authenticate"] == "Bearer"


def test_without_a_token_in_the_settings_none_will_do(client: Client, settings: Any) -> None:
    settings.AXES_METRICS_TOKEN = None
    for given in ("", "Bearer ", "Bearer None", "Bearer s3cret"):
        assert client.get("/metrics/", HTTP_AUTHORIZATION=given).status_code == 403


def test_users_see_it_who_may_view_access_attempts(alice: User, client: Client) -> None:
    client.force_login(alice)
    assert client.get("/metrics/").status_code == 401
    alice.user_permissions.add(Permission.objects.get(codename="view_accessattempt"))
    assert client.get("/metrics/").status_code == 200
    User.objects.filter(pk=alice.pk).update(is_active=False)
    assert client.get("/metrics/").status_code == 401


def test_a_site_without_sessions_can_be_scraped(rf: RequestFactory) -> None:
    assert views.metrics(rf.get("/", **TOKEN)).status_code == 200
    assert views.metrics(rf.get("/")).status_code == 401


def test_the_page_needs_the_setting(client: Client, settings: Any) -> None:
    settings.AXES_METRICS = []
    with pytest.raises(ImproperlyConfigured, match="AXES_METRICS"):
        client.get("/metrics/", **TOKEN)


def test_a_missing_package_is_named(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "axes_async.metrics.prometheus")
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(ImproperlyConfigured, match=r"axes_async\[prometheus\]"):
        metrics.start()


def test_no_name_and_no_address_is_in_it(client: Client, post: Post, drain: Callable[[], int]) -> None:
    for name in ("alice", 'x"} 1\naxes_up{part="store', "203.0.113.7"):
        for _ in range(4):
            post(name, REMOTE_ADDR="203.0.113.7", HTTP_USER_AGENT="agent-of-alice")
            client.post("/admin/login/", {"username": name, "password": "x"}, REMOTE_ADDR="2001:db8::7")
    drain()
    body = client.get("/metrics/", **TOKEN).content.decode()
    assert "axes_lockouts_total" in body
    assert not re.search(r"alice|203\.0\.113|2001:db8|sign-in|agent-of", body)


def test_the_collector_is_described_without_asking_anybody(django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(0):
        described = {family.name for family in prometheus.SiteCollector().describe()}
    assert {"axes_attempts", "axes_locked", "axes_up"} <= described


# Several processes.

PROCESS = """
import os, sys
from django.conf import settings
import django
settings.configure(
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "axes_async"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": sys.argv[1]}},
    AXES_STORE="database",
    AXES_METRICS=["prometheus"],
    SECRET_KEY="x",
)
django.setup()
from axes_async import guard
from axes_async.metrics.prometheus import exposed
from axes_async.tasks.drain import drain
from django.core.management import call_command
from django.test import RequestFactory
if "migrate" in sys.argv[2]:
    call_command("migrate", verbosity=0)
if "guess" in sys.argv[2]:
    guard.fail(RequestFactory().post("/", REMOTE_ADDR="203.0.113.7"), {"username": "alice"})
    drain()
sys.stdout.write(exposed("", sys.argv[3:])[0].decode())
"""


Tell = Callable[..., str]


@pytest.fixture
def tell(tmp_path: Path) -> Tell:
    """Return a function that has a process of its own do something and tell the figures, or those that are named."""

    def tell(what: str, *names: str, files: Path | None = None) -> str:
        environment = {name: text for name, text in os.environ.items() if not name.startswith(("DJANGO", "CELERY"))}
        if files is not None:
            files.mkdir(exist_ok=True)
            environment["PROMETHEUS_MULTIPROC_DIR"] = str(files)
        command = [sys.executable, "-c", PROCESS, str(tmp_path / "db.sqlite3"), what, *names]
        return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=True).stdout

    return tell


@pytest.mark.parametrize("with_files", [False, True])
def test_several_processes_tell_the_same_of_the_site_and_with_files_of_processes(
    tmp_path: Path, tell: Tell, with_files: bool
) -> None:
    files = tmp_path / "prometheus" if with_files else None
    tell("migrate", files=files)
    for _ in range(2):
        tell("guess", files=files)
    seen = tell("look", files=files)
    assert 'axes_attempts_total{outcome="failed",scope="site"} 2.0' in seen
    steps = 'axes_steps_total{outcome="done",step="fail",store="primary"} 2.0'
    assert (steps in seen) is with_files


def test_a_scraper_may_name_figures_of_several_processes(tmp_path: Path, tell: Tell) -> None:
    files = tmp_path / "prometheus"
    tell("migrate", files=files)
    tell("guess", files=files)
    seen = tell("look", "axes_steps_total", "axes_step_seconds_count", "axes_breaker_open", "axes_up", files=files)
    names = {line.partition("{")[0] for line in seen.splitlines() if not line.startswith("#")}
    assert names == {"axes_steps_total", "axes_step_seconds_count", "axes_breaker_open", "axes_up"}
