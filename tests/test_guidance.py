import math

import pytest
import torch
from worlds import MIXTURES, SCHEDULES, points

import didiff
from didiff import TARGETS, guidance, mixtures
from didiff.process import solve

EXACT = dict(rtol=0, atol=1e-9)
RING, T400 = MIXTURES["ring"], SCHEDULES["linear"].at(400)
X, Y = points(RING, 6), torch.arange(6) % 2


def same(a, b):
    torch.testing.assert_close(tuple(a), tuple(b), **EXACT)


def test_omega_zero_ignores_the_condition_and_one_is_the_conditional_model():
    same(guidance.classifier_free(RING, Y, 0.0)(X, T400), RING(X, T400))
    same(guidance.classifier_free(RING, Y, 1.0)(X, T400), RING(X, T400, Y))


@pytest.mark.parametrize("omega", [-0.5, 0.0, 0.3, 1.0, 4.0])
def test_guidance_is_the_formula_of_the_paper_in_eps(omega):
    uncond, cond = RING(X, T400).eps, RING(X, T400, Y).eps
    got = guidance.classifier_free(RING, Y, omega)(X, T400)
    torch.testing.assert_close(got.eps, (1 - omega) * uncond + omega * cond, **EXACT)
    torch.testing.assert_close(didiff.add_noise(*got, T400), X, **EXACT)


def test_both_guesses_come_from_one_call_whose_samples_keep_their_levels():
    calls = []

    def watched(x, t, y):
        calls.append(y)
        return RING(x, t, y)

    t = SCHEDULES["linear"].at(torch.arange(len(X)) % 1000 + 1)
    same(guidance.classifier_free(watched, Y, 1.0)(X, t), RING(X, t, Y))
    same(guidance.classifier_free(watched, Y, 0.0)(X, t), RING(X, t))
    assert list(map(len, calls)) == [2 * len(X)] * 2


@pytest.mark.parametrize("target", TARGETS)
def test_guidance_commutes_with_what_the_network_predicts(target):
    p, q = TARGETS[target](T400, 1.0)
    uncond, cond = RING(X, T400), RING(X, T400, Y)
    outputs = [p * guess.x0 + q * guess.eps for guess in (uncond, cond)]
    guided = solve(X, T400, outputs[0] + 3.0 * (outputs[1] - outputs[0]), p, q)
    same(guidance.classifier_free(RING, Y, 3.0)(X, T400), guided)


@pytest.mark.parametrize("omega", [0.0, 1.0, 2.5])
@pytest.mark.parametrize("name", ["two classes", "ring", "three modes", "images"])
def test_an_exact_classifier_guides_as_classifier_free_guidance_does(name, omega):
    mixture = MIXTURES[name]
    x, y = points(mixture, 6), torch.arange(6) % mixture.classes

    def log_prob(x, t):
        return mixture.class_log_prob(x, t)[torch.arange(6), y]

    for k in (10, 400, 900):
        t = SCHEDULES["linear"].at(k)
        by_classifier = guidance.classifier(mixture, log_prob, omega)(x, t)
        same(by_classifier, guidance.classifier_free(mixture, y, omega)(x, t))


def test_classifier_guidance_never_differentiates_the_denoiser():
    def watched(x, t, y=None):
        assert not x.requires_grad
        return RING(x, t, y)

    guided = guidance.classifier(watched, lambda x, t: RING.class_log_prob(x, t)[:, 0], 2.0)
    assert not guided(X, T400).x0.requires_grad


def test_each_sample_is_guided_by_its_own_gradient_whatever_the_batch():
    """A mean over the batch instead of a sum would shrink guidance with the batch size (T-10)."""

    def guided(x):
        return guidance.classifier(RING, lambda x, t: RING.class_log_prob(x, t)[:, 0], 2.0)(x, T400)

    torch.testing.assert_close(guided(X).eps[:1], guided(X[:1]).eps, **EXACT)


def test_a_negative_condition_takes_the_place_of_no_label():
    cond, negative = RING(X, T400, 0), RING(X, T400, 1)
    got = guidance.classifier_free(RING, 0, 2.0, negative=1)(X, T400)
    torch.testing.assert_close(got.eps, negative.eps + 2 * (cond.eps - negative.eps), **EXACT)


def test_the_interval_is_guided_inside_and_plain_outside():
    plain = guidance.condition(RING, 0)
    guided = guidance.classifier_free(RING, 0, 3.0)
    both = guidance.interval(plain, guided, 0.2, 0.8)
    for u, wanted in [(0.1, plain), (0.21, guided), (0.79, guided), (0.9, plain)]:
        t = didiff.trigonometric(torch.tensor(u, dtype=torch.float64))  # it is its own clock
        same(both(X, t), wanted(X, t))


def test_clipping_clamps_x0_and_recomputes_eps():
    got = guidance.clip(guidance.condition(RING, None), -0.5, 0.7)(X, T400)
    assert got.x0.min() >= -0.5
    assert got.x0.max() <= 0.7
    assert (RING(X, T400).x0 > 0.7).any()
    torch.testing.assert_close(didiff.add_noise(*got, T400), X, **EXACT)


def test_the_two_ways_of_writing_omega_meet_in_the_conversion():
    for w in (-1.0, 0.0, 2.0):
        uncond, cond = RING(X, T400).eps, RING(X, T400, Y).eps
        lecture = (1 + w) * cond - w * uncond
        ours = guidance.classifier_free(RING, Y, guidance.from_lecture_scale(w))(X, T400).eps
        torch.testing.assert_close(ours, lecture, **EXACT)


def test_guidance_at_omega_one_samples_the_conditional_law():
    """F-2C at omega = 1 must give N(1, 1); n = 20,000 points, exact probability-flow ODE."""
    mixture, n = mixtures.two_classes(), 20_000
    levels = didiff.grid(didiff.trigonometric, 20)
    start = didiff.initial_noise((n, 1), levels[0], torch.Generator().manual_seed(0), torch.float64)
    guided = guidance.classifier_free(mixture, 1, 1.0)
    end = didiff.last(didiff.probability_flow(guided, start, levels))
    assert end.mean().item() == pytest.approx(1, abs=5 / n**0.5)
    assert end.std().item() == pytest.approx(1, abs=5 / (2 * n) ** 0.5)


@pytest.mark.parametrize("omega", [math.nan, math.inf, -math.inf])
def test_an_omega_that_is_not_a_number_is_an_error_before_any_work(omega):
    def never(*_):
        raise AssertionError("work started")

    for make in (
        lambda: guidance.classifier_free(never, 0, omega),
        lambda: guidance.classifier(never, never, omega),
        lambda: guidance.from_lecture_scale(omega),
    ):
        with pytest.raises(ValueError, match=f"omega = {omega}"):
            make()


def test_other_bad_arguments_are_errors():
    with pytest.raises(ValueError, match="0 <= low <= high <= 1"):
        guidance.interval(RING, RING, 0.8, 0.2)
    with pytest.raises(ValueError, match="low < high"):
        guidance.clip(RING, 1.0, -1.0)
    pure = didiff.trigonometric(torch.tensor(1.0))
    guided = guidance.classifier(RING, lambda x, t: RING.class_log_prob(x, t)[:, 0], 2.0)
    with pytest.raises(ValueError, match=r"signal = 0: start the grid a little below 1"):
        guided(X, pure)
