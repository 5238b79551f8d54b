"""Where landmarks lie in an aligned face: FFHQ's framing at 512 px, (x, y) in pixels.

Left and right are the viewer's.
"""

from __future__ import annotations

import numpy as np

from bfr_models.faces.types import Points

TEMPLATE_SIDE = 512

# Left eye, right eye, nose tip, left mouth corner, right mouth corner: the numbers of facexlib, by
# which the training faces of blind face restoration networks are aligned.
FFHQ_5: Points = np.array(
    [
        (192.98138, 239.94708),
        (318.90277, 240.1936),
        (256.63416, 314.01935),
        (201.26117, 371.41043),
        (313.08905, 371.15118),
    ]
)

# dlib's five points in the same framing, in dlib's order: right eye's outer and inner corner, left eye's
# outer and inner corner, base of the nose. Derived by scripts/derive_dlib_template.py: robust means over
# the 1,161 of 1,242 openly licensed aligned faces that dlib found; spread 5 to 8 px per axis.
DLIB_5: Points = np.array(
    [
        (341.55, 242.89),
        (292.55, 245.69),
        (169.36, 244.86),
        (218.29, 246.73),
        (256.90, 337.18),
    ]
)

# x0, y0, x1 of the square box that dlib's detector gives in the same framing: the mean over 150 aligned faces where it
# found one, with a spread of 20 px.
ALIGNED_BOX = (110.0, 162.0, 397.0)


def at_size(template: Points, size: int) -> Points:
    """A 512 px template in a crop of `size`: pixel centres stay on pixel centres."""
    return (template + 0.5) * (size / TEMPLATE_SIDE) - 0.5
