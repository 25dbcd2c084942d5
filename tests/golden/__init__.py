"""Values computed by published code, or by hand, on small fixed inputs; README.md says from what and how."""

from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).parent
LOSSES = GOLDEN / "losses"


def each_file(pattern: str) -> dict[str, Any]:
    """What `parametrize` needs for one case a file of `losses/`."""
    return {"argvalues": sorted(LOSSES.glob(pattern)), "ids": lambda path: path.stem}
