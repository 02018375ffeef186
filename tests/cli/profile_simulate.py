#!/usr/bin/env python3
"""ballast-profile and ballast-plan simulate end to end: files, timelines, predictions against a real run, bad input."""
import json
import os
import resource
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from train_support.tools import Check, folder, must, read_log, run, write_model, write_text  # noqa: E402

check = Check()
WORK = "attention_fwd attention_bwd gate_fwd gate_bwd scatter gather head expert_fwd expert_dx expert_dw".split()


def refused(code, part, program, *arguments):
    found, out, err = run(program, *arguments, timeout=60)
    check(found == code and part in err and err.startswith(program + ": ") and err.count("\n") == 1 and out == "",
          f"{program} {' '.join(map(str, arguments))}: exit {found}, expected {code} with \"{part}\": {err!r} {out[:80]!r}")


def load(path):
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def simulate(*arguments):
    return json.loads(must("ballast-plan", "simulate", *arguments, "--json"))


def profile_file(tmp, model):
    path = os.path.join(tmp, "profile.json")
    table = must("ballast-profile", "--ranks", 2, "--model", model, "--samples", 5, "--clock", "cpu", "-o", path)
    profile = load(path)
    check("held-out error" in table and "GFLOP/s" in table, "the table says how far off the curves are")
    check(profile["ranks"] == 2 and profile["backend"] == "cpu" and not profile["overlap"], "what was measured with what")
    for name in WORK + ["exchange", "transfer", "accumulate", "all_reduce", "optimizer"]:
        curve = profile["curves"][name]
        x, us = curve["amounts"], curve["times_us"]
        check(len(x) == len(us) >= 4 and x == sorted(x) and min(us) > 0, f"{name}: {curve}")
        check(us[-1] > us[0], f"{name} grows: {us}")
    check("ffn_fwd" not in profile["curves"], "a model without dense layers has no curve of them")
    alone = os.path.join(tmp, "alone.json")
    must("ballast-profile", "--model", model, "--samples", 1, "-o", alone)
    s = simulate("--ranks", 1, "--policy", "static", "--model", model, "--profile", alone)
    check(s["wait_us"] == 0 and "all_reduce" not in load(alone)["curves"], "one rank waits for nobody")
    return path


def real_run(tmp, model, data, *arguments):
    log, trace = os.path.join(tmp, "run.jsonl"), os.path.join(tmp, "run.blt")

    def used():
        times = resource.getrusage(resource.RUSAGE_CHILDREN)
        return times.ru_utime + times.ru_stime

    start = used()
    must("ballast-train", "--model", model, "--data", data, "--steps", 4, *arguments)
    middle = used()
    must("ballast-train", "--model", model, "--data", data, "--steps", 24, *arguments, "--log", log, "--record-trace", trace)
    return log, trace, ((used() - middle) - (middle - start)) * 1e6 / 20


def against_a_run(tmp, profile, model, data):
    """Predicted work of a rank against its processor time in a real run, whatever else the machine does."""
    for policy in ("static", "ballast"):
        shape = ("--ranks", 2, "--batch", 8, "--micro-batches", 2, "--policy", policy)
        for own in (profile, f"{tmp}/again.json", f"{tmp}/again.json"):  # profile and run may have met a different machine
            if own != profile:
                must("ballast-profile", "--ranks", 2, "--model", model, "--samples", 5, "--clock", "cpu", "-o", own)
            log, trace, cpu_us = real_run(tmp, model, data, *shape)
            s = simulate(*shape, "--model", model, "--profile", own, "--trace", trace, "--log", log, "--steps", "5:24")
            ratio = s["compute_us"] / (cpu_us / 2)
            if 0.5 < ratio < 1.5:
                break
        print(f"{policy}: a rank computes {s['compute_us']:.0f} us a step on paper, {cpu_us / 2:.0f} us in the run ({ratio:.2f})")
        check(0.5 < ratio < 1.5, f"{policy}: predicted {s['compute_us']}, measured {cpu_us / 2}")
        check(s["steps"] == 20 and len(s["iterations"]) == 20, "one row a step")
        check(all(r["measured_us"] > 0 for r in s["iterations"]), "each with its measurement")
        measured = {name for row in read_log(log)[1] for name, us in row["phases"].items() if us > 0}
        check(set(s["phases"]) <= measured | {"choose_hosts", "solve_shares", "copy_fill", "copy_reduce"},
              f"phases are those of the run log: {set(s['phases']) - measured}")
        check(("copy_fill" in s["phases"]) == (policy == "ballast"), f"{policy}: copies cost fills")
        check(s["step_us_mean"] >= s["compute_us"] and s["exposed_us"] >= s["wait_us"] >= 0, "parts fit into the whole")
    refused(1, "has no step", "ballast-plan", "simulate", *shape, "--model", model, "--profile", profile, "--trace", trace,
            "--log", os.devnull)
    return trace


