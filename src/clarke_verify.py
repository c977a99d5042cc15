#!/usr/bin/env python3
"""Check a proof that clarke saved, with nothing but Python: `python clarke_verify.py FILE`.

This file shares no code with clarke and imports the standard library only, so that a proof need not
be believed because clarke believes it. The program of the file is evaluated at its point in exact
rational arithmetic (exp, log and the like by intervals), with derivatives of its own; what follows
is compared with what the file claims. `docs/certificate.md` describes the file and the argument.

Exit status: 0 checked, 1 rejected, 2 cannot tell (unsupported, or too large).
"""

import hashlib
import io
import json
import math
import struct
import sys
import zipfile
from fractions import Fraction as F
from itertools import product

ENTRIES = ("proof.json", "tensors.safetensors", "sha256")
KINDS = {"F64": "d", "F32": "f", "F16": "e", "BF16": "H", "I64": "q", "I32": "i", "I16": "h",
         "I8": "b", "U8": "B", "BOOL": "?"}  # fmt: skip
UNIT = {"F32": -24, "F16": -11, "BF16": -8, "float32": -24, "float16": -11, "bfloat16": -8}
MOST_BYTES, MOST_WORK, MOST_CELLS, MOST_BITS, BITS, MOST_PARTS = 1 << 28, 2_000_000, 2_000, 1 << 15, 200, 16


class Rejected(Exception):
    """The file is no proof of what it says."""


class CannotTell(Exception):
    """This checker is not made for what the file holds."""


# --- the file -------------------------------------------------------------------------------------


