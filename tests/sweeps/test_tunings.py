"""The tuning that an export means by `tuned`."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgevit.errors import TuningError, UsageError
from edgevit.records.artifact import ExportRequest
from edgevit.records.tuning import SiteForm, Tuning, describe_forms
from edgevit.store import LatencyDB
from edgevit.sweeps.tunings import with_tuning
from support.tuned import SITE, tuning

BANDS = (SiteForm(SITE, "depthwise_bands_3"),)
REQUEST = ExportRequest("litert", Path(), model="net_a", form="tuned")


def stored(folder: Path, *tunings: Tuning) -> str:
    url = str(folder / "x.db")
    with LatencyDB.open(url, shipped=False) as db:
        for one in tunings:
            assert db.add_tuning(one)
            assert not db.add_tuning(one)
    return url


def test_the_latest_of_a_configuration_counts(tmp_path: Path) -> None:
    later = tuning(forms=BANDS, started="2026-11-22T10:00:00+00:00")
    url = stored(tmp_path, later, tuning())
    assert with_tuning(REQUEST, url).tuning == later


def test_a_search_that_its_budget_ended_replaces_no_complete_one(tmp_path: Path) -> None:
    ended = tuning(forms=(), gain=None, complete=False, started="2026-11-22T10:00:00+00:00")
    url = stored(tmp_path, tuning(), ended)
    assert with_tuning(REQUEST, url).tuning == tuning()


def test_other_requests_stay_as_they_are(tmp_path: Path) -> None:
    other = ExportRequest("litert", Path(), model="net_a")
    assert with_tuning(other, str(tmp_path / "none.db")) is other and not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    "changes", [{"model": "net_b"}, {"precision": "fp16"}, {"batch": 4}, {"target": "onnx"}], ids=str
)
def test_what_was_tuned_otherwise_is_no_tuning_of_this(tmp_path: Path, changes: dict[str, object]) -> None:
    with pytest.raises(TuningError, match="edgevit tune net_a --target litert --precision fp32"):
        with_tuning(REQUEST, stored(tmp_path, tuning(**changes)))


def test_devices_that_differ_have_to_be_told_apart(tmp_path: Path) -> None:
    url = stored(tmp_path, tuning(), tuning(forms=BANDS, device_class="other-class", device_id="b"))
    with pytest.raises(UsageError, match="different forms") as raised:
        with_tuning(REQUEST, url)
    assert f"--form tuned:{describe_forms(BANDS)}" in str(raised.value)
    chosen = with_tuning(ExportRequest("litert", Path(), model="net_a", form=f"tuned:{describe_forms(BANDS)}"), url)
    assert chosen.form == "tuned" and chosen.tuning is not None and chosen.tuning.forms == BANDS


def test_devices_that_agree_need_no_word(tmp_path: Path) -> None:
    url = stored(tmp_path, tuning(), tuning(device_class="other-class", device_id="b", threads=2))
    assert with_tuning(REQUEST, url).tuning is not None


def test_unknown_forms_of_a_row_are_named(tmp_path: Path) -> None:
    with pytest.raises(TuningError, match="depthwise_rows:00000000"):
        asked = ExportRequest("litert", Path(), model="net_a", form="tuned:depthwise_rows:00000000")
        with_tuning(asked, stored(tmp_path, tuning()))
