#!/usr/bin/env python3
"""place --cluster: the price recomputed from the plan file by a second implementation, bounds, bad input, explain."""
import json
import math
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import numpy as np  # noqa: E402

from plan_support.tools import Check, folder, made_up, must, run, write_trace  # noqa: E402

check = Check()


def cluster_file(path, nodes, per_node, intra, inter, memory=80e9, per_card=1, racks=None):
    """per_node: ranks of every node, or a list of (nodes, ranks a node, speed)."""
    link = {"gbps": intra[0], "latency_us": intra[1], "source": "made up"}
    far = {"gbps": inter[0], "latency_us": inter[1], "source": "made up"}
    device = {"name": "made up", "tflops": 100, "num_bytes": 2, "memory_bytes": memory, "memory_gbps": 1000,
              "efficiency": 0.5, "call_us": 5, "source": "made up"}
    text = {"version": 1, "name": "made up", "ranks_per_card": per_card, "device": device,
            "links": {"intra": link, "inter": far}}
    if racks:
        text["links"]["racks"] = {"nodes": racks[0], "gbps": racks[1], "latency_us": racks[2], "source": "made up"}
    if isinstance(per_node, list):
        text["node_groups"] = [{"nodes": n, "ranks_per_node": ranks, "device": {**device, "tflops": 100 * speed,
                                "memory_bytes": memory * speed}} for n, ranks, speed in per_node]
    else:
        text["nodes"], text["ranks_per_node"] = nodes, per_node
    path.write_text(json.dumps(text))
    return path


def model_file(path, experts, hidden=512, width=256, top_k=2):
    text = json.loads(Path("costmodel/models/qwen3-30b-a3b.json").read_text())
    text["hidden"] = hidden
    text["moe"].update({"experts": experts, "top_k": top_k, "width": width})
    path.write_text(json.dumps(text))
    return path


