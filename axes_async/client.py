"""Who is asking: username, address, agent, path and accept of one attempt.

Two forms of each: what a row shows (close to raw, bounded, free of what no database holds) and what a counter's key is
made of (canonical). What is done with them is not decided here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Any
from unicodedata import normalize

from django.contrib.auth import get_user_model
from django.core.exceptions import BadRequest, SuspiciousOperation
from django.http import HttpRequest
from django.http.multipartparser import MultiPartParserError
from django.http.request import RawPostDataException, UnreadablePostError

from axes_async.policy import Parameter, digest_of

ROW_LENGTH = 255
"""Characters a row keeps of a username, an agent, a path or an accept header."""

CANONICAL_LENGTH = 1024
"""Longer names are compared as they are: normalising a megabyte would be an attacker's tool."""

IPV6_PREFIX = 64
"""A site is given a /64 or more (RFC 6177), so one client can rotate through its lower 64 bits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """One client at one moment: the row's values, and the canonical ones."""

    username: str | None = None
    ip_address: str | None = None
    user_agent: str = ""
    http_accept: str = ""
    path_info: str = ""
    not_an_address: str = ""
    """What the server gave for an address, where it is none."""
    canonical: Mapping[Parameter, str | None]
    given: str | None = None
    """The username as it came."""


def identify(request: HttpRequest | None, credentials: Mapping[str, Any] | None) -> Client:
    """Return the client behind ``request`` and ``credentials``; either may be ``None``, and nothing makes it raise."""
    return client_of(request, username_from(request, credentials))


def client_of(request: HttpRequest | None, username: str | None) -> Client:
    """Return the client behind ``request`` that tries ``username``."""
    meta: Mapping[str, Any] = request.META if request is not None else {}
    address = meta.get("REMOTE_ADDR") or ""
    agent = _as_text(meta.get("HTTP_USER_AGENT")) or ""
    parsed = parse_address(address)
    return Client(
        username=None if username is None else row_text(username, tell_apart=True),
        ip_address=None if parsed is None else str(parsed),
        user_agent=row_text(agent, tell_apart=True),
        http_accept=row_text(_as_text(meta.get("HTTP_ACCEPT")) or ""),
        path_info="" if request is None else row_text(request.path_info),
        not_an_address=row_text(address.strip()) if parsed is None else "",
        canonical={
            "username": canonical_username(username),
            "ip_address": canonical_address(address),
            "user_agent": agent,
        },
        given=username,
    )


def username_from(request: HttpRequest | None, credentials: Mapping[str, Any] | None) -> str | None:
    """Return the name that is being tried, as text; ``None`` where there is none.

    Credentials count first: under the user model's ``USERNAME_FIELD``, then ``username``, then its e-mail field.
    Without credentials, ``USERNAME_FIELD`` in the form, or in the JSON object, is read.
    """
    field = get_user_model().USERNAME_FIELD
    if credentials:
        fields = (field, "username", get_user_model().get_email_field_name())
        return _as_text(next((value for name in fields if (value := credentials.get(name)) is not None), None))
    if request is None or request.method != "POST":
        return None
    try:
        if request.content_type == "application/json":
            body = json.loads(request.body)
            return _as_text(body.get(field)) if isinstance(body, dict) else None
        return _as_text(request.POST.get(field))
    except _BROKEN_BODY:
        return None  # The view meets the same broken body and answers for it.


_BROKEN_BODY = (
    BadRequest,
    MultiPartParserError,
    RawPostDataException,
    RecursionError,
    SuspiciousOperation,
    UnreadablePostError,
    ValueError,
)
"""What reading a form or JSON may raise; the last is json's."""


def _as_text(value: object) -> str | None:
    """Return ``value`` as text; ``None`` for nothing. JSON brings numbers and lists where a form brings text."""
    if value is None or isinstance(value, str):
        return value
    try:
        return str(value)
    except Exception:  # noqa: BLE001  (a stranger's __str__ may raise anything; its type still tells names apart)
        return type(value).__name__


def storable(text: str) -> bool:
    """Return whether a database can hold ``text``: no NUL (PostgreSQL) and no lone surrogate (UTF-8)."""
    if "\x00" in text:
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def row_text(text: str, *, tell_apart: bool = False) -> str:
    """Return ``text`` as a row keeps it: at most ``ROW_LENGTH`` characters, NUL and lone surrogates escaped.

    With ``tell_apart``, a cut text ends in a digest of the whole, so that long texts with one beginning stay different.
    """
    shown = text if len(text) <= ROW_LENGTH else text[:ROW_LENGTH]
    if not shown.isascii() or "\x00" in shown:
        shown = shown.replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode()
    if len(text) <= ROW_LENGTH and len(shown) <= ROW_LENGTH:
        return shown
    if not tell_apart:
        return shown[:ROW_LENGTH]
    digest = digest_of([("text", text)])
    return f"{shown[: ROW_LENGTH - len(digest) - 1]}~{digest}"


def canonical_username(username: str | None) -> str | None:
    """Return the form in which variants of one name are equal: NFKC, casefolded, stripped; ``None`` for an empty one.

    NFKC is what Django's own ``UsernameField`` applies; case and surrounding space are folded because many databases
    and login forms do.
    """
    username = (username or "").strip()
    if len(username) > CANONICAL_LENGTH:
        return username
    folded = username.casefold() if username.isascii() else normalize("NFKC", normalize("NFKC", username).casefold())
    return folded.strip() or None


@lru_cache(maxsize=4096)
def parse_address(text: str) -> IPv4Address | IPv6Address | None:
    """Return the address in ``text``, which may carry a port or an IPv6 zone; ``None`` if there is none in it.

    An IPv4 address mapped into IPv6 (RFC 4291, 2.5.5.2) is the IPv4 address.
    """
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


@lru_cache(maxsize=4096)
def canonical_address(text: str) -> str | None:
    """Return what addresses are compared by: IPv4 whole, IPv6 by its network of ``IPV6_PREFIX`` bits.

    A text that is no address is compared as it is, under a name that no address has; an empty one is ``None``.
    """
    address = parse_address(text)
    if address is None:
        return f"not an address: {text.strip()}" if text.strip() else None
    if isinstance(address, IPv4Address):
        return str(address)
    return str(IPv6Network((int(address), IPV6_PREFIX), strict=False))
