"""A site's own answers to locked out clients: a callable, a template, a URL, words, headers."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib import admin
from django.contrib.auth import authenticate
from django.contrib.auth.models import User
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, HttpResponse
from django.template import TemplateDoesNotExist
from django.test import AsyncClient, Client, override_settings
from django.urls import path
from django.utils.functional import lazystr

from axes_async.decorators import axes_dispatch
from axes_async.stores.redis.store import RedisStore
from tests.conftest import PASSWORD
from tests.login.test_responses import hold_reservations
from tests.site import async_sign_in, home, sign_in
from tests.test_decorators import GuardedLoginView

Post = Callable[..., Any]
CALLS: list[tuple[HttpRequest, Any, Any]] = []
FLAGS: list[bool] = []
AJAX = {"HTTP_X_REQUESTED_WITH": "XMLHttpRequest"}
TEMPLATES = {
    "locked.html": "{{ failure_limit }}|{{ username }}|{{ cooloff_time }}|{{ cooloff_timedelta }}|{{ retry_after }}",
    "user.html": "{{ user.is_authenticated }} {{ users.count }}",
}

pytestmark = [pytest.mark.django_db]


def teapot(request: HttpRequest, response: HttpResponse | None, credentials: Any) -> HttpResponse:
    """Answer a locked out client, and remember what was given."""
    CALLS.append((request, response, credentials))
    return HttpResponse("locked", status=418)


def old_teapot(request: HttpRequest, credentials: Any) -> HttpResponse:
    """Answer a locked out client as callables did before they were given the view's response."""
    CALLS.append((request, "not given", credentials))
    return HttpResponse("locked", status=418)


def broken(request: HttpRequest, response: HttpResponse | None, credentials: Any) -> HttpResponse:
    """Fail as if the arguments were wrong."""
    CALLS.append((request, response, credentials))
    raise TypeError("broken() takes no answer")


def nothing(request: HttpRequest, response: HttpResponse | None, credentials: Any) -> Any:
    """Forget to return anything."""


def flagged(request: HttpRequest) -> HttpResponse:
    """Try a password, and read the flag that django-axes sets."""
    FLAGS.append(request.axes_locked_out)  # type: ignore[attr-defined]
    authenticate(request, username=request.POST.get("username"), password=request.POST.get("password"))
    FLAGS.append(request.axes_locked_out)  # type: ignore[attr-defined]
    return HttpResponse(status=401)


urlpatterns = [
    path("sign-in/", sign_in),
    path("async-sign-in/", async_sign_in),
    path("dispatched/", axes_dispatch(sign_in)),
    path("view/", GuardedLoginView.as_view()),
    path("flagged/", flagged),
    path("locked/", home, name="locked-page"),
    path("admin/", admin.site.urls),  # The view borrows the admin's template.
]


@pytest.fixture(autouse=True)
def _site(settings: Any) -> None:
    engine = {**settings.TEMPLATES[0], "APP_DIRS": False}
    loaders = [
        ("django.template.loaders.locmem.Loader", TEMPLATES),
        "django.template.loaders.app_directories.Loader",
    ]
    context_processors = [*engine["OPTIONS"]["context_processors"], "tests.login.test_lockout_response.users"]
    engine["OPTIONS"] = {"context_processors": context_processors, "loaders": loaders}
    settings.TEMPLATES = [engine]
    settings.ROOT_URLCONF = "tests.login.test_lockout_response"
    settings.AXES_RESERVE_WAIT = 0
    CALLS.clear()
    FLAGS.clear()


def users(request: HttpRequest) -> dict[str, Any]:
    """Give templates something to ask the database for."""
    return {"users": User.objects}


def lock_out(post: Post, times: int = 3, **options: Any) -> Any:
    """Fail until the lockout is set; return the response to the last failure."""
    return [post(**options) for _ in range(times)][-1]


