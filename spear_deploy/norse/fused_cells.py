"""All steps of a layer's neurons as one compiled operation with gradient.

    run_all_steps(...) ─► what a cell emits in all steps, by `norse.compiled_cells`, or None: Norse's steps do it

Only time differs: outputs and gradients are those of Norse's cells to the bit.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any, TypeAlias

import numpy as np
import torch

from spear_deploy.network import Shape
from spear_deploy.util.ctrl_c import hold_ctrl_c
from spear_deploy.util.machine_code import IS_KEPT

Tensor: TypeAlias = torch.Tensor
PAYS_BACK = 1 << 26 if IS_KEPT else 1 << 29
"""Steps of neurons that Norse's cells learn before the loops are loaded: they save about 16 ns each, and loading takes a second,
or seven where their machine code is not kept and is made in each process."""

_done = 0
_loaded: list[ModuleType | None] = []


def run_all_steps(p: Any, dt: float, reset: str, shape: Shape, start: Tensor, drive: Tensor) -> Tensor | None:
    """Return the spikes or potentials of all steps, (T, B, *shape), or None where Norse's own steps have to.

    Args:
        p: Norse's parameters of a feed-forward cell: LIF, LIFBox, IAF, LI or LIBox.
        dt: the cell's time step.
        reset: what a spike does to v: "value", "subtract", "late" or "none".
        shape: of the layer.
        start: v before the first step, one number or one a neuron.
        drive: (T, B, *shape), the input of the cell.
    """
    spikes = hasattr(p, "v_th")
    if drive.dtype != torch.float32 or drive.device.type != "cpu" or (spikes and p.method != "triangle"):
        return None
    loops = _load_loops(drive.numel() if drive.requires_grad else 0)
    if loops is None:
        return None
    leaks, has_current = hasattr(p, "tau_mem_inv"), hasattr(p, "tau_syn_inv")
    parts = loops.BOX * hasattr(p, "reset_method") + loops.INTEGRATES * (not leaks)
    parts += loops.HAS_CURRENT * has_current + loops.SPIKES * spikes
    zero = torch.zeros(())
    values = (
        start,
        dt * p.tau_mem_inv if leaks else zero,
        -dt * p.tau_syn_inv if has_current else zero,
        p.v_leak if leaks else zero,
        p.v_th if spikes else zero,
        p.v_reset if spikes else zero,
    )
    rows = [loops.make_row(value.detach().numpy(), shape) for value in values]
    settings = (parts, getattr(loops, reset.upper()), np.float32(p.alpha) if spikes else np.float32(0))
    emitted: Tensor = _AllSteps.apply(drive, loops, rows, settings)
    return emitted


class _AllSteps(torch.autograd.Function):
    """The steps of a layer as one operation of torch."""

    @staticmethod
    def forward(ctx: Any, drive: Tensor, loops: ModuleType, rows: list[Any], settings: tuple[Any, ...]) -> Tensor:
        parts, reset, _ = settings
        x = drive.detach().contiguous()
        out = torch.empty_like(x)
        keeps = parts & loops.SPIKES and ctx.needs_input_grad[0]
        held = torch.empty_like(x) if keeps else x[:0]
        loops.run_steps(_flatten(x), *rows, parts, reset, _flatten(out), _flatten(held))
        ctx.loops, ctx.rows, ctx.settings = loops, rows, settings
        ctx.save_for_backward(out if keeps else x[:0], held)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        given = gradients[0].contiguous()
        out, held = ctx.saved_tensors
        parts, reset, alpha = ctx.settings
        _, rate, decay, _, level, reset_level = ctx.rows
        passed = torch.empty_like(given)
        ctx.loops.pass_gradient(
            _flatten(given), _flatten(out), _flatten(held), rate, decay, level, reset_level, alpha, parts, reset, _flatten(passed)
        )
        return passed, None, None, None


def _flatten(x: Tensor) -> Any:
    """Return (T, B, *shape) as an array (T, B, n) of the same memory."""
    return x.detach().numpy().reshape(*x.shape[:2], int(np.prod(x.shape[2:])))


def _load_loops(learnt: int) -> ModuleType | None:
    """Return the compiled loops, once the process has learnt enough; None before, and where there is no numba."""
    global _done
    _done += learnt
    if not _loaded and _done >= PAYS_BACK:
        try:
            with hold_ctrl_c():
                from spear_deploy.norse import compiled_cells
        except Exception:  # numba is not installed, of another numpy, or finds no folder for its machine code
            _loaded.append(None)
        else:
            _loaded.append(compiled_cells)
    return _loaded[0] if _loaded else None
