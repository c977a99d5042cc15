#!/usr/bin/env python3
"""Check a proof that clarke saved, with nothing but Python: `python clarke_verify.py FILE`.

This file shares no code with clarke and imports the standard library only. A proof's program comes
as instructions of a small language (sums of products, maxima, signs, choices, smooth functions),
which are carried out here in exact rational arithmetic, exp and the like by intervals, with own
derivatives; what follows is compared with what the file claims. That the instructions are the
program is clarke's word: `clarke verify` makes them again. `docs/certificate.md` has the argument.

Exit status: 0 checked, 1 rejected, 2 cannot tell (no instructions, or too large).
"""

import hashlib
import io
import json
import math
import struct
import sys
import zipfile
from fractions import Fraction as F

ENTRIES = ("proof.json", "tensors.safetensors", "sha256")
FIELDS = "assumed claim format instructions program replayed theorem verdict version written_by"
PROGRAM = ("slot.", "memory.", "op.")  # tensors of the recorded operations, which are clarke's
BYTES = dict(F64=8, F32=4, F16=2, BF16=2, I64=8, I32=4, I16=2, I8=1, U8=1, BOOL=1)
MOST_BYTES, MOST_WORK, MOST_CASES = 1 << 28, 2_000_000, 2_000
MOST_BITS, BITS = 1 << 15, 200  # of exact numbers, and of the ends of intervals
NEAR = F(1, 1 << 20)  # what roundings can have moved onto a kink
UNSEEN = "pieces meet, and the file does not say that its floats did"

class Rejected(Exception):
    """The file is no proof of what it says."""

class CannotTell(Exception):
    """This checker is not made for what the file holds."""

def stop(what):
    raise CannotTell(what)

def refuse_if(wrong, what, error=Rejected):
    if wrong:
        raise error(what)

# --- the file -------------------------------------------------------------------------------------
def written(entries):
    """The one form of a zip with these entries."""
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
    both = hashlib.sha256(text).digest() + hashlib.sha256(data).digest()
    refuse_if(digest != hashlib.sha256(both).hexdigest().encode(), "the digest is another one")
    refuse_if(written(entries) != raw, "the zip has another form")
    start = 8 + int.from_bytes(data[:8], "little")
    header, body, end, tensors = parsed(data[8:start], 8), data[start:], 0, {}
    for name, entry in sorted(header.items()):
        kind, shape, begin = entry["dtype"], entry["shape"], end
        end += math.prod(shape) * BYTES[kind]
        own = {"dtype": kind, "shape": shape, "data_offsets": [begin, end]}
        wrong = own != entry or min([0, *shape]) < 0 or end > len(body)
        refuse_if(wrong, f"tensor {name} is not where it should be")
        tensors[name] = kind, shape, body[begin:end]
    refuse_if(end != len(body), "bytes of the tensors belong to none")
    return parsed(text), tensors

class Proof:
    """What a file says: instructions, the point, and the tensors of the claim."""

    def __init__(self, content, tensors):
        refuse_if(content["format"] != "clarke proof", "the format is another one")
        told = f"version {content['version']} of the format, and this checker reads version 2"
        refuse_if(content["version"] != 2, told, CannotTell)
        refuse_if(set(content) != set(FIELDS.split()), f"the fields are not {FIELDS}")
        self.claim, self.verdict, told = (content[k] for k in ("claim", "verdict", "instructions"))
        refuse_if(set(told) == {"missing"}, told.get("missing"), CannotTell)
        self.output, self.unit, self.tensors, self.work = told["output"], told["unit"], tensors, 0
        refuse_if(self.unit not in (-53, -24, -11, -8), "the unit of rounding is of no type")
        self.point, self.constants = ([*map(F, self.take(n))] for n in ("point", "constants"))
        self.touched = len(self.take("touched", "I64", "q")) // 3
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
        return struct.unpack(f"<{math.prod(shape)}{code}", raw)

    def flat(self, name):
        """The tensors of all variables, one behind the other."""
        names = [f"{name}.{i}" for i in range(len(self.tensors)) if f"{name}.{i}" in self.tensors]
        found = [F(x) for n in names for x in self.take(n)]
        refuse_if(len(found) != len(self.point), f"{name} has not a number for each variable")
        return found

