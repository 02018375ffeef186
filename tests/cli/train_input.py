#!/usr/bin/env python3
"""ballast-train on input that is wrong, odd or hostile: one sentence, the right exit code, nothing left behind; and what it
writes on good input."""
import json
import os
import resource
import subprocess
import sys
import zlib

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from train_support.tools import BUILD, Check, folder, losses, must, read_log, run, train, write_model, write_text  # noqa: E402

check = Check()


def refused(tmp, code, part, *arguments):
    before = set(os.listdir(tmp))
    found, out, err = run("ballast-train", *arguments, timeout=60)
    name = " ".join(map(str, arguments))
    check(found == code and part in err and err.startswith("ballast-train: ") and err.count("\n") == 1 and out == "",
          f"{name}: exit {found}, expected {code} with \"{part}\": {err!r} {out[:80]!r}")
    check(set(os.listdir(tmp)) == before, f"{name}: leaves {set(os.listdir(tmp)) - before}")


def command_lines(tmp, base):
    data, model = base[3], base[1]
    refused(tmp, 2, "--data", "--steps", 1)
    refused(tmp, 2, "--ranks", *base, "--ranks", 0)
    refused(tmp, 1, "too few for 9 ranks", *base, "--ranks", 9)
    refused(tmp, 2, "--steps", *base, "--steps", -1)
    refused(tmp, 2, "--steps", *base, "--steps", "x")
    refused(tmp, 2, "multiple of 5", *base, "--ranks", 5)
    refused(tmp, 2, "multiple of 16", *base, "--micro-batches", 16)
    refused(tmp, 2, "--gate best", *base, "--gate", "best")
    refused(tmp, 2, "--gate trace:", *base, "--gate", "trace:")
    refused(tmp, 2, "--policy", *base, "--policy", "best")
    refused(tmp, 2, "smartmoe:N", *base, "--policy", "smartmoe")
    refused(tmp, 2, "--slots 2,2", *base, "--ranks", 3, "--batch", 24, "--slots", "2,2")
    refused(tmp, 1, "cannot hold", *base, "--ranks", 2, "--slots", 3)
    refused(tmp, 2, "--transport", *base, "--transport", "nccl")
    refused(tmp, 2, "--precision bf16", *base, "--precision", "bf16")
    refused(tmp, 2, "--expert-gemm streams", *base, "--expert-gemm", "streams")
    refused(tmp, 2, "--lag 0", *base, "--lag", 0)
    refused(tmp, 2, "--stepps", *base, "--stepps", 3)
    refused(tmp, 1, "nowhere", "--model", model, "--data", f"{tmp}/nowhere", "--steps", 1)
    refused(tmp, 1, "nowhere", "--model", f"{tmp}/nowhere.json", "--data", data, "--steps", 1)
    refused(tmp, 1, "nowhere", *base, "--gate", f"trace:{tmp}/nowhere.blt")
    refused(tmp, 1, "nowhere", *base, "--plan", f"{tmp}/nowhere.json")
    refused(tmp, 1, "nowhere", *base, "--resume", f"{tmp}/nowhere")


def outputs(tmp, base):
    for option in ("--log", "--dump", "--record-trace", "--checkpoint"):
        refused(tmp, 1, "/proc/none", *base, option, "/proc/none/x")
    refused(tmp, 3, "/dev/full", *base, "--log", "/dev/full")
    refused(tmp, 3, "/dev/full", *base, "--ranks", 4, "--policy", "static", "--dump", "/dev/full")
    check(not os.path.isfile("/dev/full"), "the full device has become a file")


def full_disk(tmp, base):
    """A limit on the size of files stands for a disk that runs full in the middle."""
    for option, name in (("--checkpoint", "ck"), ("--record-trace", "t.blt"), ("--log", "run.log")):
        before = set(os.listdir(tmp))
        command = [str(BUILD / "ballast-train"), *map(str, base), "--steps", "20", option, f"{tmp}/{name}"]
        limit = 300 if option == "--record-trace" else 5000
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=60,
                              preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
        check(done.returncode == 3 and name in done.stderr and done.stderr.count("\n") == 1,
              f"{option} on a full disk: exit {done.returncode}, {done.stderr!r}")
        if option == "--log":  # what was logged stays, whole
            _, steps = read_log(f"{tmp}/{name}")
            check(0 < len(steps) < 20, f"a log cut by a full disk: {len(steps)} steps")
            os.remove(f"{tmp}/{name}")
        check(set(os.listdir(tmp)) == before, f"{option} on a full disk: leaves {set(os.listdir(tmp)) - before}")


