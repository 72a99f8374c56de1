"""Names of torchvision.ops."""
