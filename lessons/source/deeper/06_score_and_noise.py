# %% [markdown]
# # 06 · Score and noise, deeper
#
# What [lesson 06](../06_score_and_noise.ipynb) leaves out: the derivations step by step, a check for each
# claim, slips on slides, and a bug museum. It is for readers who follow the lectures, and for those who want
# proofs. Run it from top to bottom; it takes 20 seconds.
#
# (L6-41) names a slide of the lectures, DS-25 one of another deck, E-09 a slip on a slide, and T-10 a mistake
# that many students make. The lectures' step $t$ is our $k$, and `t = schedule.at(k)` is its noise level:
# `t.signal` is $\sqrt{\bar\alpha_k}$, `t.noise` is $\sqrt{1-\bar\alpha_k}$, and `t.like(x)` is the same
# pair, shaped to multiply the samples of `x`. Every loss is a mean of squares over the $d$ numbers of a sample.

# %% tags=["setup"]
import math

import torch

from didiff import DDPMSchedule, Denoiser, add_noise, data, loss, mixtures, networks
from didiff.notebook import museum, plots
from didiff.notebook.museum import Check
from didiff.samplers import ddim, initial_noise, last
from didiff.schedules import grid
from didiff.training import fit, random_steps

torch.manual_seed(0)
torch.set_num_threads(1)  # the networks are small: two threads would wait for each other
plots.style()
schedule = DDPMSchedule()

# %% [markdown] tags=["formula"]
# ## 1. The slope of a landscape
#
# The score is $s(x, t) = \nabla_x \log p_t(x)$. Where the density can be written down, automatic
# differentiation finds it.


# %%
def autograd_score(log_prob, x):
    """grad_x log p at each point of x (B, d); log_prob: (B, d) -> (B,)."""
    x = x.detach().requires_grad_()
    total = log_prob(x).sum()  # each point occurs in one term: its gradient is that term's
    (gradient,) = torch.autograd.grad(total, x)
    return gradient


# %% [markdown]
# **Check** (L6-35). At $k = 100$ the density has three hills in the plane. We compare the gradient with
# difference quotients. Then we take a small step along the arrow from each of 1,000 places. How many of the
# steps lead upwards?

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
# **The normalising constant** (DS-25). A density seven times too large has the same score, because the
# constant $\log 7$ has gradient zero.


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
# **What the slider of the lesson shows.** Three hills become one, and at $k = 1000$ the typical length of
# the score is $\sqrt 2$, as for a standard normal density in the plane.


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


# %% tags=["check"]
places = square(81, 4.0)
for k, count in {100: 3, 300: 1, 1000: 1}.items():
    t = schedule.at(k)
    density = three.log_prob(places, t).exp()
    length = size(three.score(places, t), density).item()
    print(f"k = {k}: hills: {hills(density, 81)}, |score| {length:.2f}")
    assert hills(density, 81) == count
assert abs(length - 2**0.5) < 0.01

# %% [markdown] tags=["formula"]
# ## 2. Six steps to the score for a known clean point
#
# The lecture derives $\nabla\log p(x_t \mid x_0)$ in six steps. The density of the noisy versions of *one*
# image $x_0$ is a Gaussian. With $d$ numbers in $x$ and $v$ = `t.noise**2`,
#
# $$\log p(x_t \mid x_0) \;=\; -\tfrac d2 \log (2\pi v) \;-\; \frac{\lVert u\rVert^2}{2v},
# \qquad u = x_t - \text{signal}\cdot x_0 .$$


# %%
def conditional_log_prob(x, x0, t):
    """log p(xt = x | x0) for x, x0 (B, d): (B,)."""
    u, v = x - t.signal * x0, t.noise**2
    return -x.shape[1] / 2 * (2 * math.pi * v).log() - u.square().sum(1) / (2 * v)


# %% [markdown]
# **Steps 1 to 3** (L6-41). The first term does not depend on $x$. For the second we need
# $\nabla (u^\top u) = 2u$. The lecture takes it from a rule, $\nabla (x^\top A x) = 2Ax$. We try the rule
# with a random matrix.

