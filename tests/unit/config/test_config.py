# SPDX-License-Identifier: Apache-2.0
"""Flags, files and JSON to dataclasses and back, and every message a user can meet on the way."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Literal

import draccus
import pytest

from vlakit.config import ACCEPTED_UNUSED_KEYS, clean_keys, decode, encode, parse_flags
from vlakit.config.schema import field_docs, walk_flags
from vlakit.errors import ConfigError


class Mode(Enum):
    FAST = "fast"
    SLOW = "slow"


@dataclass(frozen=True, kw_only=True)
class Engine(draccus.ChoiceRegistry):
    device: str | None = None
    """Where it runs."""


@Engine.register_subclass("steam")
@dataclass(frozen=True, kw_only=True)
class Steam(Engine):
    pressure: int = 8
    """Pressure
    in bar."""
    kind: Literal["low", "high"] = "low"
    limits: dict[str, str] = field(default_factory=lambda: {"a": "x", "b": "y"})
    betas: tuple[float, float] = (0.9, 0.99)
    mode: Mode = Mode.FAST

    def __post_init__(self) -> None:
        if self.pressure < 1:
            raise ConfigError(f"--engine.pressure={self.pressure} must be 1 or more.")


@Engine.register_subclass("diesel")
@dataclass(frozen=True, kw_only=True)
class Diesel(Engine):
    cylinders: int = 4


@dataclass(frozen=True, kw_only=True)
class Track:
    repo_id: str
    """Which one."""
    episodes: list[int] | None = None


@dataclass(frozen=True, kw_only=True)
class Flags:
    track: Track
    engine: Engine | None = None
    steps: int = 10
    lr: float = 1.0
    verbose: bool = False
    name: str | None = None
    out: Path | None = None
    rename_map: dict[str, str] = field(default_factory=dict)


BASE = ["--track.repo_id=a"]


def parse(*arguments: str, **kwargs: Any) -> Flags:
    return parse_flags(Flags, [*BASE, *arguments], prog="test", **kwargs)


def test_a_boolean_that_stands_alone_is_true() -> None:
    assert parse("--verbose", "--steps=3") == parse("--steps=3", "--verbose")
    assert parse("--verbose").verbose
    assert not parse("--verbose", "false").verbose


def test_flags_take_an_equals_sign_or_a_space() -> None:
    flags = parse("--steps=3", "--lr", "1e-4", "--verbose", "true", "--out=folder")
    assert (flags.steps, flags.lr, flags.verbose) == (3, 1e-4, True)
    assert flags.out == Path("folder")


@pytest.mark.parametrize(("text", "value"), [("true", True), ("False", False), ("True", True)])
def test_booleans_are_spelt_as_lerobot_takes_them(text: str, value: bool) -> None:
    assert parse(f"--verbose={text}").verbose is value


def test_lists_and_dictionaries_are_json() -> None:
    flags = parse("--track.episodes=[0, 2]", '--rename_map={"a": "b"}')
    assert flags.track.episodes == [0, 2]
    assert flags.rename_map == {"a": "b"}


def test_null_is_none_and_text_stays_text() -> None:
    assert parse("--name=null").name is None
    assert parse("--name=007").name == "007"
    assert parse("--name=2026-11-21").name == "2026-11-21"


def test_type_selects_one_of_the_family() -> None:
    engine = parse("--engine.type=steam", "--engine.betas=[0.1, 0.2]", "--engine.mode=SLOW").engine
    assert engine == Steam(betas=(0.1, 0.2), mode=Mode.SLOW)


def test_a_dotted_name_changes_one_entry_of_a_default_dictionary() -> None:
    engine = parse("--engine.type=steam", "--engine.limits.a=z").engine
    assert isinstance(engine, Steam)
    assert engine.limits == {"a": "z", "b": "y"}


def test_a_whole_dictionary_replaces_the_default() -> None:
    engine = parse("--engine.type=steam", '--engine.limits={"c": "z"}').engine
    assert isinstance(engine, Steam)
    assert engine.limits == {"c": "z"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--stps=3"], "unknown flag --stps. Did you mean '--steps'?"),
        (["--engine.type=steam", "--engine.presure=3"], "Did you mean '--engine.pressure'?"),
        (["--engine.type=steam", "--engine.cylinders=3"], "unknown flag --engine.cylinders"),
        (["--engine.type=stream"], "--engine.type=stream is unknown: expected one of diesel, "
                                   "steam. Did you mean 'steam'?"),
        (["--engine.device=cpu"], "--engine.type is missing: expected one of diesel, steam."),
        (["--steps=1e3"], "--steps=1e3: expected int."),
        (["--steps=2.5"], "--steps=2.5: expected int."),
        (["--verbose=maybe"], "--verbose=maybe: expected bool."),
        (["--steps", "--lr=2"], "--steps has no value; write --steps=..., e.g. --steps=true."),
        (["--engine.type=steam", "--engine.pressure"], "--engine.pressure has no value"),
        (["steps=3"], "'steps=3' is not a flag; flags look like --name=value."),
        (["--track.episodes=5"], "--track.episodes=5: expected list[int] or null."),
        (["--engine.type=steam", "--engine.kind=lo"], "expected one of low, high."),
        (["--engine.type=steam", "--engine.pressure=0"], "--engine.pressure=0 must be 1 or more."),
        (["--config_path=nowhere.json"], "--config_path=nowhere.json is not a file"),
    ],
)  # fmt: skip
def test_a_wrong_flag_is_one_clear_line(arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(*arguments)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_required_flag_is_named() -> None:
    with pytest.raises(ConfigError, match=r"--track\.repo_id is required \(str\)\. Which one\."):
        parse_flags(Flags, [], prog="test")


def test_flags_win_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("track: {repo_id: b}\nsteps: 5\nlr: 1.0e-3\nengine: {type: diesel}\n")
    flags = parse_flags(Flags, [f"--config_path={path}", "--steps=7"], prog="test")
    assert flags == Flags(track=Track(repo_id="b"), steps=7, lr=1e-3, engine=Diesel())


def test_an_unknown_key_of_a_file_is_named_with_the_nearest(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text(json.dumps({"track": {"repo_id": "b"}, "engine": {"type": "steam", "pres": 1}}))
    with pytest.raises(ConfigError) as caught:
        parse_flags(Flags, [f"--config_path={path}"], prog="test")
    assert str(caught.value).startswith(f"unknown key 'engine.pres' in {path}.")


def test_a_file_that_is_no_json_is_named(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text('{"track": ')
    with pytest.raises(ConfigError, match=r"run\.json cannot be parsed: .* Expected YAML or JSON"):
        parse_flags(Flags, [f"--config_path={path}"], prog="test")


def test_prepare_may_take_flags_out_that_are_no_fields() -> None:
    def prepare(raw: dict[str, Any]) -> dict[str, Any]:
        engine = dict(raw["engine"])
        return raw | {"engine": {"type": engine.pop("path"), **engine}}

    flags = parse(
        "--engine.path=steam",
        "--engine.pressure=3",
        prepare=prepare,
        extra_flags={"engine.path": ""},
    )
    assert flags.engine == Steam(pressure=3)


def test_json_and_back_is_the_same() -> None:
    flags = Flags(
        track=Track(repo_id="a", episodes=[1]), engine=Steam(mode=Mode.SLOW), out=Path("x")
    )
    content = json.loads(json.dumps(encode(flags)))
    assert content["engine"]["type"] == "steam"
    assert content["engine"]["mode"] == "SLOW"
    assert content["engine"]["betas"] == [0.9, 0.99]
    assert decode(Flags, content) == flags


def test_decode_names_the_source_of_a_wrong_value() -> None:
    with pytest.raises(ConfigError, match=r"in a\.json: pressure=x: expected int"):
        decode(Steam, {"pressure": "x"}, source="a.json")


def test_decode_takes_a_family_by_type() -> None:
    assert decode(Engine, {"type": "diesel", "cylinders": 6}) == Diesel(cylinders=6)
    with pytest.raises(ConfigError, match="type=petrol is unknown"):
        decode(Engine, {"type": "petrol"})


def test_keys_that_lerobot_writes_and_nobody_reads_are_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(ACCEPTED_UNUSED_KEYS, "Track", {"old_key": "0.4"})
    assert clean_keys(Track, {"repo_id": "a", "old_key": 3}, source="x") == {"repo_id": "a"}
    with pytest.raises(ConfigError, match="unknown key 'older_key' in x"):
        clean_keys(Track, {"repo_id": "a", "older_key": 3}, source="x")


def test_help_comes_from_the_docstring_under_the_field() -> None:
    assert field_docs(Steam)["pressure"] == "Pressure in bar."
    assert field_docs(Steam)["device"] == "Where it runs."


def test_help_shows_the_flags_of_the_chosen_type_only(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse("--engine.type=steam", "--help", summary="Runs.")
    text = capsys.readouterr().out
    assert caught.value.code == 0
    assert "Runs." in text
    assert "--engine.pressure  (int; default 8)" in text
    assert "cylinders" not in text
    assert "--track.repo_id  (str; required)" in text


def test_walk_names_every_flag_once() -> None:
    names = [flag.name for flag in walk_flags(Flags, {"engine": {"type": "steam"}})]
    assert len(names) == len(set(names))
    assert {"track.repo_id", "engine.type", "engine.betas", "rename_map"} <= set(names)
