"""What `digits demo` answers to pictures, its command line, and the Space."""

import io
import json
import os
import platform
import re
import signal
import socket
import subprocess
import sys
import zlib
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from demo_server import free_port, mnist_digit, png, post, start, stop
from PIL import Image, ImageDraw

from digits import Reader
from digits.__main__ import main
from digits.demo import _listen
from digits.demo.answer import answer, read_picture
from digits.demo.limits import MAX_FILE_BYTES, MAX_PIXELS
from digits.demo.space import REQUIREMENTS
from digits.network import WEIGHTS


def large(format: str) -> bytes:
    file = io.BytesIO()
    side = int(MAX_PIXELS**0.5) + 1
    Image.new("1", (side, side)).save(file, format)
    return file.getvalue()


def test_a_large_heic_is_refused_before_it_is_decoded_even_if_it_is_the_first_picture(tmp_path: Path):
    heif = pytest.importorskip("pillow_heif")
    heif.from_pillow(Image.new("L", (MAX_PIXELS // 2000 + 1, 2000))).save(tmp_path / "a.heic")
    code = (
        "import sys; from digits import Reader; from digits.demo.answer import answer\n"
        "print(answer(Reader(), sys.stdin.buffer.read())['message'])"
    )
    content = (tmp_path / "a.heic").read_bytes()
    run = subprocess.run([sys.executable, "-c", code], input=content, capture_output=True, check=True)
    assert b"million pixels" in run.stdout


def bomb() -> bytes:
    """A picture of 40,000 x 40,000 pixels, as its head says."""
    content = bytearray(png(Image.new("1", (1, 1))))
    content[16:24] = (40_000).to_bytes(4, "big") * 2
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    return bytes(content)


UNREADABLE = {
    "large PNG": (large("PNG"), "million pixels"),
    "large TIFF": (large("TIFF"), "million pixels"),
    "bomb": (bomb(), "too many pixels"),
    "cut short": (mnist_digit()[1][:400], "truncated|damaged|cut short"),
    "large file": (bytes(MAX_FILE_BYTES + 1), "larger than 20 MB"),
    "empty file": (b"", "empty"),
}


@pytest.mark.parametrize("what", UNREADABLE)
def test_what_cannot_be_read_is_told(what: str):
    sent, message = UNREADABLE[what]
    told = answer(Reader(), sent)
    assert re.search(message, told["message"]) and told["opened"] is False


def test_an_animation_is_read_by_its_first_frame():
    first = Image.new("L", (200, 200), 255)
    ImageDraw.Draw(first).line([(60, 40), (140, 40), (100, 160)], fill=0, width=14)
    file = io.BytesIO()
    first.save(file, "GIF", save_all=True, append_images=[Image.new("L", (200, 200), 255)])
    assert read_picture(Reader(), file.getvalue())["message"] == "7"


def test_why_takes_only_what_the_network_saw():
    assert "no image of a digit" in answer(Reader(), mnist_digit()[1], why="4")["message"]
    told = answer(Reader(), png(Image.new("L", (28, 28))), why="4")
    assert told["opened"] and told["image"].startswith("data:image/png;base64,")


def test_a_taken_port_is_one_line(capsys: pytest.CaptureFixture[str]):
    pytest.importorskip("gradio")
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert main(["demo", "--port", str(server.getsockname()[1])]) == 1
    error = capsys.readouterr().err
    assert "in use" in error and "--port" in error and error.count("\n") == 1


def test_the_parts_of_an_answer_do_not_wait_for_each_other():
    with _listen("127.0.0.1", None) as listener:  # from which connections inherit it
        assert listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


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


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("gradio")
    folder = tmp_path_factory.mktemp("space") / "space"
    assert main(["demo", "--space", str(folder)]) == 0
    return folder


def test_a_space_has_all_that_the_hub_asks_for(space: Path):
    head = yaml.safe_load((space / "README.md").read_text().split("---\n")[1])
    colours = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}  # the hub has no others
    assert head["emoji"] and head["colorFrom"] in colours and head["colorTo"] in colours
    assert head["sdk"] == "gradio" and head["sdk_version"] == version("gradio")
    assert head["python_version"] == ".".join(platform.python_version_tuple()[:2])
    assert (space / head["app_file"]).is_file() and head["license"] == "apache-2.0"
    assert len(head["short_description"]) <= 60  # the hub's limit
    assert head["tags"] and head["datasets"] and [model.count("/") for model in head["models"]] == [1]


def test_a_space_requires_what_is_installed_here_and_reading_needs(space: Path):
    index, *pinned = (space / "requirements.txt").read_text().splitlines()
    assert index.startswith("--extra-index-url")
    assert {line.split("==")[0] for line in pinned} == {*REQUIREMENTS}
    for line in pinned:
        name, _, number = line.partition("==")
        assert version(name).partition("+")[0] == number


def test_a_space_of_a_model_of_ones_own_names_none_of_the_hub(tmp_path: Path):
    pytest.importorskip("gradio")
    assert main(["demo", "--space", str(tmp_path / "space"), "--model", str(WEIGHTS)]) == 0
    assert "models:" not in (tmp_path / "space" / "README.md").read_text()


def test_a_space_serves_from_its_folder(space: Path, tmp_path: Path):
    unneeded = tmp_path / "unneeded"  # what a Space has not installed cannot be imported
    unneeded.mkdir()
    for name in ("hydra", "lightning", "matplotlib", "omegaconf", "scipy", "tensorboard", "torch_xla", "torchmetrics"):
        (unneeded / f"{name}.py").write_text("raise ImportError('not in a Space')")
    packages = [path for path in sys.path if path.endswith("-packages")]
    process, address = start(
        "-S",  # without it an editable install would lead to the checkout
        "app.py",
        cwd=space,
        GRADIO_SERVER_NAME="127.0.0.1",
        GRADIO_SERVER_PORT=str(free_port()),
        PYTHONPATH=os.pathsep.join([str(unneeded), *packages]),
    )
    try:
        label, content = mnist_digit()
        status, told = post(address, content)
        assert status == 200 and json.loads(told)["message"] == str(label)
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
