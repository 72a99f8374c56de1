"""Wording: every code, kind and flag has its English, and records of answers survive JSON."""

from __future__ import annotations

import typing

import pytest

from edgevit.records.choice import JointChoice, NoteKind, Reason, ReasonCode
from edgevit.selection import choose_jointly
from edgevit.selection.wording import describe, describe_rejection, note, summarise
from edgevit_runtime.codec import from_json, to_json
from support.candidates import answer, row

CODES: tuple[ReasonCode, ...] = typing.get_args(ReasonCode)
KINDS: tuple[NoteKind, ...] = typing.get_args(NoteKind)


@pytest.mark.parametrize("code", CODES)
def test_every_code_has_its_english(code: ReasonCode) -> None:
    reason = Reason(code, "SUBJECT", "DETAIL", 3.0, 4.0)
    assert len(describe(reason).split()) >= 2 and "{" not in describe(reason)
    assert 0 < len(summarise(reason)) <= max(len(describe(reason)), 20)
    assert describe_rejection("unmeasured", [reason]) == f"not predicted: {describe(reason)}"
    assert from_json(Reason, to_json(reason)) == reason


def test_each_code_says_something_else() -> None:
    texts = [describe(Reason(code, "SUBJECT", "DETAIL", 3.0, 4.0)) for code in CODES]
    assert len(set(texts)) == len(CODES)


@pytest.mark.parametrize("kind", KINDS)
def test_every_note_has_its_english_and_those_on_the_pick_name_it(kind: NoteKind) -> None:
    one = note(kind, "FIRST", "SECOND", "THIRD", numbers=(0.25, 0.5))
    assert len(one.text.split()) > 4 and "{" not in one.text
    assert one.about_pick == ("the pick" in one.text or one.text.endswith("is picked"))
    assert (one.subjects, one.numbers, one.devices) == (("FIRST", "SECOND", "THIRD"), (0.25, 0.5), ())


def test_a_joint_answer_survives_json_with_the_devices_of_its_notes_and_reasons() -> None:
    rows = [row("a", 5, device_id="pi-1"), row("a", 9, device_id="pi-2"), row("b", 20, device_id="pi-1")]
    choice = choose_jointly([answer(*rows, max_latency_ms=10), answer(row("a", 5), row("b", 9), max_latency_ms=10)])
    assert from_json(JointChoice, to_json(choice)) == choice
    [about_units] = choice.notes
    assert (about_units.kind, about_units.devices) == ("several_units", ("pi5",))
    assert about_units.text.startswith("pi5: 2 units answer to")
    [rejection] = choice.rejected
    assert [[reason.code for reason in reasons] for reasons in rejection.reasons] == [["latency_bound_above"], []]
