"""Train DeepDigits: `python train.py`, with Hydra overrides such as `trainer.accelerator=tpu seed=1`."""

import sys

from digits.training.command import main

if __name__ == "__main__":
    main(sys.argv[1:], program="train.py")
