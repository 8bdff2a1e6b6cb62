"""Command lines that a person may type by mistake: one line, exit code 2 or 1, nothing written."""

from collections.abc import Sequence

from campaign.figures import Figures, side_by_side
from campaign.processes import told
from campaign.sandbox import Bad, Spoil, refuse
from campaign.shelf import Shelf
from campaign.spoiling import edit, half, lose, poison, renumber, write


def refused(part: str, shelf: Shelf, cases: Sequence[Bad], *, inside: bool = False) -> Figures:
    """Each of the cases, as a process of its own or inside this one."""
    figures = Figures(part)
    for bad in cases:
        if bad.on in ("run", "lm"):
            shelf.of_case(bad.on)

    def one(bad: Bad) -> None:
        kinds, ended = refuse(shelf, bad, inside=inside)
        figures.case(kinds, f"{bad.name}: {told(ended)}", f"exit code {ended.code}")

    side_by_side(one, cases, 1 if inside else 2)
    return figures


ODD = """
import jax, jax.numpy as jnp, numpy as np
from jaxrl.env import Environment, timestep
from jaxrl.spaces import Box, Discrete

class Odd(Environment):
    @property
    def observation_space(self):
        return OBS
    @property
    def action_space(self):
        return ACT
    def reset(self, key):
        return jnp.zeros((), jnp.int32), timestep(self._obs(key))
    def step(self, state, action, key):
        return state + 1, timestep(self._obs(key), REWARD, state > 5)
    def _obs(self, key):
        return jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), OBS, is_leaf=LEAF)

LEAF = lambda space: hasattr(space, 'shape')
OBS, ACT, REWARD = Box(-1.0, 1.0, (2,)), Discrete(2), 1.0
"""
ODD_RUN = "python -m train.ppo --env odd:Odd --run-dir out --num-envs 4 --total-steps 256 "
ODD_RUN += "--algo.num-steps 8 --algo.num-minibatches 1 --algo.hidden 4 --eval-episodes 2"


def odd(name: str, line: str, codes: tuple[int, ...] = (0, 1, 2)) -> Bad:
    """An environment of the user's own with one line of its own."""
    return Bad(name, ODD_RUN, spoil=write("odd.py", ODD + line + "\n"), codes=codes, writes=True)


def lost(name: str, spoil: Spoil) -> Bad:
    """Metrics of a run that goes on without them: it says which are lost."""
    says = "lacks the lines of iterations"
    return Bad(name, RUN, "run", spoil, codes=(0,), writes=True, says=says)


PPO = "python -m train.ppo --run-dir out"
GRPO = "python -m train.grpo --run-dir out"
LM = "python -m train.sft --resume lm"
RUN = "python -m train.ppo --resume run"
EVALUATE = "python -m train.evaluate --run run"

