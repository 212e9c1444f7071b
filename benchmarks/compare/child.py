"""One measurement with the sources of one tree and the questions of another, in a process.

Run as a file, with `PYTHONPATH` naming the tree whose `taqstore` is measured: the first argument is
the folder whose package `benchmarks` asks. Figures go to stdout as JSON, in the last line.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any


def asked_by(tree: str) -> None:
    """Import `benchmarks` from a tree, and everything else from where it is."""
    from importlib.util import module_from_spec, spec_from_file_location

    folder = Path(tree) / "benchmarks"
    spec = spec_from_file_location(
        "benchmarks", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None
    assert spec.loader is not None
    sys.modules["benchmarks"] = module_from_spec(spec)
    spec.loader.exec_module(sys.modules["benchmarks"])


def rows(work: str, scale: str, key: str, rounds: str) -> list[dict[str, Any]]:
    """Rows of a question of `python -m benchmarks`."""
    inputs = _inputs(work, scale)
    for name in ("question", "search_question"):
        module = importlib.import_module(f"benchmarks.{name}")
        module.peak_bytes = _peak_elsewhere  # type: ignore[attr-defined]
    # It takes a minute for each of our seconds, and no bound is about it.
    importlib.import_module("benchmarks.searches").PEERS.pop("onnxruntime entropy", None)
    questions = importlib.import_module("benchmarks.questions").QUESTIONS
    asked = questions[key].rows(inputs, key=key, rounds=int(rounds))
    return [row.as_json() for row in asked]


def peak(work: str, scale: str, key: str, contender: str) -> int:
    """Peak memory of one contender that answers twice."""
    questions = importlib.import_module("benchmarks.questions").QUESTIONS
    one = next(c for c in questions[key].contenders(_inputs(work, scale)) if c.name == contender)
    run = one.setup()
    for call in range(2):
        if one.prepare:
            one.prepare()
        run(call)
    status = Path("/proc/self/status").read_text()
    return int(dict(line.split(":", 1) for line in status.splitlines())["VmHWM"].split()[0]) * 1024


def _peak_elsewhere(inputs: Any, key: str, contender: str) -> int:
    command = [sys.executable, __file__, sys.argv[1], "peak", str(inputs.work), str(inputs.scale)]
    done = subprocess.run([*command, key, contender], stdout=subprocess.PIPE, check=True, text=True)
    return int(json.loads(done.stdout.splitlines()[-1]))


def prepare(work: str, scale: str, key: str) -> int:
    """Make what a question reads."""
    question = importlib.import_module("benchmarks.questions").QUESTIONS[key]
    inputs = _inputs(work, scale)
    question.contenders(inputs)
    return len(question.files(inputs))


def live(command: str, images: str, steps: str) -> dict[str, float]:
    """`collect` or `cache` of the reference model, against forwards alone (and a raw write)."""
    module = importlib.import_module("benchmarks.compare.live_rows")
    found: dict[str, float] = module.measured(command, int(images), int(steps))
    return found


def adaround(name: str, rounds: str) -> dict[str, float]:
    """An iteration with inputs of 8 bits against a bare forward and backward, as it prints them."""
    module = importlib.import_module("benchmarks.adaround")
    sys.argv[1:] = ["--only", name, "--rounds", rounds]
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        module.main()
    found = re.search(r": A8 .*?, ([\d.]+) of the bare passes", said.getvalue())
    if found is None:
        raise ValueError(said.getvalue())
    return {"ratio": float(found[1])}


def environment() -> dict[str, Any]:
    """Machine, versions, and with which BLAS was multiplied."""
    return dict(importlib.import_module("benchmarks.rows").environment())


def made(path: str, kind: str) -> str:
    """A store of a kind."""
    from taqstore.testing import make_sd3_store, make_store

    return str(make_sd3_store(path) if kind == "full" else make_store(path))


def _inputs(work: str, scale: str) -> Any:
    return importlib.import_module("benchmarks.inputs").Inputs(Path(work), float(scale))


def main() -> None:
    """Import from the right places, then measure."""
    tree, what, *words = sys.argv[1:]
    # The folder of this file is no place to import from.
    sys.path[:] = [path for path in sys.path if Path(path) != Path(__file__).parent]
    asked_by(tree)
    print(json.dumps(globals()[what](*words)))


if __name__ == "__main__":
    main()
