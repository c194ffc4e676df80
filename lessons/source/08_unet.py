# %% [markdown]
# # 08 · The U-Net
#
# *A picture must be seen as a whole, and its noise pixel by pixel. One shape of network does both: you build it, take it
# apart, and measure what each part is for.*
#
# **You need** noise levels (lesson 03), the loss and its loop (05), a sampler (07), and what a convolution is: one small
# window of weights, slid over the picture.
#
# **You will be able to** explain a diffusion U-Net line by line, follow its shapes and count its work, say how it is told
# the time and what its bridges carry, and catch eight bugs that no shape complains of.
#
# **Time** an hour and a half of reading; a minute of computing on two CPU cores.
#
# **The codes.** The course follows a series of lectures and tests what they say. (L6-13) names a slide, DS-57
# one of another deck, E-03 a slip on a slide, T-15 a classic mistake of students.

# %% tags=["setup"]
import copy
import math
import re
from itertools import count, pairwise

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from didiff import data, guidance, mixtures
from didiff.denoiser import Denoiser, loss, network_input
from didiff.networks import MLP, UNet, unet
from didiff.notebook import museum, plots, widgets
from didiff.notebook.museum import Check
from didiff.process import add_noise
from didiff.samplers import ddim, initial_noise, last
from didiff.schedules import DDPMSchedule, grid
from didiff.training import drop_labels, fit, metrics, random_steps

torch.manual_seed(0)
torch.set_num_threads(1)  # our networks are small: a second thread costs more than it gives
plots.style()
schedule = DDPMSchedule()  # the lectures' table: step k is the level schedule.at(k)


# %% tags=["setup"]
def seeded(seed):
    return torch.Generator().manual_seed(seed)


# %% [markdown] tags=["L22-38"]
# ## 1. Two wishes
#
# **Story.** A network looks at a noisy picture and says which part of it is noise. What must it see? At step 700 hardly anything
# is left of the picture, and only all pixels together hint at a 3: it must look **far**. At step 20 the picture is plain, and
# each pixel has a noise of its own, of which its neighbours know nothing: it must be **exact**. *Predict* the
# correlation of neighbouring pixels, in digits and in noise.


# %% tags=["formula"]
def neighbours(x):
    """Correlation of pixels (B, 1, H, W) with their right neighbours."""
    return torch.corrcoef(torch.stack([x[..., 1:].flatten(), x[..., :-1].flatten()]))[0, 1].item()


# %% tags=["check"]
digits, labels = data.digits("train")  # 898 real ones, 8 x 8 pixels in [-1, 1]
static = torch.randn(digits.shape, generator=seeded(0))
print(f"digits {neighbours(digits):+.2f}, white noise {abs(neighbours(static)):.2f}")
assert abs(neighbours(static)) < 4 / (static.numel() * 7 / 8) ** 0.5
assert neighbours(digits) > 0.3

# %% [markdown] tags=["L22-38"]
# **How far does a convolution see?** The lecture calls it a telephone game (L22-38): a layer of 3×3 windows hears its
# neighbours, and passes on. The gradient of one output pixel tells which input pixels it heard. *Predict* how many, for
# four layers.


# %% tags=["formula", "L22-38"]
def footprint(network, side=64):
    """Which pixels (side, side) of a picture the middle pixel of the output depends on."""
    x = torch.randn(1, 1, side, side, dtype=torch.float64, requires_grad=True)
    network(x)[0, 0, side // 2, side // 2].backward()
    return x.grad[0, 0] != 0


# %% tags=["check", "L22-38"]
sizes = [1, 8, 8, 8, 1]  # channels before and after each layer
layers = [(nn.Conv2d(a, b, 3, padding=1), nn.SiLU()) for a, b in pairwise(sizes)]
heard = footprint(nn.Sequential(*[part for layer in layers for part in layer]).double())
print(f"four layers hear {heard.sum()} of {heard.numel()} pixels, a square of side 9")
assert heard.sum() == 9**2

# %% [markdown]
# Each layer adds one pixel on every side: 9×9. Of 64×64 the middle pixel hears all after 32 layers, a corner after 63. There is a
# shorter way: halve the picture, and every step is twice as long. But halving forgets, and we must be exact. Both wishes at once: that is the U-Net.

# %% [markdown] tags=["L6-09", "L6-10", "L6-11", "L6-12", "DS-57", "E-03"]
# ## 2. The network of 2015
#
# **Story.** Ronneberger, Fischer and Brox drew it to find cell walls in micrographs, and trained it on 30 pictures (2015;
# L6-09). On the way down, the *contracting path*: two 3×3 convolutions, halve the side, double the channels (a *channel* is one
# layer of a map, as red is of a photograph). On the way up, the *expanding path*: double the side, put the map of the same level
# beside it, two convolutions.
#
# **Is it so?** The lecture says: noise in, noise *of the same size* out (L6-10), on the ladder 512 → 256 → 128 → 64 → 32 (L6-11)
# with channels 64 → 128 → 256 → 512 → 1024 (L6-12); another deck dates it to 2016 (DS-57). The authors used convolutions
# *without padding*: each cuts a rim of one pixel off. *Predict*: what comes out if 572×572 pixels go in?
#
# **Code.** All of it. On torch's device `meta` tensors have shapes and no numbers, so that nothing is computed.


# %% tags=["L6-09", "L6-12"]
def double(inputs, outputs, padding):
    """Two 3x3 convolutions, each with a ReLU."""
    first = nn.Conv2d(inputs, outputs, 3, padding=padding)
    second = nn.Conv2d(outputs, outputs, 3, padding=padding)
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU())


# %% tags=["L6-09", "L6-12"]
def crop(x, side):
    """The middle (B, C, side, side) of maps x (B, C, H, H)."""
    start = (x.shape[-1] - side) // 2
    return x[..., start : start + side, start : start + side]


# %% tags=["L6-09", "L6-12"]
class Original(nn.Module):
    """The U-Net of 2015, with padding = 0; its maps (B, C, H, W) in order, the output last."""

    def __init__(self, padding, channels=(64, 128, 256, 512, 1024), classes=2):
        super().__init__()
        steps = list(pairwise(channels))
        self.down = nn.ModuleList(double(a, b, padding) for a, b in [(1, channels[0]), *steps])
        self.rise = nn.ModuleList(nn.ConvTranspose2d(b, a, 2, stride=2) for a, b in steps[::-1])
        self.up = nn.ModuleList(double(b, a, padding) for a, b in steps[::-1])
        self.last = nn.Conv2d(channels[0], classes, 1)

    def forward(self, x):
        maps = []
        for level, block in enumerate(self.down):
            x = block(F.max_pool2d(x, 2) if level else x)  # halve: the largest of each 2x2
            maps.append(x)
        for rise, block, bridge in zip(self.rise, self.up, maps[-2::-1], strict=True):
            x = rise(x)  # double the side
            x = block(torch.cat([crop(bridge, x.shape[-1]), x], 1))
            maps.append(x)
        return [*maps, self.last(x)]


# %% tags=["L6-09", "L6-10", "L6-11", "L6-12", "DS-57", "E-03"]
runs = {}
with torch.device("meta"):
    for side, padding in ((572, 0), (512, 1), (512, 0)):
        original = Original(padding)
        runs[side, padding] = original(torch.empty(1, 1, side, side))
published, padded, mixed = ([m.shape[-1] for m in maps] for maps in runs.values())

# %% tags=["check", "L6-09", "L6-10", "L6-11", "L6-12", "DS-57", "E-03"]
rows = [[*run, *sides] for run, sides in zip(runs, (published, padded, mixed), strict=True)]
header = ["in", "padding", "down", "↓", "↓", "↓", "bottom", "up", "↑", "↑", "↑", "out"]
plots.table(rows, header=header, caption="Sides of the maps, in pixels")
assert (published[4], published[-1]) == (28, 388)  # not the same size
assert padded == [512, 256, 128, 64, 32, 64, 128, 256, 512, 512]
assert mixed[2] % 2 == 1  # 512 without padding: halving drops a row and a column here

# %% tags=["check", "L6-09", "L6-10", "L6-12", "E-03"]
weights = sum(p.numel() for p in original.parameters())
print(f"{weights:,} parameters; channels {[m.shape[1] for m in runs[572, 0]]}")
cropped = [a - 2 * b for a, b in zip(published[3::-1], published[4:8], strict=True)]
print(f"cut off the bridges, from the bottom up: {cropped} pixels")
assert weights == 31_030_658
assert cropped == [8, 32, 80, 176]

# %% [markdown] tags=["L6-10", "L6-11", "DS-57", "E-03"]
# **Put right.** The published network turns 572 into 388 (E-03): bridges are cropped to fit, and large pictures done in
# overlapping tiles. The ladder on the slide, and "the same size", belong to *padded* convolutions and to sides that can be halved
# often enough. Diffusion U-Nets are of that kind, since noise is wanted for every pixel. The channels are right for the way
# down; and the paper is of 2015.

# %% [markdown] tags=["exercise"]
# **Exercise 1.** Our `UNet(shape, channels, patch=...)` folds squares of `patch` × `patch` pixels into channels first, and then
# halves `len(channels) - 1` times. Which does it accept, with `patch=2`: 28×28 with two levels, 28×28 with three, 32×32 with
# three? What would you do to a picture that it refuses?
#
# <details><summary>Answer</summary>
#
# Sides must be multiples of `patch * 2 ** (levels - 1)`: of 4 (28 is one), of 8 (28 is not), of 8 (32 is). Pad the picture by two
# pixels on each side, and cut them off the answer.
# </details>

# %% tags=["solution", "check"]
verdicts = []
for side, levels in ((28, 2), (28, 3), (32, 3)):
    try:
        UNet((1, side, side), (8,) * levels, patch=2)
        verdicts.append("accepted")
    except ValueError as refusal:
        verdicts.append("refused")
        print(refusal)
assert verdicts == ["accepted", "refused", "accepted"]

