"""The files of a run folder: each is complete or absent, and reading them runs no code."""

from __future__ import annotations

import csv
import json
import logging
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from mvf.config import FORMAT, Config, check_format, config_text, html_table, presets, stored_config
from mvf.data import VideoList, find_config_videos
from mvf.data.records import Manifest, changed_clips, changed_labels, manifest, sides
from mvf.device import resolve_device
from mvf.files import atomic
from mvf.models.engine import config_compute
from mvf.models.mvformer import FrameEmbedder, ModelPerAction, MVFormer
from mvf.models.stored import is_released, listed_heads, model_folder
from mvf.models.weight_files import in_short, load_plain

logger = logging.getLogger(__name__)

HISTORY = ("epoch", "step", "loss", "learning_rate", "grad_norm", "seconds", "frames_per_second")
COMPUTE = ("engine", "precision")
ANYWHERE = ("device", "engine", "workers", "on_change")  # settings that may change when a run resumes
CLIPS = "clips.json"  # the clips of the run's data when it began
READ = {"none": (), "video": ("action",), "phase": ("phases",), "frame": ("action", "phases")}  # marks, by objective
RESTARTED = ("state.pt", "history.csv", "model.safetensors", "metrics.json")  # what a restart deletes
# keys that a state must have
STATE = ("epoch", "step", "history", "model", "loss", "optimizer", "generators")
ACTIONS = "actions"  # folder of the runs of single actions, if there is one model per action
_UNREADABLE = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, RuntimeError, TypeError, ValueError)
REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Run:
    """A training run.

    Attributes:
        model: The model after the last complete epoch; a `ModelPerAction` if the run is `per_action`.
        history: One row per epoch, with keys `HISTORY`.
        folder: Folder of its files.
        config: Its configuration.
    """

    model: FrameEmbedder
    history: list[dict[str, float]]
    folder: Path
    config: Config

    def __repr__(self) -> str:
        return f"Run({self.folder}: {', '.join(map(str, self._about().values()))})"

    def _repr_html_(self) -> str:
        rows = [*self._about().items(), ("model", self.model), ("settings", self.config)]
        return html_table(f"run {self.folder}", rows)

    def _about(self) -> dict[str, object]:
        epochs = len(self.history) or self.config.epochs  # a released head has no history
        trained = f"{epochs} of {self.config.epochs} epochs"
        loss = f", loss {self.history[-1]['loss']:.4f}" if self.history else ""
        return {"data": self.config.dataset, "objective": self.config.objective, "trained": f"{trained}{loss}"}


def default_folder(config: Config) -> Path:
    """`runs/<preset>-<seed>` at the repository root, or in the working directory for an installed package."""
    root = REPOSITORY if (REPOSITORY / "pyproject.toml").exists() else Path.cwd()
    return root / "runs" / f"{config.preset}-{config.seed}"


def results_folder(source: Path) -> Path:
    """Where figures and pages of a model are written: its run folder, the folder of its checkpoint.

    Those of a released head go to `runs/<name>` at the repository root, or in the working directory for an installed
    package.
    """
    if is_released(source):
        return default_folder(Config()).with_name(source.name)
    return source if source.is_dir() else source.parent


def action_config(config: Config, action: str) -> Config:
    """The configuration of the run of one action, if there is one model per action."""
    return replace(config, per_action=False, action=action)


def initial_weights(config: Config, folder: Path) -> Path:
    """Path of `init_from`: a run folder or checkpoint, or a released head by its name.

    The name of a preset stands for its run with the same seed, beside `folder`.

    Raises:
        FileNotFoundError: if there is no such path.
    """
    named = config.init_from in presets()
    path = folder.resolve().parent / f"{config.init_from}-{config.seed}" if named else model_folder(config.init_from)
    if not path.exists():
        train = f"train it first: python -m mvf train {config.init_from} --run-dir {path} -p seed {config.seed}"
        ways = train if named else listed_heads()
        raise FileNotFoundError(f"init_from={config.init_from}: there is no {path}; {ways}")
    return path


def settled(config: Config, folder: Path) -> Config:
    """The configuration with `auto` engine and precision replaced by those of the run in `folder`, or of this machine.

    So a run computes alike to its end, and `config.json` says how. An engine that this machine lacks becomes torch.
    """
    stored = (folder / "config.json").exists()
    compute = _computed_here(read_config(folder)) if stored else config_compute(config)
    chosen = {name: getattr(compute, name) for name in COMPUTE if getattr(config, name) == "auto"}
    return replace(config, **chosen)


