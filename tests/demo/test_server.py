"""The server of the page: what it lets in, what it keeps, and what a picture may do to the others."""

import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from conftest import ROOT
from demo_server import free_port, mnist_digit, png, post, start, stop
from PIL import Image

from digits.demo.limits import LARGE_ROOM, MAX_FILE_BYTES, SMALL_BYTES

NOTES_FILES_OPENED_FOR_WRITING = """
import os, sys
log = os.open(os.environ["OPENED"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
def note(event, arguments):
    if event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        if arguments[0] != os.devnull:
            os.write(log, f"{arguments[0]}\\n".encode())
sys.addaudithook(note)
"""
FORM = b'--a\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\nink\r\n--a--\r\n'


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The list of files that Python opens for writing in the processes of the server."""
    folder = tmp_path_factory.mktemp("opened")
    (folder / "sitecustomize.py").write_text(NOTES_FILES_OPENED_FOR_WRITING)
    return folder / "opened"


@pytest.fixture(scope="module")
def server(opened: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, psutil.Process]]:
    pytest.importorskip("gradio")
    process, address = start(
        *("-m", "digits", "demo", "--port", str(free_port()), "--host", "127.0.0.1", "--host", "digits.example"),
        cwd=ROOT,
        PYTHONPATH=os.pathsep.join([str(opened.parent), str(ROOT)]),
        PYTHONDONTWRITEBYTECODE="1",
        OPENED=str(opened),
        TMPDIR=str(tmp_path_factory.mktemp("temporary")),
    )
    yield address, psutil.Process(process.pid)
    stop(process)


@pytest.fixture
def address(server: tuple[str, psutil.Process]) -> str:
    return server[0]


def port_of(address: str) -> int:
    return int(address.split(":")[2].strip("/"))


def ask_raw(address: str, request: bytes) -> bytes:
    """The answer to a request that no client would send."""
    with socket.create_connection(("127.0.0.1", port_of(address)), timeout=20) as connection:
        connection.sendall(request)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def get(address: str, path: str, *headers: str) -> tuple[int, str]:
    lines = "\r\n".join([f"GET {path} HTTP/1.1", "Connection: close", *headers, "", ""])
    answer = ask_raw(address, lines.encode()).decode(errors="replace")
    return int(answer.split()[1]), answer


def noise(size: int) -> bytes:
    """A picture of about ``size`` bytes."""
    side = int((size / 3) ** 0.5)
    return png(Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)))


PHOTO = noise(int(1.1 * SMALL_BYTES))  # large enough not to be read where drawings are


def readers(process: psutil.Process) -> list[psutil.Process]:
    """The processes that read pictures."""
    return [child for child in process.children(recursive=True) if child.ppid() != process.pid]


def test_a_picture_is_read(address: str):
    label, content = mnist_digit()
    status, answer = post(address, content)
    assert status == 200 and json.loads(answer)["message"] == str(label)


def test_why_is_answered_for_digits_only(address: str):
    image = png(Image.new("L", (28, 28)))
    assert post(address, image, "read?why=4")[0] == 200
    assert [post(address, image, f"read?why={why}")[0] for why in ("44", "x", "%00")] == [400, 400, 400]


def test_an_upload_is_refused_however_it_is_labelled(address: str):
    for path in ("gradio_api/upload", "gradio_api/upload?upload_id=a", "gradio_api/component_server/"):
        for kinds in (["multipart/form-data; boundary=a"], ["multipart/form-data; boundary=a", "application/json"]):
            for ordered in (kinds, kinds[::-1]):
                lines = [
                    f"POST /{path} HTTP/1.1",
                    "Host: 127.0.0.1",
                    "Connection: close",
                    f"Content-Length: {len(FORM)}",
                ]
                lines += [f"Content-Type: {kind}" for kind in ordered]
                answer = ask_raw(address, "\r\n".join([*lines, "", ""]).encode() + FORM)
                assert answer.startswith(b"HTTP/1.1 404"), answer


def test_nothing_that_is_sent_is_ever_in_a_file(address: str, opened: Path):
    environment = os.environ | {"PYTHONPATH": str(opened.parent), "OPENED": str(opened)}
    code = "import tempfile; tempfile.TemporaryFile()"
    before = opened.read_text()
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    assert (after := opened.read_text()) != before  # what is opened is noted, without a name too

    form = {"Content-Type": "multipart/form-data; boundary=a"}
    assert post(address, mnist_digit()[1])[0] == 200
    assert post(address, PHOTO)[0] == 200
    assert post(address, noise(int(0.98 * MAX_FILE_BYTES)))[0] in (200, 422)  # on a busy machine it takes too long
    assert json.loads(post(address, FORM, **form)[1])["opened"] is False
    assert post(address, bytes(MAX_FILE_BYTES + 1))[0] == 413
    for path in ("", "gradio_api/upload", "gradio_api/component_server/", "gradio_api/run/predict"):
        assert post(address, FORM, path, **form)[0] in (404, 405)
    assert opened.read_text() == after


def test_a_file_that_is_too_long_is_refused_with_and_without_a_length(address: str):
    status, answer = post(address, bytes(MAX_FILE_BYTES + 1))
    assert status == 413 and "larger than 20 MB" in json.loads(answer)["message"]
    chunk = b"%x\r\n%s\r\n" % (1_000_000, bytes(1_000_000))
    head = b"POST /read HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert ask_raw(address, head + 21 * chunk + b"0\r\n\r\n").startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize("host", ["127.0.0.1", "192.168.1.7:7860", "[::1]:7860", "localhost:80", "Digits.Example."])
def test_it_answers_to_addresses_localhost_and_given_names(address: str, host: str):
    assert get(address, "/", f"Host: {host}")[0] == 200


@pytest.mark.parametrize(
    "hosts", [["evil.example"], ["localhost.evil.example:7860"], ["127.0.0.1@evil.example"], ["127.0.0.1:80<b>"], [""]]
)
def test_it_does_not_answer_to_other_names(address: str, hosts: list[str]):
    headers = [f"Host: {host}" for host in hosts]
    status, answer = get(address, "/", *headers)
    assert status == 421 and "--host" in answer
    assert get(address, "/assets/none.js", *headers)[0] == 421


def test_two_names_are_none(address: str):
    assert get(address, "/", "Host: 127.0.0.1", "Host: evil.example")[0] in (400, 421)


def test_no_header_but_host_decides_what_is_on_the_page(address: str):
    forged = ("X-Forwarded-Host", "X-Gradio-Server", "X-Original-Url", "Forwarded", "X-Forwarded-Prefix", "Referer")
    status, page = get(
        address, "/?deep_link=evil.example", "Host: 127.0.0.1", *[f"{name}: evil.example" for name in forged]
    )
    assert status == 200 and "evil.example" not in page


def test_another_site_cannot_have_pictures_read(address: str):
    assert post(address, mnist_digit()[1], **{"Sec-Fetch-Site": "cross-site"})[0] == 403


def test_who_sends_slowly_gives_way(address: str):
    head = f"POST /read HTTP/1.1\r\nHost: localhost\r\nContent-Length: {MAX_FILE_BYTES}\r\n\r\n".encode()
    slow = [socket.create_connection(("127.0.0.1", port_of(address))) for _ in range(LARGE_ROOM // MAX_FILE_BYTES)]
    try:
        for connection in slow:
            connection.sendall(head + b"ink")
        time.sleep(0.5)
        assert post(address, mnist_digit()[1])[0] == 200
        assert not select.select(slow, [], [], 0)[0]  # small pictures need not wait for that
        assert post(address, PHOTO)[0] == 200
        assert slow[0].recv(100).startswith(b"HTTP/1.1 408")
    finally:
        for connection in slow:
            connection.close()


@pytest.mark.parametrize(("size", "readers_of_it"), [("small", 2), ("large", 1)])
def test_a_picture_that_takes_long_blocks_nobody(server: tuple[str, psutil.Process], size: str, readers_of_it: int):
    address, process = server
    content = mnist_digit()[1] if size == "small" else PHOTO
    assert [post(address, content)[0] for _ in range(3)] == [200, 200, 200]  # all readers are there
    stopped = readers(process)
    for reader in stopped:
        reader.suspend()  # as a picture that takes for ever would
    with ThreadPoolExecutor() as threads:
        statuses = list(threads.map(lambda _: post(address, content)[0], range(readers_of_it + 1)))
    assert sorted(statuses) == [200, *readers_of_it * [422]]  # those that were being read
    assert sum(not reader.is_running() for reader in stopped) == readers_of_it
    for reader in readers(process):
        reader.resume()


def test_a_picture_that_ends_its_reader_gets_a_sentence(server: tuple[str, psutil.Process]):
    address, process = server
    content = mnist_digit()[1]
    assert post(address, content)[0] == 200
    for reader in readers(process):
        reader.suspend()
    with ThreadPoolExecutor() as threads:
        asked = threads.submit(post, address, content)
        time.sleep(1)
        for reader in readers(process):
            reader.kill()  # as a fault of a decoder would
        status, answer = asked.result()
    assert status == 422 and "cannot be read" in json.loads(answer)["message"]
    assert [post(address, content)[0] for _ in range(3)] == [200, 200, 200]


@pytest.fixture
def app() -> Any:
    pytest.importorskip("gradio")
    from digits.demo.server import build_app

    return build_app([], [], [])


def routes_of(app: Any, prefix: str = "") -> Iterator[str]:
    """The paths of all routes of a FastAPI or Starlette application."""
    for route in app.routes:
        inner = getattr(route, "original_router", None) or getattr(route, "app", None)
        if hasattr(inner, "routes"):
            yield from routes_of(inner, prefix + getattr(route, "path", ""))
        else:
            yield prefix + route.path


def test_every_route_that_the_page_does_not_need_is_not_there(app: Any):
    from starlette.testclient import TestClient

    from digits.demo.server import FOLDERS, PAGES

    paths = {re.sub(r"{.*?}", "a", path) for path in routes_of(app._page)}
    assert {"/gradio_api/upload", "/gradio_api/queue/join", "/config", "/openapi.json", "/login"} <= paths
    assert len(paths) > 70
    bare, guarded = TestClient(app._page), TestClient(app, base_url="http://localhost")
    assert bare.get("/config").status_code == bare.get("/gradio_api/app_id").status_code == 200
    for path in paths - PAGES:
        if not path.startswith(FOLDERS):
            for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"):
                assert guarded.request(method, path).status_code == 404, (method, path)
    for path in PAGES | {f"{folder}a" for folder in FOLDERS}:
        assert guarded.post(path).status_code == 405


def test_a_space_answers_to_its_own_name_and_builds_the_page_for_it(monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("gradio")
    from starlette.testclient import TestClient

    from digits.demo.server import build_app

    monkeypatch.setenv("SPACE_HOST", "owner-digits.hf.space,digits.example")
    app = build_app([], [], [])
    for host in ("owner-digits.hf.space", "digits.example", "10.0.0.7:7860"):
        reply = TestClient(app, base_url=f"http://{host}").get("/", headers={"X-Forwarded-Host": "evil.example"})
        assert reply.status_code == 200
        assert "https://owner-digits.hf.space" in reply.text and "evil.example" not in reply.text
    assert TestClient(app, base_url="http://evil.example").get("/").status_code == 421


def test_behind_a_proxy_the_page_is_built_for_the_address_that_is_given(monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("gradio")
    from starlette.testclient import TestClient

    from digits.demo.server import build_app

    monkeypatch.setenv("GRADIO_ROOT_PATH", "https://digits.example/page")
    reply = TestClient(build_app([], [], []), base_url="http://127.0.0.1:7860").get("/")
    assert "https://digits.example/page" in reply.text and "http://127.0.0.1:7860" not in reply.text


def test_a_model_that_is_not_there_is_one_line(tmp_path: Path):
    pytest.importorskip("gradio")
    command = [sys.executable, "-m", "digits", "demo", "--port", str(free_port()), "--model", str(tmp_path / "none")]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert run.returncode == 1
    assert run.stderr.startswith("digits: ") and run.stderr.count("\n") == 1


def test_ctrl_c_while_it_starts_is_one_line():
    pytest.importorskip("gradio")
    process = subprocess.Popen(
        [sys.executable, "-m", "digits", "demo", "--port", str(free_port())],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    time.sleep(2)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does it: to all of its processes
    assert process.communicate(timeout=60)[0] == "digits: interrupted\n"
    assert process.returncode == 130
