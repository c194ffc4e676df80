# %% [markdown]
# # 05 · The training objective
#
# *We want the data to be likely. In this lesson we follow this wish, every term in numbers, down to the question "which noise was it?", and say
# what gets lost on the way.*
#
# **You need** Gaussians, expectations, and the mean and variance of a step back from lesson 04.
#
# **You will be able to** derive the bound on the likelihood and compute each of its terms, say what the simple loss keeps of it, write
# Algorithm 1, tell a good loss from a bad one, and choose what a network shall predict.
#
# **Time** an hour and a half of reading; everything runs in under 35 seconds on two CPU cores.

# %% tags=["setup"]
import math
from itertools import pairwise

import torch
from torch.distributions import Normal, kl_divergence

import didiff
from didiff import (
    Denoiser,
    add_noise,
    from_eps,
    from_x0,
    metrics,
    mixtures,
    networks,
    plots,
    widgets,
)
from didiff.samplers import ddim, initial_noise, last
from didiff.schedules import DDPMSchedule, constant, grid

torch.manual_seed(0)
torch.set_num_threads(1)  # the networks are small: two threads would wait for each other
plots.style()

# %% [markdown] tags=["formula", "DS-48"]
# ## 1. What is a good model?
#
# **Story.** A model is a density $p_\theta$; the data have the density $q$, of which we only own samples. The distance we used in lesson 04
# asks how much more likely, in logarithms, data are under the truth than under the model:
#
# $$\mathrm{KL}(q\,\|\,p_\theta)=\int q\log\frac{q}{p_\theta}=\underbrace{-\int q\log p_\theta}_{\text{cross-entropy}}-\underbrace{\Big(-\int q\log q\Big)}_{\text{entropy of the data}} .$$
#
# It is never negative, and 0 only for $p_\theta=q$. The last term does not know $\theta$. So the smallest KL, the smallest cross-entropy
# and the highest average log-likelihood are one and the same wish (DS-48), and the middle term needs only samples.
#
# **Check.** Models $N(\mu,\sigma^2)$ for two kinds of data: one bell, and two bumps at $\pm1$. *Predict:* which single bell is best for two bumps?


# %%
def line(low, high, n):
    return torch.linspace(low, high, n, dtype=torch.float64)


# %% tags=["formula", "DS-48"]
def cross_entropy_and_kl(log_q, log_p, x):
    """-int q log p and int q (log q - log p) by sums over x (N,); log_p (.., N). In nats."""
    q = log_q.exp() * (x[1] - x[0])
    return -(q * log_p).sum(-1), (q * (log_q - log_p)).sum(-1)


# %% tags=["check", "DS-48"]
x, clean = line(-8, 8, 1001), DDPMSchedule().at(0)
mu, sigma = torch.meshgrid(line(-1, 1, 41), line(0.3, 2.3, 101), indexing="ij")
log_p = Normal(mu[..., None], sigma[..., None]).log_prob(x)
for name, mixture in (("one bell", mixtures.gaussian(0.5, 0.5)), ("bumps", mixtures.bimodal())):
    log_q = mixture.log_prob(x[:, None], clean)
    cross, kl = cross_entropy_and_kl(log_q, log_p, x)
    entropy = cross_entropy_and_kl(log_q, log_q, x)[0]
    best = cross.argmin()
    print(f"{name}: best μ {mu.flatten()[best].abs():.2f}, σ {sigma.flatten()[best]:.2f};", end=" ")
    print(f"KL there {kl.min().abs():.3f}, entropy {entropy:.3f}, sum {cross.min():.3f} nats")
    assert (kl + entropy - cross).abs().max() < 1e-12
    assert kl.argmin() == best

# %% [markdown] tags=["DS-48", "DS-49"]
# One bell is recovered. For two bumps the best has their mean and standard deviation, $\sqrt{1.09}$: likelihood covers everything, whatever it costs.
#
# **A formula to keep (DS-49).** Between two Gaussians the integral is closed. Monte Carlo, that is averaging $\log q-\log p$ over
# samples of $q$, has to agree within its own error.


# %% tags=["formula", "DS-49"]
def kl_of_gaussians(distance, var_1, var_2):
    """KL(N(m_1, var_1) || N(m_2, var_2)) in nats; distance: (m_1 - m_2)^2, or its average."""
    return ((var_2 / var_1).log() + (var_1 + distance) / var_2 - 1) / 2


# %% tags=["check", "DS-49"]
n, one = 100_000, torch.ones((), dtype=torch.float64)
wide, unit = Normal(0 * one, 2 * one), Normal(0 * one, one)
for p, q in ((Normal(one, one / 2), unit), (wide, Normal(one, one))):
    closed = kl_of_gaussians((p.mean - q.mean) ** 2, p.variance, q.variance)
    z = p.sample((n,))
    ratio = p.log_prob(z) - q.log_prob(z)
    print(
        f"closed form {closed:.4f}, Monte Carlo {ratio.mean():.3f} ± {4 * ratio.std() / n**0.5:.3f}"
    )
    assert abs(ratio.mean() - closed) < 4 * ratio.std() / n**0.5
    assert abs(closed - kl_divergence(p, q)) < 1e-12

# %% [markdown] tags=["formula", "DS-49", "DS-03", "E-34"]
# ## 2. A bound from below
#
# **Story.** Our model makes $x_0$ at the end of a path, $x_T\to x_{T-1}\to\dots\to x_0$. Its likelihood is a sum over *all* the paths that may have led
# there, $p_\theta(x_0)=\int p_\theta(x_{0:T})\,dx_{1:T}$, and a path of a thousand steps is a point in a space of a thousand dimensions. But
# we own a good guess of where paths to $x_0$ come from: noise $x_0$ *forwards*. Divide by the forward density $q$ and multiply by it; the
# logarithm is concave, so the mean of a logarithm is at most the logarithm of the mean (Jensen):
#
# $$\log p_\theta(x_0)=\log\,\mathbb E_{q(x_{1:T}\mid x_0)}\Big[\underbrace{\frac{p_\theta(x_{0:T})}{q(x_{1:T}\mid x_0)}}_{w}\Big]\;\ge\;\mathbb E_q\big[\log w\big]=:\mathrm{ELBO}.$$
#
# ELBO is short for *evidence lower bound*.
#
# **Code.** The chain of lesson 04 with a Gaussian step back: its mean from the predicted noise, its variance $\sigma_k^2$ our choice.


# %% tags=["formula", "DS-49"]
def step_mean(x, eps, k, table):
    """(x - beta_k / noise_k * eps) / sqrt(1 - beta_k): the mean of a step back (lesson 04)."""
    beta = table.beta[k - 1]
    return (x - beta / table.at(k).noise * eps) / (1 - beta).sqrt()


# %% tags=["formula", "DS-49"]
def log_weights(denoiser, x0, table, variance):
    """log w of one forward path from each x0 (B, 1): (B,). variance (T,): sigma^2 by step."""
    x, log_w = x0, 0.0
    for k, beta in enumerate(table.beta, start=1):
        forward = Normal((1 - beta).sqrt() * x, beta.sqrt())
        after = forward.sample()
        mean = step_mean(after, denoiser(after, table.at(k)).eps, k, table)
        log_w += Normal(mean, variance[k - 1].sqrt()).log_prob(x) - forward.log_prob(after)
        x = after
    return (log_w + Normal(0.0, 1.0).log_prob(x))[:, 0]


