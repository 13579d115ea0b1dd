"""The admin: rows to look at and to search, and lockouts that end with the attempts that are deleted."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from django.apps import apps
from django.contrib import admin
from django.contrib.admin.models import DELETION, LogEntry
from django.contrib.auth.models import Permission, User
from django.contrib.staticfiles import finders
from django.test import Client, override_settings
from django.urls import reverse
from django.utils.html import escape

import axes_async.admin
from axes_async.inspection import attempts
from axes_async.inspection.search import LISTED
from axes_async.models import AccessAttempt, AccessFailureLog, AccessLog, AccessReset, AttemptCounter
from axes_async.utils import reset
from tests.actions import failure
from tests.conftest import PASSWORD
from tests.labels import label

Post = Callable[..., Any]
A, B, C = "203.0.113.7", "198.51.100.8", "192.0.2.9"
NO_STORE = {"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": "redis://127.0.0.1:1/0"}}
BACKEND = "tests.site.CountingBackend"
MODELS = ("accessattempt", "accesslog", "accessfailurelog")
ALL = (*MODELS, "accessreset")

pytestmark = [pytest.mark.django_db, pytest.mark.database]


@pytest.fixture
def operator(db: None, drain: Callable[[], int]) -> Client:
    """Return a client that is logged in as a superuser."""
    client = Client()
    client.force_login(User.objects.create_superuser("root"), BACKEND)
    drain()
    AccessLog.objects.all().delete()
    return client


@pytest.fixture
def locked(operator: Client, alice: User, post: Post, drain: Callable[[], int]) -> None:
    """Lock three addresses out, and record one login."""
    for address in (A, B, C):
        for _ in range(4):
            post(REMOTE_ADDR=address, HTTP_USER_AGENT="curl/8")
    post(password=PASSWORD, HTTP_USER_AGENT="curl/8")
    drain()


def gets_in(post: Post, address: str) -> bool:
    return bool(post(password=PASSWORD, REMOTE_ADDR=address, HTTP_USER_AGENT="curl/8").status_code == 204)


@pytest.mark.parametrize(
    "query",
    [{"username": "\0"}, {"pk": "\0"}, {"username__regex": "(a+)+$"}, {"id__gte": "0"}, {"ip_address__contains": "1"}],
    ids=ascii,
)
@pytest.mark.parametrize("model", ["accessattempt", "accesslog", "accessfailurelog", "accessreset", "lockout"])
def test_a_link_cannot_ask_for_more_than_the_filters_offer(operator: Client, model: str, query: dict[str, str]) -> None:
    query = {name.replace("id__", "digest__" if model == "lockout" else "id__"): text for name, text in query.items()}
    assert operator.get(url("changelist", model), query).status_code == 400


@pytest.mark.parametrize("chosen", ["\0", "1\0", "one", ""], ids=ascii)
@pytest.mark.parametrize(("model", "action"), [("accessattempt", "delete_selected"), ("lockout", "unlock")])
def test_rows_that_are_chosen_by_no_key_are_no_server_error(
    operator: Client, locked: None, model: str, action: str, chosen: str
) -> None:
    form = {"action": action, "_selected_action": chosen, "post": "yes", "reason": "x"}
    assert operator.post(url("changelist", model), form).status_code in {200, 302, 400}
    assert AccessAttempt.objects.count() == 3
    assert all(locked_in(operator).values())


def url(view: str, model: str = "accessattempt", *args: object) -> str:
    return reverse(f"admin:axes_async_{model}_{view}", args=args)


def delete(operator: Client, *addresses: str) -> Any:
    """Delete the attempts of some addresses with the list's action, its question answered."""
    chosen = AccessAttempt.objects.filter(ip_address__in=addresses).values_list("pk", flat=True)
    form = {"action": "delete_selected", "_selected_action": list(chosen), "post": "yes"}
    return operator.post(url("changelist"), form, follow=True)


def locked_in(operator: Client) -> dict[str, bool]:
    """Return which addresses the list of attempts shows as locked."""
    rows = operator.get(url("changelist")).context["cl"].result_list
    return {row.ip_address: bool(row.lockouts) for row in rows}


def texts(response: Any) -> list[str]:
    return [str(message) for message in response.context["messages"]]


def test_the_app_and_its_rows_have_names_that_people_know(operator: Client) -> None:
    page = operator.get("/admin/").content.decode()
    for name in ("Axes", "Access attempts", "Access logs", "Access failures", "Unlocks"):
        assert name in page
    assert apps.get_app_config("axes_async").verbose_name == "Axes"


