"""The challenge's thresholds, for the challenge's recogniser alone."""

import pytest

from bfr_models.errors import UsageError
from bfr_models.faces.recognisers import ADAFACE
from bfr_models.metrics.identity_gates import GATES, PROFILES, gate_for, gate_of


def test_thresholds_are_the_challenges() -> None:
    thresholds = {gate.profile: gate.threshold for gate in GATES}
    assert thresholds == {"celeba": 0.5, "lfw": 0.6, "childhood": 0.6, "wild": 0.3, "webphoto": 0.3}
    assert gate_for("wild", ADAFACE).threshold == 0.3
    assert tuple(thresholds) == PROFILES


def test_a_threshold_is_not_lent_to_another_recogniser() -> None:
    with pytest.raises(UsageError, match=r"adaface_ir50_ms1mv2 .* found dlib_resnet_v1, .*give a number"):
        gate_for("celeba", "dlib_resnet_v1")
    with pytest.raises(UsageError, match="unknown identity profile 'celebs'; known: celeba, lfw"):
        gate_for("celebs", ADAFACE)


def test_a_number_holds_for_whatever_recogniser() -> None:
    gate = gate_of(0.85, "dlib_resnet_v1")
    assert (gate.profile, gate.threshold, gate.recogniser) == (None, 0.85, "dlib_resnet_v1")
    assert gate_of("lfw", ADAFACE) == gate_for("lfw", ADAFACE)
