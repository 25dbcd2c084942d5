"""Progress bars: tqdm's in a terminal; in a notebook a line of text that ends as a sentence."""

from __future__ import annotations

import io
import sys
from typing import Any

from tqdm import tqdm as terminal_bar


class tqdm(terminal_bar):  # noqa: N801 - stands in for tqdm's own
    """tqdm's bar; in a notebook a line of text, and once closed a sentence such as "embedding: 24 videos in 3.1 s".

    tqdm's own bar for notebooks is a widget, of which a saved notebook keeps only how it began, at 0 %.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        self._kernel = _in_notebook()
        self._output: Any = None  # IPython's handle of the line, once there is one
        super().__init__(*args, **options, **({"file": io.StringIO()} if self._kernel else {}))

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        """Shows how far it is; tqdm calls this."""
        if not self._kernel:
            return super().display(msg, pos)
        self._show(str(self))
        return True

    def close(self) -> None:
        """Ends the bar; one that was never shown, because it was quick, leaves nothing."""
        if not self.disable:
            super().close()
            if self._output is not None:
                self._show(self.sentence)

    @property
    def sentence(self) -> str:
        """What was done, and how long it took."""
        count = f"{self.n:,}" if self.total in (None, self.n) else f"{self.n:,} of {self.total:,}"
        minutes, seconds = divmod(self.format_dict["elapsed"], 60)
        time = f"{minutes:.0f} min {seconds:.0f} s" if minutes else f"{seconds:.1f} s"
        return f"{self.desc.removesuffix(': ')}: {count} {self.unit}{'s' * (self.n != 1)} in {time}"

    def _show(self, text: str) -> None:
        from IPython.display import display  # a notebook has it

        line = {"text/plain": text}
        if self._output is None:
            self._output = display(line, raw=True, display_id=True)
        else:
            self._output.update(line, raw=True)


def _in_notebook() -> bool:
    """Whether this runs in a Jupyter kernel."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return hasattr(shell, "kernel")
