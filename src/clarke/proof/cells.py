"""Instructions over single numbers, which the checker without clarke carries out.

`clarke_verify.py` knows no operator of torch. What a program computes is written down for it in a
language of nine words (`Word`): a cell is a number, and every instruction makes one more. Cells are
numbered, variables first, then constants, then the results of instructions.
"""

from __future__ import annotations

from enum import IntEnum
from fractions import Fraction
from itertools import chain
from typing import TYPE_CHECKING

import torch

from clarke.numerics import INSTRUCTION_NUMBERS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Cell = int
    Where = tuple[int, int]  # an operation, and an element of its result

NOWHERE = (-1, 0)  # of what is no kink of an operation
UNKNOWN = -(2**48)  # a cell of which nothing is known: reading it ends the lowering


class Word(IntEnum):
    """What an instruction does, by its number in a file.

    `SUM` adds products of two cells each. `MAX` and `SIGN` are where kinks are. `PICK` is one of
    three cells, by whether the first is negative, zero or positive. The others are functions of one
    cell.
    """

    SUM = 0
    MAX = 1
    SIGN = 2
    PICK = 3
    INVERSE = 4
    EXP = 5
    LOG = 6
    SQRT = 7
    TANH = 8


class NoInstructionsError(Exception):
    """The language has no words for the program; says for what."""


