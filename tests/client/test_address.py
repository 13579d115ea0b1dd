"""Where a request comes from: proxies that are believed, headers that are not, and addresses that are one client."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network, ip_address, ip_network
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.http import HttpRequest
from django.test import Client, RequestFactory, override_settings
from hypothesis import assume, given
from hypothesis import strategies as st

from axes_async.client.address import address_behind
from axes_async.client.identity import identify
from axes_async.conf import get_settings
from axes_async.conf.networks import Networks, parse_address
from axes_async.models import AccessAttempt, AccessLog
from axes_async.tasks.reset import reset
from tests.conftest import PASSWORD
from tests.site import CountingBackend

Post = Callable[..., Any]
Drain = Callable[[], int]
CLIENT, OTHER, PROXY, CDN = "203.0.113.7", "198.51.100.8", "10.0.0.1", "192.0.2.200"
ADDRESSES = st.ip_addresses().map(str)
SENT = st.lists(ADDRESSES | st.text(st.characters(codec="latin-1", exclude_characters="\r\n"), max_size=20), max_size=5)

pytestmark = [pytest.mark.django_db]


@pytest.fixture
def _proxied(settings: Any) -> None:
    """Have the site behind a proxy that it knows."""
    settings.AXES_TRUSTED_PROXIES = [f"{PROXY}/32", "10.0.1.0/24", "2001:db8:ffff::/48"]


def behind(header: str, peer: str = PROXY, name: str = "HTTP_X_FORWARDED_FOR") -> str:
    """Return the address that is found for a header, under the settings in force."""
    return address_behind({"REMOTE_ADDR": peer, name: header}, get_settings())


@given(ADDRESSES, st.lists(ADDRESSES))
def test_networks_hold_what_pythons_own_networks_hold(address: str, others: list[str]) -> None:
    networks = [ip_network((other, number % 33), strict=False) for number, other in enumerate(others)]
    found = ip_address(address)
    assert (found in Networks(tuple(networks))) == any(found in network for network in networks)


def test_no_address_is_in_no_network() -> None:
    assert None not in Networks((IPv4Network("0.0.0.0/0"),))
    assert IPv4Address("0.0.0.1") not in Networks((ip_network("::/0"),))


@pytest.mark.usefixtures("_proxied")
@pytest.mark.parametrize(
    ("peer", "header", "found"),
    [
        (PROXY, CLIENT, CLIENT),
        (PROXY, f"{OTHER}, {CLIENT}", CLIENT),
        (PROXY, f"{OTHER},{CLIENT},10.0.1.7", CLIENT),
        (PROXY, f"{CLIENT}, 10.0.2.7", "10.0.2.7"),
        (PROXY, f"  {CLIENT}:51234 ", f"{CLIENT}:51234"),
        (PROXY, '"[2001:db8::9]:443"', PROXY),
        (PROXY, "[2001:db8::9]:443", "[2001:db8::9]:443"),
        (PROXY, "10.0.1.9, 10.0.1.8", "10.0.1.9"),
        (f"::ffff:{PROXY}", CLIENT, CLIENT),
        (f"[{'2001:db8:ffff::1'}]:80", f"{CLIENT}, 2001:db8:ffff:1::2", CLIENT),
        (OTHER, CLIENT, OTHER),
        ("10.0.0.2", CLIENT, "10.0.0.2"),
        ("", CLIENT, ""),
        ("unknown", CLIENT, "unknown"),
        (PROXY, "", PROXY),
        (PROXY, "unknown", PROXY),
        (PROXY, f"{CLIENT}, unknown", PROXY),
        (PROXY, f"{CLIENT}, unknown, 10.0.1.5", "10.0.1.5"),
        (PROXY, f"{CLIENT},", PROXY),
        (PROXY, "1" * 100_000, PROXY),
        (PROXY, ",".join([CLIENT, *["10.0.1.5"] * 1000]), "10.0.1.5"),
    ],
)
def test_the_client_is_the_first_from_the_right_that_is_no_proxy(peer: str, header: str, found: str) -> None:
    assert behind(header, peer) == found


@pytest.mark.usefixtures("_proxied")
@given(SENT, st.ip_addresses(v=4).map(str))
def test_whatever_a_client_sends_itself_it_is_found_by_what_the_proxy_appends(sent: list[str], client: str) -> None:
    assume(parse_address(client) not in get_settings().trusted_proxies)
    assert behind(", ".join([*sent, client])) == client
    assert behind(", ".join([*sent, client, "10.0.1.3"])) == client


@given(SENT, ADDRESSES)
def test_a_stranger_is_known_by_its_own_address_whatever_it_sends(sent: list[str], peer: str) -> None:
    header = ", ".join(sent)
    with override_settings(AXES_IPWARE_META_PRECEDENCE_ORDER=["HTTP_X_FORWARDED_FOR"], AXES_IPWARE_PROXY_COUNT=1):
        assert behind(header, peer) == peer


@override_settings(AXES_TRUSTED_PROXIES=["unix"])
def test_a_proxy_on_a_unix_socket_can_be_trusted() -> None:
    assert behind(f"{OTHER}, {CLIENT}", "") == CLIENT
    assert behind(CLIENT, OTHER) == OTHER


@pytest.mark.usefixtures("_proxied")
@override_settings(AXES_IPWARE_META_PRECEDENCE_ORDER=["HTTP_X_REAL_IP", "HTTP_FORWARDED", "REMOTE_ADDR"])
@pytest.mark.parametrize(
    ("meta", "found"),
    [
        ({"HTTP_X_REAL_IP": CLIENT, "HTTP_FORWARDED": f"for={OTHER}"}, CLIENT),
        ({"HTTP_FORWARDED": f"for={OTHER}, for={CLIENT};proto=https"}, CLIENT),
        ({"HTTP_FORWARDED": f'proto=https; For="{CLIENT}:443", for=10.0.1.2'}, f"{CLIENT}:443"),
        ({"HTTP_FORWARDED": 'for="[2001:db8::9]:1"'}, "[2001:db8::9]:1"),
        ({"HTTP_FORWARDED": f"for={CLIENT}, by=10.0.1.2"}, PROXY),
        ({"HTTP_FORWARDED": "for=_hidden"}, PROXY),
        ({"HTTP_X_FORWARDED_FOR": CLIENT}, PROXY),
        ({"HTTP_X_REAL_IP": " ", "HTTP_FORWARDED": f"for={CLIENT}"}, CLIENT),
        ({}, PROXY),
    ],
)
def test_the_first_header_of_those_that_are_named_counts(meta: dict[str, str], found: str) -> None:
    assert address_behind({"REMOTE_ADDR": PROXY, **meta}, get_settings()) == found


@pytest.mark.usefixtures("_proxied")
@pytest.mark.parametrize(
    ("options", "header", "found"),
    [
        ({"AXES_IPWARE_PROXY_COUNT": 1}, f"{CLIENT}, {CDN}", CLIENT),
        ({"AXES_IPWARE_PROXY_COUNT": 1}, f"{OTHER}, {CLIENT}, {CDN}", CLIENT),
        ({"AXES_IPWARE_PROXY_COUNT": 0}, f"{OTHER}, {CLIENT}", CLIENT),
        ({"AXES_IPWARE_PROXY_COUNT": 2}, f"{OTHER}, {CLIENT}", CLIENT),  # A hop is missing: it came past the CDN.
        ({"AXES_IPWARE_PROXY_COUNT": 1}, "unknown", PROXY),
        ({"AXES_IPWARE_PROXY_COUNT": 1, "AXES_IPWARE_PROXY_ORDER": "right-most"}, f"{CDN}, {CLIENT}", CLIENT),
        ({"AXES_IPWARE_PROXY_TRUSTED_IPS": [CDN]}, f"{OTHER}, {CLIENT}, {CDN}", CLIENT),
        ({"AXES_IPWARE_PROXY_TRUSTED_IPS": ["192.0.2.", "10.0."]}, f"{CLIENT}, {CDN}, 10.0.9.9", CLIENT),
        ({"AXES_IPWARE_PROXY_TRUSTED_IPS": ["192.0.2.0/24"]}, f"{OTHER}, {CLIENT}", CLIENT),
        ({"AXES_IPWARE_PROXY_ORDER": "left-most"}, f"{OTHER}, {CLIENT}", CLIENT),
    ],
)
def test_proxies_that_cannot_be_named_are_counted_off(options: dict[str, Any], header: str, found: str) -> None:
    with override_settings(**options):
        assert behind(header) == found


@override_settings(AXES_IPV4_PREFIX=24, AXES_IPV6_PREFIX=48)
def test_counters_group_addresses_by_the_prefixes_that_are_set() -> None:
    def groups(*addresses: str) -> set[Any]:
        return {
            identify(RequestFactory().get("/", REMOTE_ADDR=each), None).canonical["ip_address"] for each in addresses
        }

    assert groups("203.0.113.1", "203.0.113.254", "::ffff:203.0.113.9") == {"203.0.113.0/24"}
    assert groups("2001:db8:1:2::3", "2001:db8:1:ffff::") == {"2001:db8:1::/48"}
    assert len(groups("203.0.113.1", "203.0.114.1", "2001:db8:1::", "2001:db8:2::")) == 4


# Through real requests.


def test_a_forwarding_header_of_a_stranger_gains_nothing(post: Post) -> None:
    answers = [post(REMOTE_ADDR=CLIENT, HTTP_X_FORWARDED_FOR=f"192.0.2.{number}") for number in range(4)]
    assert [answer.status_code for answer in answers] == [401, 401, 429, 429]
    assert post(REMOTE_ADDR=OTHER, HTTP_X_FORWARDED_FOR=CLIENT).status_code == 401


@pytest.mark.usefixtures("_proxied")
@pytest.mark.parametrize("count", [None, 0, 1])
def test_what_a_client_writes_before_its_proxy_does_gains_nothing(post: Post, settings: Any, count: int | None) -> None:
    settings.AXES_IPWARE_PROXY_COUNT = count
    behind_it = [CLIENT, CDN] if count == 1 else [CLIENT]

    def guess(number: int) -> int:
        sent = [f"192.0.2.{number}", "unknown"][number % 2]
        return int(post(REMOTE_ADDR=PROXY, HTTP_X_FORWARDED_FOR=", ".join([sent, *behind_it])).status_code)

    assert [guess(number) for number in range(4)] == [401, 401, 429, 429]


@pytest.mark.usefixtures("_proxied")
def test_clients_of_one_proxy_are_told_apart_and_recorded(alice: User, post: Post, drain: Drain) -> None:
    for _ in range(4):
        post(REMOTE_ADDR=PROXY, HTTP_X_FORWARDED_FOR=CLIENT)
    assert post(password=PASSWORD, REMOTE_ADDR=PROXY, HTTP_X_FORWARDED_FOR=OTHER).status_code == 204
    drain()
    assert AccessAttempt.objects.get().ip_address == CLIENT
    assert AccessLog.objects.get().ip_address == OTHER
    assert reset(ip=CLIENT) == 1
    assert post(password=PASSWORD, REMOTE_ADDR=PROXY, HTTP_X_FORWARDED_FOR=CLIENT).status_code == 204


@pytest.mark.parametrize(
    ("prefixes", "addresses", "other", "named"),
    [
        ({}, [f"2001:db8:1:2::{n}" for n in range(1, 5)], "2001:db8:1:3::1", "2001:db8:1:2:ffff::"),
        ({"AXES_IPV6_PREFIX": 56}, [f"2001:db8:1:{n}::" for n in range(4)], "2001:db8:1:100::", "2001:db8:1:ff::"),
        ({"AXES_IPV4_PREFIX": 24}, [f"203.0.113.{n}" for n in range(4)], "203.0.114.1", "203.0.113.99"),
    ],
)
def test_addresses_of_one_network_share_a_limit_and_a_reset(
    alice: User,
    post: Post,
    drain: Drain,
    settings: Any,
    prefixes: dict[str, int],
    addresses: Any,
    other: Any,
    named: Any,
) -> None:
    for name, bits in prefixes.items():
        setattr(settings, name, bits)
    assert [post(REMOTE_ADDR=address).status_code for address in addresses] == [401, 401, 429, 429]
    assert post(password=PASSWORD, REMOTE_ADDR=other).status_code == 204
    drain()
    assert reset(ip=named) == 3
    assert post(password=PASSWORD, REMOTE_ADDR=addresses[0]).status_code == 204


def test_a_callable_says_where_a_request_comes_from_and_is_asked_once_for_it(
    alice: User, post: Post, drain: Drain, settings: Any
) -> None:
    asked: list[HttpRequest] = []

    def told(request: HttpRequest) -> str | None:
        asked.append(request)
        return request.headers.get("X-Told")

    settings.AXES_CLIENT_IP_CALLABLE = told
    settings.AXES_TRUSTED_PROXIES = ["127.0.0.1"]
    headers = {"HTTP_X_TOLD": CLIENT, "HTTP_X_FORWARDED_FOR": OTHER}
    assert [post(**headers).status_code for _ in range(4)] == [401, 401, 429, 429]
    assert post(password=PASSWORD, HTTP_X_TOLD=OTHER).status_code == 204
    assert len(asked) == len(set(map(id, asked))) == 5
    drain()
    assert AccessAttempt.objects.get().ip_address == CLIENT
    assert reset(ip=CLIENT) == 1
    assert post(password=PASSWORD, **headers).status_code == 204


def test_without_an_address_nobody_shares_one(alice: User, post: Post, drain: Drain, settings: Any) -> None:
    settings.AXES_CLIENT_IP_CALLABLE = "tests.client.test_address.nowhere"
    settings.AXES_LOCKOUT_PARAMETERS = ["ip_address", ["ip_address", "user_agent"]]
    assert [post(f"user {number}").status_code for number in range(5)] == [401] * 5
    drain()
    assert set(AccessAttempt.objects.values_list("ip_address", flat=True)) == {None}
    assert CountingBackend.checks == 5


def nowhere(request: HttpRequest) -> None:
    """Know no address."""


@pytest.mark.parametrize("error", [TypeError("mine"), KeyError("mine")], ids=repr)
def test_the_error_of_a_callable_for_addresses_is_the_sites_to_see(
    client: Client, settings: Any, error: Exception
) -> None:
    calls: list[HttpRequest] = []

    def broken(request: HttpRequest) -> str:
        calls.append(request)
        raise error

    settings.AXES_CLIENT_IP_CALLABLE = broken
    with pytest.raises(type(error), match="mine"):
        client.post("/sign-in/", {"username": "alice", "password": "wrong"})
    assert (len(calls), CountingBackend.checks) == (1, 0)


GARBAGE = [
    "garbage",
    "unknown",
    "",
    ",",
    "1.2.3.4:99999999",
    "[::1",
    "::1%eth0",
    "999.1.1.1",
    "\x00",
    "é" * 50,
    "1.2.3.4,,",
]


@pytest.mark.parametrize("count", [0, 1, 2])
@pytest.mark.parametrize("order", ["left-most", "right-most"])
@pytest.mark.parametrize("sent", GARBAGE)
def test_no_header_breaks_or_escapes_what_stands_behind_a_proxy(
    client: Client, settings: Any, sent: str, count: int, order: str
) -> None:
    settings.AXES_TRUSTED_PROXIES = ["10.0.0.0/8"]
    settings.AXES_IPWARE_PROXY_COUNT, settings.AXES_IPWARE_PROXY_ORDER = count, order
    hops = [sent, "198.51.100.7", *["10.0.0.2"] * count]
    if order == "right-most":
        hops.reverse()
    statuses = [
        client.post(
            "/sign-in/",
            {"username": f"u{number}", "password": "x"},
            REMOTE_ADDR="10.0.0.1",
            headers={"X-Forwarded-For": ", ".join(hops).replace("garbage", f"garbage{number}")},
        ).status_code
        for number in range(4)
    ]
    assert statuses == [401, 401, 429, 429]


def test_a_varying_number_of_hops_is_no_way_around(client: Client, settings: Any) -> None:
    settings.AXES_TRUSTED_PROXIES, settings.AXES_IPWARE_PROXY_COUNT = ["10.0.0.0/8"], 1
    heads = ["", "1.1.1.1, ", "1.1.1.1, 2.2.2.2, ", "::ffff:1.1.1.1, ", "x, ", "8.8.8.8:1, 7.7.7.7, "]
    statuses = [
        client.post(
            "/sign-in/",
            {"username": f"u{number}", "password": "x"},
            REMOTE_ADDR="10.0.0.1",
            headers={"X-Forwarded-For": f"{head}198.51.100.7, 10.0.0.2"},
        ).status_code
        for number, head in enumerate(heads)
    ]
    assert statuses == [401, 401, 429, 429, 429, 429]


@pytest.mark.parametrize("sent", ["", "garbage, ", "999999999999, ", "8.8.8.8, fe80::1%eth0, 1.2.3.4.5, "])
@pytest.mark.parametrize("address", ["192.168.1.7", "8.8.4.4"])
@pytest.mark.parametrize("count", [0, 1])
def test_no_second_header_outweighs_what_the_first_one_says(
    client: Client, settings: Any, sent: str, address: str, count: int
) -> None:
    settings.AXES_TRUSTED_PROXIES, settings.AXES_IPWARE_PROXY_COUNT = ["10.0.0.0/8"], count
    settings.AXES_IPWARE_META_PRECEDENCE_ORDER = ["HTTP_X_FORWARDED_FOR", "HTTP_X_REAL_IP", "REMOTE_ADDR"]
    hops = ", 10.0.0.2" * count
    statuses = [
        client.post(
            "/sign-in/",
            {"username": f"u{number}", "password": "x"},
            REMOTE_ADDR="10.0.0.1",
            headers={"X-Forwarded-For": f"{sent}{address}{hops}", "X-Real-IP": f"9.9.9.{number}{hops}"},
        ).status_code
        for number in range(5)
    ]
    assert statuses == [401, 401, 429, 429, 429]
