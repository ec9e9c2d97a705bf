# SPDX-License-Identifier: Apache-2.0
"""Configuration dataclasses to and from flags and JSON, in LeRobot's syntax."""

from __future__ import annotations

from vlakit.config.accepted_keys import ACCEPTED_UNUSED_KEYS, RENAMED_KEYS, clean_keys
from vlakit.config.decoding import decode
from vlakit.config.flags import parse_flags
from vlakit.config.raw_values import merged, read_config_file
from vlakit.config.schema import encode

__all__ = [
    "ACCEPTED_UNUSED_KEYS",
    "RENAMED_KEYS",
    "clean_keys",
    "decode",
    "encode",
    "merged",
    "parse_flags",
    "read_config_file",
]
