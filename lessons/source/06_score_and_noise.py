# %% [markdown]
# # 06 · Score and noise
#
# *A network that guesses noise has learnt, without computing a single probability, which way is up.*
#
# **You need** noising, `xt = signal * x0 + noise * eps` (lesson 03), gradients, Bayes' rule, conditional
# expectation, and from lesson 05 Algorithm 1 and the floor of its loss. DDIM (lesson 07) serves as a black
# box that turns noise into samples.
#
# **You will be able to** say what a score is, derive it in six steps, explain why regression onto noise
# finds it, measure how far a trained network is from the truth, and tell what becomes of a model that
# has learnt its training set *too* well.
#
# **Time on two CPU cores**: about 20 seconds to run, an hour and a half to read and play.
#
# **The codes.** The course follows a series of lectures and tests what they say. (L6-41) names a slide, DS-25
# one of another deck, E-09 a slip on a slide, T-10 a classic mistake of students.

# %% tags=["setup"]
import math

import torch

from didiff import DDPMSchedule, Denoiser, add_noise, data, loss, mixtures, networks
from didiff.notebook import museum, plots, widgets
from didiff.notebook.museum import Check
from didiff.samplers import ddim, initial_noise, last
from didiff.schedules import grid
from didiff.training import fit, random_steps

torch.manual_seed(0)
torch.set_num_threads(1)  # the networks are small: two threads would wait for each other
plots.style()
schedule = DDPMSchedule()

# %% [markdown]
# The course follows a series of lectures and tests them: (L6-44) is one of their slides, E-09 a slip in
# it, T-26 a classic mistake. Their step $t$ is our $k$:
#
# | in the code | what it is |
# |---|---|
# | `t = schedule.at(k)` | the *level* of step $k$: `t.signal` is $\sqrt{\bar\alpha_k}$, `t.noise` is $\sqrt{1-\bar\alpha_k}$; $k = 0$ is the data, with `alpha_bar[0]` = 1 |
# | `t.like(x)` | the same pair, shaped to multiply the samples of `x` |
# | `mixture.sample(n)[0]` | $n$ clean points; `[1]` would be their labels |
# | `mixture(xt, t).eps` | the exact $\mathbb E[\epsilon \mid x_t]$, by a formula |
# | `mixtures.Mixture(digits)` | a component of width 0 on each digit |
# | `Denoiser(net, target="eps")` | a network, called like a mixture; its output is $\epsilon_\theta$ |
# | `loss(denoiser, x0, t)` | $\lVert\epsilon-\epsilon_\theta\rVert^2$ of lesson 05, the mean over the numbers of each sample; a mixture must be told `target="eps"` |

# %% [markdown] tags=["formula"]
# ## 1. Which way is up?
#
# **Story.** You stand on a hill in thick fog. You see neither its shape nor its height, but your feet
# tell you where the ground rises, and how steeply. If the height is the logarithm of a probability
# density, the arrow under your feet is the **score**. With $p_t$ for the density of noisy points at
# level $t$,
#
# $$s(x, t) \;=\; \nabla_x \log p_t(x) .$$
#
# Where we can write the density down, automatic differentiation finds the arrow.


# %%
def autograd_score(log_prob, x):
    """grad_x log p at each point of x (B, d); log_prob: (B, d) -> (B,)."""
    x = x.detach().requires_grad_()
    total = log_prob(x).sum()  # each point occurs in one term: its gradient is that term's
    (gradient,) = torch.autograd.grad(total, x)
    return gradient


# %% [markdown]
# **Check** (L6-35). At $k = 100$ our landscape has three hills in the plane. We compare the gradient
# with differences of heights, then take a small step along the arrow from each of 1,000 places.
# Predict: how many of the steps lead upwards?

# %% tags=["check", "L6-35"]
three, t = mixtures.three_modes(), schedule.at(100)
x = 1.5 * torch.randn(1000, 2, dtype=torch.float64)
arrows = autograd_score(lambda x: three.log_prob(x, t), x)
h = 1e-5 * torch.eye(2, dtype=torch.float64)
slopes = torch.stack([(three.log_prob(x + e, t) - three.log_prob(x - e, t)) / 2e-5 for e in h], 1)
print(f"by autograd    ({arrows[0, 0]:.6f}, {arrows[0, 1]:.6f})")
print(f"by differences ({slopes[0, 0]:.6f}, {slopes[0, 1]:.6f})")
assert (arrows - slopes).abs().max() < 1e-7

# %% tags=["check", "L6-35"]
upwards = three.log_prob(x + 1e-3 * arrows, t) > three.log_prob(x, t)
print(f"steps that lead upwards: {upwards.double().mean():.0%}")
assert upwards.all()

# %% [markdown]
# **Why ask for the slope rather than the height?** A density integrates to one: whoever models it must
# either build it so that it does, or compute the integral. A slope needs no such thing: make the density
# seven times too large, and its logarithm moves up by $\log 7$, which no gradient sees (DS-25).


# %% tags=["check", "DS-25"]
def seven_times(x):
    return 7 * three.log_prob(x, t).exp()


unnormalised = autograd_score(lambda x: seven_times(x).log(), x)
heights = seven_times(x[:1]).item(), three.log_prob(x[:1], t).exp().item()
print(f"heights {heights[0]:.2e} and {heights[1]:.2e}")
print(f"scores  {unnormalised[0, 0]:.6f} and {arrows[0, 0]:.6f}")
assert (seven_times(x) / three.log_prob(x, t).exp() - 7).abs().max() < 1e-10
assert (unnormalised - arrows).abs().max() < 1e-10

# %% [markdown]
# **Play.** Each noise level has a landscape of its own. Predict, before you move the slider: how many
# hills are left at $k = 300$, and where do the arrows point at $k = 1000$? (The drawn lengths are
# proportional to $|s| / (1 + |s|)$, on one scale for all levels. The readout has the true size, a root
# mean square over $p_t$.)


# %% tags=["play"]
def square(side, reach):
    """side * side points on a grid over [-reach, reach]^2."""
    line = torch.linspace(-reach, reach, side, dtype=torch.float64)
    return torch.cartesian_prod(line, line)


def size(vectors, weight):
    """Root mean square length of vectors (N, d) under weights (N,)."""
    return ((weight * vectors.square().sum(1)).sum() / weight.sum()).sqrt()


