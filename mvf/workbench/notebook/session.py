"""Steps that notebooks and shell commands share: opening a model, embedding a data set, reporting on it."""

from __future__ import annotations

import ast
import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from statistics import median
from types import MappingProxyType
from typing import Any

from IPython import get_ipython
from IPython.core.interactiveshell import InteractiveShell

from mvf.bank import FeatureBank
from mvf.config import DATA_FIELDS, OPEN_FIELDS, Config, cast, load_config, make_config, nearest
from mvf.cost import milliseconds_per_frame, model_cost
from mvf.data import VideoList, find_config_videos
from mvf.data.datasets.folder import TABLE, discover
from mvf.data.records import Manifest, VideoRecord, changed_clips, changed_labels, digest, manifest
from mvf.data.video import image_files, open_source
from mvf.device import resolve_device
from mvf.embedding import EmbeddedVideo, backbone_of, embed, fingerprint
from mvf.evaluation import evaluate, read_report, write_report
from mvf.evaluation.knockouts import knock_outs
from mvf.files import atomic, expand_user
from mvf.models import load_official_checkpoint
from mvf.models.mvformer import FrameEmbedder
from mvf.models.stored import is_released, listed_heads, model_folder
from mvf.training.run import (
    ACTIONS,
    default_folder,
    kept_sides,
    load_run,
    read_config,
    read_history,
    results_folder,
    use_engine,
)
from mvf.workbench.plotting.scores import score_words, skipped_lines
from mvf.workbench.plotting.table import Folded, config_table, minus

PROTOCOL = "5"  # is raised when the report of the same model on the same data would change
CARD = "README.md"  # of a released head
CHECKPOINTS = (".pth", ".pt", ".pyth")
MOST_LISTED = 8  # runs

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Splits:
    """Training and validation videos of a data set, as records and as embedded videos."""

    train_records: VideoList
    val_records: VideoList
    train: list[EmbeddedVideo]
    val: list[EmbeddedVideo]
    cache: FeatureBank | None

    @property
    def everything(self) -> tuple[list[VideoRecord], list[EmbeddedVideo]]:
        """All videos, training videos first; a validation video that shares a training video's name is `val/NAME`."""
        taken = {known.name for known in (*self.train_records, *self.train)}  # names are unique within a split
        records = [replace(r, name=f"val/{r.name}") if r.name in taken else r for r in self.val_records]
        videos = [replace(v, name=f"val/{v.name}") if v.name in taken else v for v in self.val]
        return [*self.train_records, *records], [*self.train, *videos]


def open_model(source: str | Path, **data: Any) -> tuple[FrameEmbedder, Config]:
    """Opens a model from a run folder, a released head or an official checkpoint, with the configuration of its data.

    Args:
        source: Run folder, name of a released head, or `.pth` file.
        **data: Data keys that replace the run's own: dataset, data_root, data_seed, ...

    Raises:
        ValueError: if `source` is neither, or a setting belongs to the trained model.
    """
    source = Path(source)
    model: FrameEmbedder
    data = {name: value for name, value in data.items() if value not in ("", None)}
    for name in data:
        if name not in (*OPEN_FIELDS, "backbone_weights"):
            raise ValueError(f"{name} belongs to a trained model: train another one with -p {name} {data[name]}")
    if source.suffix in CHECKPOINTS:
        weights = data.pop("backbone_weights", "")
        model = load_official_checkpoint(source, backbone_weights=weights)
        config = load_config(data.get("dataset", "penn"), **data)
        own = asdict(model.architecture)
        own = {f.name: own[f.name] for f in fields(Config) if f.name in own}
        own |= {name: getattr(model.backbone, name) for name in ("layers", "image_size")}
        config = replace(config, **own, backbone=backbone_of(model).name, backbone_weights=weights)
    else:
        run = load_run(source)
        model, config = run.model, with_data(run.config, **data)
    use_engine(model, config)
    return model.to(resolve_device(config.device)), config


