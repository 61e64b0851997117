"""The pictures: readable with no points, ten and a hundred thousand; equal content gives equal bytes."""

import dataclasses
import io
import sys
import xml.etree.ElementTree as ET

import matplotlib.image
import numpy as np
import pytest

from app.reports.plots import draw_gradcheck, draw_loss_curve
from app.store.loss_curves import Curve
from tests.support.curves import EMPTY, ONE, SMALL, long_curve


def words(svg: bytes) -> str:
    """All words: matplotlib draws letters as shapes and adds the words as comments."""
    parser = ET.XMLParser(target=ET.TreeBuilder(insert_comments=True))
    tree = ET.fromstring(svg, parser)
    return "\n".join(node.text or "" for node in tree.iter(ET.Comment))


@pytest.mark.parametrize("curve", [EMPTY, ONE, SMALL, long_curve(100_000).thinned(3000)])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_curve_of_any_length_is_drawn(curve: Curve, theme):
    svg, png = draw_loss_curve(curve, "svg", theme), draw_loss_curve(curve, "png", theme)
    assert "loss (nats per character)" in words(svg)
    image = matplotlib.image.imread(io.BytesIO(png))
    assert image.shape == (800, 1440, 4)
    background = image[0, 0, :3]
    assert (background.mean() > 0.5) == (theme == "light")
    assert np.any(np.abs(image[..., :3] - background) > 0.3)
    assert len(svg) < 1_000_000


def test_curve_has_labels_with_units():
    shown = words(draw_loss_curve(SMALL, "svg", "light"))
    for text in (
        "updates",
        "loss (nats per character)",
        "summed over 25 characters (nats)",
        "training loss, each window",
        "smooth loss",
        "held-out loss",
        "checkpoint kept",
        "best: 2.400 at 8",
        "uniform: ln K = 4.17",
        "classic · 9 of 60 updates · training",
    ):
        assert text in shown


def test_legend_names_only_existing_curves():
    shown = words(draw_loss_curve(dataclasses.replace(EMPTY, sequence_length=None), "svg", "light"))
    assert "no training yet" in shown
    for text in ("summed", "best", "uniform", "held-out", "checkpoint kept"):
        assert text not in shown


@pytest.mark.slow
def test_same_content_gives_the_same_bytes():
    assert draw_loss_curve(SMALL, "svg", "light") == draw_loss_curve(SMALL, "svg", "light")
    assert draw_loss_curve(SMALL, "svg", "light") != draw_loss_curve(SMALL, "svg", "dark")


def test_drawing_does_not_import_pyplot():
    draw_loss_curve(SMALL, "png", "light")
    assert "matplotlib.pyplot" not in sys.modules


@pytest.mark.parametrize("format", ["svg", "png"])
def test_gradient_check_with_a_zero_error_is_drawn(format):
    names, errors, limits = ["layer0.W", "V", "c"], [2e-10, 0.0, 1e-3], [2.5e-8, 1e-12, 1e-11]
    figures = [2.54e-7, None, None]
    picture = draw_gradcheck(names, errors, limits, figures, "title", format, "dark")
    if format == "svg":
        shown = words(picture)
        for text in ("layer0.W", "title", "measured here", "limit", "the assignment's"):
            assert text in shown
    else:
        assert picture.startswith(b"\x89PNG")


@pytest.mark.parametrize("shape", ["wide", "narrow"])
def test_picture_has_a_margin_on_every_side(shape):
    pixels = matplotlib.image.imread(io.BytesIO(draw_loss_curve(SMALL, "png", "light", shape)))
    drawn = np.argwhere((pixels[..., :3] < 1).any(axis=-1))
    gaps = [*drawn.min(axis=0), *(np.array(pixels.shape[:2]) - 1 - drawn.max(axis=0))]
    assert min(gaps) >= 16