# %% [markdown]
# Three variances from lesson 04: $\tilde\beta_k$, right if the data are a single point (its first value, 0, has no logarithm: we put the second in its
# place), $\beta_k$, right for $N(0,1)$, and the exact one, which for data $N(m,s^2)$ is a short formula.


# %% tags=["formula"]
def variances(table, s):
    """Three choices of sigma^2 for the steps 1..T, and data of variance s^2: (T,) each."""
    before, now = table.alpha_bar[:-1], table.alpha_bar[1:]
    tilde = (1 - before) / (1 - now) * table.beta
    spread = table.alpha_bar * s**2 + 1 - table.alpha_bar
    exact = table.beta * spread[:-1] / spread[1:]
    return {"β̃": torch.cat([tilde[1:2], tilde[1:]]), "β": table.beta, "exact": exact}


# %% [markdown]
# **Check.** For Gaussian data and the exact denoiser every step is affine, so $p_\theta(x_0)$ is a Gaussian whose mean and variance
# come out of a loop. Ten steps, $x_0=1.3$, 100,000 paths.


# %% tags=["formula"]
def made(mixture, table, variance):
    """The exact law of x_0 that a chain makes of N(0, 1), for Gaussian data."""
    k, mean, spread = torch.arange(1, table.T + 1), 0.0, 1.0
    ends = torch.zeros(table.T, 1).double(), torch.ones(table.T, 1).double()
    noise = [mixture(x, table.at(k)).eps for x in ends]
    low, high = (step_mean(x[:, 0], e[:, 0], k, table) for x, e in zip(ends, noise, strict=True))
    for a, b, v in reversed([*zip(low, high - low, variance, strict=True)]):
        mean, spread = a + b * mean, b**2 * spread + v
    return Normal(mean, spread.sqrt())


# %% tags=["check", "DS-49", "DS-03", "E-34"]
bell, ten = mixtures.gaussian(1.0, 0.5), DDPMSchedule(10, constant(10, 0.3))
x0, rows = torch.full((n, 1), 1.3, dtype=torch.float64), []
for name, variance in variances(ten, 0.5).items():
    log_w = log_weights(bell, x0, ten, variance)
    w, exact = log_w.exp(), made(bell, ten, variance).log_prob(x0[0, 0])
    assert abs(w.mean() / exact.exp() - 1) < 4 * w.std() / w.mean() / n**0.5
    assert log_w.mean() + 4 * log_w.std() / n**0.5 < exact
    rows.append([name, *(f"{value:.2f}" for value in (log_w.mean(), w.mean().log(), exact))])
plots.table(
    rows,
    header=["variance", "mean of log w (ELBO)", "log of mean w", "exact log p(x₀)"],
    caption="A bound and a likelihood, in nats",
)

# %% [markdown] tags=["DS-03", "E-34"]
# The mean of $w$ finds the likelihood, the mean of $\log w$ stays below it. (Why not use the mean of $w$ always? Over a thousand steps
# in a thousand dimensions a few lucky paths carry it all.)
#
# **Is it so?** The outline of the lecture announces the ELBO as a "lower bound on the loss" (DS-03). The loss is $-\log p_\theta(x_0)$. *Which way round is it?*

# %% tags=["check", "DS-03", "E-34"]
for name, elbo, _, exact in rows:
    print(f"{name:6} -ELBO {-float(elbo):.2f} > loss {-float(exact):.2f}")
    assert -float(elbo) > -float(exact)

# %% [markdown] tags=["DS-03", "E-34"]
# **Put right.** ELBO: a lower bound on the *log-likelihood*. Its negative: an upper bound on the loss, and that is what one wants: pushing an upper bound
# down presses the loss, a lower bound would say nothing. From here on *the bound* is the negative ELBO.
#
# One more trap of the outline: it follows a book (Prince 2023, chapter 18) whose $\alpha_t$ is our $\bar\alpha_k$. What happens to who mixes them up?

# %% tags=["check", "DS-03", "E-34"]
schedule, k = DDPMSchedule(), 300  # T = 1000, linear
single, product = 1 - schedule.beta[k - 1], schedule.alpha_bar[k]
print(f"signal at step {k}: √α = {single.sqrt():.3f}, √ᾱ = {product.sqrt():.3f}")
assert abs(product.sqrt() - schedule.at(k).signal) < 1e-12
assert single.sqrt() > 0.99 > 0.7 > product.sqrt()

# %% [markdown] tags=["formula", "DS-49"]
# ## 3. Every term of the bound
#
# **Story.** The slides skip what comes now (DS-49); it is half a page. Pair the factors of $w$ step by step. A forward step can be
# turned round by Bayes' rule if $x_0$ is kept in the condition, which changes nothing, as the chain is Markov:
#
# $$q(x_k\mid x_{k-1})=q(x_k\mid x_{k-1},x_0)=\frac{q(x_{k-1}\mid x_k,x_0)\,q(x_k\mid x_0)}{q(x_{k-1}\mid x_0)}\qquad(k\ge2).$$
#
# In the product over $k$ the last fraction telescopes to $q(x_T\mid x_0)/q(x_1\mid x_0)$, and the latter cancels against the forward step $k=1$. Sort, and take the expectation:
#
# $$-\mathrm{ELBO}=\underbrace{\mathrm{KL}\big(q(x_T|x_0)\,\|\,p(x_T)\big)}_{L_T}+\sum_{k=2}^{T}\underbrace{\mathbb E\,\mathrm{KL}\big(q(x_{k-1}|x_k,x_0)\,\|\,p_\theta(x_{k-1}|x_k)\big)}_{L_{k-1}}\;\underbrace{-\,\mathbb E\log p_\theta(x_0|x_1)}_{L_0} .$$
#
# $L_T$: is the end of the road noise? $L_{k-1}$: does the model step back as one would who *knows* $x_0$? $L_0$: does the last step hit? All KLs are between Gaussians, with variances $\tilde\beta_k$ and
# $\sigma_k^2$ and two means which, by lesson 04, differ only in the noise they believe in:
# $\tilde\mu-\mu_\theta=\frac{\beta_k}{\sqrt{\alpha_k}\,\text{noise}_k}(\epsilon_\theta-\epsilon)$. (For $k=1$ as well, where $\tilde\mu=x_0$.) So a model enters the bound by one number for each step,
# $e_k=\mathbb E(\epsilon-\epsilon_\theta)^2$.


# %% tags=["formula", "DS-49"]
def bound(errors, variance, table, power):
    """[L_0, .., L_T] in nats per dimension, from errors[k-1] = E(eps - eps_theta)^2 at step k.

    errors, variance (T,); power: the mean of x0^2. Returns (T + 1,).
    """
    t, beta, before = table.at(range(1, table.T + 1)), table.beta, table.alpha_bar[:-1]
    distance = beta**2 / ((1 - beta) * t.noise**2) * errors  # E(mean - mean_theta)^2
    tilde = (1 - before) / t.noise**2 * beta
    terms = kl_of_gaussians(distance, tilde, variance)
    terms[0] = (2 * math.pi * variance[0]).log() / 2 + distance[0] / (2 * variance[0])
    end = table.at(table.T)
    last_term = kl_of_gaussians(end.signal**2 * power, end.noise**2, torch.ones(()))
    return torch.cat([terms, last_term[None]])


# %% [markdown]
# For data $N(m,s^2)$ and the exact denoiser, $e_k$ is what $x_k$ leaves open about $\epsilon$, a conditional variance of two jointly
# Gaussian numbers: $e_k=\mathrm{Var}(\epsilon\mid x_k)=\bar\alpha_ks^2/(\bar\alpha_ks^2+1-\bar\alpha_k)$.