def timeline(tmp, profile, model):
    """Slices of a track follow one another, a process a rank, and end when the step ends."""
    path = os.path.join(tmp, "timeline.json")
    s = simulate("--ranks", 2, "--policy", "static", "--model", model, "--profile", profile, "--perfetto", path)
    slices = [e for e in load(path)["traceEvents"] if e["ph"] == "X"]
    check({e["pid"] for e in slices} == {0, 1}, "a process a rank")
    end = max(e["ts"] + e["dur"] for e in slices)
    check(abs(end - s["step_us_mean"]) <= 1e-3 + 1e-6 * end, f"{end} is the step of {s['step_us_mean']}")
    for rank in (0, 1):
        row = sorted((e["ts"], e["ts"] + e["dur"]) for e in slices if e["pid"] == rank)
        check(all(a[1] <= b[0] + 0.01 for a, b in zip(row, row[1:])), f"rank {rank} does one thing at a time")


def measured(tmp, profile, model, data):
    """The last step of a run, laid over its prediction: two processes a rank, the same actions in both."""
    log, trace, times, both = (os.path.join(tmp, name) for name in ("m.jsonl", "m.blt", "m.json", "both.json"))
    shape = ("--ranks", 2, "--batch", 8, "--micro-batches", 2, "--policy", "ballast")
    must("ballast-train", "--model", model, "--data", data, "--steps", 3, *shape, "--log", log, "--record-trace", trace,
         "--perfetto", times)
    alone = load(times)
    slices = [e for e in alone["traceEvents"] if e["ph"] == "X"]
    check(alone["step"] == 3 and {e["pid"] for e in slices} == {0, 1}, "the last step of all ranks")
    of_rank = [e for e in slices if e["pid"] == 0]
    row = read_log(log)[1][2]
    for name, us in row["phases"].items():
        seen = sum(e["dur"] for e in of_rank if e["name"] == name)
        check(us <= seen + 1e-3 < us + 1.1, f"{name}: {us} us in the log, {seen} in the timeline")
    ordered = sorted((e["ts"], e["ts"] + e["dur"]) for e in of_rank)
    check(all(a[1] <= b[0] + 0.01 for a, b in zip(ordered, ordered[1:])), "actions follow one another")
    common = ("simulate", *shape, "--model", model, "--profile", profile, "--trace", trace)
    must("ballast-plan", *common, "--perfetto", both, "--measured", times)
    names = {e["args"]["name"] for e in load(both)["traceEvents"] if e["name"] == "process_name"}
    check(names == {f"rank {r} {what}" for r in (0, 1) for what in ("predicted", "measured")}, f"processes: {names}")
    laid = [e for e in load(both)["traceEvents"] if e["ph"] == "X"]
    mine = sorted((e["name"], e["ts"], e["dur"]) for e in laid if e["pid"] in (1, 3))
    check(mine == sorted((e["name"], e["ts"], e["dur"]) for e in slices), "what was measured is drawn as it was")
    check({e["name"] for e in laid if e["pid"] == 0} - {"wait"} >= {"expert_fwd", "attention_bwd", "optimizer"}, "beside the prediction")
    refused(1, "not among those simulated", "ballast-plan", *common, "--steps", "1:2", "--perfetto", both, "--measured", times)
    refused(1, "expected an action of the program", "ballast-plan", "simulate", *shape[:4], "--policy", "static", "--model", model,
            "--profile", profile, "--perfetto", both, "--measured", times)
    refused(2, "--measured needs", "ballast-plan", *common, "--measured", times)
    check(row["mfu"] is None and read_log(log)[0]["mfu"]["convention"] == "mcore", "no peak of this processor is known")
    must("ballast-train", "--model", model, "--data", data, "--steps", 1, *shape, "--log", log, "--peak-tflops", 0.5, "--mfu", "aiperf")
    header, (row,) = read_log(log)
    utilisation = header["mfu"]["flop_per_token"] * row["tokens"] / (row["step_us"] * 1e-6 * 0.5e12)
    check(abs(row["mfu"] / utilisation - 1) < 1e-6 and header["mfu"]["peak_tflops"] == 0.5, f"{row['mfu']}, by hand {utilisation}")


