"""Whether a store and the rows say the same of every counter."""

from __future__ import annotations

from axes_async.models import AttemptCounter, StoreState
from axes_async.stores.redis.store import RedisStore


def in_store_and_rows(store: RedisStore) -> tuple[dict[str, int], dict[str, int]]:
    """Return the active failures of each counter that has any: as the store has it, and as the rows have it."""
    stored, void = {}, store.key().void
    for key in store.client.scan_iter(f"{store.counter_prefix}*", count=10_000):
        fields = {name.decode(): value for name, value in store.client.hgetall(key).items()}
        if int(fields.get("f", 0)) and int(fields["n"]) > void:
            stored[key.decode()[-22:]] = int(fields["f"])
    state = StoreState.objects.filter(pk=1).first()
    counting = AttemptCounter.objects.filter(failures__gt=0, generation__gt=state.void_generation if state else -1)
    return stored, dict(counting.values_list("digest", "failures"))