# %% tags=["play"]
def hills(density, side):
    """How many points of the grid are as high as everything around them."""
    height = density.reshape(1, side, side)
    highest = torch.nn.functional.max_pool2d(height, 3, stride=1, padding=1)
    return int((height == highest).sum())


# %% tags=["play"]
def landscapes(mixture, schedule, places, fine):
    """The slider's callback. A new figure would be slow: frames turn the arrows of this one."""
    fig, (ax,) = plots.panels(size=(3.9, 3.7))
    plots.field(places, -places, role="exact", ax=ax)
    ax.set(xlim=(-3.3, 3.3), ylim=(-3.3, 3.3))
    (arrows,) = ax.collections

    def frames(k):
        t = schedule.at(k)
        score, density = mixture.score(places, t), mixture.log_prob(fine, t).exp()
        arrows.set_UVC(*(score / (1 + score.norm(dim=1, keepdim=True))).T)
        for old in ax.collections[1:]:
            old.remove()
        plots.contours(lambda x: mixture.log_prob(x, t).exp(), 3.3, ax=ax)
        rms = size(mixture.score(fine, t), density)
        words = f"step {k} of 1000: signal {t.signal:.2f}, noise {t.noise:.2f}"
        words += f"; hills: {hills(density, 81)}; |score| {rms:.2f}"
        yield widgets.Frame(plots.png(fig), words)

    return frames


# %% tags=["play"]
explorer = widgets.Explorer(
    landscapes(three, schedule, square(13, 3.0), square(81, 4.0)),
    {"k": widgets.slider("noise level k =", 10, 1000, value=100, step=10)},
    width=400,
)
explorer.show(
    alt="Arrows of the score over the contour lines of a density in the plane. At little noise "
    "they lead to three separate hills; the hills merge into one, which becomes round and ends in "
    "the middle, with all arrows pointing there.",
    still_over="k",
    values=[10, 50, 100, 150, 200, 250, 300, 400, 500, 700, 1000],
)

# %% tags=["check"]
for k, words in {1000: "hills: 1; |score| 1.41", 300: "hills: 1;", 100: "hills: 3;"}.items():
    explorer["k"].value = k
    explorer.wait()
    print(explorer.readout)
    assert words in explorer.readout  # 1.41 is the square root of 2: N(0, I) in the plane

# %% [markdown] tags=["formula"]
# ## 2. The score of a point that knows where it came from
#
# **Story.** Nobody can write down the density of all noisy images. But that of the noisy versions of
# *one* image $x_0$ is a plain Gaussian, known since lesson 03. Let us climb this hill first, as the
# lecture does. With $d$ numbers in $x$ and $v$ = `t.noise**2`,
#
# $$\log p(x_t \mid x_0) \;=\; -\tfrac d2 \log (2\pi v) \;-\; \frac{\lVert u\rVert^2}{2v},
# \qquad u = x_t - \text{signal}\cdot x_0 .$$


# %%
def conditional_log_prob(x, x0, t):
    """log p(xt = x | x0) for x, x0 (B, d): (B,)."""
    u, v = x - t.signal * x0, t.noise**2
    return -x.shape[1] / 2 * (2 * math.pi * v).log() - u.square().sum(1) / (2 * v)


# %% [markdown]
# **Steps 1 to 3** (L6-41). The first term has no slope. For the second we need $\nabla (u^\top u) = 2u$,
# which the lecture takes from a rule, $\nabla (x^\top A x) = 2Ax$. Try the rule with a random matrix.

# %% tags=["check", "L6-41"]
u, A = torch.randn(1000, 3, dtype=torch.float64), torch.randn(3, 3, dtype=torch.float64)
slope = autograd_score(lambda u: (u * (u @ A.T)).sum(1), u)
print(f"2Au differs from the gradient of u'Au by up to {(2 * u @ A.T - slope).abs().max():.2f}")
print(f"(A + A')u by less than 1e-12: {bool((u @ (A + A.T) - slope).abs().max() < 1e-12)}")
assert (u @ (A + A.T) - slope).abs().max() < 1e-12
assert (2 * u @ A.T - slope).abs().max() > 0.1
assert (autograd_score(lambda u: (u * u).sum(1), u) - 2 * u).abs().max() < 1e-12

# %% [markdown]
# The rule wants a symmetric $A$, and our $A$ is the identity.
#
# **Step 4** (L6-42). Put together, the **conditional score** points straight back to the shrunken $x_0$:
#
# $$\nabla \log p(x_t \mid x_0) \;=\; -\frac{x_t - \text{signal}\cdot x_0}{\text{noise}^2} .$$


# %%
def conditional_score(x, x0, t):
    """grad_x log p(xt = x | x0) = -(x - signal * x0) / noise^2."""
    signal, noise = t.like(x)
    return -(x - signal * x0) / noise**2


# %% tags=["check", "L6-42"]
t = schedule.at(100)
x0, eps = torch.randn(2, 10_000, 3, dtype=torch.float64)
xt = add_noise(x0, eps, t)
by_autograd = autograd_score(lambda x: conditional_log_prob(x, x0, t), xt)
by_formula = conditional_score(xt, x0, t)
print(f"by autograd {by_autograd[0, 0]:.6f}, by the formula {by_formula[0, 0]:.6f}")
assert (by_autograd - by_formula).abs().max() < 1e-12

# %% [markdown]
# **Step 5** (L6-43). Who knows $x_0$ and $x_t$ knows the noise, $\epsilon = (x_t - \text{signal}\cdot
# x_0) / \text{noise}$. There and back, in two precisions:

# %% tags=["check", "L6-43"]
rows = []
for k in (1, 100, 1000):
    t, errors = schedule.at(k), []
    for dtype in (torch.float64, torch.float32):
        start, drawn = x0.to(dtype), eps.to(dtype)
        found = (add_noise(start, drawn, t) - t.signal * start) / t.noise
        errors.append((found - drawn).abs().max().item())
    rows.append([k, *[f"1e{math.ceil(math.log10(error))}" for error in errors]])
    assert errors[0] < 1e-12
    assert errors[1] < 4e-7 * xt.abs().max() / t.noise  # a few roundings, divided by the noise
plots.table(rows, header=["k", "float64", "float32"], caption="largest error, rounded up")

# %% [markdown]
# At $k = 1$ we divide by 0.01, and float32 loses two of its seven digits.
#
# **Step 6: a question.** Now the lecture replaces $u$ by the noise (L6-44), in three lines:
#
# $$(1)\; -\frac{u}{v} \qquad (2)\; -\frac{u}{v}\cdot\frac1{\sqrt v} \qquad
# (3)\; -\frac{\epsilon}{\sqrt v}$$
#
# Are the three equal? Predict first, then run.

