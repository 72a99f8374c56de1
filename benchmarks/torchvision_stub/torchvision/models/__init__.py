"""Names of torchvision.models."""
