# SPDX-License-Identifier: Apache-2.0
"""Weights of a checkpoint folder: safetensors, one file or shards, read strictly and written whole.

Reading is strict: every tensor of the model must be in the files once, with its shape, and nothing
else may be there. All names and shapes are compared before the first value is read, so an error
lists everything that is wrong. Values then go tensor by tensor from the file to their place, so
that a model built on the meta device never exists twice.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlakit import files
from vlakit.errors import CheckpointError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
_FLOAT_TYPES = frozenset({"F64", "F32", "F16", "BF16"})
_SHOWN = 5


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a weight file, not read yet."""

    file: Path
    key: str
    shape: tuple[int, ...]
    dtype: str


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file.

    Raises:
        CheckpointError: when the file is missing or holds no JSON object.
    """
    return files.read_json(
        path,
        CheckpointError,
        missing="; expected the folder of a checkpoint. Check the path.",
        damaged="Restore the file from its source.",
    )


def read_config(folder: Path) -> dict[str, Any]:
    """Return the content of a checkpoint's `config.json`."""
    return read_json(folder / CONFIG_FILE)


def has_weights(folder: Path) -> bool:
    """Return whether the folder holds safetensors weights."""
    return (folder / WEIGHTS_FILE).is_file() or (folder / INDEX_FILE).is_file()


def weight_files(folder: Path) -> list[Path]:
    """Return the weight files of a checkpoint.

    Raises:
        CheckpointError: when there are none, or a shard that the index names is missing.
    """
    if (folder / WEIGHTS_FILE).is_file():
        return [folder / WEIGHTS_FILE]
    if not (folder / INDEX_FILE).is_file():
        others = [p.name for p in folder.glob("*.bin")] + [p.name for p in folder.glob("*.pt*")]
        hint = f" Found {', '.join(sorted(others))}: convert it." if others else ""
        raise CheckpointError(
            f"{folder} has no weights; expected {WEIGHTS_FILE} or {INDEX_FILE} with its shards."
            f"{hint or ' Give the folder that holds them.'}"
        )
    shards = read_json(folder / INDEX_FILE).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise CheckpointError(
            f"{folder / INDEX_FILE} has no 'weight_map'. Restore the file from its source."
        )
    files = [folder / name for name in sorted(set(shards.values()))]
    missing = [path.name for path in files if not path.is_file()]
    if missing:
        raise CheckpointError(
            f"{folder} lacks {', '.join(missing)}, which {INDEX_FILE} names. Download the shards."
        )
    return files


def stored_tensors(folder: Path) -> Iterator[StoredTensor]:
    """Yield names, shapes and types of all stored tensors; reads headers only.

    Raises:
        CheckpointError: when a file is missing, truncated or no safetensors file.
    """
    for file in weight_files(folder):
        with _open(file) as content:
            for key in content.keys():  # noqa: SIM118 - the reader is no mapping
                entry = content.get_slice(key)
                yield StoredTensor(file, key, tuple(entry.get_shape()), entry.get_dtype())


def load_state(
    model: nn.Module,
    folder: Path,
    *,
    device: torch.device,
    rename: Callable[[str], str] | None = None,
    tied: Mapping[str, str] | None = None,
    prefix: str = "",
    stand_ins: Mapping[str, str] | None = None,
    cut_rows: Collection[str] = (),
) -> None:
    """Fill a model with a checkpoint's weights, in the model's types.

    Args:
        model: usually on the meta device. Parameters that share storage are set under every name;
            call the model's own tying afterwards.
        folder: where the weight files are.
        device: where the weights go.
        rename: from a stored name to the model's.
        tied: model name -> model name of the tensor that it shares; either may be stored, or both.
        prefix: only tensors whose model name starts so belong to the files.
        stand_ins: model name -> model name of the tensor that it copies where it is not stored.
        cut_rows: model names of tables that may be stored with more rows, of which the first count.

    Raises:
        CheckpointError: when tensors are missing, unexpected, misshaped or unreadable.
    """
    tied = tied or {}
    names = {tied.get(name, name) for name in model.state_dict() if name.startswith(prefix)}
    expected = {name: model.get_parameter(name) for name in names}
    stored = [(rename(t.key) if rename else t.key, t) for t in stored_tensors(folder)]
    stored += _stand_ins(stored, stand_ins or {})
    chosen = _match(expected, _cut(stored, expected, cut_rows), tied)
    _refuse_unequal_twins(chosen, folder)
    by_file: dict[Path, list[tuple[str, str]]] = {}
    for name, copies in chosen.items():
        by_file.setdefault(copies[0].file, []).append((name, copies[0].key))
    for file, entries in by_file.items():
        with _open(file) as content:
            for name, key in entries:
                value = content.get_tensor(key)
                value = value[: len(expected[name])] if name in cut_rows else value
                _assign(model, name, value, device)


