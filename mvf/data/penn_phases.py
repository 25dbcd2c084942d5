"""Words for Penn Action's phases: the key events of its 13 actions that have phases."""

from __future__ import annotations

import re
from types import MappingProxyType

from mvf.config import nearest
from mvf.data.video import VideoError

# Dwibedi et al., CVPR 2019, https://arxiv.org/abs/1904.07846, table 2
KEY_EVENTS = MappingProxyType(
    {
        "baseball_pitch": ("knee fully up", "arm fully stretched out", "ball release"),
        "baseball_swing": ("bat swung back fully", "bat hits ball"),
        "bench_press": ("bar fully down",),
        "bowl": ("ball swung fully back", "ball release"),
        "clean_and_jerk": ("bar at hip", "fully squatting", "standing", "begin thrusting", "beginning balance"),
        "golf_swing": ("stick swung fully back", "stick hits ball"),
        "jumping_jacks": (
            "hands at shoulder (going up)",
            "hands above head",
            "hands at shoulders (going down)",
        ),
        "pullup": ("chin above bar",),
        "pushup": ("head at floor",),
        "situp": ("abs fully crunched",),
        "squat": ("hips at knees (going down)", "hips at floor", "hips at knee (going up)"),
        "tennis_forehand": ("racket swung fully back", "racket touches ball"),
        "tennis_serve": ("ball released from hand", "racket swung fully back", "ball touches racket"),
    }
)
WITHOUT_PHASES = ("jump_rope", "strum_guitar")


def phase_names(action: str) -> tuple[str, ...]:
    """Words for the phases of an action: before, between and after its key events.

    Example:
        >>> phase_names("bowl")
        ('to ball swung fully back', 'to ball release', 'after ball release')
    """
    events = KEY_EVENTS[action]
    return (*(f"to {event}" for event in events), f"after {events[-1]}")


def find_action(text: str) -> str:
    """The name of an action however it is spelled, also of one without phases; empty where there is no such action.

    Example:
        >>> find_action("push_ups"), find_action("Jumping-Jack"), find_action("juggling")
        ('pushup', 'jumping_jacks', '')
    """
    known = {_letters(action): action for action in (*KEY_EVENTS, *WITHOUT_PHASES)}
    return known.get(_letters(text), "")


def known_action(text: str) -> str:
    """The name of an action however it is spelled.

    Raises:
        VideoError: when there is no such action, naming the nearest.
    """
    action = find_action(text)
    if not action:
        raise VideoError(f'unknown action "{text}"; {nearest(text, KEY_EVENTS)}')
    return action


def _letters(text: str) -> str:
    return re.sub(r"[^a-z]", "", text.lower()).rstrip("s")