# %% tags=["formula", "L6-24"]
def gaussian_floor(table, s):
    """Var(eps | x_k) for k = 1..T and data of variance s^2: (T,)."""
    t = table.at(range(1, table.T + 1))
    return (t.signal * s) ** 2 / ((t.signal * s) ** 2 + t.noise**2)


# %% [markdown]
# **Check.** The sum must be what the ten-step paths of section 2 found, now over random $x_0$; and single terms what torch's own KL says, averaged over draws.

# %% tags=["check", "DS-49"]
x0 = bell.sample(n)[0]
for name, variance in variances(ten, 0.5).items():
    total = bound(gaussian_floor(ten, 0.5), variance, ten, power=1.25).sum()
    log_w = log_weights(bell, x0, ten, variance)
    print(f"{name:6} in closed form {total:.4f}, by paths {-log_w.mean():.2f} nats")
    assert abs(log_w.mean() + total) < 4 * log_w.std() / n**0.5

# %% tags=["check", "DS-49"]
terms = bound(gaussian_floor(schedule, 0.5), schedule.beta, schedule, power=1.25)
eps = torch.randn_like(x0)
for k in (2, 100, 700):
    t, s, beta = schedule.at(k), schedule.at(k - 1), schedule.beta[k - 1]
    xk = add_noise(x0, eps, t)
    known = s.signal * beta * x0 + (1 - beta).sqrt() * s.noise**2 * xk  # lesson 04, section 3
    true = Normal(known / t.noise**2, s.noise / t.noise * beta.sqrt())
    kl = kl_divergence(true, Normal(step_mean(xk, bell(xk, t).eps, k, schedule), beta.sqrt()))
    print(f"L_{k - 1}: closed form {terms[k - 1]:.2e}, Monte Carlo {kl.mean():.1e}")
    assert abs(kl.mean() - terms[k - 1]) < 4 * kl.std() / n**0.5

# %% [markdown] tags=["DS-49"]
# **Now the full table.** A thousand steps, three widths of data, three variances: the bound in its three parts, beside the exact negative
# log-likelihood of the chain, averaged over the data, and the entropy of the data, which no model gets below. *Predict:* which rows will be tight?


# %% tags=["formula", "DS-49"]
def loss_of_law(law, m, s):
    """-E log law(x0) for x0 ~ N(m, s^2) and a Gaussian law, in nats."""
    return (2 * math.pi * law.variance).log() / 2 + (s**2 + (m - law.mean) ** 2) / (
        2 * law.variance
    )


# %% tags=["check", "DS-49"]
rows = []
for s in (0.1, 1.0, 10.0):
    data, entropy = mixtures.gaussian(0.0, s), math.log(2 * math.pi * math.e * s**2) / 2
    for name, variance in variances(schedule, s).items():
        terms = bound(gaussian_floor(schedule, s), variance, schedule, power=s**2)
        nll = loss_of_law(made(data, schedule, variance), 0.0, s).item()
        parts = terms[-1], terms[1:-1].sum(), terms[0], terms.sum()
        rows.append([s**2, name, *(part.item() for part in parts), nll, entropy])
        assert entropy - 1e-9 < nll < terms.sum() + 1e-9

# %% tags=["check", "DS-49"]
header = ["variance of data", "σ²", "L_T", "all L_(k-1)", "L_0", "bound", "exact", "entropy"]
shown = [[r[0], r[1], f"{r[2]:.0e}", *(f"{v:.3f}" for v in r[3:])] for r in rows]
plots.table(shown, header=header, caption="The bound, term by term, in nats per dimension")
waste = [r[5] - r[7] for r in rows]
assert all(w > 0.4 for w in waste[0::3])  # β̃
assert all(w < 0.02 for w in waste[1::3])  # β
assert all(w < 1e-5 for w in waste[2::3])  # exact

# %% [markdown] tags=["DS-49"]
# With the exact variance the bound *is* the likelihood, to five digits, and the likelihood is the entropy. With $\beta$ almost; $\tilde\beta$ wastes
# half a nat, all of it in $L_0$ and its neighbours. The chain itself is nearly as good: the looseness is in the bound more than in the samples.
#
# Look at $L_{k-1}$: even at its best it is *not zero*. A model that must do without $x_0$ cannot step back like one who knows it, and the sum of what it
# lacks is what the data have to say.
#
# **Play.** Nichol and Dhariwal (2021) let a network choose between the two variances, $\sigma^2=\beta^v\,\tilde\beta^{1-v}$. You are the network, with one $v$ for all steps:
# find the best for data of standard deviation 0.5, then for 0.1. Where would you want another $v$?


# %% tags=["play"]
def blended(table, errors):
    """Frames of what each term loses for sigma^2 = beta^v * beta_tilde^(1 - v)."""
    k = torch.tensor([1, 2, 3, 4, 5, 7, 10, 14, 20, 30, 50, 70, 100, 150, 200, 300, 500])

    def frames(v, s):
        options = variances(table, s)
        blend = (v * options["β"].log() + (1 - v) * options["β̃"].log()).exp()
        *ends, ours, best = (
            bound(errors(table, s), choice, table, s**2)
            for choice in (options["β̃"], options["β"], blend, options["exact"])
        )
        names = "noise, v = 0", "noise, v = 1", f"model, v = {v:.2f}"
        lost = {name: (k, (b - best)[k - 1]) for name, b in zip(names, (*ends, ours), strict=True)}
        figure = plots.lines(lost, xlabel="step k", ylabel="nats lost in its term", log=True)
        figure.axes[0].set(ylim=(1e-9, 1))
        words = f"bound {ours.sum():.4f} nats, at best {best.sum():.4f}: "
        words += f"lost {(ours - best).sum().clamp(min=0):.4f}"
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
    "step 200 on; the model's curve moves from the first to the second as v grows",
    still_over="v", values=[0.0, 0.2, 0.4, 0.6, 0.8, 1.0],
)  # fmt: skip

# %% tags=["check"]
at_zero = explorer.readout
explorer["v"].value = 1.0
explorer.wait()
print(at_zero, explorer.readout, sep="\n")
assert float(at_zero.split()[-1]) > 0.4 > 0.01 > float(explorer.readout.split()[-1])
explorer["v"].value = 0.0

# %% [markdown] tags=["exercise"]
# **Exercise 1.** Somebody shortens the linear table to its first 500 steps. Which term of the bound says so, and how many nats is it for data $N(0,1)$, and for $N(1,\tfrac14)$?
#
# <details><summary>Answer</summary>
#
# $L_T$, the KL of $N(\sqrt{\bar\alpha}x_0,1-\bar\alpha)$ to $N(0,1)$, averaged: $\tfrac12(\bar\alpha E[x_0^2]-\bar\alpha-\log(1-\bar\alpha))$ with $\bar\alpha_{500}=0.0786$. That is 0.041 for $N(0,1)$ and, with
# $E[x_0^2]=1.25$, 0.051.
# </details>

# %% [markdown] tags=["formula", "DS-49"]
# ## 4. The simple loss, and what it drops
#
# **Story.** Put the difference of the means into a term of the bound. What depends on $\theta$ is one square:
#
# $$L_{k-1}=\lambda_k\,\mathbb E\lVert\epsilon-\epsilon_\theta(x_k,k)\rVert^2+\text{const},\qquad\lambda_k=\frac{\beta_k^2}{2\sigma_k^2\,\alpha_k\,(1-\bar\alpha_k)} .$$
#
# Guessing noise well *is* stepping back well. **Check** it as an identity, sample by sample, for a guess that is wrong at random:

