"""The self-test at the login page of a running site: real web processes, and what may be wrong with them."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from django.core.management import CommandError, call_command
from django.http import HttpRequest

from axes_async.models import AccessAttempt, AccessFailureLog, AccessReset, AttemptCounter, Notice
from axes_async.stores.redis.store import RedisStore
from tests.actions import failure, failures_stored
from tests.attacks.sites import Site
from tests.faults.conftest import database_of_test, environment, own_store, own_valkey  # noqa: F401  (fixtures)
from tests.faults.machines import Valkey
from tests.faults.test_celery_worker import WORKER, sessions
from tests.nursery import Process
from tests.waiting import PATIENCE, until

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(240)]

LINKS = ["settings", "store", "page", "guess", "broker", "rows", "address", "lockout", "counters", "cleanup"]
BACKENDS = ["axes_async.backends.AxesStandaloneBackend", "tests.site.CountingBackend"]
SESSION = "django.contrib.sessions.middleware.SessionMiddleware"
AUTHENTICATION = "django.contrib.auth.middleware.AuthenticationMiddleware"
CSRF = "django.middleware.csrf.CsrfViewMiddleware"
AXES = "axes_async.middleware.AxesMiddleware"
GUARDED = [SESSION, CSRF, AUTHENTICATION, "django.contrib.messages.middleware.MessageMiddleware", AXES]
HERE = "127.0.0.1"

StartSite = Callable[..., str]


@pytest.fixture
def start_site(own_valkey: Valkey, own_store: RedisStore, tmp_path: Path) -> Iterator[StartSite]:  # noqa: F811
    """Return a function that starts web processes with settings of their own, and returns the URL of the site."""
    started: list[Site] = []
    before = sessions()

    def start(**settings: Any) -> str:
        usual = {"AUTHENTICATION_BACKENDS": BACKENDS, "MIDDLEWARE": GUARDED, "STATIC_URL": "static/"}
        ours = {"AXES_TRUSTED_PROXIES": [], "AXES_FAILURE_LIMIT": 3}
        site = Site("one", tmp_path, database_of_test(), own_valkey.url, **{**usual, **ours, **settings})
        started.append(site)
        url = f"http://{HERE}:{site.socket.getsockname()[1]}"
        requests.get(url, timeout=PATIENCE)  # The command waits for no site that is being started.
        return url

    yield start
    for site in started:
        site.stop()
    until(lambda: sessions() <= before, what="the database has noticed that they are gone")


def told(url: str, *arguments: str) -> tuple[dict[str, tuple[str, str]], str]:
    """Run the self-test; return the state of each link and what it found, and the error at the end."""
    out, error = io.StringIO(), ""
    try:
        call_command(
            "axes_selftest", "--url", url, "--no-input", "--wait", "0", *arguments, stdout=out, stderr=io.StringIO()
        )
    except CommandError as end:
        error = str(end)
    lines = [line.split(maxsplit=2) for line in out.getvalue().splitlines()]
    return {line[0]: (line[1], line[2]) for line in lines if line[0] in LINKS}, error


def states(links: dict[str, tuple[str, str]]) -> dict[str, str]:
    return {name: links[name][0] for name in LINKS if links[name][0] != "ok"}


def nothing_is_left() -> bool:
    return not (AccessAttempt.objects.exists() or AccessFailureLog.objects.exists() or Notice.objects.exists())


def counted_here() -> int:
    """Return how many failures of this machine's address count, by the rows."""
    return sum(AttemptCounter.objects.filter(ip_address=HERE).values_list("failures", flat=True))


def behind_proxy(request: HttpRequest) -> str:
    """Return what a site sees whose settings do not name its proxy."""
    return "10.0.0.7"


RUN = """
import signal, sys
from django.core.management import execute_from_command_line
signal.signal(signal.SIGINT, signal.default_int_handler)  # A test that runs in the background has none.
execute_from_command_line(["manage.py", "axes_selftest", *sys.argv[1:]])
"""


