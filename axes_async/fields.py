"""Columns of our own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper

if TYPE_CHECKING:
    CharField = models.CharField[str, str]
else:
    CharField = models.CharField  # Generic only in its type stubs.


class DigestField(CharField):
    """A digest in base64, in which ``A`` is not ``a``: to most collations of MySQL and MariaDB it would be."""

    def db_type(self, connection: BaseDatabaseWrapper) -> str | None:
        """Return the column's type, of PostgreSQL by its other name: ``varchar`` would get a second index, for LIKE.

        Nobody looks for a part of a digest, and each index makes whatever writes many rows slower.
        """
        known = super().db_type(connection)
        return known and known.replace("varchar", "character varying") if connection.vendor == "postgresql" else known

    def db_parameters(self, connection: BaseDatabaseWrapper) -> Any:
        """Return type and collation: one that compares bytes, as that of a language is several times slower."""
        collation = {"mysql": "ascii_bin", "postgresql": "C"}.get(connection.vendor)
        return {**super().db_parameters(connection), **({"collation": collation} if collation else {})}

    def get_prep_value(self, value: Any) -> Any:
        """Return ``value``; if it is not ASCII, and so no digest, escaped: it is found in no row.

        MariaDB raises an error when an ASCII column is compared with anything else.
        """
        digest = super().get_prep_value(value)
        return digest if digest is None or digest.isascii() else ascii(digest)


class ComputedDigestField(DigestField):
    """A digest of other columns, which the model's ``compute(name)`` returns.

    It is worked out when a row is saved or created in bulk; a new row that has one already keeps it.
    """

    def pre_save(self, model_instance: models.Model, add: bool) -> str:
        """Return the value to be written, and set it on the row."""
        value: str = getattr(model_instance, self.attname)
        if not add or not value:
            value = model_instance.compute(self.attname)  # type: ignore[attr-defined]
            setattr(model_instance, self.attname, value)
        return value
