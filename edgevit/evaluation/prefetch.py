"""Prefetch of batches from files: a small pool decodes ahead, in order, while the engine computes.

Each file is read once: its digest and its pixels come from the same bytes.
"""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from edgevit.errors import UsageError
from edgevit.evaluation.image_folder import Example
from edgevit.images.pictures import UnreadableError, as_input, image_size, read_picture
from edgevit.plain_files import read_plain
from edgevit.records.model import Preprocessing
from edgevit_runtime.record import TensorSpec

Batch = NDArray[np.generic]
_AHEAD = 4  # images per thread that may wait for the engine: of 224 pixels a side, 600 kB each


@dataclass(frozen=True)
class _Read:
    """One file: its content's digest and its sample, or the reason why it has no sample."""

    sha256: str
    sample: Batch | None
    turned: bool = False
    dropped: str = ""
    why: str = ""


@dataclass
class ImageFeed:
    """The samples of a data set for one input, with statistics that are filled as batches are taken.

    digests: sha256 of each file, empty for one that could not be opened. unreadable: the reason by number of example.
    """

    examples: Sequence[Example]
    preprocessing: Preprocessing
    spec: TensorSpec
    workers: int
    skip_unreadable: bool = False
    digests: list[str] = field(default_factory=list)
    unreadable: dict[int, str] = field(default_factory=dict)
    turned: int = 0
    dropped: Counter[str] = field(default_factory=Counter)

    def batches(self, batch: int) -> Iterator[Batch]:
        """Yield arrays of `batch` samples. Zeros replace unreadable files and fill up the last batch.

        Raises UsageError with the path of an unreadable file, unless such files are skipped.
        """
        zeros = np.zeros(self.spec.at_batch(1).shape[1:], self.spec.dtype)
        samples = self._samples(zeros)
        while group := list(islice(samples, batch)):
            yield np.stack(group + [zeros] * (batch - len(group)))

    def _samples(self, zeros: Batch) -> Iterator[Batch]:
        for number, read in enumerate(in_order(self._read, self.examples, self.workers)):
            self.digests.append(read.sha256)
            self.turned += read.turned
            self.dropped.update([read.dropped] if read.dropped else [])
            if read.sample is None:
                self._skip(number, read.why)
            yield zeros if read.sample is None else read.sample

    def _skip(self, number: int, why: str) -> None:
        if not self.skip_unreadable:
            fix = "replace or remove it, or skip and count unreadable files: --skip-unreadable"
            path = str(self.examples[number].path)
            raise UsageError("an image cannot be read", where=path, why=why, fix=fix)
        self.unreadable[number] = why

    def _read(self, example: Example) -> _Read:
        try:
            data = read_plain(example.path)
        except OSError as error:
            return _Read("", None, why=str(error.strerror or error))
        digest = hashlib.sha256(data).hexdigest()
        try:
            picture = read_picture(data, self.preprocessing, *image_size((self.spec,), self.preprocessing))
        except UnreadableError as error:
            return _Read(digest, None, why=str(error))
        sample = as_input(picture.pixels, self.preprocessing, self.spec)
        return _Read(digest, sample, picture.turned, picture.dropped)


def in_order(read: Callable[[Example], _Read], examples: Sequence[Example], workers: int) -> Iterator[_Read]:
    """Yield the results of `read` in order, computed by `workers` threads, at most a few ahead of the consumer."""
    waiting: deque[Future[_Read]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="edgevit-decode") as pool:
        try:
            for example in examples:
                waiting.append(pool.submit(read, example))
                if len(waiting) > _AHEAD * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:  # the consumer may stop early
            for future in waiting:
                future.cancel()
