# %% [markdown]
# # 10 · Classifier guidance, deeper
#
# What [lesson 10](../10_classifier_guidance.ipynb) leaves out: a check for each claim, other recipes, slips on
# slides, and a bug museum. It is for those who come with the lectures, and for those who do not believe. It
# runs from top to bottom in 45 seconds.
#
# (L6-54) names a slide of lecture 6; L19 and DS are two other decks; E-13 is a slip on a slide, T-08 a mistake
# that many students make. A level `t` is named by its step $k$ of $T = 1000$, or by its clock $u = k/T$, from
# 0 (data) to 1. A noisy point is $x_t = \text{signal}\cdot x_0 + \text{noise}\cdot\epsilon$, and the best guess
# at its noise is the score in other units, $\epsilon(x_t) = -\text{noise}\cdot\nabla\log p(x_t)$.

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
from didiff.process import add_noise, from_eps
from didiff.samplers import ddim, ddpm, initial_noise, last
from didiff.schedules import DDPMSchedule, cosine, grid
from didiff.training import metrics

torch.manual_seed(0)
cores = torch.get_num_threads()
torch.set_num_threads(1)  # what comes first is small: a second thread only waits
plots.style()

# %% [markdown]
# A mixture of Gaussians is known exactly, and it plays three parts:
#
# | code | meaning |
# |---|---|
# | `mixture(x, t)` | the model: it is told no label and guesses `.x0` and `.eps` |
# | `mixture.class_log_prob(x, t)` | the exact classifier: $\log p(y\mid x_t)$ of every class $y$ |
# | `mixture(x, t, y)` | the model that is told the label: what guidance at ω = 1 must equal |


# %%
schedule = DDPMSchedule()  # T = 1000, linear betas: the table of the lectures
clean = schedule.at(0)  # signal 1, noise 0
line = mixtures.two_classes()  # on the line: class 0 is N(-1, 1), class 1 is N(+1, 1)
ring = mixtures.ring()  # in the plane: eight bumps on a circle, labels 0 and 1 in turn
axis = torch.linspace(-6, 6, 401, dtype=torch.float64)[:, None]


def seeded(seed):
    return torch.Generator().manual_seed(seed)


# %% [markdown] tags=["L6-33", "formula"]
# ## 1. Bayes' rule, step by step
#
# Bayes' rule holds at every noise level by itself (L6-33):
#
# $$p(x_t\mid y)=\frac{p(x_t)\;p(y\mid x_t)}{p(y)} .$$
#
# On the line the classifier can be written down. At level $t$ the two classes are $N(\pm\text{signal},1)$, since
# $\text{signal}^2\cdot1+\text{noise}^2=1$. Their ratio at $x$ is $e^{2\,\text{signal}\,x}$. With equal shares,
#
# $$p(y{=}1\mid x_t=x)=\frac{1}{1+e^{-2\,\text{signal}\,x}} .$$


# %% tags=["L6-33", "formula"]
def read(x, t):
    """p(y = 1 | xt = x) on the line."""
    return torch.sigmoid(2 * t.signal * x)


# %% [markdown]
# **Check.** Model times classifier, over $p(y)=\tfrac12$, against the density of class 1. Their distance is the
# *total variation*: half the integral of the absolute difference (0 equal, 1 disjoint).

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
# **As an average.** Given $x_0$, the label $y$ and the noisy $x_t$ are independent. So $p(y\mid x_t)$ is the average
# of $p(y\mid x_0)$ over all clean $x_0$ that may lie under $x_t$:
# $p(y\mid x_t)=\mathbb E[\,p(y\mid x_0)\mid x_t\,]$. We compute this average as a sum over a fine grid of clean points.


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

# %% [markdown] tags=["L6-34", "DS-62", "formula"]
# **From densities to gradients (L6-34, DS-62).** Take logarithms, then gradients with respect to the noisy $x_t$:
#
# $$\begin{aligned}
# \log p(x_t\mid y)&=\log p(x_t)+\log p(y\mid x_t)-\log p(y)\\
# \nabla\log p(x_t\mid y)&=\nabla\log p(x_t)+\nabla\log p(y\mid x_t)-0
# \end{aligned}$$
#
# The term $\log p(y)$ is one number for all $x_t$. It changes the heights and no gradient. To see it we need classes
# of unequal shares: a ring on which class 1 has three quarters.


# %% tags=["L6-34", "DS-62"]
def gradient(log_prob, x, t):
    """The gradient of log_prob (x (B, *d), t) -> (B,) at each point, by itself."""
    leaf = x.detach().requires_grad_()
    return torch.autograd.grad(log_prob(leaf, t).sum(), leaf)[0]


