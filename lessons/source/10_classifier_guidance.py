# %% [markdown]
# # 10 · Classifier guidance
#
# *A painter that hears no label, a critic that can only read, and one number that says how loudly the critic speaks. You will
# write the line that joins them, and find out what a critic must have learnt before it may speak at all.*
#
# **You need** the score and its noise (lesson 06), samplers (07), and what it means that a model is told a label (09).
#
# **You will be able to** steer a model that you cannot retrain, derive how from Bayes' rule to the last sign, tell guidance of the
# noise from guidance of the mean, say why a finished classifier makes a bad critic, and catch six famous bugs in nine versions,
# most of which can hide from the eye.
#
# **Time** an hour and a half of reading and playing; 40 seconds of computing on two CPU cores.
#
# **The codes.** The course tests what lectures say: (L6-54) names a slide of lecture 6, L19 and DS are two other decks; E-13 is a slip on a
# slide, T-08 a classic mistake. **The clocks.** A level `t` is named by its step $k$ of $T=1000$, or by its clock $u=k/T$ from 0 (data) to 1.

# %% tags=["setup"]
import math
from functools import cache
from itertools import pairwise

import torch
from torch.distributions import Normal

from didiff import guidance, mixtures
from didiff.denoiser import quick
from didiff.notebook import museum, plots
from didiff.notebook.museum import Check
from didiff.notebook.widgets import Explorer, Frame, slider
from didiff.process import add_noise, from_eps
from didiff.samplers import ddim, ddpm, initial_noise, last
from didiff.schedules import DDPMSchedule, cosine, grid
from didiff.training import metrics

torch.manual_seed(0)
cores = torch.get_num_threads()
torch.set_num_threads(1)  # what comes first is small: a second thread costs more than it brings
plots.style()

# %% [markdown]
# **What we bring along.** `t = schedule.at(k)` is the level of step $k$: a noisy point is
# $x_t=\text{signal}\cdot x_0+\text{noise}\cdot\epsilon$, and the best guess at its noise is the score in other units,
# $\epsilon(x_t)=-\text{noise}\cdot\nabla\log p(x_t)$. A mixture of Gaussians knows everything exactly, so it can play three parts:
#
# | called as | it is | in the story |
# |---|---|---|
# | `mixture(x, t)` | an unconditional denoiser, which guesses `.x0` and `.eps` | the painter, that hears no label |
# | `mixture.class_log_prob(x, t)` | $\log p(y\mid x_t)$ of every class $y$: a perfect classifier | the critic, that can only read |
# | `mixture(x, t, y)` | the denoiser that was told the label | the painter that we wish we had: our check |


# %%
schedule = DDPMSchedule()  # T = 1000, linear betas: the table of the lectures
clean = schedule.at(0)  # signal 1, noise 0
line = mixtures.two_classes()  # on the line: class 0 is N(-1, 1), class 1 is N(+1, 1)
ring = mixtures.ring()  # in the plane: eight bumps on a circle, labels 0 and 1 in turn
axis = torch.linspace(-6, 6, 401, dtype=torch.float64)[:, None]


def seeded(seed):
    return torch.Generator().manual_seed(seed)


# %% [markdown] tags=["L6-33", "formula"]
# # Part one: everything exact
#
# ## 1. Bayes, step by step
#
# **Story.** A painter draws digits of all kinds: at every noise level it knows $p(x_t)$. A critic looks at a noisy canvas and says
# how probable it finds a seven under the noise: $p(y\mid x_t)$. What we want is a painter of sevens, $p(x_t\mid y)$. Must anybody
# learn anything new?
#
# **Formula.** No. Bayes' rule holds at every level by itself (L6-33):
#
# $$p(x_t\mid y)=\frac{p(x_t)\;p(y\mid x_t)}{p(y)} .$$
#
# On the line we can write the critic down. At level $t$ the two classes are the bells $N(\pm\text{signal},1)$, since
# $\text{signal}^2\cdot1+\text{noise}^2=1$. Their ratio at $x$ is $e^{2\,\text{signal}\,x}$; with equal shares, that makes
#
# $$p(y{=}1\mid x_t=x)=\frac{1}{1+e^{-2\,\text{signal}\,x}} .$$


# %% tags=["L6-33", "formula"]
def read(x, t):
    """p(y = 1 | xt = x) on the line."""
    return torch.sigmoid(2 * t.signal * x)


# %% [markdown]
# **Check.** Painter times critic, over $p(y)=\tfrac12$, against the bell of class 1. How far apart they are we measure by half the
# integral of the absolute difference, the *total variation* (0 equal, 1 disjoint).

# %% tags=["L6-33", "check"]
dx = (axis[1] - axis[0]).item()
for k in (1, 300, 1000):
    t = schedule.at(k)
    product = line.log_prob(axis, t).exp()[:, None] * read(axis, t) / 0.5
    bell = Normal(t.signal, 1.0).log_prob(axis).exp()
    apart = (product - bell).abs().sum().item() / 2 * dx
    print(f"k = {k:4}, at x = 1.2: {product[240, 0]:.6f} and {bell[240, 0]:.6f}", end="; ")
    print(f"total variation {apart:.10f}")
    assert apart < 1e-12

# %% [markdown] tags=["L6-33"]
# **Predict.** What does the perfect critic say of a point at $x=3$? At step 10, at 300, at 1000?
#
# It is another function at every level. A critic cannot see $x_0$; as the noise does not look at the label, its answer is an average over
# all $x_0$ that may lie under it, $p(y\mid x_t)=\mathbb E[\,p(y\mid x_0)\mid x_t\,]$. We compute this average by brute force, on a fine grid of
# clean points.


# %% tags=["L6-33"]
def read_through(x, t, fine):
    """E[p(y = 1 | x0) | xt = x] as a sum over clean points (N, 1)."""
    noising = Normal(t.signal * fine[:, 0], t.noise).log_prob(x)
    return (noising + line.log_prob(fine, clean)).softmax(1) @ read(fine, clean)


# %% tags=["L6-33", "check"]
x, fine = torch.tensor([[3.0]]).double(), torch.linspace(-9, 9, 4001).double()[:, None]
for k in (10, 300, 1000):
    t = schedule.at(k)
    at_once, averaged = read(x, t).item(), read_through(x, t, fine).item()
    print(f"k = {k:4}: p(y = 1 | x = 3) is {at_once:.6f} by formula, {averaged:.6f} by averaging")
    assert abs(at_once - averaged) < 1e-6

# %%
curves = {f"k = {k}": read(axis, schedule.at(k))[:, 0] for k in (1, 300, 500, 1000)}
figure = plots.densities(axis[:, 0], curves, xlabel="noisy point x", ylabel="p(y = 1 | x)")
plots.show(
    figure,
    alt="Four curves over x: a steep S at step 1, flatter ones at 300 and 500, at 1000 nearly a "
    "horizontal line at one half",
    caption="One critic, four levels. The more noise, the less it claims: of static, one half.",
)

# %% [markdown] tags=["L6-34", "DS-62", "formula"]
# **From densities to slopes (L6-34, DS-62).** A painter works with slopes. Take logarithms, and then gradients with respect to the
# noisy point $x_t$:
#
# $$\begin{aligned}
# \log p(x_t\mid y)&=\log p(x_t)+\log p(y\mid x_t)-\log p(y)\\
# \nabla\log p(x_t\mid y)&=\nabla\log p(x_t)+\nabla\log p(y\mid x_t)-0
# \end{aligned}$$
#
# How common the class is, $p(y)$, is one number for the whole landscape: it shifts the height everywhere and tilts it nowhere. To see
# that term at work we need classes of unequal shares: a ring on which class 1 has three quarters.


# %% tags=["L6-34", "DS-62"]
def gradient(log_prob, x, t):
    """The slope of log_prob (x (B, *d), t) -> (B,) at each point, by itself."""
    leaf = x.detach().requires_grad_()
    return torch.autograd.grad(log_prob(leaf, t).sum(), leaf)[0]


# %% tags=["L6-34", "DS-62"]
uneven = mixtures.Mixture(ring.means, 0.25, weights=[1.0, 3.0] * 4, labels=ring.labels)
heights = {
    "log p(x)": uneven.log_prob,
    "log p(y | x)": lambda x, t: uneven.class_log_prob(x, t)[:, 1],
    "log p(x | y)": lambda x, t: uneven.log_prob(x, t, 1),
}

# %% tags=["L6-34", "DS-62", "check"]
x, t = torch.randn(1000, 2, dtype=torch.float64), schedule.at(300)
a, b, c = (height(x, t) for height in heights.values())
print(f"heights at one point: {a[0]:.4f} + ({b[0]:.4f}) = {a[0] + b[0]:.4f}", end=", ")
print(f"but log p(x | y) = {c[0]:.4f}")
print(f"the difference, everywhere: {(c - a - b).mean():.6f} = -log 3/4")
assert (c - a - b + math.log(0.75)).abs().max() < 1e-10

# %% tags=["L6-34", "DS-62", "check"]
a, b, c = (gradient(height, x, t)[:, 0] for height in heights.values())
print(f"slopes at that point: {a[0]:.4f} + ({b[0]:.4f}) = {a[0] + b[0]:.4f}", end=", ")
print(f"and log p(x | y) has {c[0]:.4f}")
assert (a + b - c).abs().max() < 1e-10

# %% [markdown] tags=["exercise"]
# **Exercise 1.** One picture in a thousand shows a cat, and the critic knows it. We guide towards cats with its slope. Will one sample
# in a thousand be a cat, or every one? And at pure noise, where it says $\log\frac1{1000}$ of every canvas: how strongly does it push?
#
# <details><summary>Answer</summary>
#
# Every one: the slopes sum to that of $p(x_t\mid\text{cat})$, and $p(y)$ has dropped out. At pure noise the critic says the same of
# every canvas: no slope, no push. The next cell checks the slopes for a class that one point in a thousand has; step 1000 keeps a
# trace of signal, and so of a push.
# </details>

# %% tags=["solution", "check"]
rare = mixtures.Mixture(line.means, 1.0, weights=[999.0, 1.0], labels=[0, 1])
points, is_cat = torch.tensor([[-1.0], [0.0], [1.0]]).double(), guidance.log_prob_of(rare, 1)
for k in (300, 1000):
    t = schedule.at(k)
    push, p = gradient(is_cat, points, t), is_cat(points, t).exp()
    print(f"k = {k:4}: p(cat) {p.min():.4f} to {p.max():.4f}, largest push {push.max():.3f}")
    assert (rare.score(points, t) + push - rare.score(points, t, 1)).abs().max() < 1e-10
assert push.max() < 0.02

# %% [markdown] tags=["L6-53", "L6-54", "formula"]
# ## 2. From scores to guided noise
#
# **Story.** Samplers ask for noise, not for slopes. So multiply
# $\nabla\log p(x_t\mid y)=\nabla\log p(x_t)+\nabla\log p(y\mid x_t)$ by $-\text{noise}$ (L6-53), and then put a number ω in front of the
# critic (L6-54):
#
# $$\epsilon(x_t\mid y)=\epsilon(x_t)-\text{noise}\,\nabla\log p(y\mid x_t)
# \qquad\leadsto\qquad
# \tilde\epsilon=\epsilon(x_t)-\omega\,\text{noise}\,\nabla\log p(y\mid x_t)$$
#
# **Code.** Guidance makes a denoiser from a denoiser, so every sampler of lesson 07 takes it as it is. Only the critic is
# differentiated, and only with respect to what it looks at; the painter is asked, never opened. The sum over the batch gives each
# sample its own slope, as each sample occurs in one term only.


# %% tags=["twin:didiff.guidance.classifier", "L6-53", "L6-54", "formula"]
def classifier(denoiser, log_prob, omega):
    """eps_guided = eps - omega * noise * grad log p(y | xt); log_prob: (x, t) -> (B,)."""

    def guided(x, t):
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            (slope,) = torch.autograd.grad(log_prob(leaf, t).sum(), leaf)
        return from_eps(x, t, denoiser(x, t).eps - omega * t.like(x).noise * slope)

    return guided


