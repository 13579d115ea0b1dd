"""Settings of a process on a host whose clock is sixteen minutes ahead."""

from datetime import UTC, datetime, timedelta

import time_machine

from tests.faults.settings import *  # noqa: F403

time_machine.travel(datetime.now(UTC) + timedelta(minutes=16)).start()
