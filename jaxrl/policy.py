"""A trained policy on its own: saved, loaded, and called on raw observations."""

import json
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from jaxrl import actions, distributions, networks, spaces
from jaxrl.actions import Scaling
from jaxrl.networks import NetworkSpec
from jaxrl.normalize import RunningStats, normalize_obs

WEIGHTS, DESCRIPTION = "weights.npz", "policy.json"


class Policy(flax.struct.PyTreeNode):
    """Raw observations to actions of the environment, normaliser and action scaling included."""

    network: Any
    obs_stats: Any  # RunningStats per observation leaf, or None
    spec: NetworkSpec = flax.struct.field(pytree_node=False)  # what the network was built from
    action_space: Any = flax.struct.field(pytree_node=False)  # the raw environment's
    scaling: Scaling = flax.struct.field(pytree_node=False)  # of what is drawn onto action_space

    def __call__(self, obs: Any, key: jax.Array | None = None) -> Any:
        """Actions for one observation or a batch of them: sampled, or the mode without a key."""
        pi = self.network.distribution(normalize_obs(self.obs_stats, obs))
        if key is None:
            return self.to_env(pi.mode())
        space = jax.tree.leaves(self.spec.observation_space, is_leaf=spaces.is_space)[0]
        shape = jnp.shape(jax.tree.leaves(obs)[0])
        batch = shape[: len(shape) - len(space.shape)]
        return self.to_env(pi.sample(distributions.noise(self.spec.action_space, key, batch)))

    def to_env(self, action: jax.Array) -> jax.Array:
        """An action as drawn, as the raw environment takes it."""
        return actions.to_env(action, self.action_space, self.scaling)

    def value(self, obs: Any) -> jax.Array:
        """V of raw observations, in units of the (possibly scaled) training reward."""
        return self.network.value(normalize_obs(self.obs_stats, obs))


def save_policy(folder: Path, policies: Policy) -> None:
    """Write the policies of K seeds (leaves [K, ...]) as one npz of weights and one json."""
    folder.mkdir(parents=True, exist_ok=True)
    weights: Any = {name: np.asarray(x) for name, x in named_leaves(policies).items()}
    np.savez(folder / WEIGHTS, **weights)
    spec = policies.spec
    description = {
        "network": spec.network,
        "hidden": list(spec.hidden),
        "activation": spec.activation,
        "observation_space": spaces.to_json(spec.observation_space),  # after normalisation
        "normalize_obs": policies.obs_stats is not None,
        "action_space": spaces.to_json(policies.action_space),  # the environment's
        "scaling": policies.scaling,
        "num_seeds": jax.tree.leaves(policies)[0].shape[0],
    }
    (folder / DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n")


def load_policies(folder: str | Path) -> Policy:
    """The policies of all seeds of a run folder or its `policy/`, leaves [K, ...].

    Raises FileNotFoundError where there is none, ValueError for weights that do not fit and for a
    network whose module is missing.
    """
    folder = Path(folder)
    folder = folder / "policy" if (folder / "policy").is_dir() else folder
    if not (folder / DESCRIPTION).is_file():
        if (folder / "model.json").is_file():
            raise FileNotFoundError(
                f"{folder} holds a language model: load it with jaxrl.lm.folders.load_models(RUN)."
            )
        raise FileNotFoundError(f"{folder} holds no {DESCRIPTION}: give a finished run's folder.")
    description = json.loads((folder / DESCRIPTION).read_text())
    try:
        template = _template(description)
    except KeyError as error:
        raise ValueError(
            f"{folder / DESCRIPTION} has no {error}: another version wrote it; train again."
        ) from error
    return fill_leaves(template, read_weights(folder / WEIGHTS), str(folder / WEIGHTS))


def read_weights(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file of weights; ValueError for a damaged one, and one that diverged."""
    try:
        with path.open("rb") as file, np.load(file) as weights:
            found = dict(weights)
    except (BadZipFile, EOFError, ValueError) as error:  # what NumPy raises for a part of a file
        raise ValueError(f"{path} is damaged ({error}); copy it again from its run.") from error
    for name, x in found.items():
        if x.dtype.kind == "f" and not np.all(np.isfinite(x)):
            raise ValueError(f"{path}: {name} is not finite, so it plays nothing; train again.")
    return found


def load_policy(folder: str | Path, seed_index: int = 0) -> Policy:
    """One seed's policy of a run folder; `policy(obs, key)` samples, `policy(obs)` takes the mode.

    Raises as `load_policies`, and ValueError for a seed that the run does not have.
    """
    policies = load_policies(folder)
    count = jax.tree.leaves(policies)[0].shape[0]
    if not 0 <= seed_index < count:
        raise ValueError(f"seed_index={seed_index} must lie in [0, {count - 1}]; try 0.")
    return jax.tree.map(lambda x: jnp.asarray(x[seed_index]), policies)


def _template(description: dict[str, Any]) -> Policy:
    """A policy of shapes, leaves [K, ...]."""
    space, scaling = spaces.from_json(description["action_space"]), description["scaling"]
    spec = NetworkSpec(
        spaces.from_json(description["observation_space"]),
        actions.drawn_space(space, scaling),
        description["network"],
        tuple(description["hidden"]),
        description["activation"],
        squash=scaling == "tanh",
    )
    normalized, count = description["normalize_obs"], description["num_seeds"]

    def build():
        stats = RunningStats.init_for(spec.observation_space) if normalized else None
        policy = Policy(networks.build(spec, jax.random.key(0)), stats, spec, space, scaling)
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
