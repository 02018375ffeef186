"""EPLB's published rule in PyTorch, in its global form: the replicas of all layers are counted together in tensors, then every
layer's replicas are packed one by one, with the ranks' sums kept as tensors, as the published code keeps them. Written from the
rule's description; a peer to compare results and times with."""
import torch


def count_replicas(weight, slots):
    """slot -> expert, and replicas of every expert: each has one, every further slot goes to the largest load per replica."""
    layers, experts = weight.shape
    expert_of = torch.arange(slots).repeat(layers, 1)
    count = torch.ones(layers, experts, dtype=torch.int64)
    every_layer = torch.arange(layers)
    for slot in range(experts, slots):
        most = (weight / count).max(dim=-1).indices
        expert_of[:, slot] = most
        count[every_layer, most] += 1
    return expert_of, count


def pack(weight, ranks):
    """slot -> rank: by descending weight, each onto the least loaded rank that has room; every rank gets as many."""
    layers, slots = weight.shape
    room = slots // ranks
    order = weight.sort(dim=-1, descending=True, stable=True).indices
    rank_of = torch.full_like(order, -1)
    for layer in range(layers):
        load, held = [0] * ranks, [0] * ranks
        for slot in order[layer]:
            rank = min((r for r in range(ranks) if held[r] < room), key=load.__getitem__)
            rank_of[layer, slot] = rank
            load[rank] += weight[layer, slot]
            held[rank] += 1
    return rank_of


def place(load, ranks, slots, dtype=torch.float32):
    """replicas[layer][rank][expert] for load[layer][expert]; slots of all ranks together, a multiple of them."""
    weight = torch.as_tensor(load, dtype=dtype)
    expert_of, count = count_replicas(weight, slots)
    rank_of = pack((weight / count).gather(-1, expert_of), ranks)
    replicas = torch.zeros(weight.shape[0], ranks * weight.shape[1], dtype=torch.int64)
    replicas.scatter_add_(1, rank_of * weight.shape[1] + expert_of, torch.ones_like(expert_of))
    return replicas.reshape(weight.shape[0], ranks, weight.shape[1])
