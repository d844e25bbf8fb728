"""Compiled kernels: sums of the weights of events, and updates of neurons.

Imports numba, so it is imported by `kernel_choice.py` alone, once a process has work enough. Every kernel gives the
whole numbers that numpy gives (`tests/simulator/test_compiled_kernels.py`): sums are int32, states float64, and nothing rounds.
One thread each. Machine code is kept beside the compiled modules, in `__pycache__`; where Python may not write there, it is not
kept: never in the user's home.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from spear_deploy.util.ctrl_c import hold_ctrl_c
from spear_deploy.util.machine_code import IS_KEPT

TILE = 512
"""Neurons that are updated together through all steps: states and constants of 28 KiB, within the innermost cache."""
REGISTER = 32
"""Bytes of a vector register; where a processor's are narrower, LLVM takes several."""
POSITIONS = 16
"""Output positions of a convolution that are summed before they are written: a cache line of int32."""


def njit(function: Any) -> Any:
    """Let numba compile a function when it is called first; Ctrl-C waits for that."""
    kernel: Any = numba.njit(cache=IS_KEPT)(function)
    compile_kernel = kernel.compile

    def compile_held(signature: Any) -> Any:
        with hold_ctrl_c():
            return compile_kernel(signature)

    kernel.compile = compile_held
    return kernel


WORD = ir.IntType(64)


