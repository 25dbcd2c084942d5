"""Timelines of the synthetic videos: when an actor does what, and how bystanders pass the time."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from mvf.data.synthetic_actions import Action
from mvf.data.synthetic_motion import SIDES, WIDTH, interpolate, part, pose

SETTLE = 7  # frames from resting to the pose in which an action starts, and back


@dataclass
class Timeline:
    """Key poses in time, collected one after another; a stretch of frames leads from each key to the next."""

    keys: list[np.ndarray]
    frames: list[int] = field(default_factory=list)
    phases: list[int] = field(default_factory=list)

    def add(self, key: np.ndarray, frames: int, phase: int = -1) -> None:
        if frames > 0:
            self.keys.append(key)
            self.frames.append(frames)
            self.phases.append(phase)

    def poses(self) -> np.ndarray:
        """(T, WIDTH), one pose a frame."""
        times = np.concatenate([[0], np.cumsum(self.frames)])
        return interpolate(times, np.stack(self.keys), np.arange(times[-1]))

    def labels(self) -> np.ndarray:
        """(T,) phase of every frame, -1 where nothing is performed."""
        return np.repeat(np.array(self.phases, dtype=np.int64), self.frames)


def perform(
    action: Action,
    draw: np.random.Generator,
    repeats: tuple[int, int],
    idle: tuple[int, int],
    tempo: tuple[float, float],
) -> Timeline:
    """One video's timeline: idle time, one or more repetitions at an uneven tempo, idle time.

    Args:
        action: What is performed.
        draw: Source of all chance.
        repeats: Least and greatest number of repetitions.
        idle: Least and greatest number of idle frames on each side; short ones are commoner.
        tempo: Range of the factor on all durations; each phase departs from it by a fifth or so.
    """
    count = draw.integers(repeats[0], repeats[1] + 1)
    before, after = (round(idle[0] + (idle[1] - idle[0]) * draw.random() ** 2) for _ in range(2))
    factor = draw.uniform(*tempo)
    timeline = Timeline([_fidget(action, draw) if before else action.start])
    _wait(timeline, action, draw, before - SETTLE)
    timeline.add(action.start, min(before, SETTLE))
    for repetition in range(count):
        if repetition:
            for key in action.reset:
                timeline.add(key, round(draw.uniform(5, 10)))
        for phase, keys in enumerate(action.keys):
            frames = max(3, len(keys), round(action.frames[phase] * factor * np.exp(draw.normal(0, 0.22))))
            _phase(timeline, action, draw, keys, frames, phase)
    rest = _fidget(action, draw)
    timeline.add(rest, min(after, 2 * SETTLE))
    _wait(timeline, action, draw, after - 2 * SETTLE)
    return timeline


def _phase(timeline: Timeline, action: Action, draw: np.random.Generator, keys, frames: int, phase: int) -> None:
    """Adds one phase: its keys spread over `frames`, now and then held at its end."""
    ends = np.round(np.linspace(0, frames, len(keys) + 1)).astype(int)
    for key, length in zip(keys, np.diff(ends), strict=True):
        timeline.add(_vary(key, action, draw), int(length), phase)
    if draw.random() < 0.3:
        timeline.add(timeline.keys[-1], int(draw.integers(1, 6)), phase)


def _vary(key: np.ndarray, action: Action, draw: np.random.Generator) -> np.ndarray:
    """`key` as a person would do it this time."""
    key = key.copy()
    spread = {"hip": 0.008, "lean": 2.5, "nod": 4, "look": 8, "tilt": 1.5, "twist": 3}
    if action.hands == "shoulder":
        spread |= {"left_wrist": 0.012, "right_wrist": 0.012}
    for name, scale in spread.items():
        field = part(key, name)
        field += draw.normal(0, scale, field.shape)
    return key


def _wait(timeline: Timeline, action: Action, draw: np.random.Generator, frames: int) -> None:
    """Idle time: shifting weight, looking about, a small step now and then."""
    while frames > 0:
        length = min(frames, int(draw.integers(6, 15)))
        key, foot = _fidget(action, draw), f"{SIDES[draw.integers(2)][0]}_ankle"
        step = part(key, foot)
        step += draw.normal(0, 0.03, 3) * [1, 0, 1]
        middle = (timeline.keys[-1] + key) / 2
        part(middle, foot)[1] += 0.025
        timeline.add(middle, length // 2)
        timeline.add(key, length - length // 2)
        frames -= length


def _fidget(action: Action, draw: np.random.Generator) -> np.ndarray:
    """A resting pose slightly unlike any other."""
    key = action.rest.copy()
    planted = np.allclose(part(key, "left_wrist")[1], 0.03)
    spread = {"hip": np.array([0.02, 0.006, 0.02]), "lean": 3, "tilt": 2, "turn": 10, "nod": 9, "look": 28}
    for name, scale in spread.items():
        field = part(key, name)
        field += draw.normal(0, scale, field.shape)
    if not planted:
        shift = draw.normal(0, 0.03, 3)
        for side, _ in SIDES:
            own = draw.normal(0, 0.03, 3) if action.hands == "shoulder" else 0
            field = part(key, f"{side}_wrist")
            field += shift + own
    return key


def stroll(draw: np.random.Generator, frames: int, start: float, speed: float) -> np.ndarray:
    """Poses (frames, WIDTH) of someone walking along x from `start` at `speed` statures a frame."""
    along = start + speed * np.arange(frames)
    cycle = 2 * np.pi * along / 0.62 + draw.uniform(0, 6)
    poses = np.broadcast_to(pose(lean=4), (frames, WIDTH)).copy()
    part(poses, "hip")[:, 0] = along
    part(poses, "hip")[:, 1] += 0.008 * np.cos(2 * cycle) - 0.012
    for side, sign in SIDES:
        swing = cycle + (sign > 0) * np.pi
        part(poses, f"{side}_ankle")[:, 0] = along + 0.15 * np.sin(swing)
        part(poses, f"{side}_ankle")[:, 1] += 0.06 * np.maximum(np.cos(swing), 0)
        part(poses, f"{side}_wrist")[:, 0] -= 0.1 * np.sin(swing)
        part(poses, f"{side}_wrist")[:, 1] += 0.02 * np.abs(np.sin(swing))
    return poses


def loiter(draw: np.random.Generator, frames: int, rest: Action) -> np.ndarray:
    """Poses (frames, WIDTH) of someone standing about."""
    timeline = Timeline([_fidget(rest, draw)])
    while sum(timeline.frames) < frames:
        timeline.add(_fidget(rest, draw), int(draw.integers(10, 25)))
    return timeline.poses()[:frames]
