"""Laws of guidance that a network has learnt: one call with omega in the place of two without."""

from functools import partial

import pytest
import torch
from test_networks import awake
from worlds import MIXTURES, SCHEDULES, points

from didiff import Denoiser, Prediction, guidance
from didiff.networks import MLP, UNet
from didiff.training import recipes, weights
from didiff.training.distillation import distilling, random_scales

RING, T400 = MIXTURES["ring"], SCHEDULES["linear"].at(400)
X, Y = points(RING, 6), torch.arange(6) % 2
SMALL = dict(shape=(1, 8, 8), channels=(4, 8), classes=3, patch=1)


def perfect(denoiser, x, t, y, omega):
    """A student that has learnt all there is to learn from `denoiser` as its teacher."""
    uncond, cond = denoiser(x, t), denoiser(x, t, y)
    omega = omega.reshape(-1, *[1] * (x.ndim - 1))
    return Prediction(*(u + omega * (c - u) for u, c in zip(uncond, cond, strict=True)))


@pytest.mark.parametrize("omega", [0.0, 1.0, 2.5, torch.linspace(0, 5, 6).double()])
@pytest.mark.parametrize("y", [1, Y])
def test_a_perfect_student_says_in_one_call_what_guidance_says_in_two(omega, y):
    one = guidance.learned(partial(perfect, RING), y, omega)(X, T400)
    for k in range(len(X)):
        scale, label = (v[k] if isinstance(v, torch.Tensor) else v for v in (omega, y))
        two = guidance.classifier_free(RING, label, float(scale))(X[k : k + 1], T400)
        torch.testing.assert_close(tuple(v[k : k + 1] for v in one), tuple(two), rtol=0, atol=1e-9)


def test_a_scale_that_is_no_number_is_an_error():
    with pytest.raises(ValueError, match="omega = nan must be a finite number"):
        guidance.learned(RING, 0, float("nan"))


def test_a_student_starts_as_its_teacher_whatever_omega_it_is_told():
    teacher, student = UNet(**SMALL), UNet(**SMALL, guided=True)
    awake(teacher)
    lacking = student.load_state_dict(teacher.state_dict(), strict=False)
    assert {name.split(".")[1] for name in lacking.missing_keys} == {"scale"}
    assert not lacking.unexpected_keys
    x, clock, y = torch.randn(4, 1, 8, 8), torch.rand(4), torch.arange(4) % 3
    for omega in (None, torch.zeros(4), torch.linspace(0, 10, 4)):
        assert torch.equal(student(x, clock, y, omega), teacher(x, clock, y))


def test_omega_matters_to_each_sample_for_itself_and_none_is_one():
    net = awake(UNet(**SMALL, guided=True))
    x, clock, y = torch.randn(3, 1, 8, 8), torch.rand(3), torch.arange(3)
    one, other = (net(x, clock, y, torch.tensor(omega)) for omega in ([1.0, 1, 1], [1.0, 4, 1]))
    torch.testing.assert_close(net(x, clock, y), one)
    assert ((one - other).flatten(1).abs().max(1).values > 1e-3).tolist() == [False, True, False]


@pytest.mark.parametrize("net", [UNet(**SMALL), MLP((1, 8, 8), 8, 1, classes=3)])
def test_a_network_that_has_not_learnt_guidance_says_so(net):
    x, t = torch.randn(2, 1, 8, 8), recipes.SCHEDULE.at(500)
    with pytest.raises(ValueError, match="learnt no guidance scale"):
        guidance.learned(Denoiser(net), 1, 2.0)(x, t)


