"""Compiled loops, and the same in plain Python, against whole-array passes and definitions."""

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import clarke.compiled
from clarke.capture import ZeroFinder
from clarke.compiled import Compiled, Marks, coded, loops
from clarke.compiled.team import Team
from clarke.fast.codes import Coder
from clarke.fast.geometry import Windows
from clarke.fast.scratch import Scratch
from clarke.fast.ties import find_ties

TWOS = ((2, 2), (2, 2), (0, 0), (1, 1))
THREES = ((3, 3), (2, 2), (1, 1), (1, 1))
OTHERS = [
    ((3, 3), (1, 1), (1, 1), (1, 1)),
    ((3, 2), (2, 3), (1, 0), (1, 1)),
    ((2, 3), (1, 2), (0, 1), (2, 2)),
    ((1, 1), (1, 1), (0, 0), (1, 1)),
    ((3, 3), (2, 2), (2, 1), (1, 2)),
]


class Plain(Compiled):
    """The loops as Python runs them."""

    def __init__(self):
        super().__init__(always=True)
        self._tried = True
        self._functions = SimpleNamespace(**{**vars(coded), **vars(loops)})


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def shared():
    """Compiled loops of which torch's threads do a share each."""
    found = Compiled(always=True)
    assert found.can_take(1)
    if found._team is None:
        pytest.skip("torch comes without a libgomp of its own")
    return found


@pytest.fixture(params=["plain", "compiled", "shared"])
def own(request, two_threads):
    if request.param != "plain":
        pytest.importorskip("numba", reason="numba is not installed")
    if request.param == "shared":
        found = shared()
    else:
        found = Plain() if request.param == "plain" else Compiled(always=True)
        assert found.can_take(1)
        found._team = None
    with np.errstate(over="ignore"):  # codes wrap around, as they do when compiled
        yield found


def windows_for(geometry, space):
    kernel, stride, padding, dilation = geometry
    out = tuple(
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, k, s, p, d in zip(space, kernel, stride, padding, dilation, strict=True)
    )
    return Windows(*geometry, space, out)


