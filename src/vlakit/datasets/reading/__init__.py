# SPDX-License-Identifier: Apache-2.0
"""From the files of a dataset to its metadata, its table of frames and its pictures."""
