"""Figure of temporal attention: which frames and entities a frame looks at."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from mvf.plotting.style import OKABE_ITO, PAGE, paper_figure, set_caption

BRIGHTEST = 99.5  # percentile that gets the brightest colour: single frames would darken the rest


def attention_by_distance(
    weights: ArrayLike, frames: ArrayLike | None = None, bounds: ArrayLike | None = None
) -> tuple[NDArray, NDArray]:
    """Mean weight of each entity by the distance in time from the frame that looks.

    Args:
        weights: (F, T, N); rows of zeros, of padded frames, are left out.
        frames: (F,) positions of the frames that look; by default 0, 1, ...
        bounds: (F, 2) first frame, and the one after the last, that each can look at; by default all. Pairs beyond
            are left out.

    Returns:
        (D,) distances in frames, negative in the past; (D, N) mean weights over all pairs at that distance.

    Example:
        >>> distance, mean = attention_by_distance(np.array([[[0.8], [0.2]], [[0.4], [0.6]]]))
        >>> distance.tolist(), mean[:, 0].round(1).tolist()
        ([-1, 0, 1], [0.4, 0.7, 0.2])
    """
    weights, looking, bounds = _checked(weights, frames, bounds)
    time = np.arange(weights.shape[1])
    distance = time - looking[:, None]  # (F, T)
    real = weights.any(axis=(1, 2))[:, None] & (time >= bounds[:, :1]) & (time < bounds[:, 1:])
    found, place = np.unique(distance[real], return_inverse=True)
    sums = np.stack([np.bincount(place, entity[real], len(found)) for entity in np.moveaxis(weights, -1, 0)], axis=1)
    return found, sums / np.bincount(place)[:, None]


def plot_temporal_attention(
    weights: ArrayLike,
    names: Sequence[str] | None = None,
    frames: ArrayLike | None = None,
    title: str = "",
    caption: str = "",
    bounds: ArrayLike | None = None,
) -> Figure:
    """How much each frame looks at every entity of every frame: maps, share of each entity, distance in time.

    Args:
        weights: (F, T, N), each row summing to 1 over (T, N) (`mvf.attention.temporal_attention`).
        names: N names of the entities; by default "entity 1", ...
        frames: (F,) evenly spaced positions of the frames that look; by default 0, 1, ...
        title: Name of the video.
        caption: Which block the weights are of, such as "Block 3 of 3, mean over 8 heads."
        bounds: (F, 2) first frame, and the one after the last, of the chunk that each frame can look at; by default
            the whole video. Uniform attention is uniform over the chunk.

    Raises:
        ValueError: for weights of another shape, negative ones, or names, frames or bounds that do not fit them.
    """
    weights, looking, bounds = _checked(weights, frames, bounds)
    entities = weights.shape[2]
    names = [f"entity {i + 1}" for i in range(entities)] if names is None else list(names)
    if len(names) != entities:
        raise ValueError(f"names must have {entities} entries, one an entity, got {len(names)}: {names}")
    reach = np.diff(bounds) * entities
    relative = weights * reach[:, None]  # 1: as if all that the frame can look at were looked at alike
    panel = min((PAGE - 1.1) / entities, 2.2)
    with paper_figure(PAGE, panel + 2.7) as figure:
        figure.suptitle(title)
        upper, lower = figure.subfigures(2, 1, height_ratios=(panel + 0.6, 2.0))
        _draw_maps(upper, relative, looking, names)
        shares, near = lower.subplots(1, 2)
        distance, mean = attention_by_distance(relative, looking, bounds)
        for i, (name, colour) in enumerate(zip(names, _colours(entities))):
            shares.plot(looking, weights[..., i].sum(axis=1), color=colour, label=name)
            near.plot(distance, mean[:, i], color=colour)
        shares.set(xlabel="frame that looks", ylabel="share of its attention", ylim=(0, 1))
        near.set(xlabel="distance in time (frames)", ylabel="attention / uniform", ylim=(0, None))
        near.axvline(0, color="#BFBFBF", linewidth=0.6, zorder=0)
        for axes, level in ((shares, 1 / entities), (near, 1)):
            axes.axhline(level, color="#7F7F7F", linestyle=(0, (3, 2)), linewidth=0.8, label="uniform", zorder=1)
        lower.legend(*shares.get_legend_handles_labels(), loc="outside upper center", ncols=min(entities + 1, 7))
        chunked = (reach < weights.shape[1] * entities).any()
        seen = "the frame's chunk; the fusion sees no other" if chunked else "all frames"
        set_caption(figure, f"{caption} 1 is uniform attention to all entities of {seen}.".strip())
    return figure


def _draw_maps(figure: Figure, relative: NDArray, frames: NDArray, names: Sequence[str]) -> None:
    """One map an entity, all with one colour scale."""
    grid = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    top = max(float(np.percentile(relative, BRIGHTEST)), 1e-12)
    step = (frames[-1] - frames[0]) / (len(frames) - 1) if len(frames) > 1 else 1
    extent = (-0.5, relative.shape[1] - 0.5, frames[-1] + step / 2, frames[0] - step / 2)
    for i, (axes, name) in enumerate(zip(grid, names)):
        image = axes.imshow(relative[..., i], vmin=0, vmax=top, cmap="magma", extent=extent, aspect="auto")
        axes.set_title(name)
        axes.set_xlabel("frame looked at" if len(names) < 5 else "looked at")
    grid[0].set_ylabel("frame that looks")
    clipped = "max" if relative.max() > top else "neither"
    figure.colorbar(image, ax=list(grid), label="attention / uniform", extend=clipped, pad=0.02, aspect=25)


def _colours(entities: int) -> list[str]:
    return [OKABE_ITO[i % len(OKABE_ITO)] for i in range(entities)]


def _checked(
    weights: ArrayLike, frames: ArrayLike | None, bounds: ArrayLike | None
) -> tuple[NDArray, NDArray, NDArray]:
    weights = np.asarray(weights, dtype=np.float64)
    if weights.ndim != 3 or not weights.size or not (np.isfinite(weights).all() and (weights >= 0).all()):
        raise ValueError(f"weights must be (F, T, N), finite and non-negative, got {weights.shape}")
    frames = np.arange(len(weights)) if frames is None else np.asarray(frames)
    if frames.shape != weights.shape[:1] or (np.diff(frames) <= 0).any():
        raise ValueError(f"frames must be {len(weights)} rising positions, one a row of weights, got {frames.tolist()}")
    length = weights.shape[1]
    if bounds is None:
        return weights, frames, np.tile((0, length), (len(weights), 1))
    bounds = np.asarray(bounds)
    fits = bounds.shape == (len(weights), 2) and 0 <= bounds.min() <= bounds.max() <= length
    if not (fits and (bounds[:, 0] <= frames).all() and (frames < bounds[:, 1]).all()):
        raise ValueError(
            f"bounds must be ({len(weights)}, 2), a chunk of 0 to {length} around each frame, got {bounds.tolist()}"
        )
    return weights, frames, bounds
