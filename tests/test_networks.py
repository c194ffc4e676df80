import math

import pytest
import torch
from torch import nn

from didiff.networks import MLP, ConvNet, Judge, UNet
from didiff.networks.embedding import Embedding
from didiff.networks.mlp import Block as Layer
from didiff.networks.unet import Attention, Block, norm


def test_a_network_can_be_made_without_memory():
    with torch.device("meta"):
        net = UNet((1, 8, 8), (4, 8), classes=3, patch=1, guided=True)
    assert {weight.device.type for weight in net.state_dict().values()} == {"meta"}


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
    assert torch.exp(-(share * share.log()).sum()) > 40
    # 32 frequencies in equal ratios, the fastest turning within 0.002 of the clock
    steps = embedding.frequency.double().log().diff()
    torch.testing.assert_close(
        steps, torch.full((31,), math.log(1000) / 31).double(), atol=1e-5, rtol=0
    )
    assert embedding.frequency[[0, -1]].tolist() == pytest.approx([math.pi, 1000 * math.pi])


def test_an_embedding_is_its_formula():
    embedding, clock, y = Embedding(8, classes=3), torch.tensor([0.0, 0.3, 1.0]), [2, -1, 0]
    angle = clock[:, None] * math.pi * 1000 ** (torch.arange(32) / 31)
    first, _, second = embedding.time
    hidden = nn.functional.silu(first(torch.cat([angle.cos(), angle.sin()], 1)))
    wanted = nn.functional.silu(second(hidden) + embedding.label.weight[[3, 0, 1]])
    torch.testing.assert_close(embedding(clock, torch.tensor(y)), wanted, rtol=0, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64])
def test_labels_may_be_any_integers(dtype):
    net, x, clock = awake(MLP((2,), 16, 1, classes=10)), torch.randn(3, 2), torch.rand(3)
    wanted = net(x, clock, torch.tensor([3, 0, 9]))
    assert torch.equal(net(x, clock, torch.tensor([3, 0, 9], dtype=dtype)), wanted)
    assert torch.equal(net(x, clock, [3, 0, 9]), wanted)
    assert torch.equal(net(x, clock, 3), net(x, clock, torch.tensor([3, 3, 3])))
    if dtype != torch.uint8:
        assert torch.equal(net(x, clock, torch.tensor(-1, dtype=dtype)), net(x, clock))


def test_a_layer_is_its_formula():
    layer, h, e = awake(Layer(16)), torch.randn(5, 16), torch.randn(5, 16)
    flat = (h - h.mean(1, keepdim=True)) / (h.var(1, keepdim=True, correction=0) + 1e-5).sqrt()
    flat = flat * layer.norm.weight + layer.norm.bias
    inner = flat @ layer.inner.weight.T + layer.inner.bias + layer.told(e)
    wanted = h + nn.functional.silu(inner) @ layer.outer.weight.T + layer.outer.bias
    torch.testing.assert_close(layer(h, e), wanted, rtol=0, atol=1e-4)


