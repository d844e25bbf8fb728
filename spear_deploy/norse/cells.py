"""Neurons of a network as Norse cells, equal to the bit.

Norse multiplies in float32: `dt * tau_inv`. The rates are chosen such that this product is float32(dt / tau), the multiplier of
the simulator; where no float32 rate does that (a product of two floats does not reach every float), the cell counts time
in steps: dt = 1, rates per step.

What Norse's cell lacks becomes a gain on its input: `r` of every neuron, and the jump `w_in · dt / tau_syn` of a `CubaLIF`
where it is not 1. In a `CubaLIF` or `CubaLI` with r ≠ 1 the cell's current is then r · u: equal in exact arithmetic, and to
the bit where r is a power of two. Norse subtracts on reset only in its box cell; the same cell with the other membranes is
made here, and so are cells that subtract one step late or keep v, cells with a lower bound of v, and cells that send several
spikes in a step. As in snnTorch, no gradient passes a late reset. The gradient of a number of spikes is that of a spike at the
nearest multiple of the threshold, as in sinabs' `PeriodicExponential`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, TypeAlias

import numpy as np
import torch

from spear_deploy.network import (
    IF,
    LI,
    LIF,
    Array,
    CubaLI,
    CubaLIF,
    Shape,
    find_max_spikes,
    find_start,
    resets_late,
    sends_several,
)
from spear_deploy.norse.fused_cells import run_all_steps
from spear_deploy.simulator.neurons import factors
from spear_deploy.simulator.neurons.floating import MAX_COUNT
from spear_deploy.util.font_cache import keep_fonts_out_of_home

with warnings.catch_warnings(), keep_fonts_out_of_home():
    warnings.simplefilter("ignore", FutureWarning)  # norse 1.1.0 still asks for torch.jit.script as it is imported
    import norse.torch as norse
    from norse.torch.functional.threshold import threshold
    from norse.torch.module import snn as norse_snn

__all__ = ["CELLS", "TIME_LAYERS", "CellState", "NeuronModule", "choose_rates", "norse", "run_without_gradient"]

Tensor: TypeAlias = torch.Tensor
CellState: TypeAlias = Any
"""Norse's state of a cell, a named tuple of tensors (B, *shape)."""

ResetName: TypeAlias = Literal["value", "subtract", "late", "none"]

CELLS = (norse.LIFCell, norse.LIFBoxCell, norse.IAFCell, norse.LICell, norse.LIBoxCell, norse.LIFRecurrentCell)
TIME_LAYERS = (norse.LIF, norse.IAF, norse.LI, norse.LIFRecurrent)


