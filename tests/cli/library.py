"""libballast: installed, compiled against as C and as C++, from Python; from two threads at once; what it exports and what
it needs; and its decisions, which are those of ballast-plan.

time limit: 240 s"""
import ctypes
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))
from support.programs import Check  # noqa: E402

BUILD = Path(os.environ.get("BL_BUILD", ROOT / "build/release")).resolve()
VARIANT = BUILD.name
SANITIZE = {"asan": ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"], "tsan": ["-fsanitize=thread"]}.get(VARIANT, [])
MODEL = str(ROOT / "costmodel/models/mixtral-8x7b.json")
CLUSTER = str(ROOT / "costmodel/clusters/h100-hgx.json")
sys.path.insert(0, str(ROOT / "tests/library"))
import place as example  # noqa: E402

check = Check()


def run(*command, **options):
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=200, **options)


def install(prefix):
    made = run("make", "-C", ROOT, "-s", f"BUILD={BUILD}", f"VARIANT={VARIANT}", f"PREFIX={prefix}", "install")
    check(made.returncode == 0, f"make install: {made.stderr[-400:]}")
    have = sorted(str(p.relative_to(prefix)) for p in Path(prefix).rglob("*") if not p.is_dir())
    wanted = {"include/ballast.h", "lib/libballast.a", "lib/libballast.so", "lib/libballast.so.1", "lib/pkgconfig/ballast.pc",
              "bin/ballast-plan", "bin/ballast-trace"}
    return check(wanted <= set(have), f"installed: {have}")


def flags(prefix, *options):
    environment = {**os.environ, "PKG_CONFIG_PATH": f"{prefix}/lib/pkgconfig"}
    if shutil.which("pkg-config"):
        said = run("pkg-config", *options, "--cflags", "--libs", "ballast", env=environment)
        check(said.returncode == 0, f"pkg-config: {said.stderr}")
        return said.stdout.split()
    check.skip("pkg-config is not installed: its flags are written out here")
    more = ["-lcjson", "-lz", "-lm", "-lpthread"] if options else []
    return [f"-I{prefix}/include", f"-L{prefix}/lib", "-lballast", *more]


def compile_program(compiler, language, source, prefix, target):
    strict = {"c": ["-std=c99"], "c++": ["-std=c++11"]}[language]
    made = run(compiler, "-x", language, *strict, "-Wall", "-Wextra", "-Wpedantic", "-Werror", *SANITIZE, ROOT / "tests/library" / source,
               "-o", target, "-x", "none", *flags(prefix), f"-Wl,-rpath,{prefix}/lib", "-lm", "-lpthread")
    return check(made.returncode == 0, f"{source} as {language}: {made.stderr[:600]}")


def check_programs(prefix, work):
    sleeper = Path(work) / "sleeper"
    sleeper.write_text("#!/bin/sh\nexec sleep 60\n")
    sleeper.chmod(0o755)
    for compiler, language in (("cc", "c"), ("c++", "c++")):
        if not shutil.which(compiler):
            check.skip(f"{compiler} is not installed")
            continue
        program = f"{work}/check-{compiler}"
        if compile_program(compiler, language, "check.c", prefix, program):
            start = time.monotonic()
            done = run(program, f"{prefix}/bin/ballast-plan", MODEL, CLUSTER, sleeper)
            check(time.monotonic() - start < 50, "a program that never answers is killed at the deadline")
            check(done.returncode == 0 and ", 0 failed" in done.stdout and done.stderr == "",
                  f"check.c as {language}: {done.returncode} {done.stdout[-1500:]} {done.stderr[-1500:]}")
    if compile_program("cc", "c", "threads.c", prefix, f"{work}/threads"):
        done = run(f"{work}/threads", MODEL, CLUSTER, f"{prefix}/bin/ballast-plan")
        check(done.returncode == 0 and done.stderr == "", f"threads.c: {done.returncode} {done.stdout} {done.stderr[-1500:]}")


