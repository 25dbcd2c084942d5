"""What `attention.ipynb` shows: maps in the layouts of the paper's figures, films, and attention over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from mvf.attention import MappedFrames, map_frames, temporal_attention
from mvf.data import VideoList, VideoRecord, find_config_videos
from mvf.evaluation.localization import best_map, choose_head
from mvf.evaluation.regions import is_annotated, read_regions
from mvf.metrics import attention_overlap
from mvf.workbench import plotting
from mvf.workbench.notebook.session import Session, clean_bank

MOST_LOOKING = 400  # frames in a figure of attention over time


def attention_figure(video: LookedVideo, look: Mapping) -> Figure:
    """One video: rows are frames; columns the input, every entity, the chosen head."""
    return plotting.plot_attention_grid(
        [_block(video, look["rows"])], normalise=look["normalise"], layer=video.caption, contour_mass=0.6
    )


def attention_grid(videos: Sequence[LookedVideo], look: Mapping, report: Mapping) -> Figure:
    """The paper's Figure 3: two videos side by side; the input, entity 1, the background's, and the chosen head.

    The background's entity is the one that `report` names on training videos; without masks the second, as there.
    """
    chosen = _some(videos)[:2]
    entities = chosen[0].entities
    background = ((report.get("localization") or {}).get("background") or {}).get("index", 2)
    shown = None if entities is None else sorted({1, min(background, entities.shape[1])})
    return plotting.plot_attention_grid(
        [_block(video, look["rows"]) for video in chosen], shown=shown, normalise=look["normalise"], **_words(chosen)
    )


def teaser(videos: Sequence[LookedVideo], look: Mapping) -> Figure:
    """The paper's Figure 1: one frame of several videos; the input, entity 1 and the chosen head below each other."""
    blocks = [_block(video, 1) for video in _some(videos)[:6]]
    if videos[0].entities is None:
        return plotting.plot_attention_grid(blocks, transposed=True, normalise=look["normalise"], **_words(videos))
    return plotting.plot_teaser(blocks, normalise=look["normalise"], **_words(videos))


def write_movie(video: LookedVideo, path: Path, frames_per_second: float = 12) -> list[Path]:
    """A film of one video beside its maps, as GIF and as MP4; `path` has no suffix."""
    film = plotting.attention_movie(
        video.frames, video.entities, video.head_maps, _head_name(video), numbers=video.numbers, title=video.name
    )
    return [plotting.save_animation(film, path.with_suffix(kind), frames_per_second) for kind in (".gif", ".mp4")]


def temporal_figure(session: Session, video: LookedVideo, block: int = -1) -> Figure:
    """Which frames and entities the frames of one video look at in the fusion."""
    records = (r for split in ("val", "train") for r in find_config_videos(session.config, split, allow_empty=True))
    record = next(record for record in records if record.name == video.name)
    bank = clean_bank(session.model, session.config)
    looking = np.unique(np.linspace(0, record.num_frames - 1, MOST_LOOKING).round().astype(int))
    seen = temporal_attention(session.model, record, block, looking, chunk=session.config.chunk, cache=bank)
    words = f"Fusion block {seen.block} of {seen.blocks}, readout tokens, mean over heads."
    names = None if seen.weights.shape[2] > 1 else ["the frame's token"]
    return plotting.plot_temporal_attention(
        seen.weights, names, seen.frames, title=video.name, caption=words, bounds=seen.bounds
    )


def _block(video: LookedVideo, rows: int) -> plotting.AttentionBlock:
    """Evenly spaced frames of a video, the first and the last left out."""
    if rows < 1:
        raise ValueError(f"rows must be at least 1 frame a figure, got {rows}")
    index = np.unique(np.linspace(0, len(video.frames) - 1, rows + 2).round().astype(int)[1:-1])
    maps = (None if part is None else part[index] for part in (video.entities, video.head_maps))
    return plotting.AttentionBlock(video.frames[index], *maps, _head_name(video), video.numbers[index], video.name)


def _some(videos: Sequence[LookedVideo]) -> Sequence[LookedVideo]:
    if not videos:
        raise ValueError("there is no video to draw: look at one at least (mvf.workbench.notebook.attention.look_at)")
    return videos


def _head_name(video: LookedVideo) -> tuple[str, ...]:
    return (f"CLS head {video.head + 1}",)


