"""One thread of torch: on small networks more threads gain little, and lose much on a busy machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

SMALL_NEURONS = 15_625
"""Neurons below which a network has one thread: a million in a batch of 64."""


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Let torch use one thread within this context."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
