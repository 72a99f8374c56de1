"""From files to batches: a small pool decodes ahead, in order, while the engine computes.

Each file is read once: its digest and its pixels come of the same bytes.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from edgevit.errors import UsageError
from edgevit.evaluation.image_folder import Example
from edgevit.evaluation.images import UnreadableError, as_input, image_size, read_picture
from edgevit.records.model import Preprocessing
from edgevit_runtime.record import TensorSpec

Batch = NDArray[np.generic]
_AHEAD = 4  # images per thread that may wait for the engine: of 224 pixels a side, 600 kB each


@dataclass(frozen=True)
class _Read:
    """One file: its content's digest and its sample, or why there is none."""

    sha256: str
    sample: Batch | None
    turned: bool = False
    why: str = ""


@dataclass
class ImageFeed:
    """The samples of a data set for one input, and what was found on the way; filled as batches are taken.

    digests: sha256 of each file, empty for one that could not be opened. unreadable: place among the examples -> why.
    """

    examples: Sequence[Example]
    how: Preprocessing
    spec: TensorSpec
    workers: int
    skip_unreadable: bool = False
    digests: list[str] = field(default_factory=list)
    unreadable: dict[int, str] = field(default_factory=dict)
    turned: int = 0

    def batches(self, batch: int) -> Iterator[Batch]:
        """Arrays of `batch` samples; the last one is filled up with zeros, and so is the place of an unreadable file.

        Raises UsageError, with the file, for one that is unreadable, unless those are to be skipped.
        """
        nothing = np.zeros(self.spec.at_batch(1).shape[1:], self.spec.dtype)
        samples = self._samples(nothing)
        while group := list(islice(samples, batch)):
            yield np.stack(group + [nothing] * (batch - len(group)))

    def _samples(self, nothing: Batch) -> Iterator[Batch]:
        for number, read in enumerate(in_order(self._read, self.examples, self.workers)):
            self.digests.append(read.sha256)
            self.turned += read.turned
            if read.sample is None:
                self._refuse(number, read.why)
            yield nothing if read.sample is None else read.sample

    def _refuse(self, number: int, why: str) -> None:
        if not self.skip_unreadable:
            fix = "replace or remove it, or leave out and count what cannot be read: --skip-unreadable"
            where = str(self.examples[number].path)
            raise UsageError("an image cannot be read", where=where, why=why, fix=fix)
        self.unreadable[number] = why

    def _read(self, example: Example) -> _Read:
        try:
            data = example.path.read_bytes()
        except OSError as error:
            return _Read("", None, why=str(error.strerror or error))
        digest = hashlib.sha256(data).hexdigest()
        try:
            picture = read_picture(data, self.how, *image_size((self.spec,), self.how))
        except UnreadableError as error:
            return _Read(digest, None, why=str(error))
        return _Read(digest, as_input(picture.pixels, self.how, self.spec), picture.turned)


def in_order(read: Callable[[Example], _Read], examples: Sequence[Example], workers: int) -> Iterator[_Read]:
    """What `read` makes of each, in order, by so many threads, never far ahead of who takes it."""
    waiting: deque[Future[_Read]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="edgevit-decode") as pool:
        try:
            for example in examples:
                waiting.append(pool.submit(read, example))
                if len(waiting) > _AHEAD * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:  # whoever takes them may stop
            for future in waiting:
                future.cancel()
