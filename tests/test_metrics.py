"""Laws of the metrics: against closed forms, and against tricks that should not raise a score."""

import math

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
import torch
import torch.nn.functional as F

from didiff import networks
from didiff.classifier import Classifier
from didiff.data import digits
from didiff.training import metrics
from tests.emulations import elsewhere

# -- distances --------------------------------------------------------------------------------


def test_wasserstein_is_what_scipy_computes_also_for_samples_of_different_size():
    a, b = torch.randn(173).double(), torch.randn(58).double() * 2 + 1
    expected = scipy.stats.wasserstein_distance(a.numpy(), b.numpy())
    assert metrics.wasserstein_1d(a, b) == pytest.approx(expected, abs=1e-12)


def test_wasserstein_of_equal_sizes_is_the_mean_distance_of_sorted_pairs():
    a, b = torch.randn(2, 500).double()
    paired = (a.sort().values - b.sort().values).abs().mean().item()
    assert metrics.wasserstein_1d(a, b) == pytest.approx(paired, abs=1e-12)


def test_wasserstein_of_a_shift_is_the_shift():
    a = torch.randn(400).double()
    assert metrics.wasserstein_1d(a, a + 0.7) == pytest.approx(0.7, abs=1e-12)
    assert metrics.wasserstein_1d(a, a) == 0


def test_energy_distance_is_its_definition_typed_anew():
    x, y = torch.randn(9, 2, 3).double(), torch.randn(14, 2, 3).double() + 0.5

    def mean(a, b):
        pairs = [(i, j) for i in range(len(a)) for j in range(len(b)) if a is not b or i != j]
        return sum((a[i] - b[j]).norm().item() for i, j in pairs) / len(pairs)

    expected = 2 * mean(x, y) - mean(x, x) - mean(y, y)
    assert metrics.energy_distance(x, y) == pytest.approx(expected, abs=1e-12)


def test_energy_distance_in_one_dimension_is_the_area_between_the_distribution_functions():
    # 2 * integral (F - G)^2, here for N(0, 1) against N(1, 1), on a grid
    z = torch.linspace(-9, 10, 20001).double()
    gap = torch.special.ndtr(z) - torch.special.ndtr(z - 1)
    exact = 2 * torch.trapezoid(gap**2, z).item()
    x, y = torch.randn(4000, 1), torch.randn(4000, 1) + 1
    # 4 standard errors: the kernel mean E|x' - y| - E|x' - x| as a function of one point has a
    # standard deviation below 0.6, and two samples of 4000 add up
    assert metrics.energy_distance(x, y) == pytest.approx(
        exact, abs=4 * 2 * 0.6 * (2 / 4000) ** 0.5
    )


def test_energy_distance_is_unbiased():
    runs = torch.tensor(
        [metrics.energy_distance(torch.randn(8, 2), torch.randn(8, 2)) for _ in range(400)]
    )
    assert abs(runs.mean()) < 4 * runs.std() / 20  # a biased one is off by 2 E|x - x'| / 8 = 0.44


def test_energy_distance_in_chunks_is_the_same(monkeypatch):
    x, y = torch.randn(50, 4), torch.randn(33, 4)
    whole = metrics.energy_distance(x, y)
    monkeypatch.setattr(metrics, "_LARGEST_TABLE", 70)
    tables, distance = [], torch.cdist

    def noted(a, b, **options):
        tables.append(len(a) * len(b))
        return distance(a, b, **options)

    monkeypatch.setattr(torch, "cdist", noted)
    assert metrics.energy_distance(x, y) == pytest.approx(whole, abs=1e-12)
    assert max(tables) <= 70


# -- devices and types ------------------------------------------------------------------------


