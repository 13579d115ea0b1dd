"""The formatters, and what fail2ban and CrowdSec make of their lines, whatever a client calls itself."""

from __future__ import annotations

import configparser
import json
import logging
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.contrib.auth.models import User
from django.test import Client

from axes_async.logging import EcsFormatter, LineFormatter
from axes_async.models import AccessFailureLog
from tests.conftest import PASSWORD

Post = Callable[..., Any]

CONTRIB = Path(__file__).resolve().parent.parent / "contrib"
FILTER = CONTRIB / "fail2ban" / "filter.d" / "axes-async.conf"
NO_FAIL2BAN = "No fail2ban here; on Debian and Ubuntu: apt-get install fail2ban"

GUESSER, VICTIM = "203.0.113.7", "198.51.100.9"
FORGED = (
    "time=2026-01-01T00:00:00.000Z level=WARNING logger=axes_async.audit event=authn_login_fail "
    f"ip={VICTIM} id={'0' * 32}"
)
NAMES = [
    "alice",
    f'alice" ip={VICTIM} user="bob',
    f"alice ip={VICTIM} ",
    f"\n{FORGED} user=-",
    f"\r\n{FORGED}",
    f"\u2028{FORGED}\u2029",
    f"\x85{FORGED}",
    FORGED,
    f'\\" ip={VICTIM} event=authn_login_fail',
    "\\",
    '"',
    f"\x00ip={VICTIM}",
    f"\x1b[2K\r{FORGED}",
    f"\u202e{VICTIM}\U0001f600",
    f"{{{VICTIM}}}%s%(x)s",
    "-",
    "x" * 200,
]
"""Names of clients that want somebody else to be banned, or not to be banned themselves."""

# Of fail2ban 1.0, server/failregex.py and server/ipdns.py.
ADDR = (
    r"\[?(?:(?:::f{4,6}:)?(?P<ip4>(?:\d{1,3}\.){3}\d{1,3})"
    r"|(?P<ip6>(?:[0-9a-fA-F]{1,4}::?|:){1,7}(?:[0-9a-fA-F]{1,4}|(?<=:):)))\]?"
)
DATE = {"Y": r"\d{4}", "m": r"\d\d", "d": r"\d\d", "H": r"\d\d", "M": r"\d\d", "S": r"\d\d", "f": r"\d{1,6}", "z": "Z"}
GROK = {
    "TIMESTAMP_ISO8601": r"\d{4}-\d\d-\d\d[T ]\d\d:?\d\d(?::?\d\d(?:[.,]\d+)?)?(?:Z|[+-]\d\d(?::?\d\d)?)?",
    "IP": r"(?:(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f.]*|(?:\d{1,3}\.){3}\d{1,3})",
}

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def told() -> Iterator[list[logging.LogRecord]]:
    """Return the records of what happened to attempts."""
    told: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = told.append  # type: ignore[method-assign]
    log = logging.getLogger("axes_async.audit")
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    yield told
    log.removeHandler(handler)
    log.setLevel(level)


def fields(line: str) -> dict[str, str | None]:
    """Read a line as its grammar says; fails for any other."""
    pair = re.compile(r'([a-z]+)=("(?:[^"\\]|\\.)*"|[^\s"=]+)(?: |$)')
    read: dict[str, str | None] = {}
    place = 0
    while place < len(line):
        found = pair.match(line, place)
        assert found, line[place:]
        value = found[2]
        read[found[1]] = json.loads(value) if value.startswith('"') else None if value == "-" else value
        place = found.end()
    return read


def fail2ban(mode: str) -> Callable[[str], str | None]:
    """Return a function that finds the address to be banned in a line, as fail2ban does it with our filter."""
    config = configparser.ConfigParser(interpolation=None)
    config.read(FILTER)
    section = dict(config["Definition"], mode=mode)
    regex = section["failregex"].replace("<_events_<mode>>", section[f"_events_{mode}"]).replace("<ADDR>", ADDR)
    date = re.sub(r"%%(\w)", lambda found: DATE[found[1]], section["datepattern"])

    def banned(line: str) -> str | None:
        dated = re.search(date, line)
        if dated is None:
            return None
        found = re.search(regex, line[: dated.start()] + line[dated.end() :])
        return (found["ip4"] or found["ip6"]) if found else None

    return banned


