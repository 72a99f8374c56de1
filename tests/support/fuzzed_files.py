"""Files that the product reads, damaged: structured mutations of valid ones, and random bytes.

A mutation is made of integers alone, so that hypothesis shrinks it, and a seed repeats it.
"""

from __future__ import annotations

import json
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow
import torch
from safetensors.torch import save_file

from edgevit.artifacts.labels import read_labels
from edgevit.artifacts.manifest import read_json_file, require_possible
from edgevit.artifacts.source_files import SourceFiles
from edgevit.devices.registry import read_device
from edgevit.devices.transports import read_end
from edgevit.errors import EdgevitError
from edgevit.models.checkpoint_file import read_content
from edgevit.models.hf_preprocessing import read_preprocessing
from edgevit.published.importers import Publication, is_published, list_importers, screened
from edgevit.records.artifact import Artifact
from edgevit.store import LatencyDB
from edgevit.store.json_records import PortableRecord
from edgevit.store.jsonl import write_lines
from edgevit.verification.inputs import read_rows
from edgevit_runtime.codec import RecordError, from_data, to_json
from edgevit_runtime.record import Reply, TensorSpec
from support.graders import artifact as grader_artifact
from support.measured import NETWORK, floor, measured, operators, published, rated, vendor_row

ROOT = Path(__file__).parents[2]
_DEVICE = b"""device_id = "0123abcd"
device_class = "aarch64-cortex-a76-4c"
transport = "ssh"
compute_units = ["cpu"]
description = "a board"

[options]
host = "pi@192.168.1.7"
port = "2222"
"""
_PROCESSOR = json.dumps({
    "image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 224}, "crop_pct": 0.875, "resample": 3,
    "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True, "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224}, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5],
}).encode()  # fmt: skip
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?|\w+|[^\s\w]')
# In place of a token of a text: values of other types, sizes and depths in JSON, TOML, YAML and csv.
HOSTILE: tuple[bytes, ...] = (
    b"null", b"true", b"-1", b"0", b"1e999", b"-1e-400", b"NaN", b"Infinity", b"9" * 30, b"9" * 400, b"9" * 5000,
    b"[]", b"{}", b"[[]]", b'""', b'"\\ud800"', b'"\\u0000"', b'"x"', b'{"a": 1}', b"[" * 500, b"[" * 2_000,
    b'{"a":' * 2_000, b"1979-05-27", b"1979-05-27T07:32:00Z", b"0x1f", b"\xef\xbb\xbf", b"\x00", b"\xff\xfe", b"\r",
    b"\n", b",", b'"', b"'", b"&a [*a]", b"!!python/object:os.system", b"\xc2\x85", b"\x1b[2J", b"1" + b"0" * 310,
    b"inf", b"- " * 3000, b"a: " * 3000, b"x" * 300_000, b"[1, [2, [3]]]", b'["a", 1]', b"[[1]]", b"1_0", b"0.5",
)  # fmt: skip
_RANDOM_BYTES = 200


def mutated(valid: bytes, choices: Sequence[int]) -> bytes:
    """Return damaged contents. Three integers make one mutation; the first of all selects random bytes at times."""
    if not choices or choices[0] % 16 == 0:
        return b"".join(choice.to_bytes(4, "little") for choice in choices)[:_RANDOM_BYTES]
    content = valid
    for start in range(0, len(choices) - 2, 3):
        content = _mutated_once(content, *choices[start : start + 3])
    return content


def _mutated_once(content: bytes, kind: int, position: int, value: int) -> bytes:
    tokens = list(_TOKEN.finditer(content, 0, 200_000)) if kind % 8 < 5 else []
    if tokens:
        token = tokens[position % len(tokens)]
        others = (HOSTILE[value % len(HOSTILE)], b"", tokens[value % len(tokens)][0])
        # Half of all replace a token by a hostile one.
        other = others[0 if kind % 8 < 3 else kind % 8 - 2]
        return content[: token.start()] + other + content[token.end() :]
    where = position % (len(content) + 1)
    match kind % 8:
        case 5:
            return content[:where] + content[where + value % 64 :]
        case 6:
            return content[:where]
        case _:
            return content[:where] + (value & 0xFFFF).to_bytes(2, "big") + content[where + 2 :]


@dataclass(frozen=True)
class Reader:
    """A kind of files: valid contents, the name of a file, and what reads it."""

    name: str
    file: str
    valid: tuple[bytes, ...]
    read: Callable[[Path], object]

    def try_once(self, folder: Path, choices: Sequence[int]) -> bool:
        """Read one damaged file, and return whether it was read. Only an EdgevitError is no failure."""
        path = folder / self.file
        path.write_bytes(mutated(self.valid[sum(choices) % len(self.valid)], choices))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self.read(path)
        except EdgevitError:
            return False
        return True


