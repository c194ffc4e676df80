import math

import pytest
import torch
from worlds import MIXTURES, SCHEDULES, middle, points

import didiff
from didiff import CovarianceMixture, Mixture, NoiseLevel, mixtures

EXACT = dict(rtol=0, atol=1e-9)


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


def test_chunks_do_not_change_the_answer(monkeypatch):
    mixture, t = MIXTURES["ring"], middle(SCHEDULES["linear"], 10)
    x, y = points(mixture, 10), torch.arange(10) % 2
    whole = mixture(x, t, y), mixture.log_prob(x, t, y), mixture.class_log_prob(x, t)
    monkeypatch.setattr(mixtures, "_LARGEST_TABLE", 3 * len(mixture.means))
    torch.testing.assert_close(mixture(x, t, y), whole[0])
    torch.testing.assert_close(mixture.log_prob(x, t, y), whole[1])
    torch.testing.assert_close(mixture.class_log_prob(x, t), whole[2])


def test_fifty_thousand_images_fit():
    data = torch.randn(50_000, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    ideal, t = Mixture(data), didiff.trigonometric(torch.tensor(0.2))
    x = didiff.add_noise(data[:400], torch.zeros_like(data[:400]), t)
    assert (ideal(x, t).x0 - data[:400]).abs().max() < 1e-3  # far apart: each finds itself


@pytest.mark.parametrize("name", MIXTURES)
def test_samples_have_the_moments_and_labels_of_the_law(name):
    mixture, n = MIXTURES[name], 20_000
    x0, y = mixture.sample(n, generator=torch.Generator().manual_seed(0))
    weights = mixture.log_weights.exp()
    mean = (weights @ mixture.means.flatten(1)).reshape(mixture.means.shape[1:])
    # each coordinate's mean is off by std / sqrt(n); 5 of them leave 1e-6 for a false alarm
    assert ((x0.mean(0) - mean).abs() < 5 * x0.std(0) / n**0.5).all()
    for c in range(mixture.classes):
        share = weights[mixture.labels == c].sum().item()
        assert (y == c).double().mean().item() == pytest.approx(
            share, abs=5 * (share * (1 - share) / n) ** 0.5 + 1e-12
        )
    only, labels = mixture.sample(10, y=0, generator=torch.Generator().manual_seed(0))
    assert (labels == 0).all()
    assert only.shape == (10, *mixture.means.shape[1:])


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
        (dict(std=[0.1, 0.2, 0.3]), r"std of shape \(3,\) for 2 components"),
        (dict(weights=[1.0, 0.0]), "weights must be positive, got 0"),
        (dict(labels=[0, -1]), "label -1"),
    ]:
        with pytest.raises(ValueError, match=message):
            Mixture([[0.0], [1.0]], **arguments)
    for covariances, message in [
        (torch.eye(3), r"give \(2, 2\) or 1"),
        (torch.tensor([[1.0, 0.5], [0.0, 1.0]]), "symmetric"),
        (torch.tensor([[1.0, 2.0], [2.0, 1.0]]), "negative eigenvalue -1"),
    ]:
        with pytest.raises(ValueError, match=message):
            CovarianceMixture([[0.0, 0.0]], covariances)


def test_bad_questions_are_errors_that_name_the_value():
    mixture, t = MIXTURES["ring"], SCHEDULES["linear"].at(500)
    x = points(mixture, 3)
    for bad, message in [(2, "label 2.*labels \\[0, 1\\]"), (torch.tensor([0, 1]), "batch of 3")]:
        with pytest.raises(ValueError, match=message):
            mixture(x, t, bad)
    with pytest.raises(ValueError, match="label 5"):
        mixture.sample(3, y=5)
    with pytest.raises(ValueError, match=r"points \(3,\)"):
        mixture(torch.randn(4, 3), t)


def test_a_million_to_one_weights_are_normalised():
    mixture = Mixture([[0.0], [1.0]], 1.0, weights=[1e6, 1e6])
    assert mixture.log_weights.tolist() == pytest.approx([math.log(0.5)] * 2)