# %% tags=["check", "DS-49"]
k = torch.arange(2, 1001)
t, beta, tilde = schedule.at(k), schedule.beta[k - 1], variances(schedule, 1.0)["β̃"][k - 1]
x0, eps, guess = torch.randn(3, 999, dtype=torch.float64)
xk = add_noise(x0, eps, t)
mean, wrong = (step_mean(xk, e, k, schedule) for e in (eps, guess))
scale = beta**2 / (2 * (1 - beta) * t.noise**2)  # λ times σ²

# %% tags=["check", "DS-49"]
for name, v in (("β", beta), ("β̃", tilde)):
    kl = kl_divergence(Normal(mean, tilde.sqrt()), Normal(wrong, v.sqrt()))
    const = kl_divergence(Normal(mean, tilde.sqrt()), Normal(mean, v.sqrt()))
    squares = scale / v * (eps - guess) ** 2
    print(f"σ² = {name:2} k = 300: {kl[298]:.8f} = {squares[298]:.8f} + {const[298]:.8f}")
    assert (kl - squares - const).abs().max() < 1e-10

# %% [markdown] tags=["DS-50", "E-43"]
# **What is dropped (DS-50).** Ho et al. (2020) leave out $\lambda_k$, and with $k$ uniform in $1..T$ arrive at
# $L_{\text{simple}}=\mathbb E_{k,x_0,\epsilon}\lVert\epsilon-\epsilon_\theta(x_k,k)\rVert^2$. *Predict:* how large is $\lambda_k$ at $k=1$ and at $k=1000$?

# %% tags=["check", "DS-49", "DS-50"]
t, beta = schedule.at(range(1, 1001)), schedule.beta
weight = beta / (2 * (1 - beta) * t.noise**2)  # σ² = β
some = (1, 2, 10, 100, 1000)
print(f"λ at k = {some}:", ", ".join(f"{weight[k - 1]:.3f}" for k in some))
share = weight / weight.sum()
for name, w in (("bound", share), ("simple", torch.full((1000,), 1e-3))):
    first, half = w[:10].sum(), w[500:].sum()
    print(f"{name:6}: share of steps 1 to 10 {first:.1%}, of 501 to 1000 {half:.1%}")
assert abs(weight[0] - 0.5) < 1e-3
assert share[:10].sum() > 10 * 0.01

# %%
ks = [1, 2, 3, 5, 7, 10, 20, 30, 50, 70, 100, 200, 300, 500, 700, 1000]
curves = {"exact bound": (ks, share[[k - 1 for k in ks]]), "model, simple": (ks, [1e-3] * 16)}
plots.show(
    plots.lines(curves, xlabel="step k", ylabel="share of the weight", log=True),
    alt="Share of the weight over the step, both axes logarithmic. That of the bound falls from "
    "0.05 at step 1 to 0.0005 near step 300 and climbs to 0.001 at the end; the simple one is"
    " flat at 0.001. They cross at step 100.",
    caption="The simple loss looks away from the last, almost invisible noise.",
)

# %% [markdown] tags=["DS-50", "E-43"]
# **Is it so?** The lecture calls $\mathbb E\lVert\epsilon-\epsilon_\theta\rVert^2$ a "simplified *upper bound*" to be minimised (DS-50). An upper bound on the loss would have to lie above it. Take the best
# possible model, and data of variance 100:

# %% tags=["check", "DS-50", "E-43"]
for s in (0.1, 1.0, 10.0):
    simple, entropy = gaussian_floor(schedule, s).mean(), math.log(2 * math.pi * math.e * s**2) / 2
    verdict = "above" if simple > entropy else "BELOW"
    print(
        f"variance {s**2:6.2f}: simple {simple:.3f}, {verdict} the exact loss, {entropy:.2f} nats"
    )
assert simple < entropy

# %% [markdown] tags=["DS-50", "E-43"]
# **Put right.** Without weights it is no bound any more, on anything: only $\lambda_k$ makes nats of squares. It is the bound, *re-weighted*. If one model is best at every
# step, it is best for any weights; a real network must divide its attention, and then they matter. Section 7 trains with both.

# %% [markdown] tags=["formula", "DS-51", "L19-51", "L6-08"]
# ## 5. Algorithm 1
#
# **Story.** Write $x_k$ out, and the loss has nothing random left but data, noise and step (DS-51; "the reverse process learns to
# predict noise", L19-51):
#
# $$\lVert\epsilon-\epsilon_\theta(\sqrt{\bar\alpha_k}\,x_0+\sqrt{1-\bar\alpha_k}\,\epsilon,\;k)\rVert^2 .$$
#
# In words: *take a picture, take a step $k$, take noise. Mix them. Ask the network which noise it was.* (The formula sums over the $d$ numbers of a sample, the code takes
# their mean: then 1 is the loss of whoever always answers 0.)


# %% tags=["formula", "twin:didiff.denoiser.loss", "DS-51"]
def loss(denoiser, x0, t, y=None, eps=None):
    """Mean squared error of the predicted noise, one number per sample: (B,)."""
    eps = torch.randn_like(x0) if eps is None else eps
    guess = denoiser(add_noise(x0, eps, t), t, y)
    return (guess.eps - eps).square().flatten(1).mean(1)


# %% tags=["formula", "twin:didiff.training.fit", "DS-52"]
def fit(denoiser, losses, batches, steps, lr=1e-3):
    """Minimise the mean of losses(denoiser, *batch) -> (B,); yield after every step."""
    optimiser = torch.optim.Adam(denoiser.parameters(), lr)
    for step in range(1, steps + 1):
        value = losses(denoiser, *next(batches)).mean()
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        yield step, value.detach()


# %% [markdown] tags=["L6-08", "DS-51"]
# **Check.** What must a network be for this? A map from a noisy $x$ and a step to something *of the shape of* $x$ (L6-08). `networks.MLP` is one. It is told the step as a *clock* in $[0,1]$;
# `Denoiser` does that. Any batch size must do, any step, a step for each sample. And the loss is the same if we spell $x_k$ out.

# %% tags=["check", "L6-08"]
for shape in ((2,), (1, 8, 8)):
    denoiser = Denoiser(networks.MLP(shape, width=64, depth=2), target="eps")
    for B, k in ((1, [1]), (7, [1, 3, 77, 333, 501, 999, 1000])):
        x = torch.randn(B, *shape)
        guess = denoiser(x, schedule.at(k))
        print(f"in {tuple(x.shape)}, out {tuple(guess.eps.shape)}")
        assert guess.eps.shape == guess.x0.shape == x.shape

# %% tags=["check", "DS-51"]
x0, eps, k = torch.randn(7, 1, 8, 8), torch.randn(7, 1, 8, 8), [1, 3, 77, 333, 501, 999, 1000]
a = torch.tensor([math.prod((1 - schedule.beta[:j]).tolist()) for j in k]).reshape(7, 1, 1, 1)
xt = a.sqrt() * x0 + (1 - a).sqrt() * eps
explicit = (denoiser(xt, schedule.at(k)).eps - eps).square().mean((1, 2, 3))
substituted = loss(denoiser, x0, schedule.at(k), eps=eps)
print(f"x_k spelled out {explicit.mean():.4f}, substituted {substituted.mean():.4f}")
assert (explicit - substituted).abs().max() < 1e-3  # float32, and (1 - a) loses digits at k = 1

