"""Attention maps for `attention.ipynb`: figures in the paper's layouts, a movie, and temporal attention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from mvf.attention import MappedFrames, map_frames, temporal_attention
from mvf.data import VideoRecord
from mvf.evaluation.localization import best_map, choose_head
from mvf.evaluation.regions import is_annotated, read_regions
from mvf.files import short_name
from mvf.metrics import attention_overlap
from mvf.models.stored import is_released
from mvf.workbench import plotting
from mvf.workbench.notebook.session import (
    Session,
    backbone_of,
    check_actions,
    clean_bank,
    file_record,
    open_session,
)

FILM_KINDS = (".gif", ".mp4")
FILMED = 120  # most frames of a film
MOST_QUERIES = 400  # query frames in a figure of temporal attention


def attention_figure(video: AttentionVideo, settings: Mapping) -> Figure:
    """Draws one video: rows are frames; columns are the input, every entity and the chosen head."""
    return plotting.plot_attention_grid(
        [_block(video, settings["rows"])], normalise=settings["normalise"], layer=video.caption, contour_mass=0.6
    )


def attention_grid(videos: Sequence[AttentionVideo], settings: Mapping, report: Mapping) -> Figure:
    """Draws the paper's Figure 3: two videos side by side, each with two entities and the chosen head.

    The entities are the first, and the background entity that `report` chose on training videos; without masks it is
    the second, as in the paper.
    """
    chosen = _at_least_one(videos)[:2]
    entities = chosen[0].entities
    background = ((report.get("localization") or {}).get("background") or {}).get("index", 2)
    shown = None if entities is None else sorted({1, min(background, entities.shape[1])})
    return plotting.plot_attention_grid(
        [_block(video, settings["rows"]) for video in chosen],
        shown=shown,
        normalise=settings["normalise"],
        **_caption_parts(chosen),
    )


def teaser(videos: Sequence[AttentionVideo], settings: Mapping) -> Figure:
    """Draws the paper's Figure 1: one frame of several videos, with entity 1 and the chosen head below it."""
    blocks = [_block(video, 1) for video in _at_least_one(videos)[:6]]
    if videos[0].entities is None:
        return plotting.plot_attention_grid(
            blocks, transposed=True, normalise=settings["normalise"], **_caption_parts(videos)
        )
    return plotting.plot_teaser(blocks, normalise=settings["normalise"], **_caption_parts(videos))


def write_movie(video: AttentionVideo, path: Path, frames_per_second: float = 12) -> list[Path]:
    """Writes a movie of one video beside its maps, as GIF and as MP4; `path` has no suffix."""
    film = plotting.attention_movie(
        video.frames, video.entities, video.head_maps, _head_name(video), numbers=video.numbers.tolist(),
        title=video.name,
    )  # fmt: skip
    files = [path.with_name(path.name + kind) for kind in FILM_KINDS]  # not `with_suffix`: names may have dots
    return [plotting.save_animation(film, file, frames_per_second) for file in files]


def film_video(source: str | Path, video: str | Path = "", image_size: int = 0, out: str | Path = "") -> list[Path]:
    """Writes a film of one video beside the entities of a model, and the class-token head closest to entity 1.

    Args:
        source: Run folder, released head, or checkpoint.
        video: The file, or a folder of numbered images; empty for the first validation video of the model's data, or
            the first training video if there is none.
        image_size: Side in pixels of the frames that the model sees, for finer maps than in training; 0 as in training.
        out: File to write, with or without its suffix; empty for `film-NAME` where the model's figures are.

    Returns:
        Paths of the GIF and the MP4.
    """
    path = Path(video)
    data: dict[str, Any] = {"dataset": "folder", "data_root": path.parent} if str(video) else {}
    session = open_session(source, **data)
    if str(video):
        record = file_record(path, session.config)
    else:
        record = (session.find_videos("val", allow_empty=True) or session.find_videos("train"))[0]
    check_actions(source, session.model, [record])
    settings = {"layer": -1, "image_size": image_size or None, "stored_frames": FILMED}
    check_attention(session, settings)
    (layer,) = backbone_of(session.model).resolve_layers((-1,))
    rule = _rule(session, {}, "entity", layer)
    shown = _attention_video(session, record, (layer,), layer, settings, rule)
    if not str(out):
        out = session.figures.parent / f"film-{short_name(record.name)}"
    elif Path(out).suffix in FILM_KINDS:
        out = Path(out).with_suffix("")
    return write_movie(shown, Path(out))


