import math

import pytest
import torch
from worlds import MIXTURES, SCHEDULES, points

import didiff
from didiff import TARGETS, guidance, mixtures
from didiff.process import from_x0, solve

EXACT = dict(rtol=0, atol=1e-11)
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


@pytest.mark.parametrize("n", [4, 2])
def test_a_scale_per_sample_guides_each_sample_by_its_own(n):
    """As many samples as coordinates is where a scale (B,) would multiply columns (T-24)."""
    x, y = X[:n], torch.arange(n) % 2
    omega = torch.tensor([0.0, 5.0, -1.0, 2.0])[:n]
    for make in (
        lambda y, omega: guidance.classifier_free(RING, y, omega),
        lambda y, omega: guidance.classifier(RING, guidance.log_prob_of(RING, y), omega),
    ):
        wanted = [make(y[i], omega[i].item())(x[i : i + 1], T400) for i in range(n)]
        for scale in (omega, omega.tolist(), omega[:, None], omega.double()):
            for got, parts in zip(make(y, scale)(x, T400), zip(*wanted, strict=True), strict=True):
                torch.testing.assert_close(got, torch.cat(parts), **EXACT)
        for bad in (omega[None], torch.ones(n + 1)):
            with pytest.raises(ValueError, match=rf"omega of shape \(.*for a batch of {n}"):
                make(y, bad)(x, T400)


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


def test_classifier_guidance_is_the_formula_of_the_paper_at_a_level_each():
    """A classifier whose log p is -(a . x)^2 / 2 has the gradient -(a . x) a."""
    a, t = (
        torch.tensor([0.3, -0.7], dtype=torch.float64),
        SCHEDULES["linear"].at(range(1, 901, 160)),
    )

    def log_prob(x, t):
        return -((x @ a) ** 2) / 2

    got = guidance.classifier(RING, log_prob, 3.0)(X, t)
    wanted = RING(X, t).eps + 3 * t.noise[:, None] * (X @ a)[:, None] * a
    torch.testing.assert_close(got.eps, wanted, **EXACT)
    torch.testing.assert_close(didiff.add_noise(*got, t), X, **EXACT)


def test_classifier_guidance_works_whatever_mode_the_caller_is_in():
    def plain_square(x, t):
        return -(t.signal * x).square().sum(1)

    def guided(says):
        """All made anew, in the mode of the caller."""
        x, t = X.clone(), didiff.NoiseLevel(*(v.clone() for v in T400))
        says = says or guidance.log_prob_of(RING, Y.clone())
        return guidance.classifier(RING, says, 2.0)(x, t)

    for says in (None, plain_square):
        wanted = guided(says)
        for mode in (torch.no_grad, torch.inference_mode, torch.enable_grad):
            with mode():
                same(guided(says), wanted)
    x = X.clone().requires_grad_()
    guidance.classifier(RING, guidance.log_prob_of(RING, Y), 2.0)(x, T400)
    assert x.grad is None


def test_classifier_guidance_starts_where_there_is_signal_to_speak_of():
    """At the end of the cosine table an error of 0.01 in a gradient moves x0 by 200."""
    asked = []

    def log_prob(x, t):
        asked.append(t)
        return RING.class_log_prob(x, t)[:, 0]

    guided = guidance.classifier(RING, log_prob, 2.0)
    for t in (SCHEDULES["cosine"].at(1000), SCHEDULES["cosine"].at([1000, 1, 2, 3, 4, 5])):
        with pytest.raises(ValueError, match=r"signal = 4\.93e-05: start the grid .*start=0.99"):
            guided(X, t)
    assert not asked
    for t in (SCHEDULES["cosine"].at(990), SCHEDULES["linear"].at(1000)):
        assert guided(X, t).x0.abs().max() < 20


