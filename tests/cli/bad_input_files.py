#!/usr/bin/env python3
"""Files that are empty, cut, flipped, foreign or lie, given to every program that reads them: one sentence that names the
file and what was expected, the right exit code, no result, nothing left behind."""
import gzip
import json
import os
import shutil
import struct
import sys
import zlib

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from train_support.tools import Check, folder, must, run, write_model, write_text  # noqa: E402

check = Check()


CLUSTER = {"version": 1, "name": "two", "nodes": 2, "ranks_per_node": 2,
           "device": {"name": "d", "tflops": 100, "num_bytes": 2, "memory_bytes": 8e10, "memory_gbps": 3000, "efficiency": 0.5, "call_us": 8,
                      "source": "made up"},
           "links": {kind: {"gbps": 50, "latency_us": 6, "source": "made up"} for kind in ("intra", "inter")}}


class World:
    """A folder with one sound file of each kind."""

    def __init__(self, tmp):
        self.tmp = tmp
        self.model, self.data = write_model(self("model.json")), write_text(self("text"), size=4000)
        self.base = ["--data", self.data, "--batch", 4, "--steps", 2]
        small = ["--model", self.model, *self.base, "--ranks", 4]
        must("ballast-train", *small, "--record-trace", self("run.blt"), "--log", self("run.jsonl"), "--checkpoint", self("saved"))
        must("ballast-plan", "place", "--trace", self("run.blt"), "--ranks", 4, "-o", self("plan.json"))
        must("ballast-profile", "--model", self.model, "--ranks", 2, "--samples", 1, "-o", self("profile.json"))
        with open(self("cluster.json"), "w", encoding="ascii") as file:
            json.dump(CLUSTER, file)
        self.files = {name: open(self(name), "rb").read() for name in ("cluster.json", "model.json", "plan.json", "profile.json", "run.blt", "run.jsonl")}

    def __call__(self, name):
        return f"{self.tmp}/{name}"

    def simulate(self, **given):
        options = {"model": self.model, "profile": self("profile.json"), "batch": 4, **given}
        if "cluster" in given:
            del options["profile"]
        if "plan" not in options:
            options.setdefault("ranks", 4)
        return ["ballast-plan", "simulate", *(text for key, value in options.items() for text in (f"--{key}", value))]

    def readers(self, kind):
        """Command lines that read the file "x" as this kind."""
        x = self("x")
        train = ["ballast-train", "--model", self.model, *self.base]
        return {"model.json": [["ballast-train", "--model", x, *self.base], self.simulate(model=x),
                               ["ballast-profile", "--model", x, "-o", self("never")]],
                "plan.json": [["ballast-plan", "check", x], ["ballast-plan", "explain", x], [*train, "--plan", x], self.simulate(plan=x)],
                "profile.json": [self.simulate(profile=x)],
                "cluster.json": [self.simulate(cluster=x)],
                "run.jsonl": [self.simulate(trace=self("run.blt"), log=x)],
                "run.blt": [["ballast-trace", "info", x], ["ballast-trace", "stats", x, "--ranks", 2],
                            ["ballast-trace", "export", x, "--to", "csv", "-o", self("never")],
                            ["ballast-plan", "place", "--trace", x, "--ranks", 2, "-o", self("never")],
                            ["ballast-plan", "replay", "--trace", x, "--ranks", 2, "--dump", self("never")],
                            [*train, "--gate", f"trace:{x}", "--ranks", 2], self.simulate(trace=x)]}[kind]


def refused(world, what, code, part, command, file="x"):
    before = set(os.listdir(world.tmp))
    found, out, err = run(*command, timeout=60)
    lines = [line for line in err.splitlines() if " warning: " not in line]
    check(found == code and len(lines) == 1 and lines[0].startswith(f"{command[0]}: ") and part in lines[0] and file in lines[0]
          and out == "", f"{what}: {' '.join(map(str, command))}: exit {found}, expected {code} with \"{part}\": {err[:600]!r} {out[:80]!r}")
    check(set(os.listdir(world.tmp)) == before, f"{what}: {command[:2]} leaves {set(os.listdir(world.tmp)) - before}")


def put(world, content, name="x"):
    with open(world(name), "wb") as file:
        file.write(content)


