"""The built-in default data set: short rendered videos of people performing actions, with exact annotations.

Every pixel of a video is a pure function of (action, seed, options); see `find_videos`.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path

import cv2
import numpy as np

from mvf.config import nearest
from mvf.data.datasets.synthetic.actions import ACTIONS, Timeline, perform
from mvf.data.datasets.synthetic.drawing import ACTOR, THING, Canvas, Figure, shadow
from mvf.data.datasets.synthetic.motion import JOINTS
from mvf.data.datasets.synthetic.scene import APPEARANCES as LOOKS
from mvf.data.datasets.synthetic.scene import Camera, cast_actor, cast_bystanders, make_background, make_camera
from mvf.data.records import Coverage, VideoList, VideoRecord

VERSION = 1  # of the renderer; raise it with every change of pixels


def find_videos(
    split: str,
    root: str | Path | None = None,
    *,
    data_seed: int = 0,
    train_videos: int = 60,
    dev_videos: int = 12,
    val_videos: int = 30,
    actions: Sequence[str] = (),
    height: int = 128,
    width: int = 144,
    repeats: Sequence[int] = (1, 2),
    idle: Sequence[int] = (0, 60),
    bystanders: Sequence[int] = (0, 2),
    noise: float = 4.0,
) -> VideoList:
    """Returns the synthetic videos of one split; frames are rendered only when they are requested.

    Args:
        split: `train`, `dev` or `val`; they differ in bodies, clothes, photographs and tempo.
        root: Not used, because nothing is read.
        data_seed: Seed of the data set; another seed gives other videos.
        train_videos: Number of training videos, assigned to the actions in turn.
        dev_videos: Likewise for dev.
        val_videos: Likewise for val.
        actions: Names of the actions; empty for all.
        height: Height of the frames, in pixels.
        width: Width of the frames, in pixels.
        repeats: Minimum and maximum number of repetitions in a video.
        idle: Minimum and maximum number of frames without action (phase -1) at each end.
        bystanders: Minimum and maximum number of other people.
        noise: Typical standard deviation of the sensor noise, in levels of 0 to 255.

    Raises:
        ValueError: for an unknown split or action, or counts for which no video can be made.

    Example:
        >>> videos = find_videos("val", val_videos=6, actions=("squat", "pushup"))
        >>> [video.name for video in videos][:3]
        ['squat_000', 'pushup_000', 'squat_001']
        >>> videos[0].phase_kinds
        ('direction', 'direction', 'direction', 'direction')
    """
    counts = {"train": train_videos, "dev": dev_videos, "val": val_videos}
    _check_name("split", split, counts)
    actions = tuple(actions.split(",") if isinstance(actions, str) else actions) or tuple(ACTIONS)
    for action in actions:
        _check_name("action", action, ACTIONS)
    _check_least({f"{split}_videos": counts[split]}, 1)
    _check_least({"data_seed": data_seed, "noise": noise}, 0)
    _check_least({"height": height, "width": width}, 32)
    make = partial(
        SyntheticVideo,
        split=split,
        data_seed=int(data_seed),
        height=int(height),
        width=int(width),
        noise=float(noise),
        repeats=_range("repeats", repeats, 1),
        idle=_range("idle", idle, 0),
        bystanders=_range("bystanders", bystanders, 0),
    )
    numbers = range(counts[split])
    videos = [_record(make(action=actions[n % len(actions)], index=n // len(actions))) for n in numbers]
    return VideoList(videos, Coverage(found=len(videos), expected=len(videos)))


@dataclass(frozen=True)
class SyntheticVideo:
    """A `FrameSource` that renders one video: timeline and background once, frames on demand.

    Attributes:
        action: Name in `ACTIONS`.
        split: Name in `LOOKS`.
        data_seed: Seed of all random draws, with action, split and `index`; the others are as in `find_videos`.
        index: Index of the video among those of its action and split.
    """

    action: str
    split: str
    data_seed: int
    index: int
    height: int
    width: int
    noise: float
    repeats: tuple[int, int]
    idle: tuple[int, int]
    bystanders: tuple[int, int]

    @property
    def identity(self) -> str:
        return f"synthetic-{VERSION} {json.dumps(asdict(self))}"

    def count(self) -> int:
        return len(self._timeline.labels())

    def phases(self) -> np.ndarray:
        return self._timeline.labels()

    def joints(self) -> np.ndarray:
        """(T, 13, 2) x y in pixels, including hidden joints and joints outside the frame."""
        return np.stack([self._scene.figures[0].points[name][:, :2] for name in JOINTS], axis=1)

    def actor_mask(self) -> np.ndarray:
        """(T, H, W) bool, True on visible pixels of the actor, without the object they carry."""
        return np.stack([canvas.coverage(ACTOR) >= 0.5 for canvas in self._canvases()])

    def object_mask(self) -> np.ndarray:
        """(T, H, W) bool, True where bar, club, racket or ball visibly covers at least a third of a pixel."""
        masks = [(canvas.coverage(THING) >= 0.33) & (canvas.coverage(ACTOR) < 0.5) for canvas in self._canvases()]
        return np.stack(masks)

    def actor_box(self) -> np.ndarray:
        """(T, 4) bounds x0 y0 x1 y1 of the actor's mask; zeros where the actor is not visible."""
        return np.array([_bounds(mask) for mask in self.actor_mask()], dtype=np.float64)

    def frames(self, start: int = 0, stop: int | None = None, step: int = 1) -> Iterator[np.ndarray]:
        return self.frames_at(range(*slice(start, stop, step).indices(self.count())))

    def frames_at(self, positions: Sequence[int]) -> Iterator[np.ndarray]:
        """Renders the frames at these positions."""
        return map(self._render, positions)

    @cached_property
    def _timeline(self) -> Timeline:
        return perform(ACTIONS[self.action], self._draw(0), self.repeats, self.idle, LOOKS[self.split].tempo)

    @cached_property
    def _scene(self) -> _Scene:
        draw, look = self._draw(1), LOOKS[self.split]
        camera = make_camera(draw, self.count(), self.height, self.width)
        actor = cast_actor(draw, camera, look, ACTIONS[self.action], self._timeline.poses())
        light = np.array([draw.choice([-1, 1]) * draw.uniform(0.25, 0.6), -0.62, 0.62])
        background, noise = make_background(draw, camera, look), self.noise * draw.uniform(0.5, 1.5)
        count = int(draw.integers(self.bystanders[0], self.bystanders[1] + 1))
        people = cast_bystanders(draw, camera, look, count, actor)
        return _Scene(camera, (actor, *people), light / np.linalg.norm(light), background, noise)

    def _draw(self, *what: int) -> np.random.Generator:
        place = zlib.crc32(f"{self.action} {self.split}".encode())
        return np.random.default_rng([VERSION, self.data_seed, place, self.index, *what])

    def _canvases(self) -> Iterator[Canvas]:
        """Renders every frame without the people behind the actor, who do not affect the masks."""
        near = [figure for figure in self._scene.figures if figure.floor[0, 2] >= 0]
        return (self._paint(frame, near) for frame in range(self.count()))

    def _paint(self, frame: int, figures: Sequence[Figure]) -> Canvas:
        canvas = Canvas(self.height, self.width, self._scene.light)
        for figure in figures:
            canvas.add(figure, frame)
        return canvas

    def _render(self, frame: int) -> np.ndarray:
        scene, size = self._scene, (self.height, self.width)
        pan = scene.camera.pan[frame]
        middle = (np.array(scene.background.shape[1::-1]) - 1) / 2 - pan
        image: np.ndarray = cv2.getRectSubPix(scene.background, size[::-1], (float(middle[0]), float(middle[1])))
        for figure in scene.figures:
            dark = shadow(figure, frame, size, -0.5 * scene.light[0], np.tan(scene.camera.pitch))
            image *= 1 - 0.5 * dark[..., None]
        self._paint(frame, scene.figures).onto(image)
        grain = self._draw(2, frame).standard_normal(image.shape, dtype=np.float32)
        image += float(scene.noise) * grain + 0.5
        return np.clip(image, 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class _Scene:
    camera: Camera
    figures: tuple[Figure, ...]  # the actor first
    light: np.ndarray
    background: np.ndarray
    noise: float


def _record(video: SyntheticVideo) -> VideoRecord:
    action = ACTIONS[video.action]
    known = ["phases", "joints", "actor_box", "actor_mask"] + ["object_mask"] * bool(action.thing)
    annotations = {name: getattr(video, name) for name in known}
    return VideoRecord(
        f"{video.action}_{video.index:03d}", video.action, video, annotations, action.names, action.kinds
    )


def _bounds(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Example:
    >>> _bounds(np.eye(4, dtype=bool)[:, 1:])
    (0, 1, 3, 4)
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1) if len(rows) else (0, 0, 0, 0)


def _check_name(kind: str, name: str, allowed: Collection[str]) -> None:
    if name not in allowed:
        raise ValueError(f'unknown {kind} "{name}"; {nearest(name, allowed)}')


def _check_least(values: dict[str, float], least: int) -> None:
    for name, value in values.items():
        if not value >= least:
            raise ValueError(f"{name} must be at least {least}, got {value}")


def _range(name: str, value: int | Sequence[int], least: int) -> tuple[int, int]:
    low, high = (value, value) if isinstance(value, int) else map(int, value)
    if not least <= low <= high:
        raise ValueError(f"{name} must be two numbers from {least} up, the smaller first, got {value}")
    return low, high
