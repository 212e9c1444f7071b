"""What cannot be answered is the library's one line, with a status; answers are kept by ETag."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.testclient import TestClient

from support.asked import asking
from support.cli_runner import Runner
from taqstore.errors import (
    LayoutError,
    MissingError,
    MisuseError,
    SourceError,
    StoreError,
    SupersededError,
    TaqError,
)
from taqstore.serve.api import bounds
from taqstore.serve.http import formats
from taqstore.serve.http.problems import NotAcceptableError, TooLargeError, status_of

STORE = "/api/stores/run.zarr"


@pytest.mark.parametrize(
    ("asked", "command", "status"),
    [
        ("analyze/scales?site=mlp.fc9", "analyze scales RUN --site mlp.fc9", 400),
        ("analyze/scales?source=pooled/postgelu", "analyze scales RUN --source pooled/postgelu",
         404),
        ("analyze/scales?layer=mm9.img", "analyze scales RUN --layer mm9.img", 404),
        ("analyze/scales?step=9:1", "analyze scales RUN --step 9:1", 404),
        ("analyze/scales?step=x", "analyze scales RUN --step x", 400),
        ("analyze/smooth?weights=gptq", "analyze smooth RUN --weights gptq", 404),
        ("query/activations/mlp.fc9", "query RUN activations/mlp.fc9", 404),
        ("query/activations/mlp.fc2?variable=maximum", "query RUN activations/mlp.fc2 maximum",
         404),
        ("query/activations/mlp.fc2?reduce=batch", "query RUN activations/mlp.fc2 --reduce batch",
         400),
        ("diff/other.zarr?by=nothing", "diff RUN OTHER --by nothing", 404),
        ("diff/other.zarr?source=pooled/postgelu", "diff RUN OTHER --source pooled/postgelu", 404),
        ("export/safetensors?weights=gptq", "export safetensors RUN -o w.safetensors"
         " --weights gptq", 404),
        ("plot/range.png?layer=mm9.img", "plot range RUN -o plots --layer mm9.img", 404),
        ("plot/order.png?group=latents", "plot order RUN -o plots --group latents", 404),
    ],
)  # fmt: skip
def test_a_refusal_is_that_of_the_command(
    asked: str, command: str, status: int, client: TestClient, taq: Runner,
    two_runs: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    words = [
        {"RUN": str(two_runs[0]), "OTHER": str(two_runs[1])}.get(w, w) for w in command.split()
    ]
    answer, said = client.get(f"{STORE}/{asked}"), taq(*words)
    assert (answer.status_code, said.code) == (status, 2 if status == 400 else 1)
    assert said.err.splitlines()[-1].partition(": ")[2] == answer.json()["error"]


@pytest.mark.parametrize(
    ("address", "status", "text"),
    [
        ("/api/nothing", 404, "no endpoint /api/nothing"),
        ("/api/stores/rum.zarr", 404, "did you mean run.zarr?"),
        (f"{STORE}/analyze/scale", 404, "did you mean /api/stores/{store}/analyze/scales?"),
        (f"{STORE}/analyze/scales?bit=4", 400, "takes no 'bit'; did you mean bits?"),
        (f"{STORE}/analyze/scales?percentile=99", 400, "percentile goes with clip percentile"),
        (f"{STORE}/analyze/drift", 400, "give other, one of run.zarr, other.zarr"),
        (f"{STORE}/analyze/smooth?weights=/etc/passwd", 404, "no weight set '/etc/passwd'"),
        (f"{STORE}/plot/diff.png", 400, "needs the option 'other'"),
        (f"{STORE}/plot/range.gif", 404, "there is .png, .svg, .pdf, .csv, .zip"),
        (f"{STORE}/plot/range.png?page=99", 404, "no page '99'"),
        (f"{STORE}/diff/other.zarr?option=bits=4", 400, "option is one of an analysis"),
        (f"{STORE}/diff/other.zarr?variable=x", 400, "variable is one of a group"),
    ],
)
def test_what_is_asked_wrongly(address: str, status: int, text: str, client: TestClient) -> None:
    answer = client.get(address)
    assert answer.status_code == status
    assert list(answer.json()) == ["error"]
    assert text in answer.json()["error"]
    assert "\n" not in answer.json()["error"]


def test_every_kind_of_error_has_a_status() -> None:
    assert {kind.__name__: int(status_of(kind("it"))) for kind in (
        MisuseError, MissingError, NotAcceptableError, SupersededError, TooLargeError, TaqError,
        SourceError, LayoutError, StoreError,
    )} == {
        "MisuseError": 400, "MissingError": 404, "NotAcceptableError": 406, "SupersededError": 409,
        "TooLargeError": 413, "TaqError": 422, "SourceError": 422, "LayoutError": 422,
        "StoreError": 503,
    }  # fmt: skip


def test_answers_are_bounded(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = f"{STORE}/query/activations/mlp.fc2?variable=min"
    assert client.get(asked).status_code == 200
    with monkeypatch.context() as patch:
        patch.setattr(bounds, "MOST_ROWS", 100)
        answer = client.get(asked)
    assert answer.status_code == 413
    assert answer.json()["error"].endswith("narrow it with site, layer or step, or use the command"
                                           " line")  # fmt: skip
    for suffix in (".json", ".csv"):
        with monkeypatch.context() as patch:
            patch.setattr(formats, "MOST_BYTES", 1000)
            answer = client.get(asked.replace("?", f"{suffix}?"))
        assert (answer.status_code, "larger than" in answer.text) == (413, True)


def test_copies_of_large_groups_are_not_made(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds.Bounded.__init__, "__defaults__", (1000,))
    answer = client.get(f"{STORE}/export/timestep-stats")
    assert answer.status_code == 413
    assert "too much to hand out" in answer.json()["error"]


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("", "application/json"),
        ("*/*", "application/json"),
        ("text/html,application/xhtml+xml,*/*;q=0.8", "application/json"),
        ("text/csv", "text/csv; charset=utf-8"),
        ("text/*", "text/csv; charset=utf-8"),
        ("application/json;q=0.2, text/csv;q=0.9", "text/csv; charset=utf-8"),
        ("*/*, application/json;q=0", "text/csv; charset=utf-8"),
        ("application/x-parquet", "application/vnd.apache.parquet"),
        ("application/vnd.apache.arrow.file", "application/vnd.apache.arrow.file"),
    ],
)
def test_the_format_is_what_is_accepted(accept: str, kind: str, client: TestClient) -> None:
    address = f"{STORE}/analyze/scales?site=mlp.fc2&layer=mm1.img"
    answer = client.get(address, headers={"Accept": accept})
    assert (answer.status_code, answer.headers["content-type"]) == (200, kind)
    assert "Accept" in answer.headers["vary"]
    # A suffix is asked for by hand, and stands above what a browser accepts.
    suffixed = client.get(address.replace("?", ".csv?"), headers={"Accept": accept})
    assert suffixed.headers["content-type"] == "text/csv; charset=utf-8"


def test_nothing_that_is_accepted_can_be_given(client: TestClient) -> None:
    answer = client.get(f"{STORE}/analyze/scales", headers={"Accept": "image/png"})
    assert answer.status_code == 406
    assert "there is application/json, text/csv" in answer.json()["error"]


def test_an_answer_is_known_until_a_store_or_the_question_changes(client: TestClient) -> None:
    address = f"{STORE}/analyze/scales?site=mlp.fc2&layer=mm1.img"
    first = client.get(address)
    tag = first.headers["etag"]
    again = client.get(address, headers={"If-None-Match": f'"other", {tag}'})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    others = [
        f"{address}&bits=4",
        address.replace("scales", "scales.csv"),
        address.replace("run.zarr", "other.zarr"),
        address.replace("scales", "error"),
    ]
    assert len({tag, *(client.get(other).headers["etag"] for other in others)}) == 5
    # The default that was meant is another question of the same answer: no harm.
    assert client.get(f"{address}&bits=8").json()["tables"] == first.json()["tables"]


def test_the_head_alone(client: TestClient) -> None:
    for address in ("/api", STORE, f"{STORE}/analyze/scales.csv?site=mlp.fc2", "/api/docs"):
        whole, head = client.get(address), client.head(address)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["etag"] == whole.headers["etag"]
        assert head.headers["content-type"] == whole.headers["content-type"]


def test_a_store_that_cannot_be_read_is_said_where_stores_are_listed(
    two_runs: tuple[Path, Path], tmp_path: Path
) -> None:
    import shutil

    broken = tmp_path / "broken.zarr"
    shutil.copytree(two_runs[1], broken)
    client = asking(two_runs[0], broken)
    (broken / "zarr.json").write_bytes(b"{")
    listed = client.get("/api/stores").json()["stores"]
    assert [("error" in one, one["name"]) for one in listed] == [
        (False, "run.zarr"), (True, "broken.zarr"),
    ]  # fmt: skip
    refused = client.get("/api/stores/broken.zarr/groups")
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert refused.json()["error"] == listed[1]["error"]
