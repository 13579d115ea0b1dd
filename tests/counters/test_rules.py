"""Rules and counters: which clients share one, and which never do."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from axes_async.counters.rules import DIGEST_LENGTH, PARAMETERS, Parameter, Rule, counters_for, digest_of

TEXT = st.text(st.characters(), max_size=20)
VALUES = st.lists(st.tuples(st.sampled_from(["username", "ip_address", "user_agent", "x"]), TEXT), max_size=4)
EVERYONE: dict[Parameter, str | None] = {"ip_address": "203.0.113.7", "username": "alice", "user_agent": "curl"}


def rule(*parameters: Parameter, limit: int = 3, cooloff: float | None = None) -> Rule:
    return Rule(parameters=parameters, limit=limit, cooloff=cooloff)


@given(VALUES, VALUES)
@example([("username", "a"), ("user_agent", "b|c")], [("username", "a|b"), ("user_agent", "c")])
@example([("username", "ab"), ("user_agent", "")], [("username", "a"), ("user_agent", "b")])
@example([("username", "1:x")], [("username", "1"), ("x", "")])
@example([("username", "\ud800")], [("username", "?")])
@example([], [("x", "")])
def test_different_values_never_have_one_digest(one: list[tuple[str, str]], other: list[tuple[str, str]]) -> None:
    assert (digest_of(one) == digest_of(other)) == (one == other)


@given(TEXT, TEXT.filter(bool))
def test_text_never_moves_from_one_value_into_the_next(a: str, b: str) -> None:
    assert digest_of([("username", a), ("user_agent", b)]) != digest_of([("username", a + b), ("user_agent", "")])


@given(VALUES)
def test_a_digest_is_short_and_safe_in_every_key(values: list[tuple[str, str]]) -> None:
    digest = digest_of(values)
    assert len(digest) == DIGEST_LENGTH
    assert digest.replace("-", "").replace("_", "").isalnum()
    assert digest.isascii()


@given(TEXT.filter(bool))
@example("203.0.113.7")
def test_a_username_equal_to_an_address_or_agent_shares_nothing_with_it(value: str) -> None:
    rules = [rule(parameter) for parameter in PARAMETERS]
    counters = counters_for(rules, dict.fromkeys(PARAMETERS, value))
    assert len({counter.digest for counter in counters}) == 3


def test_each_rule_has_one_counter_in_the_order_of_the_rules() -> None:
    rules = [rule("username"), rule("ip_address", "username"), rule("ip_address")]
    assert [counter.rule for counter in counters_for(rules, EVERYONE)] == rules


def test_a_combination_shares_no_counter_with_its_parts() -> None:
    rules = [rule("username"), rule("ip_address"), rule("ip_address", "username"), rule(*PARAMETERS)]
    assert len({counter.digest for counter in counters_for(rules, EVERYONE)}) == 4


@pytest.mark.parametrize("changed", PARAMETERS)
def test_a_rule_tells_clients_apart_by_its_own_values_alone(changed: Parameter) -> None:
    other = {**EVERYONE, changed: "another"}
    for parameters in (("ip_address",), ("username",), ("ip_address", "username"), PARAMETERS):
        same = counters_for([rule(*parameters)], EVERYONE) == counters_for([rule(*parameters)], other)
        assert same == (changed not in parameters)


def test_limit_and_cool_off_are_no_part_of_the_key() -> None:
    (one,), (other,) = (counters_for([r], EVERYONE) for r in (rule("username"), rule("username", limit=9, cooloff=60)))
    assert one.digest == other.digest


@pytest.mark.parametrize("nothing", [None, ""])
@pytest.mark.parametrize(
    ("parameters", "missing", "skipped"),
    [
        (("username",), {"username"}, True),
        (("ip_address",), {"ip_address"}, True),
        (("user_agent",), {"user_agent"}, True),
        (("ip_address", "username"), {"username"}, True),
        (("ip_address", "username"), {"ip_address"}, True),
        (("ip_address", "username"), {"user_agent"}, False),
        (("username", "user_agent"), {"user_agent"}, False),
        (("ip_address", "user_agent"), {"user_agent"}, False),
        (PARAMETERS, {"user_agent", "username"}, True),
        (("ip_address",), {"username", "user_agent"}, False),
    ],
)
def test_a_rule_is_skipped_where_what_identifies_is_missing(
    parameters: tuple[Parameter, ...], missing: set[Parameter], skipped: bool, nothing: str | None
) -> None:
    values: Mapping[Parameter, str | None] = {**EVERYONE, **dict.fromkeys(missing, nothing)}
    assert (counters_for([rule(*parameters)], values) == ()) is skipped


def test_leaving_the_agent_out_gives_a_client_a_single_counter_more() -> None:
    without = counters_for([rule("username", "user_agent")], {"username": "alice"})
    assert without == counters_for([rule("username", "user_agent")], {"username": "alice", "user_agent": ""})
    assert without != counters_for([rule("username", "user_agent")], EVERYONE)


@pytest.mark.parametrize(("cooloff", "window"), [(None, 0), (1.0, 1000), (0.0004, 1), (0.0015, 2), (3600, 3_600_000)])
def test_a_cool_off_is_counted_in_whole_milliseconds_and_never_in_none(cooloff: float | None, window: int) -> None:
    assert rule("username", cooloff=cooloff).window_ms == window