def save_state(
    model: nn.Module,
    folder: Path,
    *,
    tied: Mapping[str, str] | None = None,
    max_shard_bytes: int | None = None,
) -> None:
    """Write a model's weights; a file appears under its name only when it is complete.

    Args:
        model: what to save.
        folder: existing folder.
        tied: names that are not stored -> names that are stored in their place. The pairs go to the
            file's metadata, as LeRobot writes them.
        max_shard_bytes: split into shards of at most this size; None writes one file.
    """
    aliases = dict(tied or {})
    state = {k: v.detach() for k, v in model.state_dict().items() if k not in aliases}
    shards = _split(state, max_shard_bytes)
    metadata = {**aliases, "format": "pt"}
    if len(shards) == 1:
        _write(shards[0], folder / WEIGHTS_FILE, metadata)
        return
    names = [f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors" for i in range(len(shards))]
    for name, shard in zip(names, shards, strict=True):
        _write(shard, folder / name, metadata)
    weight_map = {key: file for file, shard in zip(names, shards, strict=True) for key in shard}
    size = sum(value.nbytes for value in state.values())
    index = {"metadata": {"total_size": size}, "weight_map": dict(sorted(weight_map.items()))}
    files.write_json(folder / INDEX_FILE, index, indent=2)


@contextmanager
def _open(file: Path) -> Iterator[Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as content:
            yield content
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{file} is no complete safetensors file ({error}). It is truncated, damaged or of "
            "another format; copy or download it again."
        ) from error


def _stand_ins(
    stored: Iterable[tuple[str, StoredTensor]], stand_ins: Mapping[str, str]
) -> list[tuple[str, StoredTensor]]:
    """Return, for names that are not stored, the tensors that they copy."""
    known = dict(stored)
    return [
        (name, known[other])
        for name, other in stand_ins.items()
        if name not in known and other in known
    ]


def _cut(
    stored: Iterable[tuple[str, StoredTensor]],
    expected: Mapping[str, Tensor],
    cut_rows: Collection[str],
) -> Iterator[tuple[str, StoredTensor]]:
    """Yield the tensors with the shapes that they have once surplus rows are cut off."""
    for name, tensor in stored:
        if name in cut_rows and name in expected and tensor.shape[:1] > expected[name].shape[:1]:
            yield name, replace(tensor, shape=(len(expected[name]), *tensor.shape[1:]))
        else:
            yield name, tensor


def _match(
    expected: Mapping[str, Tensor],
    stored: Iterable[tuple[str, StoredTensor]],
    tied: Mapping[str, str],
) -> dict[str, list[StoredTensor]]:
    """Return the stored tensors of each name, or raise with everything that does not fit."""
    chosen: dict[str, list[StoredTensor]] = {}
    unexpected, misshaped, folder = [], [], Path()
    for own_name, tensor in stored:
        folder = tensor.file.parent
        name = tied.get(own_name, own_name)
        if name not in expected:
            unexpected.append(tensor.key)
            continue
        shape = tuple(expected[name].shape)
        if tensor.shape != shape:
            misshaped.append(f"{tensor.key} {list(tensor.shape)} (expected {list(shape)})")
        elif tensor.dtype not in _FLOAT_TYPES:
            misshaped.append(f"{tensor.key} of type {tensor.dtype} (expected a float type)")
        chosen.setdefault(name, []).append(tensor)
    missing = [name for name in expected if name not in chosen]
    problems = [
        f"{len(names)} {kind}: {_some(names)}"
        for kind, names in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("misshaped", misshaped),
        )
        if names
    ]
    if problems:
        raise CheckpointError(
            f"the tensors in {folder} do not fit the model that its configuration describes; "
            f"{'; '.join(problems)}. Give the configuration that belongs to these weights."
        )
    return chosen


def _refuse_unequal_twins(chosen: Mapping[str, list[StoredTensor]], folder: Path) -> None:
    """Raise when tensors that must be one are stored twice with different values."""
    for copies in chosen.values():
        if len(copies) == 1:
            continue
        first, *others = [_read(tensor) for tensor in copies]
        if any(not first.equal(other) for other in others):
            keys = " and ".join(tensor.key for tensor in copies)
            raise CheckpointError(
                f"{folder} stores {keys} with different values, but the configuration ties them. "
                "Set tie_word_embeddings to false, or restore the weights."
            )


def _read(tensor: StoredTensor) -> Tensor:
    with _open(tensor.file) as content:
        return content.get_tensor(tensor.key)


def _assign(model: nn.Module, name: str, value: Tensor, device: torch.device) -> None:
    """Replace a parameter; the values are copied out of the memory-mapped file."""
    from torch import nn

    owner, _, leaf = name.rpartition(".")
    module = model.get_submodule(owner)
    old = module.get_parameter(leaf)
    new = value.to(device=device, dtype=old.dtype, copy=True)
    setattr(module, leaf, nn.Parameter(new, requires_grad=old.requires_grad))


def _split(state: Mapping[str, Tensor], max_bytes: int | None) -> list[dict[str, Tensor]]:
    shards: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, tensor in state.items():
        if max_bytes is not None and shards[-1] and size + tensor.nbytes > max_bytes:
            shards.append({})
            size = 0
        shards[-1][name] = tensor
        size += tensor.nbytes
    return shards


def _write(tensors: Mapping[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    from safetensors.torch import save_file

    content = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    with files.written_whole(path) as part:
        save_file(content, part, metadata=metadata)


def _some(names: list[str]) -> str:
    shown = ", ".join(sorted(names)[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown}, ..."
