"""Second, naive implementations of what ballast-plan computes, written from the rules alone."""
import itertools

import numpy as np


def rank_loads(home, copies, loads, ranks):
    """Tokens on each rank: copies [(expert, rank, share)] take their share, homes the rest."""
    out = [0.0] * ranks
    for e, load in enumerate(loads):
        taken = 0.0
        for expert, rank, share in copies:
            if expert == e:
                out[rank] += share * load
                taken += share
        out[home[e]] += load * (1 - taken)
    return out


def imbalance(home, copies, loads, ranks):
    total = float(sum(loads))
    return max(rank_loads(home, copies, loads, ranks)) / (total / ranks) if total > 0 else 1.0


def best_imbalance(home, copies, loads, ranks):
    """With the best shares: the largest over sets of ranks of (load that only they can host) / (their number)."""
    hosts = [1 << h for h in home]
    for expert, rank in copies:
        hosts[expert] |= 1 << rank
    inside = np.zeros(1 << ranks)
    for e, load in enumerate(loads):
        inside[hosts[e]] += load
    for r in range(ranks):  # sums over subsets
        sets = np.arange(1 << ranks)
        inside[sets[sets >> r & 1 == 1]] += inside[sets[sets >> r & 1 == 1] ^ (1 << r)]
    sizes = np.array([bin(s).count("1") for s in range(1 << ranks)])
    return float((inside[1:] / sizes[1:]).max() / (sum(loads) / ranks))


def smartmoe(home, loads, ranks, order):
    """Longest first onto the least loaded rank with a free home; adopted where the largest load falls."""
    cap = -(-len(loads) // ranks)
    now = [0.0] * ranks
    for e, load in enumerate(loads):
        now[home[e]] += load
    sums, used, new = [0.0] * ranks, [0] * ranks, [0] * len(loads)
    for e in order:
        free = [r for r in range(ranks) if used[r] < cap]
        best = min(free, key=lambda r: (sums[r], r))
        if used[home[e]] < cap and sums[home[e]] == sums[best]:
            best = home[e]
        new[e] = best
        sums[best] += loads[e]
        used[best] += 1
    return new if max(now) > max(sums) else list(home)


def eplb(home, loads, ranks, slots):
    """Homes and {(expert, rank): share} by the published rule: replicas for the largest load per replica, then packing."""
    experts = len(loads)
    replicas = [(e, i) for i, e in enumerate(range(experts))]
    count = [1] * experts
    while len(replicas) < sum(slots):
        per_replica = [loads[e] / count[e] for e in range(experts)]
        e = per_replica.index(max(per_replica))
        replicas.append((e, len(replicas)))
        count[e] += 1
    weight = {i: loads[e] / count[e] for e, i in replicas}
    sums, held = [0.0] * ranks, [[] for _ in range(ranks)]
    for e, i in sorted(replicas, key=lambda x: (-weight[x[1]], x[1])):
        free = [r for r in range(ranks) if len(held[r]) < slots[r]]
        best = min(free, key=lambda r: (sums[r], r))
        held[best].append(e)
        sums[best] += weight[i]
    new = [home[e] if e in held[home[e]] else min(r for r in range(ranks) if e in held[r]) for e in range(experts)]
    shares = {(e, r): held[r].count(e) / count[e] for r in range(ranks) for e in held[r] if r != new[e]}
    return new, shares


def fastermoe(home, counts, bandwidth=8e9, flops=112e12, hidden=1536, alpha=2):
    """counts[rank][expert]: the experts to shadow, and the time without any."""
    compute = 4 * alpha * hidden**2 / flops
    feature = 2 * hidden / bandwidth
    model = 4 * alpha * hidden**2 * 2 / bandwidth * 4
    total = counts.sum(axis=0)
    order = sorted(range(len(home)), key=lambda e: (-total[e], e))

    def latency(n):
        x = order[n]
        extra = sum(counts[home[x]][j] for j in order[:n])
        return 3 * compute * (total[x] + extra) + 4 * feature * (total[x] - counts[home[x]][x]) + n * model

    base = latency(0)
    best, chosen = base, 0
    for n in range(1, len(home)):
        now = latency(n)
        if now >= base:
            break
        if now < best:
            best, chosen = now, n
    return order[:chosen], base


def due(steps, every):
    """Which of the recorded steps decide, from the first on."""
    out, last = [], None
    for step in steps:
        out.append(last is None or step - last >= every)
        if out[-1]:
            last = step
    return out


def contiguous(experts, ranks):
    return list(itertools.islice((e // -(-experts // ranks) for e in itertools.count()), experts))