def _words(videos: Sequence[LookedVideo]) -> dict[str, str]:
    """Layers and rules for a caption of several videos."""
    first = videos[0]
    layers = f"entities: layers {', '.join(map(str, first.entity_layers))}"
    heads = f"head: layer {first.layer}" if first.layers else first.head_name
    rules = dict.fromkeys(video.head_rule for video in videos)
    return {"layer": f"{layers}; {heads}", "head_rule": "; ".join(filter(None, rules))}


# ----------------------------------------------------------------------------------------------------------------------
# Validation videos with their attention maps, frame by frame, and the head that a figure shows.

MOST_ROWS = 12  # of a figure a page tall
RULES = ("training", "oracle", "entity")
STORED_SIDE = 640  # pixels: a film of a telephone is not kept at full size


@dataclass(frozen=True)
class LookedVideo:
    """A video with its maps, frame by frame, from one decoding pass.

    Attributes:
        name: Of the video.
        frames: (T, H, W, 3) uint8, at most `STORED_SIDE` pixels long.
        numbers: (T,) position of every frame in the video.
        num_frames: Of the whole video.
        entities: (T, N, h, w), or None.
        heads: (layers, T, K, h, w), or None.
        layers: Numbers of those blocks, ascending; empty where `heads` is None.
        layer: The block whose head is shown; 0 where `heads` is None.
        head: Which of its heads is shown, from 0.
        head_rule: How it was chosen.
        entity_layers: Blocks that the entities read.
        image_size: Side in pixels at which the model saw the frames.
        backbone: Its name.
        training: It is a training video: there are no validation videos.
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

    @property
    def head_maps(self) -> np.ndarray | None:
        """(T, h, w) of the head that is shown."""
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
        """Layers, head and its rule, size and frames: what a figure has to say."""
        entities = f"entities of layers {', '.join(map(str, self.entity_layers))}"
        step = int(self.numbers[1] - self.numbers[0]) if len(self.numbers) > 1 else 1
        shown = f"{len(self.numbers)} of {self.num_frames} frames" if step > 1 else f"{self.num_frames} frames"
        parts = ["no entities" if self.entities is None else entities, self.head_name]
        parts += [f"{self.backbone} at {self.image_size} px", shown]
        return "; ".join([*parts, "these are training videos"] if self.training else parts)


@dataclass(frozen=True)
class Rule:
    """How heads are chosen: a name in `RULES` or "number", words for a caption, and the head from 1 if one for all."""

    name: str
    words: str
    number: int = 0


def check_look(session: Session, look: Mapping) -> None:
    """Refuses what `look_at` and the figures cannot show, before any long work.

    Args:
        session: Model and data.
        look: As in `look_at`; also `rows` (frames a figure) and `normalise`, where given.

    Raises:
        ValueError: for a number below 1, a layer, head, image size or normalisation that there is not.
    """
    for name in ("videos", "stored_frames", "rows"):
        if look.get(name, 1) < 1:
            raise ValueError(f"{name} must be at least 1, got {look[name]}")
    if look.get("rows", 1) > MOST_ROWS:
        raise ValueError(f"rows must be at most {MOST_ROWS} frames a figure, got {look['rows']}: a page holds no more")
    if look.get("normalise", "frame") not in ("frame", "video"):
        raise ValueError(f'normalise must be "frame" or "video", got "{look["normalise"]}"')
    backbone = session.model.backbone
    if backbone is None:
        raise ValueError("attention maps need a model with a backbone; this one starts from patch features")
    backbone.resolve_layers((look["layer"],))
    backbone.grid_of(look["image_size"] or backbone.image_size)
    asked, heads = str(look.get("head") or ""), backbone.num_heads
    if asked and not heads:
        raise ValueError(f'head="{asked}": {backbone.name} has no class token, so no heads; leave head empty')
    if asked.isdigit() and not 1 <= int(asked) <= heads:
        raise ValueError(f"{backbone.name} has heads 1 to {heads}, got head {asked}")
    if asked and not asked.isdigit() and asked not in RULES:
        raise ValueError(f'unknown head "{asked}"; choose {", ".join(RULES)}, or a number from 1')


def look_at(session: Session, report: Mapping, look: Mapping) -> list[LookedVideo]:
    """Maps of validation videos (of training videos where there are none), of different actions as far as there are.

    Args:
        session: Model and data.
        report: Of `mvf.evaluate`; the head that it chose is taken where it fits.
        look: `videos`, their number; `layer`, the block whose head is shown; `layers`, all blocks whose heads are
            kept (absent or empty: those that the entities read, and `layer`); `image_size` or None; `stored_frames`,
            at most, a video; `head`, "training" (best AUROC on training videos), "oracle" (best on the very video),
            "entity" (closest to entity 1) or a number from 1; absent or empty: "training" where training videos have
            masks or boxes that tell, else "entity".

    Raises:
        ValueError: for a layer, head, rule or image size that there is not, a rule that needs masks without any, and
            a number of videos or frames below 1.
    """
    check_look(session, look)
    backbone = session.model.backbone
    (layer,) = backbone.resolve_layers((look["layer"],))
    asked = look.get("layers") or (backbone.layers if backbone.has_cls else ())
    layers = tuple(sorted({layer, *backbone.resolve_layers(asked)} if asked else {layer}))
    rule = _rule(session, report, str(look.get("head") or ""), layer)
    found = find_config_videos(session.config, "val")
    training = not found
    shown = _one_an_action(found or find_config_videos(session.config, "train"), look["videos"])
    return [replace(_look(session, record, layers, layer, look, rule), training=training) for record in shown]


def _look(
    session: Session, record: VideoRecord, layers: tuple[int, ...], layer: int, look: Mapping, rule: Rule
) -> LookedVideo:
    backbone = session.model.of(record.action).backbone
    step = max(1, -(-record.num_frames // look["stored_frames"]))
    seen = map_frames(session.model, record, layers, look["image_size"], step, STORED_SIDE)
    heads = None if seen.maps.heads is None else seen.maps.heads[layers.index(layer)]
    head, words = (0, "") if heads is None else _choose(record, seen, heads, rule)
    return LookedVideo(
        name=record.name,
        frames=seen.frames,
        numbers=seen.numbers,
        num_frames=record.num_frames,
        entities=seen.maps.entities,
        heads=seen.maps.heads,
        layers=seen.maps.layers,
        layer=layer if seen.maps.layers else 0,
        head=head,
        head_rule=words,
        entity_layers=tuple(backbone.layers),
        image_size=look["image_size"] or backbone.image_size,
        backbone=backbone.name,
    )


def _rule(session: Session, report: Mapping, asked: str, layer: int) -> Rule:
    backbone = session.model.backbone
    if not backbone.has_cls:
        return Rule("", "")
    if asked.isdigit():
        return Rule("number", "asked for", int(asked))
    if asked == "oracle":
        return Rule(asked, "oracle: best on this very video")
    records = find_config_videos(session.config, "train")
    if asked == "entity" or not (asked or any(map(is_annotated, records))):
        return Rule("entity", "closest to entity 1" + ("" if asked else ": no masks"))
    chosen = ((report.get("localization") or {}).get("head_best") or {}).get("index")
    if chosen is None or layer != backbone.num_blocks:  # the report's is of the last block
        try:
            chosen = choose_head(session.model, records, layer)
        except ValueError:
            if asked:
                raise
            return Rule("entity", "closest to entity 1: training videos do not tell")
    return Rule("training", "chosen by AUROC on training videos", chosen)


def _choose(record: VideoRecord, seen: MappedFrames, heads: np.ndarray, rule: Rule) -> tuple[int, str]:
    """The head, from 0, among `heads` (T, K, h, w), and how it was chosen."""
    if rule.number:
        return rule.number - 1, rule.words
    if rule.name == "oracle":
        if not is_annotated(record):
            raise ValueError(f'{record.name} has neither mask nor boxes: head="oracle" needs them, "entity" does not')
        actor = read_regions(record, seen.numbers, seen.size, heads.shape[-2:], parts=False).actor
        best = best_map(list(heads.swapaxes(0, 1)), actor)
        if best is None:
            reason = "its actor covers half of a patch in no frame shown, or of all patches"
            raise ValueError(f'{record.name}: {reason}: use a larger image_size, or head="entity"')
        return best, rule.words
    if seen.maps.entities is None:
        return 0, "the first: no entities to be close to"
    compared = np.concatenate([seen.maps.entities[:, :1], heads], axis=1)
    return int(attention_overlap(compared)[0, 1:].argmax()), rule.words


def _one_an_action(records: VideoList, count: int) -> list[VideoRecord]:
    """`count` records, going round the actions; of one action they are spread over its list, where neighbours are
    often takes of one person."""
    actions: dict[str, list[VideoRecord]] = {}
    for record in records:
        actions.setdefault(record.action, []).append(record)
    turns = -(-count // max(1, len(actions)))
    spread = [np.unique(np.linspace(0, len(of) - 1, turns).round().astype(int)) for of in actions.values()]
    order = [(turn, a, of[i]) for a, of in enumerate(actions.values()) for turn, i in enumerate(spread[a])]
    return [record for *_, record in sorted(order, key=lambda item: item[:2])[:count]]
