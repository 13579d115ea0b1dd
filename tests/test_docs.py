"""What the documentation says of settings is what the code has."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

from django.core.management import get_commands

from axes_async.conf import AxesSettings
from axes_async.metrics.site import FIGURES

ROOT = Path(__file__).resolve().parent.parent

METRICS = {f"{figure.name}_total" for figure in FIGURES}


def documented() -> dict[str, list[str]]:
    """Return the cells of each row of the settings tables, by the name of the setting."""
    rows = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8").splitlines()
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows if row.startswith("| `AXES_")]
    return {row[0].strip("`"): row[1:] for row in cells}


def test_every_setting_is_documented_and_every_documented_one_exists() -> None:
    assert set(documented()) == {f"AXES_{field.name.upper()}" for field in fields(AxesSettings)}


def test_every_row_tells_type_default_meaning_and_what_differs() -> None:
    assert {name: row for name, row in documented().items() if len(row) != 4 or not all(row)} == {}


def test_every_command_that_the_documentation_names_exists() -> None:
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        text = page.read_text(encoding="utf-8")
        named = set(re.findall(r"\b(axes_(?:reset|import|list|sync|status|dead|self)\w*)", text))
        assert named - METRICS <= get_commands().keys(), page.name
