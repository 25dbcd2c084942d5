"""Training: starts or resumes a run in its folder, with one model or one model per action."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from pathlib import Path

from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import InitProcessGroupKwargs

from mvf.config import Config
from mvf.data import find_config_videos
from mvf.data.records import VideoRecord
from mvf.device import resolve_device
from mvf.files import held, short_name
from mvf.models.motion import MotionMap
from mvf.training.run import (
    ACTIONS,
    Run,
    action_config,
    check_clips,
    claim_folder,
    default_folder,
    initial_weights,
    kept_sides,
    load_actions,
    open_folder,
    settled,
    write_history,
)
from mvf.training.trainer import Row, Trainer

PATIENCE = timedelta(days=7)  # how long processes wait for the one that makes a bank
OnEpoch = Callable[[Row], None] | None


def train(config: Config, run_dir: str | Path = "", on_epoch: OnEpoch = None) -> Run:
    """Trains a model, or resumes (or returns) the run that `run_dir` already holds.

    With `config.per_action` every action gets a run of its own below `run_dir`; the model is then a `ModelPerAction`,
    and the history is the mean over actions, which `on_epoch` gets when all are trained.

    Args:
        config: The configuration; a folder that holds a run of another configuration is refused.
        run_dir: Folder of the run's files; empty: `runs/<preset>-<seed>` at the repository root.
        on_epoch: Called with every new row of the history.

    Raises:
        ValueError: for a bad configuration, data or folder.
        OSError: when another process trains in that folder, or it cannot be written.
        FloatingPointError: when the loss is not finite; the message names step and videos.
        ChildProcessError: when a worker that reads data failed or died.
    """
    folder = Path(run_dir) if run_dir else default_folder(config)
    device = resolve_device(config.device)
    config = settled(config, folder)
    mixed = "no" if config.precision == "fp32" else config.precision
    patience = InitProcessGroupKwargs(timeout=PATIENCE)
    AcceleratorState._reset_state()  # else a second run in this process could not have another precision
    accelerator = Accelerator(cpu=device.type == "cpu", mixed_precision=mixed, kwargs_handlers=[patience])
    one = _train_each_action if config.per_action else _train_one
    with _held_by_main(folder, accelerator):
        return one(config, folder, accelerator, on_epoch)


def _held_by_main(folder: Path, accelerator: Accelerator) -> AbstractContextManager[None]:
    """The processes of a run share its folder, so only the main process holds it."""
    return held(folder) if accelerator.is_main_process else nullcontext()


def _train_one(
    config: Config,
    folder: Path,
    accelerator: Accelerator,
    on_epoch: OnEpoch,
    start: Path | None = None,
    every_action: Sequence[VideoRecord] = (),
    motion: MotionMap | None = None,
) -> Run:
    """Trains one model; its motion skip is `motion`, or fitted on `every_action`, or on its own training videos."""
    open_folder(folder, config)  # refuses a folder of another run, and a damaged one
    trainer = Trainer(config, folder, accelerator, start)  # refuses bad settings before anything is written
    if accelerator.is_main_process:
        claim_folder(folder, config)
        check_clips(folder, config, trainer.records, trainer.loss.labels)
    accelerator.wait_for_everyone()  # a restart deletes the state
    if (state := open_folder(folder, config)) is not None:
        trainer.load_state(state)
    try:
        trainer.fit(on_epoch)
        trainer.add_motion(every_action or trainer.records, motion)
    except RuntimeError as error:
        if "DataLoader worker (pid" not in str(error):
            raise
        raise ChildProcessError(
            f"a worker that reads data died ({str(error).splitlines()[0]}), usually for lack of memory: use fewer "
            f"workers (now {config.workers}; 0 needs none); {folder} keeps the last complete epoch, from which the "
            "same command resumes"
        ) from error
    accelerator.wait_for_everyone()  # until the main process has written the last epoch
    return Run(trainer.model, trainer.history, folder, config)


def _train_each_action(config: Config, folder: Path, accelerator: Accelerator, on_epoch: OnEpoch) -> Run:
    open_folder(folder, config)  # refuses a folder of another run
    records = find_config_videos(config, "train", sides=kept_sides(folder, config))
    actions = sorted({record.action for record in records})
    start = initial_weights(config, folder) if config.init_from else None
    if accelerator.is_main_process:
        claim_folder(folder, config)
        check_clips(folder, config, records, "video")  # every action has a model
    histories: list[list[Row]] = []
    motion = None  # one skip for all actions
    for action in actions:
        own = action_config(config, action)
        name = Path(ACTIONS, short_name(re.sub(r"[^\w.-]", "_", action)))
        first = start / name if start and (start / ACTIONS).exists() else start
        part = folder / name
        with _held_by_main(part, accelerator):
            run = _train_one(own, part, accelerator, None, first, records, motion)
        histories.append(run.history)
        motion = run.model.of(action).motion
    history = [
        {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]} | {"epoch": rows[0]["epoch"]}
        for rows in zip(*histories)
    ]
    if accelerator.is_main_process:
        write_history(folder, history)
    if on_epoch is not None and accelerator.is_main_process:
        for row in history:
            on_epoch(row)
    return Run(load_actions(folder), history, folder, config)