def plans(tmp, profile, model):
    """A placement with copies balances a skewed trace, which shows in the prediction."""
    trace, plan = os.path.join(tmp, "skewed.blt"), os.path.join(tmp, "plan.json")
    must("ballast-trace", "gen", "--layers", 2, "--experts", 4, "--ranks", 2, "--micro-batches", 1, "--steps", 1, "--tokens",
         4096, "--top-share", 0.49, "-o", trace)
    must("ballast-plan", "place", "--trace", trace, "--ranks", 2, "--slots", 3, "-o", plan)
    common = ("--model", model, "--profile", profile, "--trace", trace, "--batch", 32)
    placed, static = simulate("--plan", plan, *common), simulate("--ranks", 2, "--policy", "static", *common)
    check(placed["wait_us"] < 0.2 * static["wait_us"], f"waiting {placed['wait_us']} against {static['wait_us']}")
    even = ("--model", model, "--profile", profile)
    with_copies, without = simulate("--plan", plan, *even), simulate("--ranks", 2, "--policy", "static", *even)
    check(with_copies["memory_bytes"] > without["memory_bytes"], "copies take memory")
    check(with_copies["step_us_mean"] > without["step_us_mean"], "copies that nobody needs cost fills")
    refused(2, "--ranks 3", "ballast-plan", "simulate", "--plan", plan, "--ranks", 3, *common)


CLUSTER = {"version": 1, "name": "8 x 8", "nodes": 8, "ranks_per_node": 8,
           "device": {"name": "H100", "tflops": 989, "num_bytes": 2, "memory_bytes": 80e9, "memory_gbps": 3350, "efficiency": 0.5,
                      "call_us": 8, "source": "data sheet"},
           "links": {"intra": {"gbps": 450, "latency_us": 6, "source": "data sheet"},
                     "inter": {"gbps": 50, "latency_us": 15, "source": "data sheet"}}}


