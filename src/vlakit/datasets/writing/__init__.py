# SPDX-License-Identifier: Apache-2.0
"""From recorded frames to the files of a dataset v3.0."""
