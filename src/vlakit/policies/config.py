# SPDX-License-Identifier: Apache-2.0
"""Settings every policy has, and their JSON form: LeRobot's `config.json`, key for key."""

from __future__ import annotations

import builtins
import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import draccus

from vlakit.config import decode, encode
from vlakit.config.schema import field_default
from vlakit.errors import ConfigError, did_you_mean
from vlakit.features import ACTION, OBS_STATE, FeatureType, PolicyFeature
from vlakit.files import write_json

CONFIG_FILE = "config.json"

POLICIES: dict[str, tuple[str, str]] = {
    "eo1": ("vlakit.policies.eo1", "EO1"),
    "pi0_fast": ("vlakit.policies.pi0_fast", "PI0Fast"),
}
"""`--policy.type` -> package and the prefix of its classes (EO1Policy, EO1Config)."""

_ConfigT = TypeVar("_ConfigT", bound="PolicyConfig")


@dataclass(frozen=True, kw_only=True)
class PolicyConfig(draccus.ChoiceRegistry):
    """Settings of LeRobot's base policy; subclasses register the name that `--policy.type` takes.

    Every policy also declares `normalization_mapping`, at the place where LeRobot's file has it.
    """

    own_fields: ClassVar[frozenset[str]] = frozenset({"engine", "weight_quantization"})
    """Fields that LeRobot lacks; the file holds them only where they are not the default."""
    run_fields: ClassVar[frozenset[str]] = own_fields
    """Those of them that say how a run computes and not what: the file never holds them."""

    n_obs_steps: int = 1
    """Observations per call. The policies of this package look at the current one only."""
    input_features: dict[str, PolicyFeature] = field(default_factory=dict)
    """What the policy reads; taken from the dataset when empty."""
    output_features: dict[str, PolicyFeature] = field(default_factory=dict)
    """What the policy returns; always taken from the dataset."""
    device: str | None = None
    """cpu, cuda, cuda:1 or mps; null takes the best one that this machine has."""
    use_amp: bool = False
    """LeRobot's float16 evaluation. Not supported: true is refused; see `dtype`."""
    use_peft: bool = False
    """Whether the checkpoint is an adapter on top of another one."""
    push_to_hub: bool = True
    """Upload the checkpoint to the hub after training; not given, it is done when `repo_id` is."""
    repo_id: str | None = None
    """Hub repository to upload to."""
    private: bool | None = None
    """Whether a new hub repository is private."""
    tags: list[str] | None = None
    """Tags of the hub page. Not written yet."""
    license: str | None = None
    """License on the hub page. Not written yet."""
    pretrained_path: str | None = None
    """Checkpoint that the weights come from: a folder or a hub id."""
    pretrained_revision: str | None = None
    """Revision of that hub repository."""
    engine: Literal["auto", "static", "plain"] = "auto"
    """How chunks are computed: `static` at few fixed shapes, on a GPU replayed as CUDA graphs;
    `plain` at the shapes that come; auto is static on a GPU and plain elsewhere."""
    weight_quantization: Literal["none", "int8"] = "none"
    """int8 keeps the language model's weights as 8-bit integers, to predict only: half the memory
    of bfloat16, small errors. Needs the package torchao."""

    @property
    def type(self) -> str:
        """Name of the policy, as in `--policy.type`."""
        return self.get_choice_name(self.__class__)

    @property
    def image_features(self) -> dict[str, PolicyFeature]:
        """The cameras, in the order in which the policy sees them."""
        return {
            name: feature
            for name, feature in self.input_features.items()
            if feature.type is FeatureType.VISUAL
        }

    @property
    def optional_inputs(self) -> frozenset[str]:
        """Names of inputs that the policy does without where they are not given."""
        return frozenset()

    @property
    def state_feature(self) -> PolicyFeature | None:
        """The robot's own state, when it is known what it is."""
        return self.input_features.get(OBS_STATE)

    @property
    def action_feature(self) -> PolicyFeature | None:
        """The action, when it is known what it is."""
        return self.output_features.get(ACTION)

    def to_json(self) -> dict[str, Any]:
        """Return the content of LeRobot's `config.json`: `type` first, then the fields in order.

        A field that LeRobot lacks is left out while it has its default. LeRobot reads such a file,
        and refuses any other rather than running the policy in another way.
        """
        entries = encode(self)
        for name in self.own_fields:
            if name in self.run_fields or entries[name] == encode(field_default(type(self), name)):
                del entries[name]
        return entries

    def run_settings(self) -> dict[str, Any]:
        """Return the `run_fields` that are not at their default."""
        entries = encode(self)
        return {
            name: entries[name]
            for name in sorted(self.run_fields)
            if entries[name] != encode(field_default(type(self), name))
        }

    @classmethod
    def from_json(
        cls: builtins.type[_ConfigT], entries: Mapping[str, Any], *, source: str = CONFIG_FILE
    ) -> _ConfigT:
        """Read the content of a `config.json`; missing keys take their defaults.

        Args:
            entries: the file's content, with a `type` when called on `PolicyConfig` itself.
            source: where the entries come from, for messages.

        Raises:
            ConfigError: for an unknown policy type or key, or a value that a field cannot take.
        """
        values = dict(entries)
        kind = values.pop("type", None)
        target = cls if kind is None else config_class(str(kind), source=source)
        if target is PolicyConfig or not issubclass(target, cls):
            raise ConfigError(
                f"{source} is of type {kind!r}; expected the settings of a {cls.__name__}. "
                "Give the configuration of a policy checkpoint."
            )
        return decode(target, values, source=source)

    def save(self, folder: Path) -> None:
        """Write `config.json` into a folder."""
        write_json(folder / CONFIG_FILE, self.to_json())

    def override(self: _ConfigT, overrides: Mapping[str, Any]) -> _ConfigT:
        """Return a copy with some fields changed; a dictionary is merged into the one there.

        Raises:
            ConfigError: for a name that is no field, with the nearest one, or a value that the
                field cannot take.
        """
        entries = encode(self)
        kind = entries.pop("type")
        for name, value in overrides.items():
            if name not in entries:
                raise ConfigError(
                    f"{name!r} is no setting of policy {kind!r}.{did_you_mean(name, entries)} "
                    f"See `vlakit train --policy.type={kind} --help` for all of them."
                )
            old, new = entries[name], encode(value)
            merge = isinstance(old, Mapping) and isinstance(new, Mapping)
            entries[name] = {**old, **new} if merge else new
        return decode(self.__class__, entries, source="the overrides")

    def changes_from(self, stored: PolicyConfig) -> dict[str, Any]:
        """Return the settings that differ from a checkpoint's, where it runs or lies aside."""
        before = vars(stored)
        return {
            name: value
            for name, value in vars(self).items()
            if before.get(name) != value and name not in _NOT_A_CHOICE
        }


_NOT_A_CHOICE = frozenset({"device", "pretrained_path", "pretrained_revision", "vlm_config"})
"""Fields that say where a policy runs and comes from, or repeat what its backbone says."""


def register_configs() -> None:
    """Import the configuration of every policy; no torch."""
    for package, _ in POLICIES.values():
        importlib.import_module(f"{package}.config")


def config_class(kind: str, *, source: str = "") -> builtins.type[PolicyConfig]:
    """Return the configuration class of a policy type.

    Args:
        kind: as in `--policy.type`.
        source: the file that says so, for the message.

    Raises:
        ConfigError: when there is no such policy, with the nearest name.
    """
    register_configs()
    choices = PolicyConfig.get_known_choices()
    if kind not in choices:
        raise ConfigError(
            f"{source and f'{source}: '}policy type {kind!r} is unknown; expected one of "
            f"{', '.join(sorted(choices))}.{did_you_mean(kind, choices)} Give a checkpoint of one "
            "of these."
        )
    return choices[kind]
