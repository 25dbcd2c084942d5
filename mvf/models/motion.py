"""Motion in closed form: what frozen features say about movement, without training and without labels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler
from torch import Tensor

OFFSETS = (2, 5, 9)  # frames
CONTEXT = 12  # frames
WIDTH = 128
CONTEXT_STEP = 2  # frames between the places of the context
MOST_FRAMES = 10_000  # that directions are fitted on: every n-th frame of more
AT_ONCE = 1000  # frames that are computed at once
SPREAD_SHARE = 0.1  # of the squared spread, added to what augmentation changes
SMALLEST = 1e-6  # share of the largest spread up to which a direction is left out


@dataclass(frozen=True)
class MotionMap:
    """Maps the mean patches of a clip to one vector a frame that tells its movement, in two linear steps.

    A frame is its mean patch minus the mean over the clip, and the differences over ±`offsets` frames. Channels are
    z-scored with the training frames and projected on their first 2·E principal directions, each divided by the root of
    its spread, to unit norm. The vectors of the frames at −`context`, ..., −2, 0, 2, ..., `context` are then joined and
    projected in the same way on E directions. Frames beyond an end of the clip are its end. A clip in which nothing
    moves has one vector for all frames, and training videos in which nothing varies give zero vectors.

    With augmented views the first step divides by what augmentation changes instead, by N^(1/4): N holds the second
    moments of augmented minus clean frames along the directions, plus a tenth of the squared spreads.

    Reference: docs/design.md, section 7, the control `motion_pca`.

    Attributes:
        center, directions: (F,), (D, F) of the first step, with F = channels · (1 + offsets).
        context_center, context_directions: (G,), (E, G) of the second, with G = D · places of the context.
        offsets, context: Distances in frames.
        strength: How strongly `add_to` adds the map to an embedding; 0: not at all.

    Shape:
        (T, C) mean patches of a whole clip -> (T, E) float32 of unit norm

    Raises:
        ValueError: if mean patches have another shape or are not finite.

    Example:
        >>> videos = list(np.random.default_rng(0).normal(size=(2, 30, 6)))
        >>> MotionMap.fit(videos, width=4)(videos[0]).shape
        (30, 4)
    """

    center: np.ndarray
    directions: np.ndarray
    context_center: np.ndarray
    context_directions: np.ndarray
    offsets: tuple[int, ...] = OFFSETS
    context: int = CONTEXT
    strength: float = 0.0

    @classmethod
    def fit(
        cls,
        videos: Sequence[np.ndarray],
        width: int = WIDTH,
        offsets: Sequence[int] = OFFSETS,
        context: int = CONTEXT,
        views: Sequence[Sequence[np.ndarray]] = (),
    ) -> MotionMap:
        """Fits means, spreads and directions on whole videos, of which labels and places of frames are not seen.

        Args:
            videos: (T, C) mean patches of each video.
            width: E; directions that the frames do not span are zero.
            offsets: Distances of the differences, in frames.
            context: Largest distance of the context, in frames, an even number.
            views: (T, C) mean patches of augmented views of each video; none: directions are divided by their spreads.

        Raises:
            ValueError: if there is no video, or mean patches that are not finite.
        """
        if not len(videos):
            raise ValueError("a motion map is fitted on training videos, got none")
        step = -(-sum(map(len, videos)) // MOST_FRAMES)
        first = [clip.differences(np.arange(0, len(clip.mean), step)) for clip in _clips(videos, offsets)]
        changes = (
            view.differences(np.arange(0, len(view.mean), step)) - clean
            for clean, augmented in zip(first, views)
            for view in _clips(augmented, offsets)
        )
        center, directions = _half_whiten(np.concatenate(first), 2 * width, True, changes)
        zeros = np.zeros(len(_places(context)) * len(directions), np.float32)
        unfinished = cls(center, directions, zeros, np.zeros((width, len(zeros)), np.float32), tuple(offsets), context)
        joined = [
            unfinished._join(unfinished._project(clip), np.arange(0, len(clip.mean), step))
            for clip in _clips(videos, offsets)
        ]
        context_center, kept = _half_whiten(np.concatenate(joined), width, False)
        context_directions = np.concatenate([kept, unfinished.context_directions[len(kept) :]])
        return replace(unfinished, context_center=context_center, context_directions=context_directions)

    def __call__(self, mean: np.ndarray) -> np.ndarray:
        """(T, C) mean patches of a whole clip -> (T, E)."""
        near = self._project(_Clip.of(mean, self.offsets, len(self.center)))
        parts = [self._join(near, frames) - self.context_center for frames in _blocks(len(near))]
        return unit(np.concatenate([_product(part, self.context_directions) for part in parts]))

    def add_to(self, embeddings: np.ndarray, mean: np.ndarray) -> np.ndarray:
        """(T, E) unit-norm embeddings of a whole clip, (T, C) its mean patches -> unit norm of `strength` K + z."""
        return unit(np.float32(self.strength) * self(mean) + embeddings)

    def tensors(self) -> dict[str, Tensor]:
        """The map as tensors by name, from which `from_tensors` makes it again."""
        return {name: torch.as_tensor(value) for name, value in asdict(self).items()}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], channels: int, width: int) -> MotionMap:
        """The map of `tensors` for features of `channels` channels and embeddings of `width`.

        Raises:
            ValueError: if they are not those of such a map; the message names what was found.
        """
        try:
            values: dict[str, Any] = {name: tensors[name].cpu().numpy() for name in cls.__dataclass_fields__}
        except KeyError as error:
            raise ValueError(f"the motion skip lacks the tensor {error}: train the run again") from None
        offsets, context = tuple(values["offsets"].tolist()), int(values["context"])
        found = cls(**values | {"offsets": offsets, "context": context, "strength": float(values["strength"])})
        inputs, near = channels * (1 + len(offsets)), len(found.directions)
        wanted = ((inputs,), (near, inputs), (near * len(_places(context)),), (width, near * len(_places(context))))
        arrays = found.center, found.directions, found.context_center, found.context_directions
        if (shapes := tuple(array.shape for array in arrays)) != wanted:
            raise ValueError(
                f"the motion skip has tensors of shapes {shapes}, wanted {wanted} for {channels} channels and "
                f"embeddings of {width}: it belongs to a model with another backbone, layers or embedding_size"
            )
        return found

    def _project(self, clip: _Clip) -> np.ndarray:
        """(T, D) of the first step."""
        parts = (clip.differences(frames) - self.center for frames in _blocks(len(clip.mean)))
        return unit(np.concatenate([_product(part, self.directions) for part in parts]))

    def _join(self, near: np.ndarray, frames: np.ndarray) -> np.ndarray:
        """(n, G): the vectors around each of `frames`, joined."""
        around = (frames[:, None] + _places(self.context)).clip(0, len(near) - 1)
        return near[around].reshape(len(frames), -1)


@dataclass(frozen=True)
class _Clip:
    """Checked mean patches of a clip, and their mean over it."""

    mean: np.ndarray
    center: np.ndarray
    offsets: Sequence[int]

    @classmethod
    def of(cls, mean: np.ndarray, offsets: Sequence[int], inputs: int | None = None) -> _Clip:
        wanted = mean.shape[-1] if inputs is None else inputs // (1 + len(offsets))
        if mean.ndim != 2 or not len(mean) or mean.shape[1] != wanted:
            raise ValueError(f"mean patches must be (T, {wanted}) with at least one frame, got {mean.shape}")
        if not (finite := np.isfinite(mean)).all():
            raise ValueError(f"{int((~finite).sum())} numbers of the mean patches are not finite: check the features")
        return cls(mean, mean.mean(axis=0, dtype=np.float64).astype(mean.dtype), offsets)

    def differences(self, frames: np.ndarray) -> np.ndarray:
        """(n, F): the centred mean patches of `frames`, and their differences over time."""
        return np.concatenate([self.mean[frames] - self.center, *differences(self.mean, frames, self.offsets)], axis=1)


def differences(mean: np.ndarray, frames: np.ndarray, offsets: Sequence[int]) -> Iterator[np.ndarray]:
    """(n, C) for each offset: mean patches so many frames after `frames` minus those before, ends clamped.

    Example:
        >>> [part[:, 0].tolist() for part in differences(np.arange(6.0)[:, None], np.arange(6), (2,))]
        [[2.0, 3.0, 4.0, 4.0, 3.0, 2.0]]
    """
    for n in offsets:
        yield mean[np.minimum(frames + n, len(mean) - 1)] - mean[np.maximum(frames - n, 0)]


def velocity_at(mean: np.ndarray, frames: np.ndarray, offsets: Sequence[int]) -> np.ndarray:
    """(n, C·O): the `differences` around `frames` of a clip with mean patches (T, C), joined over O offsets.

    Raises:
        ValueError: if they are not finite.

    Example:
        >>> velocity_at(np.arange(6.0)[:, None], np.array([0, 3]), (1, 2)).tolist()
        [[1.0, 2.0], [2.0, 4.0]]
    """
    found = np.concatenate([*differences(mean, frames, offsets)], axis=1)
    if not (finite := np.isfinite(found)).all():
        raise ValueError(f"{int((~finite).sum())} numbers of the velocity are not finite: check the features")
    return found


def velocity_scaling(videos: Iterable[np.ndarray], offsets: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (C·O,) of the velocity in all frames of videos with mean patches (T, C).

    A channel that does not vary has the standard deviation 1.
    """
    scaler = StandardScaler()
    for mean in videos:
        scaler.partial_fit(velocity_at(mean, np.arange(len(mean)), offsets).astype(np.float64))
    return torch.from_numpy(scaler.mean_).float(), torch.from_numpy(scaler.scale_).float()