# %% [markdown]
# **Check.** At ω = 1 this must be the model that was told the label, in ε and in $x_0$, to rounding. `guidance.log_prob_of(model, y)`
# makes a `log_prob` of a critic: it picks the column $y$ of `class_log_prob`. The last column reaches ω = 3 without any critic, by two
# readings of a model that knows labels, $\epsilon(x_t)+\omega\,\big(\epsilon(x_t\mid y)-\epsilon(x_t)\big)$. That is the other *family* of
# guidance (L19-06), the topic of lesson 11.

# %% tags=["L6-53", "L19-06", "check"]
y, rows = torch.arange(1000) % 2, []
says_y = guidance.log_prob_of(ring, y)
for k in (1, 100, 400, 900):
    t = schedule.at(k)
    guided, told = classifier(ring, says_y, 1.0)(x, t), ring(x, t, y)
    firm, itself = classifier(ring, says_y, 3.0), guidance.classifier_free(ring, y, 3.0)
    gaps = (guided.eps - told.eps, guided.x0 - told.x0, firm(x, t).eps - itself(x, t).eps)
    worst = [gap.abs().max().item() for gap in gaps]
    pair = (f"{guess.eps[0, 0]:.6f}" for guess in (guided, told))
    rows.append([k, *pair, *(f"{w:.8f}" for w in worst)])
    assert max(worst) < 1e-9

# %% tags=["L6-53", "L19-06"]
header = ["k", "ε guided, ω = 1", "ε told", "largest gap in ε", "in x₀", "two families, ω = 3"]
plots.table(rows, header=header, caption="One point of the ring, and the largest gaps of 1,000")

# %% [markdown] tags=["L6-55"]
# **Why a minus? (L6-55)** Noise points away from the data. To move the picture *up* the critic's slope $g$, take that much *out of*
# the noise. In $x_0=(x_t-\text{noise}\,\epsilon)/\text{signal}$ the two minus signs meet:
# $\tilde x_0-x_0=+\,\omega\,\frac{\text{noise}^2}{\text{signal}}\,g$.

# %% tags=["L6-55", "check"]
t = schedule.at(400)
g = gradient(says_y, x, t)
moved = classifier(ring, says_y, 2.0)(x, t).x0 - ring(x, t).x0
formula = 2 * t.noise**2 / t.signal * g
print(f"x0 of a point moves by {moved[0, 0]:.6f}, by the formula {formula[0, 0]:.6f}")
print(f"along the critic's slope: {((moved * g).sum(1) > 0).double().mean():.0%} of the points")
assert (moved - formula).abs().max() < 1e-10
assert ((moved * g).sum(1) > 0).all()

# %% [markdown] tags=["L6-54", "E-13"]
# **Is it so?** The slide has an ω in the guided noise; the three lines of derivation above it have none (L6-54). *Predict:* which ω
# does Bayes' rule ask for? The same at every level? Let numbers speak: by least squares over 1,000 points, the ω that brings
# $\tilde\epsilon$ closest to the noise of the model that was told.

# %% tags=["L6-54", "E-13", "check"]
for k in (10, 400, 900):
    t = schedule.at(k)
    push = -t.noise * gradient(says_y, x, t)
    wanted = ring(x, t, y).eps - ring(x, t).eps
    best = ((push * wanted).sum() / push.square().sum()).item()
    print(f"k = {k:3}: the best ω is {best:.8f}")
    assert abs(best - 1) < 1e-9

# %% tags=["L6-54", "E-13", "check"]
by_noise = -classifier(ring, says_y, 4.0)(x, t).eps / t.noise
by_slope = gradient(lambda x, t: ring.log_prob(x, t) + 4 * says_y(x, t), x, t)
print(f"ω = 4, k = {k}: guided score {by_noise[0, 0]:.6f}, ", end="")
print(f"slope of log p(x) + 4 log p(y | x) {by_slope[0, 0]:.6f}")
assert (by_noise - by_slope).abs().max() < 1e-10

# %% [markdown] tags=["L6-54", "E-13"]
# **Put right (E-13).** The derivation gives ω = 1 and no other, and it gives that for an exact painter and an exact critic. Any other
# value is put in by hand: at each level by itself it sharpens the critic to $p(y\mid x_t)^\omega$, as if several of it agreed. Sharpening
# at each level is not the same as sharpening the data once: section 4 measures what comes out, lesson 11 why.

# %% [markdown] tags=["play"]
# ## 3. Two arrows
#
# **Play.** Left: at every place the painter's arrow, $-\epsilon$ (blue), and the critic's, $\omega\,\text{noise}\,\nabla\log p(y{=}1\mid x)$ (pink).
# Right: their sum, over the hills of class 1 as they stand at this level. *Predict:* at which ω do the arrows climb exactly these
# hills? Where does the critic push hardest: on the wrong hills, between two hills, or far outside? And who is louder at $k=900$?


# %% tags=["play"]
def arrows(mixture, schedule, places):
    """Frames of painter, critic and their sum. The figure is made once; then the arrows turn."""
    figure, (left, right) = plots.panels(2, size=(3.0, 3.1))
    for ax, role in ((left, "data"), (left, "guidance"), (right, "model")):
        plots.field(places, places, role=role, ax=ax)
        ax.set(xlim=(-3.3, 3.3), ylim=(-3.3, 3.3))
    left.set_title("painter (blue), critic (pink)")
    right.set_title("their sum, over class 1")
    quivers, says = [*left.collections, *right.collections], guidance.log_prob_of(mixture, 1)

    def frames(k, omega):
        t = schedule.at(k)
        eps = mixture(places, t).eps
        guided = guidance.classifier(mixture, says, omega)(places, t).eps
        for quiver, noise in zip(quivers, (eps, guided - eps, guided), strict=True):
            quiver.scale = 24.0  # one length for all, at all levels
            quiver.set_UVC(*-noise.T)
        for old in right.collections[1:]:
            old.remove()
        plots.contours(lambda x: mixture.log_prob(x, t, 1).exp(), 3.3, ax=right)
        yield Frame(plots.png(figure), loudness(mixture, places, t, eps, guided))

    return frames


# %% tags=["play"]
def loudness(mixture, places, t, eps, guided):
    """In words: mean lengths of the arrows, and how far their sum is from those of class 1."""
    told = mixture(places, t, 1).eps
    a, b, off = (v.norm(dim=1).mean() for v in (eps, guided - eps, guided - told))
    level = f"signal {t.signal:.2f}, noise {t.noise:.2f}"
    return f"{level} · painter {a:.2f}, critic {b:.2f} · sum off class 1 by {off:.2f}"


# %% tags=["play"]
side = torch.linspace(-3, 3, 9, dtype=torch.float64)
field = Explorer(
    arrows(ring, schedule, torch.cartesian_prod(side, side)),
    {
        "k": slider("noise level, step k =", 50, 1000, value=200, step=50),
        "omega": slider("guidance scale ω =", 0.0, 8.0, value=0.5, step=0.5),
    },
    width=576,
)
field.show(
    alt="Two fields of arrows. Left, blue arrows lead to the blurred ring of eight bumps, pink "
    "ones from the four of the wrong class to their neighbours. Right, their sum over the contours "
    "of the other four: it leads to these at omega 1, and past them at larger scales",
    still_over="omega", values=[0, 1, 4],
)  # fmt: skip

# %% tags=["play", "check"]
for k, omega in ((200, 1.0), (200, 4.0), (900, 1.0)):
    field["k"].value, field["omega"].value = k, omega
    field.wait()
    print(f"k = {k}, ω = {omega:g}: {field.readout}")
    assert field.readout.endswith("by 0.00") == (omega == 1)
field["k"].value, field["omega"].value = 200, 0.5

# %% [markdown] tags=["play"]
# At ω = 1, and there exactly. The critic is loudest on the slopes of the wrong hills, and far outside them; on the right hills it has nothing to
# say. On the very ridge of a wrong hill both neighbours call equally, and it can only push inwards. At $k=900$ it is silent: what cannot be read
# cannot be criticised, and all arrows are the painter's.

# %% [markdown] tags=["L6-32", "L6-56", "formula"]
# ## 4. Walking with a critic
#
# **Story.** From pure noise down to the data, the lecture's algorithm asks both at every step (L6-56): the painter for the noise, the
# critic for its slope. It joins the two and makes the DDIM step of lesson 07. Nothing is trained (L6-32).
#
# $$g=\nabla\log p(y\mid x_t),\qquad \tilde\epsilon=\epsilon(x_t)-\omega\,\text{noise}_t\,g,\qquad
# x_s=\text{signal}_s\,\frac{x_t-\text{noise}_t\,\tilde\epsilon}{\text{signal}_t}+\text{noise}_s\,\tilde\epsilon$$


# %% tags=["L6-56", "formula"]
def walk(denoiser, log_prob, omega, x, levels):
    """The lecture's algorithm, from x (B, *d) at the first of the levels to the last."""
    for t, s in pairwise(levels):
        eps = denoiser(x, t).eps - omega * t.noise * gradient(log_prob, x, t)
        x = s.signal * (x - t.noise * eps) / t.signal + s.noise * eps
    return x


# %% tags=["L6-56", "check"]
levels = grid(schedule, 50)
canvas = initial_noise((1000, 2), levels[0], seeded(0), torch.float64)
says_one = guidance.log_prob_of(ring, 1)
ours = walk(ring, says_one, 1.0, canvas, levels)
library = last(ddim(guidance.classifier(ring, says_one, 1.0), canvas, levels))
print(f"the first point ends at {ours[0, 0]:.6f}, that of the library at {library[0, 0]:.6f}")
assert (ours - library).abs().max() < 1e-9

# %% [markdown] tags=["L6-32"]
# **Check.** Has a painter that never saw a label become one of class 1? A share of points counts the class, and the *energy distance*
# of lesson 07 compares the whole law with fresh data of class 1. Twenty more fresh samples tell what distance chance makes. (The estimate is
# unbiased, so around 0 it may fall below. By chance it is a weighted sum of squared normal variables, less its mean. Such a sum strays furthest
# if one square has all the weight: then it is $(\chi^2_1 - 1)/\sqrt 2$ standard deviations, and more than 10 once in 10,000 times.)

# %% tags=["L6-32", "check"]
fresh, found = ring.sample(4000, 1, seeded(1))[0], {}
others = (ring.sample(1000, 1, seeded(seed))[0] for seed in range(2, 22))
chance = torch.tensor([metrics.energy_distance(other, fresh) for other in others]).std()
for omega in (0.0, 1.0):
    end = walk(ring, says_one, omega, canvas, levels)
    share, far = says_one(end, clean).exp().mean().item(), metrics.energy_distance(end, fresh)
    found[omega] = share, far
    print(f"ω = {omega:g}: class 1 {share:.1%}, distance {far:z.3f} (chance: ± {chance:.3f})")
assert found[1.0][0] > 0.98
assert found[1.0][1] < 10 * chance < found[0.0][1]  # chance goes so far once in 10,000 times

# %% [markdown] tags=["L6-59", "L6-60", "L19-11"]
# **What does the scale do?** The slides say: ω = 1 is Bayes, practice takes 2 to 10 (L6-60); a small ω gives diversity and little
# obedience, a large one the reverse (L6-59); and the larger it is, the more *typical*, *faithful* and the less *diverse* are the samples
# (L19-11). On the line each of these words is a number. *Faithful*: how sure the critic is. *Diverse*: the standard deviation.
# *Typical*: the mean of $\log p(x_0\mid y{=}1)$ in nats; samples of class 1 itself, $N(1,1)$, have −1.42, and more would mean a crowd at
# its peak, which is not better.
#
# **Predict** for ω = 8: where is the mean, at +1, before it, or beyond? And which of the three words is wrong?