# %% tags=["L6-34", "DS-62"]
uneven = mixtures.Mixture(ring.means, 0.25, weights=[1.0, 3.0] * 4, labels=ring.labels)
heights = {
    "log p(x)": uneven.log_prob,
    "log p(y | x)": guidance.log_prob_of(uneven, 1),
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
print(f"gradients at that point: {a[0]:.4f} + ({b[0]:.4f}) = {a[0] + b[0]:.4f}", end=", ")
print(f"and log p(x | y) has {c[0]:.4f}")
assert (a + b - c).abs().max() < 1e-10

# %% [markdown] tags=["L6-34", "DS-62"]
# **A rare class** (exercise 1 of the lesson). One point in a thousand belongs to class 1. The gradients still sum to
# the score of class 1, so every guided sample belongs to it. At pure noise the classifier is nearly constant, and its
# gradient nearly zero. (Step 1000 keeps a trace of signal.)

# %% tags=["L6-34", "DS-62", "check"]
rare = mixtures.Mixture(line.means, 1.0, weights=[999.0, 1.0], labels=[0, 1])
points, is_cat = torch.tensor([[-1.0], [0.0], [1.0]]).double(), guidance.log_prob_of(rare, 1)
for k in (300, 1000):
    t = schedule.at(k)
    push, p = gradient(is_cat, points, t), is_cat(points, t).exp()
    print(f"k = {k:4}: p(cat) {p.min():.4f} to {p.max():.4f}, largest gradient {push.max():.3f}")
    assert (rare.score(points, t) + push - rare.score(points, t, 1)).abs().max() < 1e-10
assert push.max() < 0.02

# %% [markdown] tags=["L6-53", "L6-54", "formula"]
# ## 2. Guided noise
#
# Multiply $\nabla\log p(x_t\mid y)=\nabla\log p(x_t)+\nabla\log p(y\mid x_t)$ by $-\text{noise}$ (L6-53), then put a number
# ω in front of the classifier (L6-54):
#
# $$\epsilon(x_t\mid y)=\epsilon(x_t)-\text{noise}\,\nabla\log p(y\mid x_t)
# \qquad\leadsto\qquad
# \tilde\epsilon=\epsilon(x_t)-\omega\,\text{noise}\,\nabla\log p(y\mid x_t)$$
#
# The lesson writes this out; here we use the library's `guidance.classifier(denoiser, log_prob, omega)`.
# `guidance.log_prob_of(model, y)` picks the column $y$ of `class_log_prob`.
#
# **Check.** At ω = 1 guided noise equals that of the model that is told the label, in ε and in $x_0$, to rounding. The
# last column reaches ω = 3 without a classifier, from two answers of a model that knows labels,
# $\epsilon(x_t)+\omega\,\big(\epsilon(x_t\mid y)-\epsilon(x_t)\big)$. That is the other *family* of guidance (L19-06), the
# topic of [lesson 11](../11_classifier_free_guidance.ipynb).

# %% tags=["L6-53", "L19-06", "check"]
y, rows = torch.arange(1000) % 2, []
says_y = guidance.log_prob_of(ring, y)
for k in (1, 100, 400, 900):
    t = schedule.at(k)
    guided, told = guidance.classifier(ring, says_y, 1.0)(x, t), ring(x, t, y)
    firm = guidance.classifier(ring, says_y, 3.0)
    itself = guidance.classifier_free(ring, y, 3.0)
    gaps = (guided.eps - told.eps, guided.x0 - told.x0, firm(x, t).eps - itself(x, t).eps)
    worst = [gap.abs().max().item() for gap in gaps]
    pair = (f"{guess.eps[0, 0]:.6f}" for guess in (guided, told))
    rows.append([k, *pair, *(f"{w:.8f}" for w in worst)])
    assert max(worst) < 1e-9

# %% tags=["L6-53", "L19-06"]
header = ["k", "ε guided, ω = 1", "ε told", "largest gap in ε", "in x₀", "two families, ω = 3"]
plots.table(rows, header=header, caption="One point of the ring, and the largest gaps of 1,000")

# %% [markdown] tags=["L6-55"]
# **Why a minus? (L6-55)** Noise points away from the data. Subtract the gradient $g$ from the noise, and the guess of
# the clean point moves up the gradient. In $x_0=(x_t-\text{noise}\,\epsilon)/\text{signal}$ two minus signs meet:
# $\tilde x_0-x_0=+\,\omega\,\frac{\text{noise}^2}{\text{signal}}\,g$.

# %% tags=["L6-55", "check"]
t = schedule.at(400)
g = gradient(says_y, x, t)
moved = guidance.classifier(ring, says_y, 2.0)(x, t).x0 - ring(x, t).x0
formula = 2 * t.noise**2 / t.signal * g
print(f"x0 of a point moves by {moved[0, 0]:.6f}, by the formula {formula[0, 0]:.6f}")
print(f"up the classifier's gradient: {((moved * g).sum(1) > 0).double().mean():.0%} of the points")
assert (moved - formula).abs().max() < 1e-10
assert ((moved * g).sum(1) > 0).all()

# %% [markdown] tags=["L6-54", "E-13"]
# **Which ω?** The slide has an ω in the guided noise; the three lines of derivation above it have none (L6-54). Does
# Bayes' rule ask for one, and for the same at every level? We fit it by least squares over 1,000 points: the ω that
# brings $\tilde\epsilon$ closest to the noise of the model that is told the label.

# %% tags=["L6-54", "E-13", "check"]
for k in (10, 400, 900):
    t = schedule.at(k)
    push = -t.noise * gradient(says_y, x, t)
    wanted = ring(x, t, y).eps - ring(x, t).eps
    best = ((push * wanted).sum() / push.square().sum()).item()
    print(f"k = {k:3}: the best ω is {best:.8f}")
    assert abs(best - 1) < 1e-9

# %% tags=["L6-54", "E-13", "check"]
by_noise = -guidance.classifier(ring, says_y, 4.0)(x, t).eps / t.noise
by_slope = gradient(lambda x, t: ring.log_prob(x, t) + 4 * says_y(x, t), x, t)
print(f"ω = 4, k = {k}: guided score {by_noise[0, 0]:.6f}, ", end="")
print(f"gradient of log p(x) + 4 log p(y | x) {by_slope[0, 0]:.6f}")
assert (by_noise - by_slope).abs().max() < 1e-10

# %% [markdown] tags=["L6-54", "E-13"]
# **Put right (E-13).** The derivation gives ω = 1 and no other, for an exact model and an exact classifier. Any other
# value is put in by hand. At each level it replaces $p(y\mid x_t)$ by $p(y\mid x_t)^\omega$, as if ω independent
# classifiers agreed. To sharpen at each level is not the same as to sharpen the data once: section 3 measures what comes
# out, and lesson 11 explains it.
#
# **What the arrows of the lesson show.** The mean length of the noise and of what the classifier adds at ω = 1, on a
# square of 81 places. At $k = 900$ the classifier gives every point nearly the same probabilities, so its gradient is
# nearly zero. (In the middle of a wrong bump the gradient is short too: both neighbours pull equally.)

# %% tags=["L6-54", "check"]
side = torch.linspace(-3, 3, 9, dtype=torch.float64)
places, says_one = torch.cartesian_prod(side, side), guidance.log_prob_of(ring, 1)
for k in (200, 900):
    t = schedule.at(k)
    added = (t.noise * gradient(says_one, places, t)).norm(dim=1).mean()
    print(f"k = {k}: model {ring(places, t).eps.norm(dim=1).mean():.2f}, classifier {added:.4f}")
assert added < 0.01

# %% [markdown] tags=["L6-32", "L6-56", "formula"]
# ## 3. Walking with a classifier
#
# The lecture's algorithm asks both at every step (L6-56): the model for the noise, the classifier for its gradient. It
# joins the two and makes the DDIM step of lesson 07. Nothing is trained (L6-32).
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
start = initial_noise((1000, 2), levels[0], seeded(0), torch.float64)
ours = walk(ring, says_one, 1.0, start, levels)
library = last(ddim(guidance.classifier(ring, says_one, 1.0), start, levels))
print(f"the first point ends at {ours[0, 0]:.6f}, that of the library at {library[0, 0]:.6f}")
assert (ours - library).abs().max() < 1e-9

# %% [markdown] tags=["L6-32"]
# **Check.** Do the samples have the law of class 1, although the model never saw a label? The share of class 1 is one
# number. The *energy distance* of lesson 07 compares the whole law with fresh data of class 1. Twenty more fresh samples
# tell how large it is by chance. (The bound of ten standard deviations: the estimate is a weighted sum of squared normal
# variables, less its mean. Its tail is longest if one square has all the weight. Then it exceeds ten standard deviations
# once in 10,000 times.)

# %% tags=["L6-32", "check"]
fresh, found = ring.sample(4000, 1, seeded(1))[0], {}
others = (ring.sample(1000, 1, seeded(seed))[0] for seed in range(2, 22))
chance = torch.tensor([metrics.energy_distance(other, fresh) for other in others]).std()
for omega in (0.0, 1.0):
    end = walk(ring, says_one, omega, start, levels)
    share, far = says_one(end, clean).exp().mean().item(), metrics.energy_distance(end, fresh)
    found[omega] = share, far
    print(f"ω = {omega:g}: class 1 {share:.1%}, distance {far:z.3f} (chance: ± {chance:.3f})")
assert found[1.0][0] > 0.98
assert found[1.0][1] < 10 * chance < found[0.0][1]  # chance goes so far once in 10,000 times

# %% [markdown] tags=["L6-59", "L6-60", "L19-11"]
# **What does the scale do?** The slides say: ω = 1 is Bayes, practice takes 2 to 10 (L6-60); a small ω gives diversity
# and little obedience, a large one the reverse (L6-59); the larger it is, the more *typical*, *faithful* and the less
# *diverse* are the samples (L19-11). On the line each of these words is a number. *Faithful*: the mean probability of
# class 1. *Diverse*: the standard deviation. *Typical*: the mean of $\log p(x_0\mid y{=}1)$ in nats. Samples of class 1
# itself, $N(1,1)$, have −1.42. A larger number would mean that they crowd at its peak.
#
# The last two columns show the data sharpened once, $p(x_0)\,p(y{=}1\mid x_0)^\omega$.


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
# **Put right.** More faithful and less diverse: yes, all the way. More *typical*: no. At ω = 2 the samples are about as
# typical as class 1 itself, then ever less. At ω = 8 they crowd above 3, where class 1 has hardly any data. Above ω = 1
# DDIM and DDPM no longer agree, and neither gives the data sharpened once (E-13). "2 to 10" is a custom of practice, and
# section 8 has a hypothesis about it.

# %% [markdown] tags=["exercise"]
# **Exercise.** (a) A friend pushes *away from class 0*: he uses $\log p(y{=}0\mid x_t)$ with ω = −1. On the line, is the
# result class 1? (b) Another friend calls the classifier twice in each step and adds both gradients, ω = 1 each. Which
# single ω is that?
#
# <details><summary>Answer</summary>
#
# (a) No. The gradient of $\log p(1\mid x)$ is $2\,\text{signal}\;p(0\mid x)$: long where the point is still in class 0. Minus
# the gradient of $\log p(0\mid x)$ is $2\,\text{signal}\;p(1\mid x)$: long where it is in class 1 already. Both push to the
# right, the second one in the wrong places. (b) ω = 2: one opinion counted twice.
# </details>

# %% tags=["solution", "check"]
away = on_the_line(guidance.classifier(line, guidance.log_prob_of(line, 0), -1.0))
print(f"away from class 0: mean {away.mean():.2f}, std {away.std():.2f}; class 1 has 1 and 1")
assert away.std() > 1.3
twice = on_the_line(guidance.classifier(line, lambda x, t: 2 * says_plus(x, t), 1.0))
print(f"one classifier twice: mean {twice.mean():.4f}; ω = 2 gave {ends[2.0][0].mean():.4f}")
assert (twice - ends[2.0][0]).abs().max() < 1e-9

# %% [markdown] tags=["L19-08", "E-21", "formula"]
# ## 4. Push the mean, or push the noise?
#
# Another deck tells it with a picture (L19-08). The model proposes the next, slightly cleaner picture $x_{t-1}$. The
# classifier looks *at the proposal*, finds it "20 % seven", and knows *the exact direction* in which it becomes 100 %.
# But the formula beside the picture takes the gradient at $x_t$.
#
# **Two questions.** Does it matter where the gradient is taken? And does it lead to 100 %? For the first, DDPM proposes
# the mean of its step (lesson 04),
#
# $$\mu=\frac{1}{\sqrt{1-\beta_t}}\Big(x_t-\frac{\beta_t}{\text{noise}_t}\,\epsilon(x_t)\Big),\qquad \beta_t=1-\frac{\bar\alpha_t}{\bar\alpha_s}$$
#
# for a step from $t$ to $s$. We compare the gradients at $x_t$ and at $\mu$, for steps of several sizes.


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
    print(f"{steps:4} steps, β = {beta:.4f}: the two gradients differ by {off:.1%}")
assert all(0.4 < ratio < 1.1 for ratio in ratios)  # the difference shrinks as β does

# %% [markdown] tags=["L19-08", "E-21"]
# With small steps it hardly matters. With large steps it does, and below we see which of the two is better. For the
# second question we collect places on the ring of which the classifier says about 20 % (at $k=100$, where it is nearly
# sure on a bump of class 1), and walk *straight along its gradient*. Does every walk reach 99 %? Where do the walks end?


# %% tags=["L19-08", "E-21"]
def straight_walk(log_prob, x, t, lengths):
    """p(y | x) along the gradient at x (B, d), after each of these lengths: (lengths, B)."""
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
print(f"on a bump of class 1 the classifier is {hill[0]:.1%} sure")
print(f"a first step of 0.02 makes it surer at {helped:.0%} of {len(doubtful)} places")
print(f"{certain:.0%} of the walks come past a place of which it is 99 % sure", end="; ")
print(f"after a length of 4 it is {along[-1].median():.2%} sure (median)")
assert hill.min() > 0.99
assert helped == 1
assert 0.5 < certain < 0.95
assert along[-1].median() < 0.01

# %% [markdown] tags=["L19-08", "E-21"]
# **Put right (E-21).** The gradient is the direction in which $\log p(y\mid x)$ grows fastest *here*, and no more. Every
# place gains by a small step. Most walks pass a place of 99 %, though not all. Those that walk on mostly end among the
# other class. So one computes the gradient anew at every step.

# %% [markdown] tags=["L19-09", "L19-10", "DS-61", "formula"]
# **Two recipes.** The same deck, and another (L19-09, DS-61), leave the noise alone and change the law of the step. They
# shift the mean of DDPM's Gaussian by $\omega\,\sigma_t^2\,g$, where $\sigma_t^2$ is the *variance* of that step. This is
# Bayes' rule for one step. Given $x_s$, the label and $x_t$ are independent, so
# $p(x_s\mid x_t,y)\propto p(x_s\mid x_t)\,p(y\mid x_s)$. Expand $\log p(y\mid x_s)$ to first order around the proposal μ, and
# complete the square:
#
# $$-\frac{|x_s-\mu|^2}{2\sigma_t^2}+\omega\,g\cdot(x_s-\mu)=-\frac{|x_s-\hat\mu|^2}{2\sigma_t^2}+\text{const},$$
#
# $$\hat\mu=\mu+\omega\,\sigma_t^2\,g,\qquad g=\nabla\log p(y\mid x_s)\big|_{x_s=\mu} .$$
#
# So here the picture is right: the gradient is taken at the proposal. Slides and the paper's algorithm take it at $x_t$.
# Lecture 6 changes the noise and leaves the step alone. **Are the two the same?** With one $g$, at $x_t$, put
# $\tilde\epsilon=\epsilon-\omega\,\text{noise}\,g$ into μ, and it moves by
#
# $$\omega\,\frac{\beta_t}{\sqrt{1-\beta_t}}\,g ,$$
#
# so with $\sigma_t^2=\beta_t$ the two differ by a factor $\sqrt{1-\beta_t}$, nearly 1. What is the factor for the smaller
# variance of lesson 04, $\tilde\beta_t=\beta_t\,(\text{noise}_s/\text{noise}_t)^2$, at the last step, $k=1$? And for a DDIM
# step, which has no variance at all? By the formula of section 3 it moves by
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
# **Put right (E-22).** Within DDPM, and with $\sigma_t^2=\beta_t$, the recipes agree to first order in β. With
# $\tilde\beta_t$ the last steps are guided too little, and the very last not at all. With 1000 steps this does no harm: its
# whole push is a ten-thousandth of $g$. A DDIM step that is short against the noise moves *half* as far, for the same law:
# the reversed SDE of lesson 02 carries the score with the square of its diffusion coefficient, the noise-free flow of
# lesson 07 with half of that.
#
# **With few steps they do not agree.** By how much we compute without chance: the law of a whole walk on the line, a
# density on the grid that every step moves and smears with its Gaussian (as in lesson 04). It starts as $N(0,1)$ and should
# end as class 1. We stop at $u=k/T=0.01$, where class 1 is still $N(\text{signal},1)$, so that every step has a width. (The
# rows without guidance are held against the law of both classes together. They tell what the steps cost by themselves.)


# %% tags=["L19-10", "E-22"]
GUIDED_NOISE = guidance.classifier(line, says_plus, 1.0)
FORMS = {  # (t, s, small) -> the mean of a step from every place of the grid
    "no guidance": lambda t, s, small: ddpm_mean(axis, line(axis, t).eps, t, s)[0],
    "noise": lambda t, s, small: ddpm_mean(axis, GUIDED_NOISE(axis, t).eps, t, s)[0],
    "mean, gradient at xₜ": lambda t, s, small: shifted_mean(axis, t, s, small)[0],
    "mean, gradient at μ": lambda t, s, small: shifted_mean(axis, t, s, small, ahead=True)[0],
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
at_xt, at_mu = misses["mean, gradient at xₜ; σ² = β"], misses["mean, gradient at μ; σ² = β"]
assert all(a > 3 * b for a, b in zip(at_xt, at_mu, strict=True))
narrow = [values[1] for name, values in misses.items() if name.endswith("β̃")]
assert max(narrow) < 1.5 * narrow[0]  # most of it is there without guidance

# %% [markdown] tags=["L19-10", "E-22"]
# Guided noise with β is exact here, because the classes are Gaussians of standard deviation 1: for those DDPM's step with
# β *is* the way back, whatever its size. With twice the steps the error of all other recipes halves. In the β̃ rows most of
# the error comes from the narrower variance: the row without guidance lies among them. In the β rows a mean shifted by the
# gradient at the proposal is several times better than one shifted by the gradient at $x_t$ (E-21). So take the gradient at
# $x_t$ for guided *noise*, and at μ for a shifted *mean*.
#
# **A trap.** Take the mean shift of one deck and the DDIM step of the other. What is the mean of the samples? (Class 1
# has 1.)


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
# It is nearly ω = 2, because the shift is twice what a DDIM step needs. No picture would tell.

# %% [markdown] tags=["L6-32", "E-08", "formula"]
# ## 5. Several classifiers at once
#
# One classifier knows left from right, another up from down, and the lecture says that several guidances can be added
# (L6-32). Four bumps in the plane, at $(\pm1,\pm1)$; we want the one that is right *and* up:
#
# $$\nabla\log p(\text{right}\mid x_t)+\nabla\log p(\text{up}\mid x_t)\;\overset?=\;\nabla\log p(\text{right and up}\mid x_t) .$$
#
# We try two worlds. In the first all four bumps have equal shares. In the second the two on one diagonal, left-down and
# right-up, have 45 % each, the other two 5 %. In both the standard deviation is 0.15, so the bumps do not overlap.


# %% tags=["L6-32", "E-08"]
def four(shares, std=0.15):
    """Bumps with the labels 0 to 3: left-down, left-up, right-down, right-up."""
    side = torch.tensor([-1.0, 1.0], dtype=torch.float64)
    corners = torch.cartesian_prod(side, side)
    return mixtures.Mixture(corners, std, weights=shares, labels=[0, 1, 2, 3])


def log_prob_of_any(classifier, classes):
    """log p(y is one of the classes | xt), as the (x, t) -> (B,) that guidance wants."""
    return lambda x, t: classifier.class_log_prob(x, t)[:, classes].logsumexp(1)


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
    """How far added gradients are from that of both wishes together, relative to its length."""
    t, (x0, _) = schedule.at(k), world.sample(n, generator=seeded(7))
    x = add_noise(x0, torch.randn(x0.shape, generator=seeded(8), dtype=x0.dtype), t)
    added, together = (gradient(wish, x, t) for wish in both(world, RIGHT, UP).values())
    return ((added - together).norm(dim=1).mean() / together.norm(dim=1).mean()).item()


# %% tags=["L6-32", "E-08", "check"]
ks = (50, 200, 500, 800)
off = {name: [error_of_adding(world, k) for k in ks] for name, world in worlds.items()}
rows = [[name, *(f"{v:.4f}" for v in values)] for name, values in off.items()]
plots.table(rows, header=["world", *(f"k = {k}" for k in ks)], caption="Error of added gradients")
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
    few = {name: arrived[wish, way][:100] for name, way in names.items()}
    plots.scatter(few, limit=2, ax=ax)
    ax.set_title(f"the wish: {wish}")
plots.show(
    figure,
    alt="Two scatter plots. For right-up the points of added gradients lie in the right corner, a "
    "little narrower and further out; for right-down many lie on a streak towards the centre",
    caption="The diagonal world: added gradients push too hard, or spread the rare bump.",
)

# %% tags=["L6-32", "E-08", "check"]
spread = {key: end.std(0).mean().item() for key, end in arrived.items()}
assert spread["right, up", "added"] < 0.95 * spread["right, up", "together"]
assert spread["right, down", "added"] > 1.3 * spread["right, down", "together"]
assert all(abs(spread[key] - 0.15) < 0.03 for key in spread if key[1] == "together")

# %% [markdown] tags=["L6-32", "E-08"]
# **Put right (E-08).** Gradients add exactly when the wishes are independent *given the noisy point*,
# $p(a,b\mid x_t)=p(a\mid x_t)\,p(b\mid x_t)$, up to a factor that does not depend on $x_t$. It is not enough that the labels
# are certain for clean points: in the second world added gradients are off by 80 % in the noise. There "right" already says
# "probably up", so adding counts one piece of evidence twice, like an ω above 1. For the rare corner the two gradients pull
# against each other.
#
# The same slide says *any* model. But the classifier must also use the model's schedule. Suppose that it takes step $k$ for
# what that step would be on the cosine table:


# %% tags=["L6-32", "E-08"]
def on_another_table(log_prob, own, other):
    """A classifier that takes step k of one table for step k of another."""
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
# **Exercise.** A classifier of classes answers more questions than it was taught. How would you ask a classifier of the
# ten digits for "an even digit", and how for "anything but a seven"? And towards what does "any digit at all" push?
#
# <details><summary>Answer</summary>
#
# Add the probabilities of the classes and take the logarithm: `log_prob_of_any(classifier, [0, 2, 4, 6, 8])`, or the nine
# without 7. Any digit at all has probability 1 everywhere. Its logarithm has gradient zero, so nothing is pushed. The next
# cell tries the last on the ring; section 7 asks for even digits.
# </details>

# %% tags=["solution", "check"]
x, t = torch.randn(500, 2, dtype=torch.float64), schedule.at(300)
push = gradient(log_prob_of_any(ring, [0, 1]), x, t).norm(dim=1).max()
print(f"the longest gradient of 'class 0 or 1': {push:.10f}")
assert push < 1e-10

# %% [markdown] tags=["L6-57", "L19-07", "E-14", "T-13"]
# ## 6. A classifier that does not know noise
#
# Take a finished classifier, says a deck, a perfected ResNet or ViT off the shelf (L19-07). Never, says another: the
# gradients of a classifier of clean pictures are *meaningless* on noisy ones (L6-57). **Which of the two?** On the ring both
# classifiers are exact. The *aware* one reads $p(y\mid x_t)$. The *clean* one is the best for clean points, and takes the
# noisy point for one. At $k=300$ the eight bumps have nearly merged. Has the clean classifier's gradient the right direction
# there? The right length?


# %% tags=["L6-57", "L19-07", "E-14", "T-13"]
def compare(k, n=2000):
    """On the noised ring: gradients of the clean classifier against the true ones; nats of both."""
    t, (x0, y) = schedule.at(k), ring.sample(n, generator=seeded(10))
    x = add_noise(x0, torch.randn(x0.shape, generator=seeded(11), dtype=x0.dtype), t)
    true, naive = gradient(says_one, x, t), gradient(lambda x, t: says_one(x, clean), x, t)
    length = (naive.norm(dim=1) / true.norm(dim=1)).median()
    cosine, says = torch.cosine_similarity(naive, true).median(), guidance.log_prob_of(ring, y)
    return length, cosine, -says(x, clean).mean(), -says(x, t).mean()


# %% tags=["L6-57", "L19-07", "E-14", "T-13", "check"]
found = {k: compare(k) for k in (10, 100, 300, 600, 900)}
rows = [[k, *(f"{v:.3g}" for v in numbers)] for k, numbers in found.items()]
header = ["k", "length, clean / true", "cosine of the two", "nats, clean", "nats, aware"]
plots.table(
    rows,
    header=header,
    caption="Two exact classifiers of the ring: medians of gradients, mean nats",
)
lengths, cosines, naive_nats, aware_nats = zip(*found.values(), strict=True)
assert lengths[0] < 1.2 < 10 < lengths[2] < 1000 < lengths[3]
assert min(cosines) > 0.7
assert max(aware_nats) < math.log(2) + 0.01 < 2 < naive_nats[2]

# %% [markdown] tags=["L6-57", "L19-07", "E-14"]
# *Nats*: the mean of $-\log p(y\mid x_t)$. Saying "one half" costs $\log2=0.69$, so an honest classifier of two classes
# need not pay more.
#
# **Put right (E-14), for exact classifiers.** Neither. The gradient is not meaningless: its direction is mostly right. Its
# *length* is wrong by orders of magnitude, because the clean classifier is certain of what it sees even in pure noise.
# (Section 7 shows networks, for which the slide is nearly right. One way around lets the classifier read the model's guess
# $\hat x_0$ instead of $x_t$. Then the model must be differentiated too: T-12 in the bug museum.)
#
# **Would samples tell?** DDPM, fifty steps, both classifiers. A *stray* is a point further than 1, four standard deviations,
# from every bump.


# %% tags=["L6-57", "T-13"]
def share_of_strays(points):
    """The share of points (n, 2) further than 1 from every bump of the ring."""
    return (torch.cdist(points, ring.means).min(1).values > 1).double().mean().item()


# %% tags=["L6-57", "T-13", "check"]
levels, strays, furthest = grid(schedule, 50), {}, {}
start = initial_noise((500, 2), levels[0], seeded(12), torch.float64)
for omega in (1.0, 4.0):
    for name, says in {"aware": says_one, "clean": lambda x, t: says_one(x, clean)}.items():
        guided = guidance.classifier(ring, says, omega)
        path = [state.x for state in ddpm(guided, start, levels, generator=seeded(13))]
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
# At ω = 1 there is nothing to see in the end. On the way there is: gradients that are too long throw the points far out
# at once, and in the later steps the model brings them back. At ω = 4 it does not always succeed. **Test gradients and
# nats, not samples.**
#
# ## 7. Networks at 28 × 28
#
# The lesson trains two small classifiers of 8 × 8 digits with the loss of L6-58 and DS-63. Here the model is a U-Net, and
# three more networks classify. All have learnt from MNIST's 60,000 training pictures and come with the course:
#
# | | what it was taught | what it does here |
# |---|---|---|
# | `model` | to denoise; the label told in nine of ten pictures | draws, and *we tell it no label* |
# | `aware` | to classify at all noise levels | guides |
# | `naive` | to classify clean pictures; the same network else | guides, badly |
# | `judge` | to classify clean pictures; a larger network | guides nobody, and so may judge |
#
# This notebook runs without MNIST itself. How good the classifiers are on its 10,000 test pictures, noised, was measured
# when they were trained, and is on their cards. (`weights.load` freezes what it loads. `quick` lets the model compute in 16
# bits if your processor can. `Counted` counts how often a network is asked.)

# %% tags=["setup"]
from torch import nn

from didiff.notebook.playground import Counted
from didiff.training import weights
from didiff.training.recipes import SCHEDULE  # cosine, T = 1000: that of all our image models

torch.set_num_threads(cores)
CLEAN = SCHEDULE.at(0)
model = Counted(quick(weights.load("mnist")))
aware, naive = Counted(weights.load("mnist_classifier")), Counted(weights.load("mnist_clean"))
judge = metrics.mnist_judge()
unconditional = guidance.condition(model, None)


# %% tags=["L6-57", "L6-58", "T-13"]
@torch.no_grad()
def verdict(classifier, x, t, y):
    """The share of pictures (B, ...) at level t that a classifier reads as y (B,), and its nats."""
    log_prob = classifier.class_log_prob(x, t)
    nats = nn.functional.nll_loss(log_prob, y).item()
    return (log_prob.argmax(1) == y).double().mean().item(), nats


# %% tags=["L6-57", "L6-58", "T-13", "check"]
cards = [weights.read_card(name)["quality"] for name in ("mnist_classifier", "mnist_clean")]
rows = []
for clock in (0.0, 0.25, 0.5, 0.75):
    first, other = (card[f"clock_{clock}"] for card in cards)
    shares = (f"{one['accuracy']:.1%}" for one in (first, other))
    rows.append([clock, *shares, *(f"{one['nats']:.2f}" for one in (first, other))])
header = ["clock", "aware: right", "clean: right", "aware: nats", "clean: nats"]
plots.table(rows, header=header, caption="10,000 real test digits, noised, from the cards")
assert other["nats"] > math.log(10) > 2 * first["nats"]

# %% [markdown] tags=["L6-57", "L6-58", "T-13"]
# **What should a gradient be?** A model that *can* be told the label contains a classifier, by section 2. Its gradient is
# $-\big(\epsilon(x_t\mid y)-\epsilon(x_t)\big)/\text{noise}$. We compare with it in the noisy half of the walk; in the clean
# half the difference of two answers is mostly the network's own error. We have no real pictures here, so we noise forty
# that the model draws *with* a label. Of each we ask for *another* digit: of the digit that it sees a classifier is certain
# already, and has no gradient.


# %% tags=["L6-57", "T-13"]
def paint(guided, n=40, steps=20, seed=0):
    """Pictures (n, 1, 28, 28) by DDIM; one seed, one noise. It starts just below pure noise."""
    levels = grid(SCHEDULE, steps, start=0.99)  # x0 from eps needs a signal > 0
    start = initial_noise((n, 1, 28, 28), levels[0], seeded(seed), torch.float32)
    return last(ddim(guided, start, levels))


def take_for_clean(log_prob):
    """A classifier that is told of everything it sees that it is a clean picture."""
    return lambda x, t: log_prob(x, CLEAN)


# %% tags=["L6-57", "L6-58", "T-13"]
classes = torch.arange(40) % 10
pictures = paint(guidance.condition(model, classes), seed=1)
asked = (classes + 1 + torch.arange(40) // 10) % 10  # one, two, three or four digits further
guides = {
    "aware": guidance.log_prob_of(aware, asked),
    "clean": take_for_clean(guidance.log_prob_of(naive, asked)),
}
print(f"the judge reads {metrics.recognised(pictures, classes):.0%} of 40 pictures as labelled")


# %% tags=["L6-57", "L6-58", "T-13"]
def against_model(log_prob, k):
    """Mean length of a classifier's gradients in units of the model's own, and mean cosine."""
    t = SCHEDULE.at(k)
    x = add_noise(pictures, torch.randn(pictures.shape, generator=seeded(k)), t)
    own = -(model(x, t, asked).eps - model(x, t).eps).flatten(1) / t.noise
    slope = gradient(log_prob, x, t).flatten(1)
    cosine = torch.cosine_similarity(slope, own).mean().item()
    return (slope.norm(dim=1) / own.norm(dim=1)).mean().item(), cosine


# %% tags=["L6-57", "L6-58", "T-13", "check"]
found = {k: [against_model(says, k) for says in guides.values()] for k in (500, 700, 900, 990)}
rows = []
for k, measures in found.items():
    lengths, cosines = zip(*measures, strict=True)
    rows.append([k, *(f"{v:.2f}" for v in (*lengths, *cosines))])
header = ["k", "aware: length", "clean: length", "aware: cosine", "clean: cosine"]
plots.table(
    rows, header=header, caption="Gradients of two classifiers against the model's own; means of 40"
)
for (length, direction), (_, naive_direction) in found.values():
    assert 0.3 < length < 1.5
    assert naive_direction < min(0.3, direction)
    assert length * direction < 1
assert found[990][1][0] > 5
assert direction > naive_direction + 0.3

# %% [markdown] tags=["L6-57", "L6-58", "E-14"]
# Classifier and model were trained on different tasks. Where noise is large, the gradient of the aware classifier nearly
# agrees with the model's own. With less noise their directions part. The gradient of the clean network has the wrong
# *direction* at every one of these levels, and at the last one its length is many times too large. So for networks the
# slide, "meaningless", is nearly right (E-14). On the ring the clean classifier was exact for every point of the plane; a
# network of clean pictures was never trained on noise at all.
#
# **A hypothesis about ω (L6-60).** The part of the aware classifier's gradient that lies along the model's own, length
# times cosine, is less than 1 at each of these levels. Section 8 comes back to this.


# %% tags=["L6-59"]
def by_aware(y, omega):
    return guidance.classifier(unconditional, guidance.log_prob_of(aware, y), omega)


def by_naive(y, omega):
    says = take_for_clean(guidance.log_prob_of(naive, y))
    return guidance.classifier(unconditional, says, omega)


# %% [markdown] tags=["L6-32", "E-08"]
# **Questions nobody trained for.** "Even"; and two wishes at once, "even" and "above four", which 6 and 8 alone fulfil.
# Added gradients may be wrong (section 5), so we ask for the event. The judge counts. (Without guidance the first is
# fulfilled by chance in half of the pictures, the second in a fifth.)

# %% tags=["L6-32", "E-08"]
wishes, answers = {"even": [0, 2, 4, 6, 8], "even, above 4": [6, 8]}, {}
for name, digits in wishes.items():
    wish = log_prob_of_any(aware, digits)
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
    caption="The classifier was taught ten digits, the model is told no label.",
)

# %% [markdown] tags=["L6-59", "L6-61", "E-15", "formula"]
# ## 8. Who judges?
#
# Guidance climbs the log-probability of the guide. So it finds what convinces the guide, and that may convince nobody else:
# a classifier is easily fooled. So ask a judge that has guided nobody (L6-61). And ask for nats as well as for shares,
# because certainty is what guidance increases.
#
# **And diversity?** "The larger ω, the less diverse" (L6-59). Suppose we measure it by
#
# $$\text{pixel std}=\operatorname{mean}_{y,\,\text{pixels}}\;\operatorname{std}(x\mid y) .$$
#
# What is its curve from ω = 0 to 128? (`metrics.diversity` first cuts pixels into ink or no ink; 1 is that of real digits.)


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
painted = {w: paint(by_aware(classes, w)) for w in scales}
honest = {w: measured(images, aware, classes) for w, images in painted.items()}
fooled = {w: measured(paint(by_naive(classes, w)), naive, classes) for w in (2.0, 8.0)}
rows = []
for name, results in {"aware": honest, "clean": fooled}.items():
    rows += [[name, f"{w:g}", *(f"{v:.2f}" for v in m.values())] for w, m in results.items()]
header = ["guided by", "ω", *honest[0.0]]
plots.table(rows, header=header, caption="What guide and judge say of 40 pictures from one noise")


# %%
def over_scales(curves, ylabel, ax):
    """Curves {label: key of the measures} over ω, on an axis that has room for 0 and 128."""
    lines = {label: (scales, [honest[w][key] for w in scales]) for label, key in curves.items()}
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
    caption="Who is convinced, and how diverse the pictures are, guided by the aware classifier.",
)

# %% tags=["L6-59", "L6-60", "L6-61", "check"]
cases = {f"aware, ω = {w:g}": honest[w] for w in (0.0, 1.0, 2.0)}
cases["clean, ω = 0"] = measured(painted[0.0], naive, classes)
cases |= {f"clean, ω = {w:g}": m for w, m in fooled.items()}
ratio = {name: m["guide's nats"] / m["judge's nats"] for name, m in cases.items()}
for name, value in ratio.items():
    print(f"{name}: the guide has {value:.2f} times the nats of the judge")
assert min(ratio["aware, ω = 0"], ratio["clean, ω = 0"]) > 0.8
assert ratio["clean, ω = 8"] < ratio["clean, ω = 0"]
assert honest[0.0]["judge right"] < 0.4 < 0.8 < honest[4.0]["judge right"]
assert fooled[8.0]["judge right"] < 0.5

# %% [markdown] tags=["L6-61"]
# **Is it chance?** Forty pictures are few. So we repeat the aware guide at ω = 2 with three more seeds of the noise.

# %% tags=["L6-61", "check"]
for seed in range(1, 4):
    again = measured(paint(by_aware(classes, 2.0), seed=seed), aware, classes)
    own, others = again["guide's nats"], again["judge's nats"]
    print(f"seed {seed}: guide {own:.2f} nats, judge {others:.2f}, ratio {own / others:.2f}")
    assert own < others

# %% tags=["L6-59", "E-15", "check"]
std = {w: m["pixel std"] for w, m in honest.items()}
lowest, saturated = min(std, key=std.get), honest[128.0]["saturated"]
for omega in (0.0, lowest, 128.0):
    print(f"pixel std at ω = {omega:g}: {std[omega]:.2f}", end="; ")
print(f"at the last, {saturated:.0%} of the pixels are saturated")
assert 1 < lowest < 128
assert std[128.0] > 1.2 * std[lowest]
assert saturated > 0.3
assert honest[16.0]["diversity"] < honest[1.0]["diversity"]

# %% [markdown] tags=["L6-59", "L6-60", "L6-61", "E-15"]
# **Put right (E-15).** Diversity falls with ω, but not by this measure. At the largest scale the pixels' standard deviation
# rises again, because pixels driven far beyond black and white lie further apart. So cut them at mid-grey first, or measure
# where nothing can saturate (the line of section 3), and name the sampler.
#
# **The guide is flattered.** Pictures that nobody guided cost guide and judge about the same nats. Guided pictures cost
# their guide less than the judge. This holds for the clean classifier, and for the aware one too, at every seed above: part
# of the guide's certainty is its own work. What tells the two guides apart is what the judge can read: at ω = 8 less than
# half of the pictures that the clean one guided.
#
# **Why does practice use 2 to 10? (L6-60)** At ω = 1 Bayes' rule promises that all digits are right, and many are not; the
# guide itself says so. But the promise is for an exact model and an exact classifier, in small steps. A hypothesis: what is
# missing is the part of the classifier's gradient that lies along the model's own, less than 1 at every level in section
# 7. A larger ω makes up for it and costs diversity. The evidence is forty pictures and two networks, so it is no more than
# a hypothesis.
#
# **A classifier alone.** How little does it take to convince one? No model: from pure noise, climb a classifier's gradient
# for sixty steps. Three cases: the clean classifier; the aware one, told that the picture is clean; and the aware one, told
# the truth, $k=990$.


# %% tags=["L6-61"]
def climb(log_prob, x, t, steps=60, size=0.3):
    for _ in range(steps):
        x = x + size * gradient(log_prob, x, t)
    return x


# %% tags=["L6-61", "check"]
ten = torch.arange(10)
static = torch.randn(10, 1, 28, 28, generator=seeded(15))
cases, climbed, sure = {"clean": (naive, 0), "aware": (aware, 0), "told": (aware, 990)}, {}, {}
for name, (alone, k) in cases.items():
    says, t = guidance.log_prob_of(alone, ten), SCHEDULE.at(k)
    climbed[name] = climb(says, static, t)
    changed = ((climbed[name] - static).norm() / static.norm()).item()
    sure[name] = says(climbed[name], t).exp().mean().item()
    agrees, _ = verdict(judge, climbed[name].clamp(-1, 1), CLEAN, ten)
    print(f"{name}, k = {k}: the picture has changed by {changed:.0%}", end=", ")
    print(f"the classifier is {sure[name]:.0%} sure of the ten, the judge reads {agrees:.0%}")
    assert max(changed, agrees) < 0.4
assert min(sure["clean"], sure["aware"]) > 0.9 > 0.3 > sure["told"]

# %% [markdown] tags=["L6-61", "E-17", "formula"]
# Told that the picture is clean, both classifiers are convinced by noise. Told the true level, the aware one is not.
#
# ## 9. For and against, counted
#
# **The claims (L6-61).** *For:* one model, any classifier, nothing to retrain. *Against:* slow (a backward pass in every
# step), hungry for memory, easily fooled. The rest can be counted. In passes of the model, $D$, and of the classifier, $C$,
# a step costs
#
# $$\text{told the label: } D\qquad\text{with a classifier: } D+\kappa\,C\qquad\text{model asked twice (lesson 11): } 2D .$$
#
# How large is κ, the price of a classifier's gradient in passes of that classifier? And which of the two guidances is the
# slower here?

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
says_seven = guidance.log_prob_of(aware, seven)
ways = {
    "told the label": guidance.condition(model, seven),
    "with a classifier": by_aware(seven, 2.0),
    "model asked twice": guidance.classifier_free(model, seven, 2.0),
}
D = operations(lambda: model(x, t))
C = operations(lambda: aware.class_log_prob(x, t))
step = {name: operations(lambda d=denoise: d(x, t)) / D for name, denoise in ways.items()}
kappa = operations(lambda: gradient(says_seven, x, t)) / C

# %% tags=["L6-61", "E-17", "check"]
print(f"a pass of the classifier: {C / D:.2f} passes of the model; κ = {kappa:.2f}")
for name, cost in step.items():
    print(f"one step, {name}: {cost:.2f} passes of the model")
assert abs(kappa - 2) < 0.1  # there and back; for frozen weights no gradients are computed
assert abs(step["with a classifier"] - (1 + kappa * C / D)) < 0.01
assert step["told the label"] < step["with a classifier"] < step["model asked twice"]

# %% tags=["L6-61", "E-17", "T-12", "check"]
reads_guess = take_for_clean(guidance.log_prob_of(naive, seven))
alone = kept(lambda: gradient(says_seven, x, t)) / 2**20
through = kept(lambda: gradient(lambda x, t: reads_guess(model(x, t).x0, t), x, t)) / 2**20
print(f"kept for the way back, in MB a picture: {alone:.1f} in the classifier", end="; ")
print(f"{through:.1f} through the model as well")
assert through > 2 * alone

# %% tags=["L6-61", "check"]
before = model.asked, aware.asked
paint(by_aware(seven, 2.0), n=1, steps=10)
asked = model.asked - before[0], aware.asked - before[1]
print(f"a walk of 10 steps: {asked[0]} passes of the model, {asked[1]} gradients of the classifier")
assert asked == (10, 10)

# %% [markdown] tags=["L6-61", "E-17"]
# **Put right (E-17).** Slower than a model that is told the label: yes. Slower than its rival: only if the classifier is
# large. It is cheaper as long as $\kappa\,C<D$, that is, while one pass of the classifier costs less than half a pass of the
# model. The memory is the classifier's alone, because the model is not differentiated. What remains against it: a classifier
# that knows noise must be trained for every schedule and every kind of wish, and it can be fooled. (Operations are not
# time.)

# %% [markdown] tags=["L6-55"]
# **Must the classifier be asked in every step?** (Exercise 2 of the lesson.) `guidance.interval(plain, guided, low, high)`
# guides while the clock is between `low` and `high`. We draw twenty pictures at ω = 4, guided in the noisy half only,
# $[0.5,1]$, and in the clean half only, $[0,0.5]$.

# %% tags=["L6-55", "check"]
y, t, shares, slopes = classes[:20], SCHEDULE.at(250), {}, {}
for low, high in ((0.5, 1.0), (0.0, 0.5)):
    images = paint(guidance.interval(unconditional, by_aware(y, 4.0), low, high), n=20)
    noised = add_noise(images, torch.randn(images.shape, generator=seeded(20)), t)
    shares[low] = metrics.recognised(images, y)
    slopes[low] = (
        gradient(guidance.log_prob_of(aware, y), noised, t).flatten(1).norm(dim=1).median()
    )
    print(
        f"guided on [{low:g}, {high:g}]: the judge reads {shares[low]:.0%} as asked for", end="; "
    )
    print(f"gradient at clock 0.25: {slopes[low]:.2f} (median)")
print(f"the same twenty, guided all the way: {metrics.recognised(painted[4.0][:20], y):.0%}")
factor = [4 * level.noise**2 / level.signal for level in map(SCHEDULE.at, (990, 500, 250))]
print("the factor ω noise² / signal at clock 0.99, 0.5, 0.25: ", *(f"{v:.2g}" for v in factor))
assert shares[0.5] > shares[0.0] + 0.2
assert slopes[0.0] > 0.3 > slopes[0.5]

# %% [markdown] tags=["L6-55"]
# The noisy half decides the class. There the digit is still open. In the clean half the model has begun another digit. The
# classifier's gradient is long, but what it adds to $\hat x_0$ is $\omega\,\text{noise}^2/\text{signal}$ times that gradient
# (L6-55), and this factor has become small. Where the noisy half was guided, the picture is right already and the gradient
# is short as well. So half of the classifier's work can be saved.

# %% [markdown] tags=["T-08", "T-09", "T-10", "T-11", "T-12", "T-13"]
# ## 10. Bug museum
#
# Six famous mistakes, in nine versions of one line of code, on the ring, where everything is known:
#
# - **T-08**: the sign;
# - **T-09**: the factor noise left out, or divided by;
# - **T-10**: the gradient of the batch's *mean*, 400 times too small in a batch of 400;
# - **T-11**: the gradient of $p$, or of a logit, instead of $\log p(y\mid x_t)$. On the ring $\log p(x_t\mid y)$ serves as a
#   logit: with $\log p(y)$ added, softmax makes $p(y\mid x_t)$ of it, and without softmax the division by $p(x_t)$ is missing;
# - **T-12**: a gradient taken *through the model*. In one version the clean classifier reads $\hat x_0$. This is a method of
#   its own ([Bansal et al. 2023](https://arxiv.org/abs/2302.07121)), but another one. In the other version the model merely
#   stands inside the graph, and its memory with it;
# - **T-13**: the classifier that takes noise for a clean picture.
#
# Which of them does an eye find on the samples, at ω = 1? The eye counts class 1, and strays. Unit checks look at one call:
# is the noise that of the model that is told the label? Is a sample's noise the same in any company? Is the model ever shown
# an input that wants a gradient?


# %% tags=["T-08", "T-09", "T-10", "T-11", "T-12", "T-13"]
def log_p_one(world, x, t):
    return guidance.log_prob_of(world, 1)(x, t)


def version(wish=log_p_one, factor=lambda t: t.noise, inside=False):
    """(denoiser, world) -> guided to class 1; wish: (world, x, t) -> what is differentiated."""

    def make(denoiser, world):
        def guided(x, t):
            with torch.enable_grad():
                leaf = x.detach().requires_grad_()
                eps = denoiser(leaf if inside else x, t).eps.detach()
                (slope,) = torch.autograd.grad(wish(world, leaf, t).sum(), leaf)
            return from_eps(x, t, eps - factor(t) * slope)

        return guided

    return make


# %% tags=["T-10", "T-11", "T-12", "T-13"]
def mean_of_batch(world, x, t):
    return log_p_one(world, x, t).mean()


def probability(world, x, t):
    return log_p_one(world, x, t).exp()


def logit(world, x, t):
    return world.log_prob(x, t, 1)


def reads_x0(world, x, t):
    return log_p_one(world, world(x, t).x0, clean)


def takes_for_clean(world, x, t):
    return log_p_one(world, x, clean)


# %% tags=["T-08", "T-09", "T-10", "T-11", "T-12", "T-13"]
VERSIONS = {
    "right": version(),
    "T-08: wrong sign": version(factor=lambda t: -t.noise),
    "T-09: no factor": version(factor=lambda t: 1.0),
    "T-09: divided by noise": version(factor=lambda t: 1 / t.noise),
    "T-10: mean of the batch": version(mean_of_batch),
    "T-11: gradient of p": version(probability),
    "T-11: gradient of a logit": version(logit),
    "T-12: classifier reads x̂₀": version(reads_x0),
    "T-13: clean classifier": version(takes_for_clean),
    "T-12: model in the graph": version(inside=True),
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
    """The ring, as a model, that notes how often it is asked under a gradient."""

    def __init__(self):
        self.seen = 0

    def __call__(self, x, t, y=None):
        self.seen += x.requires_grad
        return ring(x, t, y)

    def class_log_prob(self, x, t):
        return ring.class_log_prob(x, t)

    def log_prob(self, x, t, y=None):
        return ring.log_prob(x, t, y)


# %% tags=["T-10", "T-12"]
def asked_under_gradient(make):
    """How often one guided call shows the model an input that wants a gradient."""
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
        "under gradient": Check(asked_under_gradient, 0.0),
    },
)