def file_record(path: Path, config: Config) -> VideoRecord:
    """The record of one file, or one folder of images, of the action that the configuration names, if it names one.

    Raises:
        ValueError: if it cannot be read.
    """
    if path.is_dir() and not image_files(path) and (videos := discover(path)[0]):
        raise ValueError(f"{path} is a folder of {len(videos)} videos: name one of them, like {path / videos[0]}")
    return VideoRecord(path.stem if path.is_file() else path.name, config.action, open_source(path, config.fps))


def check_actions(source: str | Path, model: FrameEmbedder, records: Sequence[VideoRecord]) -> None:
    """Raises ValueError if a run has one model per action, and none for the action of a video; says what to do."""
    for record in records if model.actions else ():
        if record.action not in model.actions:
            shows = f'shows "{record.action}"' if record.action else "has no action"
            raise ValueError(
                f"{source} has one model per action, and {record.name} {shows}: add -p action "
                f"{'|'.join(model.actions)} for one file; for a folder fill the column action of its {TABLE}"
            )


def with_data(config: Config, **data: Any) -> Config:
    """Moves `config` to other data: the data keys of the other data set's preset, then `data`."""
    if not data:
        return config
    keys = {}
    if data.get("dataset", config.dataset) != config.dataset:
        other = load_config(data["dataset"])
        keys = {name: getattr(other, name) for name in DATA_FIELDS}
    elif config.action and "action" not in data:
        logger.warning("the run's action=%s selects the videos here too", config.action)
    return make_config({**config.as_dict(), **keys, **data})


@dataclass(frozen=True)
class Session:
    """An open model, its source, its data, the folder of its figures, and how the source was chosen, if it was."""

    source: Path
    model: FrameEmbedder
    config: Config
    figures: Path
    choice: str = ""

    def find_videos(self, split: str, allow_empty: bool = False) -> VideoList:
        """Finds the videos of one split; clips of the run's own data stay on the side that they had in training."""
        return find_config_videos(self.config, split, allow_empty, kept_sides(self.source, self.config))

    @property
    def report(self) -> Path:
        """Path of `metrics.json`, in the run folder for the run's own data, else beside the figures."""
        own = self.source.is_dir() and read_config(self.source) == self.config
        return (results_folder(self.source) if own else self.figures) / "metrics.json"


def open_session(source: str | Path = "", out: str | Path = "", **data: Any) -> Session:
    """Opens a run or checkpoint for a notebook; see `open_model`.

    Args:
        source: Run folder, released head or checkpoint; see `find_run`.
        out: Folder for figures; if empty, `figures/` in the run or beside the checkpoint, or for other data than the
            run's own `figures-<dataset>-<mark>/`; see `results_folder`.
        **data: Data keys that replace the run's own.
    """
    source, choice = find_run(source)
    model, config = open_model(source, **data)
    own = not source.is_dir() or read_config(source) == config
    figures = results_folder(source) / ("figures" if own else f"figures-{config.dataset}-{_data_mark(config)}")
    return Session(source, model, config, Path(out) if out else figures, choice)


def find_run(source: str | Path = "") -> tuple[Path, str]:
    """The run folder or checkpoint that a notebook opens, and how it was chosen where `source` is empty.

    Then it is the newest finished run. A relative path is looked for in the working directory, then at the
    repository root; what is at neither may be the name of a released head.

    Raises:
        ValueError: if there is nothing at `source`, or no finished run; the message lists the runs that there are.
    """
    runs = default_folder(load_config()).parent
    path = model_folder(source, runs.parent)
    if source and path.exists():
        return path, f"a released head: its card is {path / CARD}" if is_released(path) else ""
    found = finished_runs(runs)
    names = [shown_path(run) for run in found]
    if source:
        raise ValueError(
            f"{source} is not a run folder or checkpoint: there is nothing here or at {runs.parent / source}; "
            f"finished runs: {_listed(names) or f'none in {runs}'}; {listed_heads()}"
        )
    if not names:
        raise ValueError(f"run_dir is empty, and {runs} holds no finished run: make demo, or run train.ipynb first")
    rest = f"newest; other finished runs: {_listed(names[1:])}" if names[1:] else "only finished run"
    return found[0], f"run_dir is empty: {names[0]} is the {rest}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:MOST_LISTED]) + (", ..." if len(names) > MOST_LISTED else "")


