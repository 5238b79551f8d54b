"""A curated dataset: each row of the run is in it or in `dropped.parquet`, and its statistics are those of its rows."""

import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from huggingface_hub import DatasetCard

from bfr_models.errors import UsageError
from bfr_models.faces.recognisers import ADAFACE
from bfr_models.metrics.frechet import INCEPTION, FeatureSource, FeatureStatistics, frechet_distance
from flows.restore_dataset import restore_without_prefect
from tasks.config.curate import CurateRun
from tasks.curate_run import curate_run
from tasks.curation.files import safe_name
from tasks.curation.profiles import profile_conditions
from tasks.datasets.image_column import IMAGE
from tasks.runs.source import open_source
from tasks.scoring.face_vectors import SCHEMA, SOURCE_KEY
from tasks.scoring.subset_statistics import OF_THE_RUN
from tests import support

HOSTILE = ("../../x", "/etc/passwd", "<script>alert(1)</script>", "a.b.c", "..", "", "nul\x00", "é" * 300, "C:\\x|y")
ROWS = 18


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 18 rows: hostile ids, each of two; row 3 is broken, rows 4 and 5 have the picture of row 6."""
    folder = tmp_path_factory.mktemp("curate")
    rows = support.rows(ROWS)
    for i, row in enumerate(rows):
        picture = support.encoded(support.portrait(6 if i in (4, 5) else i))
        row |= {"id": HOSTILE[i % 9], "image": {"bytes": picture, "path": None}, "who": "ab"[i % 3 == 0], "n": i}
        row["gt"] = {"bytes": support.encoded(support.portrait(60 + i)), "path": None}
        row["source_file"] = f"scan-{i}"  # a name of ours
    rows[3]["image"] = {"bytes": b"no picture", "path": None}
    support.write(folder / "src" / "a.parquet", rows)
    restore_without_prefect(support.run(folder, gt_column="gt", recogniser="none"))
    return folder / "dst"


def curated(made: Path, tmp_path: Path, **asked: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    record = curate_run(CurateRun(source=str(made), destination=str(tmp_path / "out"), **asked))
    return record, pq.read_table(tmp_path / "out" / "data").to_pylist()


def curated_files(made: Path, tmp_path: Path, form: str, **asked: Any) -> None:
    curate_run(CurateRun(source=str(made), destination=str(tmp_path / "out"), format=form, **asked))


def run_rows(made: Path) -> list[dict[str, Any]]:
    return support.table(made / "data").to_pylist()


def dropped(tmp_path: Path) -> list[dict[str, Any]]:
    return pq.read_table(tmp_path / "out" / "dropped.parquet").to_pylist()


def test_every_row_is_kept_or_dropped_for_a_reason_and_says_where_it_is_from(made: Path, tmp_path: Path) -> None:
    record, rows = curated(made, tmp_path, where="who = 'a'", top_k=5, by="n")
    assert [row["n"] for row in rows] == [11, 13, 14, 16, 17]  # the highest, in the order of the run
    assert record["counts"] == {"rows": 17, "kept": 5, "dropped": 12}
    assert [(step["step"], step["left"]) for step in record["steps"]] == [
        ("rows of the run", 17), ("who = 'a'", 12), ("not of the 5 highest n", 5),
    ]  # fmt: skip
    reasons = [row["reason"] for row in dropped(tmp_path)]
    assert (reasons.count("who = 'a'"), reasons.count("not of the 5 highest n")) == (5, 7)
    places = {(row["source_file"], row["source_row"]) for row in rows + dropped(tmp_path)}
    assert len(places) == 17
    for row in rows:
        there = pq.read_table(made / row["source_file"]).to_pylist()[row["source_row"]]
        assert row["source_run"] == str(made)
        assert row["source_source_file"] == f"scan-{row['n']}"  # the input's own column has moved aside
        assert all(row[name] == value for name, value in there.items() if name != "source_file")


def test_every_row_says_which_row_of_the_source_it_was_restored_from(made: Path, tmp_path: Path) -> None:
    """Also behind row 3, which was rejected."""
    file = made.parent / "src" / "a.parquet"
    inputs = pq.read_table(file)["n"].to_pylist()
    _, rows = curated(made, tmp_path, where="n % 2 = 0")
    assert {row["origin_file"] for row in rows + dropped(tmp_path)} == {str(file)}
    assert [inputs[row["origin_row"]] for row in rows] == [row["n"] for row in rows] == list(range(0, 18, 2))
    assert [row["origin_row"] for row in dropped(tmp_path)] == [n for n in range(1, 18, 2) if n != 3]


def test_it_is_a_dataset_like_any_other(made: Path, tmp_path: Path) -> None:
    curated(made, tmp_path, top_k=9, by="n", ascending=True)
    (found,) = open_source(str(tmp_path / "out"))
    assert found[1].path == "data/part-00000.parquet"
    schema = pq.read_schema(tmp_path / "out" / "data" / "part-00000.parquet")
    features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    assert features["restored"] == {"_type": "Image"} and schema.field("restored").type == IMAGE
    again = support.run(tmp_path, source=str(tmp_path / "out"), column="restored", recogniser="none")
    restore_without_prefect(again)
    assert len(run_rows(tmp_path / "dst")) == 9


@pytest.mark.parametrize("form", ["parquet", "webdataset", "folder"])
def test_the_card_names_the_files_of_the_dataset_alone(form: str, made: Path, tmp_path: Path) -> None:
    """As `load_dataset` reads it."""
    curated_files(made, tmp_path, form)
    card = DatasetCard.load(tmp_path / "out" / "README.md")
    ((name, pattern),) = ((one["config_name"], one["data_files"]) for one in card.data.to_dict()["configs"])
    found = {path for path in (tmp_path / "out").glob(pattern) if path.is_file()}
    assert name == "default" and found == {path for path in (tmp_path / "out" / "data").rglob("*") if path.is_file()}


def test_the_card_says_how_many_rows_there_are_how_they_came_and_under_which_licences(tmp_path: Path) -> None:
    licences = ["CC BY 4.0", "CC BY 4.0", None, "`<b>own</b>`\n# x"]
    rows = [row | {"n": i, "License": licences[i]} for i, row in enumerate(support.rows(4))]
    support.write(tmp_path / "src" / "a.parquet", rows)
    restore_without_prefect(support.run(tmp_path, recogniser="none"))
    curated(tmp_path / "dst", tmp_path, where="n > 0")
    text = (tmp_path / "out" / "README.md").read_text()
    assert "3 of the 4 rows that the method `passthrough` restored" in text and f"from `{tmp_path}/dst`" in text
    assert "- where: `n > 0`" in text and "1. `n > 0`: 1 dropped, 3 left" in text
    lines = {line for line in text.splitlines() if "`License`" in line}
    values = ("`CC BY 4.0`", "`None`", "`<b>own</b> # x`")
    assert lines == {f"- column `License`, 1 rows: {value}" for value in values}


def test_statistics_are_those_of_the_kept_rows(made: Path, tmp_path: Path) -> None:
    record, rows = curated(made, tmp_path, where="n % 2 = 0")
    for name in ("psnr", "ssim"):
        values = np.array([row[name] for row in rows], np.float64)
        found = record["statistics"][name]
        assert found["n"] == len(values) == 9
        assert found["mean"] == pytest.approx(values.mean(), rel=1e-9)
        assert found["std"] == pytest.approx(values.std(ddof=1), rel=1e-6)
    why = support.record(made)["statistics"]["identity_similarity"]["why"]
    assert record["statistics"]["identity_similarity"] == {"value": None, "why": why}
    assert record["statistics"]["fid"]["value"] is None and record["statistics"]["fid"]["why"]


def test_everything_kept_has_the_statistics_of_the_run(made: Path, tmp_path: Path) -> None:
    record, rows = curated(made, tmp_path)
    before = support.record(made)["statistics"]
    assert len(rows) == 17
    for name in ("psnr", "ssim", "identity_similarity", "fid"):
        assert record["statistics"][name] == before[name]


def with_features(made: Path, folder: Path) -> tuple[Path, np.ndarray, np.ndarray]:
    """The run as if the Inception had seen each face and its ground truth."""
    rng = np.random.default_rng(0)
    features, gt = rng.standard_normal((2, 17, 12)).astype(np.float32)
    features[5] = features[6] * 2  # rows 6 and 7 of the input, of which the third is broken
    for path in made.rglob("*"):
        if path.is_file():
            (folder / path.relative_to(made)).parent.mkdir(parents=True, exist_ok=True)
            (folder / path.relative_to(made)).write_bytes(path.read_bytes())
    manifest = pq.read_table(folder / "manifest.parquet").to_pylist()
    about = {SOURCE_KEY: json.dumps(vars(FeatureSource(INCEPTION, "ab", "pytorch-fid")))}
    first = 0
    for entry in manifest:
        ids = pq.read_table(folder / entry["data"])["id"].to_pylist()
        rows = [
            {"id": row_id, "face": 0, "inception": features[first + i], "inception_gt": gt[first + i]}
            for i, row_id in enumerate(ids)
        ]
        entry["features"] = f"features/{entry['shard']}.parquet"
        (folder / "features").mkdir(exist_ok=True)
        table = support.pa.Table.from_pylist(rows, schema=SCHEMA.with_metadata(about))
        pq.write_table(table, folder / entry["features"])
        first += len(ids)
    schema = pq.read_schema(folder / "manifest.parquet")
    pq.write_table(support.pa.Table.from_pylist(manifest, schema=schema), folder / "manifest.parquet")
    record = support.record(folder)
    record["measures"]["inception"] = {"name": INCEPTION, "sha256": "ab"}
    (folder / "run.json").write_text(json.dumps(record))
    return folder, features, gt


def test_fid_is_that_of_the_kept_faces_and_of_their_ground_truth(made: Path, tmp_path: Path) -> None:
    run, features, gt = with_features(made, tmp_path / "run")
    record, rows = curated(run, tmp_path, where="n > 3")
    numbers = [row["n"] for row in run_rows(run)]
    kept = np.array([number > 3 for number in numbers])
    source = FeatureSource(INCEPTION, "ab", "pytorch-fid")
    sides = [FeatureStatistics.from_features(side[kept], source, "all").gaussian() for side in (features, gt)]
    found = record["statistics"]["fid"]
    assert found["value"] == pytest.approx(frechet_distance(*sides).value, rel=1e-9)
    assert (found["n"], found["n_reference"], found["reference"]) == (len(rows), len(rows), "gt") == (14, 14, "gt")


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 6 rows in one shard, with the embeddings of their faces and of their ground truth."""
    pytest.importorskip("dlib")
    folder = tmp_path_factory.mktemp("embedded")
    rows = [row | {"n": i} for i, row in enumerate(support.rows(6))]
    for i, row in enumerate(rows):
        row["gt"] = {"bytes": support.encoded(support.portrait(60 + i)), "path": None}
    support.write(folder / "src" / "a.parquet", rows)
    restore_without_prefect(support.run(folder, gt_column="gt", recogniser="dlib", keep_embeddings=True, shard_rows=6))
    return folder / "dst"