# %% tags=["check", "L6-44", "E-09"]
rows = []
for k in (1, 10, 100, 500, 1000):
    t = schedule.at(k)
    xt, v = add_noise(x0, eps, t), t.noise**2
    u = xt - t.signal * x0
    first, second, third = -u / v, -u / v / v.sqrt(), -eps / v.sqrt()
    rows.append([k, (first / third).median().item(), (second / third).median().item()])
    assert (first / third - 1).abs().max() < 1e-8
    assert (second / third * t.noise - 1).abs().max() < 1e-8
plots.table(rows, header=["k", "(1) / (3)", "(2) / (3)"], caption="the three lines, compared")

# %% [markdown]
# Lines (1) and (3) agree; line (2) has a factor $1/\sqrt v$ too many (E-09): 100 at the first step, 1 at
# the last, where nobody would notice. What was meant is $-\frac{u}{\sqrt v}\cdot\frac{1}{\sqrt v}$. The
# start and the end of the derivation are right.
#
# **The result** (L6-45): $\nabla \log p(x_t \mid x_0) = -\epsilon / \text{noise}$. *To go up, move
# against the noise.* And how far? A vector of $d$ standard normal numbers has length about $\sqrt d$,
# so this score has length about $\sqrt d / \text{noise}$, and grows without bound as the noise goes to 0
# (the marginal score need not: section 6).

# %% tags=["check", "L6-45"]
rows, n = [], eps.numel()
for k in (1, 100, 1000):
    t = schedule.at(k)
    uphill = conditional_score(add_noise(x0, eps, t), x0, t)
    length = uphill.square().sum(1).mean().sqrt().item()
    rows.append([k, length, (3**0.5 / t.noise).item()])
    assert (uphill + eps / t.noise).abs().max() < 1e-10 / t.noise**2
    assert abs(length / rows[-1][2] - 1) < 4 * (2 / n) ** 0.5 / 2  # the square: +- sqrt(2 / n)
plots.table(rows, header=["k", "measured", "√d / noise"], caption="length of the score, d = 3")

# %% [markdown] tags=["exercise"]
# **Exercise 1.** $x_0$ is a colour image of 32 × 32 pixels, $x_t$ a noisy version of it at $k = 10$, where
# noise is 0.0435. How long is the conditional score at $x_t$, and how far is it from $x_t$ to signal · $x_0$?
#
# <details><summary>Answer</summary>
# d = 3 · 32 · 32 = 3072, so about √3072 / 0.0435 = 1270. The way back is noise² times this, noise · √d =
# 2.4: near the data slopes are steep and ways short.
# </details>

# %% [markdown] tags=["formula"]
# ## 3. The score of a point that has forgotten
#
# **Story.** A sampler starts from noise; there is no $x_0$ to go back to. It needs the slope of the
# *marginal* density $p_t(x) = \int p(x \mid x_0)\, p(x_0)\, dx_0$ (L6-46). How are the two slopes related?
# Differentiate the integral with $\nabla p = p\, \nabla \log p$, divide by $p_t(x)$, and use Bayes' rule:
#
# $$\begin{aligned}
# \nabla p_t(x) &= \int \nabla p(x \mid x_0)\, p(x_0)\, dx_0
# = \int p(x \mid x_0)\, \nabla \log p(x \mid x_0)\; p(x_0)\, dx_0 \\
# \nabla \log p_t(x) &= \int \frac{p(x \mid x_0)\, p(x_0)}{p_t(x)}\; \nabla \log p(x \mid x_0)\, dx_0
# = \int p(x_0 \mid x)\, \nabla \log p(x \mid x_0)\, dx_0 \\
# &= \mathbb E\big[\nabla \log p(x_t \mid x_0) \,\big|\, x_t = x\big]
# \end{aligned}$$
#
# *The marginal score is the average of the conditional ones, over all the $x_0$ that may have led here.*
#
# Nothing in these lines asks what $x_0$ is. For a mixture of Gaussians on the line, put in its place the
# number $j$ of the component, of mean $m_j$ and standard deviation $s_j$: given $j$, $x_t$ is Gaussian
# with variance $V_j = (\text{signal}\cdot s_j)^2 + \text{noise}^2$ and slope $(\text{signal}\cdot m_j -
# x)/V_j$. The weights $p(j \mid x)$ are the softmax over $j$ of $\log p(j) + \log p(x \mid j)$.


# %% tags=["twin:didiff.mixtures.Mixture.score"]
def score(mixture, x, t):
    """grad_x log p_t(x) of a mixture on the line, x (B, 1): slopes averaged with p(j | xt = x)."""
    mean = t.signal * mixture.means.T  # (1, K)
    variance = (t.signal * mixture.std) ** 2 + t.noise**2
    log_joint = mixture.log_weights - (x - mean) ** 2 / (2 * variance) - variance.log() / 2
    share = log_joint.softmax(1)  # (B, K)
    return (share * (mean - x) / variance).sum(1, keepdim=True)


# %% [markdown]
# **Check** (L6-46, L6-47), without any closed form: sum over 4,001 values of $x_0$. The prior has two
# bumps, at −1 and +1, of standard deviation 0.3; at $k = 100$ signal is 0.95 and noise 0.32. Predict
# three scores at $x = 0$: given $x_0 = -1$, given $x_0 = +1$, and the marginal one.


# %%
def by_quadrature(log_prior, x0, x, t):
    """log p_t and the average conditional score at x (B, 1), as sums over a fine grid x0 (N,)."""
    u, v = x - t.signal * x0, t.noise**2  # u (B, N)
    log_joint = log_prior - u**2 / (2 * v) - (2 * math.pi * v).log() / 2
    log_p = log_joint.logsumexp(1) + (x0[1] - x0[0]).log()
    return log_p, (log_joint.softmax(1) * -u / v).sum(1, keepdim=True)


# %% tags=["check", "L6-46", "L6-47"]
bimodal, t = mixtures.bimodal(), schedule.at(100)
x = torch.linspace(-2, 2, 201, dtype=torch.float64)[:, None]
x0 = torch.linspace(-4, 4, 4001, dtype=torch.float64)
log_p, average = by_quadrature(bimodal.log_prob(x0[:, None], schedule.at(0)), x0, x, t)
print(f"at x = 2: log p {log_p[-1]:.6f}, in closed form {bimodal.log_prob(x, t)[-1]:.6f}")
assert (score(bimodal, x, t) - average).abs().max() < 1e-10
assert (bimodal.log_prob(x, t) - log_p).abs().max() < 1e-8

