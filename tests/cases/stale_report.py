"""Clips are labelled after training: probe.ipynb's report must be of the labels that are there now."""
from _help import *
folder = start()
for i in range(6): video(folder / f"clips/c{i}.mp4", 24 + i, 40 * i)
import mvf
from mvf.workbench import notebook
config = mvf.load_config("folder", **TINY, data_root=str(folder / "clips"))
run = mvf.train(config, folder / "run")
notebook.report_on(run.model, config, notebook.embed_splits(run.model, config), folder / "run/metrics.json")
rows = [f"c{i}.mp4,{'val' if i % 3 == 2 else 'train'},act,0;10\n" for i in range(6)]
(folder / "clips/videos.csv").write_text("path,split,action,phases\n" + "".join(rows))
session = notebook.open_session(folder / "run")
splits = notebook.embed_splits(session.model, session.config, source=session.source)
report = notebook.stored_or_new_report(session, splits)   # what probe.ipynb shows
reason = report["skipped"].get("classification", "")
verdict(bool(report["scores"]) and report["coverage"]["val"]["found"] == 2,
        f"{sum(v.phases is not None for v in splits.val)} labelled validation videos; the report says: {reason or 'scores'}; val videos {report['coverage']['val']['found']}")