@contextmanager
def readers(folder: Path) -> Iterator[list[Reader]]:
    """Give every reader, with valid files made in a folder, and a database that imports go to."""
    with LatencyDB.open(str(folder / "fuzzed.db"), shipped=False) as db:
        yield [
            Reader("rows", "rows.jsonl", _lines(folder), db.import_file),
            Reader("rows in Parquet", "rows.parquet", (_parquet(folder),), db.import_file),
            Reader("device", "board.toml", (_DEVICE,), read_device),
            Reader("manifest", "artifact.json", (to_json(grader_artifact(folder / "made")).encode(),), _read_manifest),
            *_published(),
            *_of_models(folder),
            Reader("labels", "labels.txt", (b"cat\ndog\n", b"\xef\xbb\xbfcat\r\ndog"), read_labels),
            Reader("samples", "samples.npy", _arrays(folder), _read_samples),
            Reader("worker's reply", "reply.json", (to_json(Reply("ok")).encode(),), _read_reply),
            _of_sources(folder),
        ]


def _published() -> list[Reader]:
    """Return the readers of published tables; a few lines of each."""
    folder = ROOT / "tests/published"
    valid = {
        ("aihub", "perf.csv"): [folder / "aihub_perf.csv"],
        ("aihub", "perf.yaml"): [folder / "made_net/perf.yaml", folder / "older_net/perf.yaml"],
        ("mlperf", "mlperf.csv"): [folder / "mlperf.csv"],
        ("timm", "results-imagenet.csv"): [folder / "results-imagenet.csv"],
        ("papers", "models.jsonl"): [ROOT / "latency_db/models.jsonl"],
    }
    return [
        Reader(f"published: {form}, {name}", name, tuple(map(_head, files)), _importer(form))
        for (form, name), files in valid.items()
    ]


def _head(file: Path) -> bytes:
    lines = file.read_bytes().splitlines(keepends=True)
    return b"".join(lines if file.suffix == ".yaml" else lines[:3])


def _importer(form: str) -> Callable[[Path], object]:
    assert form in list_importers()

    def read(path: Path) -> object:
        is_published(path)
        return list(screened(form, [Publication(path)]).records())

    return read


def _of_models(folder: Path) -> list[Reader]:
    weights = {"a.weight": torch.ones(2, 3), "b": torch.zeros(1)}
    torch.save({"state_dict": weights, "epoch": 3}, folder / "a.pth")
    torch.save(weights, folder / "old.pth", _use_new_zipfile_serialization=False)
    save_file(weights, folder / "a.safetensors")
    save_file(weights, folder / "shard.safetensors")
    index = json.dumps({"metadata": {}, "weight_map": dict.fromkeys(weights, "shard.safetensors")}).encode()
    kinds = (("checkpoint", "weights.pth", ("a.pth", "old.pth")), ("safetensors", "w.safetensors", ("a.safetensors",)))
    found = [Reader(name, file, tuple((folder / one).read_bytes() for one in valid), read_content)
             for name, file, valid in kinds]  # fmt: skip
    found.append(Reader("index of shards", "model.safetensors.index.json", (index,), read_content))
    found.append(Reader("image processor", "preprocessor_config.json", (_PROCESSOR,), _read_processor))
    return found


def _lines(folder: Path) -> tuple[bytes, ...]:
    path = folder / "valid.jsonl"
    records: list[PortableRecord] = [
        measured(), published(), vendor_row(), measured(network=NETWORK, nonce="1"), rated(), floor(), operators()
    ]  # fmt: skip
    write_lines(path, records)
    return tuple(line + b"\n" for line in path.read_bytes().splitlines())


def _parquet(folder: Path) -> bytes:
    from edgevit.store import parquet

    assert pyarrow.__version__
    parquet.write(folder / "valid.parquet", [measured(), rated()])
    return (folder / "valid.parquet").read_bytes()


def _arrays(folder: Path) -> tuple[bytes, ...]:
    np.save(folder / "valid.npy", np.ones((2, 3, 4, 4), dtype=np.float32))
    with zipfile.ZipFile(folder / "valid.npz", "w") as archive:
        archive.write(folder / "valid.npy", "a.npy")
    return (folder / "valid.npy").read_bytes(), (folder / "valid.npz").read_bytes()


def _read_samples(path: Path) -> object:
    return read_rows(path, [TensorSpec("x", (1, 3, 4, 4))])


def _read_reply(path: Path) -> object:
    return read_end(path.read_bytes(), b"", 0, 1.0)


def _read_manifest(path: Path) -> object:
    """Read a manifest as open_artifact does, which also looks at the files of its folder."""
    try:
        artifact = from_data(Artifact, read_json_file(path)[1])
        require_possible(artifact)
    except RecordError:
        return None
    return artifact


def _read_processor(path: Path) -> object:
    return read_preprocessing(path.parent, {})


def _of_sources(folder: Path) -> Reader:
    (memory := folder / "sources").mkdir()
    (code := folder / "net.py").write_text("x = 1\n")
    SourceFiles(memory).record(NETWORK, folder / "a.pth", [code])
    [path] = memory.glob("*.json")
    return Reader("memory of source files", path.name, (path.read_bytes(),), _read_sources)


def _read_sources(path: Path) -> object:
    memory = SourceFiles(path.parent)
    return memory.change_of(NETWORK), memory.is_current(NETWORK)
