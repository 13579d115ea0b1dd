"""Who is asking: username, address, agent, path and accept of one attempt.

Each in two forms: what a row shows, and what a counter's key is made of (``normalize.py``). What is done with them is
not decided here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from django.contrib.auth import get_user_model
from django.core.exceptions import BadRequest, SuspiciousOperation
from django.http import HttpRequest
from django.http.multipartparser import MultiPartParserError
from django.http.request import RawPostDataException, UnreadablePostError

from axes_async.client.address import address_behind
from axes_async.client.normalize import (
    REQUEST_BYTES,
    as_text,
    canonical_address,
    canonical_username,
    is_plain,
    name_text,
    row_text,
    shown_name,
)
from axes_async.conf import get_settings
from axes_async.conf.networks import parse_address
from axes_async.counters.events import wire_bytes
from axes_async.counters.rules import Parameter

SECRET = re.compile("api|token|key|secret|password|signature", re.IGNORECASE)
"""Names of credentials that Django masks before it tells of a failure."""

MASKED = "********************"
"""What it puts in their place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    username: str | None = None
    ip_address: str | None = None
    user_agent: str = ""
    http_accept: str = ""
    path_info: str = ""
    not_an_address: str = ""
    """What the server gave for an address, where it is none."""
    canonical: Mapping[Parameter, str | None]
    is_plain: bool = True
    """Whether the username is nobody else's, too; see ``normalize``."""
    given: object = None
    """What the username was taken from, see ``source_of``."""
    others: tuple[Client, ...] = ()
    """The same client by the other names that its credentials have: a backend may look for any of them."""


def identify(
    request: HttpRequest | None, credentials: Mapping[str, Any] | None, *, seen: Client | None = None
) -> Client:
    """Return the client behind ``request`` and ``credentials``; either may be ``None``.

    Nothing that was sent makes it raise; what the site's own callables raise is raised.

    :param seen: a client of the same request, whose address needs not be worked out again.
    """
    if (ask := get_settings().username_callable) is not None:
        return client_of(request, ask(request, credentials), given=source_of(request, credentials), seen=seen)
    given = names_from(request, credentials)
    client = client_of(request, given[0] if given else None, given=given, seen=seen)
    if len(given) < 2:
        return client
    by_name = {client.canonical["username"]: client}
    for name in given[1:]:
        other = client_of(request, name, seen=client)
        by_name.setdefault(other.canonical["username"], other)
    return replace(client, others=tuple(by_name.values())[1:])


def client_of(
    request: HttpRequest | None, username: object, *, given: object = None, seen: Client | None = None
) -> Client:
    """Return the client behind ``request`` that tries ``username``, which need be no text; see ``identify``."""
    username = name_text(username)
    name = canonical_username(username)
    shown = None if username is None else shown_name(username)
    plain = username is None or is_plain(username)
    if seen is not None:
        canonical = {**seen.canonical, "username": name}
        return replace(seen, username=shown, canonical=canonical, is_plain=plain, given=given, others=())
    meta: Mapping[str, Any] = request.META if request is not None else {}
    address = _address(request)
    agent = as_text(meta.get("HTTP_USER_AGENT")) or ""
    parsed = parse_address(address)
    user_agent = row_text(agent, most=REQUEST_BYTES["user_agent"], tell_apart=True)
    path_info = "" if request is None else row_text(request.path_info, most=REQUEST_BYTES["path_info"])
    left = sum(REQUEST_BYTES.values()) - REQUEST_BYTES["not_an_address"] - wire_bytes(user_agent + path_info)
    return Client(
        username=shown,
        ip_address=None if parsed is None else str(parsed),
        user_agent=user_agent,
        http_accept=row_text(as_text(meta.get("HTTP_ACCEPT")) or "", most=left),
        path_info=path_info,
        not_an_address=row_text(address.strip(), most=REQUEST_BYTES["not_an_address"]) if parsed is None else "",
        canonical={"username": name, "ip_address": canonical_address(address), "user_agent": agent},
        is_plain=plain,
        given=given,
    )


def names_from(request: HttpRequest | None, credentials: Mapping[str, Any] | None) -> tuple[str, ...]:
    """Return the names that are being tried, as text.

    That is what credentials have under ``AXES_USERNAME_FORM_FIELD``, ``username`` and the user model's
    ``USERNAME_FIELD``, in the order of ``ModelBackend``, and in the e-mail field. Without credentials,
    ``AXES_USERNAME_FORM_FIELD`` (by default ``USERNAME_FIELD``) in the form, or in the JSON object, is read.
    """
    if credentials:
        values = [credentials.get(field) for field in _name_fields()]
    elif request is None or request.method != "POST":
        return ()
    else:
        field = get_settings().username_form_field or get_user_model().USERNAME_FIELD
        try:
            body = json.loads(request.body) if request.content_type == "application/json" else request.POST
        except _BROKEN_BODY:
            return ()  # The view meets the same broken body and answers for it.
        values = [body.get(field)] if isinstance(body, Mapping) else []
    return tuple(dict.fromkeys(name for value in values if (name := name_text(value)) is not None))


def receive(request: HttpRequest | None) -> None:
    """Wait for the body of ``request``, which a client may send slowly, as far as Django keeps one in memory.

    The view finds it as if nobody had read it, and meets what is broken itself.
    """
    if request is not None:
        with suppress(*_BROKEN_BODY):
            request.body  # noqa: B018  (it is kept)


def source_of(request: HttpRequest | None, credentials: Mapping[str, Any] | None) -> object:
    """Return what tells the attempts of one request apart, without asking ``AXES_USERNAME_CALLABLE`` again.

    That is the username, or where a callable finds it, what it was given: the credentials less those that Django masks
    in its signal of a failure.
    """
    if get_settings().username_callable is None:
        return names_from(request, credentials)
    return None if credentials is None else {k: v for k, v in credentials.items() if not SECRET.search(k)}


def is_masked(credentials: Mapping[str, Any] | None) -> bool:
    """Return whether Django has masked the very name: that of a ``USERNAME_FIELD`` such as ``employee_key``."""
    return credentials is not None and any(
        credentials.get(name) == MASKED and SECRET.search(name) for name in _name_fields()
    )


def _name_fields() -> tuple[str, ...]:
    """Return where a name is looked for among credentials."""
    model, own = get_user_model(), get_settings().username_form_field
    return *([own] if own else []), "username", model.USERNAME_FIELD, model.get_email_field_name()


def _address(request: HttpRequest | None) -> str:
    if request is None:
        return ""
    settings = get_settings()
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
