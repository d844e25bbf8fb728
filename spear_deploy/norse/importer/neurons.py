"""Which neuron is a Norse cell? The one whose float32 states are Norse's to the bit.

A cell counts by what it computes in a step, not by its class, which a user may have derived from. Its rates become time constants
such that float32(dt / tau), the multiplier of the simulator, is Norse's float32 product `dt * tau_inv`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from spear_deploy.errors import UnsupportedError
from spear_deploy.network import IF, LI, LIF, Array, CubaLI, CubaLIF, Neuron, Reset, Shape
from spear_deploy.norse.cells import CELLS, TIMED, array, norse


def neuron_of(module: Any, shape: Shape, where: str) -> Neuron | None:
    """Return the neuron of a Norse cell, time layer or recurrent cell, None where a graph has none like it.

    Args:
        module: what Norse computes with; its weights, if it has any, are not in the neuron.
        shape: of the layer, without batch.
        where: the module's place in the model, for errors.

    Raises:
        UnsupportedError: parameters of another cell, or values with which the equation is not that of the neuron.
    """
    method = getattr(module.p, "method", "super")
    if method not in _METHODS:
        raise UnsupportedError(f"{where} has the method '{method}', with which Norse cannot run; expected {', '.join(_METHODS)}")
    if type(module).forward is norse.LILinearCell.forward:
        parameters, make = _KINDS[norse.li_feed_forward_step]
    elif type(module).forward in _FORWARDS and module.activation in _KINDS and _function(module.state_fallback) in _STARTS:
        parameters, make = _KINDS[module.activation]
    else:
        return None
    if not isinstance(module.p, parameters):
        cell, given = type(module).__name__, type(module.p).__name__
        raise UnsupportedError(
            f"{where} is {cell} with {given}, which Norse takes without a check; give it {parameters.__name__}"
        )
    return make(_Reader(module, shape, where))


_METHODS = ("heaviside", "super", "triangle", "tanh", "circ", "heavi_erfc")


def _function(method: Any) -> Any:
    return getattr(method, "__func__", method)


class _Reader:
    """Reads the parameters of one cell as arrays that spread over its shape."""

    def __init__(self, module: Any, shape: Shape, where: str) -> None:
        self.p, self.dt, self.shape, self.where = module.p, float(module.dt), shape, where

    def level(self, name: str) -> Array:
        """Return a voltage."""
        value = array(getattr(self.p, name))
        return value[0] if value.ndim == len(self.shape) + 1 and value.shape[0] == 1 else value

    def tau(self, name: str) -> Array:
        """Return the time constant in s of a rate in 1/s, with float32(dt / tau) equal to Norse's product of dt and the rate."""
        rate = getattr(self.p, name)
        multiplier = torch.as_tensor(self.dt * rate).detach().cpu()  # as Norse multiplies
        wanted = multiplier.numpy().astype(np.float64)
        if not (np.isfinite(wanted) & (wanted > 0)).all():
            raise UnsupportedError(f"{self.where} has {name} {float(wanted.min()) / self.dt:g} 1/s, expected a rate above 0 1/s")
        if wanted.ndim == len(self.shape) + 1 and wanted.shape[0] == 1:
            wanted = wanted[0]
        single = np.float32 if multiplier.dtype == torch.float32 else np.float64
        exact = self.dt / wanted
        for tau in (_short(exact), exact):
            if np.array_equal((self.dt / tau).astype(single), wanted.astype(single)):
                return tau
        return exact

    def reset(self) -> Reset:
        """Return the kind of reset."""
        method = getattr(self.p, "reset_method", norse.reset_value)
        if method is norse.reset_subtract:
            return "subtract"
        if method is norse.reset_value:
            return "value"
        name = getattr(method, "__name__", str(method))
        raise UnsupportedError(f"{self.where} resets by '{name}'; expected reset_value or reset_subtract of norse.torch")


def _short(tau: Array) -> Array:
    """Return time constants rounded to 7 digits: what a person wrote, mostly."""
    return np.array([float(f"{value:.7g}") for value in tau.ravel()]).reshape(tau.shape)


def jump_of(tau_syn_s: Array, dt_s: float) -> Array:
    """Return `w_in` of a neuron whose current jumps by its input: w_in · (dt / tau_syn) is 1, exactly where float64 can.

    >>> float(jump_of(np.array(0.005), 1e-3))
    5.0
    """
    factor = dt_s / tau_syn_s
    w_in = tau_syn_s / dt_s
    for near in (1 / factor, np.nextafter(1 / factor, np.inf), np.nextafter(1 / factor, 0)):
        w_in = np.where(w_in * factor == 1, w_in, near)
    return np.where(w_in * factor == 1, w_in, tau_syn_s / dt_s)


def _lif(read: _Reader) -> Neuron:
    tau_syn = read.tau("tau_syn_inv")
    return CubaLIF(
        tau_mem_s=read.tau("tau_mem_inv"),
        tau_syn_s=tau_syn,
        w_in=jump_of(tau_syn, read.dt),
        v_leak=read.level("v_leak"),
        v_threshold=read.level("v_th"),
        v_reset=read.level("v_reset"),
    )


def _lif_box(read: _Reader) -> Neuron:
    return LIF(
        tau_s=read.tau("tau_mem_inv"),
        v_leak=read.level("v_leak"),
        v_threshold=read.level("v_th"),
        v_reset=read.level("v_reset"),
        reset=read.reset(),
    )


def _iaf(read: _Reader) -> Neuron:
    return IF(v_threshold=read.level("v_th"), v_reset=read.level("v_reset"))


def _li(read: _Reader) -> Neuron:
    tau_syn = read.tau("tau_syn_inv")
    return CubaLI(
        tau_mem_s=read.tau("tau_mem_inv"), tau_syn_s=tau_syn, w_in=jump_of(tau_syn, read.dt), v_leak=read.level("v_leak")
    )


def _li_box(read: _Reader) -> Neuron:
    return LI(tau_s=read.tau("tau_mem_inv"), v_leak=read.level("v_leak"))


_KINDS: dict[Any, tuple[type, Callable[[_Reader], Neuron]]] = {
    norse.lif_feed_forward_step: (norse.LIFParameters, _lif),
    norse.lif_step: (norse.LIFParameters, _lif),
    norse.lif_box_feed_forward_step: (norse.LIFBoxParameters, _lif_box),
    norse.iaf_feed_forward_step: (norse.IAFParameters, _iaf),
    norse.li_feed_forward_step: (norse.LIParameters, _li),
    norse.li_box_feed_forward_step: (norse.LIBoxParameters, _li_box),
}
"""By what a module computes in a step, not by its class, which a user may have derived from."""

_FORWARDS = {kind.forward for kind in (*CELLS, *TIMED)}
_STARTS = {_function(kind.initial_state) for kind in (*CELLS, *TIMED)}
