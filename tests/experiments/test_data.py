"""The official file formats, and what is said when files are missing or broken."""

import gzip
import struct

import numpy as np
import pytest
import torch

from clarke.errors import InputError
from clarke.experiments.data import Source, load


def write_mnist(folder, pixels, labels, compress=True):
    def put(name, magic, values):
        head = struct.pack(f">I{values.ndim}I", magic, *values.shape)
        raw = head + values.astype(np.uint8).tobytes()
        path = folder / (name + (".gz" if compress else ""))
        path.write_bytes(gzip.compress(raw) if compress else raw)

    put("train-images-idx3-ubyte", 2051, pixels)
    put("train-labels-idx1-ubyte", 2049, labels)


def write_cifar(folder, per_file=2):
    rng = np.random.default_rng(0)
    records = rng.integers(0, 256, (5, per_file, 3073)).astype(np.uint8)
    records[:, :, 0] %= 10
    for i, part in enumerate(records, start=1):
        part.tofile(folder / f"data_batch_{i}.bin")
    return records.reshape(-1, 3073)


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("below", ["", "MNIST/raw"])
def test_mnist_is_read_as_published(tmp_path, compress, below):
    pixels = np.arange(3 * 28 * 28).reshape(3, 28, 28) % 251
    folder = tmp_path / below
    folder.mkdir(parents=True, exist_ok=True)
    write_mnist(folder, pixels, np.array([7, 0, 9]), compress)
    found = load(Source.MNIST, str(tmp_path))
    assert found.pixels.shape == (3, 1, 28, 28)
    assert found.pixels.dtype == torch.uint8
    assert np.array_equal(found.pixels[:, 0].numpy(), pixels)
    assert found.labels.tolist() == [7, 0, 9]
    assert found.name == "MNIST"


@pytest.mark.parametrize("below", ["", "cifar-10-batches-bin"])
def test_cifar_is_read_as_published(tmp_path, below):
    folder = tmp_path / below
    folder.mkdir(exist_ok=True)
    records = write_cifar(folder)
    found = load(Source.CIFAR10, str(tmp_path))
    assert found.pixels.shape == (10, 3, 32, 32)
    assert np.array_equal(found.labels.numpy(), records[:, 0])
    # planes: red first, row by row
    assert found.pixels[3, 1, 0, 5] == records[3, 1 + 1024 + 5]


@pytest.mark.parametrize("source", Source)
def test_missing_files_are_named_with_what_to_do(tmp_path, source):
    with pytest.raises(InputError, match=r"Download .*--data digits") as error:
        load(source, str(tmp_path))
    assert str(tmp_path) in str(error.value)


def test_one_missing_cifar_file_is_missing(tmp_path):
    write_cifar(tmp_path)
    (tmp_path / "data_batch_4.bin").unlink()
    with pytest.raises(InputError, match="are not in"):
        load(Source.CIFAR10, str(tmp_path))


def test_broken_files_are_refused(tmp_path):
    write_mnist(tmp_path, np.zeros((2, 28, 28)), np.zeros(2))
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-1]))
    with pytest.raises(InputError, match="ends early"):
        load(Source.MNIST, str(tmp_path))
    path.write_bytes(gzip.compress(b"\0\0\x08\x01" + b"\0" * 20))
    with pytest.raises(InputError, match="magic number 2051"):
        load(Source.MNIST, str(tmp_path))
    write_cifar(tmp_path)
    (tmp_path / "data_batch_2.bin").write_bytes(b"\0" * 100)
    with pytest.raises(InputError, match="3073-byte records"):
        load(Source.CIFAR10, str(tmp_path))


@pytest.mark.parametrize(
    ("source", "shape"), [(Source.MNIST, (1, 28, 28)), (Source.CIFAR10, (3, 32, 32))]
)
def test_digits_come_in_either_format(source, shape):
    found = load(source, "digits")
    assert found.pixels.shape[1:] == shape
    assert found.pixels.dtype == torch.uint8
    assert len(found.labels) == len(found.pixels) > 1000
    assert set(found.labels.tolist()) == set(range(10))
