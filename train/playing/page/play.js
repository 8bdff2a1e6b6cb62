// The page of `python -m train.play`: it asks the server for each step and shows the answer.
"use strict";

const $ = (id) => document.getElementById(id);
const MOST_LINES = 500; // of the log that are shown
const ARROWS = { ArrowUp: "↑", ArrowRight: "→", ArrowDown: "↓", ArrowLeft: "←", " ": "space" };
const KEYS = { // the last word of an action's name
  up: "ArrowUp", right: "ArrowRight", down: "ArrowDown", left: "ArrowLeft", fire: " ",
  "-1": "ArrowLeft", "+1": "ArrowRight", "0": "ArrowDown", coast: "ArrowDown", stay: ".",
};
const state = { session: null, world: null, view: null, calls: [], keys: {}, timer: 0, driving: false };
let waiting = Promise.resolve(), pending = 0;

function make(tag, text, more = {}) {
  const node = Object.assign(document.createElement(tag), more);
  if (text !== undefined) node.textContent = text;
  return node;
}

function prose(text) { // what stands in backticks is code
  const node = make("p");
  node.append(...text.split("`").map((part, i) => (i % 2 ? make("code", part) : part)));
  return node;
}

// ---- asking the server, one call after the other

async function ask(what, message) {
  const answer = await fetch(what, { method: "POST", body: JSON.stringify(message) }).catch(() => null);
  if (answer === null) throw new Error("The server does not answer; is the command still running?");
  const found = await answer.json();
  if (found.error) throw new Error(found.error);
  return found;
}

function say(problem) {
  $("alert").hidden = !problem;
  $("alert").textContent = problem;
}

function call(what, message = {}) {
  if (pending > 3 || state.session === null) return Promise.resolve(false);
  pending += 1;
  waiting = waiting.then(async () => {
    try {
      const view = await ask(what, { session: state.session, ...message });
      say("");
      show(view, what);
      return true;
    } catch (error) {
      say(error.message);
      drive(false);
      return false;
    } finally {
      pending -= 1;
    }
  });
  return waiting;
}

// ---- showing an answer

function number(x) {
  if (x === null) return "not finite";
  return Number.isInteger(x) ? String(x) : String(Number(x.toPrecision(5)));
}

function show(view, what) {
  state.view = view;
  const { line, end } = view;
  if (what === "undo") {
    $("lines").lastChild?.remove();
    state.calls.pop();
  } else {
    addLine(line);
    state.calls.push(line.call);
  }
  $("frame").hidden = !view.frame;
  if (view.frame) {
    $("frame").src = view.frame;
    $("frame").className = view.small ? "small" : "";
    $("frame").alt = `${state.world.id}, step ${line.t}: observation ${line.obs}`;
  }
  $("rows").hidden = view.rows.length === 0 || (view.frame && view.rows.length === 1);
  $("rows").tBodies[0].replaceChildren(...view.rows.map(([name, value]) => {
    const row = make("tr");
    row.append(make("th", name, { scope: "row" }), make("td", value));
    return row;
  }));
  $("return").textContent = number(view.return);
  $("length").textContent = line.t + (state.world.limit ? ` of ${state.world.limit}` : "");
  $("obs").parentElement.hidden = view.talk !== null || !$("rows").hidden;
  $("obs").textContent = line.obs.length > 60 ? line.obs.slice(0, 60) + "…" : line.obs;
  $("which").textContent = `${view.seed}, ${view.episode}`;
  showStatus(line, end);
  if (view.talk) showTalk(view.talk);
  const over = end !== "";
  for (const button of $("actions").querySelectorAll("button")) {
    const legal = view.legal === null || button.value === "" || view.legal[Number(button.value)];
    button.disabled = over || !legal;
  }
  $("undo").disabled = view.back === 0;
  $("once").disabled = over || !$("player").value;
  if (document.activeElement?.disabled) (over ? $("next") : $("log")).focus(); // not lost on a dead button
}

