"""What runs on the device: records, clock, environment. Standard library only, so that it runs where Python runs."""