def test_a_device_without_float64_is_measured_as_the_cpu_is():
    x, y, labels = torch.randn(20, 3), torch.randn(30, 3), torch.arange(20) % 2
    there, other, classes = map(elsewhere, (x, y, labels))
    assert metrics.energy_distance(there, other) == metrics.energy_distance(x, y)
    far = metrics.wasserstein_1d(there[:, 0], other[:, 0])
    assert far == metrics.wasserstein_1d(x[:, 0], y[:, 0])
    for given in ((there,), (there, classes), (there, labels)):
        expected = metrics.moments(x, *[labels] * (len(given) - 1))
        assert all(map(torch.equal, metrics.moments(*given), expected))
    images, y = digits("train")
    for measure in metrics.recognised, metrics.diversity:
        assert measure(elsewhere(images), elsewhere(y)) == measure(images, y)


@pytest.mark.parametrize("kind", [torch.uint8, torch.int8, torch.int32, list])
def test_labels_may_be_whole_numbers_of_any_kind(kind):
    x, y = digits("train")
    given = y.tolist() if kind is list else y.to(kind)
    for measure in metrics.recognised, metrics.diversity:
        assert measure(x, given) == measure(x, y)
    features = x.flatten(1)[:, 10:13]
    assert all(map(torch.equal, metrics.moments(features, given), metrics.moments(features, y)))


def test_distances_are_taken_in_float64_whatever_the_points_are():
    x, y = 100 + torch.randn(40, 2), 100 + torch.randn(30, 2)
    assert metrics.energy_distance(x, y) == metrics.energy_distance(x.double(), y.double())
    a, b = x[:, 0], y[:, 0]
    assert metrics.wasserstein_1d(a, b) == metrics.wasserstein_1d(a.double(), b.double())


def test_energy_distance_does_not_depend_on_where_the_points_are():
    # multiplied out, squares of 1e12 would leave errors of 1e-2 in the distances
    x, y = torch.randn(40, 2).double(), torch.randn(30, 2).double() + 1
    there = metrics.energy_distance(x + 1e6, y + 1e6)
    assert there == pytest.approx(metrics.energy_distance(x, y), abs=1e-8)


# -- the judge --------------------------------------------------------------------------------


def test_the_judge_reads_the_half_it_never_saw():
    assert metrics.recognised(*digits("train")) >= 0.98


def test_the_judge_never_sees_the_half_that_generators_learn_from(monkeypatch):
    asked = []
    monkeypatch.setattr(metrics, "digits", lambda split: asked.append(split) or digits(split))
    metrics.judge.__wrapped__()
    assert asked == ["test"]


def test_the_judge_falls_to_chance_where_labels_or_images_mean_nothing():
    x, y = digits("train")
    wrong = (y + 1) % 10
    assert metrics.recognised(x, wrong) < 0.01
    noise = torch.randn(1000, 1, 8, 8)
    shuffled = torch.randint(10, (1000,))
    assert metrics.recognised(noise, shuffled) == pytest.approx(0.1, abs=4 * (0.09 / 1000) ** 0.5)


def test_the_judge_sees_what_a_screen_shows():
    x, y = digits("train")
    assert metrics.recognised(3 * x, y) == metrics.recognised((3 * x).clamp(-1, 1), y)


def test_one_label_serves_for_all_images():
    x, y = digits("train")
    threes = x[y == 3]
    assert metrics.recognised(threes, 3) == metrics.recognised(threes, torch.full([len(threes)], 3))


# -- diversity --------------------------------------------------------------------------------


def test_diversity_of_real_digits_is_one_and_of_each_half_nearly():
    assert metrics.diversity(*digits("all")) == pytest.approx(1, abs=1e-12)
    for half in "train", "test":
        assert metrics.diversity(*digits(half)) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("contrast", [2, 5, 20])
@pytest.mark.parametrize("pivot", [-0.4, 0, 0.3])
def test_diversity_cannot_be_raised_by_saturation_as_the_spread_of_pixels_can(contrast, pivot):
    x, y = digits("train")
    saturated = (pivot + contrast * (x - pivot)).clamp(-1, 1)

    def spread(images):
        return torch.stack([images[y == c].std(0).mean() for c in range(10)]).mean().item()

    assert spread(saturated) > 1.1 * spread(x)  # the trap: no image was added
    change = metrics.diversity(saturated, y) / metrics.diversity(x, y) - 1
    assert abs(change) < (1e-12 if pivot == 0 else 0.03)