def temporal_figure(session: Session, video: AttentionVideo, block: int = -1) -> Figure:
    """Draws which frames and entities each frame of a video attends to in the fusion."""
    records = (r for split in ("val", "train") for r in session.find_videos(split, allow_empty=True))
    record = next(record for record in records if record.name == video.name)
    bank = clean_bank(session.model, session.config)
    queries = np.unique(np.linspace(0, record.num_frames - 1, MOST_QUERIES).round().astype(int)).tolist()
    found = temporal_attention(
        session.model, record, block, queries, session.config.chunk, bank, session.config.precision
    )
    caption = f"Fusion block {found.block} of {found.blocks}, readout tokens, mean over heads."
    names = None if found.weights.shape[2] > 1 else ["the frame's token"]
    return plotting.plot_temporal_attention(
        found.weights, names, found.frames, title=video.name, caption=caption, bounds=found.bounds
    )


def _block(video: AttentionVideo, rows: int) -> plotting.AttentionBlock:
    """Selects evenly spaced frames of a video, without the first and the last."""
    if rows < 1:
        raise ValueError(f"rows must be at least 1 frame per figure, got {rows}")
    index = np.unique(np.linspace(0, len(video.frames) - 1, rows + 2).round().astype(int)[1:-1])
    entities, heads = (None if maps is None else maps[index] for maps in (video.entities, video.head_maps))
    return plotting.AttentionBlock(
        video.frames[index], entities, heads, _head_name(video), video.numbers[index].tolist(), video.name
    )


def _at_least_one(videos: Sequence[AttentionVideo]) -> Sequence[AttentionVideo]:
    if not videos:
        raise ValueError("there is no video to draw: give at least one of `attention_videos`")
    return videos


def _head_name(video: AttentionVideo) -> tuple[str, ...]:
    return (f"CLS head {video.head + 1}",)


def _caption_parts(videos: Sequence[AttentionVideo]) -> dict[str, Any]:
    """Returns the layers and the rules that chose the heads, for the caption of a figure of several videos."""
    first = videos[0]
    layers = f"entities: layers {', '.join(map(str, first.entity_layers))}"
    heads = f"head: layer {first.layer}" if first.layers else first.head_name
    rules = dict.fromkeys(video.head_rule for video in videos)
    few = (
        "; training videos among them, because validation has fewer than two" if any(v.training for v in videos) else ""
    )
    return {"layer": f"{layers}; {heads}{few}", "head_rule": "; ".join(filter(None, rules))}


# ----------------------------------------------------------------------------------------------------------------------
# Videos with their attention maps, and the head that a figure shows.

MOST_ROWS = 12  # rows in a figure as tall as a page
RULES = ("training", "oracle", "entity")
STORED_SIDE = 640  # pixels: larger frames are shrunk to this side


@dataclass(frozen=True)
class AttentionVideo:
    """A video and its attention maps, frame by frame, from one decoding pass.

    Attributes:
        name: Name of the video.
        frames: (T, H, W, 3) uint8, with sides of at most `STORED_SIDE` pixels.
        numbers: (T,) number of every frame in the file.
        num_frames: Number of frames of the whole video.
        entities: (T, N, h, w), or None.
        heads: (layers, T, K, h, w), or None.
        layers: Numbers of the backbone blocks of `heads`, ascending; empty if `heads` is None.
        layer: Number of the block whose head is shown; 0 if `heads` is None.
        head: Index of the head of that block that is shown, from 0.
        head_rule: How the head was chosen.
        entity_layers: Backbone blocks from which the entities are pooled.
        image_size: Side in pixels of the frames as the model's input.
        backbone: Name of the backbone.
        training: Whether it is a training video, because there are fewer than two validation videos.
        times: (T,) seconds of every frame, or None.
        phases: (T,) phase of every frame, -1 = unlabelled, or None.
        phase_names: Names of the phases.
    """

    name: str
    frames: np.ndarray
    numbers: np.ndarray
    num_frames: int
    entities: np.ndarray | None
    heads: np.ndarray | None
    layers: tuple[int, ...]
    layer: int
    head: int
    head_rule: str
    entity_layers: tuple[int, ...]
    image_size: int
    backbone: str
    training: bool = False
    times: np.ndarray | None = None
    phases: np.ndarray | None = None
    phase_names: tuple[str, ...] = ()

    @property
    def head_maps(self) -> np.ndarray | None:
        """Returns the (T, h, w) maps of the head that is shown."""
        return None if self.heads is None else self.heads[self.layers.index(self.layer), :, self.head]

    @property
    def head_names(self) -> list[str]:
        return [] if self.heads is None else [f"head {i + 1}" for i in range(self.heads.shape[2])]

    @property
    def layer_names(self) -> list[str]:
        return [f"layer {layer}" for layer in self.layers]

    @property
    def head_name(self) -> str:
        if self.heads is None:
            return f"no heads: {self.backbone} has no class token"
        return f"CLS head {self.head + 1} of layer {self.layer} ({self.head_rule})"

    @property
    def caption(self) -> str:
        """Layers, the head and its rule, image size and frames, for a figure's caption."""
        entities = f"entities of layers {', '.join(map(str, self.entity_layers))}"
        few = len(self.numbers) < self.num_frames
        shown = f"{len(self.numbers)} of {self.num_frames} frames" if few else f"{self.num_frames} frames"
        parts = ["no entities" if self.entities is None else entities, self.head_name]
        parts += [f"{self.backbone} at {self.image_size} px", shown]
        return "; ".join([*parts, "a training video"] if self.training else parts)


