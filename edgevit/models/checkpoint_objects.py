"""Stand-ins for what lies beside the weights in a checkpoint: no class of the file is imported, and no code of it runs.

torch's weights-only reader takes tensors, containers and numbers. Files of trainings also hold arguments, paths, dates,
enumerations and configurations. A stand-in takes the place of each such object, so that the reader can go on.
"""

from __future__ import annotations

import re
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgevit.models.pickle_scan import global_names

_PLAIN_DTYPE = re.compile(r"[fiu][1248]|b1")
_SCALARS = (str, bytes, int, float, complex, type(None))
_NOT_STOOD_IN = frozenset({"torch", "torchvision", "numpy", *sys.stdlib_module_names})


class Blank:
    """Stands for a harmless object that is not needed: accepts any arguments and any state, and keeps none."""

    def __new__(cls, *_: object) -> Blank:
        """Create it without its arguments."""
        return super().__new__(cls)

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


class _DType:
    """Stands for a NumPy dtype: its code and byte order."""

    def __init__(self, code: object = "", *_: object) -> None:
        self.code, self.order = str(code), "="

    def __setstate__(self, state: Any) -> None:
        self.order = str(state[1]).replace("|", "=")


class StoredArray:
    """Stands for a NumPy array, whose numbers can be weights."""

    def __init__(self, *_: object) -> None:
        self.state: tuple[Any, ...] = ()

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.state = state

    def tensor(self) -> Tensor | None:
        """Return the numbers; None for arrays of texts or objects. Raise ValueError where they are cut off."""
        if len(self.state) != 5:
            return None
        _, shape, dtype, by_column, data = self.state
        if not isinstance(dtype, _DType) or not isinstance(data, bytes) or not _PLAIN_DTYPE.fullmatch(dtype.code):
            return None
        numbers = np.frombuffer(data, np.dtype(dtype.order + dtype.code)).reshape(
            shape, order="F" if by_column else "C"
        )
        return torch.from_numpy(numbers.astype(numbers.dtype.newbyteorder("="), order="C"))


def _new_dict(*_: object) -> dict[Any, Any]:
    return {}


def _new_list(*_: object) -> list[Any]:
    return []


_ARRAYS = ("numpy.core.multiarray", "numpy._core.multiarray")
_BLANKS = (
    "argparse.Namespace", "types.SimpleNamespace", "typing.Any", "uuid.UUID", "decimal.Decimal", "fractions.Fraction",
    "copyreg._reconstructor", "torch.torch_version.TorchVersion",
    *(f"{module}.scalar" for module in _ARRAYS),
    *(f"{module}.{name}" for module in ("pathlib", "pathlib._local")
      for name in ("Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath", "PureWindowsPath")),
    *(f"datetime.{name}" for name in ("datetime", "date", "time", "timedelta", "timezone")),
    *(f"builtins.{name}" for name in ("slice", "frozenset", "range", "object", "dict", "list", "tuple", "int", "float",
                                      "str", "bool", "bytes")),
)  # fmt: skip
# The allow-list: the stand-in of each harmless type, under the name by which a pickle knows the type.
HARMLESS: tuple[tuple[Any, str], ...] = (
    *((Blank, name) for name in _BLANKS),
    (_DType, "numpy.dtype"),
    (StoredArray, "numpy.ndarray"),
    *((StoredArray, f"{module}._reconstruct") for module in _ARRAYS),
    (_new_dict, "collections.defaultdict"),
    (_new_list, "collections.deque"),
)


def stand_ins(path: Path) -> list[Callable[..., Any] | tuple[Callable[..., Any], str]]:
    """Return the allow-list for a file: the harmless types, and a stand-in for each class of the training's own code.

    Classes of the standard library, torch and NumPy have none: what is not harmless there, the reader refuses.
    """
    names = {name for name in global_names(path) if name.partition(".")[0] not in _NOT_STOOD_IN}
    return [*HARMLESS, *((_class_named(name), name) for name in sorted(names))]


class _OfOwnCode(type):
    """The kind of the stand-ins for classes of the training's own code.

    A member of an enumeration is made of its value by a call. All other objects become ordered dictionaries, because
    the reader fills no other container, with the name of their class as an attribute.
    """

    def __call__(cls, *arguments: Any) -> Any:
        """Return the stand-in of an object that is made by calling its class."""
        is_member = bool(arguments) and all(isinstance(value, _SCALARS) for value in arguments)
        return Blank() if is_member else object_of(cls.__name__, *arguments)


def object_of(class_name: str, *arguments: Any) -> OrderedDict[Any, Any]:
    """Return the stand-in of an object, which the reader fills, with the name of its class."""
    instance: OrderedDict[Any, Any] = OrderedDict()
    vars(instance).update(_edgevit_class=class_name, _edgevit_arguments=arguments)
    return instance


def _class_named(name: str) -> type:
    """Return the stand-in for a class of this dotted name."""

    def new(cls: type, *arguments: Any) -> OrderedDict[Any, Any]:
        return object_of(name, *arguments)

    return _OfOwnCode(name, (), {"__new__": new})


def object_with_tensors(content: Any) -> str:
    """Return the name of a class whose object holds tensors as attributes; empty where no object does."""
    # What one object holds has no tensors, or nothing more is searched: no value is visited twice.
    searched = set[int]()
    for value in _values(content, set()):
        name = getattr(value, "_edgevit_class", "")
        if name and any(isinstance(inner, (Tensor, StoredArray)) for inner in _values(vars(value), searched)):
            return str(name)
    return ""


def _values(content: Any, seen_ids: set[int]) -> Iterator[Any]:
    """Yield a container and all that is in it, without what was seen before."""
    pending = [content]
    while pending:
        value = pending.pop()
        if id(value) in seen_ids:
            continue
        seen_ids.add(id(value))
        yield value
        if isinstance(value, dict):
            pending += [*value.values(), *([vars(value)] if isinstance(value, OrderedDict) else [])]
        elif isinstance(value, (list, tuple, set)):
            pending += value
