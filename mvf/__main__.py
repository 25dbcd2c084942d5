"""Shell commands: `mvf train|embed|film|apply|evaluate|check|batch|report|... ...`, also as `python -m mvf ...`.

Building the parser imports no heavy library; each command imports what it runs, so help and mistakes appear at once.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import mvf
from mvf.config import Config, check_settings, field_meanings, load_config, nearest, stored_presets
from mvf.files import atomic, check_output
from mvf.workbench.tables.executors import EXECUTORS, parse_options
from mvf.workbench.tables.sizes import SIZED, Assumptions, Estimate, duration, estimate, read_rates, sizes_page

if TYPE_CHECKING:  # imports nothing heavy before a command is known
    from mvf.workbench.tables.plan import Job

MODEL = 'run folder, released head ("drawn") or checkpoint.pth'


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; an error that the user can fix becomes one line on stderr and exit status 1."""
    for stream in (sys.stdout, sys.stderr):  # a terminal may not know the letters of a name
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options = _parse(sys.argv[1:] if arguments is None else arguments)
    try:
        options.command(options)
        sys.stdout.flush()
    except BrokenPipeError:  # `mvf check ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it ends
    except (ValueError, OSError, FloatingPointError) as error:
        sys.stderr.write(f"mvf: {error}\n")
        return 1
    except KeyboardInterrupt:
        goes_on = options.command in (_train, _embed, _batch)
        kept = (
            "finished epochs, videos and runs are kept, and the same command goes on" if goes_on else "nothing is kept"
        )
        sys.stderr.write(f"mvf: stopped; {kept}\n")
        return 130
    return 0


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parses a command line; a misspelt command ends the process, and the message names the nearest one."""
    parser = argparse.ArgumentParser(prog="mvf", description="MV-Former workbench")
    parser.add_argument("--version", action="version", version=f"mvf {mvf.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_commands(commands)
    name = arguments[0] if arguments else "-"
    if not name.startswith("-") and name not in commands.choices:
        parser.error(f'unknown command "{name}"; {nearest(name, commands.choices)}')
    options, rest = parser.parse_known_args(arguments)
    if rest:
        word = rest[0].lstrip("-").partition("=")[0].replace("-", "_")
        setting = hasattr(options, "p") and word in field_meanings()
        hint = f"; {word} is a setting: -p {word} VALUE" if setting else ""
        commands.choices[name].error(f"unrecognized arguments: {' '.join(rest)}{hint}")
    return options


def _add_commands(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser("train", help="train a preset, or resume its run, and write the report")
    command.add_argument("preset", help="folder (your own clips), demo, synthetic, penn, ...: mvf presets lists all")
    command.add_argument("--run-dir", default="", help="default: runs/<preset>-<seed> of the repository")
    _add_parameters(command)
    command.set_defaults(command=_train)

    command = commands.add_parser("embed", help="embed every frame of videos with a run, released head or checkpoint")
    command.add_argument("model", help=MODEL)
    command.add_argument("videos", help="folder of videos, or one video file")
    command.add_argument("--out", required=True, help=".npz (one array per video) or .csv (one row per frame)")
    _add_chunking(command)
    _add_bank(command)
    _add_parameters(command)
    command.set_defaults(command=_embed)

    command = commands.add_parser("film", help="write a film of one video beside what the model's entities attend to")
    command.add_argument("model", help=MODEL)
    command.add_argument("video", nargs="?", default="", help="video file; default: the model's first validation video")
    command.add_argument("--image-size", type=int, default=0, help="side in pixels, for finer maps than in training")
    command.add_argument(
        "--out", default="", help="file to write, as GIF and MP4; default: film-NAME beside the run's figures"
    )
    command.set_defaults(command=_film)

    _add_segments(commands)

    command = commands.add_parser("evaluate", help="score a run, or anyone's EMBEDDINGS (.npz or .csv) with LABELS.csv")
    command.add_argument("source", help="run folder, released head, checkpoint.pth or embeddings.npz")
    command.add_argument("labels", nargs="?", help="labels.csv, for embeddings")
    command.add_argument(
        "--out", default="", help="report file; default: metrics.json of the run, or beside the embeddings"
    )
    _add_bank(command)
    _add_parameters(command)
    command.set_defaults(command=_evaluate)

    command = commands.add_parser("check", help="list which parts of a data set are found, and which are missing")
    command.add_argument("dataset", help="folder (your own clips), penn, pouring, finegym99, ..., or a preset")
    command.add_argument("--data-root", default="", help="folder of the videos; default: $MVF_DATA, else ~/mvf_data")
    _add_parameters(command)
    command.set_defaults(command=_check)

    _add_batch(commands)
    _add_report(commands)
    _add_sizes(commands)

    command = commands.add_parser("runs", help="list runs, the newest first, with their data and scores")
    command.add_argument(
        "folder", nargs="?", default="", help="folder that holds runs; default: runs/ of the repository"
    )
    command.set_defaults(command=_runs)

    command = commands.add_parser("presets", help="list the presets and what each is for")
    command.set_defaults(command=_presets)

    command = commands.add_parser("fields", help="list the settings, their defaults and meanings")
    command.add_argument(
        "preset", nargs="?", default="", help="show this preset's values, and mark those that are not the defaults"
    )
    command.set_defaults(command=_fields)

    command = commands.add_parser("env", help="show versions, the machine, and what computes features on it")
    command.set_defaults(command=_env)


def _add_segments(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser("apply", help="label new videos from labelled ones, and write segments with seconds")
    command.add_argument("model", help=MODEL)
    command.add_argument("videos", help="folder of videos, or one video file")
    command.add_argument("--labels", required=True, help="videos.csv of labelled videos, in their folder")
    command.add_argument("--out", required=True, help="file to write; for elan the folder, with a file for each video")
    command.add_argument("--format", choices=("csv", "elan", "boris", "label-studio"), default="csv")
    command.add_argument(
        "--method", choices=("dtw", "nearest", "probe"), default="dtw", help="how phases are carried over (default dtw)"
    )
    _add_parameters(command)
    command.set_defaults(command=_apply)

    command = commands.add_parser("repetitions", help="count the repetitions in a recording, and cut it into them")
    command.add_argument("model", help=MODEL)
    command.add_argument("video", help="video file, or folder of numbered images")
    command.add_argument("--out", default="", help="videos.csv beside the file, which then lists it as parts")
    _add_parameters(command)
    command.set_defaults(command=_repetitions)


def _add_chunking(command: argparse.ArgumentParser) -> None:
    command.add_argument("--chunk", type=int, default=0, help="frames embedded at once; default: the run's chunk")
    command.add_argument("--overlap", type=int, default=0, help="frames that neighbouring chunks share (default 0)")
    command.add_argument(
        "--fade", action="store_true", help="blend neighbouring chunks over the frames that they share"
    )
    command.add_argument(
        "--one-clock", action="store_true", help="count positions over the whole video, not anew in every chunk"
    )


def _add_bank(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--no-bank",
        dest="bank",
        action="store_false",
        help="compute all features, also those that a feature bank holds in bfloat16",
    )


def _add_batch(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser("batch", help="run every row and seed of the paper's tables, or of presets")
    command.add_argument("tables", nargs="+", metavar="TABLE", help="table1 ... table6, study, ..., or presets")
    command.add_argument("--trials", type=int, default=3, help="seeds 1 to N (default 3, as the paper)")
    command.add_argument(
        "--out", default="", help="folder for the run folders; default: runs/<first table> of the repository"
    )
    command.add_argument("--workers", type=int, default=1, metavar="N", help="number of runs at a time")
    command.add_argument(
        "--executor",
        choices=EXECUTORS,
        default="",
        help="submit the runs as submitit jobs, on this machine or on Slurm",
    )
    command.add_argument(
        "--slurm", action="append", default=[], metavar="NAME=VALUE,...",
        help="job options: partition, time or timeout (minutes, D-HH:MM:SS), gpus_per_node, cpus_per_task, mem_gb, ...",
    )  # fmt: skip
    command.add_argument(
        "--dry-run",
        action="store_true",
        help="only list the runs, with minutes and gigabytes as if no bank were stored",
    )
    _add_parameters(command)
    command.set_defaults(command=_batch)


def _add_report(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser(
        "report", help="print the report of a run and write it as one HTML page; with --clips a page about clips"
    )
    command.add_argument("run", help="run folder; with --clips also a released head or checkpoint.pth")
    command.add_argument("other", nargs="?", help="another run, evaluated on the same data; with --clips the clips")
    command.add_argument(
        "--clips",
        action="store_true",
        help="a page for a client about a folder of clips or one file: phases, deviation, repetitions",
    )
    command.add_argument("--labels", default="", help="with --clips: videos.csv of labelled clips; default: the clips'")
    command.add_argument(
        "--references",
        default="",
        help='with --clips: whom to compare with, like "anna 1, ben_2"; default: all labelled',
    )
    command.add_argument(
        "--out",
        default="",
        help="file to write; default in the run folder: report.html, report-against-OTHER.html or clips-CLIPS.html",
    )
    command.set_defaults(command=_report)


def _add_sizes(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser(
        "sizes", help="estimate what training on the paper's data sets costs: GPU hours, gigabytes, dollars"
    )
    command.add_argument(
        "--rates", default="figures/rates.toml", help="file of measured rates, written by bench/rates.py"
    )
    command.add_argument("--out", default="figures/sizes.md", help="file to write (default %(default)s)")
    for name, value in asdict(Assumptions()).items():
        command.add_argument(f"--{name}", type=float, default=float(value), help=f"assumed, default {value:g}")
    command.set_defaults(command=_sizes)


def _add_parameters(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="a setting (mvf fields lists them)"
    )


def _settings(options: argparse.Namespace, videos_named: bool = False) -> dict[str, str]:
    """The settings given with `-p`; where the command line names the videos, not those that name others."""
    given = dict(options.p)
    check_settings(given)
    for name in ("dataset", "data_root") if videos_named else ():
        if name in given:
            raise ValueError(f"-p {name}: the videos are those that the command names; leave it out")
    return given


def _train(options: argparse.Namespace) -> None:
    config = load_config(options.preset, **_settings(options))  # before the imports: a mistake is reported at once
    from mvf.device import is_main_process
    from mvf.training import train
    from mvf.workbench.notebook.session import embed_splits, report_on, summary

    run = train(config, options.run_dir)
    if is_main_process():
        splits = embed_splits(run.model, run.config, source=run.folder)
        sys.stdout.write(summary(report_on(run.model, run.config, splits, run.folder / "metrics.json")) + "\n")


def _embed(options: argparse.Namespace) -> None:
    from mvf.chunks import Chunking
    from mvf.data import find_config_videos
    from mvf.embedding import check_export, embed_to_file
    from mvf.workbench.notebook.session import check_actions, file_record, open_model

    check_export(Path(options.out))
    given = Path(options.videos)
    data = {**_settings(options, True), "dataset": "folder", "data_root": given.parent if given.is_file() else given}
    model, config = open_model(options.model, **data)
    if "action" not in data:  # every video is embedded, whatever the run was trained on
        config = replace(config, action="")
    if given.is_file():
        records = [file_record(given, config)]
    else:
        records = [r for split in ("train", "val") for r in find_config_videos(config, split, allow_empty=True)]
    if not records:
        raise ValueError(
            f"none of the videos in {options.videos} can be used: python -m mvf check folder "
            f"-p data_root {data['data_root']} says why"
        )
    check_actions(options.model, model, records)
    chunking = Chunking(options.chunk or config.chunk, options.overlap, options.fade, options.one_clock)
    embed_to_file(model, records, Path(options.out), chunking, config.precision, options.bank)
    sys.stdout.write(f"{len(records)} video{'s' * (len(records) != 1)} -> {options.out}\n")


def _film(options: argparse.Namespace) -> None:
    from mvf.workbench.notebook.attention import film_video

    files = film_video(options.model, options.video, options.image_size, options.out)
    sys.stdout.write("".join(f"film {file}\n" for file in files))


def _apply(options: argparse.Namespace) -> None:
    from mvf.segments import check_segments_file, write_segments
    from mvf.workbench.notebook.segments import apply_labels

    check_segments_file(options.out, options.format)
    found = apply_labels(options.model, options.videos, options.labels, options.method, **_settings(options, True))
    files = write_segments(found.segments, options.out, found.records, options.format)
    sys.stdout.write(f"{found.summary()}\n{files[0] if len(files) == 1 else f'{len(files)} files in {options.out}'}\n")


def _repetitions(options: argparse.Namespace) -> None:
    from mvf.workbench.notebook.segments import cut_recording, repetition_lines, write_repetitions

    if options.out:
        check_output(options.out)
    record, found = cut_recording(options.model, options.video, **_settings(options, True))
    sys.stdout.writelines(f"{line}\n" for line in repetition_lines(record, found))
    if options.out:
        write_repetitions(record, found, options.out)
        sys.stdout.write(f"listed as parts in {options.out}\n")


def _evaluate(options: argparse.Namespace) -> None:
    from mvf.evaluation import score_embeddings, write_report
    from mvf.workbench.notebook.session import embed_splits, open_session, report_on, summary

    source = Path(options.source)
    if source.suffix.lower() in (".npz", ".csv"):
        if not options.labels:
            raise ValueError(f"{source} needs its labels: python -m mvf evaluate {source} LABELS.csv")
        config = load_config("penn", **_settings(options))
        out = options.out or source.with_suffix(".metrics.json")
        report = score_embeddings(source, options.labels, config)
        write_report(report, out)
    else:
        session = open_session(source, **_settings(options))
        splits = embed_splits(session.model, session.config, source=session.source, bank=options.bank)
        out = options.out or session.report
        report = report_on(session.model, session.config, splits, out, options.bank)
    sys.stdout.write(summary(report) + f"\n  report {out}\n")


def _check(options: argparse.Namespace) -> None:
    config = load_config(options.dataset, **{"data_root": options.data_root, **_settings(options)})
    from mvf.data import check_lines

    sys.stdout.writelines(f"{line}\n" for line in check_lines(config))


def _batch(options: argparse.Namespace) -> None:
    from mvf.workbench.tables.batch import run_batch
    from mvf.workbench.tables.plan import plan, unique_jobs

    out = options.out or str(_runs_folder() / options.tables[0])
    settings = (options.tables, options.trials, out, dict(options.p))
    if options.dry_run:
        _say_plan(unique_jobs(plan(*settings)))
        return
    if options.slurm and not options.executor:
        raise ValueError("--slurm sets options of jobs: add --executor slurm (or local)")
    failed = run_batch(*settings, options.workers, _say, options.executor, parse_options(options.slurm))
    if failed:
        raise ValueError(f"{len(failed)} runs failed: {', '.join(failed)}; the same command tries them again")
    sys.stdout.write(f"tables: papermill figures.ipynb OUT.ipynb -p tables {out} (in notebooks/)\n")


def _say_plan(jobs: Sequence[Job]) -> None:
    """Lists the runs of a batch, what is left to do, and about what that takes here."""
    left = [job for job in jobs if not job.finished]
    found: dict[Path, Estimate] = {}
    for job in jobs:
        state = _state(job, found) if job in left else "done"
        _say(f"{job.folder}: {state}")
    banks = {one.bank: one for one in found.values()}  # runs that share a bank make it once
    seconds = sum(one.seconds for one in found.values()) + sum(one.bank_seconds for one in banks.values())
    gigabytes = sum(one.gigabytes for one in banks.values())
    unknown = f", {len(left) - len(found)} of them without their data and not counted" if len(found) < len(left) else ""
    assumed = (
        f" (assumed: one GPU at {Assumptions().operations / 1e12:.0f} teraflops)"
        if any(one.assumed for one in found.values())
        else ""
    )
    if left and not found:
        _say(f"{len(jobs)} runs, {len(left)} to do; no estimate without their data")
        return
    _say(
        f"{len(jobs)} runs, {len(left)} to do{unknown}: about {duration(seconds)}{assumed}, {gigabytes:.1f} GB of banks"
    )


def _state(job: Job, found: dict[Path, Estimate]) -> str:
    """What a dry run says of a run that is to do: whether it needs another or lacks its data, and what it takes."""
    said = f"to do, starts from {job.needs}-{job.config.seed}" if job.needs else "to do"
    missing = job.missing_data
    if missing is None or job.config.dataset in SIZED:
        try:
            one = found[job.folder] = estimate(job.config)
        except ValueError as error:  # the folder holds no videos
            return f"{said}, but {str(error).partition('; expected layout')[0]}"
        said += f", about {duration(one.seconds + one.bank_seconds)}"
        said += f", {one.gigabytes:.1f} GB of banks" if one.gigabytes else ""
    if missing is None:
        return said
    return f"{said}, but its data are missing: there is no folder {missing} (-p data_root names another)"


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _report(options: argparse.Namespace) -> None:
    if options.clips:
        _report_clips(options)
        return
    if options.labels or options.references:
        raise ValueError("--labels and --references are for a page about clips: add --clips")
    from mvf.evaluation import read_report
    from mvf.workbench.notebook.session import summary
    from mvf.workbench.report import write_page

    folder = Path(options.run)
    page = write_page(folder, options.other, options.out or None)
    text = summary(read_report(folder / "metrics.json"), sorted(folder.glob("figures/*.png")))
    sys.stdout.write(f"{text}\n  page {page}\n")


def _report_clips(options: argparse.Namespace) -> None:
    from mvf.workbench.report.clips import write_clips_page

    if options.out:
        check_output(options.out)
    if not options.other:
        raise ValueError(f"--clips needs the clips: python -m mvf report --clips {options.run} CLIPS")
    page = write_clips_page(options.run, options.other, options.labels, options.references, options.out)
    sys.stdout.write(f"page {page}\n")


def _sizes(options: argparse.Namespace) -> None:
    assumed = Assumptions(**{name: getattr(options, name) for name in asdict(Assumptions())})
    page = sizes_page(read_rates(options.rates), assumed)
    with atomic(options.out) as path:
        path.write_text(page, encoding="utf-8")
    sys.stdout.write(f"page {options.out}\n")


def _runs(options: argparse.Namespace) -> None:
    folder = Path(options.folder or _runs_folder())
    if options.folder and not folder.is_dir():
        raise ValueError(f"{folder} is not a folder: name the folder that holds the runs")
    found = sorted(folder.rglob("config.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    lines = [_run_line(path.parent, folder) for path in found if path.parent.parent.name != "actions"]
    sys.stdout.write("".join(f"{line}\n" for line in lines) or f"no runs in {folder}: make demo, or mvf train\n")


def _runs_folder() -> Path:
    """As in `default_folder`, without importing torch."""
    root = Path(mvf.__file__).parents[1]
    return (root if (root / "pyproject.toml").exists() else Path()) / "runs"


def _run_line(run: Path, root: Path) -> str:
    """Name, date, data and scores of a run, from its files alone."""
    name, changed = run.relative_to(root).as_posix(), datetime.fromtimestamp((run / "config.json").stat().st_mtime)
    try:
        config = json.loads((run / "config.json").read_text(encoding="utf-8"))
        where = config["data_seed"] if config["dataset"] == "synthetic" else Path(config.get("data_root", "")).name
        data = f"{config['dataset']} {where}".strip()
        about = f"{data}, {config['preset']}, {config['objective']}, seed {config['seed']}"
        report = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        report = {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{name}  {changed:%Y-%m-%d %H:%M}  damaged ({error!r})"
    scores = report.get("cropped", {}).get("model", {})
    said = ", ".join(f"{score} {scores[score]:.3f}" for score in ("classification", "retrieval@5") if score in scores)
    state = f"cropped {said}" if said else "no scores" if report else "no report yet"
    return f"{name}  {changed:%Y-%m-%d %H:%M}  {about}  {state}"


def _presets(options: argparse.Namespace) -> None:
    for name, preset in stored_presets().items():
        base = f" (extends {preset.extends})" if preset.extends else ""
        sys.stdout.write(
            f"{name}{base}{': ' if preset.purpose else ''}{' '.join(preset.purpose.split()).partition('. ')[0]}\n"
        )


def _fields(options: argparse.Namespace) -> None:
    default = Config()
    values = load_config(options.preset) if options.preset else default
    for name, meaning in field_meanings().items():
        value, own = getattr(values, name), getattr(default, name)
        mark = "*" if value != own else " "
        sys.stdout.write(f"{mark} {name} = {value!r}{f'  # {meaning}' if meaning else ''}\n")


def _env(options: argparse.Namespace) -> None:
    import os
    import platform
    from importlib.metadata import PackageNotFoundError, version

    from mvf.device import resolve_device
    from mvf.files import cache_folder, data_folder
    from mvf.models.engine import BLOCKS, machine, measured_rates, rates_file, resolve_compute

    versions = []
    for name in ("torch", "torchvision", "timm", "openvino", "av", "opencv-python-headless", "numpy", "jupyterlab"):
        try:
            versions.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            versions.append(f"{name} missing")
    device, here = resolve_device(), machine()
    chosen = resolve_compute("auto", "auto", device)
    lines = [
        f"mvf {mvf.__version__}, Python {platform.python_version()}, {platform.platform()}",
        ", ".join(versions),
        f"processor {here['processor']}; {here['threads']} threads of {os.cpu_count()} cores",
        f"device {device}: engine {chosen.engine}, precision {chosen.precision}",
    ]
    if device.type == "cpu":
        lines += [f"  {engine} {precision}: {1000 * seconds:.1f} ms for {BLOCKS} blocks of ViT-S on 16 frames of 112 px"
                  for (engine, precision), seconds in measured_rates().items()]  # fmt: skip
        lines += [f"  measured once; delete {rates_file()} to measure again"]
    lines += [f"{name} {os.environ[name]}" for name in ("MVF_ENGINE", "MVF_PRECISION") if os.environ.get(name)]
    lines += [f"cache {cache_folder()}", f"data {data_folder()}"]
    sys.stdout.writelines(f"{line}\n" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
