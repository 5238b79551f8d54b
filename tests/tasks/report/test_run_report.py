"""The report is read by people who did not see the run: it must be safe, complete, bounded and honest."""

import base64
import copy
import hashlib
import io
import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bfr_models.faces.recognisers import DLIB
from bfr_models.metrics.identity_scale import identity_word
from tasks.report.cards import Card, Cell, GalleryRow, Hero, Photo, Place, Reject, Tile, cards_of
from tasks.report.pictures import image_uri
from tasks.report.run_report import render_report
from tasks.runs.timings import STAGES

HOSTILE = (
    "<script>alert(1)</script>",
    "\"><img src=x onerror='alert(1)'>",
    "</title></style></textarea><svg onload=alert(1)>",
    "{{ 7 * 7 }}{% raw %}",
    "javascript:alert(1)",
    "\u202egpj.ארכיון\x00\x1b[31m",
    "lone \ud800 surrogate",
)
VOID = {"meta", "link", "img", "input", "br"}  # SVG closes its own

IDENTITY = {
    "n": 90, "mean": 0.8123, "std": 0.1, "min": 0.4, "max": 0.99, "p05": 0.61, "p50": 0.82, "p95": 0.95,
    "histogram": [[0.4, 3], [0.8, 60], [0.9, 27]], "bin_width": 0.1,
}  # fmt: skip
RUN: dict[str, Any] = {
    "schema": 1,
    "state": "complete",
    "method": {
        "name": "difface", "preset": "face128", "fingerprint": "3f1c9a0b", "options": {"steps": 20},
        "weights": {"denoiser": {"file": "denoiser.safetensors", "sha256": "ab" * 32}},
        "paper": "arXiv:2212.06512", "licence": "Apache-2.0",
    },
    "arguments": {"source": "s3://bucket/faces", "destination": "/out", "keep_input": True, "actors": 2},
    "versions": {"torch": "2.8.0"},
    "seed": 7,
    "recogniser": {"name": "retail-0095", "sha256": "cd" * 32},
    "licences": [{"weights": "difface/prior", "licence": "Apache-2.0", "licence_url": None, "non_commercial": False}],
    "totals": {"rows": 12345, "restored": 12340, "rejected": 5, "faces": 13000, "shards": 4,
               "accelerator_seconds": 12.5, "wall_seconds": 7325},
    "rejects": {"no_face": 3, "undecodable": 2},
    "statistics": {
        "n_in": 12345, "n_restored": 12340, "n_rejected": 5, "identity_similarity": IDENTITY,
        "lpips": {"value": None, "why": "the LPIPS weights are absent"},
        "fd_squeezenet": {"value": 41.25, "features": "squeezenet1_1", "n": 90},
    },
    "started": "2025-01-02T03:04:05+00:00",
    "finished": "2025-01-02T05:06:10+00:00",
}  # fmt: skip


def run(**changes: Any) -> dict[str, Any]:
    """A run.json whose nested values are changed by `part__key=value`."""
    document = copy.deepcopy(RUN)
    for path, value in changes.items():
        *parents, key = path.split("__")
        place = document
        for parent in parents:
            place = place[parent]
        place[key] = value
    return document


def encoded(image: Image.Image, form: str = "PNG") -> bytes:
    image.save(buffer := io.BytesIO(), form)
    return buffer.getvalue()


def face(side: int = 32) -> bytes:
    return encoded(Image.new("RGB", (side, side), (200, 150, 120)))


def row(name: str, identity: Any = None, image: bytes | None = None) -> Card:
    """A row of a comparison."""
    image = image or face()
    return cards_of([GalleryRow(name, (Cell("input", image, ""), Cell("difface", image, "words", identity)))])[0]


def one_face(name: str, identity: float = 0.97, outcome: str = "restored", number: int = 0) -> Card:
    """A face of a run over photos, in the first photo of the page."""
    word = identity_word(DLIB, identity, 64)
    picture = image_uri(face(), 10_000)
    return Card(
        name, [Tile("input", picture), Tile("difface", picture)], number, outcome, word,
        [("identity", f"{identity:.3f}, {word}")], {"identity": identity, "gain": 0.1}, Place(0, (0.1, 0.1, 0.5, 0.5)),
    )  # fmt: skip


