"""Models that no capture takes, refused with the reason ahead of it: TorchScript, lazy, quantized and others."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from edgevit.errors import FoldError, ModelError

_QUANTIZED = ("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized")


def require_plain(model: nn.Module) -> None:
    """Raise ModelError with the module's path where a model holds what cannot be captured."""
    for name, module in model.named_modules():
        path = name or type(model).__name__
        if isinstance(module, torch.jit.ScriptModule):
            fix = "give the module that torch.jit.script or torch.jit.trace was given"
            raise ModelError("the model is TorchScript", where=path, why="its Python code is gone", fix=fix)
        if isinstance(module, nn.parallel.DistributedDataParallel):
            why = "it is DistributedDataParallel"
            raise ModelError("the model is wrapped for training", where=path, why=why, fix="give model.module")
        if type(module).__module__.startswith(_QUANTIZED):
            raise _quantized(path)
    tensors = (*model.named_parameters(), *model.named_buffers())
    for name, tensor in tensors:
        if is_lazy(tensor):
            fix = "run it once on an input of your size: model(*inputs)"
            raise ModelError("a lazy module has no weights yet", where=name, why="it has never run", fix=fix)
        if tensor.is_quantized:
            raise _quantized(name)
    hollow = [name for name, tensor in tensors if tensor.is_meta]
    if hollow and len(hollow) < len(tensors):
        why = "it is on the meta device, and other tensors of the model are not"
        raise ModelError("a tensor has no numbers", where=hollow[0], why=why, fix="load weights for all of them")


def _quantized(path: str) -> ModelError:
    why = "its weights are rounded already, so no fold is exact"
    return ModelError("the model is quantized", where=path, why=why, fix="fold the model as it was before quantization")


def require_dense(path: str, tensor: Tensor) -> None:
    """Raise FoldError for a sparse tensor, by its path in the model."""
    if tensor.layout != torch.strided:
        why = f"its layout is {tensor.layout}, and engines have dense tensors alone"
        raise FoldError("a tensor of the model is sparse", where=path, why=why, fix="keep it as tensor.to_dense()")
