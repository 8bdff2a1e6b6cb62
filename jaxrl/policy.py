"""A trained policy on its own: saved, loaded, and called on raw observations."""

import json
import math
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from jaxrl import actions, distributions, files, memory, networks, spaces
from jaxrl.actions import Scaling
from jaxrl.config import check_range
from jaxrl.networks import NetworkSpec
from jaxrl.normalize import RunningStats, normalize_obs, normalized_space

WEIGHTS, DESCRIPTION = "weights.npz", "policy.json"
COPY = "copy policy/ again from its run, or train again"


@dataclass(frozen=True)
class Description:
    """policy.json: what the network was built from, and which weights belong to it."""

    network: str
    hidden: tuple[int, ...]
    activation: str
    observation_space: dict[str, Any]  # after normalisation
    normalize_obs: bool
    action_space: dict[str, Any]  # the environment's
    scaling: Scaling
    num_seeds: int  # K
    digests: dict[str, str] = field(default_factory=dict)  # of the other files; none in old folders

    def __post_init__(self):
        if self.activation not in networks.ACTIVATIONS:
            known = ", ".join(networks.ACTIVATIONS)
            raise ValueError(f"activation={self.activation} is none of {known}.")
        if len(self.hidden) > 1000:
            raise ValueError(f"hidden has {len(self.hidden)} layers; there can be 1000.")
        for name, sizes in (("hidden", self.hidden), ("num_seeds", (self.num_seeds,))):
            for size in sizes:
                check_range(name, size, 1, 2**20, 64)


class Policy(flax.struct.PyTreeNode):
    """Raw observations to actions of the environment, normaliser and action scaling included."""

    network: Any
    obs_stats: Any  # RunningStats per observation leaf, or None
    spec: NetworkSpec = flax.struct.field(pytree_node=False)  # what the network was built from
    action_space: Any = flax.struct.field(pytree_node=False)  # the raw environment's
    scaling: Scaling = flax.struct.field(pytree_node=False)  # of what is drawn onto action_space

    def __call__(self, obs: Any, key: jax.Array | None = None) -> Any:
        """Actions for one observation or a batch of them: sampled, or the mode without a key.

        ValueError for a policy with a memory, which `step` needs.
        """
        self._check_memory()
        return self.step((), obs, key)[1]

    def begin(self, batch: tuple[int, ...] = ()) -> Any:
        """The memory with which episodes begin; () for a policy without one."""
        return networks.begin(self.network, batch)

    def step(self, memory: Any, obs: Any, key: jax.Array | None = None) -> tuple[Any, Any]:
        """(memory, actions) as of a call; the next episode begins with `begin()` again."""
        memory, seen = networks.look(self.network, memory, normalize_obs(self.obs_stats, obs))
        pi = self.network.distribution(*seen)
        if key is None:
            return memory, self.to_env(pi.mode())
        space = jax.tree.leaves(self.spec.observation_space, is_leaf=spaces.is_space)[0]
        shape = jnp.shape(jax.tree.leaves(obs)[0])
        batch = shape[: len(shape) - len(space.shape)]
        noise = distributions.noise(self.spec.action_space, key, batch)
        return memory, self.to_env(pi.sample(noise))

    def _check_memory(self) -> None:
        if networks.has_memory(self.network):
            raise ValueError(
                f"network={self.spec.network} has a memory; start with memory = policy.begin(), "
                "then memory, action = policy.step(memory, obs, key)."
            )

    def to_env(self, action: jax.Array) -> jax.Array:
        """An action as drawn, as the raw environment takes it."""
        return actions.to_env(action, self.action_space, self.scaling)

    def value(self, obs: Any) -> jax.Array:
        """V of raw observations, in units of the (possibly scaled) training reward."""
        self._check_memory()
        return self.network.value(normalize_obs(self.obs_stats, obs))

    def plays(self, env: Any) -> bool:
        """Whether an environment has the spaces that it was trained for."""
        seen = env.observation_space
        seen = seen if self.obs_stats is None else normalized_space(seen)
        return (self.spec.observation_space, self.action_space) == (seen, env.action_space)


def save_policy(folder: Path, policies: Policy) -> None:
    """Write the policies of K seeds (leaves [K, ...]) as one npz of weights and one json.

    Both are there, or the folder is as it was.
    """
    with files.whole_folder(folder) as partial:
        digest = save_weights(partial / WEIGHTS, policies)
        files.write_json(partial / DESCRIPTION, asdict(describe(policies, {WEIGHTS: digest})))


def describe(policies: Policy, digests: dict[str, str]) -> Description:
    """What `policy.json` says of policies with leaves [K, ...]."""
    spec = policies.spec
    return Description(
        network=spec.network,
        hidden=spec.hidden,
        activation=spec.activation,
        observation_space=spaces.to_json(spec.observation_space),
        normalize_obs=policies.obs_stats is not None,
        action_space=spaces.to_json(policies.action_space),
        scaling=policies.scaling,
        num_seeds=jax.tree.leaves(policies)[0].shape[0],
        digests=digests,
    )


def check_saved(policy: Policy) -> None:
    """ValueError for a policy, or its shapes, that could not be loaded again once saved."""
    one = jax.tree.map(lambda x: jax.ShapeDtypeStruct((1, *x.shape), x.dtype), policy)
    read = files.parse_json(json.dumps(asdict(describe(one, {}))), DESCRIPTION, infinite=True)
    again = _template(files.as_type(Description, read, DESCRIPTION))
    fill_leaves(again, named_leaves(one), DESCRIPTION)
    if (again.spec, again.action_space) != (policy.spec, policy.action_space):
        raise ValueError(
            f"a policy for the observations {policy.spec.observation_space} and the actions "
            f"{policy.action_space} would be loaded as another; use jaxrl.spaces."
        )