class Page(HTMLParser):
    """Reads a page, and fails where a tag is not closed in its order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()
        self.text = " ".join(self.words)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs)
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> at {self.getpos()}"

    def handle_data(self, data: str) -> None:
        if self.open[-1:] not in (["script"], ["style"]):
            self.words += data.split()

    def values(self, name: str) -> list[str]:
        return [attributes[name] or "" for _, attributes in self.tags if name in attributes]


def hostile_page(text: str) -> Page:
    document = run(
        method__name=text, method__licence=text,
        licences=[{"weights": text, "licence": text, "non_commercial": True}],
        method__options={text: text}, rejects={text: 1}, state=text,
        arguments__source=text, versions={text: text}, recogniser__name=text, finished=text,
    )  # fmt: skip
    document["statistics"] |= {text: {"value": 1.0, "features": text}, "ssim": {"value": None, "why": text}}
    cells = (Cell("input", face(), text), Cell(text, None, text), Cell("gt", face(), text))
    rejects = [Reject(text, text, text, image_uri(face(), 10_000))]
    picture = image_uri(face(), 10_000)
    told = Card(text, [Tile(text, picture, text)], 0, text, text, [(text, text)], {}, Place(0, (0, 0, 1, 1)))
    hero = Hero(text, picture, picture, text, [(0, 0, 1, 1)])
    cards = [*cards_of([GalleryRow(text, cells)]), told, told]
    return Page(render_report(text, [document, document], cards, rejects, hero, [Photo(text, picture)]))


@pytest.mark.parametrize("text", HOSTILE)
def test_what_strangers_wrote_is_text_and_never_markup(text: str) -> None:
    page = hostile_page(text)
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    for href in page.values("href"):
        assert href.startswith("#") or href == "data:," or href.startswith("data:image/webp;base64,")
    assert not re.search("[\x00-\x1f\x7f-\x9f]", page.text)
    assert page.text.encode()
    if text.isprintable() and text.isascii():
        assert page.text.count(text) > 10


@pytest.mark.parametrize("runs", [[], [RUN], [RUN, RUN, RUN]])
def test_the_page_is_well_formed_and_its_links_lead_somewhere(runs: list[dict[str, Any]]) -> None:
    page = Page(render_report("Title", runs, [row("a", 0.9), row("b", 0.5)], []))
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    assert {href[1:] for href in page.values("href") if href.startswith("#")} <= set(ids)
    assert all(attributes.get("alt") for tag, attributes in page.tags if tag == "img")


def test_the_page_loads_nothing() -> None:
    html = render_report("Title", [RUN], [row("a", 0.9)], [Reject("x", "no_face", "https://example.org/x.png")])
    assert not re.findall(r"""(?:src|href|srcset|action|data)\s*=\s*["']?\s*(?:https?:)?//""", html)
    assert not re.findall(r"url\(|@import", html)
    assert all(src.startswith("data:image/webp;base64,") for src in Page(html).values("src"))
    assert "default-src 'none'" in html


