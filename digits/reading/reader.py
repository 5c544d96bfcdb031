"""Pictures in, digits out."""

import contextlib
import itertools
import math
import os
import statistics
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from digits.errors import DigitsError
from digits.exchange.model_folder import load_model
from digits.memory import keep_freed_memory
from digits.network import DeepDigits, native_bfloat16, to_input
from digits.reading.parts import Box
from digits.reading.picture import PictureLike, Size, open_picture, reopenable
from digits.reading.segment import Found, find_digits

GUESS = 0.5  # confidence below which ink is rather no digit
BATCH = 64  # pictures that are opened before their digits are classified together
FEW = 8  # digits that are classified together where fewer than a batch are left
MOST_THREADS = 8  # that search side by side, as each may hold a big picture
KEPT = 64 << 20  # bytes; photos are read a tenth faster than without
QUICK = 0.002  # seconds for a picture, below which threads that search side by side mostly wait for each other
CERTAIN = 0.99  # confidence from which on one look is enough
LOOKS = ((0.65, 0.0), (0.65, 0.15))  # the other looks: width, and how far to the left it is turned, in radians
TOO_WIDE, WIDEST = 3.0, 1.75  # log-probability that a digit loses for each height that it is wider than the second
SMALL = 40  # pixels: the height of digits below which the picture is looked at again, twice as large
LONGEST = 1000  # pixels on the longer side of the picture that is looked at

# what find_digits says, the size of the whole picture, and the scale of the one that was searched
Searched: TypeAlias = tuple[list[list[Found]], Size, float]


@dataclass(frozen=True)
class Digit:
    """One digit that was read."""

    value: int  # 0 to 9
    confidence: float  # the probability of `value`, by the model's temperature
    probabilities: tuple[float, ...]  # of the ten digits
    box: Box
    row: int  # which line of the picture it is in, from 0
    image: NDArray[np.uint8]  # (28, 28), 255 = ink: what the network saw


