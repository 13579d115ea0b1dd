"""A person who is locked out, the owner of an account and an operator, each with a real browser on the example site.

Each test ends with a look at what the browser complained of: errors of scripts, and what the site's policy forbids.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.visits import (
    OWNER,
    PASSWORD,
    KeyboardVisitor,
    Visitor,
    attempt,
    chromium,
    running_chromium,
    visited_site,
    written,
)
from tests.example import PASSWORD as OPERATORS_PASSWORD
from tests.example import Site
from tests.system import NO_CHROMIUM
from tests.waiting import until

OPERATOR, OPERATORS_ADDRESS = "demo", "192.0.2.10"

COUNTING = re.compile(r"^1[45]:\d\d$")
"""What the script makes of the words "15 minutes"."""

Visit = Callable[..., Visitor]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Return the running site, which all tests share: each has addresses of its own."""
    if chromium() is None:
        pytest.skip(NO_CHROMIUM)
    with visited_site(tmp_path_factory.mktemp("site")) as site:
        yield site


@pytest.fixture
def browser(site: Site) -> Iterator[Browser]:
    with running_chromium(chromium() or "") as browser:
        yield browser


@pytest.fixture
def visit(browser: Browser, site: Site) -> Iterator[Visit]:
    """Return a function that makes a visitor; none of them may have had anything to complain of."""
    visitors: list[Visitor] = []

    def make(address: str, kind: type[Visitor] = Visitor) -> Visitor:
        visitors.append(kind(browser, site, address))
        return visitors[-1]

    yield make
    assert [complaint for visitor in visitors for complaint in visitor.complaints] == []


def lock_out(visitor: Visitor) -> None:
    visitor.goto("/login/")
    for _ in range(2):
        visitor.log_in(OWNER, "wrong")
        expect(visitor.page.get_by_role("alert")).to_contain_text("correct username and password")
    visitor.log_in(OWNER, "wrong")
    expect(visitor.page.get_by_role("heading", name="Login locked")).to_be_visible()


def operator(visit: Visit, kind: type[Visitor] = Visitor) -> Visitor:
    """Return an operator who is logged in to the admin."""
    visitor = visit(OPERATORS_ADDRESS, kind)
    visitor.goto("/admin/")
    visitor.log_in(OPERATOR, OPERATORS_PASSWORD)
    expect(visitor.page.get_by_role("heading", name="Site administration")).to_be_visible()
    return visitor


@pytest.mark.parametrize(("kind", "address"), [(Visitor, "198.51.100.1"), (KeyboardVisitor, "198.51.100.2")])
def test_locked_out_person_is_let_in_by_operator(visit: Visit, site: Site, kind: type[Visitor], address: str) -> None:
    helper, person = operator(visit, kind), visit(address, kind)
    lock_out(person)
    expect(person.page.get_by_text("Too many failed login attempts. Please try again later.")).to_be_visible()
    expect(person.page.get_by_role("timer", name="Time remaining")).to_have_text(COUNTING)
    expect(person.page.locator("body")).not_to_contain_text(OWNER)
    person.press(person.page.get_by_role("link", name="Try again"))
    person.log_in(OWNER, PASSWORD)
    expect(person.page.get_by_role("heading", name="Login locked")).to_be_visible()

    locked = 'SELECT ip_address FROM axes_async_attemptcounter WHERE failures >= "limit"'
    until(lambda: (address,) in site.query(locked), what="the lockout is written")
    page = helper.page
    helper.press(page.get_by_role("link", name="Lockouts", exact=True).first)
    row = page.get_by_role("row").filter(has_text=address)
    expect(row).to_contain_text("3 of 3")
    helper.press(row.get_by_role("link", name="Unlock"))
    helper.press(page.get_by_role("button", name="Unlock"))
    reason = page.get_by_label("Reason")
    assert reason.evaluate("field => field.validity.valueMissing"), "no unlock without a reason"
    helper.enter(reason, "She called from the office.")
    helper.press(page.get_by_role("button", name="Unlock"))
    expect(page.get_by_text("Unlocked: ")).to_contain_text(address)
    expect(row).to_have_count(0)
    reasons = [row[0] for row in site.rows("accessreset", "reason")]
    assert reasons[-1] == "She called from the office."

    person.press(person.page.get_by_role("link", name="Try again"))
    person.log_in(OWNER, PASSWORD)
    expect(person.page.get_by_text(f"You are logged in as {OWNER}")).to_be_visible()


