const AGAIN_MS = 1500, UNHEARD_MS = 4000, SPEAK_MS = 4000;
const at = (id) => document.getElementById(id);
const ms = (value) => (value < 10 ? value.toFixed(1) : value.toFixed(0));
const percent = (value, digits = 1) => `${(100 * value).toFixed(digits)} %`;
const count = (value) => value.toLocaleString("en").replaceAll(",", " ");
const put = (node, text) => { if (node.textContent !== text) node.textContent = text; };

let facts = null, moment = null, steps = [], paused = false, connection = null, heardAt = 0, spokenAt = 0;

// The connection: what the server sends, and what is said when it does not.

function connect() {
  heardAt = Date.now();
  connection = new EventSource("events");
  connection.addEventListener("hello", (event) => {
    facts = JSON.parse(event.data);
    steps = [];
    introduce();
    if (!paused) play();
  });
  connection.addEventListener("moment", (event) => {
    heardAt = Date.now();
    moment = JSON.parse(event.data);
    steps.push(...moment.steps);
    steps = steps.filter((step) => step[0] >= moment.number - facts.steps);
    if (moment.status === "stopped") reconnect();
    else if (!paused) draw();
    else report();
  });
  connection.onerror = reconnect;
}

// A connection that was cut in silence gives no error: it is only never heard of again.
setInterval(() => { if (connection && Date.now() - heardAt > UNHEARD_MS) reconnect(); }, 1000);

async function reconnect() {
  if (!connection) return;
  connection.close();
  connection = null;
  say(moment?.status === "stopped" ? "stopped" : "away");
  let answer = null;
  while (!answer?.ok) {
    await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
    answer = await fetch("./", { method: "HEAD", signal: AbortSignal.timeout(UNHEARD_MS) }).catch(() => null);
    if (answer?.status === 403) say("refused");
  }
  connect();
}

const WORDS = {
  starting: ["Waiting for the camera", ""],
  live: ["Live", ""],
  silent: ["No frames", "is connected, but has given no frame for"],
  lost: ["Camera lost", ""],
  ended: ["Ended", "The source has ended: this is its last frame."],
  stopped: ["Stopped", "edge-resnet live has been stopped. Start it again, and this page goes on by itself."],
  away: ["Not reachable", "edge-resnet does not answer: it has ended, or the network or the tunnel to it is down. This page goes on by itself once it is back."],
  refused: ["No access", "This page’s token is no longer valid: open the new address that edge-resnet printed."],
};

function report() {
  const { status } = moment;
  let trouble = WORDS[status][1];
  if (status === "silent") trouble = `${facts.source} ${trouble} ${moment.silent_s.toFixed(0)} s.`;
  if (status === "lost") trouble = `${moment.error ?? "The camera is gone"}. It is tried again until it is back. What is shown is the last that it gave.`;
  say(status, trouble);
}

function say(status, trouble = WORDS[status][1]) {
  at("status").dataset.status = status;
  put(at("status").lastElementChild, WORDS[status][0]);
  put(at("trouble"), trouble);
  at("trouble").hidden = !trouble;
  at("trouble").classList.toggle("calm", status === "ended" || status === "stopped");
  document.body.classList.toggle("stale", ["lost", "away", "refused", "stopped", "silent"].includes(status));
  document.title = status === "live" && moment?.view ? `${moment.view.top[0][0]} · edge-resnet live` : `${WORDS[status][0]} · edge-resnet live`;
}

function introduce() {
  put(at("source"), facts.source);
  at("source").title = facts.source;
  at("compare-card").hidden = !facts.fp32;
  document.querySelector("main").classList.toggle("alone", !facts.fp32);
  put(at("compare-title"), `${facts.precision} beside FP32`);
  const shown = { Bundle: facts.bundle, Network: `${facts.network}, ${facts.precision}`, Engine: facts.why, Device: facts.device };
  at("facts").replaceChildren(...Object.entries(shown).map(([name, value]) => {
    const row = document.createElement("div");
    row.append(Object.assign(document.createElement("dt"), { textContent: name }));
    row.append(Object.assign(document.createElement("dd"), { textContent: value }));
    return row;
  }));
}

// The video: a stream of pictures, which is let go while nobody can see it.

function play() {
  at("video").src = `video?${Date.now()}`;
  at("video").hidden = false;
  at("still").hidden = true;
}

function hold() {
  const video = at("video"), still = at("still");
  if (video.naturalWidth > 1) {
    Object.assign(still, { width: video.naturalWidth, height: video.naturalHeight, className: video.className });
    still.getContext("2d").drawImage(video, 0, 0);
    still.hidden = false;
  }
  video.hidden = true;
  video.removeAttribute("src");
}

