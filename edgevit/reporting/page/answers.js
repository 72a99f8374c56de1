// The chooser's picks and fronts, which Python computed for this page. They are looked up here and never computed.

const NO_ANSWER = { from_ms: [], picks: [], front: [], front_by_value: [] };
// Facets of which the tables of answers have all values together and each one alone.
const NARROWING = [
  ['target', 'targets'],
  ['precision', 'precisions'],
  ['threads', 'threads'],
];
// Values that no option of `edgevit choose` leaves out. With a data set it never takes what was not evaluated on it.
const OPTIONLESS = {
  latency: (value) => value !== 'predicted' && value !== 'published',
  accuracy: (value) => value !== REBUILT && !(value === UNRATED && REPORT.evaluated),
  origin: () => true,
};
const DEVICE_VALUES = valuesOfDevices();

/** Return the milliseconds at which a point is drawn; null where they are not known. */
function placed(entry) {
  const times = latency(entry, state.percentile);
  return state.at === 'bound' ? times.held_ms : times.ms;
}

function isDrawn(entry) {
  return entry.usable && entry.top1_percent !== null && placed(entry) !== null;
}

/** Return for each device the values of each facet among its usable rows. */
function valuesOfDevices() {
  const devices = REPORT.devices.map(() => Object.fromEntries(FACETS.map(({ key }) => [key, new Set()])));
  for (const entry of REPORT.entries) {
    if (entry.usable) for (const facet of FACETS) devices[entry.device][facet.key].add(facet.of(entry));
  }
  return devices;
}

/** Return the numbers of the devices that have rows among those shown, in the order of the report. */
function shownDevices() {
  const devices = new Set(shown().map((entry) => entry.device));
  return [...devices].sort((a, b) => a - b);
}

/** Return 0 if all of these values are on, n + 1 if only the n-th is, null if several are, undefined if none is on. */
function narrowing(key, values) {
  const on = values.filter((value) => isOn(key, value));
  if (on.length === values.length) return 0;
  if (on.length === 0) return undefined;
  return on.length === 1 ? values.indexOf(on[0]) + 1 : null;
}

/** Return whether a device has usable rows with this value, and a filter leaves them out. */
function isLeftOut(device, key, value) {
  return DEVICE_VALUES[device][key].has(value) && !isOn(key, value);
}

/** Return the filters on a device's rows for which `edgevit choose` has no option. */
function filtersWithoutOption(device) {
  const filters = FACETS.flatMap(({ key, title, name }) =>
    [...DEVICE_VALUES[device][key]]
      .filter((value) => OPTIONLESS[key]?.(value) && !isOn(key, value))
      .map((value) => `leaving out “${title} ${name(value)}”`),
  );
  return state.search.trim() ? ['a search', ...filters] : filters;
}

/** Return whether predictions are candidates under the filters on a device. */
function hasPredictions(device) {
  return DEVICE_VALUES[device].latency.has('predicted') && isOn('latency', 'predicted');
}

/**
 * Return the chooser's answer for a device under the filters: a view, or null where the page has none. It has none for
 * filters without an option of the chooser, and for narrowed questions that predictions take part in.
 */
function answerOf(device) {
  const { answers } = REPORT.devices[device];
  if (filtersWithoutOption(device).length) return null;
  const narrowed = NARROWING.map(([key, name]) => narrowing(key, answers[name]));
  if (narrowed.includes(undefined)) return NO_ANSWER;
  const percentile = PERCENTILES.indexOf(state.percentile);
  const rebuilt = Number(isOn('accuracy', REBUILT));
  if (hasPredictions(device)) {
    const isWhole = narrowed.every((number) => number === 0) && !isLeftOut(device, 'latency', 'published');
    return isWhole ? answers.distinct[answers.predicted[2 * percentile + rebuilt]] : null;
  }
  if (narrowed.includes(null)) return null;
  let at = (2 * percentile + rebuilt) * 2 + Number(isOn('latency', 'published'));
  NARROWING.forEach(([, name], axis) => {
    const values = answers[name].length;
    at = at * (values > 1 ? values + 1 : 1) + narrowed[axis];
  });
  return answers.distinct[answers.measured[at]];
}

/** Return [device, its front] of every device shown whose front is known and has a corner; fastest first. */
function fronts() {
  const name = state.at === 'bound' ? 'front' : 'front_by_value';
  const lines = shownDevices().map((device) => [device, (answerOf(device) ?? NO_ANSWER)[name].map(entryAt)]);
  return lines.filter(([, line]) => line.length);
}

/** Return [device, its pick within the budget, if any] of every device shown that has an answer. */
function picks() {
  if (state.budget === null) return [];
  const views = shownDevices().map((device) => [device, answerOf(device)]);
  return views.filter(([, view]) => view).map(([device, view]) => [device, pickOf(view)]);
}

function pickOf(view) {
  const step = view.from_ms.findLastIndex((from) => from <= state.budget);
  return step < 0 ? undefined : entryAt(view.picks[step]);
}

function entryAt(index) {
  return REPORT.entries[index];
}

/** Return a sentence for each device shown without an answer, which says how to get one. */
function unanswered() {
  return shownDevices()
    .filter((device) => !answerOf(device))
    .map((device) => el('p', { class: 'unanswered' }, el('b', {}, REPORT.devices[device].label), ': ', howToAsk(device)));
}

function howToAsk(device) {
  const without = filtersWithoutOption(device);
  const threads = narrowing('threads', REPORT.devices[device].answers.threads);
  if (threads === null) without.push('several of many thread counts');
  if (threads > 0 && REPORT.devices[device].answers.threads[threads - 1] === 0) without.push('unreported thread counts');
  if (without.length) return `no pick and no front, because edgevit choose has no option for ${without.join(', ')}.`;
  return ['the page has no answer for these filters. Ask ', el('code', {}, commandOf(device))];
}

/** Return the command that answers the question of the filters for a device. */
function commandOf(device) {
  const { device_id: id, answers } = REPORT.devices[device];
  const words = ['edgevit', 'choose', '--device', id];
  if (state.budget !== null) words.push('--max-latency', `${state.budget}ms`);
  words.push('--percentile', String(state.percentile));
  for (const [key, name] of NARROWING) {
    const on = answers[name].filter((value) => isOn(key, value));
    if (on.length < answers[name].length) words.push(`--${key}`, on.join(','));
  }
  if (REPORT.published && isOn('latency', 'published')) words.push('--published');
  if (isOn('accuracy', REBUILT)) words.push('--reconstructed');
  if (REPORT.predicted_confidence === null || isLeftOut(device, 'latency', 'predicted')) words.push('--measured-only');
  return [...words, ...REPORT.choose_options].map(quoted).join(' ');
}

/** Return a word quoted for a POSIX shell. */
function quoted(word) {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'"'"'`)}'`;
}