class Reader:
    """Reads the digits of pictures.

    Args:
        model: as :func:`digits.exchange.model_folder.load_model` takes it; the package's own by default.
    """

    def __init__(self, model: str | Path | None = None) -> None:
        self.network = load_model(model)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if native_bfloat16("cpu"):  # with which, and with channels last, the network takes a third of the time
            for layer in self.network.weight_layers():
                layer.to(torch.bfloat16)  # once; autocast would do it for each batch

    def read(self, picture: PictureLike) -> list[Digit]:
        """The digits of ``picture`` in reading order: rows from above, each from left to right; none in a blank one."""
        return next(self._classified([self._find(picture)]))

    @staticmethod
    def _find(picture: PictureLike) -> Searched:
        picture = reopenable(picture)
        colours = False
        gray, size = open_picture(picture, LONGEST)
        answers = find_digits(gray)
        if not any(answers):  # perhaps the ink is as bright as the paper
            colours = True
            gray, size = open_picture(picture, LONGEST, colours)
            answers = find_digits(gray)
        reduced = max(gray.shape) < max(size)
        if reduced and answers[0] and statistics.median(digit.box.height for digit in answers[0]) < SMALL:
            gray, size = open_picture(picture, LONGEST * 2, colours)  # small writing on a large page: a closer look
            answers = find_digits(gray)
        return answers, size, max(gray.shape) / max(size)

    def _classified(self, pictures: list[Searched]) -> Iterator[list[Digit]]:
        """The digits of each picture, as it was searched; one pass of the network."""
        every = [
            each
            for answers, _, _ in pictures
            for found in answers
            for digit in found
            for each in (digit, *digit.between.values())
        ]
        probabilities = iter(self._probabilities([each.image for each in every]))
        for answers, size, scale in pictures:
            read = []
            for found in answers:
                digits: list[Digit] = []
                for each in found:
                    whole = _digit(each, next(probabilities), size, scale)
                    between = {
                        cuts: _digit(part, next(probabilities), size, scale) for cuts, part in each.between.items()
                    }
                    digits += _most_probable(whole, between)
                read.append(_legible(digits))
            yield next((digits for digits in read if digits), [])  # the likelier answer comes first

    @torch.inference_mode()
    def _probabilities(self, images: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """The probabilities (N, 10) of ``images``, each (28, 28).

        What is not certain is looked at again, and the mean taken: many people's digits are wider than MNIST's, and
        lean more to the right.
        """
        if not images:
            return np.zeros((0, DeepDigits.classes), np.float32)
        whole = to_input(torch.from_numpy(np.stack(images)))
        probabilities = self._classify(whole)
        (unsure,) = torch.nonzero(probabilities.max(1).values < CERTAIN, as_tuple=True)
        if len(unsure):
            looks = torch.cat([_changed(whole[unsure], width, turn) for width, turn in LOOKS])
            probabilities[unsure] += self._classify(looks).view(len(LOOKS), len(unsure), -1).sum(0)
        return (probabilities / probabilities.sum(1, keepdim=True)).numpy()

    def _classify(self, images: Tensor) -> Tensor:
        """The probabilities (N, 10) of ``images`` (N, 1, 28, 28), in few sizes of batch.

        For each new size the CPU's library would keep another plan in memory.
        """
        parts, first = [], 0
        while first < len(images):
            left = len(images) - first
            size = BATCH if left >= BATCH else FEW if left > 1 else 1
            part = images[first : first + size]
            first += size
            padded = F.pad(part, (0, 0, 0, 0, 0, 0, 0, size - len(part)))
            parts.append(self.network.probabilities(padded)[: len(part)])
        return torch.cat(parts)

    def read_many(self, pictures: Iterable[PictureLike]) -> Iterator[list[Digit] | DigitsError]:
        """What :meth:`read` returns for each of ``pictures``, in their order, or the error that it would raise.

        Pictures are opened and searched side by side, and their digits classified together. Until the last is read, or
        the iterator closed, OpenCV and torch compute in one thread each. What a picture's memory was is kept for the
        next ones, up to ``KEPT`` bytes.
        """
        keep_freed_memory(KEPT)
        waiting, threads = iter(pictures), min(os.cpu_count() or 1, MOST_THREADS)
        size, seconds = threads, math.inf  # in a batch, and for each picture of the last
        failures: list[Exception] = []  # of ``pictures`` itself
        with _one_thread_each(), ThreadPoolExecutor(threads) as pool:

            def search() -> Iterator[tuple[list[Searched | DigitsError], float]]:
                some: list[PictureLike] = []
                try:
                    some.extend(itertools.islice(waiting, size))
                except Exception as error:  # raised again when what came before is read
                    failures.append(error)
                # handing over each picture alone takes time too
                share = size if seconds < QUICK else max(size // (4 * threads), 1)
                return pool.map(self._attempt, [some[first : first + share] for first in range(0, len(some), share)])

            try:
                ahead = search()
                while parts := list(ahead):
                    results = [result for part, _ in parts for result in part]
                    seconds = sum(spent for _, spent in parts) / len(results)
                    size = min(2 * size, BATCH)  # the first answers come soon
                    ahead = search()  # while these are classified
                    digits = self._classified([result for result in results if not isinstance(result, DigitsError)])
                    for result in results:
                        yield result if isinstance(result, DigitsError) else next(digits)
                if failures:
                    raise failures[0]
            finally:
                pool.shutdown(cancel_futures=True)  # who wants no more does not wait for pictures that are left

    def _attempt(self, pictures: list[PictureLike]) -> tuple[list[Searched | DigitsError], float]:
        """What is found in each of ``pictures``, and the seconds that this thread worked on them."""
        start = time.thread_time()
        results: list[Searched | DigitsError] = []
        for picture in pictures:
            try:
                results.append(self._find(picture))
            except DigitsError as error:
                results.append(error)
        return results, time.thread_time() - start


@contextlib.contextmanager
def _one_thread_each() -> Iterator[None]:
    """OpenCV and torch kept from threads of their own: beside threads that search, these would wait for each other."""
    settings = [(cv2.getNumThreads(), cv2.setNumThreads), (torch.get_num_threads(), torch.set_num_threads)]
    for _, set_threads in settings:
        set_threads(1)
    try:
        yield
    finally:
        for before, set_threads in settings:
            if before > 1:  # else it was set so, perhaps by another that is reading and not to be undone here
                set_threads(before)


def _changed(images: Tensor, width: float, turn: float) -> Tensor:
    """``images`` (N, 1, H, W) at ``width`` times their width, turned by ``turn`` radians to the left."""
    cos, sin = math.cos(turn), math.sin(turn)
    matrix = torch.tensor([[cos / width, -sin / width, 0.0], [sin, cos, 0.0]])  # from the new place to the old
    grid = F.affine_grid(matrix.expand(len(images), 2, 3), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


def lines(digits: Iterable[Digit]) -> list[str]:
    """The values of ``digits``, which are in reading order, a string for each row."""
    return ["".join(str(digit.value) for digit in row) for _, row in itertools.groupby(digits, key=lambda d: d.row)]


def _most_probable(whole: Digit, between: dict[tuple[int, int], Digit]) -> list[Digit]:
    """``whole``, or where they are more probable the digits that it is cut into, by their places (first cut, last)."""
    if not between:
        return [whole]
    best: dict[int, tuple[float, list[Digit]]] = {0: (0.0, [])}  # up to each cut: log-probability, digits
    end = max(last for _, last in between)
    for last in range(1, end + 1):
        ways = [
            (best[first][0] + math.log(digit.confidence), [*best[first][1], digit])
            for (first, to), digit in between.items()
            if to == last and first in best
        ]
        if ways:
            best[last] = max(ways, key=lambda way: way[0])
    alone = math.log(whole.confidence) - TOO_WIDE * max(whole.box.width / whole.box.height - WIDEST, 0)
    return best[end][1] if end in best and best[end][0] > alone else [whole]


def _legible(digits: list[Digit]) -> list[Digit]:
    """``digits`` without those that the network would only guess; rows without any are not counted."""
    digits = [digit for digit in digits if digit.confidence >= GUESS]
    numbers = {row: number for number, row in enumerate(sorted({digit.row for digit in digits}))}
    return [replace(digit, row=numbers[digit.row]) for digit in digits]


def _digit(found: Found, probabilities: NDArray[np.float32], size: Size, scale: float) -> Digit:
    left, top, right, bottom = (edge / scale for edge in found.box)
    # the picture ends where it ended before its sides were reduced to whole pixels
    box = Box(math.floor(left), math.floor(top), min(math.ceil(right), size[0]), min(math.ceil(bottom), size[1]))
    value = int(probabilities.argmax())
    return Digit(value, float(probabilities[value]), tuple(probabilities.tolist()), box, found.row, found.image)
