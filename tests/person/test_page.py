"""The page that a person sees who is locked out, or turned away for a moment."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import time_machine
from asgiref.sync import async_to_sync
from django.contrib.auth.models import User
from django.http import HttpRequest
from django.test import AsyncClient
from django.urls import include, path

from axes_async.checks.settings import check_response
from axes_async.conf import get_settings
from axes_async.login import lockout_page
from axes_async.login.lockout_page import in_words
from axes_async.stores.redis.store import RedisStore
from tests.login.test_responses import BROWSER, hold_reservations, locked_out
from tests.site import async_sign_in, home, sign_in

Post = Callable[..., Any]
ASSETS = Path(lockout_page.__file__).parent.parent / "static" / "axes_async"
HTML = {"HTTP_ACCEPT": BROWSER}
NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)

urlpatterns = [
    path("sign-in/", sign_in),
    path("async-sign-in/", async_sign_in),
    path("forgotten/", home, name="password_reset"),
    path("members/", include(([path("forgotten/", home, name="reset")], "members"))),
]

pytestmark = pytest.mark.django_db


class Page(HTMLParser):
    """What a browser would find: tags with their attributes, links, and text."""

    def __init__(self, response: Any) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(response.content.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str, attribute: str) -> list[str | None]:
        return [attrs[attribute] for name, attrs in self.tags if name == tag and attribute in attrs]


def strangers(request: HttpRequest) -> dict[str, Any]:
    """Ask the database for every page, as a site's context processor may."""
    return {"users": User.objects.count()}


def test_the_page_tells_the_time_that_remains_and_leads_back(post: Post, settings: Any) -> None:
    settings.AXES_COOLOFF_TIME = timedelta(minutes=15)
    with time_machine.travel(NOON, tick=False) as clock:
        locked_out(post, **HTML)
        clock.shift(28)
        response = post(url="/sign-in/?next=/a%22b/", **HTML)
    shown = Page(response)
    assert (response.status_code, response["Retry-After"], response["Cache-Control"]) == (429, "872", "no-store")
    assert "15\xa0minutes" in shown.text
    assert shown.all("p", "data-axes-seconds") == ["872"]
    assert shown.all("a", "href")[0] == "/sign-in/?next=/a%22b/"


def test_a_lockout_that_only_a_reset_ends_has_no_clock_and_no_way_back(post: Post) -> None:
    shown = Page(locked_out(post, **HTML))
    assert "until an administrator lifts it" in shown.text
    assert not shown.all("p", "data-axes-seconds")
    assert "Try again" not in shown.text


def test_a_name_that_exists_gets_the_page_of_one_that_does_not(alice: User, post: Post, settings: Any) -> None:
    settings.AXES_LOCKOUT_PARAMETERS, settings.AXES_COOLOFF_TIME = ["username"], 1
    with time_machine.travel(NOON, tick=False):
        pages = [locked_out(partial(post, name), **HTML).content for name in ("alice", "nobody")]
    assert pages[0] == pages[1]
    assert b"alice" not in pages[0]


@pytest.mark.parametrize("away", [False, True])
def test_whoever_comes_at_a_bad_moment_is_asked_to_wait(
    post: Post, settings: Any, redis_store: RedisStore, monkeypatch: pytest.MonkeyPatch, away: bool
) -> None:
    settings.AXES_RESERVE_WAIT, settings.AXES_HTTP_RESPONSE_CODE = 0, 403
    if away:
        settings.AXES_ON_STORE_FAILURE = "deny"
        entry = {**settings.CACHES["default"], "LOCATION": "redis://127.0.0.1:1/0"}
        settings.CACHES = {**settings.CACHES, "default": entry}
    else:
        hold_reservations(redis_store)
    response = post(**HTML)
    shown = Page(response)
    assert (response.status_code, response["Retry-After"]) == (503 if away else 429, "1")
    assert "Please wait" in shown.text
    assert "Login locked" not in shown.text
    assert shown.all("a", "href") == ["/sign-in/"]


def test_the_page_is_fit_for_a_strict_content_security_policy(post: Post, settings: Any) -> None:
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "django.contrib.staticfiles"]
    settings.STATIC_URL, settings.AXES_COOLOFF_TIME = "/static/", 1
    shown = Page(locked_out(post, **HTML))
    assert shown.all("link", "href") == ["/static/axes_async/page.css"]
    assert shown.all("script", "src") == ["/static/axes_async/page.js"]
    tags = {name for name, _ in shown.tags}
    attributes = {attribute for _, attrs in shown.tags for attribute in attrs}
    assert not {"style", "img", "iframe"} & tags
    assert not [attribute for attribute in attributes if attribute == "style" or attribute.startswith("on")]
    assert [attrs for name, attrs in shown.tags if name == "script" and "src" not in attrs] == []
    # Nobody is led on before the time that a person needs to read (WCAG 2.2, 2.2.1).
    assert shown.all("meta", "http-equiv") == []


