"""The methods that keep a network able to learn, one file each."""

from supple.methods.base import Method
from supple.methods.c_chain import CChain
from supple.methods.cbp import CBP
from supple.methods.chain import Chain, chain
from supple.methods.cpr import CPR
from supple.methods.dash import DASH
from supple.methods.fire import FIRE
from supple.methods.hare_and_tortoise import HareAndTortoise
from supple.methods.infer import InFeR
from supple.methods.isometry import Isometry
from supple.methods.l2 import L2
from supple.methods.l2_init import L2Init
from supple.methods.nap import NaP
from supple.methods.parseval import Parseval
from supple.methods.redo import ReDo
from supple.methods.regrama import ReGraMa
from supple.methods.reset import Reset
from supple.methods.shrink_and_perturb import ShrinkAndPerturb
from supple.methods.shrink_and_redraw import ShrinkAndRedraw
from supple.methods.snr import SNR
from supple.methods.spectral import Spectral
from supple.methods.state import Reinitialized
from supple.methods.swr import SWR
from supple.methods.trac import TRAC
from supple.methods.upgd import UPGD
from supple.methods.wasserstein import Wasserstein
from supple.methods.weight_clipping import WeightClipping

__all__ = [
    "CBP",
    "CPR",
    "DASH",
    "FIRE",
    "L2",
    "SNR",
    "SWR",
    "TRAC",
    "UPGD",
    "CChain",
    "Chain",
    "HareAndTortoise",
    "InFeR",
    "Isometry",
    "L2Init",
    "Method",
    "NaP",
    "Parseval",
    "ReDo",
    "ReGraMa",
    "Reinitialized",
    "Reset",
    "ShrinkAndPerturb",
    "ShrinkAndRedraw",
    "Spectral",
    "Wasserstein",
    "WeightClipping",
    "chain",
]
