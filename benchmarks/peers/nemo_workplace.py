"""Times the workplace_assistant of NeMo Gym, its Python alone, without HTTP and without a server.

`python benchmarks/peers/nemo_workplace.py --checkout DIR`, where pandas is installed and DIR is
https://github.com/NVIDIA-NeMo/Gym at commit 07d6b0d. For each line that it reads it does one round
and answers with a line of JSON: milliseconds to seed an episode, of a mail search, and to verify.
"""

import argparse
import importlib
import json
import sys
from pathlib import Path
from time import perf_counter

CUSTOMERS = "customer_relationship_manager"
TOOLKITS = ["email", "calendar", "analytics", "project_management", CUSTOMERS]
TIMES = {"seed": 20, "search": 40, "verify": 8}  # of each in a round

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--checkout", type=Path, required=True)
root = parser.parse_args().checkout
sys.path.insert(0, str(root))
utils = importlib.import_module("resources_servers.workplace_assistant.utils")

with (root / "resources_servers/workplace_assistant/data/example.jsonl").open() as file:
    TRUE = [json.loads(line)["ground_truth"] for line in file]


def main() -> None:
    office = utils.get_tools(TOOLKITS)
    search = office["functions"]["email_search_emails"]
    assert search(query="budget")
    assert utils.is_correct(TRUE[0], TRUE[0], "") and not utils.is_correct([], TRUE[0], "")
    does = {
        "seed": lambda i: utils.get_tools(TOOLKITS),
        "search": lambda i: search(query="budget"),
        "verify": lambda i: utils.is_correct(TRUE[i % len(TRUE)], TRUE[i % len(TRUE)], ""),
    }
    for _ in sys.stdin:
        took = {}
        for name, do in does.items():
            start = perf_counter()
            for i in range(TIMES[name]):
                do(i)
            took[name] = (perf_counter() - start) / TIMES[name] * 1000
        print(json.dumps(took), flush=True)


if __name__ == "__main__":
    main()
