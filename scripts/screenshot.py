"""A picture of a report, made by a browser without a screen.

    python scripts/screenshot.py comparison/report.html docs/compare.png

Needs chromium with its chromedriver, and selenium.
"""

from __future__ import annotations

import argparse
import shutil
import time
from pathlib import Path

from selenium import webdriver

WIDTH, HEIGHT = 1250, 1010
BROWSERS = ("chromium", "google-chrome", "chrome")


def main() -> None:
    """Open the page, wait until its chart is drawn, and save what is seen."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("report", type=Path)
    parser.add_argument("picture", type=Path)
    given = parser.parse_args()
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        parser.error("no browser found: install chromium with its chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = found
    for each in ("headless=new", "no-sandbox", f"window-size={WIDTH},{HEIGHT}"):
        options.add_argument(f"--{each}")
    driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        driver.get(given.report.resolve().as_uri())
        while not driver.find_elements("css selector", "#chart .scatterlayer path.js-line"):
            time.sleep(0.1)
        driver.save_screenshot(str(given.picture))
    finally:
        driver.quit()


if __name__ == "__main__":
    main()