class NeuronModule(torch.nn.Module):
    """The neurons of one layer: a Norse cell, its parameters as buffers, and the loop over time.

    Attributes:
        cell: the Norse cell; it gets its parameters from the buffers at the start of every run.
        gain: factor of its input, None where it is 1.
        v_min: lower bound of v, or None.
        v_init: v before the first step.
        most: largest number of spikes in a step.
    """

    gain: Tensor | None
    v_min: Tensor | None
    v_init: Tensor

    def __init__(
        self, neuron: IF | LIF | CubaLIF | LI | CubaLI, shape: Shape, dt_s: float, *, surrogate: str, alpha: float
    ) -> None:
        super().__init__()
        self.shape = tuple(shape)
        cell, gain = _make_cell(neuron, dt_s, surrogate, alpha)
        self.cell = cell
        self.reset = _name_reset(neuron)
        self.most = _count_most(neuron)
        self._names = tuple(name for name, value in cell.p._asdict().items() if isinstance(value, Tensor))
        for name in self._names:
            self.register_buffer(name, getattr(cell.p, name))
        self.register_buffer("gain", None if (gain == 1).all() else _to_tensor(gain))
        bound = neuron.v_min if isinstance(neuron, IF) else None
        self.register_buffer("v_min", None if bound is None else _to_tensor(bound))
        self.register_buffer("v_init", _to_tensor(find_start(neuron)))

    def start(self, like: Tensor) -> CellState:
        """Return the state before the first step, for a batch as large as that of `like` (B, ...).

        Norse's own start is not used: it sets `requires_grad` on shared default parameters.
        """
        values = {name: getattr(self, name) for name in self._names}
        self.cell.p = self.cell.p._replace(**values)
        full = (len(like), *self.shape)
        v = self.v_init.to(like.dtype).expand(full)
        if isinstance(self.cell.p, norse.LIFParameters):
            return norse.LIFFeedForwardState(v=v, i=like.new_zeros(full))
        if isinstance(self.cell.p, norse.LIParameters):
            return norse.LIState(v=v, i=like.new_zeros(full))
        if isinstance(self.cell.p, norse.IAFParameters):
            return norse.IAFFeedForwardState(v=v)
        return norse.LIBoxState(v=v) if isinstance(self.cell.p, norse.LIBoxParameters) else norse.LIFBoxFeedForwardState(v=v)

    def step(self, x: Tensor, state: CellState) -> tuple[Tensor, CellState]:
        """Advance one step: input (B, *shape) → spikes or potential (B, *shape), state."""
        out, state = self.cell(x if self.gain is None else self.gain * x, state)
        return out, self._bound(state)

    def forward(self, drive: Tensor) -> Tensor:
        """Run all steps from the initial state: (T, B, *shape) → spikes or potential of every step."""
        if self.gain is not None:
            drive = self.gain * drive
        state = self.start(drive[0])
        if self.v_min is None and self.most == 1:
            emitted = run_all_steps(self.cell.p, self.cell.dt, self.reset, self.shape, self.v_init, drive)
            if emitted is not None:
                return emitted
        if not torch.is_grad_enabled():
            p, dt = self.cell.p, self.cell.dt
            return run_without_gradient(p, dt, self.reset, drive, state, v_min=self.v_min, most=self.most)
        outputs = []
        for x in drive.unbind(0):  # indexing would cost a gradient of full size per step
            out, state = self.cell(x, state)
            state = self._bound(state)
            outputs.append(out)
        return torch.stack(outputs)

    def _bound(self, state: CellState) -> CellState:
        """Return a state whose v is at least `v_min`; after the spikes, since none lies below it."""
        return state if self.v_min is None else state._replace(v=torch.maximum(state.v, self.v_min))

    def extra_repr(self) -> str:
        """Return the shape, for printing."""
        return f"shape={self.shape}"


def choose_rates(dt_s: float, multipliers: list[Array]) -> tuple[float, list[Array]]:
    """Return (dt, rates) such that Norse's float32 product `dt * rate` is every multiplier rounded to float32.

    The rates are 1 / tau in 1/s with dt = dt_s where float32 holds such rates, else per step with dt = 1.

    >>> choose_rates(1e-3, [np.array(0.5)])
    (0.001, [array(500., dtype=float32)])
    """
    rates = []
    for value in multipliers:
        nominal = (value / dt_s).astype(np.float32)
        rate = nominal.copy()
        exact = np.zeros(nominal.shape, bool)
        for candidate in _list_neighbours(nominal):
            hit = ~exact & (np.float32(dt_s) * candidate == value.astype(np.float32))
            rate = np.where(hit, candidate, rate)
            exact |= hit
        if not exact.all():
            return 1.0, [value.astype(np.float32) for value in multipliers]
        rates.append(rate)
    return dt_s, rates


def _list_neighbours(value: Array) -> list[Array]:
    """Return float32 values, the two next ones above and the two below, the nearest first."""
    up, down = np.float32(np.inf), np.float32(-np.inf)
    near = [np.nextafter(value, up), np.nextafter(value, down)]
    return [value, *near, np.nextafter(near[0], up), np.nextafter(near[1], down)]


def _to_tensor(array: Array) -> Tensor:
    return torch.from_numpy(np.array(array, np.float32))


