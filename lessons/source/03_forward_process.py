# %% [markdown]
# # 03 · The forward process
#
# *Destroying a picture is easy. We do it so carefully that at every moment we know, to the last digit, how much of it
# is left.*
#
# **You need** Gaussian random variables (mean, variance, independence), matrices, a little torch; lesson 02 helps.
#
# **You will be able to** noise any picture to any step in one line, compare noise schedules, say in nats how much
# they leave behind, and catch five bugs, three of which the eye misses.
#
# **Time** an hour of reading; 20 seconds of computing on two CPU cores.
#
# **The codes.** The course follows a series of lectures and tests what they say. (L6-06) names a slide, E-01 a slip on a
# slide, T-01 a classic mistake of students.

# %% tags=["setup"]
import math
from itertools import accumulate, pairwise

import torch
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from didiff import data, mixtures, samplers, schedules, sde
from didiff.notebook import museum, plots, widgets
from didiff.notebook.museum import Check
from didiff.process import NoiseLevel

torch.manual_seed(0)
plots.style()

# %% [markdown] tags=["DS-27"]
# ## 1. A number forgets where it came from
#
# **Story.** Take a number, say 3. Shrink it by half a percent and add a little noise. Do that a thousand times. What is
# left of the 3?
#
# **Formula.** With independent $\varepsilon_k\sim N(0,1)$ and a small $p$, here $p=0.01$,
#
# $$X_k=\sqrt{1-p}\;X_{k-1}+\sqrt p\;\varepsilon_k .$$
#
# (The lecture writes $u_k$ for the noise and counts steps with $t$. We count with $k$: our `t` is the noise level itself, a
# pair of numbers that you meet in section 4.)
#
# **Code.**


# %% tags=["formula", "DS-27"]
def recursion(x, keep, add, steps):
    """All states of x <- keep * x + add * noise, the start included. x (*d) -> (steps + 1, *d)."""
    states = [x]
    for _ in range(steps):
        x = keep * x + add * torch.randn_like(x)
        states.append(x)
    return torch.stack(states)


# %% [markdown]
# **Play.** Ten walkers start at $+3$ and ten at $-3$. From which step on can you no longer tell them apart? Guess
# before you look.

# %% tags=["play", "DS-27"]
starts = torch.tensor([3.0, -3.0]).repeat_interleave(10)
walks = recursion(starts, math.sqrt(0.99), math.sqrt(0.01), steps=1000)[::4]
k = range(0, 1001, 4)
figure = plots.paths(k, walks[:, :10], xlabel="step k", ylabel="X")
plots.paths(k, walks[:, 10:], role="model", xlabel="step k", ylabel="X", ax=figure.axes[0])
for role, start, place in (("data", "+3", (240, 2.8)), ("model", "−3", (440, -3.7))):
    figure.axes[0].text(*place, f"started at {start}", color=plots.ROLE[role]["color"])
plots.show(
    figure,
    alt="Twenty jagged paths, blue from +3 and orange from -3. They run together between steps 200 "
    "and 500; from then on both colours fill the same band, mostly between -2 and 2.",
    caption="The band on the right no longer knows who came from where.",
)

# %% [markdown]
# **Check.** Why the two square roots? If $X_{k-1}$ has variance $V$, then $X_k$ has variance $c^2V+p$, where $c$ is the
# factor we keep. It stays put at $V=p/(1-c^2)$, and that is 1 only if $c^2+p=1$. Two smaller choices of $c$ show it.
# A sample variance of $n$ Gaussian draws has standard deviation $V\sqrt{2/n}$, so we allow four of those.

# %% tags=["check", "DS-27"]
n, rows = 5000, []
for label, keep in [("√0.99", math.sqrt(0.99)), ("0.99", 0.99), ("0.98", 0.98)]:
    x = recursion(torch.full((n,), 3.0), keep, math.sqrt(0.01), steps=1000)[-1]
    expected = 0.01 / (1 - keep**2)
    assert abs(x.var() - expected) < 4 * expected * math.sqrt(2 / n)
    assert abs(x.mean() - 3 * keep**1000) < 4 * math.sqrt(expected / n)
    rows.append([label, f"{x.mean():z.2f}", f"{x.var():.2f}", f"{expected:.4f}"])
plots.table(
    rows, header=["kept c", "mean", "variance", "p / (1 - c²)"], caption="After 1000 steps from 3"
)

# %% [markdown] tags=["DS-28", "DS-29"]
# **Unrolled.** Put the recursion into itself $T$ times, and every noise is still there, shrunk once for every step after it:
#
# $$X_T=(\sqrt{1-p})^T X_0+\sum_{i=0}^{T-1}\sqrt p\,(\sqrt{1-p})^i\,\varepsilon_{T-i}.$$
#
# The sum is Gaussian, and its variance is a geometric series, $\sum_i p(1-p)^i=1-(1-p)^T$.

# %% tags=["check", "DS-28"]
keep, add, T = math.sqrt(0.99), math.sqrt(0.01), 1000
eps, i = torch.randn(T, dtype=torch.float64), torch.arange(T, dtype=torch.float64)
# accumulate gives every state in turn; "*_," lets go of all but the last
*_, stepwise = accumulate(eps, lambda x, e: keep * x + add * e, initial=3.0)
unrolled = keep**T * 3.0 + (add * keep**i * eps.flip(0)).sum()
print(f"X_T step by step {stepwise:.10f}   unrolled {unrolled:.10f}")
assert abs(stepwise - unrolled) < 1e-12

# %% tags=["check", "DS-29"]
series, closed = (0.01 * 0.99**i).sum(), 1 - 0.99**T
print(f"variance as a series {series:.10f}   closed form {closed:.10f}")
assert abs(series - closed) < 1e-13

# %% [markdown] tags=["DS-30"]
# **The limit.** $(\sqrt{1-p})^T\to0$, so from any start we tend to $N(0,1)$, the *standard* normal law (the lecture says
# "normal Gaussian"), for $T$ "large enough". How large? The start is multiplied by at most $\delta$ once
# $T\ge 2\ln\delta/\ln(1-p)$. And a far start needs longer. How far $N(\mu,\sigma^2)$ is from $N(0,1)$ is measured by the
# Kullback-Leibler divergence $\mathrm{KL}=\tfrac12(\mu^2+\sigma^2-1-\ln\sigma^2)$, in *nats*, units of the natural logarithm; 0
# means equal. Here $\mu$ is what is left of the start, so KL grows with the square of the start.


# %% tags=["formula", "DS-30"]
def steps_until(delta, p):
    """The first T with (sqrt(1 - p))^T <= delta."""
    return math.ceil(2 * math.log(delta) / math.log(1 - p))


# %% tags=["check", "DS-30"]
enough = steps_until(0.01, p=0.01)
print(f"signal below 0.01 after {enough} steps; after 1000 it is {keep**1000:.5f}")
assert keep**enough <= 0.01 < keep ** (enough - 1)

# %% tags=["check", "DS-30"]
starts = torch.tensor([0.0, 3.0, -3.0, 255.0], dtype=torch.float64)
after = Normal(keep**1000 * starts, math.sqrt(1 - 0.99**1000))
left = (after.mean**2 + after.variance - 1 - after.variance.log()) / 2
assert (left - kl_divergence(after, Normal(0.0, 1.0))).abs().max() < 1e-12
for x0, nats in zip(starts, left, strict=True):
    print(f"start {x0:4.0f}: {nats:.1e} nats from N(0, 1) after 1000 steps")
