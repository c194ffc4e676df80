import pytest
import torch
from torch import nn

from didiff.networks import MLP, ConvNet, UNet
from didiff.networks.embedding import Embedding


def test_output_has_the_shape_of_the_input_for_points_and_images():
    for shape in [(1,), (2,), (1, 8, 8)]:
        for batch in (1, 7):
            net = MLP(shape, width=16, depth=2, classes=3)
            x = torch.randn(batch, *shape)
            assert net(x, torch.rand(batch)).shape == x.shape


def awake(net: nn.Module) -> nn.Module:
    """The network with the layers that begin at zero moved off it."""
    for parameter in net.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.3)
    return net


NETWORKS = {
    "MLP": lambda: MLP((1, 8, 8), 16, 2, classes=3),
    "UNet": lambda: UNet((1, 8, 8), (16, 32), classes=3, patch=1),
    "UNet without attention": lambda: UNet((1, 8, 8), (16, 32, 32), 3, patch=2, attention=False),
}


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_time_and_label_matter_and_no_label_is_minus_one(make):
    torch.manual_seed(0)
    net = awake(make())
    x = torch.randn(4, 1, 8, 8)
    half, none = torch.full((4,), 0.5), torch.full((4,), -1)
    out = net(x, half)
    assert not torch.allclose(net(x, half + 0.1), out)
    assert not torch.allclose(net(x, half, torch.zeros(4, dtype=torch.long)), out)
    torch.testing.assert_close(net(x, half, none), out)


def test_the_null_label_has_a_row_of_its_own():
    embedding = Embedding(8, classes=3)
    assert embedding.label.num_embeddings == 4
    embedding(torch.rand(5), torch.tensor([-1, 0, 0, 2, -1])).sum().backward()
    touched = embedding.label.weight.grad.abs().sum(1) > 0
    assert touched.tolist() == [True, True, False, True]


def test_the_sinusoids_tell_a_thousand_steps_apart():
    """Effective rank of the features over all steps; near 1 if the clock were too slow (T-15)."""
    embedding = Embedding(8)
    angle = torch.linspace(0, 1, 1000)[:, None] * embedding.frequency
    features = torch.cat([angle.cos(), angle.sin()], 1)
    share = torch.linalg.svdvals(features) ** 2
    share = share / share.sum()
    assert torch.exp(-(share * share.log()).sum()) > 20


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_samples_of_a_batch_do_not_see_one_another(make):
    torch.manual_seed(0)
    net, x, clock, y = (
        awake(make()),
        torch.randn(4, 1, 8, 8),
        torch.rand(4),
        torch.tensor([0, 1, 2, 0]),
    )
    alone = torch.cat([net(x[i : i + 1], clock[i : i + 1], y[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(net(x, clock, y), alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_every_weight_is_of_use(make):
    """A loss at random weights has a gradient in all of them; those of the null label included."""
    net = awake(make())
    net(torch.randn(8, 1, 8, 8), torch.rand(8), torch.arange(8) % 4 - 1).square().sum().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_a_u_net_gives_its_shape_back_at_every_size_that_can_be_halved():
    for shape, channels, patch in [
        ((1, 28, 28), (16, 32), 2), ((3, 32, 32), (16, 16, 32, 32), 1), ((1, 8, 12), (16,), 4),
    ]:  # fmt: skip
        net = UNet(shape, channels, patch=patch)
        for batch in (1, 3):
            x = torch.randn(batch, *shape)
            assert net(x, torch.rand(batch)).shape == x.shape


def test_a_side_that_cannot_be_halved_is_refused_with_the_remedy():
    with pytest.raises(ValueError, match=r"28x28: with patch = 2 and 3 levels .* multiples of 8"):
        UNet((1, 28, 28), (16, 32, 32))
    with pytest.raises(ValueError, match=r"shape \(1, 32, 32\) for a network of \(1, 28, 28\)"):
        UNet((1, 28, 28), (16, 32))(torch.randn(2, 1, 32, 32), torch.rand(2))


def reach(net: nn.Module) -> int:
    """How many pixels of the input one pixel of the output depends on, in the corner."""
    x = torch.randn(1, 1, 32, 32, requires_grad=True)
    net(x, torch.rand(1))[0, 0, 0, 0].backward()
    return int((x.grad.abs() > 0).sum())


def test_attention_sees_the_whole_image():
    torch.manual_seed(0)
    nets = [awake(UNet((1, 32, 32), (16, 32), patch=1, attention=on)) for on in (True, False)]
    for net in nets:
        for name, module in net.named_modules():  # a norm alone already looks at everything
            if isinstance(module, nn.GroupNorm):
                net.set_submodule(name, nn.Identity())
    far, near = (reach(net) for net in nets)
    assert far == 32 * 32 > 4 * near


def test_without_skips_the_way_up_sees_the_bottom_alone():
    torch.manual_seed(0)
    net = awake(UNet((1, 8, 8), (16, 32), patch=1, skips=False))
    bottom = net.encoder.downsample[0]
    nn.init.zeros_(bottom.weight)  # nothing of the image passes the bottom any more
    x, clock = torch.randn(2, 1, 8, 8), torch.full((2,), 0.5)
    out = net(x, clock)
    torch.testing.assert_close(out[0], out[1])
    net.skips = True
    assert not torch.allclose(*net(x, clock))


def test_a_classifier_gives_a_logit_per_class_and_hears_the_time():
    net = awake(ConvNet((1, 28, 28), (16, 16, 32), classes=7))
    x, clock = torch.randn(3, 1, 28, 28), torch.rand(3)
    assert net(x, clock).shape == (3, 7)
    assert net.features(x, clock).shape == (3, 32)
    assert not torch.allclose(net(x, clock), net(x, 1 - clock))
    with pytest.raises(ValueError, match=r"shape \(1, 8, 8\) for a network of \(1, 28, 28\)"):
        net(torch.randn(3, 1, 8, 8), clock)


def test_a_block_starts_as_the_identity():
    net = MLP((2,), 16, 3)
    h = torch.randn(5, 16)
    for block in net.blocks:
        torch.testing.assert_close(block(h, torch.randn(5, 16)), h)


def test_bad_inputs_are_errors_that_name_the_value():
    net = MLP((2,), 16, 1, classes=10)
    x, clock = torch.randn(3, 2), torch.rand(3)
    with pytest.raises(ValueError, match=r"labels 0..10: this network knows 0..9"):
        net(x, clock, torch.tensor([0, 10, 1]))
    with pytest.raises(ValueError, match=r"labels -2..1"):
        net(x, clock, torch.tensor([0, -2, 1]))
    with pytest.raises(ValueError, match=r"labels of shape \(2,\) for a batch of 3"):
        net(x, clock, torch.tensor([0, 1]))
    with pytest.raises(ValueError, match=r"shape \(3,\) for a network of \(2,\)"):
        net(torch.randn(3, 3), clock)
