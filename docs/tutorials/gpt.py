# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # A small GPT
#
# A transformer that predicts the next byte, on a corpus that changes: the source of Python's standard library, with the bytes renamed
# in each round, as if it were written in another alphabet.

# %%
import math
import string
from pathlib import Path

import torch
from torch import nn

import supple

torch.manual_seed(0)
torch.set_num_threads(1)
WIDTH, HEADS, CONTEXT = 32, 2, 32


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attention, self.projection = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))

    def forward(self, x):
        batch, length, _ = x.shape
        q, k, v = self.attention(self.norm1(x)).view(batch, length, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        attended = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.projection(attended.transpose(1, 2).reshape(batch, length, WIDTH))
        return x + self.mlp(self.norm2(x))


class GPT(nn.Module):
    def __init__(self):
        super().__init__()
        self.tokens, self.places = nn.Embedding(128, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.Sequential(Block(), Block())
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 128)

    def forward(self, tokens):
        x = self.tokens(tokens) + self.places(torch.arange(tokens.shape[1]))
        return self.head(self.norm(self.blocks(x)))


# %% [markdown]
# ## What can be replaced
#
# In a transformer it is the hidden units of the perceptrons. What lies on the residual stream or goes into attention is left out, with
# the reason.

# %%
model = GPT()
units = supple.units(model, torch.randint(128, (2, CONTEXT)))
print(units)

# %% [markdown]
# ## Train, with the alphabet changing
#
# The loss of a batch is measured before it is learned from, in bits a byte.

# %%
text = Path(string.__file__).read_bytes()
corpus = torch.tensor([byte for byte in text if byte < 128])
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
method = supple.chain(
    supple.SWR(model, optimizer, frequency=100, factor=1e-4),
    supple.CBP(model, optimizer, units=units, maturity=100, replacement_rate=1e-5),
).attach()
for round_ in range(3):
    renamed = torch.randperm(128)[corpus]
    bits = []
    for _ in range(150):
        start = torch.randint(len(renamed) - CONTEXT - 1, (16,))
        batch = renamed[start.unsqueeze(1) + torch.arange(CONTEXT + 1)]
        loss = nn.functional.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()  # the methods act right after it
        bits.append(float(loss.detach()) / math.log(2))
    print(f"round {round_ + 1}: {sum(bits[-20:]) / 20:.2f} bits a byte at its end")

# %% [markdown]
# A network as small and as young as this one has nothing to cure. `examples/changing_text.py` trains for longer, compares with a fresh model
# and says the same: what was learned before helps more than lost plasticity hurts. Before you add a method, look whether you need one:
# [loss of plasticity](../plasticity.md).
