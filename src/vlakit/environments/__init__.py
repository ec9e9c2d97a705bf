# SPDX-License-Identifier: Apache-2.0
"""Simulators behind one small interface, each running in a worker process of its own."""