NUMBERS = [
    Bad("environments beyond 32 bits", f"{PPO} --num-envs 2147483648"),
    Bad("steps beyond 64 bits", f"{PPO} --total-steps 9223372036854775808"),
    Bad("steps at the end of 64 bits", f"{PPO} --total-steps 9223372036854775807"),
    Bad("environments beyond memory", f"{PPO} --num-envs 1073741824"),
    Bad("a context beyond memory", f"{GRPO} --algo.context 1000000000000"),
    Bad("a network beyond memory", f"{PPO} --algo.hidden 2000000000"),
    Bad("episodes beyond memory", f"{PPO} --eval-episodes 1000000000000"),
    Bad("seeds beyond memory", f"{PPO} --num-seeds 4294967296"),
    Bad("a weight decay that is infinite", f"{GRPO} --algo.weight-decay inf"),
    Bad("an alpha that is NaN", f"{GRPO} --lora-rank 2 --lora-alpha nan"),
    Bad("a negative rank", f"{GRPO} --lora-rank -1"),
    Bad("an evaluation of a negative seed", f"{EVALUATE} --seed -1", "run"),
    Bad("an evaluation of a seed beyond 32 bits", f"{EVALUATE} --seed 9999999999", "run"),
    Bad("an evaluation beyond memory", f"{EVALUATE} --episodes 1000000000000", "run"),
    Bad(
        "pieces of a device that do not divide",
        f"{PPO} --devices 2 --num-envs 4 --algo.num-steps 8 --algo.num-minibatches 1 "
        "--algo.accumulate 32",
    ),
    Bad("a tokenizer without tokens", "python -m train.tokenizer --out out --vocab-size -5"),
    Bad("a tokenizer of a negative seed", "python -m train.tokenizer --out out --seed -1"),
    Bad("a tokenizer beyond memory", "python -m train.tokenizer --out out --episodes 1000000000"),
    Bad(
        "a seed index that is not there",
        "python -m train.export --run lm --out x --seed-index 5",
        "lm",
    ),
]
WORDS = [
    Bad("an env arg that is the id", f"{PPO} --env-args id=5"),
    Bad("an env arg without a value", f"{PPO} --env-args length="),
    Bad("an environment with a name in UTF-8", f"env LC_ALL=C PYTHONUTF8=0 {PPO} --env Cartpôle"),
    Bad("a value that ASCII lacks", f"env PYTHONIOENCODING=ascii {PPO} --seed é"),
    Bad("a module that is not there", f"{PPO} --env nomodule:Thing"),
    Bad("a module of no environment", f"{PPO} --env json:loads"),
    Bad("a module with an error in it", f"{PPO} --env odd:Odd", spoil=write("odd.py", "def (")),
    Bad("a module that raises", f"{PPO} --env odd:Odd", spoil=write("odd.py", "1 / 0")),
    Bad(
        "a module that exits", f"{PPO} --env odd:Odd", spoil=write("odd.py", "raise SystemExit(0)")
    ),
    Bad("a game that has no such field", f"{GRPO} --env-args max_steps=2"),
    Bad("grpo in steps", f"{GRPO} --total-steps 100"),
    Bad("a network for images", f"{PPO} --env Pendulum-v1 --algo.network cnn"),
    Bad("a preset that aot does not have", "python -m train.aot --preset from-scratch"),
    Bad("a trainer that is none", "python -m train nothing"),
    Bad("a coordinator that is no address", f"{PPO} --hosts.coordinator junk"),
    Bad(
        "a coordinator without a port",
        f"{PPO} --hosts.coordinator junk --hosts.num-processes 1 --hosts.process-id 0",
    ),
    Bad("cuda without a GPU", f"env JAX_PLATFORMS=cuda {PPO}"),
    Bad("a tokenizer of numbers", "python -m train.tokenizer --out out --env CartPole-v1"),
]
PATHS = [
    Bad("a run folder of 300 letters", f"{PPO.replace('out', 'x' * 300)}"),
    Bad("a run folder without a name", "python -m train.ppo --run-dir '' --num-envs 3"),
    Bad("a run folder in a file", f"{PPO.replace('out', 'data.jsonl/run')}"),
    Bad("a run folder in proc", f"{PPO.replace('out', '/proc/run')}"),
    Bad("a resume of a name of two lines", "python -m train.ppo --resume 'no\nwhere'"),
    Bad("a resume of a file", "python -m train.ppo --resume data.jsonl"),
    Bad("a resume by another trainer", "python -m train.pqn --resume run", "run"),
    Bad("an evaluation of a model", "python -m train.evaluate --run model", "model"),
    Bad("an export of a classic run", "python -m train.export --run run --out x", "run"),
    Bad("an export into a file", "python -m train.export --run lm --out data.jsonl", "lm"),
    Bad("an export below a file", "python -m train.export --run lm --out data.jsonl/x", "lm"),
    Bad("a tokenizer into a file", "python -m train.tokenizer --out data.jsonl"),
    Bad("transcripts of a classic run", "python -m train.transcripts --run run", "run"),
    Bad("a start from a file", f"{PPO} --init-from data.jsonl"),
    Bad("a start from a model of language", f"{PPO} --init-from lm", "lm"),
    Bad("data that is a folder", "python -m train.sft --run-dir out --data outside"),
    Bad("data that is not there", "python -m train.sft --run-dir out --data nowhere"),
    Bad("a tokenizer that is a folder", f"{GRPO} --tokenizer outside"),
    Bad("a reader that closes", "sh -c 'python -m envs | head -1'", codes=(0,)),
    Bad("a list on a full disk", "sh -c 'exec python -m envs > /dev/full'"),
    Bad("help on a full disk", "sh -c 'exec python -m train.ppo --help > /dev/full'"),
    Bad("a list to nobody", "sh -c 'exec python -m envs >&-'", codes=(0, 1, 2)),
]
RESUMES = [
    Bad("another alpha", f"{LM} --lora-alpha 3", "lm"),
    Bad("another system message", f"{LM} --system Hi", "lm"),
    Bad("another dtype", f"{LM} --dtype bfloat16", "lm"),
    Bad("another tokenizer", f"{LM} --tokenizer tokenizer.json", "lm"),
    Bad("other data", f"{LM} --data data.jsonl", "lm"),
    Bad("a config that is empty", RUN, "run", write("run/config.json", "")),
    Bad("half a config", RUN, "run", half("run/config.json")),
    Bad("a config in Latin-1", RUN, "run", write("run/config.json", b'{"options": "\xe9"}')),
    Bad("a config without options", RUN, "run", write("run/config.json", '{"options": null}')),
    Bad("a config that is a list", RUN, "run", write("run/config.json", "[]")),
    Bad("a config nested too deep", RUN, "run", write("run/config.json", "[" * 100_000)),
    Bad(
        "an edited learning rate",
        RUN,
        "run",
        edit("run/config.json", lambda c: c["options"]["algo"].update(learning_rate=0.5)),
    ),
    Bad(
        "a learning rate that is a text",
        RUN,
        "run",
        edit("run/config.json", lambda c: c["options"]["algo"].update(learning_rate="fast")),
    ),
    Bad(
        "an edited seed",
        RUN,
        "run",
        edit("run/config.json", lambda c: c["options"].update(seed=5)),
        never="delete",
    ),
    Bad("a checkpoint under another number", RUN, "run", renumber),
    lost("metrics that are gone", lose("run/metrics.jsonl")),
    lost("metrics cut short", half("run/metrics.jsonl")),
    Bad(
        "a policy without its tokenizer",
        EVALUATE.replace(" run", " lm"),
        "lm",
        lose("lm/policy/tokenizer.json"),
    ),
    Bad("weights that are NaN", EVALUATE, "run", poison("run/policy/weights.npz")),
    Bad(
        "weights of language that are NaN",
        EVALUATE.replace(" run", " lm"),
        "lm",
        poison("lm/policy/weights.npz"),
    ),
]
ENVIRONMENTS = [
    odd("a NumPy number of actions", "ACT = Discrete(np.prod((3, 1)))"),
    odd("a NumPy size of observations", "OBS = Box(-1.0, 1.0, (np.int64(2),))"),
    odd("observations by number", "OBS = {1: Box(-1.0, 1.0, (2,)), 2: Box(-1.0, 1.0, (1,))}"),
    odd("a list of observations", "OBS = [Box(-1.0, 1.0, (2,)), Box(-1.0, 1.0, (1,))]"),
    odd("a reward that is NaN", "REWARD = jnp.nan", codes=(1, 2)),
]
TABLE = [*NUMBERS, *WORDS, *PATHS, *RESUMES, *ENVIRONMENTS]
