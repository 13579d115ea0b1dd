"""The two forms of what a client sends: as rows show it, and as counters compare it.

A row's is close to raw, bounded, and free of what no database holds; the canonical one is the same for all variants.
"""

from __future__ import annotations

from decimal import Decimal
from unicodedata import normalize

from django.contrib.auth import get_user_model

from axes_async.client.alike import IGNORABLE, alike
from axes_async.conf import get_settings
from axes_async.conf.networks import group_of
from axes_async.conf.validators import refuse
from axes_async.counters.events import wire_beginning
from axes_async.counters.rules import digest_of

ROW_LENGTH = 255
"""Characters a row keeps of a username, an agent, a path or an accept header."""

NAME_BYTES = 200
"""Bytes of a username in an event: Django's own have 150 characters at most."""

REQUEST_BYTES = {"user_agent": 200, "path_info": 100, "http_accept": 60, "not_an_address": 48}
"""Bytes in an event of what else a client sends; the accept header has what agent and path leave, too."""

CANONICAL_LENGTH = 1024
"""Names that are longer without what is invisible in them are compared as they are: normalising a megabyte would be an
attacker's tool. No account has one: of a column of 254 characters, a decomposed form has at most four times as many."""

ROUNDS = 8
"""How often a name is folded at most until it stays as it is; two rounds are the most that any character needs."""


INVISIBLE = "\u200b"
"""The canonical form of all names that have something in them, and nothing that can be seen. An account may have one:
Django takes the Hangul fillers for letters."""


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


def row_text(text: str, *, most: int | None = None, tell_apart: bool = False) -> str:
    """Return ``text`` as a row keeps it: at most ``ROW_LENGTH`` characters, NUL and lone surrogates escaped.

    :param most: bytes that it may have in an event.
    :param tell_apart: a cut text ends in a digest of the whole, so that long texts with one beginning stay different.
    """
    shown = _escaped(text[: ROW_LENGTH + 1])
    kept = _beginning(shown, ROW_LENGTH, most)
    if kept == shown or not tell_apart:
        return kept
    end = f"~{digest_of([('text', text)])}"
    return _beginning(shown, ROW_LENGTH - len(end), most and most - len(end)) + end


def shown_name(username: str) -> str:
    """Return a name as rows show it: as it was typed, or for one that is too long, its canonical form.

    So all variants of one name have one key, however much of it is shown.
    """
    shown = _escaped(username)
    if _beginning(shown, ROW_LENGTH, NAME_BYTES) == shown:
        return shown
    return row_text(canonical_username(username) or username, most=NAME_BYTES, tell_apart=True)


def _beginning(text: str, length: int, most: int | None) -> str:
    return text[:length] if most is None else wire_beginning(text[:length], most)


def _escaped(text: str) -> str:
    if text.isascii() and "\x00" not in text:
        return text
    return text.replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode()


def name_text(value: object) -> str | None:
    """Return a name as text: as it was typed, or where JSON has brought something else, as it is looked up."""
    return value if value is None or isinstance(value, str) else field_text(value)


def field_text(value: object) -> str | None:
    """Return ``value`` as the user model's field of names reads it, which is what is looked up; else as it is."""
    model = get_user_model()
    field = model._meta.get_field(model.USERNAME_FIELD)
    try:
        read = field.to_python(value)  # type: ignore[union-attr]
        if isinstance(read, Decimal):
            read = round(read, getattr(field, "decimal_places", None) or 0)
    except Exception:  # noqa: BLE001  (a field of the site's own may raise anything: no account has such a name)
        read = value
    return as_text(read)


def canonical_username(username: str | None) -> str | None:
    """Return the form in which variants of one name are equal, ``None`` for an empty one.

    That is what ``AXES_USERNAME_CANONICALIZER`` returns of what is looked up, by default ``fold_username``. Space
    around a name is dropped first.
    """
    username = _escaped((field_text(username) or "").strip())
    if not username:
        return None
    if len(username) > CANONICAL_LENGTH:
        username = IGNORABLE.sub("", username).strip() or INVISIBLE
    if len(username) > CANONICAL_LENGTH:
        return username
    canonicalizer = get_settings().username_canonicalizer
    if canonicalizer is None:
        return fold_username(username) or INVISIBLE
    canonical: object = canonicalizer(username)
    if canonical is not None and not isinstance(canonical, str):
        refuse("AXES_USERNAME_CANONICALIZER", canonicalizer, f"a callable that returns text or None, not {canonical!r}")
    return canonical or None


def fold_username(username: str) -> str:
    """Return ``username`` in a form that is equal for all names which a database may take for one.

    That is NFKC_Casefold (Unicode, 3.13), without what ``alike`` knows, equal also where ``upper()`` is (``iexact`` on
    PostgreSQL), and without space around it. NFKC is what Django's own ``UsernameField`` applies.
    """
    if username.isascii() and username.isprintable():
        return username.casefold().strip()
    for _ in range(ROUNDS):
        before = username
        username = _caseless(alike(normalize("NFKC", IGNORABLE.sub("", username))))
        if username == before:
            break
    return username


def is_plain(username: object) -> bool:
    """Return whether no other account can have the counters of ``username``, but for a name in another case.

    Strangers may register what is one name with somebody else's to ``fold_username`` and two to the database. Neither
    a login nor the owner of such a name takes back what was tried under it. Where ``AXES_USERNAME_CANONICALIZER`` says
    which names are one, the site answers for it.
    """
    name = field_text(username) or ""
    if (name.isascii() and name.isprintable()) or get_settings().username_canonicalizer is not None:
        return True
    name = normalize("NFKC", name.strip())
    folded = _caseless(name)
    # Of letters that have two in upper case, such as sharp s, the other spelling is a name of its own to a database.
    return len(folded) == len(name) and folded == fold_username(name)


def _caseless(text: str) -> str:
    return normalize("NFKC", text.upper().casefold()).replace("i\u0307", "i").strip()


def canonical_address(text: str) -> str | None:
    """Return what addresses are compared by: ``AXES_IPV4_PREFIX`` or ``AXES_IPV6_PREFIX`` bits; see ``group_of``."""
    settings = get_settings()
    return group_of(text, settings.ipv4_prefix, settings.ipv6_prefix)
