import math

import pytest
import torch
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal
from worlds import COVARIANCES, MIXTURES, SCHEDULES, middle, points

import didiff
from didiff import CovarianceMixture, Mixture, NoiseLevel, mixtures
from didiff.mixtures import as_classes, as_labels

EXACT = dict(rtol=0, atol=1e-11)


@pytest.mark.parametrize("name", MIXTURES)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_score_is_the_gradient_of_the_log_density(name, schedule):
    mixture = MIXTURES[name]
    x = points(mixture, 9).requires_grad_()
    t = middle(SCHEDULES[schedule], 9)
    labels = torch.arange(9) % mixture.classes
    for y in (None, labels):
        (gradient,) = torch.autograd.grad(mixture.log_prob(x, t, y).sum(), x)
        torch.testing.assert_close(mixture.score(x, t, y), gradient, **EXACT)


@pytest.mark.parametrize("name", MIXTURES)
def test_the_predicted_pair_makes_the_point(name):
    mixture, t = MIXTURES[name], middle(SCHEDULES["linear"], 9)
    x = points(mixture, 9)
    torch.testing.assert_close(didiff.add_noise(*mixture(x, t), t), x, **EXACT)


@pytest.mark.parametrize("name", ["gaussian", "two classes"])
def test_the_density_integrates_to_one(name):
    x = torch.linspace(-30, 30, 60001, dtype=torch.float64)[:, None]
    for t in didiff.grid(didiff.trigonometric, 4, end=0.1):
        area = torch.trapezoid(MIXTURES[name].log_prob(x, t).exp(), x[:, 0])
        assert area.item() == pytest.approx(1, abs=1e-9)


def test_the_density_is_that_of_torch_distributions():
    mixture, t = MIXTURES["correlated"], SCHEDULES["linear"].at(300)
    covariance = mixtures.correlated(0.9, 5)._axes[0] @ torch.diag(mixture._spread[0])
    covariance = covariance @ mixture._axes[0].T
    i = torch.arange(5, dtype=torch.float64)
    torch.testing.assert_close(covariance, 0.9 ** (i[:, None] - i).abs(), **EXACT)
    noisy = t.signal**2 * covariance + t.noise**2 * torch.eye(5, dtype=torch.float64)
    law = torch.distributions.MultivariateNormal(torch.zeros(5).double(), noisy)
    x = points(mixture, 6)
    torch.testing.assert_close(mixture.log_prob(x, t), law.log_prob(x), **EXACT)


EYE = torch.eye(2, dtype=torch.float64)
UNEVEN = {
    "uneven": (
        torch.tensor([1, 3, 2]).double() / 6,
        torch.tensor([[-1.0, 0.5], [1.0, 0.0], [0.25, 2.0]]).double(),
        torch.stack([0.04 * EYE, 0.36 * EYE, 0.16 * EYE]),
    ),
    "tilted": (
        torch.tensor([1, 3]).double() / 4,
        torch.tensor([[-1.0, 0.5], [1.0, 0.0]]).double(),
        COVARIANCES,
    ),
}
"""Weights, means and covariances of the mixtures in which nothing is equal."""


def law(name, t, components=slice(None)) -> MixtureSameFamily:
    """p_t(x) of some components, put together by torch."""
    weights, means, covariances = (v[components] for v in UNEVEN[name])
    noisy = t.signal**2 * covariances + t.noise**2 * EYE
    return MixtureSameFamily(Categorical(weights), MultivariateNormal(t.signal * means, noisy))


@pytest.mark.parametrize("name", UNEVEN)
def test_weights_widths_and_labels_are_those_of_torch_distributions(name):
    mixture, x = MIXTURES[name], 2 * points(MIXTURES[name], 9)
    of_label = {"uneven": {0: [1, 2], 1: [0]}, "tilted": {0: [1], 1: [0]}}[name]
    share = {"uneven": 5 / 6, "tilted": 3 / 4}[name]  # of label 0
    for k in (1, 300, 900):
        t = SCHEDULES["linear"].at(k)
        torch.testing.assert_close(mixture.log_prob(x, t), law(name, t).log_prob(x), **EXACT)
        given = torch.stack([law(name, t, of_label[y]).log_prob(x) for y in (0, 1)], 1)
        for y in (0, 1):
            torch.testing.assert_close(mixture.log_prob(x, t, y), given[:, y], **EXACT)
        prior = torch.tensor([share, 1 - share], dtype=torch.float64).log()
        posterior = given + prior - law(name, t).log_prob(x)[:, None]
        torch.testing.assert_close(mixture.class_log_prob(x, t), posterior, **EXACT)


