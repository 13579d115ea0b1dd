"""A model of the failure protocol (docs/protocol.md): the store decides, or the database does.

A `World` is a store, a database, some web processes and two workers. Every script of the store and every transaction of
the database is one action; a transaction that sends a script holds its locks from its first action to its last. A
failure is a token, one for each attempt, so that a doubled or missing failure is seen, and not only a number. Commands
that were sent may run at any later time, also when their sender has given up.

What must hold (`check` after each action; `compare` when all that was sent has run, and the workers had their time):

    P1  guesses at the hasher, for each counter: at most limit x (1 + losses)
    P2  a lockout that store and rows both had lets nobody in
    P3  no failure is counted or logged twice; none is missing but in the outbox of a store that lost it
    P4  store and rows say the same, nothing is dirty, the store decides
    P5  what was reset does not count again

`walks` looks for a sequence of actions that breaks one of them.
"""

from __future__ import annotations

from collections import namedtuple

RULES = {
    "fence": "every script carries a generation, and does nothing for another one",
    "connect": "a server that was restarted is noticed at connect, and its key becomes lost",
    "retry": "database step: mode store and a newer generation than mine -> the store again",
    "unsure": "a settlement that may have run in the store is sent to it again only if a sync was completed since",
    "applied": "an event whose id was applied is skipped whole, also by a step in the database",
    "recheck": (
        "sync looks at state, then at the key; its first transaction stops if the generation has moved since, or the "
        "mode is store again"
    ),
    "plus2": "sync and a reset of rows alone raise the generation by two, over a push that may be under way",
    "adopt": "a push first makes the database adopt a higher generation of the key",
    "push_raises": "a push raises the generation of the key",
    "conflict": "a push does nothing where an event behind the cursor touched its counters",
    "last": "that is seen by the position of the last event in the counter itself (else: by a look into the outbox)",
    "push_writer": "a push holds the writer lock",
    "push_state": "a push holds StoreState exclusively, and looks at the mode under it",
    "final_lock": "the end of sync holds StoreState exclusively",
    "portion_lock": "sync holds the rows of a portion until the store has answered",
    "sync_drain": "sync drains the outbox of the store after it has invalidated it",
    "load_fence": "load and complete run only under the generation of their sync, and never under ok",
    "lost_all": "a store that lost its counters gets every live row, not the dirty ones alone",
    "lost_void": "what a lost store has in old counters counts nothing",
    "carry": "reservations of the rows go along into the store",
    "reset_drain": "a reset of some drains first",
    "row_void": "a reset of rows alone voids, for its counters, the events of the generations so far",
    "intent": "a reset of all is written down before the push, and undone by nobody",
    "clear_dirty": "a cleared event takes back nothing from a dirty row",
    "one_job": "one sync or push at a time",
    "crash_is_loss": "the bound counts a sync that dies between complete and commit as a loss (no rule: a promise)",
}

Count = namedtuple("Count", "stamp failures reservations last expires")  # a counter in the store
Row = namedtuple("Row", "failures reservations dirty void expires")  # a counter in the database
Key = namedtuple("Key", "status generation void run")
Process = namedtuple("Process", "at token generation unsure left")
Worker = namedtuple("Worker", "at wait generation data")
Event = namedtuple("Event", "position token kind cleared time")

NOTHING = frozenset()
START = (0, 0)
IDLE = Worker("idle", None, 0, None)
FIELDS = [
    "key",
    "run",
    "counts",
    "outbox",
    "sequence",
    "up",
    "snapshot",
    "generation",
    "synced",
    "mode",
    "void",
    "pending",
    "rows",
    "cursor",
    "applied",
    "log",
    "table",
    "processes",
    "workers",
    "sent",
    "writer",
    "state_lock",
    "row_lock",
    "cut",
    "now",
    "budget",
    "losses",
    "granted",
    "failed",
    "excused",
    "lost",
    "forgotten",
    "locked",
    "broken",
    "raised",
]


