// The report's data, and its numbers as text.

const PERCENTILES = [50, 90, 99];
const REPORT = unpacked(JSON.parse(document.getElementById('data').textContent));
const ORIGINS = ['measured', 'reconstructed', 'predicted', 'published'];
const UNKNOWN = 'not reported';

/** Return the report with entries as objects. They arrive as field names and rows of values, a latency as a row, too. */
function unpacked(report) {
  const [names, rows] = report.entries;
  const entries = rows.map((row) => Object.fromEntries(row.map((value, i) => [names[i], value])));
  for (const [index, entry] of entries.entries()) {
    entry.index = index;
    for (const q of PERCENTILES) {
      const [ms, low_ms, high_ms, upper_ms, held_ms, basis] = entry[`p${q}`];
      entry[`p${q}`] = { ms, low_ms, high_ms, upper_ms, held_ms, basis: basis && basisOf(basis) };
    }
  }
  return { ...report, entries };
}

function basisOf([level, confidence, anchors, nearest, lower_ms, upper_ms]) {
  return { level, confidence, anchors, nearest, lower_ms, upper_ms };
}

/** Return the digits behind the point of a column: its smallest number shows three that count, and three at most. */
function decimals(numbers) {
  const least = numbers.filter((number) => number > 0).reduce((a, b) => Math.min(a, b), Infinity);
  return Number.isFinite(least) ? Math.max(0, Math.min(3, 2 - Math.floor(Math.log10(least)))) : 0;
}

/** Return a number with three digits that count, without an exponent. */
function short(number) {
  if (number === null || number === undefined) return '';
  return Math.abs(number) >= 1000 ? number.toFixed(0) : String(Number(number.toPrecision(3)));
}

/** Return a number's text with room for the further digits of others in its column. */
function aligned(text, digits) {
  const [, rest] = text.split('.');
  if (text === '' || (rest ?? '').length >= digits) return text;
  return text + (rest === undefined ? '\u2008' : '') + '\u2007'.repeat(digits - (rest ?? '').length);
}

/** Return the most digits that any of these numbers has behind the point. */
function mostDigits(texts) {
  return texts.reduce((most, text) => Math.max(most, (text.split('.')[1] ?? '').length), 0);
}

function percent(share, digits = 1) {
  return `${(100 * share).toFixed(digits)}%`;
}

function accuracy(entry) {
  if (entry.top1_percent === null) return '';
  const error = entry.top1_error_percent;
  return error === null ? String(entry.top1_percent) : `${entry.top1_percent.toFixed(2)} ± ${error.toFixed(2)}`;
}

/** Return where an accuracy comes from, and whether it rests on something that was assumed. */
function rating(entry) {
  return entry.top1_assumed.length ? `${entry.top1_provenance}, assumed` : entry.top1_provenance;
}

function isPredicted(entry) {
  return entry.latency_provenance === 'predicted';
}

/** Return the provenance of both numbers of a row. */
function origin(entry) {
  const rebuilt = entry.top1_provenance === 'reconstructed' && entry.provenance !== 'reconstructed';
  const plain = rebuilt ? `${entry.provenance}, reconstructed` : entry.provenance;
  return entry.top1_assumed.length ? `${plain}, accuracy assumed` : plain;
}

/** Return the evidence of a prediction. */
function restsOn({ level, anchors, nearest }) {
  return `${level}, ${count(anchors, 'row', 'rows')} of the device${nearest ? `, nearest ${nearest}` : ''}`;
}

/** Return the interval of a prediction as `90%: 3.1 to 4.2 ms`. */
function interval({ confidence, lower_ms: lower, upper_ms: upper }) {
  return `${share(confidence)}: ${short(lower)} to ${short(upper)} ms`;
}

/** Return a confidence as text: 90%, 99.5%. */
function share(confidence) {
  return `${Number((100 * confidence).toPrecision(4))}%`;
}

function day(time) {
  return time ? time.slice(0, 10) : UNKNOWN;
}

function age(entry) {
  if (isPredicted(entry)) return '';
  if (entry.age_days === null) return UNKNOWN;
  const days = entry.age_days;
  const when = days <= 0 ? 'on the day of' : days === 1 ? 'a day before' : `${days} days before`;
  return `${day(entry.measured)}, ${when} this report`;
}

function threads(entry) {
  return entry.threads === 0 ? 'threads not reported' : entry.threads === 1 ? '1 thread' : `${entry.threads} threads`;
}

/** Return the weights of an entry with a comma before, where it says which. */
function weights(entry) {
  return entry.weights ? `, ${entry.weights}` : '';
}

function deviceOf(entry) {
  return REPORT.devices[entry.device].label;
}

/** Return the latency of an entry at a percentile. */
function latency(entry, percentile) {
  return entry[`p${percentile}`];
}

function count(number, one, many) {
  return `${number.toLocaleString('en')} ${number === 1 ? one : many}`;
}
