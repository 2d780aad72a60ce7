# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # A vision model
#
# A convolutional network with residual blocks and batch normalization: which hidden units it has, what a method replaces in it, and what
# that does to its output. The pictures are random; nothing here depends on what they show.

# %%
import torch
from torch import nn

import supple

torch.manual_seed(0)
torch.set_num_threads(1)  # the network is small


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.first, self.norm1 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.second, self.norm2 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)

    def forward(self, x):
        inner = torch.relu(self.norm1(self.first(x)))
        return torch.relu(x + self.norm2(self.second(inner)))


model = nn.Sequential(
    nn.Conv2d(3, 16, 3, padding=1),
    nn.ReLU(),
    Block(16),
    Block(16),
    nn.AdaptiveAvgPool2d(1),
    nn.Flatten(),
    nn.Linear(16, 10),
)

# %% [markdown]
# ## Hidden units
#
# `supple.units` runs a copy of the model on an example and finds the units that can be replaced whole: the inner channels of the
# blocks. The channels of the residual stream are left out, and it says why.

# %%
images = torch.randn(8, 3, 32, 32)
units = supple.units(model, images)
print(units)

# %% [markdown]
# ## Replace some
#
# CBP replaces the units that contribute least, at a steady rate. With the rate of this example it is a few in a hundred steps.

# %%
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
method = supple.CBP(model, optimizer, units=units, maturity=20, replacement_rate=1e-3, seed=0)
model.train()
for _ in range(100):
    x, y = torch.randn(8, 3, 32, 32), torch.randint(10, (8,))
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(x), y).backward()
    optimizer.step()
    method.step()
print(int(method.reinitialized.total), "units replaced")

# %% [markdown]
# ## Take it away
#
# A method holds hooks on the modules whose features it reads. `close()` takes them away; a `with` block does so at its end.

# %%
method.close()

# %% [markdown]
# Units that are left out stay as they are with CBP. `supple.SWR` needs no units and acts on every parameter of any model. Both can work
# together: `supple.chain(supple.SWR(...), supple.CBP(...))`.
