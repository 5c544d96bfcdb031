"""Memory is asked for as it is used fastest."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(sys.platform != "linux", reason="huge pages are asked for on Linux only")
def test_huge_pages_are_given_to_what_torch_allocates_after_they_were_asked_for():
    program = (
        "from digits.memory import use_huge_pages\n"
        "use_huge_pages()\n"
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
