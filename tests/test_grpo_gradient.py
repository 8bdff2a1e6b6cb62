"""The gradient of one GRPO step against torch, which reads whole sequences one by one.

Needs the extra `parity`; with a real model also the environment variable JAXRL_REAL.
"""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import real
from flax import nnx

from jaxrl.algos import grpo
from jaxrl.lm import ModelConfig, Transformer
from jaxrl.lm.learn import iteration
from jaxrl.lm.model.hf_config import to_hf
from jaxrl.lm.model.params import Params
from jaxrl.lm.model.shards import Layout
from jaxrl.lm.model.weights import load, parameter_name, source
from jaxrl.lm.play.episodes import Episodes, empty
from jaxrl.policy import named_leaves

NEEDED = "install the extra parity to compare with torch"
torch = pytest.importorskip("torch", reason=NEEDED)
transformers = pytest.importorskip("transformers", reason=NEEDED)

TEXT = "What is 17 + 25? Add the ones first: 7 + 5 = 12. Then the tens. The answer is 42. "
P, G = 3, 4
RETURNS = np.array([[1, 0, 0.25, 0], [0.5, 0.5, 0.5, 0.5], [-1, 2, 0, 0]], np.float32)  # [P, G]
MODEL = ModelConfig(31, 24, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=10, hidden=40)
STEP: dict[str, Any] = dict(
    num_prompts=P, group_size=G, micro_batch=4, num_epochs=2, temperature=0.7, clip_high=0.3
)
EXTRA: dict[str, Any] = dict(kl="k3", kl_coef=0.3, entropy_coef=0.05)


def episodes(token: np.ndarray, most_turns: int) -> Episodes:
    """P prompts of different lengths, each with G samples of 1 to `most_turns` turns.

    All that is said are pieces of `token` [S], one after the other.
    """
    rng, start, rows = np.random.default_rng(0), 0, []

    def piece(size: int) -> np.ndarray:
        nonlocal start
        start += size
        return token[start - size : start]

    for p in range(P):
        prompt = piece(2 + 3 * p)
        for g in range(G):
            parts = [(prompt, 0, False)]
            for turn in range(1 + (p + g) % most_turns):
                if turn:
                    parts.append((piece(int(rng.integers(1, 4))), turn, False))
                parts.append((piece(int(rng.integers(1, 5))), turn, True))
            rows.append(parts)
    first = 1 + max(len(parts[0][0]) for parts in rows)
    context = first + max(sum(len(part[0]) for part in parts[1:]) for parts in rows)
    record: Any = jax.tree.map(np.array, empty(P * G, context, most_turns, [], first))
    for n, parts in enumerate(rows):
        at = 0
        for tokens, turn, action in parts:
            inside = slice(at, at + len(tokens))
            record.token[n, inside], record.turn[n, inside] = tokens, turn
            record.action[n, inside] = action
            at += len(tokens)
        record.length[n] = at
        record.played[n, : parts[-1][1] + 1] = True
        record.reward[n, parts[-1][1]] = RETURNS.reshape(-1)[n]
        record.terminated[n] = True
    return jax.tree.map(jnp.asarray, record)


def moved(params: Params, seed: int, far: float) -> Params:
    """With noise on everything that is trained."""
    rng = np.random.default_rng(seed)

    def noisy(x: jax.Array) -> jax.Array:
        return x + far * rng.standard_normal(x.shape).astype(np.float32)

    return params.with_trained(jax.tree.map(noisy, params.trained()))


