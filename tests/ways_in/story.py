"""What every way in has to go through: failures, a lockout that refuses the right password, and the two ways back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from django.test import override_settings

from axes_async.models import AccessAttempt, AccessFailureLog, AccessLog
from axes_async.tasks.drain import drain
from axes_async.utils import reset
from tests.conftest import PASSWORD

COOLOFF = timedelta(minutes=15)
LOCKED = 429

Enter = Callable[[str], Any]
"""Tries a password and returns the response."""

Look = Callable[[Any], None]
"""Asserts something of a response."""

back_by = pytest.mark.parametrize("back", ["reset", "cool-off"])
"""Goes through a way in twice: the lockout is lifted by an operator, or ends by itself."""


def ignore(response: Any) -> None:
    """Look at nothing."""


def follow(
    enter: Enter,
    back: str,
    *,
    right: int,
    wrong: int,
    username: str | None = "alice",
    path: str | None = None,
    logins: Sequence[str] = ("alice",),
    locked: Look = ignore,
    entered: Look = ignore,
) -> None:
    """Fail to the limit, be refused with the right password, come back, log in, and find the rows of all that.

    :param enter: tries a password.
    :param right: the status of a right password, and ``wrong`` of a wrong one.
    :param logins: the names in the ``AccessLog`` rows of a right password: none where the library logs nobody in.
    :param locked: looks at each response that is a lockout.
    :param entered: looks at the response to the right password at the end.
    """
    with override_settings(AXES_COOLOFF_TIME=COOLOFF), time_machine.travel(datetime.now(UTC), tick=False) as clock:
        assert [enter("wrong").status_code for _ in range(2)] == [wrong, wrong]
        for password in ("wrong", PASSWORD):  # The failure that sets the lockout, and one that it turns away.
            response = enter(password)
            assert response.status_code == LOCKED
            assert response["Retry-After"] == str(int(COOLOFF.total_seconds()))
            locked(response)
        drain()
        _assert_rows(username, path)
        if back == "reset":
            assert reset(username=username) == 1
        else:
            clock.shift(COOLOFF)
        response = enter(PASSWORD)
        assert response.status_code == right
        entered(response)
        drain()
        assert list(AccessLog.objects.values_list("username", flat=True)) == [*logins]
        assert enter("wrong").status_code == wrong  # The count has started over.


def _assert_rows(username: str | None, path: str | None) -> None:
    attempt = AccessAttempt.objects.get()
    assert (attempt.username, attempt.failures_since_start) == (username, 3)
    failures = AccessFailureLog.objects.order_by("id")
    assert list(failures.values_list("username", "locked_out", "repeats")) == [
        (username, False, 0),
        (username, False, 0),
        (username, True, 0),
        (username, True, 1),
    ]
    if path is not None:
        assert set(failures.values_list("path_info", flat=True)) == {path}
    assert AccessLog.objects.count() == 0
