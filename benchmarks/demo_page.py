"""How long a visitor of the page waits from the moment the pen lifts until the answer is there, in a real Chromium.

    python benchmarks/demo_page.py       1 minute on two cores; the browser and the server share the machine

Digits are drawn stroke by stroke by mouse, three to a paper, as fast as the browser takes it. The page itself takes the
time: from the event of the pen that lifts until the answer to all that was drawn is no longer dimmed.
"""

import argparse
import shutil
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from demo_load import server

from digits.data.synthetic import FORMS, Stroke

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
DIGITS = "314159265358979323846264338327"
PER_PAPER = 3
TAKE_TIMES = """() => {
    window.times = [];
    let lifted;
    const canvas = document.querySelector("canvas");
    canvas.addEventListener("pointerup", () => { lifted = performance.now(); }, { capture: true });
    const root = document.querySelector(".answer");
    new MutationObserver(() => {
        if (lifted && root.getAttribute("aria-busy") === "false") {
            window.times.push(performance.now() - lifted);
            lifted = undefined;
        }
    }).observe(root, { attributes: true, childList: true });
}"""


def main() -> None:
    """Run the benchmark as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--digits", default=DIGITS, help=f"which are drawn (default: {DIGITS})")
    parser.add_argument("--pause", type=float, default=0.4, help="seconds between two strokes (default: 0.4)")
    options = parser.parse_args()
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        sys.exit("demo_page.py: Playwright is not installed; pip install -e '.[dev]'")
    with server() as (_, port), sync_playwright() as driver:
        path = next(filter(None, map(shutil.which, BROWSERS)), driver.chromium.executable_path)
        if not Path(path).is_file():
            sys.exit("demo_page.py: no browser: apt-get install chromium, or playwright install chromium")
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(f"http://127.0.0.1:{port}/")
        page.wait_for_selector("canvas")
        page.evaluate(TAKE_TIMES)
        strokes = 0
        for number, digit in enumerate(options.digits):
            if number % PER_PAPER == 0:
                page.get_by_role("button", name="Clear").click()
            for stroke in FORMS[int(digit)][0]:
                draw(page, stroke, number % PER_PAPER)
                strokes += 1
                time.sleep(options.pause)
        times = page.evaluate("window.times")
        browser.close()
    print(
        f"{strokes} strokes, {len(times)} answers after the pen was lifted: median {statistics.median(times):.0f} ms, "
        f"95th percentile {statistics.quantiles(times, n=20)[-1]:.0f} ms, longest {max(times):.0f} ms"
    )


def draw(page: Any, stroke: Stroke, place: int) -> None:
    """Draw ``stroke`` of a digit, by mouse, in a third of the paper: the ``place`` from the left."""
    box = page.locator("canvas").bounding_box()
    height = 0.5 * box["height"]
    left, top = box["x"] + (0.1 + 0.3 * place) * box["width"], box["y"] + 0.25 * box["height"]
    points = [(left + 0.6 * height * x, top + height * y) for x, y in stroke]
    page.mouse.move(*points[0])
    page.mouse.down()
    for point in points[1:]:
        page.mouse.move(*point, steps=4)
    page.mouse.up()


if __name__ == "__main__":
    main()