def test_diversity_of_collapsed_classes_is_zero():
    x, y = digits("train")
    first = torch.stack([x[y == c][0] for c in range(10)])
    assert metrics.diversity(first[y], y) == 0


def test_diversity_counts_within_classes_only():
    x, y = digits("all")
    means = torch.stack([x[y == c].mean(0) for c in range(10)])
    mixed = torch.cat([means, means])
    assert metrics.diversity(mixed, torch.arange(20) % 10) == 0  # ten different pictures, twice


def test_diversity_halves_when_every_second_image_is_a_copy_of_one():
    x, y = digits("all")
    threes = x[y == 3].clone()
    full = metrics.diversity(threes, 3)
    assert full == pytest.approx(1, abs=1e-12)
    threes[::2] = threes[0]
    assert 0.4 < metrics.diversity(threes, 3) < 0.9


def test_diversity_is_unbiased_for_a_handful_of_images():
    x, y = digits("all")
    fives = x[y == 5]
    few = torch.tensor(
        [metrics.diversity(fives[torch.randperm(len(fives))[:4]], 5) for _ in range(300)]
    )
    assert few.mean() == pytest.approx(1, abs=4 * few.std().item() / 300**0.5)


def test_diversity_of_single_images_is_undefined_and_they_do_not_disturb_the_others():
    x, y = digits("all")
    one_each = torch.stack([x[y == c][0] for c in range(10)])
    assert math.isnan(metrics.diversity(one_each, torch.arange(10)))
    both = torch.cat([x[y == 3], one_each[:1]]), torch.cat([y[y == 3], torch.tensor([0])])
    assert metrics.diversity(*both) == metrics.diversity(x[y == 3], 3)


# -- Fréchet distance -------------------------------------------------------------------------


def random_moments(seed: int, size: int = 5) -> metrics.Moments:
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(size, size, generator=generator, dtype=torch.float64)
    return metrics.Moments(torch.randn(size, generator=generator).double(), root @ root.T)


def test_frechet_distance_is_that_of_scipys_matrix_root():
    a, b = random_moments(1), random_moments(2)
    root = scipy.linalg.sqrtm(a.covariance.numpy() @ b.covariance.numpy())
    expected = (a.mean - b.mean).square().sum() + (a.covariance + b.covariance).trace()
    expected -= 2 * np.trace(root).real
    assert metrics.frechet_distance(a, b) == pytest.approx(float(expected), abs=1e-8)
    assert metrics.frechet_distance(b, a) == pytest.approx(float(expected), abs=1e-8)


def test_frechet_distance_of_equal_laws_is_zero_and_of_a_shift_its_square():
    a = random_moments(3)
    assert metrics.frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    moved = a._replace(mean=a.mean + torch.tensor([3.0, 4.0, 0, 0, 0]))
    assert metrics.frechet_distance(a, moved) == pytest.approx(25, abs=1e-8)


def test_frechet_distance_of_widths_is_the_square_of_their_difference():
    """Also where a direction has no width at all, in which a matrix root would give nan."""
    narrow, wide = (torch.diag(torch.tensor(v).double() ** 2) for v in ([1.0, 0.0], [3.0, 0.0]))
    zero = torch.zeros(2, dtype=torch.float64)
    distance = metrics.frechet_distance(metrics.Moments(zero, narrow), metrics.Moments(zero, wide))
    assert distance == pytest.approx(4, abs=1e-9)


def test_frechet_distance_of_fewer_points_than_features_is_a_number():
    # what should be a zero among the eigenvalues is often a little less
    for seed in range(6):
        torch.manual_seed(seed)
        a, b = (metrics.moments(torch.randn(n, 6).double()) for n in (4, 5))
        product = (a.covariance @ b.covariance).numpy()
        root = np.linalg.eigvals(product).real.clip(0) ** 0.5
        traces = (a.covariance + b.covariance).trace()
        expected = (a.mean - b.mean).square().sum() + traces - 2 * root.sum()
        assert metrics.frechet_distance(a, b) == pytest.approx(float(expected), abs=1e-6)