def _make_cell(neuron: Any, dt_s: float, surrogate: str, alpha: float) -> tuple[norse_snn.SNNCell, Array]:
    """Return (Norse cell, gain on its input)."""
    c = factors(neuron, dt_s)
    level = {norse_name: _to_tensor(c[name]) for norse_name, name in _LEVELS if name in c}
    if isinstance(neuron, (LIF, LI)):
        dt, (mem,) = choose_rates(dt_s, [c["mem"]])
        level["tau_mem_inv"] = _to_tensor(mem)
    if isinstance(neuron, (CubaLIF, CubaLI)):
        dt, (mem, syn) = choose_rates(dt_s, [c["mem"], c["syn"]])
        level.update(tau_mem_inv=_to_tensor(mem), tau_syn_inv=_to_tensor(syn))
    gain = c["r"]
    if "jump" in c:
        jump = c["jump"].astype(np.float32)
        gain = c["r"] * (1.0 if (jump == 1).all() else c["jump"])
    if isinstance(neuron, LI):
        return norse.LIBoxCell(norse.LIBoxParameters(**level), dt=dt), gain
    if isinstance(neuron, CubaLI):
        return norse.LICell(norse.LIParameters(**level), dt=dt), gain
    gradient = {"method": surrogate, "alpha": torch.as_tensor(float(alpha))}
    reset = _name_reset(neuron)
    if isinstance(neuron, LIF):
        if sends_several(neuron):
            parameters = norse.LIFBoxParameters(**level, **gradient)
            return _replace_step(norse.LIFBoxCell(parameters, dt=dt), _make_several(neuron, _step_box_several)), gain
        method = {"value": norse.reset_value, "none": _keep_potential}.get(reset, norse.reset_subtract)
        cell = norse.LIFBoxCell(norse.LIFBoxParameters(**level, **gradient, reset_method=method), dt=dt)
        return _replace_step(cell, _step_box_late if reset == "late" else None), gain
    if isinstance(neuron, IF):
        cell = norse.IAFCell(norse.IAFParameters(**level, **gradient), dt=dt_s)
        if sends_several(neuron):
            return _replace_step(cell, _make_several(neuron, _step_iaf_several)), gain
        return _replace_step(cell, None if reset == "value" else partial(_step_iaf, reset=_RESETS[reset])), gain
    cell = norse.LIFCell(norse.LIFParameters(**level, **gradient), dt=dt)
    if sends_several(neuron):
        return _replace_step(cell, _make_several(neuron, _step_lif_several)), gain
    if reset == "late":
        return _replace_step(cell, _step_lif_late), gain
    return _replace_step(cell, None if reset == "value" else partial(_step_lif, reset=_RESETS[reset])), gain


def _name_reset(neuron: Any) -> ResetName:
    return "late" if resets_late(neuron) else getattr(neuron, "reset", "value")


def _keep_potential(z: Tensor, v: Tensor, v_reset: Tensor, v_th: Tensor) -> Tensor:
    """Return v, as Norse's methods of a reset are called."""
    return v


_RESETS: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]] = {
    "subtract": norse.reset_subtract,
    "none": _keep_potential,
}


_LEVELS = (("v_leak", "v_leak"), ("v_th", "v_threshold"), ("v_reset", "v_reset"))


def _replace_step(cell: norse_snn.SNNCell, step: Callable[..., tuple[Tensor, CellState]] | None) -> norse_snn.SNNCell:
    """Return the cell, or one like it that computes another step: Norse has other resets than to a value in its box cell only."""
    return cell if step is None else norse_snn.SNNCell(step, cell.state_fallback, cell.p, dt=cell.dt)


def _step_iaf(
    x: Tensor, state: norse.IAFFeedForwardState, p: norse.IAFParameters, dt: float, *, reset: Callable[..., Tensor]
) -> tuple[Tensor, CellState]:
    v = state.v + x
    z = threshold(v - p.v_th, p.method, p.alpha)
    return z, norse.IAFFeedForwardState(v=reset(z, v, p.v_reset, p.v_th))


