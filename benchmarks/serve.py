"""How soon `taqstore serve` answers, and its page in Chromium: `python -m benchmarks.serve`.

Needs `tests` on the path (`PYTHONPATH=.:tests`), Chromium and Playwright. The store is of
SD3-Medium's size (24 blocks, 25 steps, 5 batches) and is made in the work folder unless one is
named. Cold: the first question to a server that just began, its files in the page cache. Warm: the
same with other values, none of which was asked before.
"""

from __future__ import annotations

import argparse
import http.client
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlencode

from .measure import warm
from .wanted import HEAD, Row

_SERVED: Any = import_module("support.served")
_BROWSER: Any = import_module("support.browser")
COLD, WARM, USEFUL, MEMORY, WEIGHT = 1500, 300, 2000, 600, 3
CLIENTS = 50

# In the page, before anything of it runs: when the map first has a cell, as a user sees it.
DRAWN = """(() => {
  const look = () => {
    const canvas = document.querySelector("main canvas");
    if (canvas?.width > 0 && canvas.getContext("2d")
        .getImageData(0, 0, canvas.width, canvas.height).data.some((x) => x > 0)) {
      requestAnimationFrame((at) => { window.useful = performance.timeOrigin + at; });
    } else requestAnimationFrame(look);
  };
  addEventListener("DOMContentLoaded", () => requestAnimationFrame(look));
})()"""
PAINT = """() => performance.timeOrigin
  + performance.getEntriesByName("first-contentful-paint")[0].startTime"""
LOADED = """() => [...performance.getEntriesByType("navigation"),
  ...performance.getEntriesByType("resource")].map((e) => [e.name, e.transferSize])"""
# Milliseconds from an event of a slider to the first change of the numbers of the layer.
MOVED = """([name, to]) => new Promise((done) => {
  const slider = [...document.querySelectorAll('input[type="range"]')].find(
    (input) => input.labels[0]?.textContent === name);
  const watch = new MutationObserver(() => {
    watch.disconnect();
    requestAnimationFrame(() => done(performance.now() - from));
  });
  watch.observe(document.querySelector("main .figures"),
    { subtree: true, childList: true, characterData: true });
  const from = performance.now();
  slider.value = to;
  slider.dispatchEvent(new Event("input", { bubbles: true }));
})"""


@dataclass(frozen=True)
class Question:
    """One endpoint, with values of options that are asked for in turn."""

    path: str
    asked: Mapping[str, Any]
    varied: str = ""
    values: Sequence[Any] = ()

    def targets(self, store: str) -> Iterator[str]:
        """Addresses: the first is asked cold."""
        for value in self.values or [None]:
            words = {**self.asked, **({self.varied: value} if self.varied else {})}
            yield f"/api/stores/{store}/{self.path}?{urlencode(words, doseq=True)}"


LAYER = {"site": "mlp.fc2", "layer": "mm11.img"}
STEP = {**LAYER, "step": 12}
BITS = (4, 3, 5, 6, 7, 8)
BOUNDS = (20.0, 15.0, 10.0, 7.5, 5.0, 2.5)
AVERAGES = (5.0, 4.5, 5.5, 6.0, 6.5, 7.0)
LAYERS = ("mm11.img", "mm0.img", "mm5.txt", "mm17.img", "mm22.txt", "mm23.img")
QUESTIONS: Mapping[str, Question] = {
    "map of absmax": Question("map", {"quantity": "absmax"}),
    "map of SQNR by absmax": Question("map", {"quantity": "sqnr"}, "bits", BITS),
    "map of SQNR by least error": Question(
        "map", {"quantity": "sqnr", "clip": "mse"}, "bits", BITS
    ),
    "map of outliers": Question("map", {"quantity": "outliers"}, "threshold", (5, 4, 6, 8)),
    "map of some batches": Question("map", {"quantity": "absmax"}, "batch", ("0:2", "2:5", "1:4")),
    "layer, every rule": Question("layer", STEP, "bits", BITS),
    "price of bits": Question("price", STEP, "bits", BITS),
    "price of a bound": Question("price", {**STEP, "bits": 4, "lower": -1}, "upper", BOUNDS),
    "trajectory": Question("trajectory", {"site": "mlp.fc2", "bits": 4}, "layer", LAYERS),
    "channels": Question("channels", {"site": "mlp.fc2", "step": 12}, "layer", LAYERS),
    "images apart": Question("images", {"site": "mlp.fc2"}, "layer", LAYERS),
    "compare batches": Question(
        "compare", {"quantity": "absmax", "batch": "0:2"}, "other_batch", ("2:5", "3:5", "2:4")
    ),
    "plan of widths": Question("plan/widths", {}, "average", AVERAGES),
    "plan of groups": Question("plan/groups", LAYER, "bits", BITS),
}


