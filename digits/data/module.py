"""MNIST as a LightningDataModule: whole batches, gathered from uint8 images on the network's device."""

import logging
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from digits.data.mnist import DIGIT_NAMES, DigitSet, load_digits
from digits.data.sampling import BatchSampler, split_each_class, stratified_split
from digits.data.synthetic import synthetic_digits
from digits.errors import ConfigError
from digits.settings.targets import construct, load_class

log = logging.getLogger("digits")
EVAL_BATCH_SIZE = 2_500  # images: faster than training's batch size, and MNIST's splits are multiples of it
PADDING = -1  # label of an image that only fills up a batch to be evaluated; the loss skips it by ignore_index
Batch = dict[str, Tensor]  # "image": uint8 (N, 28, 28), 255 = ink; "label": int64 (N,), 0 to 9 or PADDING


class DigitDataset(Dataset[Batch]):
    """Images and labels that stay on one device, since all of MNIST is only 47 MB, and are read a batch at a time.

    ``send`` moves the indices of a batch to that device; a step transfers nothing else.
    """

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images = images
        self.labels = labels
        self.send: Callable[[Tensor], Tensor] = self._to_device

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, indices: Tensor) -> Batch:
        """The images and labels at ``indices``, int32 (N,); a negative index gives some image, labelled ``PADDING``."""
        return self.gather(self.send(indices))

    def gather(self, indices: Tensor) -> Batch:
        """The same for indices that are on the digits' device already."""
        valid = indices.clamp(min=0)
        labels = self.labels.index_select(0, valid)
        return {"image": self.images.index_select(0, valid), "label": labels.where(indices >= 0, PADDING)}

    def to(self, device: torch.device) -> "DigitDataset":
        """The same digits on ``device``."""
        return DigitDataset(self.images.to(device), self.labels.to(device))

    def _to_device(self, indices: Tensor) -> Tensor:
        return indices.to(self.images.device)


SPLITTING = {  # what is done with images that have been read
    "batch_size",
    "val_size",
    "synthetic",
    "outliers",
    "pictures",
    "pictures_share",
    "pictures_held_out",
    "test_each_epoch",
}
FEW_PICTURES = 10  # of somebody's own: with fewer, little can be learned of a hand
_read: dict[str, DigitSet] = {}  # those that were read last, if they may be needed again


