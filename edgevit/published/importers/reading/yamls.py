"""YAML of others, with the safe loader of PyYAML and without aliases, which let a small file fill the memory."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from edgevit.errors import StoreError

MAX_BYTES = 16 * 2**20  # the largest perf.yaml of AI Hub has 0.4 MB
_FIX = "name a file as its publisher wrote it"
_HEAD_BYTES = 2**20
_KEY = re.compile(r"^([A-Za-z_]\w*):", re.MULTILINE)


def yaml_head(path: Path) -> set[str]:
    """The keys at the top level in the first mebibyte; empty where it is no text, or not there. Parses nothing."""
    try:
        with path.open("rb") as file:
            return set(_KEY.findall(file.read(_HEAD_BYTES).decode("utf-8", "ignore")))
    except OSError:
        return set()


def yaml_document(path: Path) -> dict[str, Any]:
    """The mapping in a file. Raises StoreError for what is none, is too large, holds aliases, or without PyYAML."""
    try:
        import yaml
    except ImportError as error:
        fix = "pip install 'edgevit[yaml]'"
        raise StoreError("YAML needs PyYAML", where=str(path), why=str(error), fix=fix) from error
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise _unreadable(path, f"it has more than {MAX_BYTES} bytes")
        text = path.read_text(encoding="utf-8")
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text, Loader=loader)):
            raise _unreadable(path, "it holds aliases")
        found = yaml.load(text, Loader=loader)
    except (OSError, UnicodeDecodeError, RecursionError, ValueError, yaml.YAMLError) as error:
        raise _unreadable(path, str(error)) from error
    if not isinstance(found, dict):
        raise _unreadable(path, "it is no mapping")
    return found


def _unreadable(path: Path, why: str) -> StoreError:
    return StoreError("the rows cannot be read", where=str(path), why=why, fix=_FIX)