# %% tags=["check", "L6-41"]
u, A = torch.randn(1000, 3, dtype=torch.float64), torch.randn(3, 3, dtype=torch.float64)
slope = autograd_score(lambda u: (u * (u @ A.T)).sum(1), u)
print(f"2Au differs from the gradient of u'Au by up to {(2 * u @ A.T - slope).abs().max():.2f}")
print(f"(A + A')u by less than 1e-12: {bool((u @ (A + A.T) - slope).abs().max() < 1e-12)}")
assert (u @ (A + A.T) - slope).abs().max() < 1e-12
assert (2 * u @ A.T - slope).abs().max() > 0.1
assert (autograd_score(lambda u: (u * u).sum(1), u) - 2 * u).abs().max() < 1e-12

# %% [markdown]
# The rule holds for symmetric $A$ only, and our $A$ is the identity.
#
# **Step 4** (L6-42). Together, the score for known $x_0$ points straight back to signal · $x_0$:
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
# **Step 5** (L6-43). From $x_0$ and $x_t$ the noise follows: $\epsilon = (x_t - \text{signal}\cdot
# x_0) / \text{noise}$. We go there and back in two precisions.

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
# Are the three equal? Decide before you run the cell.

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
# Lines (1) and (3) agree. Line (2) has a factor $1/\sqrt v$ too many (E-09). It is 100 at the first step and
# 1 at the last, where it does not show. What was meant is $-\frac{u}{\sqrt v}\cdot\frac{1}{\sqrt v}$. The
# start and the end of the derivation are right.
#
# **The length** (L6-45). The result is $\nabla \log p(x_t \mid x_0) = -\epsilon / \text{noise}$. A vector of
# $d$ standard normal numbers has length about $\sqrt d$. So this score has length about $\sqrt d /
# \text{noise}$, which grows without bound as the noise goes to 0. The marginal score need not (section 6).

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

# %% [markdown] tags=["formula"]
# ## 3. The average of the scores, by integration
#
# The lesson shows that the marginal score is the average of the scores for known $x_0$. The same lines hold
# for any hidden variable in place of $x_0$. For a mixture of Gaussians the lesson uses the number of the
# component, and so does the library. Here we do not use that formula: we sum over 4,001 values of $x_0$.

# %% [markdown]
# **Check** (L6-46, L6-47). The prior has two bumps, at −1 and +1, of standard deviation 0.3. At $k = 100$
# signal is 0.95 and noise 0.32. What are the scores at $x = 0$ for $x_0 = -1$, for $x_0 = +1$, and for unknown
# $x_0$?


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
assert (bimodal.score(x, t) - average).abs().max() < 1e-10
assert (bimodal.log_prob(x, t) - log_p).abs().max() < 1e-8

# %% tags=["check", "L6-46"]
left, right = (conditional_score(x, origin, t) for origin in (-1, 1))
low, high, both = (scores[100].item() for scores in (left, right, bimodal.score(x, t)))
print(f"from -1: {low:.3f}, from +1: {high:.3f}, marginal: {abs(both):.3f}")
assert abs(low + high) < 1e-10
assert abs(both) < 1e-10
assert left[-1] < right[-1] < bimodal.score(x, t)[-1]  # at x = 2 it is above both

# %% [markdown] tags=["L6-47", "E-10"]
# **A question** (E-10). The lecture calls the integral over $x_0$ intractable. We have just computed it.
# It is out of reach only where $p(x_0)$ is unknown: nobody has the density of all photographs. For a *training
# set* it is a finite sum, exact and cheap. Section 7 computes it, and shows that it is not the score we want.

