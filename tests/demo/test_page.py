"""The page of `digits demo` in a real Chromium: what a visitor can do, and what the page says."""

import base64
import json
import os
import re
import signal
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT, configure
from demo_server import free_port, mnist_digit, png, start, stop
from page_browser import (
    ONE,
    PHONE,
    SCRIBBLE,
    SEVEN,
    boxes,
    browser,
    choose,
    doubtful_digit,
    draw,
    expect_answer,
    open_page,
    points_on_screen,
    touch,
)
from PIL import Image

from digits import Reader
from digits.__main__ import main
from digits.demo.answer import NO_DIGIT_FOUND
from digits.demo.component import EXAMPLES, TITLE
from digits.demo.limits import MAX_FILE_BYTES
from digits.reading.reader import text_lines
from digits.training.run import train

__all__ = ["browser", "open_page"]  # pytest looks for fixtures by their names here

NOTE = ROOT / "examples" / "note.jpg"  # ten digits in two rows
SHORT = 100  # milliseconds
SCREENS = [(360, 800), (390, 844), (820, 1180), (1280, 800)]
OpenPage = Callable[..., Any]


@pytest.fixture(scope="module")
def temporary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The server's folder for temporary files."""
    return tmp_path_factory.mktemp("temporary")


@pytest.fixture(scope="module")
def server(temporary: Path) -> Iterator[tuple[str, int]]:
    """The address of a server of its own, and its process; at its end it has left nothing, and said so little."""
    pytest.importorskip("gradio")
    command = ("-m", "digits", "demo", "--port", str(free_port()))
    proxy = {"HTTP_PROXY": "http://127.0.0.1:9", "NO_PROXY": ""}  # which is not there
    process, address = start(*command, cwd=ROOT, TMPDIR=str(temporary), **proxy)
    yield address, process.pid
    assert stop(process).strip() == "digits: interrupted"
    assert process.returncode == 130
    assert not list(temporary.iterdir())


@pytest.fixture(scope="module")
def address(server: tuple[str, int]) -> str:
    return server[0]


@pytest.fixture(scope="module")
def doubtful() -> tuple[bytes, str]:
    """A picture of a digit that the reader doubts, and what its box is to say."""
    content, digit = doubtful_digit()
    first, second = sorted(range(10), key=lambda value: -digit.probabilities[value])[:2]
    return content, f"{first}? or {second}"


def answer_of(page: Any) -> str:
    return page.locator(".answer").inner_text()


def ink(page: Any) -> int:
    """How many pixels of the drawing are black."""
    return page.evaluate("""() => {
        const canvas = document.querySelector("canvas");
        const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
        return data.filter((value, i) => i % 4 === 0 && value < 128).length;
    }""")


# ---- drawing


def test_a_drawing_is_read_when_the_pen_lifts(open_page: OpenPage):
    page = open_page()
    draw(page, SEVEN)
    expect_answer(page, "7")
    draw(page, ONE)
    expect_answer(page, "71")


def test_it_is_read_while_it_is_drawn(open_page: OpenPage):
    page = open_page()
    draw(page, SEVEN, lift=False)
    from playwright.sync_api import expect

    expect(page.locator(".answer")).to_have_text(re.compile("7"), timeout=20_000)


def test_the_old_answer_is_dimmed_until_the_new_one_is_there(open_page: OpenPage):
    page = open_page()
    draw(page, SEVEN)
    expect_answer(page, "7")
    page.route("**/read", lambda route: None)  # an answer that never comes, as the real one may come too early
    draw(page, ONE)
    assert answer_of(page).startswith("7") and page.locator(".stale").count() == 1
    assert page.locator(".answer").get_attribute("aria-busy") == "true"  # and is not read out


