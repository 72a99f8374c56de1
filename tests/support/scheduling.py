"""Which tests go to one xdist worker: those of a file, so that what its fixtures and caches hold is built once.

xdist's groups would say this with a marker, but xdist 3.8 hands them on in an attribute that pytest 9.2 does not read.
"""

from __future__ import annotations

import re

from xdist.scheduler import LoadFileScheduling

# This file takes minutes, most of them in converters that share nothing.
BY_TARGET = "test_targets.py"
# The networks that the two files need are trained once.
TOGETHER = {"test_evaluate.py": "test_train_digits.py"}
TARGETS = re.compile(r"(?<=[\[-])(coreml|executorch|litert|ncnn|onnx|openvino|tensorrt)(?=[\]-])")


class ByFile(LoadFileScheduling):  # type: ignore[misc]  # xdist's base class is not typed
    """Files go to workers in the order of collection. Of BY_TARGET, each target is a file of its own."""

    def _split_scope(self, nodeid: str) -> str:
        return group(nodeid)


def group(nodeid: str) -> str:
    """Return the name of the group of a test: that of its file, and of its target where the file is BY_TARGET."""
    name = nodeid.partition("::")[0].rpartition("/")[2]
    target = TARGETS.search(nodeid) if name == BY_TARGET else None
    return f"{TOGETHER.get(name, name)} {target[0] if target else ''}".strip()