def shown_path(path: Path) -> str:
    """A path as people read it: below the repository root without the root."""
    root, path = default_folder(load_config()).parent.parent, path.resolve()
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


def run_folder(run_dir: str, config: Config) -> Path:
    """The folder that `train.ipynb` writes: `run_dir`, or `runs/<preset>-<seed>` at the repository root.

    A relative path begins in the working directory if its parent exists there, else at the repository root if it
    exists there, so that `runs/mine` is one folder for all notebooks.
    """
    own = default_folder(config)
    given, at_root = expand_user(run_dir), own.parent.parent / run_dir
    if not run_dir:
        return own
    return at_root if at_root.parent.is_dir() and not given.parent.is_dir() else given


def run_table(config: Config, folder: Path) -> Folded:
    """Tabulates what `train.ipynb` will train, where, and whether the run is there already."""
    state = "new"
    if (folder / "config.json").exists():
        state = "finished, is only judged" if _is_finished(folder) else "begun, goes on"
    return _settings_table(config, f"{shown_path(folder)} ({state})")


def session_table(session: Session, **more: object) -> Folded:
    """Tabulates the run or checkpoint of a session and its data, and says how it was chosen if it was."""
    more |= {"figures": shown_path(session.figures)}
    return _settings_table(session.config, shown_path(session.source), more, session.choice)


def _settings_table(
    config: Config, run: str, more: Mapping[str, object] = MappingProxyType({}), note: str = ""
) -> Folded:
    """Tabulates the run, the settings that differ from its preset, and `more`; a click opens all settings."""
    preset, own = load_config(config.preset).as_dict(), config.as_dict()
    chosen_here = {name for name, value in preset.items() if value == "auto"}  # by this machine
    changed = {name: value for name, value in own.items() if value != preset[name] and name not in chosen_here}
    table = config_table({"run": run, "data": config.dataset, "preset": config.preset, **changed, **more})
    notes = (note,) if note else ()
    return Folded(replace(table, notes=notes), f"All {len(own)} settings", config_table(own))


def finished_runs(root: Path) -> list[Path]:
    """Folders of finished runs below `root`, the newest first; runs of a model per action count once."""
    found = [path.parent for path in root.rglob("history.csv") if path.parent.parent.name != ACTIONS]
    done = [run for run in found if (run / "config.json").exists() and _is_finished(run)]
    return sorted(done, key=lambda run: (run / "history.csv").stat().st_mtime, reverse=True)


def _is_finished(run: Path) -> bool:
    try:
        return {row["epoch"] for row in read_history(run)} >= {read_config(run).epochs} - {0}
    except (FileNotFoundError, ValueError, KeyError):  # no epoch yet, damaged, or of a newer version
        return False


def clean_bank(model: FrameEmbedder, config: Config) -> FeatureBank | None:
    """Returns the bank with the clean view's features if the run stores features, else None."""
    return FeatureBank(backbone_of(model), None, config.precision) if config.features == "banked" else None


def embed_splits(
    model: FrameEmbedder, config: Config, one_is_enough: bool = False, source: str | Path = "", bank: bool = True
) -> Splits:
    """Embeds the training and validation videos of the configured data set, or none if one split has no videos.

    Args:
        model: Model of a run or of an official checkpoint.
        config: Configuration of the data.
        one_is_enough: Embeds one split even if the other has no videos; aligning and labelling need only one.
        source: Run folder or checkpoint of the model; clips stay on the side of the split that they had in its run.
        bank: Read stored features, and store those of a run that stores features; False computes all.
    """
    cache = clean_bank(model, config) if bank else None
    records = _find_splits(model, config, source)
    wanted = one_is_enough or all(records.values())
    options: dict[str, Any] = {"chunk": config.chunk, "cache": cache, "precision": config.precision, "bank": bank}
    embedded = {split: embed(model, videos if wanted else [], **options) for split, videos in records.items()}
    return Splits(records["train"], records["val"], embedded["train"], embedded["val"], cache)


def _find_splits(model: FrameEmbedder, config: Config, source: str | Path) -> dict[str, VideoList]:
    """Training and validation videos that a model can embed, each on the side that it had in the model's run."""
    kept = kept_sides(Path(source), config) if source else {}
    found = {split: find_config_videos(config, split, sides=kept) for split in ("train", "val")}
    return {split: _with_model(videos, model) for split, videos in found.items()}


