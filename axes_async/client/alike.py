"""Characters that databases take for another one, or for none, where they compare names by the Unicode collation.

Measured on the collation ``utf8mb4_uca1400_as_ci`` of MariaDB (UCA 14) (``tests/client/test_alike.py`` asks it again),
and on ``und-u-ks-level2`` of ICU in PostgreSQL 15: neither takes for nothing, or for an ASCII letter, what is not here.
"""

from __future__ import annotations

import re
from functools import lru_cache
from math import ceil
from unicodedata import category, lookup, name, numeric

_IGNORABLE = (
    # Default_Ignorable_Code_Point of DerivedCoreProperties.txt (Unicode 16)
    "00AD 034F 061C 115F-1160 17B4-17B5 180B-180F 200B-200F 202A-202E 2060-206F 3164 FE00-FE0F FEFF FFA0 FFF0-FFF8 "
    "1BCA0-1BCA3 1D173-1D17A E0000-E0FFF "
    # the general categories Cf, and Cc without white space and NUL, which no database takes
    "0001-0008 000E-001F 007F-0084 0086-009F 0600-0605 06DD 070F 0890-0891 08E2 FFF9-FFFB 110BD 110CD 13430-1343F "
    # what else has no weight in allkeys.txt of UCA 14, and such marks of Unicode 15 and 16
    "0488-0489 0591-05AF 05BD 05C4-05C5 0610-061A 0640 06D6-06DC 06DF-06E4 06E7-06E8 06EA-06ED 0740 0743-0744 "
    "0747-074A 07FA 0897-089D 08CA-08E1 08EA-08EF 08F3 0951-0952 0F18-0F19 0F35 0F37 0F3E-0F3F 0F82-0F83 0F86-0F87 "
    "0FC6 17D3 180A 1A7F 1B6B-1B73 1CD0-1CE8 1CF4 1CF7-1CF9 2D7F A670-A672 A8E0-A8F1 FE21 FE23-FE26 FE28 FE2A-FE2D "
    "FE2F FE73 102E0 10EFD-10EFF 11366-1136C 11370-11374 16FE4 1CF00-1CF2D 1CF30-1CF46 1D165-1D169 1D16D-1D182 "
    "1D185-1D18B 1D1AA-1D1AD 1D242-1D244 1DA00-1DA36 1DA3B-1DA6C 1DA75 1DA84 1DA9B-1DA9F 1DAA1-1DAAF 1E8D0-1E8D6"
)
_RANGES = [part.rpartition("-") for part in _IGNORABLE.split()]
IGNORABLE = re.compile("[" + "".join(f"\\U{first or last:0>8}-\\U{last:0>8}" for first, _, last in _RANGES) + "]+")
"""Matches what is invisible, or has no weight where names are compared."""

_STYLED = re.compile(
    "(?:COMBINING|SQUARED|(?:CROSSED )?NEGATIVE (?:CIRCLED|SQUARED)) (LATIN|CYRILLIC|GLAGOLITIC)( .*?)(?: BELOW)?"
)
"""The names of letters that stand above others or in a sign: to a collation they are the letters."""

_OTHERS = str.maketrans("\u1680\u0953\u0954\ua79b\ua79d\ua79f\ua7c1\u037a", " \u0300\u0301äöüąι") | (
    {0x238: "db", 0x2A3: "dz", 0xA737: "au", 0x214D: "a/s", 0x1F18F: "wc", 0x1F18C: "pa"}
)
"""Letters and signs that no other rule here covers."""


def alike(text: str) -> str:
    """Return ``text`` with its numbers as digits of ASCII, and its letters plain."""
    return "".join(c if c.isascii() else _alike(c) for c in text).translate(_OTHERS)


@lru_cache(maxsize=4096)
def _alike(character: str) -> str:
    if category(character).startswith("N"):
        return str(ceil(numeric(character, 0)))
    styled = _STYLED.fullmatch(name(character, ""))
    if styled is None:
        return character
    script, letter = styled.groups()
    try:
        return lookup(script + (letter if script == "LATIN" else letter.replace(" LETTER", " SMALL LETTER")))
    except KeyError:
        return character
