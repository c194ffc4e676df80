# %% [markdown] tags=["slide"]
# # 10 · Classifier guidance
#
# **Can a classifier steer a model that is told no label?**
#
# Run the next cells, then move ω. The model draws sixteen digits and is told no label. A *classifier*
# reads the noisy pictures at every step. Its gradient pushes the first picture towards a 0, the second
# towards a 1, and so on. The number ω says how hard.
#
# *Recognised* counts the pictures in which a third network, the *judge*, reads the wanted digit. *Diversity* is
# 1 for real digits. *Saturated* pixels are blacker than black or whiter than white.

# %% tags=["setup", "skip"]
import math

import torch

from didiff import add_noise, from_eps, guidance, mixtures
from didiff.denoiser import quick
from didiff.notebook import plots
from didiff.notebook.playground import Counted, Playground
from didiff.notebook.widgets import Explorer, Frame, slider
from didiff.samplers import ddim, initial_noise, last
from didiff.schedules import DDPMSchedule, grid
from didiff.training import fit, metrics, random_steps, weights
from didiff.training.recipes import SCHEDULE

torch.manual_seed(0)
plots.style()
schedule = DDPMSchedule()  # of the lectures; SCHEDULE: of our pictures
model = Counted(quick(weights.load("mnist")))
aware = Counted(weights.load("mnist_classifier"))
clean = Counted(weights.load("mnist_clean"))
CLEAN = SCHEDULE.at(0)  # the level of a picture without noise


# %% tags=["setup", "skip"]
def levels(steps):
    """Noise levels for pictures; they start just below pure noise."""
    return grid(SCHEDULE, steps, start=0.99)


def guided(log_prob, omega):
    """The model, told no label, guided by log p(y | xt)."""
    unlabelled = guidance.condition(model, None)
    return guidance.classifier(unlabelled, log_prob, omega)


def by_aware(y, omega):
    return guided(guidance.log_prob_of(aware, y), omega)


def by_clean(y, omega):
    says = guidance.log_prob_of(clean, y)
    return guided(lambda x, t: says(x, CLEAN), omega)  # it knows no other


def slope(log_prob, x, t):
    """The gradient of log_prob at each point of x (B, *d), by itself."""
    leaf = x.detach().requires_grad_()
    return torch.autograd.grad(log_prob(leaf, t).sum(), leaf)[0]


# %% tags=["play", "draw", "fragment"]
play = Playground(
    {"aware classifier": by_aware, "clean classifier": by_clean},
    {"model": model, "aware classifier": aware, "clean classifier": clean},
    levels,
    omega=2.0,
    steps=8,
)
explorer = play.explorer()
explorer.show(
    alt="Sixteen handwritten digits. At scale 0 they are any digits, with "
    "growing scale more and more of the wanted ones, and nearly all of "
    "them from 2 on.",
    still_over="omega",
    values=[0, 1, 2, 4],
)

# %% [markdown] tags=["notes"]
# **5 min.** *Ask before you move it:* the model is told no label. How many of the sixteen digits are right
# at ω = 0? *Expect:* "none". *In fact* one or two are expected, by chance. Then go to 1, 2 and 4.

# %% [markdown] tags=["slide"]
# **The answer in five lines**
#
# 1. Yes. By Bayes' rule the score of class $y$ is the score of the model plus the gradient of a classifier.
# 2. In terms of noise: $\tilde\epsilon = \epsilon - \omega\,\text{noise}\,\nabla\log p(y \mid x_t)$. The model
#    is not retrained.
# 3. Bayes' rule says ω = 1. A large ω makes samples less diverse, and in the end less typical.
# 4. The classifier must have been trained on noisy pictures.
# 5. A classifier is easy to fool. So somebody else must judge the result.

