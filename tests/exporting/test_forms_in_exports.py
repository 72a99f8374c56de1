"""Exports in exactly equal forms: what the manifest says, which names are refused, and what verify does again."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import nn

from edgevit.artifacts.export_command import export_command
from edgevit.errors import ParityError, TuningError, UnknownNameError, UsageError
from edgevit.exporting.pipeline import export_subject, verify_artifact
from edgevit.exporting.preparation import Preparation
from edgevit.folding import fold
from edgevit.recipes import load_recipe
from edgevit.records.artifact import Artifact, ExportRequest
from edgevit.records.network import Network
from edgevit.records.tuning import SiteForm
from edgevit.selection.columns import is_comparable
from edgevit.tuning.application import apply_forms, named
from edgevit_runtime.record import FormRule
from support.measured import measured
from support.subjects import as_subject
from support.tuned import tuning


class Wide(nn.Module):
    """A depthwise 7x7 layer between two others."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 1)
        self.wide = nn.Conv2d(8, 8, 7, padding=3, groups=8)
        self.head = nn.Linear(8, 5)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        logits: torch.Tensor = self.head(torch.relu(self.wide(torch.relu(self.stem(image)))).mean((2, 3)))
        return logits


SUBJECT = as_subject(Wide())
FOLDED = fold(SUBJECT.module, tuple(SUBJECT.example(1).values()))
APPLIED = apply_forms(FOLDED, named("depthwise_rows"), tuple(SUBJECT.example(1).values()))[1]
SITES = tuple(SiteForm(one.site, one.form) for one in APPLIED)


def exported(out: Path, form: str = "default", target: str = "onnx", **more: object) -> Artifact:
    return export_subject(SUBJECT, dataclasses.replace(ExportRequest(target, out, form=form), **more))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def in_rows(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return exported(tmp_path_factory.mktemp("rows"), "depthwise_rows")


def test_manifest_says_what_was_written_in_place_of_what(in_rows: Artifact) -> None:
    [applied] = in_rows.forms
    assert applied.label == "1 x depthwise_rows in place of conv2d 7x7 depthwise of 1x8x16x12"
    assert applied.modules == ("wide",) and in_rows.form == "depthwise_rows"
    assert in_rows.operators.counts["Conv"] > 7  # a layer has seven rows
    assert in_rows.parity is not None and in_rows.parity.status == "passed"
    assert in_rows.folder.name.startswith("depthwise_rows-")
    assert in_rows.network.form == "form=depthwise_rows"
    assert "--form depthwise_rows" in export_command(in_rows)


def test_plain_exports_know_nothing_of_forms(tmp_path: Path) -> None:
    artifact = exported(tmp_path)
    assert artifact.forms == () and artifact.network.form == "" and "--form" not in export_command(artifact)
    assert '"form' not in (artifact.folder / "manifest.json").read_text(encoding="utf-8")


def test_the_rules_of_a_recipe_are_its_default_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = load_recipe("onnx")
    ruled = dataclasses.replace(recipe.RECIPE, forms=(FormRule("depthwise_rows", above_taps=25),))
    monkeypatch.setattr(recipe, "RECIPE", ruled)
    default = exported(tmp_path)
    assert [one.form for one in default.forms] == ["depthwise_rows"] and default.network.form == ""
    assert not exported(tmp_path, "portable").forms
    few = dataclasses.replace(ruled, forms=(FormRule("depthwise_rows", above_taps=49),))
    monkeypatch.setattr(recipe, "RECIPE", few)
    assert not exported(tmp_path).forms
    other = dataclasses.replace(ruled, forms=(FormRule("depthwise_rows", above_taps=25, precisions=("fp16",)),))
    monkeypatch.setattr(recipe, "RECIPE", other)
    assert not exported(tmp_path).forms


def test_a_form_that_applies_nowhere_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TuningError, match="depthwise_bands_3 applies nowhere"):
        export_subject(as_subject(nn.Conv2d(3, 3, 1)), ExportRequest("onnx", tmp_path, form="depthwise_bands_3"))
    with pytest.raises(UnknownNameError, match="depthwise_rows"):
        exported(tmp_path, "depthwise_row")
    with pytest.raises(UsageError, match="training form"):
        exported(tmp_path, "depthwise_rows", unfolded=True)
    assert not any(tmp_path.iterdir())


def test_a_tuning_of_another_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TuningError, match="no tuning of this network"):
        exported(tmp_path, "tuned", tuning=tuning(target="onnx"))
    with pytest.raises(TuningError, match="no tuning of this network"):
        exported(tmp_path, "tuned")


def test_a_tuning_decides_the_form(tmp_path: Path) -> None:
    digest = Preparation(SUBJECT, ExportRequest("onnx", tmp_path)).graph_sha256
    made = tuning(target="onnx", graph_digest=digest, forms=SITES)
    artifact = exported(tmp_path, "tuned", tuning=made)
    assert [one.form for one in artifact.forms] == ["depthwise_rows"] and artifact.tuning == made
    assert artifact.network.form.startswith("form=tuned:depthwise_rows:")


def test_a_tuning_whose_forms_do_not_apply_any_more_is_refused(tmp_path: Path) -> None:
    """Otherwise rows would name forms that no file has."""
    digest = Preparation(SUBJECT, ExportRequest("onnx", tmp_path)).graph_sha256
    for forms in ((SiteForm("0" * 32, "depthwise_rows"),), (*SITES, SiteForm("0" * 32, "depthwise_columns"))):
        with pytest.raises(TuningError, match="out of date"):
            exported(tmp_path, "tuned", tuning=tuning(target="onnx", graph_digest=digest, forms=forms))


def test_int8_of_a_form_is_verified_again_in_that_form(tmp_path: Path) -> None:
    artifact = exported(tmp_path, "depthwise_rows", precision="int8")
    assert artifact.quantization is not None and len(artifact.quantization.layers) > 7
    assert verify_artifact(artifact, model=SUBJECT.module).status == "passed"
    with pytest.raises((ParityError, AssertionError)):
        parity = verify_artifact(dataclasses.replace(artifact, forms=()), model=SUBJECT.module)
        assert parity.status == "passed"


def test_rows_of_a_recipes_form_name_it_and_are_no_candidate_of_their_own(in_rows: Artifact) -> None:
    default = dataclasses.replace(in_rows, form="default").network
    assert default.forms.startswith("default:depthwise_rows:") and (default.form, default.own_form) == ("", "")
    assert in_rows.network.own_form == "depthwise_rows"


def test_a_form_that_was_asked_for_predicts_nothing_elsewhere() -> None:
    usual = measured(network=Network("random", forms="default:depthwise_rows:3f0c2a91"))
    assert is_comparable(usual) and not is_comparable(measured(network=Network("random", forms="portable")))
