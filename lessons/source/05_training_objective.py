# %% [markdown]
# # 05 · The training objective
#
# *We want the data to be likely. Followed to its end, every term in numbers, this wish becomes a small question, "which noise was it?",
# and on the way something gets lost.*
#
# **You need** Gaussians, expectations, the noising chain of lesson 03 and the step back of lesson 04.
#
# **You will be able to** derive the bound on the likelihood and compute each of its terms, say what the simple loss keeps of it, write
# Algorithm 1, tell a good loss from a bad one, and choose what to ask a network for.
#
# **Time** an hour and a half of reading; everything runs in about 20 seconds on two CPU cores.
#
# **The codes.** (DS-49) names a slide of the lectures that the course tests, E-34 a slip on one, T-26 a classic mistake.

# %% tags=["setup"]
import math
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from typing import NamedTuple

import torch
from torch.distributions import Normal, kl_divergence

import didiff
from didiff import Denoiser, add_noise, from_eps, mixtures
from didiff.networks import MLP
from didiff.notebook import museum, plots, widgets
from didiff.notebook.museum import Check
from didiff.samplers import ddim, ddpm, initial_noise, last
from didiff.schedules import DDPMSchedule, constant, grid
from didiff.training import metrics

torch.manual_seed(0)
torch.set_num_threads(1)  # the networks are small: two threads would wait for each other
plots.style()

# %% [markdown]
# **What we bring along** from lessons 03 and 04, for a number $x$ or for each number of a picture:
#
# | | |
# |---|---|
# | the table | $\alpha_k=1-\beta_k$, $\bar\alpha_k=\alpha_1\cdots\alpha_k$; `schedule.at(k)` is the level of step $k$: $\text{signal}_k=\sqrt{\bar\alpha_k}$, $\text{noise}_k=\sqrt{1-\bar\alpha_k}$ |
# | noising | $x_k=\text{signal}_k\,x_0+\text{noise}_k\,\epsilon$, which is `add_noise(x0, eps, schedule.at(k))` |
# | a step back, if $x_0$ is known | $q(x_{k-1}\mid x_k,x_0)=N(\tilde\mu_k,\tilde\beta_k)$ with $\tilde\mu_k=\frac1{\sqrt{\alpha_k}}\big(x_k-\frac{\beta_k}{\text{noise}_k}\epsilon\big)$, $\tilde\beta_k=\frac{1-\bar\alpha_{k-1}}{1-\bar\alpha_k}\beta_k$ |
# | the model's step back | $p_\theta(x_{k-1}\mid x_k)=N(\mu_\theta,\sigma_k^2)$: in $\mu_\theta$ the guess $\epsilon_\theta$ stands for $\epsilon$, and $\sigma_k^2$ is ours to choose |
# | a denoiser | `denoiser(x, t).eps` is such a guess; a mixture of Gaussians is the exact one, $E[\epsilon\mid x_k]$ |
#
# Logarithms are natural, so information comes in *nats*. $N(m,v)$ has the variance $v$; torch's `Normal(m, s)` wants the standard deviation.


# %%
def line(low, high, n):
    return torch.linspace(low, high, n, dtype=torch.float64)


schedule = DDPMSchedule()  # T = 1000, linear
bell = mixtures.gaussian(1.0, 0.5)  # N(1, 0.25)
pair = mixtures.bimodal()  # two bumps at -1 and 1, of standard deviation 0.3

# %% [markdown] tags=["formula", "DS-48"]
# ## 1. What is a good model?
#
# **Story.** A model is a density $p_\theta$; the data have the density $q$, of which we only own samples. The Kullback-Leibler divergence
# asks how much more likely, in logarithms, data are under the truth than under the model:
#
# $$\mathrm{KL}(q\,\|\,p_\theta)=\int q\log\frac{q}{p_\theta}=\underbrace{-\int q\log p_\theta}_{\text{cross-entropy}}-\underbrace{\Big(-\int q\log q\Big)}_{\text{entropy of the data}} .$$
#
# It is never negative, and 0 only for $p_\theta=q$. The entropy does not know $\theta$. So the smallest KL, the smallest cross-entropy
# and the highest average log-likelihood are one and the same wish (DS-48); and the cross-entropy is an average over data, for which samples
# suffice.


# %% tags=["formula", "DS-48"]
def cross_entropy_and_kl(log_q, log_p, x):
    """-int q log p and int q (log q - log p), summed over equally spaced x (N,); log_p (.., N)."""
    q = log_q.exp() * (x[1] - x[0])
    return -(q * log_p).sum(-1), (q * (log_q - log_p)).sum(-1)


# %% [markdown]
# **Play.** The data have two bumps, the model is one bell. *Predict* which bell is best, then find it: move $\mu$ and $\sigma$ until the KL is smallest.


# %% tags=["play", "DS-48"]
def bells(mixture, x):
    """Frames of a bell before the data, with the two entropies and the KL."""
    log_q = mixture.log_prob(x[:, None], DDPMSchedule().at(0))
    entropy, _ = cross_entropy_and_kl(log_q, log_q, x)

    def frames(mu, sigma):
        log_p = Normal(mu, sigma).log_prob(x)
        cross, kl = cross_entropy_and_kl(log_q, log_p, x)
        figure = plots.densities(x, {"data": log_q.exp(), "model": log_p.exp()})
        figure.axes[0].set(xlim=(-4, 4), ylim=(0, 1.4))
        figure.axes[0].legend(loc="upper right")  # and stays there
        words = f"KL {kl:.3f} = cross-entropy {cross:.3f} - entropy {entropy:.3f} nats"
        yield widgets.Frame(plots.png(figure), words)

    return frames


# %% tags=["play", "DS-48"]
fitting = widgets.Explorer(
    bells(pair, line(-8, 8, 1001)),
    {
        "mu": widgets.slider("mean μ", -1.0, 1.0, value=0.0, step=0.05),
        "sigma": widgets.slider("standard deviation σ", 0.3, 2.3, value=0.3, step=0.05),
    },
)
fitting.show(
    alt="two bumps of data at -1 and 1, and one bell as a model. A narrow bell between the bumps "
    "has a large KL divergence; it is smallest for a wide bell that covers both",
    still_over="sigma", values=[0.3, 0.5, 0.8, 1.05, 1.4, 2.3],
)  # fmt: skip

# %% [markdown]
# **Check.** All the bells of the two sliders at once, for two kinds of data:

# %% tags=["check", "DS-48"]
x = line(-8, 8, 1001)
mu, sigma = torch.meshgrid(line(-1, 1, 41), line(0.3, 2.3, 41), indexing="ij")
log_p = Normal(mu[..., None], sigma[..., None]).log_prob(x)
for name, data in (("one bell", bell), ("two bumps", pair)):
    log_q = data.log_prob(x[:, None], schedule.at(0))
    cross, kl = cross_entropy_and_kl(log_q, log_p, x)
    entropy, best = cross_entropy_and_kl(log_q, log_q, x)[0], cross.argmin()
    print(f"{name}: best μ {abs(mu.flatten()[best]):.2f}, σ {sigma.flatten()[best]:.2f}: ", end="")
    print(f"cross-entropy {cross.min():.3f} = {entropy:.3f} + {abs(kl.min()):.3f} nats")
    assert (kl + entropy - cross).abs().max() < 1e-12
    assert kl.argmin() == best

# %% tags=["check"]
found = {}
for name, place in (("on one bump", (1.0, 0.3)), ("in the middle", (0.0, 1.05))):
    fitting["mu"].value, fitting["sigma"].value = place
    fitting.wait()
    found[name] = float(fitting.readout.split()[1])
    print(f"{name:13}: {fitting.readout}")
assert found["on one bump"] > 5 > 1 > found["in the middle"] > 0.5
fitting["mu"].value, fitting["sigma"].value = 0.0, 0.3

# %% [markdown] tags=["DS-48", "DS-49"]
# A bell finds a bell. For the bumps the best has *their* mean and their standard deviation, $\sqrt{1+0.3^2}=1.04$, though hardly any data lie
# in its middle: data that the model calls impossible cost without limit, places without data cost little. Likelihood makes models cover everything.
#
# **A formula to keep (DS-49).** Between two Gaussians the integral can be done:
#
# $$\mathrm{KL}\big(N(m_1,v_1)\,\|\,N(m_2,v_2)\big)=\frac12\Big(\log\frac{v_2}{v_1}+\frac{v_1+(m_1-m_2)^2}{v_2}-1\Big).$$
#
# **Check** against torch, and against *Monte Carlo*: the average of $\log q-\log p$ over samples of $q$. Here and below it may be off by four of its standard
# errors, its spread divided by $\sqrt n$.


# %% tags=["formula", "DS-49"]
def kl_of_gaussians(square, var_1, var_2):
    """KL(N(m_1, var_1) || N(m_2, var_2)) in nats; square: (m_1 - m_2)^2, or its average."""
    return ((var_2 / var_1).log() + (var_1 + square) / var_2 - 1) / 2


# %% tags=["check", "DS-49"]
n, one = 100_000, torch.ones((), dtype=torch.float64)
for q, p in ((Normal(one, one / 2), Normal(0, one)), (Normal(0, 2 * one), Normal(one, one))):
    closed = kl_of_gaussians((q.mean - p.mean) ** 2, q.variance, p.variance)
    z = q.sample((n,))
    ratio = q.log_prob(z) - p.log_prob(z)
    error = 4 * ratio.std() / n**0.5
    print(f"by the formula {closed:.4f}, by Monte Carlo {ratio.mean():.3f} ± {error:.3f}")
    assert abs(ratio.mean() - closed) < error
    assert abs(closed - kl_divergence(q, p)) < 1e-12