@pytest.mark.parametrize("name", UNEVEN)
def test_predictions_of_an_uneven_mixture_are_tweedies_formula(name):
    """E[eps | x] = -noise grad log p and E[x0 | x] = (x + noise^2 grad log p) / signal."""
    x, t = points(MIXTURES[name], 9).requires_grad_(), SCHEDULES["linear"].at(300)
    for y, components in ((None, slice(None)), (1, [0])):
        log_prob = law(name, t, components).log_prob(x).sum()
        (gradient,) = torch.autograd.grad(log_prob, x)
        guess = MIXTURES[name](x, t, y)
        torch.testing.assert_close(guess.eps, -t.noise * gradient, **EXACT)
        torch.testing.assert_close(guess.x0, (x + t.noise**2 * gradient) / t.signal, **EXACT)
        torch.testing.assert_close(MIXTURES[name].score(x, t, y), gradient, **EXACT)


def test_a_full_covariance_that_is_round_is_the_isotropic_mixture():
    round_, means = MIXTURES["three modes"], MIXTURES["three modes"].means
    covariances = torch.eye(2, dtype=torch.float64) * 0.3**2
    full = CovarianceMixture(means, covariances, labels=[0, 1, 2])
    x, t, y = points(round_, 9), middle(SCHEDULES["cosine"], 9), torch.arange(9) % 3
    for label in (None, y):
        torch.testing.assert_close(
            full.log_prob(x, t, label), round_.log_prob(x, t, label), **EXACT
        )
        for a, b in zip(full(x, t, label), round_(x, t, label), strict=True):
            torch.testing.assert_close(a, b, **EXACT)


def test_predictions_are_posterior_means_by_quadrature():
    """E[x0 | xt = x] as the ratio of two integrals over x0, for the bimodal mixture."""
    mixture, t = mixtures.bimodal(), SCHEDULES["linear"].at(400)
    x0 = torch.linspace(-4, 4, 20001, dtype=torch.float64)
    clean = mixture.log_prob(x0[:, None], didiff.trigonometric(torch.tensor(0.0))).exp()
    for x in (-1.3, 0.0, 0.2, 2.0):
        weight = clean * torch.exp(-((x - t.signal * x0) ** 2) / (2 * t.noise**2))
        wanted = (weight * x0).sum() / weight.sum()
        point = torch.tensor([[x]], dtype=torch.float64)
        torch.testing.assert_close(mixture(point, t).x0[0, 0], wanted, rtol=0, atol=1e-8)


def test_the_class_posterior_of_two_classes_is_a_sigmoid():
    """p(y = 1 | xt) = sigmoid(2 signal x) where the components keep variance 1 (F-2C)."""
    x, t = points(mixtures.two_classes(), 9), middle(SCHEDULES["linear"], 9)
    posterior = mixtures.two_classes().class_log_prob(x, t).exp()[:, 1]
    torch.testing.assert_close(posterior, torch.sigmoid(2 * t.signal * x[:, 0]), **EXACT)


@pytest.mark.parametrize("name", ["two classes", "ring", "three modes", "images"])
def test_bayes_rule_ties_posterior_conditional_and_marginal(name):
    mixture, t = MIXTURES[name], middle(SCHEDULES["cosine"], 6)
    x, prior = points(mixture, 6), mixture.log_weights.exp()
    for c in range(mixture.classes):
        joint = mixture.log_prob(x, t, c) + prior[mixture.labels == c].sum().log()
        posterior = joint - mixture.log_prob(x, t)
        torch.testing.assert_close(mixture.class_log_prob(x, t)[:, c], posterior, **EXACT)


