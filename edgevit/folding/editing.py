"""Further edits of a folded network: a copy to edit, the edited one as a network again, and how equal the two are."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.fx import GraphModule

from edgevit.folding.agreement import cast, compare
from edgevit.folding.graph import Net, copied_graph
from edgevit.folding.inference_form import Folded
from edgevit.folding.one_dtype import OneDtype


def editable(folded: Folded) -> Net:
    """Return a copy of a folded network for editing, with its constants in float64."""
    module = GraphModule(folded.net, copied_graph(folded.net))
    dtype = next((tensor.dtype for tensor in folded.parameters() if tensor.is_floating_point()), torch.float32)
    return Net(module, dtype, batch_is_open=folded.report.batch_is_open, follows_dtype=folded.follows_dtype)


def finished(net: Net, like: Folded, dtype: torch.dtype | None = None) -> Folded:
    """Return an edited copy as a folded network, in its own dtypes or another one."""
    module = net.finish(torch.contiguous_format, dtype=dtype)
    return Folded(module, like.shapes, like.report, follows_dtype=like.follows_dtype)


def difference(folded: Folded, net: Net, inputs: Sequence[Tensor]) -> float:
    """Return by how much an edited copy differs from its network in float64, as a share of the largest output.

    Raises RuntimeError for a network that does not run in float64.
    """
    before, after = (finished(form, folded, torch.float64) for form in (editable(folded), net))
    mode = contextlib.nullcontext() if folded.follows_dtype else OneDtype(torch.float64)
    with mode:
        return compare(before, after, cast(inputs, torch.float64))
