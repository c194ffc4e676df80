# %% [markdown]
# # 04 · The reverse process
#
# *Noise came in a thousand small steps. In this lesson we ask for the law of one step back, see when it is a Gaussian,
# and find the one thing about it that must be learnt.*
#
# **You need** Bayes' rule, Gaussians, lesson 02 (stochastic differential equations) and lesson 03 (the forward chain).
#
# **You will be able to** compute a reverse step exactly and say in nats what a Gaussian costs there, derive its mean and
# variance in two ways (both derivations unfold), choose between the two variances of DDPM, and run an equation backwards with every sign right.
#
# **Time** an hour and a half of reading; everything runs in under 25 seconds on two CPU cores.
#
# **The codes.** The course tests what a series of lectures says: (L6-06) names a slide, E-01 a slip on one, T-02 a classic mistake.

# %% tags=["setup"]
import math
from itertools import pairwise

import torch
from torch.distributions import Normal, kl_divergence

from didiff import Denoiser, mixtures, networks
from didiff.notebook import museum, plots, widgets
from didiff.notebook.museum import Check
from didiff.process import add_noise
from didiff.samplers import ddpm, last
from didiff.schedules import DDPMSchedule, constant, grid
from didiff.sde import SDE, simulate
from didiff.training import metrics

torch.manual_seed(0)
torch.set_num_threads(1)  # our tensors are small: a second thread costs more than it gives
plots.style()

# %% [markdown]
# **The library's words.** `schedule.at(k)` is a noise level, a pair: `t.signal` $=\sqrt{\bar\alpha_k}$ and `t.noise` $=\sqrt{1-\bar\alpha_k}$. A
# *denoiser*, called with `(x, t)`, answers with its guesses `.x0` and `.eps`. A mixture of Gaussians is the exact one, $E[x_0\mid x_k]$ and $E[\epsilon\mid x_k]$,
# and has `.log_prob`, `.score` and `.sample` besides; `Denoiser(net, "eps")` makes one from a network that guesses noise. `grid(schedule, n)`
# lists $n+1$ levels, noise
# first; `ddpm` walks down them (variance $\tilde\beta$ unless told otherwise, and no noise in the last step), and `last` takes the end of the walk.
#
# Three data sets on the line come back again and again:


# %%
def line(low, high, n):
    return torch.linspace(low, high, n, dtype=torch.float64)


bumps = mixtures.Mixture(line(-1, 1, 2)[:, None], std=0.2)  # narrow ones, at -1 and +1
pair = mixtures.bimodal()  # the same with std 0.3
single = mixtures.gaussian(1.0, 0.5)  # one bell

# %% [markdown] tags=["formula", "DS-44"]
# ## 1. Where was I a moment ago?
#
# **Story.** The law of a step towards noise was ours to choose, $q(x_k\mid x_{k-1})=N(\sqrt{1-\beta_k}\,x_{k-1},\beta_kI)$. The law of the
# step back is not: it answers a question. *I stand at $x_k$; where was I a moment ago?* Bayes' rule says
#
# $$q(x_{k-1}\mid x_k)=\frac{q(x_k\mid x_{k-1})\;q(x_{k-1})}{q(x_k)} .$$
#
# The first factor is the step that we chose. The second is the density of the noised data: through it (the denominator only
# normalises) the way back depends on the data. On the line we need no cleverness: write both factors on a fine grid,
# multiply, normalise. Such sums are called *quadrature*.


# %% tags=["formula", "DS-44"]
def reverse_kernel(mixture, s, before, x, beta):
    """q(x_{k-1} | x_k = x) on a grid: before (N,), x (B,) -> (B, N). s: the level of x_{k-1}."""
    step = Normal(math.sqrt(1 - beta) * before, math.sqrt(beta))
    log_joint = mixture.log_prob(before[:, None], s) + step.log_prob(x[:, None])
    return log_joint.softmax(1) / (before[1] - before[0])


# %% [markdown]
# How far is such a kernel from a Gaussian? We take the best one, that with the same mean and variance, and the
# Kullback-Leibler divergence to it, in nats (with the natural logarithm; 1 nat is 1.44 bits).


# %% tags=["formula"]
def moments(density, x):
    """Mean and variance of each row of densities (B, N) over a grid x (N,)."""
    dx = x[1] - x[0]
    mean = (density * x).sum(1) * dx
    return mean, (density * (x - mean[:, None]) ** 2).sum(1) * dx


# %% tags=["formula"]
def gap(density, x):
    """KL divergence of each row to the Gaussian with its mean and variance, in nats. (B,)"""
    mean, variance = moments(density, x)
    bell = Normal(mean[:, None], variance.sqrt()[:, None])
    nats = torch.xlogy(density, density) - density * bell.log_prob(x)
    return nats.sum(1) * (x[1] - x[0])


# %% [markdown]
# **Check.** Data: the two narrow `bumps`, and a single step, so that $x_{k-1}$ is the data itself. Then the mean of the kernel is $E[x_0\mid x_1]$,
# which `didiff.mixtures` knows in closed form.


# %%
def equal_steps(beta, T=1):
    return DDPMSchedule(T, constant(T, beta))


# %% tags=["check", "DS-44"]
fine, x = line(-8, 8, 8001), line(-2.5, 2.5, 101)
table = equal_steps(0.2)
mean, _ = moments(reverse_kernel(bumps, table.at(0), fine, x, 0.2), fine)
exact = bumps(x[:, None], table.at(1)).x0[:, 0]
print(f"mean at x = 0.3: quadrature {mean[56]:.6f}, closed form {exact[56]:.6f}")
assert (mean - exact).abs().max() < 1e-8

# %% [markdown] tags=["DS-44"]
# **Is it so?** The lecture says: under conditions the reverse step has the same form as the forward one, a Gaussian (DS-44).
# *Predict first.* You stand at $x=0$, half-way between the bumps, after a step of size $\beta$. For which of the $\beta$ below is
# the way back a bell? And for data that are one single bell?


# %% tags=["formula", "DS-44"]
def average(values, mixture, x, t):
    """The mean of values (B,), given at equally spaced x (B,), over q(x_t)."""
    return (mixture.log_prob(x[:, None], t).softmax(0) * values).sum().item()


# %% tags=["check", "DS-44", "L22-30"]
sizes, nats = (0.001, 0.01, 0.05, 0.2, 0.5, 0.9), {}
for name, data in (("two bumps", bumps), ("one bell", single)):
    for beta in sizes:
        table = equal_steps(beta)
        costs = gap(reverse_kernel(data, table.at(0), fine, x, beta), fine)
        nats[name, beta] = average(costs, data, x, table.at(1)), costs[50].item()

# %% tags=["check", "DS-44", "L22-30"]
rows = [(b, *nats["two bumps", b], abs(round(nats["one bell", b][0], 9))) for b in sizes]
header = ["β", "two bumps, average", "two bumps, at x = 0", "one bell, average"]
plots.table(rows, header=header, caption="Nats between the exact step back and the best Gaussian")
assert all(a[1] < b[1] and a[2] < b[2] for a, b in pairwise(rows))
assert all(row[3] == 0 for row in rows)  # to nine places

# %% [markdown] tags=["DS-44"]
# **Put right.** For Gaussian data the step back is Gaussian at every $\beta$. For other data only in the limit $\beta\to0$, and how small
# $\beta$ must be depends on where you stand: at $\beta=0.01$ a Gaussian costs $6\cdot10^{-6}$ nats on average, but 0.24 at $x=0$, where hardly
# anybody stands. (Feller 1949 has the limit; Sohl-Dickstein et al. 2015 brought it here.)
#
# **Play.** Stand between the bumps and enlarge the step. Then go to $x=1$ and do it again.


# %% tags=["play", "DS-44"]
def step_back(mixture, before, beta, x):
    """The exact step back beside the best Gaussian, peaks at 1: a figure, and words."""
    table = equal_steps(beta)
    exact = reverse_kernel(mixture, table.at(0), before, torch.tensor([x]).double(), beta)
    mean, variance = moments(exact, before)
    bell = Normal(mean, variance.sqrt()).log_prob(before).exp()
    data = mixture.log_prob(before[:, None], table.at(0)).exp()
    curves = {"data": data, "exact step back": exact[0], "model, best Gaussian": bell}
    peaks = {name: y / y.max() for name, y in curves.items()}
    figure = plots.densities(before, peaks, xlabel="x before the step", ylabel="density / peak")
    figure.axes[0].set(ylim=(0, 1.5))
    figure.axes[0].legend(loc="upper right")  # and stays there
    figure.axes[0].annotate("we stand here", (x, 1.03), ha="center", color="#666666")
    figure.axes[0].axvline(x, ymax=0.68, color="#666666", linewidth=0.8)
    mean, std = round(mean.item(), 2) + 0.0, variance.sqrt().item()  # + 0.0: no minus before 0
    words = f"mean {mean:+.2f}, standard deviation {std:.3f}; the Gaussian costs "
    return figure, words + f"{gap(exact, before).item():.4f} nats"


