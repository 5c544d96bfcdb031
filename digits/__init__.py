"""DeepDigits reads handwritten digits: a small CNN, trained with PyTorch Lightning on CPU, GPU or TPU."""

__version__ = "0.1.0"
