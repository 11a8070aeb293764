"""What are the four networks? Phi draws a skeleton, Omega reads its joints, Lambda lifts, D judges.

    image -> Phi -> skeleton image -> Omega -> 2D pose -> Lambda -> depths and elevation
                         |
                         D compares it with drawn poses

Each class built without arguments has the paper's size.
"""

from selfpose.networks.discriminator import D
from selfpose.networks.lifter import Lambda
from selfpose.networks.omega import Omega
from selfpose.networks.phi import Phi

__all__ = ["D", "Lambda", "Omega", "Phi"]
