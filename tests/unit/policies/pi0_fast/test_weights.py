# SPDX-License-Identifier: Apache-2.0
"""New policies on PaliGemma's weights: both namings, the tied head, nothing taken in silence."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.unit.policies.pi0_fast.tiny_policy import config
from vlakit.errors import CheckpointError, ConfigError
from vlakit.policies.pi0_fast import PI0FastPolicy
from vlakit.policies.pi0_fast.weights import EMBEDDING, LM_HEAD, PALIGEMMA, rename_paligemma

NOWHERE = Path("nobody/knows")
OLD = (
    ("model.language_model.", "language_model.model."),
    ("model.vision_tower.", "vision_tower."),
    ("model.multi_modal_projector.", "multi_modal_projector."),
)


def paligemma(*, old: bool, spare_rows: int = 64) -> dict[str, Tensor]:
    """Return a PaliGemma's tensors as Hugging Face stores them: no head, a padded vocabulary."""
    torch.manual_seed(3)
    policy = PI0FastPolicy(config(NOWHERE))
    tensors = {}
    for name, value in policy.state_dict().items():
        if name == LM_HEAD:
            continue
        key = name.removeprefix(PALIGEMMA)
        for ours, theirs in OLD if old else ():
            if key.startswith(ours):
                key = theirs + key.removeprefix(ours)
        rows = torch.zeros(spare_rows, value.shape[-1]) if name == EMBEDDING else value[:0]
        tensors[key] = torch.cat((value, rows)) if name == EMBEDDING else value
    return tensors


@pytest.mark.parametrize("old", [True, False])
def test_both_namings_fill_everything_and_the_table_fills_both(tmp_path: Path, old: bool) -> None:
    tensors = paligemma(old=old)
    save_file(tensors, tmp_path / "model.safetensors")
    torch.manual_seed(4)
    policy = PI0FastPolicy.from_backbone(config(NOWHERE, vlm_base=str(tmp_path)))
    state = policy.state_dict()
    for key, value in tensors.items():
        stored = state[rename_paligemma(key)]
        assert torch.equal(stored, value[: len(stored)]), key
    assert torch.equal(state[LM_HEAD], state[EMBEDDING])
    assert state[LM_HEAD].data_ptr() != state[EMBEDDING].data_ptr()


def test_a_missing_or_narrow_tensor_is_refused(tmp_path: Path) -> None:
    tensors = paligemma(old=True)
    lost = next(key for key in tensors if key.endswith("layers.0.mlp.up_proj.weight"))
    save_file({k: v for k, v in tensors.items() if k != lost}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"1 missing: .*layers\.0\.mlp\.up_proj"):
        PI0FastPolicy.from_backbone(config(NOWHERE, vlm_base=str(tmp_path)))
    table = next(key for key in tensors if key.endswith("embed_tokens.weight"))
    short = tensors | {table: tensors[table][:100].clone()}
    save_file(short, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"misshaped: .*embed_tokens\.weight \[100, 32\]"):
        PI0FastPolicy.from_backbone(config(NOWHERE, vlm_base=str(tmp_path)))


def test_random_weights_come_only_where_they_are_asked_for(tmp_path: Path) -> None:
    for base in ("random", "tiny-paligemma"):
        torch.manual_seed(1)
        policy = PI0FastPolicy.from_backbone(config(NOWHERE, vlm_base=base))
        torch.manual_seed(1)
        fresh = PI0FastPolicy(config(NOWHERE))
        assert torch.equal(policy.get_parameter(LM_HEAD), fresh.get_parameter(LM_HEAD))
    with pytest.raises(CheckpointError, match="has no weights"):
        PI0FastPolicy.from_backbone(config(NOWHERE, vlm_base=str(tmp_path)))
    other = config(NOWHERE, paligemma_variant="gemma_300m")
    with pytest.raises(ConfigError, match="gemma_300m has no published PaliGemma"):
        PI0FastPolicy.from_backbone(other)
