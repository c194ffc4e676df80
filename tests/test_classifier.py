"""Laws of a network as a classifier, against exact posteriors and finite differences."""

import pytest
import torch
from worlds import MIXTURES, SCHEDULES, points

from didiff import guidance
from didiff.classifier import Classifier, cross_entropy
from didiff.networks import ConvNet
from didiff.process import add_noise, from_eps


@pytest.fixture
def classifier():
    torch.manual_seed(0)
    return Classifier(ConvNet((1, 8, 8), (16, 32), classes=3, patch=1), sigma_data=0.5)


def test_the_probabilities_of_all_classes_add_up_to_one(classifier):
    x = torch.randn(5, 1, 8, 8)
    for t in (SCHEDULES["linear"].at(500), SCHEDULES["linear"].at([1, 10, 100, 500, 1000])):
        total = classifier.class_log_prob(x, t).exp().sum(1)
        torch.testing.assert_close(total, torch.ones(5))


def test_it_is_told_the_level_and_shown_inputs_of_unit_variance(classifier):
    seen = []
    classifier.net.register_forward_pre_hook(lambda net, arguments: seen.append(arguments))
    for k in (0, 300, 1000):
        t = SCHEDULES["linear"].at(k)
        x = add_noise(0.5 * torch.randn(200, 1, 8, 8), torch.randn(200, 1, 8, 8), t)
        classifier.class_log_prob(x, t)
        shown, clock = seen.pop()
        assert (clock == t.clock.float()).all()
        assert shown.var().item() == pytest.approx(1, abs=4 * (2 / shown.numel()) ** 0.5)


def test_cross_entropy_is_minus_the_log_probability_of_the_label_at_the_noisy_point():
    """An exact posterior in the place of the network: two classes at -1 and 1, std s."""
    mixture, t = MIXTURES["two classes"], SCHEDULES["linear"].at(300)
    x0, eps, y = points(mixture, 50), points(mixture, 50, seed=1), torch.arange(50) % 2
    xt = add_noise(x0, eps, t)
    joint = torch.stack([mixture.log_prob(xt, t, torch.full((50,), c)) for c in (0, 1)], 1)
    expected = joint.logsumexp(1) - joint.gather(1, y[:, None])[:, 0]
    got = cross_entropy(mixture, x0, t, y, eps)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-9)


def test_the_wish_for_a_class_is_its_column_for_one_label_and_for_a_label_each():
    mixture, t = MIXTURES["ring"], SCHEDULES["linear"].at(300)
    x = points(mixture, 6)
    table = mixture.class_log_prob(x, t)
    assert torch.equal(guidance.log_prob_of(mixture, 1)(x, t), table[:, 1])
    y = torch.tensor([0, 1, 0, 0, 1, 1])
    assert torch.equal(guidance.log_prob_of(mixture, y)(x, t), table[torch.arange(6), y])


def no_noise(x, t):
    """A denoiser that takes every point for data."""
    return from_eps(x, t, torch.zeros_like(x))


def test_guidance_by_a_network_follows_its_finite_differences(classifier):
    classifier.double()
    for parameter in classifier.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    t, x = SCHEDULES["cosine"].at(400), torch.randn(2, 1, 8, 8, dtype=torch.float64)
    y, direction = torch.tensor([0, 2]), torch.randn(2, 1, 8, 8, dtype=torch.float64)
    wish = guidance.log_prob_of(classifier, y)
    eps = guidance.classifier(no_noise, wish, 1.0)(x, t).eps
    slope = -(eps / t.noise * direction).flatten(1).sum(1)
    h = 1e-5
    measured = (wish(x + h * direction, t) - wish(x - h * direction, t)) / (2 * h)
    torch.testing.assert_close(slope, measured, rtol=0, atol=1e-6)
    assert slope.abs().min() > 1e-4