# --- numbers: exact rationals, and intervals around what is none ----------------------------------
class Iv:
    """All numbers from lo to hi, both rational."""

    def __init__(self, lo, hi):
        self.lo, self.hi = lo, hi

    def __add__(self, other):
        lo, hi = ends(other)
        return between(self.lo + lo, self.hi + hi)

    def __mul__(self, other):
        found = [x * y for x in ends(self) for y in ends(other)]
        return between(min(found), max(found))

    def __sub__(self, other):
        return self + -1 * other

    def __rsub__(self, other):
        return -1 * self + other

    __radd__, __rmul__ = __add__, __mul__

def ends(x):
    return (x.lo, x.hi) if isinstance(x, Iv) else (x, x)

def between(lo, hi):
    """An interval, its ends rounded outwards where they are long; a number, if they are equal."""
    if lo != hi and lo.denominator.bit_length() + hi.denominator.bit_length() > 4 * BITS:
        most = max(abs(lo), abs(hi))
        unit = 1 << max(BITS - most.numerator.bit_length() + most.denominator.bit_length(), 0)
        lo, hi = F(math.floor(lo * unit), unit), F(math.ceil(hi * unit), unit)
    return lo if lo == hi else Iv(lo, hi)

def size(x):
    return abs(float(ends(x)[0]))

def bits(x):
    return sum(e.numerator.bit_length() + e.denominator.bit_length() for e in ends(x))

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
        return between(lo - abs(lo) / 2**48, hi + abs(hi) / 2**48)
    return bounds

def root(x):
    top, low = (math.isqrt(max(n, 0)) for n in (ends(x)[0].numerator, ends(x)[0].denominator))
    return F(top, low) if x == F(top, low) ** 2 else growing(math.sqrt)(x)

SMOOTH = {  # values, and slopes by the argument and the value
    "inverse": (inverse, lambda x, y: -1 * y * y),
    "exp": (growing(math.exp, 0, 1), lambda x, y: y),
    "log": (growing(math.log, 1, 0), lambda x, y: inverse(x)),
    "sqrt": (root, lambda x, y: inverse(2 * y)),
    "tanh": (growing(math.tanh, 0, 0), lambda x, y: 1 - y * y),
}
NAMES = dict(enumerate(("sum", "max", "sign", "pick", *SMOOTH)))

# --- the instructions, carried out once -----------------------------------------------------------
class Cell:
    """A number of the program.

    form: what it is near the point: a constant, and multiples of atoms (variables, results of what
    is not linear, open maxima). sources: the cells that it was made of, with sizes of factors.
    """

    def __init__(self, number, value, form, sources):
        self.number, self.value, self.form, self.sources = number, value, form, sources
        self.weight = 0.0

def add(total, factor, terms):
    """Add a multiple of a sum to another one; terms that cancel are gone."""
    for key, x in terms.items():
        total[key] = total.get(key, 0) + factor * x
        if total[key] == 0:
            del total[key]

