"""Names of torchvision.transforms; timm derives classes from some of them when it is imported."""

from typing import Any

from torchvision.transforms import functional
from torchvision.transforms.functional import InterpolationMode


class _Absent:
    def __init__(self, *arguments: Any, **options: Any) -> None:
        raise NotImplementedError("this torchvision is a stand-in, which transforms nothing")


Compose = CenterCrop = ColorJitter = GaussianBlur = Grayscale = Normalize = RandomApply = RandomCrop = _Absent
RandomGrayscale = RandomHorizontalFlip = RandomResizedCrop = RandomVerticalFlip = Resize = ToTensor = _Absent

__all__ = ["InterpolationMode", "functional"]