# %% [markdown] tags=["formula", "DS-49", "DS-03", "E-34"]
# ## 2. A bound from below
#
# **Story.** Our model makes $x_0$ at the end of a path, $x_T\to x_{T-1}\to\dots\to x_0$, and noising makes a path from $x_0$. Both are chains, so the density of a path
# is a product:
#
# $$p_\theta(x_{0:T})=p(x_T)\prod_{k=1}^Tp_\theta(x_{k-1}\mid x_k),\qquad q(x_{1:T}\mid x_0)=\prod_{k=1}^Tq(x_k\mid x_{k-1}).$$
#
# ($x_{0:T}$ is short for $x_0,\dots,x_T$, and $p(x_T)=N(0,1)$.) The likelihood of $x_0$ sums over *all* the paths that may have led there,
# $p_\theta(x_0)=\int p_\theta(x_{0:T})\,dx_{1:T}$: an integral over a thousand variables. But we own a good guess of where paths to $x_0$ come from:
# noise $x_0$ *forwards*. Divide by the forward density and multiply by it. The logarithm is concave, so the mean of a logarithm is at most
# the logarithm of the mean (Jensen):
#
# $$\log p_\theta(x_0)=\log\,\mathbb E_q[w]\;\ge\;\mathbb E_q[\log w]=:\mathrm{ELBO},\qquad w=\frac{p_\theta(x_{0:T})}{q(x_{1:T}\mid x_0)} .$$
#
# ELBO is short for *evidence lower bound*.
#
# **Code.** Walk forwards, and collect the logarithms of both chains. The mean of a step back is repeated from lesson 04.


# %% tags=["formula", "DS-49"]
def mean_from_noise(x, eps, k, table):
    """(x - beta_k / noise_k * eps) / sqrt(alpha_k), as in lesson 04, section 3."""
    beta = table.beta[k - 1]
    return (x - beta / table.at(k).noise * eps) / (1 - beta).sqrt()


# %% tags=["formula", "DS-49"]
def log_weights(denoiser, x0, table, variance):
    """log w of one forward path from each x0 (B, 1): (B,). variance (T,): sigma^2 of the steps."""
    x, log_w = x0, 0.0
    for k, beta in enumerate(table.beta, start=1):
        forward = Normal((1 - beta).sqrt() * x, beta.sqrt())
        after = forward.sample()
        mean = mean_from_noise(after, denoiser(after, table.at(k)).eps, k, table)
        log_w += Normal(mean, variance[k - 1].sqrt()).log_prob(x) - forward.log_prob(after)
        x = after
    return (log_w + Normal(0.0, 1.0).log_prob(x))[:, 0]


# %% [markdown]
# Which $\sigma_k^2$? Lesson 04 knows three: $\tilde\beta_k$, right if the data are a single point ($\tilde\beta_1=0$ has no logarithm: we put $\tilde\beta_2$ in its
# place); $\beta_k$, right for $N(0,1)$; and the exact one for data $N(m,s^2)$, $\beta_kV_{k-1}/V_k$, where $V_k=\bar\alpha_ks^2+1-\bar\alpha_k$ is the variance of $x_k$.


# %% tags=["formula"]
def variances(table, s):
    """Three choices of sigma^2 for the steps 1..T, and data of variance s^2 (lesson 04): (T,)."""
    before, now = table.alpha_bar[:-1], table.alpha_bar[1:]
    tilde = (1 - before) / (1 - now) * table.beta
    spread = table.alpha_bar * s**2 + 1 - table.alpha_bar
    exact = table.beta * spread[:-1] / spread[1:]
    return {"β̃": torch.cat([tilde[1:2], tilde[1:]]), "β": table.beta, "exact": exact}


# %% [markdown]
# **Check.** With Gaussian data and the exact denoiser the mean of each step is a straight line, $a+bx$, whose values at 0 and 1 tell $a$ and $b$. So $p_\theta(x_0)$ is a
# Gaussian whose mean and variance come out of a loop, and $\log p_\theta(x_0)$ is known without any path. (`made` stood in lesson 04, too.)


# %% tags=["formula"]
def made(table, variance, m, s):
    """The exact law of x_0 that the chain makes of N(0, 1), for data N(m, s^2)."""
    k, ends = torch.arange(1, table.T + 1), torch.tensor([[0.0], [1.0]]).double()
    t = table.at(k)
    eps = t.noise * (ends - t.signal * m) / ((t.signal * s) ** 2 + t.noise**2)  # E[eps | x_k]
    at_0, at_1 = mean_from_noise(ends, eps, k, table)
    mean, spread = 0.0, 1.0
    for a, b, v in reversed([*zip(at_0, at_1 - at_0, variance, strict=True)]):
        mean, spread = a + b * mean, b**2 * spread + v
    return Normal(mean, spread.sqrt())


# %% [markdown]
# Ten steps, 100,000 paths from $x_0=1.3$. *Predict:* which of the last three columns agree?

# %% tags=["check", "DS-49", "DS-03", "E-34"]
ten, rows = DDPMSchedule(10, constant(10, 0.3)), []
x0 = torch.full((n, 1), 1.3, dtype=torch.float64)
logs = {name: log_weights(bell, x0, ten, v) for name, v in variances(ten, 0.5).items()}
for name, log_w in logs.items():
    w = log_w.exp()
    exact = made(ten, variances(ten, 0.5)[name], m=1.0, s=0.5).log_prob(x0[0, 0])
    rows.append([name, *(round(v.item(), 2) for v in (log_w.mean(), w.mean().log(), exact))])
    assert abs(w.mean() / exact.exp() - 1) < 4 * w.std() / w.mean() / n**0.5
    assert log_w.mean() + 4 * log_w.std() / n**0.5 < exact
header = ["σ²", "mean of log w (the ELBO)", "log of the mean of w", "exact log p(x₀)"]
plots.table(rows, header=header, caption="A bound and a likelihood, in nats")

# %% tags=["DS-03"]
figure = plots.densities(line(-1.75, 0.75, 61), {}, samples={"model, 100,000 paths": logs["β"]})
for value, look, label in zip(rows[1][1:], (":", "-"), ("ELBO", "log of mean w"), strict=False):
    figure.axes[0].axvline(value, color="black", linestyle=look, label=label)
figure.axes[0].set(xlabel="log w for σ² = β, in nats")
figure.axes[0].legend(loc="upper right")
plots.show(
    figure,
    alt="Histogram of log w over 100,000 paths: a lopsided hump from -1.4 to 0.5 with a long tail "
    "to the right. The dotted line of its mean stands a little left of the solid line, the "
    "logarithm of the mean of w.",
    caption="A few lucky paths, on the right, lift the mean of w, but hardly that of log w.",
)

# %% [markdown] tags=["DS-03", "E-34"]
# The mean of $w$ finds the likelihood, the mean of $\log w$ stays below it. Why not use the mean of $w$ always? In $d$ independent dimensions $w$ is a product of $d$ such
# weights, and the number of paths that it takes, about $\mathbb E[w^2]/\mathbb E[w]^2$, is a power:

# %%
w = logs["β"].exp()
ratio = w.square().mean() / w.mean() ** 2
digits = 3072 * math.log10(ratio)
print(f"E[w²] / E[w]²: {ratio:.2f} for one number, 10^{digits:.0f} for a picture of 32 x 32 x 3")
assert digits > 20

# %% [markdown] tags=["DS-03", "E-34"]
# The mean of $\log w$ is a sum over the dimensions, and has no such trouble.
#
# **Is it so?** The outline of the lecture announces the ELBO as a "lower bound on the loss" (DS-03). The loss is $-\log p_\theta(x_0)$. *Which way round is it?*

# %% tags=["check", "DS-03", "E-34"]
for name, elbo, _, exact in rows:
    print(f"-ELBO {-elbo:.2f} > loss {-exact:.2f}, for σ² = {name}")
    assert -elbo > -exact

# %% [markdown] tags=["DS-03", "E-34"]
# **Put right.** The ELBO is a lower bound on the *log-likelihood*. Its negative is an upper bound on the loss, and that is what one wants: pushing an upper bound
# down presses the loss, pushing a lower bound says nothing. From here on *the bound* is the negative ELBO.
#
# One more trap of the outline: it follows a book (Prince 2023, chapter 18) whose $\alpha_t$ is our $\bar\alpha_k$. *What happens if one takes the one for the other?*

# %% tags=["check", "DS-03", "E-34"]
single, product = 1 - schedule.beta[299], schedule.alpha_bar[300]
print(f"signal at step 300: √α = {single.sqrt():.3f}, √ᾱ = {product.sqrt():.3f}")
assert abs(product.sqrt() - schedule.at(300).signal) < 1e-12
assert single.sqrt() > 0.99 > 0.7 > product.sqrt()

# %% [markdown] tags=["formula", "DS-49"]
# ## 3. Every term of the bound
#
# **Story.** The slides skip what comes now (DS-49); it is three lines. A forward step can be turned round by Bayes' rule if $x_0$ is kept in the
# condition, which changes nothing, as the chain is Markov:
#
# $$q(x_k\mid x_{k-1})=q(x_k\mid x_{k-1},x_0)=\frac{q(x_{k-1}\mid x_k,x_0)\,q(x_k\mid x_0)}{q(x_{k-1}\mid x_0)}\qquad(k\ge2).$$
#
# Put that into $w$. In the product over $k$ all the $q(x_k\mid x_0)$ cancel but the last (the first cancels against the step $k=1$):
#
# $$w=\frac{p(x_T)}{q(x_T\mid x_0)}\;\prod_{k=2}^T\frac{p_\theta(x_{k-1}\mid x_k)}{q(x_{k-1}\mid x_k,x_0)}\;\;p_\theta(x_0\mid x_1).$$
#
# Take $-\log$ and the mean over paths; the mean of a $\log(q/p)$ under $q$ is a KL:
#
# $$-\mathrm{ELBO}=\underbrace{\mathrm{KL}\big(q(x_T|x_0)\,\|\,p(x_T)\big)}_{L_T}+\sum_{k=2}^{T}\underbrace{\mathbb E\,\mathrm{KL}\big(q(x_{k-1}|x_k,x_0)\,\|\,p_\theta(x_{k-1}|x_k)\big)}_{L_{k-1}}\;\underbrace{-\,\mathbb E\log p_\theta(x_0|x_1)}_{L_0} .$$
#
# $L_T$: is the end of the road noise? $L_{k-1}$: does the model step back as one would who *knows* $x_0$? $L_0$: does the last step hit? All KLs are between Gaussians. Those
# of the steps have the variances $\tilde\beta_k$ and $\sigma_k^2$, and two means that differ only in the noise they believe in:
# $\tilde\mu_k-\mu_\theta=\frac{\beta_k}{\sqrt{\alpha_k}\,\text{noise}_k}(\epsilon_\theta-\epsilon)$. (For $k=1$ as well, where $\tilde\mu_1=x_0$.) So a model enters the bound by one number for each step,
# $e_k=\mathbb E(\epsilon-\epsilon_\theta)^2$.