class TestCallable:
    """AXES_LOCKOUT_CALLABLE."""

    @pytest.mark.parametrize("setting", [teapot, "tests.login.test_lockout_response.teapot"])
    def test_it_answers_with_the_request_the_views_response_and_the_name(self, post: Post, setting: Any) -> None:
        with override_settings(AXES_LOCKOUT_CALLABLE=setting):
            assert [post().status_code for _ in range(4)] == [401, 401, 418, 418]
        first, second = CALLS
        assert (first[0].path, first[1].status_code, first[1].content) == ("/sign-in/", 401, b"wrong")
        assert first[2] == second[2] == {"username": "alice"}

    @override_settings(AXES_LOCKOUT_CALLABLE=old_teapot)
    def test_one_that_takes_no_response_is_given_none(self, post: Post) -> None:
        assert lock_out(post).status_code == 418
        assert [call[1:] for call in CALLS] == [("not given", {"username": "alice"})]

    @override_settings(AXES_LOCKOUT_CALLABLE=teapot)
    @pytest.mark.parametrize("url", ["/dispatched/", "/view/"])
    def test_it_is_asked_once_for_each_response_where_decorators_answer_too(self, post: Post, url: str) -> None:
        assert [post(url=url).status_code for _ in range(5)][-3:] == [418] * 3
        assert len(CALLS) == 3
        assert CALLS[-1][1] is None

    @pytest.mark.parametrize("error", [TypeError, ImproperlyConfigured])
    def test_what_is_wrong_with_it_surfaces_as_it_is(self, post: Post, error: type[Exception]) -> None:
        setting = broken if error is TypeError else nothing
        with (
            override_settings(AXES_LOCKOUT_CALLABLE=setting),
            pytest.raises(error, match=r"no answer|^AXES_LOCKOUT_CALLABLE"),
        ):
            lock_out(post)
        assert len(CALLS) == (1 if setting is broken else 0)

    @override_settings(AXES_LOCKOUT_CALLABLE=broken)
    def test_a_broken_one_lets_nobody_in(self, alice: User, post: Post, client: Client) -> None:
        client.raise_request_exception = False
        assert [post().status_code for _ in range(3)] == [401, 401, 500]
        assert post(password=PASSWORD).status_code == 500

    @override_settings(AXES_LOCKOUT_CALLABLE=teapot)
    def test_a_busy_client_is_not_its_business(self, post: Post, redis_store: RedisStore) -> None:
        hold_reservations(redis_store)
        assert (post().status_code, CALLS) == (429, [])

    @override_settings(AXES_LOCKOUT_CALLABLE=lambda request, response, credentials: response)
    def test_it_may_keep_the_views_response(self, post: Post) -> None:
        assert [post().status_code for _ in range(4)] == [401] * 4

    @override_settings(AXES_LOCKOUT_CALLABLE=teapot)
    def test_it_is_never_given_a_password(self, post: Post) -> None:
        lock_out(post, password="hunter2")
        assert "hunter2" not in repr(CALLS[0][2])


class TestTemplate:
    """AXES_LOCKOUT_TEMPLATE."""

    @override_settings(AXES_LOCKOUT_TEMPLATE="locked.html", AXES_COOLOFF_TIME=timedelta(minutes=90))
    def test_it_is_told_what_there_is_to_tell(self, post: Post) -> None:
        response = lock_out(post, username="<alice>")
        assert response.content.decode() == "3|&lt;alice&gt;|PT1H30M|1:30:00|5400"
        assert (response.status_code, response["Retry-After"], response["Cache-Control"]) == (429, "5400", "no-store")
        assert response["Content-Type"] == "text/html; charset=utf-8"

    @override_settings(AXES_LOCKOUT_TEMPLATE="locked.html", AXES_HTTP_RESPONSE_CODE=403)
    def test_a_lockout_that_only_a_reset_ends_has_no_times(self, post: Post) -> None:
        response = lock_out(post, username="")
        assert (response.content.decode(), response.status_code) == ("3||||None", 403)
        assert response.context["message"].endswith("until an administrator lifts it.")

    @override_settings(AXES_LOCKOUT_TEMPLATE="locked.html")
    def test_whoever_wants_json_gets_json(self, post: Post) -> None:
        assert lock_out(post, **AJAX)["Content-Type"] == "application/json"

    @override_settings(AXES_LOCKOUT_TEMPLATE="none.html")
    def test_one_that_is_missing_is_reported_as_missing(self, post: Post) -> None:
        with pytest.raises(TemplateDoesNotExist, match=r"none\.html"):
            lock_out(post)


