import inspect
import pkgutil
import re
import textwrap

import pytest

from didiff import guidance, samplers, sde
from didiff.networks import unet
from didiff.notebook import checks


def mutant(function, old: str, new: str):
    """The library's function with one piece of its source replaced."""
    source = inspect.getsource(function)
    assert old in source
    namespace = dict(vars(inspect.getmodule(function)))
    exec(re.sub("^@.*\n", "", source).replace(old, new, 1), namespace)
    return namespace[function.__name__]


@pytest.mark.parametrize("name", checks.WORLDS)
def test_the_library_is_its_own_twin(name):
    checks.twin(name, pkgutil.resolve_name(name))


@pytest.mark.parametrize(
    ("function", "old", "new"),
    [
        (samplers.ddim, "state.x0, eps, s)", "state.x0, eps, t)"),
        (samplers.ddpm, "(1 - new**2).sqrt() * state.eps", "(1 - new) * state.eps"),
        (samplers.ddpm, "wide * new *", "wide * new**2 *"),
        (samplers.heun, "/ 2, (here.eps", "/ 3, (here.eps"),
        (samplers.dpm_solver_2m, "ratio / 2", "ratio"),
        (sde.wiener, "times.diff().sqrt() *", "times.diff() *"),
        (sde.reverse, "u = end - tau\n", "u = tau\n"),
        (guidance.classifier, "- omega * t", "+ omega * t"),
        (guidance.classifier, ".sum()", ".mean()"),
    ],
)
def test_a_mutant_is_rejected_with_the_world_where_it_differs(function, old, new):
    name = f"{function.__module__}.{function.__name__}"
    with pytest.raises(AssertionError, match=rf"{function.__name__} .*differs by"):
        checks.twin(name, mutant(function, old, new))


@pytest.mark.parametrize(
    ("part", "old", "new"),
    [
        (unet.Block, "shift, self.norm(self.conv1(h)), 1 + scale", "shift, self.conv1(h), scale"),
        (unet.Block, "self.skip(h) + self.conv2", "self.conv2"),
        (unet.Attention, "flatten(1, 2)", "transpose(1, 2).flatten(1, 2)"),
        (unet.UNet.forward, "[h, bridge]", "[bridge, h]"),
        (unet.UNet.forward, "bridges[level] if self.skips else", "bridges[level] if True else"),
    ],
)
def test_a_mutant_of_a_part_of_a_network_is_rejected(part, old, new):
    source = textwrap.dedent(inspect.getsource(part))
    assert old in source
    namespace = dict(vars(unet))
    exec(source.replace(old, new, 1), namespace)
    with pytest.raises(AssertionError, match="differs by"):
        checks.twin(f"{unet.__name__}.{part.__qualname__}", namespace[part.__name__])


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


def test_another_length_or_type_is_rejected():
    with pytest.raises(AssertionError, match="gives 8 of them, the library 9"):
        checks.twin("didiff.samplers.ddim", lambda *a: iter(list(samplers.ddim(*a))[:-1]))
    with pytest.raises(AssertionError, match="not a sequence"):
        checks.twin("didiff.samplers.ddim", lambda *a: samplers.last(samplers.ddim(*a)))


def test_a_name_without_a_check_is_an_error():
    with pytest.raises(ValueError, match=r"no check for 'didiff\.samplers\.look'"):
        checks.twin("didiff.samplers.look", samplers.look)
