"""The container of a proof: a zip of plain JSON, safetensors and a digest, in one fixed form.

A file has exactly one form for its contents: entries are not compressed, JSON is written in one
way, tensors lie one behind the other. A reader takes what it found, writes it again and
compares all bytes, so that nothing hides in a file, and nothing in it is larger than the file.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from clarke.devices import array_of
from clarke.errors import InputError, ProofError, UnsupportedError, in_a_line
from clarke.numerics import PROOF_BYTES, PROOF_JSON

if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike

JSON, TENSORS, DIGEST = "proof.json", "tensors.safetensors", "sha256"
_DTYPES = (
    ("F64", torch.float64),
    ("F32", torch.float32),
    ("F16", torch.float16),
    ("BF16", torch.bfloat16),
    ("I64", torch.int64),
    ("I32", torch.int32),
    ("I16", torch.int16),
    ("I8", torch.int8),
    ("U8", torch.uint8),
    ("BOOL", torch.bool),
)
_MOST_DIMENSIONS = 64
_WHEN = (1980, 1, 1, 0, 0, 0)  # the first time that a zip can tell


def refuse(what: str) -> ProofError:
    """What is out of place in a file, as an error."""
    return ProofError(f"Not a proof of clarke: {what}. Use the file as it was saved.")


def pack(content: Any, tensors: Mapping[str, torch.Tensor]) -> bytes:
    """The bytes of a file.

    Raises:
        UnsupportedError: A tensor cannot be stored.
    """
    text, data = canonical(content), _pack_tensors(tensors)
    return _zipped(text, data, digest_of(text, data))


def unpack(raw: bytes) -> tuple[Any, dict[str, torch.Tensor]]:
    """The contents of a file.

    Raises:
        ProofError: Anything is out of place; says what.
    """
    text, data, told = _entries(raw)
    if told != digest_of(text, data):
        raise refuse(f"{DIGEST} is not the digest of the other entries")
    if raw != _zipped(text, data, told):
        raise refuse("the zip has another form than clarke writes")
    return _parsed(text), _unpack_tensors(data)


def put(path: str | PathLike[str], raw: bytes) -> Path:
    """Write a file.

    Raises:
        InputError: It cannot be written.
    """
    place = Path(path)
    try:
        place.write_bytes(raw)
    except OSError as error:
        raise InputError(
            f"Cannot write {place}: {error.strerror}. Name a file in a folder that is there."
        ) from error
    return place


def read_bytes(path: Path) -> bytes:
    """A file, if it is not too large.

    Raises:
        InputError: It cannot be read.
        ProofError: It is too large.
    """
    try:
        size = path.stat().st_size
        if size > PROOF_BYTES:
            raise refuse(f"{path} has {size} bytes, more than {PROOF_BYTES:.0f}")
        if not path.is_file():  # a folder, or a device that has no end
            raise refuse(f"{path} is no file")
        return path.read_bytes()
    except OSError as error:
        raise InputError(
            f"Cannot read {path}: {error.strerror}. Name a file of a proof."
        ) from error


def canonical(content: Any) -> bytes:
    """JSON in its one form."""
    shown = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return shown.encode("ascii")


def digest_of(*parts: bytes) -> bytes:
    """The digest of the entries of a file."""
    each = b"".join(hashlib.sha256(p).digest() for p in parts)
    return hashlib.sha256(each).hexdigest().encode("ascii")


def _zipped(*contents: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name, content in zip((JSON, TENSORS, DIGEST), contents, strict=True):
            info = zipfile.ZipInfo(name, _WHEN)
            info.create_system, info.external_attr = 3, 0o644 << 16
            archive.writestr(info, content)
    return out.getvalue()


def _entries(raw: bytes) -> tuple[bytes, bytes, bytes]:
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            infos = archive.infolist()
            _check_entries(infos, len(raw))
            text, data, told = (archive.read(i) for i in infos)
    except ProofError:
        raise
    except Exception as error:
        raise refuse(f"the zip cannot be read ({in_a_line(error)})") from error
    return text, data, told


def _check_entries(infos: list[zipfile.ZipInfo], size: int) -> None:
    if [i.filename for i in infos] != [JSON, TENSORS, DIGEST]:
        raise refuse(f"its entries are not {JSON}, {TENSORS} and {DIGEST}")
    if any(i.compress_type != zipfile.ZIP_STORED for i in infos):
        raise refuse("an entry is compressed")
    if sum(i.file_size for i in infos) > size:
        raise refuse("an entry says that it is larger than the file")


def _parsed(text: bytes) -> Any:
    if len(text) > PROOF_JSON:
        raise refuse(f"{JSON} has {len(text)} bytes, more than {PROOF_JSON:.0f}")
    try:
        content = json.loads(text)
        same = canonical(content) == text
    except (ValueError, RecursionError) as error:
        raise refuse(f"{JSON} cannot be read ({in_a_line(error)})") from error
    if not same:
        raise refuse(f"{JSON} has another form than clarke writes")
    return content


def _pack_tensors(tensors: Mapping[str, torch.Tensor]) -> bytes:
    names = {dtype: name for name, dtype in _DTYPES}
    header: dict[str, Any] = {}
    parts: list[bytes] = []
    position = 0
    for name in sorted(tensors):
        tensor = tensors[name].detach().resolve_conj().resolve_neg().cpu().contiguous()
        if tensor.dtype not in names or tensor.layout != torch.strided:
            raise UnsupportedError(
                f"A tensor of the proof is {tensor.dtype}, {tensor.layout}, for which its file has "
                "no form. Verify the certificate where it was made."
            )
        # A single number may have any stride, which no other type can look at.
        flat = tensor.as_strided((tensor.numel(),), (1,))
        whole = flat.view(torch.uint8) if len(flat) else torch.zeros(0)
        content = array_of(whole).tobytes()
        header[name] = {
            "dtype": names[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [position, position + len(content)],
        }
        parts.append(content)
        position += len(content)
    return _framed(header) + b"".join(parts)


def _framed(header: Any) -> bytes:
    text = canonical(header)
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _unpack_tensors(data: bytes) -> dict[str, torch.Tensor]:
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or size > min(len(data) - 8, PROOF_JSON):
        raise refuse(f"the header of {TENSORS} is longer than the entry")
    try:
        header = json.loads(data[8 : 8 + size])
        same = _framed(header) == data[: 8 + size]
    except (ValueError, RecursionError) as error:
        raise refuse(f"the header of {TENSORS} cannot be read ({in_a_line(error)})") from error
    if not same or not isinstance(header, dict):
        raise refuse(f"the header of {TENSORS} has another form than clarke writes")
    body = memoryview(data)[8 + size :]
    found: dict[str, torch.Tensor] = {}
    position = 0
    for name in sorted(header):
        found[name] = _tensor(name, header[name], position, body)
        position = header[name]["data_offsets"][1]
    if position != len(body):
        raise refuse(f"bytes of {TENSORS} belong to no tensor")
    return found


def _tensor(name: str, entry: Any, position: int, body: memoryview) -> torch.Tensor:
    dtypes = dict(_DTYPES)
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise refuse(f"tensor {name!r} is not described by dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in dtypes:
        raise refuse(f"tensor {name!r} has a dtype that is not known")
    if not (_counts(shape) and len(shape) <= _MOST_DIMENSIONS):
        raise refuse(f"tensor {name!r} has no proper shape")
    own = dtypes[dtype]
    size = math.prod(shape) * own.itemsize
    if not (_counts(offsets) and offsets == [position, position + size]):
        raise refuse(f"the offsets of tensor {name!r} are not those of its shape")
    if position + size > len(body) or max(shape, default=0) > PROOF_BYTES:
        raise refuse(f"tensor {name!r} is longer than the entry")
    if size == 0:
        return torch.zeros(shape, dtype=own)
    content = bytearray(body[position : position + size])
    if own is torch.bool and content.count(0) + content.count(1) != size:
        raise refuse(f"tensor {name!r} holds truth values other than 0 and 1")
    return torch.frombuffer(content, dtype=own).reshape(shape)


def _counts(value: Any) -> bool:
    return isinstance(value, list) and all(type(v) is int and v >= 0 for v in value)
