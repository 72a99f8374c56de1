"""Qualcomm AI Hub Models: latencies on hosted phones and boards, as a table (csv or Parquet) or as its perf.yaml.

One job on one device gives one number, without a spread; the files do not say which statistic of its runs it is. The
Parquet table is the history of the files over the releases of the repository.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from edgevit.published.importers import Publication
from edgevit.published.importers.reading.names import is_target, same_name, target_of
from edgevit.published.importers.reading.tables import Line, claims, csv_head, csv_lines, parquet_head, parquet_lines
from edgevit.published.importers.reading.units import ns_from_ms, ns_from_us, utc
from edgevit.published.importers.reading.yamls import yaml_document, yaml_head
from edgevit.published.screening import Claim, ClaimError

FORM = "Qualcomm AI Hub performance: a table (csv or Parquet, latency_ms), or perf.yaml of its repository"
LICENCE = "BSD-3-Clause"
FILE = ""
_PROJECT = "github.com/qualcomm/ai-hub-models"
_COLUMNS = frozenset(("model", "component", "precision", "device", "runtime", "job_id", "status", "latency_ms", "unit"))
_TOOL = re.compile(r"v_(?P<tool>\w+)")
_TOOLS_OF_HISTORY = ("onnx_runtime", "qairt", "tflite")  # its columns of versions
_STATED = ("batch", "inputs", "p50_ns", "processes", "runs")  # what none of the forms says
_VENDOR_RUNTIME = "qnn"  # words of runtimes of the vendor's own engine
_VENDOR_ENGINE = "qairt"  # as its versions are called


def recognises(path: Path) -> bool:
    """Whether the head of the file has the columns of such a table, or the keys of perf.yaml."""
    if path.suffix in (".yaml", ".yml"):
        return bool({"precisions", "models"} & yaml_head(path))
    return set(parquet_head(path) or csv_head(path)) >= _COLUMNS


def read(publication: Publication) -> Iterator[Claim]:
    """Every job. Raises StoreError where the file cannot be read."""
    path = publication.path
    lines = {".yaml": _yaml_lines, ".yml": _yaml_lines, ".parquet": parquet_lines}.get(path.suffix, csv_lines)
    return claims(lines(path), partial(_claim, publication))


def _claim(publication: Publication, line: Line) -> Claim:
    told = {name: value for name, value in line.values.items() if value not in (None, "")}
    return line.claim(_row(told, publication), origin=str(told.get("job_id", "")))


def _row(told: Mapping[str, Any], publication: Publication) -> dict[str, Any]:
    for name in ("model", "component", "precision", "device", "runtime"):
        if not isinstance(told.get(name), str):
            raise ClaimError(f"no {name}: {told.get(name)!r}")
    if "job_id" not in told:
        raise ClaimError("no latency: the line names no job, as those of language models, which are timed by the token")
    model, component, runtime = told["model"], told["component"], _runtime(told["runtime"])
    engine, version = _engine(runtime, _tools(told))
    started, undated = _when(told, publication)
    release = f" {told['first_release']}" if "first_release" in told else ""
    return {
        "source": f"{publication.named(_PROJECT + release)}, job {told['job_id']}",
        "licence": LICENCE,
        "model": model if same_name(model, component) else f"{model}/{component}",
        "device": told["device"],
        "device_id": f"aihub/{told['device']}",
        "target": target_of(runtime),
        "precision": told["precision"],
        "engine": engine,
        "engine_version": version,
        "compute_unit": str(told.get("unit", "")).lower(),
        "started": started,
        "flags": ("headline_unstated",),
        "untold": (*_STATED, *undated),
        **_outcome(told),
    }


def _outcome(told: Mapping[str, Any]) -> dict[str, Any]:
    if told.get("status") == "Passed":
        if "latency_us" in told:
            return {"p50_ns": ns_from_us(told["latency_us"], "inference_time")}
        return {"p50_ns": ns_from_ms(told.get("latency_ms"), "latency_ms")}
    if told.get("status") == "Failed":
        return {"p50_ns": None, "status": "failed", "error": "the job failed; the source does not say why", "flags": ()}
    raise ClaimError(f"no latency: the status is {told.get('status')!r}")


def _runtime(name: str) -> str:
    """Older releases put the way to a runtime before its name: torchscript, then an interchange format."""
    way, _, rest = name.partition("_")
    if way != "torchscript" or not rest:
        return name
    return rest.partition("_")[2] or rest


def _engine(runtime: str, tools: Mapping[str, str]) -> tuple[str, str]:
    """The engine in the source's words, and the versions of all tools that it names."""
    words = runtime.split("_")
    ours = [word for word in words if is_target(word)]
    engine = _VENDOR_ENGINE if words[0] == _VENDOR_RUNTIME else ours[-1] if ours else words[0]
    own = [version for tool, version in tools.items() if tool.startswith(engine)]
    rest = [f"{tool} {version}" for tool, version in sorted(tools.items()) if not tool.startswith(engine)]
    return engine, "; ".join([*own, *rest])