def our_gradient(
    monkeypatch: Any, three: tuple[Params, Params, Params], played: Episodes, cfg: grpo.Config
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """(by leaf's name, metrics) of the step that `three` = (now, of playing, reference) take."""
    keep = lambda grads, params, opt_state, **_: (grads, opt_state, {})  # noqa: E731
    monkeypatch.setattr(iteration, "descend", keep)

    @jax.jit
    def step(now, old, reference):
        rows, _ = grpo.prepare(old, reference, played, cfg, None)
        layout = Layout(None, None)
        frozen = iteration.in_layers(now, cfg) if now.policy.cfg.lora_rank else None
        idle = None if cfg.keeps_reference else grpo.idle
        grads, _, metrics = iteration.learn(
            grpo.loss, now, None, rows, None, cfg=cfg, layout=layout, idle=idle, frozen=frozen
        )
        return grads.policy, metrics

    now, old, reference = three
    grads, metrics = step(now, old, reference if cfg.keeps_reference else None)
    named = grads if isinstance(grads, dict) else named_leaves(grads)
    means = {name: float(x.numerator / x.denominator) for name, x in metrics.items()}
    return {name: np.asarray(x) for name, x in named.items()}, means


class Reference:
    """The same step by the formulas of the papers."""

    def __init__(self, config: Any, cfg: grpo.Config, model_config: ModelConfig, dtype: Any):
        self.cfg, self.model_config, self.dtype = cfg, model_config, dtype
        made = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
        self.model = made.to(dtype).eval()

    def leaves(self, params: Params) -> dict[str, Any]:
        """Every parameter as a tensor with a gradient."""
        return {
            name: torch.tensor(np.asarray(x), dtype=self.dtype, requires_grad=True)
            for name, x in named_leaves(params.policy).items()
        }

    def weights(self, leaves: dict[str, Any], policy: Transformer) -> dict[str, Any]:
        """The state of the transformers model that these parameters make."""
        found, cfg = {}, self.model_config
        for path, _ in jax.tree_util.tree_leaves_with_path(policy):
            name = jax.tree_util.keystr(path)
            x = leaves[name]
            if ".adapter." in name:
                continue
            down, up = (name.replace(".weight.", f".adapter.{part}.") for part in ("down", "up"))
            if ".weight." in name and up in leaves:
                x = x + cfg.lora_alpha / cfg.lora_rank * leaves[down] @ leaves[up]
            where = source(cfg, parameter_name(path), x.ndim)
            for i, theirs in enumerate(where.names):
                one = x[i] if where.stacked else x
                found[theirs] = one.T if where.transposed else one
        return found

    def read(self, weights: dict[str, Any], token: np.ndarray) -> tuple[Any, Any]:
        """(log-prob, entropy) of the tokens after the first."""
        ids = torch.tensor(token)[None].long()
        out = torch.func.functional_call(self.model, weights, (ids,), {"use_cache": False})
        log_prob = torch.log_softmax(out.logits[0, :-1] / self.cfg.temperature, -1)
        entropy = -(log_prob.exp() * log_prob).sum(-1)
        return log_prob.gather(1, ids[0, 1:, None])[:, 0], entropy

    def surrogate(self, log_prob: Any, old: Any, advantage: float) -> Any:
        """Of one sequence's own tokens, to be made small."""
        cfg, ratio = self.cfg, (log_prob - old).exp()
        if cfg.surrogate == "gspo":
            ratio = (log_prob - old).mean().exp()
        if cfg.surrogate == "cispo":
            weight = ratio.clamp(max=1 + cfg.clip_high).detach()
            return -weight * advantage * log_prob
        clipped = ratio.clamp(1 - cfg.clip_low, 1 + cfg.clip_high)
        return -torch.minimum(ratio * advantage, clipped * advantage).expand(len(log_prob))

    def loss(self, own: list[Any]) -> Any:
        """The mean over sequences, or over tokens, of the losses [S] of each sequence."""
        if self.cfg.mean == "sequence":
            return torch.stack([x.mean() for x in own]).mean()
        return torch.cat(own).mean()

    def gradient(self, three: tuple[Params, ...], played: Episodes) -> dict[str, np.ndarray]:
        """By leaf's name, of all parameters."""
        cfg = self.cfg
        leaves = self.leaves(three[0])
        weights = self.weights(leaves, three[0].policy)
        with torch.no_grad():
            old, reference = (self.weights(self.leaves(x), x.policy) for x in three[1:])
        spread = RETURNS.std(1, keepdims=True) if cfg.divide_by_std else 1.0
        advantage = (RETURNS - RETURNS.mean(1, keepdims=True)) / (spread + 1e-6)
        own = []
        for n, length in enumerate(np.asarray(played.length)):
            token = np.asarray(played.token)[n, :length]
            mask = torch.tensor(np.array(played.action)[n, 1:length])
            log_prob, entropy = (x[mask] for x in self.read(weights, token))
            with torch.no_grad():
                before, _ = self.read(old, token)
                start, _ = self.read(reference, token)
            loss = self.surrogate(log_prob, before[mask], float(advantage.flat[n]))
            if cfg.kl != "none":
                away = log_prob - start[mask]
                loss = loss + cfg.kl_coef * (torch.exp(-away) - 1 + away)
            own.append(loss - cfg.entropy_coef * entropy)
        self.loss(own).backward()
        return {name: x.grad.numpy() for name, x in leaves.items() if x.grad is not None}


def difference(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> float:
    """Of the whole vectors, relative to the length of theirs."""
    square = sum(float(np.sum((x - theirs[name]) ** 2)) for name, x in ours.items())
    return (square / sum(float(np.sum(theirs[name] ** 2)) for name in ours)) ** 0.5


def random_models(rank: int) -> tuple[ModelConfig, tuple[Params, Params, Params]]:
    """(structure, those of (now, playing, reference)), far enough from each other to be clipped."""
    cfg = replace(MODEL, lora_rank=rank, lora_alpha=6.0)
    now = moved(Params(Transformer(cfg, nnx.Rngs(params=jax.random.key(0)))), 1, 0.2)
    far = 0.2 if rank else 0.03  # an adapter's product is of the second order
    return cfg, (now, moved(now, 2, far), moved(now, 3, far))


@pytest.mark.parametrize(
    ("rank", "options"),
    [
        (0, EXTRA),
        (3, EXTRA),
        (0, dict(divide_by_std=False)),
        (0, dict(num_epochs=1)),
        (0, dict(surrogate="gspo", mean="sequence")),
        (3, dict(surrogate="cispo", **EXTRA)),
    ],
    ids=["full", "lora", "bare", "on-policy", "gspo", "cispo"],
)
def test_the_gradient_of_a_step_is_that_of_torch(monkeypatch, rank, options):
    model_config, three = random_models(rank)
    cfg = grpo.Config(**STEP | options)
    if cfg.num_steps == 1:
        three = (three[0], three[0], three[2])
    played = episodes(np.random.default_rng(1).integers(0, MODEL.vocab_size, 200), most_turns=3)
    ours, metrics = our_gradient(monkeypatch, three, played, cfg)
    assert metrics["clip_fraction"] > 0.05 or cfg.num_steps == 1
    assert ("kl_to_reference" in metrics) == (cfg.kl != "none")
    config = transformers.AutoConfig.for_model(**to_hf(MODEL))
    theirs = Reference(config, cfg, model_config, torch.float64).gradient(three, played)
    assert difference(ours, theirs) < 1e-5
    assert len(ours) == (14 if rank else len(theirs))


@pytest.mark.real
def test_the_gradient_of_a_real_model_is_that_of_torch(monkeypatch):
    folder = real.folder("smollm2")
    model_config, model = load(folder)
    now = Params(model)
    three = (now, moved(now, 2, 1e-3), moved(now, 3, 1e-3))
    cfg = grpo.Config(**STEP | EXTRA)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    played = episodes(np.array(tokenizer.encode(TEXT * 20)), most_turns=2)
    ours, metrics = our_gradient(monkeypatch, three, played, cfg)
    assert metrics["clip_fraction"] > 0.05
    config = transformers.AutoConfig.from_pretrained(folder)
    theirs = Reference(config, cfg, model_config, torch.float32).gradient(three, played)
    assert difference(ours, theirs) < 1e-4
