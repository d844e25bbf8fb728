"""Integers of a chip family: weights, thresholds, decays and biases."""

from spear_deploy.quantize.network import (
    FORMATS,
    Format,
    fold_batchnorm,
    graded,
    quantize,
)

__all__ = ["FORMATS", "Format", "fold_batchnorm", "graded", "quantize"]