at("video").addEventListener("error", () => setTimeout(() => { if (!paused && !document.hidden) play(); }, AGAIN_MS));
document.addEventListener("visibilitychange", () => { if (!paused) document.hidden ? hold() : play(); });

function pause() {
  paused = !paused;
  at("pause").setAttribute("aria-pressed", String(paused));
  put(at("pause").firstElementChild, paused ? "Paused" : "Pause");
  paused ? hold() : play();
  if (!paused && moment) draw();
}
at("pause").addEventListener("click", pause);
document.addEventListener("keydown", (event) => {
  if (event.key === " " && event.target === document.body) { event.preventDefault(); pause(); }
});

// One moment.

function draw() {
  report();
  const { view, compared } = moment;
  at("no-video").hidden = at("video").naturalWidth > 1 || !at("still").hidden;
  at("video").classList.toggle("tiny", at("video").naturalWidth < 200);
  figure("dropped", count(moment.dropped), `of ${count(moment.captured)}`);
  figure("reconnects", count(moment.reconnects), moment.stalled ? `${count(moment.stalled)} stalled` : "");
  if (!view) return;
  const late = moment.silent_s > facts.silent_s;
  figure("per-second", late ? "–" : view.per_second.toFixed(1));
  figure("age", ms(view.age_ms), "ms");
  figure("age-p99", ms(view.age_p99_ms), "ms");
  figure("run", ms(view.run_ms), "ms");
  at("frame").hidden = false;
  put(at("frame"), `frame ${count(view.frame)}`);
  put(at("best").firstElementChild, view.top[0][0]);
  put(at("best").lastElementChild, percent(view.top[0][1]));
  bars(at("top"), view.top);
  if (Date.now() - spokenAt > SPEAK_MS) {
    spokenAt = Date.now();
    put(at("spoken"), view.top[0][0]);
  }
  if (compared) compare(compared);
  plots();
}

function figure(id, value, unit = "") {
  const node = at(id);
  if (node.dataset.shown === value + unit) return;
  node.dataset.shown = value + unit;
  node.replaceChildren(value, ...(unit ? [" ", Object.assign(document.createElement("small"), { textContent: unit })] : []));
}

function bars(list, rows) {
  while (list.children.length < rows.length) {
    const row = document.createElement("li"), track = document.createElement("i");
    track.append(document.createElement("b"));
    track.setAttribute("aria-hidden", "true");
    row.append(document.createElement("span"), document.createElement("data"), track);
    list.append(row);
  }
  while (list.children.length > rows.length) list.lastChild.remove();
  rows.forEach(([label, probability], index) => {
    const [name, value, track] = list.children[index].children;
    put(name, label);
    name.title = label;
    put(value, percent(probability));
    value.value = probability;
    track.firstChild.style.transform = `scaleX(${probability})`;
  });
}

function compare(found) {
  at("same").classList.toggle("failed", "failure" in found);
  if ("failure" in found) return put(at("same"), `FP32 is not shown: ${found.failure}`);
  const head = (name, answer, where = "") => [`${name} `, Object.assign(document.createElement("small"), { textContent: `${ms(answer.run_ms)} ms${where}` })];
  at("given-title").replaceChildren(...head(facts.precision, found.given));
  at("fp32-title").replaceChildren(...head("FP32", found.fp32, ", CPU"));
  for (const side of ["given", "fp32"]) bars(at(side), found[side].top.map(([, label, value]) => [label, value]));
  const same = found.given.top[0][0] === found.fp32.top[0][0];
  at("same").classList.toggle("differ", !same);
  put(at("same"), `frame ${count(found.frame)}: ${same ? "the same answer" : "different answers"}`);
  const share = Object.assign(document.createElement("b"), { textContent: percent(found.agreed / found.compared, 1) });
  at("agreement").replaceChildren(share, ` agreement over ${count(found.compared)} frames`);
}

// The plots: SVG, redrawn when a step has been added.

let drawn = "";

function plots(force = false) {
  const state = `${steps.at(-1)?.[0]} ${moment.number}`;
  if (state === drawn && !force) return;
  drawn = state;
  latencyPlot();
  historyPlot();
}
new ResizeObserver(() => { if (moment && facts) plots(true); }).observe(at("latency"));

const EDGE = { left: 54, right: 4, top: 8, bottom: 22 };