def test_moments_are_numpys():
    features = torch.randn(50, 3)
    seen = metrics.moments(features)
    np.testing.assert_allclose(seen.mean, features.numpy().mean(0), atol=1e-6)
    np.testing.assert_allclose(seen.covariance, np.cov(features.numpy().T), atol=1e-6)


def test_classes_count_alike_in_moments_however_many_they_have():
    y = torch.tensor([0] * 30 + [1] * 10)
    features = torch.randn(40, 3, dtype=torch.float64)
    features[y == 1] += 4
    seen = metrics.moments(features, y)
    middle = (features[y == 0].mean(0) + features[y == 1].mean(0)) / 2
    np.testing.assert_allclose(seen.mean, middle, atol=1e-12)
    expected = np.cov(features.numpy().T, aweights=np.where(y == 0, 1, 3))
    np.testing.assert_allclose(seen.covariance, expected, atol=1e-12)


# -- the judge of MNIST -----------------------------------------------------------------------


@pytest.fixture
def mnist_judge(monkeypatch):
    """A judge that reads the class off the first pixel, and whose features are two pixels."""

    class Pixels:
        net = networks.Judge((1, 28, 28), (16, 2))

        def class_log_prob(self, x, t):
            return F.one_hot(((x[:, 0, 0, 0] + 1) * 5).long().clamp(0, 9), 10).float().log()

        def features(self, x, t):
            return x[:, 0, 0, :2]

    judge = Pixels()
    monkeypatch.setattr(metrics, "mnist_judge", lambda: judge)
    return judge


def test_the_judge_of_mnist_is_the_shipped_one_which_guides_nothing(monkeypatch):
    monkeypatch.setattr(metrics, "load", lambda name: name)
    assert metrics.mnist_judge.__wrapped__() == "mnist_judge"


def test_large_images_are_read_by_the_judge_of_mnist(mnist_judge):
    y = torch.arange(30) % 10
    x = torch.full((30, 1, 28, 28), -1.0)
    x[:, 0, 0, 0] = (y + 0.5) / 5 - 1
    assert metrics.recognised(x, y) == 1
    x[:3] = 7.0  # beyond the screen: white is a nine here
    assert metrics.recognised(x, y) == 27 / 30


def test_a_judge_compares_with_what_it_remembers(mnist_judge):
    x, y = 0.2 * torch.randn(2000, 1, 28, 28).clamp(-4, 4), torch.arange(2000) % 10
    metrics.remember(mnist_judge, x, y)
    assert metrics.frechet(x) == pytest.approx(0, abs=1e-6)
    moved = x.clone()
    moved[:, 0, 0, 0] += 0.1
    assert metrics.frechet(moved) == pytest.approx(0.01, abs=1e-6)
    assert metrics.diversity(x, y) == pytest.approx(1, abs=1e-6)
    assert metrics.diversity(x[y], y) == 0  # one image a class, each shown two hundred times


def test_a_judge_sees_what_a_screen_shows_and_a_thousand_images_in_parts(mnist_judge, monkeypatch):
    x, asked = 3 * torch.randn(7, 1, 28, 28), []
    see = mnist_judge.features

    def noted(part, t):
        asked.append((len(part), t))
        return see(part, t)

    mnist_judge.features = noted
    monkeypatch.setattr(metrics, "AT_ONCE", 3)
    assert torch.equal(metrics.features(x), x[:, 0, 0, :2].clamp(-1, 1))
    assert [size for size, _ in asked] == [3, 3, 1]
    assert all((t.signal, t.noise) == (1, 0) for _, t in asked)  # a picture is clean


