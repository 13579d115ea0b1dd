"""The wheel and the sdist, and commands that know of no project but the one in their folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def run(*command: str | Path, folder: Path, **environment: str) -> str:
    """Run ``command`` with the environment of nobody's project; return what it printed."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("DJANGO", "PYTHON", "AXES"))}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env=inherited | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build(folder: Path) -> Path:
    """Build an sdist from a copy of what git would check out, and a wheel from it, into ``folder``; return that."""
    source = folder / "source"
    source.mkdir()
    listed = run("git", "ls-files", "--cached", "--others", "--exclude-standard", folder=ROOT)
    for name in listed.splitlines():
        if (ROOT / name).is_file():
            target = source / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / name).read_bytes())
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, source, folder=folder)
    (wheel,) = folder.glob("*.whl")
    return wheel
