# SPDX-License-Identifier: Apache-2.0
"""Demonstrations become datasets."""
