"""Motion of the synthetic actors: pose vectors, their skeletons, and interpolation between key poses.

Body axes: x is forward, y up, z to the actor's right; the floor is y = 0, and a standing adult is about 1 tall.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.interpolate import PchipInterpolator

JOINTS = (
    "head left_shoulder right_shoulder left_elbow right_elbow left_wrist right_wrist "
    "left_hip right_hip left_knee right_knee left_ankle right_ankle"
).split()
SIDES = (("left", -1), ("right", 1))
SIZES = {
    "hip": 3,  # middle of the pelvis
    "lean": 1,  # of the trunk: degrees forward
    "tilt": 1,  # of the trunk: degrees to the right
    "turn": 1,  # of the pelvis: degrees to the left
    "twist": 1,  # of the shoulders beyond the pelvis: degrees to the left
    "nod": 1,  # of the head beyond the trunk: degrees forward
    "look": 1,  # of the head beyond the shoulders: degrees to the left
    "left_wrist": 3,  # from the shoulder, or from the origin on the floor (`Action.hands`)
    "right_wrist": 3,
    "left_ankle": 3,
    "right_ankle": 3,
    "elbows": 3,  # direction of elbows and knees, with z outward
    "knees": 3,
    "feet": 1,  # degrees that the toes point down
    "tool": 3,  # direction of a racket or club
    "prop": 3,  # position of a ball or bar when nobody holds it
    "grip": 1,  # 1 while the ball or bar is held
}
WIDTH = sum(SIZES.values())
Field = float | Sequence[float]  # field of a pose: one number or three
STANDING: Mapping[str, Field] = {
    "hip": (0, 0.525, 0),
    "lean": 2,
    "left_wrist": (0.03, -0.3, -0.06),
    "right_wrist": (0.03, -0.3, 0.06),
    "left_ankle": (0, 0.045, -0.08),
    "right_ankle": (0, 0.045, 0.08),
    "elbows": (-1, -0.2, 0.5),
    "knees": (1, 0, 0.25),
    "feet": 8,
    "tool": (1, 0, 0),
    "prop": (0.1, 0.13, 0),
    "grip": 1,
}
VECTORS = ("left_wrist", "right_wrist", "tool")


def pose(base: np.ndarray | None = None, **fields: Field) -> np.ndarray:
    """Makes a pose vector (WIDTH,): `base` (standing by default) with some fields replaced.

    `wrists` and `ankles` set both sides, with z outward.

    Example:
        >>> part(pose(ankles=(0, 0, 0.2)), "left_ankle").tolist()
        [0.0, 0.0, -0.2]
    """
    vector = np.zeros(WIDTH) if base is None else base.copy()
    given: dict[str, Field] = {**STANDING, **fields} if base is None else dict(fields)
    for both in ("wrists", "ankles"):
        if both in given:
            x, y, z = np.broadcast_to(given.pop(both), 3)
            given |= {f"{side}_{both[:-1]}": (x, y, sign * z) for side, sign in SIDES}
    for name, value in given.items():
        part(vector, name)[:] = value
    return vector


def part(vectors: np.ndarray, name: str) -> np.ndarray:
    """Returns a view (..., size) of one field of pose vectors (..., WIDTH)."""
    start = sum(SIZES[other] for other in list(SIZES)[: list(SIZES).index(name)])
    return vectors[..., start : start + SIZES[name]]


@dataclass(frozen=True)
class Build:
    """Lengths of a body's limbs, in statures."""

    trunk: float = 0.29
    shoulders: float = 0.115
    hips: float = 0.058
    upper_arm: float = 0.165
    forearm: float = 0.15
    thigh: float = 0.25
    shin: float = 0.24
    head: float = 0.068
    bulk: float = 1.0