# %% [markdown] tags=["formula"]
# ## 4. Denoising score matching
#
# The loss with the score for known $x_0$ as target (denoising score matching, DSM; Vincent 2011) differs from
# the loss with the marginal score as target (explicit score matching, ESM) by a constant. At a fixed level,
# on average over $x_0$ and $\epsilon$,
#
# $$\underbrace{\tfrac1d\,\mathbb E\lVert \nabla\log p(x_t|x_0) - s_\theta(x_t)\rVert^2}_{\text{DSM}}
# \;=\; \underbrace{\tfrac1d\,\mathbb E\lVert \nabla\log p_t(x_t) - s_\theta(x_t)\rVert^2}_{\text{ESM}}
# \;+\; C_t .$$
#
# *Proof.* Let $a = \nabla\log p(x_t|x_0) - \nabla\log p_t(x_t)$ and $b = \nabla\log p_t(x_t) -
# s_\theta(x_t)$. The left side is the mean square of $a + b$. Given $x_t$, $b$ is fixed and
# $\mathbb E[a \mid x_t] = 0$ by section 3. So the mixed term is zero, and $C_t = \tfrac1d\,\mathbb E\lVert
# a\rVert^2$ does not depend on $\theta$. $\square$
#
# **Check** (L6-48). Three models, $s = 0$, $-x/2$ and $-x$, at three levels. Is DSM − ESM the same number for
# all, up to sampling error?


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
    conditional, marginal = -eps / t.noise, bimodal.score(x, t)
    constant = (conditional - marginal) ** 2
    gaps = [gap(a, conditional, marginal, x) for a in (0, -0.5, -1)]
    errors = [4 * (each - constant).std().item() / n**0.5 for each in gaps]
    rows.append([k, *(each.mean().item() for each in (*gaps, constant)), f"{max(errors):.1g}"])
    for each, error in zip(gaps, errors, strict=True):
        assert (each - constant).mean().abs() < error
header = ["k", "s = 0", "s = -x/2", "s = -x", "C", "4 standard errors"]
plots.table(rows, header=header, caption="DSM - ESM, and C")

# %% [markdown]
# So both losses have the same gradient and the same minimiser. The loss does not go to zero: even a perfect
# network stays at $C_t$, because $x_0$ cannot be read off from $x_t$.
#
# **The same for noise** (L6-51). Multiply by −noise. The target becomes $\epsilon$, and the best answer is
# $\mathbb E[\epsilon \mid x_t] = -\text{noise}\cdot\nabla\log p_t(x_t)$. We cut 200,000 pairs
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
exact = -t.noise * bimodal.score(x, t)
_, off, error = binned(x[:, 0], (eps - exact)[:, 0])
print(f"largest deviation in 24 bins: {(off / error).abs().max():.1f} standard errors")
assert (off / error).abs().max() < 4

# %% [markdown] tags=["exercise"]
# **Exercise 1.** For a single Gaussian, $x_0 \sim N(m, s^2)$ on the line, find $C_t$ in closed form.
#
# <details><summary>Hint and answer</summary>
# The conditional score has mean square 1/noise². The marginal one is −(x − signal·m)/V with
# V = signal² s² + noise², so its mean square is 1/V, and so is its mixed term with the conditional one
# (section 3). Hence C = 1/noise² − 1/V: infinite near the data, zero at pure noise.
# </details>

