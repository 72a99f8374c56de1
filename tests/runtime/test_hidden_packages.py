"""Packages that are hidden from a converter: an import of them fails inside, and works again behind."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from edgevit_runtime.hidden_packages import hidden


def test_a_hidden_package_cannot_be_imported_until_the_end_and_one_in_use_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a_package_to_hide.py").write_text("number = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ZeroDivisionError), hidden("a_package_to_hide", "pathlib"):
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module("a_package_to_hide")
        import pathlib

        assert pathlib.Path is Path
        raise ZeroDivisionError
    assert importlib.import_module("a_package_to_hide").number == 1
    del sys.modules["a_package_to_hide"]