def distance_of(run: Path, numbers: slice, gt_numbers: slice) -> float:
    features = support.table(run / "features")
    source = FeatureSource("dlib_resnet_v1", None)
    sides = [(features["embedding"], numbers), (features["embedding_gt"], gt_numbers)]
    a, b = (
        FeatureStatistics.from_features(np.stack(column.to_numpy())[rows], source, "all").gaussian()
        for column, rows in sides
    )
    return frechet_distance(a, b).value


def test_embeddings_are_compared_with_those_of_the_kept_rows_ground_truth(embedded: Path, tmp_path: Path) -> None:
    record, _ = curated(embedded, tmp_path, where="n > 1")
    found = record["statistics"]["fd_dlib_resnet_v1"]
    assert (found["n"], found["n_reference"], found["reference"]) == (4, 4, "gt")
    assert found["value"] == pytest.approx(distance_of(embedded, slice(2, 6), slice(2, 6)), rel=1e-9)


def test_a_run_without_the_embeddings_of_its_ground_truth_says_what_stood_for_it(
    embedded: Path, tmp_path: Path
) -> None:
    older = tmp_path / "older"
    shutil.copytree(embedded, older)
    (path,) = (older / "features").iterdir()
    pq.write_table(pq.read_table(path).drop_columns(["embedding_gt"]), path)
    record, _ = curated(older, tmp_path, where="n > 1")
    found = record["statistics"]["fd_dlib_resnet_v1"]
    assert (found["n"], found["n_reference"], found["reference"]) == (4, 6, OF_THE_RUN)
    assert found["value"] == pytest.approx(distance_of(embedded, slice(2, 6), slice(0, 6)), rel=1e-9)


