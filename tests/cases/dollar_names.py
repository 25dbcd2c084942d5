"""Names with two dollar signs: figures show them as they are, and notebooks do not end on them."""
from _help import *
folder = start()
import matplotlib; matplotlib.use("Agg")
import numpy as np
from mvf.workbench import plotting
names = ["win $1 vs $100", "S01_$E02_$x", "Ba$$in", "plain"]
phases = [np.repeat([0, 1], 5)] * 4
figure = plotting.plot_transfer(phases, phases, names, ("one", "two"), caption="Labelled: S01_$E02_$x")
try: figure.savefig(folder / "x.png")
except Exception as error: verdict(False, f"{type(error).__name__}: {str(error).splitlines()[-1]}")
math = [t.get_text() for t in figure.findobj(matplotlib.text.Text) if "$" in t.get_text() and t.get_parse_math() and "\\$" not in t.get_text() and t.get_text().count("$") > 1]
verdict(not math, f"drawn as formulas: {math}")