def test_label_minus_one_is_no_label_and_labels_mix_in_one_batch():
    mixture, t = MIXTURES["ring"], SCHEDULES["linear"].at(500)
    x = points(mixture, 3)
    mixed = mixture(x, t, torch.tensor([1, -1, 0])).x0
    torch.testing.assert_close(mixed[0], mixture(x, t, 1).x0[0])
    torch.testing.assert_close(mixed[1], mixture(x, t).x0[1])
    torch.testing.assert_close(mixed[2], mixture(x, t, 0).x0[2])
    torch.testing.assert_close(mixture(x, t, -1).x0, mixture(x, t).x0)


def test_std_zero_is_the_ideal_denoiser_of_a_data_set():
    """x0 = softmax over the images of -|xt - signal * image|^2 / (2 noise^2), then their mean."""
    data = torch.randn(50, 1, 4, 4, dtype=torch.float64)
    x, t = torch.randn(3, 1, 4, 4, dtype=torch.float64), SCHEDULES["linear"].at(200)
    distance = ((x[:, None] - t.signal * data) ** 2).flatten(2).sum(2)
    weights = (-distance / (2 * t.noise**2)).softmax(1)
    wanted = torch.einsum("bk,kchw->bchw", weights, data)
    torch.testing.assert_close(Mixture(data)(x, t).x0, wanted, **EXACT)


@pytest.mark.parametrize("name", ["ring", "uneven", "tilted", "images"])
@pytest.mark.parametrize("rows", [1, 3, 5, 9, 10, 0.5])
def test_chunks_do_not_change_the_answer(name, rows, monkeypatch):
    mixture, one = MIXTURES[name], SCHEDULES["linear"].at([400])
    x, y = points(mixture, 10), torch.arange(10) % 2
    levels = (middle(SCHEDULES["linear"], 10), one, NoiseLevel(*(v[0] for v in one)))
    whole = [(mixture(x, t, y), mixture.log_prob(x, t, 1), mixture.class_log_prob(x, t))
             for t in levels]  # fmt: skip
    largest = rows * len(mixture.means)
    monkeypatch.setattr(mixtures, "_LARGEST_TABLE", int(largest))
    tables = []
    likelihood = type(mixture)._log_likelihood

    def watched(self, x, signal, noise):
        tables.append(len(x) * len(self.means))
        return likelihood(self, x, signal, noise)

    monkeypatch.setattr(type(mixture), "_log_likelihood", watched)
    for t, (guess, log_prob, posterior) in zip(levels, whole, strict=True):
        torch.testing.assert_close(mixture(x, t, y), guess)
        torch.testing.assert_close(mixture.log_prob(x, t, 1), log_prob)
        torch.testing.assert_close(mixture.class_log_prob(x, t), posterior)
    assert max(tables) <= max(largest, len(mixture.means))


def test_no_points_have_no_answers():
    x, t = torch.zeros(0, 2), SCHEDULES["linear"].at(400)
    assert MIXTURES["ring"](x, t).x0.shape == (0, 2)
    assert MIXTURES["ring"].log_prob(x, t).shape == (0,)


@pytest.mark.parametrize("name", ["ring", "tilted"])
def test_answers_have_the_type_of_the_question(name):
    x, t = points(MIXTURES[name], 3).float(), SCHEDULES["linear"].at(400)
    mixture, exact = MIXTURES[name], MIXTURES[name](x.double(), t, 1)
    assert {v.dtype for v in (*mixture(x, t), mixture.log_prob(x, t), mixture.score(x, t))} == {
        torch.float32
    }
    assert mixture.class_log_prob(x, t).dtype == torch.float32
    torch.testing.assert_close(mixture(x, t, 1).x0, exact.x0.float(), rtol=0, atol=1e-5)


def test_the_density_of_an_image_is_right_to_a_thousandth_of_a_nat_in_single_precision():
    """|x - m|^2, multiplied out in float32, is off by 10 of 3,770 nats where sigma = 0.002."""
    generator = torch.Generator().manual_seed(0)
    data = torch.rand(20, 1, 28, 28, generator=generator) * 2 - 1
    t = didiff.karras_levels(2, 0.002, 1.0)[1]
    x = data[:5] + 0.002 * torch.randn(5, 1, 28, 28, generator=generator)
    distance = (x[:, None].double() - data.double()).flatten(2).square().sum(2)
    nats = (-distance / (2 * 0.002**2)).logsumexp(1) - math.log(20)
    nats -= 784 / 2 * math.log(2 * math.pi * 0.002**2)
    # float32 itself tells numbers near 4,000 apart by 0.0002
    assert (Mixture(data).log_prob(x, t) - nats).abs().max() < 1e-3