# %% [markdown] tags=["L6-15", "formula"]
# ## 3. What halving forgets
#
# **Story.** Take the mean of each 2×2 window of white noise. One number is left where there were four, and nothing brings the
# others back (L6-15). How much of the noise remains? Pooling is a matrix $P$ that turns 64 pixels into 16 means. The best that
# any linear way back can do is the projection $P^+P$ onto what the 16 means can tell ($P^+$ is the pseudo-inverse). White noise
# has the same size in each of 64 directions, and a projection keeps as many of them as its trace says:
#
# $$\frac{\operatorname{trace}(P^+P)}{64}=\frac{16}{64}=\frac14 .$$


# %% tags=["formula", "L6-15"]
def through_pooling(x, window):
    """Pictures (B, 1, H, W), pooled, and brought back by repeating each mean."""
    small = F.avg_pool2d(x, window)
    return small.repeat_interleave(window, 2).repeat_interleave(window, 3)


# %% tags=["check", "L6-15"]
pixels = torch.eye(64, dtype=torch.float64).reshape(64, 1, 8, 8)  # each picture is one pixel
P = F.avg_pool2d(pixels, 2).reshape(64, 16).T
best, repeated = torch.linalg.pinv(P) @ P, through_pooling(pixels, 2).reshape(64, 64).T
print(f"to repeat is the best linear way back: gap {(best - repeated).abs().max():.10f}")
print(f"trace of the projection: {best.trace():.6f} of 64")
assert (best - repeated).abs().max() < 1e-10
assert abs(best.trace() - 16) < 1e-10

# %% tags=["check", "L6-15"]
rows = []
for window in (1, 2, 4):
    share, n = 1 / window**2, static.numel() / window**2  # n independent means
    kept = [through_pooling(x, window).var() / x.var() for x in (static, digits)]
    rows.append([f"{window} × {window}", share, *(f"{value:.2f}" for value in kept)])
    assert abs(kept[0] - share) < 4 * share * (2 / n) ** 0.5
    assert window != 2 or kept[1] > 2 * kept[0]
head = ["window", "noise, exact", "noise", "digits"]
plots.table(rows, header=head, caption="Share of the variance that pooling keeps")

# %% tags=["L6-15"]
pair = torch.stack([digits[labels == 0][0], static[0] / 2])
tiles = torch.stack([through_pooling(pair, window) for window in (1, 2, 4)], 1).flatten(0, 1)
plots.show(
    plots.images(tiles, 3, scale=9, rows=("a digit", "noise")),
    alt="A digit and noise, each whole, pooled to 4 by 4, and to 2 by 2. At 4 by 4 the 0 is "
    "a pale column between dark edges, noise grey squares; at 2 by 2 the 0 is even grey, and noise "
    "four greys.",
    caption="Whole, pooled by 2, by 4. By 2 a digit is left as a sketch; by 4, its brightness.",
)

# %% [markdown] tags=["L6-15", "L6-16"]
# Pooled by 2, most of a digit passes as a sketch, and no more of noise than was counted. By 4 little more than the brightness is left of so small
# a digit; a large picture bears more. And our network must *answer* with noise!
#
# **But a network is no mean pool.** Where four pixels were, it may keep sixteen numbers: it has channels. So count numbers.
# We show a small U-Net pure noise and ask for the same noise back, the right answer at step 1000. It has two levels,
# 8×8 and 4×4; with $c$ channels below, $16c$ numbers pass for 64 pixels, and no linear network could bring the loss below
# $1-c/4$ (for $c\le4$). *Predict* the loss for $c=1$, 2 and 16. And with a bridge over the bottleneck?


# %% tags=["L6-15", "L6-16"]
def hand_through(coarse, bridges, steps=150):
    """Losses of a U-Net that learns to answer white noise with itself; coarse: channels below."""
    torch.manual_seed(0)
    net = UNet((1, 8, 8), (16, coarse), patch=1, attention=False, skips=bridges)
    noise = ((torch.randn(32, 1, 8, 8),) for _ in count())

    def losses(net, x):
        return (net(x, torch.ones(len(x))) - x).square().mean((1, 2, 3))

    return torch.stack([now.loss for now in fit(net, losses, noise, steps, lr=5e-3)])


# %% tags=["L6-15", "L6-16"]
passed = {
    "c = 1": hand_through(1, bridges=False),
    "c = 2": hand_through(2, bridges=False),
    "c = 16": hand_through(16, bridges=False),
    "c = 1 and bridges": hand_through(1, bridges=True),
}

# %% tags=["check", "L6-15", "L6-16"]
one, two, sixteen, bridged = ends = [values[-20:].mean() for values in passed.values()]
for name, end in zip(passed, ends, strict=True):
    print(f"{name:17} loss {end:.2f}")
assert 0.6 < one < 0.8
assert 0.3 < two < 0.65
assert max(sixteen, bridged) < 0.1

# %% tags=["L6-15", "L6-16"]
step = range(5, 150, 10)
curves = {name: (step, values.reshape(-1, 10).mean(1)) for name, values in passed.items()}
figure = plots.lines(curves, xlabel="training step", ylabel="loss")

# %% tags=["L6-15", "L6-16"]
figure.axes[0].hlines([0.75, 0.5], 0, 150, color="black", linestyle="--", linewidth=0.8)
plots.show(
    figure,
    alt="Four loss curves. One channel settles a little below the dashed line 0.75, two come down "
    "to the line 0.5; sixteen fall to almost 0 in 50 steps, one channel with bridges in 20.",
    caption="Dashed: below this no linear network without bridges can go, c = 1 and c = 2.",
)

# %% [markdown] tags=["L6-15", "L6-16"]
# It is a law of counting: fewer numbers, less noise. (A network is not linear and may cheat a little: both narrow ones
# end below their lines.) A wide bottleneck *can* pass noise. And real ones are wide:

# %% tags=["check", "L6-15"]
bottlenecks = {
    "the U-Net of 2015, padded": (512 * 512, 1024 * 32 * 32),
    "MNIST in this course": (28 * 28, 96 * 7 * 7),
    "Stable Diffusion 1, a latent": (4 * 64 * 64, 1280 * 8 * 8),
}
rows = [[name, a, b, b / a] for name, (a, b) in bottlenecks.items()]
plots.table(rows, header=["", "numbers in", "at the bottom", "ratio"], caption="Bottlenecks")
assert all(b > a for a, b in bottlenecks.values())

# %% [markdown] tags=["L6-16"]
# So bridges are not there because noise *could* not pass: $c=16$ learnt in 50 steps to hand it through, with nothing else to do. A
# denoiser would have to **learn** it besides everything else: pack every pixel into channels, carry it past layers that look for
# digits, unpack it at the right place. A bridge brings it over for nothing. Section 8 takes the bridges out of a narrow denoiser
# of digits, and asks whether width can make up for them.

# %% [markdown] tags=["L6-13", "L6-14", "formula"]
# ## 4. Level by level
#
# **Story.** The way through a diffusion U-Net: down, through the middle, up. A vector $e$ tells every block the time (sections 5
# and 6). On the way up each level gets its bridge, laid *beside* the map as more channels (L6-14):
#
# $$h_\ell=\text{block}_\ell\big([\,\text{rise}(h_{\ell+1}),\ \text{bridge}_\ell\,],\,e\big).$$
#
# | what | does |
# |---|---|
# | `encoder.first`, `last` | picture to map, map to picture: a 3×3 convolution each |
# | `encoder.blocks`, `decoder` | one block a level on the way down, one on the way up: two 3×3 convolutions; the side stays |
# | `encoder.downsample` | a 2×2 convolution of stride 2: half the side (in 2015: the largest of four) |
# | `upsample` | *rise*, a transposed 2×2 convolution: each place becomes 2×2 |
# | `middle` | attention (section 7) |
#
# `net` is a `UNet` of the library; we only walk through its parts. With `skips=False` zeros come over the bridges.


# %% tags=["formula", "L6-13", "L6-14", "twin:didiff.networks.unet.UNet.forward"]
def forward(net, x, clock, y=None):
    """x (B, C, H, W), clock (B,), y (B,) or None -> like x: down, through the middle, up."""
    e = net.embedding(clock, y)
    bridges = [net.encoder.blocks[0](net.encoder.first(x), e)]
    for halve, block in zip(net.encoder.downsample, net.encoder.blocks[1:], strict=True):
        bridges.append(block(halve(bridges[-1]), e))
    h = net.middle(bridges[-1])
    for level in reversed(range(len(bridges))):
        bridge = bridges[level] if net.skips else torch.zeros_like(bridges[level])
        h = net.decoder[level](torch.cat([h, bridge], 1), e)
        h = net.upsample[level - 1](h) if level else h
    return net.last(h)


# %% [markdown]
# **Check.** The network that draws MNIST in lessons 09 to 12, on pictures of 28×28 pixels: the same numbers from our walk and from
# the library. In a new network the last layer of each block has weights 0, so that the block is deaf: what comes in plus a
# constant goes out. We wake them, or nothing would show. ($y=-1$ means "no label".)


# %% tags=["formula"]
def awake(net):
    """The network, its layers that start at zero moved off it."""
    for parameter in net.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return net


# %% tags=["check", "L6-13", "L6-14"]
mnist = awake(UNet((1, 28, 28), (48, 96), classes=10))  # patch = 2, attention at the bottom
x, clock, y = torch.randn(3, 1, 28, 28), torch.rand(3), torch.tensor([7, 0, -1])
ours, library = forward(mnist, x, clock, y), mnist(x, clock, y)
print(
    f"{tuple(x.shape)} in, {tuple(ours.shape)} out, difference {(ours - library).abs().max():.5f}"
)
assert ours.shape == x.shape
assert torch.allclose(ours, library, rtol=0, atol=1e-5)


# %% tags=["formula", "L6-13"]
def shapes(net, *inputs):
    """[name, channels in, channels out, side out] of the parts of a U-Net as they run."""
    rows, hooks = [], []  # a hook is called whenever its part has run
    parts = r"encoder\.(first|blocks\.\d|downsample\.\d)|middle|upsample\.\d|decoder\.\d|last"

    def note(name):
        return lambda _, x, out: rows.append([name, x[0].shape[1], *out.shape[1:3]])

    for name, part in net.named_modules():
        if re.fullmatch(parts, name):
            hooks.append(part.register_forward_hook(note(name)))
    net(*inputs)
    for hook in hooks:
        hook.remove()
    return rows