class TestURL:
    """AXES_LOCKOUT_URL."""

    @pytest.mark.parametrize(
        ("setting", "location"),
        [
            ("/locked/", "/locked/?username=al+ice%26"),
            ("locked-page", "/locked/?username=al+ice%26"),
            (lazystr("/locked/"), "/locked/?username=al+ice%26"),
            ("/locked/?from=login#top", "/locked/?from=login&username=al+ice%26#top"),
            ("https://example.com/locked", "https://example.com/locked?username=al+ice%26"),
        ],
    )
    def test_a_locked_out_client_is_sent_there_with_its_name(self, post: Post, setting: Any, location: str) -> None:
        with override_settings(AXES_LOCKOUT_URL=setting, AXES_COOLOFF_TIME=1):
            response = lock_out(post, username="al ice&")
        assert (response.status_code, response["Location"]) == (302, location)
        assert (response["Cache-Control"], response.has_header("Retry-After")) == ("no-store", False)

    @override_settings(AXES_LOCKOUT_URL="/locked/")
    @pytest.mark.parametrize("name", ["\ud800", "a\x00b\r\nSet-Cookie: x=1", "é" * 5000, ""])
    def test_no_name_can_break_it(self, client: Client, name: str) -> None:
        form = {"username": name, "password": "wrong"}
        for _ in range(4):
            response = client.post("/dispatched/", form, content_type="application/json", HTTP_ACCEPT="text/html")
        assert response["Location"].startswith("/locked/?username=")
        assert not response.has_header("Set-Cookie")

    @override_settings(AXES_LOCKOUT_URL="/locked/")
    def test_whoever_wants_json_stays(self, post: Post) -> None:
        assert lock_out(post, HTTP_ACCEPT="application/json").status_code == 429


class TestWords:
    """AXES_COOLOFF_MESSAGE and AXES_PERMALOCK_MESSAGE."""

    @pytest.mark.parametrize(("cooloff", "words"), [(1, "Soon."), (None, "Ask us.")])
    @pytest.mark.parametrize("kind", [str, lazystr])
    def test_a_site_has_words_of_its_own(self, post: Post, cooloff: Any, words: str, kind: Any) -> None:
        with override_settings(
            AXES_COOLOFF_TIME=cooloff, AXES_COOLOFF_MESSAGE=kind("Soon."), AXES_PERMALOCK_MESSAGE=kind("Ask us.")
        ):
            assert lock_out(post).content.decode() == words
            assert post(HTTP_ACCEPT="application/json").json()["message"] == words

    @override_settings(AXES_COOLOFF_MESSAGE="Soon.", AXES_PERMALOCK_MESSAGE="Ask us.")
    def test_they_are_for_lockouts_alone(self, post: Post, redis_store: RedisStore) -> None:
        hold_reservations(redis_store)
        assert "at once" in post().content.decode()


class TestHeaders:
    """AXES_ENABLE_RETRY_AFTER_HEADER and AXES_ALLOWED_CORS_ORIGINS."""

    @override_settings(AXES_COOLOFF_TIME=1, AXES_ENABLE_RETRY_AFTER_HEADER=False)
    def test_retry_after_can_be_left_out_and_json_still_tells(self, post: Post) -> None:
        response = lock_out(post, HTTP_ACCEPT="application/json")
        assert (response.has_header("Retry-After"), response.json()["retry_after"]) == (False, 3600)

    @pytest.mark.parametrize(
        ("setting", "origin", "allowed", "varies"),
        [
            (None, "https://a.example", None, False),
            ("https://a.example", "https://a.example", "https://a.example", True),
            (["https://b.example", "https://a.example"], "https://a.example", "https://a.example", True),
            ("https://a.example", "https://a.example.evil.example", None, True),
            ("https://a.example", "null", None, True),
            ("https://a.example", None, None, True),
            ("*", "https://a.example", "*", False),
            ("*", None, "*", False),
        ],
    )
    def test_pages_of_other_origins_read_the_answer_if_the_site_names_them(
        self, post: Post, setting: Any, origin: str | None, allowed: str | None, varies: bool
    ) -> None:
        headers = AJAX if origin is None else {**AJAX, "HTTP_ORIGIN": origin}
        with override_settings(AXES_ALLOWED_CORS_ORIGINS=setting):
            response = lock_out(post, **headers)
        assert response.headers.get("Access-Control-Allow-Origin") == allowed
        assert not response.has_header("Access-Control-Allow-Credentials")
        assert ("Origin" in response.headers.get("Vary", "")) is varies

    @override_settings(AXES_ALLOWED_CORS_ORIGINS="*")
    def test_a_page_is_not_for_other_origins(self, post: Post) -> None:
        assert not lock_out(post, HTTP_ORIGIN="https://a.example").has_header("Access-Control-Allow-Origin")


@pytest.mark.parametrize(
    "own",
    [{"LOCKOUT_CALLABLE": teapot}, {"LOCKOUT_TEMPLATE": "locked.html"}, {"LOCKOUT_URL": "/locked/"}],
    ids=" ".join,
)
def test_while_lockout_is_off_nobody_is_told_of_one(post: Post, own: dict[str, Any]) -> None:
    named = {f"AXES_{name}": value for name, value in own.items()}
    assert lock_out(post).status_code == 429
    with override_settings(AXES_LOCK_OUT_AT_FAILURE=False, **named):
        assert [post(url=url).status_code for url in ("/sign-in/", "/dispatched/") for _ in range(4)] == [401] * 8
    assert CALLS == []