# %% [markdown] tags=["skip"]
# **You need** the score and its noise ([lesson 06](06_score_and_noise.ipynb)), DDIM
# ([07](07_samplers.ipynb)), labels ([09](09_class_conditional.ipynb)), Bayes' rule.
#
# **You will be able to** derive classifier guidance, write it in ten lines, and say what ω does.
#
# **Time:** an hour. Each section runs on its own after the setup cells. Proofs, more checks, other
# recipes and famous bugs are in [deeper/10](deeper/10_classifier_guidance.ipynb). Cells that begin with
# minutes are notes for a lecture.
#
# | formula | code | meaning |
# |---|---|---|
# | $k$, $t$ | `t = schedule.at(k)` | a step from 0 (data) to 1000, and its noise level |
# | $\epsilon(x_t)$, $x_0(x_t)$ | `model(x, t).eps`, `.x0` | guessed noise and clean point |
# | $\log p(y \mid x_t)$ | `log_prob(x, t)` | of the wanted class, (B,) for B points |
# | ω | `omega` | 0 ignores the classifier, 1 is Bayes' rule |

# %% [markdown] tags=["formula", "slide", "L6-33"]
# ## 1. Bayes' rule at every noise level
#
# **A model draws digits of all kinds. We want sevens. What else has to be learnt?**
#
# Only a classifier. The model knows the density $p(x_t)$ of noisy pictures. A classifier knows the
# probability $p(y \mid x_t)$ of the label. Bayes' rule joins them, at each noise level:
#
# $$p(x_t \mid y) = \frac{p(x_t)\; p(y \mid x_t)}{p(y)}$$
#
# **Two classes on the line.** Class 0 is $N(-1, 1)$, class 1 is $N(1, 1)$, both equally likely. With noise
# they are $N(\pm\text{signal}, 1)$, because $\text{signal}^2 + \text{noise}^2 = 1$. Bayes' rule gives the exact
# classifier,
#
# $$p(y{=}1 \mid x_t{=}x) = \frac{1}{1 + e^{-2\,\text{signal}\,x}} .$$


# %% tags=["L6-33", "formula"]
def log_p_one(x, t):
    """log p(y = 1 | xt = x) of two classes on the line, x (B, 1)."""
    return torch.sigmoid(2 * t.signal * x)[:, 0].log()


# %% tags=["draw", "fragment", "L6-33"]
line = torch.linspace(-5, 5, 201)[:, None]
pink = plots.ROLE["guidance"]["color"]
figure, (ax,) = plots.panels(size=(4.8, 2.7))
for k, style in ((1, "-"), (300, "--"), (500, "-."), (1000, ":")):
    p = log_p_one(line, schedule.at(k)).exp()
    ax.plot(line[:, 0], p, color=pink, ls=style, label=f"k = {k}")
ax.set(xlabel="noisy point x", ylabel="p(y = 1 | x)")
ax.legend()
plots.show(
    figure,
    alt="Four curves over x: a steep S at step 1, flatter ones at 300 and "
    "500, at 1000 nearly a horizontal line at one half.",
    caption="One classifier at four levels. The more noise, the less it "
    "can say. Of pure noise it says one half.",
)

# %% [markdown] tags=["formula", "subslide", "L6-33", "L6-34", "DS-62"]
# The classifier is a different function at each level. Given $x_0$, the label $y$ and the noisy $x_t$ are
# [independent](https://en.wikipedia.org/wiki/Conditional_independence). So $p(y \mid x_t)$ is the average of
# $p(y \mid x_0)$ over all $x_0$, weighted by $p(x_0 \mid x_t)$.
#
# **From densities to gradients.** Take the logarithm of Bayes' rule, then the gradient with respect to $x_t$.
# The term $-\log p(y)$ is constant, so it drops out:
#
# $$\underbrace{\nabla\log p(x_t \mid y)}_{\text{score of class } y}
# = \underbrace{\nabla\log p(x_t)}_{\text{score of the model}}
# + \underbrace{\nabla\log p(y \mid x_t)}_{\text{gradient of the classifier}}$$
#
# On the line we know the left side: the score of $N(\text{signal}, 1)$ at $x$ is $\text{signal} - x$.

# %% tags=["check", "L6-34", "DS-62"]
world, t = mixtures.two_classes(), schedule.at(300)
x = torch.tensor([[1.2]], dtype=torch.float64)
total = world.score(x, t) + slope(log_p_one, x, t)
print(f"model + classifier, at x = 1.2: {total.item():.6f}")
print(f"score of class 1:               {(t.signal - x).item():.6f}")
assert (total - (t.signal - x)).abs() < 1e-10

