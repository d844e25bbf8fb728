"""Tracing of a model down to known modules, with the shapes of tensors that a forward counts with."""

from __future__ import annotations

import logging
import operator
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx
from torch._subclasses.fake_tensor import FakeTensorMode

from spear_deploy.frameworks.importer.call_settings import CallSettings
from spear_deploy.frameworks.importer.context import Form, Framework, read_potential, run_stepwise
from spear_deploy.frameworks.importer.einops_pattern import (
    call_einops,
    call_layer,
    find_einops,
    is_einops_layer,
    list_functions,
)
from spear_deploy.frameworks.importer.forward_code import LOOP_STEPS
from spear_deploy.frameworks.importer.repetition import Repetition, find_repetition
from spear_deploy.frameworks.importer.state_reads import StateReads
from spear_deploy.frameworks.importer.step_buffers import StepBuffers
from spear_deploy.frameworks.importer.step_layout import (
    RESHAPES,
    Layout,
    find_layout,
    get_name,
    get_sizes,
    read_flatten,
    reshape_example,
)
from spear_deploy.frameworks.importer.symbols import name_module
from spear_deploy.frameworks.importer.synapses import PLAIN
from spear_deploy.frameworks.importer.traced_model import (
    UnclearForward,
)
from spear_deploy.frameworks.importer.traced_value import LoopsOverTime, SizedValue, TracedValue, Value
from spear_deploy.network import Shape

FAKE_TENSOR_LOG = logging.getLogger("torch._subclasses.fake_tensor")


@dataclass(frozen=True)
class Counts:
    """Samples of a traced input, and steps beyond those that a forward needs; what a forward reads must not depend on them."""

    samples: int = 2
    further_steps: int = 0


COUNTS = Counts()


