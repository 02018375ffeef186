"""Layouts and steps that NVIDIA's DGX Cloud benchmarking recipes publish (github.com/NVIDIA/dgxc-benchmarking, tag and
file in the table), and what the stack of each release can do."""
import json

from plan_support.tools import ROOT

MODELS = {"grok1-314b": ("grok-1", {"vocabulary": 128256}), "llama4-maverick-400b": ("llama-4-maverick", {}),
          "deepseek-v3-671b": ("deepseek-v3", {}), "deepseek-v3-671b-torchtitan": ("deepseek-v3", {"multi_token": 0}),
          "qwen3 Qwen3 30B": ("qwen3-30b-a3b", {}),
          "nemotron3 Nemotron 3 30B": ("nemotron-3-nano-30b-a3b", {}),
          "nemotron3 Nemotron 3 120B": ("nemotron-3-super-120b-a12b", {})}
CLUSTERS = {"H100": "h100-hgx", "B200": "b200-hgx", "B300": "b300-hgx", "GB200": "gb200-nvl72", "GB300": "gb300-nvl72"}
GRID = ("tp", "pp", "cp", "ep", "etp", "vp")


def rows():
    with open(ROOT / "tests/plan_support/published_layouts.tsv", encoding="ascii") as file:
        names = file.readline().rstrip("\n").split("\t")
        for line in file:
            row = dict(zip(names, line.rstrip("\n").split("\t")))
            for key in ("gpus", "seq", "layers", "mbs", "gbs", *GRID):
                row[key] = int(row[key])
            row["published_mbs"] = row["mbs"]
            # TorchTitan's recipes list the batch of a rank, which its pipelines split into sequences (its option
            # pipeline_parallel_microbatch_size, 1 by default).
            if row["model"].endswith("torchtitan") and row["pp"] > 1:
                row["mbs"] = 1
            yield row


def stack(row):
    """What a row's release runs, as search options: dispatch, overlap, gradients.
    Up to v25.05 NeMo's dispatcher is the all-to-all; from v25.08 on H100 uses DeepEP, Blackwell still the all-to-all
    (NeMo's scripts/performance/llm/pretrain_deepseek_v3.py). Gradients are summed in fp32 up to v25.04 (NeMo 1.0 with
    megatron_amp_O2, grok1/grok1_314b.yaml), from v25.05 on in bf16: NeMo 2.0's recipes of Grok-1, Llama 4 and DeepSeek-V3
    set grad_reduce_in_fp32 False, and so does Megatron-Bridge, on which recipes after v25.12 run: DeepEP or HybridEP,
    exchanges beside another micro-batch's compute for attention models (moe_a2a_overlap). TorchTitan has neither."""
    if row["tag"].startswith("v25"):
        nodes = row["chip"] == "H100" and row["tag"] >= "v25.08"
        gradients = "bf16" if row["tag"] >= "v25.05" else "fp32"
        return {"dispatch": "nodes" if nodes else "choices", "overlap": "none", "gradients": gradients}
    if row["model"].endswith("torchtitan"):
        return {"dispatch": "nodes", "overlap": "none", "gradients": "fp32"}
    overlap = "none" if row["model"].startswith("nemotron") else "exchange"
    return {"dispatch": "nodes", "overlap": overlap, "gradients": "bf16"}


def recompute(row):
    """As the launch scripts of the recipes with published times say: mla_up_proj (v25.05, v25.10), mla_up_proj, mlp and
    moe (v25.08); GB200's core_attn of v25.05 is what attention in tiles does anyway."""
    if not row["model"].startswith("deepseek"):
        return None
    return "ffn" if row["tag"].startswith("v25.08") else "selective"


def type_of(row):
    """Type of products with weights; no efficiency of nvfp4 is published: as fp8."""
    return "fp8" if row["dtype"].lower() in ("fp8", "nvfp4") else None


def ranks_per_node(row):
    return min(64, row["gpus"]) if row["chip"].startswith("GB") else None


def cluster_path(row):
    return ROOT / f"costmodel/clusters/{CLUSTERS[row['chip']]}.json"


def write_model(row, tmp):
    base, changes = MODELS[row["model"]]
    model = json.load(open(ROOT / f"costmodel/models/{base}.json", encoding="ascii"))
    model.update(changes, layers=row["layers"], sequence=row["seq"])
    path = f"{tmp}/{base}-{row['layers']}-{row['seq']}-{len(changes)}-{model.get('multi_token', 0)}.json"
    json.dump(model, open(path, "w", encoding="ascii"))
    return path


def name_of(row):
    return f"{row['model']} {row['chip']} x{row['gpus']} {row['dtype']} ({row['tag']})"


def throughputs():
    """Tokens a second and GPU of the mixture-of-experts models that Megatron-Bridge's docs/performance-summary-archive.md
    lists for containers 25.09 to 26.02, at a sequence of 4096: measured, and no efficiency here is fitted to them."""
    with open(ROOT / "tests/plan_support/published_throughput.tsv", encoding="ascii") as file:
        names = file.readline().rstrip("\n").split("\t")
        for line in file:
            row = dict(zip(names, line.rstrip("\n").split("\t")))
            for key in names[3:]:
                row[key] = row[key] if key == "dtype" else int(row[key])
            yield row


def throughput_options(row, tmp):
    """Search options that leave only the row's layout. Gradients in bf16 as its performance configurations say; up to
    25.09 tokens are dropped after an all-to-all but on H100, later all go by DeepEP or HybridEP, interleaved pipelines
    exchanging beside compute."""
    model = json.load(open(ROOT / f"costmodel/models/{row['model']}.json", encoding="ascii"))
    model.update(sequence=4096, multi_token=row["multi_token"])
    path = f"{tmp}/{row['model']}-{row['multi_token']}.json"
    json.dump(model, open(path, "w", encoding="ascii"))
    late = row["release"] > "25.09" or (row["chip"] == "H100" and row["model"] == "deepseek-v3")
    options = {"model": path, "cluster": cluster_path(row), "ranks": row["gpus"], "batch": row["gbs"], "max-vp": row["vp"],
               "micro-batch": row["mbs"], "cp": 1, "etp": 1, "dispatch": "nodes" if late else "choices",
               "overlap": "exchange" if late and row["vp"] > 1 else "none", "gradients": "bf16", "memory-fraction": 1}
    options.update({key: row[key] for key in ("tp", "pp", "vp", "ep")})
    if type_of(row):
        options["type"] = type_of(row)
    if ranks_per_node(row):
        options["ranks-per-node"] = ranks_per_node(row)
    return [part for key, value in options.items() for part in (f"--{key}", value)]