def skeleton(poses: np.ndarray, build: Build, hands: str = "shoulder") -> dict[str, np.ndarray]:
    """Computes points of the body in space from pose vectors.

    Args:
        poses: (T, WIDTH).
        build: Lengths of the bones; legs and arms bend by inverse kinematics.
        hands: `shoulder` if wrists are relative to the shoulders, `floor` if to the origin.

    Returns:
        (T, 3) points by name: the 13 joints and neck, chest, waist, belt, pelvis, hair, face,
        toes, heels, fingers, sleeves.
    """
    hip = part(poses, "hip")
    lean, tilt, turn, twist, nod, look = (
        np.radians(part(poses, name)) for name in ("lean", "tilt", "turn", "twist", "nod", "look")
    )
    spine = _unit(np.concatenate([np.sin(lean), np.cos(lean), np.sin(tilt)], axis=1))
    shoulders = hip + build.trunk * spine
    across = _turned(spine, turn + twist)
    level = _turned(np.broadcast_to([0.0, 1, 0], hip.shape), turn)
    up = _unit(np.concatenate([np.sin(lean + nod), np.cos(lean + nod), np.sin(tilt)], axis=1))
    face = np.cross(up, _turned(up, turn + twist + look))
    head = shoulders + build.head * 2.05 * up
    points = {"neck": shoulders, "chest": hip + 0.78 * build.trunk * spine, "pelvis": hip, "head": head}
    points |= {
        "waist": hip + 0.4 * build.trunk * spine,
        "belt": hip + 0.17 * build.trunk * spine,
        "face": head + build.head * 0.35 * face,
    }
    points["hair"] = head + build.head * (0.3 * up - 0.34 * face)
    for side, sign in SIDES:
        shoulder, joint = shoulders + sign * build.shoulders * across, hip + sign * build.hips * level
        points |= _limbs(poses, build, side, sign, shoulder, joint, hands)
    return points


def _limbs(
    poses: np.ndarray, build: Build, side: str, sign: int, shoulder: np.ndarray, hip: np.ndarray, hands: str
) -> dict[str, np.ndarray]:
    """Computes points (T, 3) of the arm and leg of one side."""
    mirror = np.array([1, 1, sign])
    wrist = part(poses, f"{side}_wrist") + (shoulder if hands == "shoulder" else 0)
    elbow, wrist = _bend(shoulder, wrist, build.upper_arm, build.forearm, part(poses, "elbows") * mirror)
    ankle = part(poses, f"{side}_ankle")
    knee, ankle = _bend(hip, ankle, build.thigh, build.shin, part(poses, "knees") * mirror)
    feet = np.radians(part(poses, "feet"))
    toward = np.concatenate([np.cos(feet), -np.sin(feet), 0.25 * sign * np.cos(feet)], axis=1)
    points = {"shoulder": shoulder, "elbow": elbow, "wrist": wrist, "hip": hip, "knee": knee, "ankle": ankle}
    points |= {"toe": ankle + 0.085 * toward - [0, 0.018, 0], "heel": ankle - [0.025, 0.018, 0]}
    points |= {"fingers": wrist + 0.055 * _unit(wrist - elbow), "sleeve": 0.4 * shoulder + 0.6 * elbow}
    return {f"{side}_{name}": value for name, value in points.items()}


def _bend(root: np.ndarray, end: np.ndarray, upper: float, lower: float, pole: np.ndarray) -> tuple:
    """Computes the middle joint and the reached end of a two-bone limb that bends towards `pole`; all (T, 3)."""
    distance = np.clip(np.linalg.norm(end - root, axis=1, keepdims=True), 0.05, upper + lower - 1e-4)
    along = _unit(end - root)
    foot = (upper**2 - lower**2 + distance**2) / (2 * distance)
    side = _unit(pole - np.sum(pole * along, axis=1, keepdims=True) * along)
    middle = root + foot * along + np.sqrt(np.maximum(upper**2 - foot**2, 0)) * side
    return middle, root + distance * along


def _turned(axis: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """Computes the actor's right, orthogonal to `axis` (T, 3) and turned left about it by `angle` (T, 1)."""
    right = _unit(np.array([0.0, 0, 1]) - axis[:, 2:] * axis)
    return np.cos(angle) * right + np.sin(angle) * np.cross(axis, right)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)


def interpolate(times: np.ndarray, keys: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Interpolates poses (T, WIDTH) at frames `at`: monotone cubics of `keys` (K, WIDTH) at increasing `times` (K,).

    Hands and tools move on arcs, because direction and length are interpolated separately.

    Example:
        >>> keys = np.stack([pose(hip=(0, 0.5, 0)), pose(hip=(0, 0.3, 0))])
        >>> float(part(interpolate(np.array([0.0, 4]), keys, np.array([2.0])), "hip")[0, 1].round(6))
        0.4
    """
    poses = PchipInterpolator(times, keys)(at)
    for name in VECTORS:
        length = np.linalg.norm(part(keys, name), axis=-1)
        arc = part(poses, name)
        arc[:] = _unit(arc) * PchipInterpolator(times, length)(at)[:, None]
    return poses