def check_example(prefix, work):
    """The published hotness that defeats EPLB on 8 x 2 slots: 232 against a mean of 181.25."""
    loads = [600, 560, 120, 120, 20, 10, 10, 10]
    if compile_program("cc", "c", "place.c", prefix, f"{work}/place"):
        done = run(f"{work}/place", 8, 2, input=" ".join(map(str, loads)))
        ranks = re.findall(r"^rank \d: (.*)$", done.stdout, re.M)
        slots = [re.findall(r"(\d+) \(([\d.]+)\)", rank) for rank in ranks]
        sums = [sum(loads[int(e)] * float(share) for e, share in rank) for rank in slots]
        check(done.returncode == 0 and len(sums) == 8 and max(sums) < 181.35 and "imbalance 1.000000" in done.stdout,
              f"place.c: {done.stdout} {done.stderr}")
        wrong = run(f"{work}/place", 8, 2, "nonsense", input="1 2 3 4 5 6 7 8")
        check(wrong.returncode == 1 and "rule \"nonsense\"" in wrong.stderr, f"place.c: {wrong.stderr}")
        static = f"{work}/place-static"
        library = [f for f in flags(prefix, "--static") if f != "-lballast"]
        made = run("cc", *SANITIZE, ROOT / "tests/library/place.c", f"{prefix}/lib/libballast.a", *library, "-o", static)
        same = made.returncode == 0 and run(static, 8, 2, input=" ".join(map(str, loads))).stdout == done.stdout
        check(same, f"place.c with libballast.a: {made.stderr[:400]}")
    if SANITIZE:
        return check.skip("a sanitized library cannot be loaded by Python")
    done = run(sys.executable, ROOT / "tests/library/place.py", f"{prefix}/lib/libballast.so", 8, 2, *loads)
    check(done.returncode == 0 and done.stdout.endswith("imbalance 1.000000\n"), f"place.py: {done.stdout} {done.stderr}")
    return None


FORBIDDEN = {"exit", "_exit", "_Exit", "quick_exit", "abort", "__assert_fail", "printf", "vprintf", "puts", "putchar", "perror", "stdout",
             "stderr", "stdin", "signal", "sigaction", "fork", "vfork", "system", "setlocale", "atexit", "__printf_chk"}
ALLOWED_DATA = {"__dso_handle", "__TMC_END__", "completed.0", "_DYNAMIC", "_GLOBAL_OFFSET_TABLE_"}


def check_symbols(prefix):
    library = f"{prefix}/lib/libballast.so.1"
    defined = [line.split() for line in run("nm", "-D", "--defined-only", library).stdout.splitlines()]
    header = (Path(prefix) / "include/ballast.h").read_text()
    declared = set(re.findall(r"\b(ballast_\w+)\(", re.sub(r"/\*.*?\*/", "", header, flags=re.S)))
    check({line[2] for line in defined} == declared and {line[1] for line in defined} == {"T"},
          f"exported and declared differ: {sorted({line[2] for line in defined} ^ declared)}")
    check("libballast.so.1]" in run("readelf", "-d", library).stdout, "the soname")
    if SANITIZE:
        return check.skip("a sanitized library brings the sanitizer's symbols")
    needed = {line.split()[-1].split("@")[0] for line in run("nm", "-D", "--undefined-only", library).stdout.splitlines()}
    check(not needed & FORBIDDEN, f"the library may not use {sorted(needed & FORBIDDEN)}")
    check(not [name for name in needed if name.startswith("glp_")], "the library may not use GLPK")
    libraries = set(re.findall(r"NEEDED.*\[(lib\w+|ld-)", run("readelf", "-d", library).stdout))
    check(libraries <= {"libcjson", "libz", "libm", "libc", "libpthread", "ld-"}, f"the library needs {libraries}")
    sections = {name: int(index) for index, name in re.findall(r"\[ *(\d+)\] (\.\S+)", run("readelf", "-SW", library).stdout)}
    writable = {sections.get(name) for name in (".data", ".bss", ".data1", ".common")} - {None}
    found = []
    for line in run("readelf", "-sW", library).stdout.splitlines():
        part = line.split()
        if len(part) == 8 and part[3] in ("OBJECT", "NOTYPE", "COMMON") and part[6].isdigit() and int(part[6]) in writable:
            found.append(part[7])
    check(set(found) <= ALLOWED_DATA, f"writable data of the library: {sorted(set(found) - ALLOWED_DATA)}")
    local = re.search(r"\.tbss +NOBITS +\S+ +\S+ +(\S+)", run("readelf", "-SW", library).stdout)
    check(local and int(local[1], 16) <= 4096, "memory that every thread of the caller's gets: the sentence and no more")
    archive = run("nm", "--defined-only", "-g", f"{prefix}/lib/libballast.a").stdout
    names = {line.split()[2] for line in archive.splitlines() if len(line.split()) == 3}
    check(names and not [n for n in names if not n.startswith(("bl_", "ballast_"))], "names in libballast.a begin with bl_ or ballast_")
    return None