def test_the_loss_of_a_student_is_zero_for_a_perfect_one_and_grows_with_the_scale_it_misses():
    teacher = Denoiser(awake(UNet(**SMALL)), "v", 0.6)
    x0, y = torch.randn(64, 1, 8, 8), torch.arange(64) % 3

    def loss_of(change):
        def student(x, t, y, omega):
            return perfect(teacher, x, t, y, change(omega))

        student.target, student.sigma_data = "v", 0.6
        torch.manual_seed(1)
        return distilling(teacher, recipes.SCHEDULE)(student, x0, y).mean().item()

    assert loss_of(lambda omega: omega) < 1e-9
    near, far = loss_of(lambda omega: omega + 0.5), loss_of(lambda omega: omega + 1.0)
    assert near > 1e-6
    assert far == pytest.approx(4 * near, rel=1e-3)  # the guided pair is linear in omega
    torch.manual_seed(1)
    with_labels, without = (
        distilling(teacher, recipes.SCHEDULE)(teacher_at_one(teacher), x0, labels).mean()
        for labels in (y, torch.full_like(y, -1))
    )
    assert with_labels > without + 1e-6  # without a label there is nothing to push towards


def test_a_student_is_asked_at_one_a_quarter_of_the_time_and_at_small_scales_more_often():
    n = 40_000
    omega = random_scales(n, 10.0)
    assert 0 <= omega.min() < 0.01
    assert 9.99 < omega.max() <= 10
    for below, share in ((1 - 1e-6, 0.1**0.5), (2.5, 0.5), (6.4, 0.8)):  # P(10 u^2 < s)
        expected = 0.75 * share + 0.25 * (below >= 1)
        near = 5 * (expected * (1 - expected) / n) ** 0.5  # five standard deviations of a share
        assert (omega <= below).double().mean().item() == pytest.approx(expected, abs=near)
    assert (omega == 1).double().mean().item() == pytest.approx(0.25, abs=5 * (0.1875 / n) ** 0.5)


def test_errors_at_large_scales_count_less():
    seen = []

    def student(x, t, y, omega):
        seen.extend([omega, RING(x, t, y).x0 - RING(x, t).x0])
        return perfect(RING, x, t, y, omega + 1)

    student.target = "x0"
    losses = distilling(RING, recipes.SCHEDULE, largest=5.0)(student, *RING.sample(4000))
    omega, push = seen
    torch.testing.assert_close(losses, push.square().mean(1) / (1 + omega))
    assert 4.9 < omega.max() <= 5


def test_a_teacher_learns_nothing():
    def student(x, t, y, omega):
        return Prediction(x, x)

    student.target, teacher = "x0", Denoiser(awake(UNet(**SMALL)))
    x0, y = torch.randn(3, 1, 8, 8), torch.arange(3)
    assert not distilling(teacher, recipes.SCHEDULE)(student, x0, y).requires_grad


def teacher_at_one(teacher):
    """A student that does not listen to omega."""

    def student(x, t, y, omega):
        return teacher(x, t, y)

    student.target, student.sigma_data = teacher.target, teacher.sigma_data
    return student


def test_a_model_is_guided_in_the_way_it_has_learnt():
    calls = []

    class Counting(UNet):
        def forward(self, x, clock, y=None, omega=None):
            calls.append((len(x), None if omega is None else omega.unique().tolist()))
            return super().forward(x, clock, y, omega)

    x, t, y = torch.randn(3, 1, 8, 8), recipes.SCHEDULE.at(500), torch.arange(3)
    for guided in (False, True):
        denoiser = Denoiser(Counting(**SMALL, guided=guided))
        recipes.guidance_of(denoiser)(denoiser, y, 2.0)(x, t)
    assert calls == [(6, None), (3, [2.0])]


def test_the_shipped_student_draws_what_its_teacher_draws_and_at_no_other_scale():
    y = torch.arange(20) % 10
    student, teacher = weights.load("mnist_guided"), weights.load("mnist")
    drawn = recipes.sample(student, y, 2.0, steps=4)
    apart = {
        omega: (drawn - recipes.sample(teacher, y, omega, steps=4)).abs().mean().item()
        for omega in (0.0, 1.0, 2.0, 5.0)
    }
    assert min(apart, key=apart.get) == 2.0
    assert apart[2.0] < 0.5 * min(apart[1.0], apart[5.0])