# %% tags=["formula", "DS-49"]
def bound(errors, variance, table, power):
    """[L_0, .., L_T] in nats per dimension, from errors[k-1] = E(eps - eps_theta)^2 at step k.

    errors, variance (T,); power: the mean of x0^2. Returns (T + 1,).
    """
    t, beta, before = table.at(range(1, table.T + 1)), table.beta, table.alpha_bar[:-1]
    square = beta**2 / ((1 - beta) * t.noise**2) * errors  # E(mu_tilde - mu_theta)^2
    tilde = (1 - before) / t.noise**2 * beta
    terms = kl_of_gaussians(square, tilde, variance)
    # the step back to x0 itself: no KL, but -log p
    terms[0] = (2 * math.pi * variance[0]).log() / 2 + square[0] / (2 * variance[0])
    end = table.at(table.T)
    last_term = kl_of_gaussians(end.signal**2 * power, end.noise**2, torch.ones(()))
    return torch.cat([terms, last_term[None]])


# %% [markdown]
# For data $N(m,s^2)$ and the exact denoiser, $e_k$ is what $x_k$ leaves open about $\epsilon$. For two Gaussian numbers that is the variance of the one, less the part that
# their covariance explains: $e_k=\mathrm{Var}(\epsilon\mid x_k)=1-\text{noise}_k^2/V_k=\text{signal}_k^2s^2/V_k$. No guess is better: it is the *floor* of section 6.


# %% tags=["formula", "L6-24"]
def gaussian_floor(table, s):
    """Var(eps | x_k) for k = 1..T and data of variance s^2: (T,)."""
    t = table.at(range(1, table.T + 1))
    return (t.signal * s) ** 2 / ((t.signal * s) ** 2 + t.noise**2)


# %% [markdown]
# **Check.** The sum must be what paths of ten steps find, now from random $x_0$ (so that the mean of $x_0^2$ is $1^2+0.5^2$).

# %% tags=["check", "DS-49"]
x0 = bell.sample(n)[0]
for name, variance in variances(ten, 0.5).items():
    total = bound(gaussian_floor(ten, 0.5), variance, ten, power=1.25).sum()
    log_w = log_weights(bell, x0, ten, variance)
    print(f"term by term {total:.4f}, by paths {-log_w.mean():.2f} nats, for σ² = {name}")
    assert abs(log_w.mean() + total) < 4 * log_w.std() / n**0.5

# %% [markdown]
# And single terms must be what torch's own KL says, averaged over draws. (Here $\tilde\mu$ is written with $x_0$, as lesson 04 found it first.)

# %% tags=["check", "DS-49"]
terms = bound(gaussian_floor(schedule, 0.5), schedule.beta, schedule, power=1.25)
eps = torch.randn_like(x0)
for k in (2, 100, 700):
    t, before, beta = schedule.at(k), schedule.at(k - 1), schedule.beta[k - 1]
    xk = add_noise(x0, eps, t)
    known = before.signal * beta * x0 + (1 - beta).sqrt() * before.noise**2 * xk
    true = Normal(known / t.noise**2, before.noise / t.noise * beta.sqrt())
    model = Normal(mean_from_noise(xk, bell(xk, t).eps, k, schedule), beta.sqrt())
    kl = kl_divergence(true, model)
    print(f"L_{k - 1}: by the formula {terms[k - 1]:.2e}, by Monte Carlo {kl.mean():.1e}")
    assert abs(kl.mean() - terms[k - 1]) < 4 * kl.std() / n**0.5

# %% [markdown] tags=["DS-49"]
# **Now the full table.** A thousand steps, three widths of data, three variances: the bound in its three parts, beside the exact
# $-\log p_\theta(x_0)$ of the chain, averaged over the data, and the entropy of the data, which no model gets below. *Predict:* in which rows is the bound
# tight, that is, equal to the exact value?


# %% tags=["formula", "DS-49"]
def bell_entropy(s):
    """Entropy of N(m, s^2) in nats."""
    return math.log(2 * math.pi * math.e * s**2) / 2


def exact_loss(law, s):
    """-E log law(x0) for x0 ~ N(0, s^2) and a Gaussian law, in nats."""
    return (2 * math.pi * law.variance).log() / 2 + (s**2 + law.mean**2) / (2 * law.variance)


# %% tags=["check", "DS-49"]
rows = []
for s in (0.1, 1.0, 10.0):
    for name, variance in variances(schedule, s).items():
        terms = bound(gaussian_floor(schedule, s), variance, schedule, power=s**2)
        exact = exact_loss(made(schedule, variance, 0.0, s), s).item()
        parts = terms[-1], terms[1:-1].sum(), terms[0], terms.sum()
        rows.append([s**2, name, *(part.item() for part in parts), exact, bell_entropy(s)])
        assert bell_entropy(s) - 1e-9 < exact < terms.sum() + 1e-9

# %% tags=["check", "DS-49"]
header = ["variance of data", "σ²", "L_T", "all L_(k-1)", "L_0", "bound", "exact", "entropy"]
shown = [[round(r[0], 2), r[1], f"{r[2]:.0e}", *(f"{v:.3f}" for v in r[3:])] for r in rows]
plots.table(shown, header=header, caption="The bound, term by term, in nats per dimension")
waste = [r[5] - r[7] for r in rows]  # bound less entropy
assert all(w > 0.4 for w in waste[0::3])  # β̃
assert all(w < 0.02 for w in waste[1::3])  # β
assert all(w < 1e-5 for w in waste[2::3])  # exact

# %% [markdown] tags=["DS-49"]
# With the exact variance the bound *is* the exact value, to five digits, and that is the entropy. With $\beta$ almost. $\tilde\beta$ wastes half a nat; yet the
# chain itself is nearly as good ("exact"): what is loose is the bound, more than the samples.
#
# Even at its best $L_{k-1}$ is *not zero*: who must do without $x_0$ cannot step back like one who knows it. What the steps cannot know, the data must tell them; summed up,
# with $L_0$, that is the entropy of the data.
#
# **Play.** Where is the half nat lost? Nichol and Dhariwal (2021) let a network choose between the two variances, $\sigma^2=\beta^v\,\tilde\beta^{1-v}$. You are the network, with one $v$ for
# all steps: find the best for data of standard deviation 0.5. At which steps would you want another $v$?


# %% tags=["play"]
def blended(table, errors):
    """Frames of what each term loses for sigma^2 = beta^v * beta_tilde^(1 - v)."""
    k = torch.tensor([1, 2, 3, 4, 5, 7, 10, 14, 20, 30, 50, 70, 100, 150, 200, 300, 500])

    def frames(v, s):
        tilde, beta, exact = variances(table, s).values()
        blend = (v * beta.log() + (1 - v) * tilde.log()).exp()
        *options, best = (
            bound(errors(table, s), choice, table, s**2) for choice in (tilde, beta, blend, exact)
        )
        names = "$\\tilde{\\beta}$ (v = 0)", "β (v = 1)", f"yours (v = {v:.2f})"
        lost = {name: (k, (b - best)[k - 1]) for name, b in zip(names, options, strict=True)}
        figure = plots.lines(lost, xlabel="step k", ylabel="nats lost in its term", log=True)
        figure.axes[0].set(ylim=(1e-9, 1))
        figure.axes[0].legend(loc="upper right")  # and stays there
        ours, least = options[-1].sum(), best.sum()
        words = f"bound {ours:.4f} nats, at best {least:.4f}: lost {abs(ours - least):.4f}"
        yield widgets.Frame(plots.png(figure), words)

    return frames


# %% tags=["play"]
explorer = widgets.Explorer(
    blended(schedule, gaussian_floor),
    {
        "v": widgets.slider("blend v (0: β̃, 1: β)", 0.0, 1.0, value=0.0, step=0.05),
        "s": widgets.slider("standard deviation of the data", 0.05, 2.0, value=0.5, step=0.05),
    },
)
explorer.show(
    alt="nats lost in each term of the bound over the step, both axes logarithmic: for beta tilde"
    " 0.1 and more in the first steps, for beta less than a thousandth there, but more from "
    "step 200 on; your curve moves from the first to the second as v grows",
    still_over="v", values=[0.0, 0.25, 0.5, 0.75, 1.0],
)  # fmt: skip

# %% tags=["check"]
at_zero = explorer.readout
explorer["v"].value = 1.0
explorer.wait()
print("v = 0:", at_zero, "\nv = 1:", explorer.readout)
assert float(at_zero.split()[-1]) > 0.4 > 0.01 > float(explorer.readout.split()[-1])
explorer["v"].value = 0.0

# %% [markdown]
# In the first hundred steps one wants $v=1$: there $x_k$ leaves $x_0$ open, and $\tilde\beta$ pretends to know it. From step 200 on one wants $v=0$, but there is next to nothing
# to be won: beyond step 500, where the picture ends, less than $10^{-7}$ nats in each term.