# %% [markdown] tags=["formula"]
# ## 5. The weight that DDPM drops
#
# Write the model of the score as $s_\theta = -\epsilon_\theta / \text{noise}$. Both sides of the loss carry
# the same factor:
#
# $$\tfrac1d\lVert \nabla\log p(x_t|x_0) - s_\theta \rVert^2 \;=\;
# \frac{1}{\text{noise}^2}\, \tfrac1d\lVert \epsilon - \epsilon_\theta \rVert^2 .$$
#
# Without the factor this is the simple loss of lesson 05. There it came from the likelihood. Here it comes from
# the score.
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
# **A question** (L6-50). The lecture drops the factor, "a constant", and arrives at "exactly" the loss of
# DDPM. Is $1/\text{noise}^2$ a constant? In DDPM each sample draws its own step. So the loss is an average over
# steps too, which the slide leaves out. What share of the total weight do the first ten of the thousand steps
# hold?
#
# Does it matter? We take a model with one parameter, $\epsilon_\theta = a\,x_t$, and data $N(0, s^2)$. Here
# $\mathbb E[\epsilon\, x_t] = \text{noise}$ and $\mathbb E[x_t^2] = V = (\text{signal}\cdot s)^2 +
# \text{noise}^2$. The weighted loss $\sum_k w_k\, \mathbb E(\epsilon - a\,x_t)^2$ has derivative zero at
#
# $$a = \frac{\sum_k w_k\, \text{noise}_k}{\sum_k w_k V_k} .$$
#
# We try three weights $w_k$:
#
# | weight | where it comes from |
# |---|---|
# | $1$ | the simple loss |
# | $1/\text{noise}^2$ | the score, as derived above |
# | $\beta / (2\alpha\,\text{noise}^2)$, $\alpha = 1 - \beta$ | the bound on the likelihood, lesson 05, section 4, with $\sigma^2 = \beta$ |


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
# At a fixed level the factor is a constant. From the first step to the last it falls from 10,000 to 1
# (E-11). Under $1/\text{noise}^2$ the best $a$ is smaller by factors of 4.1 and 25, under the bound by 1.1 and
# 1.8.
#
# Weights in the loss change the minimiser only if the network must compromise between levels. A network that is
# exact at every level minimises every weighted sum. $L_{\text{simple}}$ is denoising score matching with the weight
# noise². That weight was not derived. Ho et al. (2020, section 3.4) chose it, for better pictures.

# %% [markdown] tags=["formula"]
# ## 6. How far is a trained network from the score?
#
# The lecture ends with a framed equation: $\nabla\log p(x_t) = -\epsilon_\theta / \sqrt{1-\bar\alpha_t}$
# (L6-51). It holds for the minimiser $\epsilon^*(x_t) = \mathbb E[\epsilon \mid x_t]$ and for no other
# function (E-12). For all others the excess of the loss over its floor is the distance from $\epsilon^*$:
#
# $$\tfrac1d\,\mathbb E\lVert \epsilon - \epsilon_\theta\rVert^2 \;-\; \tfrac1d\,\mathbb E\lVert \epsilon -
# \epsilon^*\rVert^2 \;=\; \tfrac1d\,\mathbb E\lVert \epsilon_\theta - \epsilon^* \rVert^2 .$$
#
# The mixed term is zero, as in section 4. We train on two worlds with the library's `fit`, in rounds with
# smaller and smaller learning rates. After each step it yields the step, the loss of the batch, the model and an
# average of the model. `random_steps(schedule, n)` is `schedule.at(k)` for $n$ random steps from 1 to 1000.


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
# **Is 0.2 a good loss?** (T-26) The floor tells. We ask the exact denoiser for *its* loss, on the same
# fresh points with the same noise.


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
# So 0.23 and 0.21 are nearly perfect: they are within 2 % of the floor. The network has never met the
# density, and nobody has computed an integral for it (L6-52).
#
# **From noise to score.** The score is $-\epsilon_\theta/\text{noise}$, so an error of $\epsilon_\theta$ is
# multiplied by 1/noise. Level by level:


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
# In the first steps the score of the network is worse than zero would be. There $L_{\text{simple}}$ gives errors
# of the score the least weight (section 5). A loss within 2 % of the floor does *not* mean a good score at
# every level. Sampling suffers little, because each step multiplies the score by the noise again. The walks
# below start from the same twelve points of noise and follow DDIM.

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

# %% [markdown] tags=["exercise"]
# **Exercise 2.** A friend trains on `bimodal()` and reports a loss of 0.20, well below our floor of
# 0.23. Name three explanations. Which of them is a reason to celebrate?
#
# <details><summary>Answer</summary>
# Other levels, with more of the easy steps at high k; a sample that flatters, small or known by heart
# (next section); a bug that leaks the noise into the input. None: on average over fresh points and our
# levels, no function of (xt, t) gets below the floor.
# </details>

