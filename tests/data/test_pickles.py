from __future__ import annotations

import io
import os
import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from mvf.data.pickles import read_pickle


class Payload:
    """Unpickling it without care makes the file it names."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


class PlainTensor:
    """Pickles as torch pickles tensors outside `torch.save`, around a value of our choosing."""

    def __init__(self, value, zipped: bool) -> None:
        file = io.BytesIO()
        torch.save(value, file, _use_new_zipfile_serialization=zipped)
        self.data = file.getvalue()

    def __reduce__(self):
        return torch.storage._load_from_bytes, (self.data,)


def _write(path: Path, value, protocol: int | None = None) -> Path:
    path.write_bytes(pickle.dumps(value, protocol))
    return path


@pytest.mark.filterwarnings("ignore:TypedStorage")
@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_containers_arrays_and_tensors_are_read_in_every_protocol(tmp_path, protocol):
    labels = torch.arange(6)[::2]
    value = [{"id": 1, "frame_label": labels, "array": np.eye(2), "scalar": np.float32(3), "path": b"a"}, {1.5, None}]
    value += [OrderedDict(size=torch.Size([2])), labels.storage(), torch.nn.Parameter(torch.ones(1))]
    found = read_pickle(_write(tmp_path / "a.pkl", (value, [[0]]), protocol))
    (entry, plain, sizes, storage, parameter), lists = found
    assert entry["frame_label"].tolist() == [0, 2, 4] and np.array_equal(entry["array"], np.eye(2))
    assert entry["scalar"] == 3 and entry["path"] == b"a" and plain == {1.5, None}
    assert sizes == {"size": (2,)} and list(storage) == list(labels.storage()) and parameter.item() == 1
    assert lists == [[0]]


@pytest.mark.parametrize("protocol", [0, 2, 5])
@pytest.mark.parametrize("place", ["top", "entry", "tensor", "legacy tensor"])
def test_code_is_refused_by_name_and_not_run(tmp_path, place, protocol):
    mark = tmp_path / "ran"
    payload = Payload(mark)
    value = {
        "top": payload,
        "entry": [{"name": "a", "frame_label": payload}],
        "tensor": [{"frame_label": PlainTensor([payload], True)}],
        "legacy tensor": [{"frame_label": PlainTensor({"a": payload}, False)}],
    }[place]
    path = _write(tmp_path / "train.pkl", value, protocol)
    with pytest.raises(ValueError, match=r"train.pkl: it would call (posix|nt|os)\.system, which was refused and not"):
        read_pickle(path)
    assert not mark.exists()


@pytest.mark.parametrize(
    "name", ["builtins getattr", "builtins eval", "numpy load", "torch load", "torch.hub os.system"]
)
def test_only_what_data_needs_is_allowed(tmp_path, name):
    module, attribute = name.split()
    text = b"\x80\x04" + b"".join(b"\x8c" + bytes([len(part)]) + part.encode() for part in (module, attribute))
    (tmp_path / "a.pkl").write_bytes(text + b"\x93.")
    with pytest.raises(ValueError, match=f"call {module}.{attribute}, which was refused"):
        read_pickle(tmp_path / "a.pkl")


def test_files_that_are_no_pickles_are_named(tmp_path):
    whole = pickle.dumps([{"name": "a", "frame_label": torch.arange(100)}])
    path = tmp_path / "a.pkl"
    for data in (b"", b"not a pickle", whole[:20], whole[:-40], whole[:300], b"\x80\x04\x95" + b"\xff" * 20):
        path.write_bytes(data)
        with pytest.raises(ValueError, match=r"cannot read .*a\.pkl: damaged, cut short, or no pickle \(.+\)"):
            read_pickle(path)
    with pytest.raises(ValueError, match=r"cannot read .*b\.pkl: No such file"):
        read_pickle(tmp_path / "b.pkl")