# %% tags=["check", "L6-46"]
left, right = (conditional_score(x, origin, t) for origin in (-1, 1))
low, high, both = (scores[100].item() for scores in (left, right, score(bimodal, x, t)))
print(f"from -1: {low:.3f}, from +1: {high:.3f}, marginal: {abs(both):.3f}")
assert abs(low + high) < 1e-10
assert abs(both) < 1e-10
assert left[-1] < right[-1] < score(bimodal, x, t)[-1]  # at x = 2 it is above both

# %%
curves = {"from x0 = -1": left, "from x0 = +1": right, "exact, marginal": score(bimodal, x, t)}
fig = plots.densities(x[:, 0], curves, xlabel="noisy point x", ylabel="score at k = 100")
fig.axes[0].lines[-1].set(linestyle="-", linewidth=2.4)
fig.axes[0].legend()
plots.show(
    fig,
    alt="Two thin parallel falling lines, the conditional scores, zero at -0.95 and +0.95. The "
    "thick curve of the marginal score falls through zero near both and rises through it at 0; "
    "left of -1 it runs below both lines, right of +1 above both.",
    caption="Each origin pulls to itself, shrunken by signal. The marginal score averages over all "
    "x0, also those beyond -1 and +1: so it leaves the band between the two lines.",
)

# %% [markdown] tags=["L6-47", "E-10"]
# **A question** (E-10). The lecture calls the integral over $x_0$ intractable. *You have just computed
# it.* For whom is it out of reach, then?
#
# For whoever does not know $p(x_0)$: nobody has the density of "all photographs". For a *training set* it
# is a finite sum, exact and cheap: in section 7 we compute it, and regret it.

# %% [markdown] tags=["exercise"]
# **Exercise 2.** From which step $k$ on do the two bumps of `bimodal()` (means ±1, standard deviation
# 0.3) have only one hill? Derive a condition on the level and find $k$ with `schedule.alpha_bar`.
#
# <details><summary>Answer</summary>
# Both Gaussians have variance V = (0.3 signal)² + noise². At distance u from its centre, the second
# derivative of a Gaussian is its height times (u²/V − 1)/V. At x = 0 both have u = ∓signal, so p″(0) ≤ 0,
# no valley in the middle, means signal² ≤ V. With noise² = 1 − ᾱ: ᾱ ≤ 1 / 1.91 = 0.524, and
# <code>int((schedule.alpha_bar > 1 / 1.91).sum())</code>, which counts k = 0 too, gives 251.
# </details>

# %% [markdown] tags=["formula"]
# ## 4. Why guessing noise is enough
#
# **Story.** We want a network $s_\theta(x_t)$ close to the marginal score, but have no marginal score to
# show it. Denoising score matching (DSM; Vincent 2011, a report of 2010) shows it the conditional one
# instead: wrong in every example, right on average. Least squares finds averages, so the best $s_\theta$
# is the same as if we had shown the marginal score (explicit score matching, ESM); only the targets are
# noisier, with variance $C_t$. At a fixed level, on average over $x_0$ and $\epsilon$,
#
# $$\underbrace{\mathbb E\lVert \nabla\log p(x_t|x_0) - s_\theta(x_t)\rVert^2}_{\text{DSM: computable}}
# \;=\; \underbrace{\mathbb E\lVert \nabla\log p_t(x_t) - s_\theta(x_t)\rVert^2}_{\text{ESM: wanted}}
# \;+\; C_t .$$
#
# Why? Let $a = \nabla\log p(x_t|x_0) - \nabla\log p_t(x_t)$ and $b = \nabla\log p_t(x_t) - s_\theta(x_t)$.
# The left side is $\mathbb E\lVert a + b\rVert^2 = \mathbb E\lVert a\rVert^2 + 2\,\mathbb E[a \cdot b] +
# \mathbb E\lVert b\rVert^2$. Given $x_t$, $b$ is fixed, and $\mathbb E[a \mid x_t] = 0$ by section 3: the
# middle term is zero, and $C_t = \mathbb E\lVert a\rVert^2$ knows nothing of $\theta$.
#
# **Check** (L6-48). Three models, $s = 0$, $-x/2$ and $-x$, at three levels: is DSM − ESM the same number
# for all, up to sampling error?


# %%
def gap(a, conditional, marginal, x):
    """DSM - ESM for the model s(x) = a * x, sample by sample."""
    return (conditional - a * x) ** 2 - (marginal - a * x) ** 2


# %% tags=["check", "L6-48"]
n, rows = 200_000, []
x0, eps = bimodal.sample(n)[0], torch.randn(n, 1, dtype=torch.float64)
for k in (50, 300, 700):
    t = schedule.at(k)
    x = add_noise(x0, eps, t)
    conditional, marginal = -eps / t.noise, score(bimodal, x, t)
    constant = (conditional - marginal) ** 2
    gaps = [gap(a, conditional, marginal, x) for a in (0, -0.5, -1)]
    errors = [4 * (each - constant).std().item() / n**0.5 for each in gaps]
    rows.append([k, *(each.mean().item() for each in (*gaps, constant)), f"{max(errors):.1g}"])
    for each, error in zip(gaps, errors, strict=True):
        assert (each - constant).mean().abs() < error
header = ["k", "s = 0", "s = -x/2", "s = -x", "C", "4 standard errors"]
plots.table(rows, header=header, caption="DSM - ESM, and C")

# %% [markdown]
# So both losses have the same gradient. And the loss does not go to zero: even a perfect network stays
# at $C_t$, for it cannot know which $x_0$ this $x_t$ came from.
#
# **The same in the language of noise** (L6-51). Multiply by −noise: the target becomes $\epsilon$, and the
# best answer $\mathbb E[\epsilon \mid x_t] = -\text{noise}\cdot\nabla\log p_t(x_t)$. We cut 200,000 pairs
# $(x_t, \epsilon)$ into 24 bins with equally many points, average, and compare.