assert left[1] == left[2] < 1e-3 < 1 < left[3]

# %% [markdown] tags=["exercise"]
# **Exercise 1.** Someone feeds in pixels as they come from a file, 0 to 255, and uses $p=0.01$. After how many steps
# has the *contribution of the start* fallen below 0.01 for every pixel?
#
# <details><summary>Answer</summary>
#
# We need $255\,(\sqrt{0.99})^T\le0.01$, that is `steps_until(0.01 / 255, 0.01)` = 2020 steps, more than twice the 917.
# Rescaling the pixels to $[-1,1]$ is cheaper (section 11).
# </details>

# %% [markdown] tags=["DS-31", "E-40"]
# ## 2. A picture forgets too
#
# **Story.** A picture is a list of numbers, so we do to every pixel what we did to the 3, each with noise of its own:
#
# $$X_1=\sqrt{1-p}\,X_0+\sqrt p\,\varepsilon_1 .$$
#
# Here is a real digit, 8 by 8 pixels, scaled to $[-1,1]$. The same `recursion` takes it apart until it looks like *static*, a
# draw of $N(0,I)$. (What lies beyond $[-1,1]$ is shown as black or white.)

# %% tags=["play", "DS-31"]
digits, labels = data.digits("all")
digit = digits[labels == 0][1]
dissolving = recursion(digit, math.sqrt(0.99), math.sqrt(0.01), steps=1000)
plots.show(
    plots.images(dissolving[[0, 1, 10, 30, 60, 100, 200, 400, 1000]], columns=9, scale=9),
    alt="Nine pictures of a handwritten 0. The first two look the same, from step 10 on grain "
    "appears, at step 60 the 0 can just be guessed, from step 200 on there is to the eye "
    "only static.",
    caption="Steps 0, 1, 10, 30, 60, 100, 200, 400, 1000 with p = 0.01.",
)

# %% [markdown] tags=["DS-31", "E-40"]
# **Is it so?** The slide reads "$X_1=\sqrt{1-p}\,X_0+\sqrt p\,u_1$", and right under $X_1$ stands "$\sim N(0,I)$" (DS-31). Look
# at the second picture and predict: the mean and standard deviation of $X_1$ over all digits, those of $X_1-\sqrt{0.99}\,X_0$, and the
# correlation of $X_1$ with $X_0$.

# %% tags=["check", "DS-31", "E-40"]
x0, n = digits.double(), digits.numel()
x1 = recursion(x0, keep, add, steps=1)[1]
fresh = x1 - keep * x0
print(f"X1            : mean {x1.mean():.2f}, std {x1.std():.2f}")
print(f"X1 - √0.99 X0 : mean {fresh.mean():.4f}, std {fresh.std():.3f}   (√p = 0.100)")
assert abs(fresh.std() - add) < 4 * add / math.sqrt(2 * n)
assert abs(x1.mean()) > 4 / math.sqrt(n)  # under N(0, I) it would be closer to 0

# %% tags=["check", "DS-31", "E-40"]
correlation = torch.corrcoef(torch.stack([x0.flatten(), x1.flatten()]))[0, 1]
expected = (keep * x0.std() / (keep**2 * x0.var() + add**2).sqrt()).item()
print(f"correlation of X1 with X0 {correlation:.3f}   predicted {expected:.3f}")
assert abs(correlation - expected) < 4 * (1 - expected**2) / math.sqrt(n)

# %% [markdown] tags=["DS-31", "E-40"]
# **Put right.** $N(0,I)$ is the law of the *noise* (the slide's $u_1$). The law of $X_1$ is still almost that of the digits: mean
# $-0.39$, correlation 0.99. Only $X_T$, for large $T$, deserves the annotation.

# %% [markdown] tags=["DS-40"]
# ## 3. One step is a law
#
# **Story.** A recipe ("shrink, add noise") and a law ("the conditional density of the next state") say the same. From now
# on the share of fresh noise may differ from step to step: $p$ becomes $\beta_k$.
#
# $$q(x_k\mid x_{k-1})=N\!\left(\sqrt{1-\beta_k}\;x_{k-1},\;\beta_k I\right)$$
#
# $\beta_k$ trades what is kept for what is new, between two extremes: $\beta=0$ keeps everything, $\beta=1$ forgets
# everything at once.


# %% tags=["formula", "DS-40"]
def kernel(x, beta):
    """A draw from q(x_k | x_{k-1} = x) = N(sqrt(1 - beta) x, beta I). x (*d) -> (*d)."""
    return torch.normal(math.sqrt(1 - beta) * x, math.sqrt(beta))


# %% tags=["check", "DS-40"]
before, rows = torch.full((100_000,), 1.5, dtype=torch.float64), []
for beta in (0.0, 0.01, 0.2, 1.0):
    after = kernel(before, beta)
    mean, std = math.sqrt(1 - beta) * 1.5, math.sqrt(beta)
    assert abs(after.mean() - mean) <= 4 * std / math.sqrt(len(after)) + 1e-12
    assert abs(after.std() - std) <= 4 * std / math.sqrt(2 * len(after)) + 1e-12
    rows.append([beta, f"{after.mean():.2f}", f"{mean:.2f}", f"{after.std():.2f}", f"{std:.2f}"])
plots.table(rows, header=["β", "mean", "√(1-β) x", "std", "√β"], caption="One step from x = 1.5")

# %% [markdown] tags=["DS-41"]
# **Reparameterised.** Drawing from $N(\text{mean},\text{std}^2)$ *is* computing mean + std · ε with $\varepsilon\sim N(0,I)$:
# $x_k=\sqrt{1-\beta_k}\,x_{k-1}+\sqrt{\beta_k}\,\varepsilon_k$. The laws agree, as the last check saw. And `torch.normal` does just this
# inside: one seed, the same numbers both ways.

# %% tags=["check", "DS-41"]
x, beta = torch.linspace(-2, 2, 1000, dtype=torch.float64), 0.02
torch.manual_seed(1)
drawn = kernel(x, beta)
torch.manual_seed(1)
computed = math.sqrt(1 - beta) * x + math.sqrt(beta) * torch.randn_like(x)
print(f"largest difference {(drawn - computed).abs().max():.0e}")
assert (drawn - computed).abs().max() < 1e-12

# %% [markdown] tags=["exercise"]
# **Exercise 2.** Ten equal steps shall do exactly what one step with $\beta=0.28$ does. Is their $\beta$ equal to 0.028, less, or
# more?
#
# <details><summary>Answer</summary>
#
# More: what the first steps add is shrunk by the later ones. What is kept multiplies, $(1-\beta)^{10}=1-0.28$, so
# $\beta=1-0.72^{1/10}=0.0323$. And what is added agrees as well: kept and added make 1 in every step, so also in ten.
# </details>

