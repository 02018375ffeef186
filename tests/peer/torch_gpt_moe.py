#!/usr/bin/env python3
"""GPT-MoE in PyTorch as its users would write it for speed: the peer of ballast-train's tokens a second.

The maths of the project's model file: x += attention(norm x); x += experts(norm x), top-k of the gate's logits with a
softmax over the chosen; tied embedding; AdamW with clipping at norm 1. Attention by scaled_dot_product_attention, experts
by torch._grouped_mm over the sorted rows where PyTorch has it for the device (else expert by expert), fused AdamW, fp32
weights with bf16 compute. Tokens and initial weights are random: it is a measure of time, not of learning.

    torch_gpt_moe.py [--layers N] [--hidden N] [--heads N] [--experts N] [--top-k K] [--sequence N] [--batch N]
                     [--steps N] [--compile] [--experts-by loop|grouped|best]
    torch_gpt_moe.py --attention SEQUENCES LENGTH HEADS WIDTH

The second prints forward_us and backward_us of causal scaled_dot_product_attention alone, bf16, medians. The first prints
one JSON object: tokens_per_s (of the median step behind the first five), step_ms, loss, experts_by, compiled.
Exit code 77 when PyTorch is absent."""
import argparse
import json
import statistics
import sys
import time

try:
    import torch
    import torch.nn as nn
    import torch.nn.functional as F
except ImportError:
    print("PyTorch is absent", file=sys.stderr)
    sys.exit(77)


def options():
    p = argparse.ArgumentParser()
    for name, value in (("layers", 12), ("hidden", 1024), ("heads", 16), ("experts", 8), ("top-k", 2), ("sequence", 1024),
                        ("batch", 8), ("steps", 20), ("vocabulary", 256)):
        p.add_argument(f"--{name}", type=int, default=value)
    p.add_argument("--compile", action="store_true")
    p.add_argument("--attention", type=int, nargs=4, metavar=("SEQUENCES", "LENGTH", "HEADS", "WIDTH"))
    p.add_argument("--experts-by", choices=("loop", "grouped", "best"), default="best")
    return p.parse_args()


def attend(q, k, v):
    if hasattr(F, "scaled_dot_product_attention"):
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
    return torch.softmax(scores.masked_fill(torch.ones_like(scores[0, 0]).triu(1).bool(), float("-inf")), -1) @ v


class Experts(nn.Module):
    def __init__(self, o, by):
        super().__init__()
        E, H, W = o.experts, o.hidden, 4 * o.hidden
        self.k, self.by, self.experts = o.top_k, by, E
        self.gate = nn.Linear(H, E, bias=False)
        self.fc1, self.fc2 = (nn.Parameter(torch.randn(E, a, b) * 0.02) for a, b in ((H, W), (W, H)))
        self.bias1, self.bias2 = (nn.Parameter(torch.zeros(E, n)) for n in (W, H))

    def forward(self, x):
        T, H = x.shape
        logit, expert = torch.topk(self.gate(x), self.k)
        weight = torch.softmax(logit.float(), -1)
        order = torch.argsort(expert.flatten(), stable=True)
        owner = expert.flatten()[order]
        rows = x[order // self.k]
        fc1, fc2 = self.fc1.to(x.dtype), self.fc2.to(x.dtype)
        bias1, bias2 = self.bias1.to(x.dtype), self.bias2.to(x.dtype)
        if self.by == "grouped":
            ends = torch.cumsum(torch.bincount(owner, minlength=self.experts), 0).to(torch.int32)
            hidden = F.gelu(torch._grouped_mm(rows, fc1, offs=ends) + bias1[owner], approximate="tanh")
            out = torch._grouped_mm(hidden, fc2, offs=ends) + bias2[owner]
        else:
            parts = rows.split(torch.bincount(owner, minlength=self.experts).tolist())
            out = torch.cat([torch.addmm(bias2[e], F.gelu(torch.addmm(bias1[e], part, fc1[e]), approximate="tanh"), fc2[e])
                             for e, part in enumerate(parts)])
        back = torch.empty_like(out)
        back[order] = out
        return (back.view(T, self.k, H) * weight.unsqueeze(-1).to(out.dtype)).sum(1)


class Layer(nn.Module):
    def __init__(self, o, by):
        super().__init__()
        self.heads = o.heads
        self.norm1, self.norm2 = nn.LayerNorm(o.hidden), nn.LayerNorm(o.hidden)
        self.qkv, self.out = nn.Linear(o.hidden, 3 * o.hidden), nn.Linear(o.hidden, o.hidden)
        self.experts = Experts(o, by)

    def forward(self, x):
        B, S, H = x.shape
        q, k, v = (t.view(B, S, self.heads, -1).transpose(1, 2) for t in self.qkv(self.norm1(x)).chunk(3, -1))
        x = x + self.out(attend(q, k, v).transpose(1, 2).reshape(B, S, H))
        return x + self.experts(self.norm2(x).to(q.dtype).view(B * S, H)).view(B, S, H)


class Model(nn.Module):
    def __init__(self, o, by):
        super().__init__()
        self.token, self.position = nn.Embedding(o.vocabulary, o.hidden), nn.Parameter(torch.randn(o.sequence, o.hidden) * 0.02)
        nn.init.normal_(self.token.weight, std=0.02)
        self.layers, self.norm = nn.ModuleList(Layer(o, by) for _ in range(o.layers)), nn.LayerNorm(o.hidden)

    def forward(self, tokens, targets):
        x = self.token(tokens) + self.position
        for layer in self.layers:
            x = layer(x)
        logits = F.linear(self.norm(x), self.token.weight)
        return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten())