# %% [markdown] tags=["DS-52"]
# **Run it (DS-52).** Our first learnt model: two moons in the plane. We build them as a row of 50 small Gaussians, and so own the exact denoiser as well. `batches` draws data
# and steps, `fit` does the rest; a few rounds with smaller and smaller learning rates.


# %% tags=["formula", "DS-52"]
def moons(count=25, std=0.08):
    """Two half circles of small Gaussians that embrace, scaled to variance 1 on average."""
    angle = torch.linspace(0, math.pi, count, dtype=torch.float64)
    upper = torch.stack([angle.cos(), angle.sin()], 1)
    means = torch.cat([upper, torch.tensor([1.0, 0.5]).double() - upper])
    means = means - means.mean(0)
    return mixtures.Mixture(means / means.std(), std / means.std())


# %% tags=["formula", "DS-52"]
def batches(mixture, n, table):
    """Fresh points (n, *d) and a random step in 1..T for each, without end."""
    while True:
        yield mixture.sample(n)[0].float(), torch.randint(1, table.T + 1, (n,))


# %% tags=["formula", "DS-52"]
def train(denoiser, losses, supply, steps=200, rates=(5e-3, 1e-3, 2e-4)):
    """`steps` steps at each learning rate in turn; the losses on the way."""
    rounds = [fit(denoiser, losses, supply, steps, lr) for lr in rates]
    return [value.item() for each in rounds for _, value in each]


# %% tags=["formula", "DS-52"]
def fresh(target="eps", width=64):
    """An untrained network for points in the plane, the same one every time."""
    torch.manual_seed(0)
    return Denoiser(networks.MLP((2,), width, depth=2), target)


# %% tags=["check", "DS-52"]
world, simple = moons(), fresh()
supply = batches(world, 256, schedule)
curve = train(simple, lambda d, x0, k: loss(d, x0, schedule.at(k)), supply)
print(f"loss: {curve[0]:.1f} at first, {sum(curve[-100:]) / 100:.2f} at the end")
assert sum(curve[-100:]) / 100 < 0.5


# %% tags=["formula", "DS-52"]
def walk(denoiser, n=2000, steps=50):
    """n samples by DDIM (lesson 07), all models from the same noise."""
    levels = grid(DDPMSchedule(), steps)
    noise = initial_noise((n, 2), levels[0], torch.Generator().manual_seed(1))
    return last(ddim(denoiser, noise.float(), levels)).double()


# %% tags=["check", "DS-52"]
real, samples = world.sample(4000)[0], walk(simple)
apart = metrics.energy_distance(samples, real)
noise = metrics.energy_distance(torch.randn(2000, 2).double(), real)
print(f"energy distance to real moons: trained {apart:.2f}, the noise it began with {noise:.2f}")
assert apart < noise

# %%
figure, axes = plots.panels(2, size=(4.0, 2.8))
plots.lines({"model": (range(600), curve)}, xlabel="step of training", ylabel="loss", ax=axes[0])
axes[0].lines[0].set(marker="", linestyle="-", linewidth=0.8)
axes[0].set(ylim=(0, 1.1))
plots.scatter({"data": real[:600], "model": samples[:600]}, limit=2.4, ax=axes[1])
plots.show(
    figure,
    alt="Left, the loss over 600 steps: it falls from 0.9 to about 0.25 within 100 steps and then"
    " only trembles. Right, points of the data and of the model lie on the same two half "
    "moons, with a few of the model's between them.",
    caption="The loss looks stuck, far above 0. The samples do not look like a failure.",
)

# %% [markdown] tags=["formula", "L6-24", "T-26"]
# ## 6. How low can it go?
#
# **Story.** A loss of 0.24: good, bad, stuck? Whoever expects 0 will search for a bug that is not there (T-26). From $x_k$ alone nobody can tell the noise exactly, since several
# pairs $(x_0,\epsilon)$ lead to the same place. Least squares finds their mean, $\epsilon^*=E[\epsilon\mid x_k]$, and what remains is
#
# $$\mathbb E\lVert\epsilon-\epsilon_\theta\rVert^2=\underbrace{\mathbb E\,\mathrm{Var}(\epsilon\mid x_k)}_{\text{floor}}+\underbrace{\mathbb E\lVert\epsilon_\theta-\epsilon^*\rVert^2}_{\text{distance from the truth}} .$$
#
# **Check (L6-24).** For bells the floor is `gaussian_floor`. The exact denoiser has to meet it; and the laziest model, $\epsilon_\theta=0$, has to get 1.


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
# **By noise level.** One exam for all models to come: 100 noisy points at each of the 1000 steps, with the true noise and the exact answer.


# %% tags=["formula", "L6-24"]
def exam(mixture, table, each):
    """Noisy points (each * T, d) at all steps of the table, true noise, and exact answers."""
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
    """Mean squares of errors (each * T, d) for every step: (T,)."""
    return errors.square().reshape(-1, T, errors.shape[1]).mean((0, 2))


# %% tags=["check", "L6-24", "T-26"]
xs, ts, noises, best = exam(world, schedule, each=100)
guess = answers(simple, xs, ts)
ours, floor, distance = (by_step(e) for e in (guess - noises, best - noises, guess - best))
cross = 2 * ((guess - best) * (best - noises)).mean(1)  # 0 on average, as ε* is a mean given x_k
print(f"loss {ours.mean():.3f} = floor {floor.mean():.3f} + distance {distance.mean():.4f}, nearly")
assert abs(cross.mean()) < 4 * cross.std() / len(cross) ** 0.5
assert distance.mean() < 0.15 * floor.mean()

# %%
ks = torch.arange(25, 1000, 50)
errors = {"noise, guessing 0": noises, "exact": best - noises, "model": guess - noises}
curves = {name: (ks, by_step(e).reshape(20, 50).mean(1)) for name, e in errors.items()}
plots.show(
    plots.lines(curves, xlabel="step k", ylabel="mean square of the error"),
    alt="Loss over the step. Guessing 0 gives 1 throughout. The exact curve falls from 0.8 at the"
    " left to nearly 0 from step 700 on; the model's lies on it but for a small distance on "
    "the left.",
    caption="Guessing noise is hard where there is little of it.",
)

# %% [markdown] tags=["L6-24", "T-26"]
# So the loss depends mostly on the data and on *which steps* were asked, little on the network. Compare it with the floor where you can, else only on the same data and draw of steps.

# %% [markdown] tags=["exercise"]
# **Exercise 2.** For data $N(m,s^2)$ the floor is $(\text{signal}\cdot s)^2/((\text{signal}\cdot s)^2+\text{noise}^2)$, near 1 at $k=1$: hardly better than guessing 0. Why does that
# not make the model useless there?
#
# <details><summary>Answer</summary>
#
# A step back multiplies the predicted noise by $\beta_k/(\sqrt{\alpha_k}\,\text{noise}_k)$, 0.01 at $k=1$, and a prediction of $x_0$ by noise/signal, also 0.01. One cannot tell the noise because there is so little of it.
# </details>