# %% [markdown] tags=["exercise"]
# **Remember:** in scores, Bayes' rule is a sum of the model and the gradient of the classifier.
#
# **Exercise 1** (easy). One picture in a thousand shows a cat. We guide with an exact classifier at ω = 1.
# How many samples are cats? In pure noise it says 1/1000 of every picture. How long is its gradient?
#
# <details><summary>Answer</summary>
# All, if both are exact: p(y) has dropped out of the sum. In pure noise the classifier is constant, so its
# gradient is zero.
# </details>

# %% [markdown] tags=["notes"]
# **11 min,** derivation on the board. *Ask before the picture:* what does the exact classifier say of the
# point x = 3 at k = 1000? *Expect:* "surely class 1". *In fact* about one half: at k = 1000 a point holds
# hardly any signal.

# %% [markdown] tags=["formula", "slide", "L6-53", "L6-54", "L6-55", "E-13"]
# ## 2. Guided noise
#
# **A sampler needs ε, not the score. Where does the classifier enter?**
#
# ε is minus `noise` times the score (lesson 06). We multiply the sum by −`noise` and put a *guidance scale*
# ω in front of the classifier:
#
# $$\tilde\epsilon = \epsilon(x_t) - \omega\;\text{noise}\;\nabla\log p(y \mid x_t)$$
#
# *Why a minus?* Noise points away from the data. With $x_0 = (x_t - \text{noise}\,\epsilon)/\text{signal}$ the
# guess of the clean picture moves *up* the gradient:
# $\tilde x_0 - x_0 = \omega\,\frac{\text{noise}^2}{\text{signal}}\,\nabla\log p(y \mid x_t)$.
#
# *Which ω?* Bayes' rule says 1, for an exact model and an exact classifier. Any other ω is put in by hand. At
# ω = 4 the gradient counts four times, at every level (see lesson 11).
#
# Only the classifier is differentiated. The result is a denoiser again, so every sampler can use it.
# **Check:** on a ring of eight bumps, labelled 0 and 1 in turn, all is known exactly. At ω = 1 guidance must
# equal the model that is told the label.


# %% tags=["twin:didiff.guidance.classifier", "formula", "subslide", "L6-53", "L6-54"]
def classifier(denoiser, log_prob, omega):
    """eps_guided = eps - omega * noise * grad log p(y | xt)."""

    def guided(x, t):
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            total = log_prob(leaf, t).sum()  # each sample: one term
            (gradient,) = torch.autograd.grad(total, leaf)
        push = omega * t.like(x).noise * gradient
        return from_eps(x, t, denoiser(x, t).eps - push)

    return guided


# %% tags=["check", "L6-53"]
ring, t = mixtures.ring(), schedule.at(400)
x = torch.tensor([[1.0, 0.5]], dtype=torch.float64)
eps = classifier(ring, guidance.log_prob_of(ring, 1), 1.0)(x, t).eps
told = ring(x, t, 1).eps
print(f"noise, guided at ω = 1:   {eps[0, 0]:.6f}, {eps[0, 1]:.6f}")
print(f"noise, told the label 1:  {told[0, 0]:.6f}, {told[0, 1]:.6f}")
assert (eps - told).abs().max() < 1e-9

# %% [markdown] tags=["subslide"]
# **Move the sliders.** Left: $-\epsilon$ of the model, and what the classifier adds. Right: their sum. The
# contours show class 1. At which ω do the arrows on the right lead exactly to class 1? Where does the
# classifier push hardest? And at $k = 900$? (A vector of length $a$ is drawn with length $a/(1+a)$.)


# %% tags=["play", "draw", "skip"]
def turn(quivers, noises):
    """Let arrows show minus the noises; long ones are shortened."""
    for quiver, eps in zip(quivers, noises, strict=True):
        quiver.scale, quiver.width = 11, 0.007
        quiver.set_UVC(*(-eps / (1 + eps.norm(dim=1, keepdim=True))).T)


