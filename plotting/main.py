"""The command: which logs, which figures, what is missing, exit codes (0 done, 1 wrong input, 2 usage, 3 machine)."""

import argparse
import os

from plotting import layout
from plotting.figure import say, write_json

INPUT_WRONG, MACHINE_FAILED, INTERRUPTED = 1, 3, 130


def main(arguments):
    """Runs the command and returns its exit code; no traceback reaches the user for anything a log can hold."""
    parser = argparse.ArgumentParser(prog="python3 -m plotting", description="Draws figures from a folder of logs.")
    parser.add_argument("logdir", help="the SmartMoE artifact's logs/, or a folder of Ballast's run logs (*.jsonl)")
    parser.add_argument("--out", required=True, metavar="DIR", help="where the figures go; made when it is not there")
    options = parser.parse_args(arguments)
    try:
        return _draw(options.logdir, options.out)
    except KeyboardInterrupt:
        say("interrupted")
        return INTERRUPTED
    except OSError as error:
        say(f"{error.filename or options.out}: {error.strerror or error}")
        return MACHINE_FAILED


def _draw(logdir, out):
    if not os.path.isdir(logdir):
        say(f"{logdir}: no such folder; a folder of logs was expected")
        return INPUT_WRONG
    kind = layout.kind(logdir)
    if not kind:
        say(f"{logdir}: holds neither the SmartMoE artifact's fig8 ... fig13 folders nor Ballast's run logs (*.jsonl)")
        return INPUT_WRONG
    figures, pages = _artifact(logdir) if kind == "artifact" else _own(logdir)
    drawn = [figure for figure in figures if figure.drawable()]
    for figure in figures:
        for sentence in figure.missing:
            say(f"missing: {sentence}")
    if not drawn:
        say(f"{logdir}: no figure can be drawn from these logs")
        return INPUT_WRONG
    _write(drawn, pages, out)
    return 0


def _write(figures, pages, out):
    from plotting.style import save

    os.makedirs(out, exist_ok=True)
    for figure in figures:
        paths = save(out, figure.name, pages(figure))
        write_json(os.path.join(out, f"{figure.name}.json"), {**figure.numbers, "missing": figure.missing})
        if figure.honest:
            write_json(os.path.join(out, f"{figure.name}_honest.json"), {**figure.honest, "missing": figure.missing})
        print(paths[0])


def _artifact(logdir):
    from plotting import artifact_bars, artifact_curves, draw_honest, draw_paper

    figures = [artifact_bars.build_fig8(logdir), artifact_bars.build_fig9(logdir), artifact_bars.build_fig10(logdir),
               artifact_curves.build_fig11(logdir), artifact_curves.build_fig12(logdir),
               artifact_curves.build_fig13(logdir)]
    return figures, lambda figure: [("", draw_paper.draw(figure)), ("_honest", draw_honest.draw(figure))]


def _own(logdir):
    from plotting import draw_own, own

    return own.build(logdir), draw_own.pages