# %% [markdown] tags=["formula", "DS-50", "E-43"]
# ## 7. What a network costs, in nats and in bits
#
# **Story.** The floor is the same for all models. So what a network loses against the exact denoiser, in each of the two currencies, is its distance from the truth, weighted:
#
# $$\text{in }L_{\text{simple}}:\;\frac1T\sum_k d_k,\qquad\text{in nats of the bound}:\;\sum_k\lambda_k\,d_k,\qquad d_k=\mathbb E\lVert\epsilon_\theta-\epsilon^*\rVert^2/\text{dim}.$$
#
# **Check.** The second is what `bound` says, too. And a *bit* is $\log2$ nats; images are quoted in bits per dimension.

# %% tags=["check", "DS-50"]
power = (world.means.square().mean() + world.std[0] ** 2).item()
nats = [bound(e, schedule.beta, schedule, power).sum() for e in (floor, floor + distance)]
extra = (weight * distance).sum()
print(f"bound: exact {nats[0]:.2f}, network {nats[1]:.2f} nats per dimension")
print(f"difference {nats[1] - nats[0]:.4f}, weighted distance {extra:.4f} nats")
print(f"that is {extra / math.log(2):.2f} bits per dimension")
assert abs(nats[1] - nats[0] - extra) < 1e-10

# %% [markdown] tags=["DS-48"]
# **Negative bits?** In the table of section 3 the bound was *negative* for narrow data. A density is no probability: it may exceed 1, and it changes with the unit of length (data 10 times as wide cost $\log10$ nats more). Numbers for
# images stay positive since pixels are *counted*: what is reported is the probability of a grey value, the mass of a bin. For a bin of width $\delta$ that is about $p\,\delta$, so we pay
# $\log_2(1/\delta)$ bits more than the density says.

# %% tags=["check", "DS-48"]
law, rows = Normal(0 * one, 0.3 * one), []
for bins in (16, 64, 256):  # grey values in [-1, 1], the ends open
    edges = torch.cat([-9 * one[None], line(-1, 1, bins + 1)[1:-1], 9 * one[None]])
    mass = law.cdf(edges).diff()
    counted = -torch.xlogy(mass, mass).sum() / math.log(2)
    density = law.entropy() / math.log(2) + math.log2(bins / 2)
    rows.append([bins, f"{counted:.3f}", f"{density:.3f}", math.log2(bins)])
    assert abs(counted - density) < 0.01
plots.table(
    rows,
    header=["grey values", "bits, counted", "bits from the density", "if all were equally likely"],
    caption="Bits per pixel for N(0, 0.3²)",
)

# %% [markdown] tags=["DS-50", "E-43"]
# **Simple or bound?** Now the experiment announced in section 4: the same network, the same number of steps, the weights of the bound. They can come in by multiplying the loss with $\lambda_k$, or by drawing $k$
# more often where $\lambda_k$ is large. The mean is the same. *Predict:* is the rest?


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

# %% [markdown] tags=["DS-50", "E-43"]
# Multiplying shakes the loss several times as much, and the gradient with it: so we draw (Nichol and Dhariwal 2021 do, for this reason). *Predict* who wins: in $L_{\text{simple}}$, in nats, in samples?

# %% tags=["check", "DS-50", "E-43"]
models = {"simple": simple, "bound": fresh()}
supply = drawn(world, 256, weight)
train(models["bound"], lambda d, x0, k: loss(d, x0, schedule.at(k)), supply)
rows = []
for name, model in models.items():
    d = by_step(answers(model, xs, ts) - best)
    apart = metrics.energy_distance(walk(model), real)
    rows.append([name, d.mean().item(), d[:10].mean().item(), (weight * d).sum().item(), apart])

# %% tags=["check", "DS-50", "E-43"]
header = [
    "steps drawn as",
    "distance, all steps",
    "1 to 10",
    "nats per dimension",
    "energy distance",
]
shown = [[r[0], *(f"{v:.2g}" for v in r[1:4]), f"{r[4]:.2f}"] for r in rows]
plots.table(shown, header=header, caption="Two weights, and what they buy above the floor")
assert rows[1][2] < rows[0][2]  # the first steps
assert rows[1][3] < rows[0][3]  # nats

# %% [markdown] tags=["DS-50", "E-43"]
# In this small world the bound buys nats and costs nothing: the samples of both are moons (two sets of real points differ by 0.00). On photographs Ho et al. (2020, table 1) saw the simple loss win *in
# samples* and lose in likelihood. So the dropped weights are not an approximation, they are a decision about what a model shall spend its strength on.

# %% [markdown] tags=["formula", "DS-04"]
# ## 8. What to ask for
#
# **Story.** Given $x_k$, whoever knows the noise knows the picture. So one may as well ask the network for $x_0$, or for $v=\text{signal}\cdot\epsilon-\text{noise}\cdot x_0$. The lecture says that
# asking for noise "works better" (DS-04). What differs is the unit in which errors are counted:
#
# $$\lVert x_0-\hat x_0\rVert^2=\frac{\text{noise}^2}{\text{signal}^2}\,\lVert\epsilon-\hat\epsilon\rVert^2 .$$
#
# **Check.** And for $v$? Both errors come from one $\hat\epsilon$; put them into the definition, and $\text{signal}^2+\text{noise}^2=1$ leaves $1/\text{signal}^2$.

# %% tags=["check", "DS-04"]
x0, true, wrong = torch.randn(3, 1000, 1, dtype=torch.float64)
t = schedule.at(range(1, 1001))
x = add_noise(x0, true, t)
for target, factor in (("x0", t.noise**2 / t.signal**2), ("v", 1 / t.signal**2)):
    in_eps, counted = (
        didiff.loss(always(wrong), x0, t, eps=true, target=each) for each in ("eps", target)
    )
    ratio = counted / in_eps
    print(f"{target:2} at k = 300: {ratio[299]:.6f} times eps, predicted {factor[299]:.6f}")
    assert (ratio / factor - 1).abs().max() < 1e-8

# %% [markdown] tags=["DS-04"]
# So three targets are three weights, 1, noise²/signal² and 1/signal², on one and the same regression (and three scales for the output of the network). *Predict:* at which end of the road will
# the $x_0$-network be bad, at which the $\epsilon$-network?

# %% tags=["check", "DS-04"]
models |= {"x0": fresh("x0"), "v": fresh("v")}
for target in ("x0", "v"):
    supply = batches(world, 256, schedule)
    train(models[target], lambda d, x0, k: didiff.loss(d, x0, schedule.at(k)), supply)

# %% tags=["check", "DS-04"]
asked, rows = {"eps": "simple", "x0": "x0", "v": "v"}, []
d = {target: by_step(answers(models[name], xs, ts) - best) for target, name in asked.items()}
sigma = schedule.at(range(1, 1001)).sigma
for target, name in asked.items():
    in_x0 = (sigma**2 * d[target])[-10:].mean()
    apart = metrics.energy_distance(walk(models[name]), real)
    rows.append([target, f"{d[target][:10].mean():.2g}", f"{in_x0:.2g}", f"{apart:.2f}"])

# %% tags=["check", "DS-04"]
header = ["asked for", "error of ε, steps 1 to 10", "error of x₀, 991 to 1000", "energy distance"]
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
curves = {name: grouped(values) for name, values in d.items()}
plots.show(
    plots.lines(curves, xlabel="step k", ylabel="distance from the exact ε", log=True),
    alt="Squared distance from the exact noise over the step, both axes logarithmic. x0 starts "
    "near 100 at step 1 and falls to a millionth at 1000. eps starts at 0.03, rises to 0.1 "
    "near step 50 and ends at 0.0005. v follows eps on the left and x0 on the right.",
    caption="The same network, three questions.",
)

