"""Networks for tests of phone targets: one with the operators they have trouble with, one that keeps threads busy."""

from __future__ import annotations

import time
from pathlib import Path

import torch
from torch import Tensor, nn

from edgevit_runtime.record import Session

# Of processor time, which is counted in ticks of 10 ms.
_BUSY_S = 0.4


class Mixed(nn.Module):
    """A network with the operators that phone targets have trouble with: (B, 3, 16, 12) -> (B, 5)."""

    def __init__(self, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.norm = nn.GroupNorm(1, 8)
        self.mix = nn.Conv2d(16, 8, 1)
        self.tokens = nn.LayerNorm(8)
        self.qkv = nn.Linear(8, 24)
        self.out = nn.Linear(8, 8)
        self.pool = nn.MaxPool2d(2)
        self.spread = nn.Parameter(torch.randn(4, 4))
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(nn.functional.gelu(self.stem(x)))
        x = nn.functional.gelu(self.mix(torch.cat([x, x.roll((2, -1), (2, 3))], 1)))
        tokens = x.flatten(2).transpose(1, 2)
        qkv = self.qkv(self.tokens(tokens)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = (tokens + self.out(mixed)).transpose(1, 2).unflatten(2, (8, 6))
        x = self.spread @ self.pool(nn.functional.silu(x))
        logits: Tensor = self.head(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))
        return logits


class Wide(nn.Module):
    """Convolutions that keep several threads busy: (B, 3, 16, 12) -> (B, 64, 16, 12)."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(*(nn.Conv2d(256 if i else 3, 256 if i < 3 else 64, 3, padding=1) for i in range(4)))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.body:
            x = nn.functional.relu(layer(x))
        return x


def busy_threads(session: Session) -> int:
    """Count the threads that a session computes in: those with a tenth of the processor time of many runs."""
    (spec,) = session.inputs
    session.feed([bytes(spec.nbytes)], 1)
    session.run()
    before = _thread_times()
    start = time.process_time()
    while time.process_time() - start < _BUSY_S:
        session.run()
    spent = [after - before.get(thread, 0) for thread, after in _thread_times().items()]
    return sum(ticks > 0.1 * sum(spent) for ticks in spent)


def _thread_times() -> dict[str, int]:
    """Return the ticks of processor time by thread. Only Linux reports them."""
    stats = ((task.name, (task / "stat").read_text()) for task in Path("/proc/self/task").iterdir())
    fields = ((name, text.rpartition(")")[2].split()) for name, text in stats)
    return {name: int(field[11]) + int(field[12]) for name, field in fields}
