"""The plan of a batch: a configuration and a run folder for every row and seed of the paper's tables or a study."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mvf.config import Config, load_config, nearest, own_settings, presets
from mvf.files import data_folder
from mvf.workbench.tables.executors import WRONG_JSON, finished
from mvf.workbench.tables.rows import paper_tables, studies

# settings that the tables compare; every row keeps its own
METHOD = "layers pooling entities readout trainable_blocks per_action init_from".split()
# settings that a row keeps if its preset sets them
NAMED = ("backbone", "objective", "objective_options")
# settings that define a pre-training
PRE_TRAINING = ("objective_options", "overlap")
ANYWHERE = ("preset", "device", "engine", "workers", "on_change")  # settings that do not tell runs apart
MANIFEST = "batch.json"  # in a batch's folder; lists the run of every row and seed
WEIGHTS = "backbone_weights."  # followed by a backbone's name, sets the weights of that backbone only

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """One run of a batch.

    Attributes:
        preset: Preset of the row.
        config: Settings, including the seed.
        folder: Run folder.
        needs: Preset of the run with the same seed from which this run starts; empty if there is none.
    """

    preset: str
    config: Config
    folder: Path
    needs: str = ""

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def missing_data(self) -> Path | None:
        """The folder of its data if there is none; drawn videos need no folder."""
        folder = data_folder(self.config.data_root)
        return None if self.config.dataset == "synthetic" or folder.is_dir() else folder

    @property
    def finished(self) -> bool:
        """Whether its notebook ran to its end."""
        return finished(self.folder)


def read_manifest(path: Path) -> dict[str, Any]:
    """Reads `batch.json`: `tables`, `trials`, `runs` by preset and seed, `parameters` (None when it has none).

    Raises:
        ValueError: if it is damaged.
    """
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        runs = {preset: {str(int(seed)): str(name) for seed, name in seeds.items()}
                for preset, seeds in stored["runs"].items()}  # fmt: skip
        found = {"tables": [str(name) for name in stored["tables"]], "trials": int(stored["trials"]), "runs": runs}
        return found | {"parameters": stored.get("parameters")}
    except WRONG_JSON as error:
        raise ValueError(f"{path} is not a batch manifest ({error!r}): delete it, and run python -m mvf batch again "
                         "for each of its tables; runs that are done stay so") from None  # fmt: skip


def plan(tables: Sequence[str], trials: int, out: str | Path, parameters: Mapping[str, Any]) -> dict[str, list[Job]]:
    """Plans the runs of tables: for every preset, one run per seed.

    Rows with equal settings share their runs. A row that starts from another row adds that row's runs.

    Args:
        tables: Names like `table3` or `study`, or of presets, each of which is a row.
        trials: Number of seeds, counted from 1.
        out: Folder for the run folders.
        parameters: Settings for all rows by name, as parameters of `train.ipynb`. `preset` (by default that of
            `dataset`) replaces the data, size and schedule of the rows; a row keeps its `METHOD` settings, and the
            `NAMED` settings that its preset sets. `backbone_weights.NAME` sets the weights of one backbone only.

    Raises:
        ValueError: for an unknown table, preset or setting, or fewer than one trial.
    """
    known = {name: (name,) for name in presets()} | {
        name: tuple(preset for row in table.rows for preset in row.presets.values())
        for name, table in (paper_tables() | studies()).items()
    }
    for name in tables:
        if name not in known:
            raise ValueError(f'unknown table or preset "{name}"; {nearest(name, known)}')
    if trials < 1:
        raise ValueError(f"trials must be at least 1, got {trials}")
    common = _common_settings(parameters, tables)
    wanted = dict.fromkeys(preset for name in tables for preset in known[name])
    starts = {start: preset for preset in wanted if (start := load_config(preset).init_from) in presets()}
    jobs: dict[str, list[Job]] = {preset: [] for preset in (*starts, *wanted)}
    folders: dict[str, Path] = {}
    for seed in range(1, trials + 1):
        for preset in jobs:
            config = row_config(preset, common, seed, starts.get(preset, ""))
            folder = folders.setdefault(same_run(config), Path(out) / f"{preset}-{seed}")
            jobs[preset].append(Job(preset, config, folder, config.init_from if config.init_from in starts else ""))
    _check_weights(common, [seeds[0].config.backbone for seeds in jobs.values()])
    return jobs


def row_config(preset: str, parameters: Mapping[str, Any], seed: int, follower: str = "") -> Config:
    """Returns the configuration of one row and seed; see `plan`.

    Args:
        preset: Preset of the row.
        parameters: Settings for all rows.
        seed: Seed of the run.
        follower: Preset of a row that starts from this one. A pre-training keeps its own data unless that row is moved
            to other data; then it trains on other videos of that data set.
    """
    given = {name: value for name, value in parameters.items() if not name.startswith(WEIGHTS)}
    plain, own = load_config(preset), own_settings(preset)
    base = given.pop("preset", "") or (given["dataset"] if given.get("dataset") in presets() else "")
    if base == load_config(follower or preset).dataset:
        base = ""  # the row is on its own data set
        given.pop("dataset", None)
    fixed = {name: getattr(plain, name) for name in METHOD} | {name: own[name] for name in NAMED if name in own}
    if plain.epochs == 0:  # a row that is evaluated without training
        fixed["epochs"] = 0
    if plain.trainable_blocks:  # a bank holds frozen features only
        fixed["features"] = "online"
    if follower and base:
        fixed |= {name: getattr(plain, name) for name in PRE_TRAINING}
        fixed["data_seed"] = int(given.get("data_seed", load_config(base).data_seed)) + 1
    config = load_config(preset, base, **given | fixed, seed=seed)
    weights = parameters.get(WEIGHTS + config.backbone, config.backbone_weights)
    return replace(config, backbone_weights=str(weights))


def _common_settings(parameters: Mapping[str, Any], tables: Sequence[str]) -> dict[str, Any]:
    """Returns the settings that apply to all rows."""
    if "seed" in parameters:
        raise ValueError(f"seed={parameters['seed']}: a batch sets the seeds itself, 1 to --trials")
    for name in METHOD:
        if name in parameters:
            rows = f"rows of {', '.join(tables)}"
            logger.warning("%s=%s changes nothing: %s keep their own", name, parameters[name], rows)
    return {name: value for name, value in parameters.items() if name not in METHOD}


def _check_weights(parameters: Mapping[str, Any], backbones: Sequence[str]) -> None:
    for name in parameters:
        if name.startswith(WEIGHTS) and name.removeprefix(WEIGHTS) not in backbones:
            raise ValueError(f"{name}: no row has this backbone; rows have {', '.join(sorted(set(backbones)))}")


def unique_jobs(jobs: Mapping[str, list[Job]]) -> list[Job]:
    """Returns every run once, the first seed of all rows first, so that an interrupted batch still fills a table."""
    unique: dict[Path, Job] = {}
    for seeds in zip(*jobs.values()):
        for job in seeds:
            unique.setdefault(job.folder, job)
    return list(unique.values())


def notebook_parameters(job: Job) -> dict[str, Any]:
    """Returns the parameters of `train.ipynb` that give exactly the configuration of the job."""
    common = {name: getattr(job.config, name) for name in ("dataset", "seed", "device", "workers")}
    plain = load_config(job.preset, **common).as_dict()
    changed = {name: value for name, value in job.config.as_dict().items() if value != plain[name]}
    return common | {"preset": job.preset, "run_dir": str(job.folder), "overrides": changed}


def same_run(config: Config) -> str:
    """Returns the settings that determine a run's result; two runs with equal text are the same run."""
    return json.dumps({**config.as_dict(), **dict.fromkeys(ANYWHERE)}, sort_keys=True)