def test_a_distance_from_many_parts_is_that_of_all_kept_faces_in_float64(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To 1e-9, the precision of the statistics, without any code of theirs."""
    monkeypatch.setattr("tasks.scoring.subset_statistics._TOGETHER", 3)
    run, features, gt = with_features(made, tmp_path / "run")
    record, _ = curated(run, tmp_path, where="n > 3")
    kept = np.array([row["n"] > 3 for row in run_rows(run)])
    (m, a), (k, b) = ((x.mean(0), np.cov(x.T)) for x in (side[kept].astype(np.float64) for side in (features, gt)))
    roots = np.sqrt(np.linalg.eigvals(a @ b).astype(np.complex128)).real.sum()
    expected = ((m - k) ** 2).sum() + np.trace(a) + np.trace(b) - 2 * roots
    assert record["statistics"]["fid"]["value"] == pytest.approx(expected, rel=1e-9)


def test_features_of_other_rows_are_not_taken(made: Path, tmp_path: Path) -> None:
    run, _, _ = with_features(made, tmp_path / "run")
    first, second = sorted((run / "features").iterdir())[:2]
    first.write_bytes(second.read_bytes())
    with pytest.raises(Exception, match="bfr verify"):
        curated(run, tmp_path)


def test_near_duplicates_are_found_by_the_features_of_the_run(made: Path, tmp_path: Path) -> None:
    run, _, _ = with_features(made, tmp_path / "run")
    record, _ = curated(run, tmp_path, dedupe=0.999, by="n", ascending=True)
    assert record["dedupe"]["look"] == "inception" and record["dedupe"]["dropped"] == 1
    (gone,) = dropped(tmp_path)
    assert gone["reason"] == "near-duplicate" and gone["similarity"] == pytest.approx(1)
    place = pq.read_table(run / gone["kept_file"]).to_pylist()[gone["kept_row"]]
    assert (place["id"], place["n"]) == (gone["kept_id"], 6)


def test_of_a_group_of_near_duplicates_the_best_is_kept(made: Path, tmp_path: Path) -> None:
    record, rows = curated(made, tmp_path, dedupe=0.9999, by="n")
    assert record["dedupe"]["look"] == "perceptual" and record["dedupe"]["name"] == "luma32-dct63"
    kept = [row["n"] for row in rows]
    assert 6 in kept and 4 not in kept and 5 not in kept
    gone = [row for row in dropped(tmp_path) if row["reason"] == "near-duplicate"]
    assert len(gone) == record["dedupe"]["dropped"] == 17 - len(rows)
    assert {row["kept_id"] for row in gone if row["id"] in (HOSTILE[4], HOSTILE[5])} == {HOSTILE[6]}


@pytest.mark.parametrize("asked", [{"top_k": 3}, {"dedupe": 0.9999}, {"stratify": "who", "per_stratum": 2}])
def test_the_order_of_files_changes_nothing(tmp_path: Path, asked: dict[str, Any]) -> None:
    found = []
    for order in (1, -1):
        folder = tmp_path / str(order)
        rows = [row | {"id": f"{i}", "who": "ab"[i % 3 == 0], "n": i // 2} for i, row in enumerate(support.rows(8))]
        for number, start in enumerate(range(0, 8, 4)[::order]):
            support.write(folder / "src" / f"{number}.parquet", rows[start : start + 4])
        restore_without_prefect(support.run(folder, recogniser="none"))
        _, kept = curated(folder / "dst", folder, by="n", **asked)
        found.append(sorted(row["id"] for row in kept))
    assert found[0] == found[1]


def test_strata_are_sampled_alike(made: Path, tmp_path: Path) -> None:
    _, rows = curated(made, tmp_path / "1", stratify="who")
    assert [row["who"] for row in rows].count("a") == [row["who"] for row in rows].count("b") == 5
    _, two = curated(made, tmp_path / "2", stratify="who", per_stratum=2, seed=1)
    assert sorted(row["who"] for row in two) == ["a", "a", "b", "b"]
    _, other = curated(made, tmp_path / "3", stratify="who", per_stratum=2, seed=2)
    assert {row["n"] for row in two} != {row["n"] for row in other}


@pytest.mark.parametrize("per_stratum", [None, 2])
def test_rows_without_a_stratum_are_dropped_and_do_not_count(per_stratum: int | None, tmp_path: Path) -> None:
    who = [None, "a", "a", "a", "b", "b", "b", "b"]
    rows = [row | {"who": name} for row, name in zip(support.rows(8), who, strict=True)]
    support.write(tmp_path / "src" / "a.parquet", rows)
    restore_without_prefect(support.run(tmp_path, recogniser="none"))
    record, kept = curated(tmp_path / "dst", tmp_path, stratify="who", per_stratum=per_stratum)
    each = per_stratum or 3
    assert sorted(row["who"] for row in kept) == each * ["a"] + each * ["b"]
    assert [row["id"] for row in dropped(tmp_path) if row["reason"] == "who is null"] == ["a.parquet#0"]
    assert record["steps"][1] == {"step": "who is null", "dropped": 1, "left": 7}


@pytest.fixture(scope="module")
def scored(embedded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run with cosines of faces that are not the same any more, alike, and nearly equal; row 5 is blurred."""
    run = tmp_path_factory.mktemp("scored") / "dst"
    shutil.copytree(embedded, run)
    (path,) = (run / "data").iterdir()
    rows = pq.read_table(path).to_pylist()
    for row, similarity in zip(rows, (0.87, 0.88, 0.93, 0.94, 1.0, 1.0), strict=True):
        row["identity_similarity"] = similarity
        row["faces"][0]["sharpness"] = 2.4 if row["n"] == 5 else 2.5
    pq.write_table(support.pa.Table.from_pylist(rows, schema=pq.read_schema(path)), path)
    return run


@pytest.mark.parametrize(("profile", "kept"), [("archive", [1, 2, 3, 4, 5]), ("training-set", [3, 4])])
def test_a_profile_keeps_the_rows_that_pass_its_gates(
    profile: str, kept: list[int], scored: Path, tmp_path: Path
) -> None:
    _, rows = curated(scored, tmp_path, profile=profile)
    assert [row["n"] for row in rows] == kept


@pytest.mark.parametrize(("profile", "threshold"), [("archive", 0.3), ("training-set", 0.5)])
def test_the_profiles_know_adafaces_cosines(profile: str, threshold: float) -> None:
    assert profile_conditions(profile, ADAFACE)[-1] == f"identity_similarity >= {threshold}"


def test_webdataset_has_a_key_for_each_row_whatever_its_id(made: Path, tmp_path: Path) -> None:
    curated_files(made, tmp_path, "webdataset")
    with tarfile.open(tmp_path / "out" / "data" / "part-00000.tar") as archive:
        names = archive.getnames()
        texts = [json.load(archive.extractfile(name)) for name in names if name.endswith(".json")]  # type: ignore[arg-type]
        samples = {name.partition(".")[0]: archive.extractfile(name).read() for name in names if name.endswith("x.png")}  # type: ignore[union-attr]
    assert len(names) == len(set(names)) == 3 * 17  # restored, gt, text
    assert len({name.partition(".")[0] for name in names}) == 17
    assert all("/" not in name and ".." not in name and name.isascii() for name in names)
    by_number = {row["n"]: row for row in run_rows(made)}
    assert [text["id"] for text in texts] == [row["id"] for row in by_number.values()]
    assert samples["00000000-x"] == by_number[0]["restored"]["bytes"]


def test_a_folder_stays_inside_itself(made: Path, tmp_path: Path) -> None:
    curated_files(made, tmp_path, "folder", top_k=17, by="n")
    folder = tmp_path / "out" / "data" / "00000"
    lines = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    rows = run_rows(made)
    assert [line["id"] for line in lines] == [row["id"] for row in rows]
    for line, row in zip(lines, rows, strict=True):
        assert (folder / line["file_name"]).read_bytes() == row["restored"]["bytes"]
        assert (folder / line["gt_file_name"]).read_bytes() == row["gt"]["bytes"]
    assert {path.parent for path in tmp_path.rglob("*.png")} == {folder}


@pytest.mark.parametrize("form", ["folder", "webdataset"])
def test_columns_of_pictures_have_files_of_their_own(form: str, tmp_path: Path) -> None:
    columns = ["photograph_front_side_scan", "photograph_front_side_mask", "Gt", "gt"]
    pictures = {name: support.encoded(support.portrait(i)) for i, name in enumerate(columns, 1)}
    rows = support.rows(1, **{name: {"bytes": data, "path": None} for name, data in pictures.items()})
    support.write(tmp_path / "src" / "a.parquet", rows)
    restore_without_prefect(support.run(tmp_path, recogniser="none"))
    curated_files(tmp_path / "dst", tmp_path, form)
    folder = tmp_path / "out" / "data"
    if form == "folder":
        line = json.loads((folder / "00000" / "metadata.jsonl").read_text())
        found = {name: (folder / "00000" / line[f"{name}_file_name"]).read_bytes() for name in columns}
    else:
        with tarfile.open(folder / "part-00000.tar") as archive:
            members = {name: archive.extractfile(name).read() for name in archive.getnames()}  # type: ignore[union-attr]
        words = ("photograph_front_sid", "photograph_front_sid_2", "gt", "gt_2")
        (key,) = {name.partition(".")[0] for name in members}
        found = {name: members[f"{key}.{word}.png"] for name, word in zip(columns, words, strict=True)}
    assert found == pictures


@pytest.mark.parametrize("row_id", HOSTILE)
def test_a_safe_name_has_nothing_but_plain_letters(row_id: str) -> None:
    name = safe_name(7, row_id)
    assert name.startswith("00000007") and len(name) <= 70
    assert all((letter.isalnum() and letter.isascii()) or letter in "_-" for letter in name)


def test_the_page_escapes_what_rows_bring(made: Path, tmp_path: Path) -> None:
    curated(made, tmp_path, dedupe=0.9999, by="n", where="who != '<script>alert(2)</script>'")
    page = (tmp_path / "out" / "report" / "index.html").read_text()
    assert "<script" not in page and "&lt;script&gt;alert(1)" in page and "&lt;script&gt;alert(2)" in page
    assert "http://" not in page and "https://" not in page
    assert page.count('<img src="data:image/webp') >= 14


def test_the_same_curation_is_a_no_op_and_another_one_is_refused(made: Path, tmp_path: Path) -> None:
    first, _ = curated(made, tmp_path, where="n > 3")
    before = support.snapshot(tmp_path / "out")
    again, _ = curated(made, tmp_path, where="n > 3")
    assert again == first and support.snapshot(tmp_path / "out") == before
    with pytest.raises(UsageError, match="found another"):
        curated(made, tmp_path, where="n > 4")
    assert support.snapshot(tmp_path / "out") == before
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"expected an empty folder.*notes\.txt"):
        curate_run(CurateRun(source=str(made), destination=str(tmp_path / "full")))