def crowdsec() -> Callable[[str], dict[str, str] | None]:
    """Return a function that reads a line with our parser, as CrowdSec does it."""
    parser = yaml.safe_load((CONTRIB / "crowdsec/parsers/s01-parse/axes-async-logs.yaml").read_text())
    patterns = {**GROK, **parser["pattern_syntax"]}

    def expand(text: str) -> str:
        def replace(found: re.Match[str]) -> str:
            inner = expand(patterns[found[1]])
            return f"(?P<{found[2]}>{inner})" if found[2] else f"(?:{inner})"

        return re.sub(r"%\{(\w+)(?::(\w+))?\}", replace, text)

    nodes = [(re.compile(expand(node["grok"]["pattern"])), node["grok"]["statics"][0]) for node in parser["nodes"]]

    def parsed(line: str) -> dict[str, str] | None:
        for pattern, static in nodes:
            if found := pattern.search(line):
                return {**found.groupdict(), static["meta"]: static["value"]}
        return None

    return parsed


def lines(told: list[logging.LogRecord]) -> list[str]:
    return [LineFormatter().format(record) for record in told]


def guess(client: Client, name: str, address: str = GUESSER) -> None:
    """Have a client of this name fail until it is locked out, and once more, with the name wherever it can put it."""
    for _ in range(4):
        client.post(
            f"/sign-in/?{name}",
            {"username": name, "password": "wrong"},
            REMOTE_ADDR=address,
            HTTP_USER_AGENT=name,
            HTTP_X_FORWARDED_FOR=VICTIM,
        )


def test_a_line_has_its_fields_in_order(alice: User, post: Post, told: list[Any]) -> None:
    post(REMOTE_ADDR=GUESSER, HTTP_USER_AGENT="curl/8")
    post(password=PASSWORD, REMOTE_ADDR=GUESSER, HTTP_USER_AGENT="curl/8")
    failed, entered = lines(told)
    moment = r"time=\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
    said = f'ip={GUESSER} id=[0-9a-f]{{32}} %suser="alice" path="/sign-in/" agent="curl/8"'
    logger = "logger=axes_async.audit event="
    assert re.fullmatch(f"{moment} level=WARNING {logger}authn_login_fail {said % ''}", failed)
    assert re.fullmatch(f"{moment} level=INFO {logger}authn_login_successafterfail {said % 'retries=1 '}", entered)


@pytest.mark.parametrize("name", NAMES)
def test_a_line_is_one_line_that_can_be_read_back(client: Client, told: list[Any], name: str) -> None:
    guess(client, name)
    for record, line in zip(told, lines(told), strict=True):
        assert line.isascii()
        assert line.isprintable()
        read = fields(line)
        assert read["ip"] == GUESSER
        assert (read["user"], read["agent"]) == (record.username, record.user_agent)


def test_what_is_not_known_is_a_dash_and_a_dash_is_in_quotes(client: Client, post: Post, told: list[Any]) -> None:
    client.post("/check-only/", REMOTE_ADDR="")
    post("-")
    nobody, dash = lines(told)
    assert " ip=- " in nobody
    assert " user=- " in nobody
    assert ' user="-" ' in dash


