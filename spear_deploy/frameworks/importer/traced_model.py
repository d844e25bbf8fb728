"""A model's traced steps: what it returns, and the step of every call.

What a loop adds up over all steps is the sum of the stacked terms, and calls that the last step alone has are told from others.
"""

from __future__ import annotations

import operator
from collections import Counter, deque
from typing import Any

import torch
from torch import fx

from spear_deploy.errors import UnsupportedError
from spear_deploy.frameworks.importer.context import Form, Framework
from spear_deploy.frameworks.importer.forward_code import LOOP_STEPS, list_arguments, list_functions, takes_state
from spear_deploy.frameworks.importer.kept_values import KeptValues

LOOPS = ("loop", "batch_loop")
"""Forms of a forward with a loop over its input."""
PLACED = (operator.getitem, torch.unsqueeze, "unsqueeze")
ADDITIONS = (operator.add, operator.iadd, torch.add, "add", "add_")
ENDS = (LookupError, StopIteration)
"""What a forward raises that has values for fewer steps."""


class UnclearForward(Exception):
    """A forward takes or returns something that has no meaning here."""


class UnclearForwardError(UnsupportedError):
    """The same, with its place."""


class TracedModel(torch.nn.Module):
    """A model's first two steps and some later ones, or its one pass over time.

    Attributes:
        output_index: which of a list of outputs counts; None where there is one output.
        states: what each step returned beside its output.
        later_steps: how many of a forward of one step are traced beyond its first two; with 0 it is found whether they matter.
        starts: the places in the graph at which each step after the first begins, of a forward of one step.
        keeps_others: whether the second step of such a forward keeps other values than the first.
        steps: number of steps traced.
        taken: the steps of the input that a loop takes.
        takes_columns: whether the forward takes x[:, t] of its input.
        reads_sizes: whether the forward reads a size of its input.
        fills_batch: whether the forward puts time into the batch for neurons that take it there.
        repeats_input: whether the forward repeats its input over time, which has no axis of time.
        resets: whether the forward resets neurons.
        leaves_out_last: whether a loop ends before the last step of the input.
        change: a call that changes in place what is taken behind it.
    """

    def __init__(
        self, model: torch.nn.Module, form: Form, framework: Framework, output_index: int | None, later_steps: int | None = None
    ) -> None:
        super().__init__()
        self.model, self.form, self.framework, self.output_index = model, form, framework, output_index
        self.states: list[Any] = []
        self.starts: list[int] = []
        self.later_steps, self.keeps_others = later_steps, False
        self.steps = {"step": 2, "layers": 1}.get(form, LOOP_STEPS)
        self.taken: set[int] = set()
        self.change: fx.Node | None = None
        self.takes_columns = self.fills_batch = self.reads_sizes = self.repeats_input = self.leaves_out_last = self.resets = False

    def forward(self, x: Any, later: Any) -> Any:
        """Return the outputs of both steps, of the later ones too where the forward has values for them, or of the pass."""
        defaults = [None if p.default is p.empty else p.default for p in list_arguments(self.model)[1:]]
        first = self._split_output(self.model(x, *defaults))
        if self.form != "step":
            return first
        functions = list_functions(self.model) if self.later_steps == 0 else []
        kept = KeptValues(self.model, self.states[0], functions, self._is_known) if self.later_steps == 0 else None
        outputs = [first, self._run_again(later, defaults)]
        if kept is not None:
            self.keeps_others = kept.values != KeptValues(self.model, self.states[1], functions, self._is_known).values
        for n in range(self.later_steps or 0):
            try:
                outputs.append(self._run_again(later.tracer.create_proxy("placeholder", f"later_{n}", (), {}), defaults))
            except ENDS:
                break
        return tuple(outputs)

    def _is_known(self, module: torch.nn.Module) -> bool:
        """Return whether a module is of torch or of the framework."""
        return self.framework.is_own(module) or type(module).__module__.startswith("torch.")

    def _run_again(self, x: Any, defaults: list[Any]) -> Any:
        """Return the output of a further step, which starts from what the one before returned beside its output."""
        self.starts.append(len(x.tracer.graph.nodes))
        state = self.states[-1]
        if state is None or not takes_state(self.model):
            return self._split_output(self.model(x, *defaults))
        if len(defaults) > 1 and isinstance(state, tuple) and len(state) == len(defaults):
            return self._split_output(self.model(x, *state))
        return self._split_output(self.model(x, state, *defaults[1:]))

    def is_stepped(self, node: fx.Node) -> bool:
        """Return whether a node calls a module of one step that has a state."""
        return node.op == "call_module" and self.framework.is_stepped(self.get_submodule(str(node.target)))

    def has_state(self, node: fx.Node) -> bool:
        """Return whether a node calls a module that has a state."""
        return node.op == "call_module" and self.framework.has_state(self.get_submodule(str(node.target)))

    def _hands_state(self, node: fx.Node) -> bool:
        return self.is_stepped(node) and self.framework.hands_state(self.get_submodule(str(node.target)))

    def list_attributes(self) -> list[Any]:
        """Return all attributes of all modules, symbols of the trace among them."""
        return [value for module in self.model.modules() for value in vars(module).values()]

    def _split_output(self, result: Any) -> Any:
        """Return the output, and keep what was returned beside it."""
        if isinstance(result, fx.Proxy) and self._hands_state(result.node):
            pair: Any = result
            result = (pair[0], pair[1])  # a forward that ends in a cell's (output, state)
        if isinstance(result, dict):
            result = tuple(result.values())
            result = result[0] if len(result) == 1 else result
        if isinstance(result, list) and self.form != "step" and 1 < len(result) < max(self.steps, LOOP_STEPS):
            result = tuple(result)  # [outputs of all steps, potentials of all steps]
        if not isinstance(result, tuple):
            self.states.append(None)
            return result
        if len(result) > 2 and self.form != "step":
            result = (result[0], result[1:])  # outputs of all steps, with more beside them
        if len(result) > 2 and len(result) == len(list_arguments(self.model)):
            result = (result[0], result[1:])  # forward(x, state, state, ...) -> (output, state, state, ...)
        if len(result) != 2:
            raise UnclearForward(
                f"it returns {len(result)} values, expected one output, or (output, state); return what is needed beside it in "
                "another way"
            )
        output, state = result
        self.states.append(state)
        return output if self.output_index is None else output[self.output_index]


