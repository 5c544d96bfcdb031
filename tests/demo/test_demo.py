"""The page of `digits demo` in a real browser, its server, and the Space."""

import base64
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image, ImageDraw

from digits import Reader
from digits.__main__ import main
from digits.data.mnist import load_mnist5k
from digits.demo import MAX_FILE_BYTES, MAX_PIXELS, NO_DIGIT_FOUND, read_url
from digits.demo.space import REQUIREMENTS

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
SEVEN = [(0.2, 0.25), (0.45, 0.24), (0.3, 0.8)]  # shares of the canvas's width and height
ONE = [(0.68, 0.2), (0.66, 0.8)]
SHORT = 100  # milliseconds


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def mnist_digit() -> tuple[int, bytes]:
    """A digit of the embedded ones, dark on white, as if it had been scanned."""
    digits = load_mnist5k()
    image = Image.fromarray(255 - np.asarray(digits.test_images[3])).resize((280, 280))
    return int(digits.test_labels[3]), png(image)


def start(*command: str, cwd: Path, **environment: str) -> tuple[subprocess.Popen[str], str]:
    """A server, and the address that it prints."""
    process = subprocess.Popen(
        [sys.executable, *command],
        cwd=cwd,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # ignored in a shell's background
    )
    assert process.stdout
    lines = []
    for line in process.stdout:
        lines.append(line)
        if found := re.match(r"(http://\S+) \(Ctrl-C", line):
            return process, found[1]
    raise AssertionError("".join(lines))


def stop(process: subprocess.Popen[str], by: int = signal.SIGINT) -> str:
    """What it printed at its end."""
    process.send_signal(by)
    return process.communicate(timeout=30)[0]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@pytest.fixture(scope="module")
def temporary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The server's folder for temporary files."""
    return tmp_path_factory.mktemp("temporary")


@pytest.fixture(scope="module")
def address(temporary: Path) -> Iterator[str]:
    """The page on a server of its own; at its end the server has left nothing, and said so little."""
    pytest.importorskip("gradio")
    command = ("-m", "digits", "demo", "--port", str(free_port()))
    proxy = {"HTTP_PROXY": "http://127.0.0.1:9", "NO_PROXY": ""}  # which is not there
    process, address = start(*command, cwd=ROOT, TMPDIR=str(temporary), **proxy)
    yield address
    assert stop(process).strip() == "digits: interrupted"
    assert process.returncode == 130
    assert not list(temporary.iterdir())


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        path = next(filter(None, map(shutil.which, BROWSERS)), driver.chromium.executable_path)
        if not Path(path).is_file():
            pytest.skip("no browser: apt-get install chromium, or playwright install chromium")
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
        page.goto(address)
        page.wait_for_selector("canvas")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert asked and not failed
    assert [url for url in asked if not url.startswith((address, "data:", "blob:"))] == []


def draw(page: Any, *strokes: list[tuple[float, float]]) -> None:
    box = page.locator("canvas").bounding_box()
    for stroke in strokes:
        points = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in stroke]
        page.mouse.move(*points[0])
        page.mouse.down()
        for point in points[1:]:
            page.mouse.move(*point, steps=8)
        page.mouse.up()


def expect_answer(page: Any, text: str | re.Pattern[str]) -> None:
    from playwright.sync_api import expect

    expect(page.locator(".answer")).to_have_text(text, timeout=20_000)


def choose(page: Any, name: str, content: bytes) -> None:
    page.get_by_label("Choose a picture").set_input_files(
        {"name": name, "mimeType": "application/octet-stream", "buffer": content}
    )


def test_a_drawing_is_read_when_the_hand_rests(open_page: Callable[..., Any]):
    page = open_page()
    draw(page, SEVEN)
    expect_answer(page, "7")
    assert page.locator("figure").count() == 1
    draw(page, ONE)
    expect_answer(page, "71")
    tables = page.get_by_role("table", name="Probabilities of the ten digits")
    assert tables.count() == 2
    assert [row.split()[0] for row in tables.first.get_by_role("row").all_inner_texts()] == [*"0123456789"]
    assert page.locator("figure .best th").all_inner_texts() == ["7", "1"]
    seen = page.get_by_role("img", name="What the network saw of the 7")
    assert seen.evaluate("image => [image.naturalWidth, getComputedStyle(image).imageRendering]") == [112, "pixelated"]
    assert page.locator(".answer").get_attribute("aria-live") == "polite"


def test_clear_empties_everything(open_page: Callable[..., Any]):
    page = open_page()
    draw(page, SEVEN)
    expect_answer(page, "7")
    page.get_by_role("button", name="Clear").click()
    expect_answer(page, "")
    assert page.locator("figure").count() == 0
    page.get_by_role("button", name="Read").click()
    expect_answer(page, NO_DIGIT_FOUND)

    choose(page, "digit.png", mnist_digit()[1])
    expect_answer(page, re.compile(r"^\d$"))
    assert page.locator(".photo").is_visible()
    page.get_by_role("button", name="Clear").click()
    assert not page.locator(".photo").is_visible()
    page.get_by_role("button", name="Read").click()
    expect_answer(page, NO_DIGIT_FOUND)


