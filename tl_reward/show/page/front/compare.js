// Two models side by side: the map shows how one quantity differs, and here every neuron of one stands against the same of the other.

// The other models whose numbers of this quantity were made alike: of the same pairs, at the same site, in the same way.
const comparable = (model, key) => {
  const own = columnEntry(model, key);
  return own?.basis ? sameShape(model).filter((name) => name !== model && columnEntry(name, key)?.basis === own.basis) : [];
};
const compared = () => (comparable(state.model, state.metric).includes(state.versus) ? state.versus : "");

function versusControl() {
  const select = element("select", { id: "versus", onchange: () => go({ versus: select.value }) });
  subscribe(["model", "metric", "versus"], () => {
    if (!state.metric) return;
    const others = comparable(state.model, state.metric);
    select.replaceChildren(element("option", { value: "" }, others.length ? "none" : "none has it on the same pairs"), ...others.map((name) => element("option", { value: name }, name)));
    select.disabled = !others.length;
    select.value = compared();
  });
  return element("label", { class: "row" }, "compare with", select);
}

// Why the map shows one model, where two were asked for.
const notCompared = () =>
  state.versus && state.versus !== state.model && !compared()
    ? `The models ${state.model} and ${state.versus} do not both have ${state.metric} on the same pairs: this is ${state.model} alone. `
    : "";

// Models' rewards have spreads of their own, so that effects on them are compared in standard deviations of each model's rewards: over the
// column's data set, or else over all that both models were scored on. `said` says so. Other quantities stay as they are.
function alike(one, other) {
  if (one.unit !== "reward units") return { columns: [one, other], said: "" };
  const [mine, theirs] = [one, other].map((column) => shapeOf(column.model).rewards);
  const shared = mine.map((each) => each.dataset).filter((dataset) => theirs.some((each) => each.dataset === dataset));
  const over = shared.includes(one.dataset) ? [one.dataset] : shared;
  const spreads = [mine, theirs].map((rewards) => spreadOf(rewards.filter((each) => over.includes(each.dataset))));
  if (!spreads.every(Boolean)) return { columns: [one, other], said: " In raw reward units: models' rewards have different spreads, and the run does not tell those of both on the same pairs." };
  const columns = [one, other].map((column, at) => new Column({ ...column, scale: column.scale / spreads[at], errorScale: column.errorScale && column.errorScale / spreads[at], unit: SPREADS }, column.bits));
  return { columns, said: ` In ${SPREADS} on ${short(listed(over), 160)} (${one.model} ${figure(spreads[0])}, ${other.model} ${figure(spreads[1])} reward units), since models' rewards have different spreads.` };
}
const SPREADS = "standard deviations of each model's rewards";

// The standard deviation of the rewards of several data sets together; 0 where they are too few, or the same but for rounding.
function spreadOf(rewards) {
  const total = (of) => rewards.reduce((sum, each) => sum + of(each), 0), count = total((each) => each.count);
  const mean = total((each) => each.count * each.mean) / count, squares = total((each) => each.squares + each.count * (each.mean - mean) ** 2);
  const spread = Math.sqrt(squares / (count - 1));
  return Number.isFinite(spread) && spread > 1e-6 * Math.abs(mean) ? spread : 0;
}

