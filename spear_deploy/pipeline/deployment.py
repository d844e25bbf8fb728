"""Settings and results of a deployment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from spear_deploy.data.time_steps import StepsRange, parse_steps
from spear_deploy.errors import BudgetError
from spear_deploy.pipeline.adaptation.task import CHIP, check_readout
from spear_deploy.pruning.budgets import parse_amount
from spear_deploy.pruning.levers import are_bits_alone, check_steps
from spear_deploy.pruning.settings import check_learning_rate, choose_method
from spear_deploy.util.arguments import require_seed, require_switch, require_whole_number
from spear_deploy.util.number_format import plural
from spear_deploy.util.workers import Workers, read_workers

if TYPE_CHECKING:
    from spear_deploy.budget.report import BudgetReport
    from spear_deploy.network.graph import SNNGraph


@dataclass(frozen=True, kw_only=True)
class DeploySettings:
    """How a network is deployed.

    Attributes:
        synops: SynOps budget per inference, or a share ("50%") of the dense network's SynOps on the test split.
        method: of the search, one of `pruning.search.settings.METHODS`; see `PruneSettings`.
        levers: of pruning, "channels,weights,bits"; unless given what the chip rewards.
        learning_rate: the peak of fine-tuning, see `PruneSettings`.
        seed: of everything random; the same seed gives the same result.
        readout: "chip", or "host": the spikes in front of the readout leave the chip, and the host integrates them.
        lava_samples: number of test samples that run on Lava; all unless given.
        overrides: facts of the profile to replace, by dotted key.
        steps, encoding: of data without a time axis (`load_data`). A range of steps, "auto" or "3..8", lets pruning choose the
            number of time steps (`pruning.time_steps`).
        device: that networks learn on, see `training.device`.
        workers: where candidates are measured and learn at the same time; None: in this process.
        fresh: run all stages again, even where the folder holds their results.
        command: the command line that made the call; it is shown in the report and in the advice after an error.

    Raises:
        BudgetError: the budget is neither a number nor a share above 0, or there is no such method; bits as the only lever; a
            range of steps without the lever, or the lever without a range; a learning rate out of its range.
        DataError: the steps are neither a number nor a range; a seed or a number of samples that is none.
        UnsupportedError: there is no such place for a readout.
    """

    synops: str | float = "50%"
    method: str | None = None
    levers: str | tuple[str, ...] | None = None
    learning_rate: float | None = None
    seed: int = 0
    readout: str = CHIP
    lava_samples: int | None = None
    overrides: Mapping[str, Any] | None = None
    steps: int | str | None = None
    encoding: str | None = None
    device: str = "cpu"
    workers: Workers | None = None
    fresh: bool = False
    command: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "workers", read_workers(self.workers))  # a number, too
        parse_amount(self.synops, "synops")
        choose_method(self.method, self.levers)
        if are_bits_alone(self.levers):
            raise BudgetError(
                "levers: bits alone leaves all channels, and a deployment prunes to a budget of SynOps; name channels or "
                "weights too (`--levers channels,bits`), or use `spear-deploy prune --levers bits`"
            )
        check_steps(self.levers, self.steps)
        check_learning_rate(self.learning_rate)
        require_seed(self.seed)
        require_switch("fresh", self.fresh)
        check_readout(self.readout)
        if self.lava_samples is not None:
            require_whole_number("lava_samples", self.lava_samples)

    @property
    def steps_range(self) -> StepsRange | None:
        """The range that pruning chooses the number of time steps from; None where it may not."""
        steps = parse_steps(self.steps)
        return steps if isinstance(steps, StepsRange) else None

    @property
    def chosen_method(self) -> str:
        """The method of the search."""
        return choose_method(self.method, self.levers)


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """The results of a deployment.

    Attributes:
        chip: name of the profile.
        accuracy: {dense, pruned, quantised, lava}, shares of the test split; `lava` of the samples that ran there,
            None if none did.
        floating_point_counts: whether an accuracy in floating point, `dense` or `pruned`, is one of the chip; False where its
            neurons meet their threshold spike by spike, so that the network learnt in the integers and these alone count.
        synops: {dense, budget, achieved} per inference on the test split; achieved by the integer network.
        steps: {trained, deployed}: time steps that the network was trained on, and that it runs on.
        norse: {samples, spike_mismatches, spikes_compared}: Norse's cells against our simulator, on the dense network.
        lava: {samples, spike_mismatches, value_mismatches, first_difference}: Lava against our simulator.
        report: the budget report of the integer network.
        widths: {group: [channels before, after]}.
        levers: SynOps and accuracy on validation after each lever of pruning, and the batches that it learnt from.
        weight_bits: {default, layers}: bits of a stored weight of the chip, and of those layers that have others.
        budgets: by resource {budget, aim, used, met, measured_on} while pruning; `measured_on` says on which samples.
        files: written files by kind, relative to the output folder.
        seconds: wall time by stage, in this run or in the earlier one.
        seed: of everything random.
        failures: sentences on proofs that found a difference: on Lava, or in an exported file.
        notes: sentences on assumptions and on budgets that could not be met.
        resumed: stages that were taken from an earlier run with the same inputs; not part of the JSON, which is the same
            whether or not a run was interrupted.
        network: before pruning; not part of the JSON.
    """

    chip: str
    accuracy: dict[str, float | None]
    synops: dict[str, float]
    steps: dict[str, int]
    norse: dict[str, Any]
    lava: dict[str, Any]
    report: BudgetReport
    widths: dict[str, list[int]]
    files: dict[str, str]
    seconds: dict[str, float]
    seed: int
    levers: list[dict[str, Any]] = field(default_factory=list)
    weight_bits: dict[str, Any] = field(default_factory=dict)
    floating_point_counts: bool = True
    budgets: dict[str, dict[str, Any]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    resumed: tuple[str, ...] = ()
    network: SNNGraph | None = None

    def __repr__(self) -> str:
        """Return one line without the report, for notebooks and lists."""
        return f"Deployment({self.headline})"

    def to_json(self) -> dict[str, Any]:
        """Return plain data, with the verdict's own numbers at the top."""
        report = self.report.to_json()
        return {
            "chip": self.chip,
            "seed": self.seed,
            "accuracy": self.accuracy,
            "floating_point_counts": self.floating_point_counts,
            "synops": self.synops,
            "steps": self.steps,
            "norse": self.norse,
            "lava": self.lava,
            "verdict": report["verdict"],
            "cores_used": report["cores_used"],
            "cores_limit": report["cores_limit"],
            "neuron_ops": report["neuron_ops"],
            "energy": report["energy"],
            "latency_s": report["latency_s"],
            "latency_interval_s": report["latency_interval_s"],
            "latency_evidence": report["latency_evidence"],
            "widths": self.widths,
            "weight_bits": self.weight_bits,
            "levers": self.levers,
            "budgets": self.budgets,
            "files": self.files,
            "seconds": self.seconds,
            "failures": self.failures,
            "notes": self.notes,
        }

    @property
    def headline(self) -> str:
        """The verdict in one line, with what was not proven in front."""
        failed = f"NOT PROVEN ({plural(len(self.failures), 'proof')} failed), " if self.failures else ""
        return f"{failed}{self.report.headline}"

    @property
    def resumed_note(self) -> str:
        """A sentence on the stages of an earlier run, or an empty string."""
        if not self.resumed:
            return ""
        spent = sum(self.seconds.get(name, 0.0) for name in self.resumed)
        stages = f"{', '.join(self.resumed)} ({spent:.0f} s then)"
        return f"taken from an earlier run with the same inputs: {stages}; --fresh does all again"