class PolicyOptions(ctypes.Structure):
    _fields_ = [("bytes", ctypes.c_uint64), ("rule", ctypes.c_char_p), ("homes", ctypes.c_char_p), ("lag", ctypes.c_int64),
                ("late_repair", ctypes.c_double), ("copy_price", ctypes.c_double)]


class PolicyExtras(ctypes.Structure):
    _fields_ = [("bytes", ctypes.c_uint64), ("back_off", ctypes.c_int64)]


def steps_of(trace, experts):
    """counts[step][layer][source][expert] as flat lists, and the iteration numbers."""
    rows = [list(map(int, row.split(","))) for row in run(BUILD / "ballast-trace", "export", trace, "--to", "csv").stdout.split()[1:]]
    iterations = sorted({row[0] for row in rows})
    layers = max(row[1] for row in rows) + 1
    counts = {(i, l): [] for i in iterations for l in range(layers)}
    for row in rows:
        counts[row[0], row[1]] += row[4:4 + experts]
    return iterations, layers, counts


def check_decisions(prefix, work):
    """The hosts of a policy, step by step, are those that ballast-plan replay dumps; those of place its plan's."""
    if SANITIZE:
        return check.skip("a sanitized library cannot be loaded by Python")
    library = example.load_library(f"{prefix}/lib/libballast.so")
    experts, ranks, sources = 16, 4, 3
    trace = f"{work}/made.blt"
    run(BUILD / "ballast-trace", "gen", "--experts", experts, "--layers", 2, "--ranks", sources, "--micro-batches", 1, "--steps", 60, "--gini",
        0.5, "--total-variation", 0.05, "-o", trace)
    iterations, layers, counts = steps_of(trace, experts)
    for rule, homes, late, back_off in ((b"ballast", b"fixed", 0, 0), (b"ballast", b"cost", 1.02, 0), (b"ballast", b"free", 0, 0),
                                        (b"ballast", b"fixed", 0, 16), (b"smartmoe:5", b"fixed", 0, 0), (b"eplb:5", b"fixed", 0, 0)):
        slots = [5, 6, 4, 5]
        options = [] if rule != b"ballast" else ["--homes", homes.decode()]
        replayed = run(BUILD / "ballast-plan", "replay", "--trace", trace, "--ranks", ranks, "--slots", ",".join(map(str, slots)), "--policy",
                       rule.decode(), *options, *(["--late-repair", late] if late else []),
                       *(["--back-off", back_off] if back_off else []), "--dump", f"{work}/dump")
        check(replayed.returncode == 0, f"replay: {replayed.stderr}")
        wanted = {(line["step"], line["layer"]): line for line in map(json.loads, open(f"{work}/dump", encoding="ascii"))}
        handle, policy = ctypes.c_void_p(), ctypes.c_void_p()
        library.ballast_open(1, ctypes.byref(handle))
        shape = example.Shape(ctypes.sizeof(example.Shape), layers, experts, ranks, (ctypes.c_int32 * ranks)(*slots), None, None)
        own = PolicyOptions()
        library.ballast_policy_options_init(ctypes.byref(own))
        own.rule, own.homes, own.late_repair = rule, homes, late
        extras = PolicyExtras(ctypes.sizeof(PolicyExtras), back_off)
        made = library.ballast_policy_create_with(handle, ctypes.byref(shape), ctypes.byref(own), ctypes.byref(extras), ctypes.byref(policy))
        if not check(made == 0, f"{rule}: {library.ballast_message(handle)}"):
            continue
        same = 0
        for iteration in iterations:
            library.ballast_policy_begin_step(policy, ctypes.c_int64(iteration))
            for layer in range(layers):
                array = (ctypes.c_uint32 * (sources * experts))(*counts[iteration, layer])
                library.ballast_policy_micro_batch(policy, layer, array, sources, 0, None, None, None)
            library.ballast_policy_end_step(policy)
            for layer in range(layers):
                home, phy2log = (ctypes.c_int32 * experts)(), (ctypes.c_int32 * sum(slots))()
                library.ballast_policy_hosts(policy, layer, home, phy2log)
                copies, at = set(), 0
                for rank, n in enumerate(slots):
                    copies |= {(e, rank) for e in phy2log[at:at + n] if e >= 0 and home[e] != rank}
                    at += n
                line = wanted[iteration, layer]
                same += list(home) == line["home"] and copies >= {(c["expert"], c["rank"]) for c in line["copies"]}
        check(same == len(wanted), f"{rule.decode()} {homes.decode()}: {same} of {len(wanted)} decisions are those of replay")
        library.ballast_policy_free(policy)
        library.ballast_close(handle)
    loads = [sum(counts[iterations[0], 0][e::experts]) for e in range(experts)]
    planned = json.loads(run(BUILD / "ballast-plan", "place", "--trace", trace, "--steps", f"{iterations[0]}:{iterations[0]}", "--ranks", ranks, "--slots", 5,
                             "-o", f"{work}/plan.json", "--json").stdout)
    placed = json.load(open(f"{work}/plan.json", encoding="ascii"))["placement"]["layers"][0]
    phy2log, share, imbalance = example.place(library, loads, ranks, 5)
    copies = {(c["expert"], c["rank"]): c["share"] for c in placed["copies"]}
    mine = {(e, r): s for r in range(ranks) for e, s in zip(phy2log[r], share[r]) if e >= 0 and placed["home"][e] != r and s > 1e-9}
    check(copies.keys() == mine.keys() and all(abs(copies[k] - mine[k]) < 1e-6 for k in copies), f"place: {copies} against {mine}")
    check(abs(planned["layers"][0]["imbalance"] - imbalance) < 1e-6, "place: imbalance")
    return None