# %% [markdown] tags=["DS-42", "E-01"]
# ## 4. All steps at once
#
# **Story.** Must we really walk 300 steps to see step 300? No: Gaussians added to Gaussians stay Gaussian.
# With $\alpha_k=1-\beta_k$ and $\bar\alpha_k=\alpha_1\alpha_2\cdots\alpha_k$,
#
# $$q(x_k\mid x_0)=N\!\left(\sqrt{\bar\alpha_k}\;x_0,\;(1-\bar\alpha_k)\,I\right).$$
#
# *Proof by induction.* If it holds for $k-1$, one more step multiplies the mean by $\sqrt{\alpha_k}$ and makes the
# variance $\alpha_k(1-\bar\alpha_{k-1})+\beta_k$. That is $1-\bar\alpha_k$, since
# $\alpha_k\bar\alpha_{k-1}=\bar\alpha_k$ and $\alpha_k+\beta_k=1$. The induction starts at $k=0$, where nothing has
# happened yet: **$\bar\alpha_0=1$**, an empty product.
#
# **Code.** The most copied table of the field, by Ho et al. (2020): 1000 steps, linearly growing $\beta_k$.


# %% tags=["formula", "twin:didiff.schedules.linear"]
def linear(T, first=1e-4, last=0.02):
    return torch.linspace(first, last, T, dtype=torch.float64)


# %% tags=["formula", "DS-42", "E-01"]
def alpha_bar(beta):
    """alpha_bar[k] = (1 - beta_1) ... (1 - beta_k) for k = 0..T. beta (T,) -> (T + 1,)."""
    nothing_yet = torch.ones(1, dtype=beta.dtype)
    return torch.cat([nothing_yet, torch.cumprod(1 - beta, 0)])


# %% tags=["check", "DS-42", "E-01"]
beta = linear(1000)
table = alpha_bar(beta)
print(f"{len(table)} entries: {table[0]:.0f}, {table[1]:.4f}, ... , {table[-1]:.3e}")
assert table[0] == 1
assert abs(table[1] - (1 - beta[0])) < 1e-15

# %% tags=["check", "DS-42"]
step = (1 - beta) * (1 - table[:-1]) + beta
print(f"largest gap in the induction step: {(step - (1 - table[1:])).abs().max():.0e}")
assert (step - (1 - table[1:])).abs().max() < 1e-14

# %% [markdown] tags=["E-01"]
# **The entry at 0** is not decoration. In the next lesson a step back has the variance
# $\tilde\beta_k=\frac{1-\bar\alpha_{k-1}}{1-\bar\alpha_k}\beta_k$. The lecture does not say what that is at $k=1$ (L6-06). Predict it!
#
# <details><summary>Answer</summary>
#
# With $\bar\alpha_0=1$ it is 0: the last step back adds no noise. The bug museum shows what happens without the entry.
# </details>

# %% [markdown] tags=["L6-36"]
# **Two numbers say it all.** At any step, $x_k$ mixes picture and noise, and a `NoiseLevel` `t` holds the two amounts:
# `t.signal` $=\sqrt{\bar\alpha_k}$ and `t.noise` $=\sqrt{1-\bar\alpha_k}$. From these two come `t.snr`, `t.alpha_bar`, `t.clock` (section 8)
# and `t.like(x)`, the two shaped to multiply a batch `x` (T-24 below). The next line is the heart of the library; all that comes later,
# samplers too, uses it.


# %% tags=["formula", "L6-36", "twin:didiff.process.add_noise"]
def add_noise(x0, eps, t):
    """xt = t.signal * x0 + t.noise * eps. x0, eps (B, *d); t one level, or one per sample."""
    signal, noise = t.like(x0)
    return signal * x0 + noise * eps


# %% [markdown]
# **Check.** Three hundred steps against one call of `add_noise`, both from $x_0=2$; and data of unit variance keep it.

# %% tags=["formula", "L6-36"]
n, k = 20_000, 300
t = NoiseLevel(table[k].sqrt(), (1 - table[k]).sqrt())
start, random = torch.full((n,), 2.0, dtype=torch.float64), torch.randn(n, dtype=torch.float64)
*_, walked = accumulate(beta[:k].tolist(), kernel, initial=start)
jumped, unit = (add_noise(x0, torch.randn_like(x0), t) for x0 in (start, random))

# %% tags=["check", "L6-36"]
cases = {
    "300 steps": (walked, 2 * t.signal, t.noise**2),
    "one jump": (jumped, 2 * t.signal, t.noise**2),
    "unit data": (unit, 0.0, 1.0),
}
for name, (x, mean, variance) in cases.items():
    print(f"{name}: mean {x.mean():z.2f}, variance {x.var():.2f}", end="; ")
    print(f"expected {mean:.2f} and {variance:.2f}")
    assert abs(x.mean() - mean) < 4 * math.sqrt(variance / n)
    assert abs(x.var() - variance) < 4 * variance * math.sqrt(2 / n)

# %% [markdown] tags=["L6-37"]
# **In several dimensions** each coordinate has its own noise: the covariance of $x_k$ given $x_0$ is $(1-\bar\alpha_k)I$, nothing
# beside the diagonal. (The slide writes "density $\sim N$"; a variable *follows* a law, a density *is* a formula.)

# %% tags=["check", "L6-37"]
n, point = 100_000, torch.tensor([1.0, -0.5, 0.2], dtype=torch.float64)
x = add_noise(point.expand(n, 3), torch.randn(n, 3, dtype=torch.float64), t)
covariance, v, one = torch.cov(x.T), t.noise**2, torch.eye(3)
print(f"expected {v:.2f} on the diagonal; {n} draws give\n{covariance.numpy().round(2) + 0}")
spread = v / math.sqrt(n) * (1 + (math.sqrt(2) - 1) * one)  # √2 more on the diagonal
assert ((covariance - v * one).abs() < 4 * spread).all()
assert ((x.mean(0) - t.signal * point).abs() < 4 * t.noise / math.sqrt(n)).all()

# %% [markdown]
# ## 5. The whole landscape
#
# **Story.** Two views of the same process, as in notebook 18.1 of Prince's book. Left: *one* point $x_0=1$ dissolves. Right: a
# *population* dissolves, two equal bumps at $\pm1$ of standard deviation 0.3: $q(x_k)=\int q(x_k\mid x_0)\,q(x_0)\,dx_0$. Both
# densities are exact: noise turns a Gaussian mixture into another one, and `didiff.mixtures` knows which.
#
# From here on we use the library's table, `DDPMSchedule`: `schedule.at(k)` is the `NoiseLevel` of step $k$.

# %% tags=["check"]
schedule = schedules.DDPMSchedule(1000)
assert torch.equal(schedule.beta, linear(1000))
assert (schedule.alpha_bar - alpha_bar(schedule.beta)).abs().max() < 1e-14


# %% tags=["formula"]
def landscape(mixture, schedule, x, k):
    """The density of x_k at every x and every step k >= 1. x (N,), k (M,) -> (N, M)."""
    points, levels = x.repeat_interleave(len(k))[:, None], schedule.at(k.repeat(len(x)))
    return mixture.log_prob(points, levels).exp().reshape(len(x), len(k))


# %%
x, k = torch.linspace(-3, 3, 181, dtype=torch.float64), torch.arange(1, 1001, 5)
figure, axes = plots.panels(2, size=(4.3, 3.0))
one_point = mixtures.Mixture(torch.tensor([[1.0]], dtype=torch.float64))
worlds = {"one point, q(x_k | x_0 = 1)": one_point, "two bumps, q(x_k)": mixtures.bimodal()}
for ax, (title, source) in zip(axes, worlds.items(), strict=True):
    heights = landscape(source, schedule, x, k).clamp(max=0.66)
    plots.heatmap(k, x, heights, labels=("step k", "x", "density"), ax=ax)
    ax.set_title(title)
