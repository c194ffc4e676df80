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
    """Untrained, but for the layers that begin at zero: they would not hear the level."""
    torch.manual_seed(0)
    net = ConvNet((1, 8, 8), (16, 32), classes=3, patch=1)
    for parameter in net.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return Classifier(net, sigma_data=0.5)


def test_the_probabilities_of_all_classes_add_up_to_one(classifier):
    x = torch.randn(5, 1, 8, 8)
    for t in (SCHEDULES["linear"].at(500), SCHEDULES["linear"].at([1, 10, 100, 500, 1000])):
        total = classifier.class_log_prob(x, t).exp().sum(1)
        torch.testing.assert_close(total, torch.ones(5))


def test_what_it_says_is_what_its_network_says_of_inputs_in_units_of_the_data(classifier):
    x, t = torch.randn(3, 1, 8, 8), SCHEDULES["linear"].at([1, 400, 1000])
    shown = torch.stack([
        x[i] / ((t.signal[i] * 0.5) ** 2 + t.noise[i] ** 2).sqrt().float() for i in range(3)
    ])  # fmt: skip
    clock = t.clock.float()
    logits = classifier.net(shown, clock)
    wanted = logits - logits.logsumexp(1, keepdim=True)
    torch.testing.assert_close(classifier.class_log_prob(x, t), wanted)
    torch.testing.assert_close(classifier.features(x, t), classifier.net.features(shown, clock))
    assert Classifier(classifier.net).sigma_data == 1
    pixels = (100 * x.abs()).to(torch.uint8)
    wanted = classifier.class_log_prob(pixels.float(), t)
    assert torch.equal(classifier.class_log_prob(pixels, t), wanted)


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
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)
    assert torch.equal(cross_entropy(mixture, x0, t, y.to(torch.uint8), eps), got)
    assert torch.equal(cross_entropy(mixture, x0, t, y.tolist(), eps), got)
    for bad in (2, -1):
        with pytest.raises(ValueError, match=f"{bad}: this classifier knows 0..1"):
            cross_entropy(mixture, x0, t, torch.full((50,), bad), eps)


def test_cross_entropy_draws_fresh_noise_of_unit_variance():
    seen, n = [], 40_000

    class Witness:
        def class_log_prob(self, x, t):
            seen.append(x)
            return torch.zeros(len(x), 2)

    t = SCHEDULES["linear"].at(300)
    for x0 in (torch.full((n, 1), 3.0), torch.full((n, 1), 3)):  # integers are as good
        cross_entropy(Witness(), x0, t, torch.zeros(n).long())
    for xt in seen:
        eps = (xt - 3 * t.signal) / t.noise
        assert eps.mean().item() == pytest.approx(0, abs=5 / n**0.5)
        assert eps.var().item() == pytest.approx(1, abs=5 * (2 / n) ** 0.5)
    assert not torch.equal(*seen)


def test_the_wish_for_a_class_is_its_column_for_one_label_and_for_a_label_each():
    mixture, t = MIXTURES["ring"], SCHEDULES["linear"].at(300)
    x = points(mixture, 6)
    table = mixture.class_log_prob(x, t)
    assert torch.equal(guidance.log_prob_of(mixture, 1)(x, t), table[:, 1])
    y = torch.tensor([0, 1, 0, 0, 1, 1])
    for labels in (y, y.to(torch.uint8), y.tolist()):
        assert torch.equal(guidance.log_prob_of(mixture, labels)(x, t), table[torch.arange(6), y])
    for bad in (2, -1):
        with pytest.raises(ValueError, match=rf"labels {bad}\.\.{bad}: this classifier knows 0..1"):
            guidance.log_prob_of(mixture, bad)(x, t)


def no_noise(x, t):
    """A denoiser that takes every point for data."""
    return from_eps(x, t, torch.zeros_like(x))


def test_guidance_by_a_network_follows_its_finite_differences(classifier):
    classifier.double()
    t, x = SCHEDULES["cosine"].at(400), torch.randn(2, 1, 8, 8, dtype=torch.float64)
    y, direction = torch.tensor([0, 2]), torch.randn(2, 1, 8, 8, dtype=torch.float64)
    wish = guidance.log_prob_of(classifier, y)
    eps = guidance.classifier(no_noise, wish, 1.0)(x, t).eps
    slope = -(eps / t.noise * direction).flatten(1).sum(1)
    h = 1e-5
    measured = (wish(x + h * direction, t) - wish(x - h * direction, t)) / (2 * h)
    torch.testing.assert_close(slope, measured, rtol=0, atol=1e-8)
    assert slope.abs().min() > 1e-4
