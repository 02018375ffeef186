"""ballast-plan export: placements in the forms of EPLB, SGLang, vLLM and TensorRT-LLM, recounted here."""
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))
from support.programs import Check  # noqa: E402

BUILD = Path(os.environ.get("BL_BUILD", ROOT / "build/release")).resolve()

check = Check()


def run(program, *arguments):
    return subprocess.run([BUILD / program, *map(str, arguments)], capture_output=True, text=True, timeout=120)


def refused(code, part, *arguments):
    result = run("ballast-plan", "export", *arguments)
    check(result.returncode == code and part in result.stderr and result.stderr.count("\n") == 1 and result.stdout == "",
          f"{arguments}: expected {code} and \"{part}\", found {result.returncode}: {result.stderr!r}")


def loads_of(trace, layers, experts):
    loads = [[0] * experts for _ in range(layers)]
    for row in run("ballast-trace", "export", trace, "--to", "csv").stdout.split()[1:]:
        _, layer, _, _, *counts = map(int, row.split(","))
        loads[layer] = [a + b for a, b in zip(loads[layer], counts)]
    return loads


def exported(plan, form):
    result = run("ballast-plan", "export", plan, "--to", form)
    check(result.returncode == 0, f"--to {form}: {result.stderr}")
    return result


def yaml_of(text):
    """The three keys of TensorRT-LLM's file; layers as a dictionary."""
    lines = text.splitlines()
    check(lines[0].startswith("num_slots: ") and lines[1] == "initial_global_assignments:" and
          lines[-1] == "layer_updates_per_iter: 0", f"YAML: {lines}")
    return int(lines[0].split(": ")[1]), {int(k): json.loads(v) for k, v in (line.strip().split(": ") for line in lines[2:-1])}


def even_imbalance(phy2log, loads, ranks):
    each = len(phy2log) // ranks
    slot = [loads[e] / phy2log.count(e) for e in phy2log]
    return max(sum(slot[r * each:(r + 1) * each]) for r in range(ranks)) * ranks / sum(loads)


def check_plan(work, experts, ranks, slots, herfindahl):
    trace, plan, layers = f"{work}/t.blt", f"{work}/plan.json", 3
    run("ballast-trace", "gen", "--experts", experts, "--layers", layers, "--ranks", 2, "--steps", 2, "--herfindahl", herfindahl, "-o", trace)
    made = run("ballast-plan", "place", "--trace", trace, "--ranks", ranks, "--slots", slots, "--split", "even", "-o", plan)
    check(made.returncode == 0, f"place: {made.stderr}")
    placed = json.load(open(plan, encoding="ascii"))["placement"]["layers"]
    loads = loads_of(trace, layers, experts)
    result = exported(plan, "eplb-json")
    check(result.stderr == "", f"an even plan needs no warning: {result.stderr}")
    eplb = json.loads(result.stdout)
    for layer, phy2log in enumerate(eplb["phy2log"]):
        what = f"{experts} experts, {ranks} x {slots}, layer {layer}"
        check(len(phy2log) == ranks * slots and set(phy2log) == set(range(experts)), f"{what}: {phy2log}")
        reached = even_imbalance(phy2log, loads[layer], ranks)
        check(abs(reached - placed[layer]["imbalance"]) < 1e-6, f"{what}: {reached}, the plan says {placed[layer]['imbalance']}")
        check(eplb["logcnt"][layer] == [phy2log.count(e) for e in range(experts)], f"{what}: logcnt")
        most = max(max(counts) for counts in eplb["logcnt"])
        for e, places in enumerate(eplb["log2phy"][layer]):
            mine = [i for i, x in enumerate(phy2log) if x == e]
            check(places == mine + [-1] * (most - len(mine)), f"{what}, expert {e}: log2phy {places}")
        hosts = {(e, i // slots) for i, e in enumerate(phy2log)}
        plans = {(e, r) for e, r in enumerate(placed[layer]["home"])} | {(c["expert"], c["rank"]) for c in placed[layer]["copies"]}
        check(hosts == plans, f"{what}: hosts are those of the plan")
    check(json.loads(exported(plan, "sglang").stdout) == {"physical_to_logical_map": eplb["phy2log"]}, "SGLang")
    check(json.loads(exported(plan, "vllm").stdout) == eplb["phy2log"], "vLLM")
    number, assigned = yaml_of(exported(plan, "tensorrt-llm").stdout)
    check(number == ranks * slots and assigned == dict(enumerate(eplb["phy2log"])), "TensorRT-LLM")
    return any(len(set(row[i:i + slots])) < slots for row in eplb["phy2log"] for i in range(0, len(row), slots))


def main():
    with tempfile.TemporaryDirectory() as work:
        met = [check_plan(work, *sizes) for sizes in ((32, 8, 5, 0.2), (16, 4, 8, 0.25), (64, 8, 9, 0.05), (8, 2, 8, 0.4), (9, 4, 3, 0.3))]
        check(any(met), "replicas of an expert meet on a rank somewhere")
        trace, plan = f"{work}/t.blt", f"{work}/free.json"
        run("ballast-plan", "place", "--trace", trace, "--ranks", 4, "--slots", 3, "-o", plan)
        result = exported(plan, "vllm")
        check("splits tokens evenly" in result.stderr and "--split even" in result.stderr, f"uneven shares are said: {result.stderr}")
        out = f"{work}/out.json"
        saved = run("ballast-plan", "export", plan, "--to", "vllm", "-o", out)
        check(saved.returncode == 0 and saved.stdout == "" and open(out, encoding="ascii").read() == result.stdout, "-o")
        refused(2, "--to", plan)
        refused(2, "--to", plan, "--to", "other")
        refused(1, "absent.json", "absent.json", "--to", "vllm")
        refused(2, "expected another file", plan, "--to", "vllm", "-o", plan)
        run("ballast-plan", "place", "--trace", trace, "--ranks", 4, "--slots", "3,3,2,4", "-o", plan)
        refused(1, "rank 0 has 3 slots, rank 2 has 2", plan, "--to", "sglang")
        layout = {"version": 1, "layout": {"tp": 1, "cp": 1, "dp": 1, "pp": 1, "vp": 1, "etp": 1, "ep": 1, "edp": 1, "zero": 0,
                                           "micro_batch": 1, "micro_batches": 1, "stages": [[0]]}}
        Path(plan).write_text(json.dumps(layout))
        refused(1, "has no placement", plan, "--to", "vllm")
    return check.end()


if __name__ == "__main__":
    sys.exit(main())
