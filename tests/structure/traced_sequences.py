"""Small networks in the style of well-known ones: of sequences, with several heads, gates and other readers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class Attention(nn.Module):
    """Self-attention in the style of nanoGPT."""

    def __init__(self, width, heads, causal):
        super().__init__()
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.heads, self.causal = heads, causal

    def forward(self, x):
        b, t, c = x.shape
        q, k, v = (part.view(b, t, self.heads, c // self.heads).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.proj(y.transpose(1, 2).reshape(b, t, c))


class HandAttention(Attention):
    def forward(self, x):
        b, t, c = x.shape
        q, k, v = self.qkv(x).reshape(b, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        scores = (q @ k.transpose(-2, -1)) * (c // self.heads) ** -0.5
        scores = scores.masked_fill(torch.ones(t, t).tril() == 0, float("-inf")) if self.causal else scores
        return self.proj((scores.softmax(-1) @ v).transpose(1, 2).reshape(b, t, c))


class Block(nn.Module):
    def __init__(self, width, attention, causal):
        super().__init__()
        self.ln1, self.ln2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = attention(width, 2, causal)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, 3 * width), "fc2": nn.Linear(3 * width, width)})

    def forward(self, x):
        x = x + self.attn(self.ln1(x))
        return x + self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.ln2(x))))


class ViT(nn.Module):
    def __init__(self):
        super().__init__()
        self.patch = nn.Conv2d(2, 4, 4, 4)
        self.cls, self.position = nn.Parameter(torch.zeros(1, 1, 4)), nn.Parameter(0.02 * torch.randn(1, 5, 4))
        self.blocks = nn.ModuleList([Block(4, HandAttention, False) for _ in range(2)])
        self.norm, self.head = nn.LayerNorm(4), nn.Linear(4, 3)

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(x.shape[0], -1, -1), x], dim=1) + self.position
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])


class GPT(nn.Module):
    def __init__(self):
        super().__init__()
        self.wte, self.wpe = nn.Embedding(11, 4), nn.Embedding(5, 4)
        self.h = nn.ModuleList([Block(4, Attention, True) for _ in range(2)])
        self.ln_f, self.lm_head = nn.LayerNorm(4), nn.Linear(4, 11, bias=False)
        self.lm_head.weight = self.wte.weight

    def forward(self, idx):
        x = self.wte(idx) + self.wpe(torch.arange(idx.shape[1]))
        for block in self.h:
            x = block(x)
        return self.lm_head(self.ln_f(x))


class Translator(nn.Module):
    """Encoder and decoder of torch.nn."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(11, 4)
        self.transformer = nn.Transformer(4, 2, 1, 1, dim_feedforward=6, dropout=0.0, batch_first=True)
        self.out = nn.Linear(4, 11)

    def forward(self, source, target):
        mask = nn.Transformer.generate_square_subsequent_mask(target.shape[1])
        return self.out(self.transformer(self.embed(source), self.embed(target), tgt_mask=mask, tgt_is_causal=True))


class Recurrent(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.inlet = nn.Linear(4, 5)
        self.rnn = kind(5, 3, batch_first=True)
        self.fc1, self.fc2 = nn.Linear(3, 6), nn.Linear(6, 2)

    def forward(self, x):
        out, _ = self.rnn(torch.relu(self.inlet(x)))
        return self.fc2(torch.relu(self.fc1(out[:, -1])))


class HandRecurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.cell, self.head = nn.Linear(4, 5), nn.Linear(10, 5), nn.Linear(5, 2)

    def forward(self, x):
        state = torch.zeros(x.shape[0], 5)
        for step in self.inner(x).relu().unbind(1):
            state = torch.tanh(self.cell(torch.cat([step, state], -1)))
        return self.head(state)


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.enc1, self.enc2 = self.twice(2, 3), self.twice(3, 4)
        self.up = nn.ConvTranspose2d(4, 3, 2, stride=2)
        self.dec, self.out = self.twice(6, 5), nn.Conv2d(5, 1, 1)

    def twice(self, before, width):
        return nn.Sequential(
            *(nn.Conv2d(before, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)),
            *(nn.Conv2d(width, width, 3, padding=1), nn.GroupNorm(1, width), nn.ReLU(inplace=True)),
        )

    def forward(self, x):
        skip = self.enc1(x)
        x = self.up(self.enc2(F.max_pool2d(skip, 2)))
        return self.out(self.dec(torch.cat([skip, x], dim=1)))


class ActorCritic(nn.Module):
    def __init__(self):
        super().__init__()
        self.torso = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5), nn.Tanh())
        self.policy, self.value = nn.Linear(5, 2), nn.Linear(5, 1)

    def forward(self, x):
        features = self.torso(x)
        return {"logits": self.policy(features), "value": self.value(features).squeeze(-1)}