def measure(o, by, device):
    torch.manual_seed(1)
    model = Model(o, by).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1,
                                  **({"fused": True} if device == "cuda" else {}))
    run = torch.compile(model) if o.compile else model
    times, loss = [], None
    for _ in range(o.steps):
        tokens = torch.randint(o.vocabulary, (o.batch, o.sequence + 1), device=device)
        if device == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        with torch.autocast(device, dtype=torch.bfloat16):
            loss = run(tokens[:, :-1], tokens[:, 1:])
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    step = statistics.median(times[min(5, len(times) - 1):])
    return {"tokens_per_s": o.batch * o.sequence / step, "step_ms": 1e3 * step, "loss": float(loss), "experts_by": by,
            "compiled": o.compile}


def measure_attention(sequences, length, heads, width, device, runs=21):
    """Medians over runs, behind two that warm up; on a device by its events."""
    q, k, v = (torch.randn(sequences, heads, length, width, device=device, dtype=torch.bfloat16, requires_grad=True)
               for _ in range(3))
    gradient, times = torch.randn_like(q), {"forward_us": [], "backward_us": []}
    for _ in range(runs + 2):
        marks = [torch.cuda.Event(enable_timing=True) for _ in range(3)] if device == "cuda" else []
        clock = [time.perf_counter()]
        for mark, work in enumerate((lambda: attend(q, k, v), lambda: out.backward(gradient))):
            if marks:
                marks[mark].record()
            result = work()
            out = result if mark == 0 else out
            clock.append(time.perf_counter())
        if marks:
            marks[2].record()
            torch.cuda.synchronize()
        for i, name in enumerate(times):
            times[name].append(1e3 * marks[i].elapsed_time(marks[i + 1]) if marks else 1e6 * (clock[i + 1] - clock[i]))
        q.grad = k.grad = v.grad = None
    return {name: statistics.median(us[2:]) for name, us in times.items()}


def main():
    o = options()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if o.attention:
        print(json.dumps(measure_attention(*o.attention, device)))
        return 0
    can_group = hasattr(torch, "_grouped_mm") and device == "cuda"
    ways = [o.experts_by] if o.experts_by != "best" else (["grouped"] if can_group else []) + ["loop"]
    results, reason = [], None
    for by in ways:
        try:
            results.append(measure(o, by, device))
        except (RuntimeError, AttributeError) as error:  # a way that this PyTorch does not go, or too little memory for it
            reason = f"{by}: {error}"
            print(reason, file=sys.stderr)
    if not results:
        return 1
    print(json.dumps(max(results, key=lambda r: r["tokens_per_s"])))
    return 0


if __name__ == "__main__":
    sys.exit(main())