class SearchOptions(ctypes.Structure):
    _fields_ = [("bytes", ctypes.c_uint64), *((name, ctypes.c_char_p) for name in ("model_path", "model_text", "cluster_path", "cluster_text")),
                ("model_bytes", ctypes.c_uint64), ("cluster_bytes", ctypes.c_uint64), ("trace_path", ctypes.c_char_p),
                ("imbalance", ctypes.c_double), ("memory_fraction", ctypes.c_double),
                *((name, ctypes.c_int32) for name in ("ranks", "batch", "sequence", "top", "max_vp", "max_micro_batch", "copy_slots", "tp", "cp",
                                                      "dp", "pp", "vp", "etp", "ep", "micro_batch", "node_dispatch", "overlap")),
                ("type", ctypes.c_char_p)]


class SearchExtras(ctypes.Structure):
    _fields_ = [("bytes", ctypes.c_uint64), *((name, ctypes.c_int32) for name in ("simulate", "max_pieces", "shard", "gradient_bytes"))]


SIZES = ["tp", "cp", "dp", "pp", "vp", "etp", "ep", "edp", "zero", "micro_batch", "micro_batches"]
PARTS = ["dense", "experts", "recompute", "tensor", "context", "exchange", "send", "bubble", "reduce", "optimizer"]
RECOMPUTE = ["none", "selective", "ffn", "full"]


class Layout(ctypes.Structure):
    _fields_ = [*((name, ctypes.c_int32) for name in (*SIZES, "recompute")),
                *((name, ctypes.c_double) for name in ("step_us", "bound_us", "imbalance", "memory_bytes"))]


class Detail(ctypes.Structure):
    _fields_ = [("bytes", ctypes.c_uint64), ("closed_form_us", ctypes.c_double), ("simulated_us", ctypes.c_double),
                *((f"{name}_us", ctypes.c_double) for name in PARTS), ("pieces", ctypes.c_int32), ("shard", ctypes.c_int32)]


