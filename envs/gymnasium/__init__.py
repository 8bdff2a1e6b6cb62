"""Environments of ours in Gymnasium's terms; importing this makes `gymnasium.make` know the ids.

Gymnasium has had no plugins since 1.0: an id is known once a module that registers it is imported,
by hand or in `gymnasium.make("jaxrl.envs.gymnasium:jaxrl/CartPole-v1")`.
"""

from typing import Any

try:
    import gymnasium
except ModuleNotFoundError as error:
    raise ImportError("Gymnasium is missing: pip install 'jaxrl[gymnasium]'.") from error

from jaxrl.envs.bridges import ON_HOST
from jaxrl.envs.gymnasium.single import SingleEnv
from jaxrl.envs.gymnasium.vector import BatchedEnv
from jaxrl.envs.registry import ids, make

NAMESPACE = "jaxrl"


def gymnasium_id(id: str) -> str:
    """jaxrl/brax.ant of brax/ant: Gymnasium takes one slash."""
    return f"{NAMESPACE}/{id.replace('/', '.')}"


def own_ids() -> list[str]:
    """Ids of environments that jax steps."""
    return [id for id in ids() if id.partition("/")[0] not in ON_HOST]


def single(env_id: str, render_mode: str | None = None, **fields: Any) -> SingleEnv:
    """What `gymnasium.make` calls."""
    _check_render(render_mode)
    return SingleEnv(make(env_id, **fields))


def batched(
    env_id: str, num_envs: int, render_mode: str | None = None, **fields: Any
) -> BatchedEnv:
    """What `gymnasium.make_vec` calls."""
    _check_render(render_mode)
    mode = {name: fields.pop(name) for name in ("autoreset_mode",) if name in fields}
    return BatchedEnv(make(env_id, **fields), num_envs, **mode)


def _check_render(render_mode: str | None) -> None:
    """A TypeError, as from a constructor without it: Stable-Baselines3 tries again then."""
    if render_mode is not None:
        raise TypeError(f"render_mode={render_mode!r}: nothing is drawn; leave it out")


for id in own_ids():
    gymnasium.register(
        gymnasium_id(id),
        f"{__name__}:single",
        vector_entry_point=f"{__name__}:batched",
        kwargs={"env_id": id},
    )
