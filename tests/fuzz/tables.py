"""Targets: tables and lists that people write, and the annotation files of published data sets."""

from __future__ import annotations

import csv
import io
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

from mvf.data import VideoList, find_videos
from mvf.data.labels import mask_files, read_boxes, read_csv, read_masks, read_phases
from mvf.data.video import ImageFolder
from mvf.evaluation.external import match, read_embeddings, read_labels

from ..data.footage import write_images, write_video
from ..data.gym_disk import write_finegym99_raw, write_kinetics_csv
from .harness import Target, changed, json_files, numbers, plain, tables, texts, zipped

FRAMES = 6
VIDEO_CELLS = st.sampled_from(["a.mp4", "b.mp4", "images", "train", "val", "0;3", "p.csv", "p.npy", "b.csv", "masks"])
FRAME_CELLS = st.sampled_from(["0", "1", "2", "3.5", "-1", "-2", "1e400", "nan", "", "phase"])


def look(videos: VideoList) -> None:
    """Everything that a record gives but its pixels."""
    for record in videos:
        for value in (record.num_frames, record.phases, record.actor_box(), record.actor_mask(), record.joints()):
            assert value is None or value is record.num_frames or len(value) == record.num_frames
    assert videos.coverage.found + len(videos.coverage.unreadable) <= max(videos.coverage.expected, 1)


def look_at(dataset: str, home: Path, _: Any = None, **options: Any) -> None:
    """All splits of a dataset that reads `home`."""
    for split in ("train", "val", "dev"):
        look(find_videos(dataset, split, home, **options))


def write_folder(home: Path) -> None:
    """Two videos and a folder of images, labelled in every way that there is."""
    for name in "ab":
        write_video(home / f"{name}.mp4", FRAMES)
    write_images(home / "images", FRAMES)
    write_labels(home)
    rows = ["path,split,action,phases,boxes,masks", "a.mp4,train,squat,0;3,b.csv,masks", "b.mp4,val,squat,p.npy,b.npy,"]
    (home / "videos.csv").write_text("\n".join([*rows, "images,train,squat,p.csv,,"]) + "\n")


def write_labels(home: Path) -> None:
    """Phases and boxes as .csv and .npy, and masks."""
    phases, boxes = np.arange(FRAMES) // 3, np.tile([1.0, 2.0, 30.0, 40.0], (FRAMES, 1))
    for name, values in (("p", phases), ("b", boxes)):
        np.save(home / f"{name}.npy", values)
        np.savetxt(home / f"{name}.csv", values, "%g", delimiter=",")
    write_images(home / "masks", FRAMES)


def _source(home: Path) -> ImageFolder:
    return ImageFolder(home / "masks")


def _phases(file: str, home: Path, _: Any) -> None:
    assert read_phases("clip", file, home, _source(home)).shape == (FRAMES,)


def _boxes(file: str, home: Path, _: Any) -> None:
    assert read_boxes("clip", home / file, _source(home)).shape == (FRAMES, 4)


def _masks(home: Path, _: Any) -> None:
    files, size = mask_files("clip", home / "labels", _source(home))
    assert read_masks("clip", files, size).shape == (FRAMES, *size)


def _write_masks(home: Path) -> None:
    write_images(home / "masks", FRAMES)
    write_images(home / "labels", FRAMES)


def _phase_list(home: Path, text: str) -> None:
    assert len(read_phases("clip", text, home, _source(home))) == FRAMES


def _arrays() -> st.SearchStrategy[bytes]:
    """.npy files of odd kinds and shapes."""
    kinds = st.sampled_from(["<f8", ">f4", "i1", "u8", "?", "c16", "U3", "S2", "M8[s]", "V4", "f2", "O"])
    shapes = st.lists(st.sampled_from([0, 1, 3, 4, FRAMES, 40]), max_size=3).map(tuple)
    fills = st.sampled_from([0, 1, -1, 3, np.nan, np.inf, 1e300])
    return st.builds(_array_file, kinds, shapes, fills)


def _array_file(kind: str, shape: tuple[int, ...], fill: float) -> bytes:
    file = io.BytesIO()
    with np.errstate(all="ignore"):
        values = np.zeros(shape, kind)
        if np.dtype(kind).kind in "fc":
            values += fill
    np.save(file, values, allow_pickle=True)
    return file.getvalue()


def _columns(count: int) -> st.SearchStrategy[bytes]:
    """CSV files of `count` numbers a row, nearly."""
    rows = st.lists(st.lists(FRAME_CELLS, min_size=count, max_size=count + 1), min_size=FRAMES - 1, max_size=FRAMES + 1)
    return st.one_of(rows.map(lambda t: "\n".join(",".join(row) for row in t).encode()), tables(("phase",)))


# tables as spreadsheets write them, of which no row may be lost -------------------------------------------------------

COLUMNS = ["path", "split", "phases"]
WRITTEN = st.tuples(
    st.lists(st.lists(texts, min_size=1, max_size=3), max_size=6),  # rows
    st.sampled_from(",;\t"),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.booleans(),  # quotes around all cells
    st.integers(0, 3),  # blank lines after the header
)


def _written(home: Path, content: Any) -> None:
    rows, separator, encoding, end, quoted, blank = content
    rows = [[cell.encode("utf-8", "replace").decode() for cell in row] for row in rows]
    text = io.StringIO(newline="")
    quoted = quoted or any(sign in cell for row in rows for cell in row for sign in "\n\r")  # csv.writer may not do it
    quoting = csv.QUOTE_ALL if quoted else csv.QUOTE_MINIMAL
    writer = csv.writer(text, delimiter=separator, lineterminator=end, quoting=quoting)
    writer.writerows([COLUMNS, *[[]] * blank, *rows])
    (home / "t.csv").write_bytes(text.getvalue().encode(encoding))
    found = [[row.get(name, "") for name in COLUMNS] for _, row in read_csv(home / "t.csv").rows()]
    wanted = [[cell.strip() for cell in row] + [""] * (3 - len(row)) for row in rows]
    assert found == [row for row in wanted if any(row)]


