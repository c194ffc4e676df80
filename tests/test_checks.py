"""Laws of the checks: the library passes, every mutant is rejected, every failure is a sentence."""

import inspect
import itertools
import pkgutil
import re
import textwrap

import pytest
import torch

from didiff import classifier, denoiser, guidance, mixtures, process, samplers, schedules, sde
from didiff.networks import unet
from didiff.notebook import checks, worlds
from didiff.process import Prediction
from didiff.training import loop


def mutant(function, old: str, new: str):
    """The library's function with one piece of its source replaced."""
    source = textwrap.dedent(inspect.getsource(function))
    assert old in source
    namespace = dict(vars(inspect.getmodule(function)))
    exec(re.sub("^@.*\n", "", source).replace(old, new, 1), namespace)
    return namespace[function.__name__]


def dotted(function) -> str:
    room = "didiff.training" if function.__module__ == loop.__name__ else function.__module__
    return f"{room}.{function.__qualname__}"


@pytest.mark.parametrize("name", checks.WORLDS)
def test_the_library_is_its_own_twin(name):
    checks.twin(name, pkgutil.resolve_name(name))


MUTANTS = [
    (process.add_noise, "signal * x0 + noise", "signal * x0 - noise"),
    (process.add_noise, "signal * x0 + noise * eps", "signal * x0 + noise**2 * eps"),
    (process.add_noise, "signal * x0 + noise * eps", "noise * x0 + signal * eps"),
    (schedules.linear, "(first, last, T", "(first, last + 1e-6, T"),
    (schedules.linear, "torch.linspace", "1 + 1e-7 * torch.linspace"),
    (schedules.linear, "torch.linspace", "torch.logspace"),
    (sde.wiener, "times.diff().sqrt() *", "times.diff() *"),
    (sde.wiener, "times.diff()", "times[1:].diff(prepend=0 * times[:1])"),
    (sde.wiener, "increments.cumsum(1)", "increments.cumsum(0)"),
    (sde.wiener, "increments.cumsum(1)", "increments"),
    (sde.reverse, "u = end - tau\n", "u = tau\n"),
    (sde.reverse, "u = end - tau\n", "u = 1 - tau\n"),
    (sde.reverse, "sde.diffusion(u) ** 2", "sde.diffusion(u)"),
    (sde.reverse, "sde.diffusion(u) ** 2", "sde.diffusion(tau) ** 2"),
    (sde.reverse, "- sde.drift", "+ sde.drift"),
    (sde.reverse, "diffusion(end - tau))", "diffusion(tau))"),
    (mixtures.Mixture.score, "-self", "self"),
    (mixtures.Mixture.score, ".eps /", ".eps *"),
    (mixtures.Mixture.score, ".eps / t.like(x).noise", ".eps"),
    (denoiser.loss, ".mean(1)", ".sum(1)"),
    (denoiser.loss, ".flatten(1).mean(1)", ".flatten(1).mean()"),
    (denoiser.loss, ".square()", ".abs()"),
    (denoiser.loss, "t, y)", "t)"),
    (denoiser.loss, "if eps is None else eps", "if True else eps"),
    (denoiser.loss, "torch.randn_like", "torch.rand_like"),
    (loop.drop_labels, "drawn < p", "drawn > p"),
    (loop.drop_labels, "NO_LABEL", "0"),
    (loop.drop_labels, "rand(y.shape", "rand(y.shape[:1]"),
    (samplers.ddim, "state.x0, eps, s)", "state.x0, eps, t)"),
    (samplers.ddim, "yield look(denoiser, x, s)", "yield look(denoiser, x, t)"),
    (samplers.ddpm, "(1 - new**2).sqrt() * state.eps", "(1 - new) * state.eps"),
    (samplers.ddpm, "(1 - new**2).sqrt() * state.eps", "state.eps"),
    (samplers.ddpm, "wide * new *", "wide * new**2 *"),
    (samplers.ddpm, "if s.noise > 0", "if s.noise > 0.3"),
    (samplers.heun, "/ 2, (here.eps", "/ 3, (here.eps"),
    (samplers.heun, "(here.eps + there.eps) / 2", "here.eps"),
    (samplers.dpm_solver_2m, "ratio / 2", "ratio"),
    (samplers.dpm_solver_2m, "x0 - before.x0", "x0 + before.x0"),
    (samplers.probability_flow, "3 * second", "4 * second"),
    (guidance.classifier, "- omega * t", "+ omega * t"),
    (guidance.classifier, "- omega * t", "- omega**2 * t"),
    (guidance.classifier, ".sum()", ".mean()"),
    (guidance.classifier, "t.like(x).noise", "t.like(x).noise ** 2"),
    (guidance.classifier_free, "omega * (c - u)", "omega * (u - c)"),
    (guidance.classifier_free, "u + omega", "c + omega"),
    (guidance.classifier_free, "u + omega", "u + omega**2"),
    (guidance.classifier_free, "(negative, x), _told(y", "(y, x), _told(negative"),
    (classifier.cross_entropy, "-log_prob", "log_prob"),
    (classifier.cross_entropy, "add_noise(x0, eps, t), t", "x0, t"),
    (classifier.cross_entropy, "gather(1, y[:, None])", "gather(1, 1 - y[:, None])"),
]


