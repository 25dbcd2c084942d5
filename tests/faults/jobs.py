"""Work that the tests of faults interrupt: each fills one folder and, started again, goes on where it stopped.

Run in a child of a fork server that has imported all this, so that a job's life is work and not imports.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import resource
import sys
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import psutil
import torch

import mvf
from mvf.__main__ import main
from mvf.bank import FeatureBank
from mvf.config import Config, load_config
from mvf.data import find_config_videos
from mvf.data.augment import build_augmentation
from mvf.models import build_model
from mvf.workbench.tables import plan
from mvf.workbench.tables.rows import paper_tables
from tests.conftest import TINY

FEW = {**TINY["data_options"], "train_videos": 4}


def tiny(**overrides) -> Config:
    return load_config("synthetic", **{**TINY, **overrides})


def train(home: Path, full_after: int = 0, worker_dies_after: int = 0, **overrides) -> None:
    """Trains in `run/`; after an epoch the disc can be full, or a worker be killed."""
    config = tiny(**{"epochs": 6, "batch_size": 2, "features": "online", "data_options": FEW, **overrides})

    def disturb(row):
        if row["epoch"] == full_after:
            limit_files(5000)  # more than the log, less than a state
        if row["epoch"] == worker_dies_after:
            psutil.Process().children()[0].kill()

    mvf.train(config, home / "run", on_epoch=disturb)


def limit_files(room: int) -> None:
    """From now on a file holds at most `room` bytes; what is more gives an error, as on a full disc."""
    speak_to(os.devnull)  # bars and warnings grow too
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def banked(home: Path) -> None:
    """Makes its bank, then trains from it in `run/`."""
    train(home, features="banked")


def bank(home: Path) -> None:
    """Makes a bank of four views in `cache/banks/`."""
    config = tiny(data_options=FEW)
    model = build_model(config)
    FeatureBank(model.backbone, build_augmentation(config), "fp32").ensure(find_config_videos(config, "train"), 4)


def embed(home: Path) -> None:
    """Embeds the folder of videos `../videos` to `out/`."""
    videos = mvf.data.find_videos("folder", "train", root=home.parent / "videos")
    config = tiny()
    torch.manual_seed(0)
    for video in mvf.embed(build_model(config), videos, out=home / "out", precision="fp32"):
        assert np.isfinite(video.embeddings).all()


def batch(home: Path) -> None:
    """`python -m mvf batch` of one row of a table, its notebook run for real, in `out/`."""
    table = paper_tables()["table3"]
    small = {"dataset": "synthetic", **{name: value for name, value in TINY.items() if name != "layers"}}
    words = [word for name, value in small.items() for word in ("-p", name, str(value).replace("'", '"'))]
    with patch.object(plan, "paper_tables", lambda: {"table3": replace(table, rows=table.rows[:1])}):
        if main(["batch", "table3", "--trials", "1", "--out", str(home / "out"), *words]):
            raise SystemExit(1)


JOBS = {job.__name__: job for job in (train, banked, bank, embed, batch)}


def run(name: str, home: Path, log: Path, room: int = 0, **overrides) -> None:
    """A child's whole life: a session of its own, its own cache.

    Args:
        name: Of the job.
        home: Its folder.
        log: What it says.
        room: Bytes that a file may have; 0: as many as it needs.
        **overrides: For the job.
    """
    os.setsid()
    multiprocessing.set_start_method("fork", force=True)  # for workers, as in a process that no fork server started
    home.mkdir(exist_ok=True)
    speak_to(log)
    os.environ |= {"MVF_CACHE": str(home / "cache"), "OMP_NUM_THREADS": "1"}
    logging.basicConfig(level=logging.WARNING, force=True)
    torch.set_num_threads(1)
    if room:
        limit_files(room)
    try:
        JOBS[name](home, **overrides)
    except (OSError, ValueError, FloatingPointError) as error:
        with open(log, "a") as file:
            file.write(f"\n{type(error).__name__}: {error}")
        sys.exit(1)


def speak_to(path: Path | str) -> None:
    """Sends both outputs to a file."""
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1), os.dup2(log, 2)
