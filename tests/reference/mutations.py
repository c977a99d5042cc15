"""What a forger may do to a file of a proof: every field, every tensor, every byte, every trick."""

import io
import json
import math
import struct
import zipfile

import torch

from clarke.proof import container, judge_stored, load


def changes(value, path=()):
    """Every field of plain data changed in every way that its type allows: (path, changed)."""
    if isinstance(value, dict):
        for key in value:
            yield (*path, key), {k: v for k, v in value.items() if k != key}
            for where, changed in changes(value[key], (*path, key)):
                yield where, {**value, key: changed}
        yield (*path, "extra"), {**value, "extra": 1}
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield (*path, str(i)), value[:i] + value[i + 1 :]
            for where, changed in changes(item, (*path, str(i))):
                yield where, [*value[:i], changed, *value[i + 1 :]]
        yield path, [*value, value[0] if value else None]
    else:
        yield path, None if value is not None else 0
        if isinstance(value, bool):
            yield path, not value
        elif isinstance(value, (int, float)):
            yield path, value + 1
            yield path, -value - 1
            yield path, value * 2**70
        elif isinstance(value, str):
            yield path, value + "x"
        yield path, [value]
        yield path, {"slot": 10**9}


def tensor_changes(tensors):
    """Every tensor changed in every way that its type allows: (name, what, tensors)."""
    for name, tensor in tensors.items():
        yield name, "dropped", {k: v for k, v in tensors.items() if k != name}
        yield name, "another shape", {**tensors, name: torch.cat([tensor.reshape(-1)] * 2)}
        yield name, "another dtype", {**tensors, name: tensor.to(torch.float32)}
        for i in range(min(tensor.numel(), 6)):
            for what, by in (("one more", 1), ("one ulp", None), ("not a number", float("nan"))):
                flat = tensor.reshape(-1).clone()
                if by is None and flat.is_floating_point():
                    flat[i] = torch.nextafter(flat[i], torch.full_like(flat[i], 9.0))
                elif by is None or (math.isnan(by) and not flat.is_floating_point()):
                    continue
                else:
                    flat[i] += by
                yield name, what, {**tensors, name: flat.reshape(tensor.shape)}
    yield "extra", "added", {**tensors, "extra": torch.zeros(2)}


def byte_changes(raw, random, flips, cuts):
    """Files with one byte changed, cut short, or with more than belongs to them."""
    for _ in range(flips):
        at, byte = random.randrange(len(raw)), random.randrange(1, 256)
        yield raw[:at] + bytes([raw[at] ^ byte]) + raw[at + 1 :]
    for _ in range(cuts):
        yield raw[: random.randrange(len(raw))]
    yield from (raw + b"x", b"x" + raw, b"", b"PK", raw + raw, bytes(200))


def zipped(entries, kind=zipfile.ZIP_STORED):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", kind) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return out.getvalue()


def with_header(header, body=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def container_of(text, data):
    """A container in the right form and with a right digest, whatever its entries hold."""
    return container._zipped(text, data, container.digest_of(text, data))


def tricks_with(path):
    """Zips and headers that lie, are too large, too deep, or twice there: bytes by name."""
    with zipfile.ZipFile(path) as archive:
        entries = [(i.filename, archive.read(i)) for i in archive.infolist()]
    text, data, _ = (content for _, content in entries)
    names = [name for name, _ in entries]
    big = {"a": {"dtype": "F64", "shape": [2**61], "data_offsets": [0, 2**64]}}
    bomb = zipped([(n, bytes(10**8)) for n in names], zipfile.ZIP_DEFLATED)
    deep = b"[" * 200_000 + b"]" * 200_000
    tricks = {
        "compressed": zipped(entries, zipfile.ZIP_DEFLATED),
        "bomb": bomb,
        "two of a name": zipped([*entries, entries[0]]),
        "path": zipped([("../proof.json", text), *entries[1:]]),
        "another order": zipped(entries[::-1]),
        "one more": zipped([*entries, ("code.pkl", b"x")]),
        "spaces": zipped([(names[0], text + b" "), *entries[1:]]),
        "duplicate keys": zipped([(names[0], b'{"version":1,' + text[1:]), *entries[1:]]),
    }
    for name, header in {
        "huge header": struct.pack("<Q", 2**63) + data[8:],
        "huge tensor": with_header(big),
        "deep header": with_header(deep),
        "negative": with_header({"a": {"dtype": "F64", "shape": [-1], "data_offsets": [0, -8]}}),
        "overlap": with_header(
            {k: {"dtype": "U8", "shape": [8], "data_offsets": [0, 8]} for k in "ab"}, bytes(8)
        ),
        "no dtype": with_header({"a": {"dtype": "X", "shape": [1], "data_offsets": [0, 1]}}, b"x"),
    }.items():
        tricks[name] = container_of(text, header)
    for name, content in {
        "deep": deep,
        "nan": b'{"a":NaN}',
        "long number": b"9" * 10_000,
        "list": b"[]",
        "empty": b"",
        "infinite": b'{"a":1e999}',
        "bytes": b"\xff\xfe",
    }.items():
        tricks[name] = container_of(content, data)
    return tricks


def true_as_it_stands(path):
    """Whether a file's own program, judged anew, agrees with what the file claims of it."""
    stored = load(path)
    decision = judge_stored(stored, 60)
    return decision.verdict.correct is stored.verdict.correct