def files(tmp, base):
    model = base[1]

    def data(content):
        with open(f"{tmp}/odd", "wb") as file:
            file.write(content)
        return ["--model", model, "--data", f"{tmp}/odd", "--steps", 1]

    for content in (b"", b"short", b"x" * 32):
        arguments = data(content)
        refused(tmp, 1, "at least 33 bytes", *arguments)
    data(b"x" * 33)
    must("ballast-train", *data(b"x" * 33))
    with open(f"{tmp}/odd.gz", "wb") as file:
        file.write(b"\x1f\x8b\x08\0\0\0\0\0\0\3not deflate at all")
    refused(tmp, 1, "odd.gz", "--model", model, "--data", f"{tmp}/odd.gz", "--steps", 1)
    for change, part in ((dict(norm="rms"), "rms"), (dict(moe__top_k=9), "top_k"), (dict(moe__experts=0), "moe"),
                         (dict(vocabulary=100), "vocabulary"), (dict(layers=-1), "layers"), (dict(colour="red"), "colour"),
                         (dict(moe__shared_experts=1, moe__shared_width=8), "shared_experts")):
        other = write_model(f"{tmp}/other.json", **change)
        refused(tmp, 1, part, "--model", other, *base[2:])


def traces(tmp, base):
    must("ballast-trace", "gen", "--experts", 6, "--ranks", 2, "--layers", 1, "--steps", 3, "--seed", 1, "-o", f"{tmp}/six.blt")
    refused(tmp, 1, "the trace has 6 experts, the model has 8", *base, "--gate", f"trace:{tmp}/six.blt")
    with open(f"{tmp}/six.blt", "rb") as file:
        whole = file.read()
    for name, content in (("empty", b""), ("foreign", b"not a trace"), ("cut", whole[:30])):
        with open(f"{tmp}/{name}.blt", "wb") as file:
            file.write(content)
        refused(tmp, 1, f"{name}.blt", *base, "--gate", f"trace:{tmp}/{name}.blt")


def plans(tmp, base):
    must("ballast-trace", "gen", "--experts", 8, "--ranks", 2, "--layers", 2, "--steps", 5, "--seed", 1, "-o", f"{tmp}/t.blt")
    must("ballast-trace", "gen", "--experts", 16, "--ranks", 2, "--layers", 2, "--steps", 5, "--seed", 1, "-o", f"{tmp}/t16.blt")
    for trace, ranks in (("t", 4), ("t16", 4)):
        must("ballast-plan", "place", "--trace", f"{tmp}/{trace}.blt", "--ranks", ranks, "--slots", 5, "-o", f"{tmp}/{trace}.json")
    refused(tmp, 1, "placement: expected 2 layers of 8 experts", *base, "--plan", f"{tmp}/t16.json")
    refused(tmp, 2, "is for 4 ranks", *base, "--plan", f"{tmp}/t.json", "--ranks", 2)
    log = f"{tmp}/plan.log"
    train(log, *base, "--plan", f"{tmp}/t.json", "--policy", "static", "--dump", f"{tmp}/plan.dump")
    plan = json.load(open(f"{tmp}/t.json", encoding="utf-8"))
    for line in open(f"{tmp}/plan.dump", encoding="utf-8"):
        entry = json.loads(line)
        check(entry["home"] == plan["placement"]["layers"][entry["layer"]]["home"], "the plan's homes are not in force")
    check(read_log(log)[0]["config"]["ranks"] == 4, "the plan's ranks are not used")
    for name in ("plan.log", "plan.dump"):
        os.remove(f"{tmp}/{name}")