# %% tags=["play", "DS-44"]
def kernels(mixture, before):
    """Frames of a step back from x."""

    def frames(beta, x):
        figure, words = step_back(mixture, before, beta, x)
        yield widgets.Frame(plots.png(figure), words)

    return frames


# %% tags=["play", "DS-44"]
explorer = widgets.Explorer(
    kernels(bumps, line(-2, 2, 801)),
    {
        "beta": widgets.slider("step size β =", 0.01, 0.95, value=0.2, step=0.01),
        "x": widgets.slider("where we stand, x =", -2.0, 2.0, value=0.0, step=0.1),
    },
)
explorer.show(
    alt="the two bumps of the data, the place where we stand, the exact law of one step back, and "
    "the Gaussian of the same mean and variance. From x = 0 the law has two peaks, which move "
    "apart into the bumps as the step grows; the Gaussian has its one peak in the gap between them",
    still_over="beta", values=[0.01, 0.02, 0.03, 0.05, 0.08, *(k / 10 for k in range(1, 10))],
)  # fmt: skip

# %% tags=["check"]
at_zero = explorer.readout
explorer["x"].value = 1.0
explorer.wait()
print(at_zero, explorer.readout, sep="\n")
assert f"{nats['two bumps', 0.2][1]:.4f} nats" in at_zero
assert explorer.readout.startswith("mean +1.0")
explorer["x"].value = 0.0

# %% tags=["play", "DS-44"]
figure, words = step_back(bumps, line(-2, 2, 801), beta=0.5, x=1.0)
plots.show(
    figure,
    alt="From x = 1 the exact law covers the right bump and has a low second peak at the left one. "
    "The Gaussian with its mean and variance is more than twice as wide as the right bump.",
    caption=f"From x = 1, β = 0.5: {words}.",
)

# %% [markdown] tags=["exercise"]
# **Exercise 1.** Even at $\beta=0.01$ the exact kernel at $x=0$ has two peaks. Below which $\beta$ has it one? (Each
# bump contributes a Gaussian; two equal ones merge when half their distance equals their standard deviation.)
#
# <details><summary>Answer</summary>
#
# Precisions add: $P=25+(1-\beta)/\beta$, with centres at $\pm25/P$ and variance $1/P$. One peak if $25^2/P^2\le1/P$, that is $P\ge625$, so
# $\beta\le1/601$.
# </details>

# %% [markdown] tags=["formula", "L22-30"]
# ## 2. Why a thousand steps?
#
# **Story.** The lecture gives two reasons (L22-30): steps must be small to be Gaussian, and together they must reach
# noise. The chain rule of the KL divergence puts both into one sum. A chain that starts from $N(0,I)$ and takes the best
# Gaussian step each time has *paths* $x_T,\dots,x_0$ whose law misses the true one by
#
# $$\mathrm{KL}\big(q(x_T)\,\|\,N(0,I)\big)+\sum_{k=1}^{T}E\,\mathrm{KL}\big(q(x_{k-1}\mid x_k)\,\|\,\text{best Gaussian}\big)\quad\text{nats}.$$
#
# The miss of the data alone, the end of the path, is at most this.


# %% tags=["formula", "L22-30"]
def from_noise(mixture, t, x):
    """KL(q(x_t) || N(0, 1)) in nats, by quadrature over x (N,)."""
    log_ratio = mixture.log_prob(x[:, None], t) - Normal(0.0, 1.0).log_prob(x)
    return average(log_ratio, mixture, x, t)


# %% tags=["formula", "L22-30"]
def walk_back(mixture, table, x):
    """Nats lost in the best Gaussian steps, and the density over x (N,) made of N(0, 1)."""
    lost, density = 0.0, Normal(0.0, 1.0).log_prob(x).exp()
    for k in range(table.T, 0, -1):
        kernel = reverse_kernel(mixture, table.at(k - 1), x, x, table.beta[k - 1])
        lost += average(gap(kernel, x), mixture, x, table.at(k))
        mean, variance = moments(kernel, x)
        bells = Normal(mean[:, None], variance.sqrt()[:, None]).log_prob(x).exp()
        density = density @ bells * (x[1] - x[0])
    return lost, density


# %% [markdown]
# **Check.** Chains that all end at $\bar\alpha_T=4\cdot10^{-5}$, and one with small steps but too few of them. The bumps are moved to 0
# and 2: off centre, an early end shows. The last column is no sum: it compares the density that comes out with that of the data.

# %% tags=["check", "L22-30"]
moved, x, rows = mixtures.Mixture(bumps.means + 1, 0.2), line(-4.5, 5.5, 161), []
for T, beta in [(5, 0.0494), *((T, 1 - 4e-5 ** (1 / T)) for T in (5, 20, 50, 200, 1000))]:
    table = equal_steps(beta, T)
    ends, (steps, density) = from_noise(moved, table.at(T), x), walk_back(moved, table, x)
    log_ratio = moved.log_prob(x[:, None], table.at(0)) - density.log()
    losses = (ends, steps, average(log_ratio, moved, x, table.at(0)))
    rows.append((T, f"{beta:.4f}", f"{table.alpha_bar[T]:.1g}", *(round(v, 4) for v in losses)))

# %% tags=["check", "L22-30"]
header = ["steps T", "β", "ᾱ_T", "nats at the end", "nats in the steps", "nats of the data"]
plots.table(rows, header=header, caption="Two conditions for Gaussian steps back")
few, *enough = rows
assert all(data <= ends + steps for *_, ends, steps, data in rows)
assert few[3] > 0.1 > 0.01 > max(row[3] for row in enough)  # small steps that do not reach noise
assert all(a[4] > b[4] and a[5] > b[5] for a, b in pairwise(enough))
assert enough[-1][5] < 1e-3

# %% [markdown] tags=["L22-30"]
# Five large steps fail because they are large, five small ones because they stop on the way. A thousand lose a thousandth of a nat.

# %% [markdown] tags=["formula", "L6-06", "E-01"]
# ## 3. If we knew the picture
#
# **Story.** Condition on $x_0$ as well, and the way back becomes simple: now *both* factors of Bayes' rule are Gaussian in
# $x_{k-1}$, and so is their product, exactly and for every $\beta$:
#
# $$q(x_{k-1}\mid x_k,x_0)=N(\tilde\mu,\tilde\beta_kI),\quad
# \tilde\mu=\frac{\sqrt{\bar\alpha_{k-1}}\,\beta_k}{1-\bar\alpha_k}x_0+\frac{\sqrt{\alpha_k}\,(1-\bar\alpha_{k-1})}{1-\bar\alpha_k}x_k,\quad
# \tilde\beta_k=\frac{1-\bar\alpha_{k-1}}{1-\bar\alpha_k}\beta_k .$$
#
# As in lesson 03, $\alpha_k=1-\beta_k$, and `alpha_bar[0] = 1`.
#
# <details><summary>Derivation: complete the square</summary>
#
# Minus twice the logarithm of the product is, but for a constant, $(x_k-\sqrt{\alpha_k}x_{k-1})^2/\beta_k+(x_{k-1}-\sqrt{\bar\alpha_{k-1}}x_0)^2/(1-\bar\alpha_{k-1})$. The
# coefficient of $x_{k-1}^2$ is one over the variance: $\alpha_k/\beta_k+1/(1-\bar\alpha_{k-1})=1/\tilde\beta_k$,
# because $\alpha_k(1-\bar\alpha_{k-1})+\beta_k=1-\bar\alpha_k$. That of
# $-2x_{k-1}$, times the variance, is the mean: $\tilde\beta_k\big(\sqrt{\alpha_k}x_k/\beta_k+\sqrt{\bar\alpha_{k-1}}x_0/(1-\bar\alpha_{k-1})\big)=\tilde\mu$.
# </details>


