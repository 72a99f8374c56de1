"""Devices: where artifacts run, how they are reached and enrolled."""
