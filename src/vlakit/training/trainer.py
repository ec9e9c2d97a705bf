# SPDX-License-Identifier: Apache-2.0
"""The training loop, as five verbs: fit, step, log, save, resume."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from safetensors.torch import save_file

from vlakit.checkpoints.random_state import kept_random_state
from vlakit.checkpoints.run_folder import (
    CHECKPOINTS,
    OWN_CONFIG,
    PRETRAINED_MODEL,
    TRAIN_CONFIG,
    TRAINING_STATE,
    checkpoint_name,
    write_checkpoint,
)
from vlakit.checkpoints.training_state import (
    load_optimizer,
    load_random_state,
    load_scheduler,
    load_training_step,
    read_tensors,
    save_training_state,
)
from vlakit.datasets.sampler import EpochSampler
from vlakit.errors import ConfigError, TrainingError
from vlakit.files import write_json
from vlakit.policies.base import Policy
from vlakit.processing.pipeline import Pipeline
from vlakit.progress import progress_bar
from vlakit.training.batches import BatchReader, evaluation_batches, training_batches
from vlakit.training.config import TrainFlags, split_by_reader
from vlakit.training.ema import MovingAverage
from vlakit.training.memory import resident_memory
from vlakit.training.metrics import LOG_FILE, Averages, LogFile, WandB, log_line
from vlakit.training.optimizer import has_fused_update, make_optimizer
from vlakit.training.profile import StepProfiler, Timer, untimed
from vlakit.training.profile_report import PROFILE_FILE
from vlakit.training.schedule import make_scheduler, schedule_multiplier
from vlakit.training.setup import TrainingData
from vlakit.training.step import StepResult, autocast, train_step

EMA_MODEL = "pretrained_model_ema"
EMA_STATE = "ema_state.safetensors"

Rollouts = Callable[[Policy, Pipeline, Pipeline, int], dict[str, Any]]
"""(policy, preprocess, postprocess, step) -> numbers to log; wired up by the command line."""


class Trainer:
    """Trains one policy on one dataset, from the first step or from a checkpoint."""

    def __init__(
        self,
        flags: TrainFlags,
        policy: Policy,
        processors: tuple[Pipeline, Pipeline],
        data: TrainingData,
        output_dir: Path,
        *,
        rollouts: Rollouts | None = None,
        console: Console | None = None,
    ) -> None:
        """Make optimiser and schedule; nothing is written yet.

        Args:
            flags: With `optimizer`, `scheduler`, `seed` and the policy's settings filled in.
            policy: On its device.
            processors: Preprocessor and postprocessor.
            data: What to train on.
            output_dir: Folder of checkpoints and log.
            rollouts: Called every `env_eval_freq` steps and at the end.
            console: Where to report; standard error when None.
        """
        assert flags.optimizer is not None
        assert flags.scheduler is not None
        assert flags.policy is not None
        self.flags, self.policy, self.data, self.output_dir = flags, policy, data, output_dir
        self.preprocess, self.postprocess = processors
        self.rollouts = rollouts
        self.console = console or Console(stderr=True)
        self.device = torch.device(flags.policy.device or "cpu")
        wanted = flags.fused_optimizer
        fused = has_fused_update(self.device) if wanted is None else wanted
        self.optimizer = make_optimizer(flags.optimizer, policy.parameters(), fused=fused)
        self.scheduler = make_scheduler(self.optimizer, flags.scheduler, flags.steps)
        self.ema = MovingAverage(policy, flags.ema.decay) if flags.ema.enable else None
        self.profiler: StepProfiler | None = None
        self.done = 0
        self.saved_batch_size = flags.batch_size
        self.last_checkpoint: Path | None = None

    def fit(self) -> None:
        """Run the steps that are left; logs, evaluates and saves on the way."""
        flags = self.flags
        self.log_file = LogFile(self.output_dir / LOG_FILE, resumed_step=self.done)
        self.wandb = WandB(flags, self.output_dir) if flags.wandb.enable else None
        num_frames = len(self.data.train)
        if flags.batch_size > num_frames:
            self._note(
                f"--batch_size={flags.batch_size} is more than the {num_frames} frames to train "
                "on: every step sees each of them once"
            )
        self.averages = Averages(min(flags.batch_size, num_frames), num_frames)
        self.policy.train()
        if flags.profile:
            self.profiler = StepProfiler(
                self.policy,
                self.preprocess,
                num_steps=flags.profile_steps,
                precision=self._precision,
            )
        with progress_bar(
            self.console, "{task.fields[status]}", only_on_terminal=True
        ) as self.progress:
            self.bar = self.progress.add_task(
                "training", total=flags.steps, completed=self.done, status=""
            )
            batches, waiting_since = self.batches(), time.perf_counter()
            for batch in batches:
                data_s = time.perf_counter() - waiting_since
                result = self._profiled_step(batch, data_s) if self.profiler else self.step(batch)
                self._check_known_numbers(result)
                self.log(result, data_s)
                with self._paused():
                    self._visit_stations(result)
                waiting_since = time.perf_counter()

    def batches(self) -> Iterator[dict[str, Any]]:
        """Return the preprocessed batches of the steps that are left."""
        flags, seed = self.flags, self.flags.seed or 0
        order = EpochSampler(
            len(self.data.train), seed, flags.batch_size, start_step=self._position()
        )
        return training_batches(
            BatchReader(self.data.train, flags.dataset.image_transforms, seed),
            order,
            flags,
            first_step=self.done,
            preprocess=self.preprocess,
            note=self._note,
        )

    def _position(self) -> int:
        """Return the steps of this batch size that have seen as many samples of the epoch."""
        saved, present = self.saved_batch_size, self.flags.batch_size
        if saved == present:
            return self.done
        num_frames = len(self.data.train)
        epoch, step = divmod(self.done, -(-num_frames // saved))
        return epoch * -(-num_frames // present) + step * saved // present

    def step(self, batch: dict[str, Any], *, timer: Timer = untimed) -> StepResult:
        """Update the weights (and their average) with one batch."""
        assert self.flags.optimizer is not None
        result = train_step(
            self.policy,
            batch,
            self.optimizer,
            self.scheduler,
            grad_clip_norm=self.flags.optimizer.grad_clip_norm,
            precision=self._precision(),
            timer=timer,
        )
        self.done += 1
        with timer("other"):
            if self.ema is not None:
                self.ema.update(self.policy)
        return result

    def _precision(self) -> AbstractContextManager[Any]:
        flags = self.flags
        dtype = getattr(flags.policy, "dtype", "auto")
        return autocast(self.device, dtype, flags.accelerator.mixed_precision)

    def _profiled_step(self, batch: dict[str, Any], data_s: float) -> StepResult:
        assert self.profiler is not None
        with self._paused():
            self.profiler.before_step(batch, data_s)
        result = self.step(batch, timer=self.profiler.phase)
        if self.profiler.after_step() or self.done == self.flags.steps:
            with self._paused():
                self._report_profile()
        return result

    def _report_profile(self) -> None:
        """Write and print what was profiled; the steps that follow are not."""
        assert self.profiler is not None
        report = self.profiler.finish()
        self.profiler = None
        write_json(self.output_dir / PROFILE_FILE, report.to_json())
        self.console.print(report.table())

    def log(self, result: StepResult, data_s: float) -> None:
        """Take one step's numbers in; writes a line every `log_freq` steps."""
        self.averages.add(result, data_s)
        is_due = _due(self.done, self.flags.log_freq) or self.done == self.flags.steps
        if not is_due:
            self.progress.update(self.bar, completed=self.done)
            return
        entry = self.averages.flush(self.done) | resident_memory()
        self._write(entry)
        status = f"loss {entry['loss']:.4f}  {entry['samples_per_s']:.1f} samples/s"
        self.progress.update(self.bar, completed=self.done, status=status)
        if not self.console.is_terminal:
            self.console.print(log_line(entry), highlight=False, soft_wrap=True)

    def save(self) -> Path:
        """Write a checkpoint of the present step; a kill meanwhile leaves the one before."""
        name = checkpoint_name(self.done, self.flags.steps)
        self.last_checkpoint = write_checkpoint(self.output_dir / CHECKPOINTS, name, self._fill)
        return self.last_checkpoint

    def resume(self, checkpoint: Path) -> None:
        """Go on from a checkpoint whose weights the policy already has.

        Raises:
            CheckpointError: Its training state is missing, damaged or of another policy.
            ConfigError: It has all the steps already.
        """
        state = checkpoint / TRAINING_STATE
        self.done, self.saved_batch_size = load_training_step(state)
        if self.done >= self.flags.steps:
            raise ConfigError(
                f"{checkpoint} has done {self.done} steps and --steps={self.flags.steps} asks for "
                f"no more; give --steps above {self.done} to go on."
            )
        if new := load_optimizer(state, self.optimizer):
            self._note(f"the optimiser starts anew for {new} parameters that {state} lacks")
        load_scheduler(state, self.scheduler)
        self._set_rates()
        if self.ema is not None and (checkpoint / EMA_MODEL).is_dir():
            self.ema.load_state_dict(read_tensors(state / EMA_STATE))
        elif self.ema is not None:
            self._note("the checkpoint has no moving average; it starts from its weights")
        load_random_state(state)
        self.last_checkpoint = checkpoint

    def _note(self, text: str) -> None:
        self.console.print(f"note: {text}", highlight=False, soft_wrap=True)

    def _set_rates(self) -> None:
        """Give the next step the rate of this run's schedule: other --steps make another curve.

        LeRobot does the first resumed step with the saved rate, 0 where a finished run goes on.
        """
        assert self.flags.scheduler is not None
        multiplier = schedule_multiplier(self.flags.scheduler, self.flags.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * multiplier(self.done)

    def _visit_stations(self, result: StepResult) -> None:
        """Do what is due after a step: held-out loss, checkpoint, rollouts.

        Raises:
            TrainingError: The loss is not finite. All of it is looked at where something is due: a
                look at every step would make a GPU wait.
        """
        flags, is_last = self.flags, self.done == self.flags.steps
        saves = flags.save_checkpoint and (is_last or _due(self.done, flags.save_freq))
        if saves or is_last or _due(self.done, flags.log_freq):
            self._check_finite(result)
        if self.data.held_out is not None and _due(self.done, flags.eval_steps):
            self._write({"step": self.done, "eval_loss": self.held_out_loss()})
        if saves:
            self.save()
        rolls = _due(self.done, flags.env_eval_freq) or (is_last and flags.env_eval_freq > 0)
        if self.rollouts is not None and rolls:
            self._write({"step": self.done, "rollouts": self._roll_out(self.rollouts)})

    def _check_known_numbers(self, result: StepResult) -> None:
        """Look at a step's numbers where that waits for no device."""
        if self.device.type == "cpu":
            self._check_finite(result)

    def _check_finite(self, result: StepResult) -> None:
        if torch.isfinite(result.loss) and torch.isfinite(result.grad_norm):
            return
        raise TrainingError(
            f"loss {float(result.loss)}, gradient norm {float(result.grad_norm)} at step "
            f"{self.done}: the weights are lost. The last checkpoint is "
            f"{self.last_checkpoint or 'none'}; try a smaller --policy.optimizer_lr, and look for "
            "NaN in the dataset."
        )

    @torch.no_grad()
    def held_out_loss(self) -> float:
        """Return the mean loss over the held-out frames, with the same noise every time."""
        assert self.data.held_out is not None
        flags, total, count = self.flags, 0.0, 0
        with kept_random_state(), self._evaluating():
            torch.manual_seed(flags.seed or 0)
            for raw in evaluation_batches(
                self.data.held_out, flags.batch_size, flags.max_eval_samples
            ):
                size = len(raw["task"])
                with self._precision():
                    loss, _ = self.policy.forward(self.preprocess(raw))
                total, count = total + float(loss) * size, count + size
        return total / count

    def _roll_out(self, rollouts: Rollouts) -> dict[str, Any]:
        self.progress.stop()  # rollouts have a bar of their own
        try:
            with kept_random_state(), self._evaluating():
                return rollouts(self.policy, self.preprocess, self.postprocess, self.done)
        finally:
            self.progress.start()

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        """Put the policy in evaluation mode, with the averaged weights where there are any."""
        self.policy.eval()
        try:
            with self.ema.applied_to(self.policy) if self.ema else nullcontext():
                yield
        finally:
            self.policy.train()

    @contextmanager
    def _paused(self) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.averages.pause(time.perf_counter() - started)

    def _write(self, entry: dict[str, Any]) -> None:
        self.log_file.write(entry)
        if self.wandb is not None:
            self.wandb.write(entry)

    def _fill(self, folder: Path) -> None:
        self._fill_model(folder / PRETRAINED_MODEL)
        state = folder / TRAINING_STATE
        save_training_state(
            state,
            optimizer=self.optimizer,
            scheduler=self.scheduler,
            step=self.done,
            batch_size=self.flags.batch_size,
        )
        if self.ema is not None:
            save_file(self.ema.state_dict(), state / EMA_STATE)
            with self.ema.applied_to(self.policy):
                self._fill_model(folder / EMA_MODEL)

    def _fill_model(self, folder: Path) -> None:
        self.policy.save_pretrained(folder)
        self.preprocess.save(folder)
        self.postprocess.save(folder)
        for name, content in zip(
            (TRAIN_CONFIG, OWN_CONFIG), split_by_reader(self.flags), strict=True
        ):
            write_json(folder / name, content)


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0