# %%
def binned(x, values, bins=24):
    """Mean of x, mean of values and its standard error in equally full bins; x, values (n,)."""
    chosen = x.argsort()[: len(x) // bins * bins].reshape(bins, -1)
    inside = values[chosen]
    return x[chosen].mean(1), inside.mean(1), inside.std(1) / inside.shape[1] ** 0.5


# %% tags=["check", "L6-51"]
t = schedule.at(100)
x = add_noise(x0, eps, t)
exact = -t.noise * score(bimodal, x, t)
centre, mean, _ = binned(x[:, 0], eps[:, 0])
_, off, error = binned(x[:, 0], (eps - exact)[:, 0])
print(f"largest deviation in 24 bins: {(off / error).abs().max():.1f} standard errors")
assert (off / error).abs().max() < 4

# %%
line = torch.linspace(-2.2, 2.2, 200, dtype=torch.float64)[:, None]
curve = {"exact score times -noise": -t.noise * score(bimodal, line, t)}
fig = plots.densities(line, curve, xlabel="noisy point x at k = 100", ylabel="its noise eps")
(ax,) = fig.axes
grey, blue = (plots.ROLE[role]["color"] for role in ("noise", "data"))
ax.plot(x[:2000], eps[:2000], ".", color=grey, markersize=2, alpha=0.5, label="2,000 of the pairs")
ax.plot(centre, mean, "o", color=blue, label="averages in 24 bins")
ax.legend(fontsize=7, loc="upper left")
plots.show(
    fig,
    alt="Noise against noisy point: a cloud of grey points in two rising bands, around x = -0.95 "
    "and x = +0.95. The dashed curve of minus noise times the exact score rises through both and "
    "falls steeply from 1 to -1 between them; the 24 blue averages lie on it.",
    caption="Grey is what a network is shown, blue what least squares makes of it.",
)

# %% [markdown] tags=["exercise"]
# **Exercise 3.** For a single Gaussian, $x_0 \sim N(m, s^2)$ on the line, find $C_t$ in closed form.
#
# <details><summary>Hint and answer</summary>
# The conditional score has mean square 1/noise². The marginal one is −(x − signal·m)/V with
# V = signal² s² + noise², so its mean square is 1/V, and so is its mixed term with the conditional one
# (section 3). Hence C = 1/noise² − 1/V: infinite near the data, zero at pure noise.
# </details>

# %% [markdown] tags=["formula"]
# ## 5. From the score to the loss of DDPM
#
# **Story.** Write the model of the score with a network that predicts noise,
# $s_\theta = -\epsilon_\theta / \text{noise}$. In the loss both sides carry the same factor:
#
# $$\lVert \nabla\log p(x_t|x_0) - s_\theta \rVert^2 \;=\;
# \frac{1}{\text{noise}^2}\, \lVert \epsilon - \epsilon_\theta \rVert^2 .$$
#
# Without the factor this is the simple loss of lesson 05: draw noise, mix, and ask which noise it was.
# There it came from the likelihood; here nobody mentioned a likelihood.
#
# **Check** (L6-49), on a random batch, each sample at its own level, for an untrained network:

# %% tags=["check", "L6-49"]
denoiser = Denoiser(networks.MLP((1,), width=64, depth=2).double(), target="eps")
few, t = (x0[:512], eps[:512]), schedule.at(torch.randint(1, 1001, (512,)))
xt = add_noise(*few, t)
model = -denoiser(xt, t).eps / t.like(xt).noise
in_scores = (conditional_score(xt, few[0], t) - model).square().mean(1)
in_noise = loss(denoiser, few[0], t, eps=few[1]) / t.noise**2
print(f"with scores {in_scores.mean():.6f}, with noise {in_noise.mean():.6f}")
assert (in_scores / in_noise - 1).abs().max() < 1e-6

# %% [markdown]
# **A question** (L6-50). The lecture drops the factor, "a constant", and arrives at "exactly" the loss
# of DDPM. Is $1/\text{noise}^2$ a constant? In DDPM each sample draws its own step, so the loss is an
# average over steps too, which the slide leaves out. Predict: what share of the total weight do the
# first ten of the thousand steps hold?
#
# And does it matter? Take one parameter, $\epsilon_\theta = a\,x_t$, and data $N(0, s^2)$. With
# $\mathbb E[\epsilon\, x_t] = \text{noise}$ and $\mathbb E[x_t^2] = V = (\text{signal}\cdot s)^2 +
# \text{noise}^2$, the derivative of $\sum_k w_k\, \mathbb E(\epsilon - a\,x_t)^2$ is zero at $a = \sum_k
# w_k\, \text{noise}_k \,/ \sum_k w_k V_k$. We try three weights $w$: 1 (simple), $1/\text{noise}^2$ (as
# derived), and $\beta / (2\alpha\,\text{noise}^2)$ with $\alpha = 1 - \beta$, the weight in the bound on
# the likelihood (lesson 05, section 4, with the variance $\sigma^2 = \beta$).


# %%
def best_slope(weight, t, s):
    """The minimiser of sum_k weight_k E(eps - a xt)^2 for x0 ~ N(0, s^2)."""
    variance = (t.signal * s) ** 2 + t.noise**2
    return ((weight * t.noise).sum() / (weight * variance).sum()).item()


# %% tags=["check", "L6-50", "E-11"]
t, beta = schedule.at(range(1, 1001)), schedule.beta
weights = {"1": t.noise**0, "1/noise²": t.noise**-2, "bound": beta / (1 - beta) / t.noise**2 / 2}
share = t.noise[:10].pow(-2).sum() / t.noise.pow(-2).sum()
print(f"1/noise² falls from {t.noise[0] ** -2:.0f} to {t.noise[-1] ** -2:.0f}")
print(f"share of the first ten steps: {share:.1%}")
assert 0.76 < share < 0.77

# %% tags=["check", "L6-50", "E-11"]
rows = [[s, *(best_slope(w, t, s) for w in weights.values())] for s in (0.5, 2.0)]
plots.table(rows, header=["s", *weights], caption="the best a under three weights")
smaller = [[f"{row[1] / a:.2g}" for a in row[2:]] for row in rows]
print(f"smaller than with weight 1 by the factors {smaller}")
assert smaller == [["4.1", "1.1"], ["25", "1.8"]]

# %% tags=["check", "L6-50", "E-11"]
k = torch.randint(1, 1001, (n,))  # the same by experiment, for s = 0.5
start, drawn = torch.randn(2, n, dtype=torch.float64)
x = add_noise(0.5 * start, drawn, schedule.at(k))
for w, a in zip(weights.values(), rows[0][1:], strict=True):
    slope = w[k - 1] * (drawn - a * x) * x  # zero on average at the best a
    assert slope.mean().abs() < 4 * slope.std() / n**0.5

# %% tags=["check", "L6-50", "E-11"]
tenth, one = schedule.at([10]), torch.ones(1, 1, dtype=torch.float64)
own = [best_slope(w[9:10], tenth, 0.5) for w in weights.values()]  # an a for this level alone
exact = mixtures.gaussian(0.0, 0.5)(one, tenth).eps.item()
print(f"step 10 alone: {', '.join(f'{a:.6f}' for a in own)}; the exact denoiser: {exact:.6f}")
assert max(abs(a - exact) for a in own) < 1e-10

# %% [markdown]
# Constant at a fixed level, yes; from step to step it falls from 10,000 to 1 (E-11). Under
# $1/\text{noise}^2$ the best $a$ is smaller by factors of 4.1 and 25, under the bound by 1.1 and 1.8. The
# weight stops mattering only where one model is the best at *every* level: because it has parameters of
# its own for each, or is rich enough to be exact. $L_{\text{simple}}$ is DSM with the weight noise²: not
# what was derived, but a choice, made in the open by Ho et al. (2020, section 3.4), for better pictures.

# %% [markdown] tags=["formula"]
# ## 6. Train a network and hold it against the truth
#
# **Story.** The lecture ends with a box: $\nabla\log p(x_t) = -\epsilon_\theta / \sqrt{1-\bar\alpha_t}$
# (L6-51). *For which network does this equation hold?* You can answer by now: for the minimiser,
# $\epsilon^*(x_t) = \mathbb E[\epsilon \mid x_t]$, and for no other (E-12). For the rest we can say exactly
# how far away they are: lesson 05 split the loss into a floor, that of $\epsilon^*$, and a distance,
#
# $$\mathbb E\lVert \epsilon - \epsilon_\theta\rVert^2 \;-\; \mathbb E\lVert \epsilon -
# \epsilon^*\rVert^2 \;=\; \mathbb E\lVert \epsilon_\theta - \epsilon^* \rVert^2 .$$
#
# *Excess of the loss over its floor = mean squared distance from the truth.* (Why no mixed term? For the
# reason of section 4.) A mixture knows its $\epsilon^*$, so all three can be measured.
#
# We train as in lesson 05, in rounds with smaller and smaller learning rates, now with the library's `fit`:
# what it yields after every step holds the step, the loss of the batch, the model and an average of it.
# `random_steps(schedule, n)` is `schedule.at(k)` for $n$ steps drawn from 1 to 1000.


# %%
def batches(mixture, n, schedule):
    """Fresh points of a mixture (n, *d), each with a random level of the table, without end."""
    while True:
        yield mixture.sample(n)[0].float(), random_steps(schedule, n)


# %%
def train(mixture, rates=(1e-2, 5e-3, 2e-3, 7e-4, 2e-4), steps=120):
    """An eps-network taught on a mixture in a few seconds, and its losses on the way."""
    net = networks.MLP(mixture.means.shape[1:], width=64, depth=2)
    denoiser, supply = Denoiser(net, target="eps"), batches(mixture, 512, DDPMSchedule())
    rounds = [fit(denoiser, loss, supply, steps, lr) for lr in rates]
    return denoiser, [progress.loss.item() for each in rounds for progress in each]


# %%
worlds = {"two bumps, 1D": bimodal, "three hills, 2D": three}
trained = {}
for name, mixture in worlds.items():
    trained[name], losses = train(mixture)
    print(f"{name}: loss {losses[0]:.1f} at first, {sum(losses[-100:]) / 100:.2f} at the end")

# %% [markdown]
# **Is 0.2 a good loss?** (T-26) Nobody can tell by looking at it: zero is out of reach. We ask the exact
# denoiser for *its* loss, on the same fresh points with the same noise.


# %%
@torch.no_grad()
def compare(denoiser, mixture, n=100_000):
    """On one fresh sample: loss of the denoiser, exact floor, distance of the two; (n,) each."""
    x0, t = next(batches(mixture, n, DDPMSchedule()))
    eps = torch.randn_like(x0)
    xt = add_noise(x0, eps, t)
    distance = (denoiser(xt, t).eps - mixture(xt, t).eps).square().mean(1)
    return *(loss(d, x0, t, eps=eps, target="eps") for d in (denoiser, mixture)), distance


# %% tags=["check", "L6-51", "L6-52", "E-12", "T-26"]
rows = []
for name, mixture in worlds.items():
    ours, floor, distance = compare(trained[name], mixture)
    excess = ours - floor
    error = 4 * (excess - distance).std().item() / len(excess) ** 0.5
    ratios = [f"{part.mean() / floor.mean():.1%}" for part in (excess, distance)]
    rows.append([name, 1.0, ours.mean().item(), floor.mean().item(), *ratios])
    assert abs((excess - distance).mean()) < error
    assert 0 < distance.mean() < 0.02 * floor.mean()
plots.table(
    rows,
    header=["data", "predicting 0", "network", "floor", "excess / floor", "distance / floor"],
    caption="mean squared error of the noise, over all levels",
)

# %% [markdown]
# So 0.23 and 0.21 are nearly perfect: within 2 % of the floor, measured in either way. The network has
# never met the density, and nobody has computed an integral for it (L6-52); it has seen pairs of points
# and noise, and the slopes came along.
#
# **But the box says score, not noise.** The score is $-\epsilon_\theta/\text{noise}$, so an error of
# $\epsilon_\theta$ is blown up by 1/noise. Level by level:


# %%
@torch.no_grad()
def score_errors(denoiser, mixture, ks, n=20_000):
    """At each step of ks: mean square of the score, of its error, and of the error of eps."""
    rows = []
    for t in map(DDPMSchedule().at, ks):
        x0 = mixture.sample(n)[0]
        xt = add_noise(x0, torch.randn_like(x0), t)
        exact = mixture(xt, t).eps
        error = (denoiser(xt.float(), t).eps - exact).square().mean()
        rows.append([exact.square().mean() / t.noise**2, error / t.noise**2, error])
    return torch.tensor(rows).T


# %% tags=["check", "L6-52"]
ks = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000]
errors = {name: score_errors(trained[name], mixture, ks) for name, mixture in worlds.items()}
for whole, of_score, _ in errors.values():
    assert (of_score < 0.1 * whole)[5:].all()  # from k = 50 on
    assert of_score[0] > whole[0]