# %% [markdown] tags=["DS-04"]
# **Put right.** It is a re-weighting, not a better principle. Each is careless where its own unit forgives it: the $\epsilon$-network about $x_0$ at the noisy end (12, where answering 0 would give 1), the $x_0$-network about $\epsilon$ at the
# clean end (tens of times worse than answering 0). $v$ is never bad. And in the samples all three are close, since a sampler multiplies each error by the small number of its step.

# %% [markdown] tags=["exercise"]
# **Exercise 3.** With which weights on the $x_0$-loss would the $x_0$-network minimise the bound ($\sigma^2=\tilde\beta$)? Write them with the signal-to-noise ratios of steps $k-1$ and $k$.
#
# <details><summary>Answer</summary>
#
# $\lambda_k\,\text{signal}^2/\text{noise}^2$ with $\lambda_k=\beta_k^2/(2\tilde\beta_k\alpha_k\text{noise}_k^2)$. Put $\tilde\beta$ in, and it becomes $\frac12(\text{SNR}_{k-1}-\text{SNR}_k)$ (Kingma et al. 2021).
# </details>

# %% [markdown] tags=["formula", "DS-04"]
# ## 9. The plain decoder, once more
#
# **Story.** In lesson 04 a hundred little functions learnt $E[x_{k-1}\mid x_k]$ from pairs of neighbours. It worked, but nobody does it. Compare what the two regressions aim at. Given $x_k$,
#
# $$\mathrm{Var}(x_{k-1})=\tilde\beta_k+\mathrm{Var}(\tilde\mu),\qquad\mathrm{Var}(\tilde\mu)=\frac{\beta_k^2}{\alpha_k\,\text{noise}_k^2}\,\mathrm{Var}(\epsilon) .$$
#
# The plain target contains the fresh randomness of a step, $\tilde\beta_k$, which nobody can predict. The bound never asked for it: its KL averages it out by a formula, and what remains of the target is
# $\tilde\mu$, or the noise. The right answer is the same, only the scatter around it shrinks. By how much? Errors of a regression are proportional to the scatter.


# %% tags=["formula", "DS-04"]
class Steps(torch.nn.Module):
    """f_k(x) = x + c_k . tanh(a_k x + b_k), k = 1..T: the little networks of lesson 04."""

    def __init__(self, T, width=16):
        super().__init__()
        self.a = torch.nn.Parameter(2 * torch.randn(T, width))
        self.b = torch.nn.Parameter(2 * torch.randn(T, width))
        self.c = torch.nn.Parameter(torch.zeros(T, width))

    def forward(self, x, k):  # x (.., n), k (..)
        a, b, c = (p[k - 1].unsqueeze(-2) for p in (self.a, self.b, self.c))  # (.., 1, width)
        return x + (torch.tanh(x[..., None] * a + b) @ c.mT)[..., 0]


# %% tags=["formula", "DS-04"]
def neighbours(mixture, table, n):
    """For each step: x_{k-1}, x_k, and the whole noise in x_k; (T, n) each."""
    k, x0 = torch.arange(1, table.T + 1), mixture.sample(table.T * n)[0].reshape(table.T, n)
    before, beta = add_noise(x0, torch.randn_like(x0), table.at(k - 1)), table.beta[:, None].to(x0)
    x = (1 - beta).sqrt() * before + beta.sqrt() * torch.randn_like(x0)
    return before, x, from_x0(x, table.at(k), x0).eps


# %% tags=["formula", "DS-04"]
def regress(target, mixture, table, lr, steps=400, n=64):
    """`Steps`, taught by least squares on x_{k-1} (target 0) or on the noise (target 2)."""
    torch.manual_seed(0)
    net, k = Steps(table.T), torch.arange(1, table.T + 1)
    optimiser = torch.optim.Adam(net.parameters())
    for i in range(steps):
        drawn = neighbours(mixture, table, n)
        value = (net(drawn[1], k) - drawn[target]).square().mean()
        optimiser.param_groups[0]["lr"] = lr * (1 - i / steps)
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
    return net


# %% tags=["formula", "DS-04"]
@torch.no_grad()
def misses(net, target, mixture, table, x):
    """Root mean square error of the mean of each step back, over points x (n,): (T,)."""
    rows = []
    for k in range(1, table.T + 1):
        t, out = table.at(k), net(x, torch.tensor(k))
        exact = step_mean(x, mixture(x[:, None], t).eps[:, 0], k, table)
        mean = out if target == 0 else step_mean(x, out, k, table)
        share = mixture.log_prob(x[:, None], t).softmax(0)
        rows.append((share * (mean - exact) ** 2).sum().sqrt())
    return torch.stack(rows)


# %% [markdown]
# **Check.** The same functions, start, pairs and number of steps, each at a small and at a large learning rate. An error $m_k$ of the mean costs $m_k^2/(2\beta_k)$ nats. *Predict* which of the four is best.

# %% tags=["check", "DS-04"]
hundred = DDPMSchedule(100, constant(100, 0.03))
bumps, x = mixtures.Mixture(torch.tensor([[-1.0], [1.0]]), 0.3), torch.linspace(-1.8, 1.8, 61)
missed = {
    (name, lr): misses(regress(target, bumps, hundred, lr), target, bumps, hundred, x)
    for name, target in (("x_(k-1)", 0), ("noise", 2))
    for lr in (0.002, 0.05)
}

# %% tags=["check", "DS-04"]
nats = {run: (m**2 / 0.06).sum().item() for run, m in missed.items()}
shown = [[*run, f"{missed[run].mean():.4f}", f"{cost:.2g}"] for run, cost in nats.items()]
header = ["regression on", "learning rate", "mean error of a step", "nats, all steps"]
plots.table(shown, header=header, caption="The plain decoder and the reparameterised one")
plain, noise = (min(nats[name, lr] for lr in (0.002, 0.05)) for name in ("x_(k-1)", "noise"))
assert noise < plain / 4

# %% [markdown] tags=["DS-04"]
# Reparameterised, and each at its better rate, the same budget loses less than a tenth of the nats. The plain decoder cannot use the large rate: its gradients are mostly fresh noise. Step by step, the gain beside the predicted ratio of the scatters:

# %% tags=["check", "DS-04"]
pair, k = mixtures.bimodal(), torch.arange(1, 101)
_, points, eps = neighbours(pair, hundred, 1000)
answer = torch.stack(
    [pair(row[:, None], hundred.at(j)).eps[:, 0] for j, row in enumerate(points, 1)]
)
t, before, beta = hundred.at(k), hundred.alpha_bar[k - 1], hundred.beta
of_mean = beta**2 / (1 - beta) / t.noise**2 * (eps - answer).square().mean(1)
ratio = (1 + (1 - before) / t.noise**2 * beta / of_mean).sqrt()
gain = missed["x_(k-1)", 0.002] / missed["noise", 0.05]
off = (gain[10:].log() - ratio[10:].log()).mean().exp()
print(f"steps 11 to 100: ratio of errors {off:.1f} times that of scatters, on (geometric) average")
assert 1 / 3 < off < 3
parts = (0, 5, 10, 20, 40, 60, 80, 100)
curves = {
    "exact ratio of scatters": grouped(ratio, parts),
    "model, ratio of errors": grouped(gain, parts),
}

# %%
plots.show(
    plots.lines(curves, xlabel="step k", ylabel="plain / reparameterised", log=True),
    alt="Two ratios over the step, both axes logarithmic: that of the scatters climbs from 2 to "
    "20, that of the measured errors from 3 to 14, not far from it.",
    caption="The plain decoder loses about as much as its target shakes more.",
)

