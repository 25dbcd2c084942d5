"""The first label makes videos.csv: every video that the folder had must be in it (also without /etc/mime.types)."""
from _help import *
folder = start()
import mimetypes
mimetypes.knownfiles = []; mimetypes.init()               # a slim container
from mvf.data import find_videos
from mvf.workbench.widgets.phase_table import PhaseTable
root = folder / "clips"
for i, name in enumerate(("a.mp4", "b.mkv", "c.m2ts", "d.mp4")): video(root / name, 12, 40 * i)
for i in range(2): video(folder / f"elsewhere/{i}.mp4", 12)
os.symlink(folder / "elsewhere", root / "more")
names = lambda: sorted(r.name for split in ("train", "val") for r in find_videos("folder", split, root))
before = names()
PhaseTable(root / "videos.csv").write("a", ((0, 0), (5, 1)), 12, ("d",))
after = names()
verdict(before == after, f"before {before}, after one label {after}")
