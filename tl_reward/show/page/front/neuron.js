// One neuron: what it does to each reward model, when it is active, and what it reads and writes.

let logCounts = false;

function neuronView(root) {
  const draw = () => {
    if (state.view === "neuron") drawNeuron(root).catch(failed);
  };
  subscribe(["view", "neuron", "model"], draw);
  document.addEventListener("keydown", (event) => {
    if (state.view !== "neuron" || event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName)) return;
    if (event.key === "[") stepNeuron(-1);
    if (event.key === "]") stepNeuron(1);
  });
}

function stepNeuron(by) {
  const { layers, width } = shapeOf(state.model);
  const i = indexOf(state.neuron, state.model) + by;
  if (i >= 0 && i < layers * width) go({ neuron: placeOf(i, state.model) });
}

async function drawNeuron(root) {
  const { model, neuron } = state, name = nameOf(neuron), index = indexOf(neuron, model);
  const still = () => state.view === "neuron" && state.model === model && nameOf(state.neuron) === name;
  const head = element("div", { class: "step" },
    element("h2", { id: "neuron-title", tabindex: -1 }, `Neuron ${name}: layer ${neuron[0]}, neuron ${neuron[1]} of the ${model} model`),
    element("button", { type: "button", onclick: () => stepNeuron(-1) }, "[ previous"),
    element("button", { type: "button", onclick: () => stepNeuron(1) }, "next ]"),
    ownButton(neuron),
    element("a", { href: addressOf({ ...state, view: "overview" }) }, "back to the overview"),
  );
  const parts = [head, ...repairsOf(model, index), await numbersSection(index), (await effectsSection(index, name)) ?? notEdited(name, model)];
  parts.push(...(await detailSections(neuron)));
  if (!still()) return;
  const pressed = root.contains(document.activeElement) ? document.activeElement.textContent : null;
  for (const box of root.querySelectorAll(".plot")) { drawn.delete(box); unplot(box); }
  root.replaceChildren(...parts.filter(Boolean));
  // A reader who steps from the keyboard stays where they were.
  if (pressed !== null) [...head.querySelectorAll("button"), head.firstChild].find((each, i, all) => each.textContent === pressed || i === all.length - 1).focus({ preventScroll: true });
  root.dataset.shown = name;
  say(`Neuron ${name} of the ${model} model`);
}

const repairsOf = (model, index) => manifest.repairs.flatMap((repair, number) => {
  const at = repair.model === model && repair.width === shapeOf(model).width ? repair.neurons.indexOf(index) : -1;
  if (at < 0) return [];
  const place = { view: "overview", set: `repair:${number}`, layer: null, page: 0 };
  const link = element("a", { href: addressOf({ ...state, ...place }), onclick: (event) => {
    event.preventDefault();
    showInTable(place);
  } }, `all ${count(repair.neurons.length)} that it edits`);
  return [element("p", { class: "repaired" }, `The repair of the ${model} model multiplies this neuron by ${figure(repair.gates[at])} (`, link, ").")];
});

// Of a run that has a few single neurons alone: which ones, where this is another.
const notEdited = (name, model) =>
  manifest.exact.length && !columnsOf(model).length
    ? element("section", {}, element("h2", {}, "What does it do to the reward?"), element("p", {}, `The run says nothing of what neuron ${name} does. It has neurons that were edited alone: `, ...editedLinks(model)))
    : null;
const editedNeurons = (model) => [...new Set(manifest.exact.filter((each) => each.model === model).map((each) => nameOf(each.neuron)))];
const editedLinks = (model) => editedNeurons(model).flatMap((each) => [element("a", { href: linkTo(parseName(each), model) }, each), " "]);