# %%
labels = "exact score, mean square", "model, error of its score", "error of its noise"
fig, axes = plots.panels(2, size=(4.2, 3.0))
for ax, (name, values) in zip(axes, errors.items(), strict=True):
    curves = {label: (ks, y) for label, y in zip(labels, values, strict=True)}
    plots.lines(curves, log=True, ax=ax, xlabel=f"step k ({name})", ylabel="mean square")
plots.show(
    fig,
    alt="Two panels, log scales, step against mean square. Towards low k the exact score levels "
    "off at about 11. The error of the noise rises from below 0.001 at k = 1000 to about 0.04 at "
    "k = 1; that of the score from the same value to some 300, past the score itself near k = 10.",
    caption="A small error of the noise is a large one of the score where there is little noise.",
)

# %% [markdown]
# In the first steps the network is worse than one that predicts 0! There $L_{\text{simple}}$ gives errors
# of the score the least weight (section 5): a loss within 2 % of the floor does *not* mean a good score
# at every level. Here it does little harm to sampling, where each step multiplies by the noise again: the
# walks below start from the same twelve points of noise, and follow DDIM while the landscape changes
# under their feet.

# %% tags=["check", "L6-52"]
levels = grid(schedule, 100)
start = initial_noise((12, 2), levels[0], torch.Generator().manual_seed(5)).float()
walkers = {"exact": three, "model": trained["three hills, 2D"]}
walks = {
    role: torch.stack([state.x for state in ddim(denoiser, start, levels)])
    for role, denoiser in walkers.items()
}
apart = (walks["exact"][-1] - walks["model"][-1]).norm(dim=1)
hill = {role: torch.cdist(walk[-1].double(), three.means).argmin(1) for role, walk in walks.items()}
print(f"median distance between the ends of two walks: {apart.median():.2f} (a hill is 0.3 wide)")
print(f"walks that end on another hill: {(hill['exact'] != hill['model']).sum()} of 12")
assert apart.median() < 0.2

