"""System checks that ask the database, and so run only where one is named: ``check --database`` and ``migrate``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from django.apps import apps
from django.core.checks import Tags
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import CharField, TextField

from axes_async.checks import Warnings, check, warning
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
