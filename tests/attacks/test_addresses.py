"""One client under many addresses: a tunnel gives whoever has one IPv4 address thousands of IPv6 networks."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest

from axes_async.tasks.drain import drain
from axes_async.tasks.reset import reset
from tests.site import CountingBackend

pytestmark = [pytest.mark.django_db]
OWN = int(IPv4Address("198.51.100.7"))
LIMIT = 5


def sixtofour(number: int) -> int:
    return 0x2002 << 112 | OWN << 80 | number << 64 | number


def teredo(number: int) -> int:
    """Return the address that a Teredo client has behind a NAT that gives it this port."""
    return 0x2001_0000 << 96 | (0x41000000 + number) << 64 | number << 32 | OWN ^ 0xFFFF_FFFF


def nat64(number: int) -> int:
    return 0x64_FF9B << 96 | OWN


@pytest.mark.parametrize("address", [sixtofour, teredo, nat64], ids=lambda each: each.__name__)
def test_a_tunnel_gives_no_more_guesses(post: Callable[..., Any], settings: Any, address: Callable[[int], int]) -> None:
    settings.AXES_LOCKOUT_PARAMETERS, settings.AXES_FAILURE_LIMIT = ["ip_address"], LIMIT
    for number in range(1, 100):
        post(f"user {number}", REMOTE_ADDR=str(IPv6Address(address(number))))
    assert CountingBackend.checks == LIMIT
    assert post(REMOTE_ADDR="198.51.100.7").status_code == 429, "it is locked by its own name, too"
    drain()
    assert reset(ip="198.51.100.7") > 0
    assert post(REMOTE_ADDR=str(IPv6Address(address(7)))).status_code == 401


def test_a_tunnel_makes_nobody_a_trusted_proxy_or_exempt(post: Callable[..., Any], settings: Any) -> None:
    settings.AXES_TRUSTED_PROXIES = settings.AXES_IP_WHITELIST = ["198.51.100.7"]
    settings.AXES_NEVER_LOCKOUT_WHITELIST, settings.AXES_FAILURE_LIMIT = True, LIMIT
    for number in range(20):
        post(REMOTE_ADDR=str(IPv6Address(sixtofour(number))), HTTP_X_FORWARDED_FOR=f"192.0.2.{number}")
    assert CountingBackend.checks == LIMIT