class Run:
    """The instructions, carried out once.

    With a direction alone, pieces are those that it selects; with choices, those that they name,
    and all others stay open; with neither, those of the point itself.
    """

    def __init__(self, proof, direction=None, choices=None):
        self.proof, self.choices, self.at_point = proof, choices, direction is None
        self.ties, self.loose, self.masks = set(), set(), set()  # touched kinks, and comparisons
        self.kinks, self.arguments, self.conditions, self.open = {}, [], [], None
        self.made, self.atoms, self.slopes, self.rates = [], {}, {}, {"d": F(1)}
        for n, x in enumerate(proof.point):
            atom = ("x", n)
            self.rates[atom] = d = F(0) if self.at_point else direction[n]
            self.slopes[atom] = {atom: F(1)} if choices is None else {"d": d}
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
                self.open, self.result = (self.number, 2), None
                return
            cells[len(cells)] = found
        self.result = cells[proof.output]

    def cell(self, value, form=None, sources=()):
        self.made.append(Cell(len(self.made), value, form or {}, sources))
        self.proof.work += 2 + len(self.made[-1].form)
        long = max(map(bits, (value, *self.made[-1].form.values()))) > MOST_BITS
        large = "the program is too large for exact arithmetic"
        refuse_if(long or self.proof.work > MOST_WORK, large, CannotTell)
        return self.made[-1]

    def gradient(self, form):
        """The derivatives of a sum of atoms: by variables, or along the direction; and by kinks."""
        found = {}
        for atom, factor in form.items():
            self.proof.work += len(self.slopes[atom])
            add(found, factor, self.slopes[atom])
        return found

    def rate(self, cell):
        """The derivative along the direction."""
        return sum((x * self.rates[k] for k, x in self.gradient(cell.form).items()), F(0))

    def atom(self, key, value, terms):
        """What is not linear: the same function of the same cells is the same atom."""
        if key not in self.atoms:
            self.slopes[key] = {}
            for cell, slope in [] if self.at_point else terms:
                add(self.slopes[key], slope, self.gradient(cell.form))
            self.atoms[key] = self.cell(value, {key: F(1)}, [(c, size(s)) for c, s in terms])
        return self.atoms[key]

    def smooth(self, name, x):
        value, slope = SMOOTH[name]
        y = value(x.value)
        return self.atom((name, x.number), y, [(x, slope(x.value, y))]) if x.form else self.cell(y)

    def sum(self, *cells):
        """The sum of the products of two cells each."""
        value, form, sources = F(0), {}, []
        for pair in zip(cells[::2], cells[1::2], strict=True):
            y, x = sorted(pair, key=lambda c: (bool(c.form), c.number))  # a constant is first
            product, factor = x.value * y.value, y.value
            if y.form:
                factors = [(x, y.value), (y, x.value)]
                x, factor = self.atom(("*", y.number, x.number), product, factors), F(1)
            value += product
            add(form, factor, x.form)
            sources += [(x, size(factor))] if x.form else []
        return self.cell(value, form, sources)

    def pick(self, by, below, at, above):
        """One of three cells, by the sign of a number that does not vary."""
        return (at, above, below)[sign(by.value)] if not by.form else stop("a choice that varies")

    def close(self, difference):
        """Sign of a difference at the point; where the file says so, roundings made it zero."""
        found = sign(difference)
        if found != 0 and self.row >= 0 and max(map(abs, ends(difference))) < NEAR:
            self.loose.add(self.here)
            return 0
        return stop(f"rounding decides {self.here}") if found is None else found

    def max(self, *cells):
        top = max(cells, key=lambda c: ends(c.value)[1])
        tied = [c for c in cells if c is top or self.close(top.value - c.value) == 0]
        self.ties |= {self.row} if len(tied) > 1 else set()
        tied = [c for n, c in enumerate(tied) if all(c.form != t.form for t in tied[:n])]
        self.proof.work += len(tied) ** 2
        refuse_if(len(tied) > 1 and self.row < 0, f"{self.here}: {UNSEEN}", CannotTell)
        if len(tied) == 1 or self.at_point:
            return tied[0]
        return self.selected(tied) if self.choices is None else self.chosen(tied)

    def selected(self, tied):
        """The piece that the direction selects, and a variable of its own for the kink."""
        rates = [self.rate(c) for c in tied]
        best = max(range(len(tied)), key=lambda i: ends(rates[i])[1])
        plain = [{k: x for k, x in self.gradient(c.form).items() if k[0] == "x"} for c in tied]
        signs = {sign(rates[best] - r) for r, p in zip(rates, plain) if p != plain[best]}
        self.arguments += [] if signs else tied
        kink = ("kink", self.number)
        self.kinks[kink] = self.here, tied, None if None in signs else signs <= {1}, not signs
        self.slopes[kink], self.rates[kink] = {kink: F(1)}, F(0)
        return self.cell(tied[best].value, {**tied[best].form, kink: F(1)}, [(tied[best], 1.0)])

    def chosen(self, tied):
        """The piece that was chosen, or all of them at once."""
        if self.number in self.choices:
            found = tied[self.choices[self.number]]
            for other in tied:
                condition = {**found.form}
                add(condition, -1, other.form)
                self.conditions += [condition] if other is not found else []
            return found
        bounds = [e for c in tied for e in ends(self.rate(c))]
        self.open = self.open or (min(bounds) < max(bounds) and (self.number, len(tied)))
        atom = ("open", self.number)
        self.slopes[atom], self.rates[atom] = {atom: F(1)}, between(min(bounds), max(bounds))
        return self.cell(tied[0].value, {atom: F(1)}, [(c, 1.0) for c in tied])

    def sign(self, x):
        """The sign of a cell just beside the point, or at it in a run of the point itself."""
        found, varies = self.close(x.value), any(k[0] != "kink" for k in x.form)
        if found != 0:
            return self.cell(F(found))
        refuse_if(varies and self.row < 0, f"{self.here}: {UNSEEN}", CannotTell)
        self.ties.add(self.row)
        self.arguments.append(x)
        if varies and not self.at_point:
            self.masks.add(self.here)
            if self.choices is None:
                found = sign(self.rate(x)) or stop(f"the direction leaves {self.here} open")
            elif self.number in self.choices:
                found = (1, -1)[self.choices[self.number]]
                self.conditions.append({k: found * c for k, c in x.form.items()})
            else:
                return None
        return self.cell(F(found))

    def sizes(self):
        """For each variable, the sum of the sizes of the terms of its derivative."""
        self.result.weight = 1.0
        for cell in reversed(self.made):
            for source, factor in cell.sources:
                source.weight += factor * cell.weight
        return [cell.weight for cell in self.made[: len(self.proof.point)]]

    def relevant(self):
        """The kinks that matter: (where, strict) for each."""
        todo, done = [self.result, *self.arguments], set()
        while todo:
            for kink in self.gradient(todo.pop().form).keys() & self.kinks.keys() - done:
                done.add(kink)
                where, tied, strict, null = self.kinks[kink]
                if not null:
                    yield where, strict
                    todo += tied

