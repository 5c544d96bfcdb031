"""Pictures that hold no digit: how many of them the reader answers with one, and how many with confidence.

    python benchmarks/no_digit.py [--json] [--seed N] [--save FOLDER]

Three sets, composed as a camera, a scanner or a program would give them, from the size of an icon to that of a page:
plain ones, surfaces such as creased paper and wood, and noise blurred from not at all to a few blobs. The kinds of a
set are equally frequent, and a picture depends on nothing but the seed, its kind and its number. With --save the
answered ones are written as PNG, with what was read in the name.
"""

import argparse
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image

from digits import Reader
from digits.errors import DigitsError

Array: TypeAlias = NDArray[Any]
Shape: TypeAlias = tuple[int, int]  # height and width
Kind: TypeAlias = Callable[[Generator, Shape], Array]  # gives a picture: uint8, (H, W) or (H, W, 3)

CONFIDENT = 0.9


def log_uniform(rng: Generator, low: float, high: float) -> float:
    """A number between ``low`` and ``high``, each factor equally likely."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def smooth(rng: Generator, shape: Shape, across: float, down: float | None = None) -> Array:
    """Noise blurred by ``across`` pixels, and ``down`` if that differs, of mean 0 and standard deviation 1."""
    sigmas = across, across if down is None else down
    steps = [max(int(sigma / 3), 1) for sigma in sigmas]  # blurred at a smaller size, which looks the same and is quick
    small: Array = rng.standard_normal((shape[0] // steps[1] + 2, shape[1] // steps[0] + 2), np.float32)
    small = cv2.GaussianBlur(small, (0, 0), sigmaX=sigmas[0] / steps[0], sigmaY=sigmas[1] / steps[1])
    field = cv2.resize(small, shape[::-1], interpolation=cv2.INTER_CUBIC)
    return (field - field.mean()) / max(field.std(), 1e-6)


def axes(rng: Generator, shape: Shape, tilt: float) -> tuple[Array, Array]:
    """Pixels to the right and down (H, W) from somewhere in the picture, turned by up to ``tilt`` degrees."""
    y, x = (np.arange(length, dtype=np.float32) - np.float32(rng.uniform(0, length)) for length in shape)
    angle = np.radians(rng.uniform(-tilt, tilt))
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return x * cos + y[:, None] * sin, y[:, None] * cos - x * sin


def gradient(rng: Generator, shape: Shape) -> Array:
    """From 0 where the light of a window and of a lamp is strongest to 1 where it is weakest."""
    across, (x, y) = axes(rng, shape, 180)[0], axes(rng, shape, 0)
    lamp = np.hypot(x, y)
    dark = rng.random() * across / np.ptp(across) + rng.random() * (lamp / lamp.max()) ** 2
    return (dark - dark.min()) / np.ptp(dark)


def jpeg(scene: Array, quality: int) -> Array:
    """``scene`` (H, W, 3), 0 to 1, as it comes back from a JPEG file."""
    Image.fromarray((255 * scene).clip(0, 255).astype(np.uint8)).save(file := io.BytesIO(), "JPEG", quality=quality)
    return np.array(Image.open(file))


def taken(
    rng: Generator, cover: Array, contrast: tuple[float, float], boards: float = 0, yellow: float = 0.15, hue: float = 0
) -> Array:
    """A picture of paper and of what covers it (H, W, 0 to 1), by a camera, a scanner or a program.

    ``boards`` is how often it is light on dark, as on a blackboard; ``yellow`` is how far the paper's colour goes at
    most, and ``hue`` the colour of what covers it.
    """
    paper = rng.uniform(0.7, 1) * (1 - rng.uniform(0, yellow) * np.array((0, rng.uniform(0.3, 0.6), 1)))
    ink = paper * (1 - log_uniform(rng, *contrast) * (1 - rng.uniform(0, hue, 3)))
    if rng.random() < boards:
        paper, ink = 1 - paper, 1 - ink
    scene: Array = (paper + cover.clip(0, 1)[:, :, None] * (ink - paper)).astype(np.float32)
    origin = rng.choice(["camera", "camera", "scanner", "program"])
    if origin == "camera":
        scene = cv2.GaussianBlur(scene, (0, 0), rng.uniform(0.3, 1.2))
        scene = scene * (1 - rng.uniform(0, 0.4) * gradient(rng, cover.shape)[:, :, None])
    if origin != "program":
        grain = log_uniform(rng, 0.003, 0.04) if origin == "camera" else log_uniform(rng, 0.001, 0.008)
        scene = scene + grain * smooth(rng, cover.shape, rng.uniform(0.3, 0.8))[:, :, None]
    if rng.random() < 0.5:
        return jpeg(scene, int(rng.integers(60, 96)))
    return (255 * scene).clip(0, 255).astype(np.uint8)


def noise(rng: Generator, shape: Shape) -> Array:
    """Noise pixel by pixel, grey or coloured, from faint to black and white."""
    values = rng.standard_normal((*shape, 3) if rng.random() < 0.3 else shape)
    return (255 * (rng.uniform(0.2, 0.8) + log_uniform(rng, 0.02, 1) * values)).clip(0, 255).astype(np.uint8)


def clouds(rng: Generator, shape: Shape) -> Array:
    """Low-frequency noise, of one frequency or with finer ones in it."""
    size, rough = log_uniform(rng, 0.02, 0.25) * max(shape), rng.uniform(0, 0.6)
    field = np.sum([rough**octave * smooth(rng, shape, max(size / 2**octave, 1)) for octave in range(4)], axis=0)
    return taken(rng, 0.5 + field / 5, (0.05, 0.95), boards=0.5)


def half_in_shadow(rng: Generator, shape: Shape) -> Array:
    """Paper with a part in a shadow, whose edge is straight or a bit curved, and sharp or soft."""
    across, along = axes(rng, shape, 180)
    edge = across + rng.integers(2) * rng.uniform(-0.5, 0.5) * along**2 / max(shape)
    return taken(rng, 1 / (1 + np.exp((edge / log_uniform(rng, 0.003, 0.1) / max(shape)).clip(-50, 50))), (0.15, 0.7))


def specks(rng: Generator, shape: Shape) -> Array:
    """Paper with dust on it: a few dots or many, up to twice as long as wide."""
    cover, biggest = np.zeros(shape, np.float32), max(log_uniform(rng, 0.003, 0.012) * max(shape), 0.8)
    for _ in range(round(log_uniform(rng, 1, 40))):
        x, y = axes(rng, shape, 180)
        speck = rng.uniform(0.3, 1) * biggest + 0.5 - np.hypot(x, y * rng.uniform(1, 2))
        np.maximum(cover, speck.clip(0, 1) * rng.uniform(0.5, 1), out=cover)
    return taken(rng, cover, (0.1, 0.95), boards=0.3, hue=0.2)


def printed(pattern: str, bend: float = 0) -> Kind:
    """Paper or a board that is ruled, squared or dotted; its lines bend by up to ``bend`` of the longer side."""

    def picture(rng: Generator, shape: Shape) -> Array:
        across, down = axes(rng, shape, 4)
        pitch = max(max(shape) / log_uniform(rng, 3, 35), 6)
        thick = max(rng.uniform(0.015, 0.08) * pitch, 0.7)
        warp = rng.uniform(0, bend) * max(shape) * smooth(rng, shape, 0.3 * max(shape))
        x, y = (np.abs((axis + warp) % pitch - pitch / 2) for axis in (across, down))
        distance = {"ruled": y, "squared": np.minimum(x, y), "dotted": np.hypot(x, y) - thick / 2}[pattern]
        if pattern == "ruled" and rng.random() < 0.3:
            distance = np.minimum(distance, np.abs(across))  # a margin line
        return taken(rng, (thick / 2 + 0.5 - distance).clip(0, 1) * min(thick, 1), (0.06, 0.9), boards=0.2, hue=0.6)

    return picture


def creased(rng: Generator, shape: Shape) -> Array:
    """Paper folded or crumpled: beside an edge it faces the light differently, and the edge itself may be worn."""
    cover, side, crumpled = np.full(shape, 0.3, np.float32), max(shape), rng.random() < 0.5
    for _ in range(rng.integers(8, 30) if crumpled else rng.integers(1, 4)):
        across, along = axes(rng, shape, 180 if crumpled else 5)
        if not crumpled and rng.random() < 0.5:
            across, along = along, across
        reach = np.exp(-((along / side / rng.uniform(0.1, 0.4)) ** 2)) if crumpled else 1
        planes = np.tanh(across / log_uniform(rng, 0.5, 4)) * np.exp(-np.abs(across) / side / rng.uniform(0.03, 0.3))
        edge = rng.uniform(-0.3, 1) * np.exp(-((across / log_uniform(rng, 0.6, 2)) ** 2))
        cover += reach * (rng.normal(0, 0.25) * planes + 0.25 * edge)
    return taken(rng, cover, (0.06, 0.5))


def smudged(rng: Generator, shape: Shape) -> Array:
    """Paper with soft dirty patches, as of fingers and of a rubber."""
    cover, side = np.zeros(shape, np.float32), max(shape)
    for _ in range(rng.integers(1, 9)):
        x, y = axes(rng, shape, 180)
        patch = np.hypot(x / rng.uniform(0.05, 0.25), y / rng.uniform(0.04, 0.15)) / side
        cover += rng.uniform(0.3, 1) * np.exp(-(patch ** rng.uniform(1.5, 3)))
    return taken(rng, cover * (0.7 + 0.2 * smooth(rng, shape, 0.03 * side + 1, 0.005 * side + 1)), (0.05, 0.4), hue=0.2)


def jpegs_noise(rng: Generator, shape: Shape) -> Array:
    """Plain paper with the grain of a camera, in a JPEG file of low quality."""
    paper = rng.uniform(0.6, 1) - rng.uniform(0, 0.4) * gradient(rng, shape)
    paper += log_uniform(rng, 0.01, 0.1) * smooth(rng, shape, rng.uniform(0.3, 1))
    return jpeg(paper[:, :, None] * np.array((1, 0.98, rng.uniform(0.85, 1))), int(rng.integers(10, 41)))


def fibres(rng: Generator, shape: Shape) -> Array:
    """Paper or felt of many thin bent fibres."""
    cover, side = np.zeros(shape, np.uint8), max(shape)
    bend, length = rng.uniform(0, 2), log_uniform(rng, 0.03, 0.3) * side
    for _ in range(round(log_uniform(rng, 150, 2000))):
        angles = rng.uniform(0, 2 * np.pi) + np.linspace(0, rng.normal(0, bend), 12)
        steps = np.stack((np.cos(angles), np.sin(angles)), 1) * rng.uniform(0.3, 1) * length / 12
        points = (16 * (rng.uniform(-0.1, 1.1, 2) * shape[::-1] + steps.cumsum(0))).astype(np.int32)  # sixteenths
        shade, thick = int(rng.integers(30, 256)), int(rng.integers(1, 2 + side // 500))
        cv2.polylines(cover, [points], False, (shade,), thick, cv2.LINE_AA, 4)
    return taken(rng, cover / 255, (0.05, 0.5), boards=0.3, hue=0.5)


def stone(rng: Generator, shape: Shape) -> Array:
    """Granite with grains of three sizes, marble with veins, or concrete with pits."""
    grain = max(log_uniform(rng, 0.003, 0.03) * max(shape), 0.7)
    fine, middle, coarse, veins = (smooth(rng, shape, factor * grain + 0.3) for factor in (0.2, 1, 3, 8))
    field = 0.4 * fine + middle + 0.6 * coarse
    covers = {
        "granite": 0.5 + field / rng.uniform(1, 4),
        "marble": np.exp(-(((veins + 0.15 * field) / rng.uniform(0.03, 0.3)) ** 2)) * (0.6 + 0.2 * field)
        + 0.05 * field,
        "concrete": 0.3 + 0.05 * field + 0.6 * (middle > rng.uniform(2, 3)),
    }
    return taken(rng, covers[rng.choice(list(covers))], (0.1, 0.9), boards=0.3, hue=0.2)


def wood(rng: Generator, shape: Shape) -> Array:
    """A board with its rings, pores and perhaps a knot, or boards side by side; the grain runs across or down."""
    turned, side = rng.random() < 0.5, max(shape)
    size = shape[::-1] if turned else shape
    (_, y), (away, beside) = axes(rng, size, 3), axes(rng, size, 3)
    rings = y + 0.02 * side * smooth(rng, size, 0.3 * side, 0.1 * side)
    knot = np.exp(-((np.hypot(away, 2 * beside) / side / rng.uniform(0.05, 0.2)) ** 2))
    rings += rng.integers(2) * 0.15 * side * knot
    cover = rng.uniform(0, 0.3) * np.sin(2 * np.pi * rings / max(log_uniform(rng, 0.02, 0.15) * side, 4))
    cover += 0.5 + 0.15 * smooth(rng, size, 0.08 * side + 1, 0.002 * side + 0.4)
    if rng.random() < 0.4:
        cover[np.abs(y % (rng.uniform(0.2, 0.7) * side)) < 0.004 * side + 0.5] = 1
    return taken(rng, cover.T if turned else cover, (0.15, 0.7), yellow=0.6, hue=0.2)


def blurred(low: float, high: float) -> Kind:
    """Noise blurred by a Gaussian of ``low`` to ``high`` pixels, from faint to all that 8 bits hold."""

    def picture(rng: Generator, shape: Shape) -> Array:
        sigma, contrast = rng.uniform(low, high), log_uniform(rng, 0.1, 1)
        field: Array = rng.random(shape, np.float32)
        if sigma:
            field = cv2.GaussianBlur(field, (0, 0), sigma)
        field = (field - field.min()) / np.ptp(field) * contrast + rng.uniform(0, 1 - contrast)
        return (255 * field).round().astype(np.uint8)

    return picture


PLAIN: dict[str, Kind] = {
    "white": lambda rng, shape: taken(rng, np.zeros(shape), (1, 1)),
    "black": lambda rng, shape: taken(rng, np.ones(shape), (0.8, 1)),
    "shaded": lambda rng, shape: taken(rng, gradient(rng, shape), (0.1, 0.95), boards=0.3),
}
PLAIN |= {"noise": noise, "clouds": clouds, "ruled": printed("ruled"), "half in shadow": half_in_shadow}
PAPERS = {name: printed(name, bend=0.01) for name in ("ruled", "squared", "dotted")}
OTHERS = {"creased": creased, "smudged": smudged, "JPEG's noise": jpegs_noise, "fibres": fibres, "stone": stone}
BLURS = ((0, 0), (0, 1), (1, 2), (2, 4), (4, 8), (8, 16), (16, 32), (32, 64))
SETS: dict[str, tuple[dict[str, Kind], int, int, int]] = {  # kinds, pictures of each, shortest and longest side
    "plain": (PLAIN | {"specks": specks}, 55, 28, 1200),
    "surfaces": (PAPERS | OTHERS | {"wood": wood}, 40, 28, 1200),
    "blurred noise": ({f"by {low} to {high} pixels": blurred(low, high) for low, high in BLURS}, 60, 100, 500),
}


def compose(seed: int, name: str, kind: str, number: int) -> Array:
    """The picture of this ``number`` of a ``kind`` of the set ``name``, of any size, upright or not."""
    kinds, _, shortest, longest = SETS[name]
    rng = np.random.default_rng((seed, list(SETS).index(name), list(kinds).index(kind), number))
    long = log_uniform(rng, shortest, longest)
    shape = round(max(long / rng.uniform(1, 1.6), shortest)), round(long)
    return kinds[kind](rng, shape if rng.random() < 0.5 else shape[::-1])


def count(seed: int, folder: Path | None) -> dict[str, dict[str, list[int]]]:
    """For each kind of each set how many are answered, how many with confidence, and of how many."""
    chosen = [(name, kind, i) for name, (kinds, each, *_) in SETS.items() for kind in kinds for i in range(each)]
    counts = {name: {kind: [0, 0, each] for kind in kinds} for name, (kinds, each, *_) in SETS.items()}
    for one, digits in zip(chosen, Reader().read_many(compose(seed, *one) for one in chosen), strict=True):
        if isinstance(digits, DigitsError):
            raise digits
        name, kind, number = one
        counts[name][kind][0] += bool(digits)
        counts[name][kind][1] += any(digit.confidence >= CONFIDENT for digit in digits)
        if digits and folder:
            read = "".join(str(digit.value) for digit in digits)[:20]
            file = f"{name}_{kind}_{number:02}_{read}.png".replace(" ", "-").replace("'", "")
            Image.fromarray(compose(seed, *one)).save(folder / file)
    return counts


def main() -> None:
    """Compose, read and count, and print a table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", type=Path, metavar="FOLDER")
    options = parser.parse_args()
    if options.save:
        options.save.mkdir(parents=True, exist_ok=True)
    counts = count(options.seed, options.save)
    if options.json:
        print(json.dumps(counts))
        return
    for name, kinds in counts.items():
        total = [sum(column) for column in zip(*kinds.values(), strict=True)]
        print(f"{name + ': answered / with 0.9 or more / of':52} {total[0]:>4} / {total[1]:>3} / {total[2]}")
        for kind, (answered, sure, of) in kinds.items():
            print(f"    {kind:48} {answered:>4} / {sure:>3} / {of}")


if __name__ == "__main__":
    main()
