"""Memory that a training batch needs, and the largest that fits."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from spear_deploy.errors import DataError
from spear_deploy.util import memory
from spear_deploy.util.number_format import byte_size, plural

if TYPE_CHECKING:
    import torch

TRIAL_SAMPLES = 2
"""Samples of the batch that is measured, the fewest that a batch norm takes."""
SLACK = 4
"""Part of a batch that is tried on top of it."""


def explain_shortage(make_loss: Callable[[int], torch.Tensor], samples: int, steps: int) -> DataError:
    """Return the sentence about a batch that does not fit into memory: what it needs, what is free, and which batch fits.

    The need is that of the values that torch keeps for the gradient, measured on two samples; it grows with their number. That
    a batch fits is tried with a quarter more samples, from half the samples on, and these have to need no more than what is free:
    a trial also finds memory that the process has let go, and the next run finds that in other pieces.

    Args:
        make_loss: the loss of the first so many samples, of which a gradient is taken.
        samples: of the batch that does not fit.
        steps: of a sample.
    """
    what = f"training: a batch of {samples} samples and {plural(steps, 'step')}"
    free = memory.free_bytes()
    kept = _try_batch(make_loss, TRIAL_SAMPLES)
    if kept is None:
        return DataError(
            f"{what} does not fit into the {byte_size(free)} that are free, and neither do {TRIAL_SAMPLES} samples; use fewer "
            "steps, a smaller network, or a machine with more memory"
        )
    a_sample, fitting = kept / TRIAL_SAMPLES, samples // 2
    while fitting > TRIAL_SAMPLES:
        tried = fitting + fitting // SLACK
        if tried * a_sample <= free and _try_batch(make_loss, tried) is not None:
            break
        fitting //= 2
    return DataError(
        f"{what} keeps {byte_size(samples * a_sample)} for its gradient, {byte_size(free)} are free; batches of "
        f"{max(fitting, TRIAL_SAMPLES)} fit (`batch_size` of a recipe), as do fewer steps"
    )


def _try_batch(make_loss: Callable[[int], torch.Tensor], samples: int) -> int | None:
    """Return the bytes that the gradient of so many samples keeps, or None where memory is full."""
    from torch.autograd.graph import saved_tensors_hooks

    sizes: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    try:
        with saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = make_loss(samples)
            loss.backward()  # type: ignore[no-untyped-call]
    except (MemoryError, RuntimeError) as error:
        if not memory.is_out_of_memory(error):
            raise
        return None
    return sum(sizes.values())