// One column minus another, neuron by neuron. The page's numbers are rounded: what may be rounding alone is 0.
class Difference {
  constructor({ columns: [one, other], said }) {
    Object.assign(this, { one, other, length: one.length, unit: one.unit, neutral: 0, values: `${one.values} minus ${other.values}` });
    this.numbers = Float32Array.from({ length: one.length }, (_, i) => {
      const difference = one.at(i) - other.at(i);
      return Math.abs(difference) <= this.rounding(i) ? 0 : difference;
    });
    this.about = `Difference of two models, ${one.model} minus ${other.model}, in ${one.key}, on the same pairs.${said} What may be rounding (the page keeps three digits) counts as no difference.`;
  }
  rounding(i) {
    return this.one.rounding(i) + this.other.rounding(i);
  }
  at(i) {
    return this.numbers[i];
  }
  size(i) {
    return Math.abs(this.numbers[i]);
  }
  exceededBy(share) {
    const sizes = once(`sizes ${this.values}`, () => this.numbers.map(Math.abs).filter(Number.isFinite).sort());
    return sizes.length ? sizes[Math.max(0, Math.ceil(sizes.length - share * this.length) - 1)] : 0;
  }
  sorted(indices) {
    return Uint32Array.from(indices).sort((a, b) => (Number.isNaN(this.at(a)) - Number.isNaN(this.at(b))) || this.at(b) - this.at(a) || a - b);
  }
  told(i) {
    const step = 10 ** Math.floor(Math.log10(this.rounding(i) || 1e-9)); // its last digit is the first that may be rounding
    const difference = this.at(i) === 0 ? "no difference" : `difference ${figure(Math.round(this.at(i) / step) * step)}`;
    return `${this.one.model} ${figure(this.one.at(i))}, ${this.other.model} ${figure(this.other.at(i))}: ${difference} (${this.unit})`;
  }
}

const differenceOf = async (key, model, versus) => {
  const [one, other] = await Promise.all([model, versus].map((name) => columnOf(columnEntry(name, key))));
  return once(`difference ${one.values} ${other.values}`, () => new Difference(alike(one, other)));
};

function comparePanel() {
  const { section, box, text } = panel("One model against the other", "", { id: "compare", height: 560 });
  const show = () => (section.hidden = !compared());
  whenVisible(box, () => compared() && drawComparison(box, text));
  subscribe(["model", "metric", "versus", "own"], () => { show(); refresh(box); });
  return section;
}

async function drawComparison(box, text) {
  const asked = { model: state.model, metric: state.metric, versus: compared() };
  const columns = await Promise.all([asked.model, asked.versus].map((name) => columnOf(columnEntry(name, asked.metric))));
  if (asked.model !== state.model || asked.metric !== state.metric || asked.versus !== compared()) return;
  const { columns: [x, y], said } = alike(...columns);
  const cloud = cloudOf(x, y), own = new Set(ownIndices(asked.model));
  const points = (name, members, look) => pointsOf(cloud, name, members, (i) => markup`neuron ${nameOf(placeOf(i, asked.model))}<br>${asked.model} ${figure(x.at(i))}<br>${asked.versus} ${figure(y.at(i))}`, look);
  const traces = [
    cloud.cells,
    points("farthest out", cloud.largest.filter((i) => !own.has(i)), { size: 4, symbol: "circle-open", color: theme().faint }),
    ...(own.size ? [points(ownName(), [...own], { size: 9, symbol: "diamond", color: theme().text })] : []),
  ];
  describe(text, `Each neuron by its ${asked.metric} in both models, on the same pairs.${said} On the dotted line both have the same. Click a point to open its neuron.`, [
    `Grey cells count all ${count(x.length - cloud.absent)} neurons (darker: more, on a logarithmic scale); the ${count(cloud.largest.length)} farthest out are points. ` +
      `Axes are linear near ${figure(x.neutral)} and logarithmic beyond.`,
  ]);
  const away = x.neutral ? `, counted from ${figure(x.neutral)}` : "", reach = Math.max(cloud.across.reach, cloud.up.reach);
  await plot(box, traces, {
    xaxis: cloud.across.axis(`${asked.model} (${x.unit}${away})`), yaxis: cloud.up.axis(`${asked.versus} (${y.unit}${away})`),
    shapes: [{ type: "path", path: sameLine(cloud, reach), line: { color: theme().guide, dash: "dot", width: 1.5 } }],
  });
  openOnClick(box, asked.model);
}

// Where both models have the same: a curve, since each axis is stretched by its own unit.
function sameLine({ across, up }, reach) {
  const least = Math.min(across.unit, up.unit), values = [];
  for (let place = -reach * 1.5; place <= reach * 1.5; place += 0.05) values.push(least * Math.sinh(place));
  const inside = values.map((value) => [across.stretch(value), up.stretch(value)]).filter(([a, b]) => Math.abs(a) <= across.reach && Math.abs(b) <= up.reach);
  return inside.map(([a, b], i) => `${i ? "L" : "M"}${a},${b}`).join(" ");
}
