"""The mark in XMP packets of all shapes; nothing else in them changes."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from tasks.export import xmp
from tasks.export.notes import Notes
from tests.tasks.export.edited import EVENT

RDF = 'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"'
ALL = f'{RDF} xmlns:i="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" xmlns:mm="http://ns.adobe.com/xap/1.0/mm/" xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:xmp="http://ns.adobe.com/xap/1.0/"'  # noqa: E501
SEQ = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}Seq"
DESCRIPTION = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}Description"
ABOUT = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}about"
TYPE = "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}DigitalSourceType"
HISTORY = "{http://ns.adobe.com/xap/1.0/mm/}History"


def packet(attributes: str = "", content: str = "") -> bytes:
    return (
        f'<?xpacket begin="\ufeff" id="x"?>\n<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF {ALL}>'
        f'<rdf:Description rdf:about="uuid:1" {attributes}><dc:title>a &gt; b</dc:title>{content}</rdf:Description>'
        f'</rdf:RDF></x:xmpmeta>\n{" " * 500}\n<?xpacket end="w"?>'
    ).encode()


def parsed(data: bytes) -> ET.Element:
    return ET.fromstring(data.decode())


LIST = "<mm:History><rdf:Seq><rdf:li>old</rdf:li></rdf:Seq></mm:History>"


@pytest.mark.parametrize(
    ("attributes", "content", "events"),
    [
        ("", "", 1),
        ('i:DigitalSourceType="http://x/print"', "", 1),
        ("", "<i:DigitalSourceType>http://x/print</i:DigitalSourceType>", 1),
        ("", '<i:DigitalSourceType rdf:resource="http://x/a>b"/>', 1),
        ("", LIST, 2),
        ("", f"<i:DigitalSourceType/>{LIST}<xmp:Thumbnails><rdf:Alt/></xmp:Thumbnails>", 2),
        ("", "<mm:History><rdf:Seq/></mm:History>", 1),
        ("", "<mm:History/>", 1),
    ],
)
def test_one_source_type_and_one_more_event(attributes: str, content: str, events: int) -> None:
    notes = Notes()
    marked = xmp.mark(packet(attributes, content), EVENT, notes)
    root = parsed(marked)
    assert not notes
    assert [found.text for found in root.iter(TYPE)] == [xmp.SOURCE_TYPE]
    assert not any(TYPE in element.attrib for element in root.iter())
    assert [len(found) for found in root.iter(HISTORY)] == [1]
    assert [len(found) for found in root.iter(SEQ)] == [events]
    assert not any("Thumbnails" in element.tag for element in root.iter())
    assert "<kept>" in "".join(root.itertext()) and b"a &gt; b" in marked
    assert {element.get(ABOUT) for element in root.iter(DESCRIPTION)} == {"uuid:1"}


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"not XML",
        packet()[:-700],
        packet().replace(b"a &gt; b", b"\xff\xfe"),
        b'<!DOCTYPE x [<!ENTITY a "b">]>' + packet(),
        b"<x:xmpmeta xmlns:x='adobe:ns:meta/'/>",
    ],
)
def test_a_packet_that_does_not_read_is_replaced_and_said(broken: bytes) -> None:
    notes = Notes()
    marked = xmp.mark(broken, EVENT, notes)
    assert [found.text for found in parsed(marked).iter(TYPE)] == [xmp.SOURCE_TYPE]
    assert marked == xmp.mark(None, EVENT, Notes()) and "did not read" in notes[0]


def test_padding_makes_room() -> None:
    full = packet()
    assert len(xmp.mark(full, EVENT, Notes(), limit=len(full))) < len(full) + 500
    assert len(xmp.mark(full, EVENT, Notes())) > len(full) + 500
