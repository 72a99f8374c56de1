"""Names of torchvision.ops.misc."""

from torch import nn


class FrozenBatchNorm2d(nn.Module):
    """Stands for a norm that timm asks for by its class; no network here has one."""