def test_an_interrupted_curation_is_no_dataset_and_is_done_again(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tasks.curate_run.subset_statistics", interrupted)
    with pytest.raises(KeyboardInterrupt):
        curated(made, tmp_path, where="n > 3")
    monkeypatch.undo()
    assert (tmp_path / "out" / "data" / "part-00000.parquet").exists()
    with pytest.raises(UsageError, match="has not finished"):
        open_source(str(tmp_path / "out"))
    with pytest.raises(UsageError, match="found another"):
        curated(made, tmp_path, where="n > 4")
    _, rows = curated(made, tmp_path, where="n > 3")
    assert len(rows) == 14 and not (tmp_path / "out" / "curation.unfinished.json").exists()


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"where": "identity > 0"}, "columns who, n, .*identity_similarity.*found 'identity > 0'"),
        ({"where": "n in (select 1)"}, "own columns"),
        ({"where": "n > 100"}, "found none: rows of the run: 17 left; n > 100: 0 left"),
        ({"by": "who", "top_k": 1}, "sort by, found 'who'; known: n, "),
        ({"by": "lpips", "top_k": 1}, "expected values in the column 'lpips'.* one that has: n, .*psnr"),
        ({"top_k": 2}, "expected values in the column 'identity_similarity'.* one that has: n, .*psnr"),
        ({"dedupe": 0.9}, "expected values in the column 'identity_similarity'.* one that has: n, .*psnr"),
        ({"stratify": "psnr"}, "stratify by, found 'psnr'; known: who, n, "),
        ({"profile": "best"}, "unknown profile 'best'; known: archive, training-set"),
        ({"profile": "archive"}, "scored by .* found no recogniser"),
        ({"dedupe": 0.9, "by": "n", "dedupe_by": "embedding"}, "keep-embeddings"),
        ({"dedupe": 0.9, "by": "n", "dedupe_by": "inception"}, "Inception"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_written(
    made: Path, tmp_path: Path, asked: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        curated(made, tmp_path, **asked)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"dedupe": 1.5}, "less than or equal to 1"),
        ({"per_stratum": 2}, "column to stratify by"),
        ({"dedupe_by": "name"}, "known: auto, embedding, inception, perceptual"),
        ({"destination": "/run/inside"}, "outside of the run"),
    ],
)
def test_settings_that_contradict_are_refused(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CurateRun.model_validate({"source": "/run", "destination": "/out", **asked})


def pointing(made: Path, tmp_path: Path, current: str | None) -> Path:
    """What `bfr reprocess` leaves, with the run as its first generation."""
    shutil.copytree(made, tmp_path / "all" / "generations" / "0001")
    names = {"previous": [], "begun": ["0001"], "rolled_back": [], "expired": []}
    (tmp_path / "all" / "current.json").write_text(json.dumps({"generation": current, "source": "/src", **names}))
    return tmp_path / "all"


def test_of_generations_the_current_one_is_curated(made: Path, tmp_path: Path) -> None:
    record, rows = curated(pointing(made, tmp_path, "0001"), tmp_path, where="n > 3")
    assert len(rows) == 14
    there = str(tmp_path / "all" / "generations" / "0001")
    assert {row["source_run"] for row in rows} == {record["run"]["source"]} == {there}


def test_generations_of_which_none_is_current_are_refused(made: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected a current generation"):
        curated(pointing(made, tmp_path, None), tmp_path)


def test_an_unfinished_run_is_refused(made: Path, tmp_path: Path) -> None:
    for part in ("plan", "commits"):
        for path in (made / part).iterdir():
            (tmp_path / "run" / part).mkdir(parents=True, exist_ok=True)
            (tmp_path / "run" / part / path.name).write_bytes(path.read_bytes())
    with pytest.raises(UsageError, match=r"finished run.*run the `bfr restore` command"):
        curated(tmp_path / "run", tmp_path)
    with pytest.raises(UsageError, match="expected a run"):
        curated(tmp_path / "nothing", tmp_path)