def check_search(prefix, work):
    """Searches find the layouts, times and bounds of ballast-plan search, simulated or in closed form."""
    if SANITIZE:
        return check.skip("a sanitized library cannot be loaded by Python")
    library = example.load_library(f"{prefix}/lib/libballast.so")
    library.ballast_found_bound_us.restype, library.ballast_found_undecided.restype = ctypes.c_double, ctypes.c_int64
    trace = f"{work}/skewed.blt"
    run(BUILD / "ballast-trace", "gen", "--experts", 8, "--layers", 2, "--ranks", 1, "--steps", 4, "--zipf", 0.8, "-o", trace)
    nemotron = str(ROOT / "costmodel/models/nemotron-3-nano-30b-a3b.json")
    for model, ranks, batch, words, own, extra in (
            (MODEL, 64, 256, [], {}, {}), (MODEL, 64, 256, ["--simulate", 0], {}, {"simulate": 0}),
            (MODEL, 32, 256, ["--max-pieces", 4, "--overlap", "exchange", "--shard", 4, "--gradients", "bf16"], {"overlap": 1},
             {"max_pieces": 4, "shard": 4, "gradient_bytes": 2}),
            (MODEL, 32, 128, ["--trace", trace, "--copy-slots", 1, "--type", "fp8", "--simulate", 3], {"trace_path": trace, "copy_slots": 1, "type": "fp8"},
             {"simulate": 3}), (nemotron, 64, 128, ["--dispatch", "choices"], {"node_dispatch": 0}, {})):
        done = run(BUILD / "ballast-plan", "search", "--model", model, "--cluster", CLUSTER, "--ranks", ranks, "--batch", batch, "--json", *words)
        check(done.returncode == 0, f"{words}: {done.stderr}")
        wanted = json.loads(done.stdout)
        handle, found, options = ctypes.c_void_p(), ctypes.c_void_p(), SearchOptions()
        library.ballast_open(1, ctypes.byref(handle))
        library.ballast_search_options_init(ctypes.byref(options))
        check(options.bytes == ctypes.sizeof(SearchOptions), "the options of a search have grown, older callers' have not")
        for name, value in {"model_path": model, "cluster_path": CLUSTER, "ranks": ranks, "batch": batch, "node_dispatch": 1, "overlap": 0, **own}.items():
            setattr(options, name, value.encode() if isinstance(value, str) else value)
        extras = SearchExtras(bytes=ctypes.sizeof(SearchExtras), **{"simulate": 200, **extra})
        made = library.ballast_search_with(handle, ctypes.byref(options), ctypes.byref(extras), ctypes.byref(found))
        if not check(made == 0, f"{words}: {library.ballast_message(handle)}"):
            continue
        check(library.ballast_found_count(found) == len(wanted["top"]) and library.ballast_found_simulated(found) == wanted["simulated"]
              and library.ballast_found_undecided(found) == wanted["open"], f"{words}: other numbers of layouts")
        check(abs(library.ballast_found_bound_us(found) / wanted["bound_us"] - 1) < 1e-8, f"{words}: another bound")
        for i, entry in enumerate(wanted["top"]):
            layout, detail = Layout(), Detail(bytes=ctypes.sizeof(Detail))
            stages = (ctypes.c_int32 * len(entry["stage_layers"]))()
            check(library.ballast_found_layout(found, i, ctypes.byref(layout)) == 0 and library.ballast_found_detail(found, i, ctypes.byref(detail)) == 0
                  and library.ballast_found_stages(found, i, stages) == 0, f"{words}: {library.ballast_message(handle)}")
            check([getattr(layout, name) for name in SIZES] == [entry[name] for name in SIZES] and RECOMPUTE[layout.recompute] == entry["recompute"]
                  and detail.pieces == entry["pieces"] and list(stages) == entry["stage_layers"], f"{words}: layout {i}: {entry}")
            times = [(layout.step_us, entry["step_us"]), (detail.closed_form_us, entry["closed_form_us"]), (layout.memory_bytes, entry["memory_bytes"]),
                     (detail.simulated_us, entry.get("simulated_us", 0)), *((getattr(detail, f"{p}_us"), entry["time_us"][p]) for p in PARTS)]
            check(all(abs(mine - theirs) <= 1e-8 * entry["memory_bytes" if mine == layout.memory_bytes else "step_us"] for mine, theirs in times),
                  f"{words}: layout {i}: {times}")
        library.ballast_found_free(found)
        library.ballast_close(handle)
    return None


def main():
    with tempfile.TemporaryDirectory() as work:
        prefix = f"{work}/installed"
        if install(prefix):
            check_programs(prefix, work)
            check_example(prefix, work)
            check_symbols(prefix)
            check_decisions(prefix, work)
            check_search(prefix, work)
    return check.end()


if __name__ == "__main__":
    sys.exit(main())
