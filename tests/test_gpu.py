"""What a GPU would refuse or wait for, without one: no tensor is left on the CPU, and a step waits for the GPU once."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch._subclasses.fake_tensor import FakeTensor

import mvf
from mvf.attention import attention_maps, temporal_attention
from mvf.clip import example_clip
from mvf.data.dataset import collate
from mvf.losses import OBJECTIVES
from mvf.losses.lav import LearningByAligningVideosLoss
from mvf.training.trainer import Trainer
from tests.fake_gpu import FakeGpu, backward

GPU = torch.device("cuda")
SMALL = {"features": "online", "batch_size": 3, "num_frames": 6, "backbone": "test_vit"}
WAYS_LEFT = [("banked", 0.5), ("online", 0.0)]  # what comes before the fusion does not depend on the objective


@pytest.fixture(scope="module", autouse=True)
def without_a_driver():
    """torch 2.9 asks for a CUDA driver even for fake tensors."""
    try:
        with FakeGpu():
            torch.zeros(2, device=GPU)[0].tolist()
    except RuntimeError:
        pytest.skip("this torch asks for a CUDA driver even for fake tensors")


@pytest.fixture
def gpu(monkeypatch):
    """Trainers put their model on the fake GPU."""
    monkeypatch.setattr(Accelerator, "device", GPU)
    numpy = torch.Tensor.numpy
    monkeypatch.setattr(
        torch.Tensor, "numpy", lambda t: np.zeros(t.shape, np.float32) if isinstance(t, FakeTensor) else numpy(t)
    )
    with FakeGpu() as gpu:
        yield gpu


def make_trainer(config, tmp_path):
    return Trainer(config, tmp_path, Accelerator(cpu=True, device_placement=False))


def make_batch(trainer, features="banked"):
    """Videos and clips of the first batch: of frames that the GPU augments, or of patches as from a bank."""
    plan = [(1, video) for video in trainer._epoch_batches(1)[0]]
    dataset = trainer._dataset()
    clip = collate([dataset[item] for item in plan])
    if features == "banked":
        shape, sizes = clip.valid.shape, trainer.model.architecture
        patches, cls = torch.randn(*shape, 4, sizes.channels), torch.randn(*shape, sizes.cls_channels)
        clip = replace(clip.clip, patches=patches, cls=cls)
    return plan, clip


def waits_of_a_step(trainer, batch, gpu, monkeypatch):
    monkeypatch.setattr(trainer.accelerator, "backward", backward)
    trainer.step.train()
    gpu.waits.clear()
    trainer._update(*batch)
    trained = [parameter for parameter in trainer.step.parameters() if parameter.requires_grad]
    assert trained and all(parameter.grad.device.type == "cuda" for parameter in trained)
    return gpu.waits


@pytest.mark.parametrize("objective", [*OBJECTIVES, "scl+0.1*lav"])
def test_a_step_leaves_nothing_on_the_cpu_and_waits_for_the_gpu_once(tiny, tmp_path, gpu, monkeypatch, objective):
    trainer = make_trainer(tiny(objective=objective, **SMALL, overlap_penalty=0.1), tmp_path)
    ways = [("banked", 0.0), ("online", 0.5)]
    for features, trainer.model.fusion.token_merge in ways + WAYS_LEFT * (objective == "scl"):
        waits = waits_of_a_step(trainer, make_batch(trainer, features), gpu, monkeypatch)
        assert len(waits) == 1, (features, waits)


def test_a_step_with_velocity_does_not_either(tiny, tmp_path, gpu, monkeypatch):
    trainer = make_trainer(tiny(**{**SMALL, "features": "banked"}, velocity=True), tmp_path)
    trainer.config = tiny(**SMALL)  # reads the clips as above
    plan, clip = make_batch(trainer)
    clip = replace(clip, velocity=torch.randn(*clip.valid.shape, trainer.model.velocity_width))
    assert len(waits_of_a_step(trainer, (plan, clip), gpu, monkeypatch)) == 1, gpu.waits


@pytest.mark.slow
@pytest.mark.parametrize(
    "objective, options",
    [
        ("scl", {"variant": "corrected", "negatives": "batch"}),
        ("scl", {"negatives": "single", "max_distance": 5.0}),
        ("tcc", {"variant": "reference"}),
        ("tcc", {"form": "classification", "variant": "reference"}),
        ("lav", {"debiased": True, "idm_weights": "paper"}),
        ("gta", {"contrast": "dtw_minGamma", "variant": "corrected"}),
        ("vava", {"variant": "reference"}),
        ("lrprop", {"mode": "mixture", "regulariser": "divergence"}),
        ("vsp_f", {"variant": "reference"}),
    ],
)
def test_other_forms_of_the_objectives_do_not_either(tiny, tmp_path, gpu, monkeypatch, objective, options):
    trainer = make_trainer(tiny(objective=objective, objective_options=options, **SMALL), tmp_path)
    assert len(waits_of_a_step(trainer, make_batch(trainer), gpu, monkeypatch)) == 1, gpu.waits


@pytest.mark.parametrize(
    "pooling, token_merge, velocity",
    [("lstp", 0.0, False), ("lstp", 0.5, True), ("fixed_width", 0.5, False), ("max", 0.0, False)],
)
def test_embeddings_and_maps_leave_nothing_on_the_cpu(tiny, gpu, pooling, token_merge, velocity):
    settings = {"features": "banked", "velocity": velocity, "backbone": "test_vit"}
    config = tiny(pooling=pooling, token_merge=token_merge, **settings)
    model, record = mvf.build_model(config).to(GPU), mvf.data.find_config_videos(config, "val")[0]
    (video,) = mvf.embed(model, [record], chunk=20, overlap=4, precision="fp32")
    assert video.embeddings.shape == (record.num_frames, config.embedding_size)
    maps = attention_maps(model, record, (2, -1))
    assert maps.heads.shape[:2] == (2, record.num_frames) and (maps.entities is None) == (pooling != "lstp")
    assert temporal_attention(model, record, precision="fp32").weights.shape[0] == record.num_frames


def test_without_its_originals_a_clip_is_read_by_one_copy(gpu):
    clip = replace(example_clip(2, 2, 6), action=torch.tensor([0, 1])).to(GPU)
    assert clip.host.one_view(1).valid.all() and not gpu.waits
    gathered = clip.map(torch.clone)  # as `gather_batch` makes one
    assert gathered.one_view(1).host.action.shape == (2,) and len(gpu.waits) == 1


# the fake GPU itself ------------------------------------------------------------------------------------------------


def test_a_tensor_that_is_left_on_the_cpu_is_refused(tiny, tmp_path, gpu, monkeypatch):
    real = LearningByAligningVideosLoss.compute_pairs
    monkeypatch.setattr(
        LearningByAligningVideosLoss, "compute_pairs", lambda *args: real(*args) + torch.zeros(3).sum(0, True)
    )
    trainer = make_trainer(tiny(objective="lav", **SMALL), tmp_path)
    with pytest.raises(RuntimeError, match="found at least two devices, cuda:0 and cpu"):
        trainer._update(*make_batch(trainer))


@pytest.mark.parametrize(
    "read",
    [
        lambda x: x.sum().item(),
        lambda x: bool((x > 0).any()),
        lambda x: x[0].tolist(),
        lambda x: (x > 0).nonzero(),
        lambda x: x[x > 0],
        lambda x: x[torch.tensor([0])],
        lambda x: x.cpu(),
        lambda x: x.to("cpu", non_blocking=True),
        lambda x: torch.tensor([1.0, 2.0], device=x.device),
        lambda x: torch.bincount(x[0].long()),
        lambda x: x.new_tensor([1.0]),
    ],
)
def test_whatever_waits_for_the_gpu_is_counted(gpu, read):
    x = torch.zeros(1, 1, device=GPU)
    assert not gpu.waits
    try:
        read(x)
    except torch._subclasses.fake_tensor.DynamicOutputShapeException:
        pass  # a shape that depends on values
    assert gpu.waits


def test_what_does_not_wait_is_not_counted(gpu):
    x = torch.zeros(3, device=GPU)
    torch.where(x > 0, x, 0).clamp(min=0).masked_fill(x > 1, 2)[torch.tensor([0]).to(GPU, non_blocking=True)]
    assert not gpu.waits