# %% tags=["formula", "L6-05", "L6-06"]
def posterior(x, x0, k, table):
    """Mean and variance of q(x_{k-1} | x_k = x, x_0); k: a step in 1..T, or a tensor of steps."""
    beta, before, now = table.beta[k - 1], table.alpha_bar[k - 1], table.alpha_bar[k]
    mean = (before.sqrt() * beta * x0 + (1 - beta).sqrt() * (1 - before) * x) / (1 - now)
    return mean, (1 - before) / (1 - now) * beta


# %% [markdown]
# **Check.** The product of two Gaussians: precisions (inverse variances) add, and means are averaged with them.
# For all steps at once, but the first, where $x_0$ is known with infinite precision.

# %% tags=["check", "L6-05"]
schedule = DDPMSchedule()  # T = 1000, linear
k, betas = torch.arange(2, 1001), schedule.beta
x0, x = torch.randn(2, 999, dtype=torch.float64)
beta, before = betas[k - 1], schedule.alpha_bar[k - 1]
step, known = (1 - beta) / beta, 1 / (1 - before)  # the two precisions
by_bayes = (step * x / (1 - beta).sqrt() + known * before.sqrt() * x0) / (step + known)

# %% tags=["check", "L6-05"]
mean, variance = posterior(x, x0, k, schedule)
print(f"k = 300: mean {mean[298]:.8f} and {by_bayes[298]:.8f}")
assert (mean - by_bayes).abs().max() < 1e-10
assert (variance * (step + known) - 1).abs().max() < 1e-10

# %% [markdown] tags=["L6-05", "DS-55"]
# **The same mean from the noise (L6-05).** The pair $(x_0,\epsilon)$ has only one free member once $x_k$ is given. Put
# $x_0=(x_k-\sqrt{1-\bar\alpha_k}\,\epsilon)/\sqrt{\bar\alpha_k}$ into $\tilde\mu$, and most of it cancels. It is an identity, true for a *wrong* $\epsilon$ too:
# therefore a network's guess $\epsilon_\theta$ and the $\tilde x_0$ that goes with it give one and the same step (DS-55).


# %% tags=["formula", "L6-05", "DS-55"]
def mean_from_noise(x, eps, k, table):
    """(x - beta_k / sqrt(1 - alpha_bar_k) * eps) / sqrt(alpha_k)."""
    beta, now = table.beta[k - 1], table.alpha_bar[k]
    return (x - beta / (1 - now).sqrt() * eps) / (1 - beta).sqrt()


# %% tags=["check", "L6-05", "DS-55"]
k = torch.arange(1, 1001)
t = schedule.at(k)
x0, eps, wrong = torch.randn(3, 1000, dtype=torch.float64)
x = add_noise(x0, eps, t)
for name, noise in (("true noise", eps), ("wrong noise", wrong)):
    guess = (x - t.noise * noise) / t.signal
    one, other = posterior(x, guess, k, schedule)[0], mean_from_noise(x, noise, k, schedule)
    print(f"{name:11}, k = 300: {one[299]:.8f} and {other[299]:.8f}")
    assert (one - other).abs().max() < 1e-10

# %% [markdown] tags=["L6-06", "E-01"]
# **Is it so?** The lecture fixes the variance of a step to $\tilde\beta_k$ and leaves open what that is at $k=1$ (L6-06). *Predict:* $\tilde\beta_1$, its
# logarithm, and from which $k$ on $\tilde\beta_k$ and $\beta_k$ are the same to 2 %.

# %% tags=["check", "L6-06", "E-01"]
_, tilde = posterior(0, 0, k, schedule)
ratio = tilde / betas
print(
    f"β~ at k = 1, 2, 3: {tilde[0]:.0f}, {tilde[1]:.2e}, {tilde[2]:.2e}; log β~_1 {tilde[0].log()}"
)
print("β~ / β at k = 2, 5, 10, 100:", ", ".join(f"{ratio[k - 1]:.3f}" for k in (2, 5, 10, 100)))
close = int((ratio < 0.98).sum()) + 1
print(f"β~ and β agree to 2 % from k = {close} on")
assert tilde[0] == 0
assert (ratio[close - 1 :] >= 0.98).all()

# %% [markdown] tags=["L6-06", "E-01"]
# **Put right.** $\bar\alpha_0=1$ makes $\tilde\beta_1=0$: once $x_0$ is known, the last step is certain. Its logarithm is $-\infty$, so
# code that needs $\log\tilde\beta$ puts $\tilde\beta_2$ there.

# %% [markdown] tags=["formula", "DS-45", "L6-04"]
# ## 4. We do not know the picture
#
# **Story.** A sampler has $x_k$ only. So average section 3 over all pictures that may have led here. The mean $\tilde\mu$ is linear
# in $x_0$: put $E[x_0\mid x_k]$ into it. The variance is $\tilde\beta_k$ *plus* what the uncertain $x_0$ adds. There is a second way that
# never mentions $x_0$: as $x_k$ is $\sqrt{\alpha_k}\,x_{k-1}$ plus Gaussian noise of variance $\beta_k$, Tweedie's formula gives, on the line,
#
# $$E[x_{k-1}\mid x_k]=\frac{x_k+\beta_k\,\nabla\log q(x_k)}{\sqrt{\alpha_k}},\qquad
# \mathrm{Var}[x_{k-1}\mid x_k]=\frac{\beta_k}{\alpha_k}\big(1+\beta_k\,\nabla^2\log q(x_k)\big).$$
#
# The slope $\nabla\log q(x_k)$ is called the *score*; lesson 06 is about it.
#
# <details><summary>Derivation: differentiate under the integral</summary>
#
# Write $y$ for $x_{k-1}$ and $x$ for $x_k$: $q(x)=\int q(y)\,N(x;\sqrt{\alpha}\,y,\beta)\,dy$. The derivative of the bell in $x$ is itself
# times $w=(\sqrt{\alpha}\,y-x)/\beta$, so
# $\nabla\log q=q'/q=E[w\mid x]$: solve for $E[y\mid x]$. Once more, $q''/q=E[w^2\mid x]-1/\beta$, so $\nabla^2\log q=\mathrm{Var}[w\mid x]-1/\beta$, and
# $\mathrm{Var}[w\mid x]=\alpha\,\mathrm{Var}[y\mid x]/\beta^2$: solve for the variance.
# </details>


# %% tags=["formula", "L6-04"]
def moments_by_score(mixture, x, k, table):
    """Mean and variance of q(x_{k-1} | x_k = x) from the score and its derivative. x (B, 1)."""
    beta, x = table.beta[k - 1], x.detach().requires_grad_()
    score = mixture.score(x, table.at(k))
    (bend,) = torch.autograd.grad(score.sum(), x)
    mean = (x + beta * score) / (1 - beta).sqrt()
    return mean.detach(), beta / (1 - beta) * (1 + beta * bend)


# %% tags=["formula", "L6-04"]
def moments_by_pictures(mixture, x, k, table, before):
    """The same from q(x_0 | x_k): section 1 with one step from 0 to k, then section 3."""
    all_steps = reverse_kernel(mixture, table.at(0), before, x[:, 0], 1 - table.alpha_bar[k])
    x0, spread = (value[:, None] for value in moments(all_steps, before))
    mean, variance = posterior(x, x0, k, table)
    weight = posterior(x, x0 + 1, k, table)[0] - mean  # of x0 in the mean
    return mean, variance + weight**2 * spread


# %% [markdown]
# **Check.** Both ways, and the quadrature of section 1, which knows neither.

# %% tags=["check", "L6-04", "DS-44"]
k, x = 50, line(-2, 2, 81)[:, None]
kernel = reverse_kernel(pair, schedule.at(k - 1), fine, x[:, 0], schedule.beta[k - 1])
answers = {
    "by quadrature": [value[:, None] for value in moments(kernel, fine)],
    "by the score": moments_by_score(pair, x, k, schedule),
    "by the pictures": moments_by_pictures(pair, x, k, schedule, fine),
}

# %% tags=["check", "L6-04", "DS-44"]
wanted = answers["by quadrature"]
for name, found in answers.items():
    print(f"{name:15} at x = 0.3: mean {found[0][46, 0]:.8f}, variance {found[1][46, 0]:.8f}")
    assert (found[0] - wanted[0]).abs().max() < 1e-8
    assert (found[1] - wanted[1]).abs().max() < 1e-8