def json_readers(world):
    """Each row: what, the text made from a sound file, what the sentence says."""
    rows = [("empty", lambda good: b"", ":1:1: expected JSON, found the end of the text"),
            ("zeros", lambda good: bytes(99), "control characters"),
            ("half", lambda good: good[:len(good) // 2], "x:"),
            ("utf-16", lambda good: good.decode().encode("utf-16"), "x:1:"),
            ("two documents", lambda good: good + good, "expected the end of the document"),
            ("an array", lambda good: b"[]", "expected an object, found an array"),
            ("a number", lambda good: b"1", "expected an object, found 1"),
            ("key twice", lambda good: good.replace(b'"version"', b'"version": 1, "version"', 1), '"version" twice'),
            ("unknown key", lambda good: good.replace(b'"version"', b'"colour": 1, "version"', 1), 'found "colour"'),
            ("version 2", lambda good: good.replace(b'"version": 1', b'"version": 2', 1), "version: expected an integer from 1 to 1, found 2"),
            ("version 1.5", lambda good: good.replace(b'"version": 1', b'"version": 1.5', 1), "version: expected"),
            ("NaN", lambda good: good.replace(b'"version": 1', b'"version": NaN', 1), "expected JSON, found 'N'"),
            ("1e999", lambda good: good.replace(b'"version": 1', b'"version": 1e999', 1), "version: the number is too large"),
            ("10 MB deep", lambda good: b"[" * (10 << 20), "expected at most 64 levels"),
            ("10 MB text", lambda good: b'{"version": "' + b"a" * (10 << 20) + b'"}', "version: expected an integer"),
            ("100000 keys", lambda good: b"{" + b",".join(b'"k": %d' % i for i in range(100000)) + b"}", '"k" twice'),
            ("cut gzip", lambda good: gzip.compress(good)[:40], "the gzip data is cut short"),
            ("gzip bomb", lambda good: gzip.compress(bytes(260 << 20), 1), "too long"),
            ("a trace", lambda good: world.files["run.blt"], "x:"),
            ("a run log", lambda good: world.files["run.jsonl"], "x:"),
            ("a program", lambda good: open("/bin/true", "rb").read(), "x:1:")]
    kinds = ("plan.json", "model.json", "profile.json", "cluster.json")
    for kind in kinds:
        good = world.files[kind]
        readers = world.readers(kind)
        for what, make, part in rows:
            put(world, make(good))
            slow = what in ("gzip bomb", "10 MB deep", "10 MB text", "100000 keys")
            for command in readers[:1] if slow else readers:
                refused(world, f"{kind}: {what}", 1, part, command)
        for other in kinds:
            put(world, world.files[other])
            for command in readers if other != kind else []:
                refused(world, f"{kind}: a {other}", 1, "expected", command)


def odd_numbers(world):
    """Sound JSON whose numbers nobody measured: refused by name, or simulated to finite numbers."""
    for kind in ("profile.json", "cluster.json"):
        good = json.loads(world.files[kind])
        for value in (0, -1, 1, 1e-300, 1e18, 1e300, 0.5, None, "x", [], {}):
            for path in paths_of(good):
                changed = json.loads(world.files[kind])
                inner = changed
                for key in path[:-1]:
                    inner = inner[key]
                inner[path[-1]] = value
                put(world, json.dumps(changed).encode())
                code, out, err = run(*world.readers(kind)[0], "--json", timeout=60)
                good_result = code == 0 and not any(word in out.lower() for word in ("nan", "inf", "null", ": -"))
                check(good_result or (code == 1 and ("x: " in err or "cluster two" in err) and err.count("\n") == 1 and out == ""),
                      f"{kind}: {'.'.join(map(str, path))} = {value!r}: exit {code}: {err[:300]!r} {out[:200]!r}")


def paths_of(value, path=()):
    """Of the numbers in a document, of long arrays only the first."""
    if isinstance(value, dict):
        return [found for key in value for found in paths_of(value[key], (*path, key))]
    if isinstance(value, list):
        return paths_of(value[0], (*path, 0)) if value else []
    return [path] if isinstance(value, (int, float)) and not isinstance(value, bool) else []


def bytes_with_crc(*fields):
    return b"".join(fields) + struct.pack("<I", zlib.crc32(b"".join(fields)))


def trace_header(world, layers, ranks, micro_batches, experts, version=1, flags=1):
    return bytes_with_crc(world.files["run.blt"][:8], struct.pack("<IIiiii", version, flags, layers, ranks, micro_batches, experts), bytes(28))


def trace_step(raw, kind=b"STEP", iteration=1, claimed=None):
    payload = zlib.compress(raw)
    return bytes_with_crc(struct.pack("<4sIqIII", kind, 0, iteration, len(payload), claimed or len(raw), zlib.crc32(payload))) + payload


def traces(world):
    good, cells = world.files["run.blt"], 2 * 4 * 8
    header = trace_header(world, 2, 4, 1, 8)
    flipped = bytearray(good)
    flipped[100] ^= 4
    for what, content, part in (
            ("empty", b"", "is empty"), ("foreign", b"layer,rank\n", "not a .blt trace"), ("a plan", world.files["plan.json"], "not a .blt trace"),
            ("cut in the header", good[:50], "ends inside the header"), ("cut in the first step", good[:90], "no whole step"),
            ("flipped", bytes(flipped), "is damaged"), ("version 9", trace_header(world, 2, 4, 1, 8, version=9), "version 9, expected 1"),
            ("unknown flags", trace_header(world, 2, 4, 1, 8, flags=9), "unknown flags"), ("no experts", trace_header(world, 2, 4, 1, 0), "0 experts"),
            ("negative layers", trace_header(world, -2, 4, 1, 8), "-2 layers"), ("too large", trace_header(world, 4096, 65536, 65536, 65536), "counts a step"),
            ("2 GiB a step, says the header", trace_header(world, 4096, 65536, 1, 2) + trace_step(bytes(cells)), "is damaged"),
            ("a bomb", header + trace_step(bytes(60 << 20)), "is damaged"), ("raw size lies", header + trace_step(bytes(cells), claimed=1 << 30), "is damaged"),
            ("a count below zero", header + trace_step(b"\1" + bytes(cells - 1)), "is damaged"),
            ("too few counts", header + trace_step(bytes(cells - 9)), "is damaged"), ("a newer block", header + trace_step(bytes(cells), b"NEWS"), '"NEWS"')):
        put(world, content)
        for command in world.readers("run.blt"):
            refused(world, f"trace: {what}", 1, part, command)
    largest = bytes([254, 255, 255, 255, 31])  # zigzag of 2^32 - 1
    for what, content in (("largest counts", header + b"".join(trace_step(largest + bytes(cells - 1), iteration=i) for i in (1, 2, 3))),
                          ("no counts", header + b"".join(trace_step(bytes(cells), iteration=i) for i in (1, 2, 3))),
                          ("iterations far apart", header + trace_step(b"\2" * cells, iteration=-2**63) + trace_step(b"\2" * cells, iteration=2**63 - 1))):
        put(world, content)
        for policy in ("static", "smartmoe:2", "eplb:2", "fastermoe", "ballast"):
            code, out, err = run("ballast-plan", "replay", "--trace", world("x"), "--ranks", 4, "--policy", policy, "--json")
            result = json.loads(out) if code == 0 else {}
            check(code == 0 and "NaN" not in out and "inf" not in out.lower() and result, f"{what} under {policy}: {code} {err!r} {out[:200]!r}")


def layout(**change):
    return {**dict(tp=1, cp=1, dp=4, pp=1, vp=1, etp=1, ep=4, edp=1, zero=0, micro_batch=1, micro_batches=1, stages=[[0, 1]]), **change}


def plans(world):
    """Plans that are sound JSON. Each row: the layout, the change of the placement, the sentence of check, train, simulate;
    None: takes it."""
    placement = json.loads(world.files["plan.json"])["placement"]
    million = 1 << 20

    def placed(**change):
        return {**placement, **change}

    def first_layer(**change):
        return placed(layers=[{**placement["layers"][0], **change}, placement["layers"][1]])

    named_7 = placed(layers=[placement["layers"][0], {**placement["layers"][1], "layer": 7}])
    rows = [(layout(stages=[[0]]), None, None, "the stages hold 1 layers, expected 2", "the stages hold 1 layers, expected 2"),
            (layout(stages=[[0, 1, 2]]), None, None, "hold 3 layers", "hold 3 layers"),
            (layout(stages=[[1, 0]]), None, "every layer once", "every layer once", "every layer once"),
            (layout(dp=65536, ep=65536), None, None, "at most 1024 ranks", "too few for 65536 ranks"),
            (layout(micro_batch=million, micro_batches=million), None, None, "at most 1000000 sequences", "at most 65536"),
            (layout(tp=million, cp=million, dp=million, etp=million, ep=million, edp=million), None, *["at most 1048576"] * 3),
            (layout(tp=2, etp=2), None, None, "must be 1", "goes beyond dp = ep"), (layout(ep=0), None, *["layout.ep: expected"] * 3),
            (layout(dp=3, ep=4), None, *["different worlds"] * 3), (layout(dp=2, ep=2), placement, *["is for 4 ranks, but layout.ep is 2"] * 3),
            (layout(shard=2), None, *["shard is 2, but zero 0 shards nothing"] * 3), (layout(zero=1, shard=3), None, *["divisor of cp x dp = 1 x 4"] * 3),
            (layout(gradients="bf16"), None, None, "sums gradients in fp32", "goes beyond dp = ep"), (layout(type="fp8"), None, None, "in one type", "goes beyond dp = ep"),
            (layout(sequence=7), None, None, "sequences of 7 tokens", None), (layout(gradients=2), None, *["gradients"] * 3),
            (layout(zero=2), None, *["zero is 2"] * 3), (None, None, *["expected a layout or a placement"] * 3),
            (None, placed(layers=placement["layers"][:1]), None, "expected 2 layers of 8 experts", "places 1 layers"),
            (None, named_7, None, "expected MoE layer 1, found 7", "found layer 7"), (None, placed(ranks=65536, slots=65536), *["rank 0 has 65536 slots: expected 0 to 8, the number of experts"] * 3),
            (None, placed(ranks=65536, slots=8), None, "at most 1024 ranks", "multiple of 65536"),
            (None, placed(slots=1), *["experts in 1 slots"] * 3), (None, placed(slots=[9, 9]), *["placement.slots"] * 3),
            (None, first_layer(home=[9] * 8), *["home[0]: expected an integer from 0 to 3, found 9"] * 3),
            (None, first_layer(home=[]), *["home"] * 3), (None, first_layer(imbalance=0.5), *["imbalance: expected"] * 3),
            (None, first_layer(copies=[{"expert": 0, "rank": placement["layers"][0]["home"][0], "share": 0.5}]), *["holds expert 0 twice"] * 3),
            (None, first_layer(copies=[{"expert": 0, "rank": 1, "share": 2}]), *["share: expected"] * 3)]
    for number, (grid, hosts, *sentences) in enumerate(rows):
        document = {"version": 1, **({"layout": grid} if grid else {}), **({"placement": hosts} if hosts else {})}
        put(world, json.dumps(document).encode())
        check_it, _, train, simulate = world.readers("plan.json")
        train, simulate = ([word for word in command if word not in ("--batch", 4)] for command in (train, simulate))
        for command, part in zip((check_it, train, simulate), sentences):
            if part:
                refused(world, f"plan {number}", 2 if "multiple" in part or "goes beyond" in part else 1, part, command, file="" if "too few" in part or " = " in part or "multiple" in part else "x")
    put(world, world.files["plan.json"])
    refused(world, "a policy beside a plan", 2, "--policy best", [*world.simulate(plan=world("x")), "--policy", "best"], file="")
    refused(world, "a layer that is not placed", 1, "places no layer 9", ["ballast-plan", "explain", world("x"), "--layer", 9])


def run_logs(world):
    for what, content, part in (("empty", b"", "has no step 1"), ("not JSON", b"hello\nworld\n", ":1:1: expected JSON"), ("a trace", world.files["run.blt"], "x"),
                                ("no time", b'{"step":1}\n{"step":2}\n', "step_us"), ("another run", b'{"step":7,"step_us":5}\n', "has no step 1"),
                                ("time below zero", b'{"step":1,"step_us":-5}\n', "step_us: expected")):
        put(world, content)
        for command in world.readers("run.jsonl"):
            refused(world, f"run log: {what}", 1, part, command)


def checkpoints(world):
    """Damage that also repairs the sums in the manifest: what a bad program, not a bad disk, would write."""
    x, tensors = world("x"), world("x/rank-0.safetensors")
    resume = ["ballast-train", *world.base, "--steps", 3, "--ranks", 4, "--resume", x]

    def fresh():
        shutil.rmtree(x, ignore_errors=True)
        if os.path.exists(x):
            os.remove(x)
        shutil.copytree(world("saved"), x)

    def seal():
        manifest = json.load(open(f"{x}/manifest.json", encoding="utf-8"))
        for entry in manifest["files"]:
            content = open(f"{x}/{entry['name']}", "rb").read()
            entry.update(bytes=len(content), crc32=zlib.crc32(content))
        json.dump(manifest, open(f"{x}/manifest.json", "w", encoding="utf-8"))

    def header(change):
        content = open(tensors, "rb").read()
        size = struct.unpack("<Q", content[:8])[0]
        entries = json.loads(content[8:8 + size])
        change(entries)
        text = json.dumps(entries).encode()
        open(tensors, "wb").write(struct.pack("<Q", len(text)) + text + content[8 + size:])

    def token(**change):
        return lambda: header(lambda entries: entries["embed.token"].update(change))

    def manifest(**change):
        def apply():
            document = {**json.load(open(f"{x}/manifest.json", encoding="utf-8")), **change}
            json.dump(document, open(f"{x}/manifest.json", "w", encoding="utf-8"))
        return apply

    def overwrite(name, content):
        return lambda: open(f"{x}/{name}", "wb").write(content)

    nan = struct.pack("<f", float("nan"))

    def all_nan():
        content = open(tensors, "rb").read()
        start = 8 + struct.unpack("<Q", content[:8])[0]
        open(tensors, "wb").write(content[:start] + nan * ((len(content) - start) // 4))

    sealed = (("shape beyond 64 bits", token(shape=[2147483647, 2147483647]), "embed.token: expected data_offsets"),
              ("no shape", token(shape=[]), "embed.token.shape"), ("shape 0", token(shape=[0, 1]), "shape[0]"),
              ("another shape", token(shape=[1, 1]), "embed.token"), ("another type", token(dtype="BF16"), "expected dtype F32"),
              ("offsets beyond the file", token(data_offsets=[0, 1e15]), "data_offsets[1]: expected"), ("offsets back", token(data_offsets=[400, 0]), "data_offsets"),
              ("a lost tensor", lambda: header(lambda entries: entries.pop("embed.token")), "no tensor embed.token"),
              ("header of 2^63 bytes", overwrite("rank-0.safetensors", struct.pack("<Q", 1 << 63) + b"{}"), "expected a safetensors file"),
              ("header of 99 MB", overwrite("rank-0.safetensors", struct.pack("<Q", 99 << 20) + b"{}"), "expected a safetensors file"),
              ("7 bytes", overwrite("rank-0.safetensors", b"1234567"), "expected a safetensors file"),
              ("a foreign policy", overwrite("policy.bin", bytes(100)), "policy.bin: "), ("half a policy", overwrite("policy.bin", b"blp1"), "policy.bin: "))
    unsealed = (("no files", manifest(files=[]), "files: expected"), ("a way out", manifest(files=[{"name": "../text", "bytes": 0, "crc32": 0}]), "plain file name"),
                ("step below zero", manifest(step=-1), "step: expected"), ("0 ranks", manifest(ranks=0), "ranks: expected"),
                ("no manifest", lambda: os.remove(f"{x}/manifest.json"), "manifest.json: cannot open"), ("a folder as a file", lambda: (os.remove(tensors), os.mkdir(tensors)), "found a folder"))
    for rows, repair in ((sealed, seal), (unsealed, lambda: None)):
        for what, damage, part in rows:
            fresh()
            damage()
            repair()
            refused(world, f"checkpoint: {what}", 1, part, resume)
    fresh()
    all_nan()
    seal()
    refused(world, "checkpoint of NaN", 1, "step 3", resume, file="")
    fresh()
    manifest(step=1000)()
    refused(world, "a checkpoint beyond --steps", 2, "at step 1000 already", resume)
    fresh()
    for change, part in ((dict(moe__top_k=1), "moe.top_k: expected the same"), (dict(layers=1), "layers: expected the same"), (dict(hidden=64), "hidden: expected the same")):
        other = write_model(world("other.json"), **change)
        refused(world, f"checkpoint of another model: {change}", 1, part, [*resume, "--model", other], file="other.json")
        os.remove(other)
    refused(world, "a file as checkpoint", 1, "manifest.json", [*resume[:-1], world("text")], file="text")
    code, out, err = run(*resume, "--steps", 2)
    check(code == 0 and out == "", f"a checkpoint at --steps: {code} {out!r} {err!r}")
    shutil.rmtree(x)


def texts(world):
    packed = gzip.compress(os.urandom(9000))
    broken = bytearray(packed)
    broken[3000] ^= 8
    for what, content, part in (("empty", b"", "at least 33 bytes"), ("a byte too short", b"x" * 32, "found 32"), ("cut gzip", packed[:5000], "the gzip data is cut short"),
                                ("two bytes of gzip", packed[:2], "the gzip data is cut short"), ("damaged gzip", bytes(broken), "the gzip data is damaged: incorrect"),
                                ("gzip of nothing", gzip.compress(b""), "found 0")):
        put(world, content)
        refused(world, f"text: {what}", 1, part, ["ballast-train", "--model", world.model, "--data", world("x"), "--steps", 1])
    refused(world, "text: a folder", 1, "found a folder", ["ballast-train", "--data", world.tmp, "--steps", 1], file=world.tmp)


with folder() as scratch:
    world = World(scratch)
    for part_of_test in (json_readers, odd_numbers, traces, plans, run_logs, texts):
        part_of_test(world)
    os.remove(world("x"))
    checkpoints(world)
sys.exit(check.end())
