"""Work in another process: its answers are ours, and it outlives nobody who asked."""

from __future__ import annotations

import math
import operator
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from taqstore.run import apart as module
from taqstore.run.apart import apart

_LONG = 600.0
_ASKS = """
import os, sys, time
from taqstore.run.apart import apart

with apart() as submit:
    print(submit(os.getpid).result(), flush=True)
    asleep = submit(time.sleep, 600.0)
    while not asleep.done():  # CPython may miss a signal that comes as it begins to wait for good
        time.sleep(0.01)
"""


def _is_there(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def _gone(process: int, seconds: float = 60.0) -> bool:
    end = time.monotonic() + seconds
    while _is_there(process) and time.monotonic() < end:
        time.sleep(0.01)
    return not _is_there(process)


def test_calls_are_done_in_their_order_in_one_other_process() -> None:
    with apart() as submit:
        numbers = [submit(os.getpid) for _ in range(3)]
        roots = [submit(math.isqrt, n * n) for n in range(20)]
    assert [root.result() for root in roots] == list(range(20))
    (number,) = {future.result() for future in numbers}
    assert number != os.getpid()
    assert _gone(number)


def test_what_is_raised_there_is_raised_here_with_its_traceback() -> None:
    with apart() as submit:
        failed = submit(operator.truediv, 1, 0)
        assert submit(math.isqrt, 9).result() == 3
    with pytest.raises(ZeroDivisionError) as caught:
        failed.result()
    (note,) = caught.value.__notes__
    assert "Traceback" in note
    assert "function(*given)" in note


def test_an_answer_that_cannot_be_sent_is_an_error_that_says_so() -> None:
    with apart() as submit:
        failed = submit(compile, "1", "text", "eval")
        with pytest.raises(TypeError, match="pickle"):
            failed.result()


def test_what_is_printed_there_comes_between_no_answers(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with apart() as submit:
        submit(print, "said over there").result()
        assert submit(math.isqrt, 16).result() == 4
    assert capfd.readouterr() == ("", "said over there\n")


def test_calls_of_a_process_that_was_killed_are_done_here() -> None:
    with apart() as submit:
        number = submit(os.getpid).result()
        os.kill(number, signal.SIGKILL)
        assert submit(os.getpid).result() == os.getpid()
        assert submit(math.isqrt, 25).result() == 5


def test_where_no_process_can_be_had_a_thread_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.sys, "executable", "/nowhere/python")
    with apart() as submit:
        assert submit(os.getpid).result() == os.getpid()


def test_an_error_ends_it_whatever_it_is_at() -> None:
    asked = []

    def begun() -> None:
        with apart() as submit:
            asked.append(submit(os.getpid).result())
            submit(time.sleep, _LONG)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        begun()
    assert not _is_there(asked[0])


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_it_is_gone_with_the_process_that_asked(how: signal.Signals) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", _ASKS], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    with process:
        assert process.stdout is not None
        number = int(process.stdout.readline())
        assert _is_there(number)
        process.send_signal(how)
        process.wait(60)
    assert _gone(number)


def test_no_module_of_the_working_folder_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pickle.py").write_text("raise SystemExit(3)")
    monkeypatch.chdir(tmp_path)
    with apart() as submit:
        assert submit(os.getpid).result() != os.getpid()