# %% tags=["check", "L6-13", "L6-14"]
rows = shapes(mnist, x, clock)
plots.table(rows, header=["part", "channels in", "out", "side"], caption="The U-Net of MNIST")
joined = {row[0]: row[1] for row in rows}
assert [row[3] for row in rows] == [14, 14, 7, 7, 7, 7, 14, 14, 28]
assert joined["decoder.0"] == 48 + 48  # from below, and over the bridge
assert joined["decoder.1"] == 96 + 96

# %% [markdown] tags=["L6-13", "L6-14"]
# A block of the decoder reads twice the channels: half from below, half over the bridge. (The lowest level has a bridge,
# too, around the attention.) `first` folds 2×2 pixels into channels, which loses nothing, and saves three quarters of the
# work at the finest level. *Check* both: fold and unfold; and does the output listen to the bridges?

# %% tags=["check", "L6-13"]
folded = F.pixel_unshuffle(x, 2)
print(f"{tuple(x.shape)} folded is {tuple(folded.shape)}")
assert torch.equal(F.pixel_shuffle(folded, 2), x)

# %% tags=["check", "L6-14"]
mnist.skips = False
changed = (mnist(x, clock, y) - library).square().mean().sqrt() / library.std()
mnist.skips = True
print(f"zeros over the bridges change the output by {changed:.0%} of its size")
assert changed > 0.05

# %% [markdown] tags=["L6-18", "DS-58", "E-04", "formula"]
# ## 5. One block, told the time
#
# **Story.** Who guesses noise must know how much of it there is (section 6 shows what happens if not). The vector $e$ carries
# the time to every block:
#
# $$h\;\mapsto\;\text{skip}(h)+\text{conv}_2\,\text{silu}\big((1+s)\,\text{norm}(\text{conv}_1h)+b\big),
# \qquad(s,b)=\text{told}(e).$$
#
# Two convolutions around one nonlinearity, and $h$ itself added (a *residual* block), so that a block only learns what to
# change. `norm` brings groups of channels to mean 0 and variance 1. Then each channel is *scaled and shifted* by what a
# linear layer of this block makes of $e$.
#
# **Is it so?** The lecture writes that the time is added *after* each residual block (L6-18). Another deck draws an MLP, then
# a linear layer in each block, and shows the encoder alone (DS-58). The authors of DDPM add it *into* each residual block (Ho et
# al. 2020, appendix B). And ours? How could you tell where in a block the time comes in, without reading its code?