plots.show(
    figure,
    alt="Two heat maps over step and x. Left, a bright point at x = 1 fans out like a comet and "
    "bends towards 0. Right, two bright bands at +1 and -1 widen and melt into one near step 250. "
    "At step 1000 both maps look the same.",
    caption="Both cut at 0.66, where the two bumps begin; the single point begins infinitely high.",
)

# %% [markdown]
# **Check.** Is the right map true? 150,000 points walk 100 steps, and we compare their histogram with the exact mass of each
# bin. Half the sum of the gaps, for $n$ draws in $B$ bins, is at most $\tfrac12\sqrt{B/n}$ on average (Cauchy-Schwarz), with
# a standard deviation of at most $\tfrac{1}{2\sqrt n}$.

# %% tags=["check"]
n, bins, source = 150_000, 24, mixtures.bimodal()
points, labels = source.sample(n)
*_, x = accumulate(schedule.beta[:100].tolist(), kernel, initial=points)
measured = torch.histc(x, bins, -3, 3) / n

# %% tags=["check"]
fine = torch.linspace(-3, 3, 50 * bins + 1, dtype=torch.float64)
middle = (fine[1:] + fine[:-1]) / 2
mass = source.log_prob(middle[:, None], schedule.at(100)).exp() * fine.diff()
distance = (measured - mass.reshape(bins, 50).sum(1)).abs().sum() / 2
limit = (math.sqrt(bins) / 2 + 4 / 2) / math.sqrt(n)
print(f"total variation distance {distance:.3f}, allowed {limit:.3f}")
assert distance < limit

# %% [markdown] tags=["play"]
# **Play.** Move the noise level over both worlds (the same noise all along; the picture clipped as in section 2). Where do *you* stop
# seeing the 0? And at which step do the two bumps become one?
#
# <details><summary>Answer for the bumps</summary>
#
# Halfway between two equal bells with centres at $\pm a$ and standard deviation $b$ the density curves like $a^2/b^2-1$: a valley for
# $a>b$, a top for $a<b$. So they merge where $a=\sqrt{\bar\alpha_k}$ equals $b=\sqrt{0.09\,\bar\alpha_k+1-\bar\alpha_k}$, at
# $\bar\alpha_k=1/1.91=0.52$, step 250 or so.
# </details>


# %% tags=["play"]
def dissolve(digit, eps, schedule):
    """A callback k -> the digit at step k, beside the density of the two bumps at step k."""
    x = torch.linspace(-3.5, 3.5, 201, dtype=torch.float64)
    figure, (left, right) = plots.panels(2, size=(2.9, 2.7))  # drawn once; then only moved
    plots.images(digit[None], columns=1, ax=left)
    bell = Normal(0.0, 1.0).log_prob(x).exp()
    plots.densities(x, {"data, noised": bell, "noise N(0, 1)": bell}, ax=right)
    right.set(ylim=(0, 0.9))

    def frames(k):
        t = schedule.at(k)
        noised = add_noise(digit[None], eps[None], t)
        left.images[0].set_data(plots.mosaic(noised, columns=1, scale=4))
        right.lines[0].set_ydata(mixtures.bimodal().log_prob(x[:, None], t).exp())
        readout = f"step {k}: signal {t.signal:.3f}, noise {t.noise:.3f}, SNR {t.snr:.3g}"
        yield widgets.Frame(plots.png(figure), readout)

    return frames


# %% tags=["play"]
moving = dissolve(digit, torch.randn_like(digit), schedule)
level = widgets.slider("step k", 0, 1000, value=150, step=10)
explorer = widgets.Explorer(moving, {"k": level}, width=560)
explorer.show(
    alt="a handwritten 0 under noise, beside the density of two bumps under the same noise",
    still_over="k",
    values=sorted([*range(0, 400, 20), 250, *range(400, 1001, 100)]),
)

# %% tags=["check"]
explorer["k"].value = 600
explorer.wait()
print(explorer.readout)
assert f"signal {schedule.alpha_bar[600].sqrt():.3f}" in explorer.readout
merged = (schedule.alpha_bar - 1 / 1.91).abs().argmin()
print(f"the bumps merge at step {merged}")
for k, sign in ((merged - 10, 1), (merged + 10, -1)):  # a valley before, a top after
    side, top = mixtures.bimodal().log_prob(torch.tensor([[0.05], [0.0]]).double(), schedule.at(k))
    assert sign * (side - top) > 0
explorer["k"].value = 150  # back to where it stood

# %% [markdown] tags=["L6-38"]
# ## 6. The bell, piece by piece
#
# **Story.** Later lessons differentiate $\log q(x_k\mid x_0)$, so we write it out once. In $d$ dimensions a Gaussian with
# mean $\mu$ and covariance $\Sigma$ has the density
# $\exp\!\big(-\tfrac12(x-\mu)^\top\Sigma^{-1}(x-\mu)\big)\big/\big((2\pi)^{d/2}|\Sigma|^{1/2}\big)$.
# Ours has $\Sigma=vI$ with $v=1-\bar\alpha_k$: then $|\Sigma|=v^d$, $\Sigma^{-1}=I/v$, and the quadratic form is a squared length
# over $v$.

# %% tags=["check", "L6-38"]
v = 0.3
for d in (1, 2, 8):
    covariance, x = v * torch.eye(d, dtype=torch.float64), torch.randn(d, dtype=torch.float64)
    determinant, quadratic = torch.linalg.det(covariance), x @ torch.linalg.inv(covariance) @ x
    print(f"d = {d}: determinant of vI {determinant:.3e}, v^d {v**d:.3e}")
    assert abs(determinant / v**d - 1) < 1e-12
    assert abs(quadratic / ((x**2).sum() / v) - 1) < 1e-12

# %% [markdown] tags=["L6-39", "L6-40"]
# **Formula.** The factor in front is $(2\pi)^{d/2}v^{d/2}=(2\pi v)^{d/2}$, and the logarithm of the whole is
#
# $$\log q(x_k\mid x_0)=-\frac d2\log(2\pi v)-\frac{\lVert x_k-\sqrt{\bar\alpha_k}\,x_0\rVert^2}{2v},\qquad v=1-\bar\alpha_k .$$


# %% tags=["formula", "L6-40"]
def log_q(xt, x0, t):
    """log q(xt | x0), in nats. xt, x0 (B, d); t one level. Returns (B,)."""
    v, away = t.noise**2, xt - t.signal * x0
    return -xt.shape[1] / 2 * torch.log(2 * torch.pi * v) - (away**2).sum(1) / (2 * v)


# %% tags=["check", "L6-39", "L6-40"]
t, grid = schedule.at(300), torch.linspace(-6, 6, 601, dtype=torch.float64)
for d, x in ((1, grid[:, None]), (2, torch.cartesian_prod(grid, grid))):
    ours, one = log_q(x, torch.ones_like(x), t), torch.ones(d, dtype=torch.float64)
    torchs = MultivariateNormal(t.signal * one, t.noise**2 * torch.diag(one)).log_prob(x)
    mass = ours.exp().sum() * 0.02**d
    print(f"d = {d}: mass {mass:.7f}; first point: ours {ours[0]:.8f}, torch {torchs[0]:.8f}")
    assert abs(mass - 1) < 1e-6
    assert (ours - torchs).abs().max() < 1e-10

