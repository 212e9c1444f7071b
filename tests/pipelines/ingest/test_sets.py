"""AdaRound outputs as weight sets: beside each other, replaced alone, in older stores too."""

from __future__ import annotations

from pathlib import Path

import pytest
from taqstore.pipelines.ingest import ingest

from support.adaround_output import make_output, members_of
from support.same_files import files_of
from taqstore import create_store, open_store
from taqstore.errors import MisuseError, SourceError, StoreError
from taqstore.export.formats import export
from taqstore.kinds.quantized_linears import quantized_blocks, quantized_linears
from taqstore.kinds.weight_sets import weight_sets
from taqstore.names import array_key, path_in_block
from taqstore.pipelines import ingest as module
from taqstore.run.mode import Mode
from taqstore.store.attributes import attribute_of
from taqstore.testing import RunShape, make_latents
from taqstore.upkeep.verify import verify_store


def assert_holds(store: Path, name: str, source: Path) -> None:
    members, opened = members_of(source), open_store(store)
    for block in quantized_blocks(opened, set=name):
        for linear in quantized_linears(opened, block, set=name):
            stem = f"{block}.{array_key(path_in_block(linear.name))}"
            assert linear.weight.tobytes() == members[f"{stem}__weight_int"].tobytes()
            assert linear.bits == 4


def exported(store: Path, folder: Path, name: str) -> dict[str, bytes]:
    export("adaround", open_store(store), folder, weights=name)
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_two_outputs_in_one_store(tmp_path: Path) -> None:
    first, second = make_output(tmp_path / "a"), make_output(tmp_path / "b", later=True, groups=2)
    store = tmp_path / "s.zarr"
    ingest([first], store)
    before = files_of(store, "weights", "reconstruction")
    ingest([second], store, set="b")
    assert before.items() <= files_of(store, "weights", "reconstruction").items()
    assert weight_sets(open_store(store)) == ("adaround", "b")
    ingest([first], store, mode=Mode(resume=True))
    with pytest.raises(StoreError, match="weights/b/"):
        ingest([second], store, set="b")
    kept = files_of(store, "weights/adaround", "reconstruction")
    ingest([first], store, set="b", mode=Mode(force=True))
    assert files_of(store, "weights/adaround", "reconstruction") == kept
    assert_holds(store, "adaround", first)
    assert_holds(store, "b", first)
    assert verify_store(store).damage == ()
    one, two = (exported(store, tmp_path / f"out-{n}", n) for n in ("adaround", "b"))
    assert one == two


def test_a_store_without_sets_goes_on_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, old, new = make_output(tmp_path / "a", later=True), tmp_path / "o", tmp_path / "n"
    part = (source / "weights" / "mm1.npz").read_bytes()
    (source / "weights" / "mm1.npz").unlink()
    with create_store(old):
        pass
    with monkeypatch.context() as patch:
        patch.setattr(module, "folder_of", lambda paths, name: "weights")
        assert len(ingest([source], old).problems) == 1
    opened = open_store(old)
    assert "weights/mlp.fc1" in opened
    assert "method" not in attribute_of(opened["weights/mlp.fc1"], "run")
    (source / "weights" / "mm1.npz").write_bytes(part)
    assert ingest([source], old, mode=Mode(resume=True)).problems == []
    assert quantized_blocks(open_store(old)) == ["mm0", "mm1"]
    assert not any(path.startswith("weights/adaround") for path in open_store(old))
    before = files_of(old, "weights/mlp.fc1", "weights/attn.qkv", "reconstruction")
    ingest([source], old, set="b")
    assert files_of(old, "weights/mlp.fc1", "weights/attn.qkv", "reconstruction") == before
    ingest([source], new)
    told = [exported(old, tmp_path / "w1", "adaround"), exported(old, tmp_path / "w2", "b"),
            exported(new, tmp_path / "w3", "adaround")]  # fmt: skip
    assert told[0] == told[1] == told[2]
    assert verify_store(old).damage == ()


def test_a_set_is_of_weights(tmp_path: Path) -> None:
    source = make_output(tmp_path / "a")
    with pytest.raises(MisuseError, match="is no name of a weight set"):
        ingest([source], tmp_path / "s.zarr", set="A")
    shape = RunShape(images=1, steps=2, blocks=1, hidden=4, image_tokens=4, text_tokens=2,
                     latent=(2, 2), channels=4)  # fmt: skip
    run = make_latents(tmp_path / "run", shape=shape)
    with pytest.raises(SourceError, match="--set names quantized weights, and none are among"):
        ingest([run], tmp_path / "t.zarr", set="b")
