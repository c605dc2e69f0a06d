"""Functions of one real number in a normal form, so that two spellings of one function can be told to be the same.

    f(x) = p(x) + p1(x) s1(x) + p2(x) s2(x) + ...

where each s is sigmoid(a x), erf(a x) or exp(a x), and each p is continuous and a polynomial of x between breakpoints.
Coefficients, breakpoints and a are fractions: nothing is rounded, so the form is what the operators define. What it
cannot hold (a maximum of something smooth, say) is Unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise, zip_longest
from math import inf

# Lowest coefficient first, without zeros at the end.
Polynomial = tuple[Fraction, ...]
# ("sigmoid" | "erf" | "exp", a); None stands for 1.
Smooth = tuple[str, Fraction] | None
# How far constants may be from exact ones, as a share of them: what float32 loses in a few operations.
TOLERANCE = Fraction(1, 10**6)


class Unknown(Exception):
    """The normal form has no room for this function."""


@dataclass(frozen=True)
class Piecewise:
    """Continuous, a polynomial between each two breakpoints.

    Attributes:
        breaks: rising.
        pieces: one more than those; neighbours differ.
    """

    breaks: tuple[Fraction, ...]
    pieces: tuple[Polynomial, ...]

    def combined(self, other: Piecewise, operation: Callable[[Polynomial, Polynomial], Polynomial]) -> Piecewise:
        """Both functions, piece by piece."""
        starts = [None, *sorted({*self.breaks, *other.breaks})]
        return _joined([(start, operation(self._from(start), other._from(start))) for start in starts])

    def clamped_below(self) -> Piecewise:
        """max(f, 0), where every piece is a line."""
        parts: list[tuple[Fraction | None, Polynomial]] = []
        ends = [None, *self.breaks, None]
        for piece, (start, end) in zip(self.pieces, pairwise(ends), strict=True):
            if len(piece) > 2:
                raise Unknown
            slope = piece[1] if len(piece) == 2 else Fraction(0)
            zero = -piece[0] / slope if slope else None
            inside = zero is not None and (start is None or zero > start) and (end is None or zero < end)
            if zero is None or not inside:
                parts.append((start, piece if _positive_between(piece, start, end) else ()))
            else:
                parts += [(start, () if slope > 0 else piece), (zero, piece if slope > 0 else ())]
        return _joined(parts)

    def is_near(self, other: Piecewise) -> bool:
        """Whether the two differ by rounded constants only."""
        return (len(self.breaks) == len(other.breaks) and all(map(_near, self.breaks, other.breaks))
                and all(len(mine) == len(theirs) and all(map(_near, mine, theirs))
                        for mine, theirs in zip(self.pieces, other.pieces, strict=True)))

    def _from(self, start: Fraction | None) -> Polynomial:
        """The piece right of there; the first one for None."""
        return self.pieces[0 if start is None else sum(point <= start for point in self.breaks)]


@dataclass(frozen=True)
class Function:
    """A function in normal form.

    Attributes:
        terms: what each smooth function is multiplied with; none of them is 0.
    """

    terms: Mapping[Smooth, Piecewise]

    @classmethod
    def constant(cls, value: float) -> Function:
        """A finite number.

        Raises:
            Unknown: it is none.
        """
        if not -inf < value < inf:
            raise Unknown
        return _function({None: _polynomial(Fraction(value))})

    def __add__(self, other: Function) -> Function:
        return _function({smooth: self._of(smooth).combined(other._of(smooth), _sum)
                          for smooth in {**self.terms, **other.terms}})

    def __mul__(self, other: Function) -> Function:
        terms: dict[Smooth, Piecewise] = {}
        for mine, left in self.terms.items():
            for theirs, right in other.terms.items():
                if mine is not None and theirs is not None:
                    raise Unknown
                smooth, product = mine or theirs, left.combined(right, _product)
                terms[smooth] = terms[smooth].combined(product, _sum) if smooth in terms else product
        return _function(terms)

    def __neg__(self) -> Function:
        return self * Function.constant(-1)

    def __sub__(self, other: Function) -> Function:
        return self + -other

    def __truediv__(self, other: Function) -> Function:
        """By a number, or by a multiple of 1 + exp(a x)."""
        terms = dict(other.terms)
        number = _number(terms.pop(None, ZERO))
        if not number:
            raise Unknown
        if not terms:
            return self * _function({None: _polynomial(1 / number)})
        (smooth, factor), *more = terms.items()
        if more or smooth is None or smooth[0] != "exp" or _number(factor) != number:
            raise Unknown
        return self * _function({("sigmoid", -smooth[1]): _polynomial(1 / number)})

    def maximum(self, other: Function) -> Function:
        """The larger of the two at every x."""
        difference = self - other
        if difference.terms.keys() - {None}:
            raise Unknown
        return other + _function({None: difference._of(None).clamped_below()})

    def minimum(self, other: Function) -> Function:
        """The smaller of the two at every x."""
        return -(-self).maximum(-other)

    def inside(self, name: str) -> Function:
        """The smooth function of that name of this one, which has to be a x."""
        line = self._of(None)
        slope = line.pieces[0][1:] if not line.breaks and len(line.pieces[0]) == 2 else ()
        if not slope or line.pieces[0][0] or self.terms.keys() - {None}:
            raise Unknown
        return _function({(name, slope[0]): _polynomial(Fraction(1))})

    def is_near(self, other: Function) -> bool:
        """Whether the two differ by rounded constants only."""
        if len(self.terms) != len(other.terms):
            return False
        return all(any(_same_smooth(smooth, name) and piecewise.is_near(expected)
                       for name, expected in other.terms.items()) for smooth, piecewise in self.terms.items())

    def _of(self, smooth: Smooth) -> Piecewise:
        return self.terms.get(smooth, ZERO)


def _function(terms: Mapping[Smooth, Piecewise]) -> Function:
    return Function({smooth: piecewise for smooth, piecewise in terms.items() if piecewise != ZERO})


def _polynomial(*coefficients: Fraction) -> Piecewise:
    return Piecewise((), (_trimmed(coefficients),))


def _trimmed(coefficients: tuple[Fraction, ...]) -> Polynomial:
    while coefficients and not coefficients[-1]:
        coefficients = coefficients[:-1]
    return coefficients


def _sum(left: Polynomial, right: Polynomial) -> Polynomial:
    return _trimmed(tuple(a + b for a, b in zip_longest(left, right, fillvalue=Fraction(0))))


def _product(left: Polynomial, right: Polynomial) -> Polynomial:
    result = [Fraction(0)] * max(len(left) + len(right) - 1, 0)
    for i, a in enumerate(left):
        for j, b in enumerate(right):
            result[i + j] += a * b
    return _trimmed(tuple(result))


def _number(piecewise: Piecewise) -> Fraction:
    """The value of a constant."""
    if piecewise.breaks or len(piecewise.pieces[0]) > 1:
        raise Unknown
    return piecewise.pieces[0][0] if piecewise.pieces[0] else Fraction(0)


def _positive_between(line: Polynomial, start: Fraction | None, end: Fraction | None) -> bool:
    """Whether a line that is nowhere 0 between two points (None: infinitely far) is above 0 there."""
    if not line:
        return False
    constant, slope = line[0], line[1] if len(line) == 2 else Fraction(0)
    if start is None:
        return constant + slope * (0 if end is None else end - 1) > 0
    return constant + slope * (start + 1 if end is None else (start + end) / 2) > 0


def _joined(parts: list[tuple[Fraction | None, Polynomial]]) -> Piecewise:
    """Pieces by where they start, equal neighbours made one."""
    kept = [part for before, part in zip([None, *parts], parts, strict=False) if before is None or before[1] != part[1]]
    return Piecewise(tuple(start for start, _ in kept[1:] if start is not None), tuple(piece for _, piece in kept))


def _near(mine: Fraction, other: Fraction) -> bool:
    """Exactly 0 where the other is: a small slope is large far out."""
    return abs(mine - other) <= TOLERANCE * abs(other)


def _same_smooth(mine: Smooth, other: Smooth) -> bool:
    if mine is None or other is None:
        return mine is other
    return mine[0] == other[0] and _near(mine[1], other[1])


ZERO = Piecewise((), ((),))
X = _function({None: _polynomial(Fraction(0), Fraction(1))})
