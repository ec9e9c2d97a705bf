# SPDX-License-Identifier: Apache-2.0
"""How what the data workers need reaches them: once, through memory that all of them map.

A process that is started anew gets its objects through a pipe, a copy for each. Here they are
written once into a file without a name, gone with its last user (in memory on Linux, in the
temporary folder elsewhere). The workers map it: arrays, such as a dataset's columns and a
tokenizer's tables, are the same pages in all of them. The message itself is a number, so that no
worker waits for another one's start.
"""

from __future__ import annotations

import mmap
import os
import pickle
import tempfile
import weakref
from collections.abc import Sequence
from multiprocessing.context import get_spawning_popen
from multiprocessing.reduction import DupFd
from typing import IO, Any

from torch.utils.data import Dataset

from vlakit.errors import DatasetError

_ALIGNMENT = 64


class SharedReader(Dataset):
    """A map-style dataset whose copies in worker processes share its arrays.

    A forked worker has the reader itself: its memory is shared until someone writes.
    """

    def __init__(self, reader: Any) -> None:
        self.reader = reader
        self._file: IO[bytes] | None = None
        self._spans: list[tuple[int, int]] = []

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, index: Any) -> Any:
        return self.reader[index]

    def __reduce__(self) -> tuple[Any, ...]:
        if get_spawning_popen() is None:  # an ordinary copy
            return type(self), (self.reader,)
        if self._file is None:
            self._file, self._spans = _written(self.reader)
            weakref.finalize(self, self._file.close)
        return _mapped, (DupFd(self._file.fileno()), self._spans)


def _written(reader: Any) -> tuple[IO[bytes], list[tuple[int, int]]]:
    """Return a file in memory, and where in it the object and each of its arrays lie.

    Raises:
        DatasetError: there is no room.
    """
    buffers: list[pickle.PickleBuffer] = []
    # As multiprocessing does with whatever it sends; it is read by our own workers only.
    content = pickle.dumps(reader, protocol=5, buffer_callback=buffers.append)
    parts: Sequence[Any] = [content, *(buffer.raw() for buffer in buffers)]
    spans = []
    try:
        file = _file_in_memory()
        for part in parts:
            start = -(-file.tell() // _ALIGNMENT) * _ALIGNMENT
            file.seek(start)
            file.write(part)
            spans.append((start, len(part)))
        file.truncate(file.tell() + 1)  # an empty last array must lie inside, too
        file.flush()
    except OSError as error:
        size = sum(len(part) for part in parts)
        raise DatasetError(
            f"the {size / 1e6:.0f} MB that data workers share cannot be kept in memory ({error}). "
            "Make room, use fewer --dataset.episodes, or read in this process: --num_workers=0."
        ) from error
    return file, spans


def _file_in_memory() -> IO[bytes]:
    if hasattr(os, "memfd_create"):  # Linux: not bound by the size of /dev/shm
        return os.fdopen(os.memfd_create("vlakit-data"), "w+b")
    return tempfile.TemporaryFile()


def _mapped(handle: Any, spans: Sequence[tuple[int, int]]) -> SharedReader:
    """Return the reader that `_written` wrote; runs in the worker."""
    descriptor = handle.detach()
    # Writable without a warning, and nobody else sees what is written.
    pages = memoryview(mmap.mmap(descriptor, 0, access=mmap.ACCESS_COPY))
    os.close(descriptor)
    content, *buffers = (pages[start : start + size] for start, size in spans)
    return SharedReader(pickle.loads(content, buffers=buffers))
