"""Stand-ins for what lies beside the weights in a checkpoint: no class of the file is imported, and no code of it runs.

torch's weights-only reader takes tensors, containers and numbers. Files of trainings also hold arguments, paths, dates,
enumerations and configurations. A stand-in takes the place of each such object, so that the reader can go on.
"""

from __future__ import annotations

import pickletools
import re
import sys
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from torch import Tensor

_PLAIN_DTYPE = re.compile(r"[fiu][1248]|b1")
# A file of the older format is a magic number, a version, a description of the system, and the content.
_LEGACY_PICKLES = 4
_LONGEST_NAME = 1_000  # characters of a class with its modules
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
    names = {name for name in _global_names(path) if name.partition(".")[0] not in _NOT_STOOD_IN}
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
    for value in _values(content):
        name = getattr(value, "_edgevit_class", "")
        if name and any(isinstance(inner, (Tensor, StoredArray)) for inner in _values(list(vars(value).values()))):
            return str(name)
    return ""


def _values(content: Any) -> Iterator[Any]:
    """Yield a container and all that is in it."""
    pending, seen_ids = [content], set[int]()
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


def _global_names(path: Path) -> set[str]:
    """Return the dotted names of all that a file's pickles want to import."""
    names: set[str] = set()
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for member in archive.namelist():
                if member.endswith("data.pkl"):
                    names.update(_names_in(pickletools.genops(archive.read(member))))
        return names
    with path.open("rb") as file:
        for _ in range(_LEGACY_PICKLES):
            names.update(_names_in(pickletools.genops(file)))
    return names


def _names_in(operations: Iterable[tuple[pickletools.OpcodeInfo, Any, int | None]]) -> Iterator[str]:
    for operation, argument, _ in operations:
        if operation.name == "GLOBAL":
            module, _, name = str(argument).partition(" ")
            if len(name) + len(module) > _LONGEST_NAME:
                # torch's own refusal searches such a name in a time that grows with the square of its length.
                raise UnpicklingError(f"it asks for a class whose name has {len(name) + len(module)} characters")
            if (module, name) in NAME_MAPPING:
                module, name = NAME_MAPPING[module, name]
            yield f"{IMPORT_MAPPING.get(module, module)}.{name}"