# --- the claims -----------------------------------------------------------------------------------
def differ(found, sizes, target, unit, what):
    """Whether entries are equal but for roundings, of which their terms allow this much."""
    for n, (x, most, y) in enumerate(zip(found, sizes, target, strict=True)):
        room = F(most + abs(float(y))) * F(2) ** (unit + 8)
        if max(map(abs, ends(x - y))) > room:
            far = sign(x - y) and min(map(abs, ends(x - y))) > room * 2**12
            told = f"{what}: entry {n} is {float(y):.9g}, and not {float(ends(x)[0]):.9g}"
            raise (Rejected if far else CannotTell)(told)

def witnessed(proof, value, target):
    """Every witness, its gradient, and their mean."""
    weights, smooth = [F(w) for w in proof.claim["weights"]], proof.verdict == "SMOOTH"
    total, sizes, whole = [F(0)] * len(target), [0.0] * len(target), sum(weights)
    refuse_if(min(weights) < 0 or abs(whole - 1) > F(1, 1 << 30), "the weights are not convex")
    refuse_if(proof.verdict == "BOULIGAND" and len(weights) > 1, "BOULIGAND has one witness")
    for k, weight in enumerate(weights):
        run = Run(proof, proof.flat(f"witness.{k}.direction"))
        refuse_if(sign(run.result.value - value), f"the function jumps along witness {k}")
        for where, strict in run.relevant():
            refuse_if(smooth, f"a kink that matters is touched, at {where}")
            refuse_if(strict is False, f"witness {k} leaves {where} open")
            refuse_if(strict is None, f"whether witness {k} decides {where}", CannotTell)
        refuse_if(smooth and run.masks, f"whether {[*run.masks][:1]} matters", CannotTell)
        found, most = run.gradient(run.result.form), run.sizes()
        own = [found.get(("x", n), F(0)) for n in range(len(target))]
        differ(own, most, proof.flat(f"witness.{k}.gradient"), -53, f"the gradient of witness {k}")
        total = [t + weight / whole * x for t, x in zip(total, own, strict=True)]
        sizes = [max(pair) for pair in zip(sizes, most, strict=True)]
    differ(total, sizes, target, proof.unit, "the gradient")
    return f"{len(weights)} witness(es): pieces, strict signs, gradients, and the gradient as mean"

def separated(proof, value, target, unit):
    """No selection is on the far side: kinks are decided one by one where bounds do not do."""
    d = [F(v) for v in proof.take("direction")]
    products = [x * y for x, y in zip(d, target, strict=True)]
    todo, bounded, excluded = [{}], 0, 0
    while todo:
        choices = todo.pop()
        refuse_if(bounded + excluded + len(todo) > MOST_CASES, "too many selections", CannotTell)
        run = Run(proof, d, choices)
        if contradiction(proof, run.conditions):
            excluded += 1
            continue
        if run.result:
            refuse_if(sign(run.result.value - value), "a function that jumps", CannotTell)
            terms = [size(x) * s for x, s in zip(d, run.sizes(), strict=True)]
            gap = sum(products) - ends(run.rate(run.result))[1]
            if gap > F(sum(terms) + sum(map(size, products))) * F(2) ** (unit + 8):
                bounded += 1
                continue
        curved = any(k[0] != "x" for row in run.conditions for k in row)
        error = CannotTell if curved else Rejected
        refuse_if(not run.open, "a selection is on the far side of the direction", error)
        todo += [{**choices, run.open[0]: n} for n in range(run.open[1])]
    return f"the direction separates: {bounded} sets of selections bounded, {excluded} excluded"