// The way to neurons that were edited alone, each with an exact effect.
function editedPanel() {
  const links = element("p", { id: "edited" }), section = element("section", { id: "section-edited" }, element("h2", {}, "Neurons with exact effects"),
    element("p", {}, "Each was edited alone and every pair scored again, by tl-reward effects or to check an attribution. What came out is on the neuron's page."), links);
  subscribe(["model"], () => {
    links.replaceChildren(...editedLinks(state.model));
    section.hidden = !links.childNodes.length;
  });
  return section;
}

const absent = (what, command) => element("section", {}, element("h2", {}, what), element("p", {}, "Not in this run. To add it: ", ...howTo(command)));

async function numbersSection(index) {
  const keys = [...new Set(sameShape(state.model).flatMap((name) => columnsOf(name).map((each) => each.key)))];
  const names = sameShape(state.model);
  const rows = await Promise.all(keys.map(async (key) => {
    const cells = await Promise.all(names.map(async (name) => {
      const entry = columnEntry(name, key);
      if (!entry) return element("td", {}, "–");
      const column = await columnOf(entry);
      const rank = column.rank(index);
      return element("td", {}, rank === null ? "–" : `${figure(column.at(index))} (${count(rank)})`);
    }));
    return element("tr", {}, element("th", { class: "text", scope: "row", title: manifest.columns.find((each) => each.key === key).about }, key), ...cells);
  }));
  if (!rows.length) return null;
  const table = element("table", { id: "neuron-numbers" }, element("thead", {}, element("tr", {}, element("th", { class: "text" }, "quantity"), ...names.map((name) => element("th", { scope: "col" }, name)))), element("tbody", {}, ...rows));
  const { layers, width } = shapeOf(state.model);
  return element("section", {}, element("h2", {}, "In numbers"), element("p", {}, `In brackets, its rank among all ${count(layers * width)} neurons of that model by these numbers, which are kept to three digits; 1 is the largest.`), element("div", { class: "wide" }, table));
}

// Few prompts behind an interval say little.
const FEW = 10;
const starred = (prompts) => `${prompts ?? "unknown"}${prompts < FEW ? "*" : ""}`;

async function effectsSection(index, name) {
  const rows = [];
  for (const model of sameShape(state.model)) {
    for (const entry of columnsOf(model).filter((each) => each.unit === "reward units")) {
      const column = await columnOf(entry), error = await column.errorAt(index), value = column.at(index);
      const label = `${entry.key}, estimated${noNumber(error) ? ", no interval" : `, n ${starred(entry.prompts)}`}`;
      rows.push({ model, label, value, low: noNumber(error) ? null : value - 1.96 * error, high: noNumber(error) ? null : value + 1.96 * error, exact: false });
    }
    for (const found of manifest.exact.filter((each) => each.model === model && nameOf(each.neuron) === name))
      for (const [objective, margin] of Object.entries(found.margins))
        rows.push({ model, label: `${found.kind === "patch" ? "patched" : found.kind}, exact, n ${starred(margin.n)}: ${objective === "all" ? `all ${found.pairs} pairs` : `${objective} pairs`} of ${found.dataset}`, ...margin, exact: true });
  }
  if (!rows.length) return null;
  const caption =
    "What it adds to the mean margin, with 95 % intervals over n prompts. Right of 0, the margin falls when the neuron is ablated." +
    (rows.some((row) => row.label.includes("*")) ? ` * over fewer than ${FEW} prompts: read the interval with care.` : "");
  const notes = ["The margin is the chosen minus the rejected reward. Filled marks are exact: the neuron was edited alone and every pair scored again. Open ones are estimates. Rows of patching say what the patch adds. No interval: of one prompt, or unknown."];
  const { section, box } = panel("What does it do to the reward?", caption, { height: 130 + 26 * rows.length, notes });
  whenVisible(box, () => drawEffects(box, rows));
  return section;
}