function frameOf(svg, highest, label) {
  const width = svg.clientWidth, height = svg.clientHeight;
  const x = (number) => EDGE.left + (1 - (moment.number - number) / facts.steps) * (width - EDGE.left - EDGE.right);
  const y = (value) => height - EDGE.bottom - (value / highest) * (height - EDGE.top - EDGE.bottom);
  const parts = [];
  for (let i = 0; i <= 4; i += 1) {
    const line = Math.round(y((highest * i) / 4));
    parts.push(`<line class="grid" x1="${EDGE.left}" x2="${width - EDGE.right}" y1="${line}" y2="${line}"/>`);
    parts.push(`<text x="${EDGE.left - 8}" y="${line + 4}" text-anchor="end">${label((highest * i) / 4)}</text>`);
  }
  const span = facts.steps * facts.step_s;
  for (let ago = 0; ago <= span; ago += span / (width < 340 ? 2 : 4)) {
    const place = x(moment.number - ago / facts.step_s);
    parts.push(`<text x="${place}" y="${height - 4}" text-anchor="${ago === 0 ? "end" : ago === span ? "start" : "middle"}">${ago ? `−${ago} s` : "now"}</text>`);
  }
  return { x, y, parts };
}

function runs() {
  const found = [];
  for (const step of steps) {
    const run = found.at(-1);
    if (run && step[0] - run.at(-1)[0] <= 4) run.push(step);  // slow cameras leave steps without a frame
    else found.push([step]);
  }
  return found;
}

const path = (points) => points.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");

function ceiling(value) {
  const power = 10 ** Math.floor(Math.log10(Math.max(value, 1e-3)));
  return power * [1, 2, 4, 8, 10].find((factor) => factor * power >= value);
}

function latencyPlot() {
  const svg = at("latency");
  const slowest = steps.map((step) => step[3]).sort((a, b) => a - b);
  const highest = ceiling(Math.max(0.4, slowest[Math.floor(0.97 * slowest.length)] ?? 0));  // a rare peak would flatten all else
  const { x, y, parts } = frameOf(svg, highest, (value) => (value === 0 ? "0" : `${value < 4 && value % 1 ? value.toFixed(1) : value} ms`));
  for (const run of runs()) {
    const line = (column) => run.map((step) => [x(step[0]), y(Math.min(step[column], highest))]);
    const floor = y(0);
    parts.push(`<path class="max" d="${path([[x(run[0][0]), floor], ...line(3), [x(run.at(-1)[0]), floor]])}Z"/>`);
    parts.push(`<path class="line age" d="${path(line(2))}"/><path class="line run" d="${path(line(4))}"/>`);
  }
  svg.innerHTML = parts.join("");
  const last = steps.at(-1);
  put(at("slowest"), last ? `slowest, up to ${ms(slowest.at(-1))} ms` : "slowest");
  svg.setAttribute("aria-label", last ? `Latency over the last minute: now ${ms(last[2])} ms from capture to answer, ${ms(last[4])} ms of them the engine; slowest ${ms(slowest.at(-1))} ms` : "Latency: nothing yet");
}

const colors = new Map();

function kept() {
  const mass = new Map();
  for (const step of steps) for (const [index, value] of step[5]) mass.set(index, (mass.get(index) ?? 0) + value);
  const chosen = [...mass].sort((a, b) => b[1] - a[1]).slice(0, 5).map(([index]) => index);
  for (const index of colors.keys()) if (!chosen.includes(index)) colors.delete(index);
  for (const index of chosen) {
    if (colors.has(index)) continue;
    const taken = new Set(colors.values());
    colors.set(index, [0, 1, 2, 3, 4].find((color) => !taken.has(color)));
  }
  return chosen.sort((a, b) => colors.get(a) - colors.get(b));
}

function historyPlot() {
  const svg = at("history"), chosen = kept();
  const { x, y, parts } = frameOf(svg, 1, (value) => percent(value, 0));
  for (const run of runs()) {
    const base = run.map(() => 0);
    const stack = (color, belongs) => {
      const under = run.map((step, i) => [x(step[0]), y(base[i])]);
      run.forEach((step, i) => { for (const [index, value] of step[5]) if (belongs(index)) base[i] += value; });
      const over = run.map((step, i) => [x(step[0]), y(base[i])]);
      parts.push(`<path class="${color}" d="${path([...over, ...under.reverse()])}Z"/>`);
    };
    for (const chosenIndex of chosen) stack(`k${colors.get(chosenIndex)}`, (index) => index === chosenIndex);
    stack("others", (index) => !chosen.includes(index));
  }
  svg.innerHTML = parts.join("");
  svg.setAttribute("aria-label", `The most probable classes over the last minute: ${chosen.map((index) => facts.labels[index]).join(", ") || "nothing yet"}`);
  const keys = [...chosen.map((index) => [`k${colors.get(index)}`, facts.labels[index]]), ["others", "others"]];
  at("history-legend").replaceChildren(...keys.map(([className, textContent]) => Object.assign(document.createElement("li"), { className, textContent })));
}

connect();