@pytest.mark.parametrize("model", MODELS)
def test_rows_are_shown_and_nobody_can_add_or_change_one(operator: Client, locked: None, model: str) -> None:
    row: Any = apps.get_model("axes_async", model).objects.first()
    page = operator.get(url("change", model, row.pk))
    assert page.status_code == 200
    assert "curl/8" in page.content.decode()
    assert 'name="_save"' not in page.content.decode()
    assert operator.get(url("add", model)).status_code == 403
    assert operator.post(url("change", model, row.pk), {"username": "mallory"}).status_code == 403
    row.refresh_from_db()
    assert row.username == "alice"


def test_deleting_one_attempt_lifts_its_lockout_alone(operator: Client, locked: None, post: Post) -> None:
    attempt = AccessAttempt.objects.get(ip_address=A)
    response = operator.post(url("delete", "accessattempt", attempt.pk), {"post": "yes"}, follow=True)
    assert any("deleted successfully" in text for text in texts(response))
    assert [gets_in(post, address) for address in (A, B)] == [True, False]
    assert AccessAttempt.objects.filter(ip_address=A).count() == 0


def test_deleting_many_attempts_lifts_the_lockouts_of_each(operator: Client, locked: None, post: Post) -> None:
    assert "Successfully deleted 2 access attempts." in texts(delete(operator, A, B))
    assert [gets_in(post, address) for address in (A, B, C)] == [True, True, False]


