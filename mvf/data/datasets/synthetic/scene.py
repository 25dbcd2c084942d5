"""The scene of a synthetic video: camera, background photograph, bodies, clothes and bystanders."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from scipy.interpolate import PchipInterpolator
from sklearn.datasets import load_sample_image

from mvf.data.datasets.synthetic.actions import ACTIONS, Action, loiter, stroll
from mvf.data.datasets.synthetic.drawing import ACTOR, OTHER, Figure
from mvf.data.datasets.synthetic.motion import SIDES, Build, part, skeleton

PHOTOGRAPHS = ("china.jpg", "flower.jpg")
MARGIN = 0.12  # share of the background on each side, so that the camera can pan


@dataclass(frozen=True)
class Appearance:
    """The appearance of people and places, which differs between splits.

    Attributes:
        region: Share of the photographs' width from which backgrounds are cut.
        tempo: Range of the factor on durations.
        legs: Range of the factor on the length of legs.
        bulk: Range of the factor on the girth of bodies.
        hues: Ranges of the hue (0 to 180) of clothes.
        floors: RGB colours of floors.
    """

    region: tuple[float, float]
    tempo: tuple[float, float]
    legs: tuple[float, float]
    bulk: tuple[float, float]
    hues: tuple[tuple[int, int], ...]
    floors: tuple[tuple[int, int, int], ...]


APPEARANCES = {
    "train": Appearance(
        (0.0, 0.44), (0.8, 1.2), (0.96, 1.02), (0.92, 1.08), ((0, 25), (95, 125)),
        ((176, 150, 120), (110, 120, 128), (96, 132, 110)),
    ),
    "dev": Appearance(
        (0.44, 0.6), (0.9, 1.3), (0.93, 0.98), (0.9, 1.0), ((30, 55), (140, 160)),
        ((150, 140, 132), (120, 140, 150)),
    ),
    "val": Appearance(
        (0.6, 1.0), (0.95, 1.35), (1.0, 1.06), (1.0, 1.14), ((60, 92), (128, 175)),
        ((188, 172, 150), (92, 108, 140), (150, 112, 96)),
    ),
}  # fmt: skip
SKINS = ((236, 196, 168), (222, 172, 138), (198, 144, 108), (150, 102, 74), (104, 70, 52))
HAIRS = ((36, 28, 24), (70, 46, 30), (120, 84, 48), (186, 150, 96), (120, 116, 112))


@dataclass(frozen=True)
class Camera:
    """An orthographic camera; `pan` (T, 2) shifts the whole picture, in pixels."""

    height: int
    width: int
    pitch: float
    horizon: float
    pan: np.ndarray

    def view(self, points: dict[str, np.ndarray], yaw: float, mirror: bool) -> dict[str, np.ndarray]:
        """Converts body axes to x right, y down, z towards the viewer, in statures."""
        cos, sin, tip, tap = np.cos(yaw), np.sin(yaw), np.cos(self.pitch), np.sin(self.pitch)
        seen = {}
        for name, at in points.items():
            x, y, z = at.T
            aside, near = cos * x - sin * z, sin * x + cos * z
            seen[name] = np.stack([-aside if mirror else aside, near * tap - y * tip, near * tip + y * tap], axis=1)
        return seen

    def floor(self, x: float, y: float, depth: float = 0) -> np.ndarray:
        """Returns the (T, 3) positions of column `x` and row `y` of the first background, at the given depth."""
        return np.concatenate([self.pan + [x, y], np.full((len(self.pan), 1), depth)], axis=1)


def make_camera(draw: np.random.Generator, frames: int, height: int, width: int) -> Camera:
    """Makes a camera that drifts smoothly by a random amount."""
    knots = np.arange(0, frames + 60, 30)
    reach = MARGIN * 0.9 * draw.uniform(0.1, 1) * np.array([width, height * 0.3])
    pan = PchipInterpolator(knots, draw.uniform(-1, 1, (len(knots), 2)) * reach)(np.arange(frames))
    return Camera(height, width, np.radians(draw.uniform(6, 13)), draw.uniform(0.5, 0.66) * height, pan)


def cast_actor(
    draw: np.random.Generator, camera: Camera, look: Appearance, action: Action, poses: np.ndarray
) -> Figure:
    """Makes the actor, 66 to 88 % of the frame tall unless the action needs more space."""
    build = _build(draw, look)
    points = _carry(skeleton(poses, build, action.hands), poses, action)
    yaw, mirror = np.radians(draw.uniform(*action.yaw)), bool(draw.integers(2))
    seen = camera.view(points, yaw, mirror)
    body = np.concatenate(
        [at for name, at in seen.items() if name not in ("ball", "bar_left", "bar_right", "club_toe")]
    )
    low, high = np.percentile(body, (0.2, 99.8), axis=0)[:, :2] + [[-0.06, -0.09], [0.06, 0.03]]
    width, height = high - low
    scale = min(draw.uniform(0.66, 0.88) * camera.height, 0.92 * camera.height / height, 0.86 * camera.width / width)
    spare = np.maximum([camera.width - width * scale, camera.height - height * scale], 0)
    x = draw.uniform(0.15, 0.85) * spare[0] - low[0] * scale
    y = min(draw.uniform(0.55, 0.9) * spare[1], spare[1] - 1) - low[1] * scale
    y = max(y, camera.horizon + 0.12 * camera.height)
    return _dress(draw, look, _anatomy(seen) if mirror else seen, scale, camera.floor(x, y), ACTOR, action.thing)


def cast_bystanders(
    draw: np.random.Generator, camera: Camera, look: Appearance, count: int, actor: Figure
) -> list[Figure]:
    """Makes `count` people, standing or walking, mostly behind the actor."""
    people, frames, ground = [], len(camera.pan), actor.floor[0, 1] - camera.pan[0, 1]
    for _ in range(count):
        walks, nearer = draw.random() < 0.5, draw.random() < 0.2
        behind = -0.4 if walks and nearer else draw.uniform(0.8, 3.5)
        shrink = 4 / (4 + behind)
        row = camera.horizon + (ground - camera.horizon) * shrink
        if walks:
            poses = stroll(draw, frames, -draw.uniform(0, 0.03) * frames, draw.uniform(0.014, 0.032))
            yaw, column = draw.uniform(-0.3, 0.3), draw.uniform(0.2, 0.8) * camera.width
        else:
            poses, yaw = loiter(draw, frames, ACTIONS["squat"]), draw.uniform(0, 2 * np.pi)
            column = draw.uniform(0.02, 0.98) * camera.width
        seen = camera.view(skeleton(poses, _build(draw, look)), yaw, bool(draw.integers(2)))
        floor = camera.floor(column, row, -2 * behind * actor.scale)
        people.append(_dress(draw, look, seen, actor.scale * shrink, floor, OTHER))
    return people


def _dress(
    draw: np.random.Generator,
    look: Appearance,
    seen: dict,
    scale: float,
    floor: np.ndarray,
    owner: int,
    thing: str = "",
) -> Figure:
    """Dresses a person and converts their points from statures to pixels."""
    points = {name: (at * scale + floor).astype(np.float32) for name, at in seen.items()}
    return Figure(points, float(scale), draw.uniform(*look.bulk), _clothes(draw, look), owner, floor, thing)


def _build(draw: np.random.Generator, look: Appearance) -> Build:
    legs, arms = draw.uniform(*look.legs), draw.uniform(0.96, 1.05)
    usual = Build()
    return Build(
        trunk=usual.trunk * draw.uniform(0.96, 1.04),
        shoulders=usual.shoulders * draw.uniform(0.9, 1.1),
        upper_arm=usual.upper_arm * arms,
        forearm=usual.forearm * arms,
        thigh=usual.thigh * legs,
        shin=usual.shin * legs,
        head=usual.head * draw.uniform(0.94, 1.06),
    )


def _carry(points: dict[str, np.ndarray], poses: np.ndarray, action: Action) -> dict[str, np.ndarray]:
    """Adds the points of the object that is carried."""
    grip, prop, tool = (part(poses, name) for name in ("grip", "prop", "tool"))
    left, right = points["left_fingers"], points["right_fingers"]
    if action.thing == "bar":
        middle = grip * (points["left_wrist"] + points["right_wrist"]) / 2 + (1 - grip) * prop
        for side, sign in SIDES:
            points[f"plate_{side}"], points[f"bar_{side}"] = (middle + [0, 0, sign * out] for out in (0.36, 0.41))
    elif action.thing == "club":
        points["grip"], points["club"] = right - 0.05 * tool, right + 0.5 * tool
        points["club_toe"] = points["club"] + 0.05 * np.cross(tool, [0, 0, 1.0])
    elif action.thing == "racket":
        points["grip"], points["throat"] = right - 0.03 * tool, right + 0.12 * tool
        points["face_centre"] = right + 0.2 * tool
        points["face_tip"] = points["face_centre"] + 0.05 * np.cross(tool, [0.5, 0, 1.0])
        points["ball"] = grip * left + (1 - grip) * prop
    return points


def _anatomy(points: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Swaps left and right names, because the mirror image of a right hand is a left hand."""
    other = {"left": "right", "right": "left"}
    return {"_".join(other.get(word, word) for word in name.split("_")): at for name, at in points.items()}


