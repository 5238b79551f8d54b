"""The challenge's thresholds, for the challenge's recogniser alone."""

import pytest

from bfr_models.errors import UsageError
from bfr_models.metrics.identity_gates import ADAFACE, GATES, gate_for


def test_thresholds_are_the_challenges() -> None:
    thresholds = {gate.profile: gate.threshold for gate in GATES}
    assert thresholds == {"celeba": 0.5, "lfw": 0.6, "childhood": 0.6, "wild": 0.3, "webphoto": 0.3}
    assert gate_for("wild", ADAFACE).threshold == 0.3


def test_a_threshold_is_not_lent_to_another_recogniser() -> None:
    with pytest.raises(UsageError, match=r"adaface_ir50_ms1mv2 .* found dlib_resnet_v1, .*give a number"):
        gate_for("celeba", "dlib_resnet_v1")
    with pytest.raises(UsageError, match="unknown identity profile 'celebs'; known: celeba, lfw"):
        gate_for("celebs", ADAFACE)