class Tracer(fx.Tracer):
    """Traces through containers and user modules, down to the modules of torch and of the framework."""

    def __init__(self, form: Form, shape: Shape, framework: Framework, counts: Counts, *, is_image: bool = False) -> None:
        self.einops_functions = list_functions()  # a trace has other functions under their names
        super().__init__(autowrap_functions=self.einops_functions)
        if (einops := find_einops()) is not None:
            self._autowrap_search.append(einops)
        self.is_image = is_image or form == "repeat"
        self.repeats_input = False
        self.form, self.shape, self.framework, self.counts = form, shape, framework, counts
        self.reads_sizes = False
        self._is_measuring = False
        self._fake = FakeTensorMode(allow_non_fake_inputs=True)
        self.known = (*PLAIN, *framework.plain, *framework.synapses, *framework.over_time, *framework.stepped)
        self.owners: list[str] = []
        self.taken: set[int] = set()
        self.takes_columns = self.fills_batch = False
        self.steps = LOOP_STEPS
        self.buffers = StepBuffers()
        self.settings = CallSettings(framework.list_held, framework.list_set)
        self.states = StateReads(framework.list_set, framework.hint_kept)
        self._outputs: dict[int, fx.Proxy] = {}

    def note_start(self, model: torch.nn.Module) -> None:
        """Take down what the modules of a model hold in front of the forward."""
        self.settings.note_start(model)
        self.states.note_start(model)

    def check_end(self, root: torch.nn.Module, graph: fx.Graph) -> None:
        """Check that the modules hold what they held at their calls, and that the forward computes with none of their states.

        Raises:
            UnsupportedError: it has set a number or tensor behind a call, or computes with a state.
        """
        self.settings.check_end()
        self.states.check(root, graph)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        """Return a symbol; that of an input or of all steps has its shape."""
        if node.op == "placeholder":
            is_batch_first = self.form == "batch_loop" or (self.form == "layers" and self.framework.time_axis == 1)
            node.meta["layout"] = None if self.form == "step" or self.is_image else Layout(is_batch_first)
            return TracedValue(node, self)
        if self.form == "step":
            self.takes_columns |= self._merges_samples(node)
            return Value(node, self)
        repetition = find_repetition(node, self._measure_whole) if self.is_image else None
        if repetition is not None and self._may_repeat(repetition):
            node.meta |= {"repeats": repetition, "layout": repetition.layout}
            self.repeats_input = True
            return (SizedValue if self.form == "layers" else TracedValue)(node, self)
        module = self.root.get_submodule(str(node.target)) if node.op == "call_module" else None
        layout = find_layout(
            node,
            module,
            self.framework,
            self.measure(node.args[0]) if get_name(node) in RESHAPES and isinstance(node.args[0], fx.Node) else None,
            is_layers=self.form == "layers",
        )
        node.meta["layout"] = layout
        self.fills_batch |= layout is not None and layout.merged and self.framework.takes_merged(module)
        if layout is None:
            return Value(node, self)
        return (SizedValue if self.form == "layers" else TracedValue)(node, self)

    def _measure_whole(self, node: fx.Node) -> Shape | None:
        """Return the shape of a tensor without an axis of time, with the batch, None where it is not known."""
        value = self.run_example(node)
        return tuple(value.shape) if isinstance(value, torch.Tensor) else None

    def _may_repeat(self, repetition: Repetition) -> bool:
        """Return whether a node is the same in every step, as neurons are not, and time lies where the framework has it."""
        if self.form == "layers" and repetition.layout.batch_first != (self.framework.time_axis == 1):
            return False
        found, waiting = set(), [repetition.base]
        while waiting:
            node = waiting.pop()
            if node.op == "call_module" and any(
                map(self.framework.has_state, self.root.get_submodule(str(node.target)).modules())
            ):
                return False
            found.add(node)
            waiting += [other for other in node.all_input_nodes if other not in found]
        return any(node.op == "placeholder" for node in found)

    def _merges_samples(self, node: fx.Node) -> bool:
        """Return whether a forward of one step seems to have time in its first axis, since it views it as another number.

        Raises:
            LoopsOverTime: it merges its first two axes, which are no samples and channels.
        """
        if get_name(node) == "flatten" and read_flatten(node) == (0, 1):
            raise LoopsOverTime
        sizes = get_sizes(node) if get_name(node) in RESHAPES else ()
        return bool(sizes) and type(sizes[0]) is int and sizes[0] > 0

    def measure(self, node: fx.Node) -> Shape | None:
        """Return the shape of a tensor of all steps without time and batch, None where it is not known."""
        if node.op == "placeholder":
            return self.shape
        layout = node.meta.get("layout")
        value = self.run_example(node)
        return None if layout is None or not isinstance(value, torch.Tensor) else tuple(value.shape[2 - layout.merged :])

    def run_example(self, node: fx.Node) -> Any:
        """Return a tensor without values of the shape that a node has, None where that does not run."""
        if "example" in node.meta:
            return node.meta["example"]
        self._is_measuring = True
        FAKE_TENSOR_LOG.disabled = True  # torch would print the traceback of a call that fails
        try:
            with self._fake, torch.no_grad():
                node.meta["example"] = self._compute(node)
        except Exception:  # a call of the forward that fails on such tensors: its shape is not known
            node.meta["example"] = None
        finally:
            self._is_measuring = FAKE_TENSOR_LOG.disabled = False
        return node.meta["example"]

    def _compute(self, node: fx.Node) -> Any:
        if "example" not in node.meta:  # kept, since a step takes the output and the state of the one before
            node.meta["example"] = self._compute_anew(node)
        return node.meta["example"]

    def _compute_anew(self, node: fx.Node) -> Any:
        if node.op == "placeholder":
            whole = (*TracedValue(node, self).list_leading(), *self.shape)
            return torch.empty(tuple(map(int, whole)))
        if node.meta.get("layout") is not None and get_name(node) in (*RESHAPES, "unflatten"):
            leading = tuple(map(int, SizedValue(node, self).list_leading()))
            return reshape_example(node, self._compute(node.args[0]), leading)  # type: ignore[arg-type]
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), self._compute)
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        if node.op == "call_function":
            function: Any = self._compute_stepwise if node.target is run_stepwise else node.target
            return function(*args, **kwargs)
        if node.op == "get_attr":
            return operator.attrgetter(str(node.target))(self.root)
        module = self.root.get_submodule(str(node.target))
        if not self.framework.has_state(module):
            return module(*args, **kwargs)
        return (args[0],) * 4 if self.framework.hands_state(module) else args[0]  # neurons keep the shape

    def _compute_stepwise(self, x: torch.Tensor, target: str) -> torch.Tensor:
        """Return what a module gives that runs step by step."""
        module = self.root.get_submodule(target)
        if any(map(self.framework.has_state, module.modules())):
            raise UnclearForward("its neurons do not run in a trace")
        made: torch.Tensor = module(x.flatten(0, 1))
        return made.reshape(*x.shape[:2], *made.shape[1:])

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        """Return a symbol for a parameter, and the parameter itself where shapes are computed."""
        return attr_val if self._is_measuring else super().getattr(attr, attr_val, parameter_proxy_cache)

    def is_leaf_module(self, m: torch.nn.Module, module_qualified_name: str) -> bool:
        """Stop at modules of torch and of the framework, and at classes derived from them that keep the forward."""
        if isinstance(m, self.framework.containers) or _moves_batch(m):
            return False
        inherits_forward = any(isinstance(m, kind) and type(m).forward is kind.forward for kind in self.known)
        return inherits_forward or self.framework.is_own(m) or super().is_leaf_module(m, module_qualified_name)

    def call_module(self, m: torch.nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        """Remember which module the operations inside belong to; a slice of a Sequential is no module of the model itself."""
        if self._is_measuring:
            return forward(*args, **kwargs)
        if is_einops_layer(m) and args:
            return call_layer(m, args[0], name_module(self.path_of_module(m).removeprefix("model").strip(".")))
        if type(m) is torch.nn.Sequential and all(m is not other for other in self.root.modules()):
            return forward(*args, **kwargs)
        path = self.path_of_module(m)
        with self.states.pausing():
            held = self.settings.note_call(m, path) if self.is_leaf_module(m, path) else {}
        self.owners.append(path)
        try:
            result = super().call_module(m, forward, args, kwargs)
        finally:
            self.owners.pop()
        if isinstance(result, fx.Proxy) and result.node.op == "call_module":
            result.node.meta |= held
            self.settings.note_node(path, result.node)
        if isinstance(result, fx.Proxy) and self.framework.is_own(m):
            self._outputs[id(m)] = result
        return result

    def read_potential(self, module: Any, is_last: bool) -> Any:
        """Return the symbol of the potential of neurons behind their last call, None where there was none."""
        output = self._outputs.get(id(module))
        if output is None or self._is_measuring:
            return None
        return self.create_proxy("call_function", read_potential, (output, is_last and self.form == "layers"), {})

    def create_proxy(self, kind: str, target: Any, args: Any, kwargs: Any, *more: Any, **options: Any) -> Any:
        """Return the symbol of a call; a function of einops is the tensor methods that it stands for."""
        if kind == "call_function" and target in self.einops_functions:
            return call_einops(target.__name__, args, kwargs, name_module(self.path_of_caller()))
        if target == "__setitem__" and kind == "call_method" and isinstance(args[0], torch.Tensor):
            if isinstance(args[2], fx.Proxy):
                self.buffers.write(args[0], args[1], args[2], self.path_of_caller())
                return args[2]
        return super().create_proxy(kind, target, args, kwargs, *more, **options)

    def create_arg(self, a: Any) -> Any:
        """Return the argument of a node; a tensor that outputs of steps were written to is their stack."""
        return super().create_arg(self.buffers.find(a))

    def path_of_caller(self) -> str:
        """Return the path of the module whose forward runs."""
        return self.owners[-1].removeprefix("model").strip(".") if self.owners else ""

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        """Write the owner into the node's metadata, and which run of a forward of one step it is of."""
        node = super().create_node(*args, **kwargs)
        node.meta["run"] = len(getattr(self.root, "starts", ()))
        node.meta["owner"] = self.owners[-1] if self.owners else ""
        return node


def _moves_batch(module: torch.nn.Module) -> bool:
    """Return whether a module of torch puts time into the batch or takes it out, which a forward says by `flatten(0, 1)`."""
    if type(module) is torch.nn.Flatten:
        return module.start_dim == 0
    return type(module) is torch.nn.Unflatten and getattr(module, "dim", None) == 0