def contours_of_one(ring, t, axes, keep):
    """New contours of class 1 at this level, in place of the old."""
    for ax in axes:
        for old in [each for each in ax.collections if each not in keep]:
            old.remove()
        plots.contours(lambda x: ring.log_prob(x, t, 1).exp(), 3.3, ax=ax)


# %% tags=["play", "draw", "skip"]
def arrows(ring, schedule, places):
    """The sliders' callback: the figure is made once, the arrows turn."""
    figure, axes = plots.panels(2, size=(3.0, 3.3))
    quivers, says_one = [], guidance.log_prob_of(ring, 1)
    for panel, role in ((0, "model"), (0, "guidance"), (1, "guidance")):
        plots.field(places, places, role=role, ax=axes[panel])
        quivers.append(axes[panel].collections[-1])
    axes[0].set_title("model (orange), classifier (pink)")
    axes[1].set_title("their sum")

    def frames(k, omega):
        t = schedule.at(k)
        one, told = ring(places, t).eps, ring(places, t, 1).eps
        both = guidance.classifier(ring, says_one, omega)(places, t).eps
        turn(quivers, (one, both - one, both))
        contours_of_one(ring, t, axes, keep=quivers)
        push = (both - one).norm(dim=1).mean()
        off = (both - told).norm(dim=1).mean()
        words = f"mean length: model {one.norm(dim=1).mean():.2f}"
        words += f", classifier {push:.2f}; sum off class 1 by {off:.2f}"
        yield Frame(plots.png(figure), words)

    return frames


# %% tags=["play", "draw", "fragment"]
side = torch.linspace(-2.8, 2.8, 11, dtype=torch.float64)
field = Explorer(
    arrows(mixtures.ring(), schedule, torch.cartesian_prod(side, side)),
    {
        "k": slider("noise level, step k =", 50, 1000, value=200, step=50),
        "omega": slider(
            "guidance scale ω =", 0.0, 8.0, value=2.0, step=0.5
        ),
    },
    width=576,
)
field.show(
    alt="Two fields of arrows over the contours of four bumps, class 1. "
    "Left, orange arrows lead to the nearest of eight bumps, pink ones "
    "from the four of the wrong class to their neighbours. Right, their "
    "sum leads to class 1 at scale 1, and past it at larger scales.",
    still_over="omega",
    values=[0, 1, 2, 4],
)

# %% [markdown]
# At ω = 1. The classifier pushes hardest in the wrong sectors, beside the bumps. At
# $k = 900$ its arrows are gone: a classifier that gives every point the same probabilities has gradient zero.
# There it cannot guide.
#
# **Remember:** subtract ω · noise · ∇ log p(y | xt) from the noise. ω = 1 is Bayes' rule.

# %% [markdown] tags=["notes"]
# **15 min,** half of them for the arrows. *Ask:* Bayes' rule has no ω. Which value does it stand for? What will
# the arrows do at ω = 4? *Expect:* "1", and "reach class 1 faster". *In fact* they overshoot it.

# %% [markdown] tags=["formula", "slide", "L6-32", "L6-56", "L6-59", "L6-60", "L19-11"]
# ## 3. What the scale does
#
# **A larger ω is said to give samples that are more typical and less diverse. Is this true?**
#
# At every DDIM step, from level $t$ to level $s$, we use the guided noise:
#
# $$x_s = \text{signal}_s\,\tilde x_0 + \text{noise}_s\,\tilde\epsilon, \qquad
# \tilde x_0 = \frac{x_t - \text{noise}_t\,\tilde\epsilon}{\text{signal}_t}$$
#
# On the line we can measure both. *Diverse:* the standard deviation of the samples. *Typical:* the mean of
# $\log p(x_0 \mid y{=}1)$. For samples of class 1 itself, $N(1, 1)$, it is −1.42.
#
# *Predict* for ω = 8: is the mean of the samples at 1, below it, or above?


