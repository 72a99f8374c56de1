"""Tuning: which of several exactly equal ways to compute a network an engine is fastest with."""
