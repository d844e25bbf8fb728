"""Pools of a network on chips that pool between their cores.

A chip pools where spikes leave a core: behind neurons, ahead of the weights of the next layer. Pools in a row may be one there,
whose window is the product of theirs. A pool ahead of the first weights has no core in front of it: a block for the input may
do it. A pool behind the last neurons has no core behind it: the host may have to do it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from spear_deploy.hardware.schema import HardwareProfile, LayerKinds
from spear_deploy.network import POOLS, WEIGHTED, AvgPool, Layer, SumPool
from spear_deploy.network.graph import INPUT, SNNGraph
from spear_deploy.quantize.fuse_weights import emits_current
from spear_deploy.util.number_format import format_shape, join_names

BEHIND_CONVOLUTION = "pool behind the first convolution"


@dataclass(frozen=True, kw_only=True)
class PoolRow:
    """Pools in a row, without weights or neurons between them.

    Attributes:
        names: of the layers, in order.
        pools: of the same layers.
        window: positions that they pool together along each axis, where each has its window as its stride.
        on_input: whether the network's input, not neurons, feeds them.
        at_output: whether they are the network's output, with no weights behind them.
        of_currents: whether weights, not neurons, feed them.
    """

    names: tuple[str, ...]
    pools: tuple[SumPool | AvgPool, ...]
    window: tuple[int, ...]
    on_input: bool
    at_output: bool
    of_currents: bool


def find_pool_rows(graph: SNNGraph, profile: HardwareProfile) -> list[PoolRow]:
    """Return the pools of a network in rows, as the chip sees them: one by one where it does not merge them."""
    rows: list[PoolRow] = []
    for layer in graph.layers:
        if isinstance(layer.synapse, POOLS):
            behind = _pools_behind(graph, layer.name)
            if not (profile.layers.pool_merge.value and behind):
                names = _row_before(graph, layer.name) if profile.layers.pool_merge.value else (layer.name,)
                rows.append(_build_row(graph, names))
    return rows


def check_pools(graph: SNNGraph, profile: HardwareProfile) -> Iterator[tuple[str, str, str, str]]:
    """Yield (layer, what it has, what the chip has instead, what to do) of the network's pools.

    Args:
        graph: the network.
        profile: the chip; what is not published restricts nothing.
    """
    for row in find_pool_rows(graph, profile):
        if row.at_output and profile.layers.output_pool.value is False:
            continue  # the host pools: no window is too large
        if row.of_currents and profile.layers.output_pool.value is False:
            kind, chip = type(row.pools[0]).__name__, profile.name
            remedy = "put neurons in front of the pool, or the pool ahead of the weights"
            yield row.names[-1], f"{kind} of currents", f"{chip} pools spikes that leave a core", remedy
            continue
        for lack in (*_check_windows(row, profile.layers, profile.name), *_check_input_block(graph, row, profile)):
            yield row.names[-1], *lack


def note_pools(graph: SNNGraph, profile: HardwareProfile) -> Iterator[str]:
    """Yield a note for each pool that no core of the chip does."""
    chip = profile.name
    for row in find_pool_rows(graph, profile):
        names = join_names([f"'{name}'" for name in row.names])
        if row.at_output and profile.layers.output_pool.value is False:
            yield f"pool: {names} at the output is not in {chip}'s configuration; its spikes come unpooled, the host pools them"
        elif row.on_input and profile.layers.input_pool_channels_max.max_value is not None:
            yield f"pool: {names} ahead of the first weights is done by {chip}'s input block (DVS layer), not by a core"


# ------------------------------------------------------------------------------------------------------------ inside


def _pools_behind(graph: SNNGraph, name: str, passed: tuple[str, ...] = ()) -> bool:
    """Return whether every way on from a layer leads into a pool before weights or neurons."""
    if name == graph.output or name in passed or graph[name].neuron is not None:
        return False
    targets = [graph[edge.target] for edge in graph.edges_from(name)]
    return bool(targets) and all(_leads_into_pool(graph, target, (*passed, name)) for target in targets)


def _leads_into_pool(graph: SNNGraph, layer: Layer, passed: tuple[str, ...]) -> bool:
    if isinstance(layer.synapse, POOLS):
        return True
    return not isinstance(layer.synapse, WEIGHTED) and layer.neuron is None and _pools_behind(graph, layer.name, passed)


def _row_before(graph: SNNGraph, name: str, passed: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Return the names of the pools up to one, along its first edges, back to neurons, weights or the input."""
    sources = [edge.source for edge in graph.edges_into(name) if edge.source not in (INPUT, name, *passed)]
    names = (name,) if isinstance(graph[name].synapse, POOLS) else ()
    if not sources or graph[sources[0]].neuron is not None or isinstance(graph[sources[0]].synapse, WEIGHTED):
        return names
    return (*_row_before(graph, sources[0], (*passed, name)), *names)


