"""A real Chromium, and what a visitor does with the page in it."""

import io
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from digits import Digit, Reader

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
MUST_BE_THERE = "DIGITS_NEEDS_BROWSER"  # set where the tests may not be skipped

Stroke = list[tuple[float, float]]
SEVEN: Stroke = [(0.2, 0.25), (0.45, 0.24), (0.3, 0.8)]  # shares of the canvas's width and height
ONE: Stroke = [(0.68, 0.2), (0.66, 0.8)]
SCRIBBLE: Stroke = [(0.02, 0.5), (0.98, 0.52)]
PHONE = {"width": 390, "height": 844, "has_touch": True, "is_mobile": True}


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        path = next(filter(None, map(shutil.which, BROWSERS)), driver.chromium.executable_path)
        if not Path(path).is_file():
            reason = "no browser: apt-get install chromium, or playwright install chromium"
            pytest.fail(reason) if os.environ.get(MUST_BE_THERE) else pytest.skip(reason)
        browser = driver.chromium.launch(executable_path=path, args=FLAGS.split())
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Any, address: str) -> Iterator[Callable[..., Any]]:
    """Opens the page; at the end nothing had been asked of another server, and no script had failed."""
    asked, failed, contexts = [], [], []

    def open_page(width: int = 1280, height: int = 800, **options: Any) -> Any:
        contexts.append(browser.new_context(viewport={"width": width, "height": height}, **options))
        contexts[-1].on("request", lambda request: asked.append(request.url))
        page = contexts[-1].new_page()
        page.on("pageerror", lambda error: failed.append(str(error)))
        page.on("response", lambda response: response.ok or failed.append(f"{response.status} {response.url}"))
        page.goto(address)
        page.wait_for_selector("canvas")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert asked and not failed
    assert [url for url in asked if not url.startswith((address, "data:", "blob:"))] == []


# ---- what a visitor does


def points_on_screen(page: Any, stroke: Stroke) -> Stroke:
    box = page.locator("canvas").bounding_box()
    return [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in stroke]


def draw(page: Any, *strokes: Stroke, lift: bool = True) -> None:
    for stroke in strokes:
        points = points_on_screen(page, stroke)
        page.mouse.move(*points[0])
        page.mouse.down()
        for point in points[1:]:
            page.mouse.move(*point, steps=8)
        if lift:
            page.mouse.up()


def touch(page: Any, *strokes: Stroke) -> None:
    """Draw with a finger; a stroke of one point is a tap."""
    session = page.context.new_cdp_session(page)
    for stroke in strokes:
        points = points_on_screen(page, stroke)
        for kind, (x, y) in zip(["touchStart", *["touchMove"] * (len(points) - 1)], points, strict=True):
            session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y}]})
        session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


def choose(page: Any, name: str, content: bytes) -> None:
    page.get_by_label("Choose a picture").set_input_files(
        {"name": name, "mimeType": "application/octet-stream", "buffer": content}
    )


def expect_answer(page: Any, text: str | re.Pattern[str], seconds: float = 20) -> None:
    """Wait for it; a digit may also be doubted, as that is the network's affair."""
    from playwright.sync_api import expect

    if isinstance(text, str) and text.isdecimal():
        text = re.compile("^" + "".join(rf"{digit}\??" for digit in text) + "$")
    expect(page.locator(".answer")).to_have_text(text, timeout=1000 * seconds)
    expect(page.locator(".stale")).to_have_count(0, timeout=1000 * seconds)


def boxes(page: Any) -> list[list[float]]:
    """Left, top, right and bottom of each box, as shares of the paper."""
    return page.evaluate("""() => {
        const paper = document.querySelector(".boxes").getBoundingClientRect();
        return [...document.querySelectorAll(".box")].map((box) => {
            const { left, top, right, bottom } = box.getBoundingClientRect();
            return [(left - paper.left) / paper.width, (top - paper.top) / paper.height,
                    (right - paper.left) / paper.width, (bottom - paper.top) / paper.height];
        });
    }""")


# ---- pictures


def doubtful_digit() -> tuple[bytes, Digit]:
    """A picture of one digit, and what the reader says of it: one between 4 and 9 that it doubts."""
    pictures = [_between_four_and_nine(share) for share in np.linspace(0, 1, 41)]
    for picture, digits in zip(pictures, Reader().read_many(pictures), strict=True):
        if isinstance(digits, list) and len(digits) == 1 and digits[0].confidence < 0.85:
            file = io.BytesIO()
            picture.save(file, "PNG")
            return file.getvalue(), digits[0]
    raise AssertionError("the reader is sure of all")


def _between_four_and_nine(share: float) -> Image.Image:
    """An open 4 whose left arm comes the nearer to the stem, the larger the ``share``; at 1 it is a 9."""
    picture = Image.new("L", (800, 600), 255)
    arm = [(0.12 + 0.7 * share, 0.0), (0.12 + 0.2 * share, 0.08), (0.1, 0.27), (0.2, 0.45), (0.45, 0.5), (0.82, 0.42)]
    for stroke in (arm, [(0.84, 0.0), (0.8, 0.5), (0.74, 1.0)]):
        points = [(280 + 200 * x, 130 + 330 * y) for x, y in stroke]
        ImageDraw.Draw(picture).line(points, fill=0, width=24, joint="curve")
        for x, y in points:
            ImageDraw.Draw(picture).ellipse((x - 12, y - 12, x + 12, y + 12), fill=0)
    return picture
