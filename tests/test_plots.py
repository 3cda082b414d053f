"""Every plot keeps the promises of `graftlab.testing`; what is computed for a selection, to the digit.

Learning curves: test_learning_curves.py.
"""

import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest

from graftlab import plots, registry
from graftlab.contracts import Searched, Selected
from graftlab.plots import (
    activation_similarity,
    component_correlations,
    layer_scores,
    layer_scores_heatmap,
    pca_scatter,
)
from graftlab.testing import plots as promises
from graftlab.testing.plots import *  # noqa: F403

for promise in (
    promises.test_drawing_decides_nothing_and_comes_out_alike,
    promises.test_it_is_written_in_a_form_for_screens_and_one_for_print,
):  # matplotlib takes a quarter of a second a figure
    pytest.mark.quick("weight_change_heatmap", "pca_scatter")(promise)


def selected(**changed):
    """Three layers; of each score its value and two bootstrap samples."""
    found = Selected(
        np.array([0, 4, 8]),
        4,
        {
            "score": np.array([[0.1, 0.9, 0.5], [0.0, 0.8, 0.5], [0.2, 1.0, 0.5]]),
            "mdl": np.array([[1.0, 3.0, np.nan], [1.0, 3.0, np.nan], [1.0, 3.0, np.nan]]),
            "probe": np.array([[0.5, 0.5, 0.5], [0.4, 0.5, 0.5], [0.6, 0.5, 0.5]]),
        },
        ("probe",),
        np.array([[0.3, 0.1], [0.8, np.nan], [0.2, 0.0]]),
        {0: np.zeros((2, 2)), 4: np.ones((2, 2))},
        np.array([0, 1]),
        ("no", "yes"),
    )
    return found._replace(**changed)


def test_scores_stand_in_the_order_of_their_weight_with_the_normal_interval_of_their_samples():
    found = layer_scores.data(selected())
    assert list(found.values) == ["score", "probe", "mdl"]
    np.testing.assert_array_equal(found.values["score"], [0.1, 0.9, 0.5])
    # two samples that are 0.2 apart have a standard deviation of 0.2 / sqrt(2)
    np.testing.assert_allclose(found.halves["score"], [1.96 * 0.2 / 2**0.5, 1.96 * 0.2 / 2**0.5, 0])


def test_a_score_without_samples_has_no_interval():
    alone = {name: values_BL[:1] for name, values_BL in selected().scores.items()}
    found = layer_scores.data(selected(scores=alone))
    assert np.isnan(found.halves["probe"]).all()


def test_shares_go_from_the_lowest_layer_to_the_highest_and_are_nothing_where_all_are_equal():
    found = layer_scores_heatmap.data(selected())
    assert found.names == ("score", "mdl", "probe")
    np.testing.assert_allclose(found.shares, [[0, 1, 0.5], [0, 1, np.nan], [0, 0, 0]])


def test_components_are_rows_and_the_colours_end_at_the_largest():
    found = component_correlations.data(selected())
    np.testing.assert_array_equal(found.values, [[0.3, 0.8, 0.2], [0.1, np.nan, 0.0]])
    assert found.top == 0.8


@pytest.mark.parametrize(
    ("chosen", "layers", "by_score", "shown"),
    [
        (3, [*range(20)], [7, 3, 2, 9, 11], [0, 2, 3, 7, 10, 19]),
        (0, [0, 1], [1, 0], [0, 1]),
        (5, [2, 4], [5, 2, 4], [2, 4]),  # the chosen one has no plane
        (0, [], [0], []),
    ],
)
def test_six_layers_are_scattered_the_chosen_the_ends_and_the_next_best(
    chosen, layers, by_score, shown
):
    assert pca_scatter.scattered(chosen, layers, by_score) == shown


def test_a_layer_without_a_plane_is_not_scattered():
    assert list(pca_scatter.data(selected()).planes) == [0, 4]


