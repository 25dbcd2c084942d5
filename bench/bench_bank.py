"""Benefits and costs of a feature bank: `online` against `banked` and its options.

    python bench/bench_bank.py                        speed of online and of a bank (half an hour)
    python bench/bench_bank.py --quick                tiny; checks that it works
    python bench/bench_bank.py --quality 5 --out runs/bank   seeds 1..5 of online and every option, scored (hours)
    python bench/bench_bank.py --quality 3 --out runs/bank_pullups --clips FOLDER --train 12

Speed: 24 files of synthetic videos, 20 epochs, T = 32, without evaluation, including the time to make the bank; each in
a separate process with an empty bank. The time of 60 epochs is extrapolated: making + 60 x (training / 20).
Quality: `cropped` classification of every seed, and the paired difference to online (or to --against) with a 90 %
interval (Student's t over seeds), beside controls: an option that does not beat them says nothing about a bank.
Runs are in --out; finished ones are not repeated.
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from bench_training import make_videos
from scipy import stats

import mvf
import mvf.device
import mvf.files
from mvf.bank import FeatureBank, build_bank
from mvf.data import find_config_videos
from mvf.files import atomic
from mvf.models import build_model
from mvf.workbench.notebook import session
from mvf.workbench.notebook.session import open_session, stored_or_new_report

EPOCHS, LONGER, TARGET = 20, 60, 8.0  # speed-up wanted at LONGER epochs, including making the bank
BANKED = {"features": "banked", "bank_views": 4}
WAYS: dict[str, dict[str, Any]] = {
    "online": {"features": "online"},
    "banked, V = 4": BANKED,
    "banked, V = 2": BANKED | {"bank_views": 2},
    "banked, V = 8": BANKED | {"bank_views": 8},
    "int8": BANKED | {"bank_dtype": "int8"},
    "PCA 256": BANKED | {"bank_channels": 256},
    "PCA 256, int8": BANKED | {"bank_channels": 256, "bank_dtype": "int8"},
}
DEFAULT = "banked, V = 4"
TIMED = ("online", DEFAULT, "int8", "PCA 256")  # making a bank with V views takes V / 4 as long
VIDEOS, LENGTH = 24, 90  # for training; frames each
QUICK = {
    "epochs": 2,
    "backbone": "vit_tiny_patch16_224",
    "backbone_weights": "random",
    "image_size": 32,
    "num_frames": 8,
}
MARGIN = 0.01  # that the interval of the paired difference must be within


def time_training(settings: dict[str, Any]) -> dict[str, float]:
    """Measures seconds to make the bank (views made later count as training) and to train, and the bank's bytes."""
    config = mvf.load_config("synthetic", **settings)
    records = find_config_videos(config, "train")
    model = build_model(config).to(mvf.device.resolve_device(config.device))
    if config.compile:
        model.backbone.compile_network()
    size = making = 0.0
    passed = config.epochs * len(records) * 2 * config.num_frames  # frames through the backbone; two views, padded
    if config.features == "banked":
        bank = build_bank(config, model.backbone, records)
        size = bank.predicted_bytes(records, config.bank_views)
        passed = config.bank_views * sum(record.num_frames for record in records)
        started = time.perf_counter()
        bank.ensure(records, config.bank_views)
        making = time.perf_counter() - started
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        mvf.train(config, folder)
        training = time.perf_counter() - started
    return {"making": making, "training": training, "bytes": size, "passed": passed}


def in_new_process(settings: dict[str, Any]) -> dict[str, float]:
    """Runs `time_training` with a new, empty bank; weights and frame counts come from the user's cache."""
    with tempfile.TemporaryDirectory() as cache:
        weights = mvf.files.cache_folder() / "weights"
        if weights.exists():
            Path(cache, "weights").symlink_to(weights.resolve())
        words = [sys.executable, __file__, "--one", json.dumps(settings)]
        environment = os.environ | {"MVF_CACHE": cache}
        done = subprocess.run(words, env=environment, check=True, stdout=subprocess.PIPE, text=True)
        return json.loads(done.stdout.splitlines()[-1])