def _build_row(graph: SNNGraph, names: tuple[str, ...]) -> PoolRow:
    pools = tuple(pool for name in names if isinstance(pool := graph[name].synapse, POOLS))
    window = tuple(pools[0].kernel_size)
    for pool in pools[1:]:
        window = tuple(a * b for a, b in zip(window, pool.kernel_size, strict=True))
    return PoolRow(
        names=names,
        pools=pools,
        window=window,
        on_input=_reaches_input(graph, names[0]),
        at_output=graph[names[-1]].neuron is None and not _feeds_weights(graph, names[-1]),
        of_currents=any(emits_current(graph, edge.source) for edge in graph.edges_into(names[0])),
    )


def _reaches_input(graph: SNNGraph, name: str, passed: tuple[str, ...] = ()) -> bool:
    """Return whether the network's input feeds a layer without weights or neurons between."""
    for edge in graph.edges_into(name):
        if edge.source == INPUT:
            return True
        before = graph[edge.source]
        is_passive = before.neuron is None and not isinstance(before.synapse, WEIGHTED) and before.name not in (name, *passed)
        if is_passive and _reaches_input(graph, edge.source, (*passed, name)):
            return True
    return False


def _feeds_weights(graph: SNNGraph, name: str, passed: tuple[str, ...] = ()) -> bool:
    """Return whether weights or neurons lie behind a layer."""
    return any(
        graph[edge.target].neuron is not None
        or isinstance(graph[edge.target].synapse, WEIGHTED)
        or _feeds_weights(graph, edge.target, (*passed, name))
        for edge in graph.edges_from(name)
        if edge.target not in (name, *passed)
    )


def _check_windows(row: PoolRow, sizes: LayerKinds, chip: str) -> Iterator[tuple[str, str, str]]:
    allowed, window = sizes.pool_sizes.value, row.window
    kinds = [f"{type(pool).__name__} of {format_shape(pool.kernel_size)}" for pool in row.pools]
    what = kinds[0] if len(kinds) == 1 else f"{join_names(kinds)} in a row, {format_shape(window)} together"
    overlapping = [pool for pool in row.pools if tuple(pool.stride or pool.kernel_size) != tuple(pool.kernel_size)]
    if allowed is not None and any(n not in allowed for n in window):
        merged = "" if len(kinds) == 1 else "takes pools in a row as one and "
        yield what, f"{chip} {merged}pools over {', '.join(map(str, allowed))}", "use one of them, or a stride"
    elif sizes.pool_square.value and overlapping:
        pool = overlapping[0]
        stride = format_shape(tuple(pool.stride or pool.kernel_size))
        yield (
            f"{type(pool).__name__} of {format_shape(pool.kernel_size)} at stride {stride}",
            f"{chip} has square windows that do not overlap",
            "",
        )
    elif sizes.pool_square.value and len(set(window)) > 1:
        yield f"{what} at stride {format_shape(window)}", f"{chip} has square windows that do not overlap", ""
    paddings = [n for pool in row.pools for n in _padding(pool)]
    limit = sizes.pool_padding_max.max_value
    if limit is not None and max(paddings) > limit:
        yield f"{what} with padding {max(paddings)}", f"{chip} pads no pool by more than {limit}", "pad in the convolution"


def _padding(pool: SumPool | AvgPool) -> tuple[int, ...]:
    return (pool.padding,) if isinstance(pool.padding, int) else tuple(pool.padding)


def _check_input_block(graph: SNNGraph, row: PoolRow, profile: HardwareProfile) -> Iterator[tuple[str, str, str]]:
    """Yield what a pool ahead of the first weights has beyond the block that pools the input."""
    if not row.on_input:
        return
    channels, *positions = graph.input_shape_of(row.names[0])
    if len(row.pools) > 1 and profile.layers.input_pool_channels_max.max_value is not None:
        window = format_shape(row.window)
        reason = f"{profile.name}'s own tool takes one pool ahead of the first weights"
        yield f"{len(row.pools)} pools of the input in a row", reason, f"use one of {window}"
    max_channels, max_map = profile.layers.input_pool_channels_max.max_value, profile.layers.input_pool_map_max.max_value
    kind = type(row.pools[0]).__name__
    block = f"pools ahead of the first weights are done by the input block of {profile.name}, which has"
    if max_channels is not None and channels > max_channels:
        yield f"{kind} of the input with {channels} channels", f"{block} {max_channels}", BEHIND_CONVOLUTION
    if max_map is not None and max(positions) > max_map:
        size = format_shape(tuple(positions))
        yield f"{kind} of the input of {size}", f"{block} {max_map} positions along an axis", BEHIND_CONVOLUTION
