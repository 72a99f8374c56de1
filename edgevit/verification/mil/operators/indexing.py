"""Slices, gathers and one-hot codes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from edgevit_runtime.record import UnsupportedError

from .arguments import Arguments, Operator


def _slice_by_index(a: Arguments) -> Tensor:
    """Return x[begin:end:stride] in every dimension, with NumPy's meaning."""
    begin, end, rank = a.ints("begin"), a.ints("end"), a["x"].ndim
    no_mask = [0] * rank
    masks = (a.ints(f"{name}_mask", no_mask) for name in ("begin", "end", "squeeze"))
    strides = a.ints("stride", [1] * rank)
    index: list[slice | int] = []
    for i, (from_start, to_end, is_single) in enumerate(zip(*masks, strict=True)):
        whole = slice(None if from_start else begin[i], None if to_end else end[i], strides[i])
        index.append(begin[i] if is_single else whole)
    # torch has no negative strides.
    return torch.from_numpy(a["x"].numpy()[tuple(index)].copy())


def _slice_by_size(a: Arguments) -> Tensor:
    x = a["x"]
    for axis, (begin, size) in enumerate(zip(a.ints("begin"), a.ints("size"), strict=True)):
        begin = begin % x.shape[axis] if begin < 0 else begin
        x = x.narrow(axis, begin, x.shape[axis] - begin if size == -1 else size)
    return x


def _gather(a: Arguments) -> Tensor:
    x, indices, batch_dims = a["x"], a["indices"], a.int("batch_dims")
    axis = a.int("axis") % x.ndim
    indices = torch.where(indices < 0, indices + x.shape[axis], indices)
    if batch_dims:
        rows = zip(x.flatten(0, batch_dims - 1), indices.flatten(0, batch_dims - 1), strict=True)
        gathered = [_take(row, index, axis - batch_dims) for row, index in rows]
        return torch.stack(gathered).reshape(*x.shape[:batch_dims], *gathered[0].shape)
    return _take(x, indices, axis)


def _take(x: Tensor, indices: Tensor, axis: int) -> Tensor:
    taken = x.index_select(axis, indices.reshape(-1))
    return taken.reshape(*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])


def _gather_along_axis(a: Arguments) -> Tensor:
    axis = a.int("axis")
    return a["x"].gather(axis, torch.where(a["indices"] < 0, a["indices"] + a["x"].shape[axis], a["indices"]))


def _gather_nd(a: Arguments) -> Tensor:
    if a.int("batch_dims"):
        raise UnsupportedError("the reference evaluator has no gather_nd with batch_dims")
    return a["x"][tuple(a["indices"].unbind(-1))]


def _one_hot(a: Arguments) -> Tensor:
    size, axis = a.int("one_hot_vector_size"), a.int("axis", -1)
    is_hot = F.one_hot(a["indices"], size).movedim(-1, axis).bool()
    on, off = a.get("on_value"), a.get("off_value")
    return torch.where(is_hot, torch.tensor(1) if on is None else on, torch.tensor(0) if off is None else off)


OPERATORS: dict[str, Operator] = {
    "gather": _gather,
    "gather_along_axis": _gather_along_axis,
    "gather_nd": _gather_nd,
    "one_hot": _one_hot,
    "slice_by_index": _slice_by_index,
    "slice_by_size": _slice_by_size,
}
