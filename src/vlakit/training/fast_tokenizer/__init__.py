# SPDX-License-Identifier: Apache-2.0
"""Fitting a FAST tokenizer to a dataset: its chunks, what the tokenizer makes of them, a sweep."""