# %% [markdown] tags=["L6-04", "DS-45", "DS-46", "DS-47", "E-42"]
# **The model (L6-04, DS-45).** So a network has to supply a mean, and perhaps a variance:
# $p_\theta(x_{k-1}\mid x_k)=N(\mu_\theta(x_k,k),\sigma_k^2I)$, a *family* of models; section 1 says when it is a good one. To draw from it is
# Algorithm 2 of Ho et al. (DS-56): $x_{k-1}=\mu_\theta+\sigma_kz$ with fresh $z\sim N(0,I)$, here with a guess of the noise.


# %% tags=["formula", "L6-04", "DS-56"]
def algorithm_2(denoiser, x, table, sigma):
    """From x (B, *d) at step T down to x_0; sigma (T,) multiplies the fresh noise of the steps."""
    for k in range(table.T, 0, -1):
        eps = denoiser(x, table.at(k)).eps
        z = torch.randn_like(x) if k > 1 else torch.zeros_like(x)  # at last the mean itself
        x = mean_from_noise(x, eps, k, table) + sigma[k - 1] * z
    return x


# %% [markdown] tags=["DS-56", "E-45", "T-05"]
# **Is it so?** The lecture's last line calls $\sigma_k$ itself a variance (DS-56). *Predict:* with $\sigma_k=\tilde\beta_k$, how wide do samples
# of $N(1,0.5^2)$ come out?

# %% tags=["check", "L6-04", "DS-56", "E-45", "T-05"]
n, samples, start = 2000, {}, torch.randn(2000, 1, dtype=torch.float64)
for name, sigma in (("√β~", tilde.sqrt()), ("β~", tilde)):
    torch.manual_seed(1)
    samples[name] = x = algorithm_2(single, start, schedule, sigma)
    print(f"σ = {name:2}: mean {x.mean():.2f}, standard deviation {x.std():.2f}")
    assert abs(x.mean() - 1) < 4 * 0.5 / n**0.5
assert abs(samples["√β~"].std() - 0.5) < 4 * 0.5 / (2 * n) ** 0.5
assert samples["β~"].std() < 0.1

# %% tags=["check", "L6-04", "DS-56"]
torch.manual_seed(1)
ours = samples["√β~"]
library = last(ddpm(single, start, grid(schedule, 1000)))
print(f"first sample: ours {ours[0, 0]:.6f}, the library's {library[0, 0]:.6f}")
assert (ours - library).abs().max() < 1e-9

# %% [markdown] tags=["L6-04", "DS-46", "DS-47", "E-42", "DS-56", "E-45"]
# **Put right.** $\sigma_k$ is a standard deviation. A whole path has the density (DS-46) $p_\theta(x_{0:T})=p(x_T)\prod_kp_\theta(x_{k-1}\mid x_k)$.
#
# **Is it so?** One slide writes the first factor as $N(x_t;0,I)$ (DS-47), at any $t$. *Predict* after how many steps of 1000 the
# two bumps are within 0.01 nats of $N(0,1)$.

# %% tags=["check", "DS-47", "E-42"]
distance = {k: from_noise(pair, schedule.at(k), line(-8, 8, 401)) for k in range(1, 1001)}
for k in (1, 100, 300, 1000):
    print(f"KL(q(x_k) || N(0, 1)) at k = {k:4}: {abs(distance[k]):.4f} nats")
reached = next(k for k in distance if distance[k] < 0.01)
print(f"below 0.01 nats from step {reached} on")
assert distance[1] > 0.3 > distance[100] > 0.01 > distance[300] > distance[1000]

# %% [markdown] tags=["DS-46", "DS-47", "E-42"]
# **Put right.** $p(x_T)=N(x_T;0,I)$, at the end only, and without parameters. The check: a path of ten steps has a finite
# log-density; the steps pass gradients to the network, the prior none. (With the variance $\tilde\beta$ it would not be finite: $\tilde\beta_1=0$.)

# %% tags=["check", "DS-46"]
table, path, k = equal_steps(0.5, T=10), [pair.sample(1)[0]], torch.arange(1, 11)
for beta in table.beta:
    path.append(torch.normal((1 - beta).sqrt() * path[-1], beta.sqrt()))
path, net = torch.cat(path), networks.MLP((1,), width=8, depth=1).double()  # path: x_0 .. x_10
x0 = Denoiser(net, "eps")(path[1:], table.at(k)).x0[:, 0]
mean, _ = posterior(path[1:, 0], x0, k, table)
steps = Normal(mean, table.beta.sqrt()).log_prob(path[:-1, 0]).sum()
prior = Normal(0.0, 1.0).log_prob(path[-1]).sum()

# %% tags=["check", "DS-46"]
print(f"log p(x_T) = {prior:.2f} (has a gradient: {prior.requires_grad}), steps {steps:.2f}")
assert (prior + steps).isfinite()
assert not prior.requires_grad
steps.backward()
assert any(p.grad is not None and p.grad.abs().max() > 0 for p in net.parameters())

# %% [markdown] tags=["formula", "L6-07", "DS-45", "E-02"]
# ## 5. Which variance?
#
# **Is it so?** One lecture takes the variance "from the schedule" (L6-07), the other has it learnt (DS-45). DDPM fixes it, to $\tilde\beta_k$ or to
# $\beta_k$; learning it came later (Nichol & Dhariwal 2021). What is right?
#
# **Formula.** Data $N(m,s^2)$ on the line have $V_k=\bar\alpha_ks^2+1-\bar\alpha_k$ as variance of $x_k$. Put $\nabla^2\log q(x_k)=-1/V_k$
# and $V_k=\alpha_kV_{k-1}+\beta_k$
# into section 4: the exact variance of a step back is $\beta_kV_{k-1}/V_k$. A wrong one, $\sigma_k^2$, costs
#
# $$\tfrac12\,(r-1-\log r)\ \text{nats},\qquad r=\frac{\text{exact variance}}{\sigma_k^2} .$$
#
# *Predict first:* for which data is $\beta$ exact, and for which $\tilde\beta$?


# %% tags=["formula", "L6-07"]
def cost(exact, chosen):
    """KL(N(m, exact) || N(m, chosen)) in nats."""
    r = exact / chosen
    return (r - 1 - r.log()) / 2


# %% tags=["formula", "L6-06", "L6-07"]
def variances(table, s):
    """Three variances for the steps 1..T of data N(m, s^2): beta tilde, beta, and exact."""
    tilde = posterior(0, 0, torch.arange(1, table.T + 1), table)[1]
    spread = table.alpha_bar * s**2 + 1 - table.alpha_bar
    return {"β~": tilde, "β": table.beta, "exact": table.beta * spread[:-1] / spread[1:]}


# %% tags=["formula", "E-01"]
def cut(tilde):
    """beta tilde, with its second value in the place of the first, 0, which has no logarithm."""
    return torch.cat([tilde[1:2], tilde[1:]])


# %% tags=["check", "L6-07"]
k, n, options = 10, 100_000, variances(schedule, s=0.5)
exact, chosen = options["exact"][k - 1], options["β~"][k - 1]
_, by_score = moments_by_score(single, torch.zeros(1, 1).double(), k, schedule)
print(f"exact variance at step 10: {exact:.8f}, by the score {by_score.item():.8f}")
assert abs(exact - by_score.item()) < 1e-10

# %% tags=["check", "L6-07"]
z = torch.normal(0.0, exact.sqrt().expand(n))
ratio = Normal(0.0, exact.sqrt()).log_prob(z) - Normal(0.0, chosen.sqrt()).log_prob(z)
print(f"cost of β~ at step 10: {cost(exact, chosen):.4f} nats, Monte Carlo {ratio.mean():.4f}")
assert abs(ratio.mean() - cost(exact, chosen)) < 4 * ratio.std() / n**0.5

# %% tags=["check", "L6-07", "DS-45", "E-02"]
rows, end = [], schedule.at(1000)
for s in (0.1, 1.0, 10.0):
    exact = variances(schedule, s)["exact"]
    assert ((exact >= tilde) & (exact <= betas / (1 - betas))).all()
    last_law = Normal(0.0, ((end.signal * s) ** 2 + end.noise**2).sqrt())
    ends = kl_divergence(last_law, Normal(0.0, 1.0))
    totals = [(cost(exact, v).sum() + ends).item() for v in (cut(tilde), betas, exact)]
    assert totals[2] < totals[1] + 1e-12 < totals[0]
    rows.append((s**2, *(f"{nats:.4f}" for nats in totals), f"{(exact / betas).max():.4f}"))