# %% [markdown] tags=["DS-43"]
# ## 7. The law of a whole trajectory
#
# **Story.** What is the density of a whole path $x_0,x_1,\dots,x_T$? The next state asks only for the present one (the Markov
# property of lesson 02), so it is a product:
#
# $$q(x_{0:T})=q(x_0)\prod_{k=1}^{T}q(x_k\mid x_{k-1}).$$
#
# **Check.** For Gaussian data, $x_0\sim N(m,s^2)$, the path is one long Gaussian vector. We know its mean and covariance
# without the chain: $\operatorname{Var}x_j=\bar\alpha_js^2+1-\bar\alpha_j$, and since from $j$ to a later $k$ the chain multiplies by
# $\sqrt{\bar\alpha_k/\bar\alpha_j}$, $\operatorname{Cov}(x_j,x_k)=\sqrt{\bar\alpha_k/\bar\alpha_j}\,\operatorname{Var}x_j$. Two routes, one
# number.


# %% tags=["formula", "DS-43"]
def log_path(path, beta, start):
    """log q(x_0) + sum of log q(x_k | x_{k-1}). path (T + 1,), beta (T,), start: the law of x_0."""
    steps = Normal((1 - beta).sqrt() * path[:-1], beta.sqrt())
    return start.log_prob(path[0]) + steps.log_prob(path[1:]).sum()


