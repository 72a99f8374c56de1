"""The English of an answer: reasons, notes, flags and suggestions as sentences. No other code depends on it."""

from __future__ import annotations

import typing
from collections.abc import Collection, Iterable, Sequence

from edgevit.records.choice import (
    Budget,
    Candidate,
    Note,
    NoteKind,
    Objective,
    PickNoteKind,
    Reason,
    ReasonCode,
    RefusalCode,
    RejectionKind,
)
from edgevit.records.measurement import CLASS_ORDER, NOT_OF_MANIFEST

_REFUSALS = frozenset(typing.get_args(RefusalCode))
_REASONS: dict[ReasonCode, str] = {
    "latency_bound_above": "{subject} is up to {value:.6g} ms, above {limit:.6g} ms",
    "published_latency_above": "{subject} is {value:.6g} ms, above {limit:.6g} ms",
    "predicted_latency_above": "{subject} may be up to {value:.6g} ms, above {limit:.6g} ms",
    "latency_not_published": "its source tells no {subject}",
    "latency_bound_unknown": "no bound on {subject} is known",
    "mean_only": "the row tells a mean and no {subject}: the program that measured it keeps its samples",
    "no_bound_reported": "the row tells no bound on {subject}: the program that measured it keeps its samples",
    "too_few_runs": "too few runs for a bound on {subject}",
    "size_above": "size is {value:.6g} MB, above {limit:.6g} MB",
    "size_unknown": "size unknown",
    "memory_above": "peak memory is {value:.6g} MB, above {limit:.6g} MB",
    "memory_unknown": "peak memory unknown",
    "energy_above": "energy is {value:.6g} mJ, above {limit:.6g} mJ",
    "energy_unknown": "energy unknown",
    "accuracy_below": "top-1 is {value:.6g}%, below {limit:.6g}%",
    "accuracy_unknown": "accuracy unknown",
    "cannot_run": "cannot run here: {subject}{after}",
    "throttled": "not measured: the device was throttled{after}",
    "other_protocol": "measured by protocol {value:g}, not {limit:g}: measure again",
    "emulated": "measured under emulation, which says nothing of a real device",
    "not_as_verified": "{subject} computed with other weights or in another arithmetic than what was verified",
    "batched": "measured in batches of {value:g}; a budget is for one input",
    "not_proven": "parity {subject}: the artifact is not proven to compute the model",
    "few_rows_of_configuration": (
        "{value:g} row(s) of this engine, precision and thread count; {limit:g} say how fast it is"
    ),
    "no_shared_rows": "no {limit:g} rows are of models that ran elsewhere, too, or whose operators are known",
    "published_by_others": "not asked for: published by {subject}",
    "frame_rate": "not asked for: at {value:g} frames a second, which is no measure of run after run",
    "other_target": "not asked for: target {subject}",
    "other_precision": "not asked for: precision {subject}",
    "other_threads": "not asked for: {value:g} threads",
    "other_engine": "not asked for: engine {subject}",
    "other_licence": "not asked for: licence {subject}",
    "other_model": "not asked for: model {subject}",
    "other_task": "not asked for: task {subject}",
    "no_published_weights": "not asked for: reconstructed from its paper, which published no weights",
    "not_evaluated": "not evaluated on {subject!r}",
    "earlier_epoch": "measured before the device changed: edgevit db epochs",
    "newer_row": "superseded by the row of {subject}",
    "older_engine": "older engine: {subject}, superseded by {detail}",
    "slower_unit": "superseded by the slower unit {subject}",
    "file_changed": "{subject} holds another network now: --outdated takes the earlier one in",
}
# A few words for a table, of reasons that are no matter of limits.
_SHORT: dict[ReasonCode, str] = {
    "cannot_run": "cannot run here",
    "throttled": "throttled",
    "other_protocol": "protocol {value:g}",
    "emulated": "emulated",
    "not_as_verified": "not as verified",
    "batched": "batches of {value:g}",
    "not_proven": "parity {subject}",
}
_NOTES: dict[NoteKind, str] = {
    "not_your_device": (
        "not measured on a device of yours, but on {numbers[0]:g} other unit(s) of {listed}: yours may differ"
    ),
    "imported_left_out": (
        "{numbers[0]:g} row(s) of this device left out, which were read from {listed}: edgevit db trust SOURCE lets "
        "them decide, and --origin any takes them in once"
    ),
    "pick_imported": (
        "the pick was not measured by you, but read from {subjects[0]}, which is not trusted: edgevit db sources"
    ),
    "pick_accuracy_imported": (
        "the accuracy of the pick was not measured by you, but read from {subjects[0]}, which is not trusted"
    ),
    "noise_imported": (
        "the noise floor of {subjects[0]} ({numbers[0]:.1%}), below which latencies count as equal, was not measured "
        "by you, but read from {subjects[1]}, which is not trusted"
    ),
    "unknown_silicon": (
        "nothing tells which silicon the rows of {listed} are of: its processor's name stands for several generations, "
        "and one may take twice the time of another"
    ),
    "mixed_silicon": (
        "the rows of {subjects[0]!r} are of processors with {numbers[0]:g} different sets of instructions, by which "
        "engines choose their kernels: name one unit with its device_id"
    ),
    "other_silicon": (
        "this machine is no {subjects[0]}: it has other instruction sets ({subjects[1]}), so that engines run other "
        "kernels here"
    ),
    "several_units": "{numbers[0]:g} units answer to {subjects[0]!r}; for each candidate the slowest one counts",
    "nothing_succeeded": "no run on {subjects[0]!r} succeeded yet",
    "published_left_out": (
        "{numbers[0]:g} published row(s) left out: others measured those, and --published takes them in"
    ),
    "other_tasks_left_out": (
        "{numbers[0]:g} published row(s) left out, whose models have another task or an unknown one: --task any takes "
        "them in"
    ),
    "medians_known": (
        "no p{numbers[1]:g} is known of {numbers[0]:g} candidate(s) whose median is: --percentile 50 compares medians"
    ),
    "reconstructed_left_out": (
        "left out: {listed}, reconstructed from papers that published no weights; --reconstructed takes them in by the "
        "papers' accuracies"
    ),
    "outdated_left_out": (
        "left out: {numbers[0]:g} row(s) of earlier networks of {listed}, overwritten since: edgevit sweep measures "
        "what it gives now, and --outdated takes the rows in"
    ),
    "published_accuracies": (
        "accuracies are published ones; measured ones are kept of {listed}: --dataset NAME chooses by them"
    ),
    "none_evaluated": "nothing here was evaluated on {subjects[0]!r}{others}: edgevit evaluate",
    "images_differ": (
        "the accuracies on {subjects[0]!r} are of {numbers[0]:g} different sets of images, so that they do not "
        "compare: edgevit evaluate with the same --data, --limit and --classes"
    ),
    "several_networks": (
        "{subjects[0]} is here as {numbers[0]:g} networks, each a candidate of its own: {others_listed}"
    ),
    "network_changed": (
        "{subjects[0]} with {subjects[1]} is here as {numbers[0]:g} networks: its code or its weights changed between "
        "them, and only an export can tell which one it is now"
    ),
    "pick_earlier_network": (
        "the pick is {subjects[0]} with {subjects[1]} as it was on {subjects[2]}, and it was measured since as another "
        "network: --export hands over the earlier one, or nothing"
    ),
    "pick_file_changed": (
        "{subjects[0]} was changed since the pick was exported from it: edgevit sweep tells what it gives now, and "
        "--export hands over the earlier network, or nothing"
    ),
    "pick_older_engine": (
        "the pick was measured with {subjects[0]} {subjects[1]}; {subjects[2]} is on the device: measure again"
    ),
    "pick_runs_disagree": (
        "runs of the pick did not agree within {numbers[0]:.0%} (grade {subjects[0]}): measure again on an idle device"
    ),
    "pick_evaluated_not_run": (
        "{subjects[0]}'s own engine has not been compared: the pick's file was evaluated instead"
    ),
    "pick_predicted": (
        "the pick is predicted ({subjects[0]}, {numbers[0]:g} rows of the device{nearest}): with {numbers[1]:.0%} "
        "confidence its latency is at most what is shown; --measure tells"
    ),
    "int8_is_slower": (
        "{subjects[0]} takes {numbers[0]:.2f} times as long as {subjects[1]} of the same network on this device"
    ),
    "pick_not_exported": "the pick has not been exported yet: --export exports and verifies it",
    "pick_accuracy_unknown": (
        "the accuracy of the pick is not known, nor that of anything else that fits, so that nothing is chosen"
    ),
    "pick_accuracy_assumed": (
        "the accuracy of the pick rests on {subjects[0]}: state it at the export, and evaluate again"
    ),
    "pick_not_evaluated": "the pick was not evaluated on {subjects[0]!r}, others were: edgevit evaluate",
    "accuracy_tie": (
        "{subjects[0]} is {numbers[0]:.2f} points more accurate, which is within the error of its evaluation "
        "({numbers[1]:.2f}): the faster one is picked"
    ),
    "speed_tie_accurate": (
        "{subjects[0]} is faster by less than {numbers[0]:.1%} ({subjects[1]}): the more accurate one is picked"
    ),
    "unrated_is_better": "{subjects[0]} is {subjects[1]} than the pick, and its accuracy is not known",
    "speed_tie": "{subjects[0]} is faster by less than {numbers[0]:.1%} ({subjects[1]}): the smaller one is picked",
    "near_limit": (
        "the pick is nearer to the limit than {numbers[0]:.1%} ({subjects[0]}), so another measurement may break it"
    ),
}
_ABOUT_PICK = frozenset(typing.get_args(PickNoteKind))
FITS = "fits"
UNKNOWN_THERE = "nothing is known of it there"
PICK_IS_PREDICTED = "it is the pick, and only predicted"
WHY_RATE = "it fits, and its accuracy is not known"
_BETTER: dict[Objective, str] = {
    "accurate": "{:.1f} points more accurate than the pick",
    "fastest": "{:.1f}% faster than the pick",
    "smallest": "{:.1f}% smaller than the pick",
}
OLDER_ENGINE = "older_engine"
NOT_AT_CARD_SIZE = "not_at_card_size"
TOP1_OF_FP32 = "top1_of_fp32"
NOT_EVALUATED_IN_INT8 = "not_evaluated_in_int8"
TOP1_BOUNDED = "top1_bounded"
TOP1_OF_OTHER_WEIGHTS = "top1_of_other_weights"
TOP1_OF_OTHER_FILE = "top1_of_other_file"
TOP1_OF_OTHER_LABELS = "top1_of_other_labels"
# The latency is of one file then, and the network that counts is that of the accuracy's.
TOP1_OF_ANOTHER = (TOP1_OF_OTHER_WEIGHTS, TOP1_OF_OTHER_LABELS)
TOP1_OF_OFFICIAL = "top1_of_official_weights"
# The flags that an answer adds to those of a row. Those of a row are shown as they are.
_FLAGS = {
    OLDER_ENGINE: "older engine",
    NOT_AT_CARD_SIZE: "not at the card's input size",
    TOP1_OF_FP32: "top-1 is that of the fp32 model",
    NOT_EVALUATED_IN_INT8: "top-1 is unknown in this precision: edgevit evaluate, or --allow-unevaluated",
    TOP1_BOUNDED: "top-1 is a bound: the published one less what the images with another class in int8 may cost",
    TOP1_OF_OTHER_WEIGHTS: "the latency was measured with random weights, top-1 with those of its own artifact",
    TOP1_OF_OTHER_FILE: "top-1 was measured of another file of this network",
    TOP1_OF_OTHER_LABELS: "top-1 was measured of a file of this network with other labels, and is that file's",
    TOP1_OF_OFFICIAL: "top-1 is that of the official weights, and these are others",
}


