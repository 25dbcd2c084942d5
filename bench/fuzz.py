"""Fuzzes every parser of the package with random seeds for a given time; writes a Markdown table to stdout.

    python bench/fuzz.py --seconds 600 [--only NAME]

The targets are those of `tests/fuzz`, which the test suite runs briefly. The exit status is 1 if a parser misbehaved:
it raised an unexpected error or one that does not name its file, ran code, hung, or used unbounded memory. Each such
case is written to stderr with its input.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import logging
import os
import sys
import tempfile
import time
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from hypothesis import HealthCheck, Phase, given, settings  # noqa: E402

from tests.fuzz.harness import SECONDS, BrokenError, Prepared, Target  # noqa: E402
from tests.fuzz.registry import TARGETS  # noqa: E402

ROUND = 100  # cases per target and round
WIDTH = 2000  # maximum number of characters shown of an input


@dataclass
class Tally:
    """Counts the outcomes of one target's cases."""

    outcomes: Counter = field(default_factory=Counter)
    broken: dict[str, str] = field(default_factory=dict)
    slowest: float = 0.0

    def run(self, prepared: Prepared, stop: float) -> None:
        """Runs a round of new random cases, or fewer if the time reaches `stop`."""

        @settings(max_examples=ROUND, database=None, deadline=None, phases=[Phase.generate],
                  suppress_health_check=list(HealthCheck))  # fmt: skip
        @given(prepared.cases)
        def one_round(content: object) -> None:
            if time.monotonic() < stop:
                self.try_case(prepared, content)

        one_round()

    def try_case(self, prepared: Prepared, content: object) -> None:
        """Runs and counts one case; a fault is recorded and does not end the round."""
        started = time.monotonic()
        try:
            faulthandler.dump_traceback_later(10 * SECONDS, exit=True)  # a hang in C code blocks alarms
            outcome = prepared.try_case(content)
        except BrokenError as fault:
            outcome = "BROKEN"
            self.broken.setdefault(str(fault)[:80], f"{fault}\n  input: {content!r}"[:WIDTH])
        finally:
            faulthandler.cancel_dump_traceback_later()
        self.outcomes[outcome] += 1
        self.slowest = max(self.slowest, time.monotonic() - started)


def fuzz(targets: list[Target], seconds: float, home: Path) -> dict[str, Tally]:
    """Runs the targets in turn until the time is over; a target without cases was not reached."""
    prepared = [Prepared(target, home / str(number)) for number, target in enumerate(targets)]
    tallies = {target.name: Tally() for target in targets}
    stop = time.monotonic() + seconds
    while time.monotonic() < stop:
        for one in prepared:
            if time.monotonic() < stop:
                tallies[one.target.name].run(one, stop)
    return tallies


def table(tallies: dict[str, Tally]) -> str:
    """Formats the tallies as Markdown."""
    lines = ["| parser | cases | read | refused, by kind | broken | slowest case, s |", "| --- " * 6 + "|"]
    for name, tally in tallies.items():
        kinds = [f"{kind} {count}" for kind, count in tally.outcomes.most_common() if kind not in ("read", "BROKEN")]
        counts = (tally.outcomes.total(), tally.outcomes["read"], ", ".join(kinds), tally.outcomes["BROKEN"])
        lines.append(f"| {name} | " + " | ".join(map(str, counts)) + f" | {tally.slowest:.2f} |")
    total = sum(tally.outcomes.total() for tally in tallies.values())
    broken = sum(tally.outcomes["BROKEN"] for tally in tallies.values())
    return "\n".join([*lines, f"| **all** | {total} | | | {broken} | |"])


def main() -> int:
    """Reads the options and runs the fuzzer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600, help="total time for all targets (default 600)")
    parser.add_argument("--only", default="", help="only targets whose name contains this")
    options = parser.parse_args()
    targets = [target for target in TARGETS if options.only in target.name]
    if not targets:
        parser.error(f'no target contains "{options.only}": {", ".join(target.name for target in TARGETS)}')
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MVF_CACHE"] = str(Path(folder) / "cache")
        with _without_stderr_of_libraries():
            tallies = fuzz(targets, options.seconds, Path(folder))
    sys.stdout.write(table(tallies) + "\n")
    faults = [text for tally in tallies.values() for text in tally.broken.values()]
    sys.stderr.writelines(f"{text}\n" for text in faults)
    return int(bool(faults))


@contextlib.contextmanager
def _without_stderr_of_libraries():
    """Silences OpenCV and FFmpeg, which write a line for every damaged file."""
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


if __name__ == "__main__":
    sys.exit(main())
