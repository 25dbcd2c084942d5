"""Figures of temporal attention and of knock-outs."""

import numpy as np
import pytest

from mvf.workbench.plotting.attention import attention_by_distance, plot_temporal_attention
from mvf.workbench.plotting.knockouts import knockouts_table, plot_knockouts
from mvf.workbench.plotting.style import PAGE, save_figure


def random_weights(frames=6, length=6, entities=2):
    return np.random.default_rng(0).dirichlet(np.ones(length * entities), frames).reshape(frames, length, entities)


def test_mean_by_distance_is_a_mean_over_pairs():
    weights, looking = random_weights(3, 8), np.array([1, 4, 6])
    distance, mean = attention_by_distance(weights, looking)
    assert distance.tolist() == list(range(-6, 7))
    for d, row in zip(distance, mean):
        pairs = [weights[i, t + d] for i, t in enumerate(looking) if 0 <= t + d < 8]
        np.testing.assert_allclose(row, np.mean(pairs, axis=0))
    padded = np.concatenate([weights, np.zeros((1, 8, 2))])
    np.testing.assert_allclose(attention_by_distance(padded, [1, 4, 6, 7])[1], mean)


def test_the_figure_shows_maps_shares_and_distances(tmp_path):
    weights = random_weights()
    figure = plot_temporal_attention(weights, ["actor", "background"], title="squat", caption="Block 3 of 3.")
    assert figure.get_size_inches()[0] == PAGE
    maps = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title() for axes in maps] == ["actor", "background"]
    np.testing.assert_allclose(maps[1].images[0].get_array(), weights[..., 1] * 12)
    shares, near = (
        a for a in figure.axes if a.get_ylabel() in ("share of its attention", "attention / uniform") and a.lines
    )
    np.testing.assert_allclose(shares.lines[0].get_ydata(), weights[..., 0].sum(1))
    assert near.lines[0].get_xdata().tolist() == list(range(-5, 6))
    for path in save_figure(figure, tmp_path / "temporal"):
        assert path.stat().st_size > 1000
    assert len([a for a in plot_temporal_attention(random_weights(1, 1, 1)).axes if a.images]) == 1


def test_uniform_attention_within_chunks_is_drawn_as_one():
    """Two chunks, of 6 and 4 frames; every second frame looks."""
    looking = np.arange(0, 10, 2)
    bounds = np.where(looking[:, None] < 6, (0, 6), (6, 10))
    time = np.arange(10)
    seen = (time >= bounds[:, :1]) & (time < bounds[:, 1:])
    weights = np.repeat((seen / (2 * seen.sum(1, keepdims=True)))[..., None], 2, axis=-1)
    figure = plot_temporal_attention(weights, frames=looking, bounds=bounds)
    image = next(axes.images[0] for axes in figure.axes if axes.images)
    np.testing.assert_allclose(image.get_array(), seen)
    assert image.get_extent() == [-0.5, 9.5, 9, -1]
    near = next(axes for axes in figure.axes if axes.get_xlabel() == "distance in time (frames)")
    np.testing.assert_allclose(near.lines[0].get_ydata(), 1)
    assert near.lines[0].get_xdata().tolist() == list(range(-4, 6))
    assert "the frame's chunk" in figure.get_supxlabel()


def test_weights_and_names_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"weights must be \(F, T, N\), finite and non-negative, got \(3, 3\)"):
        plot_temporal_attention(np.ones((3, 3)))
    with pytest.raises(ValueError, match="non-negative"):
        plot_temporal_attention(-random_weights())
    with pytest.raises(ValueError, match="names must have 2 entries"):
        plot_temporal_attention(random_weights(), ["actor"])
    with pytest.raises(ValueError, match="frames must be 6 rising positions"):
        plot_temporal_attention(random_weights(), frames=[0, 1])
    for bounds in ([[0, 6]], [[0, 7]] * 6, [[3, 6]] * 6, [[0, 3]] * 6):
        with pytest.raises(ValueError, match=r"bounds must be \(6, 2\), a chunk of 0 to 6 around each frame"):
            plot_temporal_attention(random_weights(), bounds=bounds)


def result():
    change = {"mean": -0.1, "interval": [-0.2, -0.05]}
    return {
        "scores": {
            "nothing": {"whole": {"classification": 0.9, "progression": 0.5}},
            "without_entity_1": {"whole": {"classification": 0.8, "progression": -2.5}},
            "without_background": {"whole": {"classification": 0.8}},
            "position_only": {"whole": {"classification": 0.7}},
        },
        "differences": {
            "without_entity_1": {
                "whole": {"classification": change, "progression": {"mean": -3.0, "interval": [-4.0, 0.3]}}
            },
            "without_background": {"whole": {"classification": change}},
            "position_only": {"whole": {"classification": {"mean": -0.2, "interval": [-0.3, -0.1], "too_few": True}}},
        },
        "removed": {"without_background": 0.9},
        "mass": {"without_background": [0.25, 0.5]},
        "reached": {"without_background": 0.4},
        "blank": {"without_background": 0.002},
        "skipped": {"without_actor": "no mask"},
    }


def test_the_table_of_knock_outs_names_everything():
    text = str(knockouts_table(result(), "whole"))
    for words in (
        "| nothing removed        | –                         | 0.900",
        "| background's patches   | 25 / 50                   | 0.800",
        "| % of attention, by entity |",
        "0.800 (-0.100 [-0.200, -0.050])",
        "0.700 (-0.200 [-0.300, -0.100] ?)",
        "?: too few validation videos of an action to tell a change from chance",
        "background's patches: 90.0 % of the patches, which hold 40 % of the attention that the actor's hold, "
        "0.2 % of the frames left without any",
        "without_actor skipped: no mask",
    ):
        assert words in text, text
    assert not knockouts_table(result(), "cropped").rows


def test_the_figure_of_knock_outs_keeps_far_changes_inside():
    figure = plot_knockouts(result())
    classification, progression = figure.axes
    names = ["entity 1", "background's patches", "all pixels (the clock)"]
    assert [label.get_text() for label in classification.get_yticklabels()] == names
    assert "from 0.900" in classification.get_title()
    assert min(min(line.get_xdata()) for line in progression.lines) >= -0.6
    assert "<" in [line.get_marker() for line in progression.lines]


def test_changes_on_too_few_videos_are_not_marked():
    figure = plot_knockouts(result())
    last = figure.axes[0].lines[-1]
    assert last.get_xdata().tolist() == [-0.2] and last.get_color() == "#7F7F7F"
    assert last.get_markerfacecolor() == "white" and "Hollow:" in figure.get_supxlabel()


def test_without_a_score_the_figure_says_why():
    figure = plot_knockouts({"scores": {}, "differences": {}, "skipped": {"knock_outs": "no videos"}})
    assert not figure.axes and "no videos" in figure.get_supxlabel()
