"""The seeder's page in a browser. With ZEST_SCREENSHOTS=DIR pictures are left there, to be looked at."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pages
import pytest
from machines import PRELUDE, Machine, Seeder
from playwright.sync_api import Browser, Page, expect, sync_playwright

from zest_hf.seed.feed import MAX_MODELS

from .conftest import SNAPSHOT, XET_BYTES, MakeMachine

DESK = {"width": 1100, "height": 900}
PHONE = {"width": 360, "height": 740}
WAIT_MS = 15_000
Open = Callable[..., Page]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        # Everything that it shows is ours, and root has no sandbox.
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def show(browser: Browser) -> Iterator[Open]:
    """Opens a seeder's page, and makes sure afterwards that all was well in the browser."""
    complaints: list[str] = []
    elsewhere: list[str] = []
    contexts = []

    def opened(seeder: Seeder, *, width: dict[str, int] = DESK, scheme: str = "light") -> Page:
        context = browser.new_context(viewport=width, color_scheme=scheme)
        contexts.append(context)
        context.set_default_timeout(WAIT_MS)
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("dialog", lambda dialog: dialog.accept())
        page.on("request", lambda asked: elsewhere.append(asked.url) if not asked.url.startswith(seeder.url) else None)
        page.goto(seeder.url)
        expect(page.locator("#state")).to_have_text("seeding", timeout=WAIT_MS)
        return page

    yield opened
    for context in contexts:
        context.close()
    # What cannot be reached is said by the browser itself.
    assert not [text for text in complaints if "net::ERR" not in text and "400" not in text]
    assert not elsewhere, "nothing is asked of anybody else"


def look(page: Page, name: str) -> None:
    """Leaves a picture of all of it."""
    if folder := os.environ.get("ZEST_SCREENSHOTS"):
        page.screenshot(path=Path(folder, f"{name}.png"), full_page=True)


def fits(page: Page) -> bool:
    """Whether nothing is to be scrolled to the side."""
    return bool(page.evaluate("document.documentElement.scrollWidth <= innerWidth"))


@pytest.mark.parametrize("width", [DESK, PHONE], ids=["desk", "phone"])
def test_nothing_yet(machine: Machine, show: Open, width: dict[str, int]) -> None:
    with machine.seeder() as seeder:
        page = show(seeder, width=width)
        expect(page.locator("#models-empty")).to_be_visible()
        expect(page.locator("#peers-empty")).to_have_text("Nobody is connected.")
        for hidden in ("#models", "#peers", "#banned-section", "#filter", "#pull-error", "#peers table"):
            expect(page.locator(hidden)).to_be_hidden()
        expect(page.locator("#ratio")).to_have_text("\u2013")
        expect(page.get_by_role("table", name="Where bytes came from")).to_contain_text("0 B")
        expect(page.get_by_role("img", name=re.compile("Rates over the last hour"))).to_be_visible()
        assert fits(page)
        look(page, f"nothing-{width['width']}")


