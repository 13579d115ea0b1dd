"""Where the site keeps what it writes. `VAR_DIR` exists once this module is imported."""

import sys
from pathlib import Path

from . import env

ROOT = Path(__file__).resolve().parent.parent

# How a command is typed in another terminal, whose `python` may know nothing of this site.
_python = Path(sys.executable)
MANAGE = f"{_python.relative_to(ROOT) if _python.is_relative_to(ROOT) else _python} example_project/manage.py"

# The SQLite file, Valkey's data, the schedule of beat: what a running site leaves behind. Safe to delete.
VAR_DIR = ROOT / env.text("VAR_DIR", "var")
VAR_DIR.mkdir(parents=True, exist_ok=True)

# `make run` starts Valkey on a free port and notes its URL here, for commands typed in another terminal.
REDIS_URL_FILE = VAR_DIR / "redis-url"
