"""Evaluation of trained models: accuracy, calibration, ensembles, robustness."""
