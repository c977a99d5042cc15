#!/usr/bin/env python3
"""Check a proof that clarke saved, with nothing but Python: `python clarke_verify.py FILE`.

This file shares no code with clarke and imports the standard library only. A proof's program comes
as instructions of a small language (sums of products, maxima, signs, choices, smooth functions),
carried out here in exact rational arithmetic, exp and the like by intervals, with own derivatives;
what follows is compared with the claim. That the instructions are the program is clarke's word:
`clarke verify` makes them again. `docs/certificate.md` has the argument.
Exit status: 0 checked, 1 rejected, 2 cannot tell (no instructions, or too large)."""
import hashlib
import io
import json
import math
import struct
import sys
import zipfile
from fractions import Fraction as F
from itertools import count, product, takewhile
from types import SimpleNamespace as Cell

ENTRIES = ("proof.json", "tensors.safetensors", "sha256")
FIELDS = "assumed claim format instructions program replayed theorem verdict version written_by"
PROGRAM = ("slot.", "memory.", "op.")  # tensors of the recorded operations, which are clarke's
BYTES = dict(F64=8, F32=4, F16=2, BF16=2, I64=8, I32=4, I16=2, I8=1, U8=1, BOOL=1)
MOST_BYTES, MOST_TEXT, MOST_WORK, MOST_CASES = 1 << 28, 1 << 26, 2_000_000, 2_000
MOST_BITS, BITS = 1 << 15, 200  # of exact numbers, and of the ends of intervals
OWN = 2.0**-45  # relative, what this checker and the one who wrote the proof may be off
ROOM = {n: 8 * 2.0**n for n in (-53, -24, -11, -8)}  # times what roundings of a type can add up to
TINY, JUMPS = F(1, 1 << 1074), "whether the function jumps"
Rejected = type("Rejected", (Exception,), {})  # the file is no proof of what it says
CannotTell = type("CannotTell", (Exception,), {})  # this checker is not made for what it holds
def refuse_if(wrong, what, error=Rejected):
    if wrong:
        raise error(ascii(str(what))[1:-1])  # what a file says passes for no word of ours
stop = lambda what: refuse_if(True, what, CannotTell)
# --- the file -------------------------------------------------------------------------------------
def written(entries):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name, content in zip(ENTRIES, entries, strict=True):
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.create_system, info.external_attr = 3, 0o644 << 16
            archive.writestr(info, content)
    return out.getvalue()
def parsed(text, fill=1):
    """JSON, if it has the one form that clarke writes, filled up with spaces."""
    content = json.loads(text)
    shown = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
    refuse_if(shown + b" " * (-len(shown) % fill) != text, "JSON has another form")
    return content
def load(raw):
    """The JSON of a file, and its tensors: {name: (type, shape, bytes)}."""
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        refuse_if(any(i.file_size > len(raw) for i in archive.infolist()), "an entry is too large")
        text, data, digest = entries = [archive.read(name) for name in ENTRIES]
    refuse_if(len(text) > MOST_TEXT, f"JSON of more than {MOST_TEXT} bytes", CannotTell)
    both = b"".join(hashlib.sha256(part).digest() for part in (text, data))
    refuse_if(digest != hashlib.sha256(both).hexdigest().encode(), "the digest is another one")
    refuse_if(written(entries) != raw, "the zip has another form")
    start = 8 + int.from_bytes(data[:8], "little")
    header, body, end, tensors = parsed(data[8:start], 8), data[start:], 0, {}
    for name, entry in sorted(header.items()):
        kind, shape, begin = entry["dtype"], entry["shape"], end
        end += math.prod(shape) * BYTES[kind]
        own = {"dtype": kind, "shape": shape, "data_offsets": [begin, end]} == entry
        refuse_if(not own or min([0, *shape]) < 0 or end > len(body), f"tensor {name} is elsewhere")
        tensors[name] = kind, shape, body[begin:end]
    refuse_if(end != len(body), "bytes of the tensors belong to none")
    return parsed(text), tensors