def open_folder(folder: Path, config: Config) -> dict[str, Any] | None:
    """The saved state when `folder` holds a run of `config`, None when it is new or has no complete epoch.

    Raises:
        ValueError: when it holds a run of another configuration or of a newer version, a damaged `state.pt`, or files
            that do not belong to a run; nothing is changed then.
    """
    stored = folder / "config.json"
    if not stored.exists():
        strangers = [p.name for p in folder.glob("*") if p.suffix != ".ipynb" and not p.name.startswith(".")]
        if strangers:
            raise ValueError(
                f"{folder} is not a run folder and holds {sorted(strangers)[:3]}: choose a new or empty run_dir"
            )
        return None
    _check_same(read_config(folder), config, folder)
    state = folder / "state.pt"
    return read_state(state) if state.exists() else None


def read_state(path: Path) -> dict[str, Any]:
    """Reads what `write_epoch` stored, and checks it against the checksums in its zip file.

    Raises:
        ValueError: if the file is damaged, of a newer version, or incomplete.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if (broken := archive.testzip()) is not None:
                raise zipfile.BadZipFile(f"{broken} does not match its checksum")
        state = dict(load_plain(path))
    except (*_UNREADABLE, OSError) as error:
        if isinstance(error, OSError) and error.filename:  # the file cannot be opened, so its content is not at fault
            raise
        raise ValueError(
            f"{path} is damaged ({in_short(error)}), so this run cannot resume: restore it from a copy, "
            f"or delete {path.parent} to train from the start (model.safetensors there may still be good)"
        ) from error
    check_format(state, path)
    if missing := [name for name in STATE if name not in state]:
        raise ValueError(
            f"{path} is not a training state: it has no {', '.join(missing)}: restore it from a copy, or delete "
            f"{path.parent} to train from the start"
        )
    return state


def claim_folder(folder: Path, config: Config) -> None:
    """Writes `config.json`; from then on the folder belongs to runs of `config`."""
    if not (folder / "config.json").exists():
        with atomic(folder / "config.json") as path:
            path.write_text(config_text(config))


def list_clips(config: Config, train: VideoList, kept: Mapping[str, str]) -> Manifest:
    """Lists the clips of a run: the training videos, and of a folder of one's own clips those for validation too."""
    if config.dataset != "folder":
        return manifest(train=train)
    return manifest(train=train, val=find_config_videos(config, "val", allow_empty=True, sides=kept))


def read_clips(folder: Path) -> Manifest:
    """The clips that a run saw when it began, by split and name; empty for a run from before they were listed.

    Raises:
        ValueError: if the list is damaged.
    """
    path = folder / CLIPS
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {split: {name: dict(entry) for name, entry in clips.items()} for split, clips in found.items()}
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({error}): restore it from a copy, or delete it") from None


def kept_sides(folder: Path, config: Config) -> dict[str, str]:
    """The split of each clip that a run saw, as long as `config` reads the run's own data; else empty."""
    if not (folder / CLIPS).exists():
        return {}
    own = read_config(folder)
    same = all(getattr(own, name) == getattr(config, name) for name in ("dataset", "data_root"))
    return sides(read_clips(folder)) if same else {}


def check_clips(folder: Path, config: Config, records: VideoList, labels: str) -> None:
    """Lists the clips of a new run; compares those of an old one with what is there now, as `on_change` says.

    A change that training does not read is only said: of validation clips, and of labels that the objective ignores.

    Args:
        folder: The run folder.
        config: Its configuration.
        records: The training videos that are there now.
        labels: The labels that the objective reads (`Objective.labels`).

    Raises:
        ValueError: if training clips have changed and `on_change` is "refuse".
    """
    before = read_clips(folder)
    if not before and any((folder / name).exists() for name in RESTARTED):
        return  # a run from before clips were listed
    now = list_clips(config, records, sides(before))
    if not before:
        _write_clips(folder, now)
        return
    changes = changed_clips(before, now) + changed_labels(before, now)
    trained = {"train": before["train"]}, {"train": now["train"]}
    matters = changed_clips(*trained) + changed_labels(*trained, READ[labels])
    said = f"the data of {folder} have changed since its training began: {'; '.join(changes)}"
    if matters and config.on_change == "refuse":
        raise ValueError(
            f"{said}. Its model has not seen that. Use on_change=continue to keep the model and go on with the data as "
            "they are now, on_change=restart to train it from the start, or another run_dir"
        )
    if not changes:
        return
    if not matters:
        logger.warning("%s; training does not read that, so the model stays as it is", said)
        return
    if config.on_change == "restart":
        logger.warning("%s; it is trained from the start", said)
        for name in RESTARTED:
            (folder / name).unlink(missing_ok=True)
    else:
        logger.warning("%s; the model is kept, and epochs that are left are trained on the data as they are now", said)
    _write_clips(folder, now)


