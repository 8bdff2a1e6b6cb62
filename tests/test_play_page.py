"""The page of train.play in a browser: clicks, keys, the log, undo, who drives, narrow screens."""

import re
import shutil

import jax
import pytest

from jaxrl import envs
from jaxrl.networks import NetworkSpec, build
from jaxrl.policy import Policy
from jaxrl.train.playing.players import PolicyPilot
from jaxrl.train.playing.world import Worlds, make_world

PLAY = {"reason": "pip install 'jaxrl[play]'", "exc_type": ImportError}
server = pytest.importorskip("jaxrl.train.playing.server", **PLAY)
sync_api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium")


@pytest.fixture(scope="module")
def serving():
    env = envs.make("GridWorld-v0")
    spec = NetworkSpec(env.observation_space, env.action_space, "mlp", (8,), "tanh")
    policy = Policy(build(spec, jax.random.key(0)), None, spec, env.action_space, "none")
    pilot = PolicyPilot(policy, "runs/x")
    with server.Server(Worlds(make_world("GridWorld-v0", {}, pilot), pilot)) as running:
        yield running


@pytest.fixture(scope="module")
def chromium():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def tab(chromium, serving):
    """Opens tabs; none may say anything on its console."""
    said, opened = [], []

    def open_tab(env="", width=1200, **how):
        context = chromium.new_context(viewport={"width": width, "height": 900}, **how)
        context.set_default_timeout(60_000)
        page = context.new_page()
        opened.append(context)
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(serving.address + (f"?env={env}" if env else ""))
        return page

    yield open_tab
    for context in opened:
        context.close()
    assert said == []


def log(page):
    return page.locator("#lines li")


def has(page, selector, words):
    sync_api.expect(page.locator(selector)).to_contain_text(words, timeout=60_000)


def test_by_clicks_the_grid_world_is_won_and_the_flag_explained(tab):
    page = tab()
    has(page, "#status", "A new episode")
    has(page, "#rules code >> nth=0", "start")
    for name in ("right", "right", "right", "down", "down", "down"):
        before = log(page).count()
        page.get_by_role("button", name=re.compile(f"^{name}")).click()
        sync_api.expect(log(page)).to_have_count(before + 1)
    has(page, "#status strong", "terminated")
    has(page, "#return", "0.8")
    has(page, "#length", "6 of 50")
    assert "env.step(2)" in log(page).last.inner_text()
    assert "terminated True" in log(page).last.inner_text()
    assert page.get_by_role("button", name=re.compile("^up")).is_disabled()
    page.get_by_role("button", name=re.compile("^undo")).click()
    has(page, "#length", "5 of 50")
    sync_api.expect(log(page)).to_have_count(6)
    assert page.get_by_role("button", name=re.compile("^up")).is_enabled()


def test_the_keyboard_alone_suffices_at_400_pixels(tab):
    page = tab(width=400, color_scheme="dark")
    has(page, "#status", "A new episode")
    for key in ("ArrowRight", "1", "ArrowLeft", "u", "ArrowDown"):
        before = page.locator("#length").inner_text()
        page.keyboard.press(key)
        sync_api.expect(page.locator("#length")).not_to_have_text(before)
    has(page, "#obs", "6")  # two to the right, and down past the wall
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    page.keyboard.press("n")
    has(page, "#which", "0, 1")
    page.locator("#seed").focus()
    page.keyboard.type("7")
    page.keyboard.press("Enter")
    has(page, "#which", "7, 0")
    page.keyboard.press("Escape")
    page.keyboard.press("Tab")
    focused = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert focused == "solid"


def test_a_policy_drives_with_the_speed_that_is_set_and_stops_at_the_end(tab):
    page = tab()
    has(page, "#player", "policy, greedy")
    assert page.locator("#player").input_value() == "greedy"
    page.locator("#speed").fill("30")
    page.keyboard.press("Escape")
    page.keyboard.press("p")
    has(page, "#play", "pause")
    has(page, "#status strong", "t")  # terminated or truncated
    has(page, "#play", "play")
    count = log(page).count()
    page.wait_for_timeout(200)
    assert log(page).count() == count
    page.get_by_role("button", name=re.compile("^play")).click()
    has(page, "#which", "0, 1")
    page.keyboard.press("p")
    has(page, "#play", "play")
    other = tab("SimpleCorridor-v0")
    has(other, "#alert", "run=runs/x was trained for the spaces Discrete(n=16)")
    assert other.locator("#player").inner_text() == "random"


def test_sliders_and_arrows_act_where_actions_are_reals(tab):
    page = tab("Pendulum-v1")
    has(page, "#status", "A new episode")
    page.locator("#actions input").fill("1.2")
    page.get_by_role("button", name=re.compile("^step")).click()
    has(page, "#lines li:last-child", "env.step(np.array([1.2], np.float32))")
    page.keyboard.press("Escape")
    page.keyboard.press("ArrowLeft")
    has(page, "#lines li:last-child", "env.step(np.array([-2.], np.float32))")


def test_a_move_is_typed_where_the_environment_is_spoken_to(tab):
    page = tab("language/GuessTheNumber-easy")
    has(page, "#talk", "I have chosen a whole number")
    page.keyboard.press("Enter")
    page.keyboard.type("5")
    page.keyboard.press("Enter")
    sync_api.expect(log(page)).to_have_count(2)
    has(page, "#lines li:last-child", "env.step('5')")
    page.locator("#heard summary").click()
    has(page, "#tokens .token small >> nth=0", "53")
    page.locator("#code summary").click()
    has(page, "#source", "class GuessTheNumber(Game)")


def test_a_page_that_is_being_opened_says_so(tab):
    page, held = tab(), []
    page.route("**/open", lambda route: held.append(route))
    page.reload()
    has(page, "#going", "Opening the environment")
    held[0].continue_()
    has(page, "#going", "A new episode")


def test_what_cannot_be_is_a_message_on_the_page(tab, serving):
    page = tab("GridWrld-v0")
    has(page, "#alert", "near: GridWorld-v0")
    page.locator("#env").fill("GridWorld-v0")
    page.keyboard.press("Enter")
    has(page, "#status", "A new episode")
    page.locator("#seed").fill("seven")
    page.keyboard.press("Enter")
    has(page, "#alert", "seed=seven must be an integer")
    page.keyboard.press("Escape")
    page.keyboard.press("ArrowRight")
    has(page, "#obs", "1")
    sync_api.expect(page.locator("#alert")).to_be_hidden()
