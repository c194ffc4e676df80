"""From a network to a classifier that knows noise: what guidance differentiates."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .denoiser import network_input
from .mixtures import as_classes
from .process import NoiseLevel, add_noise, floats


class Classifier(nn.Module):
    """A network as a classifier of noisy points: log p(y | xt).

    net: (x, clock (B,) in [0, 1]) -> logits (B, classes), and `net.features` of the same arguments.
    sigma_data: standard deviation of the data, as in `Denoiser`. Whether it knows noise is a
    question of what it was trained on; one that does not is told the level of clean data.
    Lesson: 10_classifier_guidance.
    """

    net: Any

    def __init__(self, net: nn.Module, sigma_data: float = 1.0):
        super().__init__()
        self.net, self.sigma_data = net, float(sigma_data)  # of a tensor such as x.std() too

    def class_log_prob(self, x: Tensor, t: NoiseLevel) -> Tensor:
        """log p(y | xt) of every class, (B, classes), as `Mixture.class_log_prob` gives it."""
        return F.log_softmax(self.net(*network_input(x, t, self.sigma_data)), 1)

    def features(self, x: Tensor, t: NoiseLevel) -> Tensor:
        """What the last layer of the network reads, (B, features)."""
        return self.net.features(*network_input(x, t, self.sigma_data))


def cross_entropy(classifier, x0: Tensor, t: NoiseLevel, y: Tensor, eps=None) -> Tensor:
    """-log p(y | xt) for each sample, (B,), at xt = signal * x0 + noise * eps; eps: drawn if None.

    Taught at the levels that a sampler visits, a classifier is a noise-aware one.
    Raises ValueError for a label that the classifier does not know.
    Source: Dhariwal & Nichol 2021, sec. 4; L6-57. Lesson: 10_classifier_guidance.
    """
    eps = torch.randn_like(floats(x0)) if eps is None else eps
    log_prob = classifier.class_log_prob(add_noise(x0, eps, t), t)
    y = as_classes(y, log_prob)
    return -log_prob.gather(1, y[:, None])[:, 0]