def _write_clips(folder: Path, clips: Manifest) -> None:
    with atomic(folder / CLIPS) as path:
        path.write_text(json.dumps(clips, indent=1))


def read_config(folder: str | Path) -> Config:
    """The configuration of a run folder.

    Raises:
        ValueError: when `folder` holds no run, or one of a newer version.
    """
    path = Path(folder) / "config.json"
    if not path.exists():
        raise ValueError(
            f"{folder} is not a run folder (it has no config.json): give the run_dir of a run; {listed_heads()}"
        )
    config = stored_config(path)
    if is_released(Path(folder)):  # computed as this machine does it best
        return replace(config, **config_compute(config)._asdict())
    if config.engine == "auto":  # from before there were engines
        config = replace(config, engine="torch")
        if config.precision == "auto" and resolve_device(config.device).type == "cpu":
            config = replace(config, precision="bf16" if torch.cpu._is_amx_tile_supported() else "fp32")
    return config


def write_epoch(folder: Path, model: MVFormer, history: Sequence[Mapping[str, float]], state: dict[str, Any]) -> None:
    """Stores a complete epoch; `state.pt` comes first, because resuming reads no other file."""
    with atomic(folder / "state.pt") as path:
        torch.save({"format": FORMAT, **state}, path)
    write_history(folder, history)
    model.save_pretrained(folder)


def write_history(folder: Path, history: Sequence[Mapping[str, float]]) -> None:
    """Writes `history.csv`."""
    with atomic(folder / "history.csv") as path, open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, HISTORY)
        writer.writeheader()
        writer.writerows(history)


def read_history(folder: str | Path) -> list[dict[str, float]]:
    """Reads the rows of `history.csv`.

    Raises:
        ValueError: if it is not a table of numbers; the message names the file.
    """
    path = Path(folder) / "history.csv"
    try:
        with open(path, newline="", encoding="utf-8") as file:
            return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
    except (ValueError, TypeError, csv.Error) as error:
        raise ValueError(f"{path} is not a table of numbers ({error}): resume the run, which writes it again") from None


def load_run(folder: str | Path) -> Run:
    """Loads a run as it was after its last complete epoch.

    Args:
        folder: The run folder, or the name of a released head, which has no history.

    Raises:
        ValueError: when `folder` holds no run, or one without a complete epoch.
    """
    folder = model_folder(folder)
    config = read_config(folder)
    written = "history.csv" if config.per_action else "model.safetensors"
    if not (folder / written).exists():
        raise ValueError(f"{folder} holds a run without a complete epoch: train it first (the same command resumes it)")
    model: FrameEmbedder = load_actions(folder) if config.per_action else MVFormer.from_pretrained(folder)
    use_engine(model, config)
    history = read_history(folder) if (folder / "history.csv").exists() else []
    return Run(model, history, folder, config)


def use_engine(model: FrameEmbedder, config: Config) -> None:
    """Lets the engine of a configuration compute a model's frozen features; torch where this machine lacks it."""
    name = config_compute(_computed_here(config)).engine
    for action in model.actions or ("",):
        if (backbone := model.of(action).backbone) is not None:
            backbone.use_engine(name)


def _computed_here(config: Config) -> Config:
    """The configuration of a run, with torch where this machine lacks its engine; a line says so."""
    try:
        config_compute(config)
    except ValueError as error:
        logger.warning("%s; torch computes this run here", error)
        return replace(config, engine="torch")
    return config


def load_actions(folder: Path) -> ModelPerAction:
    """Loads the models of a run with one model per action."""
    parts = sorted(path.parent for path in (folder / ACTIONS).glob("*/config.json"))
    return ModelPerAction({read_config(part).action: MVFormer.from_pretrained(part) for part in parts})


def _check_same(stored: Config, wanted: Config, folder: Path) -> None:
    before, now = stored.as_dict(), wanted.as_dict()
    changed = [k for k in now if before[k] != now[k] and k not in ANYWHERE]
    if changed:
        listed = ", ".join(f"{k} (there {before[k]!r}, here {now[k]!r})" for k in changed)
        raise ValueError(
            f"{folder} holds a run of another configuration: {listed}. Choose another run_dir, or delete that folder"
        )
