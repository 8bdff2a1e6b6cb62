"""Compile a training program for devices that are not there: `python -m train.aot --help`.

A TPU pod's topology is enough to compile for it on any machine with libtpu (`pip install
'jaxrl[tpu]'`): it shows whether the program fits the chips, and what they say to each other.
"""

import os
import re
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxrl.mesh import SEED
from train import flags, loop, ppo
from train.devices import mesh_of_all
