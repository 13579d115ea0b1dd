"""How counters stand while the store is away: what the rows say, with what this process has heard of the store last.

The rows are behind the store by what no worker has written yet; whoever decides on them adds what it was told itself.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Sequence

from axes_async.clock import as_datetime
from axes_async.counters.events import AttemptEvent
from axes_async.counters.rules import Counter
from axes_async.counters.state import Life
from axes_async.heard import LOOKED_AT, Answer, Heard
from axes_async.ledger import ends_text, keep, life_of
from axes_async.models import AttemptCounter, AttemptPlace
from axes_async.stores.contract import Place
from axes_async.tasks.projection.counters import COUNTER_FIELDS, ends_after
from axes_async.tasks.projection.rows import new_counter, upsert


def tell(heard: Heard, places: Sequence[Place], using: str, *, now: int) -> None:
    """Write what was heard just before the loss, and ``places`` that attempts of this process hold."""
    AttemptPlace.objects.using(using).bulk_create(
        [
            AttemptPlace(digest=one.digest, token=one.token, ends_at=as_datetime(min(one.end, now + LOOKED_AT)))
            for one in places
        ],
        ignore_conflicts=True,
    )
    answers = {digest: answer for digest in heard.recent() if (answer := heard.of(digest, now=now))}
    rows = {row.digest: row for row in AttemptCounter.objects.using(using).filter(digest__in=answers)}
    more = []
    for digest, answer in answers.items():
        row = rows.get(digest) or new_counter(answer.state, answer.event)
        before = row.epoch, row.failures
        if answer.event is not None and before != (_joined(row, answer).epoch, row.failures):
            more.append(row)
    upsert(AttemptCounter, more, key="digest", fields=COUNTER_FIELDS, using=using)


def rows_of(
    counters: Sequence[Counter], heard: Heard, using: str, *, now: int, event: AttemptEvent | None = None
) -> dict[str, AttemptCounter]:
    """Return the rows of ``counters``, with what the store has told this process before anybody wrote it.

    One that has expired starts a life that the store has not seen.
    """
    digests = [counter.digest for counter in counters]
    rows = {row.digest: row for row in AttemptCounter.objects.using(using).filter(digest__in=digests)}
    for row in rows.values():
        if row.expires_at is not None and row.expires_at <= as_datetime(now):
            keep(Life(), row)
            row.blocked = 0
    for counter in counters:
        answer = heard.of(counter.digest, now=now)
        if answer is not None and answer.state.epoch:
            rows[counter.digest] = _joined(
                rows.get(counter.digest) or new_counter(counter, event or answer.event), answer
            )
    return rows


def lives_of(counters: Sequence[Counter], rows: dict[str, AttemptCounter], now: int) -> list[tuple[Counter, Life]]:
    """Return the life of each counter as its row has it; none of what has ended by ``now``."""
    lives = []
    for counter in counters:
        row = rows.get(counter.digest)
        life = Life() if row is None else life_of(row)
        life.settle(counter.rule, now)
        if row is not None and not life.standing:
            row.blocked = 0
        lives.append((counter, life))
    return lives


def places_taken(
    token: str, counters: Sequence[Counter], heard: Heard, using: str, *, now: int
) -> tuple[Tally[str], bool]:
    """Return how many places others hold on each of ``counters``, and whether any row is ``token``'s own."""
    places = AttemptPlace.objects.using(using).filter(digest__in=[counter.digest for counter in counters])
    taken, is_known = Tally[str](), False
    for digest, holder, end in places.values_list("digest", "token", "ends_at"):
        if holder == token:
            is_known = True
        elif end > as_datetime(now):
            taken[digest] += 1
    for counter in counters:
        answer = heard.of(counter.digest, now=now)
        if answer is not None:
            taken[counter.digest] += answer.open
    return taken, is_known


def _joined(row: AttemptCounter, answer: Answer) -> AttemptCounter:
    """Return ``row`` with the failures that the store has counted and no worker has written.

    Not where somebody has taken all of it back since: that was about these failures, too.
    """
    state = answer.state
    is_new = row.updated_at is None
    taken_back = not is_new and row.failures <= row.lifted and row.updated_at > as_datetime(answer.time)
    if row.epoch > state.epoch or taken_back:
        return row
    if row.epoch == state.epoch and row.failures >= state.failures:
        return row
    if row.epoch not in {0, state.epoch}:
        keep(Life(), row)
        is_new = True
    ends = ends_after(row, [(answer.time, state)])
    if row.epoch == 0:
        # What was counted in a row is below 0 in both, once the store has taken the row over.
        row.lifted = state.lifted if is_new else row.lifted + max(0, state.lifted)
        row.epoch, row.updated_at = state.epoch, as_datetime(answer.time)
    row.failures, row.limit = state.failures, state.limit
    row.expires_at = as_datetime(state.expires_at) if state.expires_at else None
    if state.locked_until and (row.locked_until is None or row.locked_until < as_datetime(state.locked_until)):
        row.locked_until = as_datetime(state.locked_until)
    row.ends = ends_text(ends) if state.ends else ""
    return row
