from dataclasses import replace

import pytest
import torch

from mvf.clip import Clip, _fetch, example_clip


def test_stack_joins_videos_and_keeps_what_is_absent_absent():
    clip = Clip.stack([example_clip(1, 2, 4), example_clip(1, 2, 4)])
    assert clip.frame_index.shape == (2, 2, 4)
    assert clip.num_frames.tolist() == [4, 4]
    assert clip.patches is None


def test_bad_shapes_are_named():
    with pytest.raises(ValueError, match=r"\(2, 4\)"):
        Clip(torch.zeros(2, 4), torch.ones(2), torch.ones(2, 4))
    with pytest.raises(ValueError, match=r"must be \(2,\)"):
        Clip(torch.zeros(2, 2, 4), torch.ones(3), torch.ones(2, 2, 4))


def test_map_reaches_every_tensor():
    doubled = example_clip(1, 1, 3).map(lambda tensor: tensor.double())
    assert {doubled.frame_index.dtype, doubled.num_frames.dtype, doubled.valid.dtype} == {torch.float64}


def test_values_are_read_from_the_clip_that_was_moved():
    clip = example_clip(2, 2, 3)
    assert clip.to("cpu").host is clip.host and clip.host.valid is clip.valid
    assert clip.one_view(1).host.frame_index.shape == (2, 1, 3)
    changed = replace(clip, num_frames=torch.tensor([5, 6]))
    assert changed.host.num_frames.tolist() == [5, 6]


def test_one_copy_keeps_values_shapes_and_types():
    tensors = {"valid": torch.tensor([[True, False]]), "phase": torch.tensor([[[-1], [2**40]]])}
    fetched = _fetch(tensors)
    assert fetched.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(fetched[name], tensor) and fetched[name].dtype == tensor.dtype