def speed_table(base: dict[str, Any]) -> tuple[str, bool]:
    """Returns Markdown of seconds, speed-up (measured, and at `LONGER` epochs), size; and whether the target is met."""
    epochs = mvf.load_config("synthetic", **base).epochs
    lines = [
        f"| features | disk, MB | frames through the backbone | making, s | {epochs} epochs, s | speed-up, by frames | "
        f"measured | {LONGER} epochs, from these rates | speed-up at {LONGER}, from these rates |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    first, reached = None, {}
    for name, way in ((name, WAYS[name]) for name in TIMED if name in WAYS):
        found = in_new_process(base | way)
        whole = found["making"] + found["training"]
        longer = found["making"] + found["training"] * LONGER / epochs
        first = first or (found["passed"], whole, longer)
        cells = (f"{found['bytes'] / 1e6:.1f}", f"{found['passed']:,}", f"{found['making']:.1f}")
        gains = (f"{first[0] / found['passed']:.2f}", f"{first[1] / whole:.2f}", f"{longer:.0f} s")
        cells += (f"{found['training']:.1f}", *gains, f"{first[2] / longer:.2f}")
        reached[name] = first[2] / longer
        lines.append(f"| {' | '.join((name, *cells))} |")
        logging.warning(lines[-1])
    met = reached.get(DEFAULT, 0.0) >= TARGET
    note = f"Target: {DEFAULT} at {LONGER} epochs at least {TARGET:.0f} times faster: {'met' if met else 'MISSED'}."
    return "\n".join([*lines, "", note]), met


def quality_table(seeds: int, out: Path, base: dict[str, Any], preset: str, against: str) -> str:
    """Returns Markdown: `cropped` classification of each option, its paired difference to `against`, and controls."""
    reports = {
        name: [judge(out, name, preset, base | way | {"seed": s + 1}) for s in range(seeds)]
        for name, way in WAYS.items()
    }
    scores = {name: _scores(found, "model") for name, found in reports.items()}
    lines = [f"| features | cropped classification by seed | mean | difference to {against}, 90 % | inside ±0.01 |"]
    lines.append("| --- | --- | ---: | ---: | --- |")
    for name, found in scores.items():
        values = ", ".join(f"{score:.4f}" for score in found)
        middle, half = paired_interval(np.subtract(found, scores[against]))
        inside = "yes" if abs(middle) + half <= MARGIN else "no"
        cells = ("-", "-") if name == against else (f"{middle:+.4f} ± {half:.4f}", inside)
        lines.append(f"| {name} | {values} | {np.mean(found):.4f} | {' | '.join(cells)} |")
    floor = {name: np.mean(_scores(reports[against], name)) for name in ("untrained", "position_only")}
    lines += ["", f"Controls: {floor['untrained']:.4f} untrained, {floor['position_only']:.4f} from the place alone."]
    return "\n".join(lines)


def _scores(reports: list[dict[str, Any]], model: str) -> list[float]:
    return [report[model]["classification"] for report in reports]


def paired_interval(differences: np.ndarray, level: float = 0.9) -> tuple[float, float]:
    """Mean and half width of Student's interval; the width is infinite for a single difference."""
    if len(differences) < 2:
        return float(np.mean(differences)), float("inf")
    spread = stats.sem(differences)
    return float(np.mean(differences)), float(stats.t.ppf(0.5 + level / 2, len(differences) - 1) * spread)


def choose_clips(folder: Path, count: int, out: Path) -> dict[str, str]:
    """Makes a data set of `count` training videos, evenly spaced over those of a folder, and all the others."""
    table = list(csv.DictReader((folder / "videos.csv").open()))
    train = [row for row in table if row["split"] == "train"]
    keep = [train[place] for place in np.linspace(0, len(train) - 1, min(count, len(train))).astype(int)]
    out.mkdir(parents=True, exist_ok=True)
    rows = keep + [row for row in table if row["split"] != "train"]
    with atomic(out / "videos.csv") as path, path.open("w", newline="") as file:
        writer = csv.DictWriter(file, table[0])
        writer.writeheader()
        writer.writerows(rows)
    for row in rows:
        link = out / row["path"]
        link.unlink(missing_ok=True)
        link.symlink_to((folder / row["path"]).resolve())
    return {"dataset": "folder", "data_root": str(out.resolve())}


def judge(out: Path, name: str, preset: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Trains, resumes or finds a run, and returns its `cropped` scores of the model and the controls.

    All are scored on stored features of the clean view, which saves `online` most of its evaluation time.
    """
    folder = out / f"{''.join(c if c.isalnum() else '_' for c in name)}-{settings['seed']}"
    mvf.train(mvf.load_config(preset, **settings), folder)  # refuses a run of other settings
    session.clean_bank = lambda model, config: FeatureBank(model.backbone, None, config.precision)
    return stored_or_new_report(open_session(folder))["cropped"]


def main() -> int:
    """Prints a table; returns 1 if the target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--quality", type=int, default=0, metavar="SEEDS")
    parser.add_argument("--out", default="runs/bank", help="folder for the runs of --quality")
    parser.add_argument("--preset", default="synthetic", help="of --quality")
    parser.add_argument("--clips", type=Path, help="folder with videos and videos.csv, for --quality")
    parser.add_argument("--train", type=int, default=10**9, help="number of its training videos to use")
    parser.add_argument("--ways", default="", help="only these options, separated by semicolons")
    parser.add_argument("--against", default="online", choices=WAYS, help="what the others are compared with")
    parser.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="set a field")
    parser.add_argument("--one", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    if options.one:
        print(json.dumps(time_training(json.loads(options.one))))
        return 0
    if options.ways:
        wanted = (options.against, *options.ways.split(";"))
        if not set(wanted) <= set(WAYS):
            parser.error(f"--ways {options.ways!r} names unknown ways; there are: {'; '.join(WAYS)}")
        for name in set(WAYS) - set(wanted):
            del WAYS[name]
    base = (QUICK if options.quick else {}) | dict(options.p)
    if options.clips:
        base |= choose_clips(options.clips, options.train, Path(options.out, "clips"))
    if options.quality:
        print(quality_table(options.quality, Path(options.out), base, options.preset, options.against))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        make_videos(Path(folder), VIDEOS, LENGTH)
        text, met = speed_table({"epochs": EPOCHS, "dataset": "folder", "data_root": folder} | base)
    print(text)
    return int(not met and not options.quick)


if __name__ == "__main__":
    sys.exit(main())
