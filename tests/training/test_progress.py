"""What a run shows while it trains, on a terminal 80 columns wide."""

import os
import re
import select
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from digits.training.history import epoch_line

pty = pytest.importorskip("pty", reason="a terminal of our own needs POSIX")
fcntl = pytest.importorskip("fcntl", reason="a terminal of our own needs POSIX")


def test_the_bar_fits_80_columns_and_shows_what_is_measured(tmp_path: Path):
    import struct
    import termios

    terminal, end = pty.openpty()
    fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    settings = ["data=mnist5k", "data.batch_size=64", "trainer.max_epochs=2", "trainer.limit_train_batches=20"]
    command = [sys.executable, str(ROOT / "train.py"), *settings, "trainer.log_every_n_steps=2"]
    process = subprocess.Popen(command, cwd=tmp_path, stdin=end, stdout=end, stderr=end)
    os.close(end)
    shown = b""
    while select.select([terminal], [], [], 120)[0]:
        try:
            shown += os.read(terminal, 65536)
        except OSError:  # Linux's way to say that the other end was closed
            break
    assert process.wait(60) == 0

    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    bars = [line for line in re.split(r"[\r\n]+", text) if "%|" in line]
    assert max(len(line) for line in bars) <= 80
    measured = [line for line in bars if line.startswith("epoch 2/2") and "img/s" in line]
    assert re.search(r"loss \d\.\d+ acc 0\.\d+ val 0\.\d+ \d+ img/s", measured[-1])


def test_an_epoch_is_one_line_of_at_most_80_columns():
    row = {"epoch": 80, "train/loss": 0.13, "train/sparse_accuracy": 0.99123, "images_per_second": 123456.7}
    line = epoch_line(row | {"val/loss": 12.7661, "val/sparse_accuracy": 1.0}, 80)
    assert "99.12%" in line
    assert "123,457 img/s" in line
    assert len(line) <= 80