@dataclass(frozen=True)
class HeadRule:
    """How the head of a video is chosen.

    Attributes:
        name: One of `RULES`, or "number"; empty for a backbone without heads.
        words: The rule as text for a caption.
        number: The head, from 1, if it is the same for all videos; else 0.
    """

    name: str
    words: str
    number: int = 0


def check_attention(session: Session, settings: Mapping) -> None:
    """Checks the settings of `attention.ipynb` before any long computation.

    Args:
        session: Model and data.
        settings: As in `attention_videos`; optionally also `rows` (frames per figure) and `normalise`.

    Raises:
        ValueError: for a number below 1, or a layer, head, image size or normalisation that does not exist.
    """
    for name in ("videos", "stored_frames", "rows"):
        if settings.get(name, 1) < 1:
            raise ValueError(f"{name} must be at least 1, got {settings[name]}")
    if settings.get("rows", 1) > MOST_ROWS:
        raise ValueError(
            f"rows must be at most {MOST_ROWS} frames per figure, got {settings['rows']}: no more fit on a page"
        )
    if settings.get("normalise", "frame") not in ("frame", "video"):
        raise ValueError(f'normalise must be "frame" or "video", got "{settings["normalise"]}"')
    backbone = backbone_of(session.model)
    backbone.resolve_layers((settings["layer"],))
    backbone.grid_of(settings["image_size"] or backbone.image_size)
    asked, heads = str(settings.get("head") or ""), backbone.num_heads or 0
    if asked and not heads:
        raise ValueError(f'head="{asked}": {backbone.name} has no class token and therefore no heads; leave head empty')
    if asked.isdigit() and not 1 <= int(asked) <= heads:
        raise ValueError(f"{backbone.name} has heads 1 to {heads}, got head {asked}")
    if asked and not asked.isdigit() and asked not in RULES:
        raise ValueError(f'unknown head "{asked}"; choose {", ".join(RULES)}, or a number from 1')


def attention_videos(session: Session, report: Mapping, settings: Mapping) -> list[AttentionVideo]:
    """Computes the attention maps of validation videos, and of training videos where validation has fewer than two.

    The videos show as many different actions as possible.

    Args:
        session: Model and data.
        report: From `mvf.evaluate`; the head that it chose is used if `layer` is the last block.
        settings: `videos`, their number; `layer`, the block whose head is shown; `layers`, all blocks whose heads are
            kept (absent or empty: those from which the entities are pooled, and `layer`); `image_size` or None;
            `stored_frames`, the maximum number of frames of a video; `head`, which is "training" (best AUROC on
            training videos), "oracle" (best on each video itself), "entity" (closest to entity 1) or a number from 1.
            Without `head` it is "training" if training videos have masks or boxes that define AUROC, else "entity".

    Raises:
        ValueError: for a layer, head, rule or image size that does not exist, a rule that needs masks if there are
            none, or a number of videos or frames below 1.
    """
    check_attention(session, settings)
    backbone = backbone_of(session.model)
    (layer,) = backbone.resolve_layers((settings["layer"],))
    asked = settings.get("layers") or (backbone.layers if backbone.has_cls else ())
    layers = tuple(sorted({layer, *backbone.resolve_layers(asked)} if asked else {layer}))
    rule = _rule(session, report, str(settings.get("head") or ""), layer)
    found: list[VideoRecord] = [*session.find_videos("val")]
    own = {record.name for record in found}
    if len(found) < 2:
        found += [record for record in session.find_videos("train") if record.name not in own]
    seen = set() if is_released(session.source) else {record.name for record in found} - own  # it saw none of these
    return [
        replace(_attention_video(session, record, layers, layer, settings, rule), training=record.name in seen)
        for record in _one_an_action(found, settings["videos"])
    ]