def test_integers_are_numbers_like_others():
    """[[0, 0], [2, 2]] as means would cut off every std and weight; uint8 pixels would overflow."""
    t, y = SCHEDULES["linear"].at([300, 20]), torch.tensor([1, 0])
    whole = dict(std=0.5, weights=[0.3, 0.7], labels=[0, 1])
    mixture = Mixture([[0, 0], [2, 2]], **whole)
    same = Mixture([[0.0, 0.0], [2.0, 2.0]], **whole)
    for x in (torch.tensor([[1, 0], [3, 1]]), torch.tensor([[1, 0], [3, 1]], dtype=torch.uint8)):
        assert torch.equal(mixture.score(x, t, y), same.score(x.float(), t, y))
        assert torch.equal(mixture.log_prob(x, t), same.log_prob(x.float(), t))
        assert torch.equal(mixture.class_log_prob(x, t), same.class_log_prob(x.float(), t))
    pixels = torch.tensor([[200, 100], [20, 250]], dtype=torch.uint8)
    assert torch.equal(Mixture(pixels)(pixels, t).x0, Mixture(pixels.float())(pixels.float(), t).x0)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64])
def test_labels_may_be_any_integers(dtype):
    mixture, t, x = MIXTURES["three modes"], SCHEDULES["linear"].at(500), torch.zeros(3, 2)
    wanted = mixture(x, t, torch.tensor([2, 0, 1])).x0
    assert torch.equal(mixture(x, t, torch.tensor([2, 0, 1], dtype=dtype)).x0, wanted)
    assert torch.equal(mixture(x, t, [2, 0, 1]).x0, wanted)
    labels = as_labels(torch.tensor([2], dtype=dtype), x)
    assert (labels.dtype, labels.tolist()) == (torch.int64, [2, 2, 2])


@pytest.mark.parametrize("kind", [torch.uint8, torch.int8, torch.int32, torch.int64, torch.bool])
def test_labels_of_any_integers_become_int64(kind):
    y = as_labels(torch.tensor([0, 1, 1], dtype=kind))
    assert (y.tolist(), y.dtype) == ([0, 1, 1], torch.int64)
    assert as_labels(torch.tensor([250, 3], dtype=torch.uint8).numpy()).tolist() == [250, 3]
    assert (as_labels([2, -1]).tolist(), as_labels(7).shape) == ([2, -1], ())


def test_labels_that_mean_nothing_are_named():
    x, table = torch.zeros(3, 2), torch.zeros(3, 4)
    for bad, kind in [(1.0, "float32"), ([1, 2.5], "float32"), (1j, "complex64")]:
        for where in (x, None):
            with pytest.raises(ValueError, match=f"labels of type torch.{kind}: give integers"):
                as_labels(bad, where)
    for bad in ([1, 2], [[1], [2], [3]], []):
        with pytest.raises(ValueError, match=r"labels of shape \(.* for a batch of 3"):
            as_labels(torch.tensor(bad).long(), x)
    assert as_classes(3, table).tolist() == [3, 3, 3]
    for bad in ([0, 4, 1], [0, -1, 1]):
        name = f"{min(bad)}..{max(bad)}"
        with pytest.raises(ValueError, match=f"labels {name}: this classifier knows 0..3"):
            as_classes(bad, table)


