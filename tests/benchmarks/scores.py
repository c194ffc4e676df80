"""How near a network comes to the exact score, where that is known."""

from collections.abc import Iterator

from didiff import mixtures
from didiff.training import recipes
from tests.benchmarks import Row, at_most, benchmark


@benchmark
def learned_score() -> Iterator[Row]:
    """Networks taught on fresh points for a few seconds, against the exact denoiser."""
    for name, mixture in {"1d": mixtures.bimodal(), "2d": mixtures.three_modes()}.items():
        *_, end = recipes.points(mixture)
        quality = recipes.points_quality(end.ema, mixture)
        yield at_most(f"score_excess_{name}", quality["excess"], 0.02, "")
        yield Row(f"score_floor_{name}", quality["floor"], "")
        yield Row(f"score_error_{name}", quality["score_error"], "1/x^2")
        yield Row(
            f"score_error_relative_{name}", quality["score_error"] / quality["score_size"], ""
        )
