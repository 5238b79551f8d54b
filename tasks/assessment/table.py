"""The rows of an assessment: one per picture, with a list of its faces."""

from __future__ import annotations

import pyarrow as pa

from tasks.runs.selected_rows import ASSESSMENT, ASSESSMENT_RECORD

FOLDER, RECORD = ASSESSMENT, ASSESSMENT_RECORD
UNFINISHED = "assess.unfinished.json"
DUPLICATES = "duplicates.parquet"

FACE = pa.struct(
    [
        ("box", pa.list_(pa.float32())),  # x0, y0, x1, y1 in the picture
        ("landmarks", pa.list_(pa.float32())),
        ("score", pa.float32()),  # the detector's
        ("side", pa.float32()),  # of the crop, px of the picture
        ("blur", pa.float32()),  # sigma, px of the face at 128 px
        ("noise", pa.float32()),  # standard deviation, grey levels
        ("compression", pa.float32()),  # (100 - JPEG quality) / 100
        ("severity", pa.float32()),
        ("grain", pa.float32()),  # of the flat parts, grey levels
        ("gain", pa.float32()),
        ("spread", pa.float32()),
        ("harm", pa.float32()),
        ("outcome", pa.string()),
        ("preset", pa.string()),  # what would serve it; null if nothing is to be done
        ("reason", pa.string()),
    ]
)
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("outcome", pa.string()),
        ("error", pa.string()),  # code, as in `rejected/` of a run
        ("reason", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("faces", pa.list_(FACE)),
        ("faces_found", pa.int32()),
        ("severity", pa.float32()),  # the worst face's
        ("side", pa.float32()),  # the largest face's
        ("hash", pa.uint64()),  # perceptual, of the whole picture
        ("source_file", pa.string()),
        ("source_row", pa.int64()),
    ]
)
DUPLICATES_SCHEMA = pa.schema([("id", pa.string()), ("duplicate_of", pa.string()), ("bits", pa.int32())])
