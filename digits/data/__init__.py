"""MNIST: the files, the data module, augmentation and synthetic digits."""
