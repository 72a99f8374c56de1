"""Published YAML, read with the safe loader of PyYAML and without aliases, which let a small file fill the memory."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from edgevit.errors import StoreError

# The largest perf.yaml of AI Hub has 0.4 MB.
MAX_BYTES = 16 * 2**20
_FIX = "name a file as its publisher wrote it"
_HEAD_BYTES = 2**20
_DEEPEST = 64
_KEY = re.compile(r"^([A-Za-z_]\w*):", re.MULTILINE)


def yaml_head(path: Path) -> set[str]:
    """Return the keys at the top level in the first mebibyte, without parsing; empty where there is no text."""
    try:
        with path.open("rb") as file:
            return set(_KEY.findall(file.read(_HEAD_BYTES).decode("utf-8", "ignore")))
    except OSError:
        return set()


def yaml_document(path: Path) -> dict[str, Any]:
    """Read the mapping in a file. Raises StoreError for other contents, large files, aliases, or without PyYAML."""
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
        _require_plain(path, yaml, yaml.scan(text, Loader=loader))
        document = yaml.load(text, Loader=loader)
    except (OSError, UnicodeDecodeError, RecursionError, ValueError, yaml.YAMLError) as error:
        raise _unreadable(path, str(error)) from error
    if not isinstance(document, dict):
        raise _unreadable(path, "it is no mapping")
    return document


def _require_plain(path: Path, yaml: Any, tokens: Iterable[Any]) -> None:
    """Raise StoreError for aliases and deep nesting. The time that libyaml needs grows with the square of the depth."""
    starts = (yaml.FlowSequenceStartToken, yaml.FlowMappingStartToken, yaml.BlockSequenceStartToken,
              yaml.BlockMappingStartToken)  # fmt: skip
    ends = (yaml.FlowSequenceEndToken, yaml.FlowMappingEndToken, yaml.BlockEndToken)
    depth = 0
    for token in tokens:
        if isinstance(token, yaml.AliasToken):
            raise _unreadable(path, "it holds aliases")
        depth += isinstance(token, starts) - isinstance(token, ends)
        if depth > _DEEPEST:
            raise _unreadable(path, f"its values are nested deeper than {_DEEPEST} levels")


def _unreadable(path: Path, why: str) -> StoreError:
    return StoreError("the rows cannot be read", where=str(path), why=why, fix=_FIX)