async function drawEffects(box, rows) {
  const names = [...new Set(rows.map((row) => row.model))];
  const traces = names.flatMap((name, i) => [true, false].map((exact) => {
    const own = rows.map((row, at) => ({ ...row, at })).filter((row) => row.model === name && row.exact === exact);
    return {
      type: "scatter", mode: "markers", name: `${name}, ${exact ? "exact" : "estimated"}`, x: own.map((row) => row.value), y: own.map((row) => row.at),
      error_x: { type: "data", symmetric: false, array: own.map((row) => noNumber(row.high) || noNumber(row.value) ? null : row.high - row.value), arrayminus: own.map((row) => noNumber(row.low) || noNumber(row.value) ? null : row.value - row.low), thickness: 1.5, color: colorOf(name, i) },
      marker: { color: colorOf(name, i), size: 9, symbol: SYMBOLS[i % SYMBOLS.length] + (exact ? "" : "-open") },
      text: own.map((row) => row.label), hovertemplate: markup`%{text}<br>%{x:.4g}<extra></extra>`, showlegend: own.length > 0,
    };
  }));
  await plot(box, traces, {
    margin: { l: 360, r: 20, t: 40, b: 55 },
    xaxis: { title: { text: "effect on the margin (reward units)" }, zeroline: true, zerolinewidth: 2 },
    yaxis: { tickvals: rows.map((_, i) => i), ticktext: rows.map((row) => short(`${row.model}: ${row.label}`, 72)), range: [rows.length - 0.5, -0.5], zeroline: false, tickfont: { size: 11 } },
  });
}

async function detailSections(neuron) {
  const name = nameOf(neuron), command = `tl-reward examples ${shapeOf(state.model).command} --neurons ${name} --out runs/examples-${name}`;
  const abouts = manifest.details.filter((each) => each.model === state.model), sections = [];
  for (const about of abouts) {
    const found = await jsonBlock(`examples-${about.number}`);
    const at = found.neurons.findIndex((each) => nameOf(each) === name);
    if (at < 0) continue;
    const activation = await arrayBlock(`activations-${about.number}`, Int8Array), of = tokensOf(about);
    sections.push(histogramSection(found, at, of), examplesSection(found, at, activation, of), wordsSection(found, at), neighboursSection(found, at));
  }
  if (sections.length) return sections;
  return [abouts.length ? await plainExamples(abouts[0], neuron, command) : absent("Which texts drive it?", command)];
}

const tokensOf = (about) => `${about.dataset}, ${about.site}, ${about.where} tokens`;
// How to add to the page what a command computes.
const howTo = (command) => [element("code", {}, command), ", then ", element("code", {}, `tl-reward dashboard RUN ${command.split(" ").at(-1)} --out ${command.split("/").at(-1)}.html`), " (RUN: this page's run folder; --pairs names other pairs than the embedded ones)."];

function histogramSection(found, at, of) {
  const toggle = element("input", { type: "checkbox", onchange: (event) => { logCounts = event.target.checked; refresh(box); } });
  toggle.checked = logCounts;
  const { section, box } = panel("How active is it?", `Share of tokens by activation (${of}), a line a split; the same 40 bins for all.`, {
    height: 340, controls: [element("label", { class: "row" }, toggle, "logarithmic shares")],
  });
  whenVisible(box, () => drawHistogram(box, found, at));
  return section;
}

async function drawHistogram(box, found, at) {
  const [low, high] = found.edges[at], counts = found.counts[at], bins = counts[0].length, step = (high - low) / bins;
  const objectives = [...new Set(found.splits.map((split) => split.objective))];
  const traces = found.splits.map((split, i) => {
    const total = counts[i].reduce((sum, each) => sum + each, 0) || 1;
    return {
      type: "scatter", mode: "lines", name: `${split.side}${split.objective ? ` · ${split.objective}` : ""}`, x: counts[i].map((_, bin) => low + (bin + 0.5) * step),
      y: counts[i].map((each) => (logCounts && !each ? null : each / total)),
      line: { shape: "hvh", color: colorOf(split.objective, objectives.indexOf(split.objective)), dash: split.side === "chosen" ? "solid" : "dot", width: 2 },
    };
  });
  await plot(box, traces, { xaxis: { title: { text: "activation" } }, yaxis: { title: { text: "share of tokens" }, type: logCounts ? "log" : "linear", rangemode: "tozero", exponentformat: "power" } });
}