# %% tags=["T-08", "T-09", "T-10", "T-11", "T-12", "T-13"]
museum.show(
    exhibits,
    caption="Guided to class 1 of the ring, ω = 1",
    draw=lambda one, ax: plots.scatter({"guidance": on_the_ring(one.version)}, limit=3, ax=ax),
    alt="Ten scatter plots. Seven show four round bumps on the diagonals; the wrong sign mostly "
    "streaks on the axes, the mean of the batch and the gradient of p all eight bumps",
)

# %% tags=["T-08", "T-09", "T-10", "T-11", "T-12", "T-13", "check"]
seen = [one.name for one in exhibits if one.visible]
print("seen in samples:", "; ".join(seen))
for name in ("right", "T-09: divided by noise", "T-11: gradient of a logit"):
    points = on_the_ring(VERSIONS[name])
    print(f"{name}: from the next bump {torch.cdist(points, ring.means).min(1).values.mean():.2f}")
assert seen == ["T-08: wrong sign", "T-10: mean of the batch", "T-11: gradient of p"]
(silent,) = (one for one in exhibits if one.name == "T-12: model in the graph")
assert silent.caught == ["under gradient"]

# %% [markdown] tags=["T-08", "T-09", "T-10", "T-11", "T-12", "T-13"]
# **Six of nine look right**, to an eye that counts. The bumps of the ring lie apart, and nearly any push in the right
# direction picks the right ones. An eye that measured how far points lie from the next bump would doubt the logit. What each
# unit check says to a student:
#
# | check | hint |
# |---|---|
# | gap in ε | Subtract (T-08) the gradient of the *log*-probability, after `log_softmax` (T-11), times $\text{noise}=\sqrt{1-\bar\alpha}$ (T-09), taken at $x_t$ (T-12) and told its level (T-13). |
# | company | Sum over the batch before you differentiate: every sample needs its own gradient (T-10). |
# | under gradient | Ask the model outside the graph; the classifier alone is differentiated (T-12). |
#
# "Model in the graph" is right in every number. Its memory gives it away (section 9), and the check that watches who is
# asked.

