// The state of the page. A change goes through `changed`, which draws all listeners again.

// Rows that this installation measured, and predictions.
const OWN = 'here';
const UNRATED = 'not known';
// Models without published weights, which `edgevit choose` leaves out by default.
const REBUILT = 'reconstructed';
const FACETS = [
  { key: 'device', title: 'Device', of: (entry) => entry.device, name: (value) => REPORT.devices[value].label },
  { key: 'target', title: 'Target', of: (entry) => entry.target, name: (value) => value },
  { key: 'precision', title: 'Precision', of: (entry) => entry.precision, name: (value) => value },
  {
    key: 'threads',
    title: 'Threads',
    of: (entry) => entry.threads,
    name: (value) => (value === 0 ? UNKNOWN : String(value)),
  },
  { key: 'latency', title: 'Latency is', of: (entry) => entry.latency_provenance, name: (value) => value },
  {
    key: 'accuracy',
    title: 'Accuracy is',
    of: (entry) => (entry.top1_percent === null && entry.top1_provenance !== REBUILT ? UNRATED : entry.top1_provenance),
    name: (value) => value,
  },
  { key: 'origin', title: 'Rows from', of: (entry) => entry.origin, name: (value) => value || OWN },
];
// More devices than these are too many at once: then the one with the most points is shown first.
const MANY_DEVICES = 6;
// The rows of the table before a reader asks for more.
const CHUNK = window.innerWidth > 640 ? 100 : 30;

const ORDERS = { latency: ORIGINS, accuracy: ['published', 'measured', REBUILT, UNRATED] };

function nth(facet, value) {
  return ORDERS[facet.key].indexOf(value);
}

/** Return the values of a facet, each with its number of rows. */
function valuesOf(facet) {
  const counts = new Map();
  for (const entry of REPORT.entries) counts.set(facet.of(entry), (counts.get(facet.of(entry)) ?? 0) + 1);
  const order = (a, b) =>
    typeof a === 'number' ? a - b : ORDERS[facet.key] ? nth(facet, a) - nth(facet, b) : a < b ? -1 : 1;
  return [...counts].sort(([a], [b]) => order(a, b));
}

const VALUES = Object.fromEntries(FACETS.map((facet) => [facet.key, valuesOf(facet)]));

function firstDevices() {
  const values = VALUES.device;
  if (values.length <= MANY_DEVICES) return values.map(([value]) => value);
  const drawable = (device) =>
    REPORT.entries.filter((entry) => entry.device === device && entry.usable && entry.top1_percent !== null).length;
  return [[...values].sort(([one, a], [other, b]) => drawable(other) - drawable(one) || b - a)[0][0]];
}

/** Return p90, the usual percentile of budgets; p50 if at p90 less than half as many rows can be drawn. */
function firstPercentile() {
  const devices = new Set(firstDevices());
  const first = REPORT.entries.filter(
    (entry) => devices.has(entry.device) && entry.usable && entry.top1_percent !== null,
  );
  const drawable = (q) => first.filter((entry) => latency(entry, q).held_ms !== null).length;
  return drawable(90) * 2 >= drawable(50) ? 90 : 50;
}

/** Return the filters at first, which are those of `edgevit choose` without options. */
function everything() {
  const chosen = Object.fromEntries(FACETS.map(({ key }) => [key, new Set(VALUES[key].map(([value]) => value))]));
  chosen.accuracy.delete(REBUILT);
  return { ...chosen, device: new Set(firstDevices()) };
}

const state = {
  percentile: firstPercentile(),
  // Or 'value': points stand at the percentile's upper bound, or at the percentile itself.
  at: 'bound',
  // Or 'linear'.
  scale: 'log',
  colour: firstDevices().length > 1 ? 'device' : 'target',
  // In milliseconds.
  budget: null,
  search: '',
  // Whether rows that cannot be chosen are in the table.
  unusable: !REPORT.entries.some((entry) => entry.usable),
  chosen: everything(),
  sort: { key: 'top1', down: true },
  rows: CHUNK,
  // An entry.
  selected: null,
};

const listeners = [];

function changed(change = {}) {
  Object.assign(state, change);
  for (const listener of listeners) listener();
}

function words(entry) {
  const device = REPORT.devices[entry.device];
  const texts = [
    entry.model,
    entry.weights,
    entry.family,
    device.label,
    device.device_class,
    entry.target,
    entry.precision,
    entry.engine,
    entry.engine_version,
    entry.source,
    entry.origin,
    entry.latency_provenance,
    entry.top1_provenance,
    latency(entry, 90).basis?.level ?? '',
    entry.reason,
    ...entry.remarks,
  ];
  return texts.join(' ').toLowerCase();
}

const WORDS = new Map(REPORT.entries.map((entry) => [entry, words(entry)]));

/** Return the entries that pass every filter except that of one facet, if it is named, in the order of the report. */
function shown(except = null) {
  const searched = state.search.toLowerCase().split(/\s+/).filter(Boolean);
  const facets = FACETS.filter(({ key }) => key !== except);
  return REPORT.entries.filter(
    (entry) =>
      (entry.usable || state.unusable) &&
      facets.every((facet) => state.chosen[facet.key].has(facet.of(entry))) &&
      searched.every((word) => WORDS.get(entry).includes(word)),
  );
}

/** Return whether every row passes the filters of a facet. */
function isWide({ key }) {
  return state.chosen[key].size === VALUES[key].length;
}

/** Return whether rows with this value pass the filter of their facet. */
function isOn(key, value) {
  return state.chosen[key].has(value);
}

/** Turn a value of a facet on or off. */
function turn(key, value, on) {
  if (on) state.chosen[key].add(value);
  else state.chosen[key].delete(value);
  changed({ rows: CHUNK });
}

function narrowed() {
  const sets = FACETS.filter((facet) => !isWide(facet)).length;
  return sets + (state.search ? 1 : 0);
}

const GROUPS = new Map();

/** Return the groups that have colours. They are those of all rows, so that a filter changes no colour. */
function groups() {
  if (!GROUPS.has(state.colour)) GROUPS.set(state.colour, groupsBy(state.colour));
  return GROUPS.get(state.colour);
}

function groupsBy(key) {
  const facet = FACETS.find((candidate) => candidate.key === key);
  const of = facet ? facet.of : (entry) => entry[key];
  const name = facet ? facet.name : (value) => value || UNKNOWN;
  const values = facet ? VALUES[key].map(([value]) => value) : [...new Set(REPORT.entries.map(of))].sort();
  return { of, name, values };
}

function colourOf(entry, { of, values }) {
  return colourName(values.indexOf(of(entry)));
}