def _with_model(videos: VideoList, model: FrameEmbedder) -> VideoList:
    """Keeps the videos that a model can embed; the coverage lists those of actions without a model."""
    if not model.actions:
        return videos
    known = videos.only(lambda video: video.action in model.actions)
    reasons = {v.name: f"no model was trained on {v.action}" for v in videos if v.action not in model.actions}
    known.coverage = replace(known.coverage, unreadable=known.coverage.unreadable | reasons)
    return known


def report_on(
    model: FrameEmbedder, config: Config, splits: Splits, path: str | Path | None = None, bank: bool = True
) -> dict:
    """Evaluates a model on embedded splits, and writes the report to `path` if given; `bank`: see `embed_splits`."""
    report = evaluate(
        splits.train, splits.val, config, model, splits.train_records, splits.val_records, splits.cache, bank
    )
    clips = manifest(train=splits.train_records, val=splits.val_records)
    report |= _marks(model, config) | {"cost": _cost(model, config), "clips": clips}
    if path is not None:
        report["cost"] |= _epoch_cost(Path(path).parent)
        write_report(report, path)
    return report


def stored_or_new_report(session: Session, splits: Splits | None = None) -> dict:
    """Reads the stored report if it is of exactly this model, data and clips; else makes a new one and stores it.

    A new one says in `made_anew` what has changed, once.
    """
    changes = []
    if session.report.exists():
        report = read_report(session.report)
        if _marks(session.model, session.config).items() <= report.items():
            changes = _changes(report.get("clips"), _clips(session, splits))
            if not changes:
                return report | {"made_anew": ""}
        else:
            changes = ["it is of another model, of other data or of an older version of mvf"]
    splits = splits or embed_splits(session.model, session.config, source=session.source)
    report = report_on(session.model, session.config, splits)
    report["made_anew"] = "; ".join(changes)
    report["cost"] |= _epoch_cost(session.report.parent)
    write_report(report, session.report)
    return report


def _clips(session: Session, splits: Splits | None = None) -> Manifest:
    """The clips of the session's data as they are now."""
    if splits:
        return manifest(train=splits.train_records, val=splits.val_records)
    return manifest(**_find_splits(session.model, session.config, session.source))


def _changes(stored: Manifest | None, now: Manifest) -> list[str]:
    if stored is None:
        return ["the stored report does not list its clips"]
    return changed_clips(stored, now) + changed_labels(stored, now)


def stored_or_new_knock_outs(session: Session) -> dict:
    """Reads or computes the knock-out scores (`mvf.evaluation.knockouts`), which are stored in `knockouts.json`."""
    path = session.figures / "knockouts.json"
    splits = _find_splits(session.model, session.config, session.source)
    marks = _marks(session.model, session.config) | {"clips": digest(manifest(**splits))}
    if path.exists():
        stored = json.loads(path.read_text(encoding="utf-8"))
        if marks.items() <= stored.items():
            return stored
    cache = clean_bank(session.model, session.config)
    found = knock_outs(session.model, splits["train"], splits["val"], session.config, cache) | marks
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return found


def _cost(model: FrameEmbedder, config: Config) -> dict[str, float]:
    """Measures the size and speed of a model; other load on the machine increases the time."""
    one = model.of(model.actions[0] if model.actions else "")
    timed = {} if one.backbone is None else {"ms_per_frame": milliseconds_per_frame(one, config)}
    return asdict(model_cost(config)) | timed


def _epoch_cost(folder: Path) -> dict[str, float]:
    """Returns the median seconds per epoch from the history of a run folder; empty without a history."""
    rows = read_history(folder) if (folder / "history.csv").exists() else []
    return {"seconds_per_epoch": median(row["seconds"] for row in rows)} if rows else {}


def _marks(model: FrameEmbedder, config: Config) -> dict[str, str]:
    """Returns the report entries that identify this model and data."""
    return {"model_sha256": fingerprint(model), "judged_on": _data_mark(config), "protocol": PROTOCOL}


def _data_mark(config: Config) -> str:
    data = {name: value for name, value in config.as_dict().items() if name in DATA_FIELDS}
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:12]