def contradiction(proof, rows):
    """Whether some of these sums of atoms, with weights >= 0 that are not all 0, add up to zero."""
    rows = [r for r in rows if not any(isinstance(x, Iv) for x in r.values())]
    atoms = list({k: None for r in rows for k in r})
    table = [[F(r.get(k, 0)) for r in rows] + [F(0)] for k in atoms] + [[F(1)] * (len(rows) + 1)]
    cost, basis = [-sum(c) for c in zip(*table, strict=True)], [-1] * len(table)
    while rows:  # the simplex method, by Bland's rule
        proof.work += len(rows) * len(table)
        j = next((j for j in range(len(rows)) if cost[j] < 0), None)
        if j is None:
            return cost[-1] == 0
        i = min((t[-1] / t[j], basis[i], i) for i, t in enumerate(table) if t[j] > 0)[2]
        table[i], basis[i] = [x / table[i][j] for x in table[i]], j
        for t in [*table[:i], *table[i + 1 :], cost]:
            t[:] = [x - t[j] * y for x, y in zip(t, table[i], strict=True)] if t[j] else t
    return False

def judged(proof):
    """What was checked and what is assumed, as two lists of sentences."""
    kind, verdict, point = proof.claim["kind"], proof.verdict, Run(proof)
    value, wrong = point.result.value, set(range(proof.touched)) ^ (point.ties - {-1})
    refuse_if(wrong, f"kinks {sorted(wrong)[:3]} are listed or touched, and not both")
    if kind == "witnesses" and verdict in ("SMOOTH", "BOULIGAND", "CLARKE"):
        checked = witnessed(proof, value, proof.flat("gradient"))
    elif kind in ("separation", "outer estimate") and verdict == "NOT_CLARKE":
        checked = separated(proof, value, proof.flat("gradient"), proof.unit)
    elif kind == "membership" and proof.claim["inside"] is False:
        checked = separated(proof, value, proof.flat("vector"), -53)
    else:
        known = kind in ("witnesses", "separation", "outer estimate")
        raise (Rejected if known else CannotTell)(f"{kind}, which is no proof of {verdict} here")
    left = [n for n in proof.tensors if not n.startswith(PROGRAM) and not n.endswith(".selection")]
    refuse_if(left and kind != "membership", f"tensor {left[:1]} belongs to nothing")
    told = f"{len(proof.code)} instructions at the point, {proof.touched} touched kinks"
    assumed = ["the instructions are the program, and the gradient is what autograd returned",
               "what the program detached, drew, or read into Python is constant nearby",
               f"a difference of 2^8 roundings (2^{proof.unit}) of a gradient's terms is rounding",
               "exp, log, sqrt and tanh of this Python are right to 2^-48, where they occur",
               *(f"roundings have put {w} there" for w in sorted(point.loose))]  # fmt: skip
    return [verdict, told, checked], assumed

def verify(path):
    """What was checked and what is assumed, as two lists of sentences."""
    with open(path, "rb") as stream:
        raw = stream.read(MOST_BYTES + 1)
    refuse_if(len(raw) > MOST_BYTES, f"a file of more than {MOST_BYTES} bytes", CannotTell)
    try:
        return judged(Proof(*load(raw)))
    except (Rejected, CannotTell):
        raise
    except Exception as error:
        told = " ".join(f"({type(error).__name__} {error})".split())[:200]
        raise Rejected(f"something is missing or has another form {told}") from error

def main(paths):
    """Check files; returns the exit status."""
    found = []
    for path in paths:
        try:
            checked, assumed = verify(path)
            lines = ["checked", *(f"  checked   {c}" for c in checked)]
            lines += [f"  assumed   {a}" for a in assumed]
            found.append(0)
        except (Rejected, CannotTell, OSError) as error:
            found.append(1 if isinstance(error, Rejected) else 2)
            lines = [f"{('', 'rejected', 'cannot tell')[found[-1]]}: {error}"]
        print(f"{path}: " + "\n".join(lines))
    return 1 if 1 in found else max(found, default=2)

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
