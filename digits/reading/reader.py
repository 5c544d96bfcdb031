"""The reader: pictures in, digits out."""

import contextlib
import itertools
import math
import os
import statistics
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
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
from digits.network import DeepDigits, to_input
from digits.network.fast import accelerate
from digits.network.fast.memory import keep_freed_memory
from digits.network.fast.precision import evaluates_in_bfloat16
from digits.reading.candidates import Candidate
from digits.reading.components import Box
from digits.reading.picture import PictureLike, Size, make_seekable, open_picture
from digits.reading.segmentation import Segmentation, segment_digits
from digits.reading.selection import Digit, select_digits

# Segmentation
MAX_SIDE = 1000  # pixels: longer side to which a picture is reduced before it is segmented
MIN_SHARP_HEIGHT = 16  # pixels: if digits are smaller still, and there are no more pixels, the picture is enlarged
MIN_DIGIT_HEIGHT = 40  # pixels: if digits are smaller after that, the picture is segmented again, twice as large

# Classification
TTA_RANGE = (0.12, 0.99)  # confidence of what gets test-time augmentation; near 0.1, it is no digit however turned
TTA_ANGLES = (0.0, 0.1)  # radians: by how much its copies are rotated to the left
TTA_ASPECT, MIN_TTA_WIDTH = 0.54, 0.5  # width by height that they are narrowed to; factor for the width, at least

# Many pictures at once
BATCH_SIZE = 64  # pictures that are segmented before their digits are classified, and digits classified at once
SMALL_BATCH_SIZE = 8  # digits classified at once if less than a whole batch is left
MAX_THREADS = 8  # for segmentation, as each may hold a big picture
MAX_KEPT_MEMORY = 64 << 20  # bytes that are not returned to the system after a picture: photos are read a tenth faster
QUICK_PICTURE = 0.002  # seconds: quicker pictures are segmented by one thread, as several would mostly wait

# what segment_digits returns, the size of the picture, and the scale at which it was segmented
Segmented: TypeAlias = tuple[list[Segmentation], Size, float]


