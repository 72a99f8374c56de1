"""Names of torchvision.transforms.functional."""

import enum


class InterpolationMode(enum.Enum):
    """Ways to resize pictures."""

    NEAREST = "nearest"
    NEAREST_EXACT = "nearest-exact"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"
    BOX = "box"
    HAMMING = "hamming"
    LANCZOS = "lanczos"
