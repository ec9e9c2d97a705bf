# SPDX-License-Identifier: Apache-2.0
"""Training of one policy on one dataset: the loop, its optimiser and schedule, its checkpoints."""