# %% [markdown] tags=["formula"]
# ## 7. The exact score of a training set
#
# A training set of $N$ images is a mixture of $N$ components of width zero. Its best denoiser is a weighted mean
# of the images:
#
# $$\begin{aligned}
# x_0^* &= \sum_i w_i\, x_0^{(i)}, &
# w_i &\propto \exp\Big(\!-\frac{\lVert x_t - \text{signal}\cdot x_0^{(i)}\rVert^2}
# {2\,\text{noise}^2}\Big), \\
# \epsilon^* &= \frac{x_t - \text{signal}\cdot x_0^*}{\text{noise}}, &
# \text{score} &= -\frac{\epsilon^*}{\text{noise}} .
# \end{aligned}$$
#
# No function has a lower loss on this set. The lesson draws from 60 digits. Here the set is a real one, the
# small scanned digits of scikit-learn, and we draw 200 with DDIM.

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
# Every one is a copy, to the last pixel. The best denoiser of the training set has a formula, and a sampler that
# uses it copies training pictures. We want the best denoiser of the population. Nobody can compute it, because
# $p(x_0)$ is unknown. The loss on unseen digits shows the difference:

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
# At $k = 50$ its loss on the training set is zero to six decimals. On new digits it is worse than that of a model
# that always answers 0. This is overfitting in its purest form.

# %% [markdown] tags=["exercise"]
# **Exercise 3** (hard). Give each component of the training set a width, `mixtures.Mixture(digits, 0.3)`. Draw
# 200 from it as above, and measure their distance to the nearest training digit. Are these new digits?
#
# <details><summary>Answer</summary>
# No. Their median distance is 2.3, a little more than the 2.2 of unseen digits. But each is a training digit plus
# Gaussian noise in all 64 directions, of length about 0.3 · √64 = 2.4. Distance alone does not prove novelty. A
# good model smooths along the few directions in which digits vary, such as slant and width.
# </details>

# %% [markdown] tags=["L6-52"]
# A real network learns from such a finite set too, so the exact minimum of *its* loss is the denoiser that
# copies. A network that draws new images has not reached this minimum. In experiments this depends on
# architecture, training and the amount of data, and why it suits images is an open research question. With few
# images and long training networks do copy ([Kadkhodaie et al. 2024](https://arxiv.org/abs/2310.02557)). So when you read that a network learns the
# marginal score, ask whether that of the training set or that of the population is meant.

# %% [markdown] tags=["T-10", "T-24"]
# ## 8. Bug museum
#
# Two mistakes that a picture of arrows hides. An eye sees the *direction* of arrows: here the mean cosine of
# their angle to the exact ones.
#
# **The gradient of the mean (T-10).** Differentiate the *mean* of `log_prob` over the batch instead of the sum.
# All arrows point the right way, and all are too short, by a factor equal to the batch size. An arrow plot that
# chooses its own scale hides it.
#
# **A factor per sample that multiplies columns (T-24).** With a level for each sample, `t.noise` has the shape
# (B,). Dividing a batch (B, D) by it is an error in most cases. But if B = D, torch divides the *columns*
# without a word. And if D = 1, as for points on the line, (B, 1) / (B,) becomes a table (B, B). With one level
# for all nothing happens.
#
# **The unit checks.** *alone*: 64 points in 64 dimensions, each at a level of its own. How long is the score of
# the first, compared with its length when it is asked alone? It must not depend on the others. *size*: how many
# numbers are the scores of 64 points on the line?


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
# **Back** to [lesson 06](../06_score_and_noise.ipynb), or on to [lesson 07](../07_samplers.ipynb).
#
# - Vincent 2011, [A connection between score matching and denoising autoencoders](https://doi.org/10.1162/NECO_a_00142), section 4 and appendix.
# - Song & Ermon 2019, [Generative modeling by estimating gradients of the data distribution](https://arxiv.org/abs/1907.05600), eq. 5 and 6; their weight is noise², too.
# - Ho, Jain & Abbeel 2020, [Denoising diffusion probabilistic models](https://arxiv.org/abs/2006.11239), sections 3.2 and 3.4, eq. 12 and 14.
# - Karras et al. 2022, [Elucidating the design space of diffusion-based generative models](https://arxiv.org/abs/2206.00364), appendix B.3.
