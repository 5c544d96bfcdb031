"""Data augmentation: random affine transforms of a batch of images, and random changes of stroke width."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def resample(images: Tensor, grid: Tensor) -> Tensor:
    """Sample ``images`` at the points of ``grid`` by bilinear interpolation; outside of the images is 0.

    Args:
        images: float (N, 1, H, W).
        grid: (N, 2, H, W), for each pixel of the output its x and y in the input, both in [-1, 1] from edge to edge.

    Returns:
        float (N, 1, H, W).
    """
    return F.grid_sample(images, grid.permute(0, 2, 3, 1), align_corners=False)


def resample_by_matmul(images: Tensor, grid: Tensor) -> Tensor:
    """As :func:`resample`, by products with interpolation weights, for devices without `grid_sample`.

    Each output pixel is a weighted sum over all rows, then over all columns, with weights that fall with the distance
    and are 0 from one pixel on. On a CPU it takes ten times as long.
    """
    n, _, height, width = images.shape
    ys, xs = (torch.arange(size, dtype=images.dtype, device=images.device) for size in (height, width))
    x, y = grid.flatten(2).unbind(1)  # (N, H * W)
    row, column = ((y + 1) * height - 1) / 2, ((x + 1) * width - 1) / 2
    row_weights = (1 - (row.unsqueeze(2) - ys).abs()).clamp(min=0)  # (N, H * W, H)
    column_weights = (1 - (column.unsqueeze(2) - xs).abs()).clamp(min=0)
    rows = row_weights @ images.view(n, height, width)  # (N, H * W, W)
    return (rows * column_weights).sum(2).view(n, 1, height, width)


def pixel_grid(height: int, width: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Coordinates x and y of each pixel's centre, each (H * W,), in [-1, 1] from edge to edge; dtype as ``like``."""
    ys, xs = (torch.arange(size, dtype=like.dtype, device=like.device) for size in (height, width))
    y, x = torch.meshgrid((2 * ys + 1) / height - 1, (2 * xs + 1) / width - 1, indexing="ij")
    return x.flatten(), y.flatten()


def dilate(images: Tensor) -> Tensor:
    """Dilation of (N, 1, H, W) by a cross: each pixel becomes the maximum of itself and its four neighbours."""
    return torch.maximum(F.max_pool2d(images, (1, 3), 1, (0, 1)), F.max_pool2d(images, (3, 1), 1, (1, 0)))


class Augmentation(nn.Module):
    """Rotates, scales, shears and translates each image of a batch and changes its stroke width, by random amounts.

    It does so in training mode only.

    Args:
        degrees: the rotation is uniform in ±degrees.
        scale: width and height are scaled by factors uniform in 1 ± scale.
        shear: x is shifted by up to ±shear times y.
        translate: the shift in x and in y is up to ±translate pixels of 28.
        stroke_width: strokes get up to about ±stroke_width pixels wider on each side; at most 1.
        resample: the function that samples images, as the fastest one depends on the device.
    """

    def __init__(
        self,
        degrees: float,
        scale: float,
        shear: float,
        translate: float,
        stroke_width: float = 0.0,
        resample: Callable[[Tensor, Tensor], Tensor] = resample,
    ) -> None:
        super().__init__()
        self.degrees = degrees
        self.scale = scale
        self.shear = shear
        self.translate = translate
        self.stroke_width = stroke_width
        self.resample = resample

    def forward(self, images: Tensor) -> Tensor:
        """Augment float images (N, 1, 28, 28)."""
        if not self.training:
            return images
        n, _, height, width = images.shape
        draws = 2 * torch.rand(6, n, dtype=images.dtype, device=images.device) - 1
        angle = draws[0] * math.radians(self.degrees)
        wider, higher = 1 + self.scale * draws[1], 1 + self.scale * draws[2]
        shear = self.shear * draws[3]
        shift_x, shift_y = draws[4:] * (2 * self.translate / width)  # [-1, 1] spans the whole width
        cos, sin = angle.cos(), angle.sin()
        rows = [cos / wider, (shear * cos - sin) / wider, shift_x, sin / higher, (shear * sin + cos) / higher, shift_y]
        by_x, by_y, constant = torch.stack(rows, dim=1).view(n, 2, 3, 1).unbind(2)
        x, y = pixel_grid(height, width, images)
        grid = by_x * x + by_y * y + constant  # no matrix product, as autocast would round coordinates to bfloat16
        images = self.resample(images, grid.view(n, 2, height, width))
        return self._change_stroke_width(images) if self.stroke_width else images

    def _change_stroke_width(self, images: Tensor) -> Tensor:
        """Blend each image by a random amount with its dilation, or with that of its paper, which thins strokes."""
        draws = torch.rand(len(images), 1, 1, 1, dtype=images.dtype, device=images.device)
        amount = self.stroke_width * (2 * draws - 1)
        signed = torch.where(amount > 0, images, 1 - images)
        signed = signed.lerp(dilate(signed), amount.abs())
        return torch.where(amount > 0, signed, 1 - signed)