@pytest.mark.parametrize(("function", "old", "new"), MUTANTS)
def test_a_mutant_is_rejected_with_the_world_where_it_differs(function, old, new):
    with pytest.raises(AssertionError, match=rf"^{function.__name__} \w+ .*: (differs|shape)"):
        checks.twin(dotted(function), mutant(function, old, new))


def a_fit(old: str, new: str):
    """The lessons' loop of training, with one piece of it replaced."""
    source = textwrap.dedent(
        """\
        def fit(denoiser, losses, batches, steps, lr=1e-3):
            optimiser = torch.optim.Adam(denoiser.parameters(), lr)
            for step in range(1, steps + 1):
                value = losses(denoiser, *next(batches)).mean()
                optimiser.zero_grad()
                value.backward()
                optimiser.step()
                yield step, value.detach()
        """
    )
    assert old in source
    exec(source.replace(old, new, 1), namespace := {"torch": torch})
    return namespace["fit"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("optimiser.zero_grad()", "pass", r"fit with batches of 4 in 1 \[2\] \[1\]: differs by"),
        (").mean()", ").sum()", r"\[0\] \[1\]: differs by"),
        ("(), lr)", "())", r"\[1\] \[1\]: differs by"),
        ("optim.Adam", "optim.SGD", r"\[1\] \[1\]: differs by"),
        ("optimiser.step()", "pass", r"\[1\] \[1\]: differs by"),
        ("steps + 1", "steps", "gives 11 of them, the library 12"),
        ("range(1, steps + 1)", "range(steps)", r"\[0\] \[0\]: gives 0, not 1"),
        ("*next(batches)", "*(b if step > 1 else (b := next(batches)))", r"\[1\] \[1\]: differs"),
        ("*next(batches)", "next(batches)[0]", r"batches of 9 in 2 \[0\] \[1\]: differs by"),
        ("yield step, value.detach()", "yield value.detach()", "gives a tensor, not tuple"),
    ],
)
def test_a_loop_that_trains_otherwise_is_rejected(old, new, message):
    checks.twin("didiff.training.fit", a_fit("", ""))
    with pytest.raises(AssertionError, match=message):
        checks.twin("didiff.training.fit", a_fit(old, new))


def a_simulation(old: str, new: str):
    exec(
        textwrap.dedent(
            """\
            def simulate(sde, x, times):
                yield x
                for now, then in zip(times[:-1], times[1:]):
                    du, z = then - now, torch.randn(x.shape, dtype=x.dtype)
                    x = x + sde.drift(x, now) * du + sde.diffusion(now) * du.sqrt() * z
                    yield x
            """
        ).replace(old, new, 1),
        namespace := {"torch": torch},
    )
    return namespace["simulate"]


@pytest.mark.parametrize(
    ("old", "new", "where"),
    [
        ("du.sqrt() * z", "du * z", "of a pull"),
        ("drift(x, now)", "drift(x, then)", "with rates that change"),
        ("diffusion(now)", "diffusion(then)", "with rates that change"),
        ("(now) * du.sqrt()", "(now).sqrt() * du.sqrt()", "of a pull"),
        ("x = x + sde.drift(x, now) * du", "x = x - sde.drift(x, now) * du", "of a pull"),
        ("torch.randn(x.shape", "torch.randn(x.shape[:1]", "of a pull"),
        ("yield x\n", "pass\n", "of a pull"),
    ],
)
def test_a_simulation_that_steps_otherwise_is_rejected(old, new, where):
    checks.twin("didiff.sde.simulate", a_simulation("", ""))
    with pytest.raises(AssertionError, match=f"simulate {where} for points"):
        checks.twin("didiff.sde.simulate", a_simulation(old, new))


