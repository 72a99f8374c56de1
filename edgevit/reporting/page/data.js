// The report's data, and its numbers as people read them.

const PERCENTILES = [50, 90, 99];
const REPORT = unpacked(JSON.parse(document.getElementById('data').textContent));
const ORIGINS = ['measured', 'reconstructed', 'predicted', 'published'];
const UNKNOWN = 'not told';

/** Entries travel as columns' names and rows of values; a latency as its numbers and what a prediction rests on. */
function unpacked(report) {
  const [names, rows] = report.entries;
  const entries = rows.map((row) => Object.fromEntries(row.map((value, i) => [names[i], value])));
  for (const [place, entry] of entries.entries()) {
    entry.place = place;
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

/** Digits behind the point for a column whose smallest number is this: at least three that count, at most three. */
function decimals(numbers) {
  const least = numbers.filter((number) => number > 0).reduce((a, b) => Math.min(a, b), Infinity);
  return Number.isFinite(least) ? Math.max(0, Math.min(3, 2 - Math.floor(Math.log10(least)))) : 0;
}

/** Three digits that count, without an exponent. */
function short(number) {
  if (number === null || number === undefined) return '';
  return Math.abs(number) >= 1000 ? number.toFixed(0) : String(Number(number.toPrecision(3)));
}

/** As it is printed, with room for the digits that others in its column have and it has not. */
function aligned(text, digits) {
  const [, rest] = text.split('.');
  if (text === '' || (rest ?? '').length >= digits) return text;
  return text + (rest === undefined ? '\u2008' : '') + '\u2007'.repeat(digits - (rest ?? '').length);
}

/** The digits behind the point of the number that has most of them. */
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

function isPredicted(entry) {
  return entry.latency_provenance === 'predicted';
}

/** Where both numbers of a row are from, in a word or two. */
function origin(entry) {
  const rebuilt = entry.top1_provenance === 'reconstructed' && entry.provenance !== 'reconstructed';
  return rebuilt ? `${entry.provenance}, reconstructed` : entry.provenance;
}

/** What a prediction rests on. */
function restsOn({ level, anchors, nearest }) {
  return `${level}, ${count(anchors, 'row', 'rows')} of the device${nearest ? `, nearest ${nearest}` : ''}`;
}

/** `90%: 3.1 to 4.2 ms` of a prediction. */
function interval({ confidence, lower_ms: lower, upper_ms: upper }) {
  return `${share(confidence)}: ${short(lower)} to ${short(upper)} ms`;
}

/** A confidence as people write it: 90%, 99.5%. */
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
  return entry.threads === 0 ? 'threads not told' : entry.threads === 1 ? '1 thread' : `${entry.threads} threads`;
}

function deviceOf(entry) {
  return REPORT.devices[entry.device].label;
}

/** `p90`: the percentiles of an entry by number. */
function latency(entry, percentile) {
  return entry[`p${percentile}`];
}

function count(number, one, many) {
  return `${number.toLocaleString('en')} ${number === 1 ? one : many}`;
}
