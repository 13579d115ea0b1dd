"""A step that got no answer, in a process whose watch finds the store back at that very moment."""

from __future__ import annotations

import pytest

from axes_async.counters.events import Kind
from axes_async.errors import StoreUnavailable
from axes_async.models import StoreState
from axes_async.stores.factory import database_name
from axes_async.stores.redis.store import RedisStore
from axes_async.stores.results import Verdict
from axes_async.tasks.drain import drain_to_end
from axes_async.tasks.sync import sync_store
from tests import servers
from tests.protocol.site import Time, Web
from tests.tasks.agreement import in_store_and_rows

TOKEN = "a" * 32


@pytest.mark.django_db(transaction=True)
def test_failure_that_was_counted_unanswered_is_not_counted_again_on_return(
    redis_store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    StoreState.objects.update(synced=1)  # By a full sync, in the generation that the store is in.
    web = Web(servers.valkey_url(), f"axes:{database_name()}", Time(), lambda: None)

    def find_it_back(suspicion: StoreUnavailable) -> bool:
        web.logins._note_return()
        return False

    monkeypatch.setattr(web.logins.watch, "answers", find_it_back)
    assert web.reserve(TOKEN, "ann").verdict == Verdict.ALLOWED
    web.store.loses_answer = True
    web.fail(TOKEN, "ann", web.event(Kind.FAILED, "ann"))
    web.close()
    assert sync_store(redis_store)
    drain_to_end(redis_store)
    stored, rows = in_store_and_rows(redis_store)
    assert stored == rows
    assert list(rows.values()) == [1]
