# SPDX-License-Identifier: Apache-2.0
"""A profile: phases that add up, arithmetic counted as by hand, and nothing left behind."""

from __future__ import annotations

import io
import time
from contextlib import nullcontext

import pytest
import torch
from rich.console import Console

from tests.unit.policies.eo1.tiny import tiny_batch, tiny_policy
from vlakit.processing.batch import ToDevice
from vlakit.processing.pipeline import Pipeline
from vlakit.training.profile import WARM_UP, StepProfiler, peak_memory
from vlakit.training.profile_flops import forward_flops, matrix_rate
from vlakit.training.profile_report import ProfileReport


def _report(num_steps: int, steps: int) -> tuple[ProfileReport, Pipeline]:
    """Profile steps whose phases sleep for a known time; the warm-up's sleep longer."""
    preprocess = Pipeline([ToDevice("cpu")], "policy_preprocessor")
    plain = preprocess.steps[0]
    profiler = StepProfiler(
        tiny_policy(), preprocess, num_steps=num_steps, precision=lambda: nullcontext()
    )
    assert preprocess.steps[0].config() == plain.config()
    for index in range(steps):
        profiler.before_step(preprocess(tiny_batch()) | tiny_batch(), data_wait_s=0.5)
        with profiler.phase("forward"):
            time.sleep(0.05 if index < WARM_UP else 0.002)
        with profiler.phase("backward"):
            time.sleep(0.004)
        is_last = profiler.after_step()
        assert is_last == (index + 1 == WARM_UP + num_steps)
    report = profiler.finish()
    assert preprocess.steps[0] is plain, "the pipeline is as it was"
    return report, preprocess


def test_only_the_steps_after_the_warm_up_count() -> None:
    report, _ = _report(num_steps=2, steps=WARM_UP + 2)
    assert (report.skipped_steps, report.steps, report.batch_size) == (WARM_UP, 2, 2)
    assert report.seconds["data_wait"] == 0.5
    assert 0.002 <= report.seconds["forward"] < 0.05
    assert report.seconds["backward"] >= 0.004
    assert report.seconds["optimizer"] == report.seconds["other"] == 0.0
    assert report.tokens == tiny_batch()["attention_mask"].sum()
    assert report.transfer_s > 0


@pytest.mark.parametrize(("steps", "counted"), [(1, 1), (2, 1), (4, 1), (5, 2)])
def test_a_run_shorter_than_the_profile_counts_what_it_has(steps: int, counted: int) -> None:
    report, _ = _report(num_steps=10, steps=steps)
    assert report.steps == counted


def test_the_file_and_the_table_say_the_same() -> None:
    report, _ = _report(num_steps=1, steps=WARM_UP + 1)
    content = report.to_json()
    parts = {name: part for name, part in content["phases"].items() if name != "transfer"}
    assert sum(part["share"] for part in parts.values()) == pytest.approx(1)
    assert sum(part["ms"] for part in parts.values()) == pytest.approx(content["step_ms"])
    assert content["samples_per_s"] == pytest.approx(2 / (content["step_ms"] / 1e3))
    assert content["mfu"] == pytest.approx(
        content["model_flops_per_step"] / (content["step_ms"] / 1e3) / content["matrix_flops_per_s"]
    )
    console = Console(file=io.StringIO(), width=120)
    console.print(report.table())
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert f"{content['phases']['data_wait']['share']:.1%}" in text
    assert f"{content['mfu']:.1%}" in text


def test_flops_are_those_of_the_products_and_draw_no_random_numbers() -> None:
    policy, batch = tiny_policy(), tiny_batch((4, 4))
    torch.manual_seed(2)
    expected = torch.rand(3)
    torch.manual_seed(2)
    counted = forward_flops(policy, batch, nullcontext)
    assert torch.rand(3).equal(expected)
    assert counted == _flops_by_hand(rows=2, length=1 + 4 + 1 + 4 + 1 + 4)


def _flops_by_hand(rows: int, length: int) -> int:
    """Two operations per weight and token that meets it, and attention, from the tiny sizes."""
    width, inner, kv, chunk, joined = 32, 48, 16, 4, 64
    key_value = 2 * rows * length * width * 2 * kv

    def layer(asked: int) -> int:
        dense = 2 * rows * asked * (2 * width * width + 3 * width * inner)
        return key_value + dense + rows * asked * length * width * 4

    patches, vision, side = rows * 16, 16, 16
    block = 2 * patches * (4 * vision * vision + 3 * vision * 24) + 4 * patches * side * vision
    tower = 2 * patches * 1176 * vision + 2 * block
    tower += 2 * rows * 4 * (joined * joined + joined * width)
    head = rows * 2 * (6 * width + chunk * (7 * width + 2 * width * width + width * width))
    head += rows * 2 * chunk * (width * width + width * 7)
    return layer(length) + layer(chunk) + tower + head


def test_recomputed_layers_count_once() -> None:
    counts = {
        kind: forward_flops(
            tiny_policy(activation_checkpointing=kind).train(), tiny_batch(), nullcontext
        )
        for kind in ("none", "layer", "selective")
    }
    assert len(set(counts.values())) == 1


def test_the_matrix_rate_is_that_of_a_product_and_memory_that_of_a_process() -> None:
    assert 1e8 < matrix_rate(torch.device("cpu"), torch.float32) < 1e14
    block = torch.ones(2**25)  # 128 MiB
    peak, kind = peak_memory(torch.device("cpu"))
    assert block.nbytes < peak < 2**40
    assert kind == "resident, this process"
