"""The actions that the synthetic actors perform: key poses, phases, and how they may be seen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mvf.data.synthetic_motion import pose


@dataclass(frozen=True)
class Action:
    """One action; names and number of phases follow Penn Action's.

    Attributes:
        names: What happens in each phase.
        kinds: For each phase `pose` (one frame tells it) or `direction` (its poses are passed both ways).
        frames: Usual duration of each phase.
        start: Pose (WIDTH,) in which the first phase begins.
        keys: For each phase its key poses, evenly spaced in time, the last being the one it ends in.
        rest: Pose of the idle time.
        reset: Poses between the end of one repetition and the start of the next; none if the action is cyclic.
        yaw: Range of the view: 0 sees the actor's right side, 90 the front.
        hands: What wrists are relative to: `shoulder` or `floor`.
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
    def lift(x: float, y: float, **fields) -> np.ndarray:
        return pose(ankles=(0, 0.045, 0.1), **{"wrists": (x, y, 0.17), "grip": 1, **fields})

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
    def swing(hand: tuple, tool: tuple, turn: float = 0, twist: float = 0, **fields) -> np.ndarray:
        stance = {"hip": (-0.08, 0.5, 0), "lean": 30, "ankles": (0, 0.045, 0.13), "elbows": (-0.6, -1, 0.1)}
        x, y, z = hand
        wrists = {"left_wrist": (x, y - 0.01, z), "right_wrist": (x, y + 0.02, z + 0.01)}
        return pose(**{**stance, "tool": tool, "turn": turn, "twist": twist, **wrists, **fields})

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
        **feet, lean=10, turn=-25, left_wrist=(0.21, -0.17, 0.06), right_wrist=(0.22, -0.17, -0.07),
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