def test_one_question_is_on_its_way_at_most(open_page: OpenPage):
    page = open_page()
    now, most, asked = 0, 0, 0

    def note(change: int) -> Callable[[Any], None]:
        def note_request(request: Any) -> None:
            nonlocal now, most, asked
            if request.url.endswith("/read"):
                now += change
                most, asked = max(most, now), asked + max(change, 0)

        return note_request

    page.on("request", note(1))
    page.on("requestfinished", note(-1))
    draw(page, *[[(0.1 + 0.05 * i, 0.2), (0.1 + 0.05 * i, 0.8)] for i in range(6)])
    expect_answer(page, re.compile(r"\d"))
    assert asked >= 2 and most == 1 and now == 0


def test_a_finger_draws_and_does_not_scroll(open_page: OpenPage):
    page = open_page(**PHONE)
    touch(page, SEVEN, ONE)
    expect_answer(page, "71")
    assert page.evaluate("scrollY") == 0


def test_undo_takes_back_one_stroke_and_what_was_cleared(open_page: OpenPage):
    page = open_page()
    undo = page.get_by_role("button", name="Undo")
    assert undo.is_disabled()
    draw(page, SEVEN)
    expect_answer(page, "7")
    seven = ink(page)
    draw(page, ONE)
    expect_answer(page, "71")
    undo.click()
    expect_answer(page, "7")
    assert ink(page) == pytest.approx(seven, rel=0.01)  # edges are smoothed in another way
    page.get_by_role("button", name="Clear").click()
    assert ink(page) == 0
    page.keyboard.press("Control+z")
    expect_answer(page, "7")
    assert ink(page) == pytest.approx(seven, rel=0.01)


def test_there_are_three_widths_of_the_pen(open_page: OpenPage):
    page = open_page()
    amounts = []
    for width in ("Thin", "Medium", "Thick"):
        page.get_by_role("radio", name=width).check()
        draw(page, ONE)
        amounts.append(ink(page))
        page.get_by_role("button", name="Clear").click()
    assert amounts[0] < 0.7 * amounts[1] and amounts[1] < 0.7 * amounts[2]


def test_clear_empties_everything_and_drops_an_answer_on_its_way(open_page: OpenPage):
    page = open_page()
    draw(page, SEVEN)
    page.get_by_role("button", name="Clear").click()
    page.wait_for_timeout(10 * SHORT)
    assert answer_of(page) == "" and ink(page) == 0
    choose(page, "digit.png", mnist_digit()[1])
    expect_answer(page, re.compile(r"^\d"))
    page.get_by_role("button", name="Clear").click()
    assert page.locator(".photo, .box, .cards li").count() == 0 and answer_of(page) == ""


# ---- boxes and cards


def test_each_digit_of_a_drawing_has_a_box_with_its_value(open_page: OpenPage):
    page = open_page()
    draw(page, SEVEN, ONE)
    expect_answer(page, "71")
    assert [text[0] for text in page.locator(".box").all_inner_texts()] == ["7", "1"]
    for stroke, box in zip((SEVEN, ONE), boxes(page), strict=True):
        xs, ys = zip(*stroke, strict=True)
        assert box == pytest.approx([min(xs), min(ys), max(xs), max(ys)], abs=0.04)


@pytest.mark.parametrize("width", [390, 1280])
def test_the_boxes_of_a_photo_are_where_its_digits_are(open_page: OpenPage, width: int):
    page = open_page(width)
    page.get_by_label("Choose a picture").set_input_files(NOTE)
    expect_answer(page, re.compile("48219"))
    across, down = Image.open(NOTE).size
    for box, digit in zip(boxes(page), Reader().read(NOTE), strict=True):
        left, top, right, bottom = digit.box
        assert box == pytest.approx([left / across, top / down, right / across, bottom / down], abs=0.01)