@dataclass(frozen=True)
class Bench:
    """What is measured on: a store, how often, and where files may be put."""

    store: Path
    rounds: int
    folder: Path

    def server(self) -> Any:
        """A fresh one."""
        return closing(_SERVED.Served([self.store]))

    @property
    def name(self) -> str:
        """Of the store, in addresses."""
        return self.store.name


def answers(bench: Bench) -> Iterator[Row]:
    """Every question of the explorer, cold and warm, without a browser."""
    for name, question in QUESTIONS.items():
        targets = list(question.targets(bench.name))
        cold, later, size = [], [], 0
        for _ in range(bench.rounds):
            with bench.server() as server:
                times = []
                for target in targets:
                    milliseconds, size = asked(server.port, target)
                    times.append(milliseconds)
                cold.append(times[0])
                later += times[1:]
        yield Row(f"{name}, cold ({size / 1e3:.0f} kB)", round(median(cold)), COLD, "ms")
        if later:
            yield Row(f"{name}, warm, slowest of {len(later)}", round(max(later)), WARM, "ms")


def asked(port: int, target: str) -> tuple[float, int]:
    """Milliseconds to the last byte of an answer, and its bytes as they are sent."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=120)) as connection:
        began = time.perf_counter()
        connection.request("GET", target, headers={"Accept-Encoding": "gzip"})
        answer = connection.getresponse()
        body = answer.read()
        took = (time.perf_counter() - began) * 1e3
    if answer.status != 200:
        raise SystemExit(f"{target}: {answer.status} {body[:300]!r}")
    return took, len(body)


def pages(bench: Bench) -> Iterator[Row]:
    """The page from the command to the first picture, its weight, and its sliders."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        flags = [flag for flag in _BROWSER.FLAGS if flag != "--headless"]
        browser = playwright.chromium.launch(executable_path=_BROWSER.BROWSER, args=flags)
        yield from _first_pictures(bench, browser)
        yield from _interactions(bench, browser)
        browser.close()


def _first_pictures(bench: Bench, browser: Any) -> Iterator[Row]:
    started, useful, paint, weight = [], [], [], 0.0
    for _ in range(bench.rounds):
        began = time.time() * 1e3
        with bench.server() as server:
            started.append(time.time() * 1e3 - began)
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            page.add_init_script(DRAWN)
            opened = time.time() * 1e3
            page.goto(server.url("/"))
            while not page.evaluate("window.useful"):
                page.wait_for_timeout(5)
            useful.append(page.evaluate("window.useful") - began)
            paint.append(page.evaluate(PAINT) - opened)
            weight = sum(size for _, size in page.evaluate(LOADED))
            page.close()
    yield Row("server start to an address", round(median(started)), None, "ms")
    yield Row("server start to the first map drawn", round(median(useful)), USEFUL, "ms")
    yield Row("first paint after the address is opened", round(median(paint)), None, "ms")
    yield Row("the page with its first map, as sent", round(weight / 1e6, 3), WEIGHT, "MB")


SLIDERS = {
    "Bits": [3, 4, 5, 6, 7, 8],
    "Step": [3, 9, 15, 21, 6],
    "Upper bound": [350, 300, 250, 200],
}


def _interactions(bench: Bench, browser: Any) -> Iterator[Row]:
    with bench.server() as server:
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(server.url("/", store=bench.name, view="layer", **LAYER))
        page.wait_for_load_state("networkidle")
        for name, values in SLIDERS.items():
            times = [page.evaluate(MOVED, [name, value]) for value in values * bench.rounds]
            yield Row(f"slider {name}: input to changed number, median", round(median(times)),
                      None, "ms")  # fmt: skip
            yield Row(f"slider {name}: the slowest of {len(times)}", round(max(times)), WARM, "ms")
        page.close()


