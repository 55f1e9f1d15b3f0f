"""Ztocs made and read without Lamina: tarfile for the entries, zlib (by ctypes, for Z_BLOCK) for the checkpoints, struct
for the flatbuffer, whose layout is another than our writer's: front to back, a vtable before each table.

    oracle.py build LAYER OUT SPAN ZINFO    writes a ztoc (ZINFO: 1, 2 or "tar"); prints what read does
    oracle.py read ZTOC                     prints what is in it, as JSON; bytes of texts as latin1
"""
import ctypes
import gzip
import hashlib
import io
import json
import math
import struct
import sys
import tarfile
from datetime import datetime, timedelta, timezone
from decimal import Decimal

WINDOW = 32768
LIMIT = 1 << 16


class ZStream(ctypes.Structure):
    _fields_ = [
        ("next_in", ctypes.c_void_p), ("avail_in", ctypes.c_uint), ("total_in", ctypes.c_ulong),
        ("next_out", ctypes.c_void_p), ("avail_out", ctypes.c_uint), ("total_out", ctypes.c_ulong),
        ("msg", ctypes.c_char_p), ("state", ctypes.c_void_p),
        ("zalloc", ctypes.c_void_p), ("zfree", ctypes.c_void_p), ("opaque", ctypes.c_void_p),
        ("data_type", ctypes.c_int), ("adler", ctypes.c_ulong), ("reserved", ctypes.c_ulong),
    ]


def checkpoints(blob, stream, span):
    """(in, out, bits) wherever a span begins: at the start, and at each end of a block more than a span later."""
    z = ctypes.CDLL("libz.so.1")
    strm = ZStream()
    assert z.inflateInit2_(ctypes.byref(strm), 47, b"1.2.11", ctypes.sizeof(strm)) == 0
    source = ctypes.create_string_buffer(blob, len(blob))
    room = ctypes.create_string_buffer(LIMIT)
    strm.next_in = ctypes.addressof(source)
    strm.avail_in = len(blob)
    out = last = 0
    points = []
    while True:
        strm.next_out = ctypes.addressof(room)
        strm.avail_out = LIMIT
        result = z.inflate(ctypes.byref(strm), 5)
        out += LIMIT - strm.avail_out
        assert result in (0, 1, -5), result
        if result == 1:
            if strm.avail_in == 0:
                break
            assert z.inflateReset2(ctypes.byref(strm), 47) == 0
            continue
        if strm.data_type & 128 and not strm.data_type & 64 and (out == 0 or out - last > span):
            points.append((len(blob) - strm.avail_in, out, strm.data_type & 7))
            last = out
    z.inflateEnd(ctypes.byref(strm))
    assert out == len(stream)
    return points


def zinfo(points, stream, span, version):
    made = struct.pack("<iq", len(points), span)
    for at, out, bits in points if version == 2 else points[1:]:
        made += struct.pack("<qqB", at, out, bits) + stream[max(0, out - WINDOW):out].rjust(WINDOW, b"\0")
    return made


# A flatbuffer: a table is {slot: (kind, value)}, a vector is a list.

SIZES = {"q": 8, "i": 4, "I": 4, "b": 1, "ref": 4}


