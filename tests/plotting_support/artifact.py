"""Made-up logs in the formats of the SmartMoE artifact, with times that the tests choose."""

import json
import os

from plotting import layout

ITERATIONS = 200


def write(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    return path


def megatron(times_ms, planned=None, tokens=False):
    """A training log; tokens: as DeepSpeed writes it."""
    planned = planned or len(times_ms)
    lines = ["+ '[' srun == srun ']'", "training on a machine; nothing of this line matters"]
    for i, ms in enumerate(times_ms, start=1):
        extra = f" consumed tokens: {262144 * i:12d} |" if tokens else ""
        lines.append(f" iteration {i:8d}/{planned:8d} | consumed samples: {256 * i:12d} |{extra} elapsed time per iteration "
                     f"(ms): {ms:.1f} | learning rate: 1.000E-04 | global batch size: {256:5d} | lm loss: 6.558771E+00 | "
                     "loss scale: 8192.0 | grad norm: nan | number of skipped iterations:   0 |")
    return "\n".join(lines + ["[after training is done]"]) + "\n"


def swin(epoch, step_s, steps=20):
    """One epoch's log; epoch is h:mm:ss, or None for a run that did not get there."""
    lines = ["EPOCHS: 90"]
    head = "\x1b[32m[2023-01-07 00:20:29 swin]\x1b[0m\x1b[33m(main_moe.py 268)\x1b[0m: INFO "
    for i in range(1, steps + 1):
        lines.append(f"{head}Train: [0/90][{16 * i - 1}/54685]\teta 13:52:11 lr 0.001\t wd 0.1\ttime 0.8862 (0.9133)\t"
                     f"mem 8335MB\tbatch_time {step_s:.4f}")
    if epoch:
        lines.append(f"{head}EPOCH 0 training takes {epoch}")
    return "\n".join(lines) + "\n"


def profile(rank, stage, forward_ms, backward_ms, iterations=ITERATIONS):
    """One rank's records; forward_ms[layer], backward_ms[layer] the same in each iteration."""

    def entry(ms):
        return {"total": ms, "avg": ms, "max": ms, "min": ms, "cnt": 32}

    head = {"type": "time", "iteration": -1, "rank": rank, "tp_rank": 0, "pp_rank": stage, "dp_rank": 0}
    lines = [json.dumps({**head, "perf": {"set-up": entry(7323.05)}})]
    for i in range(1, iterations + 1):
        perf = {"optimizer": entry(3.0)}
        perf.update({f"MoE_L{k}_fwd": entry(ms) for k, ms in enumerate(forward_ms)})
        perf.update({f"MoE_L{k}_bwd": entry(ms) for k, ms in enumerate(backward_ms)})
        lines.append(json.dumps({**head, "iteration": i, "perf": perf}))
    return "\n".join(lines) + "\n"


def perf_model(naive, est, real):
    return f"{naive}\n" + json.dumps({"real": real, "est": est}) + "\n"


def replay(static, dynamic):
    return json.dumps({"FastMoE": static, "FasterMoE": [0.0] * len(static), "SmartMoE": dynamic}) + "\n"


def name(system, group):
    """A log's name as the layout expects it."""
    if system == "deepspeed":
        capacity = "1.2-drop-false" if group.gate == "naive" else f"{group.gate.removeprefix('gshard')}-drop-true"
        return f"gpt-L16-cap-{capacity}_2022-12-23"
    gate = "naive1.2" if group.gate == "naive" else group.gate
    return f"GPT-L16-H2560_{gate}_EP+DP_t1_p1_d16_2022-12-23.log"


def times(seconds_each, first=10000.0):
    """A run's iteration times: a slow start, then constant."""
    return [first] + [1000.0 * seconds_each] * (ITERATIONS - 1)


def tree(root):
    """A complete artifact folder. Speed of system s in group i of figure 8: 4 / (4 - 0.5 s) of FastMoE's, DeepSpeed out
    of memory in the last group; returns root."""
    for i, group in enumerate(layout.FIG8_GROUPS):
        for s, system in enumerate(("fastmoe", "deepspeed", "fastermoe", "smartmoe")):
            folder = os.path.join(root, f"fig8/{group.cluster}/{group.gpus}gpus/{system}")
            text = megatron(times(4 - 0.5 * s), tokens=system == "deepspeed")
            if system == "deepspeed" and i == len(layout.FIG8_GROUPS) - 1:
                text = "starting\nRuntimeError: CUDA out of memory. Tried to allocate 2 GiB\n"
            write(os.path.join(folder, name(system, group)), text)
    for group in layout.FIG9_GROUPS:
        for system, epoch in (("tutel", "1:00:00"), ("fastmoe", "0:20:00"), ("smartmoe", "0:15:00")):
            path = os.path.join(root, f"fig9/{group.gpus}gpus/{system}/Swin-{group.gate}_{system}.log")
            write(path, swin(epoch, {"tutel": 8.0, "fastmoe": 4.0, "smartmoe": 2.0}[system]))
    for group in layout.FIG10_GROUPS:
        write(os.path.join(root, f"fig10/alpa/{group.gpus}gpus", name("alpa", group)), megatron(times(3.0)))
    for nodes, micro_batch in layout.FIG11_PANELS:
        est = [10.0 + (7 * i) % 23 for i in range(96)]
        write(os.path.join(root, f"fig11/perf_model_{nodes}nodes_mbs{micro_batch}.log"),
              perf_model(20.5, est, [0.5 * e + 8 for e in est]))
    run = "GPT-L16-H1536-64MoE_naive4.8_EP+DP_t1_p4_d16_ep8_dp2_dynamic{}_x"
    for side, slow in (("OFF", 1.2), ("ON", 1.0)):
        write(os.path.join(root, "fig12", run.format(side) + ".log"), megatron(times(5 * slow, first=5000.0 * slow)))
        for stage in range(4):
            write(os.path.join(root, "fig12", run.format(side) + ".prof", f"{16 * stage}.profiler"),
                  profile(16 * stage, stage, [10.0] * 4, [(2 + stage) * slow] * 4))
    for frequency in layout.FIG13_FREQUENCIES:
        write(os.path.join(root, f"fig13/freq{frequency}"), replay([70.0] + [170.0] * 299, [60.0] + [115.0] * 299))
        write(os.path.join(root, f"fig13/changed_freq{frequency}"), "".join(f"{i}\n" for i in (1, 11, 21 * 10 + 1, 2991)))
    return root