class Dueling(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(2, 3, 4, 2), nn.ReLU(), nn.Conv2d(3, 4, 2), nn.ReLU(), nn.Flatten())
        self.value = nn.Sequential(nn.Linear(16, 5), nn.ReLU(), nn.Linear(5, 1))
        self.advantage = nn.Sequential(nn.Linear(16, 6), nn.ReLU(), nn.Linear(6, 3))

    def forward(self, x):
        features = self.conv(x)
        advantage = self.advantage(features)
        return self.value(features) + advantage - advantage.mean(1, keepdim=True)


class RMSNorm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)


class Gated(nn.Module):
    """The gated MLP of LLaMA, and one whose gate and value come from one weight, as in PaLM."""

    def __init__(self):
        super().__init__()
        self.inlet, self.norm, self.last = nn.Linear(4, 5), RMSNorm(5), RMSNorm(5)
        self.gate, self.up, self.down = nn.Linear(5, 6), nn.Linear(5, 6), nn.Linear(6, 5)
        self.both, self.back = nn.Linear(5, 14), nn.Linear(7, 5)
        self.glu, self.end = nn.Linear(5, 8), nn.Linear(4, 2)

    def forward(self, x):
        x = self.inlet(x)
        y = self.norm(x)
        x = x + self.down(F.silu(self.gate(y)) * self.up(y))
        gate, value = self.both(self.last(x)).chunk(2, dim=-1)
        return self.end(F.glu(self.glu(x + self.back(F.gelu(gate) * value))))


class Normed(nn.Module):
    """Normalization behind the activation, as in the study, and of other kinds."""

    def __init__(self):
        super().__init__()
        self.fc1, self.norm1 = nn.Linear(4, 6), nn.LayerNorm(6)
        self.fc2, self.norm2 = nn.Linear(6, 5), nn.RMSNorm(5)
        self.conv, self.norm3 = nn.Conv1d(1, 3, 3, padding=1), nn.InstanceNorm1d(3, affine=True)
        self.norm4, self.head = nn.BatchNorm1d(15), nn.Linear(15, 2)

    def forward(self, x):
        x = self.norm1(F.relu(self.fc1(x)))
        x = F.silu(self.norm2(self.fc2(x)))
        return self.head(self.norm4(self.norm3(self.conv(x.unsqueeze(1)).relu()).flatten(1)))


class CReLU(nn.Module):
    """Units and their negated twins, functional linear layers, and a layer that reads a part of another."""

    def __init__(self):
        super().__init__()
        self.fc1, self.mid, self.head = nn.Linear(4, 3), nn.Linear(10, 6), nn.Linear(4, 2)
        self.side = nn.Parameter(torch.randn(2, 2))

    def forward(self, x):
        hidden = self.fc1(x)
        hidden = self.mid(torch.cat([x, hidden.relu(), (-hidden).relu()], dim=-1)).tanh()
        return self.head(hidden[:, :4]) + hidden[:, 4:] @ self.side


class SqueezeExcite(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.fc1, self.fc2 = nn.Conv2d(2, 4, 3), nn.Linear(4, 2), nn.Linear(2, 4)
        self.last = nn.Conv2d(4, 3, 3)

    def forward(self, x):
        x = self.conv(x).relu()
        scale = torch.sigmoid(self.fc2(self.fc1(x.mean((2, 3))).relu()))
        return self.last(x * scale[:, :, None, None]).amax((2, 3))


class Mixer(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(4), nn.LayerNorm(4)
        self.token = nn.Sequential(nn.Linear(5, 6), nn.GELU(), nn.Linear(6, 5))
        self.channel = nn.Sequential(nn.Linear(4, 7), nn.GELU(), nn.Linear(7, 4))

    def forward(self, x):
        x = x + self.token(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.channel(self.norm2(x))
