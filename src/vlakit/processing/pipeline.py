# SPDX-License-Identifier: Apache-2.0
"""A pipeline: steps run in order over a batch, stored in LeRobot's files.

On disk a pipeline is `policy_preprocessor.json` or `policy_postprocessor.json` (name, then one
entry per step: registry name, configuration, state file) and one safetensors file per step that has
tensors. LeRobot reads what is written here and the other way round, so no key is ever added.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from vlakit.errors import CheckpointError, ConfigError, VlakitError, did_you_mean
from vlakit.files import read_json, write_json, written_whole
from vlakit.processing.batch import ToDevice, flat_batch
from vlakit.processing.step import Step

PREPROCESSOR = "policy_preprocessor"
POSTPROCESSOR = "policy_postprocessor"

STEP_CLASSES = {
    "rename_observations_processor": "vlakit.processing.rename:RenameObservations",
    "to_batch_processor": "vlakit.processing.batch:ToBatch",
    "normalizer_processor": "vlakit.processing.normalize:Normalizer",
    "unnormalizer_processor": "vlakit.processing.normalize:Unnormalizer",
    "device_processor": "vlakit.processing.batch:ToDevice",
    "relative_actions_processor": "vlakit.processing.relative_actions:RelativeActions",
    "absolute_actions_processor": "vlakit.processing.relative_actions:AbsoluteActions",
    "eo1_conversation_template_processor": "vlakit.policies.eo1.processor:ConversationTemplate",
    "eo1_qwen_processor": "vlakit.policies.eo1.processor:QwenInputs",
    "pi0_fast_prepare_state_tokenizer_processor_step": "vlakit.policies.pi0_fast.prompt:Prompt",
    "tokenizer_processor": "vlakit.policies.pi0_fast.processor_text:PromptTokens",
    "action_tokenizer_processor": "vlakit.policies.pi0_fast.processor_actions:ActionTokens",
}
"""Where the class of each registered step lives. Names only: a policy's module is imported when one
of its steps is in a file, and a file can never name code to import."""


class Pipeline:
    """Steps in order, under the name that its files carry."""

    def __init__(self, steps: Sequence[Step], name: str) -> None:
        self.steps = list(steps)
        self.name = name
        self.device = next((step.device for step in self.steps if isinstance(step, ToDevice)), None)
        """Where batches come out; None where no step says so."""
        for step in self.steps:
            step.device = self.device

    def __call__(self, raw: Any) -> Any:
        """Return the processed batch; a bare tensor is taken, and returned, as the action."""
        if isinstance(raw, Tensor):
            return self._run({"action": raw})["action"]
        return self._run(flat_batch(raw))

    def _run(self, batch: dict[str, Any]) -> dict[str, Any]:
        for step in self.steps:
            batch = step(batch)
        return batch

    def prepare(self, raw: Any) -> dict[str, Any]:
        """Run what needs no device, as a worker process does; `deliver` finishes the batch."""
        batch = flat_batch(raw)
        for step in self.steps:
            batch = step.prepare(batch)
        return batch

    def deliver(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Return what the call would have made of the batch that `prepare` was given."""
        for step in self.steps:
            batch = step.deliver(batch)
        return batch

    def find(self, registry_name: str) -> Step | None:
        """Return the first step of this kind, or None."""
        return next((step for step in self.steps if step.registry_name == registry_name), None)

    def link(self, preprocess: Pipeline) -> None:
        """Connect the steps of this postprocessor with those of the preprocessor they undo."""
        for step in self.steps:
            step.link(preprocess.steps)

    def check(self, entries: Mapping[str, Any]) -> None:
        """Make sure that every step can run, before the first batch.

        Args:
            entries: the content of the policy's `config.json`.

        Raises:
            ProcessingError: statistics are missing.
            CheckpointError: the tokenizer does not fit the backbone.
        """
        for step in self.steps:
            step.check(entries)

    def save(self, folder: Path | str, filename: str | None = None) -> None:
        """Write the JSON file, the steps' tensors and, last, their assets into the folder.

        Raises:
            CheckpointError: an asset, such as the tokenizer, is not on this machine.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        entries = []
        for index, step in enumerate(self.steps):
            entry: dict[str, Any] = {"registry_name": step.registry_name, "config": step.config()}
            if state := step.state():
                entry["state_file"] = f"{self.name}_step_{index}_{step.registry_name}.safetensors"
                tensors = {key: value.cpu().contiguous() for key, value in state.items()}
                # They may be mapped from the very file: it must not change under them.
                with written_whole(folder / entry["state_file"]) as part:
                    save_file(tensors, part)
            if artifacts := step.artifacts():
                entry["artifacts"] = artifacts
            entries.append(entry)
        content = {"name": self.name, "steps": entries}
        write_json(folder / (filename or f"{self.name}.json"), content, indent=2)
        for step in self.steps:
            step.save_assets(folder)

    @classmethod
    def load(
        cls,
        folder: Path | str,
        filename: str,
        overrides: Mapping[str, Mapping[str, Any]] | None = None,
        absent: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> Pipeline:
        """Read a pipeline that `save` or LeRobot wrote.

        Args:
            folder: the checkpoint's folder.
            filename: such as `policy_preprocessor.json`.
            overrides: constructor arguments by registry name, put over those in the file.
            absent: those for what the file does not say, or says with a path inside the checkpoint.

        Raises:
            CheckpointError: a file is missing or damaged, or names a step or setting unknown here.
            ConfigError: an override names no step of the file.
        """
        path = Path(folder) / filename
        content = _read_pipeline(path)
        overrides, absent = overrides or {}, absent or {}
        names = [_registry_name(entry, path) for entry in content["steps"]]
        for name in overrides:
            if name not in names:
                raise ConfigError(
                    f"the override of {name!r} fits no step of {path}, which has {names}."
                    + did_you_mean(name, names)
                )
        steps = [
            _load_step(name, entry, overrides.get(name, {}), absent.get(name, {}), path)
            for name, entry in zip(names, content["steps"], strict=True)
        ]
        return cls(steps, content.get("name", Path(filename).stem))


def _read_pipeline(path: Path) -> dict[str, Any]:
    content = read_json(
        path,
        CheckpointError,
        missing=": a checkpoint holds it beside config.json. Check the path, or pass the "
        "statistics of a dataset (stats=...) to build the pipeline anew.",
        damaged="Fetch or save the checkpoint again.",
    )
    steps = content.get("steps")
    are_steps = isinstance(steps, list) and all(
        isinstance(entry, dict) and isinstance(entry.get("config", {}), dict) for entry in steps
    )
    if not are_steps:
        raise CheckpointError(
            f"{path} is not a processor file: expected 'steps', a list of {{registry_name, "
            f"config}}, found {steps!r}. Fetch or save the checkpoint again."
        )
    return content


def _registry_name(entry: Mapping[str, Any], path: Path) -> str:
    name = entry.get("registry_name")
    if name in STEP_CLASSES:
        return name
    what = f"step {name!r}" if name else f"the Python class {entry.get('class')!r}"
    raise CheckpointError(
        f"{path} asks for {what}, which vlakit does not have; it has {sorted(STEP_CLASSES)}."
        f"{did_you_mean(str(name), STEP_CLASSES)} Code named in a checkpoint is never imported."
    )


def _load_step(
    name: str,
    entry: Mapping[str, Any],
    overrides: Mapping[str, Any],
    absent: Mapping[str, Any],
    path: Path,
) -> Step:
    module, class_name = STEP_CLASSES[name].split(":")
    step_class = getattr(import_module(module), class_name)
    artifacts = entry.get("artifacts") or {}
    # LeRobot 0.6.2 puts the artifact's path in the place of the name that it came from.
    stored = {
        key: value
        for key, value in entry.get("config", {}).items()
        if key not in artifacts or key not in absent
    }
    config = {**absent, **stored, **overrides}
    _check_settings(step_class, name, config, path)
    try:
        step: Step = step_class(**config)
    except VlakitError as error:
        raise type(error)(f"{name!r} in {path}: {error}") from error
    except (TypeError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"the configuration of {name!r} in {path} does not fit: {error}. "
            f"Given: {sorted(config)}. Correct the file, or save the checkpoint again."
        ) from None
    # Explicit statistics win over stored ones, as in LeRobot.
    if entry.get("state_file") and not overrides.get("stats"):
        step.load_state(_read_state(path.parent / entry["state_file"], path))
    step.load_assets(path.parent, artifacts, overrides.keys())
    return step


def _check_settings(
    step_class: type[Step], name: str, config: Mapping[str, Any], path: Path
) -> None:
    known = inspect.signature(step_class).parameters
    for key in config:
        if key not in known:
            raise CheckpointError(
                f"unknown key {key!r} in the configuration of {name!r} in {path}; expected some of "
                f"{', '.join(known)}.{did_you_mean(key, known)} Remove it or correct its name."
            )


def _read_state(path: Path, pipeline_path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path}, which {pipeline_path.name} names, cannot be read ({error}). "
            "Fetch or save the checkpoint again."
        ) from None
