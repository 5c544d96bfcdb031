"""MNIST as a LightningDataModule: whole batches, gathered from uint8 images where the network is."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from digits.data.drawn import drawn_digits
from digits.data.source import DigitSet, load_digits
from digits.errors import ConfigError, DigitsError
from digits.metrics import PADDING

EVALUATED_AT_ONCE = 2_500  # images: faster than in batches for training, and MNIST's splits are made up of such
Batch = dict[str, Tensor]  # "image": uint8 (N, 28, 28), 255 = ink; "label": int64 (N,), PADDING where none is meant


class Digits(Dataset[Batch]):
    """Images and labels on one device, read a batch at a time: 47 MB for all of MNIST, so nothing is streamed.

    ``send`` takes indices to that device; they are all that a step sends there.
    """

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images = images
        self.labels = labels
        self.send: Callable[[Tensor], Tensor] = self._to_device

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, indices: Tensor) -> Batch:
        """The images and labels at ``indices`` int32 (N,); where one is negative, any image, labelled ``PADDING``."""
        indices = self.send(indices)
        places = indices.clamp(min=0)
        labels = self.labels.index_select(0, places)
        return {"image": self.images.index_select(0, places), "label": labels.where(indices >= 0, PADDING)}

    def to(self, device: torch.device) -> "Digits":
        """The same digits on ``device``."""
        return Digits(self.images.to(device), self.labels.to(device))

    def _to_device(self, indices: Tensor) -> Tensor:
        return indices.to(self.images.device)


class Batches(Sampler[Tensor]):
    """Indices int32 (batch_size,) of one global batch after the other.

    With ``seed`` they are shuffled, anew in each epoch and the same in each run, and a last batch that is not full
    is left out, as Keras's ``steps_per_epoch`` does; without, they come in order, all of them, and a last batch that
    is not full is filled up with -1: batches of one size are compiled once, and shared out equally.
    """

    def __init__(self, size: int, batch_size: int, seed: int | None = None) -> None:
        self.size = size
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this before each epoch; a resumed run goes on with the order it would have had."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.size // self.batch_size if self.seed is not None else -(-self.size // self.batch_size)

    def __iter__(self) -> Iterator[Tensor]:
        if self.seed is None:
            order = torch.full((len(self) * self.batch_size,), -1, dtype=torch.int32)
            order[: self.size] = torch.arange(self.size)
        else:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
            order = torch.randperm(self.size, generator=generator).int()
        yield from order.split(self.batch_size)[: len(self)]


def stratified_split(labels: Tensor, val_size: int, seed: int) -> tuple[Tensor, Tensor]:
    """Indices of the training and of the validation images; ``val_size`` in all, each class by its share."""
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    by_class = order[labels[order].argsort(stable=True)]
    held_out = torch.zeros(len(labels), dtype=torch.bool)
    held_out[torch.arange(val_size) * len(labels) // max(val_size, 1)] = True  # evenly spaced over the classes
    return by_class[~held_out].sort().values, by_class[held_out].sort().values


class DigitDataModule(L.LightningDataModule):
    """Serves MNIST as batches ``{"image": uint8 (N, 28, 28), "label": int64 (N,)}`` on the trainer's device.

    Args:
        name: "mnist", or "mnist5k" for the 5,000 embedded digits.
        data_dir: folder of the MNIST files (torchvision's layout); they are downloaded if it has none.
        batch_size: the global batch, over all devices together.
        val_size: images held out of the training split for validation, each class by its share; 0 for none.
        drawn: share of digits that are drawn in forms rare in MNIST, for each one of MNIST's to train on; 0 for none.
        test_each_epoch: score the test split after each epoch in place of a validation split.
        offline_fallback: without files and without a network, use the embedded digits.
        seed: of the validation split, of the order of the training images, and of what is drawn.
    """

    def __init__(
        self,
        name: str,
        data_dir: Path | str,
        batch_size: int,
        val_size: int,
        drawn: float = 0.0,
        test_each_epoch: bool = False,
        offline_fallback: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.dataset = name
        self.data_dir = Path(data_dir)
        self.batch_size = batch_size
        self.val_size = val_size
        self.drawn = drawn
        self.test_each_epoch = test_each_epoch
        self.offline_fallback = offline_fallback
        self.seed = seed
        self.digits: DigitSet | None = None

    def setup(self, stage: str | None = None) -> None:
        """Read the files and split them; the second call does nothing.

        Raises:
            DigitsError: the files are missing or damaged and cannot be fetched.
            ConfigError: ``val_size`` or ``batch_size`` leave nothing to train on.
        """
        if self.digits is not None:
            return
        digits = self.load()
        size, val_size = len(digits.train_labels), self.val_size
        if digits.name == "mnist-5k" and self.dataset == "mnist":
            val_size = val_size * size // 60_000  # the embedded digits stand in: hold out the same share
        if val_size + self.batch_size > size:
            raise ConfigError(
                f"data.val_size={val_size} and data.batch_size={self.batch_size}: {digits.name} has {size:,} "
                f"training images; allowed is val_size + batch_size up to {size:,}"
            )
        train, val = stratified_split(digits.train_labels, val_size, self.seed)
        self.digits = digits
        self.drawn_images = round(self.drawn * len(train))
        images, labels = drawn_digits(self.drawn_images, self.seed)
        self.train = Digits(
            torch.cat([digits.train_images[train], images]), torch.cat([digits.train_labels[train], labels])
        )
        self.val = Digits(digits.train_images[val], digits.train_labels[val])
        self.test = Digits(digits.test_images, digits.test_labels)

    def state_dict(self) -> dict[str, Any]:
        """What decides which images are trained on, for the checkpoint."""
        assert self.digits is not None
        return {
            "dataset": self.digits.name,
            "data.val_size": self.val_size,
            "data.drawn": self.drawn,
            "seed": self.seed,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Refuse to go on with a run that was trained on images which are held out here.

        Raises:
            DigitsError: the dataset, ``val_size``, ``drawn`` or the seed is another.
        """
        before = {"data.drawn": 0.0} | state_dict  # which older checkpoints do not have
        for name, here in self.state_dict().items():
            if before.get(name) != here:
                raise DigitsError(f"ckpt_path: was trained with {name}={before.get(name)}, not {here}: use the same")

    def load(self) -> DigitSet:
        """Read the files; raises DigitsError if they are missing or damaged and cannot be fetched."""
        return load_digits(self.dataset, self.data_dir, self.offline_fallback)

    @property
    def validates_on(self) -> str | None:
        """Prefix of what is logged after each epoch: "val", "test_each_epoch", or None where nothing is scored."""
        return "test_each_epoch" if self.test_each_epoch else "val" if len(self.val) else None

    def train_dataloader(self) -> DataLoader[Batch]:
        """Shuffled full batches of the training images."""
        return self._loader(self.train, self.seed)

    def val_dataloader(self) -> DataLoader[Batch] | list[DataLoader[Batch]]:
        """The validation images in order; the test images where they are scored each epoch; or an empty list."""
        if self.validates_on is None:
            return []
        return self._loader(self.test if self.test_each_epoch else self.val)

    def test_dataloader(self) -> DataLoader[Batch]:
        """All test images in order."""
        return self._loader(self.test)

    def _loader(self, digits: Digits, seed: int | None = None) -> DataLoader[Batch]:
        size = self.batch_size
        if self.trainer is not None:
            device = self.trainer.strategy.root_device
            digits = digits.to(device)
            if seed is None and device.type != "xla":  # which has its programs compiled for one size
                size = min(EVALUATED_AT_ONCE, max(len(digits), 1))
        sampler = Batches(len(digits), size, seed)
        return DataLoader(digits, sampler=sampler, batch_size=None)  # the sampler's items are whole batches
