"""Quantization: integer weights, thresholds, decays and biases for a chip family."""

from spear_deploy.quantize.fold import fold_batchnorm
from spear_deploy.quantize.network import FAMILIES, FORMATS, Format, quantize, quantize_input

__all__ = ["FAMILIES", "FORMATS", "Format", "fold_batchnorm", "quantize", "quantize_input"]
