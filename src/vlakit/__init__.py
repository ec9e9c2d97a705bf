# SPDX-License-Identifier: Apache-2.0
"""vlakit: train, evaluate and serve EO-1 and pi0-FAST."""

__version__ = "0.1.0"