def densely(mixture, x, t, weights=None, std=None):
    """The score of a mixture on the line by autograd, with weights and std of one's own."""
    weights = mixture.log_weights.exp() if weights is None else weights
    std = mixture.std if std is None else std
    leaf = x.clone().requires_grad_()
    wide = ((t.signal * std) ** 2 + t.noise**2).sqrt()
    bumps = torch.distributions.Normal(t.signal * mixture.means.T, wide).log_prob(leaf)
    return torch.autograd.grad((weights.log() + bumps).logsumexp(1).sum(), leaf)[0]


def test_a_score_that_takes_all_bumps_for_alike_is_rejected():
    """In a mixture of equal weights and one std such a mistake hides."""
    checks.twin("didiff.mixtures.Mixture.score", densely)
    for ignored in ({"weights": torch.tensor([0.5, 0.5])}, {"std": torch.tensor(0.2)}):
        with pytest.raises(AssertionError, match=r"of unlike bumps .* differs by"):
            checks.twin(
                "didiff.mixtures.Mixture.score",
                lambda mixture, x, t, own=ignored: densely(
                    mixture, x, t, **(own if mixture.std[0] != mixture.std[1] else {})
                ),
            )


@pytest.mark.parametrize(
    ("part", "old", "new"),
    [
        (unet.Block, "shift, self.norm(self.conv1(h)), 1 + scale", "shift, self.conv1(h), scale"),
        (unet.Block, "1 + scale", "scale"),
        (unet.Block, "scale, shift =", "shift, scale ="),
        (unet.Block, "F.silu(inner)", "F.relu(inner)"),
        (unet.Block, "self.skip(h) + self.conv2", "self.conv2"),
        (unet.Attention, "flatten(1, 2)", "transpose(1, 2).flatten(1, 2)"),
        (unet.Attention, "q.shape[2] ** 0.5", "q.shape[3] ** 0.5"),
        (unet.Attention, "(3, self.heads, -1)).unbind(1)", "(self.heads, 3, -1)).unbind(2)"),
        (unet.Attention, "return h + ", "return "),
        (unet.Attention, "softmax(-1)", "softmax(-2)"),
        (unet.UNet.forward, "[h, bridge]", "[bridge, h]"),
        (unet.UNet.forward, "bridges[level] if self.skips else", "bridges[level] if True else"),
        (unet.UNet.forward, "self.middle(bridges[-1])", "bridges[-1]"),
        (unet.UNet.forward, "(clock, y, omega)", "(clock, None, omega)"),
        (unet.UNet.forward, "reversed(range(len(bridges)))", "(1, 0)"),
    ],
)
def test_a_mutant_of_a_part_of_a_network_is_rejected(part, old, new):
    with pytest.raises(AssertionError, match=r"differs by|of three levels: raises"):
        checks.twin(f"{unet.__name__}.{part.__qualname__}", mutant(part, old, new))


def test_a_part_with_other_layers_is_told_which():
    class Block(unet.Block):
        def __init__(self, inputs, outputs, width):
            super().__init__(inputs, outputs, width)
            self.time = self.told
            del self.told

    with pytest.raises(AssertionError, match=r"as the library does(.|\n)*told\.weight"):
        checks.twin("didiff.networks.unet.Block", Block)


def test_the_shifted_omega_of_the_lectures_is_rejected():
    def classifier_free(denoiser, y, omega):
        return guidance.classifier_free(denoiser, y, guidance.from_lecture_scale(omega))

    with pytest.raises(AssertionError, match="at omega = 0"):
        checks.twin("didiff.guidance.classifier_free", classifier_free)


# -- answers of another kind ------------------------------------------------------------------


def states(*arguments):
    return samplers.ddim(*arguments)


def noised(x0, eps, t):
    return process.add_noise(x0, eps, t)