def _tools(told: Mapping[str, Any]) -> dict[str, str]:
    """Versions by tool: columns v_NAME of the csv, and three columns of the history."""
    named = {match["tool"]: told[name] for name in told if (match := _TOOL.fullmatch(name))}
    named |= {name: told[name] for name in _TOOLS_OF_HISTORY if name in told}
    return {tool: str(version) for tool, version in named.items()}


def _when(told: Mapping[str, Any], publication: Publication) -> tuple[str, tuple[str, ...]]:
    """When the job ran, else when it was published, and then that the former is not told."""
    if "timestamp" in told:
        return utc(told["timestamp"], "timestamp"), ()
    published = told.get("commit_date") or publication.published
    return (utc(published, "date of publication") if published else ""), ("started",)


def _yaml_lines(path: Path) -> Iterator[Line]:
    """The jobs of perf.yaml of today (precisions) or of before May 2025 (models), under the names of the table.

    The file does not name its model: the folder that the repository keeps it in does.
    """
    document = yaml_document(path)
    found = _nested(document) if "precisions" in document else _listed(document)
    for number, values in enumerate(found, start=1):
        content = repr(sorted(values.items())).encode()
        yield Line(f"{path.name}, job {number}", {"model": path.absolute().parent.name, **values}, content)


def _nested(document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for precision, of_precision in _items(document.get("precisions")):
        for component, of_component in _items(_get(of_precision, "components")):
            for device, of_device in _items(_get(of_component, "performance_metrics")):
                for runtime, told in _items(of_device):
                    names = {"component": component, "precision": precision, "device": device, "runtime": runtime}
                    yield {**names, **_job(told), "latency_ms": _get(told, "inference_time_milliseconds")}


def _listed(document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    models = document.get("models")
    for model in models if isinstance(models, list) else []:
        metrics = _get(model, "performance_metrics")
        for group in metrics if isinstance(metrics, list) else []:
            device = _get(_get(group, "reference_device_info"), "name")
            for runtime, told in _items(group):
                if isinstance(told, dict) and "inference_time" in told:
                    names = {"component": _get(model, "name"), "device": device, "runtime": runtime}
                    more = {"precision": _get(told, "precision"), "timestamp": _get(group, "timestamp")}
                    yield {**names, **_job(told), **more, "latency_us": _get(told, "inference_time")}


def _job(told: Any) -> dict[str, Any]:
    tools = {f"v_{tool}": version for tool, version in _items(_get(told, "tool_versions"))}
    names = {"job_id": "job_id", "status": "job_status", "unit": "primary_compute_unit"}
    return {**{name: _get(told, key) for name, key in names.items()}, **tools}


def _get(mapping: Any, key: str) -> Any:
    return mapping.get(key) if isinstance(mapping, dict) else None


def _items(mapping: Any) -> list[tuple[str, Any]]:
    return [(str(key), value) for key, value in mapping.items()] if isinstance(mapping, dict) else []