@pytest.fixture
def known(own_valkey: Valkey, tmp_path: Path) -> dict[str, str]:  # noqa: F811
    """Return the environment of a command of the site."""
    return environment(tmp_path, database_of_test(), own_valkey.url, f"{own_valkey.url}/1", {})


def test_all_is_well_on_a_site_with_a_worker(
    start_site: StartSite,
    known: dict[str, str],
    own_valkey: Valkey,  # noqa: F811
    tmp_path: Path,
) -> None:
    url = start_site()
    failure("mallory", HERE)
    worker = Process(*WORKER, "-s", str(tmp_path / "beat"), environment=known)
    try:
        done = subprocess.run(
            [sys.executable, "-c", RUN, "--url", f"{url}/login/", "--no-input", "--wait", str(PATIENCE)],
            env=known,
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        worker.kill()
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line.split(maxsplit=2) for line in done.stdout.splitlines()]
    assert [line[:2] for line in lines[:-1]] == [[name, "ok"] for name in LINKS]
    assert f"the site sees {HERE}, which is this machine" in done.stdout
    assert "turned away at guess 2, with status 429" in done.stdout, "mallory's failure counts, too"
    assert "nobody can log in from this machine's address" in done.stderr
    assert [*AccessAttempt.objects.values_list("username", "failures_since_start")] == [("mallory", 1)]
    assert [*AccessFailureLog.objects.values_list("username", flat=True)] == ["mallory"]
    assert counted_here() == 1
    assert [count for count in failures_stored(own_valkey.client) if count] == [1]
    assert [*AccessReset.objects.values_list("reason", "attempts")] == [("axes_selftest", 1)]


def test_without_a_worker_the_rows_are_missed_and_the_lockout_is_seen(start_site: StartSite) -> None:
    links, error = told(f"{start_site()}/admin/login/")
    assert states(links) == {"rows": "failed"}, links
    assert error == "Broken: rows."
    assert nothing_is_left()
    assert counted_here() == 0


@pytest.mark.parametrize(
    "answer",
    [{"AXES_HTTP_RESPONSE_CODE": 403}, {"AXES_LOCKOUT_URL": "/home/"}, {"AXES_FAILURE_LIMIT": 1}],
    ids=str,
)
def test_any_answer_of_a_lockout_is_known(start_site: StartSite, settings: Any, answer: dict[str, Any]) -> None:
    for name, value in answer.items():
        setattr(settings, name, value)
    links, _ = told(f"{start_site(**answer)}/login/")
    assert states(links) == {"rows": "failed"}, links
    assert nothing_is_left()


@pytest.mark.parametrize(
    ("site", "link", "what"),
    [
        ({"MIDDLEWARE": GUARDED[:-1]}, "lockout", "The counters are locked: the site lacks AxesMiddleware"),
        ({"AUTHENTICATION_BACKENDS": BACKENDS[1:]}, "lockout", "the site looks at passwords of locked clients"),
        ({"AXES_FAILURE_LIMIT": 5}, "lockout", "No counter is locked: has the site other rules"),
        ({"AXES_FAILURE_LIMIT": 2}, "lockout", "Guess 2 was turned away, though the limit was to be reached at"),
        ({"AXES_ENABLED": False}, "rows", "The guesses have left nothing"),
        ({"ROOT_URLCONF": "no.such.urls"}, "page", "answers with status 500"),
    ],
    ids=str,
)
def test_what_is_wrong_with_the_site_is_told(start_site: StartSite, site: dict[str, Any], link: str, what: str) -> None:
    links, error = told(f"{start_site(**site)}/login/")
    assert links[link][0] == "failed", links
    assert what in links[link][1]
    assert link in error
    assert nothing_is_left()
    assert counted_here() == 0


def test_exempt_address_is_told(start_site: StartSite, settings: Any) -> None:
    exempt = {"AXES_IP_WHITELIST": [HERE], "AXES_NEVER_LOCKOUT_WHITELIST": True}
    for name, value in exempt.items():
        setattr(settings, name, value)
    links, error = told(f"{start_site(**exempt)}/login/")
    assert "a failure would not count, by AXES_IP_WHITELIST" in links["rows"][1]
    assert error == "Broken: rows."


