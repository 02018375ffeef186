#!/usr/bin/env python3
"""The small model of ballast-train written straightforwardly in PyTorch: starts from the same checkpoint, reads the same
sequences, and prints the loss of every step. A second opinion on correctness, and the peer of the throughput bench.

    torch_twin.py --checkpoint DIR --data FILE --steps N [--schedule-steps N] [--warmup N] [--lr X] [--threads N]

Prints one JSON object a step: {"step", "loss", "grad_norm", "step_us"}. Exit code 77 when PyTorch is absent."""
import argparse
import gzip
import json
import math
import os
import struct
import sys
import time

import numpy as np

try:
    import torch
    import torch.nn.functional as F
except ImportError:
    print("PyTorch is absent", file=sys.stderr)
    sys.exit(77)

WORD = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15
DATA_STREAM = 0x64617461


def mix(x):
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & WORD
    return x ^ (x >> 31)


def hash_words(*words):
    h = 0
    for w in words:
        h = mix(((h ^ w) + GOLDEN) & WORD)
    return h


def read_safetensors(path):
    with open(path, "rb") as f:
        size = struct.unpack("<Q", f.read(8))[0]
        header = json.loads(f.read(size))
        body = f.read()
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        numbers = np.frombuffer(body, dtype="<f4", count=(end - begin) // 4, offset=begin)
        tensors[name] = torch.from_numpy(numbers.reshape(entry["shape"]).copy())
    return tensors


def read_checkpoint(folder):
    with open(os.path.join(folder, "manifest.json")) as f:
        manifest = json.load(f)
    tensors = {}
    for item in manifest["files"]:
        if item["name"].endswith(".safetensors"):
            tensors.update(read_safetensors(os.path.join(folder, item["name"])))
    weights = {n: t.requires_grad_() for n, t in tensors.items() if not n.startswith("adam.")}
    with open(os.path.join(folder, "model.json")) as f:
        return manifest, json.load(f), weights


def read_data(path):
    with open(path, "rb") as f:
        data = f.read()
    if data[:2] == b"\x1f\x8b":
        data = gzip.decompress(data)
    return np.frombuffer(data, dtype=np.uint8)


class Model:
    def __init__(self, shape, weights):
        self.w = weights
        self.layers, self.hidden = shape["layers"], shape["hidden"]
        self.heads = shape["attention"]["heads"]
        moe = shape["moe"]
        self.experts, self.top_k = moe["experts"], moe["top_k"]
        self.first, self.every = moe.get("first_layer", 0), moe.get("every", 1)
        self.sequence = shape["sequence"]

    def is_moe(self, layer):
        return layer >= self.first and (layer - self.first + 1) % self.every == 0

    def linear(self, x, name):
        return F.linear(x, self.w[name + ".weight"], self.w[name + ".bias"])

    def norm(self, x, name):
        return F.layer_norm(x, (self.hidden,), self.w[name + ".weight"], self.w[name + ".bias"], 1e-5)

    def attention(self, x, layer):
        b, t, h = x.shape
        qkv = self.linear(x, f"layers.{layer}.attn.qkv").view(b, t, 3, self.heads, h // self.heads)
        q, k, v = (qkv[:, :, i].transpose(1, 2) for i in range(3))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True) if hasattr(F, "scaled_dot_product_attention") else \
            self.plain_attention(q, k, v)
        return self.linear(y.transpose(1, 2).reshape(b, t, h), f"layers.{layer}.attn.out")

    def plain_attention(self, q, k, v):
        t = q.shape[2]
        score = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        score = score.masked_fill(torch.ones(t, t, dtype=torch.bool).triu(1), float("-inf"))
        return torch.softmax(score, -1) @ v

    def feed_forward(self, x, prefix):
        return self.linear(F.gelu(self.linear(x, prefix + ".fc1"), approximate="tanh"), prefix + ".fc2")

    def experts_forward(self, x, layer):
        flat = x.reshape(-1, self.hidden)
        logits = F.linear(flat, self.w[f"layers.{layer}.moe.gate.weight"])
        chosen_logits, chosen = torch.topk(logits, self.top_k)
        weight = torch.softmax(chosen_logits, -1)
        y = torch.zeros_like(flat)
        for e in range(self.experts):
            token, choice = torch.nonzero(chosen == e, as_tuple=True)
            if len(token) == 0:
                continue
            out = self.feed_forward(flat[token], f"layers.{layer}.moe.experts.{e}")
            y = y.index_add(0, token, out * weight[token, choice].unsqueeze(1))
        return y.view_as(x)

    def loss(self, tokens, targets):
        x = self.w["embed.token"][tokens] + self.w["embed.position"]
        for layer in range(self.layers):
            x = x + self.attention(self.norm(x, f"layers.{layer}.norm1"), layer)
            y = self.norm(x, f"layers.{layer}.norm2")
            x = x + (self.experts_forward(y, layer) if self.is_moe(layer) else
                     self.feed_forward(y, f"layers.{layer}.ffn"))
        logits = F.linear(self.norm(x, "norm"), self.w["embed.token"])
        return F.cross_entropy(logits.view(-1, logits.shape[-1]), targets.reshape(-1))


def learning_rate(peak, step, warmup, schedule):
    if step <= warmup:
        return peak * step / warmup
    if step >= schedule:
        return 0.1 * peak
    return peak * (0.1 + 0.45 * (1 + math.cos(math.pi * (step - warmup) / (schedule - warmup))))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--schedule-steps", type=int)
    parser.add_argument("--warmup", type=int)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--threads", type=int, default=2)
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    manifest, shape, weights = read_checkpoint(a.checkpoint)
    model, data = Model(shape, weights), read_data(a.data)
    seed, batch = manifest["seed"], manifest["batch"]
    schedule = a.schedule_steps or a.steps
    warmup = min(schedule // 10, 100) if a.warmup is None else a.warmup
    decayed = [p for p in weights.values() if p.dim() == 2]
    plain = [p for p in weights.values() if p.dim() != 2]
    optimizer = torch.optim.AdamW([{"params": decayed, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}],
                                  lr=a.lr, betas=(0.9, 0.95), eps=1e-8)
    for p in weights.values():
        p.grad = torch.zeros_like(p)  # an expert without tokens still decays and its moments still fade
    for step in range(manifest["step"] + 1, a.steps + 1):
        start = time.perf_counter()
        at = [hash_words(seed, step, i, DATA_STREAM) % (len(data) - model.sequence) for i in range(batch)]
        rows = torch.from_numpy(np.stack([data[i:i + model.sequence + 1] for i in at]).astype(np.int64))
        loss = model.loss(rows[:, :-1], rows[:, 1:])
        optimizer.zero_grad(set_to_none=False)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(list(weights.values()), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(a.lr, step, warmup, schedule)
        optimizer.step()
        print(json.dumps({"step": step, "loss": float(loss), "grad_norm": float(norm),
                          "step_us": int(1e6 * (time.perf_counter() - start))}), flush=True)


main()