class Reader:
    """Reads the digits of pictures.

    Args:
        model: as :func:`digits.exchange.model_folder.load_model` takes it; the package's own by default.

    Raises:
        DigitsError: the model cannot be had.
    """

    def __init__(self, model: str | Path | None = None) -> None:
        self.network = load_model(model)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if evaluates_in_bfloat16(self.network.config_name):  # with channels last it takes a third of the time
            if isinstance(self.network, DeepDigits):
                for layer in self.network.weight_layers():
                    layer.to(torch.bfloat16)  # once; autocast does it for each batch
            else:
                self.network.forward = torch.autocast("cpu", torch.bfloat16)(self.network.forward)
        with torch.inference_mode():
            self._logits = accelerate(self.network, "cpu", frozen=True)

    def read(self, picture: PictureLike) -> list[Digit]:
        """Read the digits of ``picture``.

        Args:
            picture: a path, a binary file, a Pillow image or a NumPy array; see :func:`~.picture.open_picture`.

        Returns:
            The digits in reading order, rows from top to bottom, each from left to right; none if there are none.

        Raises:
            DigitsError: the picture cannot be opened.
        """
        return next(self._recognize([self._segment(picture)]))

    def read_many(
        self, pictures: Iterable[PictureLike], of_one_digit: bool = False
    ) -> Iterator[list[Digit] | DigitsError]:
        """What :meth:`read` returns for each of ``pictures``, in their order, or the error that it would raise.

        With ``of_one_digit`` somebody has said that there is one in each: what alone may be a digit is returned whole,
        even if the network doubts it or would cut it in two.

        Pictures are segmented by several threads, and their digits classified together. Until the last is read, or the
        iterator closed, OpenCV and torch compute in one thread each. Up to ``MAX_KEPT_MEMORY`` bytes of freed memory
        are kept for the next pictures, from now on.
        """
        keep_freed_memory(MAX_KEPT_MEMORY)
        waiting, threads = iter(pictures), min(os.cpu_count() or 1, MAX_THREADS)
        size, seconds = threads, math.inf  # pictures in a batch; time for each picture of the last batch
        failures: list[Exception] = []  # of the iterator ``pictures`` itself
        with _single_threaded_libraries(), ThreadPoolExecutor(threads) as pool:

            def segment_batch() -> Iterator[tuple[list[Segmented | DigitsError], float]]:
                batch: list[PictureLike] = []
                try:
                    batch.extend(itertools.islice(waiting, size))
                except Exception as error:  # raised again when the pictures before it are read
                    failures.append(error)
                # a thread gets several pictures at once, as handing over each one takes time too
                share = size if seconds < QUICK_PICTURE else max(size // (4 * threads), 1)
                shares = [batch[first : first + share] for first in range(0, len(batch), share)]
                return pool.map(self._segment_all, shares)

            try:
                ahead = segment_batch()
                while shares := list(ahead):
                    results = [result for share, _ in shares for result in share]
                    seconds = sum(spent for _, spent in shares) / len(results)
                    size = min(2 * size, BATCH_SIZE)  # batches grow, so that the first results come soon
                    ahead = segment_batch()  # goes on while the digits of this batch are classified
                    segmented = [result for result in results if not isinstance(result, DigitsError)]
                    digits = self._recognize(segmented, of_one_digit)
                    for result in results:
                        yield result if isinstance(result, DigitsError) else next(digits)
                if failures:
                    raise failures[0]
            finally:
                pool.shutdown(cancel_futures=True)  # a closed iterator does not wait for the pictures that are left

    def _segment_all(self, pictures: list[PictureLike]) -> tuple[list[Segmented | DigitsError], float]:
        """The segmentation of each of ``pictures``, or why it failed, and the seconds that this thread computed."""
        start = time.thread_time()
        results: list[Segmented | DigitsError] = []
        for picture in pictures:
            try:
                results.append(self._segment(picture))
            except DigitsError as error:
                results.append(error)
        return results, time.thread_time() - start

    @staticmethod
    def _segment(picture: PictureLike) -> Segmented:
        picture = make_seekable(picture)
        colours = False
        gray, size = open_picture(picture, MAX_SIDE)
        alternatives = segment_digits(gray)
        if not any(
            alternative.candidates for alternative in alternatives
        ):  # the ink may be as bright as the paper, and differ by its colour only
            colours = True
            gray, size = open_picture(picture, MAX_SIDE, colours)
            alternatives = segment_digits(gray)
        reduced = max(gray.shape) < max(size)
        likeliest = alternatives[0].candidates
        if reduced and likeliest and statistics.median(one.box.height for one in likeliest) < MIN_DIGIT_HEIGHT:
            gray, size = open_picture(picture, MAX_SIDE * 2, colours)  # small writing on a large page
            alternatives = segment_digits(gray)
        typical = alternatives[0].typical
        if 0 < typical < MIN_SHARP_HEIGHT:
            factor = min(math.ceil(MIN_DIGIT_HEIGHT / typical), 2 * MAX_SIDE // max(gray.shape))
            if factor > 1:  # strokes are as wide as a pixel or two
                gray = cv2.resize(gray, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
                alternatives = segment_digits(gray)
        return alternatives, size, max(gray.shape) / max(size)

    def _recognize(self, pictures: list[Segmented], of_one_digit: bool = False) -> Iterator[list[Digit]]:
        """The digits of each of ``pictures``, all classified together."""
        candidates = [one for alternatives, _, _ in pictures for each in alternatives for one in each.all()]
        probabilities = iter(self._classify([candidate.image for candidate in candidates]))
        for alternatives, size, scale in pictures:
            read = []
            for alternative in alternatives:
                found = {id(one): _to_digit(one, next(probabilities), size, scale) for one in alternative.all()}
                lone = of_one_digit and len(alternative.candidates) == 1
                read.append([found[id(alternative.candidates[0])]] if lone else select_digits(alternative, found, size))
            yield next((digits for digits in read if digits), [])  # of the likelier polarity, if it has any

    @torch.inference_mode()
    def _classify(self, images: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """The probabilities (N, 10) of ``images``, each (28, 28), with test-time augmentation of uncertain ones.

        Their probabilities are the mean over the image itself and two copies. Those of a wide digit are narrower, and
        one is also turned to the left, as many people's digits are wider than MNIST's and lean more to the right.
        """
        if not images:
            return np.zeros((0, 10), np.float32)
        inputs = to_input(torch.from_numpy(np.stack(images)))
        probabilities = self._probabilities(inputs)
        confidences, (least, sure) = probabilities.max(1).values, TTA_RANGE
        (uncertain,) = torch.nonzero((confidences > least) & (confidences < sure), as_tuple=True)
        if len(uncertain):
            copies = torch.cat([_narrow(inputs[uncertain], angle) for angle in TTA_ANGLES])
            probabilities[uncertain] += self._probabilities(copies).view(len(TTA_ANGLES), len(uncertain), -1).sum(0)
        return (probabilities / probabilities.sum(1, keepdim=True)).numpy()

    @torch.inference_mode()
    def classify(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The probabilities (N, 10) of ``images`` (N, 28, 28), 255 = ink, each as it is."""
        return self._probabilities(to_input(torch.from_numpy(images))).numpy()

    def _probabilities(self, images: Tensor) -> Tensor:
        """The network's probabilities (N, 10) of ``images`` (N, 1, 28, 28), in batches of few different sizes.

        For each new size of batch, the library that convolves on the CPU would keep another plan in memory.
        """
        dtype = self.network.kernels()[0].dtype
        parts, first = [], 0
        while first < len(images):
            left = len(images) - first
            size = BATCH_SIZE if left >= BATCH_SIZE else SMALL_BATCH_SIZE if left > 1 else 1
            part = images[first : first + size]
            first += size
            padded = F.pad(part, (0, 0, 0, 0, 0, 0, 0, size - len(part)))
            parts.append(self.network.softmax(self._logits(padded.to(dtype)))[: len(part)])
        return torch.cat(parts)


@contextlib.contextmanager
def _single_threaded_libraries() -> Iterator[None]:
    """Keeps OpenCV and torch from threads of their own, which would compete with those of the reader."""
    settings = [(cv2.getNumThreads(), cv2.setNumThreads), (torch.get_num_threads(), torch.set_num_threads)]
    for _, set_threads in settings:
        set_threads(1)
    try:
        yield
    finally:
        for before, set_threads in settings:
            if before > 1:  # else another iterator may have set it, and be reading still
                set_threads(before)


def _narrow(images: Tensor, angle: float) -> Tensor:
    """``images`` (N, 1, H, W), wide digits narrowed to ``TTA_ASPECT``, and rotated by ``angle`` radians to the left."""
    ink = images[:, 0] > 0.3
    factor = (TTA_ASPECT * _extent(ink.any(2)) / _extent(ink.any(1))).clamp(MIN_TTA_WIDTH, 1.0)
    cos, sin = math.cos(angle), math.sin(angle)
    # from the new position to the old one
    rows = torch.tensor([[cos, -sin, 0.0]]) / factor[:, None], torch.tensor([[sin, cos, 0.0]]).expand(len(images), 3)
    grid = F.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


def _extent(ink: Tensor) -> Tensor:
    """How far it is from the first to the last True of each row of ``ink``, bool (N, L); at least 1."""
    place = torch.arange(ink.shape[1])
    first, last = place.where(ink, ink.shape[1]).amin(1), place.where(ink, -1).amax(1)
    return (last - first + 1).clamp(min=1)


def text_lines(digits: Iterable[Digit]) -> list[str]:
    """The values of ``digits``, which are in reading order, as one string for each row."""
    return ["".join(str(digit.value) for digit in row) for _, row in itertools.groupby(digits, key=lambda d: d.row)]


def _to_digit(candidate: Candidate, probabilities: NDArray[np.float32], size: Size, scale: float) -> Digit:
    """What ``candidate`` is, in no row yet; its box is in the pixels of the picture, which has the ``size``."""
    left, top, right, bottom = (edge / scale for edge in candidate.box)
    # the picture was reduced to whole pixels, so a box at its edge may end beyond it
    box = Box(math.floor(left), math.floor(top), min(math.ceil(right), size[0]), min(math.ceil(bottom), size[1]))
    value = int(probabilities.argmax())
    confidence = float(probabilities[value])
    return Digit(value, confidence, tuple(probabilities.tolist()), box, 0, candidate.image)
