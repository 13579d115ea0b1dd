"""Names of parametrised tests: the same in every process, so that several can share the tests among them."""

from __future__ import annotations

import re


def label(value: object) -> str:
    """Return ``value`` as text, without places in memory, and with sets in one order."""
    if isinstance(value, set | frozenset):
        value = sorted(value, key=repr)
    text = value if isinstance(value, str) else repr(value)
    return re.sub(r" at 0x[0-9a-f]+", "", text)


def short_label(value: object) -> str:
    """Return the beginning of what ``label`` makes of ``repr(value)``."""
    return label(repr(value))[:40]