def test_a_block_is_its_formula_and_starts_as_its_skip_but_for_a_constant():
    h, e = torch.randn(2, 16, 4, 6), torch.randn(2, 12)
    for outputs in (16, 32):
        block = Block(16, outputs, 12)
        constant = block.conv2.bias[:, None, None].expand(2, outputs, 4, 6)
        torch.testing.assert_close(block(h, e) - block.skip(h), constant, rtol=0, atol=1e-5)
        assert isinstance(block.skip, nn.Identity) == (outputs == 16)
        scale, shift = awake(block).told(e).split(outputs, 1)
        grouped = block.conv1(h).reshape(2, outputs // 16, -1)
        grouped = grouped - grouped.mean(2, keepdim=True)
        grouped = grouped / (grouped.var(2, keepdim=True, correction=0) + 1e-5).sqrt()
        weight, bias = block.norm.weight[:, None, None], block.norm.bias[:, None, None]
        inner = (grouped.reshape(2, outputs, 4, 6) * weight + bias) * (1 + scale[..., None, None])
        silu = nn.functional.silu(inner + shift[..., None, None])
        wanted = block.skip(h) + block.conv2(silu)
        torch.testing.assert_close(block(h, e), wanted, rtol=0, atol=1e-3)


def test_a_perceptron_is_its_layers_one_after_another():
    net, x, clock, y = (
        awake(MLP((1, 2), 16, 2, 3)),
        torch.randn(4, 1, 2),
        torch.rand(4),
        [0, 1, 2, -1],
    )
    e, h = net.embedding(clock, torch.tensor(y)), net.first(x.reshape(4, 2))
    for layer in net.blocks:
        h = layer(h, e)
    torch.testing.assert_close(net(x, clock, torch.tensor(y)), net.last(h).reshape(4, 1, 2))


@pytest.mark.parametrize("skips", [True, False])
def test_a_u_net_goes_down_and_comes_up_again_over_its_bridges(skips):
    """Trained weights mean something in this order alone: what comes up, and then the bridge."""
    net = awake(UNet((1, 8, 8), (16, 32, 48), classes=3, patch=1, skips=skips))
    x, clock, y = torch.randn(2, 1, 8, 8), torch.rand(2), torch.tensor([1, -1])
    e, down = net.embedding(clock, y), net.encoder
    one = down.blocks[0](down.first(x), e)
    two = down.blocks[1](down.downsample[0](one), e)
    three = down.blocks[2](down.downsample[1](two), e)
    bridges = (one, two, three) if skips else (0 * one, 0 * two, 0 * three)
    up = net.decoder[2](torch.cat([net.middle(three), bridges[2]], 1), e)
    up = net.decoder[1](torch.cat([net.upsample[1](up), bridges[1]], 1), e)
    up = net.decoder[0](torch.cat([net.upsample[0](up), bridges[0]], 1), e)
    torch.testing.assert_close(net(x, clock, y), net.last(up), rtol=0, atol=1e-4)
    assert torch.equal(net.encoder(x, e)[1], two)


def test_what_a_u_net_is_without_a_word():
    net = UNet((1, 8, 8), (16, 32))
    assert isinstance(net.middle, Attention)
    assert isinstance(UNet((1, 8, 8), (16, 32), attention=False).middle, nn.Identity)
    assert net.skips
    assert net.encoder.first[0].downscale_factor == net.last[3].upscale_factor == 2
    assert [len(net.encoder.blocks), UNet().encoder.blocks[1].conv1.in_channels] == [2, 96]
    assert ConvNet().encoder.first[0].downscale_factor == 2
    assert [block.conv1.in_channels for block in ConvNet().encoder.blocks] == [32, 64, 64]
    assert [block.conv1.in_channels for block in Judge().encoder.blocks] == [48, 96, 64]


def test_attention_is_that_of_torch_and_starts_as_the_identity_but_for_a_constant():
    attention, h = Attention(32, heads=2), torch.randn(2, 32, 3, 5)
    constant = attention.project.bias[:, None, None].expand_as(h)
    torch.testing.assert_close(attention(h) - h, constant, rtol=0, atol=1e-6)
    q, k, v = awake(attention).qkv(attention.norm(h)).reshape(2, 3, 2, 16, 15).mT.unbind(1)
    mixed = nn.functional.scaled_dot_product_attention(q, k, v).mT.reshape(2, 32, 3, 5)
    torch.testing.assert_close(attention(h), h + attention.project(mixed), rtol=0, atol=1e-4)
    assert Attention(32).heads == 4


def test_channels_come_in_groups_of_sixteen_or_a_few_more():
    groups = {4: 1, 16: 1, 31: 1, 48: 3, 96: 6, 50: 2, 100: 5, 53: 1}
    assert {channels: norm(channels).num_groups for channels in groups} == groups
    x, clock = torch.randn(1, 1, 16, 16), torch.rand(1)
    for channels in ((50, 100), (18, 20), (7, 53, 12)):
        assert UNet((1, 16, 16), channels, patch=1)(x, clock).shape == x.shape
    assert UNet((1, 16, 16), (16, 18), attention=False)(x, clock).shape == x.shape
    assert ConvNet((1, 16, 16), (50, 18))(x, clock).shape == (1, 10)
    with pytest.raises(
        ValueError, match=r"18 channels for 4 heads .* multiple of 4 .*attention=False"
    ):
        UNet((1, 16, 16), (16, 18))


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
    with pytest.raises(ValueError, match=r"28x30: .* multiples of 4"):
        UNet((1, 28, 30), (16, 32))
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
    torch.testing.assert_close(net(x, clock), net.last(net.features(x, clock)))
    coarsest = net.encoder(x, net.embedding(clock))[-1]
    read = nn.functional.silu(net.norm(coarsest)).flatten(2).mean(2)
    torch.testing.assert_close(net.features(x, clock), read)


def test_a_classifier_refuses_sides_that_vanish_on_the_way():
    with pytest.raises(
        ValueError, match=r"4x8: .* multiples of patch = 2, and at least 8 for 3 lev"
    ):
        ConvNet((1, 4, 8))
    with pytest.raises(ValueError, match="27x28: the sides must be multiples of patch = 2"):
        ConvNet((1, 27, 28))
    assert ConvNet((3, 8, 10), (16, 16, 16))(torch.randn(2, 3, 8, 10), torch.rand(2)).shape == (
        2,
        10,
    )


@pytest.mark.parametrize("patch", [1, 2, 4])
def test_a_classifier_sees_squares_of_as_many_pixels_as_it_is_told(patch):
    net = ConvNet((3, 8, 16), (16, 32), patch=patch)
    assert net.encoder.first[1].weight.shape[1] == 3 * patch**2
    fine, coarse = net.encoder(torch.randn(2, 3, 8, 16), net.embedding(torch.rand(2)))
    assert fine.shape == (2, 16, 8 // patch, 16 // patch)
    assert coarse.shape == (2, 32, 4 // patch, 8 // patch)


def test_a_judge_remembers_a_gaussian_and_a_spread_with_its_weights():
    judge = Judge((1, 8, 8), (16, 32), classes=7, patch=1)
    held = judge.state_dict()
    assert torch.equal(held["feature_mean"], torch.zeros(32))
    assert torch.equal(held["feature_covariance"], torch.eye(32))
    assert torch.equal(held["spread"], torch.ones(7))
    assert judge(torch.randn(2, 1, 8, 8), torch.rand(2)).shape == (2, 7)


def test_networks_are_as_large_as_their_arguments_say():
    net = UNet((3, 8, 8), (16, 32, 48), classes=5, patch=2)
    assert net.encoder.first[1].weight.shape == (16, 12, 3, 3)
    assert [block.conv1.out_channels for block in net.encoder.blocks] == [16, 32, 48]
    assert [block.conv1.in_channels for block in net.decoder] == [32, 64, 96]
    assert net.embedding.label.weight.shape == (6, 64)
    assert net.last[2].weight.shape == (12, 16, 3, 3)
    assert net.encoder.first[1].weight.is_contiguous(memory_format=torch.channels_last)
    mlp = MLP((3, 2), width=20, depth=3, classes=4)
    assert (len(mlp.blocks), mlp.first.in_features, mlp.first.out_features) == (3, 6, 20)
    assert mlp.embedding.label.weight.shape == (5, 20)
    assert UNet().shape == (1, 28, 28)
    assert MLP().embedding.label.weight.shape == (1, 128)
    assert (MLP().shape, len(MLP().blocks)) == ((2,), 4)
    assert ConvNet().encoder.first[1].weight.is_contiguous(memory_format=torch.channels_last)


def test_a_patch_is_seen_as_one_position_and_put_back_where_it_was():
    """With kernels that look at their own place alone, a pixel sees the square it is in."""
    torch.manual_seed(0)
    net = awake(UNet((1, 4, 6), (16,), patch=2, attention=False))
    for name, module in net.named_modules():
        if isinstance(module, nn.GroupNorm):
            net.set_submodule(name, nn.Identity())
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
            module.weight.data[..., [0, 0, 0, 1, 1, 2, 2, 2], [0, 1, 2, 0, 2, 0, 1, 2]] = 0
    x = torch.randn(1, 1, 4, 6, requires_grad=True)
    net(x, torch.rand(1))[0, 0, 0, 2].backward()
    seen = torch.zeros(4, 6, dtype=torch.bool)
    seen[:2, 2:4] = True
    assert torch.equal(x.grad[0, 0] != 0, seen)


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
    with pytest.raises(ValueError, match=r"labels of type torch.float32: give integers"):
        net(x, clock, torch.tensor([0.0, 2.0, 1.0]))
    with pytest.raises(ValueError, match=r"labels 0..0: this network knows none \(classes = 0\)"):
        MLP((2,), 16, 1)(x, clock, torch.zeros(3).long())
    with pytest.raises(ValueError, match=r"labels of shape \(2,\) for a batch of 3"):
        net(x, clock, torch.tensor([0, 1]))
    with pytest.raises(ValueError, match=r"shape \(3,\) for a network of \(2,\)"):
        net(torch.randn(3, 3), clock)