def _attention_video(
    session: Session, record: VideoRecord, layers: tuple[int, ...], layer: int, settings: Mapping, rule: HeadRule
) -> AttentionVideo:
    backbone = backbone_of(session.model.of(record.action))
    step = max(1, -(-record.num_frames // settings["stored_frames"]))
    seen = map_frames(session.model, record, layers, settings["image_size"], step, STORED_SIDE)
    heads = None if seen.maps.heads is None else seen.maps.heads[layers.index(layer)]
    numbers, first = np.unique(record.frame_numbers[seen.numbers], return_index=True)
    kept = slice(None) if len(first) == len(seen.numbers) else first  # a higher fps repeats frames
    head, words = (0, "") if heads is None else _choose(record, seen, heads, rule)
    return AttentionVideo(
        name=record.name,
        frames=seen.frames[kept],
        numbers=numbers,
        num_frames=record.num_frames,
        entities=None if seen.maps.entities is None else seen.maps.entities[kept],
        heads=None if seen.maps.heads is None else seen.maps.heads[:, kept],
        layers=seen.maps.layers,
        layer=layer if seen.maps.layers else 0,
        head=head,
        head_rule=words,
        entity_layers=tuple(backbone.layers),
        image_size=settings["image_size"] or backbone.image_size,
        backbone=backbone.name,
        times=None if record.frame_times is None else record.frame_times[seen.numbers][kept],
        phases=None if record.phases is None else record.phases[seen.numbers][kept],
        phase_names=record.phase_names,
    )


def _rule(session: Session, report: Mapping, asked: str, layer: int) -> HeadRule:
    backbone = backbone_of(session.model)
    if not backbone.has_cls:
        return HeadRule("", "")
    if asked.isdigit():
        return HeadRule("number", "asked for", int(asked))
    if asked == "oracle":
        return HeadRule(asked, "oracle: best on this very video")
    if asked == "entity":
        return HeadRule(asked, "closest to entity 1")
    records = session.find_videos("train")
    if not (asked or any(map(is_annotated, records))):
        return HeadRule("entity", "closest to entity 1: no masks")
    chosen = ((report.get("localization") or {}).get("head_best") or {}).get("index")
    if chosen is None or layer != backbone.num_blocks:  # the report chose a head of the last block
        try:
            chosen = choose_head(session.model, records, layer)
        except ValueError:
            if asked:
                raise
            return HeadRule("entity", "closest to entity 1: training videos do not define AUROC")
    return HeadRule("training", "chosen by AUROC on training videos", chosen)


def _choose(record: VideoRecord, seen: MappedFrames, heads: np.ndarray, rule: HeadRule) -> tuple[int, str]:
    """Chooses one of `heads` (T, K, h, w) and returns its index and how it was chosen."""
    if rule.number:
        return rule.number - 1, rule.words
    if rule.name == "oracle":
        if not is_annotated(record):
            raise ValueError(f'{record.name} has neither a mask nor boxes: head="oracle" needs them, "entity" does not')
        actor = read_regions(record, seen.numbers, seen.size, heads.shape[-2:], parts=False).actor
        best = best_map(list(heads.swapaxes(0, 1)), actor)
        if best is None:
            reason = "in no frame does its actor cover at least half of some patches but not of all"
            raise ValueError(f'{record.name}: {reason}: use a larger image_size, or head="entity"')
        return best, rule.words
    if seen.maps.entities is None:
        return 0, "the first: there are no entities to compare with"
    compared = np.concatenate([seen.maps.entities[:, :1], heads], axis=1)
    return int(attention_overlap(compared)[0, 1:].argmax()), rule.words


def _one_an_action(records: Sequence[VideoRecord], count: int) -> list[VideoRecord]:
    """Selects `count` records, taking the actions in turn.

    Records of one action are spread over its list, because neighbours often show the same person.
    """
    actions: dict[str, list[VideoRecord]] = {}
    for record in records:
        actions.setdefault(record.action, []).append(record)
    turns = -(-count // max(1, len(actions)))
    spread = [np.unique(np.linspace(0, len(of) - 1, turns).round().astype(int)) for of in actions.values()]
    order = [(turn, a, of[i]) for a, of in enumerate(actions.values()) for turn, i in enumerate(spread[a])]
    return [record for *_, record in sorted(order, key=lambda item: item[:2])[:count]]
