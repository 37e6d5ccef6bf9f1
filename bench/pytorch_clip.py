"""CLIP in plain PyTorch, with open_clip's parameter names: the other side of against_pytorch.py.

Written for speed as PyTorch's documentation advises: scaled_dot_product_attention, one product for q, k and v, F.normalize, F.cross_entropy, channels_last for
convolutions. It imports nothing but torch, so it runs wherever torch does.
"""
import math

import torch
import torch.nn.functional as F
from torch import nn


class QuickGELU(nn.Module):
    def forward(self, x):
        return x * torch.sigmoid(1.702 * x)


class Attention(nn.Module):
    """Self-attention with the parameter names of nn.MultiheadAttention."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.empty(3 * width))
        self.out_proj = nn.Linear(width, width)

    def forward(self, x, causal):
        b, t, c = x.shape
        qkv = F.linear(x, self.in_proj_weight, self.in_proj_bias).view(b, t, 3, self.heads, c // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
        return self.out_proj(y.transpose(1, 2).reshape(b, t, c))


class Mlp(nn.Module):
    def __init__(self, width, hidden, activation):
        super().__init__()
        self.c_fc = nn.Linear(width, hidden)
        self.gelu = activation()
        self.c_proj = nn.Linear(hidden, width)

    def forward(self, x):
        return self.c_proj(self.gelu(self.c_fc(x)))


class Block(nn.Module):
    def __init__(self, width, heads, hidden, activation):
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = Attention(width, heads)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, hidden, activation)

    def forward(self, x, causal):
        x = x + self.attn(self.ln_1(x), causal)
        return x + self.mlp(self.ln_2(x))


class Transformer(nn.Module):
    def __init__(self, width, layers, heads, ratio, activation):
        super().__init__()
        self.resblocks = nn.ModuleList(Block(width, heads, int(width * ratio), activation) for _ in range(layers))

    def forward(self, x, causal):
        for block in self.resblocks:
            x = block(x, causal)
        return x


class VisionTransformer(nn.Module):
    def __init__(self, c, embed, activation):
        super().__init__()
        width, patch, grid = c["width"], c["patch_size"], c["image_size"] // c["patch_size"]
        self.conv1 = nn.Conv2d(3, width, patch, patch, bias=False)
        self.class_embedding = nn.Parameter(torch.empty(width))
        self.positional_embedding = nn.Parameter(torch.empty(grid * grid + 1, width))
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = Transformer(width, c["layers"], width // c.get("head_width", 64), c.get("mlp_ratio", 4.0), activation)
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Parameter(torch.empty(width, embed))

    def forward(self, x):
        x = self.conv1(x).flatten(2).transpose(1, 2)
        cls = self.class_embedding.to(x.dtype).expand(x.shape[0], 1, -1)
        x = self.ln_pre(torch.cat([cls, x], 1) + self.positional_embedding)
        return self.ln_post(self.transformer(x, False)[:, 0]) @ self.proj


class Bottleneck(nn.Module):
    def __init__(self, inplanes, planes, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inplanes, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.avgpool = nn.AvgPool2d(stride) if stride > 1 else nn.Identity()
        self.conv3 = nn.Conv2d(planes, planes * 4, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(planes * 4)
        self.downsample = None
        if stride > 1 or inplanes != planes * 4:
            self.downsample = nn.Sequential()
            self.downsample.add_module("-1", nn.AvgPool2d(stride) if stride > 1 else nn.Identity())
            self.downsample.add_module("0", nn.Conv2d(inplanes, planes * 4, 1, bias=False))
            self.downsample.add_module("1", nn.BatchNorm2d(planes * 4))

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        y = self.bn3(self.conv3(self.avgpool(y)))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)), inplace=True)


class AttentionPool(nn.Module):
    def __init__(self, grid, width, heads, out):
        super().__init__()
        self.heads = heads
        self.positional_embedding = nn.Parameter(torch.empty(grid * grid + 1, width))
        self.k_proj, self.q_proj, self.v_proj = (nn.Linear(width, width) for _ in range(3))
        self.c_proj = nn.Linear(width, out)

    def forward(self, x):
        b, c = x.shape[:2]
        x = x.flatten(2).transpose(1, 2)
        x = torch.cat([x.mean(1, keepdim=True), x], 1) + self.positional_embedding
        split = lambda y: y.view(b, -1, self.heads, c // self.heads).transpose(1, 2)
        y = F.scaled_dot_product_attention(split(self.q_proj(x[:, :1])), split(self.k_proj(x)), split(self.v_proj(x)))
        return self.c_proj(y.transpose(1, 2).reshape(b, c))


class ModifiedResNet(nn.Module):
    def __init__(self, c, embed):
        super().__init__()
        w = c["width"]
        self.conv1 = nn.Conv2d(3, w // 2, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(w // 2)
        self.conv2 = nn.Conv2d(w // 2, w // 2, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(w // 2)
        self.conv3 = nn.Conv2d(w // 2, w, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(w)
        planes = w
        for i, blocks in enumerate(c["layers"]):
            stage = []
            for b in range(blocks):
                stage.append(Bottleneck(planes, w << i, 2 if i > 0 and b == 0 else 1))
                planes = (w << i) * 4
            setattr(self, f"layer{i + 1}", nn.Sequential(*stage))
        self.attnpool = AttentionPool(c["image_size"] // 32, w * 32, w * 32 // c.get("head_width", 64), embed)

    def forward(self, x):
        for i in (1, 2, 3):
            x = F.relu(getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(x)), inplace=True)
        x = F.avg_pool2d(x, 2)
        return self.attnpool(self.layer4(self.layer3(self.layer2(self.layer1(x)))))


class Clip(nn.Module):
    def __init__(self, config):
        super().__init__()
        activation = QuickGELU if config.get("quick_gelu") else nn.GELU
        embed, v, t = config["embed_dim"], config["vision_cfg"], config["text_cfg"]
        resnet = isinstance(v["layers"], list) and len(v["layers"]) > 1
        self.visual = ModifiedResNet(v, embed) if resnet else VisionTransformer(v, embed, activation)
        self.transformer = Transformer(t["width"], t["layers"], t["heads"], t.get("mlp_ratio", 4.0), activation)
        self.token_embedding = nn.Embedding(t["vocab_size"], t["width"])
        self.positional_embedding = nn.Parameter(torch.empty(t["context_length"], t["width"]))
        self.ln_final = nn.LayerNorm(t["width"])
        self.text_projection = nn.Parameter(torch.empty(t["width"], embed))
        self.logit_scale = nn.Parameter(torch.empty([]))

    def encode_text(self, tokens):
        x = self.token_embedding(tokens) + self.positional_embedding[:tokens.shape[1]]
        x = self.ln_final(self.transformer(x, True))
        return x[torch.arange(x.shape[0], device=x.device), tokens.argmax(-1)] @ self.text_projection

    def forward(self, pixels, tokens):
        """The symmetric InfoNCE loss; open_clip's ClipLoss for one process."""
        image, text = F.normalize(self.visual(pixels), dim=-1), F.normalize(self.encode_text(tokens), dim=-1)
        logits = self.logit_scale.exp() * image @ text.T
        labels = torch.arange(len(logits), device=logits.device)
        return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2

    def clamp(self):
        with torch.no_grad():
            self.logit_scale.clamp_(0, math.log(100))


def adamw(model, lr, device):
    """open_clip's groups and defaults, transformers' positions without decay as in twinlens; the fused kernel."""
    resnet = isinstance(model.visual, ModifiedResNet)
    of_tokens = lambda n: n.endswith(("positional_embedding", "class_embedding")) and not n.endswith("attnpool.positional_embedding")
    decays = lambda n, p: p.ndim >= 2 and not of_tokens(n)
    named = list(model.named_parameters())
    groups = [{"params": [p for n, p in named if decays(n, p) is on], "weight_decay": 0.2 if on else 0.0} for on in (True, False)]
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.999 if resnet else 0.98), eps=1e-8 if resnet else 1e-6, fused=True)
