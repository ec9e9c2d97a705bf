# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io

import numpy as np
import pytest

from vlakit.environments.messages import Message, decode_message, encode_message


def read_exactly(stream: io.BytesIO) -> object:
    def read(count: int) -> bytes:
        data = stream.read(count)
        if len(data) < count:
            raise EOFError
        return data

    return read


def test_fields_and_arrays_arrive_as_they_were_sent() -> None:
    sent = Message(
        {"command": "play", "seed": 3, "text": "größer"},
        {
            "actions": np.arange(6, dtype=np.float32).reshape(2, 3),
            "picture": np.arange(24, dtype=np.uint8).reshape(2, 4, 3)[:, ::-1],
            "flags": np.array([True, False, True]),
            "none": np.zeros((0, 3)),
            "rewards": np.array([0.5, -1.5]),  # after an odd number of bytes
            "scalar": np.array(7),
        },
    )
    data = b"".join(encode_message(sent))
    got = decode_message(read_exactly(io.BytesIO(data)))
    assert got.fields == sent.fields
    for name, array in sent.arrays.items():
        assert got.arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(got.arrays[name], array)
        assert got.arrays[name].flags.aligned


def test_objects_are_refused() -> None:
    with pytest.raises(TypeError, match="'things' is object"):
        encode_message(Message({}, {"things": np.array([{}])}))


def test_a_cut_message_is_an_end() -> None:
    data = b"".join(encode_message(Message({"a": 1}, {"x": np.ones(3)})))
    with pytest.raises(EOFError):
        decode_message(read_exactly(io.BytesIO(data[:-1])))
