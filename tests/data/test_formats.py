from __future__ import annotations

import io
import os
import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from mvf.data import formats
from mvf.data.formats import read_examples, read_pickle, read_records
from mvf.data.video import VideoError

from .penn_disk import bytes_feature, field, sequence_example, text_map, write_tfrecord


class Payload:
    """Unpickling it without care makes the file it names."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


class Call:
    """Pickles as a call of a function, and then of `__setstate__` where a state is given."""

    def __init__(self, *call) -> None:
        self.call = call

    def __reduce__(self):
        return self.call


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


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_and_bytes_of_every_layout_are_read(tmp_path, protocol):
    cube = np.arange(24).reshape(2, 3, 4)
    arrays = [cube, np.asfortranarray(cube), cube.transpose(2, 0, 1), cube[::2, ::-1], np.zeros((0, 3)), np.array(5)]
    arrays += [np.arange(3, dtype=">i4"), np.array(["a", "bc"]), np.array([b"a"]), np.array([True])]
    *found, empty, text, big = read_pickle(
        _write(tmp_path / "a.pkl", [*arrays, b"", np.str_("é"), np.uint16(7)], protocol)
    )
    assert all(np.array_equal(a, b) and a.dtype.kind == b.dtype.kind for a, b in zip(arrays, found, strict=True))
    assert (empty, text, big) == (b"", "é", 7)


def test_names_of_older_numpy_are_known(tmp_path):
    data = pickle.dumps([np.arange(3), np.float64(2)], 2)
    (tmp_path / "a.pkl").write_bytes(data.replace(b"numpy._core", b"numpy.core"))
    values, number = read_pickle(tmp_path / "a.pkl")
    assert b"numpy._core" in data and values.tolist() == [0, 1, 2] and number == 2


def test_tensors_are_views_of_their_storage_whatever_their_kind(tmp_path):
    grid = torch.arange(12).reshape(3, 4)
    tensors = [grid.T, grid[1:, ::2], torch.tensor(3), torch.tensor(-1).expand(9), torch.ones(2, requires_grad=True)]
    found = read_pickle(_write(tmp_path / "a.pkl", tensors, 2))
    assert all(torch.equal(a, b) for a, b in zip(tensors, found, strict=True)) and not found[-1].requires_grad


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
    "name",
    [
        "builtins getattr",
        "builtins eval",
        "__builtin__ eval",
        "builtins bytearray",  # takes a size: room for any number of bytes
        "posix system",
        "numpy load",
        "torch load",
        "torch.hub os.system",
        "functools partial",
        "operator attrgetter",
        "copyreg _reconstructor",
        "numpy.core.multiarray os.system",
    ],
)
def test_only_what_data_needs_is_allowed(tmp_path, name):
    module, attribute = name.split()
    text = b"\x80\x04" + b"".join(b"\x8c" + bytes([len(part)]) + part.encode() for part in (module, attribute))
    (tmp_path / "a.pkl").write_bytes(text + b"\x93.")
    with pytest.raises(ValueError, match=f"call {module}.{attribute}, which was refused"):
        read_pickle(tmp_path / "a.pkl")


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize(
    "layout",
    [
        ("O8", (3, "|", None, None, None, -1, -1, 0)),  # objects that claim to be plain bytes: addresses of memory
        ("V8", (3, "|", None, ("a",), {"a": (np.dtype("O"), 0)}, 8, 1, 0)),
        ("V8", (3, "|", None, ("a",), {"a": (np.dtype("i8"), 10**9)}, 8, 1, 0)),
    ],
)
@pytest.mark.parametrize("maker", ["array", "scalar", "buffer"])
def test_layouts_that_lie_about_memory_are_refused(tmp_path, layout, protocol, maker):
    (code, state), data = layout, b"A" * 8
    kind = Call(np.dtype, (code, False, True), state)
    core = np._core
    value = {
        "array": Call(core.multiarray._reconstruct, (np.ndarray, (0,), b"b"), (1, (1,), kind, False, data)),
        "scalar": Call(core.multiarray.scalar, (kind, data)),
        "buffer": Call(core.numeric._frombuffer, (data, kind, (1,), "C")),
    }[maker]
    with pytest.raises(ValueError, match=r"a\.pkl: damaged.*a numpy array of .+, expected numbers or text"):
        read_pickle(_write(tmp_path / "a.pkl", [value], protocol))


@pytest.mark.parametrize("shape", [(10**12,), (-1,), (2**62, 4), (-1, -8), ("a",)])
def test_arrays_of_another_shape_than_their_bytes_are_refused(tmp_path, shape):
    kind = np.dtype("i8")
    state = (1, shape, kind, False, bytes(8))
    value = Call(np._core.multiarray._reconstruct, (np.ndarray, (0,), b"b"), state)
    with pytest.raises(ValueError, match="damaged"):
        read_pickle(_write(tmp_path / "a.pkl", value))


def test_objects_in_an_array_are_not_read_and_code_among_them_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"system, which was refused and not run"):
        read_pickle(_write(tmp_path / "a.pkl", np.array([Payload(tmp_path / "ran")], object)))
    with pytest.raises(ValueError, match="a numpy array of object, expected numbers or text"):
        read_pickle(_write(tmp_path / "a.pkl", np.array([[1], "a"], object)))
    assert not (tmp_path / "ran").exists()


@pytest.mark.filterwarnings("ignore:TypedStorage")
@pytest.mark.parametrize(
    "offset, size, stride",
    [(0, (4,), (1,)), (0, (10**9,), (1,)), (0, (10**12,), (0,)), (-1, (1,), (1,)), (3, (1,), (1,)), (2, (3,), (-1,))],
)
def test_tensors_that_reach_beyond_their_storage_are_refused(tmp_path, offset, size, stride):
    storage = torch.arange(3).storage()
    value = Call(torch._utils._rebuild_tensor_v2, (storage, offset, size, stride, False, OrderedDict()))
    with pytest.raises(ValueError, match=r"a\.pkl: damaged"):
        read_pickle(_write(tmp_path / "a.pkl", value))


@pytest.mark.parametrize("value", [{"a": 1}, torch.ones(2), None])
def test_what_is_no_storage_makes_no_tensor(tmp_path, value):
    with pytest.raises(ValueError, match="damaged.*the numbers of a tensor are"):
        read_pickle(_write(tmp_path / "a.pkl", [PlainTensor(value, False)]))


def test_a_pickle_changes_nothing_outside_itself(tmp_path):
    # sets an attribute of the function, which pickle allows for anything that has attributes
    code = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\nN}X\x03\x00\x00\x00newK\x01s\x86b."
    (tmp_path / "a.pkl").write_bytes(code)
    with pytest.raises(ValueError, match="damaged"):
        read_pickle(tmp_path / "a.pkl")
    assert not any(hasattr(f, "new") for f in (torch._utils._rebuild_tensor_v2, *formats.STAND_INS.values()))


def test_files_that_are_no_pickles_are_named(tmp_path):
    whole = pickle.dumps([{"name": "a", "frame_label": torch.arange(100)}])
    path = tmp_path / "a.pkl"
    for data in (b"", b"not a pickle", whole[:20], whole[:-40], whole[:300], b"\x80\x04\x95" + b"\xff" * 20):
        path.write_bytes(data)
        with pytest.raises(ValueError, match=r"cannot read .*a\.pkl: damaged, cut short, or not a pickle \(.+\)"):
            read_pickle(path)
    with pytest.raises(ValueError, match=r"cannot read .*b\.pkl: No such file"):
        read_pickle(tmp_path / "b.pkl")


@pytest.mark.parametrize("code", [b"r\xff\xff\xff\x6f", b"p1879048191\n"])
def test_memo_indices_beyond_the_file_are_refused_before_memory_is_taken(tmp_path, code):
    (tmp_path / "a.pkl").write_bytes(b"\x80\x02]" + code + b".")
    with pytest.raises(ValueError, match=r"a\.pkl: damaged.*it stores a value at index 1879048191 of its memo"):
        read_pickle(tmp_path / "a.pkl")


# records ------------------------------------------------------------------------------------------------------------


def test_a_shard_is_found_again_in_the_cache_with_the_same_records_and_frames(tmp_path):
    path = write_tfrecord(tmp_path / "shard", [sequence_example("a", 3, [0, 1, 2]), sequence_example("b", 2, None)])
    first, second = read_examples(path)
    assert (first.name, second.name) == ("a", "b") and first.labels.tolist() == [0, 1, 2] and second.labels is None
    data = path.read_bytes()
    for example, record in zip((first, second), read_records(path), strict=True):
        start = data.index(b"\xff\xd8", record.start)
        assert f"the first at bytes [({start}, " in example.frames.identity  # banks are stored under it
    assert [(e.name, e.frames.identity) for e in read_examples(path)] == [
        (e.name, e.frames.identity) for e in (first, second)
    ]


def test_a_shard_that_changes_while_it_is_in_use_is_named(tmp_path):
    path = write_tfrecord(tmp_path / "shard", [sequence_example("a", 3, None)])
    (example,) = read_examples(path)
    assert example.frames.count() == 3
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(VideoError, match="shard: it changed while it was in use"):
        next(example.frames.frames())


def test_labels_that_are_no_integers_are_named(tmp_path):
    lists = {"video": field(1, bytes_feature(b"")) * 2, "frame_labels": field(1, bytes_feature(b"one")) * 2}
    data = field(1, text_map({"name": bytes_feature(b"a")})) + field(2, text_map(lists))
    (example,) = read_examples(write_tfrecord(tmp_path / "shard", [data]))
    assert example.name == "a" and "frame_labels must be integers" in example.problem
