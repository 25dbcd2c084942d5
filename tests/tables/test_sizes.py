"""The page of sizes: its arithmetic against numbers worked out by hand."""

from __future__ import annotations

import pytest

from mvf.__main__ import main
from mvf.bank import FeatureBank, build_bank
from mvf.config import load_config
from mvf.cost import model_cost
from mvf.data import find_config_videos
from mvf.models.backbone import Backbone
from mvf.workbench.tables import sizes as sizes_module
from mvf.workbench.tables.sizes import DATA, Assumptions, Rate, Size, estimate, read_rates, size, sizes_page

RATE = """[backbone_vitb8_224_fp32]
per_second = 2.0
unit = "frames"
load = 0.1
machine = "two cores"
versions = "torch"
date = "2026-01-01"
command = "python bench/rates.py"
"""


@pytest.fixture(scope="module")
def penn() -> Size:
    return size(DATA[0])


def test_a_frame_of_three_layers_of_vit_b8_takes_3_6_megabytes(penn):
    assert penn.frame_numbers == 784 * 768 * 3 and penn.frame_numbers * 2 == 3_612_672
    assert penn.bank_frames == 1140 * 70 * 4
    assert penn.gigabytes() == pytest.approx(1140 * 70 * 4 * 3_612_672 / 1e9)
    assert penn.gigabytes(1) == penn.gigabytes() / 2
    assert penn.gigabytes(2, 256) == pytest.approx(penn.gigabytes() / 9)
    assert penn.seconds_read(1000) == pytest.approx(91_200_000 * 3_612_672 / 1e9), "a gigabyte a second"


def test_hours_are_operations_over_the_rate_and_the_bank_pays_the_backbone_once(penn):
    config = load_config("penn")
    assert penn.trained_frames == config.epochs * 1140 * 2 * config.num_frames == 91_200_000
    # a ViT-B/8: 12 blocks of (12 width² x tokens + 2 tokens² x width) multiplications, twice as many operations
    tokens, width = 785, 768
    blocks = 12 * 2 * (12 * width**2 * tokens + 2 * tokens**2 * width)
    assert penn.frame_operations == pytest.approx(blocks + 2 * 784 * 192 * width, rel=1e-3)
    assert 0 < penn.trained_operations < penn.frame_operations / 10
    online, banked = penn.seconds_online(1e14), penn.seconds_banked(1e14)
    assert online - banked == pytest.approx((91_200_000 - 1140 * 70 * 4) * penn.frame_operations / 1e14)
    assert penn.seconds_online(2e14) == pytest.approx(online / 2)


def test_the_page_says_what_is_assumed_and_what_is_measured(tmp_path):
    rates = tmp_path / "rates.toml"
    rates.write_text(RATE)
    out = tmp_path / "sizes.md"
    assert main(["sizes", "--rates", str(rates), "--out", str(out), "--dollars", "7"]) == 0
    text = out.read_text()
    assert "No GPU hour below was measured" in text and "assumed, 7 dollars" in text
    assert "ESTIMATE" in text and "| Kinetics-400 |" in text
    assert f"{91_200_000 / 2.0 / 3600:,.0f}" in text, "hours are not those of the measured rate"
    assert "| hours of the measured machine online, backbone alone |" in text and "CPU hours" not in text
    assert "drawn clip of 320 x 240 in H.264, and real or larger footage decodes slower" in text
    assert "not measured" in text, "a rate that nobody measured was made up"


def test_rates_of_a_busy_machine_are_called_lower_bounds():
    rate = Rate(2.0, "frames", "two cores", "torch", "2026-01-01", 3.0, "python bench/rates.py")
    assert "not alone: a lower bound" in sizes_page({"backbone_vitb8_224_fp32": rate}, Assumptions(), DATA[:1])


@pytest.mark.parametrize(
    ("changed", "message"), [({"utilisation": 1.5}, "at most 1, got 1.5"), ({"dollars": 0}, "above 0, got 0")]
)
def test_assumptions_that_cannot_be_are_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        Assumptions(**changed)


def test_a_file_without_rates_is_refused_by_name(tmp_path):
    path = tmp_path / "rates.toml"
    path.write_text("[disk_read]\nper_second = 3\n")
    with pytest.raises(ValueError, match="rates.toml does not hold measured rates"):
        read_rates(path)


@pytest.mark.parametrize("options", [{}, {"bank_dtype": "int8"}, {"bank_channels": 100}])
def test_the_estimated_banks_are_the_banks(tiny, tmp_path, options):
    config = tiny(**options)
    train, val = (find_config_videos(config, split) for split in ("train", "val"))
    backbone = Backbone(config.backbone, config.backbone_weights, config.image_size, config.layers)
    clean = FeatureBank(backbone, None, "fp32", tmp_path).predicted_bytes([*train, *val], 1, whole=True)
    views = build_bank(config, backbone, train).predicted_bytes(train, config.bank_views, whole=True)
    basis = 4 * config.bank_channels * backbone.channels
    assert estimate(config).gigabytes == pytest.approx((clean + views - basis) / 1e9)


def test_the_estimated_time_is_operations_over_the_rate(tiny, monkeypatch):
    monkeypatch.setattr(sizes_module, "operations_here", lambda config: 1e9)
    monkeypatch.setattr(sizes_module, "START", 0)
    monkeypatch.setattr(sizes_module, "JUDGED", 0)
    config = tiny()
    train, val = (sum(r.num_frames for r in find_config_videos(config, split)) for split in ("train", "val"))
    cost, seen = model_cost(config), config.epochs * 6 * 2 * config.num_frames
    fused = seen * 3 * (cost.operations - cost.backbone_operations) / 0.3 / 1e9
    banked, online = estimate(config), estimate(tiny(features="online"))
    assert banked.bank_seconds == pytest.approx((2 * train + train + val) * cost.backbone_operations / 1e9)
    assert banked.seconds == pytest.approx(fused) and not online.bank_seconds and not online.gigabytes
    assert online.seconds == pytest.approx(fused + (seen + train + val) * cost.backbone_operations / 1e9)
    assert estimate(tiny(seed=2, objective="tcc")).bank == banked.bank != estimate(tiny(bank_views=3)).bank
    paper = load_config("penn")
    frozen = (91_200_000 + 2 * 1140 * 70) * model_cost(paper).backbone_operations / 1e9
    assert frozen < estimate(paper).seconds < 1.5 * frozen, "of the paper's data sets the numbers are known"
