"""Readers of the official MNIST and CIFAR-10 files, and scikit-learn's digits in their place.

Nothing is downloaded: the user points at the files as their authors publish them.
"""

from __future__ import annotations

import gzip
import struct
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from clarke.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_RECORD = 3073  # one label byte and 3 x 32 x 32 pixels
_IMAGES, _LABELS = 2051, 2049  # magic numbers of IDX files of bytes with 3 and 1 dimensions


class Source(Enum):
    """The data sets of the two scenarios."""

    MNIST = "MNIST"
    CIFAR10 = "CIFAR-10"


@dataclass(frozen=True, eq=False)
class Images:
    """Images and labels of one split.

    Attributes:
        pixels: (n, c, h, w) uint8.
        labels: (n,) int64.
        name: What they are, for tables.
    """

    pixels: torch.Tensor
    labels: torch.Tensor
    name: str


def load(source: Source, data: str) -> Images:
    """The training images of a data set.

    Args:
        source: Which one.
        data: A folder with the official files, or "digits" for scikit-learn's digits, enlarged to
            the data set's format.

    Raises:
        InputError: The files are not there or not as expected; says what to download and whereto.
    """
    if data == "digits":
        return _digits(source)
    folder = Path(data).expanduser()
    return _mnist(folder) if source is Source.MNIST else _cifar(folder)


def _mnist(folder: Path) -> Images:
    images = _find(folder, ("train-images-idx3-ubyte.gz", "train-images-idx3-ubyte"))
    labels = _find(folder, ("train-labels-idx1-ubyte.gz", "train-labels-idx1-ubyte"))
    if images is None or labels is None:
        raise InputError(
            f"The MNIST training files are not in {folder}. Download "
            "train-images-idx3-ubyte.gz and train-labels-idx1-ubyte.gz (yann.lecun.com/exdb/mnist "
            f"or a mirror) to {folder} and leave them compressed, or use `--data digits`."
        )
    pixels = _idx(images, _IMAGES)
    return Images(
        torch.from_numpy(pixels).unsqueeze(1),
        torch.from_numpy(_idx(labels, _LABELS).astype(np.int64)),
        "MNIST",
    )


def _idx(path: Path, magic: int) -> NDArray[np.uint8]:
    """The bytes of an IDX file in its shape."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rb") as file:
        raw = file.read()
    if len(raw) < 4 or struct.unpack(">I", raw[:4])[0] != magic:
        raise InputError(
            f"{path} is not an IDX file of the expected kind (magic number {magic}). "
            "Download it again."
        )
    rank = magic % 256
    shape = struct.unpack(f">{rank}I", raw[4 : 4 + 4 * rank])
    values = np.frombuffer(raw, dtype=np.uint8, offset=4 + 4 * rank)
    if values.size != int(np.prod(shape)):
        raise InputError(f"{path} ends early: {values.size} bytes for {shape}. Download it again.")
    return values.reshape(shape).copy()


def _cifar(folder: Path) -> Images:
    names = [f"data_batch_{i}.bin" for i in range(1, 6)]
    paths = [_find(folder, (name,)) for name in names]
    found = [p for p in paths if p is not None]
    if len(found) < len(names):
        raise InputError(
            f"The CIFAR-10 training files data_batch_1.bin to data_batch_5.bin are not in {folder}."
            " Download cifar-10-binary.tar.gz from www.cs.toronto.edu/~kriz/cifar.html and unpack "
            f"it in {folder}, or use `--data digits`."
        )
    parts = []
    for path in found:
        raw = np.fromfile(path, dtype=np.uint8)
        if raw.size == 0 or raw.size % _RECORD:
            raise InputError(
                f"{path} has {raw.size} bytes, which is no whole number of {_RECORD}-byte records. "
                "Download the binary version (not the Python pickles) again."
            )
        parts.append(raw.reshape(-1, _RECORD))
    records = np.concatenate(parts)
    return Images(
        torch.from_numpy(records[:, 1:].reshape(-1, 3, 32, 32).copy()),
        torch.from_numpy(records[:, 0].astype(np.int64)),
        "CIFAR-10",
    )


def _find(folder: Path, names: tuple[str, ...]) -> Path | None:
    """A file in a folder, or where the usual archives and loaders put it below."""
    for name in names:
        for inner in ("", "MNIST/raw", "mnist", "cifar-10-batches-bin"):
            path = folder / inner / name
            if path.is_file():
                return path
    return None


def _digits(source: Source) -> Images:
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        raise InputError(
            "`--data digits` reads the digits that come with scikit-learn, which is not installed. "
            "Run: pip install 'clarke[demo]'."
        ) from error
    found = load_digits()
    small = torch.from_numpy(found.images).to(torch.float32).unsqueeze(1) / 16
    size, channels = ((28, 28), 1) if source is Source.MNIST else ((32, 32), 3)
    large = torch.nn.functional.interpolate(small, size=size, mode="bilinear", align_corners=False)
    pixels = (large * 255).round().to(torch.uint8).expand(-1, channels, -1, -1).contiguous()
    return Images(pixels, torch.from_numpy(found.target.astype(np.int64)), "digits")
