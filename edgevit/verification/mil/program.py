"""An ML program as a package stores it: inputs, outputs, operations and constants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from edgevit_runtime.record import TensorSpec, UnsupportedError

from .constants import ConstantReader, element_type
from .operators import OPERATORS
from .proto import Message

_ML_PROGRAM = 502  # field of Model
# Begins the operators that make a constant from a stored form of it. Until iOS 17 their arguments are attributes.
_STORED = "constexpr_"


@dataclass(frozen=True)
class Operation:
    """One operation: its operator, name and index, the value names of each parameter, and its declared results."""

    operator: str
    name: str
    index: int
    arguments: Mapping[str, tuple[str, ...]]
    results: tuple[TensorSpec, ...]

    @property
    def label(self) -> str:
        """`conv 'stem_cast_fp16' (operation 12)`."""
        return f"{self.operator} '{self.name}' (operation {self.index})"


@dataclass(frozen=True)
class Program:
    """The main function: inputs, outputs, operations, and constants by name (floats in their declared type)."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    operations: tuple[Operation, ...]
    constants: Mapping[str, Any]
    images: frozenset[str] = frozenset()  # inputs given as images: uint8 (1, H, W, 3)

    @cached_property
    def last_uses(self) -> tuple[frozenset[str], ...]:
        """For each operation, the names of the values that no later operation reads."""
        read_later: set[str] = set()
        released = []
        for operation in reversed(self.operations):
            names = {name for names in operation.arguments.values() for name in names}
            results = {spec.name for spec in operation.results}
            released.append(frozenset((names | results) - read_later))
            read_later |= names
        return tuple(reversed(released))


def read_program(path: Path) -> Program:
    """Read a package from disk.

    Raises UnsupportedError where it holds no ML program, or an operator that is not implemented here.
    """
    file = next(iter(sorted(path.glob("Data/*/model.mlmodel"))), path / "Data/model.mlmodel")
    model = Message(memoryview(file.read_bytes()))
    if not model.has(_ML_PROGRAM):
        raise UnsupportedError(f"{path.name} holds no ML program")
    function = model.one(_ML_PROGRAM).entries(2)["main"]  # Program.functions
    block = function.entries(3)[function.text(2)]  # Function.block_specializations, by opset
    operations, constants = _operations(block, ConstantReader(file.parent))
    inputs = tuple(map(_declaration, function.all(1)))
    declarations = {spec.name: spec for operation in operations for spec in operation.results}
    declarations |= {spec.name: spec for spec in inputs}
    outputs = tuple(declarations[name] for name in block.texts(2))
    return Program(inputs, outputs, operations, constants, _image_inputs(model.one(2)))


def _image_inputs(description: Message) -> frozenset[str]:
    """Return the inputs that a caller gives as images.

    ModelDescription: input = 1. FeatureDescription: name = 1, type = 3. FeatureType: imageType = 4.
    """
    return frozenset(feature.text(1) for feature in description.all(1) if feature.one(3).has(4))


def _operations(block: Message, reader: ConstantReader) -> tuple[tuple[Operation, ...], dict[str, Any]]:
    """Return the operations of a block and its constants by name; an operation's index counts the constants too."""
    constants: dict[str, Any] = {}
    operations = []
    for index, message in enumerate(block.all(3)):  # Block.operations
        if message.text(1) == "const":
            constants[_declaration(message.one(3)).name] = reader.read(message.entries(5)["val"])
        else:
            operations.append(_operation(index, message, constants, reader))
    return tuple(operations), constants


def _operation(index: int, message: Message, constants: dict[str, Any], reader: ConstantReader) -> Operation:
    """Read one operation and add the values bound in place to the constants.

    Operation: type = 1, inputs = 2, outputs = 3, attributes = 5. Binding: name = 1, or value = 2.
    """
    arguments: dict[str, tuple[str, ...]] = {}
    attributes = message.entries(5)
    is_stored = message.text(1).startswith(_STORED)
    for parameter, argument in message.entries(2).items():
        names = []
        for i, binding in enumerate(argument.all(1)):
            names.append(binding.text(1) if binding.has(1) else f"{index}.{parameter}.{i}")
            if binding.has(2):
                constants[names[-1]] = reader.read(binding.one(2), keeps_bytes=is_stored)
        arguments[parameter] = tuple(names)
    for parameter in attributes.keys() - {"name"} if is_stored else ():
        arguments[parameter] = (f"{index}.{parameter}",)
        constants[f"{index}.{parameter}"] = reader.read(attributes[parameter], keeps_bytes=True)
    name = reader.read(attributes["name"]) if "name" in attributes else ""
    operation = Operation(message.text(1), str(name), index, arguments, tuple(map(_declaration, message.all(3))))
    if operation.operator not in OPERATORS:
        raise UnsupportedError(f"the reference evaluator does not know the operator of {operation.label}")
    return operation


def _declaration(named_value: Message) -> TensorSpec:
    """Return the declaration of a NamedValueType: name = 1, type = 2."""
    dtype, shape = element_type(named_value.one(2))
    return TensorSpec(named_value.text(1), shape, dtype)
