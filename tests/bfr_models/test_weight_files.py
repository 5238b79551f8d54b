"""Which weight files are found where, what is said of those that are not, and the table of published ones."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import runpy
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import torch
from safetensors.torch import save_file

from bfr_models import registry
from bfr_models.errors import BfrError, UsageError
from bfr_models.training.registry import COMPONENTS
from bfr_models.weights.catalogue import CATALOGUE, WeightEntry, entries, entry_of
from bfr_models.weights.files import ASSETS, cache_folder, check_weight, find_weight, require_weight
from bfr_models.weights.tensors import encode_weights, load_weights, parameters_of, read_checkpoint, save_weights


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BFR_WEIGHTS", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({"BFR_WEIGHTS": "/mnt/weights"}, "/mnt/weights"),
        ({"XDG_CACHE_HOME": "/mnt/cache"}, "/mnt/cache/bfr/weights"),
        ({"BFR_WEIGHTS": "", "XDG_CACHE_HOME": ""}, "/home/ada/.cache/bfr/weights"),
        ({"BFR_WEIGHTS": "~/w"}, "/home/ada/w"),
    ],
)
def test_the_cache_is_where_the_environment_says(
    variables: dict[str, str], folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.delenv("BFR_WEIGHTS", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert str(cache_folder()) == folder


def test_a_weight_is_found_in_the_package_and_then_in_the_cache(cache: Path) -> None:
    network = torch.nn.Linear(2, 2)
    save_weights(parameters_of(network), {}, cache / "mine.safetensors")
    save_weights(parameters_of(network), {}, cache / "difface-face128-prior.safetensors")
    assert find_weight("mine") == cache / "mine.safetensors"
    assert find_weight("difface-face128-prior") == ASSETS / "difface-face128-prior.safetensors"
    assert find_weight("nobodys") is None


@pytest.mark.parametrize("gone", ["mine.safetensors", "mine.json"])
def test_half_a_weight_is_none(cache: Path, gone: str) -> None:
    save_weights(parameters_of(torch.nn.Linear(2, 2)), {}, cache / "mine.safetensors")
    (cache / gone).unlink()
    assert find_weight("mine") is None


def test_the_card_names_the_file_but_not_its_folder(cache: Path) -> None:
    (cache / "mine.json").write_text(json.dumps({"file": "/etc/hostname", "sha256": "0"}))
    assert find_weight("mine") is None


def test_a_damaged_file_in_the_cache_says_how_to_get_it_again(cache: Path) -> None:
    stem = "difface-ffhq512-prior"
    save_weights(parameters_of(torch.nn.Linear(2, 2)), {}, cache / f"{stem}.safetensors")
    assert len(check_weight(cache / f"{stem}.safetensors")) == 64
    (cache / f"{stem}.safetensors").write_bytes(b"?")
    with pytest.raises(BfrError, match=r"the file is damaged: get it again with `bfr weights fetch difface/ffhq512/p"):
        check_weight(cache / f"{stem}.safetensors")


def test_a_missing_weight_says_its_licence_and_the_commands(cache: Path) -> None:
    with pytest.raises(UsageError) as error:
        require_weight("difface-ffhq512-prior")
    for part in (
        str(cache), "S-Lab License 1.0, non-commercial use only", "`bfr weights fetch difface/ffhq512`",
        "`bfr weights import difface FILE...`",
    ):  # fmt: skip
        assert part in str(error.value)
    with pytest.raises(UsageError, match="come with the package"):
        require_weight("difface-face128-nothing")


def test_a_worker_loads_from_the_cache_what_was_planned_and_nothing_else(cache: Path) -> None:
    from bfr_models.methods._loading import load_component

    stem, network = "difface-ffhq512-estimator", torch.nn.Conv2d(3, 3, 1)
    sha256 = save_weights(parameters_of(network), {}, cache / f"{stem}.safetensors")
    assert registry._weight(stem) == {"file": f"{stem}.safetensors", "sha256": sha256}
    planned = dataclasses.replace(registry.resolve_method("estimator"), weights={"estimator": registry._weight(stem)})
    load_component(torch.nn.Conv2d(3, 3, 1), planned, "estimator", "cpu")
    save_weights({name: p + 1 for name, p in parameters_of(network).items()}, {}, cache / f"{stem}.safetensors")
    with pytest.raises(BfrError, match="as when the run was planned"):
        load_component(torch.nn.Conv2d(3, 3, 1), planned, "estimator", "cpu")


def test_methods_are_resolved_without_torch() -> None:
    code = "import sys; from bfr_models.registry import resolve_method; resolve_method('difface'); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert "bfr_models.registry" in loaded and "torch" not in loaded


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_encoding_changes_no_bit(dtype: torch.dtype, tmp_path: Path) -> None:
    weight = torch.randn(5, 3).to(dtype).T  # not contiguous
    (tmp_path / "w.safetensors").write_bytes(encode_weights({"w": weight}))
    read = read_checkpoint(tmp_path / "w.safetensors")["w"]
    assert read.dtype == dtype and torch.equal(read, weight)


def test_float32_weights_are_loaded_unrounded(tmp_path: Path) -> None:
    original, loaded = torch.nn.Linear(7, 5), torch.nn.Linear(7, 5)
    data = encode_weights(parameters_of(original))
    (tmp_path / "w.safetensors").write_bytes(data)
    card = {"file": "w.safetensors", "sha256": hashlib.sha256(data).hexdigest()}
    (tmp_path / "w.json").write_text(json.dumps(card))
    load_weights(loaded, tmp_path / "w.safetensors")
    assert torch.equal(loaded.weight, original.weight)


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("legacy", [False, True])
def test_a_checkpoint_is_read_in_every_format(tmp_path: Path, nested: bool, legacy: bool) -> None:
    state = {"a.weight": torch.randn(2, 3), "a.bias": torch.randn(2)}
    content = {"state_dict": state, "epoch": 3} if nested else state
    torch.save(content, tmp_path / "c.pth", _use_new_zipfile_serialization=not legacy)
    save_file(state, tmp_path / "c.safetensors")
    for name in ("c.pth", "c.safetensors"):
        read = read_checkpoint(tmp_path / name)
        assert read.keys() == state.keys() and all(torch.equal(read[key], state[key]) for key in state)


class Malicious:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('code of the checkpoint ran')",)


@pytest.mark.parametrize(
    "content", [Malicious(), {"a": Malicious()}, torch.zeros(2), [torch.zeros(2)], {"a": 1}], ids=lambda _: None
)
def test_a_checkpoint_of_anything_but_tensors_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "c.pth")
    with pytest.raises(BfrError, match=r"expected .*tensors.* at .*c\.pth"):
        read_checkpoint(tmp_path / "c.pth")


@pytest.mark.parametrize("data", [b"", b"<html>not found</html>", b"\x10\0\0\0\0\0\0\0{not json", b"PK\x03\x04cut"])
def test_what_is_no_checkpoint_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "c.pth").write_bytes(data)
    with pytest.raises(BfrError, match=r"expected a checkpoint of tensors at .*c\.pth"):
        read_checkpoint(tmp_path / "c.pth")


def test_catalogued_names_stems_and_files_are_unique() -> None:
    for values in ([e.name for e in CATALOGUE], [e.stem for e in CATALOGUE], [e.source_file for e in CATALOGUE]):
        assert len(set(values)) == len(values) == len(CATALOGUE)
    assert all("." not in entry.stem for entry in CATALOGUE)  # a suffix is what comes after the dot


@pytest.mark.parametrize("entry", CATALOGUE, ids=lambda entry: entry.name)
def test_a_catalogued_file_has_what_a_user_must_know(entry: WeightEntry) -> None:
    origin, licence = urlsplit(entry.origin), urlsplit(entry.licence_url)
    assert origin.scheme == licence.scheme == "https"
    assert entry.by_hand or origin.path.endswith(entry.source_file)
    assert entry.source_file.endswith((".pth", ".ckpt", ".onnx")), "what a converter reads"
    assert entry.licence and entry.what and entry_of(entry.stem) is entry
    assert entry.sha256 is None or (len(entry.sha256) == 64 and int(entry.sha256, 16))
    assert entry.size is None or 1e6 < entry.size < 1e9
    assert not entry.non_commercial or entry.licence.startswith(("S-Lab", "CC BY-NC"))
    hash_in_name = origin.path.removesuffix(".pth")[-9:]  # as torch.hub names files
    if origin.path.endswith(".pth") and hash_in_name.startswith("-"):
        assert entry.sha256 is not None and entry.sha256.startswith(hash_in_name[1:])


def test_the_converters_of_the_catalogue_exist() -> None:
    for entry in CATALOGUE:
        if entry.converter:
            module, _, function = entry.converter.partition(":")
            assert callable(getattr(import_module(module), function))


def test_a_name_stands_for_all_below_it() -> None:
    assert [entry.name for entry in entries("difface/ffhq512")] == [
        "difface/ffhq512/estimator",
        "difface/ffhq512/prior",
    ]
    assert len(entries("facexlib")) == len(entries("facexlib/")) == 4
    with pytest.raises(UsageError, match="unknown weights 'diff'; known: difface/ffhq512/estimator, "):
        entries("diff")


def test_presets_without_weights_in_the_package_have_them_in_the_catalogue_or_can_be_trained() -> None:
    for spec in registry.BUILT_IN:
        for preset in spec.presets:
            for stem in preset.weights.values():
                is_here = (ASSETS / f"{stem}.safetensors").exists() or entry_of(stem) is not None
                method, _, rest = stem.partition("-")
                assert is_here or (preset.size > 128 and (method, rest.rpartition("-")[2]) in COMPONENTS), stem


def test_what_ships_has_a_whole_card_and_the_page_of_cards_is_made_of_them() -> None:
    root = Path(__file__).parents[2]
    for path in ASSETS.glob("*-face[0-9]*-*.json"):
        card = json.loads(path.read_text())
        told = {"parameters", "data", "recipe", "held_out", "hardware", "licence", "intended_use", "known_failures"}
        assert told <= card.keys() and card["data"]["licences"], path.name
    render = runpy.run_path(str(root / "scripts/model_cards.py"))["render"]
    assert (ASSETS / "README.md").read_text() == render()
    assert sum(path.stat().st_size for path in ASSETS.glob("*.safetensors")) <= 48 * 2**20
