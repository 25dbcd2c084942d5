"""The actions that the synthetic actors perform: key poses, phases and view angles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from mvf.data.datasets.synthetic.motion import SIDES, WIDTH, Field, interpolate, part, pose

Point = tuple[float, float, float]


@dataclass(frozen=True)
class Action:
    """One action; its name and number of phases are Penn Action's.

    Attributes:
        names: Names of the phases.
        kinds: For each phase `pose` (one frame identifies it) or `direction` (its poses occur in both directions).
        frames: Typical duration of each phase, in frames.
        start: Pose (WIDTH,) in which the first phase begins.
        keys: For each phase its key poses, evenly spaced in time; it ends in the last one.
        rest: Pose during idle time.
        reset: Poses between the end of one repetition and the start of the next; none if the action is cyclic.
        yaw: Range of the view angle in degrees: 0 shows the actor's right side, 90 the front.
        hands: Origin of the wrists' coordinates: `shoulder` or `floor`.
        thing: The object carried: `bar`, `club`, `racket` or empty.
    """

    names: tuple[str, ...]
    kinds: tuple[str, ...]
    frames: tuple[int, ...]
    start: np.ndarray
    keys: tuple[tuple[np.ndarray, ...], ...]
    rest: np.ndarray
    reset: tuple[np.ndarray, ...] = ()
    yaw: tuple[float, float] = (0, 40)
    hands: str = "shoulder"
    thing: str = ""


def _squat() -> Action:
    stand = pose(ankles=(0, 0.045, 0.1), wrists=(0.04, -0.3, 0.05))
    half = pose(stand, hip=(-0.09, 0.41, 0), lean=27, nod=-10, wrists=(0.26, -0.1, 0.0))
    deep = pose(stand, hip=(-0.13, 0.215, 0), lean=38, nod=-15, wrists=(0.3, 0.04, 0.0), knees=(1, 0, 0.45))
    return Action(
        names=("down to half", "down to the floor", "up to half", "up to standing"),
        kinds=("direction",) * 4,
        frames=(8, 8, 8, 8),
        start=stand,
        keys=((half,), (deep,), (half,), (stand,)),
        rest=pose(),
        yaw=(0, 55),
    )


def _jumping_jacks() -> Action:
    closed = pose(ankles=(0, 0.045, 0.05), wrists=(0.02, -0.3, 0.06), elbows=(-1, 0, 0.3))
    middle = pose(closed, hip=(0, 0.56, 0), ankles=(0, 0.1, 0.15), wrists=(0, 0.0, 0.31), feet=35)
    wide = pose(closed, hip=(0, 0.48, 0), ankles=(0, 0.045, 0.24), wrists=(0, 0.3, 0.06))
    return Action(
        names=("arms rise to the shoulders", "arms rise overhead", "arms sink to the shoulders", "arms sink"),
        kinds=("direction",) * 4,
        frames=(7, 7, 7, 7),
        start=closed,
        keys=((middle,), (wide,), (middle,), (closed,)),
        rest=pose(),
        yaw=(60, 120),
    )


def _pushup() -> Action:
    high = pose(
        hip=(-0.27, 0.245, 0), lean=70, nod=-25, wrists=(0.03, 0.03, 0.14), ankles=(-0.73, 0.075, 0.05),
        elbows=(-1, 0.3, 0.6), knees=(1, -0.6, 0), feet=75,
    )  # fmt: skip
    low = pose(high, hip=(-0.26, 0.115, 0), lean=86, nod=-35)
    kneel = pose(
        high, hip=(-0.3, 0.29, 0), lean=80, nod=-15, ankles=(-0.52, 0.04, 0.06), knees=(1, -1, 0.1), feet=20,
        wrists=(0.03, 0.03, 0.12),
    )  # fmt: skip
    return Action(
        names=("chest sinks", "chest rises"),
        kinds=("direction",) * 2,
        frames=(14, 14),
        start=high,
        keys=((low,), (high,)),
        rest=kneel,
        yaw=(-5, 35),
        hands="floor",
    )


def _clean_and_jerk() -> Action:
    def lift(x: float, y: float, **fields: Field) -> np.ndarray:
        usual: dict[str, Field] = {"ankles": (0, 0.045, 0.1), "wrists": (x, y, 0.17), "grip": 1}
        return pose(None, **(usual | fields))

    rack = {"elbows": (1, -0.4, 0.2)}
    over = {"elbows": (0, -0.3, 1)}
    setup = lift(0.11, 0.13, hip=(-0.16, 0.3, 0), lean=56, nod=-30, elbows=(-0.5, 0, 1))
    hips = lift(0.09, 0.52, hip=(0.0, 0.54, 0), lean=-3, elbows=(-0.5, 0, 1), feet=25)
    catch = lift(0.09, 0.49, hip=(-0.1, 0.22, 0), lean=14, knees=(1, 0, 0.5), **rack)
    tall = lift(0.09, 0.8, lean=0, **rack)
    dip = lift(0.09, 0.7, hip=(-0.02, 0.42, 0), lean=2, knees=(1, 0, 0.5), **rack)
    split = pose(
        lift(0.03, 1.03, hip=(0, 0.42, 0), lean=0, **over),
        left_ankle=(0.24, 0.045, -0.07), right_ankle=(-0.26, 0.07, 0.07), feet=18,
    )  # fmt: skip
    above = lift(0.02, 1.12, lean=0, **over)
    rest = pose(wrists=(0.03, 0.5, 0.2), ankles=(-0.06, 0.045, 0.09), hip=(-0.06, 0.525, 0), grip=0)
    return Action(
        names=("bar to the hips", "drop under the bar", "stand up", "dip", "thrust", "balance overhead"),
        kinds=("pose", "pose", "pose", "direction", "pose", "pose"),
        frames=(7, 5, 6, 5, 5, 7),
        start=setup,
        keys=((hips,), (catch,), (tall,), (dip,), (split,), (above, above)),
        rest=rest,
        reset=(tall, setup),
        yaw=(40, 75),
        hands="floor",
        thing="bar",
    )


def _golf_swing() -> Action:
    def swing(hand: Point, tool: Point, turn: float = 0, twist: float = 0, **fields: Field) -> np.ndarray:
        stance: dict[str, Field] = {
            "hip": (-0.08, 0.5, 0),
            "lean": 30,
            "ankles": (0, 0.045, 0.13),
            "elbows": (-0.6, -1, 0.1),
        }
        x, y, z = hand
        stance |= {"tool": tool, "turn": turn, "twist": twist}
        stance |= {"left_wrist": (x, y - 0.01, z), "right_wrist": (x, y + 0.02, z + 0.01)}
        return pose(None, **(stance | fields))

    address = swing((0.24, 0.47, 0), (0.33, -0.94, 0.02))
    back = swing((0.24, 0.56, 0.22), (0.25, 0.05, 0.97), -20, -35, look=35)
    rise = swing((0.12, 0.76, 0.3), (0.0, 0.98, 0.2), -35, -50, look=60)
    top = swing((0.0, 0.93, 0.17), (-0.25, 0.3, -0.92), -40, -55, look=70)
    impact = swing((0.24, 0.47, -0.03), (0.33, -0.94, 0.0), 25, 5, hip=(-0.08, 0.5, -0.03), look=-15)
    through = swing((0.24, 0.6, -0.26), (0.2, 0.1, -0.97), 50, 15, hip=(-0.06, 0.51, -0.05), look=-20)
    lifted = swing((0.1, 0.83, -0.28), (0.0, 0.95, -0.3), 70, 25, hip=(-0.03, 0.52, -0.06), lean=14, look=-10)
    finish = swing((-0.06, 0.93, -0.16), (-0.5, 0.35, 0.8), 80, 35, hip=(-0.01, 0.525, -0.07), lean=4)
    rest = swing((0.2, 0.44, 0.02), (0.4, -0.9, 0.1), lean=9, hip=(-0.03, 0.52, 0))
    return Action(
        names=("backswing", "downswing", "follow through"),
        kinds=("direction", "direction", "pose"),
        frames=(12, 9, 11),
        start=address,
        keys=((back, rise, top), (rise, back, impact), (through, lifted, finish)),
        rest=rest,
        reset=(rest, address),
        yaw=(70, 115),
        hands="floor",
        thing="club",
    )


def _serve_until_contact() -> tuple[np.ndarray, ...]:
    feet = {"left_ankle": (0.13, 0.045, -0.05), "right_ankle": (-0.12, 0.045, 0.05)}
    ready = pose(
        None, **feet, lean=10, turn=-25, left_wrist=(0.21, -0.17, 0.06), right_wrist=(0.22, -0.17, -0.07),
        tool=(0.85, 0.5, 0), elbows=(-0.6, -1, 0.4), prop=(0.2, 1.0, 0.05),
    )  # fmt: skip
    parted = pose(
        ready, left_wrist=(0.12, -0.27, -0.03), right_wrist=(-0.06, -0.29, 0.08), tool=(0.1, -1, 0.2), turn=-35
    )
    release = pose(
        ready, turn=-45, lean=-2, left_wrist=(0.14, 0.26, 0.02), right_wrist=(-0.24, -0.16, 0.08),
        tool=(-0.9, -0.1, 0.3), nod=-15, prop=(0.24, 1.16, 0.03),
    )  # fmt: skip
    loaded = pose(
        release, hip=(0.02, 0.44, 0), lean=-12, right_wrist=(-0.06, 0.16, 0.14), tool=(-0.1, 1, 0.1), grip=0,
        left_wrist=(0.1, 0.29, 0.02), elbows=(-1, -0.1, 0.9), prop=(0.24, 1.44, 0.04), nod=-25,
    )  # fmt: skip
    dropped = pose(
        loaded, hip=(0.05, 0.5, 0), turn=-20, right_wrist=(-0.08, 0.17, 0.08), tool=(-0.5, -0.85, 0.1), lean=-4,
        left_wrist=(0.2, 0.1, 0), prop=(0.24, 1.42, 0.05),
    )  # fmt: skip
    contact = pose(
        loaded, hip=(0.09, 0.555, 0), turn=15, twist=10, lean=10, right_wrist=(0.09, 0.3, 0.0), tool=(0.25, 0.97, 0),
        left_wrist=(0.1, -0.12, 0.05), left_ankle=(0.13, 0.08, -0.05), right_ankle=(-0.1, 0.1, 0.05), feet=45,
        prop=(0.27, 1.36, 0.08),
    )  # fmt: skip
    return ready, parted, release, loaded, dropped, contact


def _tennis_serve() -> Action:
    ready, parted, release, loaded, dropped, contact = _serve_until_contact()
    across = pose(
        contact, hip=(0.14, 0.5, 0), lean=30, turn=35, right_wrist=(0.24, -0.12, -0.1), tool=(0.6, -0.8, -0.1), nod=-20,
        feet=15, left_ankle=(0.16, 0.045, -0.05), right_ankle=(-0.02, 0.09, 0.05), prop=(2.4, 1.1, 0.1),
    )  # fmt: skip
    finish = pose(
        across, hip=(0.17, 0.5, 0), lean=24, right_wrist=(0.02, -0.25, -0.2), tool=(-0.5, -0.8, -0.3),
        right_ankle=(0.22, 0.045, 0.06), prop=(4.0, 0.8, 0.1),
    )  # fmt: skip
    return Action(
        names=("arms part and lift the ball", "toss and load", "racket drops and hits", "follow through"),
        kinds=("pose",) * 4,
        frames=(9, 8, 8, 8),
        start=ready,
        keys=((parted, release), (loaded,), (dropped, contact), (across, finish)),
        rest=ready,
        reset=(pose(ready, grip=0, prop=(4.0, 0.8, 0.1)), ready),
        yaw=(10, 50),
        thing="racket",
    )


ACTIONS = {
    "clean_and_jerk": _clean_and_jerk(),
    "golf_swing": _golf_swing(),
    "jumping_jacks": _jumping_jacks(),
    "pushup": _pushup(),
    "squat": _squat(),
    "tennis_serve": _tennis_serve(),
}


# ----------------------------------------------------------------------------------------------------------------------
# Timelines of actors and bystanders.

SETTLE = 7  # frames from resting to the pose in which an action starts, and back


@dataclass
class Timeline:
    """Key poses in time, added one after another, with a number of frames from each to the next."""

    keys: list[np.ndarray]
    frames: list[int] = field(default_factory=list)
    phases: list[int] = field(default_factory=list)

    def add(self, key: np.ndarray, frames: int, phase: int = -1) -> None:
        if frames > 0:
            self.keys.append(key)
            self.frames.append(frames)
            self.phases.append(phase)

    def poses(self) -> np.ndarray:
        """(T, WIDTH), one pose per frame."""
        times = np.concatenate([[0], np.cumsum(self.frames)])
        return interpolate(times, np.stack(self.keys), np.arange(times[-1]))

    def labels(self) -> np.ndarray:
        """(T,) phase of every frame, -1 during idle time."""
        return np.repeat(np.array(self.phases, dtype=np.int64), self.frames)


def perform(
    action: Action,
    draw: np.random.Generator,
    repeats: tuple[int, int],
    idle: tuple[int, int],
    tempo: tuple[float, float],
) -> Timeline:
    """Makes a video's timeline: idle time, one or more repetitions at an uneven tempo, idle time.

    Args:
        action: The action performed.
        draw: Generator of all random draws.
        repeats: Minimum and maximum number of repetitions.
        idle: Minimum and maximum number of idle frames on each side; short idle times are more frequent.
        tempo: Range of the factor on all durations; each phase deviates from it by about a fifth.
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