def test_the_policy_of_the_page_allows_its_own_script() -> None:
    html = render_report("Title", [RUN], [], [])
    script = html.split("<script>")[1].split("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in html


def test_the_sum_of_rows_is_shown_and_checked() -> None:
    text = Page(render_report("Title", [RUN], [], [])).text
    assert re.search(r"12,345 rows in = 12,340 written \+ 5 rejected ✓ adds up", text)
    wrong = Page(render_report("Title", [run(totals__restored=12338)], [], [])).text
    assert "does not add up: 2 missing" in wrong and "✓" not in wrong
    both = Page(render_report("Title", [RUN, run(totals__restored=12341)], [], [])).text
    assert "✓ adds up" in both and "does not add up: 1 too many" in both
    unknown = Page(render_report("Title", [run(totals={})], [], [])).text
    assert "the sum cannot be checked" in unknown


def test_an_unfinished_run_says_so() -> None:
    assert "not complete (state: running)" in Page(render_report("T", [run(state="running")], [], [])).text


def test_a_metric_that_is_absent_says_why() -> None:
    document = run(statistics__identity_similarity={"value": None, "why": "no recogniser is installed"})
    document["statistics"]["psnr"] = {"n": 3, "mean": float("nan")}
    text = Page(render_report("Title", [document], [], [])).text
    assert "LPIPS: the LPIPS weights are absent" in text
    assert text.count("no recogniser is installed") == 1 and "PSNR, dB: not a number" in text
    assert not re.search(r"\bnan\b", text)


def test_metrics_have_their_spread_and_the_best_of_several_runs_is_marked() -> None:
    other = run(method__name="diffbfr", statistics__identity_similarity={**IDENTITY, "mean": 0.9})
    other["statistics"]["fd_squeezenet"] = {"value": 50.0}
    html = render_report("Title", [RUN, other], [], [])
    assert "0.812" in html and "0.610 to 0.950" in html
    assert re.findall(r"<strong[^>]*>([\d.]+)</strong>", html) == [
        "41.250",
        "0.900",
    ]  # less distance, more likeness


def test_histograms_share_their_scales_and_describe_themselves() -> None:
    other = run(method__name="diffbfr", statistics__identity_similarity={**IDENTITY, "histogram": [[0.8, 30]]})
    html = render_report("Title", [RUN, other], [], [])
    heights = [float(found) for found in re.findall(r'<rect class="bars"[^>]* height="([\d.]+)"', html)]
    assert len(heights) == 4 and heights[1] == pytest.approx(2 * heights[3], abs=0.1)
    assert "The fullest bin, 0.80 to" in html and "holds 60 rows" in html


def test_the_rejects_are_grouped_and_counted_with_examples_and_thumbnails() -> None:
    picture = image_uri(face(), 10_000)
    rejects = [Reject(f"id-{i}", "no_face", f"detail {i}", picture) for i in range(9)]
    page = Page(render_report("Title", [RUN], [], rejects))
    assert re.search(r"no_face 3 id-0 detail 0 .*id-5 detail 5", page.text) and "id-6" not in page.text
    assert sum(tag == "img" for tag, _ in page.tags) == 6
    assert re.search(r"undecodable 2 No example", page.text)
    assert "No row was rejected" in Page(render_report("Title", [run(rejects={})], [], [])).text


def test_each_face_has_a_link_that_stays_and_only_what_is_doubtful_is_marked() -> None:
    """0.98 is the same person, however it compares with the others; the order of the page is not that of the link."""
    cards = [one_face("a", 0.98), one_face("b", 0.90), one_face("a", 0.99, number=1), one_face("a", 0.98)]
    photos = [Photo("a", image_uri(face(), 10_000))]
    html = render_report("Title", [RUN], cards, [], None, photos)
    page = Page(html)
    ids = [attributes["id"] for tag, attributes in page.tags if tag == "li" and "id" in attributes]
    assert len(set(ids)) == 4 and ids[0] == cards[1].anchor  # the doubtful one comes first
    assert {card.anchor for card in cards} <= set(ids) and cards[0].anchor == one_face("a", 0.5).anchor
    assert re.findall(r'<dd class="mark">([^<]*)<', html) == ["0.900, doubtful"]
    assert html.count('class="card doubtful"') == 1
    assert html.count('<use href="#photo-0"/>') == 4 and html.count('<image id="photo-0"') == 1  # one copy of a photo


def test_every_report_has_a_slider_and_the_photo_opens_it() -> None:
    compared = Page(render_report("Title", [RUN, RUN], [row("a", 0.9)], []))
    single = Page(render_report("Title", [RUN], [one_face("a")], [], None, [Photo("a", image_uri(face(), 10_000))]))
    for page in (compared, single):
        assert sum(attributes.get("type") == "range" for _, attributes in page.tags) == 1
    picture = image_uri(face(), 10_000)
    html = render_report("Title", [RUN, RUN], [row("a", 0.9)], [], Hero("scan", picture, picture, "1 face"))
    assert html.index('id="photo"') < html.index('id="gallery"') < html.index('id="totals"')  # pictures first


def test_the_stages_and_the_busy_share_are_shown_and_old_runs_have_none() -> None:
    stages = dict.fromkeys(STAGES, 1.0) | {"method": 8.0}
    timings = {"stages": stages, "worker_seconds": 10.0, "work_seconds": 1e3, "workers": 2, "shards": 4}
    timings["busy_share"] = 0.9
    text = Page(render_report("Title", [run(timings=timings)], [], [])).text
    assert "method 8.0 s 42 %" in text and "90 %" in text and "12.35" in text  # rows per second of work
    changing = timings | {"workers": 5, "most_workers": 3}
    assert "5, 3 at once" in Page(render_report("Title", [run(timings=changing)], [], [])).text
    assert "The stages were not timed" in Page(render_report("Title", [RUN], [], [])).text


def test_rows_that_changed_are_told_from_those_that_were_kept() -> None:
    text = Page(render_report("Title", [run(totals__changed=40)], [], [])).text
    assert "restored 40 of 12,345 rows of s3://bucket/faces and kept 12,300 as they were; 5 were rejected" in text
    assert "40 with a restored face, 12,300 kept as they were" in text
    assert "wrote 12,340 of 12,345 rows" in Page(render_report("Title", [RUN], [], [])).text  # of an earlier version


def test_provenance_has_hashes_versions_and_the_command_without_secrets() -> None:
    document = run(
        arguments__source="https://user:hunter2@host/a.parquet?X-Amz-Signature=hunter2", arguments__where="x" * 999
    )
    text = Page(render_report("Title", [document], [], [])).text
    assert "ab" * 32 in text and "cd" * 32 in text and "2.8.0" in text and "Apache-2.0" in text
    command = "bfr restore https://host/a.parquet /out --method difface --preset face128 --seed 7"
    assert f"{command} --keep-input --actors 2 --where {'x' * 999}" in text
    assert "hunter2" not in text


def test_a_licence_that_forbids_commerce_is_said_at_the_top_and_the_others_below() -> None:
    assert "Non-commercial" not in Page(render_report("Title", [RUN], [], [])).text
    bound = {"weights": "difface/ffhq512/prior", "licence": "S-Lab License 1.0", "non_commercial": True}
    html = render_report("Title", [run(licences=[*RUN["licences"], bound])], [], [])
    page = Page(html)
    said = "difface/ffhq512/prior (S-Lab License 1.0, non-commercial use only)."
    assert f"Non-commercial use only : {said}" in page.text
    assert html.index(said) < html.index('id="measures"')
    assert "Licences of the weights difface/prior Apache-2.0 difface/ffhq512/prior S-Lab License 1.0" in page.text
    assert "not stated" in Page(render_report("T", [run(licences=[{"weights": "mine", "licence": None}])], [], [])).text
    for broken in (None, "text", [None, 3]):
        Page(render_report("Title", [run(licences=broken)], [], []))


def test_the_command_has_the_options_as_flags_and_keeps_what_arguments_leave_open() -> None:
    arguments = {"source": "a b", "destination": "d", "preset": None, "max_rejects": 0.0}
    arguments["options"] = {"self_ensemble": False, "steps": 20, "guidance": 1.5}
    text = Page(render_report("Title", [run(arguments=arguments)], [], [])).text
    command = "bfr restore 'a b' d --method difface --preset face128 --seed 7 --max-rejects 0.0 --steps 20"
    assert f"{command} --set options.self_ensemble=false --set options.guidance=1.5" in text


def test_two_runs_of_one_method_have_different_names() -> None:
    text = Page(render_report("Title", [RUN, run(method__preset="ffhq512"), RUN], [], [])).text
    assert "difface (face128) #1, difface (ffhq512), difface (face128) #3" in text


def test_500_rows_of_noise_stay_below_eight_megabytes_and_the_lowest_are_kept() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    picture = encoded(Image.fromarray(noise))
    rows = [
        GalleryRow("x" * 5000 + str(i), (Cell("input", picture, ""), Cell("difface", picture, "", 0.9 - (i == 499))))
        for i in range(500)
    ]
    rejects = [Reject("y" * 5000, f"code-{i}" + "z" * 5000, "d" * 100_000) for i in range(300)]
    html = render_report("Title", [RUN], cards_of(rows), rejects)
    assert len(html.encode()) < 8_000_000
    text = Page(html).text
    assert "48 faces of 13,000" in text and "x499" in text


@pytest.mark.parametrize(
    "broken", [b"", b"not a picture", face()[:60], encoded(Image.new("RGB", (64, 64)), "JPEG")[:200]]
)
def test_a_broken_picture_costs_only_its_own_place(broken: bytes) -> None:
    cells = (Cell("input", face(), ""), Cell("difface", broken, ""), Cell("gt", None, "no truth was given"))
    whole = (Cell("input", face(), ""), Cell("difface", face(), ""))
    page = Page(render_report("Title", [RUN], cards_of([GalleryRow("a", cells), GalleryRow("b", whole)]), []))
    assert [tag for tag, _ in page.tags].count("img") == 3
    assert "this picture cannot be decoded" in page.text
    assert "no truth was given" in page.text and "not in this row" in page.text


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "I;16", "1"])
def test_every_kind_of_picture_is_shown(mode: str) -> None:
    picture = encoded(Image.new(mode, (40, 20)), "TIFF")
    page = Page(render_report("Title", [RUN], [row("a", image=picture)], []))
    assert "cannot be decoded" not in page.text and re.search(r"\b40 . 20\b", page.text)
