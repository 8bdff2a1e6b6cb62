"""TRL's GRPO on sums of one digit: `python benchmarks/peers/trl_grpo.py --model FOLDER`.

The work of `benchmarks/real_speed.py grpo` with TRL's own defaults but for what makes it the same
work: LoRA of rank 16 on every matrix of a layer, float32, no KL, temperature 1. Prints one line of
JSON: seconds of every iteration after the first, tokens of its responses, peak memory. Needs
`pip install torch trl==1.16.0 peft datasets`.
"""

import argparse
import json
import random
import re
import resource
import tempfile
import time
from importlib.metadata import version

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer


def rows(count: int) -> Dataset:
    """Questions of reasoning/chain_sum in words, and their answers."""
    rng = random.Random(0)
    questions, answers = [], []
    for _ in range(count):
        a, b, sign = rng.randrange(10), rng.randrange(10), rng.choice((1, -1))
        text = f"What is {a}{'+' if sign > 0 else '-'}{b}? Reply with only the number."
        questions.append([{"role": "user", "content": text}])
        answers.append(a + sign * b)
    return Dataset.from_dict({"prompt": questions, "answer": answers})


def reward(completions, answer, **_):
    """1 for the right last number, -0.1 where there is none."""
    values = []
    for completion, wanted in zip(completions, answer, strict=True):
        found = re.findall(r"-?\d+", completion[0]["content"])
        values.append(-0.1 if not found else float(int(found[-1]) == wanted))
    return values


class Clock(TrainerCallback):
    """Seconds of each step: its completions are made within it."""

    def __init__(self):
        self.seconds = []

    def on_step_begin(self, *_, **__):
        self.began = time.perf_counter()

    def on_step_end(self, *_, **__):
        self.seconds.append(time.perf_counter() - self.began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--iterations", type=int, default=4)
    parser.add_argument("--micro-batch", type=int, default=16)
    parser.add_argument("--checkpointing", action="store_true")
    args = parser.parse_args()
    episodes = args.prompts * args.samples
    accumulate = max(episodes // args.micro_batch, 1)
    config = GRPOConfig(
        output_dir=tempfile.mkdtemp(),
        use_cpu=True,
        bf16=False,
        per_device_train_batch_size=episodes // accumulate,
        gradient_accumulation_steps=accumulate,
        num_generations=args.samples,
        max_completion_length=args.tokens,
        max_steps=args.iterations,
        learning_rate=5e-4,
        gradient_checkpointing=args.checkpointing,
        logging_strategy="steps",
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )
    adapters = LoraConfig(
        r=16,
        lora_alpha=32,
        target_modules=[
            "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
        ],
        task_type="CAUSAL_LM",
    )  # fmt: skip
    clock = Clock()
    trainer = GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32),
        processing_class=AutoTokenizer.from_pretrained(args.model),
        reward_funcs=reward,
        args=config,
        train_dataset=rows(4096),
        peft_config=adapters,
        callbacks=[clock],
    )
    trainer.train()
    logged = trainer.state.log_history
    lengths = [x["completions/mean_length"] for x in logged if "completions/mean_length" in x]
    names = ("torch", "transformers", "trl", "peft")
    record = {
        "iteration_s": clock.seconds[1:],
        "response_tokens": lengths[1:],
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "threads": torch.get_num_threads(),
        "versions": {name: version(name) for name in names},
    }
    print(json.dumps(record))


if __name__ == "__main__":
    main()
