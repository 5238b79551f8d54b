"""The table of methods: what is known, what is refused, and when a fingerprint changes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from bfr_models import registry
from bfr_models.errors import UsageError
from bfr_models.methods.preset import Preset
from bfr_models.registry import MethodSpec, load_method, methods, resolve_method
from bfr_models.weights import files


@pytest.mark.parametrize("module", ["bfr_models.registry", "tasks.config.restore"])
def test_methods_are_listed_and_checked_without_torch(module: str) -> None:
    code = (
        f"import sys, {module}; from bfr_models.registry import methods, resolve_method\n"
        "for name in methods(): resolve_method(name).fingerprint\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_preset_of_before_is_described_as_before_so_that_its_runs_go_on() -> None:
    assert "detail" not in resolve_method("difface").description["preset"]
    assert resolve_method("difface", "face256").description["preset"]["detail"]["channels"] == (48, 96)


class TestRefusals:
    def test_an_unknown_method_lists_the_known(self) -> None:
        with pytest.raises(UsageError, match="unknown method 'diface'; known: passthrough, estimator, difface"):
            resolve_method("diface")

    def test_an_unknown_preset_lists_those_of_the_method(self) -> None:
        with pytest.raises(UsageError, match="unknown preset of passthrough 'hd'; known: face128, face256, ffhq512"):
            resolve_method("passthrough", "hd")

    def test_an_unknown_option_lists_those_of_the_method(self) -> None:
        known = "precision, self_ensemble, start_timestep, steps, sampler, eta"
        with pytest.raises(UsageError, match=f"unknown option 'step' of difface; known: {known}"):
            resolve_method("difface", options={"step": 5})
        with pytest.raises(UsageError, match="unknown option 'eta' of passthrough; known: none"):
            resolve_method("passthrough", options={"eta": 1})

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"steps": 0}, r"expected steps in 1\.\.121 \(start_timestep \+ 1\), got 0"),
            ({"steps": 122}, r"expected steps in 1\.\.121 \(start_timestep \+ 1\), got 122"),
            ({"start_timestep": 2}, r"expected steps in 1\.\.3 \(start_timestep \+ 1\), got 4"),
            ({"start_timestep": -1}, "expected steps"),
            ({"start_timestep": 301}, "expected start_timestep <= 300"),
            ({"eta": -0.1}, r"expected eta in \[0, 1\], got -0\.1"),
            ({"eta": 1.5}, r"expected eta in \[0, 1\], got 1\.5"),
            ({"eta": float("nan")}, r"expected eta in \[0, 1\], got nan"),
            ({"sampler": "euler"}, r"unknown sampler 'euler'; known: ddim, dpm\+\+"),
            ({"precision": "int8"}, "unknown precision 'int8'; known: auto, fp32, bf16, fp16"),
            ({"steps": "many"}, "expected option 'steps' of difface to be int, got 'many'"),
            ({"steps": 7.5}, r"expected option 'steps' of difface to be int, got 7\.5"),
            ({"compile": 1}, "expected option 'compile' of difface to be bool, got 1"),
            ({"eta": "0.5"}, r"expected option 'eta' of difface to be float, got '0\.5'"),
        ],
    )
    def test_an_option_out_of_range_is_refused_before_any_work(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises(UsageError, match=message):
            resolve_method("difface", options=options)

    def test_weights_that_are_nowhere_are_named(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr(files, "ASSETS", tmp_path)
        monkeypatch.setenv("BFR_WEIGHTS", str(tmp_path / "cache"))
        expected = f"difface-face128-estimator_unet in the package or in {tmp_path / 'cache'}"
        with pytest.raises(UsageError, match=expected):
            resolve_method("estimator")


class TestFingerprint:
    CHANGES = ({"steps": 19}, {"eta": 0.0}, {"sampler": "ddim"}, {"start_timestep": 151}, {"precision": "bf16"})

    def test_it_changes_with_every_option_method_and_preset(self) -> None:
        resolved = [resolve_method("difface", options=change) for change in ({}, *self.CHANGES)]
        resolved += [resolve_method("estimator"), *(resolve_method("passthrough", p) for p in ("face128", "ffhq512"))]
        assert len({r.fingerprint for r in resolved}) == len(resolved)

    @pytest.mark.parametrize("component", ["estimator", "prior"])
    def test_it_changes_with_the_weights(self, component: str) -> None:
        resolved = resolve_method("difface")
        other = {**resolved.weights, component: {**resolved.weights[component], "sha256": "0" * 64}}
        assert replace(resolved, weights=other).fingerprint != resolved.fingerprint

    def test_it_does_not_change_with_how_a_setting_is_written(self) -> None:
        plain = resolve_method("difface")
        assert resolve_method("difface", "face128", {"eta": 0.5, "steps": 4}).fingerprint == plain.fingerprint
        assert replace(plain, weights=dict(reversed(plain.weights.items()))).fingerprint == plain.fingerprint
        one, other = {"eta": 1, "steps": 5}, {"steps": 5, "eta": 1.0}
        assert (
            resolve_method("difface", options=one).fingerprint == resolve_method("difface", options=other).fingerprint
        )


@dataclass(frozen=True)
class SharpenOptions:
    amount: float = 1.0
    radius: int | None = None


SHARPEN = MethodSpec(
    "sharpen", "sharpen_faces:Sharpen", "-", "an unsharp mask", (Preset("any", 64, "MIT", SharpenOptions()),)
)


class TestPlugins:
    @pytest.fixture
    def installed(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[EntryPoint]]:
        """The entry points of the packages installed beside this one."""
        entries: list[EntryPoint] = []
        monkeypatch.setattr(registry, "entry_points", lambda group: entries if group == "bfr.methods" else [])
        methods.cache_clear()
        yield entries
        methods.cache_clear()

    def entry(self, spec: object, monkeypatch: pytest.MonkeyPatch) -> EntryPoint:
        module = ModuleType("sharpen_faces")
        module.__dict__.update(SPEC=spec, Sharpen=lambda *arguments: arguments)
        monkeypatch.setitem(sys.modules, "sharpen_faces", module)
        return EntryPoint("sharpen", "sharpen_faces:SPEC", "bfr.methods")

    def test_a_method_of_another_package_is_listed_resolved_and_loaded(
        self, installed: list[EntryPoint], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        installed.append(self.entry(SHARPEN, monkeypatch))
        assert list(methods()) == ["passthrough", "estimator", "difface", "diffbfr", "clr_face", "sharpen"]
        resolved = resolve_method("sharpen", options={"amount": 2, "radius": 3})
        assert (resolved.options, resolved.weights) == (SharpenOptions(2.0, 3), {})
        assert load_method(resolved, "cpu") == (resolved, "cpu")

    @pytest.mark.parametrize(
        "spec", ["no spec at all", replace(SHARPEN, name="difface")], ids=["a string", "a name taken"]
    )
    def test_an_entry_point_that_is_no_new_method_is_named(
        self, spec: object, installed: list[EntryPoint], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        installed.append(self.entry(spec, monkeypatch))
        with pytest.raises(UsageError, match="entry point 'sharpen_faces:SPEC': expected a MethodSpec with a new name"):
            methods()