# %% [markdown] tags=["DS-48"]
# **Negative?** For narrow data the bound in the table is *negative*. A density is no probability: it may exceed 1, and it changes with the unit of length (data ten times as wide
# cost $\ln10=2.3$ nats more). What is reported for images stays positive because pixels are *counted*: it is the probability of a grey value, the mass of a bin. For a
# bin of width $\delta$ that is about $p\,\delta$, so one pays $\log_2(1/\delta)$ *bits* more than the density says. (A bit is $\ln2=0.69$ nats.) **Check:**

# %% tags=["check", "DS-48"]
law, rows = Normal(0 * one, 0.3 * one), []
for bins in (16, 64, 256):  # grey values in [-1, 1]; the first and the last bin are open
    edges = torch.cat([-9 * one[None], line(-1, 1, bins + 1)[1:-1], 9 * one[None]])
    mass = law.cdf(edges).diff()
    counted = -torch.xlogy(mass, mass).sum() / math.log(2)
    density = law.entropy() / math.log(2) + math.log2(bins / 2)
    rows.append([bins, f"{counted:.3f}", f"{density:.3f}", math.log2(bins)])
    assert abs(counted - density) < 0.01
header = ["grey values", "bits, counted", "bits from the density", "if all were equally likely"]
plots.table(rows, header=header, caption="Bits per pixel for N(0, 0.3²)")

# %% [markdown] tags=["exercise"]
# **Exercise 1.** Somebody shortens the linear table to its first 500 steps. Which term of the bound tells, and how many nats is it for data $N(0,1)$, and for $N(1,\tfrac14)$?
#
# <details><summary>Answer</summary>
#
# $L_T$, the KL of $N(\sqrt{\bar\alpha}x_0,1-\bar\alpha)$ to $N(0,1)$, averaged: $\tfrac12(\bar\alpha E[x_0^2]-\bar\alpha-\log(1-\bar\alpha))$ with $\bar\alpha_{500}=0.0786$. That is 0.041 for $N(0,1)$ and, with
# $E[x_0^2]=1.25$, 0.051.
# </details>

# %% [markdown] tags=["formula", "DS-49"]
# ## 4. The simple loss, and what it drops
#
# **Story.** Put the difference of the means into a term of the bound. What depends on the model is one square; the constant knows only the two variances:
#
# $$L_{k-1}=\lambda_k\,\mathbb E\lVert\epsilon-\epsilon_\theta(x_k,k)\rVert^2+\text{const},\qquad\lambda_k=\frac{\beta_k^2}{2\sigma_k^2\,\alpha_k\,\text{noise}_k^2} .$$
#
# Guessing noise well *is* stepping back well. **Check** it as an identity, at every step with a pair $(x_0,\epsilon)$ of its own, for a guess that is wrong at random:

# %% tags=["check", "DS-49"]
k = torch.arange(2, 1001)
t, beta, tilde = schedule.at(k), schedule.beta[k - 1], variances(schedule, 1.0)["β̃"][k - 1]
x0, eps, guess = torch.randn(3, 999, dtype=torch.float64)
xk = add_noise(x0, eps, t)
mean, wrong = (mean_from_noise(xk, e, k, schedule) for e in (eps, guess))

# %% tags=["check", "DS-49"]
for name, v in (("β", beta), ("β̃", tilde)):
    kl = kl_divergence(Normal(mean, tilde.sqrt()), Normal(wrong, v.sqrt()))
    const = kl_divergence(Normal(mean, tilde.sqrt()), Normal(mean, v.sqrt()))
    weighted = beta**2 / (2 * v * (1 - beta) * t.noise**2) * (eps - guess) ** 2
    at = (k == 300).nonzero().item()
    print(f"k = 300: {kl[at]:.8f} = {weighted[at]:.8f} + {const[at]:.8f}, for σ² = {name}")
    assert (kl - weighted - const).abs().max() < 1e-10

# %% [markdown] tags=["DS-50", "E-43"]
# **What is dropped (DS-50).** Ho et al. (2020) leave out $\lambda_k$, and with $k$ uniform in $1..T$ arrive at
# $L_{\text{simple}}=\mathbb E_{k,x_0,\epsilon}\lVert\epsilon-\epsilon_\theta(x_k,k)\rVert^2$. *Predict:* how large is $\lambda_k$ at $k=1$ and at $k=1000$, for $\sigma_k^2=\beta_k$?

# %% tags=["check", "DS-49", "DS-50"]
t, beta = schedule.at(range(1, 1001)), schedule.beta
weight = beta / (2 * (1 - beta) * t.noise**2)  # λ for σ² = β
some = (1, 2, 10, 100, 1000)
print(f"λ at k = {some}:", ", ".join(f"{weight[k - 1]:.3f}" for k in some))
shares = {"bound": weight / weight.sum(), "simple": torch.full((1000,), 1e-3)}
for name, w in shares.items():
    first, half = w[:10].sum(), w[500:].sum()
    print(f"{name:6}: share of steps 1 to 10 {first:.1%}, of 501 to 1000 {half:.1%}")
assert abs(weight[0] - 0.5) < 1e-3
assert shares["bound"][:10].sum() > 10 * shares["simple"][:10].sum()

# %%
ks = torch.tensor([1, 2, 3, 5, 7, 10, 20, 30, 50, 70, 100, 200, 300, 500, 700, 1000])
curves = {name: (ks, share[ks - 1]) for name, share in shares.items()}
plots.show(
    plots.lines(curves, xlabel="step k", ylabel="share of all weight", log=True),
    alt="Share of the weight over the step, both axes logarithmic. That of the bound falls from "
    "0.05 at step 1 to 0.0005 near step 300 and climbs to 0.001 at the end; the simple one is"
    " flat at 0.001. They cross at step 100.",
    caption="The simple loss looks away from the first steps, where noise is hardly visible.",
)

# %% [markdown] tags=["DS-50", "E-43"]
# **Is it so?** The lecture calls $\mathbb E\lVert\epsilon-\epsilon_\theta\rVert^2$ a "simplified *upper bound*" to be minimised (DS-50). An upper bound on the loss
# $-\log p_\theta(x_0)$ lies above it for every model and all data. Take the best possible model:

# %% tags=["check", "DS-50", "E-43"]
for s in (0.1, 1.0, 10.0):
    simple, least = gaussian_floor(schedule, s).mean(), bell_entropy(s)
    verdict = "above" if simple > least else "BELOW"
    print(f"variance {s**2:6.2f}: simple {simple:.3f}, {verdict} the exact loss, {least:.2f} nats")
assert simple < least

# %% [markdown] tags=["DS-50", "E-43"]
# **Put right.** Without weights it bounds nothing any more; it is not even in nats, since only $\lambda_k$ makes nats of squares. It is the bound, *re-weighted*. If one model is the
# best at every step, it is the best for any weights; a real network must divide its attention, and then they matter. Section 7 trains with both.

# %% [markdown] tags=["formula", "DS-51", "DS-52", "L19-51", "L6-08"]
# ## 5. Algorithm 1
#
# **Story.** Write $x_k$ out, and the loss has nothing random left but data, step and noise (DS-51):
# $\lVert\epsilon-\epsilon_\theta(\sqrt{\bar\alpha_k}\,x_0+\sqrt{1-\bar\alpha_k}\,\epsilon,\;k)\rVert^2$. "The reverse process learns to predict noise", says
# the lecture (L19-51). All of training is (DS-52, algorithm 1 of Ho et al. 2020):
#
# > **repeat**
# > 1. take a picture $x_0$,
# > 2. take a step $k$, each of $1..T$ with the same chance,
# > 3. take noise $\epsilon\sim N(0,I)$, and mix: $x_k=\text{signal}_k\,x_0+\text{noise}_k\,\epsilon$,
# > 4. ask the network which noise it was, and take a gradient step on $\lVert\epsilon-\epsilon_\theta(x_k,k)\rVert^2$.
#
# Three little functions do it: `batches` 1 and 2, `loss` 3 and the question, `fit` the gradient steps. (The formula sums over the $d$ numbers of a picture, the code takes
# their mean: then 1 is the loss of whoever always answers 0.)


# %% tags=["formula", "DS-52"]
def batches(mixture, n, table):
    """1 and 2: fresh points (n, *d), and a random step in 1..T for each, without end."""
    while True:
        yield mixture.sample(n)[0].float(), torch.randint(1, table.T + 1, (n,))


# %% tags=["formula", "twin:didiff.denoiser.loss", "DS-51"]
def loss(denoiser, x0, t, y=None, eps=None):
    """3 and the question: mean squared error of the predicted noise for each sample, (B,)."""
    eps = torch.randn_like(x0) if eps is None else eps
    guess = denoiser(add_noise(x0, eps, t), t, y)
    return (guess.eps - eps).square().flatten(1).mean(1)


# %% tags=["formula", "twin:didiff.training.fit", "DS-52"]
def fit(denoiser, losses, batches, steps, lr=1e-3):
    """4: minimise the mean of losses(denoiser, *batch) -> (B,); yield after every step."""
    optimiser = torch.optim.Adam(denoiser.parameters(), lr)
    for step in range(1, steps + 1):
        value = losses(denoiser, *next(batches)).mean()
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        yield step, value.detach()


# %% [markdown] tags=["L6-08", "DS-51"]
# `losses` is a function, mostly `loss` with the table filled in. `fit` yields after every step, so that its caller can look, draw, or stop. The library has both: `didiff.loss` can
# also count errors in other units (section 8; `y` is for labels, lesson 09), `didiff.training.fit` also averages weights and saves them.
#
# **Check.** What must a network be for this? A map from a noisy $x$ and a step to something *of the shape of* $x$ (L6-08). `MLP` is one. It is told the step as the *clock* of lesson 03,
# $\frac2\pi\arctan\frac{\text{noise}}{\text{signal}}\in[0,1]$; `Denoiser` looks at that clock for it, and makes its output a guess `.eps` with the `.x0` that belongs to it. Any
# batch size must do, any step, a step for each sample. And for an untrained network the loss must be the same if we spell $x_k$ out.