def machine(cluster, model, rows, rack=None):
    """Bytes and rates from the two files, by the formulas that the documents state."""
    c, m = json.loads(cluster.read_text()), json.loads(model.read_text())
    device, hidden, width = c["device"], m["hidden"], m["moe"]["width"]
    parameters = 3 * hidden * width  # a gated expert without biases
    flop_us = 2 * parameters / (device["tflops"] * device["efficiency"] * 1e6)
    least = [parameters * 2 / device["memory_gbps"] * 1e-3] * 2 + [parameters * 8 / device["memory_gbps"] * 1e-3]
    rows = max(rows, 1)
    token = sum(max(flop_us * rows, floor) / rows for floor in least)
    groups = c.get("node_groups") or [{"nodes": c["nodes"], "ranks_per_node": c["ranks_per_node"]}]
    sizes = [g["ranks_per_node"] for g in groups for _ in range(g["nodes"])]
    node = [i for i, size in enumerate(sizes) for _ in range(size)]  # of each rank
    levels = [(node, c["links"]["intra"]["gbps"], c["links"]["intra"]["latency_us"]),
              ([0] * len(node), c["links"]["inter"]["gbps"], c["links"]["inter"]["latency_us"])]
    if rack:
        levels[1] = ([n // rack[0] for n in node], *levels[1][1:])
        levels.append(([0] * len(node), rack[1], rack[2]))
    return {"token_us": token, "row": hidden * 2, "fill": parameters * 2, "reduce": parameters * 4,
            "state": parameters * 14, "levels": levels, "cards": [1, c["ranks_per_card"], 1]}


def profile_file(path, model, transfer=(3.0, 2e-4)):
    """A measured profile with the curves that a placement's price needs; microseconds of expert rows by their number."""
    m = json.loads(model.read_text())
    shape = {"hidden": m["hidden"], "vocabulary": m["vocabulary"], "sequence": m["sequence"],
             "heads": m["attention"]["heads"], "experts": m["moe"]["experts"], "top_k": m["moe"]["top_k"],
             "expert_width": m["moe"]["width"], "ffn_width": m.get("ffn", {}).get("width", 4 * m["hidden"])}
    curves = {name: {"per": "rows", "amounts": [1, 1001], "times_us": [a, a + 1000 * b]}
              for name, a, b in (("expert_fwd", 20, 0.5), ("expert_dx", 10, 0.6), ("expert_dw", 30, 0.7))}
    curves["transfer"] = {"per": "bytes", "amounts": [1, 1000001], "times_us": [transfer[0] + transfer[1],
                                                                                transfer[0] + 1000001 * transfer[1]]}
    path.write_text(json.dumps({"version": 1, "backend": "cpu", "transport": "threads", "device": "made up", "ranks": 2,
                                "overlap": False, "num_bytes": 4, "sgemm_gflops": 100, "triad_gbps": 10, "model": shape,
                                "curves": curves}))
    return path


def level_between(levels, a, b):
    if a == b:
        return 0
    return next(i + 1 for i, (size, _, _) in enumerate(levels) if size[a] == size[b])


def busiest(m, traffic, ranks):
    """traffic {(from, to): amount}: the largest over ports and directions of amount / bytes a microsecond."""
    levels = m["levels"]
    out = np.zeros((len(levels) + 1, ranks))
    into = np.zeros((len(levels) + 1, ranks))
    for (a, b), amount in traffic.items():
        top = level_between(levels, a, b)
        for level in ([] if top == 0 else [1] if top == 1 else range(2, top + 1)):
            out[level, a] += amount
            into[level, b] += amount

    def ports(amounts, sharing):
        return max(amounts[r:r + sharing].sum() / sharing for r in range(0, ranks, sharing))

    return max(max(ports(out[i + 1], m["cards"][i]), ports(into[i + 1], m["cards"][i])) / (gbps * 1e3)
               for i, (_, gbps, _) in enumerate(levels))


def exchange(levels, source, hosts, ranks):
    """One expert: source[rank] tokens onto hosts {rank: tokens}, nearest first, in proportion inside a group."""
    left, room, traffic = np.array(source, float), np.zeros(ranks), {}
    for rank, tokens in hosts.items():
        room[rank] = tokens
    for level in range(len(levels) + 1):
        group_of = range(ranks) if level == 0 else levels[level - 1][0]
        for group in {group_of[r] for r in hosts}:
            members = [r for r in range(ranks) if group_of[r] == group]
            have, take = left[members].sum(), room[members].sum()
            moved = min(have, take)
            if moved <= 1e-12:
                continue
            for a in members:
                for b in members:
                    amount = moved * left[a] / have * room[b] / take
                    if amount > 0 and a != b:
                        traffic[a, b] = traffic.get((a, b), 0) + amount
            left[members] *= 1 - moved / have
            room[members] *= 1 - moved / take
    return traffic


def price(layer, counts, m, ranks, micro_batches, horizon, speeds, old_home):
    """counts[sources][experts] of a mean micro-batch."""
    sources, experts = counts.shape
    per_rank = np.zeros((ranks, experts))
    for r in range(ranks):
        for s in range(sources):
            common = min((r + 1) / ranks, (s + 1) / sources) - max(r / ranks, s / sources)
            per_rank[r] += counts[s] * max(common, 0) * sources
    home, levels = layer["home"], m["levels"]
    load, sent = np.zeros(ranks), {}
    for e in range(experts):
        total = per_rank[:, e].sum()
        hosts = {c["rank"]: c["share"] * total for c in layer["copies"] if c["expert"] == e}
        hosts[home[e]] = max(total - sum(hosts.values()), 0)
        for rank, tokens in hosts.items():
            load[rank] += tokens
        # Level by level with (a, b) merged would lose which level was used; edges say it themselves.
        for edge, amount in exchange(levels, per_rank[:, e], hosts, ranks).items():
            sent[edge] = sent.get(edge, 0) + amount
    out = {"compute_us": micro_batches * m["token_us"] * max(load / speeds)}
    far = max([level_between(levels, a, b) for (a, b), amount in sent.items() if amount > 1e-9] or [0])
    out["exchange_us"] = micro_batches * 4 * (m["row"] * busiest(m, sent, ranks) + (levels[far - 1][2] if far else 0))
    edges, way = {}, {}
    feeder = {(c["expert"], c["rank"]): c.get("from", home[c["expert"]]) for c in layer["copies"]}
    for expert, rank in feeder:
        edges[feeder[expert, rank], rank] = edges.get((feeder[expert, rank], rank), 0) + 1
        at, us = rank, 0
        while at != home[expert]:
            us += levels[level_between(levels, at, feeder[expert, at]) - 1][2]
            at = feeder[expert, at]
        way[expert, rank] = us
    for term in ("fill", "reduce"):
        out[term + "_us"] = m[term] * busiest(m, edges, ranks) + max(way.values()) if edges else 0
    moves = {}
    for e in range(experts):
        if home[e] != old_home[e]:
            moves[old_home[e], home[e]] = moves.get((old_home[e], home[e]), 0) + 1
    latency = max([levels[level_between(levels, a, b) - 1][2] for a, b in moves] or [0])
    out["move_us"] = (m["state"] * busiest(m, moves, ranks) + latency) / horizon if moves else 0
    return out


def test_recomputed():
    cases = [  # experts, ranks, sources, nodes x ranks, rack, speeds, slots, homes, relay, micro-batches, horizon; the
        # first and the last case have a network card for two ranks
        (16, 8, 8, 2, 4, None, None, None, "cost", "direct", 3, 50),
        (16, 8, 4, 4, 2, (2, 2, 30), None, 4, "cost", "best", 1, 1000),
        (24, 12, 12, 3, 4, None, [1, 0.5, 2], "3,3,4,3,3,4,3,3,4,3,3,4", "free", "direct", 2, 10),
        (12, 6, 3, 1, 8, None, [1, 2], 4, "fixed", "best", 8, 10),
        (32, 16, 4, 4, 4, (2, 5, 40), None, 3, "free", "best", 64, 10),
        # Nodes that are not alike: (nodes, ranks a node, speed) of each group.
        (20, 10, 10, 0, [(2, 4, 1), (1, 2, 0.5)], None, None, None, "cost", "direct", 2, 50),
        (24, 11, 4, 0, [(1, 4, 1), (1, 3, 0.7), (1, 4, 1)], None, None, 4, "free", "best", 8, 10),
        (32, 14, 14, 0, [(2, 4, 1), (2, 2, 1.5), (1, 4, 1)], (2, 3, 40), None, 4, "cost", "direct", 3, 100),
        (16, 7, 7, 0, [(1, 4, 1), (1, 4, 0.5)], None, [1, 2], 4, "fixed", "best", 8, 10),
    ]
    for i, (experts, ranks, sources, nodes, per_node, rack, speeds, slots, homes, relay, batches, horizon) in enumerate(cases):
        with folder() as text:
            work = Path(text)
            counts = made_up(i, steps=2, ranks=sources, layers=2, micro_batches=2, experts=experts, skew=0.4 + 0.5 * i)
            write_trace(work / "t.blt", counts)
            per_card = 2 if i in (0, 4, 5) else 1
            in_file = rack if nodes == 0 else None  # or as an option
            cluster = cluster_file(work / "c.json", nodes, per_node, (100, 3), (10, 9), per_card=per_card, racks=in_file)
            model = model_file(work / "m.json", experts)
            more = ["--rack", "{}:{}:{}".format(*rack)] if rack and not in_file else []
            more += ["--speeds", ",".join(str(speeds[r % len(speeds)]) for r in range(ranks))] if speeds else []
            more += ["--slots", slots] if slots else []
            args = ["--trace", work / "t.blt", "--ranks", ranks, "--cluster", cluster, "--model", model, "--homes", homes,
                    "--relay", relay, "--micro-batches", batches, "--horizon", horizon, "-o", work / "p.json", *more]
            must("ballast-plan", "place", *args)
            must("ballast-plan", "check", work / "p.json")
            plan = json.loads((work / "p.json").read_text())
            mean = counts.sum(axis=(0, 3)) / counts.shape[0] / counts.shape[3]  # [sources][layers][experts]
            m = machine(cluster, model, mean[:, 0].sum() / experts, rack)
            old = [e // math.ceil(experts / ranks) for e in range(experts)]
            own = [s for n, k, s in per_node for _ in range(n * k)] if nodes == 0 else [1]
            speed = np.array([(speeds or own)[r % len(speeds or own)] for r in range(ranks)])
            for layer in plan["placement"]["layers"]:
                moved_from = old if homes == "cost" else layer["home"]
                again = price(layer, mean[:, layer["layer"]], m, ranks, batches, horizon, speed, moved_from)
                for key, value in again.items():
                    check.near(layer["price"][key], value, 1e-6 * max(value, 1e-3), f"case {i} layer {layer['layer']} {key}")
                total = sum(again.values())
                check(layer["price"]["bound_us"] <= total * (1 + 1e-8), f"case {i}: bound above the price")
                check(homes != "fixed" or layer["home"] == old, f"case {i}: fixed homes moved")
            first = (work / "p.json").read_bytes()
            must("ballast-plan", "place", *args)
            check(first == (work / "p.json").read_bytes(), f"case {i}: the same arguments give the same plan")


def test_racks():
    """Racks of the file are those of the option, which goes before them; the smallest device's memory counts."""
    with folder() as text:
        work = Path(text)
        write_trace(work / "t.blt", made_up(9, steps=1, ranks=8, layers=1, micro_batches=1, experts=16))
        model = model_file(work / "m.json", 16)

        def placed(racks, *more):
            cluster = cluster_file(work / "c.json", 4, 2, (100, 3), (10, 9), racks=racks)
            must("ballast-plan", "place", "--trace", work / "t.blt", "--ranks", 8, "--cluster", cluster, "--model", model,
                 "-o", work / "p.json", *more)
            return (work / "p.json").read_bytes()

        check(placed((2, 0.5, 40)) == placed(None, "--rack", "2:0.5:40") != placed(None), "racks of the file")
        check(placed((2, 0.5, 40), "--rack", "2:9:10") == placed(None, "--rack", "2:9:10"), "the option goes first")
        cluster = cluster_file(work / "c.json", 0, [(1, 4, 1), (1, 4, 0.5)], (100, 3), (10, 9), memory=0.02e9)
        got, _, err = run("ballast-plan", "place", "--trace", work / "t.blt", "--ranks", 8, "--cluster", cluster, "--model",
                          model, "--slots", 3)
        check(got == 1 and "memory of rank 4" in err and "0.010 GB there are" in err, f"{got} {err}")


def test_profile():
    """Measured times in place of a data sheet: with a cluster's links, and alone."""
    with folder() as text:
        work = Path(text)
        counts = made_up(3, steps=1, ranks=4, layers=1, micro_batches=1, experts=8)
        write_trace(work / "t.blt", counts)
        model = model_file(work / "m.json", 8)
        cluster = cluster_file(work / "c.json", 2, 2, (100, 3), (10, 9))
        profile = profile_file(work / "r.json", model)
        mean = counts[0, :, 0, 0]
        rows = mean.sum() / 8
        token = (60 + 1.8 * (rows - 1)) / rows
        parameters = 3 * 512 * 256
        measured = {"token_us": token, "row": 512 * 4, "fill": parameters * 4, "reduce": parameters * 4,
                    "state": parameters * 12, "cards": [1, 1, 1]}
        links = machine(cluster, model, rows)["levels"]
        for more, levels in ((["--cluster", cluster], links), ([], [([0] * 64, 1e-3 / 2e-4, 3.0)])):
            must("ballast-plan", "place", "--trace", work / "t.blt", "--ranks", 4, "--model", model, "--profile", profile,
                 "--homes", "free", "-o", work / "p.json", *more)
            layer = json.loads((work / "p.json").read_text())["placement"]["layers"][0]
            again = price(layer, mean, dict(measured, levels=levels), 4, 1, 1000, np.ones(4), layer["home"])
            for key, value in again.items():
                check.near(layer["price"][key], value, 1e-6 * max(value, 1e-3), f"profile, {len(levels)} levels, {key}")
        text = json.loads(profile.read_text())
        del text["curves"]["expert_dw"]
        profile.write_text(json.dumps(text))
        got, _, err = run("ballast-plan", "place", "--trace", work / "t.blt", "--ranks", 4, "--model", model, "--profile",
                          profile)
        check(got == 1 and "no curve expert_dw" in err, f"a profile without a curve: exit {got}: {err}")


def test_choices():
    """What is dear is avoided: copies where a step is short, moves where the horizon is."""
    with folder() as text:
        work = Path(text)
        write_trace(work / "t.blt", made_up(5, steps=2, ranks=8, layers=1, micro_batches=1, experts=32, skew=1.5))
        base = ["--trace", work / "t.blt", "--ranks", 8, "--model", model_file(work / "m.json", 32), "--cluster",
                cluster_file(work / "c.json", 2, 4, (1000, 3), (100, 9)), "--json"]

        def placed(*more):
            return json.loads(must("ballast-plan", "place", *base, *more))

        stay = ["--homes", "fixed", "--micro-batches"]
        once, often = placed(*stay, 1, "--tokens", 10), placed(*stay, 1000)
        check(once["layers"][0]["copies"] < often["layers"][0]["copies"], f"copies for a short step, {once['layers'][0]['copies']}, and a long one, {often['layers'][0]['copies']}")
        check(often["imbalance"] < once["imbalance"], f"imbalance {often['imbalance']}, {once['imbalance']}")
        check(often["price"]["gap"] >= 0 and once["price"]["gap"] >= 0, "gaps")
        near, far = placed("--horizon", 1), placed("--horizon", 1e6)
        check(near["price"]["layers"][0]["move_us"] == 0, "no home moves for one step")
        check(far["price"]["us"] < near["price"]["us"], "moves pay over a long horizon")
        direct, best = placed("--micro-batches", 20), placed("--micro-batches", 20, "--relay", "best")
        check(best["price"]["us"] <= direct["price"]["us"] * 1.02, "relays are no dearer")
        half, whole = placed("--tokens", 100), placed("--tokens", 1000)
        ratio = whole["price"]["layers"][0]["compute_us"] / half["price"]["layers"][0]["compute_us"]
        check(1.2 < ratio <= 10.5, f"ten times the tokens: {ratio}")
        plan = work / "p.json"
        must("ballast-plan", "place", *base, "-o", plan)
        again = placed("--from", plan, "--horizon", 1)
        check(again["price"]["layers"][0]["move_us"] == 0, "what is in force stays")
        words = must("ballast-plan", "explain", plan, "--layer", 0)
        for part in ("the placed layers take", "What limits it: ", "compute", "exchange: busiest is rank", "takes longest", "could be won"):
            check(part in words, f"explain says: {part}")


def test_proof():
    """More seconds raise the bound of the same placement; the plan says how it was proved and why a gap is left."""
    with folder() as text:
        work = Path(text)
        counts = made_up(7, steps=1, ranks=8, layers=2, micro_batches=1, experts=16, skew=0.8)
        for r in range(8):  # sources that are not alike
            counts[:, r] = np.roll(counts[:, r], 2 * r, axis=-1)
        write_trace(work / "t.blt", counts)
        base = ["--trace", work / "t.blt", "--ranks", 8, "--model", model_file(work / "m.json", 16), "--cluster",
                cluster_file(work / "c.json", 2, 4, (100, 3), (10, 9)), "--homes", "fixed", "--micro-batches", 8]
        quick = json.loads(must("ballast-plan", "place", *base, "--json"))
        must("ballast-plan", "place", *base, "--prove", 2, "-o", work / "p.json")
        must("ballast-plan", "check", work / "p.json")
        layers = json.loads((work / "p.json").read_text())["placement"]["layers"]
        for before, layer in zip(quick["price"]["layers"], layers):
            price = layer["price"]
            total = sum(price[f"{term}_us"] for term in ("compute", "exchange", "fill", "reduce", "move"))
            check(price["bound_us"] <= total, f"bound {price['bound_us']}, price {total}")
            if "reason" in price and "GLPK" in price["reason"]:
                check(price["bound_us"] == before["bound_us"], "without a solver the bound stays")
                continue
            check(price["proof"] == "columns-of-experts" and price.get("reason"), f"{price}")
            check(total - price["bound_us"] < 0.8 * (total - before["bound_us"]), f"{total}: {before['bound_us']}, {price['bound_us']}")
        check("columns-of-experts" in must("ballast-plan", "explain", work / "p.json", "--layer", 0), "explain names the proof")


def test_bad_input():
    with folder() as text:
        work = Path(text)
        write_trace(work / "t.blt", made_up(1, steps=1, ranks=4, layers=1, micro_batches=1, experts=8))
        cluster, model = cluster_file(work / "c.json", 1, 4, (100, 3), (10, 9)), model_file(work / "m.json", 8)
        base = ["place", "--trace", work / "t.blt", "--ranks", 4]
        priced = [*base, "--cluster", cluster, "--model", model, "-o", work / "p.json"]
        small = cluster_file(work / "s.json", 1, 4, (100, 3), (10, 9), memory=1e6)
        zero = json.loads(cluster.read_text())
        zero["links"]["inter"]["gbps"] = 0
        (work / "z.json").write_text(json.dumps(zero))
        for arguments, code, words in [
            ([*base, "--homes", "cost"], 2, "--cluster or --profile"),
            ([*base, "--micro-batches", 3], 2, "--cluster or --profile"),
            ([*base, "--cluster", cluster], 2, "--model"),
            ([*priced, "--policy", "static"], 2, "--policy ballast"),
            ([*priced, "--within", 2, "--prove", 1], 2, "--within"),
            ([*priced, "--slots", 9], 2, "expected numbers of 0 to 8"),
            ([*priced, "--slots", "1,1,2,2"], 1, "2 experts fewer than the 8"),
            ([*priced, "--speeds", "1,0,1,1"], 2, "expected 4 numbers above 0"),
            ([*base, "--from", work / "p.json"], 2, "--from goes with --prove"),
            ([*priced, "--rack", "2:1"], 2, "N:GBPS:US"),
            ([*priced, "--memory-gb", 0.017], 1, "slots fit"),
            ([*base, "--cluster", small, "--model", model], 1, "more than the 0.001 GB"),
            ([*base, "--cluster", work / "z.json", "--model", model], 1, "gbps"),
            ([*base, "--cluster", cluster, "--model", model_file(work / "n.json", 16)], 1, "16 experts a layer, the trace 8"),
            (["place", "--trace", work / "t.blt", "--ranks", 8, "--cluster", cluster, "--model", model], 1,
             "fewer than 8: place on that many, or give it 4 ranks more"),
        ]:
            got, out, err = run("ballast-plan", *arguments)
            check(got == code and words in err and err.count("\n") == 1, f"{arguments[3:]}: exit {got}: {err}")
            check(not (work / "p.json").exists(), "nothing is written")
        must("ballast-plan", *priced)
        good = json.loads((work / "p.json").read_text())

        def refused(change, words):
            plan = json.loads(json.dumps(good))
            change(plan)
            (work / "b.json").write_text(json.dumps(plan))
            got, _, err = run("ballast-plan", "check", work / "b.json")
            check(got == 1 and words in err, f"check, expected {words}: exit {got}: {err}")

        layer = good["placement"]["layers"][0]
        refused(lambda p: p["bound"].update(gap=0.5), "bound.gap is 0.5")
        refused(lambda p: p["bound"].update(imbalance=9), "lies above predicted.imbalance")
        refused(lambda p: p["predicted"].update(imbalance=2), "expected that of the worst layer")
        refused(lambda p: p["placement"]["layers"][0].update(bound=9), "lies above the imbalance")
        refused(lambda p: p["placement"]["layers"][0]["price"].update(bound_us=1e9), "the bound of its price")
        refused(lambda p: p["placement"].update(slots=9), "9 slots: expected 0 to 8")
        refused(lambda p: p["placement"]["layers"][0]["price"].update(slowest_rank=4), "slowest_rank")
        refused(lambda p: p["placement"]["layers"][0]["price"].update(fill_port=[1, 0, "up"]), "\"in\" or \"out\"")
        ring = [{"expert": 0, "rank": r, "share": 0.2, "from": f} for r, f in ((1, 2), (2, 1))]
        refused(lambda p: (p["placement"].update(slots=8), p["placement"]["layers"][0].update(
            home=[0, 0, 0, 0, 3, 3, 3, 3], copies=ring)), "is not filled from its home")
        check(layer["price"]["bound_us"] > 0, "a bound")


test_recomputed()
test_racks()
test_profile()
test_choices()
test_proof()
test_bad_input()
sys.exit(check.end())
