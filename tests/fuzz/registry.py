"""All fuzz targets."""

from __future__ import annotations

from . import binaries, models, tables, values

TARGETS = (*tables.TARGETS, *binaries.TARGETS, *models.TARGETS, *values.TARGETS)