def test_integers_are_numbers_like_others():
    x, t = torch.tensor([[1, 0], [2, 3]]), SCHEDULES["linear"].at([100, 700])
    says = guidance.log_prob_of(RING, 0)
    for make in (
        guidance.clip(RING), guidance.classifier(RING, says, 2.0),
        guidance.classifier_free(RING, 0, 2.0), guidance.condition(RING, 1),
        guidance.interval(RING, guidance.condition(RING, 1), 0.2, 1.0),
    ):  # fmt: skip
        for a, b in zip(make(x, t), make(x.float(), t), strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


def test_a_denoiser_is_told_a_label_for_every_sample():
    told = []

    def watched(x, t, y=None):
        told.append(y)
        return RING(x, t)

    guidance.condition(watched, 1)(X, T400)
    guidance.classifier_free(watched, torch.tensor(1, dtype=torch.uint8), 2.0)(X, T400)
    guidance.condition(watched, None)(X, T400)
    assert [None if y is None else y.tolist() for y in told] == [[1] * 6, [-1] * 6 + [1] * 6, None]
    assert {y.dtype for y in told[:2]} == {torch.int64}


def test_a_condition_is_any_label_or_none():
    same(guidance.condition(RING, None)(X, T400), RING(X, T400))
    same(guidance.condition(RING, 1)(X, T400), RING(X, T400, torch.ones(6).long()))
    for labels in (Y, Y.to(torch.uint8), Y.to(torch.int8), Y.tolist()):
        same(guidance.condition(RING, labels)(X, T400), RING(X, T400, Y))
        same(guidance.classifier_free(RING, labels, 1.0)(X, T400), RING(X, T400, Y))
        got = guidance.classifier_free(RING, 0, 0.0, negative=labels)
        same(got(X, T400), RING(X, T400, Y))
    for make in (guidance.condition, lambda d, y: guidance.classifier_free(d, y, 1.0)):
        with pytest.raises(ValueError, match=r"labels of type torch\.float32"):
            make(RING, 1.0)(X, T400)
        with pytest.raises(ValueError, match=r"labels of shape \(2,\) for a batch of 6"):
            make(RING, [0, 1])(X, T400)


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


def test_the_ends_of_the_interval_belong_to_it():
    plain, guided = guidance.condition(RING, 0), guidance.classifier_free(RING, 0, 3.0)
    clock = T400.clock.item()
    for low, high in ((clock, 1.0), (0.0, clock), (clock, clock)):
        same(guidance.interval(plain, guided, low, high)(X, T400), guided(X, T400))
    outside = guidance.interval(plain, guided, clock + 1e-9, 1.0)
    same(outside(X, T400), plain(X, T400))


@pytest.mark.parametrize("shape", [(6,), (6, 1)])
def test_each_sample_of_a_batch_has_an_interval_of_its_own(shape):
    plain, guided = guidance.condition(RING, 0), guidance.classifier_free(RING, 0, 3.0)
    u = torch.tensor([0.1, 0.9, 0.5, 0.3, 0.85, 0.2], dtype=torch.float64)
    t = didiff.NoiseLevel(*(v.reshape(shape) for v in didiff.trigonometric(u)))
    got, inside = guidance.interval(plain, guided, 0.25, 0.87)(X, t), [2, 3, 4]
    for i in range(6):
        wanted = (guided if i in inside else plain)(X, t)
        same((got.x0[i], got.eps[i]), (wanted.x0[i], wanted.eps[i]))


def test_outside_the_interval_nobody_is_guided_in_vain():
    def never(x, t):
        raise AssertionError("asked")

    plain = guidance.condition(RING, 0)
    for levels in (T400, SCHEDULES["linear"].at([400] * 6)):
        same(guidance.interval(plain, never, 0.9, 1.0)(X, levels), plain(X, levels))
        same(guidance.interval(never, plain, 0.0, 0.9)(X, levels), plain(X, levels))


def test_clipping_clamps_x0_and_recomputes_eps():
    got = guidance.clip(guidance.condition(RING, None), -0.5, 0.7)(X, T400)
    assert got.x0.min() >= -0.5
    assert got.x0.max() <= 0.7
    plain = RING(X, T400).x0
    assert (plain > 0.7).any()
    assert (plain < -0.5).any()
    torch.testing.assert_close(got.x0, plain.minimum(torch.tensor(0.7)).maximum(torch.tensor(-0.5)))
    torch.testing.assert_close(didiff.add_noise(*got, T400), X, **EXACT)
    t = SCHEDULES["linear"].at(range(1, 901, 160))
    same(guidance.clip(RING)(X, t), from_x0(X, t, RING(X, t).x0.clamp(-1.0, 1.0)))


def test_the_two_ways_of_writing_omega_meet_in_the_conversion():
    for w in (-1.0, 0.0, 2.0):
        uncond, cond = RING(X, T400).eps, RING(X, T400, Y).eps
        lecture = (1 + w) * cond - w * uncond
        ours = guidance.classifier_free(RING, Y, guidance.from_lecture_scale(w))(X, T400).eps
        torch.testing.assert_close(ours, lecture, **EXACT)


def test_guidance_at_omega_one_samples_the_conditional_law():
    """F-2C at omega = 1 must give N(1, 1); n = 5,000 points, exact probability-flow ODE."""
    mixture, n = mixtures.two_classes(), 5_000
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
        lambda: guidance.classifier_free(never, 0, torch.tensor([1.0, omega])),
        lambda: guidance.classifier(never, never, omega),
        lambda: guidance.from_lecture_scale(omega),
    ):
        with pytest.raises(ValueError, match=rf"omega = .*{omega}"):
            make()


def test_other_bad_arguments_are_errors():
    with pytest.raises(ValueError, match="0 <= low <= high <= 1"):
        guidance.interval(RING, RING, 0.8, 0.2)
    for low, high in ((-0.1, 0.5), (0.5, 1.1), (math.nan, 1.0)):
        with pytest.raises(ValueError, match=f"got {low} and {high}"):
            guidance.interval(RING, RING, low, high)
    for low, high in ((1.0, -1.0), (1.0, 1.0), (math.nan, 1.0)):
        with pytest.raises(ValueError, match=f"need low < high, got {low} and {high}"):
            guidance.clip(RING, low, high)
    pure = didiff.trigonometric(torch.tensor(1.0))
    guided = guidance.classifier(RING, lambda x, t: RING.class_log_prob(x, t)[:, 0], 2.0)
    with pytest.raises(ValueError, match=r"signal = 0: start the grid a little below 1"):
        guided(X, pure)