def test_the_flag_of_django_axes_tells_a_view_how_it_stands(post: Post) -> None:
    for _ in range(4):
        post(url="/flagged/")
    assert FLAGS == [False, False, False, False, False, True, False, True]


class TestAsync:
    """The same answers to async views, with what is the site's own in a thread."""

    @staticmethod
    def locked_out(headers: dict[str, str] | None = None) -> Any:
        async def run() -> Any:
            client, form = AsyncClient(), {"username": "alice", "password": "wrong"}
            return [await client.post("/async-sign-in/", form, headers=headers) for _ in range(4)][-1]

        return async_to_sync(run)()

    @override_settings(AXES_LOCKOUT_CALLABLE=teapot)
    def test_a_callable(self) -> None:
        assert self.locked_out().status_code == 418
        assert [(call[1].status_code, call[2]) for call in CALLS] == [(401, {"username": "alice"})] * 2

    @override_settings(AXES_LOCKOUT_TEMPLATE="user.html")
    def test_a_template_that_asks_the_database(self, alice: User) -> None:
        assert self.locked_out().content == b"False 1"

    @override_settings(AXES_LOCKOUT_URL="/locked/")
    def test_a_url(self) -> None:
        assert self.locked_out()["Location"] == "/locked/?username=alice"

    def test_json_for_scripts(self) -> None:
        assert self.locked_out({"X-Requested-With": "XMLHttpRequest"}).json()["failure_limit"] == 3


def test_the_flag_is_seen_through_the_wrapped_request_of_django_rest_framework(post: Post) -> None:
    views = pytest.importorskip("rest_framework.views", reason="djangorestframework is not installed")
    seen: list[tuple[bool, bool]] = []

    class Token(views.APIView):  # type: ignore[misc, name-defined]
        authentication_classes = ()
        permission_classes = ()

        def post(self, request: Any) -> HttpResponse:
            authenticate(request, username=request.data["username"], password=request.data["password"])
            seen.append((request.axes.locked_out, request.axes_locked_out))
            return HttpResponse(status=401)

    with override_settings(ROOT_URLCONF=(path("token/", Token.as_view()),)):
        assert [post(url="/token/").status_code for _ in range(4)] == [401, 401, 429, 429]
    assert seen == [(False, False), (False, False), (True, True), (True, True)]


@pytest.mark.parametrize(
    "name",
    ["a\nb", "a\u2028b", "x" * 9999, "\x00", "<script>alert(1)</script>", "\r\nSet-Cookie: a=b", "\u202egnp", '"}{"'],
)
@pytest.mark.parametrize("url", ["/x/", "https://sso.example/locked?x=1"])
@pytest.mark.parametrize("accept", ["text/html", "application/json"])
@pytest.mark.parametrize("way", ["/sign-in/", "/async-sign-in/"])
def test_no_name_leaves_the_answer_or_the_line_of_the_log_that_it_is_in(
    client: Client, settings: Any, caplog: pytest.LogCaptureFixture, name: str, url: str, accept: str, way: str
) -> None:
    settings.AXES_LOCKOUT_URL, settings.AXES_CLIENT_STR_CALLABLE = url, lambda *told: f"{told[0]}\n{told[2]}"
    caplog.set_level(0)
    headers = {"Accept": accept, "User-Agent": "a\x1b[2J"}
    body = {"username": name, "password": "hunter2secret"}
    answers = [client.post(way, body, headers=headers) for _ in range(4)]
    assert [answer.status_code for answer in answers[:2]] == [401, 401]
    for answer in answers[2:]:
        assert answer.status_code == (302 if accept == "text/html" else 429)
        assert answer.status_code == 429 or answer["Location"].startswith(f"{url}{'&' if '?' in url else '?'}username=")
        assert "Set-Cookie" not in answer
    told = [record for record in caplog.records if record.name.startswith("axes_async")]
    assert told
    assert all(record.getMessage().isprintable() for record in told)
    assert not any("hunter2" in str(vars(record)) for record in told)


def test_a_long_name_in_many_bytes_is_redirected_like_any_other(alice: User, post: Post, settings: Any) -> None:
    settings.AXES_LOCKOUT_URL = "/home/?a=1"
    name = "\U0001f600" * 300
    answers = [post(name) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [401, 401, 302, 302]
    assert answers[-1]["Location"].startswith("/home/?a=1&username=%F0")
