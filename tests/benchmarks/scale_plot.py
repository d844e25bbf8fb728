"""Plot of CPU time and peak memory over the size of networks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

PANELS = {
    "weights": "weights",
    "nonzero": "weights that are not zero",
    "synapses": "synapses",
    "layers": "layers",
    "steps": "steps",
    "samples": "samples",
}
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8c564b", "#7f7f7f", "#bcbd22")
Curves = Mapping[str, tuple[str, list[tuple[float, dict[str, Any]]]]]


def draw(curves: Curves, path: Path) -> None:
    """Draw a column for each size, CPU seconds above and peak memory below; a grey line is linear.

    Args:
        curves: what grows and its points (size, case), by verb and series.
        path: of the SVG file; the same data give the same file.
    """
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "scale", "svg.fonttype": "none"})
    from matplotlib import pyplot

    panels = [size for size in PANELS if any(size == of for of, _ in curves.values())]
    figure, axes = pyplot.subplots(2, len(panels), figsize=(3.7 * len(panels), 8.5), squeeze=False, sharex="col", sharey="row")
    for column, size in enumerate(panels):
        shown = {name: points for name, (of, points) in curves.items() if of == size}
        for (name, points), colour in zip(shown.items(), COLOURS * 3, strict=False):
            style = "o--" if "VGG16" in name else "o-"
            for axis, key, unit in ((axes[0][column], "cpu_s", 1.0), (axes[1][column], "peak_bytes", 1e6)):
                axis.loglog(*zip(*((x, case[key] / unit) for x, case in points), strict=True), style, ms=3, lw=1.2, color=colour)
            axes[0][column].plot([], [], style, ms=3, color=colour, label=name.removesuffix(f", {size}"))
        end, seconds = max((points[-1][0], points[-1][1]["cpu_s"]) for points in shown.values())
        axes[0][column].plot([end / 100, end], [seconds / 100, seconds], color="0.6", lw=0.8, label="linear")
        axes[1][column].set_xlabel(PANELS[size])
        axes[0][column].legend(fontsize=6, loc="lower left", bbox_to_anchor=(0, 1.01), frameon=False)
        for axis in axes[:, column]:
            axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("CPU, s")
    axes[1][0].set_ylabel("peak memory, MB")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
