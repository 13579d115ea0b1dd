"""The two forms of what a client sends: as rows show it, and as counters compare it.

A row's is close to raw, bounded, and free of what no database holds; the canonical one is the same for all variants.
"""

from __future__ import annotations

from unicodedata import normalize

from axes_async.conf import get_settings
from axes_async.conf.networks import group_of
from axes_async.conf.validators import refuse
from axes_async.counters.rules import digest_of

ROW_LENGTH = 255
"""Characters a row keeps of a username, an agent, a path or an accept header."""

CANONICAL_LENGTH = 1024
"""Longer names are compared as they are: normalising a megabyte would be an attacker's tool."""


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
