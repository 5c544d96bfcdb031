"""Random affine warps of a batch, with operators that every device has."""

import math

import torch
from torch import Tensor, nn


def affine_warp(images: Tensor, matrices: Tensor) -> Tensor:
    """Resample ``images`` (N, 1, H, W) at affinely moved places, bilinearly, zero outside.

    The same as ``grid_sample(images, affine_grid(matrices, images.shape, align_corners=False),
    align_corners=False)``, which has no XLA lowering, as two products with interpolation weights: every output pixel
    weighs all rows, then all columns, by how near they are (zero from one pixel on).

    Args:
        images: float (N, 1, H, W).
        matrices: (N, 2, 3), from output to input coordinates, both in [-1, 1] with x first, as ``affine_grid`` has it.

    Returns:
        float (N, 1, H, W).
    """
    n, _, height, width = images.shape
    ys, xs = (torch.arange(size, dtype=images.dtype, device=images.device) for size in (height, width))
    y, x = torch.meshgrid((2 * ys + 1) / height - 1, (2 * xs + 1) / width - 1, indexing="ij")
    grid = torch.stack([x, y, torch.ones_like(x)]).view(3, -1)
    source = matrices @ grid  # (N, 2, H * W)
    column = ((source[:, 0] + 1) * width - 1) / 2
    row = ((source[:, 1] + 1) * height - 1) / 2
    row_weights = (1 - (row.unsqueeze(2) - ys).abs()).clamp(min=0)  # (N, H * W, H)
    column_weights = (1 - (column.unsqueeze(2) - xs).abs()).clamp(min=0)
    rows = row_weights @ images.view(n, height, width)  # (N, H * W, W)
    return (rows * column_weights).sum(2).view(n, 1, height, width)


class RandomWarp(nn.Module):
    """Rotate, scale, shear and shift each image of a batch by a random amount, in training mode only.

    Args:
        degrees: rotation is uniform in ±degrees.
        scale: each side is scaled by a factor uniform in 1 ± scale.
        shear: x moves by up to ±shear times y.
        shift: each direction is shifted by up to ±shift pixels of 28.
    """

    def __init__(self, degrees: float, scale: float, shear: float, shift: float) -> None:
        super().__init__()
        self.degrees = degrees
        self.scale = scale
        self.shear = shear
        self.shift = shift

    def forward(self, images: Tensor) -> Tensor:
        """Warp float images (N, 1, 28, 28)."""
        if not self.training:
            return images
        draws = 2 * torch.rand(6, images.shape[0], dtype=images.dtype, device=images.device) - 1
        angle = draws[0] * math.radians(self.degrees)
        width, height = 1 + self.scale * draws[1], 1 + self.scale * draws[2]
        shear = self.shear * draws[3]
        shift_x, shift_y = draws[4:] * (2 * self.shift / images.shape[-1])  # [-1, 1] spans all pixels
        cos, sin = angle.cos(), angle.sin()
        rows = [cos / width, (shear * cos - sin) / width, shift_x, sin / height, (shear * sin + cos) / height, shift_y]
        return affine_warp(images, torch.stack(rows, dim=1).view(-1, 2, 3))
