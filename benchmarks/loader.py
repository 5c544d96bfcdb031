"""How many images a second the data loader delivers, alone and on one core.

    python benchmarks/loader.py

Measures what a training step waits for: shuffling, and gathering the uint8 images and labels of each batch. It iterates
over the data module's own ``train_dataloader()`` on one thread; the first epoch is a warm-up and is not counted. The
data are full MNIST if $DIGITS_DATA_DIR has it, else the 5,000 embedded digits. The exit status is 1 if the median of
the epochs is below the bar at any batch size. Takes a few seconds.
"""

import argparse
import os
import statistics
import sys
import time
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from digits.data.module import Batch, MNISTDataModule


def main() -> int:
    """Run the benchmark as the command line says, and return the exit status."""
    parser = argparse.ArgumentParser(
        description="Images a second of the data loader alone, on one core.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--batch-size", type=int, nargs="+", default=[128, 512], metavar="N", help="batch sizes")
    parser.add_argument(
        "--epochs", type=int, default=20, metavar="N", help="epochs that are measured, at each batch size"
    )
    parser.add_argument("--bar", type=float, default=1_000_000, metavar="X", help="images a second to reach")
    parser.add_argument(
        "--data-dir",
        type=Path,
        default=os.environ.get("DIGITS_DATA_DIR"),
        metavar="DIR",
        help="folder that holds MNIST/raw; $DIGITS_DATA_DIR if not given",
    )
    arguments = parser.parse_args()
    if min(arguments.epochs, *arguments.batch_size) < 1:
        parser.error("--epochs and --batch-size: a whole number from 1")

    torch.set_num_threads(1)
    full = arguments.data_dir is not None and (arguments.data_dir / "MNIST" / "raw").is_dir()
    missed, measured = False, ""
    print("batch  images/s: median      lowest     highest")
    for batch_size in arguments.batch_size:
        name, folder = "mnist" if full else "mnist5k", arguments.data_dir or Path()
        data = MNISTDataModule(str(folder), name=name, batch_size=batch_size, val_size=0)
        data.setup()
        assert data.digits is not None
        measured = f"{data.digits.name}, {len(data.train):,} training images"
        loader = data.train_dataloader()
        rates = [images_per_second(loader, epoch) for epoch in range(arguments.epochs + 1)][1:]
        median = statistics.median(rates)
        missed |= median < arguments.bar
        verdict = "" if median >= arguments.bar else f"  below {arguments.bar:,.0f}"
        print(f"{batch_size:5}  {median:16,.0f}  {min(rates):10,.0f}  {max(rates):10,.0f}{verdict}")
    print(f"{measured}, {arguments.epochs} epochs each, torch {torch.__version__}")
    return int(missed)


def images_per_second(loader: DataLoader[Batch], epoch: int) -> float:
    """Images per second of one whole epoch, shuffling included."""
    loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]  # as Lightning does
    images, start = 0, time.perf_counter()
    for batch in loader:
        images += len(batch["label"])
    return images / (time.perf_counter() - start)


if __name__ == "__main__":
    sys.exit(main())