def test_fifty_thousand_images_fit():
    data = torch.randn(50_000, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    ideal, t = Mixture(data), didiff.trigonometric(torch.tensor(0.2))
    x = didiff.add_noise(data[:100], torch.zeros_like(data[:100]), t)
    assert (ideal(x, t).x0 - data[:100]).abs().max() < 1e-3  # far apart: each finds itself


@pytest.mark.parametrize("name", MIXTURES)
def test_samples_have_the_moments_and_labels_of_the_law(name):
    mixture, n = MIXTURES[name], 20_000
    x0, y = mixture.sample(n, generator=torch.Generator().manual_seed(0))
    weights = mixture.log_weights.exp()
    means, x0 = mixture.means.flatten(1), x0.flatten(1)
    # each coordinate's mean is off by std / sqrt(n); 5 of them leave 1e-6 for a false alarm
    assert ((x0.mean(0) - weights @ means).abs() < 5 * x0.std(0) / n**0.5).all()
    if name in UNEVEN:
        weights, means, own = UNEVEN[name]
    else:
        own = torch.diag_embed((mixture.std[:, None] ** 2).expand(means.shape))
        own = (
            0.9 ** (torch.arange(5)[:, None] - torch.arange(5)).abs()
            if name == "correlated"
            else own
        )
    outer = means[:, :, None] * means[:, None] + own
    wanted = (weights[:, None, None] * outer).sum(0) - torch.outer(weights @ means, weights @ means)
    # an entry's variance is less than E[(a b)^2] / n <= 2.5 var(a) var(b) / n for all these laws
    width = wanted.diag().sqrt()
    assert ((x0.T.cov() - wanted).abs() < 5 * (2.5 / n) ** 0.5 * torch.outer(width, width)).all()
    for c in range(mixture.classes):
        share = weights[mixture.labels == c].sum().item()
        assert (y == c).double().mean().item() == pytest.approx(
            share, abs=5 * (share * (1 - share) / n) ** 0.5 + 1e-12
        )
    only, labels = mixture.sample(10, y=0, generator=torch.Generator().manual_seed(0))
    assert (labels == 0).all()
    assert only.shape == (10, *mixture.means.shape[1:])


@pytest.mark.parametrize("name", UNEVEN)
def test_samples_of_a_class_and_all_samples_follow_their_law(name):
    """exp(-|x|^2 / 2) has mean sum_k w_k N(0; m_k, C_k + I) 2 pi; it lies in [0, 1]."""
    n, generator = 20_000, torch.Generator().manual_seed(0)
    one, components = torch.tensor(1.0).double(), {"uneven": [1, 2], "tilted": [1]}[name]
    for y, part in ((None, slice(None)), (0, components)):
        x0, _ = MIXTURES[name].sample(n, y, generator)
        got = (-x0.square().sum(1) / 2).exp().mean().item()
        smooth = law(name, NoiseLevel(one, one), part)
        wanted = 2 * math.pi * smooth.log_prob(torch.zeros(2).double()).exp().item()
        assert got == pytest.approx(wanted, abs=5 * 0.5 / n**0.5)
        assert not torch.equal(x0, MIXTURES[name].sample(n, y, generator)[0])


def test_the_ready_ones_are_those_of_the_ledger():
    def parts(mixture):
        return mixture.means.tolist(), mixture.std.unique().tolist(), mixture.labels.tolist()

    assert parts(mixtures.gaussian()) == ([[1.0]], [0.5], [0])
    assert parts(mixtures.gaussian(2.0, 0.1)) == ([[2.0]], [0.1], [0])
    assert parts(mixtures.two_classes()) == ([[-1.0], [1.0]], [1.0], [0, 1])
    assert parts(mixtures.bimodal()) == ([[-1.0], [1.0]], [0.3], [0, 1])
    corners = [[-1.5, 0.0], [1.5, 0.0], [0.0, 1.5]]
    assert parts(mixtures.three_modes()) == (corners, [0.3], [0, 1, 2])
    means, std, labels = parts(mixtures.ring())
    assert (std, labels) == ([0.25], [0, 1] * 4)
    for i, mean in enumerate(means):
        angle = math.pi / 4 * i
        assert mean == pytest.approx([2 * math.cos(angle), 2 * math.sin(angle)], abs=1e-12)
    assert mixtures.correlated()._means.tolist() == [[0.0, 0.0]]
    assert mixtures.correlated()._spread[0].tolist() == pytest.approx([0.1, 1.9])


def test_a_covariance_without_width_across_keeps_its_points_on_the_line():
    flat, t = (
        CovarianceMixture(torch.zeros(1, 2).double(), torch.ones(2, 2)),
        SCHEDULES["linear"].at(9),
    )
    x0, _ = flat.sample(50, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(x0[:, 0], x0[:, 1], **EXACT)
    noisy = MultivariateNormal(torch.zeros(2).double(), t.signal**2 + t.noise**2 * EYE)
    torch.testing.assert_close(flat.log_prob(x0, t), noisy.log_prob(x0), rtol=0, atol=1e-9)
    # rounding leaves a width a little below nothing, which is nothing
    rounded = CovarianceMixture(torch.zeros(1, 2).double(), torch.tensor([1.0, -1e-9]).diag())
    assert (rounded.sample(50)[0][:, 1] == 0).all()


def test_samples_of_a_full_covariance_have_it():
    x0, _ = mixtures.correlated(0.9, 3).sample(40_000, generator=torch.Generator().manual_seed(0))
    i = torch.arange(3, dtype=torch.float64)
    wanted = 0.9 ** (i[:, None] - i).abs()
    # var of a covariance estimate <= 2 / n for unit variances
    assert (x0.T.cov() - wanted).abs().max() < 5 * (2 / 40_000) ** 0.5


def test_a_smooth_mixture_is_exact_at_both_ends():
    mixture, x = MIXTURES["three modes"], points(MIXTURES["three modes"], 4)
    data = NoiseLevel(*torch.tensor([1.0, 0.0], dtype=torch.float64))
    noise = NoiseLevel(*torch.tensor([0.0, 1.0], dtype=torch.float64))
    torch.testing.assert_close(mixture(x, data).x0, x)
    torch.testing.assert_close(mixture(x, data).eps, torch.zeros_like(x))
    torch.testing.assert_close(mixture(x, noise).eps, x)
    torch.testing.assert_close(mixture(x, noise).x0, mixture.means.mean(0).expand(4, 2))


def test_bad_mixtures_are_errors_that_name_the_value():
    for arguments, message in [
        (dict(std=-1.0), "std = -1"),
        (dict(std=[0.1, -0.2]), "std = -0.2"),
        (dict(std=[0.1, math.inf]), "std = inf"),
        (dict(std=math.nan), "std = nan"),
        (dict(weights=[1.0, -0.5]), "weights must be positive, got -0.5"),
        (dict(weights=[1.0, math.nan]), "weights must be positive, got nan"),
        (dict(weights=[1.0, math.inf]), "weights must be positive, got inf"),
        (dict(weights=[1.0]), r"weights of shape \(1,\) for 2 components"),
        (dict(labels=[[0], [1]]), r"labels of shape \(2, 1\) for a batch of 2"),
        (dict(labels=[0.0, 0.7]), r"labels of type torch.float32: give integers"),
        (dict(std=[0.1, 0.2, 0.3]), r"std of shape \(3,\) for 2 components"),
        (dict(weights=[1.0, 0.0]), "weights must be positive, got 0"),
        (dict(labels=[0, -1]), "label -1"),
    ]:
        with pytest.raises(ValueError, match=message):
            Mixture([[0.0], [1.0]], **arguments)
    for covariances, message in [
        (torch.eye(3), r"give \(2, 2\) or 1"),
        (torch.eye(2).expand(2, 2, 2), r"give \(2, 2\) or 1"),
        (torch.tensor([[1.0, 0.5], [0.0, 1.0]]), "symmetric"),
        (torch.tensor([[1.0, 2.0], [2.0, 1.0]]), "negative eigenvalue -1"),
    ]:
        with pytest.raises(ValueError, match=message):
            CovarianceMixture([[0.0, 0.0]], covariances)


def test_bad_questions_are_errors_that_name_the_value():
    mixture, t = MIXTURES["ring"], SCHEDULES["linear"].at(500)
    x = points(mixture, 3)
    for bad, message in [
        (2, "label 2.*labels \\[0, 1\\]"),
        (-2, "label -2.*labels \\[0, 1\\]"),
        (torch.tensor([0, -2, -1]), "label -2"),
        (torch.tensor([0, 1]), "batch of 3"),
    ]:
        with pytest.raises(ValueError, match=message):
            mixture(x, t, bad)
    with pytest.raises(ValueError, match="label 5"):
        mixture.sample(3, y=5)
    with pytest.raises(ValueError, match=r"points \(3,\)"):
        mixture(torch.randn(4, 3), t)


def test_weights_of_a_million_to_one_are_normalised():
    mixture = Mixture(torch.tensor([[0.0], [1.0]]).double(), 1.0, weights=[1e6, 1.0])
    shares = mixture.log_weights.exp().tolist()
    assert shares == pytest.approx([1e6 / 1_000_001, 1 / 1_000_001], rel=1e-12)