def clusters(tmp):
    """64 ranks of a data sheet: sums that can be done by hand, links between nodes, copies against skew."""
    path, model, trace = (os.path.join(tmp, name) for name in ("cluster.json", "large.json", "large.blt"))
    with open(path, "w", encoding="ascii") as file:
        json.dump(CLUSTER, file)
    H, F, S, V = 2048, 4096, 2048, 32000
    write_model(model, hidden=H, sequence=S, vocabulary=V, attention__heads=16, attention__head_width=128, moe__experts=128,
                moe__width=F, moe__top_k=2)
    must("ballast-trace", "gen", "--layers", 2, "--experts", 128, "--ranks", 64, "--micro-batches", 1, "--steps", 1, "--tokens",
         S, "--zipf", 1.0, "-o", trace)
    trace16 = os.path.join(tmp, "sixteen.blt")
    must("ballast-trace", "gen", "--layers", 2, "--experts", 128, "--ranks", 16, "--micro-batches", 1, "--steps", 1, "--tokens", S, "-o", trace16)
    common = ("--model", model, "--cluster", path, "--batch", 64, "--ranks", 64)
    even, skewed = simulate(*common, "--policy", "static"), simulate(*common, "--policy", "static", "--trace", trace)
    fast = 989e6 * 0.5  # operations in a microsecond
    head = 8 + S * 6 * V * H / fast
    check(abs(even["phases"]["head"] / head - 1) < 1e-6, f"head {even['phases']['head']}, by hand {head}")
    experts = 2 * 2 * (S * 2 // 2) * 4 * H * F / fast  # 2 layers, 2 experts a rank, 2 flop for 2 H F weights
    check(abs(even["phases"]["expert_fwd"] / experts - 1) < 1e-6, f"experts {even['phases']['expert_fwd']}, by hand {experts}")
    sent = S * 2 * H * 2
    exchange = 2 * (15 + sent * (56 / 64) / 50e3)
    check(abs(even["phases"]["dispatch"] / exchange - 1) < 1e-3, f"dispatch {even['phases']['dispatch']}, by hand {exchange}")
    check(skewed["step_us_mean"] > 1.2 * even["step_us_mean"], "skew costs")
    plan = os.path.join(tmp, "large_plan.json")
    must("ballast-plan", "place", "--trace", trace, "--ranks", 64, "--slots", 3, "-o", plan)
    placed, gain = None, []
    for micro_batches in (1, 32):
        shape = ("--model", model, "--cluster", path, "--batch", 64 * micro_batches, "--micro-batches", micro_batches,
                 "--trace", trace)
        placed = simulate(*shape, "--plan", plan)
        gain.append(simulate(*shape, "--ranks", 64, "--policy", "static")["step_us_mean"] / placed["step_us_mean"])
    print(f"copies on 64 ranks: a step {gain[0]:.2f} x as fast with one micro-batch, {gain[1]:.2f} x with 32")
    check(gain[1] > 1.5 and gain[1] > gain[0], f"copies pay when fills are spread over micro-batches: {gain}")
    check(placed["exposed_us"] < sum(us for name, us in placed["phases"].items() if name in (
        "dispatch", "combine", "combine_bwd", "dispatch_bwd", "copy_fill", "copy_reduce", "dense_reduce", "grad_norm",
        "exchange_counts")), "some of the communication is hidden")
    refused(1, "fewer than 128", "ballast-plan", "simulate", "--model", model, "--cluster", path, "--ranks", 128, "--batch", 128)
    refused(2, "one of --profile and --cluster", "ballast-plan", "simulate", "--ranks", 2)
    layout = {"tp": 1, "cp": 1, "dp": 16, "pp": 1, "vp": 1, "etp": 1, "ep": 16, "edp": 1, "zero": 0, "micro_batch": 1, "micro_batches": 1,
              "stages": [[0, 1]]}
    few, narrow = os.path.join(tmp, "few_a_node.json"), os.path.join(tmp, "narrow.json")
    with open(narrow, "w", encoding="ascii") as file:
        json.dump({**CLUSTER, "ranks_per_node": 2}, file)
    took = {}
    for used, cluster in ((0, path), (2, path), (0, narrow), (9, path)):  # a plan's ranks of a node hold for a plain layout too
        with open(few, "w", encoding="ascii") as file:
            json.dump({"version": 1, "layout": {**layout, **({"ranks_per_node": used} if used else {})}}, file)
        command = ("--plan", few, "--model", model, "--cluster", cluster, "--trace", trace16)
        if used == 9:
            refused(1, "layout.ranks_per_node = 9, but a node of", "ballast-plan", "simulate", *command)
        else:
            took[used, cluster] = simulate(*command)["step_us_mean"]
    check(took[2, path] == took[0, narrow] != took[0, path], f"a plan's ranks of a node: {took}")
    for key in ("device", "links", "nodes"):
        with open(path, "w", encoding="ascii") as file:
            json.dump({k: v for k, v in CLUSTER.items() if k != key}, file)
        refused(1, key, "ballast-plan", "simulate", "--model", model, "--cluster", path, "--ranks", 64, "--batch", 64)


def late_repair(tmp, profile, model):
    """A trace that jumps every step: hosts from the step before are wrong, late repair fills copies on the critical path."""
    trace = os.path.join(tmp, "jumps.blt")
    must("ballast-trace", "gen", "--layers", 2, "--experts", 4, "--ranks", 2, "--micro-batches", 1, "--steps", 30, "--tokens", 2048,
         "--top-share", 0.45, "--jumps", 0.9, "-o", trace)
    common = ("--model", model, "--profile", profile, "--trace", trace, "--batch", 16, "--ranks", 2, "--policy", "ballast")
    without, repaired = simulate(*common), simulate(*common, "--late-repair", 1.02)
    check("late_fill" not in without["phases"] and repaired["phases"].get("late_fill", 0) > 0, "late fills have a price")
    check(repaired["wait_us"] < without["wait_us"], f"and spare waiting: {repaired['wait_us']} against {without['wait_us']}")


def bad_input(tmp, profile, model, trace):
    simulate_with = ("ballast-plan", "simulate", "--ranks", 2, "--policy", "static")
    refused(2, "--profile and --cluster", *simulate_with)
    refused(2, "--ranks", "ballast-plan", "simulate", "--profile", profile)
    refused(1, "nothing.json", *simulate_with, "--profile", os.path.join(tmp, "nothing.json"))
    refused(1, "hidden", *simulate_with, "--profile", profile)
    refused(2, "--batch 7", *simulate_with, "--profile", profile, "--model", model, "--batch", 7)
    refused(2, "--log needs --trace", *simulate_with, "--profile", profile, "--model", model, "--log", profile)
    refused(1, "in the chosen range", *simulate_with, "--profile", profile, "--model", model, "--trace", trace, "--steps", "900:")
    other = os.path.join(tmp, "other.blt")
    must("ballast-trace", "gen", "--layers", 2, "--experts", 6, "--ranks", 2, "--steps", 1, "-o", other)
    refused(1, "6 experts", *simulate_with, "--profile", profile, "--model", model, "--trace", other)
    for name, change in (("cut", lambda text: text[:len(text) // 2]), ("key", lambda text: text.replace('"ranks"', '"rank"')),
                         ("order", lambda text: text.replace('"amounts": [', '"amounts": [1e9, ', 1)),
                         ("negative", lambda text: text.replace('"times_us": [', '"times_us": [-', 1))):
        path = os.path.join(tmp, f"{name}.json")
        with open(profile, encoding="utf-8") as source, open(path, "w", encoding="utf-8") as target:
            target.write(change(source.read()))
        refused(1, f"{name}.json", *simulate_with, "--profile", path, "--model", model)
    missing = load(profile)
    del missing["curves"]["head"]
    path = os.path.join(tmp, "missing.json")
    with open(path, "w", encoding="utf-8") as file:
        json.dump(missing, file)
    refused(1, "no curve head", *simulate_with, "--profile", path, "--model", model)
    refused(2, "--ranks", "ballast-profile", "--ranks", 0, "-o", path)
    refused(2, "--output", "ballast-profile")
    refused(1, "nothing.json", "ballast-profile", "--model", os.path.join(tmp, "nothing.json"), "-o", path)


def main():
    with folder() as tmp:
        model = write_model(os.path.join(tmp, "model.json"), hidden=128, sequence=64, attention__heads=4, attention__head_width=32,
                            moe__experts=4, moe__width=256)
        data = write_text(os.path.join(tmp, "words.txt"))
        profile = profile_file(tmp, model)
        trace = against_a_run(tmp, profile, model, data)
        timeline(tmp, profile, model)
        measured(tmp, profile, model, data)
        plans(tmp, profile, model)
        late_repair(tmp, profile, model)
        clusters(tmp)
        bad_input(tmp, profile, model, trace)
    return check.end()


if __name__ == "__main__":
    sys.exit(main())
