"""The trainer: one model, one objective, any number of devices; a run can stop and resume at any epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from mvf.bank import BankStore, FeatureBank, build_bank
from mvf.clip import Clip
from mvf.config import Config
from mvf.data import find_config_videos
from mvf.data.augment import derive_seed
from mvf.data.dataset import RawClip, VideoDataset, build_dataset
from mvf.data.loading import Plan, check_supervision, epoch_batches, load_batches
from mvf.data.records import VideoRecord
from mvf.device import check_finite, gather_batch, synchronise_batch_norm, world_size
from mvf.embedding import backbone_of, mean_patch, mean_patches
from mvf.files import note_progress
from mvf.losses import build_config_loss
from mvf.losses.objective import CombinedObjective, Objective, places
from mvf.models import build_model, check_start, load_weights
from mvf.models.motion import MotionMap, velocity_scaling
from mvf.models.mvformer import MVFormer, MVFormerOutput, pool_reduced
from mvf.models.pooling import entity_overlap
from mvf.progress import tqdm
from mvf.training.run import initial_weights, kept_sides, write_epoch, write_history

Row = dict[str, float]


class TrainingStep(nn.Module):
    """Computes the loss of a clip; only this module is wrapped, so that autocast and gradients cover all of it.

    Args:
        model: The model.
        loss: The objective.
        overlap_penalty: Weight of `mvf.models.pooling.entity_overlap`, added to the objective; 0 leaves it out.
    """

    def __init__(self, model: MVFormer, loss: Objective | CombinedObjective, overlap_penalty: float = 0.0) -> None:
        super().__init__()
        self.model, self.loss, self.overlap_penalty = model, loss, overlap_penalty
        self.basis: Tensor | None = None  # directions along which patches are stored

    def forward(self, clip: Clip, generator: torch.Generator | None = None) -> Tensor:
        """The objective of the whole batch, over all processes."""
        out = self._run(clip)
        kinds = self.loss.reads.split("+")
        read = [_read(out, kind).unflatten(0, clip.valid.shape[:2]) for kind in kinds]
        joined, whole = gather_batch(torch.cat(read, dim=-1), clip)
        dtype = torch.promote_types(joined.dtype, torch.float32)
        embeddings = dict(zip(kinds, joined.to(dtype).chunk(len(kinds), dim=-1)))
        loss = self.loss(embeddings if len(kinds) > 1 else embeddings[self.loss.reads], whole, generator=generator)
        if not self.overlap_penalty:
            return loss
        if out.attention is None:
            raise ValueError("overlap_penalty needs entity maps, which this pooling does not have")
        overlap, _ = gather_batch(entity_overlap(out.attention).view(*clip.valid.shape, 1), clip)
        return loss + self.overlap_penalty * overlap[places(whole.host.valid, overlap.device)].mean()

    def _run(self, clip: Clip) -> MVFormerOutput:
        valid = clip.host.valid.flatten(0, 1)  # on the CPU, as merging reads it
        project = "projection" in self.loss.reads
        velocity = None if clip.velocity is None else clip.velocity.flatten(0, 1)
        if clip.frames is not None:
            return self.model(clip.frames.flatten(0, 1), valid, project, velocity)
        if clip.patches is None:
            raise ValueError("a clip to train on needs frames or patches, got neither")
        cls, patches = None if clip.cls is None else clip.cls.flatten(0, 1), clip.patches.flatten(0, 1)
        if self.basis is None:
            return self.model.fuse(patches, valid, cls, project, velocity)
        tokens, attention = pool_reduced(self.model, patches, self.basis, cls)
        tokens = self.model.with_velocity(tokens, velocity)
        return replace(self.model.fuse_tokens(tokens, valid, project), attention=attention)


def _read(out: MVFormerOutput, kind: str) -> Tensor:
    """The embeddings that an objective reads: `raw`, `unit` or `projection`."""
    embeddings = {"raw": out.raw_embeddings, "unit": out.embeddings, "projection": out.projections}[kind]
    if embeddings is None:
        raise ValueError(f'the objective reads "{kind}", which this model does not compute: set projection_width')
    return embeddings


class Trainer:
    """Trains one model: builds it with its data and objective, runs the epochs, and stores and loads their state."""

    def __init__(self, config: Config, folder: Path, accelerator: Accelerator, start: Path | None = None) -> None:
        self.config, self.folder, self.accelerator = config, folder, accelerator
        self.records = find_config_videos(config, "train", sides=kept_sides(folder, config))
        if not self.records:
            raise ValueError(f"{config.dataset} has no training videos: `mvf check {config.dataset}` says what it has")
        torch.manual_seed(derive_seed(config.seed, "loss"))
        self.loss = build_config_loss(config)
        if config.init_from:
            start = start or initial_weights(config, folder)
            check_start(config, start)
        torch.manual_seed(config.seed)
        self.model = build_model(config, project="projection" in self.loss.reads)
        if start is not None:
            load_weights(self.model, start)
        check_supervision(self.loss, self.records, config)
        if config.compile:
            backbone_of(self.model).compile_network()
        if world_size() > 1:
            synchronise_batch_norm(self.model)
        step = TrainingStep(self.model, self.loss, config.overlap_penalty).to(accelerator.device)
        trained = [p for p in step.parameters() if p.requires_grad]
        self.optimizer = torch.optim.Adam(trained, lr=config.learning_rate, weight_decay=config.weight_decay)
        self.step, self.optimizer = accelerator.prepare(step, self.optimizer)
        self.epoch, self.steps = 0, 0
        self.history: list[Row] = []
        self._means: dict[tuple[str, str], np.ndarray] = {}  # of `_mean_patches`, by name and identity of the source

    def fit(self, on_epoch: Callable[[Row], None] | None = None) -> None:
        """Runs the epochs that are left; with `epochs=0` only the files are written."""
        if self.epoch == self.config.epochs:
            if not self.epoch and self.accelerator.is_main_process:
                write_epoch(self.folder, self.model, self.history, self.state())
            self.model.eval()
            return
        with self.accelerator.main_process_first():
            dataset = self._dataset()
        # one bar for all epochs, because a notebook would keep a line for each
        steps = len(self._epoch_batches(self.epoch + 1)) * (self.config.epochs - self.epoch)
        hidden = not self.accelerator.is_main_process
        bar = tqdm(total=steps, desc="training", unit="step", leave=False, disable=hidden)
        with closing(self._batches(dataset)) as batches, bar:
            while self.epoch < self.config.epochs:
                self.epoch += 1
                row = self._run_epoch(batches, bar)
                self.history.append(row)
                if self.accelerator.is_main_process:
                    write_epoch(self.folder, self.model, self.history, self.state())
                    note_progress(f"epoch {self.epoch} of {self.config.epochs}, loss {row['loss']:.4f}")
                if on_epoch is not None and self.accelerator.is_main_process:
                    on_epoch(row)
            bar.set_description("training", refresh=False)
        self.model.eval()

    def add_motion(self, records: Sequence[VideoRecord], fitted: MotionMap | None = None) -> None:
        """Adds the motion skip to the trained model, and stores it; a run that has one keeps it.

        Args:
            records: Training videos whose clean features it is fitted on.
            fitted: The skip, where it is fitted already.
        """
        if not self.config.motion_skip or self.model.motion is not None:
            return
        with self.accelerator.main_process_first():
            self.model.motion = fitted or self._fit_motion(records)
        if self.accelerator.is_main_process:
            write_epoch(self.folder, self.model, self.history, self.state())

    def _fit_motion(self, records: Sequence[VideoRecord]) -> MotionMap:
        config, means, views = self.config, self._mean_patches(records), []
        if config.motion_weighting == "augmentation":
            bank = build_bank(config, backbone_of(self.model), self.records)
            bank.ensure(records, config.bank_views)
            shown = tqdm(records, unit="video", desc="augmented views", disable=not self.accelerator.is_main_process)
            views = [[mean_patch(bank.read(record, n)[0]) for n in range(config.bank_views)] for record in shown]
        fitted = MotionMap.fit(means, config.embedding_size, config.motion_offsets, config.motion_context, views)
        return replace(fitted, strength=config.motion_skip)

    def _mean_patches(self, records: Sequence[VideoRecord]) -> list[np.ndarray]:
        """(T, C) mean patches of the clean view of training videos; each video is read once."""
        config, cache = self.config, None
        keys = [(record.name, record.source.identity) for record in records]
        missing = {key: record for key, record in zip(keys, records) if key not in self._means}
        if missing and config.features == "banked":
            cache = FeatureBank(backbone_of(self.model), None, config.precision)
            cache.ensure([*missing.values()])
        hidden = not (missing and self.accelerator.is_main_process)
        for key, record in tqdm(missing.items(), unit="video", desc="mean patches", disable=hidden):
            self._means[key] = mean_patches(self.model, record, cache, config.precision)
        return [self._means[key] for key in keys]

    def _read_velocity(self) -> list[np.ndarray] | None:
        """Mean patches of the videos, None without velocity; a model that did not begin elsewhere is scaled to them."""
        if not self.config.velocity:
            return None
        means = self._mean_patches(self.records)
        if not self.epoch and not self.config.init_from:
            center, scale = velocity_scaling(means, self.config.motion_offsets)
            self.model.load_state_dict({"velocity_center": center, "velocity_scale": scale}, strict=False)
        return means

    def state(self) -> dict[str, Any]:
        """Everything that resuming needs, as plain values and tensors that load with `weights_only=True`."""
        scaler = self.accelerator.scaler  # scales the loss in fp16
        return {
            "epoch": self.epoch,
            "step": self.steps,
            "history": self.history,
            "model": self.model.trained_state(),
            "loss": self.loss.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": {"learning_rate": self._learning_rate(self.epoch)},
            "scaler": None if scaler is None else scaler.state_dict(),
            "generators": {"cpu": torch.get_rng_state()},
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Goes back to the end of a stored epoch."""
        self.epoch, self.steps, self.history = state["epoch"], state["step"], list(state["history"])
        self.model.load_trained_state(state["model"])
        self.loss.load_state_dict(state["loss"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.accelerator.scaler is not None and state.get("scaler"):  # older files have none
            self.accelerator.scaler.load_state_dict(state["scaler"])
        torch.set_rng_state(state["generators"]["cpu"])
        if self.accelerator.is_main_process:
            write_history(self.folder, self.history)
            self.model.save_pretrained(self.folder)

    def _run_epoch(self, batches: Iterator[tuple[Plan, Clip | RawClip]], bar: tqdm) -> Row:
        self.step.train()
        rate = self._learning_rate(self.epoch - 1)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        # dropout is seeded anew in every epoch, so that an epoch is the same after a resume
        torch.manual_seed(derive_seed(self.config.seed, "dropout", self.epoch, self.accelerator.process_index))
        started, losses, norms, frames = time.perf_counter(), [], [], 0
        count = len(self._epoch_batches(self.epoch))
        bar.set_description(f"epoch {self.epoch}/{self.config.epochs}", refresh=False)
        for _ in range(count):
            plan, clip = next(batches)
            loss, norm = self._update(plan, clip)
            losses.append(loss)
            norms.append(norm)
            frames += int(clip.valid.sum()) * self.accelerator.num_processes
            bar.set_postfix(loss=f"{loss:.4f}", frames_per_second=f"{frames / (time.perf_counter() - started):.0f}")
            bar.update()
        seconds = time.perf_counter() - started
        if not sum(norms):
            raise ValueError(
                f'no step of epoch {self.epoch} had a gradient: objective "{self.config.objective}" finds nothing to '
                f"compare in batches of {self.config.batch_size}: raise batch_size, or see its options"
            )
        return {
            "epoch": self.epoch,
            "step": self.steps,
            "loss": sum(losses) / count,
            "learning_rate": rate,
            "grad_norm": sum(norms) / count,
            "seconds": seconds,
            "frames_per_second": frames / seconds,
        }

    def _update(self, plan: Plan, clip: Clip | RawClip) -> tuple[float, float]:
        """One step of the optimiser: the loss and the gradient norm before clipping."""
        self.steps += 1
        generator = torch.Generator().manual_seed(derive_seed(self.config.seed, "loss", self.steps))
        loss = self.step(clip.to(self.accelerator.device), generator)
        names = ", ".join(self.records[video].name for _, video in plan)
        where = f"step {self.steps} (epoch {self.epoch}), videos {names}; {self.folder} keeps the last complete epoch"
        self.optimizer.zero_grad()
        if loss.requires_grad:  # a constant has no gradient to compute
            self.accelerator.backward(loss)
        norm = self.accelerator.clip_grad_norm_(self.step.parameters(), self.config.clip_norm)
        # read together, because every read waits until the GPU has done all that was asked of it
        value, size = torch.stack([loss.detach(), norm.to(loss)]).cpu().tolist()
        check_finite("loss", value, where)
        if self.accelerator.scaler is None:  # with a scaler, a step that overflows is skipped
            check_finite("gradient norm", size, where)
        self.optimizer.step()
        self.loss.advance()
        return value, size

    def _learning_rate(self, epoch: int) -> float:
        """Cosine from the full rate at epoch 0 to zero after the last."""
        return self.config.learning_rate * 0.5 * (1 + math.cos(math.pi * epoch / max(self.config.epochs, 1)))

    def _dataset(self) -> VideoDataset:
        store, raw = None, self.accelerator.device.type == "cuda"  # with a GPU, augmentation runs there
        if self.config.features == "banked":
            bank = build_bank(self.config, backbone_of(self.model), self.records)
            means, offsets = self._read_velocity(), self.config.motion_offsets
            store = BankStore(bank, self.records, self.config.bank_views, means, offsets)
            self.accelerator.unwrap_model(self.step).basis = bank.basis
        return build_dataset(self.config, self.records, self.loss, store, raw)

    def _batches(self, dataset: VideoDataset) -> Generator[tuple[Plan, Clip | RawClip], None, None]:
        """Yields this process's share of every batch of the remaining epochs, made ahead."""
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        wanted = (
            [(epoch, video) for video in batch[rank::world]]
            for epoch in range(self.epoch + 1, self.config.epochs + 1)
            for batch in self._epoch_batches(epoch)
        )  # one epoch at a time: the batches of all epochs can take gigabytes
        return load_batches(dataset, wanted, self.config.workers, self.accelerator.device)

    def _epoch_batches(self, epoch: int) -> list[list[int]]:
        return epoch_batches(self.config, self.records, epoch, self.loss.sampler, self.accelerator.num_processes)