def test_a_doubtful_digit_is_orange_and_says_what_else_it_may_be(open_page: OpenPage, doubtful: tuple[bytes, str]):
    page = open_page()
    content, text = doubtful
    choose(page, "doubtful.png", content)
    expect_answer(page, f"{text[0]}?")
    assert page.locator(".box").inner_text() == text
    for part in (".box span", ".answer .doubtful"):
        colour = "element => getComputedStyle(element)[element.className ? 'color' : 'backgroundColor']"
        red, green, blue = map(int, re.findall(r"\d+", page.locator(part).evaluate(colour))[:3])
        assert red > 1.5 * green > 1.5 * blue
    assert "anything else may be taken for one" in page.locator(".advice").inner_text()


def test_one_digit_has_the_full_card_with_what_the_network_saw_and_ten_bars(open_page: OpenPage):
    page = open_page()
    draw(page, SEVEN)
    expect_answer(page, "7")
    table = page.get_by_role("table", name="Probabilities of the ten digits")
    assert [row.split()[0] for row in table.get_by_role("row").all_inner_texts()] == [*"0123456789"]
    assert page.locator(".best th").all_inner_texts() == ["7"]
    seen = page.get_by_role("img", name="What the network saw of the 7")
    assert seen.evaluate("image => [image.naturalWidth, getComputedStyle(image).imageRendering]") == [28, "pixelated"]


def test_several_digits_have_small_cards_that_open(open_page: OpenPage):
    page = open_page()
    draw(page, SEVEN, ONE)
    expect_answer(page, "71")
    assert page.get_by_role("table").count() == 0
    small = page.locator(".cards .summary").first
    assert re.match(r"7\?? [\d>.]+ % or \d [\d<.]+ %", " ".join(small.inner_text().split()))
    small.click()
    assert page.get_by_role("table").count() == 1 and small.get_attribute("aria-expanded") == "true"
    small.click()
    assert page.get_by_role("table").count() == 0


def test_pointing_at_a_card_shows_its_box_and_the_other_way_round(open_page: OpenPage):
    page = open_page()
    draw(page, SEVEN, ONE)
    expect_answer(page, "71")
    page.locator(".cards li").nth(1).hover()
    assert page.locator(".box.on").inner_text().startswith("1")
    page.mouse.move(*points_on_screen(page, [(0.3, 0.5)])[0])
    assert page.locator(".cards li.on b").inner_text().startswith("7")


def test_a_tap_on_a_digit_shows_its_card_and_draws_nothing(open_page: OpenPage):
    page = open_page(**PHONE)
    touch(page, SEVEN, ONE)
    expect_answer(page, "71")
    before = ink(page)
    touch(page, [(0.67, 0.5)])
    assert page.locator(".cards li.on b").inner_text().startswith("1")
    assert ink(page) == before


def test_ten_digits_fit_on_two_screens_of_a_phone(open_page: OpenPage):
    page = open_page(**PHONE)
    page.get_by_label("Choose a picture").set_input_files(NOTE)
    expect_answer(page, re.compile("48219"))
    assert page.locator(".cards li").count() == 10
    assert page.evaluate("document.documentElement.scrollHeight") <= 2 * PHONE["height"]


def test_why_shows_which_ink_speaks_for_the_digit(open_page: OpenPage):
    page = open_page()
    draw(page, SEVEN)
    expect_answer(page, "7")
    why = page.get_by_role("button", name="Why?")
    why.click()
    page.get_by_role("img", name="Which ink speaks for the 7").wait_for()
    assert page.get_by_text("Blue ink speaks for the 7").is_visible()
    why.click()
    page.get_by_role("img", name="What the network saw of the 7").wait_for()