# %%
places, fine, t = square(13, 2.7).float(), square(81, 2.7), schedule.at(100)
density = three.log_prob(fine, schedule.at(0)).exp()
orange = plots.ROLE["highlight"]["color"]
fig, axes = plots.panels(2, size=(3.7, 3.6))
for (role, denoiser), ax in zip(walkers.items(), axes, strict=True):
    arrows = -denoiser(places, t).eps.detach()
    plots.field(places, arrows, contours=(fine, density), role=role, ax=ax)
    ax.plot(*walks[role].permute(2, 0, 1), color=orange, ls="-")
    ax.plot(*start.T, "o", color=orange)
    ax.set(xlim=(-2.9, 2.9), ylim=(-2.9, 2.9))
plots.show(
    fig,
    alt="Left the exact arrows, right those of the network: hard to tell apart. Twelve paths run "
    "from the same starts in both, almost all of them alike, and end on the three hills.",
    caption="Left: exact. Right: the network. Arrows: minus the predicted noise at k = 100, scaled "
    "in each picture. Rings: the density of the data. Dots: starts; near a watershed they may lead "
    "to different hills.",
)

# %% [markdown] tags=["exercise"]
# **Exercise 4.** A friend trains on `bimodal()` and reports a loss of 0.20, well below our floor of
# 0.23. Name three explanations. Which of them is a reason to celebrate?
#
# <details><summary>Answer</summary>
# Other levels, with more of the easy steps at high k; a sample that flatters, small or known by heart
# (next section); a bug that leaks the noise into the input. None: on average over fresh points and our
# levels, no function of (xt, t) gets below the floor.
# </details>

# %% [markdown] tags=["formula"]
# ## 7. Too exact: the denoiser that knows its data by heart
#
# **Story.** Back to the integral of section 3. A training set of $N$ images is a mixture of $N$
# components of width zero, and its best denoiser is a weighted mean of the images: the closer an image,
# shrunken by signal, is to $x_t$, the greater its weight.
#
# $$\begin{aligned}
# x_0^* &= \sum_i w_i\, x_0^{(i)}, &
# w_i &\propto \exp\Big(\!-\frac{\lVert x_t - \text{signal}\cdot x_0^{(i)}\rVert^2}
# {2\,\text{noise}^2}\Big), \\
# \epsilon^* &= \frac{x_t - \text{signal}\cdot x_0^*}{\text{noise}}, &
# \text{score} &= -\frac{\epsilon^*}{\text{noise}} .
# \end{aligned}$$
#
# No network, no training; nothing has a lower loss on this set. We let it draw 200 digits with DDIM.
# Predict: will any of them be new?

# %% tags=["L6-47", "E-10"]
digits, unseen = (data.digits(split)[0].double() for split in ("train", "test"))
ideal = mixtures.Mixture(digits)  # std = 0
noise = initial_noise((200, 1, 8, 8), levels[0], torch.Generator().manual_seed(0), torch.float64)
drawn = last(ddim(ideal, noise, levels))

# %% tags=["check", "L6-47"]
t, few = schedule.at(300), digits[:5]
xt = add_noise(few, torch.randn_like(few), t)
far = (xt[:, None] - t.signal * digits).flatten(2).square().sum(2)  # (5, N)
x0_best = torch.einsum("bi,i...->b...", (-far / (2 * t.noise**2)).softmax(1), digits)
eps_best = (xt - t.signal * x0_best) / t.noise
assert (x0_best - ideal(xt, t).x0).abs().max() < 1e-10
assert (eps_best - ideal(xt, t).eps).abs().max() < 1e-10


# %%
def nearest(x, images):
    """Distance of each x (B, 1, 8, 8) to the closest of the images, and which one it is."""
    return torch.cdist(x.flatten(1), images.flatten(1)).min(1)


# %% tags=["check", "L6-47", "E-10"]
distance, which = nearest(drawn, digits)
print(f"200 draws hit {len(which.unique())} different training digits, of {len(digits)}")
print(f"a drawn digit to the nearest training digit: at most 1e-6: {bool(distance.max() < 1e-6)}")
print(f"an unseen digit to it, median: {nearest(unseen, digits)[0].median():.2f}")
assert distance.max() < 1e-6
assert nearest(unseen, digits)[0].median() > 1

# %%
pairs = torch.cat([drawn[:12], digits[which[:12]]])
plots.show(
    plots.images(pairs, 12, rows=("drawn", "nearest"), scale=6),
    alt="Two rows of twelve handwritten digits; each drawn digit in the upper row is identical to "
    "the training digit below it.",
    caption="Twelve draws of the ideal denoiser, and the training digits closest to them.",
)