function showStatus(line, end) {
  const status = $("status");
  status.className = line.terminated ? "terminated" : line.truncated ? "truncated" : "";
  const [head, ...rest] = end.split(": ");
  if (end) {
    const last = "It is the episode's last, final_obs in a batch that resets itself; " +
      "env.reset() shows the next episode's first.";
    $("end").replaceChildren(make("strong", head), make("span", `${rest.join(": ")} ${last}`));
    $("going").textContent = "";
    return;
  }
  $("end").replaceChildren();
  $("going").textContent = line.t === 0
    ? "A new episode: this is the observation of its reset."
    : `Step ${line.t}: reward ${number(line.reward)}; neither flag is set, the episode goes on.`;
}

function addLine(line) {
  const item = make("li"), saw = make("div", undefined, { className: "saw" });
  item.append(make("div", line.call), saw);
  if (line.action) saw.append(make("span", `action ${line.action}`));
  saw.append(make("span", `obs ${line.obs}`));
  if (line.t > 0) {
    saw.append(make("span", `reward ${number(line.reward)}`));
    for (const name of ["terminated", "truncated"]) {
      saw.append(make("span", `${name} ${line[name] ? "True" : "False"}`, { className: line[name] ? `flag ${name}` : "" }));
    }
    for (const [name, value] of Object.entries(line.info)) saw.append(make("span", `${name} ${number(value)}`));
  }
  $("lines").append(item);
  while ($("lines").children.length > MOST_LINES) $("lines").firstChild.remove();
  $("log").scrollTop = $("log").scrollHeight;
}

function showTalk({ turns, heard, said, tokens }) {
  $("talk").hidden = $("heard").hidden = false;
  $("talk").replaceChildren(...turns.flatMap((turn, i) => {
    const parts = [make("p", turn.obs)];
    if (i > 0) {
      const move = make("p", turn.action, { className: "move" });
      move.append(make("small", `  reward ${number(turn.reward)}`));
      parts.unshift(move);
    }
    return parts;
  }));
  $("talk").scrollTop = $("talk").scrollHeight;
  const chip = ([id, text]) => {
    const token = make("span", text, { className: "token" });
    token.append(make("small", String(id)));
    return token;
  };
  const parts = said.length ? [make("span", "the move: "), ...said.map(chip), make("br")] : [];
  parts.push(make("span", `the observation (${heard.length} of ${tokens} tokens so far): `), ...heard.map(chip));
  $("tokens").replaceChildren(...parts);
}

// ---- a person's actions

function step(action) {
  drive(false);
  return call("step", { action });
}

function choices(names) {
  const named = names.some((name) => name);
  names.forEach((name, i) => {
    const key = KEYS[name.split(" ").at(-1)];
    const button = make("button", named ? `${name} ` : "", { type: "button", value: i });
    button.append(make("kbd", key ? ARROWS[key] || key : String(i)));
    button.addEventListener("click", () => step(i));
    $("actions").append(button);
    const words = name || `action ${i}`;
    if (key && !(key in state.keys)) state.keys[key] = [() => step(i), words];
    if (i < 10) state.keys[String(i)] = [() => step(i), words];
  });
}

