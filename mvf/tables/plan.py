"""What a batch runs: rows of the paper's tables times seeds, as configurations with a folder each."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mvf.config import Config, load_config, nearest, own_settings, presets
from mvf.tables.paper import paper_tables

# what a row of an ablation is about; everything else may be set for all rows at once
METHOD = "backbone layers pooling entities readout trainable_blocks per_action init_from objective".split()
ANYWHERE = ("preset", "device", "workers")


@dataclass(frozen=True)
class Job:
    """One run of a batch.

    Attributes:
        preset: Of the row.
        config: Settings, seed included.
        folder: Its run folder.
        needs: The preset whose run of the same seed it starts from, or empty.
    """

    preset: str
    config: Config
    folder: Path
    needs: str = ""

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def finished(self) -> bool:
        """True when its notebook ran to the end."""
        try:
            notebook = json.loads((self.folder / "train.ipynb").read_text(encoding="utf-8"))
        except (OSError, json.JSONDecodeError):
            return False
        ran = notebook["metadata"].get("papermill", {})
        return bool(ran.get("end_time")) and not ran.get("exception") and (self.folder / "metrics.json").exists()


def plan(tables: Sequence[str], trials: int, out: str | Path, parameters: Mapping[str, Any]) -> dict[str, list[Job]]:
    """The runs of tables, by preset, one a seed.

    Rows that coincide share their runs. A row that starts from another row brings that row's runs along.

    Args:
        tables: Names like `table3`.
        trials: Number of seeds, from 1 on.
        out: Folder of the run folders.
        parameters: Settings for all rows, by name, as `train.ipynb` takes them: `preset` (empty: that of `dataset`)
            is what the rows' differences are put on. What a row is about (`METHOD`) stays its own.

    Raises:
        ValueError: for an unknown table or setting, or none to run.
    """
    known = paper_tables()
    for name in tables:
        if name not in known:
            raise ValueError(f'unknown table "{name}"; {nearest(name, known)}')
    if trials < 1:
        raise ValueError(f"trials must be at least 1, got {trials}")
    wanted = dict.fromkeys(preset for name in tables for row in known[name].rows for preset in row.presets.values())
    starts = {preset: own_settings(preset).get("init_from", "") for preset in wanted}
    order = dict.fromkeys([*(start for start in starts.values() if start in presets()), *wanted])
    jobs: dict[str, list[Job]] = {preset: [] for preset in order}
    folders: dict[str, Path] = {}
    for seed in range(1, trials + 1):
        for preset in order:
            config = row_config(preset, parameters, seed)
            folder = folders.setdefault(same_run(config), Path(out) / f"{preset}-{seed}")
            needs = config.init_from if config.init_from in presets() else ""
            jobs[preset].append(Job(preset, config, folder, needs))
    return jobs


def row_config(preset: str, parameters: Mapping[str, Any], seed: int) -> Config:
    """The configuration of one row and seed; see `plan`."""
    given = dict(parameters)
    if "seed" in given:
        raise ValueError(f"seed={given['seed']}: a batch sets the seeds itself, 1 to --trials")
    base = given.pop("preset", "") or (given["dataset"] if given.get("dataset") in presets() else "")
    own = own_settings(preset)
    fixed = {name: own[name] for name in METHOD if name in own}
    if own.get("epochs") == 0:  # a row that is judged without training
        fixed["epochs"] = 0
    if own.get("trainable_blocks"):  # a bank holds frozen features only
        fixed["features"] = "online"
    return load_config(preset, base, **given | fixed, seed=seed)


def unique_jobs(jobs: Mapping[str, list[Job]]) -> list[Job]:
    """Every run once, all rows of the first seed first, so that a batch cut short still is a whole table."""
    by_folder = {job.folder: job for seeds in zip(*jobs.values()) for job in reversed(seeds)}
    order = dict.fromkeys(job.folder for seeds in zip(*jobs.values()) for job in seeds)
    return [by_folder[folder] for folder in order]


def notebook_parameters(job: Job) -> dict[str, Any]:
    """Parameters of `train.ipynb` that give exactly the job's configuration."""
    common = {name: getattr(job.config, name) for name in ("dataset", "seed", "device", "workers")}
    plain = load_config(job.preset, **common).as_dict()
    changed = {name: value for name, value in job.config.as_dict().items() if value != plain[name]}
    return common | {"preset": job.preset, "run_dir": str(job.folder), "overrides": changed}


def same_run(config: Config) -> str:
    return json.dumps({**config.as_dict(), **dict.fromkeys(ANYWHERE)}, sort_keys=True)