# %% tags=["formula", "subslide", "L6-56"]
def walk(denoiser, log_prob, omega, x, levels):
    """DDIM with guided noise, from the first of the levels to the last."""
    for i in range(len(levels) - 1):
        t, s = levels[i], levels[i + 1]
        eps = denoiser(x, t).eps
        eps = eps - omega * t.noise * slope(log_prob, x, t)
        x0 = (x - t.noise * eps) / t.signal
        x = s.signal * x0 + s.noise * eps
    return x


# %% tags=["check", "L6-32", "L6-56", "L6-59", "L6-60", "L19-11"]
world, hundred = mixtures.two_classes(), grid(schedule, 100)
says_one = guidance.log_prob_of(world, 1)
source = torch.Generator().manual_seed(3)
start = initial_noise((2000, 1), hundred[0], source, torch.float64)
class_1, ends = torch.distributions.Normal(1.0, 1.0), {}
for omega in (0, 1, 2, 4, 8):
    end = walk(world, says_one, omega, start, hundred)
    typical = class_1.log_prob(end).mean()
    print(
        f"ω = {omega}: mean {end.mean():5.2f}, std {end.std():.2f}", end=""
    )
    print(f", typical {typical:5.2f}")
    ends[omega] = end[:, 0]
print("class 1: mean  1.00, std 1.00, typical -1.42")
error = 1 / 2000**0.5  # of a mean of 2,000; and 0.02 for 100 steps
assert abs(ends[1].mean() - 1) < 4 * error + 0.02
assert abs(ends[1].std() - 1) < 4 * error + 0.02
assert ends[8].mean() > 3

# %% tags=["draw", "subslide", "L6-59", "L6-60", "L19-11"]
near = torch.linspace(-3.7, 6, 200)
bell = {"exact, class 1": class_1.log_prob(near).exp()}
figure, axes = plots.panels(3, size=(2.6, 2.3))
for ax, omega in zip(axes, (1, 4, 8), strict=True):
    samples = {"guidance": ends[omega]}
    plots.densities(near, bell, samples=samples, ax=ax)
    ax.set(title=f"ω = {omega}", ylim=(0, 1))
    ax.get_legend().set_visible(omega == 8)
plots.show(
    figure,
    alt="Three histograms against the bell of class 1, centred at 1. At "
    "scale 1 they agree; at 4 the samples crowd around 2.3; at 8 they are "
    "a thin peak above 3, in the tail of the bell.",
    caption="Samples guided to class 1 (pink), and class 1 (dashed).",
)

# %% [markdown] tags=["L6-59", "L6-60", "L19-11", "E-13"]
# At ω = 1 the samples have the law of class 1, although the model never saw a label. With growing ω they
# become less diverse. Up to 2 they are about as typical, at 4 and 8 far less: they crowd near 3, where class 1
# has hardly any data.
#
# **Remember:** a large ω gives samples that certainly belong to the class. They are not typical of it.

# %% [markdown] tags=["notes"]
# **6 min.** *Vote before the pictures:* at ω = 8, is the mean at 1, below or above? *Expect:* most say "at 1".
# *In fact* it is above 3.

# %% [markdown] tags=["formula", "slide", "L6-57", "L6-58", "L19-07", "DS-63", "E-14", "T-13"]
# ## 4. A classifier must know noise
#
# **Can we guide with a finished classifier, trained on clean pictures?**
#
# It would read noisy pictures, and it has never seen one. So we train our own. We show it pictures with noise
# of all levels, from the schedule of the model, and tell it the level:
#
# $$\text{loss} = -\log p_\phi(y \mid x_t, t), \qquad
# x_t = \text{signal}\cdot x_0 + \text{noise}\cdot\epsilon, \qquad k \text{ uniform in } 1, \dots, 1000$$
#
# We train a small network twice, on digits of 8 × 8 pixels: once with all levels, once with clean pictures
# only. Then both read unseen digits. The loss is measured in *nats*. To say "one tenth" of everything costs
# $\log 10 = 2.30$ nats.


