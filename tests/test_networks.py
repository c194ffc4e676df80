import pytest
import torch

from didiff.networks import MLP
from didiff.networks.embedding import Embedding


def test_output_has_the_shape_of_the_input_for_points_and_images():
    for shape in [(1,), (2,), (1, 8, 8)]:
        for batch in (1, 7):
            net = MLP(shape, width=16, depth=2, classes=3)
            x = torch.randn(batch, *shape)
            assert net(x, torch.rand(batch)).shape == x.shape


def test_time_and_label_matter_and_no_label_is_minus_one():
    torch.manual_seed(0)
    net = MLP((2,), 16, 2, classes=3)
    for block in net.blocks:  # a block starts as the identity: move it off
        torch.nn.init.normal_(block.outer.weight)
    x = torch.randn(4, 2)
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