def test_owner_waits_or_unlocks_by_mail(visit: Visit, site: Site) -> None:
    owner = visit("198.51.100.3")
    owner.page.clock.install()
    lock_out(owner)
    page = owner.page
    expect(page.get_by_role("timer")).to_have_text(COUNTING)  # The script has begun, by the clock that is moved now.
    page.clock.fast_forward("15:01")
    expect(page.get_by_text("You can try again now.")).to_be_visible()
    expect(page.get_by_role("timer")).to_be_hidden()

    owner.press(page.get_by_role("link", name="Unlock by mail"))
    owner.enter(page.get_by_label("Username"), OWNER)
    owner.press(page.get_by_role("button", name="Send the mail"))
    expect(page.get_by_role("heading", name="Check your mail")).to_be_visible()
    folder = Path(site.environment["VAR_DIR"]) / "mail"
    link = until(lambda: re.search(r"http://\S+", "".join(file.read_text() for file in folder.glob("*"))))
    assert link is not None
    owner.goto(link[0])
    owner.press(page.get_by_role("button", name="Unlock"))
    expect(page.get_by_role("heading", name="Your account is unlocked")).to_be_visible()
    page.goto(link[0])
    expect(page.get_by_role("heading", name="This link does not work any more")).to_be_visible()
    owner.goto("/login/")
    owner.log_in(OWNER, PASSWORD)
    expect(page.get_by_text(f"You are logged in as {OWNER}")).to_be_visible()


def test_dashboard_shows_what_happened(visit: Visit, site: Site) -> None:
    before = len(site.rows("accessfailurelog"))
    tried = [attempt(site, "198.51.100.4", "mallory", agent="guesser/1.0") for _ in range(5)]
    assert tried == [403, 403, 429, 429, 429]
    written(site, before + 5)
    visitor = operator(visit)
    page = visitor.page
    visitor.press(page.get_by_role("link", name="Dashboard", exact=True).first)
    charts = page.get_by_role("img", name=re.compile("Attempts|Lockouts by rule"))
    expect(charts).to_have_count(2)
    for name in ("24 hours", "7 days", "1 hour"):
        visitor.press(page.get_by_role("link", name=name))
        expect(page.locator("[aria-current=page]").filter(has_text=name)).to_be_visible()
        assert page.locator("rect[class^=axes-part]:visible").count() > 2
    row = page.get_by_role("row").filter(has_text="mallory")
    expect(row).to_contain_text("5")
    expect(page.get_by_role("row").filter(has_text="guesser/1.0")).to_be_visible()
    expect(page.get_by_role("columnheader", name="turned away")).to_be_hidden()
    page.get_by_text("The same as a table").first.click()
    expect(page.get_by_role("columnheader", name="turned away")).to_be_visible()


def test_status_is_reached_without_a_pointer(visit: Visit) -> None:
    visitor = operator(visit, KeyboardVisitor)
    page = visitor.page
    visitor.press(page.get_by_role("link", name="Dashboard", exact=True).first)
    visitor.press(page.get_by_role("link", name="Status", exact=True))
    expect(page.get_by_role("heading", name="Status")).to_be_visible()
    expect(page.get_by_role("row").filter(has=page.get_by_role("rowheader", name="mode"))).to_contain_text("store")
    visitor.press(page.get_by_role("link", name="Reload"))
    expect(page.get_by_role("rowheader", name="last drain")).to_be_visible()


def test_pages_of_admin_keep_to_policy(visit: Visit, site: Site) -> None:
    before = len(site.rows("accessfailurelog"))
    assert [attempt(site, "198.51.100.5", "trudy") for _ in range(3)] == [403, 403, 429]
    written(site, before + 3)
    visitor = operator(visit)
    page = visitor.page
    for name in ("lockout", "accessattempt", "accessfailurelog", "accesslog"):
        visitor.goto(f"/admin/axes_async/{name}/")
        first = page.locator("#result_list tbody tr").first.locator("th a")
        visitor.press(first)
        expect(page.locator("#content .module").first).to_be_visible()
    visitor.goto("/admin/axes_async/lockout/explain/")
    visitor.enter(page.get_by_label("Username"), "trudy")
    visitor.enter(page.get_by_label("IP address"), "198.51.100.5")
    visitor.press(page.get_by_role("button", name="Explain"))
    expect(page.locator(".axes-verdict")).to_be_visible()
    visitor.goto("/admin/axes_async/dashboard/")


def test_breach_of_policy_is_noticed(browser: Browser, site: Site) -> None:
    visitor = Visitor(browser, site, "198.51.100.6")
    visitor.goto("/login/")
    visitor.page.evaluate("document.body.setAttribute('style', 'color: red')")
    until(lambda: visitor.page.title() and visitor.complaints, what="the browser complains")
    assert "style-src" in visitor.complaints[0]