def test_a_judge_is_asked_without_gradients_and_remembers_where_it_is():
    judge = Classifier(networks.Judge((1, 28, 28), (16, 4))).eval()
    x, y = torch.rand(40, 1, 28, 28) * 2 - 1, torch.arange(40) % 10
    assert not metrics.in_parts(judge.features, x).requires_grad
    metrics.remember(judge, x, y)
    seen = judge.features(x, metrics.CLEAN).double()
    torch.testing.assert_close(metrics.remembered(judge).mean, seen.mean(0), atol=1e-6, rtol=0)
    torch.testing.assert_close(
        metrics.remembered(judge).covariance, seen.T.cov(), atol=1e-6, rtol=0
    )
    ink = (x.flatten(1) > 0).double()
    spread = torch.stack([ink[y == k].var(0).mean() for k in range(10)])
    torch.testing.assert_close(judge.net.spread.double(), spread, atol=1e-6, rtol=0)
    assert metrics.device_of(judge) == torch.device("cpu")
    assert metrics.device_of(judge.to("meta")) == torch.device("meta")
    assert metrics.device_of(lambda x, t: x) == torch.device("cpu")


def test_a_wrong_mix_of_classes_is_far_from_what_a_judge_remembers(mnist_judge):
    """The set it remembers is uneven, as MNIST is; samples are even."""
    torch.manual_seed(0)
    y = torch.tensor([0] * 600 + [1] * 200)
    x = 0.1 * torch.randn(800, 1, 28, 28) + 0.8 * y[:, None, None, None]
    metrics.remember(mnist_judge, x, y)
    even = torch.cat([x[y == 0], x[y == 1].repeat(3, 1, 1, 1)])
    assert metrics.frechet(even) == pytest.approx(0, abs=1e-4)  # of the unbiased covariances
    # both coordinates of the mean are a quarter of 0.8 away, and the variances differ as well
    assert metrics.frechet(x) > 2 * 0.2**2


# -- bad input --------------------------------------------------------------------------------

IMAGES = torch.zeros(4, 1, 8, 8)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.wasserstein_1d(torch.zeros(3, 1), torch.zeros(3)), r"\(3, 1\)"),
        (lambda: metrics.wasserstein_1d(torch.zeros(3), torch.zeros(0)), r"\(0,\)"),
        (lambda: metrics.energy_distance(torch.zeros(3, 2), torch.zeros(3, 1)), r"\(2,\).*\(1,\)"),
        (lambda: metrics.energy_distance(torch.zeros(1, 2), torch.zeros(3, 2)), "1 and 3 points"),
        (lambda: metrics.recognised(IMAGES[:, 0], 3), r"\(4, 8, 8\): give \(B, 1, 8, 8\)"),
        (lambda: metrics.moments(IMAGES), r"\(4, 1, 8, 8\): give \(N, F\)"),
        (lambda: metrics.moments(torch.zeros(1, 3)), r"\(1, 3\): give \(N, F\), N >= 2"),
        (lambda: metrics.recognised(IMAGES[:0], 3), r"\(0, 1, 8, 8\)"),
        (lambda: metrics.recognised(IMAGES, 10), "10..10: digits are 0..9"),
        (lambda: metrics.diversity(IMAGES, -1), "-1..-1: digits are 0..9"),
        (lambda: metrics.diversity(IMAGES, torch.zeros(3)), r"labels of shape \(3,\) for 4"),
        (lambda: metrics.recognised(IMAGES, torch.zeros(4, 1)), r"labels of shape \(4, 1\) for 4"),
        (lambda: metrics.recognised(IMAGES, torch.zeros(4)), "labels of type torch.float32"),
        (
            lambda: metrics.moments(torch.zeros(4, 2), torch.zeros(4)),
            "labels of type torch.float32",
        ),
        (lambda: metrics.energy_distance(torch.zeros(3, 2), torch.zeros(1, 2)), "3 and 1 points"),
        (lambda: metrics.recognised(IMAGES, [0, 1, 2, 10]), "0..10: digits are 0..9"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
