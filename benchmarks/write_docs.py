"""Runs the benchmarks and writes docs/benchmarks.md: `make bench`.

Each part is a command that can be run alone; what it prints is kept in benchmarks/tables, so that
one part can be measured anew without the others: `python benchmarks/write_docs.py corpus`.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
TABLES = ROOT / "benchmarks" / "tables"
PARTS = {
    "corpus": (
        "Corpus: near-duplicates, quality rules, memory",
        ["corpus.py"],
    ),
    "corpus_accuracy": (
        "Corpus: main text, languages, private things",
        ["corpus_accuracy.py", "--only", "html,language,privacy"],
    ),
    "tokenizers": ("Tokenizers", ["corpus_accuracy.py", "--only", "tokenizers"]),
    "large_corpus": ("Corpus: far more text than memory", ["large_corpus.py", "--gigabytes", "4"]),
    "train_speed": ("Training: whole steps beside peers", ["train_speed.py", "--shape", "12m"]),
    "train_speed_85m": (
        "Training: whole steps of a larger network",
        ["train_speed.py", "--shape", "85m", "--seconds", "25"],
    ),
    "train_speed_bfloat16": (
        "Training: products in 16 bits on a processor",
        ["train_speed.py", "--only", "tianti-adamw,tianti-adamw-bfloat16,tianti,tianti-bfloat16"],
    ),
    "products": ("Training: products by MKL and by oneDNN", ["products.py"]),
    "experts": ("Training: mixtures of experts beside a dense network", ["experts.py"]),
    "gpu": ("Training: whole steps on a GPU", ["gpu.py"]),
    "tuning_memory": ("Tuning: memory", ["tuning_memory.py"]),
    "time_to_loss": (
        "Training: time to a peer's loss",
        ["time_to_loss.py", "--data", "en_books", "--shape", "12m"],
    ),
    "time_to_loss_zh": (
        "Training: the same on Chinese text",
        ["time_to_loss.py", "--data", "zh_tech_lctt", "--shares", "0.125"],
    ),
    "tune_speed": ("Tuning: instructions with adapters beside TRL and PEFT", ["tune_peers.py"]),
    "plan": ("Planning: what was foretold beside what was measured", ["plan.py", "--measure"]),
    "memory": ("Training: memory by vocabulary and checkpointing", ["memory.py"]),
    "judging": (
        "Judging: likelihoods beside lm-eval",
        ["judging.py", "--shape", "12m"],
    ),
    "judging_small": (
        "Judging a small model",
        ["judging.py", "--shape", "small"],
    ),
    "rare_balance": (
        "Balance: more of the rare",
        ["rare_balance.py", "--recipes", "tech-zh", "--tokens", "800k"],
    ),
}
HEAD = """# Benchmarks

Made by `make bench`; each part by the command above it. Two cores, not always free of other work;
ratios are of CPU seconds within one call, beside peers where TIANTI_PEERS_PYTHON names an
interpreter that has them; tokens a second of training are those of contenders run in turn, whose
sources NANOGPT, NANOCHAT and LITGPT name (2026-11-27: nanoGPT 3adf61e, nanochat 92d63d4, litgpt
0.5.13). What was tried on the way stands in [experiments.md](experiments.md).
"""


def main() -> None:
    """Runs the parts that are named, or all, and writes the page."""
    TABLES.mkdir(exist_ok=True)
    here = [name for name in PARTS if name != "gpu" or shutil.which("nvidia-smi")]
    for name in [] if sys.argv[1:] == ["--page-only"] else sys.argv[1:] or here:
        script, *arguments = PARTS[name][1]
        command = [sys.executable, f"benchmarks/{script}", *arguments]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
        (TABLES / f"{name}.md").write_text(done.stdout)
    page = [HEAD]
    for name, (title, command) in PARTS.items():
        table = TABLES / f"{name}.md"
        if table.is_file():
            # Headings of a part stand below its own.
            text = f"\n{table.read_text()}".replace("\n## ", "\n### ").strip()
            page.append(f"## {title}\n\n`python benchmarks/{' '.join(command)}`\n\n{text}\n")
    (ROOT / "docs" / "benchmarks.md").write_text("\n".join(page))


if __name__ == "__main__":
    main()