def unit(vectors: np.ndarray) -> np.ndarray:
    """Unit norm along the last axis, float32; a zero vector stays zero."""
    norm = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return (vectors / np.maximum(norm, 1e-12)).astype(np.float32)


def _product(rows: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """(n, F) rows, (D, F) directions -> (n, D), by torch: NumPy's threads would wait beside torch's and slow both."""
    return (torch.from_numpy(rows.astype(np.float32, copy=False)) @ torch.from_numpy(directions).T).numpy()


def _clips(videos: Iterable[np.ndarray], offsets: Sequence[int]) -> Iterator[_Clip]:
    return (_Clip.of(mean, offsets) for mean in videos)


def _places(context: int) -> np.ndarray:
    return np.arange(-context, context + 1, CONTEXT_STEP)


def _blocks(length: int) -> Iterator[np.ndarray]:
    return (np.arange(start, min(start + AT_ONCE, length)) for start in range(0, length, AT_ONCE))


def _half_whiten(
    rows: np.ndarray, most: int, scale: bool, changes: Iterable[np.ndarray] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """Center (F,) of rows (n, F), and at most `most` directions (D, F), each divided by the root of its spread.

    With `scale` the channels are z-scored first, which the directions then contain. With `changes` (n, F), what
    augmentation adds to rows, the spread is mostly theirs.
    """
    scaler = StandardScaler(with_std=scale)
    scaled = scaler.fit_transform(rows.astype(np.float64))
    with np.errstate(invalid="ignore"):  # shares of a variance of zero, which are not read
        pca = PCA(min(most, *scaled.shape), random_state=0).fit(scaled)
    spread = pca.singular_values_ / len(rows) ** 0.5
    spread[spread <= SMALLEST * max(spread[0], SMALLEST)] = 0  # what is smaller is rounding
    components = np.where(spread[:, None] > 0, pca.components_, 0) / (scaler.scale_ if scale else 1)
    moments, along = np.diag(spread**2), [part @ components.T for part in changes]
    if along:
        moments = sum(part.T @ part for part in along) / sum(map(len, along)) + SPREAD_SHARE * moments
    values, vectors = np.linalg.eigh(moments)
    fits = values > SMALLEST**2 * max(values[-1], SMALLEST**2)
    roots = np.where(fits, np.where(fits, values, 1) ** -0.25, 0)
    return scaler.mean_.astype(np.float32), ((vectors * roots) @ vectors.T @ components).astype(np.float32)