def test_a_record_of_another_logger_is_one_line_with_its_traceback() -> None:
    error = ValueError(f"\n{FORGED}")
    info = ValueError, error, None
    record = logging.LogRecord("axes_async.stores", logging.ERROR, "", 0, "gone: %s", (FORGED,), info)
    line = LineFormatter().format(record)
    assert line.isprintable()
    read = fields(line)
    assert (read["level"], read["logger"], read["message"]) == ("ERROR", "axes_async.stores", f"gone: {FORGED}")
    assert "ValueError" in str(read["error"])
    assert fail2ban("aggressive")(line) is None


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("address", [GUESSER, "2001:db8::7"])
def test_no_name_has_somebody_else_banned(client: Client, told: list[Any], name: str, address: str) -> None:
    guess(client, name, address)
    banned, read = fail2ban("normal"), crowdsec()
    found = [(banned(line), read(line)) for line in lines(told)]
    assert [by for by, _ in found] == [address] * 3 + [None] * 2
    assert [(by or {})["source_ip"] for _, by in found] == [address] * 5
    kinds = ["axes_async_failed"] * 3 + ["axes_async_locked", "axes_async_turned_away"]
    assert [(by or {})["log_type"] for _, by in found] == kinds


def test_each_mode_of_the_filter_counts_what_it_says(client: Client, told: list[Any]) -> None:
    guess(client, "alice")
    for mode, wanted in (("lockout", [3]), ("aggressive", [0, 1, 2, 4])):
        found = [fail2ban(mode)(line) for line in lines(told)]
        assert [place for place, address in enumerate(found) if address] == wanted


def test_a_name_that_others_have_locked_does_not_ban_its_owner(
    alice: User, post: Post, told: list[Any], settings: Any
) -> None:
    settings.AXES_LOCKOUT_PARAMETERS = ["username"]
    for _ in range(3):
        post(REMOTE_ADDR=GUESSER)
    for _ in range(3):
        assert post(password=PASSWORD, REMOTE_ADDR=VICTIM).status_code == 429
    assert {fail2ban("normal")(line) for line in lines(told)} == {GUESSER, None}
    failed = [read for line in lines(told) if (read := crowdsec()(line)) and read["log_type"] == "axes_async_failed"]
    assert {read["source_ip"] for read in failed} == {GUESSER}


def test_fail2ban_itself_finds_the_guesser_alone(client: Client, told: list[Any], tmp_path: Path) -> None:
    program = shutil.which("fail2ban-regex")
    if program is None:
        pytest.skip(NO_FAIL2BAN)
    for number, name in enumerate(NAMES, 1):
        guess(client, name, f"203.0.113.{number}")
    log = tmp_path / "audit.log"
    log.write_text("".join(f"{line}\n" for line in lines(told)))
    found = subprocess.run([program, "--out", "ip", log, FILTER], capture_output=True, text=True, check=True).stdout
    assert found.split() == [f"203.0.113.{number}" for number in range(1, len(NAMES) + 1) for _ in range(3)]


def test_the_scenario_counts_what_the_parser_calls_a_wrong_password() -> None:
    scenario = yaml.safe_load((CONTRIB / "crowdsec/scenarios/axes-async-bf.yaml").read_text())
    assert scenario["filter"] == "evt.Meta.log_type == 'axes_async_failed'"
    acquired = yaml.safe_load((CONTRIB / "crowdsec/acquis.d/axes-async.yaml").read_text())
    parser = yaml.safe_load((CONTRIB / "crowdsec/parsers/s01-parse/axes-async-logs.yaml").read_text())
    assert f"'{acquired['labels']['type']}'" in parser["filter"]


# The Elastic Common Schema.


def test_ecs_has_each_part_under_its_own_name(alice: User, post: Post, client: Client, told: list[Any]) -> None:
    for _ in range(4):
        post(REMOTE_ADDR=GUESSER, HTTP_USER_AGENT="curl/8")
    post(password=PASSWORD, REMOTE_ADDR="2001:db8::7")
    client.post("/logout/", REMOTE_ADDR="2001:db8::7")
    failed, _, _, locked, turned_away, entered, left = [json.loads(EcsFormatter().format(record)) for record in told]
    assert failed["event"].pop("id") == told[0].event_id
    assert failed["event"] == {
        "kind": "event",
        "category": ["authentication"],
        "type": ["start"],
        "outcome": "failure",
        "action": "authn_login_fail",
        "dataset": "axes_async.audit",
    }
    assert failed["user"] == {"name": "alice"}
    assert failed["source"] == {"address": GUESSER, "ip": GUESSER}
    assert (failed["user_agent"], failed["url"]) == ({"original": "curl/8"}, {"path": "/sign-in/"})
    assert failed["log.level"] == "warning" if "log.level" in failed else failed["log"]["level"] == "warning"
    assert (locked["event"]["action"], turned_away["axes"]) == ("authn_login_lock", {"limit": 3, "repeats": 1})
    assert (entered["event"]["outcome"], left["event"]["type"]) == ("success", ["end"])
    assert not {"username", "ip_address", "path_info", "event_id", "limit", "repeats"} & {*failed, *turned_away}