def count_calls(traced: TracedModel, graph: fx.Graph) -> dict[str, int]:
    """Return the number of calls of each module of one step that has a state."""
    return dict(Counter(str(node.target) for node in graph.nodes if traced.is_stepped(node)))


# ------------------------------------------------------------------------------------------------------ sums and last calls


def collect_sums(traced: TracedModel, graph: fx.Graph) -> None:
    """Replace what a loop adds up over all steps, `total = total + spikes`, by the sum of the stacked terms."""
    if traced.steps < 2:
        return
    steps = _find_earliest_steps(traced, graph)
    zeros = {node for node in graph.nodes if _is_zero(traced, node)}
    returned = {node for part in traced.states for node in list_nodes(part)}
    for node in list(graph.nodes):
        chain, terms = _list_terms(node, traced.steps - 1, steps, zeros)
        if not terms or any(len(link.users) != 1 or link in returned for link in chain[1:]):
            continue
        if len({(term.op, str(term.target)) for term in terms}) > 1:
            continue  # terms of one step, or feedback
        with graph.inserting_before(node):
            stacked = graph.call_function(torch.stack, (tuple(terms),))
        stacked.meta["owner"] = node.meta["owner"]
        node.op, node.target, node.args, node.kwargs = "call_function", torch.sum, (stacked, 0), {}  # what returns it, stays
        for link in chain[1:]:
            graph.erase_node(link)


def list_nodes(kept: Any) -> list[fx.Node]:
    """Return the nodes of the symbols that a forward keeps or returns, in containers too."""
    if isinstance(kept, fx.Proxy):
        return [kept.node]
    held = kept.values() if isinstance(kept, dict) else kept if isinstance(kept, (tuple, list, deque)) else ()
    return [node for part in held for node in list_nodes(part)]


def is_log(kept: Any) -> bool:
    """Return whether a forward keeps a list of what it has computed and of nothing else, by itself or in a dictionary.

    A list or deque that is filled before holds a forward back by its length: what it takes shows in a late step alone.
    """
    if isinstance(kept, dict):
        return any(map(is_log, kept.values())) and not any(list_nodes(part) for part in kept.values() if not is_log(part))
    return type(kept) is list and bool(kept) and all(isinstance(part, fx.Proxy) for part in kept)


def _list_terms(
    node: Any, step: int, steps: dict[fx.Node, int | None], zeros: set[fx.Node]
) -> tuple[list[fx.Node], list[fx.Node]]:
    """Return the additions of a sum over steps that ends in a node, and its terms from the first step on; none if it is none."""
    if not isinstance(node, fx.Node) or steps.get(node) != step:
        return [], []
    is_sum = _is_addition(node) and len(node.args) == 2
    if step == 0:
        start = [arg for arg in node.args if isinstance(arg, fx.Node) and arg not in zeros] if is_sum else [node]
        has_zero = any(arg in zeros if isinstance(arg, fx.Node) else arg == 0 for arg in node.args)
        if is_sum and has_zero and len(start) == 1:
            return [node], start
        return [], [node]
    for rest, term in (node.args, node.args[::-1]) if is_sum and step else ():
        if isinstance(term, fx.Node) and steps.get(term) == step:
            chain, terms = _list_terms(rest, step - 1, steps, zeros)
            if terms:
                return [node, *chain], [*terms, term]
    return [], []


