"""Tasks of published models in the words of `edgevit choose --task`, as flags of their rows."""

from __future__ import annotations

import re

from edgevit.records.measurement import TASK
from edgevit.records.model import CLASSIFY

# Words of sources, where another name is usual. All other words are kept, with hyphens.
_TASKS = {
    "image-classification": CLASSIFY,
    "object-detection": "detect",
    "semantic-segmentation": "segment",
    "pose-estimation": "pose",
    "depth-estimation": "depth",
}


def task_flags(words: str) -> tuple[str, ...]:
    """Return the flag of a task that a source names; none for a source that names none."""
    slug = re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")
    return (f"{TASK}{_TASKS.get(slug, slug)}",) if slug else ()