def test_clear_also_drops_an_answer_on_its_way(open_page: Callable[..., Any]):
    page = open_page()
    draw(page, SEVEN)
    page.get_by_role("button", name="Read").click()
    page.get_by_role("button", name="Clear").click()
    page.wait_for_timeout(10 * SHORT)
    expect_answer(page, "")


def test_a_picture_is_read_and_can_be_drawn_over_afterwards(open_page: Callable[..., Any]):
    page = open_page()
    label, content = mnist_digit()
    choose(page, "digit.png", content)
    expect_answer(page, str(label))
    draw(page, SEVEN)
    expect_answer(page, "7")
    assert not page.locator(".photo").is_visible()


def test_a_picture_can_be_dropped(open_page: Callable[..., Any]):
    page = open_page()
    label, content = mnist_digit()
    transfer = page.evaluate_handle(
        """text => {
            const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
            const transfer = new DataTransfer();
            transfer.items.add(new File([bytes], "digit.png", { type: "image/png" }));
            return transfer;
        }""",
        base64.b64encode(content).decode(),
    )
    page.locator(".paper").dispatch_event("drop", {"dataTransfer": transfer})
    expect_answer(page, str(label))


def test_a_file_that_is_no_picture_gets_a_sentence(open_page: Callable[..., Any], temporary: Path, tmp_path: Path):
    page = open_page()
    choose(page, "text.png", b"no picture")
    expect_answer(page, re.compile("This file: is no picture"))
    assert not page.locator(".photo").is_visible()
    (tmp_path / "large.png").write_bytes(bytes(MAX_FILE_BYTES + 1))
    page.get_by_label("Choose a picture").set_input_files(tmp_path / "large.png")
    expect_answer(page, "This file is larger than 20 MB.")
    choose(page, "blank.png", png(Image.new("L", (300, 200), 255)))
    expect_answer(page, NO_DIGIT_FOUND)
    assert not [path for path in temporary.rglob("*") if path.is_file()]


@pytest.mark.parametrize("width", [360, 390])
def test_on_a_phone_nothing_scrolls_sideways_and_a_finger_draws(open_page: Callable[..., Any], width: int):
    page = open_page(width, 800, has_touch=True, is_mobile=True)
    box = page.locator("canvas").bounding_box()
    touch = page.context.new_cdp_session(page)
    for stroke in (SEVEN, ONE):
        points = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in stroke]
        kinds = ["touchStart", *["touchMove"] * (len(points) - 1)]
        for kind, (x, y) in zip(kinds, points, strict=True):
            touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y}]})
        touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    expect_answer(page, "71")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.evaluate("scrollY") == 0  # the finger drew, it did not scroll
    assert box["width"] > 0.8 * width


def test_the_server_takes_no_files_and_no_long_bodies(address: str, temporary: Path):
    def post(path: str, body: bytes, kind: str) -> int:
        request = urllib.request.Request(f"{address}gradio_api/{path}", body, {"Content-Type": kind})
        try:
            with urllib.request.urlopen(request) as reply:
                return reply.status
        except urllib.error.HTTPError as error:
            return error.code

    with urllib.request.urlopen(f"{address}config") as reply:
        page = next(part["id"] for part in json.load(reply)["components"] if part["type"] == "html")

    def ask(content: bytes) -> int:
        question = {"data": url(content), "component_id": page, "fn_name": "read", "session_hash": "one"}
        return post("component_server/", json.dumps(question).encode(), "application/json")

    part = b'--a\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\nink\r\n--a--\r\n'
    assert post("upload", part, "Multipart/form-data; boundary=a") == 403
    assert ask(mnist_digit()[1]) == 200
    with pytest.raises((urllib.error.URLError, ConnectionError)):  # it hangs up
        ask(bytes(2 * MAX_FILE_BYTES))
    assert not [path for path in temporary.rglob("*") if path.is_file()]


def url(content: bytes) -> str:
    return "data:;base64," + base64.b64encode(content).decode()


def large(format: str) -> bytes:
    file = io.BytesIO()
    side = int(MAX_PIXELS**0.5) + 1
    Image.new("1", (side, side)).save(file, format)
    return file.getvalue()