class DigitDataModule(L.LightningDataModule):
    """Images in batches ``{"image": uint8 (N, 28, 28), "label": int64 (N,)}`` on the trainer's device.

    A subclass has :meth:`load`, and a constructor that takes what that needs and hands the rest on.

    Args:
        name: that of its file in `conf/data/`.
        batch_size: the global batch size, over all devices together.
        val_size: number of training images held out for validation, stratified by class; 0 for none.
        synthetic: number of synthetic digits, in forms and shapes rare in MNIST, per training image; 0 for none.
        outliers: number of images of no digit per training image, see :mod:`digits.data.outliers`; 0 for none.
        pictures: folder of somebody's own pictures. It takes a reader to read them, which this module has none of: what
            sets it up does so and hands the digits to :meth:`add_pictures`.
        pictures_share: of each batch to train on, for those; less where that would be more than there are.
        pictures_held_out: share of those that is not trained on.
        test_each_epoch: evaluate on the test split after each epoch, instead of on a validation split.
        offline_fallback: use the embedded digits if MNIST is not there and cannot be downloaded.
        seed: for the validation split, the order of the training images, and the drawn images.
        eval_batch_size: by default the same as ``batch_size``.
    """

    def __init__(
        self,
        name: str,
        batch_size: int,
        val_size: float,
        synthetic: float = 0.0,
        outliers: float = 0.0,
        pictures: str | None = None,
        pictures_share: float = 0.25,
        pictures_held_out: float = 0.2,
        test_each_epoch: bool = False,
        seed: int = 0,
        eval_batch_size: int | None = None,
    ) -> None:
        super().__init__()
        self.dataset = name
        self.batch_size = batch_size
        self.val_size = val_size
        self.synthetic = synthetic
        self.outliers = outliers
        self.pictures = pictures
        self.pictures_share = pictures_share
        self.pictures_held_out = pictures_held_out
        self.test_each_epoch = test_each_epoch
        self.seed = seed
        self.eval_batch_size = eval_batch_size
        self.parts = 1  # equal ones that a batch can be cut into, for as many processes
        self.digits: DigitSet | None = None
        self.own_images = self.own_in_batch = 0  # own pictures to train on, the last ones of `train`, and in a batch
        self.own_held_out: DigitDataset | None = None

    def setup(self, stage: str | None = None) -> None:
        """Read the files and split them; the second call does nothing.

        Raises:
            DigitsError: files are missing or damaged and cannot be downloaded.
            ConfigError: ``val_size`` leaves less than one batch to train on.
        """
        if self.digits is not None:
            return
        digits = self.load()
        size = len(digits.train_labels)
        val_size = round(self.val_size * size) if isinstance(self.val_size, float) else self.val_size
        if digits.name == "mnist-5k" and self.dataset == "mnist":
            val_size = val_size * size // 60_000  # the embedded digits are the fallback: hold out the same share
        if val_size + self.batch_size > size:
            raise ConfigError(
                f"data.val_size={val_size} and data.batch_size={self.batch_size}: {digits.name} has {size:,} "
                f"training images; allowed is val_size + batch_size up to {size:,}"
            )
        for name, share in (("synthetic", self.synthetic), ("outliers", self.outliers)):
            if share and digits.classes != DIGIT_NAMES:
                raise ConfigError(f"data.{name}={share}: digits are drawn, which {digits.name} has not; set 0")
        train, val = stratified_split(digits.train_labels, val_size, self.seed)
        self.digits = digits
        images, labels = digits.train_images[train], digits.train_labels[train]
        drawn = [synthetic_digits(round(self.synthetic * len(train)), images, labels, self.seed)]
        if self.outliers:
            from digits.data.outliers import draw_outliers  # imported here, as most training runs have none

            drawn.append(draw_outliers(round(self.outliers * len(train)), images, self.seed))
        self.drawn_images = sum(len(some) for some, _ in drawn)
        self.train = DigitDataset(
            torch.cat([images, *(some for some, _ in drawn)]), torch.cat([labels, *(some for _, some in drawn)])
        )
        self.val = DigitDataset(digits.train_images[val], digits.train_labels[val])
        self.test = DigitDataset(digits.test_images, digits.test_labels)

    def add_pictures(self, images: Tensor, labels: Tensor) -> None:
        """Train on somebody's own digits too, but for those that are held out; call it after :meth:`setup`.

        Args:
            images: uint8 (N, 28, 28), 255 = ink; at least one. In a batch none is twice.
            labels: int64 (N,), 0 to 9.

        Raises:
            ConfigError: what else is trained on are no digits.
        """
        assert self.digits is not None
        if self.digits.classes != DIGIT_NAMES:
            raise ConfigError(f"data.pictures={self.pictures}: digits, which {self.digits.name} has not")
        kept, held_out = split_each_class(labels, self.pictures_held_out, self.seed)
        self.own_held_out = DigitDataset(images[held_out], labels[held_out])
        self.train = DigitDataset(
            torch.cat([self.train.images, images[kept]]), torch.cat([self.train.labels, labels[kept]])
        )
        self.own_images = len(kept)
        self.own_in_batch = min(max(round(self.pictures_share * self.batch_size), 1), len(kept), self.batch_size - 1)
        if len(kept) < FEW_PICTURES:
            log.warning("data.pictures: with only %d to train on, little can be learned of a hand", len(kept))
        if self.pictures_held_out and not len(held_out):
            log.warning("data.pictures: none is held out, as that takes three of a digit")

    def overfit(self, batches: float) -> None:
        """Keep so many batches of the training images, or such a share of them, and train on these in every epoch.

        Raises:
            ConfigError: there are own pictures, of which each batch has some.
        """
        if self.own_images:
            raise ConfigError(f"trainer.overfit_batches={batches}: does not go with data.pictures")
        kept = batches * self.batch_size if isinstance(batches, int) else round(batches * len(self.train))
        self.drawn_images = max(kept - len(self.train) + self.drawn_images, 0)  # they come last
        self.train = DigitDataset(self.train.images[:kept], self.train.labels[:kept])

    def state_dict(self) -> dict[str, Any]:
        """The settings that decide which images are trained on, for the checkpoint."""
        assert self.digits is not None
        return {
            "dataset": self.digits.name,
            "data.val_size": self.val_size,
            "data.synthetic": self.synthetic,
            "data.outliers": self.outliers,
            "data.pictures": self._own_in_words(),
            "seed": self.seed,
        }

    def load(self) -> DigitSet:
        """Read the images; raises DigitsError if they cannot be had."""
        raise NotImplementedError

    @property
    def batches(self) -> int:
        """How many batches an epoch of training has."""
        return (len(self.train) - self.own_images) // (self.batch_size - self.own_in_batch)

    @property
    def validates_on(self) -> str | None:
        """Prefix of the metrics logged after each epoch: "val", "test_each_epoch", or None if there are none."""
        return "test_each_epoch" if self.test_each_epoch else "val" if len(self.val) else None

    def train_dataloader(self) -> DataLoader[Batch]:
        """Shuffled full batches of the training images."""
        return self._loader(self.train, self.seed)

    def val_dataloader(self) -> DataLoader[Batch] | list[DataLoader[Batch]]:
        """The validation images in order, or with ``test_each_epoch`` the test images; an empty list for none."""
        if self.validates_on is None:
            return []
        return self._loader(self.test if self.test_each_epoch else self.val)

    def test_dataloader(self) -> DataLoader[Batch]:
        """All test images in order."""
        return self._loader(self.test)

    def _loader(self, digits: DigitDataset, seed: int | None = None) -> DataLoader[Batch]:
        if self.trainer is not None:
            digits = digits.to(self.trainer.strategy.root_device)
        size = self.batch_size
        if seed is None and self.eval_batch_size is not None:
            size = min(self.eval_batch_size, max(len(digits), 1))
            size = -(-size // self.parts) * self.parts
        extra = (self.own_images, self.own_in_batch) if seed is not None else (0, 0)
        sampler = BatchSampler(len(digits), size, seed, *extra)
        return DataLoader(digits, sampler=sampler, batch_size=None)  # each item of the sampler is a whole batch

    def _own_in_words(self) -> str | None:
        """Which own pictures are trained on, for a checkpoint that is gone on from."""
        if not self.own_images:
            return None
        checksum = zlib.crc32(self.train.images[-self.own_images :].numpy().tobytes())
        return f"{self.own_images} digits, {self.own_in_batch} in a batch, of checksum {checksum:08x}"


class MNISTDataModule(DigitDataModule):
    """MNIST, the 5,000 of its digits that come along, Fashion-MNIST or Kuzushiji-MNIST, by the ``name``.

    Args:
        data_dir: folder of the files in torchvision's layout; missing ones are downloaded to it.
        offline_fallback: without MNIST's files and a network take the 5,000 digits.
        common: of :class:`DigitDataModule`.
    """

    def __init__(self, data_dir: Path | str, offline_fallback: bool = True, **common: Any) -> None:
        super().__init__(**common)
        self.data_dir = Path(data_dir)
        self.offline_fallback = offline_fallback

    def load(self) -> DigitSet:
        """Read the files; raises DigitsError if they are missing or damaged and cannot be downloaded."""
        return load_digits(self.dataset, self.data_dir, self.offline_fallback)


def build_data(settings: Mapping[str, Any], once: bool = False, **options: Any) -> DigitDataModule:
    """The data module that `conf/data/NAME.yaml` names, of ``settings`` as that file has them and of ``options``.

    With ``once`` the images are those that were read last, if the settings say that they are the same: the jobs of a
    sweep need not read and verify the files again.

    Raises:
        ConfigError: there is no such file, or its class is no :class:`DigitDataModule`.
    """
    kind = load_class("data", settings["name"], DigitDataModule)
    data = construct(f"data={settings['name']}", kind, dict(settings) | options)
    if once:
        key = repr([kind, *((name, value) for name, value in settings.items() if name not in SPLITTING)])
        load = data.load

        def load_once() -> DigitSet:
            if key not in _read:
                digits = load()
                _read.clear()
                _read[key] = digits
            return _read[key]

        data.load = load_once  # type: ignore[method-assign]
    return data
