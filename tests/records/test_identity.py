"""identity: what changes a key or an id, and what does not."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from typing import Any

import pytest

from edgevit.errors import StoreError
from edgevit.records.identity import host_sha256, identify, measurement_id, samples_sha256, validate_identity
from edgevit_runtime.record import TensorSpec
from support.measured import HOST, failed, measured, published, snapshot

ROW = measured()
WHAT: dict[str, Any] = {
    "artifact_sha256": "b" * 64,
    "engine": "openvino",
    "engine_version": "1.32.0",
    "provider": "XnnpackExecutionProvider",
    "device_id": "pi-0002",
    "host": dataclasses.replace(HOST, kernel="6.6.2"),
    "compute_unit": "gpu",
    "threads": 2,
    "affinity": (0, 1),
    "precision": "fp16",
    "inputs": (TensorSpec("x", (1, 3, 192, 192)),),
    "batch": 8,
    "protocol_version": 2,
    "rate_hz": 30.0,
}
ACT: dict[str, Any] = {"started": "2026-11-21T10:00:01+00:00", "nonce": "1", "samples_ns": ((5_000_000,),)}
LABELS: dict[str, Any] = {
    "model": "other",
    "device": "my pi",
    "grade": "C",
    "flags": ("bimodal",),
    "status": "throttled",
}


@pytest.mark.parametrize("name", WHAT)
def test_what_is_measured_is_in_the_key(name: str) -> None:
    other = identify(dataclasses.replace(ROW, **{name: WHAT[name]}))
    assert other.measurement_key != ROW.measurement_key
    assert other.measurement_id != ROW.measurement_id


@pytest.mark.parametrize("name", ACT)
def test_each_act_of_measuring_has_its_id(name: str) -> None:
    other = identify(dataclasses.replace(ROW, **{name: ACT[name]}))
    assert other.measurement_key == ROW.measurement_key
    assert other.measurement_id != ROW.measurement_id


@pytest.mark.parametrize("name", LABELS)
def test_labels_name_nothing(name: str) -> None:
    assert identify(dataclasses.replace(ROW, **{name: LABELS[name]})).measurement_id == ROW.measurement_id


def test_format_of_the_digests_is_kept() -> None:
    # Merging with databases that exist already depends on these: a change needs a migration of every row.
    row = identify(dataclasses.replace(ROW, affinity=(3, 1)))
    assert row.measurement_key == "c748d2dd7c0bf14afe3bc191ac918720670641e6aeaa1736991f0cd50f909a40"
    assert row.measurement_id == "6faa569f02e98661d2abf388a752648e3a978998e41afbd15f12c56e5b576af5"


def test_process_boundaries_and_order_are_part_of_the_samples() -> None:
    digests = {samples_sha256(samples) for samples in (((1, 2), (3,)), ((1,), (2, 3)), ((1, 2, 3),), ((2, 1), (3,)))}
    assert len(digests) == 4
    assert samples_sha256([[1, 2]]) == samples_sha256(((1, 2),))


def test_identify_fills_in_what_is_missing_and_then_nothing() -> None:
    bare = dataclasses.replace(ROW, nonce="", affinity=(), measurement_key="", measurement_id="")
    one, two = identify(bare), identify(bare)
    assert one.affinity == snapshot().affinity
    assert one.nonce and one.nonce != two.nonce and one.measurement_id != two.measurement_id
    assert identify(one) == one


def test_published_rows_are_the_same_row_every_time() -> None:
    assert published() == published()
    assert published().nonce == ""


def test_models_without_an_artifact_differ() -> None:
    keys = {failed(artifact_sha256="", model=model, target=target).measurement_key
            for model in ("a", "b") for target in ("onnx", "coreml")}  # fmt: skip
    assert len(keys) == 4


def test_affinity_is_a_set() -> None:
    one, other = (identify(dataclasses.replace(ROW, affinity=cores)) for cores in ((0, 1), (1, 0)))
    assert one.measurement_key == other.measurement_key


def test_unknown_host_has_no_digest() -> None:
    assert host_sha256(None) == ""
    assert len(host_sha256(HOST)) == 64


@pytest.mark.parametrize("name", [*WHAT, *ACT, "measurement_key", "measurement_id"])
def test_altered_rows_are_refused(name: str) -> None:
    altered = dataclasses.replace(ROW, **{name: (WHAT | ACT).get(name, "0" * 64)})
    with pytest.raises(StoreError, match="is not that of the row"):
        validate_identity(altered)


def test_rows_are_who_they_say() -> None:
    for row in (ROW, failed(), published(), measured([[1, 2], [3]])):
        validate_identity(row)
    assert ROW.measurement_id == measurement_id(ROW.measurement_key, ROW.started, ROW.nonce, ROW.samples_ns)


def test_importing_identity_costs_nothing_heavy() -> None:
    code = "import sys, edgevit.records.identity; print(*{name.split('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "numpy", "sqlalchemy", "alembic"} & set(loaded)