# %% tags=["check", "L6-08"]
k = [1, 3, 77, 333, 501, 999, 1000]
for shape in ((2,), (1, 8, 8)):
    denoiser = Denoiser(MLP(shape, width=64, depth=2), target="eps")
    for B in (1, 7):
        x = torch.randn(B, *shape)
        guess = denoiser(x, schedule.at(k[:B]))
        print(f"in {tuple(x.shape)}, out {tuple(guess.eps.shape)}")
        assert guess.eps.shape == guess.x0.shape == x.shape

# %% tags=["check", "DS-51"]
x0, eps = torch.randn(2, 7, 1, 8, 8)  # seven pictures, for the last of these denoisers
a = torch.tensor([math.prod((1 - schedule.beta[:j]).tolist()) for j in k]).reshape(7, 1, 1, 1)
xt = a.sqrt() * x0 + (1 - a).sqrt() * eps
explicit = (denoiser(xt, schedule.at(k)).eps - eps).square().mean((1, 2, 3))
substituted = loss(denoiser, x0, schedule.at(k), eps=eps)
print(f"x_k spelled out {explicit.mean():.4f}, substituted {substituted.mean():.4f}")
assert (explicit - substituted).abs().max() < 1e-3  # float32, and (1 - a) loses digits at k = 1

# %% [markdown] tags=["DS-52"]
# **Run it.** Our first network for this loss learns two moons in the plane. We build them as rows of small Gaussians, and so own the exact denoiser as well. The learning rate falls in five rounds: large
# steps to get there, small ones to come to rest, for a batch of random draws shakes the weights in proportion to the rate.


# %% tags=["formula", "DS-52"]
def moons(count=25, std=0.08):
    """Two half circles of small Gaussians that embrace, scaled to variance 1 on average."""
    angle = torch.linspace(0, math.pi, count, dtype=torch.float64)
    upper = torch.stack([angle.cos(), angle.sin()], 1)
    means = torch.cat([upper, torch.tensor([1.0, 0.5]).double() - upper])
    means = means - means.mean(0)
    return mixtures.Mixture(means / means.std(), std / means.std())


# %% tags=["formula", "DS-52"]
def train(denoiser, losses, supply, steps=100, rates=(1e-2, 5e-3, 2e-3, 7e-4, 2e-4)):
    """`steps` steps at each learning rate in turn; the loss of every batch."""
    curve = []
    for lr in rates:
        curve += [value.item() for _, value in fit(denoiser, losses, supply, steps, lr)]
    return curve


# %% tags=["formula", "DS-52"]
def fresh(target="eps"):
    """An untrained network for points in the plane; the same one, and the same draws, each time."""
    torch.manual_seed(0)
    return Denoiser(MLP((2,), width=64, depth=2), target)


# %% tags=["check", "DS-52"]
world, simple = moons(), fresh()
supply = batches(world, 256, schedule)
curve = train(simple, lambda d, x0, k: loss(d, x0, schedule.at(k)), supply)
print(f"loss: {curve[0]:.1f} at first, {sum(curve[-100:]) / 100:.2f} at the end")
assert sum(curve[-100:]) / 100 < 0.5

# %% [markdown] tags=["DS-52"]
# Are its samples moons? We walk back with the steps of lesson 04, fifty of them, and take the energy distance of lesson 01, 0 for equal laws. In thousandths:


# %% tags=["formula", "DS-52"]
def walk(denoiser, n=1000, steps=50):
    """n samples, for all models with the same noise."""
    levels, same = grid(DDPMSchedule(), steps), torch.Generator().manual_seed(1)
    noise = initial_noise((n, 2), levels[0], same)
    return last(ddpm(denoiser, noise.float(), levels, generator=same)).double()


# %% tags=["check", "DS-52"]
real, samples = world.sample(4000)[0], walk(simple)
sets = {"noise": torch.randn(1000, 2), "trained": samples, "real again": world.sample(1000)[0]}
apart = {name: 1000 * metrics.energy_distance(x.double(), real) for name, x in sets.items()}
print("from real moons:", ", ".join(f"{name} {abs(round(e))}" for name, e in apart.items()))
assert apart["trained"] < apart["noise"] / 2

# %%
figure, axes = plots.panels(3, size=(3.0, 2.8))
plots.lines({"model": (range(500), curve)}, xlabel="step of training", ylabel="loss", ax=axes[0])
axes[0].lines[0].set(marker="", linestyle="-", linewidth=0.8)
axes[0].set(ylim=(0, 1.1))
for ax, name, points in zip(axes[1:], ("data", "model"), (real, samples), strict=True):
    plots.scatter({name: points[:500]}, limit=2.6, ax=ax)
    ax.set_title(name)
plots.show(
    figure,
    alt="Left, the loss over 500 steps: it falls from 0.9 to about 0.25 within 100 steps and then"
    " only trembles. Middle and right, points of the data and of the model: the same two half "
    "moons, the model's a little softer, with some points between them.",
    caption="After two seconds of training: the loss looks stuck, far above 0, but the samples are "
    "moons, with some dust between them.",
)

# %% [markdown] tags=["formula", "L6-24", "T-26"]
# ## 6. How low can it go?
#
# **Story.** A loss of 0.24: good, bad, stuck? Whoever expects 0 will search for a bug that is not there (T-26). From $x_k$ alone nobody can tell the noise exactly, since several
# pairs $(x_0,\epsilon)$ lead to the same place. Least squares finds their mean, $\epsilon^*=E[\epsilon\mid x_k]$. Split the error, $\epsilon-\epsilon_\theta=(\epsilon-\epsilon^*)+(\epsilon^*-\epsilon_\theta)$: given $x_k$, the first part is 0 on
# average and the second is fixed, so that no mixed term remains:
#
# $$\mathbb E\lVert\epsilon-\epsilon_\theta\rVert^2=\underbrace{\mathbb E\,\mathrm{Var}(\epsilon\mid x_k)}_{\text{floor}}+\underbrace{\mathbb E\lVert\epsilon_\theta-\epsilon^*\rVert^2}_{\text{distance from the truth}} .$$
#
# **Check (L6-24).** For data $N(m,s^2)$ the floor is the average of `gaussian_floor` over the steps. The exact denoiser has to meet it; and the laziest model, $\epsilon_\theta=0$, has to get 1.


# %%
def always(eps):
    """The denoiser that predicts this noise (B, *d), whatever it sees."""
    return lambda x, t, y=None: from_eps(x, t, eps)


# %% tags=["check", "L6-24", "L19-51", "T-26"]
for s in (0.5, 1.0):
    k = torch.randint(1, 1001, (n,))
    x0 = mixtures.gaussian(1.0, s).sample(n)[0]
    floor = gaussian_floor(schedule, s).mean().item()
    exact, zero = mixtures.gaussian(1.0, s), always(torch.zeros_like(x0))
    for name, denoiser, wanted in (("exact", exact, floor), ("zero", zero, 1.0)):
        got = loss(denoiser, x0, schedule.at(k))
        print(f"s = {s}, {name:5}: loss {got.mean():.2f}, predicted {wanted:.3f}")
        assert abs(got.mean() - wanted) < 4 * got.std() / n**0.5


# %% [markdown]
# **By noise level.** One exam for all models to come: 50 noisy points at each of the 1000 steps, with the true noise and the exact answer.


# %% tags=["formula", "L6-24"]
def exam(mixture, table, each):
    """Noisy points (each * T, d) at steps 1..T, 1..T, ..; their levels, noise, exact answers."""
    t = table.at(torch.arange(1, table.T + 1).repeat(each))
    x0 = mixture.sample(len(t.signal))[0]
    eps = torch.randn_like(x0)
    xt = add_noise(x0, eps, t)
    return xt, t, eps, mixture(xt, t).eps


# %% tags=["formula", "L6-24"]
@torch.no_grad()
def answers(denoiser, xt, t):
    """The noise that a network predicts at xt, in float64."""
    return denoiser(xt.float(), t).eps.double()


# %% tags=["formula", "L6-24"]
def by_step(errors, T=1000):
    """Mean squares of the errors in an exam (each * T, d), for every step: (T,)."""
    return errors.square().reshape(-1, T, errors.shape[1]).mean((0, 2))


# %% tags=["check", "L6-24", "T-26"]
xs, ts, noises, best = exam(world, schedule, each=50)
guess = answers(simple, xs, ts)
ours, floor, distance = (by_step(e) for e in (guess - noises, best - noises, guess - best))
mixed = 2 * ((guess - best) * (best - noises)).mean(1)  # 0 on average
print(f"loss {ours.mean():.3f}, floor + distance = {floor.mean():.3f} + {distance.mean():.4f}")
assert abs(mixed.mean()) < 4 * mixed.std() / len(mixed) ** 0.5
assert distance.mean() < 0.15 * floor.mean()

# %%
ks = torch.arange(25, 1000, 50)
errors = {"noise, guessing 0": noises, "exact": best - noises, "model": guess - noises}
curves = {name: (ks, by_step(e).reshape(20, 50).mean(1)) for name, e in errors.items()}
plots.show(
    plots.lines(curves, xlabel="step k", ylabel="mean square of the error"),
    alt="Loss over the step. Guessing 0 gives 1 throughout. The exact curve falls from 0.8 at the"
    " left over a shelf at 0.65 near step 100 to nearly 0 from step 700 on; the model's lies on it "
    "but for a small distance on the left.",
    caption="Guessing noise is hard where there is little of it.",
)

