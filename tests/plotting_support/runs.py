"""Made-up run logs and exported traces in Ballast's own formats."""

import json
import math
import os

POLICIES = ("static", "smartmoe:10", "eplb:10", "ballast", "uniform")
SPEED = {"static": 1.8, "smartmoe": 1.5, "eplb": 1.2, "ballast": 1.02, "uniform": 1.0}  # time of a step, relative


def head(policy, steps, ranks=4):
    gate, name = ("uniform", "static") if policy == "uniform" else ("naive", policy)
    words = ["ballast-train", "--ranks", str(ranks), "--data", "a file", "--steps", str(steps), "--policy", name, "--gate",
             gate, "--seed", "1"]
    return {"command": words, "program": "ballast-train 0.1",
            "config": {"model": {"layers": 4, "experts": 8}, "ranks": ranks, "slots": [3] * ranks, "steps": steps,
                       "policy": name, "gate": gate, "backend": "cpu", "first_step": 1},
            "seed": 1, "inputs": [{"what": "data", "path": "a file", "crc32": 1234}], "kernel": "own, plain"}


def step(policy, at, layers):
    """One line; times and imbalances are SPEED's, with a slow first step and a slow wave."""
    base = policy.partition(":")[0]
    wave = 1 + 0.02 * math.sin(at / 3)
    moving = base in ("smartmoe", "eplb") and at % 10 == 1 and at > 1
    return {
        "step": at, "loss": 5.5 * math.exp(-at / 80) + 1.5 + 0.01 * math.cos(7 * at), "grad_norm": 0.9, "lr": 1e-3,
        "tokens": 1024, "step_us": SPEED[base] * wave * 40000 + (300000 if at == 1 else 0) + (8000 if moving else 0),
        "tokens_per_s": 25000.0, "mfu": None, "phases": {"expert_fwd": 9000, "dispatch": 800},
        "layers": [{"imbalance": max(1.0, SPEED[base] * (1 + 0.1 * k / layers) * wave), "copies": 3 * (base == "ballast"),
                    "moved": 5 * moving, "late": base == "ballast" and at % 17 == 0} for k in range(layers)],
        "moved_bytes": 5 * layers * 6_300_000 * moving, "fill_bytes": 12_000_000 * (base == "ballast"), "plan_version": at // 10}


def run_log(policy, steps=60, layers=4, ranks=4):
    lines = [head(policy, steps, ranks)] + [step(policy, at, layers) for at in range(1, steps + 1)]
    return "".join(json.dumps(line) + "\n" for line in lines)


def loads_csv(steps=60, layers=4, experts=8, ranks=2):
    """Popularity that drifts from expert to expert."""
    lines = ["step,layer,rank,micro_batch," + ",".join(f"e{e}" for e in range(experts))]
    for at in range(1, steps + 1):
        for layer in range(layers):
            weights = [math.exp(-((e - layer - at * experts / steps / 2) % experts) / 1.5) for e in range(experts)]
            for rank in range(ranks):
                counts = [int(512 * w / sum(weights)) for w in weights]
                lines.append(f"{at},{layer},{rank},0," + ",".join(map(str, counts)))
    return "\n".join(lines) + "\n"


def simulated(policy, steps=60, layers=4, measured=True):
    """A prediction a tenth below what the run's log says."""
    rows = [{"iteration": at, "step_us": 0.9 * us, **({"measured_us": us} if measured else {})}
            for at in range(1, steps + 1) for us in [step(policy, at, layers)["step_us"]]]
    return json.dumps({"steps": steps, "step_us_median": rows[steps // 2]["step_us"], "phases": {}, "iterations": rows})


def folder(root, steps=60):
    """A folder of one run a policy, predictions of two and an exported trace; returns root."""
    os.makedirs(root, exist_ok=True)
    for policy in POLICIES:
        with open(os.path.join(root, policy.replace(":", "_") + ".jsonl"), "w", encoding="utf-8") as file:
            file.write(run_log(policy, steps))
    for policy in ("static", "ballast"):
        with open(os.path.join(root, f"{policy}.simulate.json"), "w", encoding="utf-8") as file:
            file.write(simulated(policy, steps))
    with open(os.path.join(root, "even.simulate.json"), "w", encoding="utf-8") as file:
        file.write(simulated("uniform", steps, measured=False))
    with open(os.path.join(root, "load.csv"), "w", encoding="utf-8") as file:
        file.write(loads_csv(steps))
    return root
