"""Images: are they recognised as what they were meant to be, and how near are they to real ones."""

import time
from collections.abc import Iterator

import torch

from didiff import ddim, grid, guidance, initial_noise, last
from didiff.training import metrics, recipes, weights
from tests.benchmarks import Row, at_least, at_most, benchmark

DIGITS = {1: 0.95, 3: 0.99}  # omega: the share recognised that is promised
MNIST = {1: 0.985, 2: 0.995}
MNIST_SLIDER = {1: 0.96, 2: 0.995}


def recognised(which: str, denoiser, goals: dict, n: int) -> Iterator[Row]:
    for omega, goal in goals.items():
        numbers = recipes.images_quality(denoiser, (omega,), n)[f"omega_{omega}"]
        yield at_least(f"{which}_recognised_omega{omega}", numbers["recognised"], goal, "")
        yield Row(f"{which}_diversity_omega{omega}", numbers["diversity"], "real")


@benchmark
def digits_shipped() -> Iterator[Row]:
    """1,000 guided digits of the shipped model, and what the judge makes of real ones."""
    yield Row("digits_recognised_real", metrics.recognised(*recipes.data.digits("train")), "")
    yield from recognised("digits_shipped", weights.load("digits"), DIGITS, 1000)


@benchmark
def digits_live() -> Iterator[Row]:
    """The same of a model trained here and now."""
    wall, processor = time.perf_counter(), time.process_time()
    recipe = recipes.RECIPES["digits"]  # as it is shipped
    *_, end = recipe.train(recipe.steps, 0, recipes.PLAIN)
    yield at_most("digits_live_wall_s", time.perf_counter() - wall, 60, "s")
    yield Row("digits_live_processor_s", time.process_time() - processor, "s")
    yield from recognised("digits_live", end.ema, DIGITS, 1000)


@benchmark
def mnist_shipped() -> Iterator[Row]:
    """2,000 guided images of the shipped model in 20 steps of DDIM, plain and with fresh noise."""
    denoiser = weights.load("mnist")
    yield Row("mnist_recognised_real", judged()["accuracy"], "")
    yield from recognised("mnist_shipped", denoiser, MNIST, 2000)
    redrawn = recipes.images_quality(denoiser, (1,), 2000, eta=1.0)["omega_1"]["recognised"]
    yield at_least("mnist_shipped_recognised_omega1_eta1", redrawn, MNIST[1], "")


@benchmark
def mnist_slider_quality() -> Iterator[Row]:
    """2,000 images as the sliders show them first, in seven steps of one call, and as their teacher
    makes them of the same noise.

    moved: how far a pixel is from the teacher's, on average; from black to white it is 2.
    """
    y = torch.arange(2000) * 10 // 2000
    student, teacher = weights.load("mnist_guided"), weights.load("mnist")
    for omega in (0, 1, 2, 4, 8):
        ours, theirs = (recipes.sample(d, y, omega, steps=7) for d in (student, teacher))
        share = metrics.recognised(ours, y)
        name, goal = f"mnist_slider_recognised_omega{omega}", MNIST_SLIDER.get(omega)
        yield Row(name, share, "") if goal is None else at_least(name, share, goal, "")
        yield Row(f"{name}_teacher", metrics.recognised(theirs, y), "")
        yield Row(f"mnist_slider_moved_omega{omega}", (ours - theirs).abs().mean().item(), "")


@benchmark
def mnist_frechet() -> Iterator[Row]:
    """10,000 images in 50 steps against the real ones, in units of what real ones are apart.

    As many of each class, as the judge counts them: a wrong mix of classes is a distance too.
    """
    denoiser, floor = weights.load("mnist"), judged()["frechet"]
    yield Row("mnist_frechet_real", floor, "")
    found = {omega: metrics.frechet(many(denoiser, omega)) for omega in (1.0, 1.1, 1.25)}
    for omega, distance in found.items():
        yield Row(f"mnist_frechet_omega{omega:g}", distance, "")
    yield at_most("mnist_frechet_to_real", min(found.values()) / floor, 1.5, "of real")


def many(denoiser, omega: float, n: int = 10_000) -> torch.Tensor:
    parts = (torch.arange(n) % 10).split(500)
    return torch.cat([recipes.sample(denoiser, y, omega, 50, seed) for seed, y in enumerate(parts)])


def judged() -> dict:
    return weights.read_card("mnist_judge")["quality"]["test"]


@benchmark
def mnist_classifier_guidance() -> Iterator[Row]:
    """The unconditional model steered by the noise-aware classifier, read by the judge."""
    start, classifier = guidance.condition(weights.load("mnist"), None), "mnist_classifier"
    y, levels = torch.arange(500) % 10, grid(recipes.SCHEDULE, 20, start=0.99)
    wish = guidance.log_prob_of(weights.load(classifier), y)
    chance = torch.Generator().manual_seed(0)
    noise = initial_noise((len(y), 1, 28, 28), levels[0], chance, torch.float32)
    found = []
    for omega in (1, 2, 4, 8):
        images = last(ddim(guidance.classifier(start, wish, omega), noise, levels))
        found.append(metrics.recognised(images, y))
        yield Row(f"mnist_classifier_guidance_omega{omega}", found[-1], "")
    yield at_least("mnist_classifier_guidance_best", max(found), 0.95, "")
