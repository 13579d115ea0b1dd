"""A Chromium that visits the example site, and what it complains of."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Locator, Page, expect, sync_playwright

from tests.example import Site, example_site
from tests.system import find
from tests.waiting import PATIENCE, until

HERE = Path(__file__).resolve().parent

OWNER, PASSWORD = "alice", "correct horse battery staple"
"""Whose account is guessed at."""

TELL_VIOLATIONS = """
document.addEventListener("securitypolicyviolation", (event) => {
  console.error(`policy: ${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}`);
});
"""


def chromium() -> str | None:
    """Return the path of the system's Chromium, if there is one."""
    return next(filter(None, map(find, ("chromium", "chromium-browser", "google-chrome"))), None)


@contextmanager
def visited_site(folder: Path) -> Iterator[Site]:
    """Run the example site with clients whose addresses are in ``X-Forwarded-For``, and with an account to guess at."""
    settings = {"DJANGO_SETTINGS_MODULE": "browser_settings", "PYTHONPATH": str(HERE / "site")}
    with example_site(folder, "sqlite", **settings) as site:
        values = f"{OWNER!r}, '{OWNER}@example.com', {PASSWORD!r}"
        code = f"from django.contrib.auth.models import User; User.objects.create_user({values})"
        site.manage("shell", "-c", code)
        yield site


@contextmanager
def running_chromium(path: str) -> Iterator[Browser]:
    expect.set_options(timeout=PATIENCE * 1000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path)
        yield browser
        browser.close()


class Visitor:
    """A person with a browser and an address."""

    def __init__(self, browser: Browser, site: Site, address: str, **options: Any) -> None:
        self.site, self.complaints = site, list[str]()
        headers = {"X-Forwarded-For": address}
        self.context: BrowserContext = browser.new_context(
            base_url=site.url, extra_http_headers=headers, viewport={"width": 1280, "height": 800}, **options
        )
        self.context.set_default_timeout(PATIENCE * 1000)
        self.context.add_init_script(TELL_VIOLATIONS)
        self.context.on("console", self._hear)
        self.context.on("weberror", lambda error: self.complaints.append(str(error.error)))
        self.page: Page = self.context.new_page()

    def _hear(self, message: ConsoleMessage) -> None:
        url, text = message.location["url"], message.text
        # No error, though Chromium says so: the status of a lockout and of a used link, and that there is no icon.
        is_status = url == self.page.url and ("status of 429" in text or "status of 410" in text)
        if message.type in {"error", "warning"} and not is_status and not url.endswith("/favicon.ico"):
            self.complaints.append(f"{url}: {text}")

    def goto(self, path: str) -> None:
        answer = self.page.goto(path)
        assert answer is not None
        assert answer.ok, f"{path}: {answer.status}"
        assert "default-src 'self'" in answer.headers["content-security-policy"]

    def press(self, control: Locator) -> None:
        control.click()

    def enter(self, field: Locator, text: str) -> None:
        field.fill(text)

    def log_in(self, username: str, password: str) -> None:
        """Fill in a login form, the site's or that of the admin, and send it."""
        self.enter(self.page.get_by_label("Username"), username)
        self.enter(self.page.get_by_label("Password"), password)
        self.press(self.page.get_by_role("button", name="Log in"))


class KeyboardVisitor(Visitor):
    """A person without a pointer: reaches everything by Tab, and sees where the focus is."""

    def reach(self, control: Locator) -> None:
        control.wait_for()
        for _ in range(100):
            if control.evaluate("element => element === document.activeElement"):
                break
            self.page.keyboard.press("Tab")
        else:
            raise AssertionError(f"Tab does not lead to {control}")
        assert control.evaluate("element => element.matches(':focus-visible')")

    def press(self, control: Locator) -> None:
        self.reach(control)
        self.page.keyboard.press("Enter")

    def enter(self, field: Locator, text: str) -> None:
        self.reach(field)
        self.page.keyboard.press("ControlOrMeta+A")
        self.page.keyboard.type(text)


def attempt(site: Site, address: str, username: str, password: str = "wrong", agent: str = "python") -> int:
    """Log in as a program does; return the status."""
    headers = {"X-Forwarded-For": address, "User-Agent": agent}
    fields = {"username": username, "password": password}
    return requests.post(f"{site.url}/api/login/", json=fields, headers=headers, timeout=PATIENCE).status_code


def written(site: Site, failures: int) -> None:
    """Wait until the worker has written so many failures."""
    until(lambda: len(site.rows("accessfailurelog")) >= failures, what="the worker writes the failures")
