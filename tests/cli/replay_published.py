#!/usr/bin/env python3
"""SmartMoE's decisions as published with its figure 13: which iterations changed the placement, and to what, one by one."""
import json
import os
import sys
import tarfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from support.programs import ROOT, Check, folder, must  # noqa: E402

TRACE = ROOT.parent / "shared/data/smartmoe_moe_trace_1-2491.tar.xz"
PUBLISHED = ROOT.parent / "shared/reference/smartmoe_fig13_freq10.json"
check = Check()


def main():
    if not TRACE.exists() or not PUBLISHED.exists():
        check.skip("the recorded trace or the published decisions are not beside the project")
        return
    published = json.loads(PUBLISHED.read_text(encoding="utf-8"))["freq10"]
    with folder() as tmp:
        with tarfile.open(TRACE) as archive:
            archive.extractall(tmp)
        text = next(e.path for e in os.scandir(tmp) if e.is_dir())
        must("ballast-trace", "import", "--from", "smartmoe", text, "-o", f"{tmp}/t.blt")
        must("ballast-plan", "replay", "--trace", f"{tmp}/t.blt", "--policy", "smartmoe:10", "--ties", "numpy", "--layers", 6, "--source-rank", 0,
             "--micro-batch", 0, "--lag", 0, "--ranks", 8, "--dump", f"{tmp}/d.jsonl")
        with open(f"{tmp}/d.jsonl", encoding="utf-8") as file:
            rows = [json.loads(line) for line in file]
    homes = {row["step"]: row["home"] for row in rows}
    before, changes = [e // 4 for e in range(32)], []
    for step, home in homes.items():
        if home != before:
            changes.append(step)
        before = home
    expected = [i for i in published["change_iters"] if i <= rows[-1]["step"]]
    check(changes == expected, f"changes at {changes}, published {expected}")
    for step, slots in published["first_mappings"]:
        check(homes[step] == [s // 4 for s in slots], f"placement at iteration {step}: {homes[step]}, published slots {slots}")


main()
sys.exit(check.end())
