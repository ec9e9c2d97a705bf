# SPDX-License-Identifier: Apache-2.0
"""The commands of `vlakit`, one module each; see `main.py` for the table."""
