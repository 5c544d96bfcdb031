"""Memory is asked for as it is used fastest."""

import subprocess
import sys
from pathlib import Path

import pytest

from digits.network.fast.memory import keep_freed_memory

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


@pytest.mark.skipif(sys.platform != "linux", reason="huge pages are asked for on Linux only")
def test_training_has_torch_allocate_huge_pages():
    program = (
        "from digits.training.command import main\n"
        "import contextlib\n"
        "with contextlib.suppress(SystemExit): main(['--no-such-option'], 'train.py')\n"
        "import torch\n"
        "x = torch.ones(2**25)\n"  # 128 MB
        "lines = open('/proc/self/smaps').read().splitlines()\n"
        "print(sum(int(line.split()[1]) for line in lines if line.startswith('AnonHugePages')) // 1024)\n"
    )
    setting = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if not setting.exists() or "[never]" in setting.read_text():
        pytest.skip("this kernel gives no huge pages")
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(run.stdout) > 0


@pytest.mark.parametrize(("most_taken", "kept"), [(2**31, 2**31 - 1), (32 * 2**20, 2**31 - 1), (0, None)])
def test_old_allocators_that_take_less_are_given_less_or_left_alone(
    monkeypatch: pytest.MonkeyPatch, most_taken: int, kept: int | None
):
    taken = {}

    class Libc:  # of another age than this machine's
        def mallopt(self, parameter: int, value: int) -> int:
            if parameter == M_MMAP_THRESHOLD and value > most_taken:
                return 0
            taken[parameter] = value
            return 1

    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr("ctypes.CDLL", lambda _: Libc())
    keep_freed_memory()
    assert taken.get(M_TRIM_THRESHOLD) == kept
    assert (M_MMAP_THRESHOLD in taken) == (kept is not None)
