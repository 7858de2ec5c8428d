// Reads the page's blocks (blocks.py writes them): base64, gzip, then JSON or numbers.

const folder = document.documentElement.dataset.folder;
const waiting = new Map();
window.tlRewardBlock = (name, text) => waiting.get(name)?.(text);

function blockText(name) {
  const inside = document.getElementById(`block-${name}`);
  if (inside) return Promise.resolve(inside.textContent);
  if (!folder) return Promise.reject(new Error(`the page has no ${name}`));
  return new Promise((resolve, reject) => {
    waiting.set(name, resolve);
    const script = document.createElement("script");
    script.src = `${folder.split("/").map(encodeURIComponent).join("/")}/${name}.js`;
    script.onerror = () => reject(new Error(`${folder}/${name}.js is missing: the page and this folder belong together`));
    document.head.append(script);
  });
}

function fromBase64(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = binary.charCodeAt(i);
  return bytes;
}

const kept = new Map();
function once(name, make) {
  if (!kept.has(name)) kept.set(name, make());
  return kept.get(name);
}

const blockBytes = (name) => once(`bytes ${name}`, async () => {
  const stream = new Blob([fromBase64(await blockText(name))]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
});

const jsonBlock = (name) => once(`json ${name}`, async () => JSON.parse(new TextDecoder().decode(await blockBytes(name))));

function loadPlotly() {
  return blockBytes("plotly").then((bytes) => new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = URL.createObjectURL(new Blob([bytes], { type: "text/javascript" }));
    script.onload = resolve;
    script.onerror = () => reject(new Error("plotly.js did not load"));
    document.head.append(script);
  }));
}

// The numbers' first bytes come first, then their second ones, and so on.
const arrayBlock = (name, Type) => once(`array ${name}`, async () => {
  const bytes = await blockBytes(name);
  const size = Type.BYTES_PER_ELEMENT;
  if (size === 1) return new Type(bytes.buffer);
  const count = bytes.length / size;
  const whole = new Uint8Array(bytes.length);
  for (let part = 0; part < size; part++)
    for (let i = 0; i < count; i++) whole[i * size + part] = bytes[part * count + i];
  return new Type(whole.buffer);
});

// What each of the 65,536 half-precision numbers is.
const HALF = new Float32Array(65536);
for (let bits = 0; bits < 65536; bits++) {
  const exponent = (bits >> 10) & 31, fraction = bits & 1023;
  const size = exponent === 0 ? fraction * 2 ** -24 : exponent === 31 ? (fraction ? NaN : Infinity) : (1 + fraction / 1024) * 2 ** (exponent - 15);
  HALF[bits] = bits & 0x8000 ? -size : size;
}
// Numbers in the order of their values, for sorting without looking at them.
const ordered = (bits) => (bits & 0x8000 ? 0xffff - bits : bits + 0x8000);

// A column: what it is, and a number a neuron, layer by layer.
async function columnOf(entry) {
  const bits = await arrayBlock(entry.values, Uint16Array);
  return once(`column ${entry.values}`, () => new Column(entry, bits));
}

class Column {
  constructor(entry, bits) {
    Object.assign(this, entry, { bits, length: bits.length });
  }
  at(i) {
    return HALF[this.bits[i]] * this.scale + this.neutral;
  }
  // How many neurons have each of the 65,536 numbers.
  get counts() {
    return once(`counts ${this.values}`, () => {
      const counts = new Uint32Array(65536);
      for (const bits of this.bits) counts[bits]++;
      return counts;
    });
  }
  distance(bits) {
    return Math.abs(HALF[bits] * this.scale);
  }
  // Of one neuron.
  size(i) {
    return this.distance(this.bits[i]);
  }
  // How far its number may be from the run's: half a step between numbers of half precision.
  rounding(i) {
    return Math.max(this.size(i) * 2 ** -11, this.scale * 2 ** -25);
  }
  told(i) {
    return `${figure(this.at(i))} ${this.unit}`;
  }
  // The distance from the neutral value that a share of the neurons exceeds.
  exceededBy(share) {
    const used = [];
    this.counts.forEach((count, bits) => count && Number.isFinite(HALF[bits]) && used.push(bits));
    used.sort((a, b) => this.distance(b) - this.distance(a));
    let left = share * this.length;
    for (const bits of used) if ((left -= this.counts[bits]) <= 0) return this.distance(bits);
    return 0;
  }
  // 1 for the largest; equal ones share a place. null where there is no number.
  rank(i) {
    if (Number.isNaN(HALF[this.bits[i]])) return null;
    const mine = ordered(this.bits[i]);
    let above = 0;
    this.counts.forEach((count, bits) => (above += count && ordered(bits) > mine && !Number.isNaN(HALF[bits]) ? count : 0));
    return above + 1;
  }
  async errorAt(i) {
    if (!this.errorScale) return null;
    return HALF[(await arrayBlock(this.error, Uint16Array))[i]] * this.errorScale;
  }
}

// Some neurons by a column, the largest first (or the smallest), and last those without a number. Equal ones by layer, then neuron.
function sorted(column, indices, descending) {
  const keys = new Float64Array(indices.length);
  for (let j = 0; j < keys.length; j++) {
    const bits = column.bits[indices[j]], value = ordered(bits);
    keys[j] = (Number.isNaN(HALF[bits]) ? 0x10000 : descending ? 0xffff - value : value) * 2 ** 32 + indices[j];
  }
  keys.sort();
  return Uint32Array.from(keys, (key) => key % 2 ** 32);
}
