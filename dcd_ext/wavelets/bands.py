"""The subbands that a projection keeps, and its shorter expansion into subband terms."""

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

from dcd_ext.errors import UserError

KEYS = tuple("".join(letters) for letters in product("ad", repeat=3))
NAMED = {
    "directional": KEYS[1:-1],
    "approximation": KEYS[:1],
    "diagonal": KEYS[-1:],
    "all": KEYS,
}


class Transform(NamedTuple):
    """A wavelet transform and the subbands of it that are kept, as :func:`parse_bands` gives them."""

    wavelet: str
    levels: int
    mode: str
    keys: tuple[str, ...]


class Term(NamedTuple):
    """One subband: its level (from 1, the finest) and its ptwt key, one letter per axis (D, H, W)."""

    level: int
    key: str


class Expansion(NamedTuple):
    """A projection written as ``identity * x + sign * sum of terms``; ``identity`` is 0 or 1, ``sign`` 1 or -1."""

    identity: int
    sign: int
    terms: tuple[Term, ...]


def parse_bands(bands: str | Sequence[str]) -> tuple[str, ...]:
    """Subband keys of a name ("directional", ...) or a sequence of ptwt keys ("aad", ...); unknown ones are refused."""
    keys = NAMED.get(bands, (bands,)) if isinstance(bands, str) else tuple(bands)
    unknown = [key for key in keys if key not in KEYS]
    if unknown or not keys:
        expected = f"{', '.join(NAMED)}, or keys such as ('aad', 'daa') with a letter per axis D, H, W"
        raise UserError("unknown subband", "bands", expected, repr((*unknown, None)[0]), "name the subbands to keep")
    return tuple(key for key in KEYS if key in keys)


def kept_terms(keys: Sequence[str], levels: int) -> tuple[Term, ...]:
    """The kept subbands of all levels; ``aaa`` exists at the last level only."""
    return tuple(Term(j, key) for j in range(1, levels + 1) for key in keys if key != KEYS[0] or j == levels)


def expand(keys: Sequence[str], levels: int) -> Expansion:
    """The shorter expansion: the kept subbands, or everything minus the removed ones.

    All subbands together reconstruct perfectly, so that keeping some equals removing the others: for the six
    directional bands at three levels 4 terms (aaa of level 3, ddd of every level) instead of 18.
    """
    kept = kept_terms(keys, levels)
    removed = tuple(term for term in kept_terms(KEYS, levels) if term not in kept)
    return Expansion(1, -1, removed) if len(removed) < len(kept) else Expansion(0, 1, kept)