# %% [markdown] tags=["T-25", "T-26", "T-16", "T-15"]
# ## 10. Bug museum
#
# **The wrong steps (T-25).** `torch.randint(0, T, ...)` asks for the noise in a clean picture (step 0) and never for step $T$, where every sampler starts. Loss and samples look the same, so only a unit check sees it. *Check: the range of many draws.* Its sister draws *one* step for the
# whole batch: the mean is right, but the loss shakes. *Check: the spread of the loss over batches*, with the exact denoiser, so that nothing but the draw can shake.

# %% tags=["check", "T-25"]
for name, k in (("wrong", torch.randint(0, 1000, (n,))), ("right", torch.randint(1, 1001, (n,)))):
    passes = (k.min(), k.max()) == (1, 1000)
    print(f"{name}: steps {k.min()} to {k.max()}, passes: {passes}")
    assert passes == (name == "right")

# %% tags=["check", "T-25"]
x0 = bell.sample(100 * 256)[0]
each, whole = torch.randint(1, 1001, (100, 256)), torch.randint(1, 1001, (100, 1)).expand(100, 256)
spread = {}
for name, k in (("one step for each sample", each), ("one for the batch", whole)):
    means = loss(bell, x0, schedule.at(k.flatten())).reshape(100, 256).mean(1)
    spread[name] = means.std()
    print(f"{name}: batch loss {means.mean():.2f} ± {means.std():.2f}")
assert spread["one for the batch"] > 5 * spread["one step for each sample"]

# %% [markdown] tags=["T-16"]
# **Nobody told the time (T-16).** The clock is computed and not used. What is the *best* such a network can become? A mean over all steps that may have led to $x$, so we need not train it: $\epsilon_{\text{blind}}(x)=\sum_kp_k(x)\,\epsilon^*_k(x)\,/\sum_kp_k(x)$.


# %% tags=["T-16"]
def blind(mixture, table, every=10):
    """The best denoiser (x (B, 1), t) that does not look at t."""
    levels = [table.at(k) for k in range(every // 2, table.T + 1, every)]

    def denoise(x, t, y=None):
        log_p = torch.stack([mixture.log_prob(x, level) for level in levels], 1)
        eps = torch.cat([mixture(x, level).eps for level in levels], 1)
        return from_eps(x, t, (log_p.softmax(1) * eps).sum(1, keepdim=True))

    return denoise


# %% tags=["check", "T-16"]
start, levels = torch.randn(2000, 1, dtype=torch.float64), grid(schedule, 50)
makers, ends = {"exact": pair, "model, blind": blind(pair, schedule)}, {}
x0, k, one_x = pair.sample(2000)[0], torch.randint(1, 1001, (2000,)), torch.ones(1, 1).double()
for name, denoiser in makers.items():
    ends[name] = last(ddim(denoiser, start, levels))
    told = [denoiser(one_x, schedule.at(j)).eps.item() for j in (100, 900)]
    value = loss(denoiser, x0, schedule.at(k)).mean()
    print(
        f"{name:12}: loss {value:.1f}, ε at x = 1 for steps 100, 900: {told[0]:.2f}, {told[1]:.2f}"
    )
    assert (abs(told[0] - told[1]) > 1e-6) == (name == "exact")

# %%
x = line(-3, 3, 301)
truth = {"exact": pair.log_prob(x[:, None], schedule.at(0)).exp()}
plots.show(
    plots.densities(x, truth, samples={"model, blind": ends["model, blind"][:, 0]}),
    alt="Dashed, the two bumps of the data at -1 and 1. The samples of the blind network stand in"
    " two needles, three times as high, just outside of -1 and 1, with a thin smear between.",
    caption="Nobody told this network the time. It is the best of its kind.",
)

# %% [markdown] tags=["T-15"]
# **Told in a whisper (T-15).** Sinusoids with the frequencies $10000^{-2j/d}$ expect steps 1..1000. Fed with $k/T$ they hardly turn: all embeddings are nearly one and the same vector. A network can make up for that, so samples need not
# show it. *Check: how many directions do the embeddings of all steps fill?* (The effective rank: $\exp$ of the entropy of the normalised singular values.)


# %% tags=["formula", "T-15"]
def effective_rank(steps, d=128):
    """Of the embeddings [sin, cos](step * 10000^(-2j/d)) of all steps (T,)."""
    angle = steps[:, None] * 10_000.0 ** (-2 * torch.arange(d // 2, dtype=torch.float64) / d)
    values = torch.linalg.svdvals(torch.cat([angle.sin(), angle.cos()], 1))
    share = values / values.sum()
    return torch.exp(-torch.xlogy(share, share).sum()).item()


# %% tags=["check", "T-15"]
steps = torch.arange(1, 1001, dtype=torch.float64)
ranks = effective_rank(steps), effective_rank(steps / 1000)
print(f"effective rank of the embeddings: fed with k {ranks[0]:.1f}, with k / T {ranks[1]:.1f}")
assert ranks[0] > 20 > ranks[1]

# %% [markdown] tags=["T-26"]
# **A bug that is not there, and one that is (T-26).** A loss that stands at 0.17 is no bug; one that falls *below* the floor is: noise leaks into the input. *Check: compare with the floor.*


# %% tags=["T-26"]
def halfway(denoiser, eps):
    """Half of what the denoiser predicts, and half of eps."""
    return lambda x, t, y=None: from_eps(x, t, (denoiser(x, t).eps + eps) / 2)


# %% tags=["check", "T-26"]
x0, k = bell.sample(n)[0], torch.randint(1, 1001, (n,))
floor, eps = gaussian_floor(schedule, 0.5).mean(), torch.randn_like(x0)
models = {"exact": bell, "half as much": halfway(bell, 0 * eps), "leak": halfway(bell, eps)}
for name, denoiser in models.items():
    value = loss(denoiser, x0, schedule.at(k), eps=eps)
    error, above = 4 * value.std() / n**0.5, value.mean() - floor
    verdict = "perfect" if abs(above) < error else "can improve" if above > 0 else "a leak"
    print(f"{name:12}: loss {value.mean():.2f}, floor {floor:.3f}: {verdict}")
    assert (verdict == "perfect") == (name == "exact")
    assert (verdict == "a leak") == (name == "leak")

# %% [markdown]
# ## Answers, checked

# %% tags=["solution", "check"]
short = DDPMSchedule(500, schedule.beta[:500])
for power, wanted in ((1.0, 0.041), (1.25, 0.051)):  # exercise 1
    found = bound(torch.zeros(500), short.beta, short, power)[-1]
    assert abs(found - wanted) < 5e-4
assert abs(gaussian_floor(schedule, 0.5)[0] - 1) < 1e-3  # exercise 2
print("the first two hold")

# %% tags=["solution", "check"]
k = torch.arange(2, 1001)
t, s, beta = schedule.at(k), schedule.at(k - 1), schedule.beta[k - 1]
tilde = s.noise**2 / t.noise**2 * beta
by_bound = beta**2 / (2 * tilde * (1 - beta) * t.noise**2) * t.signal**2 / t.noise**2
print(f"exercise 3, k = 300: {by_bound[298]:.6f} and {(s.snr - t.snr)[298] / 2:.6f}")
assert (by_bound / (s.snr - t.snr) * 2 - 1).abs().max() < 1e-8

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
