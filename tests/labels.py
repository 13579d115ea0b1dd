"""Names of parametrised tests: the same in every process, so that several can share the tests among them."""

from __future__ import annotations

import re
from pprint import pformat


def label(value: object) -> str:
    """Return ``value`` as text, with sets in one order and without places in memory."""
    text = value if isinstance(value, str) else " ".join(pformat(value, width=1).split())
    return re.sub(r" at 0x[0-9a-f]+", "", text)


def short_label(value: object) -> str:
    """Return the beginning of what ``label`` makes of ``value``, quoted if it is a text."""
    return label(repr(value) if isinstance(value, str) else value)[:40]
