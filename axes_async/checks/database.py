"""System checks that ask the database, and so run only where one is named: ``check --database`` and ``migrate``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from django.apps import apps
from django.contrib.auth import get_user_model
from django.core.checks import Tags
from django.db import connections, router
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import CharField, TextField

from axes_async.checks import Warnings, check, warning
from axes_async.client.normalize import canonical_username
from axes_async.conf import AxesSettings
from axes_async.fields import DigestField
from axes_async.models import database

CHARACTER_SET = "utf8mb4"
"""The one of MySQL and MariaDB that has all characters; their ``utf8`` has those of up to three bytes."""

COLUMNS = """
    SELECT table_name, column_name, column_type, is_nullable, character_set_name FROM information_schema.columns
    WHERE table_schema = DATABASE() AND table_name IN %s ORDER BY table_name, ordinal_position
"""


@check(Tags.database)
def check_character_set(settings: AxesSettings, databases: Sequence[str]) -> Warnings:
    """Report a MySQL or MariaDB that has not all characters: what strangers type is set aside as dead letters then."""
    using = database()
    if using in databases and connections[using].vendor == "mysql":
        for what, name, hint in _others(connections[using]):
            told = f"The character set of {what} is {name}: events with other characters cannot be written."
            yield warning(18, told, hint)


ONE_OR_TWO = {
    ("alice", "alic\u00e9"): "without accents",
    ("\u30a2", "\u3042"): "with katakana for hiragana",
    ("\u05e0", "\u05df"): "with final letters as the others",
}
"""Pairs that some collations take for one name, and what a canonical form has to be for that."""


@check(Tags.database)
def check_names(settings: AxesSettings, databases: Sequence[str]) -> Warnings:
    """Report a column of usernames that takes names for one which have a counter each: an attacker has all of them."""
    given = settings.lockout_rules and [rule.parameters for rule in settings.lockout_rules]
    counted = given or settings.lockout_parameters
    model = get_user_model()
    field, using = model._meta.get_field(model.USERNAME_FIELD), router.db_for_read(model)
    is_counted = callable(counted) or any("username" in together for together in counted)
    if using not in databases or not is_counted or not isinstance(field, CharField | TextField):
        return
    for (one, other), form in merged(connections[using], model._meta.db_table, str(field.column)).items():
        yield warning(
            19,
            f"To the column {model._meta.db_table}.{field.column}, {one!r} and {other!r} are one name, and they have "
            "two counters: whoever guesses has the limit for each spelling.",
            f"Give the column a collation that keeps them apart, or compare names {form}: AXES_USERNAME_CANONICALIZER.",
        )


def merged(connection: BaseDatabaseWrapper, table: str, column: str) -> dict[tuple[str, str], str]:
    """Return those of ``ONE_OR_TWO`` that have two canonical forms and are one name to a column."""
    quote, found = connection.ops.quote_name, {}
    with connection.cursor() as cursor:
        if table not in connection.introspection.table_names(cursor):
            return {}
        for pair, form in ONE_OR_TWO.items():
            # The constants take the collation of the column.
            cursor.execute(
                f"SELECT COUNT(DISTINCT name) FROM (SELECT {quote(column)} AS name FROM {quote(table)} WHERE 1 = 0 "  # noqa: S608
                "UNION ALL SELECT %s UNION ALL SELECT %s) AS names",
                pair,
            )
            if cursor.fetchone() == (1,) and len({canonical_username(name) for name in pair}) > 1:
                found[pair] = form
    return found


def _others(connection: BaseDatabaseWrapper) -> Iterator[tuple[str, str, str]]:
    """Return what has another character set, which one, and how to change it; where no table is yet, the database.

    Digests are in ASCII, and are meant to be.
    """
    texts = {
        model._meta.db_table: {
            field.column
            for field in model._meta.concrete_fields
            if isinstance(field, CharField | TextField) and not isinstance(field, DigestField)
        }
        for model in apps.get_app_config("axes_async").get_models()
    }
    with connection.cursor() as cursor:
        cursor.execute("SELECT @@character_set_connection, @@character_set_database")
        of_connection, of_database = cursor.fetchone()
        cursor.execute(COLUMNS, [tuple(texts)])
        columns = cursor.fetchall()
    if of_connection != CHARACTER_SET:
        hint = f'Set "charset": "{CHARACTER_SET}" in the OPTIONS of DATABASES[{connection.alias!r}].'
        yield f"the connection {connection.alias!r}", of_connection, hint
    if not columns and of_database != CHARACTER_SET:
        hint = f"Before you migrate: ALTER DATABASE {connection.settings_dict['NAME']} CHARACTER SET {CHARACTER_SET};"
        yield f"the database {connection.alias!r}", of_database, hint
    wrong: dict[tuple[str, str], list[str]] = {}
    for table, column, kind, null, name in columns:
        if column in texts[table] and name != CHARACTER_SET:
            change = f"MODIFY {column} {kind} CHARACTER SET {CHARACTER_SET} {'NULL' if null == 'YES' else 'NOT NULL'}"
            wrong.setdefault((table, name), []).append(change)
    for (table, name), changes in wrong.items():
        yield f"the table {table}", name, f"ALTER TABLE {table} {', '.join(changes)};"
