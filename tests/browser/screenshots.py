"""Takes the pictures of the documentation: ``make screenshots``.

The attempts are real; the past of the charts is made up.
"""

from __future__ import annotations

import json
import os
import random
import sys
import tempfile
from datetime import timedelta
from pathlib import Path

from tests.browser.visits import HERE, OWNER, Visitor, attempt, chromium, running_chromium, visited_site, written
from tests.example import PASSWORD, ROOT, Site
from tests.system import NO_CHROMIUM

IMAGES = ROOT / "docs" / "images"

NAMES = ("alice", "bob", "carol", "admin", "root")
AGENTS = ("Mozilla/5.0 (X11; Linux x86_64)", "python-requests/2.32", "curl/8.14")


def guess(site: Site) -> int:
    """Guess from several addresses, with some logins between; return how many rows of failures there must be."""
    refused = 0
    for number, name in enumerate(NAMES):
        for last in range(7, 7 + number + 1):
            for _ in range(2 + last % 4):
                attempt(site, f"203.0.113.{last}", name, agent=AGENTS[last % 3])
                refused += 1
    for number in range(12):
        attempt(site, "198.51.100.23", f"user{number}", agent=AGENTS[1])
        refused += 1
    for last in range(3):
        attempt(site, f"192.0.2.{20 + last}", "demo", PASSWORD, agent=AGENTS[0])
    return refused


def make_past() -> None:
    """Write a day of rollups, the same in each run but for its end."""
    import django

    django.setup()
    from django.utils import timezone

    from axes_async.models.rollups import AttemptRollup

    chance = random.Random(7)
    now = timezone.now().replace(second=0, microsecond=0)
    rows = []
    for ago in range(1, 24 * 60):
        wave = 48 if 20 < ago < 35 or 600 < ago < 690 else 0
        failed, turned_away = chance.randint(0, 6) + wave // 4, chance.randint(0, wave)
        lockouts = {"ip_address+username": 1 + wave // 8} if failed > 4 else {}
        lockouts |= {"ip_address": 1} if wave and ago % 4 == 0 else {}
        rows.append(
            AttemptRollup(
                minute=now - timedelta(minutes=ago),
                failed=failed,
                turned_away=turned_away,
                logged_in=chance.randint(0, 9),
                lockouts=json.dumps(lockouts),
            )
        )
    AttemptRollup.objects.bulk_create(rows, ignore_conflicts=True)


def picture(visitor: Visitor, name: str, height: int) -> None:
    visitor.page.set_viewport_size({"width": 1280, "height": height})
    visitor.page.evaluate("scrollTo(0, 0)")
    visitor.page.screenshot(path=IMAGES / name, animations="disabled")


def main() -> int:
    path = chromium()
    if path is None:
        print(NO_CHROMIUM, file=sys.stderr)
        return 1
    IMAGES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="axes-screenshots-") as folder, visited_site(Path(folder)) as site:
        written(site, guess(site))
        os.environ |= {"VAR_DIR": folder, "DJANGO_SETTINGS_MODULE": "browser_settings"}
        sys.path.insert(0, str(HERE / "site"))
        make_past()
        with running_chromium(path) as browser:
            for scheme in ("light", "dark"):
                person = Visitor(browser, site, f"198.51.100.{len(scheme)}", color_scheme=scheme)
                person.goto("/login/")
                for _ in range(3):
                    person.log_in(OWNER, "wrong")
                    person.page.wait_for_load_state()
                person.page.get_by_role("heading", name="Login locked").wait_for()
                picture(person, f"locked-out-{scheme}.png", 560)
                helper = Visitor(browser, site, "192.0.2.10", color_scheme=scheme)
                helper.goto("/admin/")
                helper.log_in("demo", PASSWORD)
                helper.page.get_by_role("heading", name="Site administration").wait_for()
                helper.goto("/admin/axes_async/dashboard/")
                picture(helper, f"dashboard-{scheme}.png", 1100)
                helper.goto("/admin/axes_async/lockout/")
                helper.page.get_by_role("button", name="Toggle navigation").click()  # Room for all columns.
                picture(helper, f"lockouts-{scheme}.png", 720)
    for file in sorted(IMAGES.glob("*.png")):
        print(f"{file.relative_to(ROOT)}: {file.stat().st_size // 1000} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