def _clothes(draw: np.random.Generator, look: Appearance) -> dict[str, np.ndarray]:
    skin = np.array(SKINS[draw.integers(len(SKINS))]) * draw.uniform(0.93, 1.05)
    shirt, trousers = _dye(draw, look, (120, 230), (120, 235)), _dye(draw, look, (20, 150), (50, 150))
    fixed = {"metal": (178, 182, 190), "dark": (44, 46, 54), "ball": (214, 236, 70), "strings": (222, 222, 206)}
    return {
        "skin": skin,
        "hair": np.array(HAIRS[draw.integers(len(HAIRS))], float),
        "shirt": shirt,
        "trousers": trousers,
        "legs": skin if draw.random() < 0.5 else trousers,
        "shoes": np.array((232, 232, 228) if draw.random() < 0.5 else (52, 50, 56), float),
        "plate": _dye(draw, look, (60, 235), (60, 190)),
        **{name: np.array(colour, float) for name, colour in fixed.items()},
    }


def _dye(
    draw: np.random.Generator, look: Appearance, saturation: tuple[int, int], value: tuple[int, int]
) -> np.ndarray:
    hue = draw.uniform(*look.hues[draw.integers(len(look.hues))])
    colour = np.array([[[round(hue), round(draw.uniform(*saturation)), round(draw.uniform(*value))]]], np.uint8)
    return cv2.cvtColor(colour, cv2.COLOR_HSV2RGB)[0, 0].astype(float)