class Cells:
    """Instructions as they are written. Constants have negative numbers until all are known.

    Args:
        variables: How many there are.
        rows: The row of each touched kink, by operation and element.
    """

    def __init__(self, variables: int, rows: Mapping[Where, int]) -> None:
        self._variables = variables
        self._rows = rows
        self._code: list[tuple[int, ...]] = []
        self._constants: list[Fraction] = []
        self._by_value: dict[Fraction, Cell] = {}
        self._by_words: dict[tuple[int, ...], Cell] = {}
        self._moves = [True] * variables
        self._length = 0
        self.zero = self.constant(0)
        self.one = self.constant(1)

    # --- cells ------------------------------------------------------------------------------------

    def constant(self, value: Fraction | float) -> Cell:
        """The cell of a number.

        Raises:
            NoInstructionsError: It is not finite, or no number of float64.
        """
        try:
            exact = Fraction(value)
            same = Fraction(float(exact)) == exact
        except (OverflowError, ValueError):
            same = False
        if not same:
            raise NoInstructionsError(f"the number {value}")
        if exact not in self._by_value:
            self._constants.append(exact)
            self._by_value[exact] = -len(self._constants)
        return self._by_value[exact]

    def value(self, cell: Cell) -> Fraction | None:
        """The number of a constant; None for any other cell."""
        if cell == UNKNOWN:
            raise NoInstructionsError("a value that no operator of the program has made")
        return self._constants[-1 - cell] if cell < 0 else None

    def moves(self, cell: Cell) -> bool:
        """Whether a cell depends on a variable other than through signs."""
        return self.value(cell) is None and self._moves[cell]

    def is_told(self, where: Where) -> bool:
        """Whether a touched kink stands there."""
        return where in self._rows

    # --- instructions -----------------------------------------------------------------------------

    def products(self, pairs: Sequence[tuple[Cell, Cell]]) -> Cell:
        """The sum of the products of two cells each."""
        kept, constant = [], Fraction(0)
        for x, y in pairs:
            a, b = self.value(x), self.value(y)
            if a is not None and b is not None:
                constant += a * b
            elif a != 0 and b != 0:
                kept.append((x, y))
        try:
            kept += [(self.constant(constant), self.one)] if constant or not kept else []
        except NoInstructionsError:  # its sum is no number of float64, and its terms are
            kept = [(x, y) for x, y in pairs if self.value(x) != 0 and self.value(y) != 0]
        if len(kept) == 1 and self.one in kept[0]:
            return sum(kept[0]) - self.one
        return self._write(Word.SUM, [*chain.from_iterable(kept)])

    def add(self, *terms: tuple[Cell, Fraction | float]) -> Cell:
        """The sum of multiples of cells."""
        return self.products([(cell, self.constant(factor)) for cell, factor in terms])

    def subtract(self, x: Cell, y: Cell) -> Cell:
        """The difference of two cells."""
        return self.add((x, 1), (y, -1))

    def times(self, x: Cell, y: Cell) -> Cell:
        """The product of two cells."""
        return self.products([(x, y)])

    def over(self, x: Cell, y: Cell) -> Cell:
        """The quotient of two cells."""
        return self.times(x, self.smooth(Word.INVERSE, y))

    def mean(self, cells: Sequence[Cell]) -> Cell:
        """The mean of some cells."""
        count = self.smooth(Word.INVERSE, self.constant(len(cells)))
        return self.times(self.add(*((c, 1) for c in cells)), count)

    def smooth(self, word: Word, x: Cell) -> Cell:
        """A function of one cell."""
        known = self.value(x)
        if word is Word.INVERSE and known:
            over = 1 / known
            if Fraction(float(over)) == over:
                return self.constant(over)
        return self._write(word, (x,))

    def largest(self, cells: Sequence[Cell], where: Where) -> Cell:
        """The largest of some cells; the kink is at `where`."""
        known = [self.value(c) for c in cells]
        if None in known:
            return self._write(Word.MAX, cells, where)
        self._note(Word.MAX, cells, where)
        return self.constant(max(k for k in known if k is not None))

    def smallest(self, cells: Sequence[Cell], where: Where) -> Cell:
        """The smallest of some cells; the kink is at `where`."""
        return self.add((self.largest([self.add((c, -1)) for c in cells], where), -1))

    def sign(self, x: Cell, where: Where) -> Cell:
        """1, 0 or -1, constant beside the kinks; the kink is at `where`."""
        known = self.value(x)
        if known is None:
            return self._write(Word.SIGN, (x,), where)
        self._note(Word.SIGN, (x,), where)
        return self.constant((known > 0) - (known < 0))

    def pick(self, by: Cell, below: Cell, at: Cell, above: Cell) -> Cell:
        """One of three cells, by the sign of a cell that does not move."""
        known = self.value(by)
        if known is not None:
            return (at, above, below)[(known > 0) - (known < 0)]
        if self.moves(by):
            raise NoInstructionsError("a choice by a number that varies")
        return below if below == at == above else self._write(Word.PICK, (by, below, at, above))

    def at_place(self, places: Cell, place: int, other: Cell, own: Cell) -> Cell:
        """A cell if a number that does not move is that of its place, else another cell."""
        off = self.sign(self.add((places, 1), (self.constant(place), -1)), NOWHERE)
        return self.pick(off, other, own, other)

    def place_of_largest(self, cells: Sequence[Cell]) -> Cell:
        """At which place the largest of some cells stands; the first of several."""
        best, found = cells[0], self.zero
        for n, cell in enumerate(cells[1:], 1):
            later = self.sign(self.subtract(cell, best), NOWHERE)
            found = self.pick(later, found, found, self.constant(n))
            best = self.largest((best, cell), NOWHERE)
        return found

    def _note(self, word: Word, read: Sequence[Cell], where: Where) -> None:
        """A kink of constants is written where the file names it, and read by nobody."""
        if self.is_told(where):
            self._write(word, read, where)

    def _write(self, word: Word, read: Sequence[Cell], where: Where | None = None) -> Cell:
        key = (word, -1 if where is None else self._rows.get(where, -1), *read)
        if key in self._by_words:
            return self._by_words[key]
        self._length += len(key) + 1
        if self._length > INSTRUCTION_NUMBERS:
            raise NoInstructionsError("a program that is too large for exact arithmetic")
        results = read[1:] if word is Word.PICK else read
        moves = word is not Word.SIGN and any(self.moves(c) for c in results)
        self._moves.append(moves)
        self._code.append(key)
        self._by_words[key] = cell = self._variables + len(self._code) - 1
        return cell

    @property
    def code(self) -> tuple[tuple[int, ...], ...]:
        """The instructions: a word, a kink's row, and cells."""
        return tuple(self._code)

    @property
    def constants(self) -> tuple[Fraction, ...]:
        """The numbers of cells -1, -2 and so on."""
        return tuple(self._constants)

    # --- the file ---------------------------------------------------------------------------------

    def written(self, output: Cell) -> tuple[dict[str, torch.Tensor], int]:
        """The instructions and constants as tensors, and the number of a cell in them."""
        read = [output, *(c for _, _, *cells in self._code for c in cells)]
        used = sorted({c for c in read if c < 0}, reverse=True)
        constants = {c: n for n, c in enumerate(used)}

        def number(cell: Cell) -> int:
            self.value(cell)  # refuses what is unknown
            if cell < 0:
                return self._variables + constants[cell]
            return cell if cell < self._variables else cell + len(constants)

        flat: list[int] = []
        for word, row, *cells in self._code:
            flat += [word, row, len(cells), *map(number, cells)]
        values = [float(self._constants[-1 - c]) for c in constants]
        return {
            "code": torch.tensor(flat, dtype=torch.int32),
            "constants": torch.tensor(values, dtype=torch.float64),
        }, number(output)
