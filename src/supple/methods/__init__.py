"""The methods that keep a network able to learn, one file each."""

from supple.methods.base import Method
from supple.methods.cbp import CBP
from supple.methods.chain import Chain, chain
from supple.methods.l2 import L2
from supple.methods.redo import ReDo
from supple.methods.shrink_and_perturb import ShrinkAndPerturb
from supple.methods.state import Reinitialized
from supple.methods.swr import SWR

__all__ = [
    "CBP",
    "L2",
    "SWR",
    "Chain",
    "Method",
    "ReDo",
    "Reinitialized",
    "ShrinkAndPerturb",
    "chain",
]