def log_contents(tmp, base):
    log = f"{tmp}/run.log"
    options = ["--ranks", 2, "--micro-batches", 2, "--steps", 3, "--seed", 7, "--policy", "ballast"]
    train(log, *base, *options)
    header, steps = read_log(log)
    check(header["command"][1:] == [str(x) for x in ["--log", log, *base, *options]], f"the command: {header['command']}")
    check(header["seed"] == 7 and header["config"]["micro_batches"] == 2, f"the configuration: {header}")
    check(header["inputs"][0]["crc32"] == zlib.crc32(open(base[3], "rb").read()), f"the inputs: {header['inputs']}")
    wanted = {"step", "loss", "grad_norm", "lr", "tokens", "step_us", "tokens_per_s", "mfu", "phases", "layers", "moved_bytes",
              "fill_bytes", "plan_version"}
    for number, step in enumerate(steps, 1):
        check(set(step) == wanted and step["step"] == number and step["tokens"] == 24 * 32, f"step {number}: {sorted(step)}")
        check(all(set(layer) == {"imbalance", "copies", "moved", "late"} for layer in step["layers"]), f"layers: {step}")
        check(step["phases"].get("expert_fwd", 0) > 0 and sum(step["phases"].values()) <= step["step_us"], f"phases: {step}")
    check(abs(steps[0]["lr"] - 1e-3) < 1e-12 or steps[0]["lr"] > 0, f"learning rate {steps[0]['lr']}")
    check(len(losses(log)) == 3, "the loss column")


def forced_gates(tmp, base):
    """Counts under a trace are the trace's, scaled: every source has the same shares here."""
    must("ballast-train", *base, "--steps", 2, "--ranks", 2, "--gate", "uniform", "--record-trace", f"{tmp}/u.blt", "--log", f"{tmp}/u.log")
    for step in read_log(f"{tmp}/u.log")[1]:
        check(all(layer["imbalance"] == 1 for layer in step["layers"]), f"uniform: {step['layers']}")
    must("ballast-trace", "export", f"{tmp}/u.blt", "--to", "csv", "-o", f"{tmp}/u.csv")
    rows = [list(map(int, line.split(",")))[4:] for line in open(f"{tmp}/u.csv", encoding="ascii").readlines()[1:]]
    check(len(rows) == 2 * 2 * 2 and all(row == [96] * 8 for row in rows), f"uniform counts: {rows[:2]}")
    must("ballast-trace", "gen", "--experts", 8, "--ranks", 2, "--layers", 3, "--steps", 2, "--top-share", 0.45, "--seed", 5,
         "-o", f"{tmp}/hot.blt")
    must("ballast-train", *base, "--steps", 3, "--ranks", 2, "--gate", f"trace:{tmp}/hot.blt", "--record-trace", f"{tmp}/h.blt")
    for name in ("hot", "h"):
        must("ballast-trace", "export", f"{tmp}/{name}.blt", "--to", "csv", "-o", f"{tmp}/{name}.csv")
    table = {}
    for name in ("hot", "h"):
        for line in open(f"{tmp}/{name}.csv", encoding="ascii").readlines()[1:]:
            step, layer, rank, micro_batch, *row = map(int, line.split(","))
            if micro_batch == 0:
                table.setdefault(name, {})[(step, layer, rank)] = row
    steps = sorted({key[0] for key in table["hot"]})
    for (step, layer, rank), row in table["h"].items():
        source = table["hot"][(steps[(step - 1) % len(steps)], layer, rank)]
        total = sum(row)
        check(total == 12 * 32 * 2 and max(row) <= 12 * 32, f"forced counts {row}")
        exact = [c * total / sum(source) for c in source]
        check(all(abs(a - b) < 1 for a, b in zip(row, exact)) or max(exact) > 12 * 32, f"forced {row}, asked for {exact}")


with folder() as tmp:
    base = ["--model", write_model(f"{tmp}/tiny.json"), "--data", write_text(f"{tmp}/words.txt"), "--batch", 24, "--steps", 2]
    command_lines(tmp, base)
    outputs(tmp, base)
    full_disk(tmp, base)
    files(tmp, base)
    traces(tmp, base)
    plans(tmp, base)
    log_contents(tmp, base)
    forced_gates(tmp, base)
sys.exit(check.end())