def written(entries):
    """The one form of a zip with these entries."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name, content in zip(ENTRIES, entries):
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.create_system, info.external_attr = 3, 0o644 << 16
            archive.writestr(info, content)
    return out.getvalue()


def canonical(content):
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


class Tensors(dict):
    """Shape and numbers by name; which of them were asked for, and what types they have."""

    def __init__(self):
        super().__init__()
        self.used, self.kinds = set(), {}

    def __getitem__(self, name):
        self.used.add(name)
        return super().__getitem__(name)


def load(path):
    """The JSON and the tensors of a file: {name: (shape, list of numbers)}."""
    with open(path, "rb") as stream:
        raw = stream.read(MOST_BYTES + 1)
    if len(raw) > MOST_BYTES:
        raise CannotTell(f"the file has more than {MOST_BYTES} bytes")
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            infos = archive.infolist()
            if tuple(i.filename for i in infos) != ENTRIES:
                raise Rejected("the entries of the zip are not " + ", ".join(ENTRIES))
            if any(i.compress_type or i.file_size > len(raw) for i in infos):
                raise Rejected("an entry of the zip is compressed, or larger than the file")
            text, data, told = entries = [archive.read(i) for i in infos]
        if told != hashlib.sha256(b"".join(hashlib.sha256(e).digest() for e in (text, data))
                                  ).hexdigest().encode() or written(entries) != raw:  # fmt: skip
            raise Rejected("the digest is another one, or the zip has another form")
        content = json.loads(text)
        size = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + size])
        shown = canonical(header)
        shown += b" " * (-len(shown) % 8)
        if canonical(content) != text or len(shown) != size or data[8 : 8 + size] != shown:
            raise Rejected("the JSON has another form than clarke writes")
        tensors, position = Tensors(), 8 + size
        for name in sorted(header):
            kind, shape = KINDS[header[name]["dtype"]], header[name]["shape"]
            if set(header[name]) != {"dtype", "shape", "data_offsets"} or min([0, *shape]) < 0:
                raise Rejected(f"tensor {name} is not described by dtype, shape and offsets")
            count = math.prod(shape)
            end = position + count * struct.calcsize("<" + kind)
            if header[name]["data_offsets"] != [position - 8 - size, end - 8 - size]:
                raise Rejected(f"tensor {name} is not where it should be")
            if end > len(data):
                raise Rejected(f"tensor {name} is longer than the file")
            values = struct.unpack(f"<{count}{kind}", data[position:end])
            if header[name]["dtype"] == "BF16":
                values = struct.unpack(f"<{count}f", b"".join(struct.pack("<HH", 0, v) for v in values))
            tensors[name], position = (shape, list(values)), end
            tensors.kinds[name] = header[name]["dtype"]
        if position != len(data):
            raise Rejected("bytes of the tensors belong to none")
    except (Rejected, CannotTell):
        raise
    except Exception as error:
        raise Rejected(f"the file cannot be read: {type(error).__name__} {error}"[:200]) from error
    return content, tensors


# --- numbers: exact rationals, and intervals around what is none --------------------------------------


class Iv:
    """All numbers from lo to hi, both rational."""

    def __init__(self, lo, hi):
        self.lo, self.hi = lo, hi

    def __add__(self, other):
        a, b = ends(other)
        return between(self.lo + a, self.hi + b)

    def __mul__(self, other):
        found = [x * y for x in ends(self) for y in ends(other)]
        return between(min(found), max(found))

    __radd__, __rmul__ = __add__, __mul__
    __neg__ = lambda self: Iv(-self.hi, -self.lo)
    __sub__ = lambda self, other: self + -other
    __rsub__ = lambda self, other: -self + other

def ends(x):
    return (x.lo, x.hi) if isinstance(x, Iv) else (x, x)

def between(lo, hi):
    """An interval, its ends rounded outwards where they are long."""
    if lo.denominator.bit_length() + hi.denominator.bit_length() > 4 * BITS and lo != hi:
        size = max(abs(lo), abs(hi))
        unit = 1 << max(BITS - size.numerator.bit_length() + size.denominator.bit_length(), 0)
        lo, hi = F(math.floor(lo * unit), unit), F(math.ceil(hi * unit), unit)
    return lo if lo == hi else Iv(lo, hi)

def bits(x):
    return sum(F(e).numerator.bit_length() + F(e).denominator.bit_length() for e in ends(x))

def inverse(x):
    lo, hi = ends(x)
    return between(1 / hi, 1 / lo) if lo > 0 or hi < 0 else stop("a division by zero, or what may be")

def sign(x):
    """1, 0 or -1; None where an interval holds zero."""
    lo, hi = ends(x)
    return 1 if lo > 0 else -1 if hi < 0 else 0 if lo == hi else None

def libm(f, name):
    """A growing function by intervals: the math library is believed to 2^-48, exact cases are known."""
    def bounds(x):
        if isinstance(x, F) and (name, x) in EXACT:
            return EXACT[name, x]
        lo, hi = (F(f(math.nextafter(float(e), s))) for e, s in zip(ends(x), (-math.inf, math.inf)))
        return between(lo - abs(lo) / 2**48, hi + abs(hi) / 2**48)
    return bounds

def root(x):
    top, low = (math.isqrt(max(n, 0)) for n in (ends(x)[0].numerator, ends(x)[0].denominator))
    return F(top, low) if isinstance(x, F) and F(top, low) ** 2 == x else libm(math.sqrt, "sqrt")(x)

EXACT = {("exp", 0): F(1), ("log", 1): F(0), ("tanh", 0): F(0)}
SMOOTH = {
    "exp": (libm(math.exp, "exp"), lambda x, y: y),
    "log": (libm(math.log, "log"), lambda x, y: inverse(x)),
    "sqrt": (root, lambda x, y: inverse(2 * y)),
    "tanh": (libm(math.tanh, "tanh"), lambda x, y: 1 - y * y),
}


# --- one evaluation: values, derivatives and pieces --------------------------------------------------

class Node:
    """A number of the program.

    v: its value; e: as a function near the point it is a constant and these multiples of atoms
    (variables, and results of what is not linear); g: its derivatives by variables ("x") and by
    kinks ("k"); s: the sums of the sizes of their terms; h: bounds of its derivative along the
    direction, and a the sum of the sizes in it.
    """

    __slots__ = ("a", "e", "g", "h", "live", "s", "v")

    def __init__(self, v, e=None, g=None, h=(0, 0), a=0.0, s=None):
        self.v, self.e, self.g, self.h, self.a = v, e or {}, g or {}, h, a
        self.s, self.live = s or {}, bool(self.e or self.g)

class Branch(Exception):
    """The evaluation cannot go on before this kink has a piece."""

class Run:
    """One evaluation of the program.

    With a direction alone, pieces are those that it selects ("along"); with choices, those that
    they name, and all others stay open ("tree"); with neither, those of the point itself ("point").
    """

    work = 0  # of all evaluations of a file together

    def __init__(self, touched, direction=None, choices=None):
        self.mode = "point" if direction is None else "along" if choices is None else "tree"
        self.touched, self.d, self.choices = touched, direction, choices or {}
        self.kinks, self.conditions, self.arguments, self.open = [], [], [], []
        self.atoms, self.pieces, self.masks, self.seen, self.ties, self.loose, self.subs = {}, {}, set(), set(), set(), set(), {}

    def leaf(self, v, n):
        d = self.d[n] if self.d else F(0)
        return Node(v, {("x", n): F(1)}, {("x", n): F(1)}, (d, d), abs(float(d)), {("x", n): 1.0})

    def combine(self, v, pairs, atom=None):
        """A node of value v with these derivatives; linear, or else an atom of that name."""
        pairs = [(n, c) for n, c in pairs if n.live and (atom or c != 0)]
        e, g, lo, hi, size, s = {}, {}, 0, 0, 0.0, {}
        for n, c in pairs:
            Run.work += 2 + len(n.e) + len(n.g)
            absolute = abs(float(ends(c)[0]))
            for k, x in () if atom else n.e.items():
                e[k] = e.get(k, 0) + c * x
            for k, x in n.g.items() if self.mode == "along" else ():
                g[k] = g.get(k, 0) + c * x
            for k, x in n.s.items() if self.mode == "along" else ():
                s[k] = s.get(k, 0.0) + absolute * x
            parts = [x * y for x in ends(c) for y in n.h]
            lo, hi, size = lo + min(parts), hi + max(parts), size + absolute * n.a
        Run.work += 2
        if Run.work > MOST_WORK or max([bits(v), bits(hi), *map(bits, g.values())]) > MOST_BITS:
            stop("the program is too large for exact arithmetic")
        e = {atom: F(1)} if atom else {k: x for k, x in e.items() if x != 0}
        return Node(v, e, {k: x for k, x in g.items() if x != 0}, (lo, hi), size, s)

    def nonlinear(self, name, args, value, slopes):
        """What is not linear: the same function of the same nodes is the same atom."""
        if not any(n.live for n in args):
            return Node(value)
        key = (name, *map(id, args))
        if key not in self.atoms:
            found = self.combine(value, list(zip(args, slopes)), ("atom", len(self.atoms)))
            self.atoms[key] = (found, args)
        return self.atoms[key][0]

    def add(self, *pairs):
        return self.combine(sum((n.v * c for n, c in pairs), F(0)), pairs)

    def mul(self, x, y):
        if not x.live or not y.live:
            x, y = (x, y) if x.live else (y, x)
            return self.combine(x.v * y.v, [(x, y.v)])
        x, y = (x, y) if id(x) <= id(y) else (y, x)
        return self.nonlinear("*", (x, y), x.v * y.v, (y.v, x.v))

    def div(self, x, y):
        over = inverse(y.v)
        return self.nonlinear("/", (x, y), x.v * over, (over, -(x.v * over * over))) if y.live else self.mul(x, Node(over))

    def smooth(self, name, x):
        y = SMOOTH[name][0](x.v)
        return self.nonlinear(name, (x,), y, (SMOOTH[name][1](x.v, y),) if x.live else ())

    def power(self, x, n):
        if n == 0.5:
            return self.smooth("sqrt", x)
        found = ONE if n == int(n) and abs(n) <= 64 else stop(f"the power {n}")
        for _ in range(abs(int(n))):
            found = self.mul(found, x)
        return found if n >= 0 else self.div(ONE, found)

    def along(self, n):
        return sum((x * self.d[k[1]] for k, x in n.g.items() if k[0] == "x"), F(0))

    def close(self, difference, where):
        """Sign of a difference at the point; where the file says so, roundings have made it zero."""
        found = sign(difference)
        if found != 0 and where in self.touched and max(map(abs, ends(difference))) < F(1, 1 << 20):
            self.loose.add(where)
            return 0
        return stop(f"rounding decides operation {where[0]}, element {where[1]}") if found is None else found

    def key(self, where):
        self.subs[where] = self.subs.get(where, 0) + 1
        return (*where, self.subs[where])

    def largest(self, nodes, where):
        """The largest of some nodes: the operation with kinks to which all others lead."""
        key, tied, top = self.key(where), [], max(nodes, key=lambda n: ends(n.v)[1])
        for n in nodes:
            if n is top or self.close(top.v - n.v, where) == 0:
                self.ties |= {where} if tied else set()
                tied += [n] if all(n.e != t.e or n.g != t.g for t in tied) else []
        self.seen |= {where} if any(n.e != tied[0].e for n in tied) else set()
        if len(tied) == 1 or self.mode == "point":
            return tied[0]
        if self.mode == "tree":
            return self.branch(tied, key)
        slopes = [self.along(n) for n in tied]
        best = max(range(len(tied)), key=lambda i: ends(slopes[i])[1])
        plain = [{k: x for k, x in n.g.items() if k[0] == "x"} for n in tied]
        same = [p == plain[best] for p in plain]
        signs = {sign(slopes[best] - s) for e, s in zip(same, slopes) if not e}
        strict = None if None in signs else signs <= {1}
        self.arguments += tied if all(same) else []
        self.pieces[where] = nodes.index(tied[best])
        self.kinks.append((where, tied, strict, all(same)))
        return Node(tied[best].v, tied[best].e, {**tied[best].g, ("k", len(self.kinks) - 1): F(1)}, s=tied[best].s)

    def branch(self, tied, key):
        if key in self.choices:
            chosen = tied[self.choices[key]]
            self.conditions += [self.add((chosen, 1), (n, -1)).e for n in tied if n is not chosen]
            return chosen
        lo, hi = min(n.h[0] for n in tied), max(n.h[1] for n in tied)
        self.open += [(key, len(tied))] if lo < hi else []
        return Node(tied[0].v, {("open", key): F(1)}, None, (lo, hi), max(n.a for n in tied))

    def compare(self, x, where):
        """The sign of a node just beside the point, or at it in a run of the point itself."""
        key, found = self.key(where), self.close(x.v, where)
        self.ties |= {where} if found == 0 else set()
        self.seen |= {where} if found == 0 and x.e else set()
        self.arguments += [x] if found == 0 else []
        if found != 0 or self.mode == "point" or not x.e:
            return found
        self.masks |= {where}
        if self.mode == "along":
            return sign(self.along(x)) or stop(f"the direction leaves the comparison {where} open")
        if key not in self.choices:
            raise Branch(key)
        found = (1, -1)[self.choices[key]]
        self.conditions.append(self.add((x, found)).e)
        return found

    def relevant(self, result):
        """Kinks that matter: {where: strict}."""
        found, todo, done = {}, [result, *self.arguments], set()
        while todo:
            for kind, number in todo.pop().g:
                if kind == "k" and number not in done:
                    done.add(number)
                    where, tied, strict, null = self.kinks[number]
                    if not null:
                        found[where] = strict if found.get(where, True) else found[where]
                        todo += tied
        return found


# --- tensors and operators --------------------------------------------------------------------------

ZERO, ONE = Node(F(0)), Node(F(1))

class T:
    """Entries of a memory that other tensors may share: their places, in C order."""

    def __init__(self, shape, memory, places=None):
        self.shape, self.memory = list(shape), memory
        self.places = list(range(len(memory))) if places is None else places

    @property
    def nodes(self):
        return [self.memory[p] for p in self.places]

    def view(self, shape, old=None):
        """A view: `old` tells the index in this tensor for an index in the view."""
        if math.prod(shape) > MOST_WORK:
            stop("a tensor is too large for exact arithmetic")
        places = self.places if old is None else [self.places[self.at(old(m))] for m in grid(shape)]
        return T(shape, self.memory, places)

    def at(self, index):
        found = 0
        for i, n in zip(index, self.shape, strict=True):
            found = found * n + i % n if -n <= i < n else stop("an index is out of range")
        return found

    def expand(self, shape):
        own, first = self.shape, len(shape) - len(self.shape)
        shape = [own[i - first] if n == -1 else n for i, n in enumerate(shape)]
        return self.view(shape, lambda m: [0 if n == 1 else i for i, n in zip(m[first:], own)])

    def groups(self, dims=()):
        """Places of entries along some dimensions (all, by default), for each index of the others."""
        dims = {d % max(len(self.shape), 1) for d in dims or range(len(self.shape))}
        found = {}
        for n, m in enumerate(grid(self.shape)):
            found.setdefault(tuple(i for d, i in enumerate(m) if d not in dims), []).append(n)
        return dims, list(found.values())

def stop(what):
    raise CannotTell(what)

def grid(shape):
    return product(*map(range, shape))

def listed(x):
    return [x] if isinstance(x, int) else list(x or [])

def numbers(t):
    """The whole numbers of a tensor that depends on no variable."""
    return [int(n.v) if not n.live and n.v == int(n.v) else stop("a place that varies") for n in t.nodes]

def logic(f):
    return lambda r, w, *nodes: Node(F(f(*(stop("a mask that varies") if n.live else n.v != 0 for n in nodes))))

def comparison(f):
    return lambda r, w, x, y: Node(F(f(r.compare(r.add((x, 1), (y, -1)), w))))

def smallest(r, w, nodes):
    return r.add((r.largest([r.add((n, -1)) for n in nodes], w), -1))

def clamp(r, w, x, low=None, high=None):
    x = x if low is None else r.largest([low, x], w)
    return x if high is None else smallest(r, w, [high, x])

def leaky(r, w, x, slope=Node(F(0.01))):
    if not slope.live and 0 <= slope.v <= 1:
        return r.largest([r.mul(x, slope), x], w)
    below = r.largest([ZERO, r.add((x, -1))], w)
    return r.add((r.largest([ZERO, x], w), 1), (r.mul(below, slope), -1))

def softshrink(r, w, x, by=Node(F(1, 2))):
    both = [r.largest([ZERO, r.add((x, s), (by, -1))], w) for s in (1, -1)]
    return r.add((both[0], 1), (both[1], -1))

def sigmoid(r, w, x):
    return r.div(ONE, r.add((ONE, 1), (r.smooth("exp", r.add((x, -1))), 1)))

def softplus(r, w, x, beta=ONE, threshold=Node(F(20))):
    y = r.mul(x, beta)
    return r.div(r.smooth("log", r.add((ONE, 1), (r.smooth("exp", y), 1))), beta) if ends(y.v)[1] < threshold.v else x

def logsumexp(r, w, nodes):
    return r.smooth("log", r.add(*[(r.smooth("exp", n), 1) for n in nodes]))

def log_softmax(r, nodes):
    total = logsumexp(r, None, nodes)
    return [r.add((n, 1), (total, -1)) for n in nodes]

def normal(r, nodes, eps):
    """Nodes less their mean, over their standard deviation."""
    mean = r.add(*[(x, F(1, len(nodes))) for x in nodes])
    off = [r.add((x, 1), (mean, -1)) for x in nodes]
    deviation = r.smooth("sqrt", r.add(*[(r.mul(x, x), F(1, len(nodes))) for x in off], (ONE, F(eps))))
    return [r.div(x, deviation) for x in off]

POINTWISE = {
    "add": lambda r, w, x, y, alpha=ONE: r.add((x, 1), (y, alpha.v)),
    "sub": lambda r, w, x, y, alpha=ONE: r.add((x, 1), (y, -alpha.v)),
    "rsub": lambda r, w, x, y, alpha=ONE: r.add((y, 1), (x, -alpha.v)),
    "neg": lambda r, w, x: r.add((x, -1)),
    "mul": lambda r, w, x, y: r.mul(x, y),
    "div": lambda r, w, x, y: r.div(x, y),
    "square": lambda r, w, x: r.mul(x, x),
    "pow": lambda r, w, x, n: r.power(x, float(n.v)) if not n.live else stop("a power that varies"),
    "reciprocal": lambda r, w, x: r.div(ONE, x),
    "rsqrt": lambda r, w, x: r.div(ONE, r.smooth("sqrt", x)),
    "log1p": lambda r, w, x: r.smooth("log", r.add((x, 1), (ONE, 1))),
    "expm1": lambda r, w, x: r.add((r.smooth("exp", x), 1), (ONE, -1)),
    "sigmoid": sigmoid, "softplus": softplus, "leaky_relu": leaky, "_prelu_kernel": leaky, "softshrink": softshrink,
    "threshold": lambda r, w, x, t, y: x if r.compare(r.add((x, 1), (t, -1)), w) > 0 else y,
    "clamp": clamp, "clamp_min": clamp,
    "silu": lambda r, w, x: r.mul(x, sigmoid(r, w, x)),
    "relu": lambda r, w, x: r.largest([ZERO, x], w),
    "abs": lambda r, w, x: r.largest([r.add((x, -1)), x], w),
    "maximum": lambda r, w, x, y: r.largest([y, x], w),
    "minimum": lambda r, w, x, y: smallest(r, w, [x, y]),
    "hardtanh": lambda r, w, x, low=Node(F(-1)), high=ONE: clamp(r, w, x, low, high),
    "clamp_max": lambda r, w, x, high: clamp(r, w, x, None, high),
    "gt": comparison(lambda s: s > 0), "ge": comparison(lambda s: s >= 0),
    "lt": comparison(lambda s: s < 0), "le": comparison(lambda s: s <= 0),
    "eq": comparison(lambda s: s == 0), "ne": comparison(lambda s: s != 0),
    "sign": lambda r, w, x: Node(F(r.compare(x, w))),
    "where": lambda r, w, c, x, y: x if logic(bool)(r, w, c).v else y,
    "masked_fill": lambda r, w, x, c, y: y if logic(bool)(r, w, c).v else x,
    **dict.fromkeys(("logical_and", "bitwise_and"), logic(lambda x, y: x and y)),
    **dict.fromkeys(("logical_or", "bitwise_or"), logic(lambda x, y: x or y)),
    **dict.fromkeys(("logical_not", "bitwise_not"), logic(lambda x: not x)),
    **{k: lambda r, w, x, k=k: r.smooth(k, x) for k in SMOOTH},
    **dict.fromkeys(("clone", "_to_copy", "contiguous", "lift_fresh"), lambda r, w, x: x),
    **dict.fromkeys(("copy", "fill", "full_like"), lambda r, w, x, y: y),
    **dict.fromkeys(("zeros_like", "zero"), lambda r, w, x: ZERO),
    "ones_like": lambda r, w, x: ONE,
}
OVERLOADS = set("default Tensor Scalar dim int self other out Tensor_Scalar dim_IntList dims "
                "ScalarOther ScalarSelf Tensor_Tensor".split())  # fmt: skip
BY_SIGN = {f"aten::{k}" for k in ("relu", "abs", "maximum", "minimum")}  # numbered so here
REDUCED = {
    "sum": lambda r, w, nodes: r.add(*[(n, 1) for n in nodes]),
    "mean": lambda r, w, nodes: r.add(*[(n, F(1, len(nodes))) for n in nodes]),
    "amax": lambda r, w, nodes: r.largest(nodes, w), "max": lambda r, w, nodes: r.largest(nodes, w),
    "amin": smallest, "min": smallest, "logsumexp": logsumexp,
}

VIEWS = {
    "view": lambda t, shape, *_: t.view([n if n >= 0 else -(-len(t.places) // max(1, -math.prod(shape))) for n in shape]),
    "t": lambda t: t.view(t.shape[::-1], lambda m: m[::-1]),
    "transpose": lambda t, a, b: VIEWS["permute"](t, swapped(len(t.shape), a, b)),
    "permute": lambda t, dims: t.view([t.shape[d] for d in dims], lambda m: [m[[x % len(dims) for x in dims].index(i)] for i in range(len(dims))]),
    "expand": lambda t, shape, *_: t.expand(shape),
    "select": lambda t, d, i: t.view(cut(t.shape, d), lambda m: put(m, d % len(t.shape), i)),
    "slice": lambda t, d=0, a=None, b=None, s=1: picked(t, d, [*range(t.shape[d])[slice(a, b, s)]]),
    "unsqueeze": lambda t, d: t.view(put(t.shape, d % (len(t.shape) + 1), 1)),
    "squeeze": lambda t, d=None: t.view([n for i, n in enumerate(t.shape) if n != 1 or (d is not None and i not in [x % len(t.shape) for x in listed(d)])]),
    "flip": lambda t, dims: t.view(t.shape, lambda m: [t.shape[i] - 1 - x if i in [d % len(m) for d in dims] else x for i, x in enumerate(m)]),
    "alias": lambda t: t,
}
VIEWS |= dict.fromkeys(("_unsafe_view", "reshape", "_reshape_alias"), VIEWS["view"])

def swapped(n, a, b):
    order = list(range(n))
    order[a], order[b] = order[b], order[a]
    return order

def cut(shape, d):
    return [n for i, n in enumerate(shape) if i != d % len(shape)]

def put(m, d, i):
    return [*m[:d], i, *m[d:]]

def picked(t, d, places):
    """The entries of a tensor at these places of one dimension."""
    d %= len(t.shape)
    return t.view([*t.shape[:d], len(places), *t.shape[d + 1 :]], lambda m: [*m[:d], places[m[d]], *m[d + 1 :]])

def indexed(t, indices):
    found = [None if i is None else i for i in indices] + [None] * (len(t.shape) - len(indices))
    where = [d for d, i in enumerate(found) if i is not None]
    if where != list(range(where[0], where[-1] + 1)):
        stop("an index by tensors that stand apart")
    shape = broadcast([found[d].shape for d in where])
    tables = [numbers(found[d].expand(shape)) for d in where]
    first, k = where[0], len(shape)
    inner = T(shape, [None] * math.prod(shape))
    def old(m):
        n = inner.at(m[first : first + k])
        return [*m[:first], *(table[n] for table in tables), *m[first + k :]]
    return t.view([*t.shape[:first], *shape, *t.shape[where[-1] + 1 :]], old)

def broadcast(shapes):
    size = max(map(len, shapes))
    columns = zip(*([1] * (size - len(s)) + list(s) for s in shapes))
    return [max(c) if 0 not in c else 0 for c in columns]

def product_of(r, a, b, bias=None, beta=1, alpha=1):
    """Products of matrices, one for each leading index, with a term that is added."""
    *lead, n, k = a.shape
    m, x, y = b.shape[-1], a.nodes, b.nodes
    extra = bias.expand([*lead, n, m]).nodes if bias else None
    found = []
    for i in range(math.prod(lead) * n):
        for j in range(m):
            base = i // n * k * m + j
            terms = [(r.mul(x[i * k + l], y[base + l * m]), alpha) for l in range(k)]
            found.append(r.add(*terms, *([(extra[len(found)], beta)] if bias else [])))
    return T([*lead, n, m], found)

def windows(t, size, stride, pad, dilation):
    """Shape of the places of a window, and for each the entries of the last dimensions in it."""
    own, k = t.shape[-len(size) :], len(size)
    size, stride, pad, dilation = (listed(x) * (k if len(listed(x)) == 1 else 1) for x in (size, stride, pad, dilation))
    shape = [(n + 2 * p - d * (s - 1) - 1) // q + 1 for n, s, q, p, d in zip(own, size, stride, pad, dilation)]
    for m in grid(shape):
        at = [[i * q + j * d - p for i, q, j, d, p in zip(m, stride, o, dilation, pad)] for o in grid(size)]
        yield shape, [(o, x) for o, x in enumerate(at) if all(0 <= i < n for i, n in zip(x, own))]

def max_pool(r, i, t, size, stride=(), pad=(0,), dilation=(1,), ceil=False):
    *lead, _, _ = t.shape
    found, n = [], 0
    for head in grid(lead):
        for shape, cells in windows(t, size, stride or size, pad, dilation):
            found.append(r.largest([t.memory[t.places[t.at([*head, *x])]] for _, x in cells], (i, n)))
            n += 1
    return T([*lead, *shape], found) if not ceil else stop("a pool with ceil_mode")

def convolution(r, x, w, bias, stride, pad, dilation, transposed, _, groups):
    if transposed or groups != 1:
        stop("a transposed or grouped convolution")
    found, weights, size = [], w.nodes, w.shape[2:]
    area = math.prod(size)
    for b in range(x.shape[0]):
        for o in range(w.shape[0]):
            for shape, cells in windows(x, size, stride, pad, dilation):
                terms = [(r.mul(x.memory[x.places[x.at([b, c, *at])]], weights[(o * w.shape[1] + c) * area + n]), 1) for c in range(w.shape[1]) for n, at in cells]
                found.append(r.add(*terms, *([(bias.nodes[o], 1)] if bias else [])))
    return T([x.shape[0], w.shape[0], *shape], found)

def grouped(r, t, dims, f):
    """What f makes of the list of entries along some dimensions, in their places."""
    found = [None] * len(t.places)
    for places in t.groups(dims)[1]:
        for p, n in zip(places, f([t.nodes[q] for q in places])):
            found[p] = n
    return T(t.shape, found)

def affine(r, t, w, b):
    return T(t.shape, [r.add((r.mul(x, y), 1), (z, 1)) for x, y, z in zip(t.nodes, w.nodes, b.nodes)])

def batch_norm(r, t, w, b, mean, var, training, _, eps):
    dims = [d for d in range(len(t.shape)) if d != 1]
    side = lambda p: p.view([len(p.places)] + [1] * (len(t.shape) - 2)).expand(t.shape)
    if training:
        normed = grouped(r, t, dims, lambda nodes: normal(r, nodes, eps))
    else:
        scale = T(var.shape, [r.div(ONE, r.smooth("sqrt", r.add((v, 1), (ONE, F(eps))))) for v in var.nodes])
        off = [r.add((x, 1), (m, -1)) for x, m in zip(t.nodes, side(mean).nodes)]
        normed = T(t.shape, [r.mul(x, s) for x, s in zip(off, side(scale).nodes)])
    return affine(r, normed, side(w), side(b)) if w else normed

def reduced(f, r, i, t, dims=None, keep=False):
    dims, groups = t.groups(listed(dims))
    nodes = t.nodes
    found = [f(r, (i, n), [nodes[p] for p in places]) for n, places in enumerate(groups)]
    shape = [1 if d in dims else n for d, n in enumerate(t.shape) if keep or d not in dims]
    return T(shape, found)

def reduce_loss(r, nodes, reduction):
    found = r.add(*[(n, F(1, len(nodes)) if reduction == 1 else 1) for n in nodes])
    return T([], [found]) if reduction else stop("a loss without reduction")

def nll(r, t, target, weight, reduction, ignored):
    rows = t if len(t.shape) == 2 and weight is None else stop("a loss with weights")
    picks = [rows.at([b, c]) for b, c in enumerate(numbers(target)) if c != ignored]
    return reduce_loss(r, [r.add((t.nodes[p], -1)) for p in picks], reduction)

def stacked(ts, d=0):
    """Tensors one behind the other along a dimension."""
    shape, d = list(ts[0].shape), d % len(ts[0].shape)
    head = math.prod(shape[:d])
    parts = [(t.nodes, len(t.places) // max(head, 1)) for t in ts if t.shape != [0]]
    shape[d] = sum(t.shape[d] for t in ts if t.shape != [0])
    return T(shape, [n for h in range(head) for nodes, k in parts for n in nodes[h * k : h * k + k]])

WHOLE = {
    "mm": lambda r, i, a, b: product_of(r, a, b), "bmm": lambda r, i, a, b: product_of(r, a, b),
    "mv": lambda r, i, a, b: product_of(r, a, b.view([*b.shape, 1])).view(a.shape[:1]),
    "dot": lambda r, i, a, b: product_of(r, a.view([1, *a.shape]), b.view([*b.shape, 1])).view([]),
    "addmm": lambda r, i, c, a, b, beta=1, alpha=1: product_of(r, a, b, c, beta, alpha),
    "baddbmm": lambda r, i, c, a, b, beta=1, alpha=1: product_of(r, a, b, c, beta, alpha),
    "convolution": lambda r, i, *a: convolution(r, *a),
    "max_pool2d_with_indices": max_pool,
    "native_batch_norm": lambda r, i, *a: batch_norm(r, *a),
    "native_layer_norm": lambda r, i, t, shape, w, b, eps: affine(r, grouped(r, t, range(-len(shape), 0), lambda n: normal(r, n, eps)), w.expand(t.shape), b.expand(t.shape)),
    "_log_softmax": lambda r, i, t, d, _: grouped(r, t, [d], lambda n: log_softmax(r, n)),
    "_softmax": lambda r, i, t, d, _: grouped(r, t, [d], lambda n: [r.smooth("exp", x) for x in log_softmax(r, n)]),
    "nll_loss_forward": lambda r, i, *a: nll(r, *a),
    "mse_loss": lambda r, i, x, y, how=1: reduce_loss(r, [r.mul(d, d) for d in (r.add((a, 1), (b, -1)) for a, b in zip(x.nodes, y.nodes, strict=True))], how),
    "cat": lambda r, i, ts, d=0: stacked(ts, d),
    "stack": lambda r, i, ts, d=0: stacked([VIEWS["unsqueeze"](t, d) for t in ts], d),
    "index": lambda r, i, t, indices: fresh(indexed(t, indices)),
    "index_select": lambda r, i, t, d, index: fresh(picked(t, d, numbers(index))),
    "embedding": lambda r, i, t, index, *_: fresh(indexed(t, [index])),
    "gather": lambda r, i, t, d, index, **_: fresh(t.view(index.shape, lambda m: [*m[: d % len(m)], numbers(index)[index.at(m)], *m[d % len(m) + 1 :]])),
}

def fresh(t):
    return T(t.shape, t.nodes)


# --- the program -----------------------------------------------------------------------------------

def evaluate(content, tensors, run):
    """The result of the program, in one evaluation."""
    program, slots, memories, first = content["program"], {}, {}, 0
    for read in program["read"]:
        form(read, "cut_by memory name origin place rewritten slot stopped view")
        if read["slot"] in slots:
            raise Rejected(f"slot {read['slot']} is read twice")
        own = read["memory"] is None
        shape, values = tensors[f"slot.{read['slot']}" if own else f"memory.{read['memory']}"]
        memory = [Node(F(v)) for v in values] if own else memories.setdefault(read["memory"], [Node(F(v)) for v in values])
        places = None
        if read["view"] is not None:
            shape, strides, offset = read["view"]
            places = [offset + sum(i * s for i, s in zip(m, strides)) for m in grid(shape)]
        slots[read["slot"]] = T(shape, memory, places)
    for slot in program["variables"]:
        for p in slots[slot].places:
            slots[slot].memory[p], first = run.leaf(slots[slot].memory[p].v, first), first + 1
    for i, op in enumerate(program["ops"]):
        form(op, "args flags named op place results")
        if op["flags"] not in ([], ["differentiated"]):
            stop(f"operation {i} ({op['op']}) hides from autograd what it does")
        args = [decoded(a, slots) for a in op["args"]]
        named = {k: decoded(a, slots) for k, a in op["named"].items()}
        try:
            found = apply(run, i, op["op"], args, named)
        except (Rejected, CannotTell, Branch):
            raise
        except Exception as error:
            raise CannotTell(f"operation {i} ({op['op']}) with these arguments: {error}") from error
        if "differentiated" not in op["flags"] and any(n.live for n in found.nodes) and found is not args[0]:
            stop(f"operation {i} ({op['op']}) is recorded as constant, and varies")
        slots[op["results"][0]] = found
    result = slots[program["output"]].nodes
    return result[0] if len(result) == 1 else stop("a result of several numbers")

def form(value, keys):
    if set(value) != set(keys.split()):
        raise Rejected(f"the fields are not {keys}, but {' '.join(value)}"[:200])

def decoded(value, slots):
    if isinstance(value, list):
        return [decoded(v, slots) for v in value]
    if isinstance(value, dict):
        ((kind, inner),) = value.items()
        kind = kind if kind in ("slot", "float", "text", "dtype", "device", "layout", "format") else stop(kind)
        return slots[inner] if kind == "slot" else float(inner) if kind == "float" else value
    return value

def apply(run, i, name, args, named):
    """The first result of one operation."""
    base, _, overload = name.removeprefix("aten::").partition(".")
    written = base.endswith("_")
    if overload not in OVERLOADS:
        stop(f"the operator {name}")
    base = base.rstrip("_")
    whole = str(named.pop("dtype", {"dtype": "float"})).removeprefix("{'dtype': '")[:3] in ("int", "uin", "boo")
    named = {k: v for k, v in named.items() if k not in ("layout", "device", "pin_memory", "memory_format", "non_blocking")}
    base = {"max": "maximum", "min": "minimum"}.get(base, base) if overload == "other" else base
    if base in POINTWISE:
        named = {k: Node(F(v)) for k, v in named.items()}
        given = [a if isinstance(a, T) or a is None else T([], [Node(F(a))]) for a in args]
        shape = broadcast([t.shape for t in given if t])
        columns = [t.expand(shape).nodes if t else [None] * math.prod(shape) for t in given]
        found = T(shape, [POINTWISE[base](run, (i, n), *x, **named) for n, x in enumerate(zip(*columns))])
    elif base in REDUCED:
        found = reduced(REDUCED[base], run, i, *args, **named)
    elif base in VIEWS and not written:
        found = VIEWS[base](*args)
    elif base in WHOLE:
        found = WHOLE[base](run, i, *args, **named)
    else:
        stop(f"the operator {name}")
    found = T(found.shape, [Node(F(n)) for n in numbers(found)]) if whole else found
    if written:
        for p, n in zip(args[0].places, found.expand(args[0].shape).nodes):
            args[0].memory[p] = n
        return args[0]
    return found


# --- the claims -------------------------------------------------------------------------------------

def flat(name, content, tensors):
    """The entries of one tensor for each variable, one behind the other."""
    found = []
    for i, slot in enumerate(content["program"]["variables"]):
        shape, values = tensors[f"{name}.{i}"]
        read = next(r for r in content["program"]["read"] if r["slot"] == slot)
        if shape != (read["view"][0] if read["view"] else tensors[f"slot.{slot}"][0]):
            raise Rejected(f"tensor {name}.{i} has another shape than its variable")
        found += map(F, values)
    return found

def differ(found, sizes, target, unit, what):
    """Whether entries are equal but for roundings, of which their terms allow this much."""
    for n, (x, size, y) in enumerate(zip(found, sizes, target, strict=True)):
        off, room = max(map(abs, ends(x - y))), F(size + abs(float(y))) * F(2) ** (unit + 8)
        if off > room:
            told = f"{what}: entry {n} is {float(y):.9g}, and not {float(ends(x)[0]):.9g}"
            near = 0 if sign(x - y) is None else min(map(abs, ends(x - y)))
            raise (CannotTell if near <= room * 2**12 else Rejected)(told)

def beside(run, touched):
    if run.seen - touched:
        stop(f"operation {min(run.seen - touched)[0]} is on a kink, but its floats were beside it")

def witnessed(content, tensors, touched, value, gradient, unit):
    """Every witness, its gradient, and their mean."""
    weights = [F(w) for w in content["claim"]["weights"]]
    if min(weights) < 0 or abs(sum(weights) - 1) > F(1, 1 << 30):
        raise Rejected("the weights are not convex")
    total, sizes = [F(0)] * len(gradient), [0.0] * len(gradient)
    for k, weight in enumerate(weights):
        run = Run(touched, flat(f"witness.{k}.direction", content, tensors))
        result = evaluate(content, tensors, run)
        if sign(result.v - value) not in (0, None):
            raise Rejected(f"the function jumps along witness {k}")
        beside(run, touched)
        matter = run.relevant(result)
        for where, strict in matter.items():
            if not strict:
                told = f"witness {k} leaves operation {where[0]}, element {where[1]} open"
                raise (Rejected if strict is False else CannotTell)(told)
        if content["verdict"] == "SMOOTH" and matter:
            raise Rejected(f"a kink that matters is touched, at operation {next(iter(matter))[0]}")
        if content["verdict"] == "SMOOTH" and run.masks:
            stop(f"whether the comparison at operation {min(run.masks)[0]} matters")
        kinks, program = tensors["touched"][1], content["program"]
        pairs = iter(tensors[f"witness.{k}.selection"][1])
        for kink, piece in zip(pairs, pairs):
            where = (kinks[3 * kink], kinks[3 * kink + 2])
            by_sign = program["ops"][where[0]]["op"].split(".")[0].strip("_") in BY_SIGN
            if where in matter and by_sign and run.pieces.get(where, piece) != piece:
                raise Rejected(f"witness {k} selects another piece at operation {where[0]}")
        own = [(result.g.get(("x", n), F(0)), result.s.get(("x", n), 0.0)) for n in range(len(gradient))]
        claimed = flat(f"witness.{k}.gradient", content, tensors)
        differ([x for x, _ in own], [s for _, s in own], claimed, -53, f"the gradient of witness {k}")
        total = [t + weight / sum(weights) * x for t, (x, _) in zip(total, own)]
        sizes = [max(s, t) for s, (_, t) in zip(sizes, own)]
    if content["verdict"] == "BOULIGAND" and len(weights) > 1:
        raise Rejected("several witnesses are no proof of BOULIGAND")
    differ(total, sizes, gradient, unit, "the gradient")
    return [f"{len(weights)} witness(es): pieces, strict signs, gradients, and that their mean is the gradient"]

def separated(content, tensors, touched, value, target, unit):
    """No selection that nearby points can have is on the far side of the direction, or of a part."""
    d = [F(v) for v in tensors["direction"][1]]
    try:
        return cells(content, tensors, touched, value, target, unit, d)
    except CannotTell as error:  # where variables fall apart, one of them may be enough
        failed = error
    for n in sorted(range(len(d)), key=lambda n: -abs(d[n]))[:MOST_PARTS]:
        try:
            Run.work = MOST_WORK * 15 // 16
            return cells(content, tensors, touched, value, target, unit, [x if i == n else F(0) for i, x in enumerate(d)])
        except (Rejected, CannotTell):
            continue
    raise failed

def cells(content, tensors, touched, value, target, unit, d):
    """The same for one direction."""
    limit = sum((x * y for x, y in zip(d, target, strict=True)), F(0))
    size = sum(abs(float(x * y)) for x, y in zip(d, target))
    todo, bounded, excluded = [{}], 0, 0
    while todo:
        choices = todo.pop()
        if bounded + excluded + len(todo) > MOST_CELLS:
            stop("too many selections")
        run, result = Run(touched, d, choices), None
        try:
            result = evaluate(content, tensors, run)
            options = run.open[:1]
        except Branch as branch:
            options = [(branch.args[0], 2)]
        if contradiction(run.conditions):
            excluded += 1
            continue
        if result and sign(result.v - value) not in (0, None):
            stop("a function that jumps")
        beside(run, touched)
        if result and limit - result.h[1] > F(result.a + size) * F(2) ** (unit + 8):
            bounded += 1
            continue
        if not options:
            curved = any(k[0] != "x" for row in run.conditions for k in row)
            raise (CannotTell if curved else Rejected)("a selection is on the far side of the direction")
        todo += [{**choices, options[0][0]: n} for n in range(options[0][1])]
    return [f"the direction separates the vector from all selections: {bounded} bounded, {excluded} excluded"]

def contradiction(rows):
    """Whether some of these sums of atoms, with weights >= 0 that are not all 0, add up to zero."""
    rows = [r for r in rows if not any(isinstance(x, Iv) for x in r.values())]
    atoms = list({k: None for r in rows for k in r})
    table = [[F(r.get(k, 0)) for r in rows] + [F(0)] for k in atoms] + [[F(1)] * (len(rows) + 1)]
    cost, basis = [-sum(c) for c in zip(*table)], [None] * len(table)
    while rows:
        Run.work += len(rows) * len(table)
        j = next((j for j in range(len(rows)) if cost[j] < 0), None)
        if j is None:
            return cost[-1] == 0
        _, _, i = min((t[-1] / t[j], -1 if basis[i] is None else basis[i], i) for i, t in enumerate(table) if t[j] > 0)
        table[i] = [x / table[i][j] for x in table[i]]
        for t in [*table[:i], *table[i + 1 :], cost]:
            factor = t[j]
            t[:] = [x - factor * y for x, y in zip(t, table[i])] if factor else t
        basis[i] = j
    return False

def verify(path):
    """What was checked and what is assumed, as two lists of sentences."""
    content, tensors = load(path)
    Run.work = 0
    try:
        if content["format"] != "clarke proof":
            raise Rejected("the format is another one")
        if content["version"] != 1:
            stop(f"version {content['version']} of the format")
        program, kind, verdict = content["program"], content["claim"]["kind"], content["verdict"]
        shape, kinks = tensors["touched"]
        touched = {(op, e) if part == 0 else stop("a kink in a part of an operation") for op, part, e in zip(*[iter(kinks)] * 3)}
        if shape != [len(touched), 3]:
            raise Rejected("the touched kinks are not listed in rows of three, each once")
        point = Run(touched)
        value = evaluate(content, tensors, point).v
        if touched - point.ties:
            raise Rejected(f"operation {min(touched - point.ties)[0]} has no kink at an element listed as touched")
        beside(point, touched)
        form(content, "assumed claim format program replayed theorem verdict version written_by")
        form(program, "ops output places read scalar_reads variables")
        kinds = tensors.kinds
        names = str([k for n, k in kinds.items() if n.startswith(("slot", "memory"))]) + json.dumps(program["ops"])
        wrong = [n for n, k in kinds.items() if n.startswith(("grad", "wit", "dir")) and k != "F64" and "selection" not in n]
        if wrong or kinds["touched"] != "I64":
            raise Rejected(f"tensor {(wrong or ['touched'])[0]} has another type")
        unit = max((u for name, u in UNIT.items() if f'{name}"' in names or f"{name}'" in names), default=-53)
        if kind == "witnesses" and verdict in ("SMOOTH", "BOULIGAND", "CLARKE"):
            gradient = flat("gradient", content, tensors)
            checked = witnessed(content, tensors, touched, value, gradient, unit)
        elif kind in ("separation", "outer estimate") and verdict == "NOT_CLARKE":
            checked = separated(content, tensors, touched, value, flat("gradient", content, tensors), unit)
        elif kind == "membership" and content["claim"]["inside"] is False:
            checked = separated(content, tensors, touched, value, flat("vector", content, tensors), -53)
        elif kind in ("witnesses", "separation", "outer estimate"):
            raise Rejected(f"{kind} are no proof of {verdict}")
        else:
            stop(f"a proof by {kind}")
        if kind != "membership" and set(tensors) - tensors.used:
            raise Rejected(f"tensor {min(set(tensors) - tensors.used)} belongs to nothing")
    except (Rejected, CannotTell):
        raise
    except Exception as error:
        raise Rejected(f"a field is missing or has another form ({type(error).__name__} {error})") from error
    names = sorted({op["op"] for op in program["ops"]})
    checked = [f"{len(program['ops'])} operations at the point: {', '.join(names)}", f"{len(touched)} touched kinks", *checked]
    assumed = ["the recorded operations are the program, and the gradient is what autograd returned",
               f"a difference of 2^8 roundings (2^{unit}) of the terms of a gradient is rounding"]  # fmt: skip
    assumed += ["exp, log, sqrt and tanh of this Python are right to 2^-48"] if point.atoms else []
    assumed += [f"operation {op}, element {e}: roundings have put it on its kink" for op, e in sorted(point.loose)]
    assumed += [f"slot {r['slot']} was computed from variables and detached: a constant" for r in program["read"] if r["stopped"] or r["cut_by"]]
    assumed += ["numbers that the program read into Python decide no branch nearby"] if program["scalar_reads"] else []
    return [f"{verdict}", *checked], assumed

def main(paths):
    status = 0
    for path in paths:
        try:
            checked, assumed = verify(path)
        except (Rejected, CannotTell, OSError) as error:
            rejected = isinstance(error, Rejected)
            status = 1 if rejected else max(status, 2) if status != 1 else 1
            print(f"{path}: {'rejected' if rejected else 'cannot tell'}: {error}")
            continue
        print(f"{path}: checked", *(f"  checked   {c}" for c in checked), *(f"  assumed   {a}" for a in assumed), sep="\n")
    return status if paths else 2

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