def test_a_site_that_serves_no_file_of_ours_gets_the_page_without(post: Post, settings: Any) -> None:
    settings.AXES_COOLOFF_TIME = 1
    response = locked_out(post, **HTML)
    assert not {"link", "script"} & {name for name, _ in Page(response).tags}
    assert "1\xa0hour" in response.content.decode()


def test_files_that_were_not_collected_break_no_page(post: Post, settings: Any, tmp_path: Path) -> None:
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "django.contrib.staticfiles"]
    settings.STATIC_URL, settings.STATIC_ROOT = "/static/", str(tmp_path)
    manifest = {"BACKEND": "django.contrib.staticfiles.storage.ManifestStaticFilesStorage"}
    settings.STORAGES = {**settings.STORAGES, "staticfiles": manifest}
    response = locked_out(post, **HTML)
    assert (response.status_code, Page(response).all("link", "href")) == (429, [])


def test_style_and_script_ask_for_nothing_else() -> None:
    for file in ASSETS.iterdir():
        assert not re.search(r"url\(|@import|https?:|//[a-z]+\.|innerHTML|eval|fetch", file.read_text("utf-8")), file


@pytest.mark.parametrize(
    ("urls", "own", "href"),
    [
        ("tests.person.test_page", None, "/forgotten/"),
        ("tests.person.test_page", "members:reset", "/members/forgotten/"),
        ("tests.person.test_page", "https://id.example/forgotten", "https://id.example/forgotten"),
        ("tests.person.test_page", "nowhere", None),
        ("tests.urls", None, None),
    ],
)
def test_the_password_can_be_reset_where_the_site_has_a_page_for_it(
    post: Post, settings: Any, urls: str, own: str | None, href: str | None
) -> None:
    settings.ROOT_URLCONF, settings.AXES_PASSWORD_RESET_URL = urls, own
    assert Page(locked_out(post, **HTML)).all("a", "href") == ([href] if href else [])
    assert bool(list(check_response(get_settings()))) is (own == "nowhere")


@pytest.mark.parametrize("engine", [[], [{"BACKEND": "django.template.backends.django.DjangoTemplates"}]])
def test_a_site_without_templates_answers_in_text(post: Post, settings: Any, engine: list[dict[str, str]]) -> None:
    settings.TEMPLATES = engine
    response = locked_out(post, **HTML)
    assert (response.status_code, response["Content-Type"]) == (429, "text/plain; charset=utf-8")


def test_a_site_puts_its_own_frame_around_the_page(post: Post, settings: Any) -> None:
    loaders = [
        ("django.template.loaders.locmem.Loader", {"axes_async/base.html": "<b>{% block content %}{% endblock %}</b>"}),
        "django.template.loaders.app_directories.Loader",
    ]
    settings.TEMPLATES = [{**settings.TEMPLATES[0], "APP_DIRS": False, "OPTIONS": {"loaders": loaders}}]
    assert locked_out(post, **HTML).content.startswith(b"<b>\n<h1>Login locked</h1>")


def test_an_async_view_answers_with_the_page_of_a_site_that_asks_the_database(settings: Any) -> None:
    engine = settings.TEMPLATES[0]
    settings.TEMPLATES = [{**engine, "OPTIONS": {"context_processors": [f"{__name__}.strangers"]}}]
    settings.ROOT_URLCONF = __name__

    async def last() -> Any:
        client, form = AsyncClient(), {"username": "alice", "password": "wrong"}
        return [await client.post("/async-sign-in/", form, headers={"Accept": BROWSER}) for _ in range(4)][-1]

    response = async_to_sync(last)()
    assert (response.status_code, response.context["users"]) == (429, 0)
    assert "Login locked" in Page(response).text


@pytest.mark.parametrize("right_to_left", ["ar", "fa"])
def test_the_page_runs_in_the_direction_of_its_language(post: Post, settings: Any, right_to_left: str) -> None:
    settings.MIDDLEWARE = ["django.middleware.locale.LocaleMiddleware", *settings.MIDDLEWARE]
    shown = Page(locked_out(post, **HTML, HTTP_ACCEPT_LANGUAGE=right_to_left))
    assert (shown.all("html", "lang"), shown.all("html", "dir")) == ([right_to_left], ["rtl"])
    assert "Login locked" not in shown.text


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (1, "1\xa0minute"),
        (60, "1\xa0minute"),
        (61, "2\xa0minutes"),
        (86_400, "1\xa0day"),
        (90_000, "1\xa0day, 1\xa0hour"),
    ],
)
def test_a_wait_is_told_in_words_and_never_too_short(seconds: int, words: str) -> None:
    assert in_words(seconds) == words