function dials({ low, high, whole }) {
  const inputs = low.map((least, i) => {
    const most = high[i], bounded = least !== null && most !== null;
    const dial = make("label", undefined, { className: "dial" }), shown = make("output");
    const input = make("input", undefined, { type: bounded ? "range" : "number" });
    if (bounded) Object.assign(input, { min: least, max: most });
    input.step = whole ? 1 : bounded ? (most - least) / 100 : "any";
    input.value = bounded && !whole ? (least + most) / 2 : Math.max(least ?? 0, 0);
    const tell = () => { shown.textContent = bounded ? Number(Number(input.value).toFixed(3)) : ""; };
    input.addEventListener("input", tell);
    tell();
    dial.append(make("span", `action[${i}]`), input, shown);
    $("actions").append(dial);
    return input;
  });
  const act = (values) => step(values ?? inputs.map((input) => Number(input.value)));
  const button = make("button", "step ", { type: "button", value: "" });
  button.append(make("kbd", "enter"));
  button.addEventListener("click", () => act());
  $("actions").append(button);
  for (const input of inputs) {
    input.addEventListener("keydown", (event) => { if (event.key === "Enter") act(); });
  }
  state.keys.Enter = [() => act(), "step with what is set"];
  if (inputs.length === 1 && low[0] !== null && high[0] !== null) {
    const middle = whole ? Math.round((low[0] + high[0]) / 2) : (low[0] + high[0]) / 2;
    for (const [key, value] of [["ArrowLeft", low[0]], ["ArrowDown", middle], ["ArrowRight", high[0]]]) {
      state.keys[key] = [() => { inputs[0].value = value; inputs[0].dispatchEvent(new Event("input")); return act([value]); }, `step with ${value}`];
    }
  }
}

function words({ bytes }) {
  const label = make("label", `your move, at most ${bytes} bytes`, { htmlFor: "move" });
  const text = make("textarea", undefined, { id: "move", rows: 2, spellcheck: false });
  const button = make("button", "send ", { type: "button", value: "" });
  button.append(make("kbd", "enter"));
  const send = async () => { if (await step(text.value)) text.value = ""; };
  button.addEventListener("click", send);
  text.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      send();
    }
  });
  $("actions").append(label, text, button);
  state.keys.Enter = [() => text.focus(), "to the move; enter there sends it, escape leaves it"];
}

function offer(inputs) {
  if (inputs.kind === "choice") choices(inputs.names);
  else if (inputs.kind === "vector") dials(inputs);
  else if (inputs.kind === "text") words(inputs);
  else if (inputs.kind === "number") {
    const input = make("input", undefined, { type: "number", min: 0, max: inputs.most, value: 0, ariaLabel: "action" });
    const button = make("button", "step", { type: "button", value: "" });
    button.addEventListener("click", () => step(Number(input.value)));
    $("actions").append(input, button);
  } else $("actions").append(make("p", `Actions of ${inputs.space} are drawn by the players below.`));
}

// ---- others drive

function drive(on) {
  state.driving = on;
  clearTimeout(state.timer);
  $("play").setAttribute("aria-pressed", String(on));
  $("play").firstChild.textContent = on ? "pause " : "play ";
  $("log").setAttribute("aria-live", on ? "off" : "polite"); // or it would be read without an end
  if (on) tick();
}

async function tick() {
  const began = performance.now(), over = state.view.end !== "";
  if (over && !state.fresh && !$("onward").checked) return drive(false);
  state.fresh = false;
  const ok = over ? await call("reset", { seed: null }) : await call("step", { player: $("player").value });
  if (!ok || !state.driving) return;
  const rest = 1000 / Number($("speed").value) - (performance.now() - began);
  state.timer = setTimeout(tick, Math.max(rest, 0));
}

function toggle() {
  if (!$("player").value) return;
  state.fresh = true; // from an end the next episode begins
  drive(!state.driving);
}

// ---- the page

function reset(seed) {
  const number = Number(seed);
  if (seed !== null && (seed.trim() === "" || !Number.isSafeInteger(number))) {
    return say(`seed=${seed} must be an integer; try 0.`);
  }
  drive(false);
  return call("reset", { seed: seed === null ? null : number });
}

const COMMANDS = {
  u: [() => { drive(false); call("undo"); }, "undo"],
  n: [() => reset(null), "next episode"],
  r: [() => reset($("seed").value), "reset with the seed"],
  p: [() => toggle(), "play, pause"],
  s: [() => { if (!$("once").disabled) call("step", { player: $("player").value }); }, "one step of the player"],
};

