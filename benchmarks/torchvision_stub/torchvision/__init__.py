"""A stand-in for torchvision, which has no wheel for this torch: the names that timm imports, without their work."""

__version__ = "0.0.0"