def test_a_large_heic_is_refused_before_it_is_decoded_even_if_it_is_the_first_picture(tmp_path: Path):
    heif = pytest.importorskip("pillow_heif")
    heif.from_pillow(Image.new("L", (MAX_PIXELS // 2000 + 1, 2000))).save(tmp_path / "a.heic")
    code = (
        "import sys; from digits import Reader; from digits.demo import read_url\n"
        "print(read_url(Reader(), sys.stdin.read())['message'])"
    )
    sent = url((tmp_path / "a.heic").read_bytes())
    run = subprocess.run([sys.executable, "-c", code], input=sent, capture_output=True, text=True, check=True)
    assert "million pixels" in run.stdout


def bomb() -> bytes:
    """A picture of 40,000 x 40,000 pixels, as its head says."""
    content = bytearray(png(Image.new("1", (1, 1))))
    content[16:24] = (40_000).to_bytes(4, "big") * 2
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    return bytes(content)


UNREADABLE = {
    "large PNG": (url(large("PNG")), "million pixels"),
    "large TIFF": (url(large("TIFF")), "million pixels"),
    "bomb": (url(bomb()), "too many pixels"),
    "cut short": (url(mnist_digit()[1][:400]), "truncated|damaged|cut short"),
    "large file": (url(bytes(MAX_FILE_BYTES + 1)), "larger than 20 MB"),
    "empty file": (url(b""), "empty"),
    "no base64": ("data:;base64,A", "did not arrive whole"),
    "nothing": (None, "empty"),
    "no ASCII": ("data:image/png;base64,é", "did not arrive whole"),
    "a path": ({"path": "/etc/passwd"}, "empty"),
}


@pytest.mark.parametrize("what", UNREADABLE)
def test_what_cannot_be_read_is_told(what: str):
    sent, message = UNREADABLE[what]
    answer = read_url(Reader(), sent)
    assert re.search(message, str(answer["message"]))
    assert not answer["digits"] and not answer["opened"]


def test_an_animation_is_read_by_its_first_frame():
    first = Image.new("L", (200, 200), 255)
    ImageDraw.Draw(first).line([(60, 40), (140, 40), (100, 160)], fill=0, width=14)
    file = io.BytesIO()
    first.save(file, "GIF", save_all=True, append_images=[Image.new("L", (200, 200), 255)])
    assert read_url(Reader(), url(file.getvalue()))["message"] == "7"


def test_a_taken_port_is_one_line(capsys: pytest.CaptureFixture[str]):
    pytest.importorskip("gradio")
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert main(["demo", "--port", str(server.getsockname()[1])]) == 1
    error = capsys.readouterr().err
    assert "in use" in error and "--port" in error and error.count("\n") == 1


def test_a_port_that_cannot_be_is_refused(capsys: pytest.CaptureFixture[str]):
    pytest.importorskip("gradio")
    assert main(["demo", "--port", "65536"]) == 2
    assert "65535" in capsys.readouterr().err


def test_without_gradio_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert main(["demo"]) == 1
    assert capsys.readouterr().err.endswith("pip install -e '.[demo]'\n")


def test_gradio_is_imported_only_to_serve():
    code = """if True:
        import sys, digits, digits.demo, digits.demo.space
        from digits.__main__ import main
        try:
            main(["demo", "--help"])
        except SystemExit as end:
            assert end.code == 0
        assert "gradio" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def test_a_space_serves_from_its_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    gradio = pytest.importorskip("gradio")
    folder = tmp_path / "space"
    assert main(["demo", "--space", str(folder)]) == 0
    assert str(folder) in capsys.readouterr().out
    head = (folder / "README.md").read_text().split("---\n")[1]
    assert f"sdk_version: {gradio.__version__}\n" in head and "app_file: app.py\n" in head
    needed = (folder / "requirements.txt").read_text()
    assert all(re.search(f"^{name}\\b", needed, re.M) for name in REQUIREMENTS)
    assert not re.search("lightning|xla", needed)

    unneeded = tmp_path / "unneeded"  # what a Space has not installed cannot be imported
    unneeded.mkdir()
    for name in ("hydra", "lightning", "matplotlib", "omegaconf", "scipy", "tensorboard", "torch_xla", "torchmetrics"):
        (unneeded / f"{name}.py").write_text("raise ImportError('not in a Space')")
    packages = [path for path in sys.path if path.endswith("-packages")]
    process, address = start(
        "-S",  # without it an editable install would lead to the checkout
        "app.py",
        cwd=folder,
        GRADIO_SERVER_NAME="127.0.0.1",
        GRADIO_SERVER_PORT=str(free_port()),
        PYTHONPATH=os.pathsep.join([str(unneeded), *packages]),
    )
    try:
        label, content = mnist_digit()
        with urllib.request.urlopen(f"{address}config") as reply:
            page = next(part["id"] for part in json.load(reply)["components"] if part["type"] == "html")
        question = {"data": url(content), "component_id": page, "fn_name": "read", "session_hash": "one"}
        with urllib.request.urlopen(
            urllib.request.Request(
                f"{address}gradio_api/component_server/",
                json.dumps(question).encode(),
                {"Content-Type": "application/json"},
            )
        ) as reply:
            assert json.load(reply)["message"] == str(label)
    finally:
        stop(process, signal.SIGTERM)
    assert process.returncode == 128 + signal.SIGTERM


def test_a_space_of_a_model_that_is_not_there_leaves_nothing(tmp_path: Path):
    pytest.importorskip("gradio")
    assert main(["demo", "--space", str(tmp_path / "space"), "--model", str(tmp_path / "none")]) == 1
    assert not (tmp_path / "space").exists()


def test_a_space_is_not_written_over_other_things(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "mine").touch()
    assert main(["demo", "--space", str(tmp_path)]) == 1
    assert "not an empty folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