def _step_lif(
    x: Tensor, state: norse.LIFFeedForwardState, p: norse.LIFParameters, dt: float, *, reset: Callable[..., Tensor]
) -> tuple[Tensor, CellState]:
    i = state.i + x
    v = state.v + dt * p.tau_mem_inv * ((p.v_leak - state.v) + i)
    z = threshold(v - p.v_th, p.method, p.alpha)
    return z, norse.LIFFeedForwardState(v=reset(z, v, p.v_reset, p.v_th), i=i + -dt * p.tau_syn_inv * i)


def _step_box_late(
    x: Tensor, state: norse.LIFBoxFeedForwardState, p: norse.LIFBoxParameters, dt: float
) -> tuple[Tensor, CellState]:
    v = state.v + dt * p.tau_mem_inv * (x + p.v_leak - state.v)
    v = v - _find_pending(state.v, p.v_th) * p.v_th
    return threshold(v - p.v_th, p.method, p.alpha), norse.LIFBoxFeedForwardState(v=v)


def _step_lif_late(x: Tensor, state: norse.LIFFeedForwardState, p: norse.LIFParameters, dt: float) -> tuple[Tensor, CellState]:
    i = state.i + x
    v = state.v + dt * p.tau_mem_inv * ((p.v_leak - state.v) + i)
    v = v - _find_pending(state.v, p.v_th) * p.v_th
    return threshold(v - p.v_th, p.method, p.alpha), norse.LIFFeedForwardState(v=v, i=i + -dt * p.tau_syn_inv * i)


def _count_most(neuron: Any) -> int:
    most = find_max_spikes(neuron)
    return MAX_COUNT if most is None else min(most, MAX_COUNT)


def _make_several(neuron: Any, step: Callable[..., tuple[Tensor, CellState]]) -> Callable[..., tuple[Tensor, CellState]]:
    return partial(step, reset=neuron.reset, most=_count_most(neuron))


def _step_iaf_several(
    x: Tensor, state: norse.IAFFeedForwardState, p: norse.IAFParameters, dt: float, *, reset: str, most: int
) -> tuple[Tensor, CellState]:
    v = state.v + x
    z = _count_spikes(v, p, most)
    return z, norse.IAFFeedForwardState(v=_reset_several(z, v, p, reset))


def _step_box_several(
    x: Tensor, state: norse.LIFBoxFeedForwardState, p: norse.LIFBoxParameters, dt: float, *, reset: str, most: int
) -> tuple[Tensor, CellState]:
    v = state.v + dt * p.tau_mem_inv * (x + p.v_leak - state.v)
    z = _count_spikes(v, p, most)
    return z, norse.LIFBoxFeedForwardState(v=_reset_several(z, v, p, reset))


def _step_lif_several(
    x: Tensor, state: norse.LIFFeedForwardState, p: norse.LIFParameters, dt: float, *, reset: str, most: int
) -> tuple[Tensor, CellState]:
    i = state.i + x
    v = state.v + dt * p.tau_mem_inv * ((p.v_leak - state.v) + i)
    z = _count_spikes(v, p, most)
    return z, norse.LIFFeedForwardState(v=_reset_several(z, v, p, reset), i=i + -dt * p.tau_syn_inv * i)


def _count_spikes(v: Tensor, p: Any, most: int) -> Tensor:
    """Return the number of spikes, with the gradient of a spike at the nearest multiple of the threshold."""
    nearest = _find_nearest(v.detach(), p.v_th, most)
    spikes: Tensor = threshold(v - nearest * p.v_th, p.method, p.alpha) + (nearest - 1)
    return spikes


def _find_nearest(v: Tensor, v_threshold: Tensor, most: int) -> Tensor:
    return torch.round(v / v_threshold).clamp(1, most)