# %% tags=["check", "DS-43"]
beta = torch.tensor([0.05, 0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
path = torch.stack([*accumulate(beta.tolist(), kernel, initial=torch.tensor(0.7).double())])
m, s = torch.tensor([1.0, 0.5], dtype=torch.float64)
one_by_one = log_path(path, beta, Normal(m, s))

# %% tags=["check", "DS-43"]
first, second = torch.meshgrid(torch.arange(6), torch.arange(6), indexing="ij")
j, k, table = torch.minimum(first, second), torch.maximum(first, second), alpha_bar(beta)
covariance = (table[k] / table[j]).sqrt() * (table[j] * s**2 + 1 - table[j])
at_once = MultivariateNormal(table.sqrt() * m, covariance).log_prob(path)
print(f"step by step {one_by_one:.10f}   one joint Gaussian {at_once:.10f}")
assert abs(one_by_one - at_once) < 1e-9

# %% [markdown]
# ## 8. How fast to forget
#
# **Story.** A *schedule* decides how much noise there is when. In the library it is a function of $u\in[0,1]$, 0 the data and 1
# the noise, that returns a `NoiseLevel`. A table has its entry $k$ at $u=k/T$, and interpolates $\log\bar\alpha$ in between. Five of
# them:
#
# * `linear`, the table of section 4, and `constant`, $p$ in every step (section 1);
# * `cosine`, a table with $\sqrt{\bar\alpha}$ proportional to $\cos\!\big(\tfrac\pi2\,\tfrac{u+0.008}{1.008}\big)$;
# * `straight`, signal $1-u$ and noise $u$, the line of flow matching;
# * `exploding`, signal $1$ and noise $80\,u$.
#
# **Formula.** How to compare things so different? By the share of signal, the signal-to-noise ratio, or the angle:
#
# $$\bar\alpha=\frac{\text{signal}^2}{\text{signal}^2+\text{noise}^2},\qquad
# \mathrm{SNR}=\frac{\text{signal}^2}{\text{noise}^2},\qquad
# \text{clock}=\frac2\pi\arctan\frac{\text{noise}}{\text{signal}}\in[0,1].$$


# %%
def five():
    """The schedules of this section by name: functions u -> NoiseLevel."""
    tables = {
        "linear": schedules.linear,
        "cosine": schedules.cosine,
        "constant": schedules.constant,
    }
    named = {name: schedules.DDPMSchedule(1000, betas) for name, betas in tables.items()}
    return {**named, "straight": schedules.straight, "exploding": schedules.exploding(80.0)}


# %%
u = torch.linspace(0.02, 0.98, 17, dtype=torch.float64)
levels = {name: schedule(u) for name, schedule in five().items()}
figure, axes = plots.panels(3, size=(3.1, 2.9))
sights = {
    "share of signal ᾱ": lambda t: t.alpha_bar,
    "log SNR": lambda t: t.snr.log(),
    "clock": lambda t: t.clock,
}
for ax, (ylabel, sight) in zip(axes, sights.items(), strict=True):
    plots.lines(
        {name: (u, sight(t)) for name, t in levels.items()}, xlabel="u", ylabel=ylabel, ax=ax
    )
    ax.get_legend().set_visible(ax is axes[0])
plots.show(
    figure,
    alt="Three panels over u with five curves. In the clock panel cosine is a straight diagonal "
    "and the straight schedule a gentle S around it; linear and constant bulge above them, and "
    "exploding jumps almost at once to 0.9.",
    caption="Signal share, log-SNR and clock. By the clock it is cosine that is straight.",
)

# %% [markdown]
# **Check.** Straight and exploding levels do not keep the variance at 1. Another kind of noising? Divide $x_t$ by its level's length
# $\sqrt{\text{signal}^2+\text{noise}^2}$, and what remains is $x$ at a level of length 1 and the same clock. So at every single time, up to
# units, a schedule only says *when* to be *where* on one road.

# %% tags=["check"]
x0, eps = torch.randn(2, len(u), 3, dtype=torch.float64)
for name, t in levels.items():
    length = (t.signal**2 + t.noise**2).sqrt()
    same_clock = schedules.trigonometric(t.clock)  # signal² + noise² = 1, and its clock is u itself
    gap = add_noise(x0, eps, t) / length[:, None] - add_noise(x0, eps, same_clock)
    print(f"{name:9}: length {length.min():.2f} to {length.max():5.2f}, gap {gap.abs().max():.0e}")
    assert gap.abs().max() < 1e-10

# %% [markdown] tags=["exercise"]
# **Exercise 3.** Training draws $k$ uniformly. What share of the training examples has more noise than signal, for each of the
# tables linear, cosine and constant?
#
# <details><summary>Answer</summary>
#
# Signal and noise are equal at $\bar\alpha_k=\frac12$ (clock ½): step 259, 496 and 69. So 74, 50 and 93 percent of the examples have
# more noise. Nichol & Dhariwal (2021) proposed the cosine table because the linear one destroys too fast.
# </details>

# %% [markdown] tags=["L19-50"]
# ## 9. How much signal is left?
#
# **Is it so?** The lecture says that the forward process ends in pure static, $x_T\approx N(0,I)$ (L19-50). Sampling begins with
# exact static, so what is left of the data at step $T$ is an error from the start. Predict: is it always negligible?
#
# **Formula.** With $\mu=\sqrt{\bar\alpha_T}\,x_0$ and $\sigma^2=1-\bar\alpha_T$, the divergence of section 1 is, for each number
# $x_0$ of a picture,
#
# $$\mathrm{KL}=\tfrac12\left(\bar\alpha_T\,x_0^2-\bar\alpha_T-\log(1-\bar\alpha_T)\right)\ \text{nats}.$$
#
# Stable Diffusion 1 uses a schedule of its own: linear in $\sqrt{\beta}$, from $\sqrt{0.00085}$ to $\sqrt{0.012}$.


# %% tags=["formula", "L19-50"]
def scaled_linear(T, first=0.00085, last=0.012):
    """The betas of Stable Diffusion 1: their square roots grow linearly. Returns (T,)."""
    return torch.linspace(first**0.5, last**0.5, T, dtype=torch.float64) ** 2


def terminal_kl(alpha_bar, square):
    """KL(q(x_T | x0), N(0, 1)) in nats per number, for x0^2 = square."""
    return (alpha_bar * (square - 1) - torch.log1p(-alpha_bar)) / 2


# %% tags=["check", "L19-50"]
rules = {"linear": schedules.linear, "cosine": schedules.cosine, "constant": schedules.constant}
rules["Stable Diffusion"] = scaled_linear
rows = []
for name, rule in rules.items():
    end = schedules.DDPMSchedule(1000, rule).alpha_bar[-1]
    ours = [terminal_kl(end, x0**2) for x0 in (1.0, 16.0)]
    law = Normal(end.sqrt() * torch.tensor([1.0, 16.0]).double(), (1 - end).sqrt())
    assert (torch.stack(ours) - kl_divergence(law, Normal(0.0, 1.0))).abs().max() < 1e-10
    rows.append([name, f"{end:.2e}", f"{end.sqrt():.5f}", *(f"{kl:.1e}" for kl in ours)])
header = ["table", "ᾱ_T", "signal √ᾱ_T", "KL, x0 = 1", "KL, x0 = 16"]
plots.table(rows, header=header, caption="What is left at step T = 1000 (KL in nats per number)")

# %% [markdown] tags=["L19-50"]
# **Put right.** It depends on the schedule and on the scale of the data (16 is white in our digits before they are scaled). And
# on their size: the table is for *one* pixel, and for independent noises divergences add up.

# %% tags=["check", "L19-50"]
pictures = {
    "digit, linear table": (schedules.linear, 64),
    "256 x 256 in colour, linear table": (schedules.linear, 3 * 256 * 256),
    "latent of Stable Diffusion": (scaled_linear, 4 * 64 * 64),
}
for name, (rule, size) in pictures.items():
    end = schedules.DDPMSchedule(1000, rule).at(1000)
    law = Normal(end.signal * torch.ones(size, dtype=torch.float64), end.noise)
    together, one = kl_divergence(law, Normal(0.0, 1.0)).sum(), terminal_kl(end.alpha_bar, 1.0)
    print(f"{name:33}: {size:6} numbers of size 1, {together:6.3f} nats together")
    assert abs(together / (size * one) - 1) < 1e-10

# %% [markdown] tags=["L19-50"]
# In a digit nothing is left. Stable Diffusion's table keeps 6.8 percent of the amplitude, 38 nats in a latent. Does it matter? We take
# data $N(2,\,0.3^2)$ and a deterministic sampler (lesson 07) with the *exact* denoiser. All we need to know: it carries each quantile
# of the law of $x_T$ to the same quantile of the data. With $a=2\sqrt{\bar\alpha_T}$ and $s_T^2=0.3^2\bar\alpha_T+1-\bar\alpha_T$ that is
# the map $x\mapsto2+0.3\,(x-a)/s_T$. Static has its centre not at $a$ but at 0, and comes back too low, around $2-0.3\,a/s_T$.


# %% tags=["formula"]
def quantiles(n):
    """Static without chance: n points at equal steps of probability of N(0, 1). Returns (n, 1)."""
    return Normal(0.0, 1.0).icdf((torch.arange(n).double() + 0.5) / n)[:, None]


# %% tags=["formula", "L19-50"]
def round_trip(schedule, m, s, steps):
    """Mean of what a sampler makes of static, and what we predict. The data are N(m, s^2)."""
    levels = schedules.grid(schedule, steps)
    back = samplers.last(samplers.ddim(mixtures.gaussian(m, s), quantiles(500), levels))
    signal, noise = levels[0]
    return back.mean(), m - s * signal * m / ((s * signal) ** 2 + noise**2).sqrt()


# %% tags=["check", "L19-50"]
for name, rule in (("linear", schedules.linear), ("Stable Diffusion", scaled_linear)):
    mean, expected = round_trip(schedules.DDPMSchedule(1000, rule), m=2.0, s=0.3, steps=400)
    print(f"{name:16} mean {mean:.3f}, predicted {expected:.3f}, the data have 2")
    assert abs(mean - expected) < 1 / 400  # the order of the step error

# %% [markdown]
# Here 0.04 are missing, a seventh of the data's spread. In pictures Lin et al. (2024) report more: Stable Diffusion has
# trouble drawing anything very dark or very bright.

# %% [markdown] tags=["exercise"]
# **Exercise 4.** Lin et al. (2024) mend a table: shift $\sqrt{\bar\alpha_k}$ so that its last entry is 0, and rescale so that the
# entry $k=1$ stays as it was. What is the last $\beta$ now? What does `DDPMSchedule` say to it (its second argument is a function
# $T\mapsto$ betas, or a tensor of betas)? And is it right to say so?
#
# <details><summary>Answer</summary>
#
# Yes, it is right to refuse (with a ValueError), if the network predicts the noise. The last $\beta$ is 1, that step wipes out everything,
# and at signal 0 the noise *is* $x_T$: there is nothing to learn. (Lin et al. change the target too, see lesson 05.) The cosine table cuts
# its $\beta$ at 0.999.
# </details>

# %% [markdown] tags=["DS-39"]
# ## 10. The chain and the equation
#
# *A bridge from lesson 02.* A stochastic differential equation $dx=f\,du+g\,dW$ says: in a short time $du$ the point moves by
# $f\,du$ and receives Gaussian noise of variance $g^2du$. Euler's method takes finite steps as if they were short.
#
# **Is it so?** From such equations the lecture comes to our chain by saying that a discrete process *must* be a Markov chain with
# Gaussian transitions (DS-39). Two properties: Markov, and Gaussian steps. Which of them comes from discretising?
#
# **Formula.** The equation of our chain (Song et al. 2021, eq. 11), with $u=k/T$, is
#
# $$dx=-\tfrac12\,T\beta\,x\,du+\sqrt{T\beta}\,dW .$$
#
# It is Markov already. Euler's step, $du=1/T$, is $x\leftarrow(1-\beta/2)\,x+\sqrt\beta\,\varepsilon$, a Gaussian transition. The
# chain's factor is $\sqrt{1-\beta}=1-\beta/2-\beta^2/8-\dots$ instead; for $\beta\le\frac12$ the gap is at most $\beta^2(1+\beta)/8$.


# %% tags=["check", "DS-39"]
def gap(beta):
    """What Euler's factor has more than the chain's."""
    return (1 - beta / 2) - (1 - beta).sqrt()


fine = torch.linspace(0.001, 0.5, 500, dtype=torch.float64)
assert (gap(fine) > fine**2 / 8).all()
assert (gap(fine) < fine**2 * (1 + fine) / 8).all()
beta = torch.tensor([1e-4, 0.02, 0.2], dtype=torch.float64)
rows = [*zip(*(y.tolist() for y in (beta, gap(beta), beta**2 / 8)), strict=True)]
plots.table(rows, header=["β", "gap", "β²/8"], caption="(1 - β/2) - √(1 - β)")

# %% [markdown] tags=["DS-39"]
# Drive both with the *same* noise for a thousand steps. Every step shrinks the distance of the two paths, and adds at most
# $|x|\,\beta_k^2(1+\beta_k)/8$ to it, with $x$ on the chain.


# %% tags=["formula", "DS-39"]
def preserving(beta):
    """The SDE of a table: at time u = k / T its rate is T * beta_(k + 1), that of the next step."""
    T = len(beta)

    def rate(u):
        return T * beta[(u * T).round().long().clamp(max=T - 1)]

    return sde.SDE(lambda x, u: -rate(u) / 2 * x, lambda u: rate(u).sqrt())


# %% tags=["check", "DS-39"]
beta, start = schedule.beta, torch.full((5000,), 3.0, dtype=torch.float64)
times = torch.linspace(0, 1, 1001, dtype=torch.float64)
euler = torch.stack(
    [*sde.simulate(preserving(beta), start, times, torch.Generator().manual_seed(5))]
)
torch.manual_seed(5)  # the same noise: both ways draw one randn of the same shape per step
chain = torch.stack([*accumulate(beta.tolist(), kernel, initial=start)])
apart = (euler - chain).abs().max()
limit = chain.abs().max() * (beta**2 * (1 + beta) / 8).sum()
print(f"largest distance of 5000 pairs of paths {apart:.4f}, allowed {limit:.4f}")
assert 0 < apart < limit

# %% [markdown] tags=["DS-39"]
# **Put right.** The Gaussian steps come from discretising (though this equation is linear, and has them anyway), the Markov property
# does not. Each step of DDPM agrees with Euler's step of this equation up to $O(\beta^2)$. Conversely there is an equation whose
# *marginals*, its laws at single times, pass *exactly* through the table: its rate per step is $-\log(1-\beta_k)$ instead of $\beta_k$.
# `sde.schedule_sde` finds it by differentiating the schedule.

# %% tags=["check", "DS-39"]
exact, k = sde.schedule_sde(schedule), 800
middle = torch.tensor((k - 0.5) / 1000, dtype=torch.float64)
rate, expected = exact.diffusion(middle) ** 2 / 1000, -torch.log1p(-schedule.beta[k - 1])
print(f"rate per step {rate:.8f}   -log(1-β) {expected:.8f}   β {schedule.beta[k - 1]:.8f}")
assert abs(rate - expected) < 1e-10

# %% [markdown]
# ## 11. Bug museum
#
# Five famous mistakes. Each hangs beside the right version, with its picture and its numbers (what is wanted stands in the
# head of the table, ✗ marks what is off). A `Check` says what to measure, what is wanted, and how far chance may carry it.
# Those of the `eye` look at samples, the `units` at the formula; every mistake must be caught by one of the `units`.

# %% [markdown] tags=["T-01", "T-02", "E-01"]
# **The shifted table (T-01).** `short = cumprod(1 - beta)` starts at $\bar\alpha_1$, not at $\bar\alpha_0$. Whoever reads it
# with $k=0..T$ is one step off.
#
# **The index that wraps (T-02).** Whoever mends that with `short[k - 1]` gets, at $k=0$, Python's *last* entry, as if the
# picture at the end were pure noise.
#
# A sampler (lesson 07) reads each table, while the exact denoiser knows the true levels. *Predict:* which of the two would
# you see?


# %% tags=["T-01", "T-02"]
def sample(table, denoiser, x, schedule):
    """From step T to 0 in tens (lesson 07). table: k -> the alpha_bar that the sampler believes."""
    steps = range(schedule.T, -1, -10)
    levels = [NoiseLevel(table(k).sqrt(), (1 - table(k)).sqrt()) for k in steps]
    for k, (t, s) in zip(steps, pairwise(levels), strict=False):
        eps = denoiser(x, schedule.at(k)).eps  # the mean of the noise in x, given x
        x = add_noise((x - t.noise * eps) / t.signal, eps, s)
    return x[:, 0]


# %% tags=["check", "T-01", "T-02", "E-01"]
short, first = torch.cumprod(1 - schedule.beta, 0), schedule.beta[0]
world = mixtures.gaussian(), quantiles(5000), schedule
tables = museum.inspect(
    {
        "right": lambda k: schedule.alpha_bar[k],
        "T-01: shifted": lambda k: short[min(k, 999)],
        "T-02: wraps": lambda k: short[k - 1],
    },
    eye={"std": Check(lambda table: sample(table, *world).std(), wanted=0.5, slack=0.03)},
    units={
        "ᾱ_0": Check(lambda table: table(0), wanted=1),
        "ᾱ_1 + β_1": Check(lambda table: table(1) + first, wanted=1),
        "β̃_1": Check(lambda table: (1 - table(0)) / (1 - table(1)) * first, wanted=0),
    },
)
assert [exhibit.visible for exhibit in tables] == [False, False, True]

# %% tags=["T-01", "T-02"]
x = torch.linspace(-1, 3, 121, dtype=torch.float64)
bell = {"exact": Normal(1.0, 0.5).log_prob(x).exp()}
museum.show(
    tables,
    caption="Samples of N(1, 0.5²) by three tables. β̃_1: the variance of the last step back.",
    draw=lambda one, ax: plots.densities(
        x, bell, samples={"model": sample(one.version, *world)}, ax=ax
    ),
    alt="Three histograms over the same exact bell around 1. With the right table and with the "
    "shifted one it fills the bell alike; with the wrapped index it is a needle at 0.",
)

# %% [markdown] tags=["T-01", "T-02", "E-01"]
# The shifted table passes every look. What sees it is the unit check: *after one step exactly one β has acted, after none
# none has.* (With the wrapped index our sampler ends in its guess of the noise. The sampler of lesson 04 adds noise instead,
# of variance $\tilde\beta_1$: 1 where 0 is right.)

# %% [markdown] tags=["T-03"]
# **The lost square root (T-03).** `alpha_bar * x0` for `sqrt(alpha_bar) * x0`, or the same with the noise. The pictures
# still get noisier and end in static. Ask for two numbers at $\bar\alpha=\frac12$ on data of unit variance: the variance,
# which must be 1, and the *slope* of the mean on $x_0$. The variance tells that a root is lost, the slope which one.


# %% tags=["T-03"]
def noised(version, x0, eps, alpha_bar):
    """x0 under noise eps at alpha_bar, () or (B,), by a version: alpha_bar -> (signal, noise)."""
    return add_noise(x0, eps, NoiseLevel(*version(torch.as_tensor(alpha_bar).double())))


# %% tags=["check", "T-03"]
n = 200_000
x0, eps = torch.randn(2, n, dtype=torch.float64)
end, half = ((x0, eps, alpha_bar) for alpha_bar in (schedule.alpha_bar[-1], 0.5))
roots = museum.inspect(
    {
        "right": lambda a: (a.sqrt(), (1 - a).sqrt()),
        "T-03: ᾱ without √": lambda a: (a, (1 - a).sqrt()),
        "T-03: 1 - ᾱ without √": lambda a: (a.sqrt(), 1 - a),
        "T-03: both without √": lambda a: (a, 1 - a),
    },
    eye={"std at the end": Check(lambda v: noised(v, *end).std(), wanted=1, slack=0.05)},
    units={
        "variance": Check(lambda v: noised(v, *half).var(), wanted=1, slack=4 * (2 / n) ** 0.5),
        "slope": Check(lambda v: (noised(v, *half) * x0).mean(), wanted=0.5**0.5, slack=5 / n**0.5),
    },
)
assert not any(exhibit.visible for exhibit in roots)

# %% tags=["T-03"]
fading = torch.tensor([0.98, 0.8, 0.5, 0.0]).repeat(4)
four = digits[:4].repeat_interleave(4, 0)
static = torch.randn_like(four)
museum.show(
    roots,
    caption="Above: four digits at ᾱ = 0.98, 0.8, ½ and 0. Below: 200,000 numbers at ᾱ = ½.",
    draw=lambda one, ax: plots.images(noised(one.version, four, static, fading), columns=4, ax=ax),
    alt="Four sheets, one for each version. In each of them four digits drown in noise from left "
    "to right and end as static; the sheets look alike.",
)

# %% [markdown] tags=["T-23"]
# **The wrong range (T-23).** All of this assumes data of about unit size. Here are the digits in four units. What is left at
# step $T$ of the linear table, signal times rms, is the *leak* $\ell$; it is worth $\ell^2/2$ nats per number. The eye, we
# say, notices a leak of 0.3 (look whether you agree); the unit check allows 0.02.

# %% tags=["check", "T-23"]
end, unit = schedule.at(1000), (digits.double() + 1) / 2
ranges = {"0..1": unit, "0..16": 16 * unit, "0..255": 255 * unit}
scales = museum.inspect(
    {"right: -1..1": digits.double()} | {f"T-23: {name}": x for name, x in ranges.items()},
    eye={"leak": Check(lambda x: end.signal * (x**2).mean().sqrt(), wanted=0, slack=0.3)},
    units={
        "std": Check(lambda x: x.std(), wanted=1, slack=0.5),
        "nats": Check(lambda x: terminal_kl(end.alpha_bar, x**2).mean(), 0, slack=0.02**2 / 2),
    },
)
for scale in scales:
    leak, nats = scale.eye["leak"].value, scale.units["nats"].value
    assert abs(nats - leak**2 / 2) < end.alpha_bar**2  # ℓ²/2, and a rest of the order ᾱ_T²
assert [scale.visible for scale in scales] == [False, False, False, True]

# %% tags=["T-23"]
museum.show(
    scales,
    caption="Above: sixteen digits at step 1000, values from -3 to 3 as grey. Below: all digits.",
    draw=lambda one, ax: plots.images(
        add_noise(one.version[:16], static, end) / 3, columns=4, ax=ax
    ),
    alt="Four sheets of sixteen squares of static. In the last one, of the range 0 to 255, bright "
    "strokes of digits show through.",
)

# %% [markdown] tags=["T-23"]
# 0..255 leaves 0.79 beside noise of size 1. 0..16, as scikit-learn delivers it, leaks nine times as much as $[-1,1]$, and
# nobody sees it. 0..1 leaks little, but half the spread means a quarter of the signal-to-noise ratio at *every* step. In
# this course images live in $[-1,1]$.

# %% [markdown] tags=["T-24"]
# **The silent broadcast (T-24).** $B$ samples of dimension $D$, each with its own step: `signal` has shape $(B,)$, and
# `signal * x0` multiplies along the *last* axis. With $B=D$ every sample gets the levels of all the others; with $D=1$ the
# result swells to $(B,B)$; otherwise torch complains. Here all data are 1, so we see the levels themselves: one row per
# sample.

# %% tags=["check", "T-24"]
square, column = (torch.ones(64, D, dtype=torch.float64) for D in (64, 1))
t = schedule.at(torch.linspace(1, 1000, 64).long())  # 64 levels, one per sample
shapes = museum.inspect(
    {"right": add_noise, "T-24: broadcast": lambda x0, eps, t: t.signal * x0 + t.noise * eps},
    units={
        "spread": Check(lambda f: f(square, 0 * square, t).std(1).max(), wanted=0),
        "size": Check(lambda f: f(column, 0 * column, t).numel(), wanted=64),
    },
)

# %% tags=["T-24"]
museum.show(
    shapes,
    caption="Above: a row for each sample. Below: its spread; the size of 64 numbers, D = 1.",
    draw=lambda one, ax: plots.images(
        one.version(square, 0 * square, t)[None, None] * 2 - 1, columns=1, ax=ax
    ),
    alt="Two squares. Right version: every row has one grey, from white on top to black at the "
    "bottom. Broadcast: the greys run from left to right, so every row holds all levels.",
)

# %% [markdown]
# `NoiseLevel.like` is the one place in the library that shapes levels for a batch.
#
# ## Answers, checked

# %% tags=["solution", "check"]
assert steps_until(0.01 / 255, p=0.01) == 2020  # exercise 1
*_, added = accumulate([1 - 0.72**0.1] * 10, lambda v, b: (1 - b) * v + b, initial=0.0)
assert math.isclose(added, 0.28)  # exercise 2
noisy = {name: s.alpha_bar[1:] < 0.5 for name, s in five().items() if hasattr(s, "alpha_bar")}
shares = {name: round(100 * share.double().mean().item()) for name, share in noisy.items()}
assert shares == {"linear": 74, "cosine": 50, "constant": 93}  # exercise 3
print("the first three hold")

# %% tags=["solution", "check"]
old = schedules.DDPMSchedule(1000, scaled_linear)
root = old.alpha_bar.sqrt()
root[1:] = (root[1:] - root[-1]) * root[1] / (root[1] - root[-1])
betas = 1 - (root[1:] / root[:-1]) ** 2
assert abs(betas[0] - old.beta[0]) < 1e-12
complaint = ""
try:
    schedules.DDPMSchedule(1000, betas)
except ValueError as refusal:
    complaint = str(refusal)
print(complaint)
assert "beta_1000 = 1 " in complaint  # exercise 4

# %% [markdown]
# ## What we learned
#
# * One small step, $x\leftarrow\sqrt{1-\beta}\,x+\sqrt\beta\,\varepsilon$, forgets any start; the squares of the factors add up to 1, and so the variance stays at 1.
# * A thousand steps are one: `xt = t.signal * x0 + t.noise * eps`, with $\bar\alpha_0=1$.
# * A schedule says when to be where on one road. What it leaves at the end depends on schedule *and* data.
# * Wrong tables make right-looking pictures. Check numbers at $k=0$, at $k=1$, and at $\bar\alpha=\frac12$.
#
# ## References
#
# * Sohl-Dickstein et al. 2015, *Deep unsupervised learning using nonequilibrium thermodynamics*, section 2.1.
# * Ho et al. 2020, *Denoising diffusion probabilistic models*, eq. 2 and 4, section 4 (the table).
# * Nichol & Dhariwal 2021, *Improved DDPM*, section 3.2, eq. 17.
# * Song et al. 2021, *Score-based generative modeling through SDEs*, section 3.4, eq. 11.
# * Kingma et al. 2021, *Variational diffusion models*, sections 3.1 and 5.1.
# * Lin et al. 2024, *Common diffusion noise schedules and sample steps are flawed*, section 3.1.
# * Rombach et al. 2022, *Latent diffusion models*; the table is in the configuration of Stable Diffusion 1.
# * Prince 2023, *Understanding deep learning*, section 18.2 (its $\alpha_t$ is our $\bar\alpha_k$).
#
# **Where next:** lesson 04 walks the same road backwards. A step back is not a law we choose, it is one we have to find.