@dataclass(frozen=True, kw_only=True)
class _Instructions:
    """Instructions of a kernel on its arguments.

    Attributes:
        context, builder: numba's and LLVM's, which the instructions are written with.
        arguments: type and value of each.
    """

    context: Any
    builder: Any
    arguments: dict[str, tuple[Any, Any]]

    def widen(self, name: str) -> Any:
        """Return an argument in 64 bits."""
        kind, value = self.arguments[name]
        return self.context.cast(self.builder, value, kind, types.int64)

    def find_address(self, name: str, row: Any, column: Any) -> Any:
        """Return the address of a number in a matrix whose rows lie apart and whose columns do not."""
        kind, value = self.arguments[name]
        array = self.context.make_array(kind)(self.context, self.builder, value)
        column_bytes = self.builder.mul(column, ir.Constant(WORD, kind.dtype.bitwidth // 8))
        row_bytes = self.builder.mul(row, self.builder.extract_value(array.strides, 0))
        return self.builder.add(self.builder.ptrtoint(array.data, WORD), self.builder.add(row_bytes, column_bytes))

    def point(self, address: Any, kind: Any, place: int = 0) -> Any:
        """Return a pointer to what lies so many bytes behind an address."""
        return self.builder.inttoptr(self.builder.add(address, ir.Constant(WORD, place)), kind.as_pointer())


def make_row_sum(vectors: int) -> Any:
    """Return a kernel that adds rows of weights in registers, which numba's own loops leave for each row.

    totals[place, lane:lane + L] += sum over start <= e < stop of weight[rows[line, e] + offset, lane:lane + L], where L is as
    many numbers as `vectors` registers hold. It is summed in the type of the weights: callers take so few rows that it suffices.
    """

    @intrinsic
    def add(  # type: ignore[no-untyped-def]
        typing: Any, weight, rows, line, offset, start, stop, totals, place, lane
    ) -> Any:
        signature = types.void(weight, rows, line, offset, start, stop, totals, place, lane)

        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            names = ("weight", "rows", "line", "offset", "start", "stop", "totals", "place", "lane")
            arguments = {name: (kind, value) for name, kind, value in zip(names, signature.args, values, strict=True)}
            _write_row_sum(_Instructions(context=context, builder=builder, arguments=arguments), vectors)
            return context.get_dummy_value()

        return signature, generate

    return add


def _write_row_sum(code: _Instructions, vectors: int) -> None:
    """Write the loop of `make_row_sum` over rows, and behind it the additions of the registers to the totals."""
    builder = code.builder
    size = code.arguments["weight"][0].dtype.bitwidth // 8
    lanes, zero = REGISTER // size, ir.Constant(WORD, 0)
    narrow, wide = (ir.VectorType(ir.IntType(bits), lanes) for bits in (8 * size, 32))
    offset, stop, lane = code.widen("offset"), code.widen("stop"), code.widen("lane")
    listed, sums = code.find_address("rows", code.widen("line"), zero), code.find_address("totals", code.widen("place"), lane)
    before = builder.block
    head, body, after = (builder.append_basic_block(name) for name in ("head", "body", "after"))
    builder.branch(head)
    builder.position_at_end(head)
    e = builder.phi(WORD)
    e.add_incoming(code.widen("start"), before)
    registers = [builder.phi(narrow) for _ in range(vectors)]
    builder.cbranch(builder.icmp_signed("<", e, stop), body, after)
    builder.position_at_end(body)
    number = builder.load(code.point(builder.add(listed, builder.mul(e, ir.Constant(WORD, 4))), ir.IntType(32)))
    row = code.find_address("weight", builder.add(builder.zext(number, WORD), offset), lane)
    for k, register in enumerate(registers):
        register.add_incoming(ir.Constant(narrow, [0] * lanes), before)
        register.add_incoming(builder.add(register, builder.load(code.point(row, narrow, k * REGISTER), align=size)), body)
    e.add_incoming(builder.add(e, ir.Constant(WORD, 1)), body)
    builder.branch(head)
    builder.position_at_end(after)
    for k, register in enumerate(registers):
        target = code.point(sums, wide, 4 * k * lanes)
        added = register if narrow == wide else builder.sext(register, wide)
        builder.store(builder.add(builder.load(target, align=4), added), target, align=4)


add_four, add_one = make_row_sum(4), make_row_sum(1)


@njit
def add_rows(weight: Any, limit: int, rows: Any, line: int, count: int, offset: int, totals: Any, place: int) -> None:
    """Add rows of weights to a sum: totals[place] += sum over e < count of weight[rows[line, e] + offset].

    Args:
        weight: (R, O) int16 or int32; O is a multiple of the numbers of a register.
        limit: rows whose sum the type of the weights holds.
        rows: (lines, rows at most) uint32.
        totals: (places, O) int32.
    """
    lanes, start = REGISTER // weight.itemsize, 0
    while start < count:
        stop, lane = min(start + limit, count), 0
        while lane + 4 * lanes <= weight.shape[1]:
            add_four(weight, rows, line, offset, start, stop, totals, place, lane)
            lane += 4 * lanes
        while lane < weight.shape[1]:
            add_one(weight, rows, line, offset, start, stop, totals, place, lane)
            lane += lanes
        start = stop


@njit
def sum_dense(x: Any, weight: Any, limit: int, bias: Any, shift: int, y: Any) -> None:
    """Sum the weights of the inputs that spike: y = ((W x) << shift) + bias.

    Args:
        x: (N, I) uint8, 0 or 1.
        weight, limit: (I, at least O), see `add_rows`.
        bias: (O,) int32.
        shift: below 0 to the right, towards minus infinity.
        y: (N, O) int32.
    """
    rows, totals = np.empty((1, x.shape[1]), np.uint32), np.empty((1, weight.shape[1]), np.int32)
    for n in range(x.shape[0]):
        count = 0
        for i in range(x.shape[1]):
            rows[0, count] = i
            count += x[n, i]
        totals[:] = 0
        add_rows(weight, limit, rows, 0, count, 0, totals, 0)
        for o in range(y.shape[1]):
            total = totals[0, o]
            y[n, o] = (total << shift if shift >= 0 else total >> -shift) + bias[o]


@njit
def sum_sparse(x: Any, starts: Any, outputs: Any, values: Any, bias: Any, shift: int, y: Any) -> None:
    """Sum the weights of the inputs that spike, of which only those that are not zero are stored.

    Args:
        x, bias, shift, y: see `sum_dense`.
        starts: (I + 1,), where the weights of each input begin.
        outputs, values: (number of weights,), output and value of each.
    """
    for n in range(x.shape[0]):
        total = y[n]
        total[:] = 0
        for i in range(x.shape[1]):
            if x[n, i]:
                for k in range(starts[i], starts[i + 1]):
                    total[outputs[k]] += values[k]
        for o in range(total.shape[0]):
            total[o] = (total[o] << shift if shift >= 0 else total[o] >> -shift) + bias[o]


@njit
def list_channels(x: Any, first: int, taps: int, counts: Any, channels: Any) -> None:
    """List the channels that spike at each position of a sample.

    Args:
        x: (C, H, W) uint8, 0 or 1.
        first: first channel of the group.
        taps: what the number of a channel is multiplied by.
        counts: (H, W), takes the number of spikes.
        channels: (H, W, I + 1), takes the channels; the last place takes a write that does not count.
    """
    counts[:] = 0
    for i in range(x.shape[1]):
        for c in range(channels.shape[2] - 1):
            spikes = x[first + c, i]
            for j in range(x.shape[2]):
                channels[i, j, counts[i, j]] = c * taps
                counts[i, j] += spikes[j]


@njit
def list_rows(row: int, channels: Any, counts: Any, geometry: Any, rows: Any, row_counts: Any) -> None:
    """List, for each input column, the weights that its spikes add in a row of output positions by the kernel's first column.

    Args:
        row: of the output positions.
        channels, counts: see `list_channels`.
        geometry: see `sum_convolution`.
        rows: (W, I · kH) uint32, takes indices of rows of the weights.
        row_counts: (W,), takes their numbers.
    """
    row_counts[:] = 0
    for k in range(geometry[0]):
        i = row * geometry[2] + k * geometry[6] - geometry[4]
        if 0 <= i < counts.shape[0]:
            for j in range(counts.shape[1]):
                first = row_counts[j]
                for e in range(counts[i, j]):
                    rows[j, first + e] = channels[i, j, e] + k * geometry[1]
                row_counts[j] = first + counts[i, j]


@njit
def sum_convolution(x: Any, weight: Any, limit: int, bias: Any, shift: int, y: Any, geometry: Any, first: Any) -> None:
    """Sum the weights of the inputs that spike, for one group of channels of a convolution.

    Args:
        x: (N, C, H, W) uint8, 0 or 1.
        weight, limit: (I · kH · kW, at least O) of this group, inputs outermost; see `add_rows`.
        bias: (O,) int32 of this group.
        shift: see `sum_dense`.
        y: (N, channels, rows, columns) int32.
        geometry: kernel, stride, padding and dilation, two numbers each.
        first: first input and first output channel of the group.
    """
    outputs, taps = bias.shape[0], geometry[0] * geometry[1]
    inputs = weight.shape[0] // taps
    counts = np.empty(x.shape[2:], np.int64)
    channels = np.empty((x.shape[2], x.shape[3], inputs + 1), np.int32)
    rows, row_counts = np.empty((x.shape[3], inputs * geometry[0]), np.uint32), np.empty(x.shape[3], np.int64)
    totals = np.empty((POSITIONS, weight.shape[1]), np.int32)
    for n in range(x.shape[0]):
        list_channels(x[n], first[0], taps, counts, channels)
        for row in range(y.shape[2]):
            list_rows(row, channels, counts, geometry, rows, row_counts)
            for start in range(0, y.shape[3], POSITIONS):
                size = min(POSITIONS, y.shape[3] - start)
                totals[:] = 0
                for place in range(size):
                    for m in range(geometry[1]):
                        j = (start + place) * geometry[3] + m * geometry[7] - geometry[5]
                        if 0 <= j < x.shape[3]:
                            add_rows(weight, limit, rows, j, row_counts[j], m, totals, place)
                for o in range(outputs):
                    for place in range(size):
                        total = totals[place, o]
                        total = total << shift if shift >= 0 else total >> -shift
                        y[n, first[1] + o, row, start + place] = total + bias[o]


@njit
def advance_loihi(drive: Any, emitted: Any, u: Any, v: Any, constants: Any, limits: Any, subtracts: bool) -> tuple[int, int]:
    """Advance Loihi's neurons through all steps, states in place.

    Args:
        drive: (K, B, N).
        emitted: (K, B, N) bool, takes the spikes.
        u, v: (B, N) float64.
        constants: keep_u, keep_v, bias, threshold and v_reset, (5, N) float64.
        limits: the unit of the drive, and the limit of the states.
        subtracts: whether a spike subtracts its threshold.

    Returns:
        How often u wrapped and v was clipped.
    """
    unit, limit = limits
    wraps = saturations = 0
    for b in range(u.shape[0]):
        for start in range(0, u.shape[1], TILE):
            stop = min(start + TILE, u.shape[1])
            u_, v_ = u[b, start:stop], v[b, start:stop]
            keep_u, keep_v, bias = constants[0, start:stop], constants[1, start:stop], constants[2, start:stop]
            threshold, v_reset = constants[3, start:stop], constants[4, start:stop]
            for t in range(drive.shape[0]):
                x, spikes = drive[t, b, start:stop], emitted[t, b, start:stop]
                for n in range(stop - start):
                    current = np.trunc(u_[n] * keep_u[n]) + unit * x[n]
                    over, under = current > limit, current <= -limit
                    current += (2 * limit if under else 0.0) - (2 * limit if over else 0.0)
                    wraps += over | under
                    potential = np.trunc(v_[n] * keep_v[n]) + current + bias[n]
                    saturations += abs(potential) >= limit
                    potential = min(max(potential, 1 - limit), limit - 1)
                    fires = potential > threshold[n]
                    after = potential - threshold[n] if subtracts else v_reset[n]
                    u_[n], v_[n], spikes[n] = current, after if fires else potential, fires
    return wraps, saturations


@njit
def send_events(x: Any, weight: Any, threshold: Any, limits: Any, v: Any, counts: Any) -> None:
    """Send the spikes of a step one after another to neurons that reset to 0 (`OdinLIF`), in place.

    Args:
        x: (B, inputs), how often each source spikes.
        weight: (inputs, outputs).
        threshold: (outputs,).
        limits: the lowest and the highest v.
        v: (B, outputs).
        counts: (B, outputs), take the spikes that are sent.
    """
    outputs = weight.shape[1]
    low, high = np.int32(limits[0]), np.int32(limits[1])
    rows, over = weight.astype(np.int32), threshold.astype(np.int32)
    held, sent = np.empty(outputs, np.int32), np.empty(outputs, np.int32)
    for sample in range(x.shape[0]):
        held[:] = v[sample]
        sent[:] = 0
        for source in range(x.shape[1]):
            row = rows[source]
            for _ in range(x[sample, source]):
                for neuron in range(outputs):
                    moved = min(max(held[neuron] + row[neuron], low), high)
                    fires = np.int32(moved >= over[neuron])
                    sent[neuron] += fires
                    held[neuron] = moved * (np.int32(1) - fires)
        v[sample] = held
        counts[sample] = sent