@pytest.mark.parametrize("width", [DESK, PHONE], ids=["desk", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_many_models_of_any_name(machine: Machine, show: Open, width: dict[str, int], scheme: str) -> None:
    pages.offer(machine, [f"org/model-{number:04}" for number in range(40)] + list(pages.HOSTILE_NAMES))
    with machine.seeder(**pages.OFFLINE) as seeder:
        page = show(seeder, width=width, scheme=scheme)
        count = 40 + len(pages.HOSTILE_NAMES)
        rows = page.locator("#models tbody tr")
        expect(rows).to_have_count(count)
        names = page.locator("#models tbody th").evaluate_all("cells => cells.map((cell) => cell.textContent)")
        # What would hide or turn round the rest is shown as what it is.
        assert {re.sub("[\u202e\n\t\x00]", "\ufffd", name) for name in pages.HOSTILE_NAMES} <= set(names)
        assert page.title() == "zest-seed" and page.locator("table img, table script").count() == 0
        assert fits(page)
        look(page, f"many-{scheme}-{width['width']}")
        page.get_by_label("Filter the models").fill("MODEL-000")
        expect(rows).to_have_count(10)
        expect(page.locator("#models-count")).to_have_text(f"10 of {count}")
        # By what is in a column, one way and the other.
        page.get_by_role("button", name="Repository").click()
        expect(rows.first).to_contain_text("org/model-0009")
        expect(page.locator("#models th[aria-sort]")).to_have_attribute("aria-sort", "descending")
        assert worst_contrast(page) >= 4.5


def worst_contrast(page: Page) -> float:
    """Of text to what is behind it, by WCAG 2.1 (4.5 is what it asks for)."""
    return float(
        page.evaluate(
            """() => {
            const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
            const light = (colour) => {
              const [r, g, b] = numbers(colour).map((v) => v / 255)
                .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
              return 0.2126 * r + 0.7152 * g + 0.0722 * b;
            };
            const behind = (element) => {
              for (; element; element = element.parentElement) {
                const colour = getComputedStyle(element).backgroundColor;
                if (numbers(colour)[3] !== 0) return colour;
              }
            };
            const ratios = [...document.querySelectorAll("h1, h2, p, dt, dd, th, td, li, label, button, footer")]
              .filter((element) => element.checkVisibility() && element.textContent.trim())
              .map((element) => [light(getComputedStyle(element).color), light(behind(element))].sort())
              .map(([dark, bright]) => (Math.max(dark, bright) + 0.05) / (Math.min(dark, bright) + 0.05));
            return Math.min(...ratios);
            }"""
        )
    )


def test_more_models_than_are_shown(machine: Machine, show: Open) -> None:
    pages.offer(machine, [f"org/model-{number:04}" for number in range(MAX_MODELS + 1)])
    with machine.seeder(**pages.OFFLINE) as seeder:
        page = show(seeder)
        expect(page.locator("#models-count")).to_have_text(f"{MAX_MODELS} of {MAX_MODELS + 1}")


def test_it_moves(owner: Machine, make: MakeMachine, show: Open) -> None:
    code = PRELUDE + f"REPO = 'org/model'\n{SNAPSHOT}"
    with owner.seeder(ZEST_MAX_UP="1MB") as seeder:
        page = show(seeder)
        row = page.locator("#models tbody tr")
        expect(row).to_contain_text(re.compile(r"org/modelmodelmain [0-9a-f]{7}26.3 MB00 B"))
        with make("B").running(sys.executable, "-c", code, ZEST_PEERS=seeder.address) as download:
            expect(page.locator("#peer-count")).to_have_text("1", timeout=WAIT_MS)
            expect(page.locator("#peers tbody tr")).to_contain_text("incoming")
            expect(page.locator("#peers tbody tr")).to_contain_text(re.compile(r"[1-9]\d* %"), timeout=WAIT_MS)
            expect(page.locator("#up")).not_to_have_text("0 B/s")
            legend = page.locator("#plot .legend li").first
            expect(legend).to_have_text(re.compile(r"to peers [\d.]+ .B/s"), timeout=WAIT_MS)
            look(page, "moving")
            download.process.kill()
        expect(page.locator("#peers-empty")).to_be_visible(timeout=WAIT_MS)
        expect(row).not_to_contain_text("00 B")
        # Of all that an hour holds the value under the pointer is shown.
        page.locator("#plot > svg").hover(position={"x": 300, "y": 50})
        expect(page.locator("#plot .when")).to_contain_text("ago")


def test_a_download(machine: Machine, show: Open) -> None:
    with machine.seeder() as seeder:
        page = show(seeder)
        form = page.locator("#pull")
        form.get_by_label("Repository").fill("no name")
        form.get_by_role("button").click()
        expect(page.get_by_role("alert")).to_contain_text("repo is not the name of a repository")
        form.get_by_label("Repository").fill(" org/model ")
        form.get_by_role("button").click()
        expect(page.get_by_role("alert")).to_be_hidden()
        expect(page.locator("#pulls li")).to_contain_text("complete after", timeout=WAIT_MS)
        expect(page.locator("#pulls li")).to_contain_text("3 of 3 files, 6.3 MB from the CDN")
        expect(page.locator("#models tbody tr")).to_contain_text("org/model", timeout=WAIT_MS)
        expect(page.get_by_role("row", name="CDN")).to_contain_text(f"{XET_BYTES / 1e6:.1f} MB")


def test_a_download_is_stopped(machine: Machine, show: Open) -> None:
    with machine.seeder(ZEST_MAX_DOWN="500kB") as seeder:
        page, other = show(seeder), show(seeder, width=PHONE)
        page.get_by_label("Repository").fill("org/model")
        page.get_by_role("button", name="Download").click()
        # Everybody sees it, and may end it.
        expect(other.locator("#pulls li")).to_contain_text("of 6.3 MB", timeout=WAIT_MS)
        expect(other.locator("#pulls progress")).to_be_visible()
        assert fits(other)
        look(other, "downloading")
        other.get_by_role("button", name="Stop the download of org/model").click()
        expect(page.locator("#pulls li")).to_contain_text("stopped", timeout=WAIT_MS)


def test_the_seeder_goes_and_comes_back(machine: Machine, show: Open) -> None:
    with machine.seeder() as seeder:
        page = show(seeder)
        seeder.process.send_signal(signal.SIGSTOP)  # it hangs: nothing is closed
        expect(page.locator("#state")).to_contain_text("connection lost", timeout=WAIT_MS)
        seeder.process.send_signal(signal.SIGCONT)
        expect(page.locator("#state")).to_have_text("seeding", timeout=WAIT_MS)
        seeder.process.kill()
        seeder.process.wait()
        expect(page.locator("#state")).to_contain_text("connection lost", timeout=WAIT_MS)
        look(page, "lost")
    with machine.seeder(ZEST_STATUS=urlsplit(seeder.url).netloc):
        expect(page.locator("#state")).to_have_text("seeding", timeout=WAIT_MS)


def test_it_is_stopped(machine: Machine, show: Open) -> None:
    with machine.seeder() as seeder:
        page = show(seeder)
        page.get_by_role("button", name="Stop", exact=True).click()
        assert seeder.end().code == 0
        expect(page.locator("#state")).to_have_text("stopped")
        expect(page.get_by_role("button", name="Download")).to_be_disabled()


def test_from_another_machine(machine: Machine, browser: Browser) -> None:
    """The browser asks for the token, and sends it with everything."""
    with machine.seeder(ZEST_STATUS="0.0.0.0:0") as seeder:
        address = f"http://127.0.0.1:{pages.port_of(seeder)}"
        token = (machine.home / "zest" / "status.token").read_text().strip()
        for password, works in (("wrong" * 8, False), (token, True)):
            context = browser.new_context(http_credentials={"username": "anybody", "password": password})
            page = context.new_page()
            answer = page.goto(address)
            assert answer is not None and answer.status == (200 if works else 401)
            if works:
                expect(page.locator("#state")).to_have_text("seeding", timeout=WAIT_MS)
                page.get_by_label("Repository").fill("no name")
                page.get_by_role("button", name="Download").click()
                expect(page.get_by_role("alert")).to_contain_text("repo is not the name of a repository")
            context.close()


def test_nothing_inline_runs(machine: Machine, browser: Browser) -> None:
    with machine.seeder() as seeder:
        page = browser.new_page()
        page.goto(seeder.url)
        page.evaluate(
            """() => {
            const script = document.createElement("script");
            script.textContent = "window.ran = true";
            document.body.append(script);
            document.body.insertAdjacentHTML("beforeend", '<img src="x" onerror="window.ran = true">');
            }"""
        )
        assert page.evaluate("fetch('http://127.0.0.1:1/').then(() => 'sent', () => 'refused')") == "refused"
        assert page.evaluate("window.ran") is None
        page.close()
