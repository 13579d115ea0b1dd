"""Who is asking: username, address, agent, path and accept of one attempt.

Two forms of each: what a row shows (close to raw, bounded, free of what no database holds) and what a counter's key is
made of (canonical). What is done with them is not decided here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from unicodedata import normalize

from django.contrib.auth import get_user_model
from django.core.exceptions import BadRequest, SuspiciousOperation
from django.http import HttpRequest
from django.http.multipartparser import MultiPartParserError
from django.http.request import RawPostDataException, UnreadablePostError

from axes_async.addresses import address_behind
from axes_async.conf import AxesSettings, get_settings
from axes_async.networks import group_of, parse_address
from axes_async.policy import Parameter, digest_of
from axes_async.readers import refuse

ROW_LENGTH = 255
"""Characters a row keeps of a username, an agent, a path or an accept header."""

CANONICAL_LENGTH = 1024
"""Longer names are compared as they are: normalising a megabyte would be an attacker's tool."""

SECRET = re.compile("api|token|key|secret|password|signature", re.IGNORECASE)
"""Names of credentials that Django masks before it tells of a failure."""

MASKED = "********************"
"""What it puts in their place."""


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
    given: object = None
    """What the username was taken from, see ``source_of``."""


def identify(
    request: HttpRequest | None, credentials: Mapping[str, Any] | None, *, seen: Client | None = None
) -> Client:
    """Return the client behind ``request`` and ``credentials``; either may be ``None``.

    Nothing that was sent makes it raise; what the site's own callables raise is raised.

    :param seen: a client of the same request, whose address needs not be worked out again.
    """
    settings = get_settings()
    username = username_from(request, credentials)
    given = username if settings.username_callable is None else source_of(request, credentials)
    return client_of(request, username, given=given, seen=seen)


def client_of(
    request: HttpRequest | None, username: object, *, given: object = None, seen: Client | None = None
) -> Client:
    """Return the client behind ``request`` that tries ``username``, which need be no text; see ``identify``."""
    username = as_text(username)
    shown = None if username is None else row_text(username, tell_apart=True)
    name = canonical_username(username)
    if seen is not None:
        return Client(
            username=shown,
            ip_address=seen.ip_address,
            user_agent=seen.user_agent,
            http_accept=seen.http_accept,
            path_info=seen.path_info,
            not_an_address=seen.not_an_address,
            canonical={**seen.canonical, "username": name},
            given=given,
        )
    meta: Mapping[str, Any] = request.META if request is not None else {}
    address = _address(request, get_settings())
    agent = as_text(meta.get("HTTP_USER_AGENT")) or ""
    parsed = parse_address(address)
    return Client(
        username=shown,
        ip_address=None if parsed is None else str(parsed),
        user_agent=row_text(agent, tell_apart=True),
        http_accept=row_text(as_text(meta.get("HTTP_ACCEPT")) or ""),
        path_info="" if request is None else row_text(request.path_info),
        not_an_address=row_text(address.strip()) if parsed is None else "",
        canonical={"username": name, "ip_address": canonical_address(address), "user_agent": agent},
        given=given,
    )


def username_from(request: HttpRequest | None, credentials: Mapping[str, Any] | None) -> str | None:
    """Return the name that is being tried, as text; ``None`` where there is none.

    ``AXES_USERNAME_CALLABLE`` decides, if there is one. Else credentials count first: under
    ``AXES_USERNAME_FORM_FIELD``, the user model's ``USERNAME_FIELD``, ``username``, then its e-mail field. Without
    credentials, ``AXES_USERNAME_FORM_FIELD`` (by default ``USERNAME_FIELD``) in the form, or in the JSON object, is
    read.
    """
    ask = get_settings().username_callable
    return _username_sent(request, credentials) if ask is None else as_text(ask(request, credentials))


def source_of(request: HttpRequest | None, credentials: Mapping[str, Any] | None) -> object:
    """Return what tells the attempts of one request apart, without asking ``AXES_USERNAME_CALLABLE`` again.

    That is the username, or where a callable finds it, what it was given: the credentials less those that Django masks
    in its signal of a failure.
    """
    if get_settings().username_callable is None:
        return _username_sent(request, credentials)
    return None if credentials is None else {k: v for k, v in credentials.items() if not SECRET.search(k)}


def is_masked(credentials: Mapping[str, Any] | None) -> bool:
    """Return whether Django has masked the very name: that of a ``USERNAME_FIELD`` such as ``employee_key``."""
    return credentials is not None and any(
        credentials.get(name) == MASKED and SECRET.search(name) for name in _name_fields()
    )


def _name_fields() -> tuple[str, ...]:
    """Return where a name is looked for among credentials."""
    user_model = get_user_model()
    field = get_settings().username_form_field or user_model.USERNAME_FIELD
    return field, user_model.USERNAME_FIELD, "username", user_model.get_email_field_name()


def _username_sent(request: HttpRequest | None, credentials: Mapping[str, Any] | None) -> str | None:
    names = _name_fields()
    if credentials:
        return as_text(next((value for name in names if (value := credentials.get(name)) is not None), None))
    field = names[0]
    if request is None or request.method != "POST":
        return None
    try:
        if request.content_type == "application/json":
            body = json.loads(request.body)
            return as_text(body.get(field)) if isinstance(body, dict) else None
        return as_text(request.POST.get(field))
    except _BROKEN_BODY:
        return None  # The view meets the same broken body and answers for it.


def _address(request: HttpRequest | None, settings: AxesSettings) -> str:
    if request is None:
        return ""
    if settings.client_ip_callable is not None:
        return as_text(settings.client_ip_callable(request)) or ""
    return address_behind(request.META, settings)


_BROKEN_BODY = (
    BadRequest,
    LookupError,
    MultiPartParserError,
    RawPostDataException,
    RecursionError,
    SuspiciousOperation,
    UnreadablePostError,
    ValueError,
)
"""What reading a form or JSON may raise; the last is json's, and one is for a charset that is none of texts."""


def as_text(value: object) -> str | None:
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
    """Return the form in which variants of one name are equal, ``None`` for an empty one.

    That is what ``AXES_USERNAME_CANONICALIZER`` returns, by default ``fold_username``. Space around a name is dropped
    first, and names of more than ``CANONICAL_LENGTH`` characters are compared as they are.
    """
    username = (username or "").strip()
    if not username or len(username) > CANONICAL_LENGTH:
        return username or None
    canonicalizer = get_settings().username_canonicalizer
    if canonicalizer is None:
        return fold_username(username) or None
    canonical: object = canonicalizer(username)
    if canonical is not None and not isinstance(canonical, str):
        refuse("AXES_USERNAME_CANONICALIZER", canonicalizer, f"a callable that returns text or None, not {canonical!r}")
    return canonical or None


def fold_username(username: str) -> str:
    """Return ``username`` in NFKC, casefolded and stripped.

    NFKC is what Django's own ``UsernameField`` applies; case and surrounding space are folded because many databases
    and login forms do.
    """
    if username.isascii():
        return username.casefold().strip()
    return normalize("NFKC", normalize("NFKC", username).casefold()).strip()


def canonical_address(text: str) -> str | None:
    """Return what addresses are compared by: ``AXES_IPV4_PREFIX`` or ``AXES_IPV6_PREFIX`` bits; see ``group_of``."""
    settings = get_settings()
    return group_of(text, settings.ipv4_prefix, settings.ipv6_prefix)
