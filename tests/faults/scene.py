"""A whole site under attack, whose servers and processes a test may break.

What was guessed and what was written of it is compared at the end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from axes_async.counters.events import AttemptEvent
from tests.faults.conftest import Actor, Notes
from tests.faults.machines import Postgres, Valkey
from tests.waiting import until

LIMIT = 4
"""The failures that lock an address on this site."""

STEP = 80
"""Passwords that must have been looked at before something new is done to the site, or after it."""

WRITTEN = """
    SELECT username, host(ip_address) FROM axes_async_accessfailurelog WHERE repeats = 0
    UNION ALL SELECT username, host(ip_address) FROM axes_async_accesslog
"""


@dataclass
class Scene:
    """A site: its servers, two web processes, and a worker."""

    valkey: Valkey
    broker: Valkey
    postgres: Postgres
    database: str
    notes: Notes
    start: Callable[[], Actor]
    """Starts a process of the site; it is to be waited for."""
    webs: list[Actor] = field(default_factory=list)
    workers: list[Actor] = field(default_factory=list)
    lost: set[str] = field(default_factory=set)
    """Usernames whose rows may be missing: their events were in the outbox of a store that was emptied."""
    locked: list[str] = field(default_factory=list)
    """Addresses that were locked before anything broke, and whose rows were written."""
    outbox_key: str = ""

    # What is done to the site.

    def begin(self) -> None:
        """Start the processes, lock some addresses, and let the attack begin."""
        started = [self.start() for _ in range(3)]
        *self.webs, worker = [actor.ready() for actor in started]
        self.workers.append(worker)
        self.settle()
        self.locked = [f"192.0.2.{number}" for number in range(5)]
        for address in self.locked:
            looked_at = self.webs[0].ask("fail", clients=[(f"{address}-{n}", address) for n in range(LIMIT + 1)])
            assert looked_at == [True] * LIMIT + [False]
        (self.outbox_key,) = self.valkey.client.scan_iter("*:outbox")
        self.settle()
        worker.send("work")
        for web in self.webs:
            web.send("attack", locked=self.locked)
        self.go_on()

    def go_on(self) -> None:
        """Wait until more passwords have been looked at."""
        enough = len(self.notes.seen()) + STEP
        until(lambda: len(self.notes.seen()) >= enough, what="the attack goes on")

    def start_worker(self) -> None:
        worker = self.start().ready()
        worker.send("work")
        self.workers.append(worker)

    def kill_worker(self) -> None:
        self.workers.pop(0).kill()

    def kill_web(self) -> None:
        """Kill a web process, and start another one; what its threads had just begun may be missing."""
        web = self.webs.pop(0)
        web.kill()
        last = {}
        for _, _, username in self.notes.seen():
            process, _, number = username.partition("n")
            if process.startswith(f"p{web.process.pid}t"):
                last[process] = max(last.get(process, 0), int(number))
        self.lost |= {f"{process}n{number}" for process, number in last.items()}
        another = self.start().ready()
        another.send("attack", locked=self.locked)
        self.webs.append(another)

    def note_outbox(self) -> None:
        """Let nothing more be written to the store, and note whose events are in its outbox."""
        self.valkey.client.client_pause(600_000, all=False)
        self.lost |= usernames(self.valkey.client.xrange(self.outbox_key))

    def flush(self) -> None:
        """Empty the store, between two commands of anybody else."""
        with self.valkey.client.pipeline(transaction=True) as pipe:
            pipe.xrange(self.outbox_key)
            pipe.flushall()
            entries, _ = pipe.execute()
        self.lost |= usernames(entries)

    # What came of it.

    def end(self) -> None:
        """Stop the attack, and see that everything is written and nobody was let through."""
        self.notes.stop()
        for actor in (*self.webs, *self.workers):
            assert actor.answer() is not None
        until(lambda: all(web.ask("is_at_rest") for web in self.webs), what="each failure has found a store")
        if not self.workers:
            self.workers.append(self.start().ready())
        self.settle()

    def settle(self) -> None:
        """Wait until a worker has drained everything, and the store is complete."""
        until(lambda: self.workers[-1].ask("settled"), what="drained and in step")

    def check(self, *, losses: int) -> None:
        """See that the promises hold; ``losses`` is how often the store was lost, or away."""
        seen = self.notes.seen()
        guesses = Counter(address for kind, address, _ in seen if kind == "wrong")
        assert max(guesses.values()) <= LIMIT * (1 + losses), guesses.most_common(5)
        assert {guesses[address] for address in self.locked} == {LIMIT}, "a lockout that was written holds"

        written = Counter(username for username, _ in self.postgres.query(self.database, WRITTEN))
        assert max(written.values()) == 1, written.most_common(5)
        tried = {username for _, _, username in seen}
        assert written.keys() <= tried
        assert tried - written.keys() <= self.lost

        logged = Counter(address for _, address in self.postgres.query(self.database, WRITTEN))
        newest = [address for kind, address, _ in reversed(seen) if kind == "wrong"]
        for address in list(dict.fromkeys(newest))[:20]:
            more = self.webs[-1].ask("fail", clients=[(f"{address}-{n}", address) for n in range(LIMIT + 1)])
            assert sum(more) <= max(0, LIMIT - logged[address]), "what was logged counts"
        fresh = self.webs[-1].ask("fail", clients=[(f"fresh-{n}", "203.0.113.1") for n in range(LIMIT + 1)])
        assert fresh == [True] * LIMIT + [False]
        over = sum(max(0, count - LIMIT) for count in guesses.values())
        print(
            f"\n{len(seen)} passwords, {over} over the limit, {len(tried - written.keys())} events lost with the store"
        )


def usernames(entries: list[tuple[str, dict[str, str]]]) -> set[str]:
    """Return who the entries of an outbox tell of."""
    return {AttemptEvent.parse(fields["e"]).username or "" for _, fields in entries}