@pytest.mark.parametrize("name", ["search_importances", "search_parallel", "search_contour"])
def test_the_names_of_fields_lie_within_a_figure_of_a_search_and_not_over_each_other(name):
    from matplotlib.text import Text

    draws = np.random.default_rng(0)
    keys = ("training.learning_rate", "method.lora_plus_ratio", "method.dropout", "method.alpha")
    trials = tuple(
        {
            "number": number, "state": "COMPLETE", "params": {key: float(draws.random()) for key in keys},
            "values": [float(draws.random())], "curve": {},
        }
        for number in range(12)
    )  # fmt: skip
    source = Searched(("accuracy",), (True,), trials, {k: {"float": (0.0, 1.0)} for k in keys})
    figure = plots.drawn(registry.find("plots", name), source, "x")
    figure.draw_without_rendering()
    shown = {key.rpartition(".")[2] for key in keys}
    words = [
        text for text in figure.findobj(Text) if text.get_text() in shown and text.get_visible()
    ]
    boxes = [text.get_window_extent() for text in words]
    width, height = figure.canvas.get_width_height()
    assert {text.get_text() for text in words} == shown
    for box in boxes:
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= width
        assert box.y1 <= height
    upright = [
        box for text, box in zip(words, boxes, strict=True) if text.get_rotation() in (0, 90)
    ]
    assert not any(one.overlaps(other) for i, one in enumerate(upright) for other in upright[:i])


@pytest.mark.parametrize("low", [1e-5, 1e-3, 5e-3])
@pytest.mark.parametrize("name", ["search_slices", "search_parallel", "search_contour"])
def test_the_numbers_at_the_log_axis_of_a_rate_do_not_lie_over_each_other(name, low):
    draws = np.random.default_rng(0)
    keys = ("training.learning_rate", "method.mode", "method.dropout", "method.alpha")
    trials = tuple(
        {
            "number": number, "state": "COMPLETE", "values": [float(draws.random())], "curve": {},
            "params": {
                **{key: float(draws.random()) for key in keys[2:]},
                "training.learning_rate": float(draws.uniform(low, 1e-2)),
                "method.mode": ("seq2par", "dynamic")[number % 2],
            },
        }
        for number in range(12)
    )  # fmt: skip
    space = {key: {"float": (0.0, 1.0)} for key in keys}
    space["training.learning_rate"] = {"float": (low, 1e-2), "log": True}
    space["method.mode"] = {"choice": ["seq2par", "dynamic"]}
    source = Searched(("accuracy",), (True,), trials, space)
    figure = plots.drawn(registry.find("plots", name), source, "x")
    figure.draw_without_rendering()
    logs = [
        axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)
        if axis.get_scale() == "log" and axis.get_tick_params(which="major").get("labelbottom", True)
    ]  # fmt: skip
    assert logs
    for axis in logs:
        texts = [*axis.get_ticklabels(which="both")]
        boxes = [
            text.get_window_extent() for text in texts if text.get_visible() and text.get_text()
        ]
        inside = [box for box in boxes if box.width]
        assert not any(one.overlaps(other) for i, one in enumerate(inside) for other in inside[:i])


@pytest.mark.parametrize("models", [3, 6])
def test_names_of_many_pairs_stand_below_their_panel_and_within_the_figure(models):
    names = [f"LoRA of rank {2**n}" for n in range(models)]
    about = {"checkpoint": 320, "debiased_cka": 0.9, "null_debiased_cka": 0.0}
    rows = [
        SimpleNamespace(model=one, other=other, number=number, **about)
        for one, other in itertools.combinations(names, 2)
        for number in range(3)
    ]
    figure = activation_similarity.draw(activation_similarity.data(rows))
    figure.draw_without_rendering()
    panel = figure.axes[1]
    box, inside = panel.get_legend().get_window_extent(), panel.get_window_extent()
    many = math.comb(models, 2) > activation_similarity.MOST_INSIDE
    assert len(panel.get_legend().get_texts()) == math.comb(models, 2)
    assert bool(box.y1 < inside.y0) is many
    assert box.y0 >= 0
