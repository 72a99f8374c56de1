"""Recording: the operators that a model calls, seen by running it on tensors without data at three batch sizes.

A size that is the same in all runs is fixed; one that grows with the batch is written as a multiple of it. A model that
calls other operators at another batch takes no open one. What a recording cannot show is left to torch.export, which
reasons about sizes and takes much longer: decisions by values, and tensors of no known origin.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._dispatch.python import enable_python_dispatcher
from torch._subclasses.schema_check_mode import SchemaCheckMode
from torch.fx import Graph, GraphModule, Node
from torch.fx.graph import _PyTreeCodeGen, _PyTreeInfo
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from edgevit.folding.agreement import copied_with, register_records
from edgevit.folding.model_code import FAILURES, ModelCode
from edgevit.folding.sizes import BatchDecidesError, WatchedSizes, without_watch
from edgevit.folding.values import BATCHES, ORIGIN, OTHER, VALUE, aten, without_data
from edgevit.folding.watched_builtins import ints_watched, types_watched

_AUTOCAST = ("cpu", "cuda")


# The sizes at which nodes have values, then a single image, which models like to treat in a way of its own.
_RUNS = (*BATCHES, 1)
# Folders of code that is no model's: this one's and torch's.
_NOT_OF_MODELS = (str(Path(__file__).parent), str(Path(torch.__file__).parent))
# Functions that make an `int` of a size, each in its own module, are few.
_MOST_CALLERS = 8


class _UnrecordableError(RuntimeError):
    """The model does something that a recording does not show."""


@dataclass(frozen=True)
class _Slot:
    """A tensor of a recording: a constant by its path, an input or a result by its number."""

    name: str | int


@dataclass
class _Call:
    """A call of an operator, with slots in place of tensors."""

    target: Any
    args: list[Any]
    kwargs: dict[str, Any]
    result: Any
    slots: Any
    module: str


@dataclass
class _Run:
    """One run of a model: its inputs, its calls and its output, with slots in place of tensors."""

    inputs: tuple[Tensor, ...]
    calls: list[_Call] = field(default_factory=list)
    output: Any = None
    spec: Any = None
    # Constants that the model makes of Python numbers.
    lifted: dict[str, Tensor] = field(default_factory=dict)
    # Shapes of tensors by their slots.
    shapes: dict[str | int, tuple[int, ...]] = field(default_factory=dict)
    # Whether the model asked what the recorded batches do not settle.
    has_doubts: bool = False


def record(model: nn.Module, inputs: tuple[Tensor, ...]) -> GraphModule | None:
    """Return the graph of a model that takes any batch, or None where a recording cannot show it.

    The model and its attributes stay as they are. Nodes have their values at both of BATCHES. Raises BatchDecidesError.
    """
    constants = _constants(model)
    if not inputs[0].dim() or any(type(tensor) not in (Tensor, nn.Parameter) for tensor in constants.values()):
        return None
    try:
        return _recorded(model, constants, inputs, anew=False)
    except (BatchDecidesError, _UnrecordableError):
        # The model may have kept a tensor from its first run.
        with suppress(_UnrecordableError):
            return _recorded(model, constants, inputs, anew=True)
    return None


def _recorded(model: nn.Module, constants: dict[str, Tensor], inputs: tuple[Tensor, ...], *, anew: bool) -> GraphModule:
    """Run a model at each batch and return the graph; `anew` takes another copy of the model for each run."""
    device = next((tensor.device for tensor in constants.values()), inputs[0].device)
    runs: list[_Run] = []
    # The largest batch comes last: a model that loops over images is known by then.
    order = (BATCHES[0], 1, BATCHES[1])
    try:
        hollow = _hollow(model, constants)
        stand_ins = _constants(hollow)
        for batch in order:
            current = _hollow(model, constants) if runs and anew else hollow
            if batch == max(_RUNS):
                _check_alike(*runs)
                runs.append(_watched_run(current, _at_batch(inputs, batch), device, runs))
            else:
                runs.append(_run(current, _at_batch(inputs, batch), _Recorder(_constants(current), device)))
        module = _Builder(model, constants, stand_ins, [runs[order.index(batch)] for batch in _RUNS]).module()
    except (BatchDecidesError, _UnrecordableError):
        raise
    except FAILURES as error:
        # torch.export then says why, or succeeds.
        # A model that does not run at all without data may run with it.
        raise (BatchDecidesError if runs else _UnrecordableError) from error
    if any(run.has_doubts for run in runs):
        raise _UnrecordableError
    return module


def _constants(model: nn.Module) -> dict[str, Tensor]:
    return dict([*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)])


def _hollow(model: nn.Module, constants: dict[str, Tensor]) -> nn.Module:
    """Return a copy of the model whose parameters and buffers have no data. Tied ones stay tied."""
    stand_ins: dict[int, Any] = {}
    for tensor in constants.values():
        empty = torch.empty_like(tensor.detach(), device="meta")
        is_parameter, needs_gradient = isinstance(tensor, nn.Parameter), tensor.requires_grad
        stand_ins[id(tensor)] = nn.Parameter(empty, requires_grad=needs_gradient) if is_parameter else empty
    return copied_with(model, stand_ins)


def _at_batch(inputs: tuple[Tensor, ...], batch: int) -> tuple[Tensor, ...]:
    """Return inputs without data, with `batch` rows where they have as many as the first one."""
    rows = inputs[0].shape[0]
    shapes = (
        (batch, *tensor.shape[1:]) if tensor.dim() and tensor.shape[0] == rows else tensor.shape for tensor in inputs
    )
    return tuple(
        torch.empty(shape, dtype=tensor.dtype, device="meta") for shape, tensor in zip(shapes, inputs, strict=True)
    )


def _watched_run(model: nn.Module, inputs: tuple[Tensor, ...], device: torch.device, others: Sequence[_Run]) -> _Run:
    """Run a model while its sizes note what it asks of them. Raises as _run does, and BatchDecidesError.

    others: the runs at two images and at one.
    """
    callers: list[dict[str, Any]] = []
    while True:
        recorder = _Recorder(_constants(model), device)
        sizes = WatchedSizes(inputs[0].shape[0], partial(recorder.shapes_in, others))
        sizes.watch.callers += callers
        recorder.sizes = sizes
        # A question after an `int` that is not watched yet may end the run.
        with ints_watched(callers), types_watched(), suppress(BatchDecidesError):
            run = _run(model, inputs, recorder)
            if not sizes.watch.has_escaped:
                run.has_doubts = sizes.watch.has_doubts
                return run
        if len(sizes.watch.callers) == len(callers) or len(callers) >= _MOST_CALLERS:
            raise BatchDecidesError
        callers = sizes.watch.callers


def _run(model: nn.Module, inputs: tuple[Tensor, ...], recorder: _Recorder) -> _Run:
    """Run a model without data. Raises _UnrecordableError, or what the model raises."""
    # Norms take torch's setting of cuDNN as an argument. The graph, and so its digest, must not depend on it.
    cudnn_off = torch.backends.cudnn.flags(enabled=False)
    recorder.take(inputs)
    watching = recorder.sizes or nullcontext()
    with (
        ModelCode(),
        torch.no_grad(),
        cudnn_off,
        _scopes(model, recorder),
        enable_python_dispatcher(),
        recorder,
        watching,
    ):
        result = model(*inputs)
    if recorder.is_spoilt:
        raise _UnrecordableError
    register_records(result)
    leaves, recorder.run.spec = pytree.tree_flatten(result)
    recorder.run.output = [recorder.noted(without_watch(leaf)) for leaf in leaves]
    recorder.run.shapes = recorder.shapes()
    return recorder.run


@contextmanager
def _scopes(model: nn.Module, recorder: _Recorder) -> Iterator[None]:
    """Tell the recorder which module runs."""

    def enter(name: str, *_: Any) -> None:
        recorder.modules.append(name)

    def leave(*_: Any) -> None:
        recorder.modules.pop()

    handles: list[Any] = []
    for name, module in model.named_modules():
        handles += [module.register_forward_pre_hook(partial(enter, name)), module.register_forward_hook(leave)]
    yield
    for handle in handles:
        handle.remove()


class _Recorder(SchemaCheckMode):  # type: ignore[no-untyped-call]
    """Notes every call ahead of its decomposition into simpler operators.

    torch takes only its own modes at that place, so this one is derived from the simplest of these.
    """

    def __init__(self, constants: dict[str, Tensor], device: torch.device) -> None:
        TorchDispatchMode.__init__(self, torch._C.DispatchKey.PreDispatch)  # type: ignore[no-untyped-call]
        self.device, self.run = device, _Run(())
        self.sizes: WatchedSizes | None = None
        self.modules: list[str] = []
        self._begun = self._ended = 0
        self._slots = {id(tensor): _Slot(name) for name, tensor in constants.items()}
        self._places: dict[str | int, Any] = {name: _place_of(tensor) for name, tensor in constants.items()}
        self._twins = {place: _Slot(name) for name, place in self._places.items()}
        # A tensor that is freed would leave its id to another one.
        self._alive: list[Any] = []
        self._count = 0

    def take(self, inputs: tuple[Tensor, ...]) -> None:
        """Take the inputs of the run."""
        self.run.inputs = inputs
        for tensor in inputs:
            self._number(tensor)

    def shapes(self) -> dict[str | int, tuple[int, ...]]:
        """Return the shapes of all tensors by their slots."""
        return {slot: place[2] for slot, place in self._places.items()}

    def shapes_in(self, runs: Sequence[_Run], tensor: Tensor) -> Any:
        """Return the shapes that a tensor has in other runs; None where it, or its like there, is unknown."""
        try:
            slot = self._slot(tensor)
        except _UnrecordableError:
            return None
        shapes = [run.shapes.get(slot.name) for run in runs]
        return shapes if all(shape is not None and len(shape) == tensor.dim() for shape in shapes) else None

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Keep torch from importing its compiler for this class."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Note the call and return its result, which has no data either."""
        self._begun += 1
        result = self._call(func, args, kwargs or {})
        self._ended += 1
        return result

    @property
    def is_spoilt(self) -> bool:
        """Whether a call raised an error, which the model may have caught, or it may know that there is no data."""
        return self._begun != self._ended or (self.sizes is not None and self.sizes.is_told)

    def _call(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if torch.is_grad_enabled() or any(map(torch.is_autocast_enabled, _AUTOCAST)):
            raise _UnrecordableError
        if func is aten.lift_fresh.default:
            return self._lift(args[0])
        noted = (self.noted(args), {name: self.noted(value) for name, value in kwargs.items()})
        with torch._C._DisablePythonDispatcher():
            result = without_data(func, args, kwargs)
        self._alive += [args, kwargs]
        self._note(func, *noted, result)
        return result

    def _note(self, func: Any, args: list[Any], kwargs: dict[str, Any], result: Any) -> None:
        slots = pytree.tree_map(lambda leaf: self._number(leaf) if isinstance(leaf, Tensor) else None, result)
        module = self.modules[-1] if self.modules else ""
        self.run.calls.append(_Call(func, args, kwargs, result, slots, module or _line_of_model()))

    def _number(self, tensor: Tensor) -> _Slot:
        self._alive.append(tensor)
        place, slot = _place_of(tensor), _Slot(self._count)
        self._slots[id(tensor)], self._twins[place], self._places[self._count] = slot, slot, place
        self._count += 1
        return slot

    def _slot(self, tensor: Tensor) -> _Slot:
        """Return the slot of a tensor. Raises _UnrecordableError for one that no recorded call made."""
        slot, place = self._slots.get(id(tensor)), _place_of(tensor)
        # torch wraps what some operators return again, and `tensor.data` is such a twin too. Who sets `data` gives
        # a tensor the numbers of another one.
        if slot is None or self._places[slot.name] != place:
            slot = self._twins.get(place)
        if slot is None:
            raise _UnrecordableError
        return slot

    def noted(self, value: Any) -> Any:
        """Return an argument or a result with slots in place of tensors. Raises _UnrecordableError."""
        if isinstance(value, Tensor):
            return self._slot(value)
        if isinstance(value, (list, tuple)):
            return [self.noted(part) for part in value]
        # The model asked a tensor without data where it lies.
        if isinstance(value, torch.device) and value.type == "meta":
            return self.device
        return value

    def _lift(self, numbers: Tensor) -> Tensor:
        """Take a tensor that the model has just made of Python numbers as a constant."""
        if numbers.is_meta or id(numbers) in self._slots:
            raise _UnrecordableError
        name = f"lifted_tensor_{len(self.run.lifted)}"
        self.run.lifted[name] = numbers.detach().clone()
        result = torch.empty_like(numbers, device="meta")
        self._note(aten.lift_fresh_copy.default, [_Slot(name)], {}, result)
        return result


def _line_of_model() -> str:
    """Return `FILE.py:LINE` of the model's own code that makes the present call; empty where none does."""
    frame = inspect.currentframe()
    while frame is not None and (frame.f_code.co_filename.startswith(_NOT_OF_MODELS)):
        # Further out is who asks for the recording.
        if frame.f_code is _run.__code__:
            return ""
        frame = frame.f_back
    return "" if frame is None else f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"


def _place_of(tensor: Tensor) -> tuple[Any, ...]:
    """Return what tells a tensor's numbers from those of others: their storage, and how they lie in it."""
    place = (tensor.untyped_storage()._cdata, tensor.storage_offset(), tuple(tensor.shape), tensor.stride())
    return (*place, tensor.dtype, tensor.is_conj(), tensor.is_neg())


class _Builder:
    """The graph of several runs of a model, one at each batch size."""

    def __init__(
        self, model: nn.Module, constants: dict[str, Tensor], stand_ins: dict[str, Tensor], runs: Sequence[_Run]
    ) -> None:
        self._model, self._constants, self._runs = model, constants, runs
        self._stand_ins = stand_ins
        self._graph = Graph()
        self._nodes: dict[str | int, Node] = {}
        self._multiples: dict[int, Node] = {}
        self._inputs: list[Node] = []

    def module(self) -> GraphModule:
        """Return the module. Raises BatchDecidesError or _UnrecordableError where the runs differ."""
        first = self._runs[0]
        names = self._input_names()
        for number, values in enumerate(zip(*(run.inputs for run in self._runs), strict=True)):
            node = self._graph.placeholder(names[number])
            self._nodes[number] = _valued(node, values, module="")
            self._inputs.append(node)
        for run in self._runs[1:]:
            _check_alike(first, run)
        for calls in zip(*(run.calls for run in self._runs), strict=True):
            self._add(calls)
        self._graph.output(tuple(self._merged([run.output for run in self._runs])))
        in_spec = pytree.tree_flatten((tuple(first.inputs), {}))[1]
        self._graph.set_codegen(_PyTreeCodeGen(_PyTreeInfo(names, in_spec, first.spec)))
        used = {str(node.target) for node in self._graph.find_nodes(op="get_attr")}
        return GraphModule({name: self._constant(name) for name in sorted(used)}, self._graph)

    def _input_names(self) -> list[str]:
        parameters = inspect.signature(self._model.forward).parameters.values()
        plain = [each.name for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
        count = len(self._runs[0].inputs)
        return [*plain, *(f"input_{i}" for i in range(len(plain), count))][:count]

    def _add(self, calls: Sequence[_Call]) -> None:
        first = calls[0]
        if any(call.kwargs.keys() != first.kwargs.keys() for call in calls):
            raise BatchDecidesError
        args = self._merged([call.args for call in calls])
        kwargs = {name: self._merged([call.kwargs[name] for call in calls]) for name in first.kwargs}
        name = first.target.overloadpacket.__name__
        node = self._graph.create_node("call_function", first.target, tuple(args), kwargs, name)
        results = [call.result for call in calls]
        self._place(_valued(node, results, module=first.module), first.slots, results)

    def _place(self, node: Node, slots: Any, results: Sequence[Any]) -> None:
        """Let a node, or a node for each of its parts, stand for a result."""
        if isinstance(slots, _Slot):
            self._nodes[slots.name] = node
        elif isinstance(slots, (list, tuple)):
            for index, slot in enumerate(slots):
                part = self._graph.call_function(operator.getitem, (node, index))
                parts = [result[index] for result in results]
                self._place(_valued(part, parts, module=node.meta[ORIGIN]), slot, parts)

    def _merged(self, values: Sequence[Any]) -> Any:
        """Return an argument of all runs as one: nodes for tensors and for what depends on the batch."""
        first, *others = values
        if any(type(other) is not type(first) for other in others):
            raise BatchDecidesError
        if isinstance(first, list):
            if any(len(other) != len(first) for other in others):
                raise BatchDecidesError
            return [self._merged(parts) for parts in zip(*values, strict=True)]
        # A float that is no number is equal to nothing.
        if any(other != first and repr(other) != repr(first) for other in others):
            return self._multiple(values)
        if not isinstance(first, _Slot):
            return first
        return self._nodes[first.name] if first.name in self._nodes else self._constant_node(str(first.name))

    def _multiple(self, values: Sequence[Any]) -> Node:
        """Return a node for a number that is a multiple of the batch. Raises an error for anything else."""
        if type(values[0]) is not int:
            raise BatchDecidesError if isinstance(values[0], _Slot) else _UnrecordableError
        times = values[-1]
        if times < 1 or list(values) != [times * batch for batch in _RUNS]:
            raise _UnrecordableError
        if 1 not in self._multiples:
            with self._graph.inserting_after(self._inputs[-1]):
                node = self._graph.create_node("call_function", aten.sym_size.int, (self._inputs[0], 0), name="batch")
            self._multiples[1] = _valued(node, _RUNS, module="")
        if times not in self._multiples:
            with self._graph.inserting_after(self._multiples[1]):
                node = self._graph.call_function(operator.mul, (self._multiples[1], times))
            self._multiples[times] = _valued(node, values, module="")
        return self._multiples[times]

    def _constant_node(self, name: str) -> Node:
        with self._graph.inserting_before(self._inputs[0]):
            node = self._graph.get_attr(name)
        # A stand-in shares its storage with its views, as the constant does.
        empty = self._stand_ins.get(name)
        empty = torch.empty_like(self._constant(name), device="meta") if empty is None else empty
        self._nodes[name] = _valued(node, [empty] * len(_RUNS), module="")
        return node

    def _constant(self, name: str) -> Tensor:
        return self._runs[0].lifted[name] if name in self._runs[0].lifted else self._constants[name]


def _check_alike(first: _Run, other: _Run) -> None:
    """Raise BatchDecidesError where two runs call other operators, or return something else."""
    same_calls = [call.target for call in first.calls] == [call.target for call in other.calls]
    # A list of results may be as long as the batch.
    same_calls = same_calls and [call.slots for call in first.calls] == [call.slots for call in other.calls]
    if not same_calls or first.spec != other.spec or first.lifted.keys() != other.lifted.keys():
        raise BatchDecidesError
    if not all(torch.equal(tensor, other.lifted[name]) for name, tensor in first.lifted.items()):
        raise BatchDecidesError


def _valued(node: Node, values: Sequence[Any], *, module: str) -> Node:
    """Give a node its values at BATCHES, the first two of the runs."""
    node.meta |= {VALUE: values[0], OTHER: values[1], ORIGIN: module}
    return node