def load_policies(folder: str | Path) -> Policy:
    """The policies of all seeds of a run folder or its `policy/`, leaves [K, ...].

    Raises FileNotFoundError where there is none, ValueError for weights that do not fit or are not
    finite, for other files than were written, and for a network whose module is missing.
    """
    folder = Path(folder)
    folder = folder / "policy" if (folder / "policy").is_dir() else folder
    path = folder / DESCRIPTION
    if not os.path.lexists(path):
        if (folder / "model.json").is_file():
            raise FileNotFoundError(
                f"{folder} holds a language model: load it with jaxrl.lm.folders.load_models(RUN)."
            )
        raise FileNotFoundError(f"{folder} holds no {DESCRIPTION}: give a finished run's folder.")
    with files.reading(path, COPY):
        described = files.read_json(path, Description, infinite=True)
        template = _template(described)
        found = read_weights(folder / WEIGHTS)
        policies = fill_leaves(template, found, f"{folder / WEIGHTS} with {DESCRIPTION}")
        files.check_digests(path, described.digests)
    return policies


def save_weights(path: Path, tree: Any) -> str:
    """Write every leaf under its name; the file's digest."""
    weights: Any = {name: np.asarray(x) for name, x in named_leaves(tree).items()}
    np.savez(path, **weights)
    return files.digest_of(path)


def read_weights(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file of weights; ValueError for a damaged one, or for NaN in it.

    What the file says of itself is held against its length before anything is read by it.
    """
    size = files.check_regular(path)
    memory.check_file(str(path), size)
    try:
        with ZipFile(path) as archive:
            parts = archive.infolist()
            if sum(part.file_size for part in parts) > size:
                raise ValueError(f"{path} says that it holds more than its {size} bytes.")
            weights = {
                part.filename.removesuffix(".npy"): _array(archive, part, path) for part in parts
            }
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {files.reason_of(error)}.") from None
    except (BadZipFile, EOFError) as error:
        raise ValueError(f"{path} is damaged ({error}).") from None
    for name, x in weights.items():
        if x.dtype.kind in "fc" and not np.all(np.isfinite(x)):
            raise ValueError(f"{path}: {name} holds numbers that are not finite.")
    return weights


def _array(archive: ZipFile, part: Any, path: Path) -> np.ndarray:
    """One array of numbers of an npz; ValueError for anything else."""
    try:
        with archive.open(part) as file:
            version = np.lib.format.read_magic(file)
            read = {(1, 0): np.lib.format.read_array_header_1_0}.get(version)
            shape, by_column, dtype = (read or np.lib.format.read_array_header_2_0)(file)
            if dtype.kind not in "biufcV" or dtype.hasobject:
                raise ValueError(f"its dtype is {dtype}, no number's")
            data = file.read()
    except BadZipFile:
        raise
    except Exception as error:  # NumPy and zipfile raise many kinds for what is no array
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{path}: {part.filename} is damaged ({reason}).") from None
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != len(data):
        wanted = f"{dtype}{list(shape)}"
        raise ValueError(f"{path}: {part.filename} is damaged: {len(data)} bytes for {wanted}.")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if by_column else "C")


def load_policy(folder: str | Path, seed_index: int = 0) -> Policy:
    """One seed's policy of a run folder; `policy(obs, key)` samples, `policy(obs)` takes the mode.

    Raises as `load_policies`, and ValueError for a seed that the run does not have.
    """
    policies = load_policies(folder)
    count = jax.tree.leaves(policies)[0].shape[0]
    if not 0 <= seed_index < count:
        raise ValueError(f"seed_index={seed_index} must lie in [0, {count - 1}]; try 0.")
    return jax.tree.map(lambda x: jnp.asarray(x[seed_index]), policies)


def _template(described: Description) -> Policy:
    """A policy of shapes, leaves [K, ...]."""
    space, scaling = spaces.from_json(described.action_space, "action_space"), described.scaling
    spec = NetworkSpec(
        spaces.from_json(described.observation_space, "observation_space"),
        actions.drawn_space(space, scaling),
        described.network,
        described.hidden,
        described.activation,
        squash=scaling == "tanh",
    )
    normalized, count = described.normalize_obs, described.num_seeds

    def build():
        stats = RunningStats.init_for(spec.observation_space) if normalized else None
        policy = Policy(
            networks.build(spec, jax.random.key(0), memory=True), stats, spec, space, scaling
        )
        return jax.tree.map(lambda x: jnp.broadcast_to(x, (count, *x.shape)), policy)

    return jax.eval_shape(build)


def named_leaves(tree: Any) -> dict[str, Any]:
    """Every leaf under its path, such as `.network.actor.out.kernel.value`."""
    return {jax.tree_util.keystr(path): x for path, x in jax.tree_util.tree_leaves_with_path(tree)}


def fill_leaves(template: Any, leaves: dict[str, Any], source: str) -> Any:
    """The template with its leaves taken by path; strict: ValueError for any that does not fit."""
    wanted = named_leaves(template)
    if wanted.keys() != leaves.keys():
        odd = sorted(wanted.keys() ^ leaves.keys())[:3]
        raise ValueError(f"{source} does not fit this program: missing or extra {', '.join(odd)}.")
    for name, x in wanted.items():
        if (x.shape, x.dtype) != (leaves[name].shape, leaves[name].dtype):
            raise ValueError(
                f"{source} does not fit this program: {name} is {leaves[name].dtype}"
                f"{list(leaves[name].shape)}, not {x.dtype}{list(x.shape)}."
            )
    return jax.tree.unflatten(jax.tree.structure(template), [leaves[name] for name in wanted])