# %% [markdown]
# Every single one is a *copy*, to the last pixel. The samples look wonderful, and nothing in them is
# new. The score of the training set can be computed, and is not the one we want; that of the population
# we want, and nobody can compute it. The loss on unseen digits gives it away:

# %% tags=["check", "L6-52", "T-26"]
rows = []
for k in (50, 100, 300):
    t = schedule.at(k)
    values = (loss(ideal, images, t, target="eps").mean().item() for images in (digits, unseen))
    rows.append([k, *(round(value, 6) for value in values)])
    assert rows[-1][1] < rows[-1][2]
assert rows[0][1] == 0
assert rows[0][2] > 1
plots.table(
    rows,
    header=["k", "training digits", "unseen digits"],
    caption="mean squared error of the noise",
)

# %% [markdown]
# At $k = 50$ its loss on the training set is zero to six decimals, and on new digits it is worse than
# that of a model which always predicts 0: overfitting in its purest form.

# %% [markdown] tags=["L6-52"]
# A real network learns from just such a finite set, so the exact optimum of *its* loss is the copying
# machine, too. It draws new images only because architecture and training keep it from this optimum, in
# a way that happens to suit images; why is an open research question. With few images and long training
# it does copy (Kadkhodaie et al. 2024). So when you read that a network learns the marginal score, ask:
# *of what?* Of the training set, or of the population?

# %% [markdown] tags=["exercise"]
# **Exercise 5.** Smear the training set: `mixtures.Mixture(digits, 0.3)`. Draw again. Are these new digits?
#
# <details><summary>Answer</summary>
# No: each is a training digit plus Gaussian noise, about 0.3 · √64 = 2.4 away from it, further than an
# unseen digit is, and yet not a new one. Distance alone does not prove novelty. What generalises is
# smoothing *along* the digits, in the few directions in which digits vary (slant, width), not in all 64.
# </details>

# %% [markdown] tags=["T-10", "T-24"]
# ## 8. Bug museum
#
# Two mistakes that arrows hide. What an eye sees of them is their *direction*: here the mean cosine of their angle to the exact ones.
#
# **The gradient of the mean (T-10).** Differentiate the *mean* of `log_prob` over the batch, and all arrows point the right way but are too short, by a factor equal to the batch size.
# An arrow plot that chooses its own scale hides it.
#
# **A column that lies down (T-24).** With a level for each sample, `t.noise` has the shape (B,). Dividing a batch (B, D) by it is an error in most cases. But if B = D, torch divides the
# *columns*, without a word; and if D = 1, as in our worlds on the line, (B, 1) / (B,) becomes a table (B, B). With one level for all, as in a picture of arrows, nothing happens.
#
# **The unit checks.** *alone*: how long the score of the first of 64 points in 64 dimensions is, each point at a level of its own, compared with its length when it is asked alone. A score does not
# depend on the company it keeps. *size*: how many numbers are the scores of 64 points on the line?


# %% tags=["T-10", "T-24"]
def right(mixture, x, t):
    return -mixture(x, t).eps / t.like(x).noise


def of_mean(mixture, x, t):
    return autograd_score(lambda x: mixture.log_prob(x, t).mean(), x)


def lying_down(mixture, x, t):
    return -mixture(x, t).eps / t.noise


# %% tags=["T-10", "T-24"]
def direction(score, mixture, places, t):
    """The mean cosine of the angle between arrows and the exact ones."""
    return torch.cosine_similarity(score(mixture, places, t), mixture.score(places, t)).mean()


def alone(score, schedule, B=64):
    """Length of the first point's score in a batch, relative to that of the point alone."""
    world, k = mixtures.Mixture(torch.zeros(1, B).double(), 0.5), torch.linspace(1, 1000, B).long()
    x = torch.ones(B, B, dtype=torch.float64)
    together = score(world, x, schedule.at(k))
    return together[0].norm() / score(world, x[:1], schedule.at(k[:1])).norm()


# %% tags=["check", "T-10", "T-24"]
t, places, column = schedule.at(300), square(9, 2.7), torch.ones(64, 1, dtype=torch.float64)
levels = schedule.at(torch.linspace(1, 1000, 64).long())
exhibits = museum.inspect(
    {"right": right, "T-10: of the mean": of_mean, "T-24: lies down": lying_down},
    eye={"direction": Check(lambda score: direction(score, three, places, t), 1.0)},
    units={
        "alone": Check(lambda score: alone(score, schedule), 1.0),
        "size": Check(lambda score: score(bimodal, column, levels).numel(), 64),
    },
)
assert not any(exhibit.visible for exhibit in exhibits)

# %% tags=["T-10", "T-24"]
museum.show(
    exhibits,
    caption="Three ways to a score. Nobody sees the difference in their arrows.",
    draw=lambda one, ax: plots.field(places, one.version(three, places, t), ax=ax),
    alt="Three fields of arrows at k = 300, all alike, each pointing to the middle.",
)

# %% [markdown]
# ## What we learned
#
# - The score is the slope of the log-density; it needs no normalisation.
# - Given $x_0$ it is −ε / noise; without, the average of that over all origins.
# - Least squares finds averages, so regression onto noise finds the score, down to a floor that no
#   network can pass. Excess over the floor is distance from the truth.
# - The weight of the levels is a choice. Only the *optimal* predictor equals the score.
# - The exact score of a training set copies it. Not being exact is necessary for new images, not
#   sufficient (exercise 5).
#
# ## References
#
# - Hyvärinen 2005, *Estimation of non-normalized statistical models by score matching*, section 2.
# - Vincent 2011, *A connection between score matching and denoising autoencoders*, section 4 and appendix.
# - Song & Ermon 2019, *Generative modeling by estimating gradients of the data distribution*, sections 2
#   and 4.2, eq. 5 and 6 (their weight is noise², too).
# - Ho, Jain & Abbeel 2020, *Denoising diffusion probabilistic models*, sections 3.2 and 3.4, eq. 12 and 14.
# - Karras et al. 2022, *Elucidating the design space of diffusion-based generative models*, appendix B.3
#   (the ideal denoiser of a data set).
# - Kadkhodaie et al. 2024, *Generalization in diffusion models arises from geometry-adaptive harmonic
#   representations*, section 2.
#
# **Where next.** Lesson 07 walks up, level by level: DDPM, DDIM and their faster relatives.