@pytest.mark.parametrize("name", NAMES)
def test_ecs_is_one_line_of_json_whatever_the_name(client: Client, told: list[Any], name: str) -> None:
    guess(client, name)
    for record in told:
        line = EcsFormatter().format(record)
        assert line.isprintable()
        read = json.loads(line)
        assert (read["source"]["ip"], read["user"]["name"]) == (GUESSER, record.username)


def test_ecs_leaves_records_of_others_to_its_library() -> None:
    record = logging.LogRecord("axes_async.stores", logging.ERROR, "", 0, "gone", (), None)
    assert json.loads(EcsFormatter(extra={"service.name": "mysite"}).format(record))["message"] == "gone"


# What is masked.


@pytest.mark.parametrize("formatter", [LineFormatter, EcsFormatter])
def test_what_a_site_masks_is_in_no_part_of_a_line_and_stays_tellable_apart(
    post: Post, told: list[Any], settings: Any, formatter: Any
) -> None:
    settings.AXES_SENSITIVE_PARAMETERS = ["username", "ip_address", "user_agent", "path_info"]
    for name, address in (("alice", GUESSER), ("Alice ", GUESSER), ("bob", VICTIM)):
        post(name, REMOTE_ADDR=address, HTTP_USER_AGENT=f"agent of {name}")
    for record in told:
        text = f"{formatter().format(record)} {record.getMessage()} {record.__dict__!r}".lower()
        assert not [said for said in ("alice", "bob", GUESSER, VICTIM, "agent of", "sign-in") if said in text]
    first, again, other = told
    assert re.fullmatch("masked:[0-9a-f]{12}", first.username)
    assert (first.username, first.ip_address) == (again.username, again.ip_address)
    assert len({first.username, other.username, first.ip_address, other.ip_address}) == 4


def test_a_digest_is_keyed_and_that_of_a_name_is_not_that_of_an_agent(
    post: Post, told: list[Any], settings: Any
) -> None:
    settings.AXES_SENSITIVE_PARAMETERS = ["username", "user_agent"]
    post("alice", HTTP_USER_AGENT="alice")
    settings.SECRET_KEY = "another"
    post("alice")
    assert len({told[0].username, told[0].user_agent, told[1].username}) == 3


def test_an_address_that_is_masked_is_none_for_ecs_fail2ban_and_crowdsec(
    post: Post, told: list[Any], settings: Any
) -> None:
    settings.AXES_SENSITIVE_PARAMETERS = ["ip_address"]
    post(REMOTE_ADDR="2001:db8::7")
    (line,) = lines(told)
    assert (fail2ban("aggressive")(line), crowdsec()(line)) == (None, None)
    source = json.loads(EcsFormatter().format(told[0]))["source"]
    assert source == {"address": told[0].ip_address}
    with pytest.raises(ValueError, match="masked"):
        ip_address(source["address"])


def test_rows_are_not_masked(post: Post, settings: Any, drain: Callable[[], int]) -> None:
    settings.AXES_SENSITIVE_PARAMETERS = ["username", "ip_address"]
    post(REMOTE_ADDR=GUESSER)
    drain()
    row = AccessFailureLog.objects.get()
    assert (row.username, row.ip_address) == ("alice", GUESSER)
