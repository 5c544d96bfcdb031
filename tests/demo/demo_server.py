"""A server of the page as a process of its own, and pictures to send to it."""

import io
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
from PIL import Image

from digits.data.mnist import load_mnist5k


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


def post(address: str, content: bytes, path: str = "read", **headers: str) -> tuple[int, bytes]:
    """Status and body of the answer."""
    request = urllib.request.Request(f"{address}{path}", content, headers)
    try:
        with urllib.request.urlopen(request) as reply:
            return reply.status, reply.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
