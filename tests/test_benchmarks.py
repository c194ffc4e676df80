"""Laws of the benchmarks: what they measure is what they say."""

import pytest

from didiff import mixtures
from tests.benchmarks.scores import points_quality


def test_the_exact_denoiser_has_no_excess_and_a_wrong_one_as_much_as_it_is_wrong():
    exact = mixtures.bimodal()
    quality = points_quality(exact, exact, n=1000)
    assert quality["excess"] == quality["score_error"] == 0

    def shifted(x, t, y=None):
        guess = exact(x, t, y)
        return guess._replace(eps=guess.eps + 0.1)

    quality = points_quality(shifted, exact, n=20000)
    # E |eps* + .1 - eps|^2 = floor + .01, because eps* is the conditional mean
    error = 4 * 2 * 0.1 * (quality["floor"] / 20000) ** 0.5
    assert quality["loss"] - quality["floor"] == pytest.approx(0.01, abs=error)
