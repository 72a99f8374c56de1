"""Qualcomm AI Hub Models: latencies on hosted phones and boards, as a table (csv or Parquet) or as its perf.yaml.

One job on one device gives one number, without a spread. The files do not say which statistic of its runs it is. The
Parquet table is the history of the files over the releases of the repository. The task of a model is in another file
beside them, if that is there: info.yaml, or a table whose name has `info` in place of `perf`.
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
from edgevit.published.importers.reading.tasks import task_flags
from edgevit.published.importers.reading.units import ns_from_ms, ns_from_us, utc
from edgevit.published.importers.reading.yamls import yaml_document, yaml_head
from edgevit.published.screening import Claim, ClaimError
from edgevit.store import PublishedValues

FORM = "Qualcomm AI Hub performance: a table (csv or Parquet, latency_ms), or perf.yaml of its repository"
LICENCE = "BSD-3-Clause"
FILE = ""
_PROJECT = "github.com/qualcomm/ai-hub-models"
_COLUMNS = frozenset(("model", "component", "precision", "device", "runtime", "job_id", "status", "latency_ms", "unit"))
_INFO_COLUMNS = frozenset(("model", "use_case"))
_TOOL = re.compile(r"v_(?P<tool>\w+)")
# Columns of versions in the history.
_TOOLS_OF_HISTORY = ("onnx_runtime", "qairt", "tflite")
# Fields that no form has.
_UNTOLD = ("batch", "inputs", "p50_ns", "processes", "runs")
# First word of runtimes with the vendor's own engine, and the name of that engine among the versions.
_VENDOR_RUNTIME = "qnn"
_VENDOR_ENGINE = "qairt"


def recognises(path: Path) -> bool:
    """Return whether the head of the file has the columns of such a table, or the keys of perf.yaml."""
    if path.suffix in (".yaml", ".yml"):
        return bool({"precisions", "models"} & yaml_head(path))
    return set(parquet_head(path) or csv_head(path)) >= _COLUMNS


def read(publication: Publication) -> Iterator[Claim]:
    """Yield every job as a claim. Raises StoreError where the file cannot be read."""
    path = publication.path
    lines = {".yaml": _yaml_lines, ".yml": _yaml_lines, ".parquet": parquet_lines}.get(path.suffix, csv_lines)
    return claims(lines(path), partial(_claim, publication, _task_by_model(path)))


def _task_by_model(path: Path) -> dict[str, str]:
    """Return the tasks in the file beside this one, by the names of models; empty where no such file is."""
    if path.suffix in (".yaml", ".yml"):
        beside = path.with_name(f"info{path.suffix}")
        return {path.absolute().parent.name: str(yaml_document(beside).get("use_case", ""))} if beside.is_file() else {}
    beside = path.with_name(path.stem.replace("perf", "info") + ".csv")
    if not set(csv_head(beside)) >= _INFO_COLUMNS:
        return {}
    lines = (line.values for line in csv_lines(beside) if line.values)
    return {values["model"]: values["use_case"] for values in lines}


def _claim(publication: Publication, task_by_model: Mapping[str, str], line: Line) -> Claim:
    job = {name: value for name, value in line.values.items() if value not in (None, "")}
    return line.claim(_row(job, publication, task_by_model), origin=str(job.get("job_id", "")))


def _row(job: Mapping[str, Any], publication: Publication, task_by_model: Mapping[str, str]) -> PublishedValues:
    for name in ("model", "component", "precision", "device", "runtime"):
        if not isinstance(job.get(name), str):
            raise ClaimError("missing_field", f"{name} is {job.get(name)!r}")
    if "job_id" not in job:
        why = "the line names no job, as those of language models, which are timed by the token"
        raise ClaimError("no_latency", why)
    model, component, runtime = job["model"], job["component"], _runtime(job["runtime"])
    engine, version = _engine(runtime, _tools(job))
    started, undated = _start(job, publication)
    release = f" {job['first_release']}" if "first_release" in job else ""
    return PublishedValues(
        source=f"{publication.named(_PROJECT + release)}, job {job['job_id']}",
        licence=LICENCE,
        model=model if same_name(model, component) else f"{model}/{component}",
        device=job["device"],
        device_id=f"aihub/{job['device']}",
        target=target_of(runtime),
        precision=job["precision"],
        engine=engine,
        engine_version=version,
        compute_unit=str(job.get("unit", "")).lower(),
        started=started,
        untold=(*_UNTOLD, *undated),
        **_outcome(job, task_flags(task_by_model.get(model, "")) if same_name(model, component) else ()),
    )


def _outcome(job: Mapping[str, Any], flags: tuple[str, ...]) -> dict[str, Any]:
    """Return the latency of a job, or its failure, with the flags of its model. A part of a model has no task."""
    status = job.get("status")
    if status == "Failed":
        why = "the job failed; the source does not say why"
        return {"p50_ns": None, "status": "failed", "error": why, "flags": flags}
    if status != "Passed":
        raise ClaimError("no_latency", f"the status is {status!r}")
    if "latency_us" in job:
        p50_ns = ns_from_us(job["latency_us"], "inference_time")
    else:
        p50_ns = ns_from_ms(job.get("latency_ms"), "latency_ms")
    return {"p50_ns": p50_ns, "flags": ("headline_unstated", *flags)}


def _runtime(name: str) -> str:
    """Return a runtime's name without its path: older releases put torchscript and an interchange format before it."""
    first, _, remainder = name.partition("_")
    if first != "torchscript" or not remainder:
        return name
    return remainder.partition("_")[2] or remainder