class Forward:
    def __init__(self, root):
        self.bytes = bytearray(4)
        self.point(0, self.put(root))

    def align(self, size, more=0):
        while (len(self.bytes) + more) % size:
            self.bytes.append(0)

    def point(self, place, target):
        struct.pack_into("<I", self.bytes, place, target - place)

    def put(self, value):
        if isinstance(value, dict):
            return self.table(value)
        self.align(4)
        at = len(self.bytes)
        self.bytes += struct.pack("<I", len(value))
        if isinstance(value, list):
            self.bytes += bytes(4 * len(value))
            for i, element in enumerate(value):
                self.point(at + 4 + 4 * i, self.put(element))
        else:
            self.bytes += value + b"\0"
        return at

    def table(self, fields):
        slots = max(fields) + 1
        offsets = [0] * slots
        end = 4
        for slot in sorted(fields):
            size = SIZES[fields[slot][0]]
            end = -(-end // size) * size
            offsets[slot] = end
            end += size
        self.align(8, 4 + 2 * slots)
        vtable = len(self.bytes)
        self.bytes += struct.pack("<HH%dH" % slots, 4 + 2 * slots, end, *offsets)
        at = len(self.bytes)
        self.bytes += struct.pack("<i", at - vtable) + bytes(end - 4)
        for slot, (kind, value) in fields.items():
            if kind != "ref":
                struct.pack_into("<" + kind, self.bytes, at + offsets[slot], value)
        for slot, (kind, value) in fields.items():
            if kind == "ref":
                self.point(at + offsets[slot], self.put(value))
        return at


class Table:
    def __init__(self, data, place):
        self.data = data
        self.at = place + self.number("I", place)
        self.vtable = self.at - self.number("i", self.at)

    def number(self, kind, at):
        return struct.unpack_from("<" + kind, self.data, at)[0]

    def field(self, slot):
        entry = 4 + 2 * slot
        if entry >= self.number("H", self.vtable):
            return 0
        offset = self.number("H", self.vtable + entry)
        return offset and self.at + offset

    def get(self, slot, kind, absent=0):
        at = self.field(slot)
        return self.number(kind, at) if at else absent

    def bytes_at(self, place):
        at = place + self.number("I", place)
        length = self.number("I", at)
        return self.data[at + 4:at + 4 + length]

    def bytes(self, slot):
        at = self.field(slot)
        return self.bytes_at(at) if at else b""

    def table(self, slot):
        return Table(self.data, self.field(slot))

    def each(self, slot):
        place = self.field(slot)
        if not place:
            return []
        at = place + self.number("I", place)
        return [at + 4 + 4 * i for i in range(self.number("I", at))]


FILE = [("name", "ref"), ("type", "ref"), ("offset", "q"), ("size", "q"), ("linkName", "ref"), ("mode", "q"),
        ("uid", "I"), ("gid", "I"), ("uname", "ref"), ("gname", "ref"), ("mtime", "ref"), ("devMajor", "q"),
        ("devMinor", "q")]


def encode(ztoc):
    def file_of(file):
        table = {slot: (kind, file[name].encode("latin1") if kind == "ref" else file[name])
                 for slot, (name, kind) in enumerate(FILE)}
        table[13] = ("ref", [{0: ("ref", key.encode("latin1")), 1: ("ref", value.encode("latin1"))}
                             for key, value in file["records"]])
        return table

    info = {0: ("b", ztoc["algorithm"]), 1: ("i", ztoc["maxSpanId"]),
            2: ("ref", [d.encode() for d in ztoc["spanDigests"]]), 3: ("ref", bytes.fromhex(ztoc["checkpoints"]))}
    return bytes(Forward({
        0: ("ref", ztoc["version"].encode()), 1: ("ref", ztoc["tool"].encode()), 2: ("q", ztoc["compressedSize"]),
        3: ("q", ztoc["uncompressedSize"]), 4: ("ref", {0: ("ref", [file_of(f) for f in ztoc["files"]])}),
        5: ("ref", info)}).bytes)


def decode(data):
    root = Table(data, 0)
    info = root.table(5)

    def file_of(place):
        table = Table(data, place)
        file = {name: table.bytes(slot).decode("latin1") if kind == "ref" else table.get(slot, kind)
                for slot, (name, kind) in enumerate(FILE)}
        pairs = [Table(data, p) for p in table.each(13)]
        file["records"] = [[p.bytes(0).decode("latin1"), p.bytes(1).decode("latin1")] for p in pairs]
        return file

    return {
        "version": root.bytes(0).decode(), "tool": root.bytes(1).decode("latin1"),
        "compressedSize": root.get(2, "q"), "uncompressedSize": root.get(3, "q"),
        "algorithm": info.get(0, "b", 1), "maxSpanId": info.get(1, "i"),
        "files": [file_of(p) for p in root.table(4).each(0)],
        "spanDigests": [info.bytes_at(p).decode() for p in info.each(2)],
        "checkpoints": info.bytes(3).hex(),
    }


TYPES = {tarfile.REGTYPE: "reg", tarfile.AREGTYPE: "reg", tarfile.LNKTYPE: "hardlink", tarfile.SYMTYPE: "symlink",
         tarfile.CHRTYPE: "char", tarfile.BLKTYPE: "block", tarfile.DIRTYPE: "dir", tarfile.FIFOTYPE: "fifo"}


def time_of(info):
    text = Decimal(info.pax_headers.get("mtime", str(int(info.mtime)))).quantize(Decimal("1e-9"))
    seconds = math.floor(text)
    fraction = f"{text - seconds:.9f}"[2:].rstrip("0")
    time = datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=seconds)
    return time.strftime("%Y-%m-%dT%H:%M:%S") + ("." + fraction if fraction else "") + "Z"


def latin1(text):
    return text.encode("utf-8", "surrogateescape").decode("latin1")


def files_of(stream):
    files = []
    end = 0
    for info in tarfile.open(fileobj=io.BytesIO(stream), encoding="utf-8", errors="surrogateescape"):
        # tarfile takes the slash away; the directories of our tests have one.
        name = latin1(info.name) + ("/" if info.isdir() else "")
        files.append({
            "name": name, "type": TYPES[info.type], "offset": info.offset_data, "size": info.size,
            "linkName": latin1(info.linkname), "mode": info.mode, "uid": info.uid, "gid": info.gid,
            "uname": latin1(info.uname), "gname": latin1(info.gname), "mtime": time_of(info),
            "devMajor": info.devmajor, "devMinor": info.devminor,
            "records": sorted([latin1(k), latin1(v)] for k, v in info.pax_headers.items())})
        end = -(-(info.offset_data + (info.size if info.isreg() else 0)) // 512) * 512
    for _ in range(2):
        if stream[end:end + 512] == bytes(512):
            end += 512
    return files, end


def build(layer, out, span, version):
    blob = open(layer, "rb").read()
    if version == "tar":
        stream = blob
        starts = range(0, len(blob), span)
        ranges = [(at, min(at + span, len(blob))) for at in starts]
        made = bytes(Forward({0: ("i", 2), 1: ("q", span), 2: ("q", len(blob))}).bytes)
    else:
        stream = gzip.decompress(blob)
        points = checkpoints(blob, stream, span)
        if version == "1":
            points[0] = (10, 0, 0)
        ends = [at for at, _, _ in points[1:]] + [len(blob)]
        ranges = [(at - (bits > 0), end) for (at, _, bits), end in zip(points, ends)]
        made = zinfo(points, stream, span, int(version))
    files, size = files_of(stream)
    ztoc = {
        "version": "0.9", "tool": "oracle", "compressedSize": len(blob), "uncompressedSize": size,
        "algorithm": 2 if version == "tar" else 1, "maxSpanId": len(ranges) - 1, "files": files,
        "spanDigests": ["sha256:" + hashlib.sha256(blob[a:b]).hexdigest() for a, b in ranges],
        "checkpoints": made.hex()}
    data = encode(ztoc)
    assert decode(data) == ztoc
    open(out, "wb").write(data)
    print(json.dumps(ztoc))


if sys.argv[1] == "build":
    build(sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5])
else:
    print(json.dumps(decode(open(sys.argv[2], "rb").read())))
