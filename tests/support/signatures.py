"""Signatures of the public functions as docs/api.md shows them: one parameter per line, annotations as written."""

from __future__ import annotations

import inspect
from typing import Any


def signature_text(name: str, function: Any) -> str:
    """Return `edgevit.NAME(...) -> RESULT`, with `*` where keyword-only parameters begin."""
    signature = inspect.signature(function)
    lines: list[str] = []
    for parameter in signature.parameters.values():
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and "    *," not in lines:
            lines.append("    *,")
        default = "" if parameter.default is inspect.Parameter.empty else f" = {parameter.default!r}"
        lines.append(f"    {parameter.name}: {annotation_text(parameter.annotation)}{default},")
    result = annotation_text(signature.return_annotation)
    return "\n".join([f"edgevit.{name}(", *lines, f") -> {result}"])


def annotation_text(annotation: Any) -> str:
    """Return an annotation as its author wrote it."""
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