# %% [markdown] tags=["exercise"]
# **Exercise.** Take the museum to the line, where the classes overlap: class 1 is $N(1,1)$, and the eye measures mean and
# standard deviation. How many of the nine hide there? On which side of 1 is the mean of each?
#
# <details><summary>Answer</summary>
#
# Only the model in the graph hides, as it must everywhere. A push too weak leaves the mean short of 1: at 0, but for chance,
# with T-10 in a batch of 2000, half-way with the gradient of $p$. T-09, $\hat x_0$ and T-13 carry it past 1, the wrong sign
# sends it to the other side. The logit adds the whole score of class 1 to the model's: samples crowd where both are high. A
# world in which classes overlap is the better test.
# </details>

# %% tags=["solution", "check"]
levels, hidden = grid(schedule, 50), []
start = initial_noise((2000, 1), levels[0], seeded(18), torch.float64)
for name, make in VERSIONS.items():
    end = last(ddpm(make(line, line), start, levels, "beta", seeded(19)))
    print(f"{name:27} mean {end.mean():5.2f}, standard deviation {end.std():.2f}")
    if abs(end.mean() - 1) < 0.1 and abs(end.std() - 1) < 0.1:
        hidden.append(name)
assert hidden == ["right", "T-12: model in the graph"]

# %% [markdown]
# **Back** to [lesson 10](../10_classifier_guidance.ipynb), or on to [lesson 11](../11_classifier_free_guidance.ipynb), where a
# model that knows labels serves as its own classifier.
#
# - Dhariwal & Nichol 2021, [Diffusion models beat GANs on image synthesis](https://arxiv.org/abs/2105.05233), section 4, algorithms 1 (the mean) and 2 (the noise).
# - Sohl-Dickstein et al. 2015, [Deep unsupervised learning using nonequilibrium thermodynamics](https://arxiv.org/abs/1503.03585), section 2.5: a second factor in every step.
# - Song et al. 2021, [Score-based generative modeling through SDEs](https://arxiv.org/abs/2011.13456), section 5: the sum of gradients, a classifier that knows time.
# - Liu et al. 2022, [Compositional visual generation with composable diffusion models](https://arxiv.org/abs/2206.01714): several wishes at once.
# - Bansal et al. 2023, [Universal guidance for diffusion models](https://arxiv.org/abs/2302.07121): a clean classifier that reads $\hat x_0$.
# - Kynkäänniemi et al. 2024, [Applying guidance in a limited interval](https://arxiv.org/abs/2404.07724), eq. 5.