# scores of anyone's embeddings --------------------------------------------------------------------------------------


def _write_scored(home: Path) -> None:
    np.savez(home / "e.npz", a=np.eye(6, 3, dtype=np.float32), b=np.ones((6, 3)))
    (home / "labels.csv").write_text("name,split,action,phases\na,train,x,0;3\nb,val,x,p.npy\n")
    np.save(home / "p.npy", np.arange(6) // 2)


def _scored(home: Path, _: Any) -> None:
    train, val = match(read_embeddings(home / "e.npz"), read_labels(home / "labels.csv"))
    assert all(v.phases is None or len(v.phases) == len(v.embeddings) for v in (*train, *val))


def _write_scored_csv(home: Path) -> None:
    _write_scored(home)
    rows = [f"{name},{frame},0.6,-0.8" for name in "ab" for frame in range(6)]
    (home / "e.csv").write_text("\n".join(["name,frame,e0,e1", *rows]) + "\n")


def _scored_csv(home: Path, _: Any) -> None:
    match(read_embeddings(home / "e.csv"), read_labels(home / "labels.csv"))


def _archives() -> st.SearchStrategy[bytes]:
    """.npz files of odd arrays under odd names."""
    return st.dictionaries(st.one_of(st.sampled_from("ab"), texts), _arrays(), max_size=3).map(_archive)


def _archive(members: dict[str, bytes]) -> bytes:
    return zipped({f"{name.replace(chr(0), '')}.npy": data for name, data in members.items()})


# published annotations ----------------------------------------------------------------------------------------------

TIMES = "FineGym/finegym_annotation_info_v1.0.json"
EVENT = {"event": 3, "timestamps": [[0.5, 2.9]], "segments": {"A_0000_0001": {"stages": 1, "timestamps": [[0.2, 0.8]]}}}
DESCRIBED = {"0Lt_S9w": {"E_000000_000003": EVENT}, "_A_2b": {"E_000000_000003": EVENT}}
ELEMENTS = st.lists(
    st.one_of(
        st.builds(
            "{}_E_{}_A_{} {}".format, texts, st.sampled_from(["000000_000003", "1_2"]), st.just("0000_0001"), numbers
        ),
        texts,
    )
).map(lambda lines: "\n".join(lines).encode("utf-8", "replace"))
USED = "gym99_train_element|videos can be used"  # the latter names every video, with its reason
CLIPS = ("label", "youtube_id", "time_start", "time_end", "split")
CLIP_CELLS = st.one_of(st.sampled_from(["zumba", "-id_0", "0", "10", "train"]), texts)


TARGETS = (
    Target(
        *("videos.csv", partial(look_at, "folder")),
        tables(("path", "split", "action", "phases", "boxes", "masks"), st.one_of(VIDEO_CELLS, texts)),
        *(write_folder, "videos.csv", r"videos\.csv|phase|box|mask|cannot read numbers from|videos can be used"),
    ),
    Target("tables as written", _written, WRITTEN, names=r"t\.csv"),
    Target("phases: a list", _phase_list, texts, write_labels, names="clip"),
    Target("phases .csv", partial(_phases, "p.csv"), _columns(1), write_labels, "p.csv", "p.csv|clip"),
    Target("phases .npy", partial(_phases, "p.npy"), _arrays(), write_labels, "p.npy", "p.npy|clip"),
    Target("boxes .csv", partial(_boxes, "b.csv"), _columns(4), write_labels, "b.csv", "b.csv|clip"),
    Target("boxes .npy", partial(_boxes, "b.npy"), _arrays(), write_labels, "b.npy", "b.npy|clip"),
    Target("masks", _masks, st.binary(max_size=64), _write_masks, "labels/2.png"),
    Target("embeddings .npz", _scored, _archives(), _write_scored, "e.npz", r"e\.npz|video|split"),
    Target(
        *("embeddings .csv", _scored_csv),
        tables(("name", "frame", "e0", "e1"), st.one_of(st.sampled_from(["a", "b", "0", "1", "0.5", "-1e9"]), texts)),
        *(_write_scored_csv, "e.csv", r"e\.csv|video|split"),
    ),
    Target(
        *("labels .csv", _scored),
        st.one_of(
            tables(
                ("name", "split", "action", "phases"), st.one_of(st.sampled_from(["a", "b", "train", "p.npy"]), texts)
            ),
            tables(("name", "frame", "phase"), st.one_of(st.sampled_from("ab0123"), texts)),
        ),
        *(_write_scored, "labels.csv", r"labels\.csv|video|split"),
    ),
    Target("phases .npy of labels .csv", _scored, _arrays(), _write_scored, "p.npy", r"labels\.csv|p\.npy|video"),
    Target(
        *("FineGym times", partial(look_at, "finegym99"), json_files(st.one_of(changed(DESCRIBED), plain))),
        *(write_finegym99_raw, TIMES, f"annotation_info|{USED}"),
    ),
    Target(
        *("FineGym elements", partial(look_at, "finegym99"), ELEMENTS),
        *(write_finegym99_raw, "FineGym/gym99_train_element_v1.0.txt", USED),
    ),
    Target(
        *("Kinetics .csv", partial(look_at, "kinetics400"), tables(CLIPS, CLIP_CELLS)),
        *(write_kinetics_csv, "kinetics400/train.csv", r"train\.csv|in .*kinetics400"),
    ),
)