# %% [markdown] tags=["L6-24", "T-26"]
# (The shelf near step 100: there the noise is wider than the moons are thick, and can be told *across* them, but not yet along them.) So the loss
# depends mostly on the data and on *which steps* were asked, little on the network. Compare it with the floor where you can, else only on the same data and the same draw of steps.
#
# **Play.** Watch the network answer. Each orange dot is the picture $\hat x_0$ that its guess of the noise amounts to, and a line leads from it to the noisy point it was asked about. *Predict:*
# is it at small or at large $k$ that the loss is near 0, and at which are the pictures right?


# %% tags=["play"]
def asked(denoiser, mixture, table, n=80):
    """Frames of the pictures that a network guesses, joined to the points it was asked about."""
    background = plots.scatter({"data": mixture.sample(500)[0]}, limit=3.0)
    x0, stage = mixture.sample(n)[0], plots.Stage(background)
    eps = torch.randn_like(x0)

    def frames(k):
        t = table.at(k)
        xk = add_noise(x0, eps, t)
        guess = from_eps(xk, t, answers(denoiser, xk, t))
        wrong = [(e - eps).square().mean() for e in (guess.eps, mixture(xk, t).eps)]
        off = (guess.x0 - x0).square().mean()
        words = f"step {k}, noise {t.noise:.2f}: loss {wrong[0]:.2f}, floor {wrong[1]:.2f}"
        words += f"; the guessed pictures are off by {off.sqrt():.2f} per number"
        yield widgets.Frame(stage.draw(guess.x0, torch.stack([xk, guess.x0])), words)

    return frames


# %% tags=["play"]
asking = widgets.Explorer(
    asked(simple, world, schedule),
    {"k": widgets.slider("noise level k", 10, 700, value=100, step=10)},
    width=400,
)
asking.show(
    alt="points of two moons, and pictures that the network guesses. At small k the guesses lie "
    "on the moons, each a short line away from its noisy point; as k grows the lines get longer, "
    "and the guesses leave the moons and gather in the middle",
    still_over="k", values=[10, 50, 100, 200, 300, 400, 700],
)  # fmt: skip

# %% tags=["check"]
found = {}
for k in (10, 700):
    asking["k"].value = k
    asking.wait()
    words = asking.readout.split()
    found[k] = float(words[words.index("loss") + 1].strip(",")), float(words[-3])
    print(asking.readout)
assert found[10][0] > 0.5 > 0.1 > found[700][0]  # the loss
assert found[10][1] < 0.2 < 0.7 < found[700][1]  # the pictures
asking["k"].value = 100

# %% [markdown] tags=["exercise"]
# **Exercise 2.** The slider shows it: near the data the loss is close to 1, hardly better than guessing 0. Why does that not make the model useless there?
#
# <details><summary>Answer</summary>
#
# A step back multiplies the predicted noise by $\beta_k/(\sqrt{\alpha_k}\,\text{noise}_k)$, 0.01 at $k=1$, and a prediction of $x_0$ by noise/signal, also 0.01. One cannot tell the noise because there is so little of it.
# </details>

# %% [markdown] tags=["formula", "DS-50", "E-43"]
# ## 7. What a network costs
#
# **Story.** The floor is the same for all models. So what a network loses against the exact denoiser is its distance from the truth, with a weight for each step: in the simple loss, or in nats of the bound,
#
# $$\frac1T\sum_kd_k\qquad\text{or}\qquad\sum_k\lambda_k\,d_k\quad\text{nats},\qquad d_k=\mathbb E\lVert\epsilon_\theta-\epsilon^*\rVert^2\text{ per dimension} .$$
#
# **Check.** The second is what `bound` says, too.

# %% tags=["check", "DS-50"]
power = (world.means.square().mean() + world.std[0] ** 2).item()
nats = [bound(e, schedule.beta, schedule, power).sum() for e in (floor, floor + distance)]
extra = (weight * distance).sum()
print(f"bound: exact {nats[0]:.2f}, network {nats[1]:.2f} nats per dimension")
print(f"difference {nats[1] - nats[0]:.4f}, weighted distance {extra:.4f} nats")
print(f"that is {extra / math.log(2):.2f} bits per dimension")
assert abs(nats[1] - nats[0] - extra) < 1e-10

# %% [markdown] tags=["DS-50", "E-43"]
# **Simple or bound?** Now the experiment announced in section 4: the same network, the same number of steps, the weights of the bound. They can come in by multiplying the loss with $\lambda_k$, or by drawing $k$
# more often where $\lambda_k$ is large; the mean is the same. *Predict:* which of the two shakes more? We ask the exact denoiser, so that nothing but the draw can shake.


# %% tags=["formula", "DS-50"]
def drawn(mixture, n, weight):
    """Fresh points (n, *d) and a step for each, drawn in proportion to weight (T,)."""
    while True:
        k = torch.multinomial(weight, n, replacement=True) + 1
        yield mixture.sample(n)[0].float(), k


# %% tags=["check", "DS-50"]
relative, found = weight / weight.mean(), {}
for name, factor, supply in (
    ("multiplied", relative, batches(world, 20_000, schedule)),
    ("drawn", torch.ones(1000).double(), drawn(world, 20_000, weight)),
):
    x0, k = next(supply)
    found[name] = factor[k - 1] * loss(world, x0.double(), schedule.at(k))
    print(f"{name:10}: mean {found[name].mean():.1f}, standard deviation {found[name].std():.1f}")
gap = found["multiplied"].mean() - found["drawn"].mean()
assert abs(gap) < 4 * sum(v.var() for v in found.values()).sqrt() / 20_000**0.5
assert found["multiplied"].std() > 2 * found["drawn"].std()

# %% [markdown] tags=["DS-50", "E-43"]
# Multiplying shakes the loss several times as much, and the gradient with it: so we draw. (For this reason Nichol and Dhariwal 2021 draw steps, too, in proportion to the size of their terms.) *Predict* who wins: in
# $L_{\text{simple}}$, in nats, in samples?

# %% tags=["check", "DS-50", "E-43"]
models = {"simple": simple, "bound": fresh()}
supply = drawn(world, 256, weight)
train(models["bound"], lambda d, x0, k: loss(d, x0, schedule.at(k)), supply)
rows = []
for name, model in models.items():
    d = by_step(answers(model, xs, ts) - best)
    apart = 1000 * metrics.energy_distance(walk(model), real)
    rows.append([name, d.mean().item(), d[:10].mean().item(), (weight * d).sum().item(), apart])

# %% tags=["check", "DS-50", "E-43"]
header = ["steps drawn as", "distance", "steps 1 to 10", "nats lost", "samples apart, thousandths"]
shown = [[r[0], *(f"{v:.3f}" for v in r[1:4]), round(r[4])] for r in rows]
plots.table(shown, header=header, caption="Two weights, and what they buy above the floor")
assert rows[1][2] < rows[0][2]  # the first steps
assert rows[1][3] < rows[0][3]  # nats

# %% [markdown] tags=["DS-50", "E-43"]
# In this small world the bound buys nats, in the first steps, and costs nothing: both models make moons. On photographs Ho et al. (2020, table 1) saw the simple loss win *in
# samples* and lose in likelihood. So the dropped weights are not an approximation, they are a decision about what a model should spend its strength on.

# %% [markdown] tags=["formula", "DS-04"]
# ## 8. What to ask for
#
# **Story.** Given $x_k$, whoever knows the noise knows the picture. So one may as well ask the network for $x_0$, or for the *velocity* $v=\text{signal}\cdot\epsilon-\text{noise}\cdot x_0$: write signal and noise as $\cos\varphi$ and $\sin\varphi$,
# and $v$ is $dx/d\varphi$, the direction in which $x$ moves as the clock runs. The lecture says that asking for noise "works better" (DS-04). What differs is the unit in which errors are counted. If $\epsilon$ is
# off by $\delta$, then $x_0=(x_k-\text{noise}\cdot\epsilon)/\text{signal}$ is off by $-\frac{\text{noise}}{\text{signal}}\delta$, and $v$ by
# $\big(\text{signal}+\frac{\text{noise}^2}{\text{signal}}\big)\delta=\frac1{\text{signal}}\delta$:
#
# $$\lVert x_0-\hat x_0\rVert^2=\frac{\text{noise}^2}{\text{signal}^2}\,\lVert\epsilon-\hat\epsilon\rVert^2,\qquad\lVert v-\hat v\rVert^2=\frac1{\text{signal}^2}\,\lVert\epsilon-\hat\epsilon\rVert^2 .$$
#
# **Check** with the library's loss, for a guess that is wrong at random:

# %% tags=["check", "DS-04"]
x0, true, wrong = torch.randn(3, 1000, 1, dtype=torch.float64)
t = schedule.at(range(1, 1001))
in_eps = loss(always(wrong), x0, t, eps=true)
for target, factor in (("x0", t.noise**2 / t.signal**2), ("v", 1 / t.signal**2)):
    ratio = didiff.loss(always(wrong), x0, t, eps=true, target=target) / in_eps
    print(f"{target:2} at k = 300: {ratio[299]:.6f} times eps, predicted {factor[299]:.6f}")
    assert (ratio / factor - 1).abs().max() < 1e-8

# %% [markdown] tags=["DS-04"]
# So three targets are three weights, 1, noise²/signal² and 1/signal², on one and the same regression (and three scales for the output of the network). *Predict:* at which end of the road will
# the $x_0$-network be bad, at which the $\epsilon$-network?

# %% tags=["check", "DS-04"]
asked_for = {"eps": simple, "v": fresh("v"), "x0": fresh("x0")}
for target in ("v", "x0"):
    supply = batches(world, 256, schedule)
    train(asked_for[target], lambda d, x0, k: didiff.loss(d, x0, schedule.at(k)), supply)

# %% tags=["check", "DS-04"]
rows, sigma = [], schedule.at(range(1, 1001)).sigma  # noise / signal
d = {target: by_step(answers(model, xs, ts) - best) for target, model in asked_for.items()}
for target, model in asked_for.items():
    in_x0 = (sigma**2 * d[target])[-10:].mean()
    apart = 1000 * metrics.energy_distance(walk(model), real)
    rows.append([target, f"{d[target][:10].mean():.2g}", f"{in_x0:.2g}", round(apart)])