# %% tags=["check", "L6-07", "DS-45", "E-02"]
header = ["variance of data", "with β̃", "with β", "exact", "largest exact / β"]
plots.table(rows, header=header, caption="Nats per dimension lost by 1000 steps (linear table)")
assert cost(variances(schedule, 1.0)["exact"], betas).sum() < 1e-12
assert (variances(schedule, 0.0)["exact"] - tilde).abs().max() < 1e-12
wasted = cost(variances(schedule, 0.5)["exact"], cut(tilde))
shares = ", ".join(f"{nats:.2f}" for nats in (wasted[0], wasted[1], wasted[2:].sum()))
print(f"data of variance 0.25: β~ wastes {shares} nats at step 1, at step 2, and later")
assert wasted[:2].sum() > wasted.sum() / 2

# %% [markdown] tags=["L6-07", "DS-45", "E-02"]
# **Put right.** It is a choice, not a theorem. $\tilde\beta$ is exact if the data are one point, $\beta$ if they are $N(0,1)$; narrower data lie between, and
# wider data a little *above* $\beta$ (never above $\beta/\alpha$). (A width of 0.1 is far from a point: it is ten times $\sqrt{\beta_1}$.) In likelihood $\tilde\beta$
# wastes half a nat per dimension, for such bells and 1000 linear steps. More than half of it sits in steps 1 and 2, and what step 1 pays is up to the
# convention in `cut`. Do samples show it?

# %% tags=["L6-07"]
k = torch.tensor([1, 2, 3, 5, 7, 10, 20, 30, 50, 70, 100, 200, 300, 500, 700, 1000])
exact = variances(schedule, s=0.5)["exact"]
curves = {
    r"$\tilde\beta$": (k, cost(exact, cut(tilde))[k - 1]),
    r"$\beta$": (k, cost(exact, betas)[k - 1]),
}
plots.show(
    plots.lines(curves, xlabel="step k", ylabel="nats lost in this step", log=True),
    alt="Nats lost in each step, both axes logarithmic. With β̃ 0.1 to 0.2 at steps 1 and 2, and "
    "ever less from there on; with β a few millionths at most. They cross near step 200.",
    caption="Data N(m, 0.25): the waste of β̃ sits in the last few steps back.",
)


# %% tags=["formula", "L6-07"]
def made(mean, variance, table, m=1.0, s=0.5):
    """Exact mean and std of what a chain makes of N(0, 1) with the exact eps of data N(m, s^2).

    mean(x, eps, k, table) is affine here, so two points tell it; variance (T,).
    """
    k, ends = torch.arange(1, table.T + 1), torch.tensor([[0.0], [1.0]]).double()
    t = table.at(k)
    eps = t.noise * (ends - t.signal * m) / ((t.signal * s) ** 2 + t.noise**2)
    low, high = mean(ends, eps, k, table)
    center, spread = 0.0, 1.0
    for a, b, v in reversed([*zip(low, high - low, variance, strict=True)]):
        center, spread = a + b * center, b**2 * spread + v
    return center.item(), spread.sqrt().item()


