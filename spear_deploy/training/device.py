"""Devices that networks learn on: cpu, cuda and mps."""

from __future__ import annotations

from spear_deploy.errors import DataError
from spear_deploy.util.extras import require_packages

DEVICES = ("cpu", "cuda", "mps", "auto")


def choose_device(name: str) -> str:
    """Return a device that is there; "auto" takes CUDA, else Apple's GPU, else the processor.

    Raises:
        DataError: there is no such device on this machine, or none of that name.
    """
    if name == "cpu":
        return name
    kind, _, number = str(name).partition(":")
    if kind not in DEVICES or (number and not (kind == "cuda" and number.isascii() and number.isdigit())):
        raise DataError(f"device '{name}': expected one of {', '.join(DEVICES)}, or cuda:N")
    require_packages("torch", user=f"device '{name}'")
    import torch

    has_mps = torch.backends.mps.is_available()
    if kind == "auto":
        return "cuda" if torch.cuda.is_available() else "mps" if has_mps else "cpu"
    if kind == "cuda" and torch.cuda.is_available() and int(number or 0) < torch.cuda.device_count():
        return name
    if kind == "mps" and has_mps:
        return name
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    there = f"{count} CUDA devices" if kind == "cuda" and count else f"no {'CUDA' if kind == 'cuda' else 'Apple GPU'} device"
    raise DataError(f"device '{name}': torch {torch.__version__} sees {there} on this machine; take 'cpu', or 'auto'")


def note_device(device: str) -> list[str]:
    """Return a sentence on the figures of a device other than the processor."""
    if device == "cpu":
        return []
    return [
        f"learnt on {device}, where sums are made in another order than on the processor: the same seed may give another plan; "
        "all figures of the result were measured on the processor in float32"
    ]