def summary(report: dict, figures: Sequence[Path] = ()) -> str:
    """Formats the report as text: scores with verdicts, cropped windows first, and the paths of the figures."""
    weights = f"{report['backbone']} ({report['backbone_weights']} weights)"
    labels = f"labels used in training: {report['supervision']}"
    lines = [f"{report['preset']} on {report['dataset']}, seed {report['seed']}, {weights}, {labels}"]
    if report.get("made_anew"):
        lines.append(f"  the stored report was made anew: {report['made_anew']}")
    verdicts = report.get("verdicts", {})
    for name in sorted(verdicts, key=lambda name: not name.startswith("cropped")):
        lines.append(f"  {score_words(name):28s} {score_words(verdicts[name])}")
    lines += [f"  {line}" for line in skipped_lines(report)]
    return "\n".join([*map(minus, lines), *(f"  figure {path}" for path in figures)])


# ----------------------------------------------------------------------------------------------------------------------
# Parameters of notebooks: checked and cast, because papermill only warns and passes text.


def read_parameters(namespace: Mapping[str, Any]) -> dict[str, Any]:
    """Reads the notebook's parameters, cast to their declared types; of undeclared ones, settings go to `overrides`.

    After this call, the output of every error begins with its message.

    Args:
        namespace: `globals()` of a notebook whose parameters cell declares one `name: type = value` per line.

    Raises:
        ValueError: if papermill passed a name that is neither declared nor, in a notebook with `overrides`, a setting,
            or a value does not fit its type.

    Example:
        >>> read_parameters({"__annotations__": {"seed": int, "layers": str}, "seed": "3", "layers": [4, 8]})
        {'seed': 3, 'layers': '4,8'}
    """
    _show_messages_first()
    declared = namespace["__annotations__"]
    further = [f.name for f in fields(Config)] if "overrides" in declared else []
    undeclared = [name for name in _passed_names(namespace.get("In", [])) if name not in declared]
    for name in undeclared:
        if name not in further:
            raise ValueError(f'unknown parameter "{name}"; {nearest(name, [*declared, *further])}')
    given = {name: namespace[name] for name in declared}
    found = {
        name: None if given[name] is None else cast(f"parameter {name}", given[name], kind())
        for name, kind in declared.items()
    }
    if undeclared:
        found["overrides"] = {name: namespace[name] for name in undeclared} | (found["overrides"] or {})
    return found


def run_config(parameters: Mapping[str, Any], **more: Any) -> Config:
    """Builds the configuration of a run from notebook parameters.

    Each of these overrides the one before: the preset, the data keys of the data set, the parameters, `overrides`.
    Parameters that are empty or None keep the preset's value. An empty preset means the data set's own, and without a
    data set `demo`.
    """
    given = {**parameters, **more}
    overrides = given.pop("overrides", {}) or {}
    if not isinstance(overrides, Mapping) or not all(isinstance(name, str) for name in overrides):
        raise ValueError(f'overrides must be a mapping of settings, like {{"learning_rate": 1e-4}}, got {overrides!r}')
    preset = given.pop("preset", "") or given.get("dataset") or "demo"
    return load_config(
        preset, **{name: value for name, value in given.items() if value not in ("", None)} | dict(overrides)
    )


def _show_messages_first() -> None:
    """Prints an error's message above its traceback, so that a batch's log begins with what to do."""
    shell = get_ipython()
    if shell is None:
        return

    def show(shell: InteractiveShell, kind: type, error: BaseException, trace: Any, **options: Any) -> None:
        lines = shell.InteractiveTB.structured_traceback(kind, error, trace, **options)
        shell._showtraceback(kind, error, [f"{kind.__name__}: {error}", *lines])

    shell.set_custom_exc((Exception,), show)


def _passed_names(cells: list[str]) -> list[str]:
    """Returns the names that papermill's injected cell assigns."""
    injected = [ast.parse(cell) for cell in cells if cell.startswith("# Parameters\n")]
    targets = [node.targets[0] for tree in injected for node in tree.body if isinstance(node, ast.Assign)]
    return [target.id for target in targets if isinstance(target, ast.Name)]
