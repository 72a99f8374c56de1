"""Measurement: latencies of artifacts on devices, with spread, noise floor and roofline."""