@pytest.mark.parametrize("geometry", [TWOS, THREES], ids=["2x2", "3x3"])
@pytest.mark.parametrize(
    "space",
    # For every loop: by fours (one, two and four wide) or not, by eights, one by one.
    [(2, 2), (8, 2), (4, 16), (6, 32), (2, 48), (4, 8), (6, 8), (4, 4), (8, 4), (6, 4), (4, 6)],
    ids=str,
)
def test_tied_windows_are_those_of_the_passes(own, geometry, space):
    random = np.random.default_rng(0)
    kernel, stride, padding, _ = geometry
    for low in (-2, -60):
        x = torch.from_numpy(random.integers(low, 5, (5, 3, *space))).float().relu()
        x[0, 0, 0, 0] = torch.inf
        x[1, 1, 1, :2] = torch.inf
        x[2, 0, 1, 0] = x[2, 0, 0, 1] = 1e-45  # the smallest number above zero
        x[3, 2, 0, 1] = -0.0
        y = torch.nn.functional.max_pool2d(x, kernel, stride, padding)
        windows = windows_for(geometry, space)
        given = (x.numpy(), y.numpy(), windows, Scratch())
        expected = find_ties(*given, positive=True)
        found = find_ties(*given, own, positive=True)
        assert np.array_equal(found.tied, expected.tied)
        assert (found.windows, found.zero_ties) == (expected.windows, expected.zero_ties)
        assert found.tied.size
        assert found.count == expected.count == found.tied.size
        for some in (found, expected):
            assert np.array_equal(some.images(5), np.unique(found.tied // y[:1].numel()))
        codes = random.integers(0, 2, (5, *space)).astype(np.uint64)
        codes[0] = 7
        found = find_ties(*given, own, codes, positive=True)
        differing = several_codes(x.numpy(), y.numpy(), windows, codes)
        assert np.array_equal(found.tied, expected.tied[differing[expected.tied]])
        assert found.count > found.tied.size
        assert (found.count, found.zero_ties) == (expected.count, expected.zero_ties)


def several_codes(values, peaks, windows, codes):
    """(N * C * h * w,) whether elements of several codes attain a window's maximum."""
    found = np.zeros(peaks.shape, dtype=bool)
    for n, c, y, x in np.ndindex(peaks.shape):
        inside = [
            (y * windows.stride[0] - windows.padding[0] + i * windows.dilation[0],
             x * windows.stride[1] - windows.padding[1] + j * windows.dilation[1])
            for i, j in windows.offsets()
        ]  # fmt: skip
        inside = [(a, b) for a, b in inside if 0 <= a < codes.shape[1] and 0 <= b < codes.shape[2]]
        best = [codes[n][p] for p in inside if values[n, c][p] == peaks[n, c, y, x]]
        found[n, c, y, x] = len(set(best)) > 1
    return found.reshape(-1)


def test_arrays_that_do_not_belong_together_are_refused(own):
    x, y = np.ones((2, 3, 4, 4), np.float32), np.ones((2, 3, 2, 2), np.float32)
    codes = np.ones((2, 4, 4), np.uint64)
    assert own.tied(x, y, TWOS, codes).count == 24
    with pytest.raises(ValueError, match="of no maxpool"):
        own.tied(x, y[:1], TWOS, codes)
    for wrong in (codes[:1], codes[:, :2]):
        with pytest.raises(ValueError, match="of another input"):
            own.tied(x, y, TWOS, wrong)


def test_not_a_number_ties_with_nothing(own):
    x = torch.full((1, 1, 2, 2), torch.nan)
    assert (
        find_ties(
            x.numpy(),
            x[:, :, :1, :1].numpy(),
            windows_for(TWOS, (2, 2)),
            Scratch(),
            own,
            positive=True,
        ).tied.size
        == 0
    )


@pytest.mark.parametrize("geometry", OTHERS, ids=str)
def test_other_geometries_and_types_are_left_to_the_passes(own, geometry):
    x = torch.ones(1, 1, 6, 6)
    windows = windows_for(geometry, (6, 6))
    y = torch.ones(1, 1, *windows.out)
    assert own.tied(x.numpy(), y.numpy(), windows.geometry) is None
    twos = windows_for(TWOS, (6, 6))
    wide, largest = x.double().numpy(), torch.ones(1, 1, 3, 3).double().numpy()
    assert own.tied(wide, largest, twos.geometry) is None
    assert find_ties(wide, largest, twos, Scratch(), own, positive=True).tied.size == 9


@pytest.mark.parametrize("geometry", [TWOS, THREES, *OTHERS], ids=str)
def test_windows_whose_largest_elements_differ_in_their_codes(own, geometry):
    random = np.random.default_rng(1)
    images, channels, space = 4, 3, (6, 8)
    windows = windows_for(geometry, space)
    values = random.integers(1, 3, (images, channels, *space)).astype(np.float32)
    codes = random.integers(0, 2, (images, *space)).astype(np.uint64)
    codes[1, :4] = 7
    shape = (images, channels, *windows.out)
    peaks = np.ones(shape, np.float32)
    for n, c, y, x in np.ndindex(shape):
        rows = y * windows.stride[0] - windows.padding[0]
        columns = x * windows.stride[1] - windows.padding[1]
        inside = [
            values[n, c, rows + i * windows.dilation[0], columns + j * windows.dilation[1]]
            for i, j in windows.offsets()
            if 0 <= rows + i * windows.dilation[0] < space[0]
            and 0 <= columns + j * windows.dilation[1] < space[1]
        ]
        peaks[n, c, y, x] = max(inside, default=9)
    marked = random.random((images * channels, *windows.out)) < 0.5
    marked[::2, 0] = False
    marked[-channels:] = False  # an image without codes
    marks = Marks(marked, marked.any(axis=2))
    expected = several_codes(values, peaks, windows, codes).reshape(marked.shape) & marked
    which = np.array([2, 0, 1, 99])
    given = codes[[1, 2, 0]]
    found = own.differing(marks, values, peaks, given, which, windows.geometry)
    assert np.array_equal(found.places(), np.flatnonzero(expected))
    assert np.array_equal(marks.places(), np.flatnonzero(marked))
    for wrong in ((given[:, :4], which), (given, which[:2])):
        with pytest.raises(ValueError, match="of another input"):
            own.differing(marks, values, peaks, *wrong, windows.geometry)
    assert geometry[0] == (1, 1) or found.places().size


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("geometry", [TWOS, THREES, *OTHERS], ids=str)
def test_codes_are_those_of_the_passes(own, geometry, dtype):
    image = np.random.default_rng(2).integers(-2, 3, (3, 2, 6, 8)).astype(dtype)
    image[0, 0, 0, 0] = -0.0
    passes, coder = Coder(5), Coder(5, own)
    codes = passes.pixels(image)
    assert np.array_equal(coder.pixels(image), codes)
    assert np.array_equal(coder.pixels(image[::2]), codes[::2])
    windows = windows_for(geometry, (6, 8))
    assert np.array_equal(coder.fields(codes, windows), passes.fields(codes, windows))
    assert np.array_equal(
        coder.fields(codes[:, ::-1], windows), passes.fields(codes[:, ::-1], windows)
    )


@pytest.mark.parametrize("space", [(4, 4), (5, 5), (3, 8), (8, 3), (1, 1)], ids=str)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("reach", [2, 6, 9])
def test_codes_of_windows_wider_than_the_map(own, space, stride, reach):
    """Dilation and padding as in atrous pyramids: some columns of a kernel never meet the map."""
    codes = np.random.default_rng(6).integers(1, 1 << 60, (3, *space)).astype(np.uint64)
    windows = windows_for(((3, 3), (stride, stride), (reach, reach), (reach, reach)), space)
    assert np.array_equal(Coder(5, own).fields(codes, windows), Coder(5).fields(codes, windows))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_zeros_of_either_sign_are_found_where_they_are(own, dtype, zero):
    finder = ZeroFinder(own)
    tiny = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
    x = torch.tensor([1.0, -1.0, torch.nan, torch.inf, -torch.inf, tiny, -tiny, 3.0], dtype=dtype)
    assert finder.find(x).numel() == 0
    for place in range(8):
        y = x.clone()
        y[place] = zero
        assert finder.find(y).tolist() == [place]
    assert finder.find(x.reshape(2, 4).t()).numel() == 0


@pytest.mark.parametrize("threads", [1, 2, 3, 5])
def test_every_share_is_done_once_whatever_the_number_of_threads(two_threads, threads):
    pytest.importorskip("numba", reason="numba is not installed")
    both = shared()
    torch.set_num_threads(threads)
    for size in (1, 2, 7, 8, 9, 1000):
        values = np.ones(size, dtype=np.float32)
        assert not both.has_zero(values)
        for place in {0, size // 2, size - 1}:
            values[place] = 0
            assert both.has_zero(values)
            values[place] = 1
    image = np.random.default_rng(3).integers(-2, 3, (7, 2, 5, 6)).astype(np.float32)
    assert np.array_equal(Coder(5, both).pixels(image), Coder(5).pixels(image))


def test_threads_of_ones_own_may_share_at_the_same_time(two_threads):
    pytest.importorskip("numba", reason="numba is not installed")
    both = shared()
    image = np.random.default_rng(4).integers(-2, 3, (16, 3, 32, 32)).astype(np.float32)
    expected = Coder(5).pixels(image)
    with ThreadPoolExecutor(4) as pool:
        coders = [Coder(5, both) for _ in range(40)]
        found = list(pool.map(lambda coder: coder.pixels(image), coders))
    assert all(np.array_equal(codes, expected) for codes in found)


def test_there_is_no_team_where_torch_brings_no_runtime_or_one_without_the_call(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(torch, "__file__", str(tmp_path / "__init__.py"))
    assert Team.of_torch() is None
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "libgomp-of-another.so.1").write_text("not a library")
    assert Team.of_torch() is None
    monkeypatch.delattr("os.RTLD_NOLOAD", raising=False)  # as on Windows
    assert Team.of_torch() is None


def test_zeros_of_what_numpy_cannot_see(own):
    x = torch.complex(torch.ones(5), torch.tensor([1.0, 0.0, -2.0, 0.0, 3.0])).conj().imag
    for negative in (x, torch._neg_view(torch.tensor([1.0, 0.0, -2.0, 0.0, 3.0]))):
        assert negative.is_neg()
        assert ZeroFinder(own).find(negative).tolist() == [1, 3]


@pytest.mark.slow
def test_compiled_shares_are_compiled_again_when_the_loops_change(tmp_path):
    pytest.importorskip("numba", reason="numba is not installed")
    shared()
    package = Path(clarke.compiled.__file__).parent
    for name in ("__init__.py", "coded.py", "lanes.py", "loops.py", "shared.py", "team.py"):
        (tmp_path / name).write_text((package / name).read_text())
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, types, numpy as np, torch\n"
        "import clarke\n"
        "torch.set_num_threads(2)\n"
        "import clarke.compiled\n"
        f"clarke.compiled.__path__[:] = [{str(tmp_path)!r}]\n"
        "for name in ('coded', 'lanes', 'loops', 'shared', 'team'):\n"
        "    sys.modules.pop(f'clarke.compiled.{name}', None)\n"
        "    clarke.compiled.__dict__.pop(name, None)\n"
        "found = clarke.compiled.Compiled(always=True)\n"
        "assert found.can_take(1)\n"
        "print(found.has_zero(np.ones(1000, np.float32)))\n"
    )

    def outcome():
        run = [sys.executable, str(script)]
        return subprocess.run(run, capture_output=True, text=True, check=True).stdout.strip()

    assert outcome() == "False"
    text = (tmp_path / "loops.py").read_text()
    changed = text.replace("return bool(narrow == 0)", "return bool(narrow == 1)")
    assert changed != text
    (tmp_path / "loops.py").write_text(changed)
    assert outcome() == "True"


def test_numba_is_loaded_for_large_arrays_only_and_need_not_be_there(monkeypatch):
    monkeypatch.setitem(sys.modules, "numba", None)  # importing it fails
    monkeypatch.delitem(sys.modules, "clarke.compiled.shared", raising=False)
    monkeypatch.delattr(clarke.compiled, "shared", raising=False)
    absent = Compiled()
    assert not absent.can_take(1 << 30)
    with pytest.raises(RuntimeError, match="can_take"):
        absent.has_zero(np.ones(3, dtype=np.float32))
    monkeypatch.undo()
    pytest.importorskip("numba", reason="numba is not installed")
    assert not absent.can_take(1 << 30)  # asked once
    present = Compiled()
    assert not present.can_take(1 << 14)
    assert present.can_take(1 << 18)
    assert present.can_take(1 << 14)
    assert not present.can_take(100)


def test_numba_that_is_switched_off_is_no_numba(monkeypatch):
    config = pytest.importorskip("numba.core.config")
    monkeypatch.setattr(config, "DISABLE_JIT", True)
    assert not Compiled().can_take(1 << 30)


def test_numba_that_cannot_be_used_is_no_numba(monkeypatch):
    """Such as one that finds no folder for its cache."""
    pytest.importorskip("numba")

    class Fails:
        def find_spec(self, name, *_):
            if name == "clarke.compiled.shared":
                raise RuntimeError("cannot cache function: no locator available")

    monkeypatch.delitem(sys.modules, "clarke.compiled.shared", raising=False)
    monkeypatch.delattr("clarke.compiled.shared", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Fails(), *sys.meta_path])
    assert not Compiled().can_take(1 << 30)


def test_an_audit_compiles_in_the_background_once_it_pays(monkeypatch, caplog):
    started, go_on = [], threading.Event()

    def compile_slowly():
        started.append(threading.current_thread() is threading.main_thread())
        go_on.wait(10)
        return loops

    monkeypatch.delitem(sys.modules, "clarke.compiled.shared", raising=False)
    monkeypatch.setattr(clarke.compiled, "_compile", compile_slowly)
    monkeypatch.setattr(clarke.compiled, "_PAYS", 3 << 18)
    patient = Compiled(patient=True)
    with caplog.at_level("INFO", "clarke"):
        assert not patient.can_take(1 << 17)  # too small to count
        assert not patient.can_take(1 << 18)
        assert not patient.can_take(1 << 18)
        assert not started
        for _ in range(5):
            assert not patient.can_take(1 << 18)  # it goes on without
    assert len(caplog.records) == 1
    go_on.set()
    assert patient._compiling._done.wait(10)
    assert patient.can_take(1 << 18)
    assert started == [False]


def test_a_background_that_fails_leaves_everything_as_it_is(monkeypatch):
    monkeypatch.delitem(sys.modules, "clarke.compiled.shared", raising=False)
    monkeypatch.setattr(clarke.compiled, "_compile", lambda: None)
    monkeypatch.setattr(clarke.compiled, "_PAYS", 1)
    patient = Compiled(patient=True)
    patient.can_take(1 << 18)
    assert patient._compiling._done.wait(10)
    assert not patient.can_take(1 << 18)
    assert not patient.can_take(1 << 18)
