"""Take the README's pictures of a report: `python -m tools.screenshot_report outputs/demo` (needs a Chromium)."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

IMAGES = Path(__file__).parents[1] / "docs/images"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


def main() -> None:
    """Photograph the top, the figures and the explorer, in both themes and at phone width."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="a run's or a sweep's folder with report.html")
    page_file = (parser.parse_args().folder / "report.html").resolve()
    browser_path = next((executable for name in BROWSERS if (executable := shutil.which(name))), None)
    if browser_path is None or not page_file.is_file():
        raise SystemExit(f"needs a Chromium (apt install chromium) and {page_file} (forgetbench report)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=ARGUMENTS)
        for name, width, height, scheme, section in (
            ("report", 1100, 1180, "light", None),
            ("report_dark", 1100, 1000, "dark", "#figures"),
            ("report_flips", 1100, 900, "light", "#flips"),
            ("report_phone", 390, 844, "dark", None),
        ):
            page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
            page.goto(page_file.as_uri())
            _photograph(page, section, IMAGES / f"{name}.png")
            page.close()
        browser.close()


def _photograph(page: Page, section: str | None, path: Path) -> None:
    if section == "#flips":
        page.select_option("#flip-filters select[name=kind]", "mischoice")
    for _ in range(3 if section else 1):  # charts draw when they come near, and push what is below them
        if section:
            page.evaluate("selector => document.querySelector(selector).scrollIntoView()", section)
        page.wait_for_timeout(1_000)
    page.screenshot(path=path)
    print(f"{path} ({path.stat().st_size / 1000:.0f} kB)")


if __name__ == "__main__":
    main()
