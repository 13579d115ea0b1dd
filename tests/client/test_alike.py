"""Letters that are one to a server or to a person are one to the counters: all of Unicode is tried."""

from __future__ import annotations

from unicodedata import category

import pymysql
import pytest

from axes_async.client.alike import IGNORABLE
from axes_async.client.normalize import fold_username
from tests import system

PLANE = 0x10000


@pytest.mark.long
def test_a_server_takes_no_more_for_one_letter_or_for_nothing_than_we_do() -> None:
    database = system.mariadb()
    if database is None:
        pytest.skip(system.NO_MARIADB)
    with pymysql.connect(unix_socket=database["HOST"], user=database["USER"], charset="utf8mb4") as connection:
        cursor = connection.cursor()
        cursor.execute("CREATE DATABASE letters CHARACTER SET utf8mb4")
        cursor.execute(
            "CREATE TABLE letters.letters (code int PRIMARY KEY, c varchar(1) COLLATE utf8mb4_uca1400_as_ci)"
        )
        codes = [code for code in range(1, 0x110000) if not 0xD800 <= code <= 0xDFFF]
        for start in range(0, len(codes), 20_000):
            rows = [(code, chr(code)) for code in codes[start : start + 20_000]]
            cursor.executemany("INSERT INTO letters.letters VALUES (%s, %s)", rows)
        cursor.execute(
            "SELECT code FROM letters.letters WHERE CONCAT('a', c, 'b') = 'ab' COLLATE utf8mb4_uca1400_as_ci"
        )
        unseen = {code for (code,) in cursor.fetchall()}
        cursor.execute("SELECT a.c, b.c FROM letters.letters a JOIN letters.letters b ON a.c = b.c WHERE a.code < 128")
        pairs = [pair for pair in cursor.fetchall() if not {ord(letter) for letter in pair} & unseen]
        cursor.execute("DROP DATABASE letters")
    assert len(unseen) > 900
    assert len(pairs) > 3000
    assert [hex(code) for code in unseen if not IGNORABLE.fullmatch(chr(code))] == []
    assert [pair for pair in pairs if fold_username(f"x{pair[0]}x") != fold_username(f"x{pair[1]}x")] == []


@pytest.mark.parametrize("plane", range(17))
def test_a_canonical_form_is_its_own_and_that_of_both_cases(plane: int) -> None:
    for character in map(chr, range(plane * PLANE, (plane + 1) * PLANE)):
        if category(character) not in {"Cn", "Co", "Cs"}:  # Not given away, private, half of a pair.
            name = f"x{character}y"
            folded = fold_username(name)
            assert {fold_username(each) for each in (name.upper(), name.lower(), folded)} == {folded}
