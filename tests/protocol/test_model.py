"""The model of the protocol: random walks break no promise, and break one as soon as a rule is taken out."""

from __future__ import annotations

import os

import pytest

from tests.protocol.model import RULES
from tests.protocol.walks import CASES, walk_case

WALKS = int(os.environ.get("AXES_PROTOCOL_WALKS", "100"))
"""Random walks of each case; ``make test-protocol`` asks for many more."""

BOUND = "lease in an outage"
"""The one case that docs/protocol.md excludes: an outage that is longer than a lease."""


@pytest.mark.parametrize("case", [case for case in CASES if case != BOUND])
def test_walks_break_no_promise(case: str) -> None:
    assert walk_case(case, dict.fromkeys(RULES, True), walks=WALKS) is None


@pytest.mark.parametrize(
    ("rule", "case"),
    [
        ("fence", "freeze"),
        ("connect", "old"),
        ("applied", "cut"),
        ("conflict", "reset"),
        ("sync_drain", "any+crash"),
        ("lost_all", "flush"),
        ("row_void", "any+crash+reset"),
    ],
)
def test_walks_break_a_promise_without_this_rule(rule: str, case: str) -> None:
    assert walk_case(case, {**dict.fromkeys(RULES, True), rule: False}, walks=5000) is not None
