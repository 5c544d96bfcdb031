"""In which precision a network computes faster here: as was measured on this machine, or as the processor says."""

import contextlib
import json
import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from digits import __version__
from digits.files import write_atomically

CPUINFO = Path("/proc/cpuinfo")  # of Linux
DISTINGUISHING = ("vendor_id", "cpu family", "model", "model name", "stepping")  # clouds give many one "model name"


@dataclass(frozen=True)
class Speed:
    """How many times as fast as in float32 a network computes in bfloat16, in training and in evaluation."""

    training: float
    evaluation: float


def native_bfloat16(device: str) -> bool:
    """Whether "cpu" or a GPU computes in bfloat16 itself; where it is emulated it takes many times float32's time."""
    if device == "cpu":
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)


def evaluates_in_bfloat16(network: str) -> bool:
    """Whether the network of this name is evaluated in bfloat16 on this CPU; nothing is measured for it."""
    if not native_bfloat16("cpu"):
        return False
    speed = known_speed(network)
    return speed is None or speed.evaluation > 1


def known_speed(network: str) -> Speed | None:
    """What was measured here for the network of this name, with these versions and so many threads; else None."""
    try:
        return Speed(**_read()[_key(network)])
    except (KeyError, TypeError):
        return None


def keep_speed(network: str, speed: Speed) -> None:
    """Keep what was measured, if the cache folder can be written."""
    file = _file()
    content = json.dumps(_read() | {_key(network): asdict(speed)}, indent=2)
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, content.encode() + b"\n")


def _file() -> Path:
    folder = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(folder).expanduser() / "deepdigits" / "precision.json"


def _read() -> dict[str, dict[str, float]]:
    try:
        content = json.loads(_file().read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _key(network: str) -> str:
    """What a measurement holds for, in words."""
    return (
        f"{network}, {_processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}, digits {__version__}"
    )


def _processor() -> str:
    try:
        lines = CPUINFO.read_text().split("\n\n")[0].splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    pairs = (line.partition(":") for line in lines)
    values = {name.strip(): value.strip() for name, _, value in pairs}
    return " ".join(values[name] for name in DISTINGUISHING if name in values)