# %% tags=["check", "DS-04"]
header = ["asked for", "ε, steps 1-10", "x₀, 991-1000", "samples apart, thousandths"]
plots.table(rows, header=header, caption="Mean square errors above the floor, and samples")
start, end = slice(0, 10), slice(990, 1000)
assert d["x0"][start].mean() > 10 * d["eps"][start].mean()
assert d["eps"][end].mean() > 10 * d["x0"][end].mean()
assert d["v"][start].mean() < d["x0"][start].mean() / 10
assert d["v"][end].mean() < d["eps"][end].mean() / 10


# %% tags=["formula"]
def grouped(values, edges=(0, 1, 3, 6, 12, 25, 50, 100, 200, 400, 700, 1000)):
    """Middle and mean of the steps in each group, for values (T,)."""
    pairs = [*pairwise(edges)]
    means = [values[low:high].mean() for low, high in pairs]
    return [(low + 1 + high) / 2 for low, high in pairs], torch.stack(means)


# %%
curves = {f"asked for {name}": grouped(values) for name, values in d.items()}
plots.show(
    plots.lines(curves, xlabel="step k", ylabel="distance from the exact ε", log=True),
    alt="Squared distance from the exact noise over the step, both axes logarithmic. x0 starts "
    "above 10 at step 1 and falls to a millionth at 1000. eps starts at 0.03, rises to 0.1 "
    "near step 50 and ends at 0.0005. v follows eps on the left and x0 on the right.",
    caption="The same network, three questions.",
)

# %% [markdown] tags=["DS-04"]
# **Put right.** It is a re-weighting, not a better principle. Each is careless where its own unit forgives it: the $\epsilon$-network about $x_0$ at the noisy end (answering 0 would be off by 1 there), the
# $x_0$-network about $\epsilon$ at the clean end (answering 0 would be off by 1 there, too). $v$ is never bad. And yet the samples of all three are close. What does an error at
# either end do to them?

# %% tags=["check", "DS-04"]
first, second, *_, one_left, _ = grid(schedule, 50)
print(f"first step of 50: an error of x₀ moves the point by {second.signal:.3f} of it, at most")
print(f"last step: an error of ε moves the sample by {one_left.sigma:.3f} of it")
assert max(second.signal, one_left.sigma) < 0.1

# %% [markdown] tags=["exercise"]
# A sampler multiplies each error by a number that is small where the error is large.
#
# **Exercise 3.** With which weights on the $x_0$-loss would the $x_0$-network minimise the bound ($\sigma^2=\tilde\beta$)? Write them with the signal-to-noise ratios
# $\mathrm{SNR}=\text{signal}^2/\text{noise}^2$ of steps $k-1$ and $k$.
#
# <details><summary>Answer</summary>
#
# $\lambda_k\,\text{signal}^2/\text{noise}^2$ with $\lambda_k=\beta_k^2/(2\tilde\beta_k\alpha_k\text{noise}_k^2)$. Put $\tilde\beta$ in, and it becomes $\frac12(\text{SNR}_{k-1}-\text{SNR}_k)$ (Kingma et al. 2021).
# </details>

# %% [markdown] tags=["formula", "DS-04"]
# ## 9. The plain decoder, once more
#
# **Story.** In lesson 04 a hundred little functions learnt $E[x_{k-1}\mid x_k]$ from pairs of neighbours. It worked, but nobody does it. What the lecture calls *reparameterised* is this: write the mean of a step
# with the noise in $x_k$, and regress on that noise. Compare the two targets. Given $x_k$, $x_{k-1}$ scatters around $\tilde\mu$, and $\tilde\mu$ scatters because $x_0$ is open; the variances add:
#
# $$\mathrm{Var}(x_{k-1})=\tilde\beta_k+\mathrm{Var}(\tilde\mu),\qquad\mathrm{Var}(\tilde\mu)=\frac{\beta_k^2}{\alpha_k\,\text{noise}_k^2}\,\mathrm{Var}(\epsilon) .$$
#
# $\tilde\beta_k$ is the fresh randomness of a step, which nobody can predict. The bound never asked for it: its KL averages it out by a formula, and what remains of the target is
# $\tilde\mu$, or the noise. The right answer is the same, only the scatter around it shrinks. By how much? A mean over $N$ targets of scatter $s$ is off by about $s/\sqrt N$: so the errors of a regression
# should shrink as the scatter does.
#
# `Steps` and `encode` are repeated from lesson 04, section 7; `encode` now also returns the noise.


# %% tags=["formula", "DS-04"]
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


# %% tags=["formula", "DS-04"]
def encode(mixture, table, n):
    """For each step k = 1..T, n times: x_{k-1}, x_k, and the whole noise in x_k; (T, n) each."""
    k, x0 = torch.arange(1, table.T + 1), mixture.sample(table.T * n)[0].reshape(-1, n).float()
    before, beta = add_noise(x0, torch.randn_like(x0), table.at(k - 1)), table.beta[:, None].to(x0)
    x = (1 - beta).sqrt() * before + beta.sqrt() * torch.randn_like(x0)
    t = table.at(k).like(x)
    return before, x, (x - t.signal * x0) / t.noise


# %% tags=["formula", "DS-04"]
def regress(target, mixture, table, lr, steps=200, n=64):
    """`Steps`, taught by least squares on "x_(k-1)" or on "noise"; the rate falls to 0."""
    torch.manual_seed(0)
    net, k = Steps(table.T), torch.arange(1, table.T + 1)
    optimiser = torch.optim.Adam(net.parameters())
    for i in range(steps):
        before, x, eps = encode(mixture, table, n)
        value = (net(x, k) - {"x_(k-1)": before, "noise": eps}[target]).square().mean()
        optimiser.param_groups[0]["lr"] = lr * (1 - i / steps)
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
    return net


# %% tags=["formula", "DS-04"]
@torch.no_grad()
def misses(net, target, mixture, table, x):
    """Mean square error of each step's mean, averaged over points x (n,) by their density: (T,)."""
    rows = []
    for k in range(1, table.T + 1):
        t, mean = table.at(k), net(x, torch.tensor(k))
        if target == "noise":
            mean = mean_from_noise(x, mean, k, table)
        exact = mean_from_noise(x, mixture(x[:, None], t).eps[:, 0], k, table)
        share = mixture.log_prob(x[:, None], t).softmax(0)
        rows.append((share * (mean - exact) ** 2).sum())
    return torch.stack(rows)


# %% [markdown]
# **Check.** The same functions, start, pairs and number of steps, each at a small and at a large learning rate. By section 3 a mean square error $m$ of a step's mean costs $m/(2\beta_k)$ nats. *Predict* which of the four is best.

# %% tags=["check", "DS-04"]
hundred, x = DDPMSchedule(100, constant(100, 0.03)), line(-1.8, 1.8, 61).float()
missed = {
    (target, lr): misses(regress(target, pair, hundred, lr), target, pair, hundred, x)
    for target in ("x_(k-1)", "noise")
    for lr in (0.002, 0.05)
}

# %% tags=["check", "DS-04"]
nats = {run: (m / 0.06).sum().item() for run, m in missed.items()}
shown = [[*run, f"{missed[run].mean().sqrt():.4f}", f"{cost:.3f}"] for run, cost in nats.items()]
header = ["regression on", "learning rate", "error of a step (root mean square)", "nats lost"]
plots.table(shown, header=header, caption="The plain decoder and the reparameterised one")
best = {name: min((0.002, 0.05), key=lambda lr: nats[name, lr]) for name in ("x_(k-1)", "noise")}
plain, noise = (missed[run] for run in best.items())
assert noise.sum() < plain.sum() / 4

# %% [markdown] tags=["DS-04"]
# Reparameterised, and each at its better rate, the same budget loses less than a quarter of the nats. The plain decoder cannot use the large rate: its gradients are mostly fresh noise. (Nor can
# the other use the small one: it starts at $f_k(x)=x$, far from its answer, and has not arrived yet.) Step by step, beside what the two scatters predict:

# %% tags=["check", "DS-04"]
k = torch.arange(1, 101)
_, points, eps = encode(pair, hundred, 1000)
exact = [pair(row[:, None], hundred.at(j)).eps[:, 0] for j, row in enumerate(points, 1)]
t, before, beta = hundred.at(k), hundred.alpha_bar[k - 1], hundred.beta
tilde = (1 - before) / t.noise**2 * beta
of_mean = beta**2 / (1 - beta) / t.noise**2 * (eps - torch.stack(exact)).square().mean(1)
ratio, gain = (1 + tilde / of_mean).sqrt(), (plain / noise).sqrt()
measured, predicted = (part[10:].log().mean().exp() for part in (gain, ratio))
print(f"geometric means over steps 11 to 100: gain {measured:.0f}, predicted {predicted:.0f}")
assert 1 / 3 < measured / predicted < 3

# %%
parts = (0, 5, 10, 20, 40, 60, 80, 100)
curves = {"exact, by the scatters": grouped(ratio, parts), "model": grouped(gain, parts)}
plots.show(
    plots.lines(curves, xlabel="step k", ylabel="error of the plain / of the other"),
    alt="Two ratios over the step: that of the scatters climbs from 2 to 20, that of the measured "
    "errors from 3 to more than 10, not far from it.",
    caption="The noisier the step, the more the plain decoder loses: its target shakes more.",
)