def memory(bench: Bench) -> Iterator[Row]:
    """The most that a server took that answered all of it, one after another and at once."""
    targets = [t for q in QUESTIONS.values() for t in q.targets(bench.name)]
    with bench.server() as server:
        idle = resident(server.process.pid)
        for target in targets:
            asked(server.port, target)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda target: asked(server.port, target), targets))
        yield Row("memory of a server that was asked nothing", round(idle), None, "MB")
        peak = resident(server.process.pid, "VmHWM")
        yield Row("memory of a server that was asked everything", round(peak), MEMORY, "MB")


def resident(process: int, field: str = "VmRSS") -> float:
    """MB of a process."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return int(dict(line.split(":", 1) for line in lines)[field].split()[0]) / 1024


def chunks(bench: Bench) -> Iterator[Row]:
    """Files of data to 50 clients at once, beside a static file server of the same kind."""
    files = [p for p in (bench.store / "activations").rglob("c/**/*") if p.is_file()]
    keys = [path.relative_to(bench.store).as_posix() for path in sorted(files)][:2000]
    warm([bench.store / key for key in keys])
    ours, plain = [], []
    with bench.server() as server, static(bench.store.parent) as port:
        for _ in range(bench.rounds):
            ours.append(fetched(server.port, [f"/zarr/{bench.name}/{key}" for key in keys]))
            plain.append(fetched(port, [f"/{bench.name}/{key}" for key in keys]))
    ratio = median(a / b for a, b in zip(plain, ours, strict=True))
    yield Row(f"chunks to {CLIENTS} clients", round(median(ours)), None, "MB/s")
    yield Row("chunks: of a plain static server's throughput", round(ratio, 2), 2, "times slower")


def static(folder: Path) -> Any:
    """Starlette's files under the same server, in a process of its own; its port."""
    return _Static(folder)


class _Static:
    _CODE = """
import sys, uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles
app = Starlette(routes=[Mount("/", StaticFiles(directory=sys.argv[1]))])
uvicorn.run(app, port=int(sys.argv[2]), log_level="warning")
"""

    def __init__(self, folder: Path) -> None:
        self.port: int = _SERVED.free_port()
        command = [sys.executable, "-c", self._CODE, str(folder), str(self.port)]
        self.process = subprocess.Popen(command)

    def __enter__(self) -> int:
        _SERVED.wait_for(self.port)
        return self.port

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(30)


# A process of its own: clients in this one would share its lock with the measuring.
_CLIENTS = """
import http.client, itertools, json, sys, threading, time
port, count, targets = json.load(sys.stdin)
turn, lock, total = itertools.count(), threading.Lock(), [0]
def client():
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    size = 0
    while (number := next(turn)) < len(targets):
        connection.request("GET", targets[number])
        answer = connection.getresponse()
        size += len(answer.read())
        assert answer.status == 200, (targets[number], answer.status)
    with lock:
        total[0] += size
threads = [threading.Thread(target=client) for _ in range(count)]
began = time.perf_counter()
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(total[0] / 1e6 / (time.perf_counter() - began))
"""


def fetched(port: int, targets: Sequence[str]) -> float:
    """MB/s of all clients together, each with one connection."""
    done = subprocess.run([sys.executable, "-c", _CLIENTS], check=True, stdout=subprocess.PIPE,
                          input=json.dumps([port, CLIENTS, list(targets)]).encode())  # fmt: skip
    return float(done.stdout)


ROWS: Mapping[str, Callable[[Bench], Iterator[Row]]] = {
    f.__name__: f for f in (answers, pages, memory, chunks)
}


def main() -> None:
    """Print the table; exit code 1 where something wanted was not found."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serve", description=__doc__)
    parser.add_argument("--only", action="append", choices=list(ROWS), help="may be repeated")
    parser.add_argument("--store", type=Path, help="a store of SD3-Medium's size [made]")
    parser.add_argument("--rounds", type=int, default=5, help="fresh servers each [5]")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = given.store or _made(folder / "sd3.zarr")
        warm([store])
        bench = Bench(store.resolve(), given.rounds, folder)
        print(HEAD, flush=True)
        rows = []
        for word in given.only or ROWS:
            for row in ROWS[word](bench):
                print(row.line, flush=True)
                rows.append(row)
    sys.exit(not all(row.met for row in rows))


def _made(path: Path) -> Path:
    from taqstore.testing import make_sd3_store

    print(f"making {path}", file=sys.stderr, flush=True)
    return make_sd3_store(path)


if __name__ == "__main__":
    main()