def test_the_number_is_copied_without_marks(open_page: OpenPage, doubtful: tuple[bytes, str]):
    page = open_page(permissions=["clipboard-read", "clipboard-write"])
    content, text = doubtful
    choose(page, "doubtful.png", content)
    expect_answer(page, f"{text[0]}?")
    page.get_by_role("button", name="Copy").click()
    page.get_by_role("button", name="Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == text[0]


# ---- pictures


def transfer(page: Any, content: bytes) -> Any:
    """What the browser hands to the page when a file is dropped; the drag itself would begin outside of the browser."""
    return page.evaluate_handle(
        """text => {
            const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
            const transfer = new DataTransfer();
            transfer.items.add(new File([bytes], "digit.png", { type: "image/png" }));
            return transfer;
        }""",
        base64.b64encode(content).decode(),
    )


def test_a_picture_is_read_and_can_be_drawn_over_afterwards(open_page: OpenPage):
    page = open_page()
    label, content = mnist_digit()
    choose(page, "digit.png", content)
    expect_answer(page, str(label))
    assert page.locator(".photo").is_visible()
    draw(page, SEVEN)
    expect_answer(page, "7")
    assert page.locator(".photo").count() == 0


def test_a_picture_can_be_dropped_and_the_paper_says_so_before(open_page: OpenPage):
    page = open_page()
    label, content = mnist_digit()
    dragged = {"dataTransfer": transfer(page, content)}
    page.locator(".note").dispatch_event("dragover", dragged)  # anywhere on the page
    assert page.get_by_text("Drop the picture here").is_visible()
    page.locator(".note").dispatch_event("drop", dragged)
    assert not page.get_by_text("Drop the picture here").is_visible()
    expect_answer(page, str(label))


def test_a_picture_can_be_pasted(open_page: OpenPage):
    page = open_page(permissions=["clipboard-read", "clipboard-write"])
    label, content = mnist_digit()
    page.evaluate(
        """async text => {
            const blob = await (await fetch("data:image/png;base64," + text)).blob();
            await navigator.clipboard.write([new ClipboardItem({ "image/png": blob })]);
        }""",
        base64.b64encode(content).decode(),
    )
    page.keyboard.press("Control+v")
    expect_answer(page, str(label))


def test_each_example_is_read(open_page: OpenPage):
    page = open_page()
    reader = Reader()
    for name, text in EXAMPLES.items():
        page.get_by_role("button", name=text).click()
        lines = text_lines(reader.read(ROOT / "digits" / "demo" / "page" / "examples" / name))
        expect_answer(page, re.compile(r"\s*".join(rf"{digit}\??" for digit in "".join(lines))))


def test_a_picture_that_browsers_do_not_show_is_shown_all_the_same(open_page: OpenPage, tmp_path: Path):
    page = open_page()
    with Image.open(NOTE) as picture:
        picture.save(tmp_path / "note.tiff")
    page.get_by_label("Choose a picture").set_input_files(tmp_path / "note.tiff")
    expect_answer(page, re.compile("48219"))
    assert page.locator(".photo").evaluate("image => image.naturalWidth") > 1000
    assert page.locator(".box").count() == 10


def test_a_phone_has_a_button_for_the_camera(open_page: OpenPage):
    photo = open_page(**PHONE).get_by_text("Take a photo")
    assert photo.is_visible()
    assert photo.locator("xpath=..").locator("input").get_attribute("capture") == "environment"
    assert not open_page().get_by_text("Take a photo").is_visible()


def test_a_file_that_is_no_picture_gets_a_sentence(open_page: OpenPage, temporary: Path, tmp_path: Path):
    page = open_page()
    choose(page, "text.png", b"no picture")
    expect_answer(page, re.compile("This file: is no picture"))
    assert page.locator(".photo").count() == 0
    (tmp_path / "large.png").write_bytes(bytes(MAX_FILE_BYTES + 1))
    page.get_by_label("Choose a picture").set_input_files(tmp_path / "large.png")
    expect_answer(page, "This file is larger than 20 MB.")
    assert not [path for path in temporary.rglob("*") if path.is_file()]


def test_where_no_digit_is_found_it_says_what_would_help(open_page: OpenPage):
    page = open_page()
    draw(page, SCRIBBLE)
    expect_answer(page, NO_DIGIT_FOUND)
    assert "as large as you like" in page.locator(".advice").inner_text()
    choose(page, "blank.png", png(Image.new("L", (300, 200), 255)))
    expect_answer(page, NO_DIGIT_FOUND)
    assert "Dark ink on light paper" in page.locator(".advice").inner_text()


# ---- corrections


def test_a_correction_is_downloaded_as_pictures_that_evaluate_scores_and_finetune_learns_from(
    open_page: OpenPage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    page = open_page()
    draw(page, SEVEN, ONE)
    expect_answer(page, "71")
    for card, label in ((0, "7"), (1, "9")):
        page.locator(".summary").nth(card).click()
        page.locator(".cards li").nth(card).get_by_role("button", name=label, exact=True).click()
    page.get_by_label("Choose a picture").set_input_files(NOTE)
    expect_answer(page, re.compile("48219"))
    page.locator(".summary").nth(1).click()
    page.locator(".cards li").nth(1).get_by_role("button", name="8", exact=True).click()
    with page.expect_download() as download:
        page.get_by_role("button", name="Download").click()
    with zipfile.ZipFile(download.value.path()) as archive:
        assert archive.testzip() is None
        assert sorted(archive.namelist()) == ["7/1.png", "8/1.png", "9/1.png"]
        archive.extractall(tmp_path / "own")

    assert main(["evaluate", "--data", str(tmp_path / "own"), "--json"]) == 0
    scored = json.loads(capsys.readouterr().out)
    assert scored["test/none_found"] == scored["test/several_found"] == 0
    wrong = scored["test/wrong"]
    assert [(Path(one["file"]).parent.name, one["read"]) for one in wrong] == [("9", 1)]  # the 1, called a 9

    short = ("data=mnist5k", "data.synthetic=0", "data.outliers=0", "trainer.max_epochs=1", "logger=none")
    short = (*short, "trainer.accelerator=cpu", "trainer.limit_train_batches=2", "trainer.limit_test_batches=1")
    summary = train(configure("experiment=finetune", f"data.pictures={tmp_path / 'own'}", *short), tmp_path / "run")
    assert (summary["status"], summary["own_images"]) == ("completed", 3)


def test_corrections_are_kept_in_the_browser_until_they_are_forgotten(open_page: OpenPage):
    page = open_page()
    draw(page, SEVEN)
    expect_answer(page, "7")
    nine = page.locator(".labels").get_by_role("button", name="9", exact=True)
    nine.click()
    assert nine.get_attribute("aria-pressed") == "true"
    page.reload()
    page.get_by_text("1 digit with your label").wait_for()
    page.get_by_role("button", name="Forget").click()
    page.reload()
    page.wait_for_selector("canvas")
    assert not page.get_by_text("with your label").is_visible()


def test_a_correction_is_taken_back_by_a_second_click(open_page: OpenPage):
    page = open_page()
    draw(page, SEVEN)
    expect_answer(page, "7")
    nine = page.locator(".labels").get_by_role("button", name="9", exact=True)
    nine.click()
    nine.click()
    assert nine.get_attribute("aria-pressed") == "false"
    assert not page.get_by_text("with your label").is_visible()


# ---- the server is gone


def said_after_three_seconds(page: Any) -> str:
    """What the answer's part says then, by the page's own clock, which is late where this test would be."""
    return page.evaluate("""() => new Promise((resolve) => {
        setTimeout(() => resolve(document.querySelector(".output").innerText), 3000);
    })""")


def test_offline_is_said_and_what_was_drawn_is_read_when_the_net_is_back(open_page: OpenPage):
    page = open_page()
    page.context.set_offline(True)
    draw(page, SEVEN)
    assert "The server does not answer" in said_after_three_seconds(page)
    page.context.set_offline(False)
    expect_answer(page, "7")


def test_a_server_that_hangs_is_noticed_within_three_seconds(open_page: OpenPage, server: tuple[str, int]):
    page = open_page()
    draw(page, SEVEN)
    expect_answer(page, "7")
    os.kill(server[1], signal.SIGSTOP)
    try:
        draw(page, ONE)
        assert "The server does not answer" in said_after_three_seconds(page)
    finally:
        os.kill(server[1], signal.SIGCONT)
    expect_answer(page, "71")


# ---- for everyone


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("phone", [True, False])
def test_axe_finds_nothing(open_page: OpenPage, scheme: str, phone: bool, doubtful: tuple[bytes, str]):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page = open_page(color_scheme=scheme, reduced_motion="reduce", **(PHONE if phone else {}))

    def findings() -> list[tuple[str, str]]:
        violations = axe.run(page).response["violations"]
        return [(one["id"], node["html"]) for one in violations for node in one["nodes"]]

    assert findings() == []
    draw(page, SEVEN, ONE)
    expect_answer(page, "71")
    assert findings() == []
    choose(page, "doubtful.png", doubtful[0])
    expect_answer(page, f"{doubtful[1][0]}?")
    page.get_by_role("button", name="Why?").click()
    page.get_by_text("Blue ink").wait_for()
    page.locator(".labels button").nth(9).click()
    assert findings() == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_borders_stand_out_by_three_to_one(open_page: OpenPage, scheme: str):
    page = open_page(color_scheme=scheme)
    draw(page, SEVEN)
    expect_answer(page, "7")
    ground = page.evaluate("getComputedStyle(document.querySelector('.gradio-container')).backgroundColor")
    for part in (".paper", ".pens", ".undo", ".clear", ".choose:not(.camera) span", ".cards li", ".examples button"):
        border = page.locator(part).first.evaluate("element => getComputedStyle(element).borderTopColor")
        brighter, darker = sorted((luminance(border), luminance(ground)), reverse=True)
        assert (brighter + 0.05) / (darker + 0.05) >= 3, part


def luminance(colour: str) -> float:
    """The relative luminance of a colour, as WCAG 2.2 defines it."""
    levels = np.array([float(level) for level in re.findall(r"[\d.]+", colour)[:3]]) / 255
    linear = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize(("width", "height"), [*SCREENS, (844, 390), (640, 400)])  # landscape; a desktop at 200 %
def test_nothing_scrolls_sideways_and_the_paper_fits_the_window(open_page: OpenPage, width: int, height: int):
    page = open_page(width, height)
    draw(page, SEVEN, ONE)
    expect_answer(page, "71")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    paper = page.locator(".paper").bounding_box()
    assert paper["height"] <= height and paper["width"] >= min(0.8 * width, 280)


def test_all_but_drawing_is_done_by_keyboard(open_page: OpenPage):
    page = open_page()

    def press_tab_until(selector: str) -> None:
        for _ in range(40):
            page.keyboard.press("Tab")
            if page.evaluate("selector => document.activeElement.matches(selector)", selector):
                return
        raise AssertionError(f"{selector} is not reached")

    press_tab_until(".examples button")
    page.keyboard.press("Enter")
    expect_answer(page, "1967")
    page.evaluate("document.activeElement.blur()")
    press_tab_until(".cards .summary")
    assert page.locator(".box.on").count() == 1
    page.keyboard.press("Enter")
    press_tab_until(".why")
    page.keyboard.press("Enter")
    page.get_by_text("Blue ink").wait_for()
    press_tab_until(".labels button")
    page.keyboard.press("Enter")
    assert page.get_by_text("1 digit with your label").is_visible()
    press_tab_until(".download")


def test_the_page_has_a_title_a_description_and_an_icon_of_its_own(open_page: OpenPage):
    page = open_page()
    assert page.title() == TITLE
    assert "handwritten digits" in page.locator("meta[name=description]").get_attribute("content")
    assert page.locator("link[rel=icon]").get_attribute("href").startswith("data:image/svg+xml")
