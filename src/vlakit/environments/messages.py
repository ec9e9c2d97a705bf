# SPDX-License-Identifier: Apache-2.0
"""Messages between a process and its simulator worker: a JSON header, then raw arrays.

    uint32 (little endian)   bytes of the header
    JSON                     {"fields": {...}, "arrays": [{"name", "dtype", "shape"}, ...]}
    raw bytes                each array in that order, C order

No pickle: a message can hold numbers, text and arrays of plain numbers, nothing that runs.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

DTYPES = ("float32", "float64", "int64", "uint8", "bool")
_LENGTH = struct.Struct("<I")


class Message(NamedTuple):
    """One request or reply."""

    fields: Mapping[str, Any]
    arrays: Mapping[str, NDArray[Any]] = {}


def encode_message(message: Message) -> list[bytes | memoryview]:
    """Return the pieces to write, in order.

    Raises:
        TypeError: An array of objects or another type that is not in `DTYPES`.
    """
    entries, payload = [], []
    for name, value in message.arrays.items():
        array = np.ascontiguousarray(value)
        if array.dtype.name not in DTYPES:
            raise TypeError(f"array {name!r} is {array.dtype}, expected one of {', '.join(DTYPES)}")
        entries.append({"name": name, "dtype": array.dtype.name, "shape": list(value.shape)})
        payload.append(array.reshape(-1).view(np.uint8).data)  # no copy
    header = json.dumps({"fields": dict(message.fields), "arrays": entries}).encode()
    return [_LENGTH.pack(len(header)) + header, *payload]


def decode_message(read: Callable[[int], bytes | bytearray]) -> Message:
    """Read one message.

    Args:
        read: Returns exactly that many bytes, or raises EOFError.

    Raises:
        EOFError: The other side closed its end.
    """
    (length,) = _LENGTH.unpack(read(_LENGTH.size))
    header = json.loads(bytes(read(length)))
    entries = [(e["name"], np.dtype(e["dtype"]), e["shape"]) for e in header["arrays"]]
    for name, dtype, _ in entries:
        if dtype.name not in DTYPES:
            raise TypeError(f"array {name!r} is {dtype}, expected one of {', '.join(DTYPES)}")
    counts = [math.prod(shape) for _, _, shape in entries]
    sizes = [count * dtype.itemsize for count, (_, dtype, _) in zip(counts, entries, strict=True)]
    data = read(sum(sizes)) if sum(sizes) else b""
    arrays, start = {}, 0
    for (name, dtype, shape), count, size in zip(entries, counts, sizes, strict=True):
        # A copy where the bytes of other types before it have shifted it off its alignment.
        array = np.frombuffer(data, dtype, count, start).reshape(shape)
        arrays[name] = array if array.flags.aligned else array.copy()
        start += size
    return Message(header["fields"], arrays)
