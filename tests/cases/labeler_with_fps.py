"""A run that resamples its videos (fps=5): what the labeler saves must be read back at the frame that was labelled."""
from _help import *
folder = start()
for i in range(4): video(folder / f"clips/c{i}.mp4", 40)
import mvf
from mvf.workbench import notebook
import numpy as np
mvf.train(mvf.load_config("folder", **TINY, data_root=str(folder / "clips"), fps=5), folder / "run")
session = notebook.open_session(folder / "run")
splits = notebook.embed_splits(session.model, session.config, one_is_enough=True)
labeler = notebook.phase_labeler(session, splits)
shown = list(next(r for r in splits.train_records if r.name == "c0").frames())
at = 6                                        # the seventh frame that the page shows: number 12 of the file
meant = number(shown[at])
labeler.accept("c0", [[0, 0], [int(labeler._numbers["c0"][at]), 1]])
again = next(r for r in mvf.data.find_config_videos(session.config, "train") if r.name == "c0")
got = number(list(again.frames())[int(np.argmax(again.phases == 1))])
verdict(got == meant, f"phase 1 was said to begin at frame {meant} of the file, it is read back at {got}")