# %% tags=["formula", "L6-18", "L6-28", "twin:didiff.networks.unet.Block"]
class Block(nn.Module):
    """skip(h) + conv2 silu((1 + scale) * norm(conv1 h) + shift), told scale and shift by e."""

    def __init__(self, inputs, outputs, width):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm = nn.GroupNorm(max(1, outputs // 16), outputs)
        self.told = nn.Linear(width, 2 * outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        nn.init.zeros_(self.conv2.weight)  # the block starts as its skip, but for a constant

    def forward(self, h, e):
        scale, shift = self.told(e)[:, :, None, None].chunk(2, 1)
        inner = (1 + scale) * self.norm(self.conv1(h)) + shift
        return self.skip(h) + self.conv2(F.silu(inner))


# %% [markdown]
# **Check.** One map, two vectors $e$: what differs at three places of a block? And then once more with `conv2` silenced.


# %% tags=["L6-18", "E-04"]
def listen(block, h, e):
    """What leaves conv1, what enters conv2, and what leaves the block."""
    seen = []
    hooks = [
        block.conv1.register_forward_hook(lambda _, x, out: seen.append(out)),
        block.conv2.register_forward_pre_hook(lambda _, x: seen.append(x[0])),
    ]
    seen.append(block(h, e))
    for hook in hooks:
        hook.remove()
    return seen


# %% tags=["L6-18", "E-04"]
def changes(block, h, two):
    """Largest change at these three places from one e of the two to the other."""
    places = zip(*(listen(block, h, e) for e in two), strict=True)
    return [(a - b).abs().max().item() for a, b in places]


# %% tags=["check", "L6-18", "E-04"]
block, h, two = awake(Block(8, 8, 16)), torch.randn(2, 8, 6, 6), torch.randn(2, 1, 16)
alive = changes(block, h, two)
nn.init.zeros_(block.conv2.weight)
silent = changes(block, h, two)
for place, a, b in zip(("after conv1", "before conv2", "after all"), alive, silent, strict=True):
    print(f"{place:12} {a:.2f}, and with a silent conv2 {b:.2f}")
assert alive[0] == 0 < min(alive[1:])
assert silent[2] == 0  # added after the block, the time would still show

# %% tags=["check", "DS-58", "E-04"]
mnist.zero_grad()
(mnist(x, clock) - x).square().mean().backward()
told = {name: p.grad.norm() for name, p in mnist.named_parameters() if "told.weight" in name}
for name, size in told.items():
    print(f"{name:31} gradient {size:.2f}")
assert len(told) == 4
assert min(told.values()) > 0

# %% [markdown] tags=["L6-18", "DS-58", "E-04"]
# **Put right.** As in DDPM, the time enters *inside* every residual block, between its convolutions (E-04), in the encoder and
# in the decoder. DS-58 has the layer in each block right; what it draws for one half holds for both. (In a new network
# all these gradients are 0: `conv2` starts at zero, and lets nothing through before its first step.)

# %% [markdown] tags=["L6-28", "E-06"]
# **Is it so?** Scale and shift after a normalisation, "like batch norm" (L6-28). In what are they alike? *Predict*: does one
# sample's output change when *other* samples of its batch change, in training?

# %% tags=["check", "L6-28", "E-06"]
h = torch.randn(64, 16, 8, 8).double()
others = torch.cat([h[:1], 2 + 3 * h[1:]])  # the first sample stays, the others change
for norm in (nn.BatchNorm2d(16).double(), nn.GroupNorm(4, 16).double()):
    change = (norm(others) - norm(h))[0].abs().max()
    print(f"{type(norm).__name__:11}: the first sample changes by {change:.2f}")
    assert (change > 0.1) == isinstance(norm, nn.BatchNorm2d)

# %% [markdown]
# And may the shift come *before* the norm? *Predict* what is left of a random shift of 16 channels behind a norm of 1, 4, 8
# and 16 groups.

# %% tags=["check", "L6-28", "E-06"]
shift = torch.randn(16, 1, 1).double()
for groups in (1, 4, 8, 16):
    norm = nn.GroupNorm(groups, 16).double()
    effect = (norm(h + shift) - norm(h)).square().mean().sqrt()
    print(f"shift before a norm of {groups:2} groups: effect {effect:.2f}")
    assert (effect < 1e-10) == (groups == 16)

# %% [markdown] tags=["L6-28", "E-06"]
# **Put right.** Both normalise, scale and shift (E-06). But here scale and shift are functions of the time, and the statistics are
# each sample's own; batch norm, in training, takes those of the batch. And the order matters. A norm subtracts the mean of its
# group: of an earlier shift it leaves what differs *within* the group. DDPM shifts *before* its second norm: with several
# channels a group this works, as the printed effects show. With one channel a group nothing is left, and no error would say so. Scale and
# shift *after* the norm (Dhariwal & Nichol 2021) know no such trap, and our block has them.

# %% [markdown] tags=["L6-17", "DS-58", "formula"]
# ## 6. The clock
#
# **Story.** A single number is a poor thing to feed into a linear layer: the network needs sharp distinctions (step 1 is not
# step 20) and broad ones. So the time is read on many *dials* at once, slow ones and fast ones, as on the hands of a clock
# (Vaswani et al. 2017; L6-17):
#
# $$\gamma(t)=[\cos\omega_jt,\ \sin\omega_jt]_{j<d/2},\qquad\omega_j=10000^{-2j/d}.$$
#
# Then two layers make $e$ of it, and a linear layer in each block what this block needs (DS-58). The lectures' $t$ is the step
# $k=1..1000$. Our networks are told the `clock` $\frac2\pi\arctan\sigma\in[0,1]$ of lesson 03, $\sigma=\text{noise}/\text{signal}$, on
# dials from $\pi$ to $1000\,\pi$: the same idea in other units.


# %% tags=["formula", "L6-17"]
def features(t, frequency):
    """Each time of t (N,) on dials of these frequencies (d/2,): (N, d)."""
    angle = t[:, None] * frequency
    return torch.cat([angle.cos(), angle.sin()], 1)


# %% tags=["formula", "L6-17"]
def lectures_dials(d):
    return 10_000.0 ** (-torch.arange(0, d, 2, dtype=torch.float64) / d)


# %% tags=["check", "L6-17"]
k = torch.arange(1, 1001, dtype=torch.float64)
lengths = features(k, lectures_dials(128)).square().sum(1)
print(f"|γ|² is {lengths.min():.6f} to {lengths.max():.6f} for d = 128")
assert (lengths - 64).abs().max() < 1e-10  # cos² + sin² = 1 on each of 64 dials

# %% tags=["check", "DS-58"]
embedding, some = mnist.embedding, torch.tensor([0.0, 0.3, 1.0])
by_hand = embedding.time(features(some, embedding.frequency)) + embedding.label.weight[0]
off = (F.silu(by_hand) - embedding(some)).abs().max()
print(f"dials, two layers and the row of no label: {off:.5f} from the library's")
assert off < 1e-5

# %% [markdown] tags=["L6-17", "T-15"]
# **How many directions?** If all times gave nearly one vector, nothing could tell them apart. We count the directions in which
# the vectors vary by the *effective rank*, $\exp$ of the entropy of the eigenvalues of their covariance, as shares of the sum.
# *Predict*: what does it become if somebody feeds $k/T$ (with $T=1000$) into dials that are made for $k$?


# %% tags=["formula", "L6-17", "T-15"]
def effective_rank(vectors):
    """In how many directions the rows of vectors (N, d) vary, from 1 to d."""
    values = torch.linalg.svdvals(vectors - vectors.mean(0)).square()
    share = values / values.sum().clamp(min=1e-12)
    return torch.exp(-torch.xlogy(share, share).sum()).item()


# %% tags=["check", "L6-17", "T-15"]
ours, our_dials = schedule.at(range(1, 1001)).clock, embedding.frequency.double()
told = {
    "k, on the lectures' dials": features(k, lectures_dials(64)),
    "k / T, on the same dials": features(k / 1000, lectures_dials(64)),
    "our clock, on our dials": features(ours, our_dials),
}
ranks = {name: effective_rank(vectors) for name, vectors in told.items()}

# %% tags=["check", "L6-17", "T-15"]
for name, rank in ranks.items():
    print(f"{name:26} effective rank {rank:5.2f} of 64")
twice = effective_rank(features(k, lectures_dials(128)))
print(f"k, on twice as many dials  effective rank {twice:5.2f} of 128")
assert ranks["k / T, on the same dials"] < 1.1
assert min(ranks["k, on the lectures' dials"], ranks["our clock, on our dials"]) > 20
assert abs(twice - 43.3) < 0.05

# %% [markdown] tags=["T-15", "play"]
# **Play.** Choose a step and see how like its vector is to those of all others (the cosine of their angle). A good clock has one
# peak: near steps look nearer than far ones, and far ones unlike. Then choose `k / T`, and predict what you will see.


# %% tags=["play", "T-15"]
def similarity(told):
    """Frames: how like the vector of one step is to those of all steps, told (1000, d) by name."""
    k = range(1, 1001)

    def frames(name, step):
        alike = torch.cosine_similarity(told[name], told[name][step - 1 : step])
        figure = plots.densities(k, {"likeness": alike}, xlabel="step k", ylabel="likeness")
        figure.axes[0].set_ylim(-0.55, 1.05)
        words = f"{int((alike > 0.9).sum())} of 1000 steps are like step {step} by more than 0.9"
        yield widgets.Frame(plots.png(figure), words)

    return frames


# %% tags=["play", "T-15"]
play_clock = widgets.Explorer(
    similarity(told),
    {
        "name": widgets.choice("told", list(told), value="k, on the lectures' dials"),
        "step": widgets.slider("step", 4, 1000, value=400, step=12),
    },
    width=420,
)

# %% tags=["play", "T-15"]
play_clock.show(
    alt="likeness of every step to one of them: a sharp peak of height 1 at that step, on rugged "
    "slopes that fall away to both sides",
    still_over="step", values=[4, 100, 196, 304, 400, 496, 604, 700, 796, 904, 952, 1000],
)  # fmt: skip

# %% tags=["check", "T-15"]
alike = {}
for name, vectors in told.items():
    likeness = torch.cosine_similarity(vectors, vectors[399:400])
    alike[name] = (likeness > 0.9).sum().item()
    print(f"{name:26} like step 400: {alike[name]:4} steps; step 401 by {likeness[400]:.2f}")
assert alike["k / T, on the same dials"] == 1000 > 100 > alike["our clock, on our dials"]

# %% [markdown] tags=["L6-19", "T-15", "T-16"]
# Our clock is the sharpest: on its fastest dials even step 401 is another world, and only the slow ones see the neighbour. Does
# that help, or harm?
#
# **Any clock will do that runs one way.** Step, share of signal $\bar\alpha$, our clock: each is a function of the others, always
# rising or always falling. Whoever is told one can know them all, and networks learn functions. So the *choice* matters little,
# as long as levels that must be told apart differ by enough for the dials. To be told *nothing* matters (L6-19). **Check** by
# experiment: small networks, alike but for what they are told, learn three bumps in the plane, whose exact
# $\epsilon$ we know. *Predict* their order.


# %% tags=["formula", "L6-19"]
class Told(nn.Module):
    """A network that reads a function of the clock instead of the clock."""

    def __init__(self, net, read):
        super().__init__()
        self.net, self.read = net, read

    def forward(self, x, clock, y=None):
        return self.net(x, self.read(clock), y)


# %% tags=["check", "L6-19"]
def step_of(clock):
    """The step k of the linear table that has this clock (B,), as floats."""
    clocks = DDPMSchedule().at(range(1001)).clock.float()
    return torch.searchsorted(clocks, clock - 1e-6).to(clock)


assert torch.equal(step_of(schedule.at(range(1001)).clock.float()), torch.arange(1001.0))


# %% tags=["formula", "L6-19"]
def taught(read, dials=None, steps=250):
    """A denoiser of three bumps that is told read(clock), on its own dials or on these."""
    torch.manual_seed(0)
    world, schedule, net = mixtures.three_modes(), DDPMSchedule(), MLP((2,), width=64, depth=2)
    if dials is not None:
        net.embedding.frequency = dials.float()
    model = Denoiser(Told(net, read), "eps")
    supply = ((world.sample(256)[0].float(), random_steps(schedule, 256)) for _ in count())
    *_, end = fit(model, loss, supply, steps, lr=4e-3, ema=0.98)
    return end.ema


# %% tags=["L6-19", "T-15", "T-16"]
dials = lectures_dials(64)
networks = {
    "our clock": taught(lambda clock: clock),
    "k / T on our dials": taught(lambda clock: step_of(clock) / 1000),
    "ᾱ, which falls": taught(lambda clock: torch.cos(clock * math.pi / 2) ** 2),
    "k, on the lectures' dials": taught(step_of, dials),
    "k / T, on the lectures' dials": taught(lambda clock: step_of(clock) / 1000, dials),
    "nothing": taught(lambda clock: 0 * clock),
}


# %% tags=["formula", "L6-19"]
@torch.no_grad()
def error(model, n=20_000):
    """Mean square distance of its ε from the exact one, over all steps."""
    world, t = mixtures.three_modes(), random_steps(DDPMSchedule(), n, seeded(1))
    x0 = world.sample(n, generator=seeded(2))[0].float()
    xt = add_noise(x0, torch.randn(x0.shape, generator=seeded(3)), t)
    return (model(xt, t).eps - world(xt, t).eps).square().mean().item()


# %% tags=["check", "L6-19", "T-15", "T-16"]
errors = {name: error(model) for name, model in networks.items()}
rows = [[name, f"{value:.4f}"] for name, value in errors.items()]
plots.table(rows, header=["told", "square error of ε"], caption="One network, six clocks")
*good, whispered, nothing = errors.values()
assert max(good) < 1.5 * min(good)
assert max(good) < whispered < nothing / 5

# %% [markdown] tags=["L6-19", "T-15", "T-16"]
# Four clocks, one result, sharp or not (one seed each). (Ours has an advantage of another kind: it means the same on every schedule, so that a network can
# change schedules.) $k/T$ on dials made for $k$ runs one way as well, but so softly that all thousand steps look alike; the network
# makes up for most of it. Whoever is told nothing is off by many times as much: one point of the plane hardly betrays its noise. A
# picture does, by its grain, and there a deaf network has less to lose. The museum comes back to these two.

# %% [markdown] tags=["exercise"]
# **Exercise 2.** Invent a clock that runs one way through the thousand steps and is as good as useless on our dials. How do you
# know, without training?
#
# <details><summary>Answer</summary>
#
# One that nearly stands still: $(k/T)^{100}$ is below 0.0005 up to step 926. By then the fastest dial, $\omega=1000\pi$, has turned by a
# quarter, and most others by almost nothing. Count, as the slider does, how many steps look like step 400: next cell. (The effective rank
# is kinder: the last steps still go their own ways.)
# </details>

# %% tags=["solution", "check"]
for power in (1, 10, 100):
    vectors = features((k / 1000) ** power, our_dials)
    near = (torch.cosine_similarity(vectors, vectors[399:400]) > 0.9).sum()
    print(f"(k / T)^{power:<3}: {near:3} steps like step 400, rank {effective_rank(vectors):4.1f}")
assert near > 900

# %% [markdown] tags=["L6-20", "formula"]
# ## 7. Attention: everybody hears everybody
#
# **Story.** "Convolution whispers, attention confers" (L22-38). Every position (*token*) of a map asks a question, its **query**;
# every position offers a **key** and a **value**. Where a question fits a key, the value is heard:
#
# $$\text{attend}(q,k,v)=\text{softmax}\!\left(\frac{q\,k^{\mathsf T}}{\sqrt d}\right)v .$$
#
# Row by row, the softmax makes weights that sum to 1. Without $\sqrt d$ the products of $d$ random numbers would have standard
# deviation $\sqrt d$, and nearly all the weight would go to one voice. Several `heads` confer side by side, each with a few of
# the channels.


# %% tags=["formula", "L6-20", "twin:didiff.networks.unet.Attention"]
def attend(q, k, v):
    """N questions q (.., N, d) to M keys k (.., M, d) with values v (.., M, c): (.., N, c)."""
    weights = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)  # each row sums to 1 over the keys
    return weights @ v


class Attention(nn.Module):
    """h + project(attend(q, k, v)), with q, k and v read from norm(h) at every position."""

    def __init__(self, channels, heads=4):
        super().__init__()
        self.heads, self.norm = heads, nn.GroupNorm(max(1, channels // 16), channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.project = nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.project.weight)  # it starts as h, but for a constant

    def forward(self, h):
        qkv = self.qkv(self.norm(h)).flatten(2)  # (B, 3 C, N): the N positions in a row
        q, k, v = qkv.unflatten(1, (3, self.heads, -1)).mT.unbind(1)  # (B, heads, N, d) each
        heard = attend(q, k, v).mT.flatten(1, 2)  # (B, C, N)
        return h + self.project(heard.unflatten(2, h.shape[2:]))


# %% [markdown]
# **Check.** `forward`, `Block`, `Attention`: with the clock's dials these are the whole network. We put ours in place of the
# library's, with its weights.


# %% tags=["formula"]
def rebuilt(part):
    """The network with our Block and Attention in place of the library's, weights and all."""
    for name, child in part.named_children():
        ours = rebuilt(child)
        if isinstance(child, unet.Block):
            inputs, outputs, width = *child.conv1.weight.shape[1::-1], child.told.in_features
            ours = Block(inputs, outputs, width)
        elif isinstance(child, unet.Attention):
            ours = Attention(child.project.in_channels)
        ours.load_state_dict(child.state_dict())
        setattr(part, name, ours)
    return part


# %% tags=["check"]
by_hand = forward(rebuilt(copy.deepcopy(mnist)), x, clock, y)
print(f"difference {(by_hand - library).abs().max():.5f}")
assert torch.allclose(by_hand, library, rtol=0, atol=1e-5)

# %% [markdown] tags=["L6-20"]
# **Self and cross.** In *self*-attention all three come from the picture. In *cross*-attention only the queries do; keys and
# values come from elsewhere, say from words (lesson 13). The lecture: attention reaches every position (L6-20). *Predict* for
# both: does what comes out at position $i$ change with what goes in at position $j\ne i$?


# %% tags=["formula", "L6-20"]
def influence(layer, x):
    """How much position i of the output moves with position j of the input x (N, d): (N, N)."""
    slope = torch.autograd.functional.jacobian(layer, x)  # (N, d, N, d)
    return slope.square().sum((1, 3)).sqrt()


# %% tags=["L6-20"]
to_q, to_k, to_v = torch.randn(3, 8, 8).double() / 8**0.5
picture, words = torch.randn(16, 8).double(), torch.randn(5, 8).double()
own = influence(lambda x: attend(x @ to_q, x @ to_k, x @ to_v), picture)
cross = influence(lambda x: attend(x @ to_q, words @ to_k, words @ to_v), picture)

# %% tags=["check", "L6-20"]
apart = ~torch.eye(16, dtype=torch.bool)
for name, matrix in (("self", own), ("cross", cross)):
    low, high = matrix[apart].aminmax()
    print(f"{name:5}-attention: between two positions {low:.3f} to {high:.3f}")
assert own[apart].min() > 0
assert cross[apart].max() == 0 < cross[~apart].min()

# %% [markdown] tags=["L6-20"]
# Self-attention mixes positions, each with each. Cross-attention mixes none: every position hears the words for itself, and
# what it makes of them spreads only through the layers around it.

# %% [markdown] tags=["L22-38", "E-67"]
# **Is it so?** A U-Net of convolutions is *local*, says the lecture, and only transformers let pixels attend to pixels (L22-38).
# In section 1 four layers heard 81 pixels. *Predict* what the middle pixel of a whole U-Net can hear of 64×64, with one, two and
# three levels. (We take the norms out: each looks at a whole map and would spoil the experiment, as the last line shows.)


# %% tags=["formula", "L22-38", "E-67"]
def bare(part):
    """The network without its norms."""
    for name, child in part.named_children():
        setattr(part, name, nn.Identity() if isinstance(child, nn.GroupNorm) else bare(child))
    return part


# %% tags=["formula", "L22-38", "E-67"]
def hearing(levels, attention=False, norms=False):
    """The footprint of a U-Net with so many levels."""
    net = awake(UNet((1, 64, 64), (8,) * levels, patch=1, attention=attention))
    net, clock = (net if norms else bare(net)).double(), torch.tensor([0.5]).double()
    return footprint(lambda x: net(x, clock))


# %% tags=["L22-38", "E-67"]
heard = {f"{n} level{'s' * (n > 1)}": hearing(n) for n in (1, 2, 3)}
heard["2 levels, attention"] = hearing(2, attention=True)
heard["2 levels, norms"] = hearing(2, norms=True)

# %% tags=["check", "L22-38", "E-67"]
for name, mask in heard.items():
    print(f"{name:20} {mask.sum():4} of {mask.numel()} pixels, a square of side {mask[32].sum()}")
assert [mask[32].sum().item() for mask in heard.values()] == [13, 30, 62, 64, 64]

# %% tags=["L22-38", "E-67"]
masks = torch.stack(list(heard.values()))[:, None]
plots.show(
    plots.images(1.5 * masks - 1, 5, scale=2),
    alt="Five black squares, grey where the middle pixel hears: a small square for one level, a "
    "fifth of the area for two, nearly all for three, all with attention, all with norms.",
    caption="Grey: what the middle pixel hears. 1, 2, 3 levels; 2 with attention; 2 with norms.",
)

# %% [markdown] tags=["L22-38", "E-67"]
# Count, for two levels: from the end back, `last` and two convolutions make 7 pixels, which are 4 places of the coarse map; four
# convolutions there make 12, that is 24 pixels; three more at the start, 30.
#
# **Put right.** A convolution whispers, but a U-Net shortens the way: with three levels it *can* hear almost everything (how loud,
# a footprint does not say; far pixels are faint). And diffusion
# U-Nets *do* have attention, from the first on (Ho et al. 2020, appendix B). What attends are not pixels but tokens: in a U-Net
# the places of a coarse map, each of which stands for a patch of the picture (E-67).

# %% [markdown] tags=["L6-21", "E-05", "formula"]
# **What it costs.** With $N$ positions and $C$ channels there are $N^2$ weights, each made of $C$ products, and used on $C$
# values; and four linear maps of every position. In multiply-adds:
#
# $$\text{attention}=4C^2N+2CN^2,\qquad\text{a 3×3 convolution}=9C^2N .$$
#
# **Is it so?** Attention is placed at 16×16 and 8×8, says the lecture (L6-21). Why there? *Predict* the factor of each cost
# when the side doubles. torch counts for us.


# %% tags=["formula", "L6-21"]
def multiply_adds(network, *inputs):
    """Multiply-adds of one call, as torch counts them."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(*inputs)
    return counter.get_total_flops() // 2


# %% tags=["check", "L6-21"]
C, counted = 64, {}
with torch.device("meta"):  # shapes without numbers
    pair = UNet((1, 8, 8), (C,)).middle, nn.Conv2d(C, C, 3, padding=1)
    for side in (8, 16, 32, 64, 128):
        h, N = torch.empty(1, C, side, side), side**2
        counted[side] = [multiply_adds(layer, h) for layer in pair]
        assert counted[side] == [4 * C**2 * N + 2 * C * N**2, 9 * C**2 * N]

# %% tags=["check", "L6-21", "E-05"]
rows = [
    [side, f"{side**4:,}", f"{a / 1e6:,.1f}", f"{c / 1e6:,.1f}", f"{a / c:.1f}"]
    for side, (a, c) in counted.items()
]
header = ["side", "weights N²", "attention", "convolution", "ratio"]
plots.table(rows, header=header, caption="Million multiply-adds of one layer, 64 channels")
assert 12 < counted[128][0] / counted[64][0] < 16
assert counted[128][1] / counted[64][1] == 4

# %% tags=["L6-21"]
side = 2.0 ** torch.arange(2, 10)
costs = {
    "attention": (side, 4 * C**2 * side**2 + 2 * C * side**4),
    "3×3 convolution": (side, 9 * C**2 * side**2),
}
figure = plots.lines(costs, xlabel="side of the map", ylabel="multiply-adds", log=True)

# %% tags=["L6-21"]
figure.axes[0].set_xticks(side[::2], [f"{s:g}" for s in side[::2]])
figure.axes[0].axvspan(8, 16, color=plots.ROLE["highlight"]["color"], alpha=0.2)
plots.show(
    figure,
    alt="Cost over the side, both axes logarithmic. Attention starts below the convolution, "
    "crosses it near side 13 and climbs twice as steeply. A band marks sides 8 to 16.",
    caption="The band: where the lecture places attention.",
)

# %% [markdown] tags=["L6-21", "E-05"]
# Twice the side: four times the convolution and, on large maps, nearly *sixteen* times the attention. The ratio is
# $\frac49+\frac{2N}{9C}$: for our 64 channels attention costs about as much as a convolution at 8×8 and 16×16, one good reason for
# the places on the slide; with more channels, larger maps will do. **Put right:** they are a habit of models of small pictures, no
# rule (E-05). Some attend at 32×32 as well; Stable Diffusion 1, on latents of 64×64, at 64×64, 32×32 and 16×16, and at
# 8×8 in its middle; our MNIST network at 7×7.

# %% [markdown] tags=["exercise"]
# **Exercise 3.** (a) From how many positions on is attention dearer than the convolution, in terms of $C$? Test it for $C=64$ on
# both sides of the limit. (b) How much memory do the weights of 8 heads take at 64×64, for one picture, at two bytes a number?
#
# <details><summary>Answer</summary>
#
# (a) $4C^2N+2CN^2>9C^2N$ means $N>\tfrac52C$: 160 positions for $C=64$, between sides 12 and 13. (b) $8\cdot4096^2\cdot2$ bytes: 268
# million. (Fused kernels never store them all; they compute them all the same.)
# </details>

# %% tags=["solution", "check"]
with torch.device("meta"):
    maps = {side: torch.empty(1, C, side, side) for side in (12, 13)}
    ratios = {s: multiply_adds(pair[0], h) / multiply_adds(pair[1], h) for s, h in maps.items()}
print(f"attention / convolution: {ratios[12]:.3f} at 12 × 12, {ratios[13]:.3f} at 13 × 13")
assert ratios[12] < 1 < ratios[13]
assert 8 * 4096**2 * 2 == 268_435_456

# %% [markdown] tags=["L6-16"]
# ## 8. The bridges taken out
#
# **Story.** Now we train: 8×8 digits, three levels of 16, 16 and 8 channels, with bridges and without; same start, same
# batches, 400 steps. At the bottom 2×2×8 = 32 numbers stand for 64 pixels, narrow on purpose. A third network has no bridges and
# is wide, with levels of 16, 32 and 64: four numbers for each pixel. The networks learn
# $v$ of lesson 05: near the noise it asks for the picture, near the data for the noise. They are told the class as well, lesson
# 09 says how; a tenth of the labels is hidden, lesson 11 says why.
#
# *Predict*: whose loss falls further? What will digits drawn without bridges look like? At which steps do the three guess the
# noise equally well?


# %% tags=["L6-16"]
@torch.no_grad()
def sample(model, y, steps=20):
    """Digits (B, 1, 8, 8) of the classes y (B,) by DDIM, all models from the same noise."""
    levels = grid(DDPMSchedule(), steps)
    start = initial_noise((len(y), 1, 8, 8), levels[0], seeded(4))
    return last(ddim(guidance.condition(model, y), start, levels))


# %% tags=["L6-16"]
def train(bridges, channels=(16, 16, 8), steps=400):
    """A model of digits, its losses, and the ten digits that it draws after every 50 steps."""
    torch.manual_seed(0)
    net = UNet((1, 8, 8), channels, classes=10, patch=1, skips=bridges)
    model, values, album = Denoiser(net, "v", sigma_data=0.75), [], []

    def losses(model, x0, y):
        return loss(model, x0, random_steps(DDPMSchedule(), len(x0)), drop_labels(y, 0.1))

    batches = data.batches(*data.digits("train"), 32)
    for now in fit(model, losses, batches, steps, lr=4e-3, ema=0.98, warmup=30):
        values.append(now.loss)
        if now.step % 50 == 0:
            album.append(sample(now.ema, torch.arange(10)))
    return now.ema, torch.stack(values), album


# %% tags=["L6-16"]
trained = {
    "bridges": train(bridges=True),
    "none": train(bridges=False),
    "none, wide": train(bridges=False, channels=(16, 32, 64)),
}
whole, cut_off, wide = (model for model, _, _ in trained.values())


# %% tags=["formula", "L6-16"]
@torch.no_grad()
def noise_error(model, k):
    """Mean square error of the guessed noise at step k, on 899 unseen digits."""
    x0, y = data.digits("test")
    eps = torch.randn(x0.shape, generator=seeded(5))
    return loss(model, x0, DDPMSchedule().at(k), y, eps, target="eps").mean().item()


# %% tags=["check", "L6-16"]
some = (5, 20, 50, 100, 200, 400, 600, 800)
missed = {name: [noise_error(model, k) for k in some] for name, (model, *_) in trained.items()}
rows = [[name, *(f"{error:.2g}" for error in errors)] for name, errors in missed.items()]
plots.table(rows, header=["step", *map(str, some)], caption="Square error of ε; answering 0: 1")
a, b, c = missed.values()
assert all(x < 0.8 * z and x < y for x, y, z in zip(a[1:4], c[1:4], b[1:4], strict=True))
assert all(y < z for y, z in zip(c[2:4], b[2:4], strict=True))
assert all(abs(y / x - 1) < 0.15 for x, y in zip(a[6:], b[6:], strict=True))

# %% tags=["L6-16"]
_, axes = plots.panels(2, size=(3.6, 3.0))
middle = range(10, 400, 20)
curves = {name: (middle, v.reshape(-1, 20).mean(1)) for name, (_, v, _) in trained.items()}
plots.lines(curves, xlabel="training step", ylabel="loss", ax=axes[0])
curves = {name: (some, errors) for name, errors in missed.items()}
figure = plots.lines(curves, xlabel="step k", ylabel="square error of ε", log=True, ax=axes[1])

# %% tags=["L6-16"]
plots.show(
    figure,
    alt="Left: with bridges the loss starts highest, all meet after 50 steps, then part: bridges "
    "0.37, none 0.45, without but wide to 0.39. Right: error of the guessed noise over the step, "
    "both axes logarithmic. At small steps it is smallest with bridges; from step 600 on all are "
    "the same.",
    caption="A narrow network without bridges hardly sees the last noise, a wide one more.",
)

# %% tags=["check", "L6-16"]
real, y, rows = data.digits("test")[0], torch.arange(300) % 10, []
for name, (model, values, _) in trained.items():
    drawn = sample(model, y)
    scores = metrics.recognised(drawn, y), metrics.energy_distance(drawn, real)
    size = sum(p.numel() for p in model.parameters())
    rows.append([name, size, *(f"{v:.2f}" for v in (values[-50:].mean(), *scores))])
header = ["", "parameters", "loss", "recognised", "energy distance to real"]
caption = "300 digits each; recognised: read as their class; distance (lesson 07): 0 for one law"
plots.table(rows, header=header, caption=caption)
good, bad, middling = [list(map(float, row[2:])) for row in rows]
assert good[0] < middling[0] < bad[0]
assert good[1] > 0.8
assert bad[2] > 2 * good[2]

# %% tags=["L6-16"]
examples = torch.stack([digits[labels == digit][0] for digit in range(10)])
gallery = torch.cat([examples, *(album[-1] for _, _, album in trained.values())])
plots.show(
    plots.images(gallery, 10, scale=6, rows=("real", *trained)),
    alt="Four rows of the digits 0 to 9: real ones, clean ones drawn with bridges, nearly the same "
    "digits covered with grain without bridges, and clean ones by the wide network without.",
    caption="Same noise. The narrow network without bridges sees the digit, and not its noise.",
)

# %% [markdown] tags=["L6-16"]
# The narrow network without bridges draws *nearly the same digits*, and most are recognised; but they are covered with grain. The
# right panel says why. From step 600 up all guess the noise equally well: there $\epsilon$ follows from a sketch of the picture, and
# sketches pass. Below step 100 the picture is plain and the noise fine, and the smaller the step, the
# less it knows of the noise, until its answer is no better than 0 (error 1): **nobody takes the last noise away.** Counting is not all: 32 numbers could carry half of the noise, and carry the digit
# instead. The wide one *learns* to carry noise and draws clean digits; but with more than six times the parameters it still guesses the last
# noise less well than the bridges do.
#
# The lecture says that bridges bring detail back (L6-15), and a second thing: they let gradients pass (L6-16). *Predict*: how much weaker is the gradient that reaches the
# first layer without bridges, in a *new* network and after training?


# %% tags=["formula", "L6-16"]
def first_gradient(model):
    """Size of the gradient that reaches the first layer, from the loss of 256 digits."""
    x0, y = (a[:256] for a in data.digits("train"))
    t, eps = (
        random_steps(DDPMSchedule(), 256, seeded(0)),
        torch.randn(x0.shape, generator=seeded(1)),
    )
    model = copy.deepcopy(model).requires_grad_(True)  # an averaged model has none
    first = model.net.encoder.first[1].weight
    (gradient,) = torch.autograd.grad(loss(model, x0, t, y, eps).mean(), first)
    return gradient.norm().item()


def unborn(bridges):
    """The model of digits before its training."""
    torch.manual_seed(0)
    net = UNet((1, 8, 8), (16, 16, 8), classes=10, patch=1, skips=bridges)
    return Denoiser(net, "v", sigma_data=0.75)


# %% tags=["check", "L6-16"]
ages = {"new": (unborn(True), unborn(False)), "trained": (whole, cut_off)}
weaker = {}
for age, (with_bridges, without) in ages.items():
    near, far = first_gradient(with_bridges), first_gradient(without)
    weaker[age] = near / far
    print(f"{age:7} with bridges {near:.4f}, without {far:.4f}: {weaker[age]:.0f} times less")
assert weaker["new"] > 100 > 2 * weaker["trained"]

# %% [markdown] tags=["L6-16"]
# True: by a factor of hundreds in new networks, where every layer that halves or doubles on the long way starts with small random
# weights and shrinks what passes; and by far less after training. But the left panel shows that it did no harm here: in the first
# steps the losses without bridges are even the lower ones. The gap comes later, from what does not pass.

# %% [markdown] tags=["play", "L6-16"]
# **Play.** Drag the training, from step 50 to step 400. Which comes first, the stroke or the clean ground? Which network gets
# which?


# %% tags=["play", "L6-16"]
def growing(runs):
    """Frames: the digits that each run draws after so many training steps."""

    def frames(step):
        pictures = torch.cat([album[step // 50 - 1] for _, _, album in runs.values()])
        recent = [f"{name}: {v[step - 50 : step].mean():.2f}" for name, (_, v, _) in runs.items()]
        figure = plots.images(pictures, 10, scale=6, rows=list(runs))
        yield widgets.Frame(plots.png(figure), f"loss over 50 steps · {' · '.join(recent)}")

    return frames


# %% tags=["play", "L6-16"]
steps = {"step": widgets.slider("training step", 50, 400, value=150, step=50)}
play_training = widgets.Explorer(growing(trained), steps, width=620)
play_training.show(
    alt="ten digits of each network: strokes in noise at training step 50, digits at step 150, on "
    "a clean ground with bridges alone; later the wide network has one too, and the narrow one "
    "without bridges stays covered with grain to the end",
    still_over="step",
)

# %% [markdown] tags=["play", "L6-14", "L6-16"]
# The stroke comes first. A clean ground the network with bridges has early, the wide one late, the narrow one never.
#
# **Play.** Look inside. The top row: a digit, the digit at step $k$, its noise, the guessed noise, the error of the guess, the
# guessed picture. Below: six channels of the map of each level, as they go over the bridges. Cut a bridge of the *trained*
# network: which one does it need? At which steps does it hardly matter?


# %% tags=["play", "L6-14", "L6-16"]
def without_bridge(model, level):
    """A copy of the model with the bridge of one level cut, not of the lowest."""

    def cut(_, inputs, maps):
        return [0 * one if k == level else one for k, one in enumerate(maps)]

    model = copy.deepcopy(model)
    model.net.encoder.register_forward_hook(cut)  # what it returns goes on in place of the maps
    return model


# %% tags=["play", "L6-14", "L6-16"]
@torch.no_grad()
def insides(model, x, t, y):
    """Six channels of each level's map of one noisy digit, as 8 x 8 pictures: (18, 1, 8, 8)."""
    scaled, clock = network_input(x, t, model.sigma_data)
    rows = []
    for level, maps in enumerate(model.net.encoder(scaled, model.net.embedding(clock, y))):
        six = maps[0, :6, None] / (2 * maps[0, :6].std() + 1e-6)
        rows.append(six.repeat_interleave(2**level, 2).repeat_interleave(2**level, 3))
    return torch.cat(rows)


# %% tags=["play", "L6-14", "L6-16"]
def inside(models, schedule, images, y):
    """Frames: a noisy digit, the maps of its three levels, and what the network makes of it."""
    eps = torch.randn(1, 1, 8, 8, generator=seeded(6))
    names, levels = ["x₀", "xₖ", "ε", "guess", "error", "x̂₀"], ["digit", "8 × 8", "4 × 4", "2 × 2"]

    @torch.no_grad()
    def frames(k, bridges, digit):
        t, model, one = schedule.at(k), models[bridges], torch.tensor([digit])
        x0 = images[y == digit][:1]
        xt = add_noise(x0, eps, t)
        guess = model(xt, t, one)
        top = [x0, xt, eps / 2, guess.eps / 2, (guess.eps - eps) / 2, guess.x0]
        pictures = torch.cat([*top, insides(model, xt, t, one)])
        figure = plots.images(pictures, 6, scale=8, rows=levels)
        figure.axes[0].set_xticks([72 * j + 36 for j in range(6)], names)
        figure.axes[0].xaxis.tick_top()
        figure.axes[0].set_xlabel("lower rows: channels 1 to 6 of the map on each level")
        words = f"step {k}: error of the guessed noise {noise_error(model, k):.3f} over 899 digits"
        yield widgets.Frame(plots.png(figure), f"{words} (answering 0: 1)")

    return frames


# %% tags=["play", "L6-14", "L6-16"]
models = {
    "all bridges": whole,
    "8 × 8 cut": without_bridge(whole, 0),
    "4 × 4 cut": without_bridge(whole, 1),
    "trained without": cut_off,
}
controls = {
    "k": widgets.slider("step k", 10, 1000, value=160, step=30),
    "bridges": widgets.choice("bridges", list(models), value="all bridges"),
    "digit": widgets.slider("digit", 0, 9, value=0),
}

# %% tags=["play", "L6-14", "L6-16"]
play_inside = widgets.Explorer(inside(models, schedule, *data.digits("test")), controls, 500)
play_inside.show(
    alt="a noisy 0, its noise, the guess and its error, and six maps of each level: fine grain at "
    "8 by 8, coarse squares at 2 by 2; the error pales as the step grows",
    still_over="k", values=[10, 40, 70, 100, 160, 220, 310, 400, 550, 700, 850, 1000],
)  # fmt: skip

# %% tags=["check", "L6-14", "L6-16"]
hurt = {name: [noise_error(model, k) for k in (100, 700)] for name, model in models.items()}
for name, (plain, noisy) in hurt.items():
    print(f"{name:15} error of ε at step 100 {plain:.2f}, at step 700 {noisy:.3f}")
assert hurt["8 × 8 cut"][0] > 1.5 * hurt["all bridges"][0]
assert hurt["4 × 4 cut"][0] < 1.2 * hurt["all bridges"][0]

# %% [markdown] tags=["exercise", "L6-16"]
# **Exercise 4.** (a) Why does this network hardly miss its 4×4 bridge? (b) The lectures teach $\epsilon$ instead of $v$. At which
# steps is that the harder task for a network without bridges? (c) And one that learns $x_0$? Reason; no training.
#
# <details><summary>Answer</summary>
#
# (a) What needs exact places has a bridge of its own at 8×8; below, sketches are carried, and 32 numbers hold most of a sketch of 64
# pixels. In large pictures each level has details of its own. (b) At the noisy end: there $\epsilon$ is nearly the input,
# white noise that must be handed through, where $v$ asks for a sketch. The clean end stays as it was. (c) At the clean end, where $x_0$ is nearly the input,
# with all its details; and where a sampler wants $\epsilon$, the error is divided by a small noise. Whatever is
# asked, there are steps whose answer is as fine as the input.
# </details>

# %% [markdown] tags=["L6-22"]
# ## 9. Where it is told the class
#
# **Story.** A U-Net has many places to tell it something: the embedding in every block, attention at some levels, bridges
# in between (L6-22). The lecture speaks of a hierarchy: embeddings act globally, bridges on details. Our network hears of the
# class through $e$, which is $\text{silu}(e_{\text{time}}+e_{\text{class}})$, at three levels. *Predict*: on which level does this
# network rely most?
#
# **Code.** Before some blocks we exchange $e$ for that of "no label". The time stays in.


# %% tags=["formula", "L6-22"]
def told_at(model, levels):
    """The denoiser whose blocks hear of the class at these levels only."""
    net, deaf = model.net, {0, 1, 2} - set(levels)
    blocks = [part[level] for part in (net.encoder.blocks, net.decoder) for level in deaf]

    def denoise(x, t, y=None):
        nobody = net.embedding(network_input(x, t, model.sigma_data)[1])
        hooks = [b.register_forward_pre_hook(lambda _, he: (he[0], nobody)) for b in blocks]
        guess = model(x, t, y)
        for hook in hooks:
            hook.remove()
        return guess

    return denoise


# %% tags=["L6-22"]
y, heard = torch.arange(200) % 10, {}
for levels in ((0, 1, 2), (1, 2), (0, 2), (0, 1), (0,), (1,), (2,), ()):
    drawn = sample(told_at(whole, levels), y)
    heard[levels] = metrics.recognised(drawn, y), metrics.energy_distance(drawn, real)

# %% tags=["check", "L6-22"]
names = {levels: ", ".join(f"{8 // 2**n} × {8 // 2**n}" for n in levels) for levels in heard}
rows = [[names[at] or "nowhere", f"{r:.0%}", f"{e:.2f}"] for at, (r, e) in heard.items()]
header = ["class told at", "recognised", "energy distance"]
plots.table(rows, header=header, caption="200 digits each")
assert all(heard[0, 1, 2][0] > 0.1 + heard[(level,)][0] for level in range(3))
assert heard[()][0] < 0.25

# %% [markdown] tags=["L6-22"]
# *This* network relies most on the middle level: without it fewest digits are what was asked, and alone it says most. But no door is
# enough, for it was trained with all of them; one trained with a single door might do well. Nor is one small network with one seed a law of levels: whether embeddings act globally
# and bridges on details, these numbers do not decide; section 8 speaks for the bridges. **A remark on the slide:** bridges are no separate way in for
# conditions in standard models. They *can* be: ControlNet adds what it wants to say to the maps on the bridges.

# %% [markdown]
# ## 10. Counted
#
# **Story.** How large is the network that draws MNIST in the next lessons, and where does its work go? A layer uses each of its
# weights once at every place of its output (a transposed convolution: of its input), and attention adds $2CN^2$. *Predict*: which
# level has more weights, 14×14 or 7×7? Which has more work?


# %% tags=["formula"]
def layer_by_layer(net, *inputs):
    """{name: (weights, multiply-adds)} of every layer with weights, from its shapes alone."""
    counts, hooks = {}, []

    def note(name, layer):
        def hook(_, x, out):
            places = (x[0] if isinstance(layer, nn.ConvTranspose2d) else out)[0, 0].numel()
            counts[name] = layer.weight.numel(), layer.weight.numel() * places

        return layer.register_forward_hook(hook)

    for name, layer in net.named_modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            hooks.append(note(name, layer))
    net(*inputs)
    for hook in hooks:
        hook.remove()
    return counts


# %% tags=["check"]
mnist, picture = UNet((1, 28, 28), (48, 96), classes=10), torch.randn(1, 1, 28, 28)
parts = {
    "14 × 14": r"encoder.first|encoder.blocks.0|decoder.0|last",
    "7 × 7": r"encoder.blocks.1|decoder.1",
    "between them": r"encoder.downsample|upsample",
    "attention": r"middle",
    "time": r"embedding",
}

# %% tags=["check"]
totals = {part: torch.zeros(2, dtype=torch.long) for part in parts}
for name, numbers in layer_by_layer(mnist, picture, torch.rand(1)).items():
    (part,) = (part for part, names in parts.items() if re.match(names, name))
    totals[part] += torch.tensor(numbers)
totals["attention"][1] += 2 * 96 * 49**2  # q k', and weights times v
rows = [[part, f"{w:,}", f"{work / 1e6:.2f}"] for part, (w, work) in totals.items()]
plots.table(rows, header=["part", "weights", "million multiply-adds"], caption="MNIST")

# %% tags=["check"]
with torch.device("meta"):
    twin, shape = UNet((1, 28, 28), (48, 96), classes=10), torch.empty(1, 1, 28, 28)
    on_meta = multiply_adds(twin, shape, torch.empty(1))
by_hand = sum(work for _, work in totals.values()).item()
size = sum(p.numel() for p in mnist.parameters())
rest = size - sum(weights for weights, _ in totals.values()).item()
print(f"{size:,} parameters, {rest:,} of them biases, norms and rows of the classes")
print(f"multiply-adds by hand {by_hand:,}, by torch on meta {on_meta:,}")
assert size == 783_604
assert by_hand == on_meta

# %% [markdown]
# Half the side and twice the channels: in convolutions *the same work, four times the weights*. (The table has 3.4: the linear
# layers that tell the time only double, and `first` and `last` belong to 14×14.) So most weights sit at the bottom, where they see
# far, and all levels cost about the same. To tell the time costs no work worth mentioning.

# %% [markdown] tags=["exercise"]
# **Exercise 5.** *Predict* the factors in weights and in work: (a) twice the channels, (96, 192); (b) `patch=1`, pixels not
# folded; (c) on pictures of 32×32, three levels (48, 96, 192) instead of two.
#
# <details><summary>Answer</summary>
#
# (a) Nearly 4 and 4: a weight joins a channel to a channel. (b) 1 and a little more than 4: the same weights at four times
# the places, and attention grows faster. (c) 3.7 and 1.5: another level works as much as each of the others. In its
# convolutions it has four times the weights of the one above, which alone would make $\frac{1+4+16}{1+4}=4.2$; what tells the time
# grows less.
# </details>


# %% tags=["solution"]
def extent(side, channels, patch=2):
    """Parameters and multiply-adds of a U-Net for pictures of this side: (2,)."""
    with torch.device("meta"):
        net = UNet((1, side, side), channels, classes=10, patch=patch)
        work = multiply_adds(net, torch.empty(1, 1, side, side), torch.empty(1))
    return torch.tensor([sum(p.numel() for p in net.parameters()), work])


# %% tags=["solution", "check"]
plain = extent(28, (48, 96))
a, b = extent(28, (96, 192)) / plain, extent(28, (48, 96), patch=1) / plain
c = extent(32, (48, 96, 192)) / extent(32, (48, 96))
for name, (weights, work) in {"a": a, "b": b, "c": c}.items():
    print(f"({name}) weights × {weights:.1f}, work × {work:.1f}")
assert 3.5 < min(a) < max(a) < 4.1
assert b[0] < 1.01 < 4 < b[1]
assert 3.5 < c[0] < 4

# %% [markdown] tags=["DS-60"]
# **Notebooks elsewhere (DS-60).** The lecture points to the diffusion course of Hugging Face. Its unit "Diffusion models from
# scratch" is a good next U-Net to look at, with one caution: its first half corrupts pictures as $x=(1-a)\,x_0+a\,z$ with $z$ *uniform*
# in $[0,1]$, and teaches the picture. Is that the forward process of lesson 03? *Predict* the standard deviation of $x$
# for data of mean 0 and variance 1.

# %% tags=["check", "DS-60"]
unit, z = torch.randn(100_000, generator=seeded(7)), torch.rand(100_000, generator=seeded(8))
for a in (0.0, 0.25, 0.5, 0.75, 1.0):
    x, exact = (1 - a) * unit + a * z, ((1 - a) ** 2 + a**2 / 12) ** 0.5
    print(f"a = {a:.2f}: standard deviation {x.std():.2f}, exact {exact:.2f}")
    assert abs(x.std() - exact) < 4 * exact / (2 * len(x)) ** 0.5

# %% [markdown] tags=["DS-60"]
# No: the variance is not kept, the noise has mean ½, and at $a=1$ it is not Gaussian, so that the formulas of lessons 03 to 07
# for $x_t$, its score and its samplers do not hold (what the network learns is still a mean: that of the pictures that fit). As a first taste of a denoiser it does its work, and its second half has DDPM proper.

# %% [markdown] tags=["T-15", "T-16"]
# ## 11. Bug museum
#
# Bugs in networks are quiet: shapes fit, losses fall, and a network learns around what can be learnt around.
#
# **The time, whispered or withheld.** Two networks of section 6 are bugs of every day: $k/T$ where $k$ belongs (T-15), and a clock
# that is computed and never used (T-16). Which do you see in two thousand samples?


# %% tags=["T-15", "T-16"]
def drawn(model, n=2000):
    """Points (n, 2) that a denoiser of the three bumps draws."""
    levels = grid(DDPMSchedule(), 50)
    return last(ddim(model, initial_noise((n, 2), levels[0], seeded(9), torch.float32), levels))


# %% tags=["T-15", "T-16"]
def moves(model):
    """1 if the answer to one point changes with the time, else 0."""
    early, late = (model(torch.ones(1, 2), DDPMSchedule().at(k)).eps for k in (100, 900))
    return float((early - late).abs().max() > 1e-6)


def rank(model):
    """Effective rank of the features of all thousand steps, as this model reads them."""
    clock = DDPMSchedule().at(range(1, 1001)).clock.float()
    return effective_rank(features(model.net.read(clock), model.net.net.embedding.frequency))


# %% tags=["check", "T-15", "T-16"]
truth = mixtures.three_modes().sample(2000, generator=seeded(10))[0].float()
exhibits = museum.inspect(
    {
        "right": networks["k, on the lectures' dials"],
        "T-15: k / T where k belongs": networks["k / T, on the lectures' dials"],
        "T-16: time never used": networks["nothing"],
    },
    eye={"distance": Check(lambda m: metrics.energy_distance(drawn(m), truth), 0.0, 0.03)},
    units={
        "moves with time": Check(moves, 1.0),
        "rank, up to 10": Check(lambda m: min(rank(m), 10.0), 10.0),
    },
)

# %% tags=["T-15", "T-16"]
museum.show(
    exhibits,
    caption="Energy distance of 2000 samples to exact ones, and two unit checks",
    draw=lambda one, ax: plots.scatter({"model": drawn(one.version, 500)}, limit=4.0, ax=ax),
    alt="Three clouds of points: three bumps in an arch; the same for T-15; for T-16 the upper "
    "bump narrow, the lower right one drawn out to the side, and stray points between the three.",
)

# %% [markdown] tags=["T-15", "T-16", "T-28", "E-06"]
# The whisper cannot be seen in samples; the rank of the features sees it before any training. A shift *before* a norm of
# single channels (section 5) is T-16 by another road: the time is used, and erased.
#
# **Attention on the wrong axis (T-28).** Queries, keys and values come as $(B,d,N)$, the way convolutions leave them. All four
# versions return the right shape.


# %% tags=["T-28"]
def right(q, k, v):
    """q, k (B, d, N), v (B, c, N) -> (B, c, N)."""
    return attend(q.mT, k.mT, v.mT).mT


def over_queries(q, k, v):
    return ((q.mT @ k / q.shape[1] ** 0.5).softmax(-2) @ v.mT).mT


def unscaled(q, k, v):
    return ((q.mT @ k).softmax(-1) @ v.mT).mT


# %% tags=["T-28"]
def reshaped(q, k, v):
    """As if numbers in the order (B, d, N) could be read as (B, N, d)."""
    q, k, v = (a.reshape(len(a), a.shape[2], a.shape[1]) for a in (q, k, v))
    out = attend(q, k, v)
    return out.reshape(len(out), out.shape[2], out.shape[1])


# %% tags=["T-28"]
def sums(version, n=64):
    """What comes out where all values are 1: the sum of the weights of a query, at its worst."""
    q, k = torch.randn(2, 4, 16, n, dtype=torch.float64)
    out = version(q, k, torch.ones_like(q))
    return out.flatten()[(out - 1).abs().argmax()]


def entropy(version, n=64):
    """Mean entropy of the weights of a query, in nats: with v the unit matrix they come out."""
    q, k = torch.randn(2, 50, n, n, dtype=torch.float64)
    weights = version(q, k, torch.eye(n, dtype=torch.float64).expand_as(q))
    return -torch.xlogy(weights, weights).sum(1).mean()


# %% tags=["T-28"]
def order(version, n=64):
    """Positions in another order: how far is the answer from the same answer in that order?"""
    q, k, v = torch.randn(3, 4, 16, n, dtype=torch.float64)
    other = torch.randperm(n)
    again = version(q[..., other], k[..., other], v[..., other])
    return (again - version(q, k, v)[..., other]).abs().max()


# %% tags=["check", "T-28"]
versions = {
    "right": right,
    "T-28: softmax over queries": over_queries,
    "T-28: no √d": unscaled,
    "T-28: reshaped, not transposed": reshaped,
}
units = {
    "sum of weights": Check(sums, 1.0),
    "entropy": Check(entropy, math.log(64) - 0.5, 0.1),
    "depends on order": Check(order, 0.0),
}
museum.show(museum.inspect(versions, units=units), caption="Three unit checks, one for each bug")

# %% [markdown] tags=["T-28"]
# After the division scores of random vectors are nearly $N(0,1)$, and the weights $e^s/\sum e^s$ then have the entropy
# $\log N-\frac12$. Without it a query hears about two of 64 keys.
#
# **Bridges in the other order.** `torch.cat([bridge, h])` for `torch.cat([h, bridge])`. Trained from scratch this is the same
# network with its channels numbered anew, and no harm at all. But load weights that were trained the other way round, and
# every shape fits. (The check `gap` asks the network that the weights were made for: keep some of its answers with them.)


# %% tags=["check"]
def swapped(model):
    """A copy whose decoder reads the bridge first, with the same weights."""

    def swap(_, he):
        return torch.cat(he[0].chunk(2, 1)[::-1], 1), he[1]

    model = copy.deepcopy(model)
    for block in model.net.decoder:
        block.register_forward_pre_hook(swap)
    return model


# %% tags=["check"]
def gap(model, reference=whole):
    """How far the answers of a model are from those of the library with the same weights."""
    x, clock = torch.randn(8, 1, 8, 8), torch.rand(8)
    return (model.net(x, clock) - reference.net(x, clock)).square().mean().sqrt()


# %% tags=["check"]
y = torch.arange(100) % 10
exhibits = museum.inspect(
    {"right": whole, "bridge first": swapped(whole), "bridge lost": without_bridge(whole, 0)},
    eye={"distance": Check(lambda m: metrics.energy_distance(sample(m, y), real), 0.0, 0.15)},
    units={"gap": Check(gap, 0.0)},
)
museum.show(
    exhibits,
    caption="The weights of section 8, loaded into other wiring",
    draw=lambda one, ax: plots.images(sample(one.version, y[:9]), 3, scale=6, ax=ax),
    alt="Nine clean digits of the right network; noise with the bridge first; without the finest "
    "bridge digits in hard grain.",
)

# %% [markdown]
# **Odd sides.** Halving 7 leaves 3, doubling 3 makes 6, and the bridge does not fit. Many a code then crops, pads or stretches
# until the shapes agree, and nobody hears that a row and a column were never looked at. *Check*: how many pixels does the
# coarse map not depend on? Our U-Net refuses instead (exercise 1).

# %% tags=["check"]
halve = nn.Conv2d(1, 4, 2, stride=2)
for side in (7, 8):
    x = torch.randn(1, 1, side, side, requires_grad=True)
    halve(x).sum().backward()
    unseen = (x.grad == 0).sum().item()
    print(f"side {side}: {unseen} of {side**2} pixels are never seen below")
    assert unseen == side**2 - (side // 2 * 2) ** 2

# %% [markdown]
# ## What we learned
#
# * A denoiser must see far and answer exactly. Halving helps to see and forgets; bridges bring back what it forgot.
# * What a bottleneck passes is a matter of counting, and of learning. Without bridges a narrow network misses the last noise, and
#   a wide one must learn to carry it.
# * The time enters inside every block, where no norm erases it. Any clock does that runs one way and can be read.
# * Attention lets all hear all, at a price of $N^2$: few positions, please.
# * Half the side, twice the channels: convolutions do the same work with four times the weights.
# * Shapes prove nothing. Check sums, ranks, footprints, and that the answer moves with what it is told.
#
# ## References
#
# * Ronneberger, Fischer & Brox 2015, *U-Net: convolutional networks for biomedical image segmentation*, section 2, figure 1.
# * Vaswani et al. 2017, *Attention is all you need*, sections 3.2 and 3.5.
# * Wu & He 2018, *Group normalization*, section 3.
# * Ho, Jain & Abbeel 2020, *Denoising diffusion probabilistic models*, appendix B (the U-Net with time and attention).
# * Dhariwal & Nichol 2021, *Diffusion models beat GANs*, section 3 (scale and shift, attention at more levels).
# * Rombach et al. 2022, *Latent diffusion models*, section 3.3 and appendix E.
# * Zhang, Rao & Agrawala 2023, *Adding conditional control to text-to-image diffusion models*, section 3 (ControlNet).
#
# **Where next:** lesson 09 opens the door for classes, which we left ajar, and asks this network for a seven.