def describe(reason: Reason) -> str:
    """Return the English of one reason."""
    if reason.code in _REFUSALS:
        return _describe_refusal(reason)
    after = f": {reason.detail}" if reason.detail else ""
    return _REASONS[reason.code].format(**vars(reason), after=after)


def _describe_refusal(reason: Reason) -> str:
    # The predictor words its own refusals. It was imported when it refused; importing it here costs NumPy otherwise.
    from edgevit.prediction.record import refusal_text

    return refusal_text(typing.cast(RefusalCode, reason.code), reason.subject, int(reason.value or 0))


def describe_rejection(kind: RejectionKind, reasons: Iterable[Reason]) -> str:
    """Return the English of all reasons against a candidate."""
    return ("not predicted: " if kind == "unmeasured" else "") + "; ".join(map(describe, reasons))


def summarise(reason: Reason) -> str:
    """Return one reason in a few words, for a table."""
    template = _SHORT.get(reason.code)
    return template.format(**vars(reason)) if template else describe(reason)


def describe_devices(devices: Sequence[str], reasons: Sequence[str]) -> str:
    """Return the English of an artifact's reasons on several devices."""
    return "; ".join(f"{device}: {reason}" for device, reason in zip(devices, reasons, strict=True))


def note(kind: NoteKind, *subjects: str, numbers: Sequence[float] = ()) -> Note:
    """Return a note of this kind with its English."""
    text = _NOTES[kind].format(
        subjects=subjects,
        numbers=numbers,
        listed=", ".join(subjects),
        others_listed=", ".join(subjects[1:]),
        others=f"; measured ones are kept of {', '.join(subjects[1:])}" if subjects[1:] else "",
        nearest=f", nearest {subjects[1]}" if subjects[1:] else "",
    )
    return Note(kind, text, kind in _ABOUT_PICK, subjects, tuple(numbers))