function onKey(event) {
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  const at = event.target, kind = at.tagName;
  const types = kind === "TEXTAREA" || kind === "SELECT" || (kind === "INPUT" && at.type !== "checkbox");
  if (event.key === "Escape" && types) return at.blur();
  if (types || ((kind === "BUTTON" || kind === "SUMMARY" || kind === "INPUT") && (event.key === " " || event.key === "Enter"))) return;
  const found = state.keys[event.key] || COMMANDS[event.key];
  if (!found) return;
  event.preventDefault();
  if (!event.repeat || pending === 0) found[0]();
}

async function copy() {
  const numpy = state.calls.some((line) => line.includes("np.")) ? ["import numpy as np"] : [];
  const script = ["from jaxrl import envs", ...numpy, "", state.world.python, ...state.calls, ""].join("\n");
  try {
    await navigator.clipboard.writeText(script);
    $("copy").textContent = "copied";
  } catch {
    say("The browser does not let a page copy; select the log instead.");
  }
  setTimeout(() => { $("copy").textContent = "copy as Python"; }, 1500);
}

async function showCode() {
  if ($("source").textContent) return;
  try {
    $("source").textContent = (await ask("source", { session: state.session })).text;
  } catch (error) {
    say(error.message);
  }
}

function legend() {
  const rows = {}; // what it does, with the keys for it
  for (const [key, [, what]] of [...Object.entries(state.keys), ...Object.entries(COMMANDS)]) {
    rows[what] ??= [];
    rows[what].unshift(make("kbd", ARROWS[key] || key.toLowerCase()), " ");
  }
  $("keys").replaceChildren(...Object.entries(rows).map(([what, names]) => {
    const row = make("div"), name = make("dt");
    name.append(...names);
    row.append(name, make("dd", what));
    return row;
  }));
  $("legend").open = innerWidth > 480;
}

async function open() {
  const env = new URLSearchParams(location.search).get("env") || "";
  $("env").value = env;
  $("going").textContent = `Opening ${env || "the environment"}: what was not open before is compiled first.`;
  let found;
  try {
    found = await ask("open", { env });
  } catch (error) {
    $("name").textContent = env || "jaxrl";
    document.querySelector("main").hidden = true;
    return say(error.message);
  }
  const { session, world, view, ids } = found;
  Object.assign(state, { session, world });
  document.title = `${world.id}: play`;
  $("name").textContent = $("env").value = world.id;
  $("limit").textContent = world.limit ? `at most ${world.limit} steps` : "";
  $("made").textContent = `from jaxrl import envs\n${world.python}`;
  $("rules").replaceChildren(...world.about.split("\n\n").map((part) => {
    const drawn = /^ {2}/m.test(part); // a board or a table, whose lines stay as they are
    return drawn ? make("pre", part, { tabIndex: 0 }) : prose(part.replaceAll("\n", " "));
  }));
  $("ids").replaceChildren(...ids.map((id) => make("option", undefined, { value: id })));
  $("player").replaceChildren(...Object.entries(world.players).map(([value, text]) => make("option", text, { value })));
  $("player").value = ["greedy", "expert", "random"].find((name) => name in world.players) || "";
  $("play").disabled = !$("player").value;
  $("code").hidden = !world.file;
  $("file").textContent = world.file;
  offer(world.inputs);
  legend();
  show(view, "reset");
  if (world.note) say(world.note);
}

$("undo").addEventListener("click", COMMANDS.u[0]);
$("next").addEventListener("click", COMMANDS.n[0]);
$("once").addEventListener("click", COMMANDS.s[0]);
$("play").addEventListener("click", toggle);
$("copy").addEventListener("click", copy);
$("code").addEventListener("toggle", showCode);
$("reset").addEventListener("submit", (event) => { event.preventDefault(); COMMANDS.r[0](); });
$("seed").addEventListener("focus", () => $("seed").select());
$("speed").addEventListener("input", () => { $("pace").textContent = `${$("speed").value} steps/s`; });
document.addEventListener("keydown", onKey);
open();