# %% tags=["formula"]
def coarser(table, T):
    """The same way in T steps instead of table.T, a multiple of it."""
    alpha_bar = table.alpha_bar[:: table.T // T]
    return DDPMSchedule(T, 1 - alpha_bar[1:] / alpha_bar[:-1])


# %% tags=["formula"]
def silent(variance):
    """The same variances (T,), but no noise in the last step."""
    return torch.cat([torch.zeros(1), variance[1:]])


# %% tags=["check", "L6-07", "E-02"]
rows = []
for T in (10, 50, 1000):
    table = coarser(schedule, T)
    _, beta, exact = options = variances(table, s=0.5).values()
    stds = [made(mean_from_noise, v, table)[1] for v in (*options, silent(beta), silent(exact))]
    rows.append((T, *(round(std, 3) for std in stds)))
    assert abs(stds[2] - 0.5) < 1e-6
    assert stds[0] < stds[4] < stds[2] < stds[1]

# %% tags=["check", "L6-07", "E-02"]
header = ["steps", "β̃", "β", "exact", "β, silent last step", "exact, silent last step"]
plots.table(rows, header=header, caption="Standard deviation of samples (data: 0.5)")
assert rows[0][5] < 0.42 < 0.58 < rows[0][2]  # one too few noises, or too much of each
assert abs(rows[0][4] - 0.5) < 0.01  # by luck
assert all(abs(std - 0.5) < 0.005 for std in rows[2][1:])

# %% [markdown]
# With many steps samples hardly depend on the choice; likelihood does, and so do short chains. There the last step matters, too: DDPM adds no noise in it
# (for $\tilde\beta$, 0 anyhow), which narrows even the exact chain. $\beta$ looks good at ten steps by luck: its excess noise makes up for the noise
# left out in the last step.
#
# **Play.** Between the two: $\log\sigma^2=v\log\beta+(1-v)\log\tilde\beta$, with $v$ learnt, is the model of Nichol & Dhariwal (2021, eq. 15). Find the best $v$
# for 10 steps, once by the nats and once by the picture. (Here every step adds its noise, the last one too, so that both speak of the same chain.)


# %% tags=["play", "DS-45"]
def mixed(table, v, s=0.5):
    """Mean and std of what a chain makes, and nats lost; v: from beta tilde, 0, to beta, 1."""
    tilde, beta, exact = variances(table, s).values()
    chosen = (v * beta.log() + (1 - v) * cut(tilde).log()).exp()
    return *made(mean_from_noise, chosen, table, s=s), cost(exact, chosen).sum().item()


# %% tags=["play", "DS-45"]
def between(fine_table, data):
    """Frames of the bell that a chain of T steps makes beside that of the data."""
    x = line(-1.5, 3.5, 201)
    bell = data.log_prob(x[:, None], fine_table.at(0)).exp()

    def frames(v, T):
        mean, std, nats = mixed(coarser(fine_table, T), v)
        model = Normal(mean, std).log_prob(x).exp()
        figure = plots.densities(x, {"exact": bell, "model": model})
        figure.axes[0].set(ylim=(0, 1.3))
        figure.axes[0].legend(loc="upper right")  # and stays there
        yield widgets.Frame(plots.png(figure), f"std {std:.3f} (0.5); steps lose {nats:.3f} nats")

    return frames


# %% tags=["play", "DS-45"]
variance_play = widgets.Explorer(
    between(schedule, single),
    {
        "v": widgets.slider("v (0: β̃, 1: β) =", 0.0, 1.0, value=0.0, step=0.1),
        "T": widgets.choice("steps", [10, 50, 250, 1000], value=10),
    },
)
variance_play.show(
    alt="the bell of the data and the bell that the chain makes: with ten steps it is too narrow "
    "at v = 0, right near v = 0.5, too wide at v = 1; with a thousand it lies on that of the data",
    still_over="v",
)

# %% tags=["check"]
ten = variance_play.readout
variance_play["T"].value = 1000
variance_play.wait()
print(ten, variance_play.readout, sep="\n")
assert ten.startswith("std 0.437")
assert variance_play.readout.startswith("std 0.496")
variance_play["T"].value = 10

# %% tags=["check", "DS-45"]
tries = {v / 10: mixed(coarser(schedule, 10), v / 10) for v in range(11)}
by_nats = min(tries, key=lambda v: tries[v][2])
by_picture = min(tries, key=lambda v: abs(tries[v][1] - 0.5))
print(f"ten steps: the best v is {by_nats} by the nats, {by_picture} by the picture")
assert abs(by_nats - by_picture) < 0.15

# %% [markdown] tags=["DS-45"]
# The two agree, but for a notch. With a silent last step the picture would have said $v=1$, by the luck of above.

# %% [markdown] tags=["exercise"]
# **Exercise 2.** As data become wider and wider, $s\to\infty$, to what does the exact variance of a step back tend? Why, in a
# sentence?
#
# <details><summary>Answer</summary>
#
# $V_{k-1}/V_k\to\bar\alpha_{k-1}/\bar\alpha_k=1/\alpha_k$, so it tends to $\beta_k/\alpha_k$. A flat prior says nothing: the step back is then the step
# forward solved for $x_{k-1}=(x_k-\sqrt{\beta_k}z)/\sqrt{\alpha_k}$.
# </details>

# %% [markdown] tags=["formula", "DS-23", "DS-24"]
# ## 6. Backwards in continuous time
#
# **Story.** Let the steps shrink: $\beta_k=\beta(u)\,du$. Up to $\beta_k^2$ the mean of section 4
# becomes $x+\big(\tfrac12\beta(u)x+\beta(u)\nabla\log q\big)du$, and
# the variance $\beta(u)\,du$. So the forward equation $dX=a(X,u)\,du+\sigma(u)\,dW$ with $a=-\tfrac12\beta(u)x$ and $\sigma^2=\beta(u)$ has a reverse. In the time
# $\tau=1-u$, which *increases* while we walk back (Anderson 1982),
#
# $$d\bar X=\big[-a(\bar X,1-\tau)+\sigma^2(1-\tau)\,\nabla\log p_{1-\tau}(\bar X)\big]\,d\tau+\sigma(1-\tau)\,d\bar W .$$

# %% tags=["check", "DS-23"]
x, score = 1.0, -2.0
for beta in (0.1, 0.01, 0.001):
    step, equation = (x + beta * score) / math.sqrt(1 - beta), x + beta / 2 * x + beta * score
    second = (step - equation) / beta**2
    print(f"β = {beta:5}: a step {step:.7f}, the equation {equation:.7f}, apart {second:.3f} β²")
    assert abs(second - (3 / 8 * x + score / 2)) < beta


# %% tags=["formula", "twin:didiff.sde.reverse", "DS-23", "DS-24", "E-38"]
def reverse(sde, score, end=1.0):
    """The SDE of the same process backwards; score: (x, u) -> grad log p_u(x)."""

    def drift(x, tau):
        u = end - tau
        return -sde.drift(x, u) + sde.diffusion(u) ** 2 * score(x, u)

    return SDE(drift, lambda tau: sde.diffusion(end - tau))


# %% [markdown] tags=["DS-23", "DS-24", "E-38"]
# **Is it so?** The lecture writes the drift as $a-\sigma^2\nabla\log p$, everything at time $t$, with the same $W$ (DS-23, DS-24). That is
# Anderson's formula, and right, if time runs *down* ($dt<0$). Programmed with a positive step it has two wrong signs and a wrong clock.
# Four candidates: *as on the slide*; *clock not turned* (both signs right); *sign of the score wrong* and *sign of $a$ wrong* (clock turned, the
# other sign right). *Predict* what each does to data $N(2,0.5^2)$ under $dX=-3X\,du+\sqrt6\,dW$.


# %% tags=["DS-23", "DS-24", "E-38", "T-29"]
def fading_score(x, u):
    """The exact score of data N(2, 0.5^2) at time u, when exp(-6 u) of its variance is left."""
    left = torch.exp(-6 * u)
    return (2 * left.sqrt() - x) / (1 - 0.75 * left)


# %% tags=["DS-23", "DS-24", "E-38", "T-29"]
def variant(sde, score, of_drift, of_score, clock):
    """The reverse with a sign for each of its terms, and a clock tau -> u."""

    def drift(x, tau):
        u = clock(tau)
        return of_drift * sde.drift(x, u) + of_score * sde.diffusion(u) ** 2 * score(x, u)

    return SDE(drift, lambda tau: sde.diffusion(clock(tau)))


# %% tags=["DS-23", "DS-24", "E-38", "T-29"]
fading = SDE(lambda x, u: -3 * x, lambda u: 6**0.5)
MISTAKES = {
    "T-29: as on the slide": (+1, -1, lambda tau: tau),
    "T-29: clock not turned": (-1, +1, lambda tau: tau),
    "T-29: sign of the score wrong": (-1, -1, lambda tau: 1 - tau),
    "T-29: sign of a wrong": (+1, +1, lambda tau: 1 - tau),
}
equations = {name: variant(fading, fading_score, *mistake) for name, mistake in MISTAKES.items()}


# %% [markdown]
# **Check.** All of these equations are linear, so two points tell each Euler step, and mean and variance can be carried along
# exactly. Beside them 2,000 simulated paths.


# %% tags=["formula"]
def carried(sde, mean, variance, times):
    """Mean and std at the end of Euler's method for a drift that is affine in x."""
    ends = torch.tensor([0.0, 1.0]).double()
    for now, du in zip(times, times.diff(), strict=False):
        low, high = ends + sde.drift(ends, now) * du
        mean, variance = low + (high - low) * mean, (high - low) ** 2 * variance
        variance = variance + sde.diffusion(now) ** 2 * du
    return mean.item(), variance.sqrt().item()


# %% tags=["check", "DS-23", "DS-24", "E-38", "T-29"]
times, n, walks = line(0, 1, 1001), 2000, {}
mean, variance = 2 * math.exp(-3), 1 - 0.75 * math.exp(-6)  # of x at u = 1
start = mean + variance**0.5 * torch.randn(n, 1, dtype=torch.float64)
for name, equation in {"right": reverse(fading, fading_score), **equations}.items():
    paths = torch.stack([*simulate(equation, start, times)])[..., 0]
    m, s = carried(equation, mean, variance, times)
    assert abs(paths[-1].mean() - m) < 4 * s / n**0.5
    assert abs(paths[-1].std() - s) < 4 * s / (2 * n) ** 0.5
    walks[name] = paths, m, s

# %% tags=["check", "DS-23", "DS-24", "E-38", "T-29"]
exhibits = museum.inspect(
    walks,
    eye={
        "mean": Check(lambda walk: walk[0][-1].mean(), wanted=2, slack=0.06),
        "std": Check(lambda walk: walk[0][-1].std(), wanted=0.5, slack=0.06),
    },
    units={
        "exact mean": Check(lambda walk: walk[1], wanted=2, slack=0.05),
        "exact std": Check(lambda walk: walk[2], wanted=0.5, slack=0.02),
    },
)


# %% tags=["DS-23", "T-29"]
def bundle(paths, times, ax):
    """Forty of the paths over time."""
    plots.paths(times[::10], paths[::10, :40], role="model", xlabel="τ", ax=ax)
    ax.set(ylim=(-3, 4))


# %% tags=["DS-23", "DS-24", "E-38", "T-29"]
museum.show(
    exhibits,
    caption="Five ways to walk back to N(2, 0.5²), 1000 steps",
    draw=lambda one, ax: bundle(one.version[0], times, ax),
    alt="Five bundles of forty paths that start around 0. Right: they gather around 2 in the end. "
    "As on the slide, and with the sign of the score wrong: they leave the picture, down or to "
    "both sides. Clock not turned: they jump to 1.5 at once and spread again. Sign of a wrong: a "
    "bundle too narrow all the way, which ends around 1.4.",
)
*_, far = walks["T-29: sign of the score wrong"]
print(f"sign of the score wrong: standard error of the mean {far / n**0.5:.0f}")

# %% [markdown] tags=["T-29"]
# A simulated mean of hundreds does not contradict the exact $-0.24$: these paths fly off to both sides, and the mean of 2,000 has a standard error of
# 780. Each mistake has its own *pair* of numbers; two of them even look like samples of something.

# %% [markdown] tags=["DS-24", "E-38"]
# **The same $W$?** Look at one forward step, $x_k=\sqrt{1-\beta}\,x_{k-1}+\sqrt\beta\,z$. *Predict* the correlation of $z$ with $x_k$, the place where the way back
# begins. If it is not 0, then $z$ cannot be the fresh noise of that way.

# %% tags=["check", "DS-24", "E-38"]
n, k = 200_000, 500
before, z = single.sample(n)[0], torch.randn(n, 1, dtype=torch.float64)
before = add_noise(before, torch.randn_like(before), schedule.at(k - 1))
x = (1 - betas[k - 1]).sqrt() * before + betas[k - 1].sqrt() * z

# %% tags=["check", "DS-24", "E-38"]
found = torch.corrcoef(torch.cat([z, x], 1).T)[0, 1]
spread = schedule.alpha_bar[k] * 0.25 + 1 - schedule.alpha_bar[k]
expected = (betas[k - 1] / spread).sqrt()
print(f"correlation of z with where it led: {found:.3f}, predicted {expected:.3f}")
assert abs(found - expected) < 4 / n**0.5
assert expected > 10 / n**0.5

# %% [markdown] tags=["DS-24", "E-38"]
# The old noise knows where it led: for variance $V_k$ the correlation is $\sqrt{\beta/V_k}$. Its predictable
# part, $E[z\mid x_k]=-\sqrt\beta\,\nabla\log q$, *is* the score term of the drift; what remains is
# the new process $\bar W$. One more condition is silent on the slide: $\sigma$ must not depend on $x$. Otherwise the drift gains the derivative of $\sigma^2$.
# The test case: on the line, a process in equilibrium (without flux) looks the same in both directions, so its reversed drift must be $a$ again. No flux means
# $a\,p=\tfrac12(\sigma^2p)'$, that is $a=\tfrac12\big((\sigma^2)'+\sigma^2(\log p)'\big)$.

# %% tags=["check", "DS-24", "E-38"]
x = line(-2, 2, 41).requires_grad_()
square = 1 + x**2  # σ² at x, and p = N(0, 1) at all times
(slope,) = torch.autograd.grad(square.sum(), x)
(score,) = torch.autograd.grad(Normal(0.0, 1.0).log_prob(x).sum(), x)
a = (slope + square * score) / 2  # the drift that keeps p in equilibrium

# %% tags=["check", "DS-24", "E-38"]
for name, drift in (("without", -a + square * score), ("with", -a + square * score + slope)):
    print(f"{name:7} the derivative of σ²: misses a by up to {(drift - a).abs().max():.3f}")
assert (-a + square * score + slope - a).abs().max() < 1e-12

# %% [markdown] tags=["exercise"]
# **Exercise 3.** Data $N(0,1)$ stay $N(0,1)$ under $dX=-\tfrac12\beta X\,du+\sqrt\beta\,dW$ with a constant $\beta$. What is the reverse equation?
# Try it with `reverse`.
#
# <details><summary>Answer</summary>
#
# The score is $-x$, so the drift is $\tfrac12\beta x-\beta x=-\tfrac12\beta x$: the same equation. A film of this process shows no direction of
# time. (If $\beta$ depends
# on $u$, it runs through its values backwards.)
# </details>

# %% [markdown] tags=["DS-45", "L6-04"]
# ## 7. An encoder and a decoder in one dimension
#
# **Story.** Until now nothing was learnt. Notebooks 18.1 and 18.2 of Prince's book do it in the plainest way: an *encoder* that noises
# numbers in 100 steps, and a *decoder* with a separate little function $f_k$ for each step, which learns to guess $x_{k-1}$ from $x_k$ by
# least squares,
#
# $$\min_{f_k}\;E\,\big(x_{k-1}-f_k(x_k)\big)^2\qquad\Longrightarrow\qquad f_k(x)=E[x_{k-1}\mid x_k=x] .$$
#
# (The book fills a look-up table. We train a hundred networks side by side, 16 hidden units each.)


# %% tags=["formula"]
class Steps(torch.nn.Module):
    """f_k(x) = x + c_k . tanh(a_k x + b_k): a small network for each k = 1..T."""

    def __init__(self, T, width=16):
        super().__init__()
        self.a = torch.nn.Parameter(2 * torch.randn(T, width))
        self.b = torch.nn.Parameter(2 * torch.randn(T, width))
        self.c = torch.nn.Parameter(torch.zeros(T, width))  # f_k(x) = x at first

    def forward(self, x, k):  # x (.., n), k (..)
        a, b, c = (p[k - 1].unsqueeze(-2) for p in (self.a, self.b, self.c))  # (.., 1, width)
        return x + (torch.tanh(x[..., None] * a + b) @ c.mT)[..., 0]


# %% tags=["formula"]
def encode(mixture, table, n):
    """For each step k = 1..T, n pairs of neighbours (x_{k-1}, x_k): two tensors (T, n)."""
    s, x0 = table.at(torch.arange(table.T)), mixture.sample(table.T * n)[0].reshape(-1, n).float()
    before, beta = add_noise(x0, torch.randn_like(x0), s), table.beta[:, None].to(x0)
    return before, (1 - beta).sqrt() * before + beta.sqrt() * torch.randn_like(x0)


# %% tags=["formula"]
def train(net, mixture, table, steps, n=128):
    """Least squares for all steps at once, on fresh pairs; the learning rate falls to 0."""
    optimiser, k = torch.optim.Adam(net.parameters()), torch.arange(1, table.T + 1)
    for i in range(steps):
        before, x = encode(mixture, table, n)
        loss = (net(x, k) - before).square().mean()
        optimiser.param_groups[0]["lr"] = 0.005 * (1 - i / steps)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return loss.item()


# %%
hundred = equal_steps(0.03, T=100)
net = Steps(hundred.T)
loss = train(net, pair, hundred, steps=600)
print(f"mean square error after training {loss:.3f}, variance of a step 0.030")


# %% [markdown]
# **Check.** Section 4 knows the answer for every $f_k$. The fair unit is the noise of a step, $\sqrt\beta=0.17$.

# %% tags=["check"]
x = torch.linspace(-1.5, 1.5, 61)
misses = []
for k in range(1, 101):
    wanted = moments_by_score(pair, x.double()[:, None], k, hundred)[0][:, 0]
    weight = pair.log_prob(x.double()[:, None], hundred.at(k)).softmax(0)
    misses.append((weight * (net(x, torch.tensor(k)).detach() - wanted) ** 2).sum().sqrt().item())
miss = sum(misses) / 100
print(f"f_k misses E[x_(k-1) | x_k] by {miss:.3f} on average; √β is {0.03**0.5:.3f}")
assert miss < 0.1 * 0.03**0.5


# %% [markdown]
# **Decode.** Start from $N(0,1)$, apply $f_{100}$, add noise of variance $\beta$, and so on; in the last step no noise.


# %% tags=["formula", "L6-04"]
@torch.no_grad()
def decode(net, x, table):
    """All states, from x_T down to x_0: (T + 1, n)."""
    states = [x]
    for k in range(table.T, 0, -1):
        noise = table.beta[k - 1].sqrt() * torch.randn_like(x) if k > 1 else 0.0
        states.append(x := net(states[-1], torch.tensor(k)) + noise)
    return torch.stack(states)


# %%
n = 20_000
film = decode(net, torch.randn(n), hundred)
x, k = line(-3, 3, 61), torch.arange(101)
forwards = torch.stack([pair.log_prob(x[:, None], hundred.at(step)).exp() for step in k], 1)
counts = torch.stack([torch.histc(states, 61, -3.05, 3.05) for states in film.flip(0)], 1)
backwards = counts / (0.1 * n)

# %%
figure, axes = plots.panels(2, size=(4.3, 2.8))
films = {"encoder, exact": forwards, "decoder, 20,000 samples": backwards}
for ax, (name, density) in zip(axes, films.items(), strict=True):
    plots.heatmap(k, x, density, labels=("step k", "x", ""), ax=ax)
    ax.set_title(name)
    ax.collections[0].set_clim(0, 0.75)
figure.colorbar(axes[0].collections[0], ax=axes, label="density")
plots.show(
    figure,
    alt="Two heat maps over steps 0 to 100 and x that look alike: two bright spots at -1 and +1 at "
    "step 0, which widen and melt into one band around 0. The decoder's is a little grainier, and "
    "its spots at step 0 are brighter.",
    caption="The encoder runs from left to right, the decoder from right to left.",
)

# %% tags=["check", "DS-45"]
real, others = pair.sample(n)[0], pair.sample(n)[0]
level = hundred.at(1)
silenced = pair(add_noise(real, torch.randn_like(real), level), level).x0  # E[x0 | x1]
sets = {"decoded": film[-1], "last step only": silenced, "data": real, "noise": film[0]}
apart = {
    name: metrics.wasserstein_1d(values.double().flatten(), others.flatten())
    for name, values in sets.items()
}

# %% tags=["check", "DS-45"]
print("W₁ to data:", ", ".join(f"{name} {w:.2f}" for name, w in apart.items()))
width, formula = silenced[real > 0].std(), 0.97**0.5 * 0.09 / (0.97 * 0.09 + 0.03) ** 0.5
print(f"a bump after a silent last step: std {width:.2f}, by formula {formula:.2f}, data 0.30")
assert apart["decoded"] < 0.1 < apart["noise"]
assert apart["data"] < apart["last step only"]
chance = (2 / n) ** 0.5  # how far two samples of n points are apart, in order of magnitude
assert abs(apart["decoded"] - apart["last step only"]) < 3 * chance
assert abs(width - formula) < 0.01

# %% [markdown] tags=["exercise"]
# The films agree, but for the last picture, and there the nets are not to blame: a silent last step returns $E[x_0\mid x_1]$,
# and that alone narrows a bump from 0.30 to 0.26. **And look at what the least squares had to swallow:** the loss stays near $\beta$, almost all of
# it fresh noise that nobody can
# guess, and the useful part of $f_k(x)-x$ hides below it. Lesson 05 takes that noise out of the target.
#
# **Exercise 4.** A widely read notebook guards the last step by `if t > 0:` inside `for t in range(T, 0, -1)`. (a) Does the guard ever say
# no? Let $\beta=0.0151$ at all steps, and the data a bump of standard deviation $s=0.075$. Suppose that $x_1$ has its exact law, of
# variance $V_1=\alpha s^2+\beta$ with
# $\alpha=1-\beta$, and that the mean is exact, $E[x_0\mid x_1]$. How wide does the bump come out (b) without noise in the last step, (c) with noise
# of variance $\beta$?
#
# <details><summary>Answer</summary>
#
# (a) Never: $t$ ends at 1. (b) The spread of the guesses, $s^2\sqrt{\alpha}/\sqrt{V_1}=0.039$. (c) $\sqrt{0.039^2+0.0151}=0.129$. Neither 0
# nor $\beta$ is the right variance
# for so coarse a first step: it is $\beta s^2/V_1=0.0041$, and $0.039^2+0.0041=0.075^2$.
# </details>

# %% [markdown] tags=["T-02", "T-04", "T-05", "T-06"]
# ## 8. Bug museum
#
# Six ways to get Algorithm 2 wrong: a root, a power or a bar in the mean (T-04), the variance where a standard deviation belongs (T-05), an index that wraps
# to the other end of the table (T-02), noise in the last step (T-06). *Predict:* which of them leaves samples of $N(1,0.5^2)$ that look right?


# %% tags=["T-04"]
def no_root(x, eps, k, table):
    return mean_from_noise(x, eps, k, table) * (1 - table.beta[k - 1]).sqrt()


def by_variance(x, eps, k, table):
    return mean_from_noise(x, eps / (1 - table.alpha_bar[k]).sqrt(), k, table)


def bar_for_alpha(x, eps, k, table):
    return no_root(x, eps, k, table) / table.alpha_bar[k].sqrt()


# %% tags=["T-02", "T-04", "T-05", "T-06"]
short = torch.cumprod(1 - betas, 0)  # no entry for k = 0
wrapped = betas * (1 - short[torch.arange(-1, 999)]) / (1 - short)
VERSIONS = {
    "right": (mean_from_noise, tilde),
    "T-04: no 1/√α": (no_root, tilde),
    "T-04: β/(1-ᾱ)": (by_variance, tilde),
    "T-04: ᾱ for α": (bar_for_alpha, tilde),
    "T-05: variance as σ": (mean_from_noise, tilde**2),
    "T-02: index wraps": (mean_from_noise, wrapped),
    "T-06: noise at k = 1": (mean_from_noise, torch.cat([betas[:1], tilde[1:]])),
}

# %% [markdown]
# **The checks.** The eye sees the mean and the standard deviation of what a version makes, here exact (`made`). The unit checks look at single
# steps: at five random ones the mean must be that of section 3 for a true $\epsilon$; the variance must be 0 at $k=1$, and within 0.5 % of
# $\beta_k$ at $k=500$, where $\tilde\beta$ and $\beta$ agree.

# %% tags=["check", "T-02", "T-04", "T-05", "T-06"]
k = torch.randint(2, 1001, (5,))
x0, eps = torch.randn(2, 5, dtype=torch.float64)
x = add_noise(x0, eps, schedule.at(k))
wanted = posterior(x, x0, k, schedule)[0]
exhibits = museum.inspect(
    VERSIONS,
    eye={
        "mean": Check(lambda v: made(*v, schedule)[0], wanted=1, slack=0.05),
        "std": Check(lambda v: made(*v, schedule)[1], wanted=0.5, slack=0.05),
    },
    units={
        "μ off by": Check(lambda v: (v[0](x, eps, k, schedule) - wanted).abs().max(), wanted=0),
        "σ² at 1": Check(lambda v: v[1][0], wanted=0),
        "σ²/β at 500": Check(lambda v: v[1][499] / betas[499], wanted=1, slack=0.005),
    },
)
assert [one.name for one in exhibits if not one.visible] == ["right", "T-06: noise at k = 1"]


# %% tags=["T-02", "T-04", "T-05", "T-06"]
def bell(version, table, x, ax):
    """What a version makes of noise beside the exact N(1, 0.5^2)."""
    exact = Normal(1.0, 0.5).log_prob(x).exp()
    model = Normal(*made(*version, table)).log_prob(x).exp()
    plots.densities(x, {"exact": exact, "model": model}, ax=ax)
    ax.set(ylim=(0, 1.6))


# %% tags=["T-02", "T-04", "T-05", "T-06"]
museum.show(
    exhibits,
    caption="What each mistake makes of N(0, 1), and what sees it",
    draw=lambda one, ax: bell(one.version, schedule, line(-1.5, 3.5, 401), ax),
    alt="Seven pairs of bells. The right one and that with noise at k = 1 lie on the true bell. "
    "Without 1/√α it is a little too far left and too narrow; with β/(1-ᾱ), and with the variance "
    "as σ, it is a needle, cut off at the top; with the wrapped index it is more than twice too "
    "wide; with ᾱ for α there is nothing left to see.",
)

# %% [markdown] tags=["T-06"]
# Noise at $k=1$ is not Algorithm 2: the silent last step is a convention (it returns a mean). Here it shows only in the unit check; in exercise
# 4, everywhere. T-29, the signs of the reverse equation, hangs in section 6.

# %% [markdown]
# ## Answers, checked

# %% tags=["solution", "check"]
near = line(-0.5, 0.5, 10_001)
for beta_1, peaks in ((1 / 590, 2), (1 / 612, 1)):  # exercise 1
    density = reverse_kernel(bumps, schedule.at(0), near, torch.zeros(1).double(), beta_1)[0]
    assert ((density[1:-1] > density[:-2]) & (density[1:-1] > density[2:])).sum() == peaks
wide_data = variances(schedule, s=1e4)["exact"] * (1 - betas) / betas
assert abs(wide_data[:100] - 1).max() < 1e-6  # exercise 2
still = reverse(fading, lambda x, u: -x)
x = line(-2, 2, 5)
assert (still.drift(x, times[0]) - fading.drift(x, times[0])).abs().max() < 1e-12  # exercise 3

# %% tags=["solution", "check"]
book = equal_steps(0.0151, T=100)
exact = variances(book, s=0.075)["exact"]
for variance, wanted in ((silent(exact), 0.039), (torch.cat([book.beta[:1], exact[1:]]), 0.129)):
    _, std = made(mean_from_noise, variance, book, m=0.0, s=0.075)
    print(f"exercise 4: standard deviation {std:.3f}")
    assert abs(std - wanted) < 5e-4
assert abs(exact[0] - 0.0041) < 5e-5

# %% [markdown]
# ## What we learned
#
# * The law of a step back comes from Bayes' rule and depends on the data. It is Gaussian for Gaussian data, nearly Gaussian for small steps, and not otherwise.
# * Given $x_0$ it is Gaussian always; without, its mean needs only $E[x_0\mid x_k]$, or the noise, or the score: three names for one unknown.
# * $\tilde\beta$ or $\beta$: with many steps samples hardly depend on the choice; likelihood does, and so do short chains.
# * Backwards in time: $-a+\sigma^2\nabla\log p$, the clock turned, a new $W$.
# * Least squares on neighbours finds the mean of the step. A decoder is a hundred such means in a row.
#
# ## References
#
# * Feller 1949, *On the theory of stochastic processes, with particular reference to applications*: the reverse of a diffusion is one.
# * Anderson 1982, *Reverse-time diffusion equation models*.
# * Sohl-Dickstein et al. 2015, *Deep unsupervised learning using nonequilibrium thermodynamics*, section 2.2.
# * Ho et al. 2020, *Denoising diffusion probabilistic models*, eq. 1, 6, 7 and 11, section 3.2 (the two variances), algorithm 2.
# * Nichol & Dhariwal 2021, *Improved DDPM*, section 3.1, eq. 15; Bao et al. 2022, *Analytic-DPM*, theorems 1 and 2 (the best variance and its bounds).
# * Song et al. 2021, *Score-based generative modeling through SDEs*, eq. 5 and 6.
# * Efron 2011, *Tweedie's formula and selection bias*. Prince 2023, *Understanding deep learning*, sections 18.2 to 18.4, notebooks 18.1 and 18.2.
#
# **Where next:** lesson 05 writes down what "learn the mean" costs, term by term, and finds the objective that everybody trains with.
