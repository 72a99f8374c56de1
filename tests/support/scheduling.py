"""Which tests go to one xdist worker: those of a file, so that what its fixtures and caches hold is built once.

xdist's groups would say this with a marker, but xdist 3.8 hands them on in an attribute that pytest 9.2 does not read.
"""

from __future__ import annotations

from xdist.scheduler import LoadFileScheduling

# The networks that the two files need are trained once.
TOGETHER = {"test_evaluate.py": "test_train_digits.py"}


class ByFile(LoadFileScheduling):  # type: ignore[misc]  # xdist's base class is not typed
    """Files go to workers in the order of collection."""

    def _split_scope(self, nodeid: str) -> str:
        return group(nodeid)


def group(nodeid: str) -> str:
    """Return the name of the group of a test: that of its file, or of the file that it shares something dear with."""
    name = nodeid.partition("::")[0].rpartition("/")[2]
    return TOGETHER.get(name, name)
