"""The worker archive: one zipapp with the worker and the recipe of one target, which runs on the device.

worker.pyz
|-- __main__.py           of edgevit_runtime, as it stands
|-- edgevit_runtime/      standard library only
`-- edgevit_recipes/      a package, because a recipe is called like its engine: onnx.py on the path would hide onnx
    `-- TARGET.py         or TARGET/, where the recipe is a package
"""

from __future__ import annotations

import importlib.resources
import zipfile
from collections.abc import Iterator
from pathlib import Path

from edgevit.recipes import recipe_file
from edgevit_runtime.worker import RECIPES

_RUNTIME = "edgevit_runtime"
_EARLIEST = (1980, 1, 1, 0, 0, 0)  # the first time stamp that a zip can hold; the true one would change the bytes
_PLAIN_FILE = 0o100644 << 16
_UNIX = 3


def pack(target: str, path: Path) -> Path:
    """Write the zipapp for a target at `path`. The same sources give the same bytes on every machine."""
    return pack_recipe(recipe_file(target), path)


def pack_recipe(recipe: Path | None, path: Path) -> Path:
    """Write the zipapp with this recipe, a file or a package whose stem is the target's name.

    Without a recipe, the worker can only detect.
    """
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in sorted(_members(recipe)):
            archive.writestr(_entry(name), content)
    return path


def _members(recipe: Path | None) -> Iterator[tuple[str, bytes]]:
    for source in importlib.resources.files(_RUNTIME).iterdir():
        if source.name.endswith(".py"):
            yield f"{_RUNTIME}/{source.name}", source.read_bytes()
        if source.name == "__main__.py":
            yield source.name, source.read_bytes()
    yield f"{RECIPES}/__init__.py", b""
    if recipe is not None:
        for file in recipe.rglob("*.py") if recipe.is_dir() else [recipe]:
            yield f"{RECIPES}/{file.relative_to(recipe.parent).as_posix()}", file.read_bytes()


def _entry(name: str) -> zipfile.ZipInfo:
    # Entries are stored, not deflated, because zlib's output differs between its versions.
    entry = zipfile.ZipInfo(name, _EARLIEST)
    entry.create_system, entry.external_attr = _UNIX, _PLAIN_FILE
    return entry
