import pytest
import torch

from mvf.clip import Clip, example_clip


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