# %% tags=["L6-59", "L6-60", "L19-11"]
def on_the_line(guided, sampler=ddim, n=2000, steps=100, **options):
    """Where a guided walk on the line ends, (n,), always from the same noise."""
    levels = grid(schedule, steps)
    start = initial_noise((n, 1), levels[0], seeded(3), torch.float64)
    return last(sampler(guided, start, levels, **options))[:, 0]


# %% tags=["L6-59", "L6-60", "L19-11"]
says_plus, ends = guidance.log_prob_of(line, 1), {}
for omega in (0.0, 1.0, 2.0, 4.0, 8.0):
    guided = guidance.classifier(line, says_plus, omega)
    by_ddpm = on_the_line(guided, ddpm, variance="beta", generator=seeded(4))
    ends[omega] = on_the_line(guided), by_ddpm


# %% tags=["L6-60", "E-13"]
def sharpened(omega):
    """Mean and standard deviation of p(x0) p(y = 1 | x0)^omega: data sharpened once."""
    share = (line.log_prob(axis, clean) + omega * says_plus(axis, clean)).softmax(0)
    mean = share @ axis[:, 0]
    return mean, (share @ (axis[:, 0] - mean) ** 2).sqrt()


# %% tags=["L6-59", "L6-60", "L19-11", "E-13"]
rows, typical, class_one = [], {}, Normal(1.0, 1.0)
for omega, (by_ddim, by_ddpm) in ends.items():
    typical[omega] = class_one.log_prob(by_ddim).mean().item()
    numbers = [read(by_ddim, clean).mean(), typical[omega]]
    for mean, std in ((v.mean(), v.std()) for v in (by_ddim, by_ddpm)):
        numbers += [mean, std]
    rows.append([f"{omega:g}", *(f"{v:z.2f}" for v in (*numbers, *sharpened(omega)))])
header = ["ω", "faithful", "typical", "DDIM: mean", "std", "DDPM: mean", "std"]
header += ["sharpened once: mean", "std"]
plots.table(rows, header=header, caption="Class 1 of the line, N(1, 1), under a growing scale")

# %%
figure, axes = plots.panels(3, size=(2.6, 2.3))
for ax, omega in zip(axes, (1.0, 4.0, 8.0), strict=True):
    near = axis[90:, 0]
    bell = {"exact, class 1": class_one.log_prob(near).exp()}
    plots.densities(near, bell, samples={"guidance": ends[omega][0]}, ax=ax)
    ax.set(title=f"ω = {omega:g}, DDIM", ylim=(0, 1))
    ax.get_legend().set_visible(omega == 8)
plots.show(
    figure,
    alt="Three histograms against the bell of class 1, centred at 1. At scale 1 they agree; at 4 "
    "the samples crowd around 2.3; at 8 they are a thin peak above 3, in the tail of the bell",
    caption="Beyond doubt, and beyond the class: the dashed bell is class 1.",
)

# %% tags=["L6-59", "L6-60", "L19-11", "check"]
error = 1 / 2000**0.5
for end in ends[1.0]:  # Bayes, but for chance and a hundredth or two that a hundred steps cost
    assert abs(end.mean() - 1) < 4 * error + 0.02
    assert abs(end.std() - 1) < 4 * error / 2**0.5 + 0.02
assert all(a[k].std() > b[k].std() for a, b in pairwise(ends.values()) for k in (0, 1))
assert ends[8.0][0].mean() > 3
assert typical[1.0] - 0.1 < typical[2.0] < typical[1.0] + 0.1
assert typical[2.0] > typical[4.0] > typical[8.0]
assert ends[4.0][0].mean() - sharpened(4.0)[0] > 10 * error

# %% [markdown] tags=["L6-59", "L6-60", "L19-11", "E-13"]
# **Put right.** More faithful, yes, and less diverse, all the way. More *typical*, no: at ω = 2 about as much as class 1 itself, then ever
# less, and at ω = 8 they crowd at 3, where class 1 has hardly anything. They belong to it *beyond doubt*, which is another thing than
# being like it. ω = 1 is Bayes; "2 to 10" speaks of practice, not of probability (section 9 asks why). Above ω = 1 DDIM and DDPM no longer
# agree, and neither gives the data sharpened once (E-13).

# %% [markdown] tags=["exercise"]
# **Exercise 2.** (a) A friend pushes *away from class 0* instead: $\log p(y{=}0\mid x_t)$ with ω = −1. On the line, is the result class 1?
# (b) Another friend calls the critic twice in each step and adds both slopes, ω = 1 each. Which single ω is that?
#
# <details><summary>Answer</summary>
#
# (a) No. Away from 0 the push is $2\,\text{signal}\;p(1\mid x)$, towards 1 it is $2\,\text{signal}\;p(0\mid x)$. Both go to the right, but
# the first is strong where the point is in class 1 already, and sleeps where it is needed. (b) ω = 2: one opinion counted twice.
# </details>

# %% tags=["solution", "check"]
away = on_the_line(guidance.classifier(line, guidance.log_prob_of(line, 0), -1.0))
print(f"away from class 0: mean {away.mean():.2f}, std {away.std():.2f}; class 1 has 1 and 1")
assert away.std() > 1.3
twice = on_the_line(guidance.classifier(line, lambda x, t: 2 * says_plus(x, t), 1.0))
print(f"one critic twice: mean {twice.mean():.4f}; ω = 2 gave {ends[2.0][0].mean():.4f}")
assert (twice - ends[2.0][0]).abs().max() < 1e-9

# %% [markdown] tags=["L19-08", "E-21", "formula"]
# ## 5. Push the mean, or push the noise?
#
# **Story.** Another deck tells it with a picture (L19-08). The painter proposes the next, slightly cleaner canvas $x_{t-1}$. The critic
# looks *at the proposal*, finds it "20 % seven", and knows *the exact direction* in which it becomes 100 %. The formula beside the
# picture takes the slope at $x_t$, where the walk stands.
#
# **Is it so?** Two questions: does it matter which canvas the critic looks at? And does its slope lead to 100 %? For the first,
# DDPM proposes the mean of its step (lesson 04),
#
# $$\mu=\frac{1}{\sqrt{1-\beta_t}}\Big(x_t-\frac{\beta_t}{\text{noise}_t}\,\epsilon(x_t)\Big),\qquad \beta_t=1-\frac{\bar\alpha_t}{\bar\alpha_s}$$
#
# for a step from $t$ to $s$, and we compare the slopes at $x_t$ and at $\mu$, for steps of several sizes.


# %% tags=["L19-08", "L19-09", "formula"]
def ddpm_mean(x, eps, t, s):
    """The mean of DDPM's step from t to s, and its beta."""
    beta = 1 - t.alpha_bar / s.alpha_bar
    return (x - beta / t.noise * eps) / (1 - beta).sqrt(), beta