@cache
def _photograph(name: str) -> np.ndarray:
    photograph = load_sample_image(name)
    photograph.flags.writeable = False
    return photograph


def _crop(draw: np.random.Generator, look: Appearance, height: int, width: int) -> np.ndarray:
    """Crops a photograph from the split's region, (height, width, 3) float, randomly flipped."""
    photograph = _photograph(PHOTOGRAPHS[draw.integers(len(PHOTOGRAPHS))])
    low, high = (round(share * photograph.shape[1]) for share in look.region)
    across = round(draw.uniform(0.55, 1) * (high - low))
    down = min(round(across * height / width * draw.uniform(0.9, 1.3)), photograph.shape[0])
    x, y = draw.integers(low, high - across + 1), draw.integers(0, photograph.shape[0] - down + 1)
    piece = cv2.resize(photograph[y : y + down, x : x + across], (width, height), interpolation=cv2.INTER_AREA)
    return piece[:, :: -1 if draw.integers(2) else 1].astype(np.float32)


def make_background(draw: np.random.Generator, camera: Camera, look: Appearance) -> np.ndarray:
    """Makes a photograph as wall and a floor in front: (H + margins, W + margins, 3) float32 in [0, 255]."""
    margin = round(MARGIN * camera.height), round(MARGIN * camera.width)
    height, width = camera.height + 2 * margin[0], camera.width + 2 * margin[1]
    edge = round(camera.horizon) + margin[0]
    wall = max((_crop(draw, look, edge, width) for _ in range(3)), key=np.std)  # avoids an empty sky
    wall = cv2.GaussianBlur(wall, (0, 0), draw.uniform(0.4, 1.4) * camera.height / 128)
    wall = wall * draw.uniform(0.85, 1.12, 3) * draw.uniform(0.75, 1.05)
    wall += (draw.uniform(90, 200) - wall) * draw.uniform(0.05, 0.3)
    texture = _crop(draw, look, 3 * (height - edge), width)
    texture = cv2.resize(texture, (width, height - edge), interpolation=cv2.INTER_AREA).mean(axis=2)
    texture = cv2.GaussianBlur(texture, (0, 0), 0.035 * camera.height, sigmaY=0.012 * camera.height)[..., None]
    rows = np.linspace(0, 1, height - edge)[:, None, None]
    floor = np.array(look.floors[draw.integers(len(look.floors))]) * draw.uniform(0.75, 1.1)
    floor = floor * (0.8 + 0.3 * rows) * (1 + draw.uniform(0.1, 0.3) * (texture / texture.mean() - 1))
    floor[:2] *= 0.8
    return np.clip(np.concatenate([wall, floor]), 0, 255).astype(np.float32)