function examplesSection(found, at, activation, of) {
  const scale = element("span", { class: "legend", style: `background:${legendOf()}`, "aria-hidden": "true" });
  const { text, parts } = captioned(`Transcripts by the size of the neuron's peak (${of}); quantiles and random ones show what is usual.`,
    ["Colour is in full at the example's own largest size; the outlined token has the peak, and a bar marks where the response starts. Point at a token to read its activation."]);
  text.append(" Red is negative, blue positive:", scale);
  const section = element("section", { id: "section-examples" }, element("h2", {}, "Which texts drive it?"), parts, exampleFilter());
  found.kinds.forEach((kind, j) => {
    const which = found.shown[at][j];
    if (which < 0) return;
    const transcript = found.transcripts[which], start = found.starts[at][j], peak = found.peaks[at][j];
    section.append(exampleOf(transcript, kind === "top" ? `top ${j + 1}` : kind === "random" ? "random" : `${kind} quantile`, peak, activation.subarray(start, start + transcript.tokens.length), found.largest[at][j], found.peak_at[at][j]));
  });
  return section;
}

function exampleOf(transcript, kind, peak, levels, largest, marked) {
  const sides = transcript.sides.map((side, i) => `${side}${transcript.objectives[i] ? ` (${transcript.objectives[i]})` : ""} in ${transcript.pairs[i]}`);
  const head = [kind, `peak ${figure(peak)}`, `reward ${figure(transcript.reward)}`, short([...new Set(sides)].join(", "), 160)].join(" · ");
  return element("div", { class: "example" }, element("h4", { dir: "auto" }, head), tokenLine(transcript, levels, largest / LEVELS, marked));
}

// Tokens coloured by their activations, of which `levels` are shares in 63rds of the largest; one level is `unit`. One token is outlined.
const LEVELS = 63;
function tokenLine(transcript, levels, unit, marked) {
  const line = element("p", { class: "tokens", dir: "auto" });
  let begun = false; // line breaks before the text would push it down
  transcript.tokens.forEach((token, i) => {
    if (i === transcript.response_start) line.append(element("span", { class: "start", role: "img", "aria-label": "the response starts" }));
    const span = element("span", { title: `about ${figure(levels[i] * unit)}`, "data-share": levels[i] / LEVELS, class: i === marked ? "peak" : null });
    Object.assign(span.style, tint(levels[i] / LEVELS));
    begun ||= /[^\n]/.test(token);
    span.textContent = begun ? token : token.replaceAll("\n", "⏎");
    if (/[\u202a-\u202e\u2066-\u2069]/.test(token)) span.style.unicodeBidi = "isolate"; // else it would turn what follows around
    line.append(span);
  });
  return line;
}

function largestFrom(values, first) {
  let largest = first;
  for (let i = first; i < values.length; i++) if (Math.abs(values[i]) > Math.abs(values[largest])) largest = i;
  return largest;
}

const channels = (color) => [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16));
function tint(share) {
  const from = channels(isDark() ? "#14171B" : "#FFFFFF"), to = channels(share > 0 ? theme().positive : theme().negative);
  const mixed = from.map((part, i) => Math.round(part + (to[i] - part) * Math.min(1, Math.abs(share))));
  const light = mixed.map((part) => (part / 255 <= 0.04045 ? part / 255 / 12.92 : ((part / 255 + 0.055) / 1.055) ** 2.4));
  const luminance = 0.2126 * light[0] + 0.7152 * light[1] + 0.0722 * light[2];
  // Whichever of black and white has the higher contrast (WCAG 2).
  const text = (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) ? "#000" : "#fff";
  return { background: `rgb(${mixed.join(",")})`, color: text };
}

