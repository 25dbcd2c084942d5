"""Inputs of the figures and tables, and what a drawn figure says."""

import colorsys

import matplotlib as mpl
import numpy as np

SCORES = ("classification", "progression", "kendall_tau", "retrieval@5", "retrieval@10", "retrieval@15")


def texts(figure):
    return [text.get_text() for text in figure.findobj(mpl.text.Text) if text.get_text()]


def colour_word(colour):
    """The plain word for a colour as it is drawn, by its hue in degrees."""
    hue, saturation, _ = colorsys.rgb_to_hsv(*mpl.colors.to_rgb(colour))
    if saturation < 0.1:
        return "grey"
    ends = {"red": 15, "orange": 45, "yellow": 70, "green": 175, "blue": 260, "purple": 340, "red again": 361}
    return next(word for word, end in ends.items() if 360 * hue < end)


def inside(figure):
    figure.draw_without_rendering()
    box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    return box.x0 > -0.02 and box.y0 > -0.02 and box.x1 < width + 0.02 and box.y1 < height + 0.02


def frames(count=6, height=20, width=30):
    return np.random.default_rng(0).integers(0, 255, (count, height, width, 3), dtype=np.uint8)


def scores(value):
    return {name: value - 0.01 * i for i, name in enumerate(SCORES)}


def report():
    controls = {
        "position_only": 0.6,
        "frame_count": 0.59,
        "untrained": 0.7,
        "backbone_motion": 0.75,
        "motion_pca": 0.77,
        "shuffled_order": 0.5,
    }
    cropped = {
        "model": 0.84,
        "position_only": 0.52,
        "untrained": 0.63,
        "backbone_motion": 0.72,
        "motion_pca": 0.74,
        "reversed": 0.6,
    }
    return {
        "dataset": "synthetic", "seed": 1, "epochs": 60, "backbone": "vit", "backbone_weights": "random",
        "warning": "the backbone has RANDOM weights", "scores": scores(0.96),
        "controls": {name: scores(value) for name, value in controls.items()},
        "cropped": {name: scores(value) for name, value in cropped.items()},
        "per_action": {"squat": {"classification": 0.91}, "bowling": {"kendall_tau": 0.5}},
        "label_fractions": {f: {"classification": 0.9, "progression": 0.5} for f in ("1.0", "0.1", "0.5")},
        "alignment_error": {"whole": 0.05, "window": 0.07},
        "alignment_error_controls": {"position_only": {"whole": 0.15, "window": 0.25}},
        "phase_kinds": {"pose": {"classification": {"model": 0.9, "shuffled_order": 0.8}}},
        "verdicts": {"classification": "whole verdict", "cropped.classification": "cropped verdict"},
        "localization": {
            "area": 0.1, "uniform": {"auroc": 0.5, "lift": 1.0}, "entity_2": {"auroc": 0.9, "lift": 4.0},
            "entity_1": {"auroc": 0.8, "lift": 3.0}, "entity_best": {"auroc": 0.9, "lift": 4.0, "index": 2},
        },
        "localization_differences": {"entity_best - head_best": {"auroc": {"mean": 0.1, "interval": [0.05, 0.15]}}},
        "coverage": {"train": {"found": 9, "expected": 10, "unreadable": {"x.avi": "zero bytes"}}},
        "skipped": {"progression.squat": "one phase"},
    }  # fmt: skip


def history(epochs=3):
    keys = ("loss", "learning_rate", "grad_norm")
    return [{"epoch": i + 1} | {key: str(1.0 / (i + 1)) for key in keys} for i in range(epochs)]


def similarity(rows=8, columns=6):
    return np.linspace(0, 1, rows * columns).reshape(rows, columns)