# %% tags=["L19-08", "E-21", "check"]
x, ratios = axis[100:301], []
for steps in (10, 50, 250, 1000):
    levels = grid(schedule, steps)
    t, s = levels[steps // 2], levels[steps // 2 + 1]
    proposal, beta = ddpm_mean(x, line(x, t).eps, t, s)
    here, there = gradient(says_plus, x, t), gradient(says_plus, proposal, s)
    off = ((there - here).norm() / here.norm()).item()
    ratios.append(off / beta.item())
    print(f"{steps:4} steps, β = {beta:.4f}: the two slopes differ by {off:.1%}")
assert all(0.4 < ratio < 1.1 for ratio in ratios)  # the difference shrinks as β does

# %% [markdown] tags=["L19-08", "E-21"]
# With small steps it hardly matters; with large ones it does, and soon we shall see which of the two is better. For the second question we
# collect places on the ring of which the critic says about 20 % (at $k=100$, where on a hill of class 1 it is nearly sure), and walk
# *straight along its slope*. *Predict:* does every walk reach 99 %? And where does it end, if nobody stops it?


# %% tags=["L19-08", "E-21"]
def straight_walk(log_prob, x, t, lengths):
    """p(y | x) along the slope at x (B, d), after each of these lengths: (lengths, B)."""
    slope = gradient(log_prob, x, t)
    ahead = slope / slope.norm(dim=1, keepdim=True)
    return torch.stack([log_prob(x + length * ahead, t).exp() for length in lengths])


# %% tags=["L19-08", "E-21"]
t, (x0, _) = schedule.at(100), ring.sample(20_000, generator=seeded(5))
xt = add_noise(x0, torch.randn(x0.shape, generator=seeded(6), dtype=x0.dtype), t)
sure = says_one(xt, t).exp()
doubtful = xt[(sure > 0.18) & (sure < 0.22)][:500]
along = straight_walk(says_one, doubtful, t, torch.linspace(0, 4, 201).double())

# %% tags=["L19-08", "E-21", "check"]
best, helped = along.max(0).values, (along[1] > along[0]).double().mean()
certain, hill = (best > 0.99).double().mean(), says_one(t.signal * ring.means[1::2], t).exp()
print(f"on a hill of class 1 the critic is {hill[0]:.1%} sure")
print(f"a first step of 0.02 makes it surer at {helped:.0%} of {len(doubtful)} places")
print(f"{certain:.0%} of the walks come past a place of which it is 99 % sure", end="; ")
print(f"after a length of 4 it is {along[-1].median():.2%} sure (median)")
assert hill.min() > 0.99
assert helped == 1
assert 0.5 < certain < 0.95
assert along[-1].median() < 0.01

# %% [markdown] tags=["L19-08", "E-21"]
# **Put right (E-21).** The slope is the direction in which $\log p(y\mid x)$ grows fastest *here*, at the canvas that was shown, and no more. Every
# place gains by a small step; most walks come past certainty, though not all; and most who walk on end among the other class. So one
# asks anew at every step.

# %% [markdown] tags=["L19-09", "L19-10", "DS-61", "formula"]
# **Two recipes.** The same deck, and another (L19-09, DS-61), leave the noise alone and change the law of the step: they shift the mean of
# DDPM's Gaussian by $\omega\,\sigma_t^2\,g$, where $\sigma_t^2$ is the *variance* of that step. It is Bayes again, for one step, as noise
# does not look at labels: $p(x_s\mid x_t,y)\propto p(x_s\mid x_t)\,p(y\mid x_s)$. Expand the critic to first order around the proposal μ, and
# complete the square:
#
# $$-\frac{|x_s-\mu|^2}{2\sigma_t^2}+\omega\,g\cdot(x_s-\mu)=-\frac{|x_s-\hat\mu|^2}{2\sigma_t^2}+\text{const},$$
#
# $$\hat\mu=\mu+\omega\,\sigma_t^2\,g,\qquad g=\nabla\log p(y\mid x_s)\big|_{x_s=\mu} .$$
#
# So here the picture is right: the critic looks at the proposal. Slides and the paper's algorithm write the slope at $x_t$. Lecture 6
# changes the noise and leaves the step alone. **Are the two the same?** With one $g$, at $x_t$, put
# $\tilde\epsilon=\epsilon-\omega\,\text{noise}\,g$ into μ, and it moves by
#
# $$\omega\,\frac{\beta_t}{\sqrt{1-\beta_t}}\,g ,$$
#
# so with $\sigma_t^2=\beta_t$ the two differ by a factor $\sqrt{1-\beta_t}$, nearly 1. *Predict* the factor for the smaller variance of
# lesson 04, $\tilde\beta_t=\beta_t\,(\text{noise}_s/\text{noise}_t)^2$, at the last step, $k=1$. And for a DDIM step, which has no variance
# at all? Section 4 says that it moves by
# $\omega\,\text{noise}_t\,\big(\tfrac{\text{signal}_s}{\text{signal}_t}\,\text{noise}_t-\text{noise}_s\big)\,g$.


# %% tags=["L19-09", "DS-61", "formula"]
def shifted_mean(x, t, s, small=False, ahead=False):
    """mu + sigma^2 * g, and sigma^2: beta, tilde beta if `small`; g at x, at mu if `ahead`."""
    mean, beta = ddpm_mean(x, line(x, t).eps, t, s)
    variance = beta * (s.noise / t.noise) ** 2 if small else beta
    g = gradient(says_plus, mean, s) if ahead else gradient(says_plus, x, t)
    return mean + variance * g, variance


# %% tags=["L19-10", "E-22"]
def moves(x, t, s):
    """How far guidance (ω = 1) moves one step from t to s, by four recipes, in units of g."""
    plain, guided = line(x, t), guidance.classifier(line, says_plus, 1.0)(x, t)
    mean, _ = ddpm_mean(x, plain.eps, t, s)
    pushes = {
        "noise, DDPM": ddpm_mean(x, guided.eps, t, s)[0] - mean,
        "mean, σ² = β": shifted_mean(x, t, s)[0] - mean,
        "mean, σ² = β̃": shifted_mean(x, t, s, small=True)[0] - mean,
        "noise, DDIM": add_noise(*guided, s) - add_noise(*plain, s),
    }
    return {name: (push / gradient(says_plus, x, t)).item() for name, push in pushes.items()}


# %% tags=["L19-10", "E-22"]
x, ks = torch.tensor([[0.3]]).double(), (1, 2, 3, 5, 100, 500, 1000)
moved = {k: moves(x, schedule.at(k), schedule.at(k - 1)) for k in ks}
unit = {k: moved[k]["noise, DDPM"] for k in ks}
relative = {k: {name: m / unit[k] for name, m in moved[k].items()} for k in ks}
rows = [[k, f"{unit[k]:.2e}", *(f"{v:.3f}" for v in relative[k].values())] for k in ks]
header = ["k", "β / √(1 − β)", *relative[1]]
plots.table(rows, header=header, caption="How far guidance moves a step, against the third column")

# %% tags=["L19-10", "E-22", "check"]
for k in ks:
    beta = schedule.beta[k - 1]
    assert abs(unit[k] - beta / (1 - beta).sqrt()) < 1e-12
    assert abs(relative[k]["mean, σ² = β"] - (1 - beta).sqrt()) < 1e-9
assert relative[1]["mean, σ² = β̃"] == 0
assert abs(relative[1000]["noise, DDIM"] - 0.5) < 0.01

# %% [markdown] tags=["L19-10", "E-22"]
# **Put right (E-22).** Within DDPM, and with $\sigma_t^2=\beta_t$, the recipes agree to first order in β. With $\tilde\beta_t$ the last steps are
# guided too little, and the very last not at all: with 1000 steps no harm, as its whole push is a ten-thousandth of $g$. And a DDIM step, once
# it is short against the noise, moves *half* as far, for the same law: the reversed equation of lesson 02 carries the score with
# the square of its diffusion coefficient, the noise-free flow of lesson 07 with half of that.
#
# **At finite steps they do not agree.** By how much we compute without any chance: the law of a whole walk on the line, a density on the
# grid that every step moves and smears with its bell (as in lesson 04). It starts as $N(0,1)$ and should end as class 1. We stop at
# $u=k/T=0.01$, where class 1 is still a bell, $N(\text{signal},1)$, so that every step has a width. (The rows without guidance are held against
# the law of both classes together: they tell what the steps cost by themselves.)


# %% tags=["L19-10", "E-22"]
GUIDED_NOISE = guidance.classifier(line, says_plus, 1.0)
FORMS = {  # (t, s, small) -> the mean of a step from every place of the grid
    "no guidance": lambda t, s, small: ddpm_mean(axis, line(axis, t).eps, t, s)[0],
    "noise": lambda t, s, small: ddpm_mean(axis, GUIDED_NOISE(axis, t).eps, t, s)[0],
    "mean, slope at xₜ": lambda t, s, small: shifted_mean(axis, t, s, small)[0],
    "mean, slope at μ": lambda t, s, small: shifted_mean(axis, t, s, small, ahead=True)[0],
}


# %% tags=["L19-10", "E-22", "E-21"]
def law(steps, form, small):
    """The density of DDPM on the grid at the end of a walk (ω = 1), and its last level."""
    density = Normal(0.0, 1.0).log_prob(axis[:, 0]).exp()
    for t, s in pairwise(grid(schedule, steps, end=0.01)):
        _, variance = shifted_mean(axis[:1], t, s, small)
        step = Normal(FORMS[form](t, s, small), variance.sqrt())
        density = density @ step.log_prob(axis[:, 0]).exp() * dx
    return density, s


# %% tags=["L19-10", "E-22"]
def miss(steps, form, small):
    """The total variation between that law and the one wished for, in [0, 1]."""
    density, s = law(steps, form, small)
    wished = line.log_prob(axis, s, None if form == "no guidance" else 1).exp()
    return (density - wished).abs().sum().item() / 2 * dx


# %% tags=["L19-10", "E-22"]
counts, misses = (5, 10, 20, 40), {}
for small in (False, True):
    for form in FORMS:
        name = f"{form}; σ² = {'β̃' if small else 'β'}"
        misses[name] = [miss(steps, form, small) for steps in counts]
rows = [[name, *(f"{v:.3f}" for v in values)] for name, values in misses.items()]
header = ["guided", *(f"{n} steps" for n in counts)]
plots.table(rows, header=header, caption="DDPM, ω = 1: total variation from what it should be")

# %% tags=["L19-10", "E-22", "check"]
assert max(misses.pop("noise; σ² = β")) < 1e-3
for values in misses.values():  # twice the steps, half the miss
    assert all(0.4 < b / a < 0.7 for a, b in pairwise(values)), values
at_xt, at_mu = misses["mean, slope at xₜ; σ² = β"], misses["mean, slope at μ; σ² = β"]
assert all(a > 3 * b for a, b in zip(at_xt, at_mu, strict=True))
narrow = [values[1] for name, values in misses.items() if name.endswith("β̃")]
assert max(narrow) < 1.5 * narrow[0]  # most of it is there without guidance

# %% [markdown] tags=["L19-10", "E-22"]
# Guided noise with β is exact, thanks to this world: for a bell of standard deviation 1, DDPM's step with β *is* the way back, whatever
# its size. All others miss by about half when the steps double. The β̃ rows measure the narrower variance more than guidance: the one
# without any lies among the others. Among the β rows, a mean shifted by the slope at $x_t$ pays, and one shifted by the slope at the proposal pays several
# times less (E-21): for guided *noise* look at $x_t$, for a shifted *mean* at μ.
#
# **A trap.** Take the mean shift of one deck and the DDIM step of the other. *Predict* the mean of the samples (class 1 has 1).


# %% tags=["L19-10", "E-22"]
def ddim_with_shifted_mean(x, levels):
    for t, s in pairwise(levels):
        beta = 1 - t.alpha_bar / s.alpha_bar
        x = add_noise(*line(x, t), s) + beta * gradient(says_plus, x, t)
    return x


# %% tags=["L19-10", "E-22", "check"]
levels = grid(schedule, 100)
start = initial_noise((2000, 1), levels[0], seeded(3), torch.float64)
mixed = ddim_with_shifted_mean(start, levels)[:, 0]
print(f"DDIM with a shifted mean, ω = 1: mean {mixed.mean():.2f}, std {mixed.std():.2f}")
for omega in (1.0, 2.0):
    end, _ = ends[omega]
    print(f"DDIM with guided noise,   ω = {omega:g}: mean {end.mean():.2f}, std {end.std():.2f}")
assert (mixed - ends[2.0][0]).abs().mean() < 0.1 < (mixed - ends[1.0][0]).abs().mean()

# %% [markdown] tags=["L19-10", "E-22"]
# It is nearly ω = 2, unasked for, as the shift is twice what a DDIM step needs. No picture would tell.

# %% [markdown] tags=["L6-32", "E-08", "formula"]
# ## 6. Several critics at once
#
# **Story.** One critic knows left from right, another up from down, and the lecture says that several guidances can be added (L6-32).
# Four bumps in the plane, at $(\pm1,\pm1)$; we want the one that is right *and* up:
#
# $$\nabla\log p(\text{right}\mid x_t)+\nabla\log p(\text{up}\mid x_t)\;\overset?=\;\nabla\log p(\text{right and up}\mid x_t) .$$
#
# **Is it so?** *Predict* for two worlds. In the first all four bumps have equal shares. In the second the two on one diagonal, left-down
# and right-up, have 45 % each, the other two 5 %. In both, bumps of standard deviation 0.15 do not overlap: on clean points the labels are
# plain to see.


# %% tags=["L6-32", "E-08"]
def four(shares, std=0.15):
    """Bumps with the labels 0 to 3: left-down, left-up, right-down, right-up."""
    side = torch.tensor([-1.0, 1.0], dtype=torch.float64)
    corners = torch.cartesian_prod(side, side)
    return mixtures.Mixture(corners, std, weights=shares, labels=[0, 1, 2, 3])


def log_prob_of_any(critic, classes):
    """log p(y is one of the classes | xt), as the (x, t) -> (B,) that guidance wants."""
    return lambda x, t: critic.class_log_prob(x, t)[:, classes].logsumexp(1)


# %% tags=["L6-32", "E-08"]
def both(world, first, second):
    """The wish for two sets of classes at once: log-probabilities added, and asked together."""
    one, two = log_prob_of_any(world, first), log_prob_of_any(world, second)
    together = log_prob_of_any(world, sorted({*first} & {*second}))
    return {"added": lambda x, t: one(x, t) + two(x, t), "together": together}


RIGHT, UP, DOWN = [2, 3], [1, 3], [0, 2]
worlds = {"equal shares": four([1.0] * 4), "diagonal": four([0.45, 0.05, 0.05, 0.45])}


# %% tags=["L6-32", "E-08"]
def error_of_adding(world, k, n=2000):
    """How far added slopes are from those of the two wishes together, relative to their length."""
    t, (x0, _) = schedule.at(k), world.sample(n, generator=seeded(7))
    x = add_noise(x0, torch.randn(x0.shape, generator=seeded(8), dtype=x0.dtype), t)
    added, together = (gradient(wish, x, t) for wish in both(world, RIGHT, UP).values())
    return ((added - together).norm(dim=1).mean() / together.norm(dim=1).mean()).item()


# %% tags=["L6-32", "E-08", "check"]
ks = (50, 200, 500, 800)
off = {name: [error_of_adding(world, k) for k in ks] for name, world in worlds.items()}
rows = [[name, *(f"{v:.4f}" for v in values)] for name, values in off.items()]
plots.table(rows, header=["world", *(f"k = {k}" for k in ks)], caption="Error of added slopes")
assert max(off["equal shares"]) < 1e-10
assert off["diagonal"][0] < 0.01 < 0.1 < off["diagonal"][1] < off["diagonal"][3]

# %% tags=["L6-32", "E-08", "check"]
diagonal, arrived = worlds["diagonal"], {}
start = initial_noise((500, 2), levels[0], seeded(9), torch.float64)
for wish, second in (("right, up", UP), ("right, down", DOWN)):
    for way, log_prob in both(diagonal, RIGHT, second).items():
        end = last(ddim(guidance.classifier(diagonal, log_prob, 1.0), start, levels))
        arrived[wish, way] = end
        (a, b), spread = end.mean(0), end.std(0).mean()
        print(f"{wish:11} {way:8}: mean ({a:.2f}, {b:5.2f}), standard deviation {spread:.2f}")

# %%
figure, axes = plots.panels(2, size=(3.2, 3.0))
for ax, wish in zip(axes, ("right, up", "right, down"), strict=True):
    names = {"exact, together": "together", "guidance, added": "added"}
    plots.scatter({name: arrived[wish, way] for name, way in names.items()}, limit=2, ax=ax)
    ax.set_title(f"the wish: {wish}")
plots.show(
    figure,
    alt="Two scatter plots. For right-up the points of added slopes lie in the right corner, a "
    "little narrower and further out; for right-down many lie on a streak towards the centre",
    caption="The diagonal world: the common wish is pressed too hard, the rare one pulled apart.",
)

# %% tags=["L6-32", "E-08", "check"]
spread = {key: end.std(0).mean().item() for key, end in arrived.items()}
assert spread["right, up", "added"] < 0.95 * spread["right, up", "together"]
assert spread["right, down", "added"] > 1.3 * spread["right, down", "together"]
assert all(abs(spread[key] - 0.15) < 0.03 for key in spread if key[1] == "together")

# %% [markdown] tags=["L6-32", "E-08"]
# **Put right (E-08).** Slopes add exactly when the wishes are independent *given the noisy point*,
# $p(a,b\mid x_t)=p(a\mid x_t)\,p(b\mid x_t)$, up to a factor that does not depend on $x_t$. That the labels are plain on clean points is not
# enough: in the second world added slopes are off
# by 80 % in the noise. There "right" already says "probably up", so adding counts one piece of news twice: a hidden ω above 1. And for
# the rare corner the two critics pull against each other.
#
# The same slide says *any* model. But the critic must also stand on the painter's schedule. Let it take step $k$ for what that step would
# be on the cosine table:


# %% tags=["L6-32", "E-08"]
def on_another_table(log_prob, own, other):
    """A critic that takes step k of one table for step k of another."""
    return lambda x, t: log_prob(x, other.at((own.alpha_bar - t.alpha_bar).abs().argmin()))


# %% tags=["L6-32", "E-08", "check"]
confused = on_another_table(says_plus, schedule, DDPMSchedule(1000, cosine))
for k in (100, 300, 600):
    t = schedule.at(k)
    gap = guidance.classifier(line, confused, 1.0)(axis, t).eps - line(axis, t, 1).eps
    print(f"k = {k}: off the noise of class 1 by up to {gap.abs().max():.2f}")
    assert gap.abs().max() > 0.02
astray = on_the_line(guidance.classifier(line, confused, 1.0))
print(f"sampled: mean {astray.mean():.2f}, std {astray.std():.2f}; class 1 has 1 and 1")
assert astray.mean() > 1.3

# %% [markdown] tags=["exercise"]
# **Exercise 3.** A critic of classes answers more questions than it was taught. How would you ask a critic of the ten digits for "an even
# digit", and how for "anything but a seven"? And towards what does "any digit at all" push?
#
# <details><summary>Answer</summary>
#
# Add the probabilities of the classes and take the logarithm: `log_prob_of_any(critic, [0, 2, 4, 6, 8])`, or the nine without 7. Any digit
# at all has probability 1 everywhere: a logarithm without a slope, and the painter is left alone. The next cell tries the last on the
# ring; section 8 asks for even digits.
# </details>

# %% tags=["solution", "check"]
x, t = torch.randn(500, 2, dtype=torch.float64), schedule.at(300)
push = gradient(log_prob_of_any(ring, [0, 1]), x, t).norm(dim=1).max()
print(f"the longest push towards 'class 0 or 1': {push:.10f}")
assert push < 1e-10

# %% [markdown] tags=["L6-57", "L19-07", "E-14", "T-13"]
# # Part two: critics that have learnt
#
# ## 7. A critic must know noise
#
# **Story.** Where do critics come from? Take a finished one, says a deck, a perfected ResNet or ViT off the shelf (L19-07). Never, says
# another: the gradients of a classifier of clean pictures are *meaningless* on noisy ones (L6-57). **Which of the two?** On the ring both
# critics are exact. The noise-aware one reads $p(y\mid x_t)$. The *clean* one is the best there can be for clean points, and takes the noisy
# point for one. *Predict* for $k=300$, where the eight bumps have all but run together: does the clean critic's slope have the right direction?
# The right length?


# %% tags=["L6-57", "L19-07", "E-14", "T-13"]
def compare(k, n=2000):
    """On the noised ring: slopes of the clean critic against the true ones, and nats of both."""
    t, (x0, y) = schedule.at(k), ring.sample(n, generator=seeded(10))
    x = add_noise(x0, torch.randn(x0.shape, generator=seeded(11), dtype=x0.dtype), t)
    true, naive = gradient(says_one, x, t), gradient(lambda x, t: says_one(x, clean), x, t)
    length = (naive.norm(dim=1) / true.norm(dim=1)).median()
    cosine, says = torch.cosine_similarity(naive, true).median(), guidance.log_prob_of(ring, y)
    return length, cosine, -says(x, clean).mean(), -says(x, t).mean()


# %% tags=["L6-57", "L19-07", "E-14", "T-13", "check"]
found = {k: compare(k) for k in (10, 100, 300, 600, 900)}
rows = [[k, *(f"{v:.3g}" for v in numbers)] for k, numbers in found.items()]
header = ["k", "clean slope / true", "cosine of the two", "nats, clean critic", "nats, aware"]
plots.table(rows, header=header, caption="Two exact critics of the ring; medians, and mean nats")
lengths, cosines, naive_nats, aware_nats = zip(*found.values(), strict=True)
assert lengths[0] < 1.2 < 10 < lengths[2] < 1000 < lengths[3]
assert min(cosines) > 0.7
assert max(aware_nats) < math.log(2) + 0.01 < 2 < naive_nats[2]

# %% [markdown] tags=["L6-57", "L19-07", "E-14"]
# *Nats*: the mean of $-\log p(y\mid x_t)$, the price of being wrong while sure. Saying "one half" costs $\log2=0.69$, so an honest critic need
# not pay more.
#
# **Put right (E-14), for exact critics.** Neither. The slope is not meaningless: its direction is mostly right. Its *length* is wrong, by
# orders of magnitude, because the clean critic is sure of what it sees even in static. (Networks come below: for them the slide is nearly
# right. One way around lets it read the painter's guess $\hat x_0$ instead of $x_t$, at the price of differentiating the painter: see T-12 in
# the bug museum.)
#
# **Would samples tell?** DDPM, fifty steps, both critics. A *stray* is a point further than 1, four standard deviations, from every bump.


# %% tags=["L6-57", "T-13"]
def share_of_strays(points):
    """The share of points (n, 2) further than 1 from every bump of the ring."""
    return (torch.cdist(points, ring.means).min(1).values > 1).double().mean().item()


# %% tags=["L6-57", "T-13", "check"]
levels, strays, furthest = grid(schedule, 50), {}, {}
canvas = initial_noise((500, 2), levels[0], seeded(12), torch.float64)
for omega in (1.0, 4.0):
    for name, says in {"aware": says_one, "clean": lambda x, t: says_one(x, clean)}.items():
        guided = guidance.classifier(ring, says, omega)
        path = [state.x for state in ddpm(guided, canvas, levels, generator=seeded(13))]
        furthest[name, omega] = max(x.norm(dim=1).max().item() for x in path)
        share, strays[name, omega] = (
            says_one(path[-1], clean).exp().mean(),
            share_of_strays(path[-1]),
        )
        print(
            f"ω = {omega:g}, {name}: class 1 {share:.0%}, strays {strays[name, omega]:.0%}", end=""
        )
        print(f", furthest from the centre on the way {furthest[name, omega]:.0f}")
assert furthest["clean", 1.0] > 2 * furthest["aware", 1.0]
assert max(strays["aware", 1.0], strays["clean", 1.0], strays["aware", 4.0]) < 0.02
assert strays["clean", 4.0] > 0.05

# %% [markdown] tags=["L6-58", "DS-63", "formula"]
# At ω = 1 there is nothing to see in the end. On the way there is: slopes that are too long throw the canvas far out at once, and the painter
# has all the later steps to fetch it home. At ω = 4 it does not always manage. **Test slopes and nats, not samples.**
#
# **Training one that knows (L6-58, DS-63).** Show a classifier what it will have to read: pictures, noised to *all* levels by the painter's
# own schedule, and the level with them. The loss is the usual one,
#
# $$-\log p_\phi(y\mid x_t,t),\qquad x_t=\text{signal}\cdot x_0+\text{noise}\cdot\epsilon,\qquad t\text{ uniform over the steps.}$$


# %% tags=["twin:didiff.classifier.cross_entropy", "L6-58", "DS-63", "formula"]
def cross_entropy(classifier, x0, t, y):
    """-log p(y | xt) of each sample, (B,), at a fresh xt; t: one level, or one per sample."""
    log_prob = classifier.class_log_prob(add_noise(x0, torch.randn_like(x0), t), t)
    return -log_prob.gather(1, y[:, None])[:, 0]


# %% [markdown]
# **Real digits, small critics.** The 8×8 digits of scikit-learn: half to learn from, half never seen. A `Reader` hears the noise level as
# the networks of lesson 08 do: the clock goes through an embedding into its layers. We train two, alike but for the levels that they see.

# %% tags=["setup"]
from torch import nn

from didiff import data
from didiff.classifier import Classifier
from didiff.networks.embedding import Embedding
from didiff.training import fit, random_steps
from didiff.training.recipes import SCHEDULE  # cosine, T = 1000: that of all our image models

CLEAN = SCHEDULE.at(0)


# %% tags=["L6-58", "DS-63"]
class Reader(nn.Module):
    """x (B, 1, 8, 8), clock (B,) -> logits (B, 10)."""

    def __init__(self, width=128):
        super().__init__()
        self.first, self.told = nn.Linear(64, width), nn.Linear(width, width)
        self.clock, self.last = Embedding(width), nn.Linear(width, 10)
        self.middle = nn.Linear(width, width)

    def forward(self, x, clock):
        h = nn.functional.silu(self.first(x.flatten(1)) + self.told(self.clock(clock)))
        return self.last(h + nn.functional.silu(self.middle(h)))


# %% tags=["L6-58", "DS-63"]
def train(levels, steps=450):
    """A critic of 8x8 digits; levels: n -> the noise levels it is shown, one or n of them."""
    torch.manual_seed(0)
    critic = Classifier(Reader(), sigma_data=0.75)  # adds the softmax; 0.75: the pixels' std

    def losses(critic, x0, y):
        return cross_entropy(critic, x0, levels(len(x0)), y)

    batches = data.batches(*data.digits("train"), 128)
    *_, end = fit(critic, losses, batches, steps, lr=2e-3, ema=0.99)
    return end.ema


# %% tags=["L6-58", "DS-63"]
readers = {
    "aware": train(lambda n: random_steps(SCHEDULE, n)),
    "clean": train(lambda n: CLEAN),
}


# %% tags=["L6-57", "L6-58", "T-13"]
@torch.no_grad()
def verdict(critic, x, t, y):
    """The share of pictures (B, ...) at level t that a critic reads as y (B,), and its nats."""
    log_prob = critic.class_log_prob(x, t)
    nats = nn.functional.nll_loss(log_prob, y).item()
    return (log_prob.argmax(1) == y).double().mean().item(), nats


# %% [markdown] tags=["L6-57", "L6-58", "T-13"]
# **Check**, on digits that no critic has seen. *Predict* what an honest critic pays for pure noise. (The clean one is told the level of clean
# pictures, the only one it knows.)

# %% tags=["L6-57", "L6-58", "T-13"]
x0, y = data.digits("test")
ks, curves = (0, 100, 200, 300, 500, 700, 900, 1000), {"aware": [], "clean": []}
for k in ks:
    t = SCHEDULE.at(k)
    x = add_noise(x0, torch.randn(x0.shape, generator=seeded(14)), t)
    for name, reader in readers.items():
        curves[name].append(verdict(reader, x, t if name == "aware" else CLEAN, y))

# %%
figure, axes = plots.panels(2, size=(3.5, 2.5))
panels = zip(axes, ("share read right", "nats"), (0.1, math.log(10)), strict=True)
for column, (ax, ylabel, guessing) in enumerate(panels):
    lines = {f"{name} critic": (ks, [v[column] for v in c]) for name, c in curves.items()}
    plots.lines(lines, xlabel="step k", ylabel=ylabel, ax=ax)
    ax.axhline(guessing, **{**plots.ROLE["exact"], "marker": None})
plots.show(
    figure,
    alt="Over the noise level: the share that is read right falls from nearly 1 to a tenth for "
    "both critics; the nats of the aware one rise to log 10, those of the clean one go far beyond",
    caption="Unseen real digits. Dashed: guessing, and what guessing costs, log 10 = 2.30 nats.",
)

# %% tags=["L6-57", "L6-58", "T-13", "check"]
for k, aware, naive in zip(ks, curves["aware"], curves["clean"], strict=True):
    print(f"k = {k:4}: aware {aware[0]:4.0%}, {aware[1]:.2f} nats", end="; ")
    print(f"clean {naive[0]:4.0%}, {naive[1]:.2f} nats")
assert max(nats for _, nats in curves["aware"]) < math.log(10) + 0.15
assert curves["clean"][6][1] > 2 * math.log(10)
assert min(curves["aware"][0][0], curves["clean"][0][0]) > 0.94

# %% [markdown] tags=["L6-57", "L6-58", "T-13"]
# *How many are right?* tells the two apart a little. *How sure are they?* tells at once. The aware critic all but says "one tenth" of pure
# noise, and who says the same of every canvas has no slope. The clean one is sure, wrong, and steep.
#
# **And at 28×28?** From here on the painter is a U-Net, and three more networks read. All have learnt from MNIST's 60,000 training pictures and
# come with the course:
#
# | | what it was taught | what it does here |
# |---|---|---|
# | `painter` | to denoise; the label told in nine of ten pictures | paints, and *we tell it no label* |
# | `critic` | to read at all noise levels | guides |
# | `naive` | to read clean pictures; the same network else | guides, badly |
# | `judge` | to read clean pictures; a larger network | guides nobody, and so may judge |
#
# This lesson runs without MNIST itself. What the critics are worth on its 10,000 test pictures, noised, was measured when they were trained, and
# stands on their cards. (`weights.load` freezes what it loads. `quick` lets the painter compute in 16 bits if your processor can, so that the
# sliders follow. `Counted` notes how often a model is asked.)

# %% tags=["setup"]
from didiff.notebook.playground import Counted, Playground
from didiff.training import weights

torch.set_num_threads(cores)
painter = Counted(quick(weights.load("mnist")))
critic, naive = Counted(weights.load("mnist_classifier")), Counted(weights.load("mnist_clean"))
judge = metrics.mnist_judge()
unconditional = guidance.condition(painter, None)

# %% tags=["L6-57", "L6-58", "T-13", "check"]
cards = [weights.read_card(name)["quality"] for name in ("mnist_classifier", "mnist_clean")]
rows = []
for clock in (0.0, 0.25, 0.5, 0.75):
    aware, other = (card[f"clock_{clock}"] for card in cards)
    shares = (f"{one['accuracy']:.1%}" for one in (aware, other))
    rows.append([clock, *shares, *(f"{one['nats']:.2f}" for one in (aware, other))])
header = ["clock", "aware: right", "clean: right", "aware: nats", "clean: nats"]
plots.table(rows, header=header, caption="10,000 real test digits, noised, from the cards")
assert other["nats"] > math.log(10) > 2 * aware["nats"]

# %% [markdown] tags=["L6-57", "L6-58", "T-13"]
# What should a slope be? A painter that *can* be told the label contains a critic of its own, by section 2:
# $-\big(\epsilon(x_t\mid y)-\epsilon(x_t)\big)/\text{noise}$. We compare with it in the noisy half of the way; in the clean half the difference
# of two readings is mostly the network's own error. For want of real pictures we noise forty that the painter makes *with* a label. Of each we ask
# for *another* digit: of the one that it sees the critic is sure already, and need not push.


# %% tags=["L6-57", "T-13"]
def paint(guided, n=40, steps=20, seed=0):
    """Pictures (n, 1, 28, 28) by DDIM; one seed, one noise. It starts just below pure noise."""
    levels = grid(SCHEDULE, steps, start=0.99)  # x0 from eps needs a signal > 0
    start = initial_noise((n, 1, 28, 28), levels[0], seeded(seed), torch.float32)
    return last(ddim(guided, start, levels))


def take_for_clean(log_prob):
    """A critic that is told of everything it sees that it is a clean picture."""
    return lambda x, t: log_prob(x, CLEAN)


# %% tags=["L6-57", "L6-58", "T-13"]
classes = torch.arange(40) % 10
pictures = paint(guidance.condition(painter, classes), seed=1)
asked = (classes + 1 + torch.arange(40) // 10) % 10  # one, two, three or four digits further
critics = {
    "aware": guidance.log_prob_of(critic, asked),
    "clean": take_for_clean(guidance.log_prob_of(naive, asked)),
}
print(f"the judge reads {metrics.recognised(pictures, classes):.0%} of 40 pictures as labelled")


# %% tags=["L6-57", "L6-58", "T-13"]
def against_painter(log_prob, k):
    """Mean length of a critic's slopes in units of the painter's own, and their mean cosine."""
    t = SCHEDULE.at(k)
    x = add_noise(pictures, torch.randn(pictures.shape, generator=seeded(k)), t)
    own = -(painter(x, t, asked).eps - painter(x, t).eps).flatten(1) / t.noise
    slope = gradient(log_prob, x, t).flatten(1)
    cosine = torch.cosine_similarity(slope, own).mean().item()
    return (slope.norm(dim=1) / own.norm(dim=1)).mean().item(), cosine


# %% tags=["L6-57", "L6-58", "T-13", "check"]
found = {k: [against_painter(says, k) for says in critics.values()] for k in (500, 700, 900, 990)}
rows = []
for k, measures in found.items():
    lengths, cosines = zip(*measures, strict=True)
    rows.append([k, *(f"{v:.2f}" for v in (*lengths, *cosines))])
header = ["k", "aware: length", "clean: length", "aware: cosine", "clean: cosine"]
plots.table(
    rows, header=header, caption="Slopes of two critics against the painter's own; means of 40"
)
for (length, direction), (_, naive_direction) in found.values():
    assert 0.3 < length < 1.5
    assert naive_direction < min(0.3, direction)
    assert length * direction < 1
assert found[990][1][0] > 5
assert direction > naive_direction + 0.3

# %% [markdown] tags=["L6-57", "L6-58", "E-14"]
# Critic and painter have learnt different tasks, and where noise is large their slopes nearly agree: Bayes' rule among strangers. With less
# noise their directions part. The clean network's slope has the wrong *direction* at every one of these levels, and at the last a length out of
# all proportion. So for networks the slide, "meaningless", is nearly right (E-14). On the ring the clean critic was exact for every point of
# the plane; a network of clean pictures was never asked about static at all.

# %% [markdown] tags=["play", "L6-59", "L6-60", "L19-11"]
# ## 8. The slider
#
# **Play.** Sixteen canvases, one digit asked of each in turn, always the same noise. The painter hears no label; all obedience comes from
# outside. *Predict, then move:* what is on the canvases at ω = 0? At which ω are nearly all sixteen right? What does the *clean* critic
# make of them at 4? (The third method is the other family, for lesson 11. *Recognised*: the judge reads what was asked for. *Diversity*: how much
# pictures of one class differ in where there is ink, 1 for real digits. *Saturated*: the share of pixels beyond ±1.05.)


# %% tags=["play"]
def by_critic(y, omega):
    return guidance.classifier(unconditional, guidance.log_prob_of(critic, y), omega)


def by_clean_critic(y, omega):
    says = take_for_clean(guidance.log_prob_of(naive, y))
    return guidance.classifier(unconditional, says, omega)


def by_itself(y, omega):
    return guidance.classifier_free(painter, y, omega)


# %% tags=["play", "L6-59", "L6-60", "L19-11"]
play = Playground(
    {"critic": by_critic, "clean critic": by_clean_critic, "the painter itself": by_itself},
    {"painter": painter, "critic": critic, "clean critic": naive},
    lambda steps: grid(SCHEDULE, steps, start=0.99),
    omega=1.0,
    steps=8,
)
explorer = play.explorer()
explorer.show(
    alt="sixteen handwritten digits: any digits at omega 0, more and more of the wanted ones, "
    "nearly all of them from 2 on",
    still_over="omega",
    values=[0, 1, 2, 4],
)

# %% tags=["play", "check"]
right = {}
for method, omega in (*(("critic", w) for w in (0.0, 1.0, 2.0, 4.0)), ("clean critic", 4.0)):
    explorer["method"].value, explorer["omega"].value = method, omega
    explorer.wait()
    print(f"{method}, ω = {omega:g}: {explorer.readout}")
    right[method, omega] = int(explorer.readout.split()[1])
assert right["critic", 4.0] >= 13 > 8 >= right["critic", 0.0]
assert right["clean critic", 4.0] <= 11
explorer["method"].value, explorer["omega"].value = "critic", 1.0

# %% [markdown] tags=["play"]
# At ω = 0 a digit is right by chance; from 2 on nearly all are. The clean critic, at the same ω, loses many and drives pixels beyond black and white.
#
# **On the way.** Above the noisy canvas $x_t$, below it what painter and critic together expect, $\hat x_0$; here ω = 4. *Predict:* how early
# will you recognise the digit below?

# %% tags=["play"]
path = play.trajectory()
path["omega"].value = 4.0
path.show(
    alt="eight canvases on their way from noise to digits, and below them the expected pictures: "
    "at the very first stop soft, heavy shapes of the wanted digits, which then find their lines",
    still_over="stop",
    values=[0, 1, 2, 4, 6, 8],
)

# %% [markdown] tags=["play"]
# At once, from static: there the lever $\omega\,\frac{\text{noise}^2}{\text{signal}}$ (L6-55) is long. Exercise 4 measures how early the class
# is settled.

# %% [markdown] tags=["L6-32", "E-08"]
# **Questions nobody trained for.** "Even"; and two wishes at once, "even" and "above four", which 6 and 8 alone fulfil. Section 6 warns of adding
# slopes, so we ask for the event. The judge counts. (A painter left alone fulfils the first by chance in half of the pictures, both in a fifth.)

# %% tags=["L6-32", "E-08"]
wishes, answers = {"even": [0, 2, 4, 6, 8], "even, above 4": [6, 8]}, {}
for name, digits in wishes.items():
    wish = log_prob_of_any(critic, digits)
    answers[name] = paint(guidance.classifier(unconditional, wish, 4.0), n=30)

# %% tags=["L6-32", "E-08", "check"]
rows = []
for name, images in answers.items():
    reading = judge.class_log_prob(images.clamp(-1, 1), CLEAN).argmax(1).bincount(minlength=10)
    share = reading[wishes[name]].sum().item() / len(images)
    rows.append([name, *reading.tolist(), f"{share:.0%}"])
    assert share > (0.75 if name == "even" else 0.5)
header = ["wish", *map(str, range(10)), "fulfilled"]
plots.table(rows, header=header, caption="How the judge reads 30 pictures for each wish, ω = 4")

# %%
plots.show(
    plots.images(torch.cat([x[:15] for x in answers.values()]), 15, rows=[*answers], scale=1),
    alt="Two rows of fifteen digits: even ones; then sixes and eights",
    caption="The critic was taught ten digits, the painter is told nothing.",
)

# %% [markdown] tags=["L6-59", "L6-61", "E-15", "formula"]
# ## 9. Who says so?
#
# **Story.** Whoever guides is the last one to ask whether it worked. The walk climbs the guide's slope, so it finds what convinces the guide,
# and that may convince nobody else: a classifier fooled on purpose. So ask a judge that has guided nobody (L6-61). And ask for nats, as well as
# for shares: being sure is what guidance buys.
#
# **And diversity?** "The larger ω, the less diverse" (L6-59). Suppose we measure it by
#
# $$\text{pixel std}=\operatorname{mean}_{y,\,\text{pixels}}\;\operatorname{std}(x\mid y) .$$
#
# *Predict* its curve from ω = 0 to 128. (`metrics.diversity` cuts pixels into ink or no ink before it compares; 1 is that of real digits.)


# %% tags=["L6-59", "L6-61", "E-15"]
def measured(images, guide, y):
    """What the guide and the judge say of pictures of the classes y, and how they vary."""
    seen = images.clamp(-1, 1)
    (own, own_nats), (share, nats) = (verdict(one, seen, CLEAN, y) for one in (guide, judge))
    std = torch.stack([images[y == k].std(0).mean() for k in range(10)]).mean().item()
    return {
        "guide right": own, "judge right": share, "guide's nats": own_nats, "judge's nats": nats,
        "diversity": metrics.diversity(images, y), "pixel std": std,
        "saturated": (images.abs() > 1.05).double().mean().item(),
    }  # fmt: skip


# %% tags=["L6-59", "L6-60", "L6-61", "E-15"]
scales = (0.0, 1.0, 2.0, 4.0, 16.0, 128.0)
painted = {w: paint(by_critic(classes, w)) for w in scales}
aware = {w: measured(images, critic, classes) for w, images in painted.items()}
fooled = {w: measured(paint(by_clean_critic(classes, w)), naive, classes) for w in (2.0, 8.0)}
rows = []
for name, results in {"critic": aware, "clean critic": fooled}.items():
    rows += [[name, f"{w:g}", *(f"{v:.2f}" for v in m.values())] for w, m in results.items()]
header = ["guided by", "ω", *aware[0.0]]
plots.table(rows, header=header, caption="What guide and judge say of 40 pictures from one noise")


# %%
def over_scales(curves, ylabel, ax):
    """Curves {label: key of the measures} over ω, on an axis that has room for 0 and 128."""
    lines = {label: (scales, [aware[w][key] for w in scales]) for label, key in curves.items()}
    plots.lines(lines, xlabel="scale ω", ylabel=ylabel, ax=ax)
    ax.set_xscale("symlog", linthresh=1)
    ax.set_xticks(scales, [f"{w:g}" for w in scales])


# %%
figure, axes = plots.panels(3, size=(2.9, 2.5))
over_scales({"guide": "guide's nats", "judge": "judge's nats"}, "nats", axes[0])
axes[0].set_yscale("log")
over_scales({"ink or no ink": "diversity"}, "diversity", axes[1])
over_scales({"pixels": "pixel std"}, "pixel std", axes[2])
plots.show(
    figure,
    alt="Over the scale: the nats of guide and judge, close together, fall from seven to about a "
    "thousandth at 16 and rise a little at 128. Diversity falls to 16 and hardly any further. The "
    "pixel std falls as well, but rises again at 128",
    caption="Who is convinced, and what variety is left, under the critic that knows noise.",
)

# %% tags=["L6-59", "L6-60", "L6-61", "check"]
cases = {"critic, ω = 0": aware[0.0], "critic, ω = 1": aware[1.0], "critic, ω = 2": aware[2.0]}
cases["clean critic, ω = 0"] = measured(painted[0.0], naive, classes)
cases |= {f"clean critic, ω = {w:g}": m for w, m in fooled.items()}
ratio = {name: m["guide's nats"] / m["judge's nats"] for name, m in cases.items()}
for name, value in ratio.items():
    print(f"{name}: the guide pays {value:.2f} of what the judge pays")
assert min(ratio["critic, ω = 0"], ratio["clean critic, ω = 0"]) > 0.8
assert ratio["clean critic, ω = 8"] < ratio["clean critic, ω = 0"]
assert aware[0.0]["judge right"] < 0.4 < 0.8 < aware[4.0]["judge right"]
assert fooled[8.0]["judge right"] < 0.5

# %% tags=["L6-59", "E-15", "check"]
std = {w: m["pixel std"] for w, m in aware.items()}
lowest, saturated = min(std, key=std.get), aware[128.0]["saturated"]
for omega in (0.0, lowest, 128.0):
    print(f"pixel std at ω = {omega:g}: {std[omega]:.2f}", end="; ")
print(f"at the last, {saturated:.0%} of the pixels are saturated")
assert 1 < lowest < 128
assert std[128.0] > 1.2 * std[lowest]
assert saturated > 0.3
assert aware[16.0]["diversity"] < aware[1.0]["diversity"]

# %% [markdown] tags=["L6-59", "L6-60", "L6-61", "E-15"]
# **Put right (E-15).** Variety falls with ω, but not by that measure: at the largest scale the pixels' standard deviation rises again, as
# pixels driven far beyond black and white lie further apart. Cut them at mid-grey first, or measure where nothing can saturate (the line of
# section 4), and name the sampler.
#
# **Flattered.** For pictures that nobody guided, a guide pays about what the judge pays. For those that it guided itself, the clean critic pays
# less: a part of its conviction is its own work. (What the other pays lies now above, now below: whether it flatters itself a little,
# 40 pictures do not tell.) What tells the two apart is what the judge can read, at ω = 8 far less than half of the clean critic's pictures.
#
# **Why practice takes 2 to 10 (L6-60).** At ω = 1 Bayes promises that all digits are right, and many are not; the guide itself says so. The
# promise was made to an exact painter and an exact critic of one world, in small steps. Section 7 suggests what is missing here: the part of
# the critic's slope that lies along the painter's own, length times cosine, is less than 1 at every level. A larger ω makes up for it, and
# is paid for in variety.
#
# **A critic alone.** How little does it take to convince one? No painter: from static, climb a critic's slope for sixty steps. *Predict* three
# results: the clean critic's; the aware one's, told that the canvas is clean; and the aware one's, told the truth, $k=990$.


# %% tags=["L6-61"]
def climb(log_prob, x, t, steps=60, size=0.3):
    for _ in range(steps):
        x = x + size * gradient(log_prob, x, t)
    return x


# %% tags=["L6-61", "check"]
ten = torch.arange(10)
canvas = torch.randn(10, 1, 28, 28, generator=seeded(15))
cases, climbed, sure = {"clean": (naive, 0), "aware": (critic, 0), "told": (critic, 990)}, {}, {}
for name, (alone, k) in cases.items():
    says, t = guidance.log_prob_of(alone, ten), SCHEDULE.at(k)
    climbed[name] = climb(says, canvas, t)
    changed = ((climbed[name] - canvas).norm() / canvas.norm()).item()
    sure[name] = says(climbed[name], t).exp().mean().item()
    agrees, _ = verdict(judge, climbed[name].clamp(-1, 1), CLEAN, ten)
    print(f"{name}, k = {k}: the canvas has changed by {changed:.0%}", end=", ")
    print(f"the critic is {sure[name]:.0%} sure of all ten digits, the judge reads {agrees:.0%}")
    assert max(changed, agrees) < 0.4
assert min(sure["clean"], sure["aware"]) > 0.9 > 0.3 > sure["told"]

# %%
three_rows = torch.cat([canvas, climbed["aware"], paint(by_critic(ten, 4.0), n=10)])
plots.show(
    plots.images(three_rows, 10, rows=["static", "critic alone", "painter and critic"], scale=1),
    alt="Three rows of ten pictures: static; static that looks the same, of which a critic is "
    "sure that it shows the digits 0 to 9; and ten clear digits, 0 to 9",
    caption="The middle row is, to the aware critic, told that it is clean, 0 to 9 beyond doubt.",
)

# %% [markdown] tags=["L6-61", "E-17", "formula"]
# A critic can tell a seven from a one. Told that a canvas is clean, neither can tell a seven from nothing: only the painter knows what pictures look
# like. Told the truth, the aware one does not fall for it: knowing the level is part of its honesty.
#
# ## 10. For and against, counted
#
# **The claims (L6-61).** *For:* one painter, any critic, nothing to retrain. *Against:* slow (a backward pass in every step), hungry for memory,
# easily fooled. What speaks for them we have seen, and also that a critic is easily fooled if it takes noise for a picture. The rest can be
# counted. In passes of the painter,
# $D$, and of the critic, $C$, a step costs
#
# $$\text{told the label: } D\qquad\text{with a critic: } D+\kappa\,C\qquad\text{the painter read twice (lesson 11): } 2D .$$
#
# **Predict** κ, the price of a critic's slope in passes of that critic. And which of the two guidances is the slower here?

# %% tags=["L6-61", "E-17"]
from torch.utils.flop_counter import FlopCounterMode


def operations(run):
    """Multiplications and additions of matrix products and convolutions while run() runs."""
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


# %% tags=["L6-61", "E-17"]
def kept(run):
    """Bytes that autograd keeps for a way back while run() runs."""
    sizes = []

    def keep(tensor):
        sizes.append(tensor.numel() * tensor.element_size())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        run()
    return sum(sizes)


# %% tags=["L6-61", "E-17"]
x, t, seven = torch.randn(1, 1, 28, 28), SCHEDULE.at(500), torch.tensor([7])
says_seven = guidance.log_prob_of(critic, seven)
ways = {
    "told the label": guidance.condition(painter, seven),
    "with a critic": by_critic(seven, 2.0),
    "the painter read twice": by_itself(seven, 2.0),
}
D = operations(lambda: painter(x, t))
C = operations(lambda: critic.class_log_prob(x, t))
step = {name: operations(lambda d=denoise: d(x, t)) / D for name, denoise in ways.items()}
kappa = operations(lambda: gradient(says_seven, x, t)) / C

# %% tags=["L6-61", "E-17", "check"]
print(f"a pass of the critic: {C / D:.2f} passes of the painter; κ = {kappa:.2f}")
for name, cost in step.items():
    print(f"one step, {name}: {cost:.2f} passes of the painter")
assert abs(kappa - 2) < 0.1  # there and back; for frozen weights no gradients are computed
assert abs(step["with a critic"] - (1 + kappa * C / D)) < 0.01
assert step["told the label"] < step["with a critic"] < step["the painter read twice"]

# %% tags=["L6-61", "E-17", "T-12", "check"]
reads_guess = take_for_clean(guidance.log_prob_of(naive, seven))
by_the_critic = kept(lambda: gradient(says_seven, x, t)) / 2**20
through = kept(lambda: gradient(lambda x, t: reads_guess(painter(x, t).x0, t), x, t)) / 2**20
print(f"kept for the way back, in MB a picture: {by_the_critic:.1f} in the critic", end="; ")
print(f"{through:.1f} through the painter as well")
assert through > 2 * by_the_critic

# %% tags=["L6-61", "check"]
before = painter.asked, critic.asked
paint(by_critic(seven, 2.0), n=1, steps=10)
asked = painter.asked - before[0], critic.asked - before[1]
print(f"a walk of 10 steps: {asked[0]} passes of the painter, {asked[1]} slopes of the critic")
assert asked == (10, 10)

# %% [markdown] tags=["L6-61", "E-17"]
# **Put right (E-17).** Slower than a model that was told the label, yes. Slower than its rival, only if the critic is large: the critic is cheaper as
# long as $\kappa\,C<D$, that is, while one pass of it costs less than half a pass of the painter. The memory is the critic's alone, since the painter is not differentiated. What remains against it: a
# critic that knows noise must be trained for every painter's schedule and every kind of wish, and it can be fooled. (Operations are not time.)

# %% [markdown] tags=["exercise"]
# **Exercise 4.** Must the critic speak in every step? `guidance.interval(plain, guided, low, high)` guides while the clock (0 data, 1 noise)
# lies between `low` and `high`. Paint twenty pictures at ω = 4, guided in the noisy half only, $[0.5,1]$, and in the clean half only,
# $[0,0.5]$. Which half decides the class? The second slider of section 8 helps to guess.
#
# <details><summary>Answer</summary>
#
# The noisy half. There the class is open. In the clean half the painter has begun another digit; the critic protests, with a slope that is
# not short at all, but what it adds to $\hat x_0$ is $\omega\,\text{noise}^2/\text{signal}$ times that slope, and this lever has become
# small. Where the noisy half was guided, the canvas is right already and the slope is short as well. So half of the critic's work can be
# saved.
# </details>

# %% tags=["solution", "check"]
y, t, shares, slopes = classes[:20], SCHEDULE.at(250), {}, {}
for low, high in ((0.5, 1.0), (0.0, 0.5)):
    images = paint(guidance.interval(unconditional, by_critic(y, 4.0), low, high), n=20)
    noised = add_noise(images, torch.randn(images.shape, generator=seeded(20)), t)
    shares[low] = metrics.recognised(images, y)
    slopes[low] = (
        gradient(guidance.log_prob_of(critic, y), noised, t).flatten(1).norm(dim=1).median()
    )
    print(
        f"guided on [{low:g}, {high:g}]: the judge reads {shares[low]:.0%} as asked for", end="; "
    )
    print(f"slope at clock 0.25: {slopes[low]:.2f} (median)")
print(f"the same twenty, guided all the way: {metrics.recognised(painted[4.0][:20], y):.0%}")
lever = [4 * level.noise**2 / level.signal for level in map(SCHEDULE.at, (990, 500, 250))]
print("the lever ω noise² / signal at clock 0.99, 0.5, 0.25: ", *(f"{v:.2g}" for v in lever))
assert shares[0.5] > shares[0.0] + 0.2
assert slopes[0.0] > 0.3 > slopes[0.5]

# %% [markdown] tags=["T-08", "T-09", "T-10", "T-11", "T-12", "T-13"]
# ## 11. Bug museum
#
# Six famous mistakes, in nine versions of one line of code, on the ring, where everything is known:
#
# - **T-08**: the sign;
# - **T-09**: the factor noise left out, or divided by;
# - **T-10**: the slope of the batch's *mean*, 400 times too small in a batch of 400;
# - **T-11**: the slope of $p$, or of a logit, in place of $\log p(y\mid x_t)$. On the ring take $\log p(x_t\mid y)$ for a
#   logit: with the log-share $\log p(y)$ added, softmax makes $p(y\mid x_t)$ of it, and without softmax the division by $p(x_t)$ is missing;
# - **T-12**: a slope taken *through the painter*. In one version the clean critic reads $\hat x_0$: a method in its own right, but another one. In the
#   other the painter merely stands inside the graph, and its memory with it;
# - **T-13**: the critic that takes noise for a clean picture.
#
# *Predict* which of them an eye finds on the samples, at ω = 1. The eye counts class 1, and strays. Unit checks look at one call: is the
# noise that of the model that was told? Is a sample's noise the same in any company? Is the painter ever shown an input that wants a
# gradient?


# %% tags=["T-08", "T-09", "T-10", "T-11", "T-12", "T-13"]
def version(wish=None, factor=lambda t: t.noise, inside=False):
    """(denoiser, model) -> guided to class 1; wish: (model) -> what is differentiated."""

    def make(denoiser, model):
        log_prob = (wish or right_wish)(model)

        def guided(x, t):
            with torch.enable_grad():
                leaf = x.detach().requires_grad_()
                eps = denoiser(leaf if inside else x, t).eps.detach()
                (slope,) = torch.autograd.grad(log_prob(leaf, t).sum(), leaf)
            return from_eps(x, t, eps - factor(t) * slope)

        return guided

    return make


# %% tags=["T-10", "T-11", "T-12", "T-13"]
def right_wish(model):
    return guidance.log_prob_of(model, 1)


WRONG_WISHES = {
    "T-10: mean of the batch": lambda model: lambda x, t: right_wish(model)(x, t).mean(),
    "T-11: slope of p": lambda model: lambda x, t: right_wish(model)(x, t).exp(),
    "T-11: slope of a logit": lambda model: lambda x, t: model.log_prob(x, t, 1),
    "T-12: critic reads x̂₀": lambda model: lambda x, t: right_wish(model)(model(x, t).x0, clean),
    "T-13: clean critic": lambda model: lambda x, t: right_wish(model)(x, clean),
}
VERSIONS = {
    "right": version(),
    "T-08: wrong sign": version(factor=lambda t: -t.noise),
    "T-09: no factor": version(factor=lambda t: 1.0),
    "T-09: divided by noise": version(factor=lambda t: 1 / t.noise),
    **{name: version(wish) for name, wish in WRONG_WISHES.items()},
    "T-12: painter in the graph": version(inside=True),
}


# %% tags=["T-08", "T-09", "T-10", "T-11", "T-12", "T-13"]
@cache  # the eye looks three times, and always at the same walk
def on_the_ring(make):
    """400 points made by DDPM in 50 steps, guided at ω = 1, always from the same noise."""
    levels = grid(schedule, 50)
    start = initial_noise((400, 2), levels[0], seeded(16), torch.float64)
    return last(ddpm(make(ring, ring), start, levels, generator=seeded(17)))


def off_the_told(make):
    """The largest gap in ε to the model that was told the label, at k = 20 and 400."""
    x, guided = torch.cartesian_prod(side, side), make(ring, ring)
    gaps = (guided(x, t).eps - ring(x, t, 1).eps for t in (schedule.at(20), schedule.at(400)))
    return max(gap.abs().max() for gap in gaps)


# %% tags=["T-10", "T-12"]
def alone_or_in_company(make):
    """How far a sample's guided ε moves when 63 others join it."""
    x, t, guided = torch.cartesian_prod(side, side)[:64], schedule.at(400), make(ring, ring)
    return (guided(x[:1], t).eps - guided(x, t).eps[:1]).abs().max()


class Watched:
    """The ring, as painter and critic, that notes how often it must paint under a gradient."""

    def __init__(self):
        self.seen = 0

    def __call__(self, x, t, y=None):
        self.seen += x.requires_grad
        return ring(x, t, y)

    def __getattr__(self, name):
        return getattr(ring, name)


# %% tags=["T-10", "T-12"]
def painted_under_gradient(make):
    """How often one guided call shows the painter an input that wants a gradient."""
    watched = Watched()
    make(watched, watched)(torch.zeros(1, 2, dtype=torch.float64), schedule.at(400))
    return watched.seen


# %% tags=["T-08", "T-09", "T-10", "T-11", "T-12", "T-13", "check"]
exhibits = museum.inspect(
    VERSIONS,
    eye={
        "class 1": Check(lambda make: says_one(on_the_ring(make), clean).exp().mean(), 1.0, 0.05),
        "strays": Check(lambda make: share_of_strays(on_the_ring(make)), 0.0, 0.02),
    },
    units={
        "gap in ε": Check(off_the_told, 0.0),
        "company": Check(alone_or_in_company, 0.0),
        "under gradient": Check(painted_under_gradient, 0.0),
    },
)

# %% tags=["T-08", "T-09", "T-10", "T-11", "T-12", "T-13"]
museum.show(
    exhibits,
    caption="Guided to class 1 of the ring, ω = 1",
    draw=lambda one, ax: plots.scatter({"guidance": on_the_ring(one.version)}, limit=3, ax=ax),
    alt="Ten scatter plots. Seven show four round bumps on the diagonals; the wrong sign mostly "
    "streaks on the axes, the mean of the batch and the slope of p all eight bumps",
)

# %% tags=["T-08", "T-09", "T-10", "T-11", "T-12", "T-13", "check"]
seen = [one.name for one in exhibits if one.visible]
print("seen in samples:", "; ".join(seen))
for name in ("right", "T-09: divided by noise", "T-11: slope of a logit"):
    points = on_the_ring(VERSIONS[name])
    print(f"{name}: from the next bump {torch.cdist(points, ring.means).min(1).values.mean():.2f}")
assert seen == ["T-08: wrong sign", "T-10: mean of the batch", "T-11: slope of p"]
(silent,) = (one for one in exhibits if one.name == "T-12: painter in the graph")
assert silent.caught == ["under gradient"]

# %% [markdown] tags=["T-08", "T-09", "T-10", "T-11", "T-12", "T-13"]
# **Six of nine look right**, to an eye that counts. The bumps of the ring lie apart, and nearly any push in the right direction picks the right
# ones. An eye that measured how far points lie from the next bump would doubt the logit. What each unit check would say to a student:
#
# | check | hint |
# |---|---|
# | gap in ε | Subtract (T-08) the slope of the *log*-probability, after `log_softmax` (T-11), times $\text{noise}=\sqrt{1-\bar\alpha}$ (T-09), taken at $x_t$ (T-12) and told its level (T-13). |
# | company | Sum over the batch before you differentiate: every sample needs its own slope (T-10). |
# | under gradient | Ask the painter outside the graph; the critic alone is differentiated (T-12). |
#
# "Painter in the graph" is right in every number that it paints. Its memory gives it away (section 10), and the check that watches who is asked.

# %% [markdown] tags=["exercise"]
# **Exercise 5.** Take the museum to the line, where the classes overlap: class 1 is $N(1,1)$, and the eye measures mean and standard
# deviation. How many of the nine hide there? Predict for each on which side of 1 its mean will be.
#
# <details><summary>Answer</summary>
#
# Only the painter in the graph hides, as it must everywhere. A push too weak leaves the mean short of 1: at 0, but for chance, with T-10 in a batch
# of 2000, half-way with the slope of $p$. T-09, $\hat x_0$ and T-13 carry it past 1, the wrong sign sends it to the other side. The logit adds
# the whole score of class 1 to the painter's: samples crowd where both think well of them. A world in which classes overlap is the better test.
# </details>

# %% tags=["solution", "check"]
levels, hidden = grid(schedule, 50), []
start = initial_noise((2000, 1), levels[0], seeded(18), torch.float64)
for name, make in VERSIONS.items():
    end = last(ddpm(make(line, line), start, levels, "beta", seeded(19)))
    print(f"{name:27} mean {end.mean():5.2f}, standard deviation {end.std():.2f}")
    if abs(end.mean() - 1) < 0.1 and abs(end.std() - 1) < 0.1:
        hidden.append(name)
assert hidden == ["right", "T-12: painter in the graph"]

# %% [markdown]
# ## What we learned
#
# - Bayes' rule holds at every noise level, and in slopes it is a sum: painter plus critic. In noise,
#   $\tilde\epsilon=\epsilon-\omega\,\text{noise}\,\nabla\log p(y\mid x_t)$: ω = 1 from the rule, any other by hand.
# - A larger ω makes samples more certain and less diverse, not more typical.
# - Guiding the mean (slope at the proposal) and guiding the noise (slope at $x_t$) agree to first order within DDPM; a DDIM step needs half the
#   push.
# - Slopes add for wishes that are independent given the *noisy* point.
# - A critic must know noise. One that does not has slopes of the wrong length, and a network of the wrong direction too; samples may hide it, its
#   nats on noise do not.
# - Believe no guide: ask a judge that guided nobody. And a critic alone paints nothing.
# - The price is one slope of the critic in every step, two of its passes; the painter is never differentiated.
#
# ## References
#
# - Dhariwal & Nichol 2021, *Diffusion models beat GANs on image synthesis*, sec. 4, alg. 1 (the mean) and 2 (the noise).
# - Sohl-Dickstein et al. 2015, *Deep unsupervised learning using nonequilibrium thermodynamics*, sec. 2.5: a second factor in every step.
# - Song et al. 2021b, *Score-based generative modeling through SDEs*, sec. 5: the sum of slopes, a classifier that knows time.
# - Liu et al. 2022, *Compositional visual generation with composable diffusion models*: several wishes at once.
# - Bansal et al. 2023, *Universal guidance for diffusion models*: a clean critic that reads $\hat x_0$.
# - Kynkäänniemi et al. 2024, *Applying guidance in a limited interval*, eq. 5.
#
# **Where next.** Lesson 11 sends the critic home: a painter that knows labels, read twice, is its own.
