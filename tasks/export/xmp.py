"""Marks an XMP packet: its image was altered by a trained model. All other bytes of a packet stay as they are.

The properties are those of IPTC Photo Metadata 2023.2 (`Iptc4xmpExt:DigitalSourceType`) and of the XMP specification,
part 2 (`xmpMM:History`, a list of `stEvt:` resource events).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from xml.parsers import expat
from xml.sax.saxutils import escape, quoteattr

from tasks.export.notes import Notes

SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"

_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_IPTC = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
_MM = "http://ns.adobe.com/xap/1.0/mm/"
_EVENT = "http://ns.adobe.com/xap/1.0/sType/ResourceEvent#"
_DESCRIPTION, _TYPE, _HISTORY = f"{_RDF} Description", f"{_IPTC} DigitalSourceType", f"{_MM} History"
_THUMBNAILS = "http://ns.adobe.com/xap/1.0/ Thumbnails"  # of the old pixels

_NEW = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
    f'<rdf:RDF xmlns:rdf="{_RDF}"></rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
).encode()
_PADDING = re.compile(rb"\s{64,}(?=<\?xpacket end)")
_TAG = re.compile(rb"""<(?:[^>"']|"[^"]*"|'[^']*')*>""")
_TYPE_ATTRIBUTE = re.compile(rb"""\s[\w.-]+:DigitalSourceType\s*=\s*("[^"]*"|'[^']*')""")


@dataclass(frozen=True)
class Event:
    """What was done: an entry of `xmpMM:History`."""

    agent: str  # the program and its version
    when: str  # ISO 8601
    parameters: str  # method, preset, run


@dataclass
class _Places:
    """Where an XMP packet has what is to be changed: offsets in bytes."""

    dropped: list[tuple[int, int]] = field(default_factory=list)  # elements
    tags: list[tuple[int, int]] = field(default_factory=list)  # start tags with the source type as an attribute
    history: int | None = None  # the end of the list in xmpMM:History
    rdf: int | None = None  # the end of what is in rdf:RDF
    about: str = ""


def mark(packet: bytes | None, event: Event, notes: Notes, limit: int | None = None) -> bytes:
    """The packet with the mark, and the event at the end of its history; a new packet for None and for a broken one.

    The packet's padding goes if it would be longer than `limit` bytes.
    """
    if packet is not None:
        try:
            marked = _marked(packet, event)
            return marked if limit is None or len(marked) <= limit else _PADDING.sub(b"\n", marked)
        except (expat.ExpatError, ValueError) as error:
            notes.add(f"its XMP packet did not read ({error}) and is replaced")
    return _marked(_NEW, event)


def _marked(packet: bytes, event: Event) -> bytes:
    places = _places(packet)
    if places.rdf is None:
        raise ValueError("it has no rdf:RDF")
    item, history = _item(event), ""
    if places.history is None:
        history = f'<xmpMM:History xmlns:xmpMM="{_MM}"><rdf:Seq>{item}</rdf:Seq></xmpMM:History>'
    description = (
        f'<rdf:Description xmlns:rdf="{_RDF}" rdf:about={quoteattr(places.about)}>'
        f'<Iptc4xmpExt:DigitalSourceType xmlns:Iptc4xmpExt="{_IPTC}">{SOURCE_TYPE}</Iptc4xmpExt:DigitalSourceType>'
        f"{history}</rdf:Description>"
    )
    edits = [(start, stop, b"") for start, stop in places.dropped]
    edits += [(start, stop, _TYPE_ATTRIBUTE.sub(b"", packet[start:stop])) for start, stop in places.tags]
    edits += [(places.history, places.history, item.encode())] if places.history is not None else []
    edits += [(places.rdf, places.rdf, description.encode())]
    parts, at = [], 0
    for start, stop, put in sorted(edits):
        if start >= at:  # else inside of what was dropped
            parts += [packet[at:start], put]
            at = stop
    return b"".join([*parts, packet[at:]])


def _item(event: Event) -> str:
    values = {"action": "edited", "when": event.when, "softwareAgent": event.agent, "parameters": event.parameters}
    fields = "".join(f"<stEvt:{name}>{escape(value)}</stEvt:{name}>" for name, value in values.items())
    return f'<rdf:li xmlns:rdf="{_RDF}" xmlns:stEvt="{_EVENT}" rdf:parseType="Resource">{fields}</rdf:li>'


def _places(packet: bytes) -> _Places:
    """ExpatError for what is not XML; ValueError for a packet that is not UTF-8 or has a document type, which no XMP
    needs and which can name other files."""
    packet.decode("utf-8")
    places, parser = _Places(), expat.ParserCreate(namespace_separator=" ")
    opened: list[tuple[str, int]] = []  # the name and start of each open element

    def start(name: str, attributes: dict[str, str]) -> None:
        at = parser.CurrentByteIndex
        if _TYPE in attributes:
            places.tags.append((at, _tag_end(packet, at)))
        if name == _DESCRIPTION and len(opened) == 2:  # x:xmpmeta, rdf:RDF
            places.about = attributes.get(f"{_RDF} about", "")
        opened.append((name, at))

    def end(name: str) -> None:
        _, began = opened.pop()
        at, tag_end, outer = parser.CurrentByteIndex, _tag_end(packet, began), opened[-1][0] if opened else ""
        is_empty = packet[tag_end - 2 : tag_end] == b"/>"
        stop = tag_end if is_empty else _tag_end(packet, at)
        if name == f"{_RDF} RDF" and not is_empty:
            places.rdf = at
        elif outer == _HISTORY and name == f"{_RDF} Seq" and not is_empty:
            places.history = at
        elif outer == _DESCRIPTION and (
            name in (_TYPE, _THUMBNAILS) or (name == _HISTORY and places.history is None)  # an empty list
        ):
            places.dropped.append((began, stop))

    def refuse(*_: object) -> None:
        raise ValueError("it has a document type")

    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.Parse(packet.rstrip(b"\0 \r\n\t"), True)
    return places


def _tag_end(packet: bytes, at: int) -> int:
    found = _TAG.match(packet, at)
    if found is None:
        raise ValueError("it has a tag without an end")
    return found.end()