# %% tags=["twin:didiff.classifier.cross_entropy", "formula", "subslide", "L6-58", "DS-63"]
def cross_entropy(classifier, x0, t, y):
    """-log p(y | xt) of each sample, (B,), at a fresh xt."""
    xt = add_noise(x0, torch.randn_like(x0), t)
    log_prob = classifier.class_log_prob(xt, t)  # (B, classes)
    return -log_prob.gather(1, y[:, None])[:, 0]


# %% tags=["skip", "L6-58", "DS-63"]
from didiff import data, networks
from didiff.classifier import Classifier


def train(levels, steps=300):
    """A classifier of 8x8 digits; levels: n -> the levels it is shown."""
    torch.manual_seed(0)
    # half a U-Net, and a last layer that gives ten numbers
    net = networks.ConvNet((1, 8, 8), channels=(16, 32))
    reader = Classifier(net, sigma_data=0.75)  # std of the pixels
    x0, y = data.digits("train")

    def losses(reader, x0, y):
        return cross_entropy(reader, x0, levels(len(x0)), y)

    batches = data.batches(x0, y, 128)
    for state in fit(reader, losses, batches, steps, lr=2e-3, ema=0.99):
        average = state.ema  # the mean of the weights so far
    return average


knows_noise = train(lambda n: random_steps(SCHEDULE, n))
knows_clean = train(lambda n: CLEAN)


# %% tags=["check", "L6-57", "L6-58", "T-13"]
@torch.no_grad()
def verdict(reader, x, t, y):
    """The share read right, and the mean of -log p(y | x) in nats."""
    log_prob = reader.class_log_prob(x, t)
    right = (log_prob.argmax(1) == y).double().mean().item()
    return right, -log_prob[torch.arange(len(y)), y].mean().item()


x0, y = data.digits("test")
steps = (0, 100, 200, 300, 500, 700, 900, 1000)
curves = {"all levels": [], "clean only": []}
for k in steps:
    t = SCHEDULE.at(k)
    source = torch.Generator().manual_seed(14)
    xt = add_noise(x0, torch.randn(x0.shape, generator=source), t)
    curves["all levels"].append(verdict(knows_noise, xt, t, y))
    curves["clean only"].append(verdict(knows_clean, xt, CLEAN, y))
at_900 = {}
for name, points in curves.items():
    right, at_900[name] = points[steps.index(900)]
    print(f"nats at k = 900, trained on {name}: {at_900[name]:.2f}")
assert at_900["all levels"] < math.log(10) + 0.15
assert at_900["clean only"] > 1.5 * math.log(10)

# %% tags=["draw", "subslide", "L6-57", "L6-58", "T-13"]
figure, axes = plots.panels(2, size=(3.5, 2.5))
names, guesses = ("share read right", "nats"), (0.1, math.log(10))
for column, ax in enumerate(axes):
    lines = {}
    for name, points in curves.items():
        lines[name] = (steps, [point[column] for point in points])
    plots.lines(lines, xlabel="step k", ylabel=names[column], ax=ax)
    ax.axhline(guesses[column], color="black", ls="--")
plots.show(
    figure,
    alt="Over the noise level: the share that is read right falls from "
    "nearly 1 to a tenth for both classifiers; the nats of the one that "
    "knows noise rise to log 10, those of the other go far beyond.",
    caption="Unseen digits. Dashed: guessing. It is right in a tenth of "
    "all cases and has log 10 = 2.30 nats.",
)

# %% [markdown] tags=["L6-57", "L6-58", "L19-07", "E-14"]
# Trained on clean pictures only, a classifier is right less often at middle levels. Worse, it is *certain*:
# more than 2.30 nats are worse than no opinion.
#
# **Remember:** train the guide on noisy pictures. Test how certain it is, not only how often it is right.

# %% [markdown] tags=["notes"]
# **5 min.** *Ask:* what should an honest classifier say of pure noise, and what does it cost? *Expect:*
# "nothing", "I do not know". *In fact* "one tenth each", and this costs log 10 = 2.30 nats.

# %% [markdown] tags=["slide", "L6-57", "L6-58", "L6-59", "E-14", "T-13"]
# ## 5. The wrong classifier at work
#
# **How much does it harm the pictures?**
#
# The networks of the first slider learnt from MNIST. `model` learnt to denoise, with the label in nine of ten
# pictures; we tell it none. `aware` learnt to classify at all noise levels, `clean` on clean pictures only.

