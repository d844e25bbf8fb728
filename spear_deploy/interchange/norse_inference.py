"""How do Norse's neurons run where no gradient is asked for?

    v ← v + dt/tau · (…), z = [v > v_th], reset          in place, without a tensor for every term of every step

The operations are those of Norse's steps, each rounded as there, so spikes and potentials are equal to the bit; only what
cannot change a value is left out (a leak or reset potential of 0). Several times faster than the cells, whose steps keep
every intermediate for a gradient and return it in new memory.
"""

from __future__ import annotations

from typing import Any

import torch

Tensor = torch.Tensor


@torch.no_grad()
def run(p: Any, dt: float, subtract: bool, drive: Tensor, state: Any) -> Tensor:
    """Run all steps of one layer.

    Args:
        p: Norse's parameters of a feed-forward cell: LIF, LIFBox, IAF, LI or LIBox.
        dt: the cell's time step.
        subtract: whether a spike subtracts the threshold instead of setting `v_reset`.
        drive: (T, B, *shape), what the cell is given.
        state: Norse's state before the first step; left as it is.

    Returns:
        Spikes or potential of every step, (T, B, *shape).
    """
    v, spare = state.v.to(drive.dtype, copy=True, memory_format=torch.contiguous_format), torch.empty_like(drive[0])
    i: Tensor | None = state.i.clone() if hasattr(state, "i") else None
    # the fields of Norse's parameters say which terms its step has
    spikes, leaks, box = hasattr(p, "v_th"), hasattr(p, "tau_mem_inv"), hasattr(p, "reset_method")
    rate: Any = dt * p.tau_mem_inv if leaks else None
    decay: Any = None if i is None else -dt * p.tau_syn_inv
    leak: Tensor | None = p.v_leak if leaks and p.v_leak.any() else None
    reset: Tensor | None = p.v_reset if spikes and not subtract and p.v_reset.any() else None
    out = torch.empty(drive.shape, dtype=drive.dtype, device=drive.device)
    for x, emitted in zip(drive.unbind(0), out.unbind(0), strict=True):
        if i is not None:
            x = i.add_(x)
        if not leaks:
            v.add_(x)
        else:
            v.add_(_above_rest(x, v, leak, box, spare).mul_(rate))
        if i is not None:
            i.add_(torch.mul(i, decay, out=spare))
        if not spikes:
            emitted.copy_(v)
            continue
        torch.gt(v, p.v_th, out=emitted)
        if subtract:
            v.sub_(torch.mul(emitted, p.v_th, out=spare))
        else:
            v.mul_(torch.sub(1, emitted, out=spare))
            if reset is not None:
                v.add_(torch.mul(emitted, reset, out=spare))
    return out


def _above_rest(x: Tensor, v: Tensor, leak: Tensor | None, box: bool, out: Tensor) -> Tensor:
    """Return v_leak − v + x, summed in the order of the cell: a spiking box cell adds the leak to the input first."""
    if leak is None:
        return torch.sub(x, v, out=out)
    return torch.add(x, leak, out=out).sub_(v) if box else torch.sub(leak, v, out=out).add_(x)