const legendOf = () => `linear-gradient(90deg,${theme().negative},${theme().middle},${theme().positive})`;
// The colours of texts in another theme: paper is light.
function retint() {
  for (const each of document.querySelectorAll("[data-share]")) Object.assign(each.style, tint(Number(each.dataset.share)));
  for (const each of document.querySelectorAll(".legend")) each.style.background = legendOf();
}

async function plainExamples(about, neuron, command) {
  const found = await jsonBlock(`examples-${about.number}`);
  const top = await arrayBlock(`top-${about.number}`, about.bytes === 2 ? Int16Array : Int32Array);
  const [layers, width] = about.shape, size = layers * width, i = neuron[0] * width + neuron[1];
  const section = element("section", { id: "section-examples" }, element("h2", {}, "Which texts drive it?"),
    element("p", {}, `The transcripts with the largest peaks (${tokensOf(about)}). For its activation token by token, its histogram, words and neighbours: `, ...howTo(command)), exampleFilter());
  for (let j = 0; j < about.most; j++) {
    const which = top[j * size + i];
    if (which >= 0) {
      const transcript = found.transcripts[which];
      section.append(element("div", { class: "example" }, element("h4", { dir: "auto" }, `top ${j + 1} · reward ${figure(transcript.reward)} · ${short(transcript.sides.map((side, k) => `${side} in ${transcript.pairs[k]}`).join(", "), 160)}`), element("p", { class: "tokens", dir: "auto" }, transcript.tokens.join("").replace(/^\n+/, (breaks) => "⏎".repeat(breaks.length)))));
    }
  }
  return section;
}

function wordsSection(found, at) {
  const list = (words) => element("ol", { class: "words" }, ...words.map(([token, value]) => element("li", {}, element("code", { dir: "auto" }, visible(token)), ` ${figure(value)}`)));
  const parts = [element("div", {}, element("h3", {}, "It reads"), element("p", { class: "hint" }, `Tokens whose embedding, through the layer's norm, gives the ${found.words_in_of} weights the largest product.`), list(found.words_in[at]))];
  if (found.words_out) {
    parts.push(element("div", {}, element("h3", {}, "It raises"), element("p", { class: "hint" }, "Tokens whose logit its output raises most in the base language model, per unit of mlp_post."), list(found.words_out[at].raised)));
    parts.push(element("div", {}, element("h3", {}, "It lowers"), element("p", { class: "hint" }, "Tokens whose logit its output lowers most."), list(found.words_out[at].lowered)));
  } else parts.push(element("p", { class: "hint" }, "What it writes in words needs the base language model: tl-reward examples with --base."));
  return element("section", {}, element("h2", {}, "Words"), element("div", { class: "numbers" }, ...parts));
}

const visible = (token) => token.replaceAll("\n", "⏎").replaceAll("\t", "⇥").replace(/^ /, "␣").replace(/ $/, "␣") || "(empty)";

function neighboursSection(found, at) {
  const item = (place, value) => element("li", {}, element("a", { href: linkTo(place) }, nameOf(place)), ` ${figure(value)}`);
  const correlated = found.correlated[0][at].map((j, k) => (j < 0 ? null : item(found.neurons[j], found.correlated[1][at][k])));
  const cosine = found.cosine[0][at].map((place, k) => item(place, found.cosine[1][at][k]));
  return element("section", { id: "section-neighbours" }, element("h2", {}, "Neighbours"), element("div", { class: "numbers" },
    found.neurons.length < 2 ? null : element("div", {}, element("h3", {}, "Active together"), element("p", { class: "hint" }, `Correlation of activations over tokens, among the ${count(found.neurons.length)} neurons that are shown in detail.`), element("ol", {}, ...correlated.filter(Boolean))),
    element("div", {}, element("h3", {}, "Writing the same"), element("p", { class: "hint" }, "Cosine of output weights, among all neurons of the model. −1: the opposite."), element("ol", {}, ...cosine)),
  ));
}