# %% tags=["check", "fragment", "L6-57", "L6-59", "T-13"]
y, pictures = torch.arange(16) % 10, {}
for name, method in (("aware", by_aware), ("clean", by_clean)):
    source = torch.Generator().manual_seed(0)
    start = initial_noise((16, 1, 28, 28), levels(8)[0], source).float()
    pictures[name] = last(ddim(method(y, 4.0), start, levels(8)))
    right = round(16 * metrics.recognised(pictures[name], y))
    print(f"{name}: the judge recognises {right} of 16 digits")
assert metrics.recognised(pictures["aware"], y) > 12 / 16
assert metrics.recognised(pictures["clean"], y) < 12 / 16

# %% tags=["draw", "fragment", "L6-57", "L6-59", "T-13"]
both = torch.cat([pictures["aware"][:10], pictures["clean"][:10]])
plots.show(
    plots.images(both, 10, rows=("aware", "clean"), scale=2),
    alt="Two rows of ten digits from the same noise. Above, guided by the "
    "classifier that knows noise, clear digits 0 to 9. Below, guided by "
    "the other one, mostly static, in which few digits can be read.",
    caption="The digits 0 to 9 were asked for, at ω = 4, in 8 steps.",
)

# %% [markdown] tags=["L6-57", "E-14"]
# The gradient of the clean network has the wrong *direction* at every noisy level that we measured. For an
# *exact* clean classifier, in a toy world, mostly the *length* is wrong, by orders of magnitude
# ([deeper/10](deeper/10_classifier_guidance.ipynb)).
#
# **When is the digit decided?** Move the slider along a walk at ω = 4. Above is the noisy picture $x_t$,
# below the guess $x_0$.

# %% tags=["play", "draw", "skip", "L6-59"]
play = Playground(
    {"aware classifier": by_aware}, {"model": model}, levels, steps=8
)
path = play.trajectory()
path["omega"].value = 4.0
path.show(
    alt="Eight pictures on their way from noise to digits, and below them "
    "the guesses: soft, heavy shapes of the wanted digits from the first "
    "step on, which then find their lines.",
    still_over="stop",
    values=[0, 1, 4, 8],
)

# %% [markdown] tags=["exercise", "L6-55"]
# Almost at once. Just below pure noise the gradient is small, but the factor
# $\omega\,\text{noise}^2/\text{signal}$ of section 2 is larger still.
#
# **Remember:** a classifier that does not know noise ruins the pictures. The class is decided early.
#
# **Exercise 2** (hard). `guidance.interval(plain, guided, low, high)` guides only while the clock $k/1000$ is
# between `low` and `high`. Guide on [0.5, 1] only, then on [0, 0.5] only. Which one works?
#
# <details><summary>Answer</summary>
# The noisy half, [0.5, 1]: the digit is still open and the factor is large. Later the model has drawn another
# digit, and the factor is small.
# </details>

# %% [markdown] tags=["notes"]
# **3 min.** *Ask before the picture:* what will the clean classifier do? *Expect:* "some wrong digits". *In
# fact* most pictures end as static. On the first slider, switch to it at ω = 1.

# %% [markdown] tags=["formula", "slide", "L6-61"]
# ## 6. Who judges?
#
# **The guide is certain that it worked. Should we believe it?**
#
# Guidance climbs the log-probability of the guide. So it finds pictures that convince the guide, and perhaps
# nobody else. To see how little is needed we leave the model out. We start from noise and climb alone:
#
# $$x \leftarrow x + 0.3\;\nabla\log p(y \mid x)$$


# %% tags=["formula", "check", "L6-61"]
def climb(log_prob, x, t, steps=60, size=0.3):
    """Gradient ascent on log p(y | x)."""
    for _ in range(steps):
        x = x + size * slope(log_prob, x, t)
    return x