def _is_zero(traced: TracedModel, node: fx.Node) -> bool:
    """Return whether a node is a tensor of zeros."""
    if node.op != "get_attr":
        return node.op in ("call_function", "call_method") and node.target in (torch.zeros_like, "new_zeros")
    value: Any = traced
    for part in str(node.target).split("."):
        value = getattr(value, part)
    return isinstance(value, torch.Tensor) and not value.detach().cpu().float().numpy().any()


def _is_addition(node: fx.Node) -> bool:
    return node.op in ("call_function", "call_method") and node.target in ADDITIONS


def find_last_nodes(traced: TracedModel, graph: fx.Graph) -> set[fx.Node]:
    """Return the nodes between the last step's neurons and the output of a loop that returns that step's alone.

    They are calls that other steps have not, such as a linear layer behind the loop.
    """
    if traced.form not in (*LOOPS, "repeat"):
        return set()
    early, calls = _find_earliest_steps(traced, graph), Counter((node.op, str(node.target)) for node in graph.nodes)
    (end,) = (node for node in graph.nodes if node.op == "output")
    node: Any = end.args[0]
    node = node[0] if isinstance(node, tuple) and node else node
    last: set[fx.Node] = set()
    while (
        isinstance(node, fx.Node)
        and early[node] == traced.steps - 1
        and node.op in ("call_module", "call_function", "call_method")
    ):
        takes = node.all_input_nodes
        if len(takes) != 1 or traced.is_stepped(node) or calls[node.op, str(node.target)] >= traced.steps:
            break
        last.add(node)
        node = takes[0]
    return last


def find_constant_nodes(traced: TracedModel, graph: fx.Graph) -> set[fx.Node]:
    """Return the nodes of a forward that repeats its input which depend on no neuron: they are the same in every step."""
    constant: set[fx.Node] = set()
    if traced.form == "repeat":
        for node in graph.nodes:
            if node.op != "output" and not traced.is_stepped(node) and all(other in constant for other in node.all_input_nodes):
                constant.add(node)
    return constant


# ------------------------------------------------------------------------------------------------------ steps of nodes


def assign_steps(traced: TracedModel, graph: fx.Graph) -> dict[fx.Node, int]:
    """Return the step of every node: as early as its inputs allow, and as late as its users need.

    A module that gets an output of the step before, for use in the present one, belongs to the present one.
    """
    if traced.form == "layers":
        return dict.fromkeys(graph.nodes, 0)
    early = _find_earliest_steps(traced, graph)
    late: dict[fx.Node, int] = {}
    for node in reversed(list(graph.nodes)):
        step = early[node]
        users = [late[user] for user in node.users]
        names = {user.op if user.op == "output" else getattr(user.target, "__name__", str(user.target)) for user in node.users}
        is_output = bool(names & {"output", "stack"})  # a stack takes the outputs of all steps
        # the output of neurons and the input belong to the step that they are made in, and what gets an axis of time there
        is_fixed = node.op == "placeholder" or node.target in PLACED or traced.is_stepped(node)
        if node.op == "output":
            step = traced.steps - 1
        elif step is None:
            step = min(users, default=0)
        elif users and not is_output and not is_fixed:
            step = max(step, min(users))
        late[node] = step
    return late


def _find_earliest_steps(traced: TracedModel, graph: fx.Graph) -> dict[fx.Node, int | None]:
    """Return the first step in which the inputs of each node are there, None where no step is."""
    early: dict[fx.Node, int | None] = {}
    calls: Counter[str] = Counter()
    total = count_calls(traced, graph)
    for node in graph.nodes:
        early[node] = _read_step(node, traced.form)
        if traced.form == "step" and traced.is_stepped(node):
            early[node] = node.meta["run"]  # also where all that it takes is of the step before, or constant
        elif traced.is_stepped(node):
            if traced.form == "repeat" or total[str(node.target)] == traced.steps:
                early[node] = calls[str(node.target)]  # its first call is the first step
            calls[str(node.target)] += 1
        before = [step for step in map(early.get, node.all_input_nodes) if step is not None]
        if early[node] is None or traced.form != "repeat":
            before += [step for step in (early[node],) if step is not None]
            early[node] = max(before, default=None)
    return early


def _read_step(node: fx.Node, form: Form) -> int | None:
    """Return the step that an input belongs to, None for any other node."""
    if node.op == "placeholder":
        return {"x": 0, "later": 1}[str(node.target)] if form == "step" else 0 if form == "repeat" else None
    if form in LOOPS and node.target is operator.getitem:
        source, index = node.args[:2]
        if isinstance(source, fx.Node) and source.op == "placeholder" and isinstance(index, int):
            return index
    return None