def _engine(runtime: str, tools: Mapping[str, str]) -> tuple[str, str]:
    """Return the engine in the source's words, and the versions of all tools that it names."""
    words = runtime.split("_")
    targets = [word for word in words if is_target(word)]
    engine = _VENDOR_ENGINE if words[0] == _VENDOR_RUNTIME else targets[-1] if targets else words[0]
    of_engine = [version for tool, version in tools.items() if tool.startswith(engine)]
    of_others = [f"{tool} {version}" for tool, version in sorted(tools.items()) if not tool.startswith(engine)]
    return engine, "; ".join([*of_engine, *of_others])


def _tools(job: Mapping[str, Any]) -> dict[str, str]:
    """Return versions by tool: columns v_NAME of the csv, and three columns of the history."""
    named = {match["tool"]: job[name] for name in job if (match := _TOOL.fullmatch(name))}
    named |= {name: job[name] for name in _TOOLS_OF_HISTORY if name in job}
    return {tool: str(version) for tool, version in named.items()}


def _start(job: Mapping[str, Any], publication: Publication) -> tuple[str, tuple[str, ...]]:
    """Return when the job ran, else when it was published; and the name of the field if it is the latter."""
    if "timestamp" in job:
        return utc(job["timestamp"], "timestamp"), ()
    published = job.get("commit_date") or publication.published
    return (utc(published, "date of publication") if published else ""), ("started",)


def _yaml_lines(path: Path) -> Iterator[Line]:
    """Yield the jobs of a perf.yaml under the names of the table: since May 2025 (precisions), or older (models).

    The file does not name its model: its folder in the repository does.
    """
    document = yaml_document(path)
    jobs = _nested(document) if "precisions" in document else _listed(document)
    for number, values in enumerate(jobs, start=1):
        content = repr(sorted(values.items())).encode()
        yield Line(f"{path.name}, job {number}", {"model": path.absolute().parent.name, **values}, content)


def _nested(document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for precision, of_precision in _pairs(document.get("precisions")):
        for component, of_component in _pairs(_get(of_precision, "components")):
            for device, of_device in _pairs(_get(of_component, "performance_metrics")):
                for runtime, result in _pairs(of_device):
                    names = {"component": component, "precision": precision, "device": device, "runtime": runtime}
                    yield {**names, **_job(result), "latency_ms": _get(result, "inference_time_milliseconds")}


def _listed(document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    models = document.get("models")
    for model in models if isinstance(models, list) else []:
        metrics = _get(model, "performance_metrics")
        for group in metrics if isinstance(metrics, list) else []:
            device = _get(_get(group, "reference_device_info"), "name")
            for runtime, result in _pairs(group):
                if isinstance(result, dict) and "inference_time" in result:
                    names = {"component": _get(model, "name"), "device": device, "runtime": runtime}
                    more = {"precision": _get(result, "precision"), "timestamp": _get(group, "timestamp")}
                    yield {**names, **_job(result), **more, "latency_us": _get(result, "inference_time")}


def _job(result: Any) -> dict[str, Any]:
    tools = {f"v_{tool}": version for tool, version in _pairs(_get(result, "tool_versions"))}
    names = {"job_id": "job_id", "status": "job_status", "unit": "primary_compute_unit"}
    return {**{name: _get(result, key) for name, key in names.items()}, **tools}


def _get(mapping: Any, key: str) -> Any:
    return mapping.get(key) if isinstance(mapping, dict) else None


def _pairs(mapping: Any) -> list[tuple[str, Any]]:
    return [(str(key), value) for key, value in mapping.items()] if isinstance(mapping, dict) else []
