"""labels.csv of the referee: a misspelt column and phases separated by commas must be refused, as videos.csv does."""
from _help import *
folder = start()
import numpy as np
from mvf.evaluation.external import match, read_embeddings, read_labels
np.savez(folder / "e.npz", **{f"v{i}": np.ones((10, 4), np.float32) for i in range(5)})
embeddings = read_embeddings(folder / "e.npz")
wrong = []
def check(name, header, row, split, phases):
    (folder / "labels.csv").write_text(header + "\n" + "".join(row(i) + "\n" for i in range(5)))
    try: train, val = match(embeddings, read_labels(folder / "labels.csv"))
    except ValueError: return
    got = sorted(v.name for v in val), "".join(map(str, val[0].phases))
    if got != (split, phases): wrong.append(f"{name}: val {got[0]} phases {got[1]}")
side = lambda i: "train" if i else "val"
check("phases 0,4 without quotes", "name,split,action,phases", lambda i: f"v{i},{side(i)},a,0,4", ["v0"], "0000111111")
check("Split", "name,Split,action,phases", lambda i: f"v{i},{side(i)},a,0;4", ["v0"], "0000111111")
check("blank after the commas", "name,phases, split, action", lambda i: f"v{i},0;4, {side(i)}, a", ["v0"], "0000111111")
check("subset", "name,subset,phases", lambda i: f"v{i},{side(i)},0;4", ["v0"], "0000111111")
verdict(not wrong, "; ".join(wrong) or "refused or read right")
