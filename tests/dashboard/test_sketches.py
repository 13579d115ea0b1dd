"""Figures of many values in little memory: within the error that they promise."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from axes_async.counters.rules import digest_of
from axes_async.tasks.projection.sketches import REGISTERS, add_distinct, distinct, keep_heaviest, merged


def digests(count: int, *, first: int = 0) -> list[str]:
    return [digest_of([("username", f"name {number}")]) for number in range(first, first + count)]


@pytest.mark.parametrize("count", [0, 1, 2, 10, 100, 1000, 30_000])
def test_distinct_values_are_estimated_within_three_standard_errors(count: int) -> None:
    found = distinct(add_distinct(b"", digests(count)))
    assert abs(found - count) <= 3 * 0.046 * count


def test_a_value_that_comes_again_changes_nothing() -> None:
    once = add_distinct(b"", digests(500))
    assert add_distinct(once, digests(500)) == once
    assert len(once) == REGISTERS


def test_merged_sketches_are_the_sketch_of_all() -> None:
    parts = [add_distinct(b"", digests(700, first=first)) for first in (0, 350, 5000)]
    assert merged([b"", *parts]) == add_distinct(add_distinct(b"", digests(1050)), digests(700, first=5000))
    assert merged([]) == b""
    assert merged(parts[:1]) == parts[0]


def test_heavy_values_are_found_among_many_that_come_once() -> None:
    random, counts, seen = Random(7), Counter[str](), Counter[str]()
    for batch in range(50):
        values = [f"once {batch} {number}" for number in range(900)] + ["heavy"] * 60 + ["less"] * 40
        random.shuffle(values)
        seen.update(values)
        counts.update(values)
        keep_heaviest(counts)
    assert len(counts) <= 100
    assert [value for value, _ in counts.most_common(2)] == ["heavy", "less"]
    for value in ("heavy", "less"):
        assert seen[value] - seen.total() / 100 <= counts[value] <= seen[value]
