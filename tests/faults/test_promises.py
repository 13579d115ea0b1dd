"""Every fault, on a site of several processes under attack: what docs/protocol.md promises holds.

Every password that reaches a hasher counts, whether or not anything else was told of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.faults.conftest import PATIENT, Actor, Notes
from tests.faults.machines import Postgres, Valkey
from tests.faults.scene import LIMIT, Scene
from tests.waiting import until

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(300)]

Step = Callable[[Scene], object]


@dataclass(frozen=True)
class Fault:
    """How something breaks, and how it is mended."""

    begins: Step
    ends: Step = lambda scene: None
    losses: int = 0
    """How often the store loses its counters by this, or is away, so that the rows decide."""
    quick: bool = False
    """Whether it is also tried where the long tests are left out."""


def restart(scene: Scene) -> None:
    """Kill the store with what it has not saved, and start it again."""
    scene.note_outbox()
    scene.valkey.kill()
    scene.valkey.start()


def restart_with_log(scene: Scene) -> None:
    """Kill the store, which has saved every write."""
    scene.valkey.kill()
    scene.valkey.start()


def log_every_write(scene: Scene) -> None:
    scene.valkey.client.config_set("appendonly", "yes")
    scene.valkey.config["appendonly"] = "yes"
    until(lambda: scene.valkey.client.info("persistence")["aof_rewrite_in_progress"] == 0, what="everything is saved")
    restart_with_log(scene)


def replace_worker(scene: Scene) -> None:
    scene.kill_worker()
    scene.start_worker()


FAULTS = {
    "nothing": Fault(lambda scene: None),
    "store flushed": Fault(Scene.flush, Scene.flush, losses=2, quick=True),
    "store killed, empty afterwards": Fault(restart, losses=1),
    "store killed, back from an old snapshot": Fault(lambda scene: scene.valkey.client.save(), restart, losses=1),
    "store killed, back from its log": Fault(log_every_write, restart_with_log, losses=2),
    "store frozen": Fault(lambda s: s.valkey.freeze(), lambda s: s.valkey.thaw(), losses=1),
    "store silent": Fault(lambda s: (s.note_outbox(), s.valkey.silence()), lambda s: s.valkey.start(), losses=1),
    "store full": Fault(lambda s: s.valkey.fill(), lambda s: s.valkey.make_room(), losses=1),
    "store read-only": Fault(lambda s: s.valkey.follow(), lambda s: s.valkey.lead(), losses=1),
    "functions of the store flushed": Fault(lambda s: s.valkey.client.function_flush()),
    "worker killed": Fault(replace_worker, replace_worker),
    "no worker": Fault(Scene.kill_worker, Scene.start_worker),
    "two workers": Fault(Scene.start_worker, Scene.kill_worker),
    "web process killed": Fault(Scene.kill_web),
    "database stopped": Fault(lambda s: s.postgres.kill(), lambda s: s.postgres.start()),
    "database frozen": Fault(lambda s: s.postgres.freeze(), lambda s: s.postgres.thaw()),
    "broker stopped": Fault(lambda s: s.broker.kill(), lambda s: s.broker.start()),
    "broker silent": Fault(lambda s: s.broker.silence(), lambda s: s.broker.start()),
    "store killed while no worker runs": Fault(
        lambda s: (s.kill_worker(), s.go_on(), restart(s)), Scene.start_worker, losses=1
    ),
    "store flushed while it is away": Fault(
        lambda s: s.valkey.follow(), lambda s: (s.valkey.lead(), s.flush()), losses=2
    ),
}


@pytest.fixture
def scene(
    own_postgres: Postgres,
    own_database: dict[str, Any],
    own_valkey: Valkey,
    start_actor: Callable[..., Actor],
    notes: Notes,
) -> Iterator[Scene]:
    """Return a site whose processes are not started yet."""
    broker = Valkey()

    def start() -> Actor:
        settings: dict[str, Any] = {"AXES_FAILURE_LIMIT": LIMIT, "AXES_COOLOFF_TIME": 1, "AXES_RESERVE_WAIT": 0.1}
        return start_actor(own_database, broker.url, **settings, AXES_STORE_TIMEOUT=PATIENT)

    yield Scene(own_valkey, broker, own_postgres, own_database["NAME"], notes, start)
    broker.stop()


def see_through(scene: Scene, fault: Fault) -> None:
    scene.begin()
    fault.begins(scene)
    scene.go_on()
    fault.ends(scene)
    scene.go_on()
    scene.end()
    scene.check(losses=fault.losses)


@pytest.mark.parametrize("name", [name for name, fault in FAULTS.items() if fault.quick])
def test_promises_hold(scene: Scene, name: str) -> None:
    see_through(scene, FAULTS[name])


@pytest.mark.long
@pytest.mark.parametrize("name", [name for name, fault in FAULTS.items() if not fault.quick])
def test_promises_hold_for_the_other_faults(scene: Scene, name: str) -> None:
    see_through(scene, FAULTS[name])
