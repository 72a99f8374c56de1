"""The number of threads for every test of folding."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Compute on one thread, so that workers side by side do not wait for each other."""
    torch.set_num_threads(1)
