"""Sweeps: many models x targets x precisions x threads, resumable."""
