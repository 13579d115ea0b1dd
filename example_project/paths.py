"""Where the site keeps what it writes. `VAR_DIR` exists once this module is imported."""

from pathlib import Path

from . import env

ROOT = Path(__file__).resolve().parent.parent

# The SQLite file, Valkey's data, the schedule of beat: what a running site leaves behind. Safe to delete.
VAR_DIR = ROOT / env.text("VAR_DIR", "var")
VAR_DIR.mkdir(parents=True, exist_ok=True)

# `make run` starts Valkey on a free port and notes its URL here, for commands typed in another terminal.
REDIS_URL_FILE = VAR_DIR / "redis-url"
