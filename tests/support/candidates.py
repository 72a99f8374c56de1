"""Rows, cells and budgets for tests of the selection, and strategies that draw them at random."""

from __future__ import annotations

import dataclasses
from typing import Any

from hypothesis import strategies as st

from edgevit.records.choice import Basis, Budget, Choice, JointChoice, Reason
from edgevit.records.measurement import Measurement, NoiseFloor
from edgevit.selection import CandidateFilter, Cell, PredictedCell, choose_among
from edgevit_runtime.record import TensorSpec
from support.measured import INPUT, card, measured

MS = 1_000_000
CARDS = {name: card(name, top1) for name, top1 in (("a", 70.0), ("b", 75.0), ("c", 80.0), ("d", None))}
BOUND = {50: "p50_high_ns", 90: "p90_upper_ns", 99: "p99_upper_ns"}
DAYS = [f"2026-01-0{day}T00:00:00+00:00" for day in range(1, 6)]


def row(model: str = "a", upper_ms: float | None = 10, **changes: Any) -> Measurement:
    """Return a row whose bounds all are `upper_ms`; its id follows from its fields."""
    upper_ns = None if upper_ms is None else round(upper_ms * MS)
    bounds: dict[str, Any] = dict.fromkeys(BOUND.values(), upper_ns)
    base = dataclasses.replace(measured(), model=model, artifact_bytes=2 * MS, **bounds)
    changed = dataclasses.replace(base, **changes)
    return dataclasses.replace(
        changed, measurement_id=changes.get("measurement_id", repr(sorted(vars(changed).items())))
    )


def answer(*rows: Measurement, candidate_filter: CandidateFilter | None = None, **budget: Any) -> Choice:
    """Return the answer from these rows within a budget."""
    return choose_among(
        rows, "pi5", Budget(**budget), cards=CARDS, candidate_filter=candidate_filter or CandidateFilter()
    )


def reasons(choice: Choice) -> dict[str, str]:
    """Return the English of the rejections by model."""
    return {rejection.candidate.model: rejection.reason for rejection in choice.rejected}


def picked(choice: Choice) -> str | None:
    """Return the model of the pick."""
    return choice.picked.model if choice.picked else None


def noisy(share: float, unit: str = measured().device_id) -> NoiseFloor:
    """Return a noise floor of a device."""
    p50s_ns = (10**9, 10**9, 10**9 + round(share * 10**9))
    return NoiseFloor(unit, "pi5", "mixed", 1, share, p50s_ns, "2026-11-21T10:00:00+00:00")


def texts(choice: Choice | JointChoice) -> tuple[str, ...]:
    """Return the English of an answer's notes."""
    return tuple(note.text for note in choice.notes)


def guess(
    model: str = "c", ms: float = 8, at_most_ms: float = 12, *, level: Any = "transfer", **changes: Any
) -> PredictedCell:
    """Return a prediction between ms / at_most_ms * ms and at_most_ms; a refusal where `level` says so."""
    cell = Cell(
        f"predicted {model} {sorted(changes.items())}",
        model,
        "onnx",
        "fp32",
        4,
        "onnxruntime",
        "pi5",
        "pi-0001",
        inputs=(INPUT,),
        artifact_sha256="a" * 64,
        artifact_bytes=2 * MS,
        parity_status="passed",
    )
    cell = dataclasses.replace(cell, **changes)
    if level == "refused":
        return PredictedCell(cell, (None, None), Basis("refused", 0.9), Reason("no_shared_rows", limit=3))
    basis = Basis(level, 0.9, 5, "pi4, onnx fp32, 4 thread(s)", ms * ms / at_most_ms, at_most_ms)
    return PredictedCell(cell, (round(ms * MS), round(at_most_ms * MS)), basis)


ROWS = st.lists(
    st.builds(
        row,
        st.sampled_from("abcd"),
        st.sampled_from([1, 2, 3, 5, 8, None]),
        status=st.sampled_from(["ok"] * 6 + ["crashed", "throttled", "unsupported"]),
        target=st.sampled_from(["onnx", "coreml"]),
        precision=st.sampled_from(["fp32", "int8"]),
        threads=st.sampled_from([1, 4]),
        engine_version=st.sampled_from(["", "1.9", "1.10", "1.10rc1"]),
        provider=st.sampled_from(["", "cpu"]),
        device_id=st.sampled_from(["pi-1", "pi-2"]),
        started=st.sampled_from(DAYS),
        artifact_bytes=st.sampled_from([0, MS, 2 * MS, 3 * MS]),
        parity_status=st.sampled_from(["passed"] * 3 + ["evaluated", "failed", "built_not_run", "needs_processor"]),
        batch=st.sampled_from([1, 1, 1, 8]),
        inputs=st.sampled_from([(INPUT,), (), (TensorSpec("x", (1, 3, 192, 192)),)]),
        provenance=st.sampled_from(["measured", "measured", "published"]),
    ),
    max_size=12,
    unique_by=lambda one: one.measurement_id,
)
GUESSES = st.lists(
    st.builds(
        guess,
        st.sampled_from("abcd"),
        st.sampled_from([1.0, 2.0, 4.0]),
        st.sampled_from([4.0, 6.0, 9.0]),
        level=st.sampled_from(["transfer", "features", "same graph", "refused"]),
        target=st.sampled_from(["onnx", "coreml"]),
        threads=st.sampled_from([1, 4]),
        artifact_bytes=st.sampled_from([0, MS, 3 * MS]),
    ),
    max_size=6,
    unique_by=lambda prediction: prediction.cell.cell_id,
)
BUDGETS = st.builds(
    Budget,
    max_latency_ms=st.sampled_from([None, 1.0, 2.5, 5.0, 9.0]),
    percentile=st.sampled_from([50, 90, 99]),
    min_top1_percent=st.sampled_from([None, 72.0, 78.0]),
    max_size_mb=st.sampled_from([None, 1.0, 2.5]),
)
LIMITS = st.builds(
    Budget,
    max_latency_ms=st.sampled_from([None, 1.0, 2.5, 5.0, 9.0]),
    percentile=st.sampled_from([50, 90, 99]),
    min_top1_percent=st.sampled_from([None, 72.0]),
    max_size_mb=st.sampled_from([None, 2.5]),
    max_memory_mb=st.sampled_from([None, 50.0, 500.0]),
    max_energy_mj=st.sampled_from([None, None, 5.0]),
)