TWO, ONE = torch.tensor([2]), torch.ones(1, 1, dtype=torch.float64)
WRONG = {  # an answer to add_noise, and what it is told
    "nothing": (lambda *a: None, r"gives nothing \(no return\?\), not a tensor"),
    "a number": (lambda *a: 1.0, "gives a number, not a tensor"),
    "a tuple": (lambda *a: (noised(*a),), "gives tuple, not a tensor"),
    "a list": (lambda *a: [noised(*a)], "gives a sequence, not a tensor"),
    "numpy": (lambda *a: noised(*a).numpy(), "gives ndarray, not a tensor"),
    "a function": (lambda *a: lambda x, t: x, "gives a function, not a tensor"),
    "a walk": (lambda *a: itertools.repeat(noised(*a)), "gives a sequence, not a tensor"),
    "complex": (lambda *a: noised(*a) + 0j, r"dtype torch\.complex128, not torch\.float64"),
    "single precision": (lambda *a: noised(*a).float(), r"dtype torch\.float32, not torch\.float"),
    "elsewhere": (lambda *a: noised(*a).to("meta"), "device meta, not cpu"),
    "one row": (lambda *a: noised(*a)[0], r"shape \(1,\), not \(5, 1\)"),
    "flat": (lambda *a: noised(*a).flatten(), r"shape \(5,\), not \(5, 1\)"),
    "wide": (lambda *a: noised(*a).expand(5, 5), r"shape \(5, 5\), not \(5, 1\)"),
    "a NaN": (lambda *a: noised(*a).index_fill(0, torch.tensor(2), torch.nan), "1 of 5 numbers"),
    "all NaN": (lambda *a: noised(*a) * torch.nan, "5 of 5 numbers are NaN or infinite"),
    "infinite": (lambda *a: noised(*a) / 0, "5 of 5 numbers are NaN or infinite"),
    "almost": (lambda *a: noised(*a) + 2e-9, "differs by up to 2e-09"),
    "one number": (lambda *a: noised(*a).index_add(0, TWO, -2e-9 * ONE), "differs by up to 2e-09"),
    "fails": (lambda x0, eps, t: t.colour, "raises AttributeError: .*colour"),
    "wants more": (lambda x0, eps: x0, "raises TypeError: .* 2 positional arguments but 3"),
    "not callable": (5, "raises TypeError: 'int' object is not callable"),
    "adds in place": (lambda x0, eps, t: noised(x0.add_(1) - 1, eps, t), "changes its argument 1"),
}


@pytest.mark.parametrize("name", WRONG)
def test_every_wrong_answer_is_told_in_a_sentence(name):
    answer, words = WRONG[name]
    with pytest.raises(AssertionError, match=f"^add_noise for points .* with one level: {words}"):
        checks.twin("didiff.process.add_noise", answer)


def test_what_rounding_does_is_accepted():
    checks.twin("didiff.process.add_noise", lambda *a: noised(*a) + 1e-10)


def broadcasting(x0, eps, t):
    """Right but for as many numbers as samples, where the level of a column is taken."""
    if x0.shape == (5, 5):
        return t.signal * x0 + t.noise * eps
    return noised(x0, eps, t)


def test_a_level_for_each_column_instead_of_each_sample_is_rejected():
    with pytest.raises(AssertionError, match=r"points \(5, 5\) with a level per sample: differs"):
        checks.twin("didiff.process.add_noise", broadcasting)


def test_a_step_that_divides_by_the_signal_is_rejected_at_pure_noise():
    step = "s.signal / t.signal * (x - t.noise * eps) + s.noise * eps"
    with pytest.raises(
        AssertionError, match=r"from pure noise, in the plane.* are NaN or infinite"
    ):
        checks.twin(
            "didiff.samplers.ddim", mutant(samplers.ddim, "add_noise(state.x0, eps, s)", step)
        )


def test_the_square_root_of_another_step_is_rejected():
    def wiener(times, paths):
        right = sde.wiener(times, paths)
        if paths != len(times) - 1:
            return right
        z = right.diff(dim=1) / times.diff().sqrt()
        return torch.cat([right[:, :1], (times.diff().sqrt()[:, None] * z).cumsum(1)], 1)

    with pytest.raises(AssertionError, match="with as many paths as steps: differs"):
        checks.twin("didiff.sde.wiener", wiener)


@pytest.mark.parametrize(
    ("walk", "words"),
    [
        (lambda *a: map(tuple, states(*a)), r" \[0\]: gives tuple, not State"),
        (lambda *a: (state.x for state in states(*a)), r" \[0\]: gives a tensor, not State"),
        (lambda *a: iter([None] * 9), r" \[0\]: gives nothing \(no return\?\), not State"),
        (lambda *a: iter([*states(*a)][:-1]), ": gives 8 of them, the library 9"),
        (lambda *a: itertools.cycle(states(*a)), ": gives 100 of them, the library 9"),
        (lambda *a: samplers.last(states(*a)), ": gives a tensor, not a sequence"),
        (lambda *a: (s._replace(x0=s.eps) for s in states(*a)), r" \[0\], x0: differs by"),
        (lambda *a: (s._replace(eps=s.x) for s in states(*a)), r" \[0\], eps: differs by"),
        (lambda d, x, levels: states(d, x, levels[:-1]), ": gives 8 of them, the library 9"),
        (lambda d, x, levels: states(d, x, [*levels, levels.pop()][:-1]), ": changes its argument"),
        (lambda d, *a: states(d, *a, *[][: d.means.mul_(2).ndim]), ": changes its argument 1"),
        (lambda *a: (1 / 0 for _ in range(3)), r": raises ZeroDivisionError: division by zero \("),
    ],
)
def test_another_kind_of_walk_is_told_in_a_sentence(walk, words):
    with pytest.raises(AssertionError, match=rf"^ddim on the linear schedule{words}"):
        checks.twin("didiff.samplers.ddim", walk)