def test_more_attempts_than_one_reset_names_go_as_well(
    operator: Client, locked: None, post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("axes_async.admin.attempts.PORTION", 2)
    assert "Successfully deleted 3 access attempts." in texts(delete(operator, A, B, C))
    assert all(gets_in(post, address) for address in (A, B, C))


def test_deletion_says_who_did_it_and_where(operator: Client, locked: None) -> None:
    delete(operator, A, B)
    done = AccessReset.objects.get()
    assert (done.scope, done.attempts, done.by, done.reason) == ("rows", 2, "root", "deleted in the admin")


def test_unlocks_are_shown_searched_and_never_changed(operator: Client, locked: None) -> None:
    reset(ip=A, reason="called the\u202ehelpdesk", by="helen")
    done = AccessReset.objects.get()
    page = operator.get(url("changelist", "accessreset"))
    assert "all values given" in page.content.decode()
    assert escape(r"called the\u202ehelpdesk") in page.content.decode()
    for term, found in (("helen", 1), ("helpdesk", 1), (A, 1), ("mallory", 0)):
        assert operator.get(url("changelist", "accessreset"), {"q": term}).context["cl"].result_count == found
    assert operator.get(url("change", "accessreset", done.pk)).status_code == 200
    assert operator.get(url("add", "accessreset")).status_code == 403
    assert operator.post(url("change", "accessreset", done.pk), {"by": "mallory"}).status_code == 403
    assert operator.post(url("delete", "accessreset", done.pk), {"post": "yes"}).status_code == 403


@pytest.mark.parametrize("model", ["accesslog", "accessfailurelog"])
def test_nobody_can_delete_from_a_log(operator: Client, locked: None, model: str) -> None:
    row: Any = apps.get_model("axes_async", model).objects.first()
    assert operator.post(url("delete", model, row.pk), {"post": "yes"}).status_code == 403


def test_attempt_made_by_hand_can_be_deleted(operator: Client) -> None:
    AccessAttempt.objects.create(username="alice", ip_address=A, failures_since_start=3)
    assert "Successfully deleted 1 access attempt." in texts(delete(operator, A))
    assert not AccessAttempt.objects.exists()


def test_a_failure_not_yet_written_cannot_lock_again_what_was_deleted(
    operator: Client, locked: None, post: Post, drain: Callable[[], int]
) -> None:
    post(REMOTE_ADDR=A, HTTP_USER_AGENT="curl/8")
    delete(operator, A)
    drain()
    assert gets_in(post, A)


@override_settings(AXES_LOCKOUT_PARAMETERS=["username"])
def test_deleting_one_attempt_leaves_the_failures_of_the_others(
    operator: Client, alice: User, post: Post, drain: Callable[[], int]
) -> None:
    for address in (A, A, B):
        post(REMOTE_ADDR=address)
    drain()
    assert not gets_in(post, C)
    delete(operator, B)
    assert [post(REMOTE_ADDR=C).status_code, gets_in(post, C)] == [429, False]


def test_the_record_of_failures_outlives_the_attempts(operator: Client, locked: None) -> None:
    before = AccessFailureLog.objects.count()
    delete(operator, A, B, C)
    assert AccessFailureLog.objects.count() == before == 12


@pytest.mark.parametrize("way", ["one", "many"])
def test_a_store_that_is_down_is_an_error_message_and_nothing_goes(
    operator: Client, locked: None, post: Post, way: str
) -> None:
    attempt = AccessAttempt.objects.get(ip_address=A)
    with override_settings(CACHES=NO_STORE, AXES_ON_STORE_FAILURE="deny"):
        if way == "many":
            response = delete(operator, A)
        else:
            response = operator.post(url("delete", "accessattempt", attempt.pk), {"post": "yes"}, follow=True)
    assert response.status_code == 200
    assert any("could not be reached" in text for text in texts(response))
    assert not any("successfully" in text.lower() for text in texts(response)), "nothing was deleted"
    assert AccessAttempt.objects.filter(ip_address=A).exists()
    assert not gets_in(post, A)


@pytest.mark.parametrize("model", MODELS)
def test_the_list_costs_the_same_few_queries_however_long_it_is(
    operator: Client, locked: None, model: str, django_assert_num_queries: Callable[..., Any]
) -> None:
    rows = apps.get_model("axes_async", model).objects
    operator.get(url("changelist", model))  # Whatever is cached for good is, from here on.
    expected = 4 + (model == "accessattempt")  # Session, user, count, rows; and the lockouts of attempts.
    with django_assert_num_queries(expected) as asked:
        operator.get(url("changelist", model))
    statements = [query["sql"] for query in asked.captured_queries]
    assert not [sql for sql in statements if "DISTINCT" in sql], "that reads a whole log"
    assert [f"LIMIT {LISTED}" in sql for sql in statements if "COUNT(" in sql] == [True]
    row = rows.first()
    unique = "key" if model == "accessattempt" else "event_id"
    for number in range(20):
        row.pk = None
        setattr(row, unique, f"{number:032}"[10 if unique == "key" else 0 :])
        row.save(force_insert=True)
    with django_assert_num_queries(expected):
        operator.get(url("changelist", model))


def test_a_long_log_is_listed_to_a_bound_and_says_so(
    operator: Client, locked: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    note = "are listed. Search or filter to see others."
    assert note not in operator.get(url("changelist", "accessfailurelog")).content.decode()
    monkeypatch.setattr("axes_async.admin.lists.LISTED", 5)
    page = operator.get(url("changelist", "accessfailurelog"))
    assert page.context["cl"].result_count == 5
    assert f"Only the first 5 {note}" in page.content.decode()
    assert note not in operator.get(url("changelist", "accesslog")).content.decode()


def test_lockouts_of_many_attempts_are_looked_for_in_portions(
    locked: None, monkeypatch: pytest.MonkeyPatch, django_assert_num_queries: Callable[..., Any]
) -> None:
    monkeypatch.setattr(attempts, "PORTION", 2)
    rows = list(AccessAttempt.objects.all())
    with django_assert_num_queries(2):
        assert [len(found) for found in attempts.lockouts_of(rows).values()] == [1, 1, 1]


def test_selecting_all_means_all_however_many_are_listed(
    operator: Client, locked: None, post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("axes_async.admin.lists.LISTED", 2)
    monkeypatch.setattr("axes_async.admin.attempts.PORTION", 2)
    page = operator.get(url("changelist"))
    assert page.context["cl"].result_count == 2
    assert "Select all that were found" in page.content.decode()
    chosen = AccessAttempt.objects.latest("pk").pk
    form = {"action": "delete_selected", "_selected_action": [chosen], "select_across": "1"}
    asked = operator.post(url("changelist"), form).content.decode()
    assert "Access attempts: 3" in asked
    fields = dict(
        re.findall(r'<input type="hidden" name="(_selected_action|action|post|select_across)" value="(\w+)">', asked)
    )
    assert AccessAttempt.objects.count() == 3
    assert "Successfully deleted 3 access attempts." in texts(operator.post(url("changelist"), fields, follow=True))
    assert not AccessAttempt.objects.exists()
    assert all(gets_in(post, address) for address in (A, B, C))
    assert LogEntry.objects.filter(action_flag=DELETION).count() == 3


def test_of_many_attempts_those_are_deleted_that_were_chosen(
    operator: Client, locked: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("axes_async.admin.attempts.PORTION", 1)
    chosen = list(AccessAttempt.objects.filter(ip_address__in=[A, B]).values_list("pk", flat=True))
    form: dict[str, Any] = {"action": "delete_selected", "_selected_action": chosen}
    asked = operator.post(url("changelist"), form).content.decode()
    assert sorted(map(int, re.findall(r'name="_selected_action" value="(\d+)"', asked))) == sorted(chosen)
    assert "select_across" not in asked
    operator.post(url("changelist"), {**form, "post": "yes"})
    assert [attempt.ip_address for attempt in AccessAttempt.objects.all()] == [C]


def test_many_attempts_that_cannot_be_deleted_are_an_error_message(
    operator: Client, locked: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("axes_async.admin.attempts.PORTION", 1)
    with override_settings(CACHES=NO_STORE, AXES_ON_STORE_FAILURE="deny"):
        response = delete(operator, A, B)
    assert any("not everything was deleted" in text for text in texts(response))
    assert AccessAttempt.objects.count() == 3
    assert not LogEntry.objects.filter(action_flag=DELETION).exists()


@override_settings(TIME_ZONE="Asia/Tokyo")
@pytest.mark.parametrize("model", ALL)
def test_times_are_the_sites_own_and_have_seconds(
    operator: Client, alice: User, post: Post, drain: Callable[[], int], model: str
) -> None:
    with time_machine.travel(datetime(2030, 1, 1, 20, 30, 45, tzinfo=UTC), tick=False):
        post()
        post(password=PASSWORD)
        drain()
        reset(ip=A)
        AccessAttempt.objects.get_or_create(username="bob", failures_since_start=1)
    row: Any = apps.get_model("axes_async", model).objects.first()
    for page in (url("changelist", model), url("change", model, row.pk)):
        assert ">2030-01-02 05:30:45<" in operator.get(page).content.decode()


@pytest.mark.parametrize("model", MODELS)
def test_a_long_agent_is_short_in_the_list_and_whole_on_hover(
    operator: Client, alice: User, post: Post, drain: Callable[[], int], model: str
) -> None:
    agent = "Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101 <b>Firefox</b>/130.0"
    post(HTTP_USER_AGENT=agent)
    post(password=PASSWORD, HTTP_USER_AGENT=agent)
    failure("bob", agent=agent)
    drain()
    page = operator.get(url("changelist", model)).content.decode()
    assert f'title="{escape(agent)}">Mozilla/5.0 (X11; Linux x86_64) Gecko/2…</span>' in page
    row: Any = apps.get_model("axes_async", model).objects.first()
    assert f">{escape(agent)}<" in operator.get(url("change", model, row.pk)).content.decode()


@pytest.mark.parametrize(
    ("language", "words"),
    [
        ("en", ["turned away (10th)", "turned away (1st)", "locked out", "wrong password"]),
        ("de", ["abgewiesen (10)", "abgewiesen (1)", "gesperrt", "falsches Passwort"]),
    ],
)
def test_failures_say_in_words_what_came_of_them(
    operator: Client, post: Post, drain: Callable[[], int], settings: Any, language: str, words: list[str]
) -> None:
    settings.MIDDLEWARE = ["django.middleware.locale.LocaleMiddleware", *settings.MIDDLEWARE]
    for _ in range(13):
        post()
    drain()
    page = operator.get(url("changelist", "accessfailurelog"), HTTP_ACCEPT_LANGUAGE=language).content.decode()
    shown = re.findall(r'class="axes-outcome axes-([a-z-]+)" title="">([^<]+)<', page)
    assert [kind for kind, _ in shown] == ["turned-away"] * 10 + ["locked-out"] + ["wrong-password"] * 2
    assert [shown[place][1] for place in (0, 9, 10, 11)] == words
    assert "icon-yes" not in page
    for choice, found in (("wrong", 2), ("locked", 1), ("away", 10), ("rubbish", 13)):
        listed = operator.get(url("changelist", "accessfailurelog"), {"outcome": choice}).context["cl"]
        assert listed.result_count == found


def test_what_colours_the_words_is_published(operator: Client) -> None:
    assert "axes_async/admin.css" in operator.get(url("changelist")).content.decode()
    assert finders.find("axes_async/admin.css")


@override_settings(AXES_LOCKOUT_PARAMETERS=["ip_address", "username"], AXES_FAILURE_LIMIT=3)
def test_deleting_says_that_it_unlocks_and_whom(operator: Client, post: Post, drain: Callable[[], int]) -> None:
    for name, address in (("alice", A), ("alice", A), ("bob", A), ("alice", B), ("carol", C)):
        post(name, REMOTE_ADDR=address)
    drain()
    attempts = {f"{row.username}@{row.ip_address}": row.pk for row in AccessAttempt.objects.all()}

    def asked(*names: str) -> list[str]:
        chosen = [attempts[name] for name in names]
        form = {"action": "delete_selected", "_selected_action": chosen}
        pages = [operator.post(url("changelist"), form)]
        if len(names) == 1:
            pages.append(operator.get(url("delete", "accessattempt", *chosen)))
        told = [page.content.decode() for page in pages]
        assert all("ends the lockouts that need them." in page for page in told)
        lines = [re.findall(r"<li>((?:unlocks|stays|Lockouts)[^<]+)</li>", page) for page in told]
        assert lines[0] == lines[-1]
        return lines[0]

    assert asked(f"bob@{A}") == ["Lockouts that end: 1", f"unlocks: IP address {A}"]
    assert asked(f"alice@{A}") == ["Lockouts that end: 2", f"unlocks: IP address {A}", "unlocks: username alice"]
    assert asked(f"carol@{C}") == ["Lockouts that end: 0"]
    for _ in range(2):
        post("alice", REMOTE_ADDR=B)
    AttemptCounter.objects.filter(username="alice").update(failures=9)
    assert asked(f"alice@{A}")[2] == "stays locked, by failures of others: username alice"
    assert asked(f"bob@{A}", f"alice@{A}")[0] == "Lockouts that end: 1"


def test_a_name_full_of_markup_is_shown_as_text(operator: Client, post: Post, drain: Callable[[], int]) -> None:
    post("<script>alert(1)</script>")
    drain()
    assert "<script>alert(1)" not in operator.get(url("changelist")).content.decode()
    assert "&lt;script&gt;alert(1)" in operator.get(url("changelist")).content.decode()


@pytest.mark.parametrize(("permission", "statuses"), [(None, [403, 403]), ("view", [200, 403]), ("delete", [200, 302])])
def test_looking_and_deleting_need_their_permissions(
    locked: None, permission: str | None, statuses: list[int], db: None
) -> None:
    user = User.objects.create_user("clerk", is_staff=True)
    names = [] if permission is None else {"view_accessattempt", f"{permission}_accessattempt"}
    user.user_permissions.set(Permission.objects.filter(codename__in=names))
    client = Client()
    client.force_login(user, BACKEND)
    attempt = AccessAttempt.objects.first()
    assert attempt is not None
    answers = [client.get(url("changelist")), client.post(url("delete", "accessattempt", attempt.pk), {"post": "yes"})]
    assert [answer.status_code for answer in answers] == statuses


def test_the_list_tells_which_attempts_are_locked_out_now(
    operator: Client, locked: None, post: Post, drain: Callable[[], int]
) -> None:
    post(REMOTE_ADDR="198.51.100.200")
    drain()
    page = operator.get(url("changelist"))
    assert locked_in(operator) == {A: True, B: True, C: True, "198.51.100.200": False}
    assert page.content.decode().count('<span class="axes-outcome axes-locked-out" title="IP address 2') == 1
    assert page.content.decode().count(">until a reset</span>") == 3
    for choice, found in (("yes", {A, B, C}), ("no", {"198.51.100.200"}), ("rubbish", {A, B, C, "198.51.100.200"})):
        rows = operator.get(url("changelist"), {"locked_out": choice}).context["cl"].result_list
        assert {row.ip_address for row in rows} == found


@pytest.mark.parametrize(
    ("rules", "locked_rows"),
    [
        (["ip_address"], {("alice", A)}),
        (["username"], {("alice", A), ("alice", B)}),
        ([["username", "ip_address"]], {("alice", A)}),
        (["user_agent"], {("alice", A), ("alice", B), ("bob", C)}),
        ([["ip_address", "user_agent"], "username"], {("alice", A), ("alice", B)}),
    ],
    ids=label,
)
def test_an_attempt_is_locked_out_by_every_counter_it_shares(
    operator: Client, post: Post, drain: Callable[[], int], rules: list[Any], locked_rows: set[tuple[str, str]]
) -> None:
    with override_settings(AXES_LOCKOUT_PARAMETERS=rules, AXES_FAILURE_LIMIT=4):
        post("bob", REMOTE_ADDR=C, HTTP_USER_AGENT="curl/8")
        post(REMOTE_ADDR=B, HTTP_USER_AGENT="curl/8")
        for _ in range(4):
            post(REMOTE_ADDR=A, HTTP_USER_AGENT="curl/8")
        drain()
    rows = operator.get(url("changelist")).context["cl"].result_list
    assert {(row.username, row.ip_address) for row in rows if row.lockouts} == locked_rows
    rows = operator.get(url("changelist"), {"locked_out": "yes"}).context["cl"].result_list
    assert {(row.username, row.ip_address) for row in rows} == locked_rows


@override_settings(AXES_COOLOFF_TIME=timedelta(minutes=5))
def test_a_lockout_that_has_ended_is_shown_as_ended(operator: Client, post: Post, drain: Callable[[], int]) -> None:
    with time_machine.travel(datetime.now(UTC), tick=False) as clock:
        for _ in range(3):
            post(REMOTE_ADDR=A)
        drain()
        row = operator.get(url("changelist")).context["cl"].result_list[0]
        assert (locked_in(operator), row.expires_at - row.attempt_time) == ({A: True}, timedelta(minutes=5))
        clock.shift(300)
        assert locked_in(operator) == {A: False}


def test_what_was_counted_without_the_store_is_shown_too(
    operator: Client, post: Post, drain: Callable[[], int]
) -> None:
    with override_settings(CACHES=NO_STORE):
        for _ in range(3):
            post(REMOTE_ADDR=A)
        drain()
        assert locked_in(operator) == {A: True}


@pytest.mark.parametrize("model", ["accessattempt", "accessfailurelog"])
@pytest.mark.parametrize("mark", ["\u202e", "\u2066", "\u200b", "\x1b", "\u2028", "\xa0"])
def test_marks_that_disguise_a_name_are_shown_escaped(
    operator: Client, post: Post, drain: Callable[[], int], model: str, mark: str
) -> None:
    name = f"root{mark}toor"
    post(name, HTTP_USER_AGENT=name)
    drain()
    row = apps.get_model("axes_async", model).objects.get()
    assert row.username == name
    views = ["changelist", "change"] + (["delete"] if model == "accessattempt" else [])
    for view in views:
        page = operator.get(url(view, model, *([] if view == "changelist" else [row.pk]))).content.decode()
        assert name not in page
        assert f"root{escape(repr(mark)[1:-1])}toor" in page


def test_a_site_may_leave_the_rows_out_of_its_admin(operator: Client) -> None:
    models = [apps.get_model("axes_async", model) for model in (*ALL, "dashboard", "lockout")]

    def read_again(**settings: Any) -> None:
        """Do what a start of the site does with the admin."""
        for model in models:
            if admin.site.is_registered(model):
                admin.site.unregister(model)
        with override_settings(**settings):
            importlib.reload(axes_async.admin)

    try:
        read_again(AXES_ENABLE_ADMIN=False)
        assert not any(admin.site.is_registered(model) for model in models)
        assert "Access attempts" not in operator.get("/admin/").content.decode()
    finally:
        read_again()
    assert "Access attempts" in operator.get("/admin/").content.decode()


@pytest.mark.parametrize(
    "rules",
    [
        {"AXES_LOCKOUT_TIERS": [(3, timedelta(minutes=10)), (6, timedelta(hours=1))]},
        {"AXES_USE_ATTEMPT_EXPIRATION": True, "AXES_COOLOFF_TIME": timedelta(minutes=10)},
    ],
    ids=["tiers", "window"],
)
def test_a_lockout_that_has_ended_before_its_count_is_not_shown(
    operator: Client, drain: Callable[[], int], settings: Any, rules: dict[str, Any]
) -> None:
    for name, value in rules.items():
        setattr(settings, name, value)
    start = datetime.now(UTC)

    def shown() -> list[bool]:
        return list(locked_in(operator).values())

    with time_machine.travel(start, tick=False) as clock:
        failure()
        clock.shift(60)
        failure()
        failure()
        drain()
        assert shown() == [True]
        clock.shift(538)
        assert shown() == [True]
        clock.shift(63 if "AXES_LOCKOUT_TIERS" in rules else 3)
        assert shown() == [False]
        assert failure()
