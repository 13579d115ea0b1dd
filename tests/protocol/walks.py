"""Random walks through the model: each fault case, and the shortest sequence of actions that breaks a promise.

    python -m tests.protocol.walks NUMBER [case,case] [rule=0 ...]

takes so many walks through each case, with rules taken out where that is said.
"""

from __future__ import annotations

import random
import sys

from tests.protocol.model import RULES, World

FIRST = ("run", "send timeout database wrong", "step silence", "start", "lease")
"""The order of actions once there are no more faults."""

ORDER = {name: n for n, names in enumerate(FIRST) for name in names.split()}
RARE = {
    "flush",
    "kill",
    "old",
    "freeze",
    "cut",
    "snapshot",
    "crash",
    "import",
    "heal",
    "thaw",
    "tick",
    "death",
    "right",
    "lease",
    "drop",
}


def calm(world):
    """Heal all, run what was sent and give the workers their time; return what is wrong with store and rows then."""
    world = world.copy()
    world.cut, world.up = None, True
    for _ in range(400):
        found = world.actions(calm=True)
        if not found:
            return world.compare()
        found.sort(key=lambda a: (ORDER[a[0]], "drain" in a))
        world = world.do(found[0])
        if broken := world.check():
            return broken
    return "P4: no end"


def replay(make, trace, promise=None):
    world, used = make(), []
    for action in trace:
        if action in world.actions():
            world = world.do(action)
            used.append(action)
            broken = world.check()
            if broken and (promise is None or broken.startswith(promise)):
                return broken, used
    return calm(world), used


def shrink(make, trace, promise):
    changed = True
    while changed:
        changed = False
        for size in (6, 3, 2, 1):
            i = 0
            while i < len(trace):
                broken, used = replay(make, trace[:i] + trace[i + size :], promise)
                if broken and broken.startswith(promise) and len(used) < len(trace):
                    trace, changed = used, True
                else:
                    i += 1
    return trace


def show(make, trace, promise):
    print("   ", replay(make, trace, promise)[0])
    for action in trace:
        print("       ", " ".join(str(part) for part in action))
    sys.stdout.flush()


def walk(make, seed, longest=110):
    """Return the promise that one walk breaks, and its trace; or None."""
    rnd = random.Random(seed)
    world, trace, taste = make(), [], {}  # Each walk likes some kinds of action more than others.
    for _ in range(rnd.randrange(6, longest)):
        by_kind = {}
        for action in world.actions():
            by_kind.setdefault(world.sort(action), []).append(action)
        if not by_kind:
            break
        kinds = sorted(by_kind)
        for kind in kinds:
            if kind not in taste:
                taste[kind] = rnd.choice((0.03, 0.2, 1, 3)) * (0.25 if kind[0] in RARE else 1)
        action = rnd.choice(by_kind[rnd.choices(kinds, [taste[kind] for kind in kinds])[0]])
        world = world.do(action)
        trace.append(action)
        if broken := world.check():
            return broken, trace
    return (broken, trace) if (broken := calm(world)) else None


