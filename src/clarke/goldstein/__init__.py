"""Goldstein's subdifferential: the gradients of all points in a ball, and mixtures of these.

`pieces` walks through a program's instructions and lists the linear pieces that meet a ball, in
exact arithmetic; `result` answers from what was found; `call` is `clarke.goldstein`.
"""

from clarke.goldstein.call import goldstein
from clarke.goldstein.result import Goldstein, NearStationary

__all__ = ["Goldstein", "NearStationary", "goldstein"]