@pytest.mark.parametrize(
    ("name", "answer", "words"),
    [
        (
            "didiff.guidance.classifier_free",
            lambda d, y, omega: lambda x, t: tuple(guidance.classifier_free(d, y, omega)(x, t)),
            r"\[0\]: gives tuple, not Prediction",
        ),
        (
            "didiff.guidance.classifier_free",
            lambda d, y, omega: lambda x, t: Prediction(d(x, t, y).x0, x[:3]),
            r"\[0\], \w+: ",
        ),
        (
            "didiff.guidance.classifier",
            lambda d, log_prob, omega: d,
            r"at omega = 1\.0 \[0\], x0: differs",
        ),
        ("didiff.guidance.classifier", lambda *a: None, "gives nothing .*, not a function"),
        ("didiff.sde.reverse", lambda sde, score, end=1: sde.drift, "gives a function, not SDE"),
        ("didiff.sde.reverse", lambda sde, score, end=1: sde, r"\[0\] \[0\]: differs by"),
        (
            "didiff.sde.reverse",
            lambda *a: sde.SDE(
                sde.reverse(*a).drift, lambda u: sde.reverse(*a).diffusion(u) * (1 + (u > 0.5))
            ),
            r"\[2\] \[1\]: differs by",
        ),
        ("didiff.networks.unet.Block", lambda *a: 3, "raises AttributeError"),
    ],
)
def test_another_kind_of_function_is_told_in_a_sentence(name, answer, words):
    with pytest.raises(AssertionError, match=words):
        checks.twin(name, answer)


def test_an_error_is_told_with_the_students_line_and_without_the_story_of_torch():
    def stacked(x0, eps):
        return torch.cat([x0, eps[:, :0].reshape(0, 7, 7)])  # this line

    def fails(x0, eps, t):
        return stacked(x0, eps)  # not the one that asked for it

    with pytest.raises(AssertionError, match=r"raises RuntimeError(.|\n)*# this line\)$") as caught:
        checks.twin("didiff.process.add_noise", fails)
    assert caught.value.__suppress_context__
    assert caught.value.__cause__ is None


# -- the checks themselves --------------------------------------------------------------------


def test_a_name_without_a_check_is_an_error():
    with pytest.raises(ValueError, match=r"no check for 'didiff\.samplers\.look'"):
        checks.twin("didiff.samplers.look", samplers.look)


def test_a_check_without_worlds_is_an_error(monkeypatch):
    """It would pass anything."""
    monkeypatch.setitem(checks.WORLDS, "didiff.process.add_noise", lambda: iter([]))
    with pytest.raises(ValueError, match="no check for"):
        checks.twin("didiff.process.add_noise", noised)


def test_a_check_leaves_the_readers_random_numbers_alone():
    torch.manual_seed(7)
    wanted = torch.randn(3)
    torch.manual_seed(7)
    checks.twin("didiff.denoiser.loss", denoiser.loss)
    assert torch.equal(torch.randn(3), wanted)


def test_a_function_that_writes_into_its_points_spoils_no_other_check(monkeypatch):
    before = worlds.POINTS.clone()
    monkeypatch.setattr(checks, "POINTS", before.clone())

    def classifier_free(*a):
        guided = guidance.classifier_free(*a)
        return lambda x, t: (guided(x, t), x.zero_())[0]

    checks.twin("didiff.guidance.classifier_free", classifier_free)
    assert torch.equal(checks.POINTS, before)


def test_a_function_is_not_blamed_for_what_the_library_changes_too():
    checks.twin("didiff.training.fit", a_fit("", ""))


def test_some_mixtures_are_of_unlike_bumps():
    for name in ("mixtures.Mixture.score", "samplers.ddim", "guidance.classifier_free"):
        given = [arguments[0] for _, arguments in worlds.WORLDS[f"didiff.{name}"]()]
        weights, stds = zip(*((m.log_weights, m.std) for m in given), strict=True)
        assert any(weight.unique().numel() > 1 for weight in weights)
        assert any(std.unique().numel() > 1 for std in stds)