class Proof:
    """What a file says: instructions, the point, and the tensors of the claim."""
    def __init__(self, content, tensors):
        refuse_if((v := repr(content["version"])) != "2", f"version {v}, and not 2", CannotTell)
        own = sorted(content) == FIELDS.split() and content["format"] == "clarke proof"
        refuse_if(not own, f"the format is another one, or the fields are not {FIELDS}")
        self.claim, self.verdict, told = (content[k] for k in ("claim", "verdict", "instructions"))
        refuse_if(set(told) == {"missing"}, told.get("missing"), CannotTell)
        self.output, self.unit, self.entry = (told[k] for k in ("output", "unit", "entry"))
        self.tensors, self.work, self.names, self.room = tensors, 0, {}, ROOM[self.unit]
        self.point, self.constants = ([*map(F, self.take(n))] for n in ("point", "constants"))
        self.touched = len(self.take("touched", "I64", "q")) // 3
        self.generic = [F(pow(3, n + 1, 10007)) for n in range(len(self.point))]  # a direction
        self.code, words, at = [], self.take("code", "I32", "i"), 0
        while at < len(words):
            name, row, end = NAMES[words[at]], words[at + 1], at + 3 + words[at + 2]
            refuse_if(not at + 3 < end <= len(words), "an instruction has no end")
            self.code.append((name, row, words[at + 3 : end]))
            at = end
    def take(self, name, dtype="F64", code="d"):
        """The numbers of a tensor, which is asked for once."""
        kind, shape, raw = self.tensors.pop(name)
        refuse_if(kind != dtype, f"tensor {name} has another type")
        refuse_if(len(raw) > 8 * MOST_WORK, f"tensor {name} is too large", CannotTell)
        return struct.unpack(f"<{math.prod(shape)}{code}", raw)
    def spend(self, numbers):
        """Count work by how long its numbers are."""
        every = [e for x in numbers for e in ends(x)]
        long = [e.numerator.bit_length() + e.denominator.bit_length() for e in every]
        self.work += 2 + sum(1 + (n >> 8) ** 2 // 16 for n in long)
        large = self.work > MOST_WORK or max(long, default=0) > MOST_BITS
        refuse_if(large, "the program is too large for exact arithmetic", CannotTell)
    def named(self, word, cells):
        """The number of a function of what cells are near the point, the same in every run."""
        key = word, frozenset((frozenset(c.form.items()), *ends(c.value)) for c in cells)
        return "f", self.names.setdefault(key, len(self.names))
    def flat(self, name):
        """The tensors of all variables, one behind the other."""
        names = takewhile(self.tensors.__contains__, (f"{name}.{i}" for i in count()))
        found = [F(x) for n in names for x in self.take(n)]
        refuse_if(len(found) != len(self.point), f"{name} has not a number for each variable")
        return found
# --- numbers: exact rationals, and intervals around what is none ----------------------------------
class Iv:
    """All numbers from lo to hi, both rational."""
    def __init__(self, lo, hi):
        self.lo, self.hi = lo, hi
    __add__ = lambda self, y: between(self.lo + ends(y)[0], self.hi + ends(y)[1])
    def __mul__(self, other):
        found = [x * y for x in ends(self) for y in ends(other)]
        return between(min(found), max(found))
    __radd__, __rmul__ = __add__, __mul__
    __sub__, __rsub__ = lambda self, y: self + -1 * y, lambda self, y: -1 * self + y
ends = lambda x: (x.lo, x.hi) if isinstance(x, Iv) else (x, x)
size = lambda x: max(abs(float(e)) for e in ends(x))
def between(lo, hi):
    """An interval, its ends rounded outwards where they are long; a number, if they are equal."""
    if lo != hi and lo.denominator.bit_length() + hi.denominator.bit_length() > 4 * BITS:
        most = max(abs(lo), abs(hi))
        unit = 1 << max(BITS - most.numerator.bit_length() + most.denominator.bit_length(), 0)
        lo, hi = F(math.floor(lo * unit), unit), F(math.ceil(hi * unit), unit)
    return lo if lo == hi else Iv(lo, hi)
def sign(x):
    """1, 0 or -1; None where an interval holds zero."""
    lo, hi = ends(x)
    return 1 if lo > 0 else -1 if hi < 0 else 0 if lo == hi else None
def inverse(x):
    lo, hi = ends(x)
    return between(1 / hi, 1 / lo) if lo > 0 or hi < 0 else stop("a division by what may be zero")
def growing(f, *exact):
    """A growing function: math's is believed to 2^-48 of its size; it is exact at one place."""
    def bounds(x):
        if exact and x == exact[0]:
            return F(exact[1])
        lo, hi = (F(f(math.nextafter(float(e), s * math.inf))) for e, s in zip(ends(x), (-1, 1)))
        return between(lo - abs(lo) / 2**48 - TINY, hi + abs(hi) / 2**48 + TINY)
    return bounds
def root(x):
    exact = F(*(math.isqrt(max(n, 0)) for n in ends(x)[0].as_integer_ratio()))
    return exact if x == exact**2 else growing(math.sqrt)(x)
SMOOTH = {  # values; slopes by the argument and the value; how these vary, in size
    "inverse": (inverse, lambda x, y: -1 * y * y, lambda x, y: 2 * y * y * y),
    "exp": (growing(math.exp, 0, 1), lambda x, y: y, lambda x, y: y),
    "log": (growing(math.log, 1, 0), lambda x, y: inverse(x), lambda x, y: inverse(x * x)),
    "sqrt": (root, lambda x, y: inverse(2 * y), lambda x, y: inverse(4 * x * y)),
    "tanh": (growing(math.tanh, 0, 0), lambda x, y: 1 - y * y, lambda x, y: 2 * y),
}
NAMES = dict(enumerate(("sum", "max", "sign", "pick", *SMOOTH)))
# --- the instructions, carried out once -----------------------------------------------------------
# A cell is a number of the program. form: what it is near the point: a constant, and multiples of
# atoms (variables, results of what is not linear, open maxima). noise: units of rounding that its
# value may be off. sources: the cells that it was made of, with sizes of factors and their noise.
ZERO = Cell(value=F(0), noise=0.0)
def add(total, factor, terms):
    """Add a multiple of a sum to another one; terms that cancel are gone."""
    for key, x in terms.items():
        total[key] = total.get(key, 0) + factor * x
        if total[key] == 0:
            del total[key]
    return total
class Run:
    """The instructions, carried out once. With a direction alone, pieces are those that it selects;
    with choices those that they name, and others stay open; with neither, those of the point.
    Derivatives are by every variable (full), or along the direction. Where pieces meet and the file
    does not say so (unsaid), its floats did not: a kink as any other, but no ground to reject."""
    def __init__(self, proof, direction=None, choices=None, full=False):
        self.proof, self.choices, self.at_point = proof, choices, direction is None
        self.full, self.unsaid = full or choices is None, set()  # derivatives by every variable
        self.ties, self.loose, self.masks = set(), set(), set()  # touched kinks, and comparisons
        self.kinks, self.arguments, self.conditions, self.open = {}, [], [], None
        self.made, self.compared, self.atoms, self.slopes, self.rates = [], {}, {}, {}, {"d": F(1)}
        for n, x in enumerate(proof.point):
            atom = ("x", n)
            self.rates[atom] = d = F(0) if self.at_point else direction[n]
            self.slopes[atom] = {atom: F(1)} if self.full else {"d": d}
            self.cell(x, {atom: F(1)})
        cells = dict(enumerate([*self.made, *map(self.cell, proof.constants)]))
        for self.number, (name, self.row, args) in enumerate(proof.code):
            given = [cells[i] for i in args]
            self.here = f"instruction {self.number} ({name}), kink {self.row}"
            try:
                found = self.smooth(name, *given) if name in SMOOTH else getattr(self, name)(*given)
            except (ArithmeticError, ValueError) as error:
                raise CannotTell(f"{self.here}: {error}") from error
            if found is None:  # a comparison without an outcome: nothing can follow
                self.open, self.result = (self.number, None), None
                return
            cells[len(cells)] = found
        self.result = cells[proof.output]
    def cell(self, value, form=None, sources=(), noise=0.0):
        made = Cell(number=len(self.made), value=value, form=form or {}, sources=sources,
                    noise=noise, weight=0.0, error=0.0)  # fmt: skip
        self.proof.spend((value, *made.form.values()))
        self.made.append(made)
        return made
    def gradient(self, form):
        """The derivatives of a sum of atoms: by variables, or along the direction; and by kinks."""
        found = {}
        for atom, factor in form.items():
            add(found, factor, self.slopes[atom])
            self.proof.spend(self.slopes[atom].values())
        return found
    def entries(self):
        """The derivatives of the result by all variables."""
        found = self.gradient(self.result.form)
        return [found.get(("x", n), F(0)) for n in range(len(self.proof.point))]
    def rate(self, cell):
        """The derivative along the direction."""
        return sum((x * self.rates[k] for k, x in self.gradient(cell.form).items()), F(0))
    def atom(self, word, value, terms):
        """What is not linear: the same function of the same cells is the same atom."""
        key = self.proof.named(word, [cell for cell, *_ in terms])
        if key not in self.atoms:
            self.slopes[key] = {}
            for cell, slope, _ in [] if self.at_point else terms:
                add(self.slopes[key], slope, self.gradient(cell.form))
            sources = [(c, size(s), noise) for c, s, noise in terms]
            noise = size(value) + sum(c.noise * s for c, s, _ in sources)
            self.atoms[key] = self.cell(value, {key: F(1)}, sources, noise)
        return self.atoms[key]
    def smooth(self, name, x):
        function, slope, bend = SMOOTH[name]
        y = function(x.value)
        s = slope(x.value, y) if x.form or x.noise else 0
        if not x.form:
            return self.cell(y, noise=size(y) + size(s) * x.noise)
        return self.atom(name, y, [(x, s, size(s) + size(bend(x.value, y)) * x.noise)])
    def sum(self, *cells):
        value, form, sources, noise = F(0), {}, [], 0.0
        for pair in zip(cells[::2], cells[1::2], strict=True):
            y, x = sorted(pair, key=lambda c: (bool(c.form), c.number))  # a constant is first
            both, factor, blur = x.value * y.value, y.value, y.noise
            noise += size(both) + size(x.value) * y.noise + size(y.value) * x.noise
            if y.form:
                factors = [(x, y.value, y.noise), (y, x.value, x.noise)]
                x, factor, blur = self.atom("*", both, factors), F(1), 0.0
            value += both
            add(form, factor, x.form)
            sources += [(x, size(factor), blur)] if x.form else []
        return self.cell(value, form, sources, noise)
    def pick(self, by, below, at, above):
        return (at, above, below)[stop("a choice that varies") if by.form else self.close(by)]
    def close(self, x, y=ZERO):
        """Sign of a difference at the point; where the file says so, roundings made it zero."""
        found, near = sign(x.value - y.value), (x.noise + y.noise) * (self.proof.room + 2 * OWN)
        if found != 0 and self.row >= 0 and size(x.value - y.value) <= near:
            self.loose.add(self.here)
            return 0
        return stop(f"rounding decides {self.here}") if found is None else found
    def max(self, *cells):
        top = max(cells, key=lambda c: ends(c.value)[1])
        tied = [c for c in cells if c is top or not self.close(top, c)]
        self.ties |= {self.row} if len(tied) > 1 else set()
        tied = [c for n, c in enumerate(tied) if all(c.form != t.form for t in tied[:n])]
        self.proof.work += len(tied) ** 2
        self.unsaid |= {self.here} if len(tied) > 1 and self.row < 0 else set()
        many = self.selected if self.choices is None else self.chosen
        return tied[0] if len(tied) == 1 or self.at_point else many(tied)
    def selected(self, tied):
        """The piece that the direction selects, and a variable of its own for the kink."""
        rates = [self.rate(c) for c in tied]
        best = max(range(len(tied)), key=lambda i: ends(rates[i])[1])
        plain = [{k: x for k, x in self.gradient(c.form).items() if k[0] == "x"} for c in tied]
        signs = {sign(rates[best] - r) for r, p in zip(rates, plain) if p != plain[best]}
        alike = [c for c, p in zip(tied, plain) if p == plain[best]]  # which of them is left open
        self.arguments += alike if len(alike) > 1 else []
        kink = ("kink", self.number)
        self.kinks[kink] = self.here, None if None in signs else signs <= {1}, not signs
        self.slopes[kink], self.rates[kink] = {kink: F(1)}, F(0)
        top, form = tied[best], {**tied[best].form, kink: F(1)}
        return self.cell(top.value, form, [(top, 1.0, 0.0)], top.noise)
    def chosen(self, tied):
        """The piece that was chosen, or all of them at once."""
        if self.number in self.choices:
            found = tied[self.choices[self.number]]
            least = [add({**found.form}, -1, c.form) for c in tied if c is not found]
            self.conditions += least
            return found
        bounds = [e for c in tied for e in ends(self.rate(c))]
        apart = min(bounds) < max(bounds) or self.full
        self.open = self.open or (apart and (self.number, len(tied)))
        atom, noise = self.proof.named("max", tied), max(c.noise for c in tied)
        self.slopes[atom], self.rates[atom] = {atom: F(1)}, between(min(bounds), max(bounds))
        return self.cell(tied[0].value, {atom: F(1)}, [(c, 1.0, 0.0) for c in tied], noise)
    def sign(self, x):
        """The sign of a cell just beside the point, or at it in a run of the point itself."""
        found, varies = self.close(x), any(k[0] != "kink" for k in x.form)
        if found != 0:
            return self.cell(F(found))
        self.unsaid |= {self.here} if varies and self.row < 0 else set()
        self.ties.add(self.row)
        self.arguments.append(x)
        if varies and not self.at_point:
            self.masks.add(self.here)
            if self.choices is None:
                found = sign(self.rate(x)) or stop(f"the direction leaves {self.here} open")
            elif self.number in self.choices:
                found, self.compared[self.number] = (1, -1, 0)[self.choices[self.number]], x.form
                self.conditions.append({k: found * c for k, c in x.form.items()})
            else:
                return None
        return self.cell(F(found))
    def errors(self, *rooms):
        """For each variable, what roundings can do to its derivative; inf if they can do all."""
        self.result.weight = 1.0
        for cell in reversed(self.made):
            for source, factor, noise in cell.sources:
                source.weight += factor * cell.weight
                source.error += factor * cell.error + (factor + noise) * cell.weight
        own = [(c.weight, c.weight + c.error) for c in self.made[: len(self.proof.point)]]
        return [[w * OWN + r * e if r * e <= w / 4 else math.inf for w, e in own] for r in rooms]
    def check(self, smooth):
        """Whether all kinks that matter are decided; or none is touched."""
        refuse_if(smooth and self.masks, f"whether {[*self.masks][:1]} matters", CannotTell)
        for cell in [self.result, *self.arguments]:
            for kink in self.gradient(cell.form).keys() & self.kinks.keys():
                where, strict, null = self.kinks[kink]
                refuse_if(smooth and not null, f"a kink that matters is touched, at {where}")
                refuse_if(strict is False, f"a witness leaves {where} open")
                refuse_if(strict is None, f"whether a witness decides {where}", CannotTell)
# --- the claims -----------------------------------------------------------------------------------
def differ(found, errors, target, room, what):
    """Whether entries are equal but for roundings, which allow this much."""
    for n, (x, error, y) in enumerate(zip(found, errors, target, strict=True)):
        most = error + abs(float(y)) * (room + OWN)
        refuse_if(not most < math.inf, f"{what}: roundings are as large as entry {n}", CannotTell)
        far = sign(x - y) and min(map(abs, ends(x - y))) > most * 2**12
        told = f"{what}: entry {n} is {float(y):.9g}, and not {float(ends(x)[0]):.9g}"
        refuse_if(max(map(abs, ends(x - y))) > most, told, Rejected if far else CannotTell)
def witness(proof, value, k, room):
    """The gradient around a direction, which is the one that the file says, and its errors."""
    run = Run(proof, proof.flat(f"witness.{k}.direction"))
    refuse_if(jumps(run, value), f"the function jumps along witness {k}")
    run.check(proof.verdict == "SMOOTH")
    own, (most, least) = run.entries(), run.errors(room, ROOM[-53])
    differ(own, least, proof.flat(f"witness.{k}.gradient"), 0.0, f"the gradient of witness {k}")
    return own, most
def sloped(proof, value, target, room):
    """The derivative along a vector."""
    run = Run(proof, target)
    refuse_if(jumps(run, value), "the function jumps along the vector")
    error = sum(size(x) * e for x, e in zip(target, *run.errors(room), strict=True) if x)
    differ([run.rate(run.result)], [error], [F(proof.claim["slope"])], 0.0, "the slope")
    return "the derivative along the vector"
def cornered(proof, value, _, room):
    """Vertices: each is a gradient, none a mean of others, and all of the set lies between them."""
    corners = [witness(proof, value, k, room)[0] for k in range(proof.claim["count"])]
    def inside(x, points):
        off = ([a - b for a, b in zip(x, p, strict=True)] for p in points if p is not x)
        return contradiction(proof, [dict(enumerate(o)) for o in off])
    refuse_if(any(inside(x, corners) for x in corners), "a vertex is a mean of others")
    def settled(run):
        over = contradiction(proof, run.conditions)
        refuse_if(not (over or run.open or inside(run.entries(), corners)), "a gradient is beyond", CannotTell)
        return over or not run.open
    count = selections(proof, proof.generic, settled, full=True)
    return f"{len(corners)} vertices, and none besides: {count} sets of selections"
def witnessed(proof, value, target, room):
    """Every witness, its gradient, and their mean."""
    weights = [F(w) for w in proof.claim["weights"]]
    total, errors, whole = [F(0)] * len(target), [0.0] * len(target), sum(weights)
    refuse_if(min(weights) < 0 or abs(whole - 1) > F(1, 1 << 30), "the weights are not convex")
    refuse_if(proof.verdict == "BOULIGAND" and len(weights) > 1, "BOULIGAND has one witness")
    for k, weight in enumerate(weights):
        own, most = witness(proof, value, k, room)
        total = [t + weight / whole * x for t, x in zip(total, own, strict=True)]
        errors = [max(pair) for pair in zip(errors, most, strict=True)]
    differ(total, errors, target, room, "the mean of the witnesses")
    return f"{len(weights)} witness(es): pieces, strict signs, gradients, and their mean"
def separated(proof, value, target, room):
    """No selection is on the far side: kinks are decided one by one where bounds do not do."""
    short = F(proof.claim["short"]) if proof.claim["kind"] == "smallest" else None
    d = proof.take("direction") if short is None else [-x for x in target]
    d = [F(x) * (short is not None or proof.entry in (None, n)) for n, x in enumerate(d)]
    products = [x * y for x, y in zip(d, target, strict=True)]
    def settled(run):
        if contradiction(proof, run.conditions):
            return True
        gap = least = 0
        if run.result:
            refuse_if(jumps(run, value), "a function that jumps", CannotTell)
            least = sum(size(x) * e for x, e in zip(d, *run.errors(room), strict=True) if x)
            least += sum(map(size, products)) * (room + OWN)
            gap = sum(products) - ends(run.rate(run.result))[1]
            gap, least = (gap, least) if short is None else (gap + short + least, -TINY)
        if gap > least or run.open:
            return gap > least
        curved = gap > 0 or any(k[0] != "x" for row in run.conditions for k in row)
        raise (CannotTell if curved else Rejected)("a selection is beyond the direction")
    count = selections(proof, d, settled)
    return f"the direction separates: {count} sets of selections bounded, excluded, or parted"
def jumps(run, value):
    """Whether a piece has another value than the function."""
    off, near = run.result.value - value, run.result.noise * (run.proof.room + OWN)
    refuse_if(sign(off) is None and size(off) > near, JUMPS, CannotTell)
    return bool(sign(off)) and size(off) > near
def selections(proof, d, settled, sides=2, full=False):
    """Decide kinks one by one, once for each piece, until what is left to a run is settled."""
    todo = [{}]
    for choices in todo:
        run = Run(proof, d, choices, full)
        more = 0 if settled(run) else run.open[1] or sides
        todo += [{**choices, run.open[0]: n} for n in range(more)]
        refuse_if(len(todo) > MOST_CASES, "too many selections", CannotTell)
    return len(todo)
def steady(proof, value):
    """Nothing jumps: by sides of a comparison, the result differs by multiples of what varies."""
    def settled(run):
        for number, side in [] if run.open else product(run.compared, range(3)):
            other = Run(proof, proof.generic, {**run.choices, number: side})
            refuse_if(other.open or jumps(other, value), JUMPS, CannotTell)
            form = add({**other.result.form}, -1, run.result.form)
            ratios = {form.pop(k, 0) * inverse(x) for k, x in run.compared[number].items()}
            refuse_if(form or len(ratios) > 1, JUMPS, CannotTell)
        return not run.open
    if any(name == "sign" for name, *_ in proof.code):
        selections(proof, proof.generic, settled, 3)
def contradiction(proof, rows):
    """Whether some of these sums of atoms, with weights >= 0 that are not all 0, add up to zero."""
    rows = [r for r in rows if not any(isinstance(x, Iv) for x in r.values())]
    atoms = list({k: None for r in rows for k in r})
    table = [[F(r.get(k, 0)) for r in rows] + [F(0)] for k in atoms] + [[F(1)] * (len(rows) + 1)]
    cost, basis = [-sum(c) for c in zip(*table, strict=True)], [-1] * len(table)
    while rows:  # the simplex method, by Bland's rule
        proof.spend([x for t in table for x in t])
        j = next((j for j in range(len(rows)) if cost[j] < 0), None)
        if j is None:
            return cost[-1] == 0
        i = min((t[-1] / t[j], basis[i], i) for i, t in enumerate(table) if t[j] > 0)[2]
        table[i], basis[i] = [x / table[i][j] for x in table[i]], j
        for t in [*table[:i], *table[i + 1 :], cost]:
            t[:] = [x - t[j] * y for x, y in zip(t, table[i], strict=True)] if t[j] else t
    return False
CLAIMS = {  # the verdicts that it proves, what it says besides, and how it is checked
    "witnesses": ("SMOOTH BOULIGAND CLARKE", "", witnessed),
    "separation": ("NOT_CLARKE", "", separated), "outer estimate": ("NOT_CLARKE", "", separated),
    "in": ("UNDECIDED", "the vector is in the set", witnessed),
    "out": ("UNDECIDED", "the vector is not in the set", separated),
    "smallest": ("UNDECIDED", "the smallest element", witnessed, separated),
    "slope": ("UNDECIDED", "a slope", sloped), "vertices": ("UNDECIDED", "all vertices", cornered),
}  # fmt: skip
def judged(proof):
    """What was checked and what is assumed, as two lists of sentences."""
    kind, point = proof.claim["kind"], Run(proof)
    kind = ("out", "in")[proof.claim["inside"]] if kind == "membership" else kind
    value, wrong = point.result.value, set(range(proof.touched)) ^ (point.ties - {-1})
    refuse_if(wrong, f"kinks {sorted(wrong)[:3]} are listed or touched, and not both")
    bare = proof.tensors.pop("elements", None) and kind != "out"  # of pieces that bend one way
    refuse_if(kind not in CLAIMS or bare, f"{kind}, of which this checker knows nothing", CannotTell)
    verdicts, said, *checks = CLAIMS[kind]
    refuse_if(proof.verdict not in verdicts.split(), f"{kind}, which is no proof of {proof.verdict}")
    steady(proof, value)
    target = [] if kind == "vertices" else proof.flat("vector" if said else "gradient")
    room = ROOM[-53] if said else proof.room
    try:
        checked = [check(proof, value, target, room) for check in checks]
    except Rejected:
        refuse_if(point.unsaid, f"pieces meet, unsaid: {sorted(point.unsaid)[:1]}", CannotTell)
        raise
    left = [n for n in proof.tensors if not n.startswith(PROGRAM) and not n.endswith(".selection")]
    refuse_if(left, f"tensor {left[:1]} belongs to nothing")
    assumed = ["the instructions are the program, and the gradient is what autograd returned",
               "what the program detached, drew, or read into Python is constant nearby",
               f"8 times what roundings of 2^{proof.unit} can add up to is rounding",
               "exp, log, sqrt and tanh of this Python are right to 2^-48, where they occur",
               *(f"roundings have put {w} there" for w in sorted(point.loose))]  # fmt: skip
    told = f"{len(proof.code)} instructions at the point, {proof.touched} touched kinks"
    return [said or proof.verdict, told, *checked], assumed
def verify(path):
    with open(path, "rb") as stream:
        raw = stream.read(MOST_BYTES + 1)
    refuse_if(len(raw) > MOST_BYTES, f"a file of more than {MOST_BYTES} bytes", CannotTell)
    try:
        return judged(Proof(*load(raw)))
    except Exception as error:
        told = ascii(f"it has another form ({type(error).__name__} {error})")[1:-1][:200]
        raise error if isinstance(error, (Rejected, CannotTell)) else Rejected(told) from error
def main(paths):
    found = []
    for path in paths:
        try:
            words = zip(("checked", "assumed"), verify(path))
            told = "\n  ".join(["checked", *(f"{w}   {t}" for w, every in words for t in every)])
            found.append(0)
        except (Rejected, CannotTell, OSError) as error:
            found.append(1 if isinstance(error, Rejected) else 2)
            told = f"{('', 'rejected', 'cannot tell')[found[-1]]}: {error}"
        print(f"{path}: {told}")
    return 1 if 1 in found else max(found) if paths else print(__doc__) or 2
if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