def _reset_several(z: Tensor, v: Tensor, p: Any, reset: str) -> Tensor:
    if reset == "subtract":
        return v - z * p.v_th
    if reset == "value":
        return torch.where(z > 0, p.v_reset.to(v.dtype), v)
    return v


def _find_pending(v: Tensor, v_threshold: Tensor) -> Tensor:
    """Return 1.0 where a reset follows in this step: v was above the threshold before it. It has no gradient."""
    return (v > v_threshold).to(v.dtype)


# -------------------------------------------------------------------------------------------------- without a gradient


@torch.no_grad()
def run_without_gradient(
    p: Any, dt: float, reset: ResetName, drive: Tensor, state: Any, *, v_min: Tensor | None = None, most: int = 1
) -> Tensor:
    """Run all steps of one layer where no gradient is needed.

        v ← v + dt/tau · (…), z = [v > v_th], reset

    The operations are those of Norse's steps, each rounded as there, but in place; terms that cannot change a value (a leak or
    reset potential of 0) are left out. Spikes and potentials are equal to the bit, several times faster than the cells, whose
    steps keep every intermediate for a gradient.

    Args:
        p: Norse's parameters of a feed-forward cell: LIF, LIFBox, IAF, LI or LIBox.
        dt: the cell's time step.
        reset: what a spike does to v: "value" sets `v_reset`, "subtract" takes the threshold off, "late" one step later, "none".
        drive: (T, B, *shape), the input of the cell.
        state: Norse's state before the first step; left as it is.
        v_min: lower bound of v, or None.
        most: largest number of spikes in a step.

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
    level: Tensor | None = p.v_reset if spikes and reset == "value" and p.v_reset.any() else None
    late = reset == "late"
    out = torch.empty(drive.shape, dtype=drive.dtype, device=drive.device)
    pending = torch.empty_like(v)
    for x, emitted in zip(drive.unbind(0), out.unbind(0), strict=True):
        if late:
            pending.copy_(v > p.v_th)
        if i is not None:
            x = i.add_(x)
        if not leaks:
            v.add_(x)
            if v_min is not None:
                torch.maximum(v, v_min, out=v)
        else:
            v.add_(_subtract_potential(x, v, leak, box, spare).mul_(rate))
        if i is not None:
            i.add_(torch.mul(i, decay, out=spare))
        if not spikes:
            emitted.copy_(v)
            continue
        if late:
            v.sub_(pending.mul_(p.v_th))
        if most > 1:
            _fire_several(v, p, reset, most, emitted)
        else:
            torch.gt(v, p.v_th, out=emitted)
            _reset_in_place(v, p, reset, level, emitted, spare)
    return out


def _reset_in_place(v: Tensor, p: Any, reset: ResetName, level: Tensor | None, spikes: Tensor, spare: Tensor) -> None:
    """Reset v where there is a spike; `level` is v_reset where it is not 0."""
    if reset == "subtract":
        v.sub_(torch.mul(spikes, p.v_th, out=spare))
    elif reset == "value":
        v.mul_(torch.sub(1, spikes, out=spare))
        if level is not None:
            v.add_(torch.mul(spikes, level, out=spare))


def _fire_several(v: Tensor, p: Any, reset: str, most: int, out: Tensor) -> None:
    """Write the number of spikes to `out`, and reset v in place."""
    nearest = _find_nearest(v, p.v_th, most)
    out.copy_(nearest - 1 + (v > nearest * p.v_th))
    v.copy_(_reset_several(out, v, p, reset))


def _subtract_potential(x: Tensor, v: Tensor, leak: Tensor | None, box: bool, out: Tensor) -> Tensor:
    """Return v_leak − v + x, summed in the order of the cell: a spiking box cell adds the leak to the input first."""
    if leak is None:
        return torch.sub(x, v, out=out)
    return torch.add(x, leak, out=out).sub_(v) if box else torch.sub(leak, v, out=out).add_(x)