def test_proxy_that_is_not_named_is_told_before_it_is_locked(start_site: StartSite, settings: Any) -> None:
    url = start_site(AXES_CLIENT_IP_CALLABLE=f"{__name__}.behind_proxy") + "/login/"
    links, _ = told(url)
    assert "wrong if that is a proxy of yours" in links["address"][1]
    links, error = told(url, "--address", HERE)
    assert f"The site sees 10.0.0.7, and this machine is {HERE}" in links["address"][1]
    assert error == "Broken: rows, address."
    settings.AXES_TRUSTED_PROXIES = ["10.0.0.0/8"]
    links, error = told(url)
    assert "See AXES_TRUSTED_PROXIES" in links["address"][1]
    assert links["cleanup"] == ("ok", "the counters are reset, 1 attempts and 1 access failures deleted")
    assert nothing_is_left()


def test_login_page_beside_the_admin_turns_nobody_away_where_only_the_admin_does(
    start_site: StartSite, settings: Any
) -> None:
    settings.AXES_ONLY_ADMIN_SITE = True
    url = start_site(AXES_ONLY_ADMIN_SITE=True)
    assert "AXES_ONLY_ADMIN_SITE is on" in told(f"{url}/login/")[0]["lockout"][1]
    assert states(told(f"{url}/admin/login/")[0]) == {"rows": "failed"}
    assert nothing_is_left()


def test_address_that_is_locked_already_is_told_and_stays_locked(start_site: StartSite) -> None:
    for _ in range(3):
        failure("mallory", HERE)
    links, error = told(f"{start_site()}/login/")
    assert f"The guess was turned away, and not counted: {HERE} is locked" in links["rows"][1]
    assert error == "Broken: rows."
    assert counted_here() == 3
    assert {*AccessFailureLog.objects.values_list("username", flat=True)} == {"mallory"}


def test_guess_without_a_token_is_told(start_site: StartSite) -> None:
    links, error = told(f"{start_site()}/sign-in/", "--json")
    assert links["guess"] == ("failed", "The CSRF check has refused the guess, and the page had no token.")
    assert error == "Broken: guess."


def test_page_that_is_not_there_is_told(start_site: StartSite) -> None:
    url = start_site()
    assert told(f"{url}/nowhere/")[0]["page"] == ("failed", f"{url}/nowhere/ answers with status 404.")
    found = told(f"{url.replace('http', 'https')}/login/")[0]["page"]
    assert found[0] == "failed"
    assert "TLS: " in found[1]


def test_site_that_is_not_there_is_told(closed_port: int) -> None:
    links, error = told(f"http://{HERE}:{closed_port}/login/")
    assert f"No connection to {HERE}, port {closed_port}" in links["page"][1]
    assert links["cleanup"] == ("ok", "nothing was counted")
    assert error == "Broken: page."


def test_interrupted_run_cleans_up(start_site: StartSite, known: dict[str, str], own_valkey: Valkey) -> None:  # noqa: F811
    url = start_site()
    with subprocess.Popen(
        [sys.executable, "-c", RUN, "--url", f"{url}/login/", "--no-input", "--wait", str(PATIENCE)],
        env=known,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as command:
        until(lambda: any(failures_stored(own_valkey.client)), what="the first guess is counted")
        command.send_signal(signal.SIGINT)
        out, error = command.communicate(timeout=PATIENCE)
    assert (command.returncode, "Interrupted." in error) == (130, True), out + error
    assert "1 attempts and 1 access failures deleted" in out
    assert nothing_is_left()
    assert not any(failures_stored(own_valkey.client))


@pytest.mark.parametrize("answer", ["n\n", ""])
def test_nothing_is_done_without_consent(closed_port: int, monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(answer))
    with pytest.raises(CommandError, match="Nothing was done") as refused:
        call_command("axes_selftest", "--url", f"http://{HERE}:{closed_port}/", stderr=io.StringIO())
    assert refused.value.returncode == 2