def _phase(
    timeline: Timeline, action: Action, draw: np.random.Generator, keys: Sequence[np.ndarray], frames: int, phase: int
) -> None:
    """Adds one phase, its keys spread over `frames`; sometimes the last key is held."""
    ends = np.round(np.linspace(0, frames, len(keys) + 1)).astype(int)
    for key, length in zip(keys, np.diff(ends), strict=True):
        timeline.add(_vary(key, action, draw), int(length), phase)
    if draw.random() < 0.3:
        timeline.add(timeline.keys[-1], int(draw.integers(1, 6)), phase)


def _vary(key: np.ndarray, action: Action, draw: np.random.Generator) -> np.ndarray:
    """Varies `key` randomly, as a person would from one repetition to the next."""
    key = key.copy()
    spread = {"hip": 0.008, "lean": 2.5, "nod": 4, "look": 8, "tilt": 1.5, "twist": 3}
    if action.hands == "shoulder":
        spread |= {"left_wrist": 0.012, "right_wrist": 0.012}
    for name, scale in spread.items():
        field = part(key, name)
        field += draw.normal(0, scale, field.shape)
    return key


def _wait(timeline: Timeline, action: Action, draw: np.random.Generator, frames: int) -> None:
    """Adds idle time: the person shifts weight, looks around and sometimes takes a small step."""
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
    """Returns a randomly varied resting pose."""
    key = action.rest.copy()
    planted = np.allclose(part(key, "left_wrist")[1], 0.03)
    spread: dict[str, float | np.ndarray] = {
        "hip": np.array([0.02, 0.006, 0.02]),
        "lean": 3,
        "tilt": 2,
        "turn": 10,
        "nod": 9,
        "look": 28,
    }
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
    """Returns poses (frames, WIDTH) of a person walking along x from `start` at `speed` statures per frame."""
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
    """Returns poses (frames, WIDTH) of a person standing around."""
    timeline = Timeline([_fidget(rest, draw)])
    while sum(timeline.frames) < frames:
        timeline.add(_fidget(rest, draw), int(draw.integers(10, 25)))
    return timeline.poses()[:frames]
