"""Pictures of any kind, from files, Pillow or NumPy, as grey levels."""

from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

PictureLike: TypeAlias = "str | Path | Image.Image | NDArray[Any]"


def open_picture(source: PictureLike, longest: int) -> tuple[NDArray[np.uint8], float]:
    """Grey levels uint8 (H, W) of ``source``, its longer side ``longest`` pixels at most, and the scale it was reduced by."""
    image = Image.fromarray(source) if isinstance(source, np.ndarray) else source if isinstance(source, Image.Image) else Image.open(source)
    whole = max(image.size)
    image.draft("L", (longest, longest))
    image = ImageOps.exif_transpose(image).convert("RGBA")
    paper = Image.new("RGBA", image.size, (255, 255, 255, 255)); paper.alpha_composite(image)
    image = paper.convert("L")
    if max(image.size) > longest:
        image.thumbnail((longest, longest), Image.Resampling.BOX, reducing_gap=None)
    return np.asarray(image), max(image.size) / whole
