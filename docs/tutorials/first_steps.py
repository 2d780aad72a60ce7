# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # First steps
#
# A network learns one task after the other, gets worse at learning, and is cured. It takes about a minute. You need
# `pip install ".[lab]"` in a clone of supple, for the images and the figure.

# %%
import matplotlib.pyplot as plt
import torch
from torch import nn

import supple
from supple.lab.data import mnist10k
from supple.lab.streams import PermutedStream

torch.set_num_threads(1)  # the network is small

# %% [markdown]
# ## Tasks without an end
#
# Each task is the same 10,000 images of MNIST with their pixels in a new order, so that the digits have to be learned anew.

# %%
TASKS, STEPS, BATCH = 60, 300, 32
images = mnist10k()
stream = PermutedStream(images, seeds=[0], batch_size=BATCH)


def tasks():
    for number in range(TASKS):
        task = stream.task(number)
        batches = [task.batch(step) for step in range(STEPS)]
        yield [(x[0], y[0]) for x, y in batches]  # a stream has a leading dimension of seeds, here of one


# %% [markdown]
# ## Training, as you would write it
#
# The accuracy of a batch is measured before it is learned from. That is the accuracy on new data.


# %%
def train(make_method):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    method = make_method(model, optimizer)
    accuracies = []
    for batches in tasks():
        right = 0
        for x, y in batches:
            logits = model(x)
            right += int((logits.argmax(dim=1) == y).sum())
            optimizer.zero_grad()
            nn.functional.cross_entropy(logits, y).backward()
            optimizer.step()
            if method is not None:
                method.step()
        accuracies.append(right / (STEPS * BATCH))
    return accuracies, method


plain, _ = train(lambda model, optimizer: None)
cured, method = train(lambda model, optimizer: supple.SWR(model, optimizer, frequency=300, factor=1e-3))
print(f"last ten tasks: plain {sum(plain[-10:]) / 10:.1%}, with SWR {sum(cured[-10:]) / 10:.1%}")

# %%
plt.plot(plain, "--", label="Adam", color="#5f6670")
plt.plot(cured, label="Adam with SWR", color="#d55e00")
plt.xlabel("task")
plt.ylabel("accuracy on new data")
plt.legend()
plt.show()

# %% [markdown]
# ## What was done
#
# Every 300 steps, SWR drew those weights anew whose utility |w g| was below a thousandth of the mean of their tensor. How many those
# were in all:

# %%
print(int(method.reinitialized.total), "weights")

# %% [markdown]
# ## What it draws from
#
# New weights come from the distribution that each parameter was initialized from, which supple works out of the fresh values:

# %%
print(supple.initial_distributions(nn.Linear(784, 64)))

# %% [markdown]
# ## One line
#
# `attach()` lets a method act by itself after each step of the optimizer, in whatever loop or trainer that is:

# %%
model = nn.Sequential(nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10))
optimizer = torch.optim.Adam(model.parameters())
method = supple.SWR(model, optimizer).attach()

# %% [markdown]
# Next: [which method](../choosing.md), or [in your own loop or trainer](../guide.md).