class World:
    def __init__(
        self,
        rules,
        limit=1,
        processes=2,
        attempts=2,
        counters=1,
        workers=2,
        faults=0,
        kinds=(),
        crashes=0,
        resets=0,
        resets_all=0,
        imports=0,
        clears=0,
        ticks=0,
        deaths=0,
        snapshots=0,
        leases=None,
        syncs=3,
        pushes=2,
        drains=2,
    ):
        self.rules, self.limit = rules, limit
        self.kinds, self.leases = kinds, leases
        self.budget = {
            "faults": faults,
            "crashes": crashes,
            "resets": resets,
            "resets_all": resets_all,
            "imports": imports,
            "clears": clears,
            "ticks": ticks,
            "deaths": deaths,
            "snapshots": snapshots,
            "syncs": syncs,
            "pushes": pushes,
            "drains": drains,
        }
        # the store
        self.key, self.run, self.up, self.snapshot = Key("ok", 1, 0, 0), 0, True, None
        self.counts = (Count(1, (), NOTHING, START, 0),) * counters
        self.outbox, self.sequence = (), 0
        # the database
        self.generation, self.synced, self.mode, self.void, self.pending = 1, 1, "store", 0, False
        self.rows = (Row((), NOTHING, False, 0, 0),) * counters
        self.cursor, self.applied, self.log, self.table = START, NOTHING, (), ()
        self.writer = self.state_lock = None
        self.row_lock = (None,) * counters
        # who acts
        self.processes = (Process("idle", 0, 1, False, attempts),) * processes
        self.workers = (IDLE,) * workers
        self.sent, self.cut, self.now = (), None, 0
        # what we know of it; pairs (counter, token)
        self.losses = 0
        self.granted = self.failed = self.excused = self.lost = self.forgotten = self.locked = NOTHING
        self.broken, self.raised = None, NOTHING

    # ---- plumbing

    def copy(self):
        new = object.__new__(World)
        new.__dict__.update(self.__dict__)
        return new

    def identity(self):
        return tuple(tuple(sorted(v.items())) if isinstance(v := getattr(self, name), dict) else v for name in FIELDS)

    def spend(self, name):
        self.budget = dict(self.budget, **{name: self.budget[name] - 1})

    def touched(self, token):
        """Return the counters of an attempt. With two: some attempts touch both, some one."""
        if len(self.rows) == 1:
            return (0,)
        return ((0, 1), (0,), (1,))[(token // 10 + token) % 3]

    def set_count(self, c, **kw):
        self.counts = (*self.counts[:c], self.counts[c]._replace(**kw), *self.counts[c + 1 :])

    def set_row(self, c, **kw):
        self.rows = (*self.rows[:c], self.rows[c]._replace(**kw), *self.rows[c + 1 :])

    def set_process(self, i, **kw):
        self.processes = (*self.processes[:i], self.processes[i]._replace(**kw), *self.processes[i + 1 :])

    def set_worker(self, i, *args, **kw):
        new = Worker(*args) if args else self.workers[i]._replace(**kw)
        self.workers = (*self.workers[:i], new, *self.workers[i + 1 :])

    def excuse(self, pairs):
        self.excused |= frozenset(pairs)

    # ---- what must hold

    def store_failures(self, c):
        count = self.counts[c]
        return count.failures if count.stamp > (self.key.void if self.key else 0) and count.expires > self.now else ()

    def row_failures(self, c):
        row = self.rows[c]
        return row.failures if row.expires > self.now else ()

    def check(self):
        if self.broken:
            return self.broken
        for c, row in enumerate(self.rows):
            guesses = [t for k, t in self.granted - self.excused if k == c]
            if len(guesses) > self.limit * (1 + self.losses):
                return f"P1: {len(guesses)} guesses, limit {self.limit}, losses {self.losses}"
            if len(set(row.failures)) < len(row.failures):
                return f"P3: counted twice in the rows {row.failures!r}"
        if len(set(self.log)) < len(self.log):
            return f"P3: logged twice {self.log!r}"
        return None

    def compare(self):
        if not self.key or self.key.status != "ok" or self.mode != "store":
            return "P4: the store does not decide"
        if self.pending or self.table or any(r.dirty for r in self.rows):
            return "P4: dirty or pending left"
        for c in range(len(self.rows)):
            store, rows = self.store_failures(c), self.row_failures(c)
            if sorted(store) != sorted(rows):
                return f"P4: store {store!r}, rows {rows!r}"
            missing = {t for k, t in self.failed - self.excused - self.lost - self.forgotten if k == c} - set(rows)
            if missing:
                return f"P3: failures {sorted(missing)!r} count nowhere"
            again = {t for k, t in self.forgotten if k == c} & set(rows)
            if again:
                return f"P5: {sorted(again)!r} counts again after a reset"
        missing = {t for _, t in self.failed - self.lost} - set(self.log)
        if missing:
            return f"P3: not logged {sorted(missing)!r}"
        return None

    def note_lockouts(self, before):
        """P2, after each action."""
        new = self.granted - before.granted
        for c, _ in new:
            if c in self.locked:
                self.broken = "P2: a lockout that store and rows had let somebody in"
        if (
            self.key
            and self.key.status == "ok"
            and self.key.run == self.run
            and self.mode == "store"
            and not self.pending
        ):
            for c, row in enumerate(self.rows):
                if (
                    c not in self.locked
                    and not row.dirty
                    and min(len(self.store_failures(c)), len(self.row_failures(c))) >= self.limit
                ):
                    self.locked |= {c}

    # ---- the scripts of the store

    def refused(self, generation):
        if not self.key or self.key.status != "ok":
            return "incomplete"
        if self.rules["fence"] and self.key.generation != generation:
            return ("generation", self.key.generation)
        return None

    def fresh(self, c):
        """Let a counter that is void or expired start anew, before a script uses it."""
        if self.counts[c].stamp <= self.key.void or self.counts[c].expires <= self.now:
            self.set_count(c, failures=(), expires=0)
        self.set_count(c, stamp=self.key.generation)

    def execute(self, command):
        if self.rules["connect"] and self.key and self.key.run != self.run:
            self.key = self.key._replace(status="lost", run=self.run)
        return getattr(self, "script_" + command[0])(*command[1:])

    def script_reserve(self, token, generation):
        if refused := self.refused(generation):
            return refused
        for c in self.touched(token):
            self.fresh(c)
            if len(self.counts[c].failures) + len(self.counts[c].reservations - {token}) >= self.limit:
                return "denied"
        for c in self.touched(token):
            self.set_count(c, reservations=self.counts[c].reservations | {token})
        return "granted"

    def script_settle(self, token, kind, generation):
        if refused := self.refused(generation):
            return refused
        self.sequence += 1
        position = (self.key.generation, self.sequence)
        cleared = ()
        for n, c in enumerate(self.touched(token)):
            self.fresh(c)
            count = self.counts[c]
            self.set_count(c, reservations=count.reservations - {token})
            if kind == "fail":
                self.set_count(c, failures=tuple(sorted((*count.failures, token))), expires=self.now + 1, last=position)
            elif n == 0:
                cleared += (c,)
                self.excuse((c, t) for t in count.failures)
                self.locked -= {c}
                self.set_count(c, failures=(), last=position)
        self.outbox += (Event(position, token, kind, cleared, self.now),)
        return "done"

    def script_look(self):
        return ("key", self.key)

    def script_read(self, generation):
        """Read the outbox; with a generation: by a sync, under its own one only."""
        if generation and (not self.key or self.key.generation != generation or self.key.status == "ok"):
            return "not yours"
        return ("events", self.key, self.outbox)

    def script_trim(self, position):
        self.outbox = tuple(e for e in self.outbox if e.position > position)
        return "done"

    def script_invalidate(self, generation):
        if self.key and self.key.generation > generation:
            return "not yours"
        lost = not self.key or self.key.status == "lost"
        void = self.key.void if self.key else 0
        if lost and self.rules["lost_void"]:
            void = generation - 1
        self.key = Key("lost" if lost else "stale", generation, void, self.run)
        return ("invalid", self.key.status)

    def theirs(self, generation):
        return self.rules["load_fence"] and (
            not self.key or self.key.status == "ok" or self.key.generation != generation
        )

    def script_load(self, generation, rows):
        if self.theirs(generation) or not self.key:
            return "not yours"
        for c, row in rows:
            carried = row.reservations if self.rules["carry"] else NOTHING
            self.set_count(
                c,
                stamp=generation,
                failures=row.failures,
                expires=row.expires,
                reservations=self.counts[c].reservations | carried,
            )
        return "done"

    def script_complete(self, generation, void):
        if self.theirs(generation) or not self.key:
            return "not yours"
        self.key = Key("ok", generation, max(void, self.key.void), self.run)
        return "done"

    def script_push(self, generation, new, cursor, rows, void):
        if not self.key or self.key.status != "ok" or self.key.generation != generation:
            return "not yours"
        for c, _ in rows:
            late = [e for e in self.outbox if e.position > cursor and c in self.touched(e.token)]
            if self.rules["conflict"] and (self.counts[c].last > cursor if self.rules["last"] else late):
                return "conflict"
        if void:
            for c in range(len(self.counts)):
                self.excuse((c, t) for t in self.store_failures(c))
            self.locked = NOTHING
        self.key = self.key._replace(generation=new, void=max(void, self.key.void))
        for c, row in rows:
            carried = row.reservations if self.rules["carry"] else NOTHING
            self.set_count(
                c,
                stamp=new,
                failures=row.failures,
                expires=row.expires,
                reservations=self.counts[c].reservations | carried,
            )
        return "done"

    # ---- a process

    def process_send(self, i):
        p = self.processes[i]
        command = self.process_command(p)
        self.set_process(i, at="wait" + p.at[4:])
        self.sent += ((("p", i), command),)

    @staticmethod
    def process_command(p):
        kind = p.at.split()[1]
        return ("reserve", p.token, p.generation) if kind == "reserve" else ("settle", p.token, kind, p.generation)

    def process_reply(self, i, reply):
        p = self.processes[i]
        kind = p.at.split()[1]
        if reply == "incomplete":
            self.set_process(i, at="base " + kind)
        elif isinstance(reply, tuple):
            self.set_process(i, at="send " + kind, generation=reply[1])
        elif reply == "granted":
            self.grant(i)
        elif reply == "denied":
            self.set_process(i, at="idle")
        else:
            self.settled(i, kind)

    def grant(self, i):
        token = self.processes[i].token
        self.granted |= {(c, token) for c in self.touched(token)}
        self.set_process(i, at="hashing", unsure=False)

    def settled(self, i, kind):
        token = self.processes[i].token
        if kind == "fail":
            self.failed |= {(c, token) for c in self.touched(token)}
        self.set_process(i, at="idle")

    def process_database(self, i):
        """One transaction: StoreState shared, then the rows of its counters."""
        p = self.processes[i]
        kind, token = p.at.split()[1], p.token
        counters = self.touched(token)
        if kind != "reserve" and self.rules["applied"] and token in self.applied:
            for c in counters:
                self.set_row(c, reservations=self.rows[c].reservations - {token})
            return self.settled(i, kind)
        if self.mode == "store":
            unsure = kind != "reserve" and p.unsure
            newer = (self.synced if unsure and self.rules["unsure"] else self.generation) > p.generation
            if newer and self.rules["retry"]:
                return self.set_process(i, at="send " + kind, generation=self.generation, unsure=False)
            self.mode = "database"  # a transaction of its own
            return None
        if kind == "reserve":
            if any(len(self.row_failures(c)) + len(self.rows[c].reservations) >= self.limit for c in counters):
                return self.set_process(i, at="idle")
            for c in counters:
                self.set_row(c, reservations=self.rows[c].reservations | {token}, dirty=True)
            return self.grant(i)
        for n, c in enumerate(counters):
            self.set_row(c, reservations=self.rows[c].reservations - {token}, dirty=True)
            if kind == "fail":
                self.set_row(c, failures=tuple(sorted((*self.row_failures(c), token))), expires=self.now + 1)
            elif n == 0:
                self.excuse((c, t) for t in self.rows[c].failures)
                self.locked -= {c}
                self.set_row(c, failures=())
        self.applied |= {token}
        self.table += (token,)
        return self.settled(i, kind)

    # ---- the projection

    def project(self, events):
        for e in events:
            if e.position <= self.cursor:
                continue
            self.cursor = e.position
            for c in self.touched(e.token):
                self.set_row(c, reservations=self.rows[c].reservations - {e.token})
            if self.rules["applied"] and e.token in self.applied:
                continue
            self.applied |= {e.token}
            self.log += (e.token,)
            for c in self.touched(e.token):
                row = self.rows[c]
                voided = max(self.void, row.void if self.rules["row_void"] else 0)
                if e.position[0] <= voided:
                    self.excuse({(c, e.token)})
                    continue
                failures = row.failures if row.expires > e.time else ()
                if e.kind == "fail":
                    self.set_row(c, failures=tuple(sorted((*failures, e.token))), expires=max(row.expires, e.time + 1))
                elif c in e.cleared and not (row.dirty and self.rules["clear_dirty"]):
                    self.set_row(c, failures=())
        self.log += tuple(self.table)
        self.table = ()

    # ---- the workers

    def ask(self, i, at, command, **kw):
        self.set_worker(i, at=at, wait=command, **kw)
        self.sent += ((("w", i), command),)

    def release(self, i):
        """End of a transaction, commit or not: its locks are free."""
        if self.writer == i:
            self.writer = None
        if self.state_lock == i:
            self.state_lock = None
        self.row_lock = tuple(None if o == i else o for o in self.row_lock)

    def stop(self, i):
        self.release(i)
        self.set_worker(i, *IDLE)

    def lock_rows(self, i, counters):
        self.row_lock = tuple(i if c in counters else o for c, o in enumerate(self.row_lock))

    def free(self, i, writer=False, state=False, rows=()):
        return (
            (not writer or self.writer in (None, i))
            and (not state or self.state_lock in (None, i))
            and all(self.row_lock[c] in (None, i) for c in rows)
        )

    def dirty(self):
        return tuple((c, r) for c, r in enumerate(self.rows) if r.dirty)

    def can_step(self, i):
        """Return whether the locks are free that the next step of this worker takes."""
        at, every, dirty = self.workers[i].at, range(len(self.rows)), [c for c, _ in self.dirty()]
        if at in ("drain", "sync_drain", "reset"):
            return self.free(i, writer=True)
        if at in ("drain_apply", "sync_apply"):
            return self.free(i, rows=every)
        if at in ("sync_begin", "push_adopt"):
            return self.free(i, writer=True, state=True, rows=every)
        if at == "sync_portion":
            return self.free(i, state=True, rows=(self.workers[i].data[1],))
        if at == "sync_final":
            return self.free(i, state=True, rows=dirty)
        if at == "push_lock":
            return self.free(i, writer=self.rules["push_writer"], state=self.rules["push_state"], rows=dirty)
        if at in ("reset_apply", "reset_rows", "reset_all", "reset_all_rows"):
            return self.free(i, writer=True, state=True, rows=every)
        return True

    # drain

    def step_drain(self, i):
        self.writer = i
        self.ask(i, "drain", ("read", 0))

    def on_drain(self, i, reply):
        self.set_worker(i, at="drain_apply", wait=None, data=reply[2] if reply else ())

    def step_drain_apply(self, i):
        self.project(self.workers[i].data)
        self.release(i)
        self.ask(i, "drain_trim", ("trim", self.cursor))

    def on_drain_trim(self, i, reply):
        self.stop(i)

    # sync

    def raise_by(self):
        return 2 if self.rules["plus2"] else 1

    def step_sync_look(self, i):
        self.ask(i, "sync_look", ("look",), generation=self.generation, data=self.mode)

    def on_sync_look(self, i, reply):
        if not reply:
            return self.stop(i)
        return self.set_worker(i, at="sync_begin", wait=None, data=(self.workers[i].data, reply[1]))

    def step_sync_begin(self, i):
        w = self.workers[i]
        mode, key = w.data
        moved = w.generation != self.generation or (mode == "database" and self.mode == "store")
        deciding = self.mode == "store" and key and key.status == "ok" and key.generation >= self.generation
        if deciding or (self.rules["recheck"] and moved):
            return self.stop(i)
        highest = max(self.generation, key.generation if key else 0)
        self.generation = highest + self.raise_by()
        self.mode = "database"
        return self.ask(i, "sync_begin", ("invalidate", self.generation), generation=self.generation)

    def on_sync_begin(self, i, reply):
        if not isinstance(reply, tuple):
            return self.stop(i)
        after = "sync_drain" if self.rules["sync_drain"] else "sync_portion"
        return self.set_worker(i, at=after, wait=None, data=(reply[1], 0))

    def step_sync_drain(self, i):
        self.writer = i
        self.ask(i, "sync_drain", ("read", self.workers[i].generation))

    def on_sync_drain(self, i, reply):
        if not isinstance(reply, tuple):
            return self.stop(i)
        return self.set_worker(i, at="sync_apply", wait=None, data=(*self.workers[i].data, reply[2]))

    def step_sync_apply(self, i):
        w = self.workers[i]
        if self.generation != w.generation:
            return self.stop(i)
        self.project(w.data[2])
        self.release(i)
        return self.ask(i, "sync_trim", ("trim", self.cursor), data=w.data[:2])

    def on_sync_trim(self, i, reply):
        self.set_worker(i, at="sync_portion", wait=None) if reply else self.stop(i)

    def step_sync_portion(self, i):
        """One transaction for each portion: here for each counter."""
        w = self.workers[i]
        status, c = w.data
        if self.generation != w.generation:
            return self.stop(i)
        row = self.rows[c]
        if row.dirty or (status == "lost" and self.rules["lost_all"] and (self.row_failures(c) or row.reservations)):
            if self.rules["portion_lock"]:
                self.lock_rows(i, [c])
            return self.ask(i, "sync_portion", ("load", w.generation, ((c, row),)))
        return self.next_portion(i)

    def next_portion(self, i):
        status, c = self.workers[i].data
        at = "sync_portion" if c + 1 < len(self.rows) else "sync_final"
        self.set_worker(i, at=at, wait=None, data=(status, c + 1))

    def on_sync_portion(self, i, reply):
        self.set_worker(i, at="sync_portion_commit", wait=None) if reply == "done" else self.stop(i)

    def step_sync_portion_commit(self, i):
        self.set_row(self.workers[i].data[1], dirty=False)
        self.release(i)
        self.next_portion(i)

    def step_sync_final(self, i):
        w = self.workers[i]
        if self.generation != w.generation:
            return self.stop(i)
        if self.rules["final_lock"]:
            self.state_lock = i
        rows = self.dirty()
        self.lock_rows(i, [c for c, _ in rows])
        if rows:
            return self.ask(i, "sync_final", ("load", w.generation, rows), data=tuple(c for c, _ in rows))
        return self.ask(i, "sync_complete", ("complete", w.generation, self.void), data=())

    def on_sync_final(self, i, reply):
        if reply != "done":
            return self.stop(i)
        return self.ask(i, "sync_complete", ("complete", self.workers[i].generation, self.void))

    def on_sync_complete(self, i, reply):
        if reply != "done":
            # no answer: the key may be ok while we say database
            self.uncertain_complete()
            return self.stop(i)
        return self.set_worker(i, at="sync_commit", wait=None)

    def uncertain_complete(self):
        if self.rules["crash_is_loss"]:
            self.losses += 1

    def step_sync_commit(self, i):
        w = self.workers[i]
        if self.generation == w.generation:
            self.mode, self.synced = "store", w.generation
            for c in w.data:
                self.set_row(c, dirty=False)
        self.stop(i)

    # push

    def step_push_look(self, i):
        self.ask(i, "push_look", ("look",), generation=self.generation)

    def on_push_look(self, i, reply):
        key = reply and reply[1]
        if not key or key.status != "ok" or key.generation < self.workers[i].generation:
            return self.stop(i)
        return self.set_worker(i, at="push_adopt", wait=None, data=key.generation)

    def step_push_adopt(self, i):
        """Do it in a transaction of its own."""
        w = self.workers[i]
        if self.rules["adopt"] and self.mode == "store" and self.generation == w.generation:
            self.generation = w.data
        self.set_worker(i, at="push_lock", generation=w.data, data=None)

    def step_push_lock(self, i):
        w = self.workers[i]
        same = self.generation == w.generation or (not self.rules["adopt"] and self.generation < w.generation)
        rows = () if self.pending else self.dirty()
        if self.mode != "store" or not same or not (rows or self.pending):
            return self.stop(i)
        if self.rules["push_writer"]:
            self.writer = i
        if self.rules["push_state"]:
            self.state_lock = i
        self.lock_rows(i, [c for c, _ in rows])
        new = w.generation + (1 if self.rules["push_raises"] else 0)
        return self.ask(
            i,
            "push_lock",
            ("push", w.generation, new, self.cursor, rows, w.generation if self.pending else 0),
            data=tuple(c for c, _ in rows),
        )

    def on_push_lock(self, i, reply):
        if reply == "done":
            return self.set_worker(i, at="push_commit", wait=None)
        if not reply and self.pending:
            return self.set_worker(i, at="reset_all_rows", wait=None)
        self.stop(i)
        if reply == "conflict":
            self.set_worker(i, at="drain")
        return None

    def step_push_commit(self, i):
        w = self.workers[i]
        if self.pending:
            self.forget_all(w.generation)
        for c in w.data:
            self.set_row(c, dirty=False)
        self.generation = max(self.generation, w.generation + (1 if self.rules["push_raises"] else 0))
        self.stop(i)

    # resets

    def step_reset(self, i):
        self.writer = i
        self.set_worker(i, data=frozenset(p for p in self.failed if p[0] == 0))
        if self.mode == "database":
            return self.set_worker(i, at="reset_rows")
        if not self.rules["reset_drain"]:
            return self.set_worker(i, at="reset_apply", data=(self.workers[i].data, ()), generation=self.generation)
        return self.ask(i, "reset", ("read", 0), generation=self.generation)

    def on_reset(self, i, reply):
        before = self.workers[i].data
        if not reply or not reply[1] or reply[1].status != "ok":
            return self.set_worker(i, at="reset_rows", wait=None)
        return self.set_worker(i, at="reset_apply", wait=None, data=(before, reply[2]))

    def take_back(self, before):
        self.forgotten |= before | {(0, t) for t in self.rows[0].failures}
        self.excuse(self.forgotten)
        self.locked -= {0}
        self.set_row(0, failures=(), dirty=True)

    def step_reset_apply(self, i):
        w = self.workers[i]
        before, events = w.data
        if self.mode != "store" or self.generation != w.generation:
            return self.set_worker(i, at="reset_rows", data=before)
        self.project(events)
        self.take_back(before)
        self.release(i)
        return self.set_worker(i, at="push_look", data=None)

    def step_reset_rows(self, i):
        """Rows alone: the store is silent, or does not decide."""
        self.take_back(self.workers[i].data)
        self.set_row(0, void=self.generation + self.raise_by() - 1)
        self.generation += self.raise_by()
        self.mode = "database"
        self.stop(i)

    def step_reset_all(self, i):
        if self.mode == "database":
            return self.set_worker(i, at="reset_all_rows")
        if self.rules["intent"]:
            self.pending = True
            return self.set_worker(i, at="push_look")
        self.pending = True  # stands for: the same transaction pushes; a crash takes it back (see 'crash')
        return self.set_worker(i, at="push_look")

    def forget_all(self, void):
        for c, row in enumerate(self.rows):
            self.excuse((c, t) for t in row.failures)
            self.set_row(c, failures=(), dirty=row.dirty and self.mode == "database")
        self.forgotten |= self.failed & self.excused
        self.locked = NOTHING
        self.void, self.pending = max(void, self.void), False

    def step_reset_all_rows(self, i):
        self.forget_all(self.generation + self.raise_by() - 1)
        self.generation += self.raise_by()
        self.mode = "database"
        self.stop(i)

    # ---- what can happen

    def waits(self, who):
        """Return the command that this one waits for, if any."""
        kind, i = who
        if kind == "w":
            return self.workers[i].wait
        p = self.processes[i]
        return self.process_command(p) if p.at.startswith("wait") else None

    def actions(self, calm=False):
        found = []
        if self.up:
            found += [("run", who, command) for who, command in dict.fromkeys(self.sent)]

        def away(who):
            return not self.up or self.cut == who or (who, self.waits(who)) not in self.sent

        budget = self.budget
        for i, p in enumerate(self.processes):
            if p.at == "idle":
                if p.left and not calm:
                    found.append(("begin", i))
            elif p.at == "hashing":
                found.append(("wrong", i))
                if budget["clears"] and not calm:
                    found.append(("right", i))
                if budget["deaths"] and not calm:
                    found.append(("death", i))
            elif p.at.startswith("send"):
                found.append(("send", i))
            elif p.at.startswith("wait"):
                if away(("p", i)):
                    found.append(("timeout", i))
            elif self.state_lock is None and all(self.row_lock[c] is None for c in self.touched(p.token)):
                found.append(("database", i))
        busy = any(w.at.startswith(("sync", "push")) for w in self.workers) and (calm or self.rules["one_job"])
        ok = self.key and self.key.status == "ok" and self.key.run == self.run
        needs_sync = self.mode == "database" or not ok or self.key.generation < self.generation
        for i, w in enumerate(self.workers):
            if w.at == "idle":
                if calm and any(v.at != "idle" for v in self.workers):
                    continue
                if not busy and needs_sync and (calm or budget["syncs"]):
                    found.append(("start", i, "sync_look", "syncs"))
                if not busy and not needs_sync and (self.dirty() or self.pending) and (calm or budget["pushes"]):
                    found.append(("start", i, "push_look", "pushes"))
                if (self.outbox or self.table) and (calm or budget["drains"]):
                    found.append(("start", i, "drain", "drains"))
                for kind in ("resets", "resets_all"):
                    if budget[kind] and not calm and self.writer is None and not self.pending:
                        found.append(("start", i, "reset" if kind == "resets" else "reset_all", kind))
            elif w.wait:
                if away(("w", i)):
                    found.append(("silence", i))
            elif self.can_step(i):
                found.append(("step", i))
        if calm:
            return found
        if budget["snapshots"] and self.up:
            found.append(("snapshot",))
        if budget["faults"] and self.up:
            for kind in self.kinds:
                if kind == "cut":
                    if self.cut is None:
                        found += [("cut", ("p", i)) for i in range(len(self.processes))]
                        found += [("cut", ("w", i)) for i in range(len(self.workers))]
                elif kind != "old" or self.snapshot:
                    found.append((kind,))
        if self.cut:
            found.append(("heal",))
            found += [("drop", who, command) for who, command in dict.fromkeys(self.sent) if who == self.cut]
        if not self.up:
            found.append(("thaw",))
        if budget["crashes"]:
            found += [("crash", i) for i, w in enumerate(self.workers) if w.at != "idle"]
        if budget["imports"] and self.row_lock[0] is None:
            found.append(("import",))
        if budget["ticks"]:
            found.append(("tick",))
        if self.leases:
            for c in range(len(self.rows)):
                found += [
                    ("lease", "store", c, t) for t in self.counts[c].reservations if self.over(c, t, self.counts[c])
                ]
                found += [("lease", "rows", c, t) for t in self.rows[c].reservations if self.over(c, t, self.rows[c])]
        return found

    def over(self, c, token, place):
        """Return whether nobody works on this attempt any more, so that its lease may end.

        With `leases="outage"` also where its failure is still under way to this place: an outage, or a worker that
        stands still, for longer than a lease.
        """
        if any(p.token == token and p.at != "idle" for p in self.processes):
            return False
        return self.leases == "outage" or (c, token) not in self.failed or token in place.failures

    def sort(self, action):
        """Return the kind of an action; a command that nobody waits for any more has one of its own."""
        kind, *rest = action
        if kind == "run":
            return kind, rest[0][0], self.waits(rest[0]) == rest[1]
        return (
            (kind, rest[0], "")
            if kind in ("step", "database", "crash")
            else (kind, rest[1] if kind == "start" else "", "")
        )

    def do(self, action):
        new = self.copy()
        getattr(new, "act_" + action[0])(*action[1:])
        new.note_lockouts(self)
        return new

    def act_run(self, who, command):
        sent = list(self.sent)
        sent.remove((who, command))
        self.sent = tuple(sent)
        waits = self.waits(who) == command and self.cut != who
        reply = self.execute(command)
        if waits:
            kind, i = who
            self.process_reply(i, reply) if kind == "p" else self.worker_reply(i, reply)

    def worker_reply(self, i, reply):
        getattr(self, "on_" + self.workers[i].at)(i, reply)

    def act_begin(self, i):
        p = self.processes[i]
        self.set_process(i, at="send reserve", token=(i + 1) * 10 + p.left, unsure=False, left=p.left - 1)
        self.process_send(i)

    def act_wrong(self, i):
        self.set_process(i, at="send fail")
        self.process_send(i)

    def act_right(self, i):
        self.spend("clears")
        token = self.processes[i].token
        self.excuse((c, token) for c in self.touched(token))
        self.set_process(i, at="send clear")
        self.process_send(i)

    def act_death(self, i):
        self.spend("deaths")
        token = self.processes[i].token
        self.excuse((c, token) for c in self.touched(token))
        self.set_process(i, at="idle")

    def act_send(self, i):
        self.process_send(i)

    def act_timeout(self, i):
        p = self.processes[i]
        self.set_process(i, at="base" + p.at[4:], unsure=True)

    def act_database(self, i):
        self.process_database(i)

    def act_start(self, i, at, budget):
        if self.budget[budget] > 0:
            self.spend(budget)
        self.set_worker(i, at, None, 0, None)

    def act_step(self, i):
        getattr(self, "step_" + self.workers[i].at)(i)

    def act_silence(self, i):
        self.worker_reply(i, None)

    def act_crash(self, i):
        self.spend("crashes")
        at = self.workers[i].at
        if at in ("sync_complete", "sync_commit"):
            self.uncertain_complete()
        if not self.rules["intent"] and at.startswith("push"):
            self.pending = False
        self.stop(i)

    def act_import(self):
        self.spend("imports")
        self.set_row(0, failures=tuple(sorted((*self.row_failures(0), 99))), dirty=True, expires=self.now + 1)
        self.failed |= {(0, 99)}
        self.applied |= {99}
        self.table += (99,)

    def act_tick(self):
        """Time passes, until what has been counted is over."""
        self.spend("ticks")
        self.now += 1
        self.excuse(self.failed)
        for c, row in enumerate(self.rows):  # counted, and the answer is still under way
            self.excuse((c, t) for t in row.failures + self.counts[c].failures)
            self.excuse((c, e.token) for e in self.outbox if c in self.touched(e.token))
        self.locked = NOTHING

    def act_lease(self, where, c, token):
        if where == "store":
            self.set_count(c, reservations=self.counts[c].reservations - {token})
        else:
            self.set_row(c, reservations=self.rows[c].reservations - {token})

    def act_snapshot(self):
        self.spend("snapshots")
        self.snapshot = (self.key, self.counts, self.outbox, self.sequence)

    def lose(self, key, counts, outbox, sequence):
        self.spend("faults")
        self.losses += 1
        kept = {e.token for e in outbox}
        for e in self.outbox:
            if e.position > self.cursor and e.token not in kept:
                self.lost |= {(c, e.token) for c in self.touched(e.token)}
        self.key, self.counts, self.outbox, self.sequence = key, counts, outbox, sequence

    def empty(self):
        return None, (Count(0, (), NOTHING, START, 0),) * len(self.counts), (), 0

    def act_flush(self):
        self.lose(*self.empty())

    def act_kill(self):
        self.lose(*self.empty())
        self.run, self.sent = self.run + 1, ()

    def act_old(self):
        self.lose(*self.snapshot)
        self.run, self.sent = self.run + 1, ()

    def act_freeze(self):
        self.spend("faults")
        self.losses += 1
        self.up = False

    def act_thaw(self):
        self.up = True

    def act_cut(self, who):
        self.spend("faults")
        self.losses += 1
        self.cut = who

    def act_heal(self):
        self.cut = None

    def act_drop(self, who, command):
        sent = list(self.sent)
        sent.remove((who, command))
        self.sent = tuple(sent)
