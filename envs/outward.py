"""Environments of ours in the terms of other libraries, which are imported when asked for."""

from typing import TYPE_CHECKING, Any

from jaxrl.env import Environment
from jaxrl.envs.registry import make
from jaxrl.host.environment import HostEnvironment

if TYPE_CHECKING:
    from jaxrl.envs.gymnasium import BatchedEnv, SingleEnv


def to_gymnasium(env: Environment | str, /, **fields: Any) -> "SingleEnv":
    """A `gymnasium.Env` of an environment, or of an id with its fields.

    Its first import makes the ids known to `gymnasium.make` as well, as "jaxrl/CartPole-v1".
    """
    from jaxrl.envs.gymnasium import SingleEnv

    return SingleEnv(_made(env, fields))


def to_gymnasium_vec(
    env: Environment | str, /, num_envs: int, *, autoreset_mode: Any = "SameStep", **fields: Any
) -> "BatchedEnv":
    """`num_envs` of them as a `gymnasium.vector.VectorEnv`, stepped by one program.

    `autoreset_mode` is a `gymnasium.vector.AutoresetMode` or its value.
    """
    from jaxrl.envs.gymnasium import BatchedEnv

    return BatchedEnv(_made(env, fields), num_envs, autoreset_mode)


def _made(env: Environment | str, fields: dict[str, Any]) -> Environment:
    if isinstance(env, str):
        env, fields = make(env, **fields), {}
    if isinstance(env, HostEnvironment):
        raise ValueError(f"{env.world.id} is stepped by Python; take it from where it comes.")
    if not isinstance(env, Environment):
        raise ValueError(
            f"env is a {type(env).__name__} and must be a jaxrl.Environment or an id; "
            "try 'CartPole-v1'."
        )
    if fields:
        raise ValueError(
            f"{', '.join(fields)}: fields are for an id; give the environment with them, as "
            "env.replace(...) does."
        )
    return env
