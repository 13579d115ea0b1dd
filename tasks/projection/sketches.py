"""Figures of many values in little memory: how many are distinct, and which come most often."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from math import log
from zlib import crc32

REGISTERS = 512
"""Of one sketch: a standard error of 1.04 / √512 = 4.6 %."""

KEPT = 100
"""Values that are counted at one time; none that comes more often than one time in 100 is missed."""


def add_distinct(sketch: bytes, digests: Iterable[str]) -> bytes:
    """Return a sketch of what ``sketch`` has seen and the values with these digests: a HyperLogLog.

    Flajolet, Fusy, Gandouet, Meunier: "HyperLogLog: the analysis of a near-optimal cardinality estimation algorithm".
    """
    registers = bytearray(sketch or REGISTERS)
    for digest in digests:
        number = crc32(digest.encode())  # A digest is random enough; this makes 32 bits of it.
        place, rest = number % REGISTERS, number // REGISTERS
        rank = 24 - rest.bit_length()  # Of 23 bits, of which ``rest`` has the last.
        if rank > registers[place]:
            registers[place] = rank
    return bytes(registers)


def merged(sketches: Iterable[bytes]) -> bytes:
    """Return a sketch of all that ``sketches`` have seen."""
    found = [sketch for sketch in sketches if sketch]
    return bytes(map(max, *found)) if len(found) > 1 else b"".join(found)


def distinct(sketch: bytes) -> int:
    """Return about how many distinct values a sketch has seen."""
    if not sketch:
        return 0
    size, empty = len(sketch), sketch.count(0)
    about = 0.7213 / (1 + 1.079 / size) * size * size / sum(2.0**-rank for rank in sketch)
    return round(size * log(size / empty) if empty and about <= 2.5 * size else about)


def keep_heaviest(counts: Counter[str]) -> None:
    """Drop all but the ``KEPT`` most frequent from ``counts``.

    Every count loses what the first one to go has had, so that the error is bounded: Misra and Gries, "Finding repeated
    elements"; merged as in Agarwal and others, "Mergeable summaries".
    """
    if len(counts) <= KEPT:
        return
    lost = counts.most_common(KEPT + 1)[-1][1]
    for value, count in list(counts.items()):
        if count > lost:
            counts[value] = count - lost
        else:
            del counts[value]
