"""Random affine warps of a batch of images, and random widths of their strokes."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def resample(images: Tensor, places: Tensor) -> Tensor:
    """Read ``images`` (N, 1, H, W) at other places, bilinearly, zero outside.

    On XLA, which has no `grid_sample`, as two products with interpolation weights: every output pixel weighs all rows,
    then all columns, by how near they are (zero from one pixel on). On a CPU that would take ten times as long.

    Args:
        images: float (N, 1, H, W).
        places: (N, 2, H, W), for each pixel of the output x and y in the input, both in [-1, 1] from edge to edge.

    Returns:
        float (N, 1, H, W).
    """
    if images.device.type != "xla":
        return F.grid_sample(images, places.permute(0, 2, 3, 1), align_corners=False)
    return _resample_by_products(images, places)


def _resample_by_products(images: Tensor, places: Tensor) -> Tensor:
    n, _, height, width = images.shape
    ys, xs = (torch.arange(size, dtype=images.dtype, device=images.device) for size in (height, width))
    x, y = places.flatten(2).unbind(1)  # (N, H * W)
    row, column = ((y + 1) * height - 1) / 2, ((x + 1) * width - 1) / 2
    row_weights = (1 - (row.unsqueeze(2) - ys).abs()).clamp(min=0)  # (N, H * W, H)
    column_weights = (1 - (column.unsqueeze(2) - xs).abs()).clamp(min=0)
    rows = row_weights @ images.view(n, height, width)  # (N, H * W, W)
    return (rows * column_weights).sum(2).view(n, 1, height, width)


def pixel_grid(height: int, width: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Coordinates x and y, each (H * W,), of each pixel's middle, in [-1, 1] from edge to edge; dtype as ``like``."""
    ys, xs = (torch.arange(size, dtype=like.dtype, device=like.device) for size in (height, width))
    y, x = torch.meshgrid((2 * ys + 1) / height - 1, (2 * xs + 1) / width - 1, indexing="ij")
    return x.flatten(), y.flatten()


def widened(images: Tensor) -> Tensor:
    """Strokes a pixel wider on every side: the largest of each pixel of (N, 1, H, W) and its four neighbours."""
    return torch.maximum(F.max_pool2d(images, (1, 3), 1, (0, 1)), F.max_pool2d(images, (3, 1), 1, (1, 0)))


class RandomWarp(nn.Module):
    """Rotate, scale, shear and shift each image of a batch and change its strokes' width, each by a random amount.

    In training mode only.

    Args:
        degrees: rotation is uniform in ±degrees.
        scale: each side is scaled by a factor uniform in 1 ± scale.
        shear: x moves by up to ±shear times y.
        shift: each direction is shifted by up to ±shift pixels of 28.
        stroke: strokes get up to about ±stroke pixels wider on every side, at most 1.
    """

    def __init__(self, degrees: float, scale: float, shear: float, shift: float, stroke: float = 0.0) -> None:
        super().__init__()
        self.degrees = degrees
        self.scale = scale
        self.shear = shear
        self.shift = shift
        self.stroke = stroke

    def forward(self, images: Tensor) -> Tensor:
        """Warp float images (N, 1, 28, 28)."""
        if not self.training:
            return images
        n, _, height, width = images.shape
        draws = 2 * torch.rand(6, n, dtype=images.dtype, device=images.device) - 1
        angle = draws[0] * math.radians(self.degrees)
        wider, higher = 1 + self.scale * draws[1], 1 + self.scale * draws[2]
        shear = self.shear * draws[3]
        shift_x, shift_y = draws[4:] * (2 * self.shift / width)  # [-1, 1] spans all pixels
        cos, sin = angle.cos(), angle.sin()
        rows = [cos / wider, (shear * cos - sin) / wider, shift_x, sin / higher, (shear * sin + cos) / higher, shift_y]
        by_x, by_y, constant = torch.stack(rows, dim=1).view(n, 2, 3, 1).unbind(2)
        x, y = pixel_grid(height, width, images)
        places = by_x * x + by_y * y + constant  # no matrix product: autocast would round the places to bfloat16
        images = resample(images, places.view(n, 2, height, width))
        return self._change_strokes(images) if self.stroke else images

    def _change_strokes(self, images: Tensor) -> Tensor:
        """A part of the way to the image with wider strokes, or with narrower ones: those of wider paper."""
        amount = self.stroke * (2 * torch.rand(len(images), 1, 1, 1, dtype=images.dtype, device=images.device) - 1)
        signed = torch.where(amount > 0, images, 1 - images)
        signed = signed.lerp(widened(signed), amount.abs())
        return torch.where(amount > 0, signed, 1 - signed)