ANY = ("flush", "kill", "old", "freeze", "cut")
CASES = {
    "nofault": {},
    "import": {"imports": 1, "limit": 2},
    "import+crash": {"imports": 1, "limit": 2, "crashes": 1},
    "reset": {"resets": 1},
    "reset+crash": {"resets": 1, "crashes": 1},
    "reset_all+crash": {"resets_all": 1, "crashes": 1},
    "resets+import+crashes": {"resets": 1, "resets_all": 1, "imports": 1, "crashes": 2, "limit": 2},
    "flush": {"faults": 1, "kinds": ("flush",)},
    "kill": {"faults": 1, "kinds": ("kill",)},
    "old": {"faults": 1, "kinds": ("old",), "snapshots": 1},
    "freeze": {"faults": 1, "kinds": ("freeze",)},
    "cut": {"faults": 1, "kinds": ("cut",)},
    "any+crash": {"faults": 1, "kinds": ANY, "snapshots": 1, "crashes": 1},
    "any+crash+import": {"faults": 1, "kinds": ANY, "snapshots": 1, "crashes": 1, "imports": 1, "limit": 2},
    "any+crash+reset": {"faults": 1, "kinds": ANY, "snapshots": 1, "crashes": 1, "resets": 1},
    "any+crash+reset_all": {"faults": 1, "kinds": ANY, "snapshots": 1, "crashes": 1, "resets_all": 1},
    "two": {"faults": 2, "kinds": ANY, "snapshots": 1},
    "two+crash+reset": {
        "faults": 2,
        "kinds": ANY,
        "snapshots": 1,
        "crashes": 1,
        "resets": 1,
        "resets_all": 1,
        "pushes": 3,
    },
    "clear": {"clears": 1, "imports": 1, "limit": 2},
    "clear+any": {"clears": 2, "faults": 1, "kinds": ANY, "snapshots": 1, "crashes": 1, "limit": 2},
    "clear+any+reset": {"clears": 1, "faults": 1, "kinds": ANY, "snapshots": 1, "crashes": 1, "resets": 1, "limit": 2},
    "expiry": {"ticks": 1, "imports": 1, "resets": 1, "limit": 2},
    "expiry+any": {"ticks": 1, "faults": 1, "kinds": ANY, "snapshots": 1, "crashes": 1, "clears": 1},
    "counters": {"counters": 2, "imports": 1, "resets": 1, "crashes": 1, "limit": 2},
    "counters+any": {
        "counters": 2,
        "faults": 1,
        "kinds": ANY,
        "snapshots": 1,
        "crashes": 1,
        "resets": 1,
        "clears": 1,
        "ticks": 1,
        "leases": "settled",
    },
    # small ones, for what walks meet seldom
    "late push": {
        "resets": 1,
        "crashes": 1,
        "limit": 1,
        "processes": 1,
        "workers": 1,
        "attempts": 3,
        "syncs": 0,
        "pushes": 1,
        "drains": 1,
    },
    "push twice": {
        "imports": 1,
        "crashes": 2,
        "faults": 1,
        "kinds": ("flush",),
        "limit": 2,
        "processes": 1,
        "workers": 1,
        "attempts": 2,
        "pushes": 3,
        "syncs": 1,
        "drains": 1,
    },
    "push + flush": {
        "imports": 1,
        "crashes": 1,
        "faults": 1,
        "kinds": ("flush",),
        "limit": 2,
        "processes": 2,
        "workers": 1,
        "attempts": 2,
        "pushes": 2,
        "syncs": 1,
        "drains": 1,
    },
    "two syncs": {
        "faults": 1,
        "kinds": ("flush", "cut"),
        "limit": 1,
        "processes": 3,
        "workers": 2,
        "attempts": 2,
        "pushes": 0,
        "syncs": 3,
        "drains": 0,
    },
    "old + reset": {
        "resets": 1,
        "snapshots": 1,
        "faults": 1,
        "kinds": ("old",),
        "limit": 1,
        "processes": 1,
        "workers": 1,
        "attempts": 2,
    },
    "late end": {
        "faults": 1,
        "kinds": ("flush",),
        "crashes": 1,
        "limit": 1,
        "processes": 3,
        "workers": 1,
        "attempts": 2,
        "pushes": 0,
        "syncs": 1,
        "drains": 0,
    },
    "all + flush": {
        "resets_all": 1,
        "crashes": 1,
        "faults": 1,
        "kinds": ("flush",),
        "limit": 1,
        "processes": 1,
        "workers": 1,
        "attempts": 3,
        "pushes": 1,
        "syncs": 2,
        "drains": 1,
    },
    "lease in an outage": {"leases": "outage", "faults": 1, "kinds": ("freeze",)},  # breaks: see PROTOCOL.md, bounds
    "leases+any": {
        "leases": "settled",
        "deaths": 1,
        "faults": 1,
        "kinds": ANY,
        "snapshots": 1,
        "crashes": 1,
        "resets": 1,
        "ticks": 1,
    },
}


def maker(case, rules, **kw):
    wanted = dict(CASES[case], **kw)
    wanted.setdefault("limit", 1)
    wanted.setdefault("processes", 3 if wanted["limit"] == 1 else 2)
    wanted.setdefault("attempts", 2 if wanted["limit"] == 1 else 3)
    return lambda: World(rules, **wanted)


def walk_case(case, rules, walks, first_seed=0):
    """Return the first broken promise of so many walks, and its shortened trace; or None."""
    make = maker(case, rules)
    for seed in range(first_seed, first_seed + walks):
        if found := walk(make, seed):
            promise = found[0][:2]
            trace = shrink(make, found[1], promise)
            return replay(make, trace, promise)[0], trace
    return None


def main(args):
    taken_out = {a.partition("=")[0] for a in args if a.endswith("=0")}
    args = [a for a in args if "=" not in a]
    rules = {rule: rule not in taken_out for rule in RULES}
    for case in args[1].split(",") if len(args) > 1 else CASES:
        found = walk_case(case, rules, int(args[0]), first_seed=random.randrange(1_000_000))
        print(f"{case:24}", found[0] if found else "ok", flush=True)
        for action in found[1] if found else ():
            print("       ", *action)


if __name__ == "__main__":
    main(sys.argv[1:])