# %% [markdown] tags=["T-25", "T-26", "T-16", "T-15"]
# ## 10. Bug museum
#
# Five ways to get Algorithm 1 wrong. To see what each does to samples we need not train: we know the *best* network that it can lead to. Whoever draws the steps from 0 to $T-1$ gets the
# exact denoiser everywhere but at $T$, where nothing was taught; let it answer as at $T-1$. One step for a whole batch, a poor embedding, or a leak in the loss still lead to the exact
# denoiser, given time. Not so if **nobody tells the network the time** (T-16): then its best answer is the mean over all steps that may have led to $x$,
# $\epsilon_{\text{blind}}(x)=\sum_kq_k(x)\,\epsilon^*_k(x)\,/\sum_kq_k(x)$ with $q_k$ for the density of $x_k$.


# %% tags=["T-25"]
def untaught(mixture, table):
    """The best denoiser (x, t) for the steps below T; it answers at T as at T - 1."""
    last_one, known = table.at(table.T), table.at(table.T - 1)
    return lambda x, t: from_eps(x, t, mixture(x, t if t.noise < last_one.noise else known).eps)


# %% tags=["T-16"]
def blind(mixture, table, every=25):
    """The best denoiser (x (B, 1), t) that does not look at t."""
    levels = [table.at(k) for k in range(every // 2, table.T + 1, every)]

    def denoise(x, t):
        log_q = torch.stack([mixture.log_prob(x, level) for level in levels], 1)
        eps = torch.cat([mixture(x, level).eps for level in levels], 1)
        return from_eps(x, t, (log_q.softmax(1) * eps).sum(1, keepdim=True))

    return denoise


# %% tags=["T-25", "T-26", "T-16", "T-15"]
class Training(NamedTuple):
    """The parts of Algorithm 1 that go wrong, and the best denoiser that they lead to."""

    steps: Callable = lambda n: torch.randint(1, 1001, (n,))
    told: Callable = lambda k: k  # the number that the embedding gets
    leak: float = 0.0  # the share of the true noise that finds its way into the answer
    best: Callable = pair


VERSIONS = {
    "right": Training(),
    "T-25: steps 0 to T - 1": Training(
        steps=lambda n: torch.randint(0, 1000, (n,)), best=untaught(pair, schedule)
    ),
    "T-25: one step a batch": Training(steps=lambda n: torch.randint(1, 1001, (1,)).expand(n)),
    "T-16: time not used": Training(told=lambda k: 0 * k, best=blind(pair, schedule)),
    "T-15: time in a whisper": Training(told=lambda k: k / 1000),
    "T-26: noise leaks in": Training(leak=0.5),
}

# %% [markdown] tags=["T-25", "T-26", "T-16", "T-15"]
# **The eye** looks at samples. **The unit checks** ask:
#
# * *first step* (T-25): the smallest of many draws. Step 0 has no noise to ask for, and step $T$, where every sampler starts, would never be taught.
# * *shaking* (T-25): how much the loss varies from batch to batch, with the exact denoiser, so that nothing but the draw can shake.
# * *ε grows* (T-16): the answer at $x=1$ must change between steps 100 and 900, from 0.09 to 1.00.
# * *rank* (T-15): networks hear a step as sinusoids, $\sin$ and $\cos$ of $k\cdot10000^{-2j/d}$ (lesson 08). Fed with $k/T$ they hardly turn, and all steps sound the same. In how many directions do
#   the embeddings of all steps point? (The effective rank: $\exp$ of the entropy of the normalised singular values.)
# * *loss - floor* (T-26): with the exact denoiser. A loss that stands at 0.17 is no bug; one that falls *below* the floor is.


# %% tags=["T-15"]
def rank(training, T=1000, d=128):
    """Effective rank of the embeddings of all steps."""
    told = training.told(torch.arange(1, T + 1, dtype=torch.float64))
    angle = told[:, None] * 10_000.0 ** (-2 * torch.arange(d // 2, dtype=torch.float64) / d)
    values = torch.linalg.svdvals(torch.cat([angle.sin(), angle.cos()], 1))
    share = values / values.sum()
    return torch.exp(-torch.xlogy(share, share).sum())


# %% tags=["T-16", "T-25", "T-26"]
@cache
def ends(training, n=1000):
    """Samples of its best denoiser, from n quantiles of the noise: DDIM (lesson 07) draws none."""
    noise = Normal(0.0, 1.0).icdf(line(0.5 / n, 1 - 0.5 / n, n))[:, None]
    return last(ddim(training.best, noise, grid(DDPMSchedule(), 50)))[:, 0]


def growth(training):
    """How much the answer at x = 1 changes between steps 100 and 900."""
    x, levels = torch.ones(1, 1).double(), [DDPMSchedule().at(k) for k in (100, 900)]
    early, late = (training.best(x, t).eps.item() for t in levels)
    return late - early


# %% tags=["T-25", "T-26"]
def batch_losses(training, mixture, count=100, n=256):
    """The loss of `count` batches, with the exact denoiser in place of the network: (count,)."""
    k = torch.cat([training.steps(n) for _ in range(count)])
    x0 = mixture.sample(count * n)[0]
    return loss(mixture, x0, DDPMSchedule().at(k)).reshape(count, n).mean(1)


def above_floor(training, mixture, floor, n):
    """The loss, less the floor, of the exact denoiser that has heard some of the true noise."""
    x0, t = mixture.sample(n)[0], DDPMSchedule().at(torch.randint(1, 1001, (n,)))
    eps = torch.randn_like(x0)
    exact = mixture(add_noise(x0, eps, t), t).eps
    return (exact.lerp(eps, training.leak) - eps).square().mean() - floor


# %% tags=["check", "T-15", "T-16", "T-25", "T-26"]
n = 20_000
x0, k = bell.sample(n)[0], torch.randint(1, 1001, (n,))
one_loss = loss(bell, x0, schedule.at(k)).std().item()  # a batch of 256 shakes a 16th of it
points, floor = pair.sample(n)[0][:, 0], gaussian_floor(schedule, 0.5).mean()
eye = {"W₁": Check(lambda v: metrics.wasserstein_1d(ends(v), points), 0.0, slack=0.05)}
units = {
    "first step": Check(lambda v: v.steps(100_000).min(), 1.0),
    "shaking": Check(lambda v: batch_losses(v, bell).std(), one_loss / 16, one_loss / 48),
    "ε grows": Check(growth, 0.91, slack=0.01),
    "rank": Check(rank, 50.0, slack=30.0),
    "loss - floor": Check(lambda v: above_floor(v, bell, floor, n), 0.0, 4 * one_loss / n**0.5),
}
exhibits = museum.inspect(VERSIONS, eye=eye, units=units)

# %% tags=["T-15", "T-16", "T-25", "T-26"]
x = line(-2, 2, 201)
exact = pair.log_prob(x[:, None], schedule.at(0)).exp()
museum.show(
    exhibits,
    draw=lambda one, ax: plots.densities(
        x, {"exact": exact}, samples={"model": ends(one.version)}, ax=ax
    ),
    alt="Six histograms of samples under the dashed density of two bumps. Five fill it. That of "
    "the blind network stands in two needles, three times as high, just outside of -1 and 1, with "
    "a thin smear between.",
    caption="One bug in five is seen in samples",
)

# %% [markdown] tags=["T-15", "T-16", "T-25", "T-26"]
# One bug in five shows. The other four leave samples as good as ever, though it may take longer to get there: only a check of the part itself sees them.

# %% [markdown]
# ## Answers, checked

# %% tags=["solution", "check"]
short = DDPMSchedule(500, schedule.beta[:500])
for power, wanted in ((1.0, 0.041), (1.25, 0.051)):  # exercise 1
    found = bound(torch.zeros(500), short.beta, short, power)[-1]
    assert abs(found - wanted) < 5e-4
t = schedule.at(1)  # exercise 2
assert abs(schedule.beta[0] / (1 - schedule.beta[0]).sqrt() / t.noise - 0.01) < 1e-4
assert abs(t.sigma - 0.01) < 1e-4
print("exercises 1 and 2 hold")

# %% tags=["solution", "check"]
k = torch.arange(2, 1001)
t, before, beta = schedule.at(k), schedule.at(k - 1), schedule.beta[k - 1]
tilde = before.noise**2 / t.noise**2 * beta
by_bound = beta**2 / (2 * tilde * (1 - beta) * t.noise**2) * t.snr
by_snr = (before.snr - t.snr) / 2
print(f"exercise 3, k = 300: {by_bound[298]:.6f} and {by_snr[298]:.6f}")
assert (by_bound / by_snr - 1).abs().max() < 1e-8

# %% [markdown]
# ## What we learned
#
# * Smallest KL, smallest cross-entropy, highest likelihood: one wish. Paths make it intractable, Jensen bounds it.
# * The bound is a sum over steps, and a model enters it by one number for each, its error in guessing the noise.
# * Without the weights $\lambda_k$ it is no bound any more, but a choice of what to be careful about. So is the choice between $\epsilon$, $x_0$ and $v$.
# * Algorithm 1 is: a picture, a step, noise; mix, ask, compare. Its loss does not go to 0, and the floor can be known.
# * Take out of a target what nobody can predict: the answer stays, the shaking goes.
#
# ## References
#
# * Sohl-Dickstein et al. 2015, *Deep unsupervised learning using nonequilibrium thermodynamics*, section 2.3, appendix B.
# * Ho et al. 2020, *Denoising diffusion probabilistic models*, eq. 3, 5, 8, 12 and 14, algorithm 1, section 3.3 (pixels), table 1.
# * Kingma et al. 2021, *Variational diffusion models*, section 4 (the bound and the signal-to-noise ratio).
# * Nichol & Dhariwal 2021, *Improved DDPM*, section 3.1 (learned variance), 3.3 (drawing steps by their weight).
# * Salimans & Ho 2022, *Progressive distillation*, section 4 (the target $v$).
# * Prince 2023, *Understanding deep learning*, sections 18.4 and 18.5 (its $\alpha_t$ is our $\bar\alpha_k$).
#
# **Where next:** lesson 06 looks at the same regression from another side: what it finds is the slope of the log-density.