def describe_assumptions(assumed: Collection[str]) -> str:
    """Return `assumed preprocessing (mean, std) and class order`: what an accuracy rests on; empty for nothing."""
    preprocessing = [name for name in assumed if name not in (CLASS_ORDER, NOT_OF_MANIFEST)]
    parts = [f"preprocessing ({', '.join(preprocessing)})"] if preprocessing else []
    parts += ["class order"] if CLASS_ORDER in assumed else []
    texts = [f"assumed {' and '.join(parts)}"] if parts else []
    texts += ["options of evaluate that the artifact's manifest contradicts"] if NOT_OF_MANIFEST in assumed else []
    return ", and on ".join(texts)


def remarks(candidate: Candidate) -> tuple[str, ...]:
    """Return the English of a candidate's flags, of its accuracy's source and of its predicted percentile."""
    source = [f"top-1 from {candidate.top1_source}"] if candidate.top1_source else []
    percentile = candidate.basis.percentile if candidate.basis else None
    source += [f"top-1 rests on {describe_assumptions(candidate.top1_assumed)}"] if candidate.top1_assumed else []
    predicted = [] if percentile is None else [f"predicted at p{percentile}"]
    flags = (_FLAGS.get(flag, flag) for flag in candidate.flags)
    return (*predicted, *flags, *source)


def why_measure(candidate: Candidate, budget: Budget, gain: float | None) -> str:
    """Return why a measurement may change the answer. gain: by the budget's objective; None: nothing fits yet."""
    basis = candidate.basis
    interval = "a number that the budget needs is missing"
    if basis and basis.lower_ms is not None and basis.upper_ms is not None:
        interval = f"predicted between {basis.lower_ms:.3g} and {basis.upper_ms:.3g} ms at p{budget.percentile}"
    would = "an answer" if gain is None else _BETTER[budget.objective].format(gain)
    return f"{interval}; if it fits it is {would}"


def why_evaluate(dataset: str, published_top1: float | None, *, fits: bool) -> str:
    """Return why an evaluation may change the answer."""
    rated = "nothing is published of it" if published_top1 is None else f"{published_top1:.6g}% are published of it"
    return f"{'it fits' if fits else 'it may fit'}, and was not evaluated on {dataset!r}; {rated}"
