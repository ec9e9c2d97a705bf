# SPDX-License-Identifier: Apache-2.0
"""Policies in simulators: rollouts, success rates, videos, reports."""
