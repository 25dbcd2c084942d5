"""Runs `make demo`: a film of the released head, then trains on drawn videos, scores and shows: runs/demo/report.html.

The film is made beside the first steps of training, and the three notebooks that open the run are run side by side.
At the end a table says where the minutes went; those of train.ipynb are from the times that papermill notes in it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from mvf.training.run import REPOSITORY, read_history
from mvf.workbench.plotting import Table

RUN = "runs/demo"
EXPECTED = "four to seven minutes on two quiet cores; the first film, of a model that is trained already, within one"
CELLS = {
    "mvf.train(": "features and training",
    "report_on(": "scores and controls",
}  # of train.ipynb, by a call in them


def main() -> None:
    """Runs the demo, and says what to expect and where the minutes went."""
    say(f"{EXPECTED}; everything goes to {RUN}")
    (REPOSITORY / RUN).mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    film = begin("-m", "mvf", "film", "drawn")
    train = notebook("train", preset="demo")
    wait(film)
    seen = time.monotonic() - start
    wait(train)
    trained = time.monotonic() - start
    for process in [notebook(name) for name in ("probe", "attention", "align")]:
        wait(process)
    subprocess.run([Path(sys.executable).with_name("jupyter-trust"), *(REPOSITORY / RUN).glob("*.ipynb")], check=True)
    shown = time.monotonic() - start
    wait(begin("-m", "mvf", "report", RUN))
    ends = {"first film (beside the first steps of training)": seen, "three notebooks, side by side": shown - trained}
    ends |= {"report page": time.monotonic() - start - shown, "all": time.monotonic() - start}
    say(str(minutes_table(parts_of_training(REPOSITORY / RUN), ends)))


def begin(*words: str, folder: Path = REPOSITORY) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, *words], cwd=folder)


def notebook(name: str, **parameters: str) -> subprocess.Popen:
    """Begins to run a notebook on the run of the demo."""
    given = [word for pair in {**parameters, "run_dir": RUN}.items() for word in ("-p", *pair)]
    files = f"{name}.ipynb", f"../{RUN}/{name}.ipynb"
    return begin("-m", "papermill", *files, *given, folder=REPOSITORY / "notebooks")


def wait(process: subprocess.Popen) -> None:
    """Waits for a part; if it failed, the demo ends with its exit status, for it has said why."""
    if process.wait():
        sys.exit(process.returncode)


def parts_of_training(run: Path) -> dict[str, float]:
    """Seconds of the parts of train.ipynb, in order."""
    stored = json.loads((run / "train.ipynb").read_text(encoding="utf-8"))
    found = dict.fromkeys(CELLS.values(), 0.0)
    for cell in stored["cells"]:
        for call, words in CELLS.items():
            if call in "".join(cell["source"]) and cell["cell_type"] == "code":
                found[words] += cell["metadata"]["papermill"]["duration"]
    training = sum(row["seconds"] for row in read_history(run))
    rest = stored["metadata"]["papermill"]["duration"] - sum(found.values())
    features = found["features and training"] - training
    return {
        "features of the frozen backbone": max(0.0, features),
        "training": training,
        "scores and controls": found["scores and controls"],
        "the rest of train.ipynb: imports, figures": rest,
    }


def minutes_table(training: Mapping[str, float], others: Mapping[str, float]) -> Table:
    first, *rest = others
    rows = {first: others[first], **training, **{name: others[name] for name in rest}}
    return Table(tuple((name, f"{seconds:.0f}") for name, seconds in rows.items()), ("part", "seconds"))


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
