"""Ballast's run log: JSON lines. The first holds the command, the configuration, the seed and what was read; then an
object a step.

    {"command": ["ballast-train", ...], "config": {"ranks": 2, "steps": 300, "policy": "ballast", "gate": "naive", ...},
     "seed": 1, "inputs": [{"what": "data", "path": ..., "crc32": ...}], ...}
    {"step": 1, "loss": 5.54, "step_us": 210000, "layers": [{"imbalance": 1.02, "copies": 2, "moved": 0, "late": false}], ...}

A resumed run appends a line of the first kind and goes on, perhaps from an earlier step: what it repeats replaces what
stood there.
"""

import re
from dataclasses import dataclass, field

from plotting.errors import LogError
from plotting.formats.common import check_keys, integer, json_object, number, read_bytes, shorten, split_lines

_STEP = ("step", "loss", "step_us", "layers")
_STEP_MAY = ("grad_norm", "lr", "tokens", "tokens_per_s", "mfu", "phases", "moved_bytes", "fill_bytes", "plan_version",
             "balance_loss", "memory_bytes", "peak_bytes")
_LAYER = ("imbalance", "copies", "moved", "late")
_NAME = re.compile(r"[\w.:+-]+\Z")


@dataclass
class Run:
    """One training run; lists are in step order, step k at index k - 1; layer values are [step][layer]."""

    path: str
    policy: str = ""
    gate: str = ""
    ranks: int = 0
    planned: tuple = ()  # steps at which the run was to end: as the command says, and the end of its schedule
    from_plan: bool = False  # started from a plan file
    command: list = field(default_factory=list)
    cut: bool = False
    resumed: int = 0
    losses: list = field(default_factory=list)
    step_us: list = field(default_factory=list)
    tokens: list = field(default_factory=list)
    moved_bytes: list = field(default_factory=list)
    fill_bytes: list = field(default_factory=list)
    imbalance: list = field(default_factory=list)
    copies: list = field(default_factory=list)
    moved: list = field(default_factory=list)
    late: list = field(default_factory=list)
    phases: list = field(default_factory=list)

    def steps(self):
        return len(self.step_us)

    def status(self):
        return "complete" if self.steps() in self.planned else "truncated"

    def system(self):
        """The bar or curve this run is: its policy, or how its routing or its start was fixed."""
        if self.gate == "uniform":
            return "uniform"
        if self.from_plan and self.policy == "static":
            return "planned"
        return self.policy

    def gate_name(self):
        """The gate as a label: a recorded trace goes by its file's name."""
        kind, _, rest = self.gate.partition(":")
        return f"{kind}:{rest.rpartition('/')[2]}" if rest else kind


def read_run(path):
    """A run log. A last line that is cut off (a run killed while writing) is left out and noted in `cut`."""
    lines, cut = split_lines(read_bytes(path))
    if not lines:
        raise LogError(path, 0, "is empty; a line with the command was expected")
    run = Run(str(path), cut=cut)
    for at, line in enumerate(lines, start=1):
        if cut and at == len(lines):
            break
        record = json_object(line, path, at)
        if "command" in record:
            _take_head(run, record, at)
        elif at == 1:
            raise LogError(path, 1, 'the first line holds the run: the key "command" is missing')
        else:
            _take_step(run, record, at)
    if not run.command:
        raise LogError(path, 1, "the line with the command is cut off")
    return run


def _take_head(run, record, at):
    if run.command:
        run.resumed += 1
        check_keys(record, run.path, at, "run", ("config",), None)
        if not isinstance(record["config"], dict) or "steps" not in record["config"]:
            raise LogError(run.path, at, "config.steps: is missing")
        run.planned += (integer(record["config"]["steps"], run.path, at, "config.steps", high=1 << 40),)
        return
    check_keys(record, run.path, at, "run", ("command", "config", "seed"), None)
    command, config, inputs = record["command"], record["config"], record.get("inputs", [])
    if not isinstance(command, list) or not command or not all(isinstance(word, str) for word in command):
        raise LogError(run.path, at, "command: an array of words was expected")
    if not isinstance(config, dict):
        raise LogError(run.path, at, "config: an object was expected")
    if not isinstance(inputs, list) or not all(isinstance(entry, dict) for entry in inputs):
        raise LogError(run.path, at, "inputs: an array of objects was expected")
    check_keys(config, run.path, at, "config", ("policy", "gate", "ranks", "steps"), None)
    run.command = command
    for name in ("policy", "gate"):
        if not isinstance(config[name], str) or not config[name]:
            raise LogError(run.path, at, f"config.{name}: a word was expected, found {shorten(config[name])}")
    run.policy, run.gate = config["policy"], config["gate"]
    if not _NAME.match(run.policy):
        raise LogError(run.path, at, f"config.policy: a policy's name was expected, found {shorten(run.policy)}")
    run.ranks = integer(config["ranks"], run.path, at, "config.ranks", low=1, high=1 << 20)
    ends = (config["steps"], config.get("schedule_steps", config["steps"]))
    run.planned = tuple(integer(end, run.path, at, "config.steps", high=1 << 40) for end in ends)
    run.from_plan = any(entry.get("what") == "plan" for entry in inputs)


def _take_step(run, record, at):
    path = run.path
    check_keys(record, path, at, "step", _STEP, _STEP_MAY)
    step = integer(record["step"], path, at, "step", low=1)
    if step != run.steps() + 1:
        if not run.resumed or step > run.steps():
            raise LogError(path, at, f"step {run.steps() + 1} was expected, found {step}")
        _forget_from(run, step)
    layers = record["layers"]
    if not isinstance(layers, list) or not all(isinstance(layer, dict) for layer in layers):
        raise LogError(path, at, "layers: an array of objects was expected")
    if run.imbalance and len(layers) != len(run.imbalance[0]):
        raise LogError(path, at, f"layers: {len(run.imbalance[0])} layers were expected, found {len(layers)}")
    for i, layer in enumerate(layers):
        check_keys(layer, path, at, f"layers[{i}]", _LAYER, ())
    phases = record.get("phases", {})
    if not isinstance(phases, dict):
        raise LogError(path, at, "phases: an object was expected")
    values = {
        "losses": number(record["loss"], path, at, "loss"),
        "step_us": number(record["step_us"], path, at, "step_us", low=1e-9),
        "tokens": integer(record.get("tokens", 0), path, at, "tokens"),
        "moved_bytes": integer(record.get("moved_bytes", 0), path, at, "moved_bytes"),
        "fill_bytes": integer(record.get("fill_bytes", 0), path, at, "fill_bytes"),
        "imbalance": [number(layer["imbalance"], path, at, f"layers[{i}].imbalance", low=0.999, high=1e6)
                      for i, layer in enumerate(layers)],
        "copies": [integer(layer["copies"], path, at, f"layers[{i}].copies") for i, layer in enumerate(layers)],
        "moved": [integer(layer["moved"], path, at, f"layers[{i}].moved") for i, layer in enumerate(layers)],
        "late": [_flag(layer["late"], path, at, f"layers[{i}].late") for i, layer in enumerate(layers)],
        "phases": {name: number(us, path, at, f"phases.{shorten(name, 30)}", low=0) for name, us in phases.items()},
    }
    for name, value in values.items():
        getattr(run, name).append(value)


def _flag(value, path, at, what):
    if isinstance(value, bool):
        return int(value)
    return integer(value, path, at, what)


def _forget_from(run, step):
    for name in ("losses", "step_us", "tokens", "moved_bytes", "fill_bytes", "imbalance", "copies", "moved", "late",
                 "phases"):
        del getattr(run, name)[step - 1:]
