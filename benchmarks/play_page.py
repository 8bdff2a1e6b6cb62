"""The page of train.play in a headless browser: first paint, first frame, and 200 steps each.

    pip install 'jaxrl[play]' playwright
    python benchmarks/play_page.py --out FILE    # needs a chromium

The server is a process of its own, as a user starts it. A step is from the call to the decoded
picture; `server` is the part of it until the answer is there.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from benchmarks.record import machine, versions

IDS = ("GridWorld-v0", "CartPole-v1", "Breakout-MinAtar", "language/GuessTheNumber-easy")
STEPS = """async (actions) => {
    const took = [], asked = performance.getEntriesByType("resource").length;
    performance.setResourceTimingBufferSize(1000);
    for (const action of actions) {
        const over = state.view.end !== "", began = performance.now();
        await call(over ? "reset" : "step", over ? {seed: null} : action);
        if (state.view.frame) await document.getElementById("frame").decode();
        took.push(performance.now() - began);
    }
    const server = performance.getEntriesByType("resource").slice(asked).map((x) => x.duration);
    return [took, server];
}"""
LOADED = """() => {
    const paint = performance.getEntriesByName("first-contentful-paint")[0].startTime;
    const opened = performance.getEntriesByType("resource").find((x) => x.name.endsWith("/open"));
    return [paint, opened.responseEnd];
}"""


def quantiles(times: list[float]) -> dict[str, float]:
    times = sorted(times)
    return {f"p{q}": round(times[len(times) * q // 100], 1) for q in (50, 95)}


def measure(browser: Any, address: str, id: str, count: int = 200) -> dict[str, Any]:
    """Of one environment, loaded twice: the first time may compile."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    for _ in range(2):
        page.goto(f"{address}?env={id}")
        page.wait_for_selector("#lines li", timeout=120_000)
    paint, opened = page.evaluate(LOADED)
    actions: list[dict[str, Any]] = [{"action": i % 2} for i in range(count)]
    if id.startswith("language/"):
        actions = [{"player": "expert"}] * count
    page.evaluate(STEPS, actions[:20])
    step, server = page.evaluate(STEPS, actions)
    page.close()
    loaded = {"first_paint_ms": round(paint, 1), "first_frame_ms": round(opened, 1)}
    return {"env": id} | loaded | {"step_ms": quantiles(step), "server_ms": quantiles(server)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    command = [sys.executable, "-m", "train.play", "--port", "0"]
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        address = server.stdout.readline().split()[1]
        ready = round(time.perf_counter() - began, 1)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            found = [measure(browser, address, id) for id in IDS]
            browser.close()
        server.terminate()
    about = {"versions": versions("jax", "starlette", "uvicorn", "playwright")}
    about["machine"] = machine("cpu")
    with out.open("a") as file:
        for row in found:
            line = json.dumps({"ready_s": ready} | row | about)
            file.write(line + "\n")
            print(line)


if __name__ == "__main__":
    main()
