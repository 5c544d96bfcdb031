"""MNIST: the files, the data module, augmentation, synthetic digits and outliers."""
