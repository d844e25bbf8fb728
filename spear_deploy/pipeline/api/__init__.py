"""Commands as functions: check, rank, count, simulate, compare, export.

`spear_deploy.pipeline.inputs` describes `net`, `chip` and `data`.
"""

from spear_deploy.pipeline.api.counts import Count, count
from spear_deploy.pipeline.api.files import LintReport, choose_format, export, lint
from spear_deploy.pipeline.api.fits import check, rank, repeat_chip, suggest_command
from spear_deploy.pipeline.api.runs import compare, explain, simulate, summarize_run
from spear_deploy.pipeline.backends import BACKENDS, Backend, BackendChoice
from spear_deploy.pipeline.inputs import Chip, Net, data, load, load_both, profile, quantize_for_chip, resolve_chip
from spear_deploy.util.progress import Progress

__all__ = [
    "BACKENDS", "Backend", "BackendChoice", "Chip", "Count", "LintReport", "Net", "Progress", "check", "choose_format",
    "compare", "count", "data", "explain", "export", "lint", "load", "load_both", "profile", "quantize_for_chip", "rank",
    "repeat_chip", "resolve_chip", "simulate", "suggest_command", "summarize_run",
]  # fmt: skip