source = torch.Generator().manual_seed(15)
static = torch.randn(10, 1, 28, 28, generator=source)
digits = torch.arange(10)
says = guidance.log_prob_of(aware, digits)
climbed = climb(says, static, CLEAN)
sure = says(climbed, CLEAN).exp().mean().item()
agrees = metrics.recognised(climbed, digits)
print(f"the guide is sure of the ten digits: {sure:.0%}")
print(f"the judge reads them:                {agrees:.0%}")
assert sure > 0.9
assert agrees < 0.4

# %% tags=["draw", "subslide", "L6-61"]
drawn = last(ddim(by_aware(digits, 4.0), static, levels(20)))
three = torch.cat([static, climbed, drawn])
names = ("noise", "classifier alone", "model and classifier")
plots.show(
    plots.images(three, 10, rows=names, scale=2),
    alt="Three rows of ten pictures: noise; noise that looks the same, of "
    "which a classifier is sure that it shows the digits 0 to 9; and ten "
    "clear digits, 0 to 9.",
    caption="To the aware classifier, told that they are clean pictures, "
    "the middle row shows 0 to 9 beyond doubt.",
)

# %% [markdown] tags=["L6-60", "L6-61"]
# Told that the noise is a clean picture, the classifier is driven to 98 %. It can tell a seven from a one.
# Only the model knows what pictures look like.
#
# Guided pictures flatter their guide too. Those that the aware classifier guided at ω = 2 cost it fewer nats
# than the judge, in all four runs of deeper/10. So ask a judge that has guided nobody.
#
# *Why does practice use ω from 2 to 10?* A hypothesis: trained classifiers push too little in the direction in
# which the model itself would go. A larger ω makes up for it. Our evidence is forty pictures.
#
# *What does it cost?* Per step one gradient, about two passes of the classifier.
#
# **Remember:** never let the guide judge.

# %% [markdown] tags=["notes"]
# **5 min,** with the summary. *Ask before the picture:* a classifier is 98 % sure of "0 to 9". What do the
# pictures show? *Expect:* "ugly digits". *In fact* just noise.

# %% [markdown] tags=["slide"]
# ## Summary
#
# - Bayes' rule in scores is a sum: model plus gradient of the classifier.
# - $\tilde\epsilon = \epsilon - \omega\,\text{noise}\,\nabla\log p(y \mid x_t)$. ω = 1 is Bayes' rule.
# - A large ω makes samples less diverse, and in the end less typical.
# - A classifier may guide if it was trained on noisy pictures. It must not judge.
#
# ## Five questions
#
# 1. Where does $p(y)$ go when Bayes' rule is written in scores?
#    <details><summary>Answer</summary>log p(y) does not depend on xt, so its gradient is zero.</details>
# 2. Signal is 0.8, noise 0.6, the model says ε = 1, the classifier's gradient is 0.5, and ω = 2. What is the
#    guided noise, and how far does the guess of $x_0$ move?
#    <details><summary>Answer</summary>1 − 2 · 0.6 · 0.5 = 0.4. It moves up, by 2 · 0.36 / 0.8 · 0.5 =
#    0.45.</details>
# 3. Are samples at ω = 8 more typical of their class than at ω = 1?
#    <details><summary>Answer</summary>No. They crowd where the classifier is sure, even if the class has few
#    data there.</details>
# 4. Why does a classifier of clean pictures guide badly?
#    <details><summary>Answer</summary>It never learnt to read noise. There it is certain and wrong, and its
#    gradient misleads (deeper/10 measures it).</details>
# 5. The guide is 99 % sure of all samples. What do you know?
#    <details><summary>Answer</summary>Only that it is convinced. Noise can do that.</details>
#
# ## References and where next
#
# - Dhariwal & Nichol 2021, [classifier guidance](https://arxiv.org/abs/2105.05233)
# - Song et al. 2021, [scores and SDEs](https://arxiv.org/abs/2011.13456), section 5
# - Kynkäänniemi et al. 2024, [guidance in an interval](https://arxiv.org/abs/2404.07724)
#
# **Where next.** [Lesson 11](11_classifier_free_guidance.ipynb) needs no classifier: a model that knows labels
# contains one.
