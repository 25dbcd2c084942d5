"""Renders shaded figures and the objects they carry, with round limbs and a depth buffer."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from mvf.data.datasets.synthetic.motion import SIDES

ACTOR, THING, OTHER = 1, 2, 3  # owners of pixels
FINE = 2  # supersampling factor: figures are drawn this much larger, then averaged
Limb = tuple[str, str, float, float, str]  # start point, end point, radii at both in statures, name of the colour
TRUNK: tuple[Limb, ...] = (
    ("neck", "head", 0.034, 0.034, "skin"),
    ("head", "face", 0.066, 0.056, "skin"),
    ("hair", "hair", 0.068, 0.068, "hair"),
    ("chest", "waist", 0.086, 0.075, "shirt"),
    ("waist", "belt", 0.075, 0.077, "shirt"),
    ("belt", "pelvis", 0.0755, 0.072, "trousers"),
    ("left_hip", "right_hip", 0.072, 0.072, "trousers"),
)
SIDE: tuple[Limb, ...] = (
    ("neck", "shoulder", 0.05, 0.046, "shirt"),
    ("shoulder", "sleeve", 0.046, 0.044, "shirt"),
    ("shoulder", "elbow", 0.041, 0.033, "skin"),
    ("elbow", "wrist", 0.033, 0.024, "skin"),
    ("wrist", "fingers", 0.027, 0.022, "skin"),
    ("hip", "knee", 0.068, 0.048, "trousers"),
    ("knee", "ankle", 0.044, 0.032, "legs"),
    ("heel", "toe", 0.034, 0.027, "shoes"),
)
BODY = TRUNK + tuple(
    (a if a == "neck" else f"{side}_{a}", f"{side}_{b}", ra, rb, colour)
    for side, _ in SIDES
    for a, b, ra, rb, colour in SIDE
)
THINGS: dict[str, tuple[Limb, ...]] = {
    "": (),
    "bar": (("bar_left", "bar_right", 0.014, 0.014, "metal"),),
    "club": (("grip", "club", 0.013, 0.011, "metal"), ("club", "club_toe", 0.024, 0.026, "dark")),
    "racket": (("grip", "throat", 0.016, 0.013, "dark"), ("ball", "ball", 0.03, 0.03, "ball")),
}
DISCS: dict[str, tuple[tuple[str, str, float, str], ...]] = {  # centre, tip of the axis, radius, colour
    "bar": (
        ("plate_left", "bar_left", 0.13, "plate"),
        ("plate_left", "bar_left", 0.045, "metal"),
        ("plate_right", "bar_right", 0.13, "plate"),
        ("plate_right", "bar_right", 0.045, "metal"),
    ),
    "racket": (("face_centre", "face_tip", 0.095, "dark"), ("face_centre", "face_tip", 0.077, "strings")),
}


@dataclass(frozen=True)
class Figure:
    """A person in a scene.

    Attributes:
        points: (T, 3) pixels by name: x right, y down, z towards the viewer.
        scale: Pixels per stature.
        bulk: Factor on the body's radii.
        colours: (3,) RGB by name of the clothes and the object.
        owner: ACTOR or OTHER.
        floor: (T, 3) pixels of the point on the floor that is the origin of the body axes.
        thing: The object carried; empty if there is none.
    """

    points: dict[str, np.ndarray]
    scale: float
    bulk: float
    colours: dict[str, np.ndarray]
    owner: int
    floor: np.ndarray
    thing: str = ""


class Canvas:
    """Buffers of the nearest surface at each supersampled pixel: depth, brightness, colour and owner.

    Args:
        height: Height of the frame, in pixels.
        width: Width of the frame, in pixels.
        light: (3,) direction of the light.
    """

    def __init__(self, height: int, width: int, light: np.ndarray) -> None:
        self.light = light.tolist()
        self.depth = np.full((height * FINE, width * FINE), -1e9, np.float32)
        self.tone = np.zeros_like(self.depth)
        self.surface = np.zeros(self.depth.shape, np.uint16)
        self.colours, self.owners = [np.zeros(3)], [0]

    def add(self, figure: Figure, frame: int) -> None:
        """Draws `figure` as it is at `frame`."""
        at = {name: (path[frame] * FINE).tolist() for name, path in figure.points.items()}
        scale = figure.scale * FINE
        for a, b, ra, rb, colour in BODY:
            self._material(figure.colours[colour], figure.owner)
            self._limb(at[a], at[b], ra * scale * figure.bulk, rb * scale * figure.bulk)
        for a, b, ra, rb, colour in THINGS[figure.thing]:
            self._material(figure.colours[colour], THING)
            self._limb(at[a], at[b], ra * scale, rb * scale)
        for lift, (centre, tip, radius, colour) in enumerate(DISCS.get(figure.thing, ())):
            self._material(figure.colours[colour], THING)
            self._disc(at[centre], at[tip], radius * scale, 0.01 * scale * (lift % 2))

    def onto(self, image: np.ndarray) -> None:
        """Composites the drawing onto `image` (H, W, 3) float32, in place."""
        rows, columns = np.flatnonzero(self.surface.any(axis=1)), np.flatnonzero(self.surface.any(axis=0))
        if not len(rows):
            return
        top, left = rows[0] // FINE, columns[0] // FINE
        bottom, right = rows[-1] // FINE + 1, columns[-1] // FINE + 1
        fine = slice(top * FINE, bottom * FINE), slice(left * FINE, right * FINE)
        tone = self.tone[fine][..., None]
        tinted = np.stack(self.colours).astype(np.float32)[self.surface[fine]]
        tinted *= np.minimum(tone, 1.05)
        tinted += 160 * np.maximum(tone - 1, 0)
        window = image[top:bottom, left:right]
        window *= 1 - _average((self.surface[fine] > 0).astype(np.float32))[..., None]
        window += _average(np.minimum(tinted, 255, out=tinted))

    def coverage(self, owner: int) -> np.ndarray:
        """Returns the (H, W) share of each pixel that belongs to `owner`."""
        table = (np.array(self.owners) == owner).astype(np.float32)
        return _average(table[self.surface])

    def _material(self, colour: np.ndarray, owner: int) -> None:
        self.colours.append(colour)
        self.owners.append(owner)

    def _window(self, left: float, top: float, right: float, bottom: float) -> tuple[slice, slice]:
        rows, columns = self.depth.shape
        return (
            slice(max(int(top), 0), max(min(int(bottom) + 2, rows), 0)),
            slice(max(int(left), 0), max(min(int(right) + 2, columns), 0)),
        )

    def _limb(self, p: list[float], q: list[float], radius_p: float, radius_q: float) -> None:
        """Draws a round cone from p to q; its brightness depends on the surface normal."""
        edge, (px, py, pz), (qx, qy, qz) = max(radius_p, radius_q), p, q
        window = self._window(min(px, qx) - edge, min(py, qy) - edge, max(px, qx) + edge, max(py, qy) + edge)
        y, x = _grid(window, px, py)
        dx, dy = qx - px, qy - py
        length = max(dx * dx + dy * dy, 1e-6)
        along = np.minimum(np.maximum(x * (dx / length) + y * (dy / length), 0), 1)
        radius = radius_p + along * (radius_q - radius_p)
        off_x, off_y = x - along * dx, y - along * dy
        bulge = radius * radius - off_x * off_x - off_y * off_y
        rise = np.sqrt(np.maximum(bulge, 0))
        lit = (off_x * self.light[0] + off_y * self.light[1] + rise * self.light[2]) / radius
        shine = np.square(np.square(np.square(np.maximum(lit, 0))))
        tone = 0.5 + 0.58 * np.maximum(lit, -0.25) + 0.18 * shine
        self._paint(window, bulge > 0, pz + along * (qz - pz) + rise, tone)

    def _disc(self, centre: list[float], tip: list[float], radius: float, lift: float) -> None:
        """Draws a flat disc whose axis points to `tip`; seen edge-on it remains a thin ellipse."""
        axis = np.subtract(tip, centre)
        axis = (axis if axis[2] >= 0 else -axis) / max(float(np.linalg.norm(axis)), 1e-6)
        ax, ay, az = axis.tolist()
        cx, cy, cz = centre
        window = self._window(cx - radius, cy - radius, cx + radius, cy + radius)
        y, x = _grid(window, cx, cy)
        slope = (x * ax + y * ay) / -max(az, 0.2)
        inside = x * x + y * y + slope * slope < radius * radius
        tone = 0.62 + 0.4 * max(float(axis @ self.light), 0)
        self._paint(window, inside, cz + lift + slope, np.full_like(slope, tone))

    def _paint(self, window: tuple[slice, slice], inside: np.ndarray, depth: np.ndarray, tone: np.ndarray) -> None:
        inside &= depth > self.depth[window]
        np.copyto(self.depth[window], depth, where=inside)
        np.copyto(self.tone[window], tone, where=inside)
        np.copyto(self.surface[window], np.uint16(len(self.colours) - 1), where=inside)


def _average(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    return cv2.resize(image, (width // FINE, height // FINE), interpolation=cv2.INTER_AREA)


def _grid(window: tuple[slice, slice], x: float, y: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns rows (h, 1) and columns (1, w) of the pixel centres relative to the point `x`, `y`."""
    rows = np.arange(window[0].start, window[0].stop, dtype=np.float32)
    columns = np.arange(window[1].start, window[1].stop, dtype=np.float32)
    return (rows + (0.5 - y))[:, None], (columns + (0.5 - x))[None]


def shadow(figure: Figure, frame: int, size: tuple[int, int], slant: float, rise: float) -> np.ndarray:
    """Returns the soft shadow on the floor, (H, W) in [0, 1].

    Args:
        figure: The figure that casts it.
        frame: Index of the frame.
        size: H, W of the frame.
        slant: Horizontal shift in pixels per pixel of height.
        rise: Rows per pixel of depth (the camera's pitch).
    """
    _, row, depth = figure.floor[frame]
    mask: np.ndarray = np.zeros(size, np.uint8)
    for a, b, radius, _, _ in BODY:
        ends = []
        for x, y, z in (figure.points[a][frame], figure.points[b][frame]):
            floor = row + rise * (z - depth)
            height = max(floor - y, 0.0)
            ends.append((round((x + slant * height) * 16), round((floor - 0.12 * height) * 16)))
        cv2.line(mask, ends[0], ends[1], 255, max(1, round(1.5 * radius * figure.scale)), cv2.LINE_AA, 4)
    mask = cv2.blur(mask, (max(3, round(0.06 * figure.scale)) | 1, max(3, round(0.03 * figure.scale)) | 1))
    return mask.astype(np.float32) / 255
