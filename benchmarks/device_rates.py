# SPDX-License-Identifier: Apache-2.0
"""How fast does this device copy memory and multiply matrices?

The two bounds that the other results are held against: a token has to read all weights, a training
step has to do its multiplications.

    python benchmarks/device_rates.py [--device cpu|cuda] [--dtype float32|bfloat16]

Prints one JSON line. Copied bytes are counted twice, read and written.
"""

from __future__ import annotations

import json

import torch
from harness.device_rates import copy_bandwidth, matrix_rate
from harness.policy_flags import make_policy_parser, prepare
from harness.timing import circumstances


def main() -> None:
    flags = make_policy_parser(__doc__, repeats=1).parse_args()
    prepare(flags)
    rates = {
        "copy_gb_s": round(copy_bandwidth(flags.device) / 1e9, 1),
        "matrix_tflops": round(matrix_rate(flags.device, getattr(torch, flags.dtype)) / 1e12, 2),
    }
    line = {"case": "device rates", "on": flags.device, "dtype": flags.dtype}
    print(json.dumps(line | rates | circumstances()), flush=True)


if __name__ == "__main__":
    main()
