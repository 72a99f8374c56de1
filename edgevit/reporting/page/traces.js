// The traces of the chart: points with bars, fronts, names. Plotly reads markup in texts, so that names are escaped.

const DASHES = ['solid', 'dash', 'dot', 'dashdot', 'longdash', 'longdashdot'];
// Shapes that Plotly draws smaller than others.
const GROWN = { 'triangle-up': 1.25, 'triangle-down': 1.25, star: 1.25 };
// The rough size of a letter in pixels, by which names that would cover each other are found.
const LETTER = { width: 7, height: 16 };

function escaped(text) {
  return String(text).replace(/[&<>]/g, (letter) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;' })[letter]);
}

function hover(entry) {
  const times = latency(entry, state.percentile);
  const bound = times.upper_ms === null ? 'no bound' : `at most ${short(times.upper_ms)} ms`;
  if (times.basis) return hoverOf(entry, predictionLines(entry, times, bound));
  const ran = entry.runs ? `, ${entry.runs} runs in ${count(entry.processes, 'process', 'processes')}` : '';
  const lines = [
    `${entry.target} ${entry.precision}, ${threads(entry)}${weights(entry)}, on ${deviceOf(entry)}`,
    `p${state.percentile} ${short(times.ms)} ms, ${bound} (${entry.latency_provenance})`,
    top1Line(entry),
    `${entry.grade ? `grade ${entry.grade}` : 'no grade'}${ran}`,
    `${entry.engine} ${entry.engine_version} ${entry.provider}`,
    `${age(entry)}${entry.epoch === null ? '' : `, epoch ${entry.epoch}`}`,
    ...entry.remarks,
    entry.source,
  ];
  return hoverOf(entry, lines);
}

function predictionLines(entry, times, bound) {
  return [
    `${entry.target} ${entry.precision}, ${threads(entry)}${weights(entry)}, on ${deviceOf(entry)}`,
    `p${state.percentile} ${short(times.ms)} ms, ${bound} (predicted)`,
    interval(times.basis),
    `${times.basis.level}, from ${count(times.basis.anchors, 'row', 'rows')} of the device`,
    times.basis.nearest ? `nearest: ${times.basis.nearest}` : '',
    top1Line(entry),
    ...entry.remarks,
  ];
}

function top1Line(entry) {
  return `top-1 ${accuracy(entry)}% (${rating(entry)})`;
}

function hoverOf(entry, lines) {
  return [`<b>${escaped(entry.model)}</b>`, ...lines.filter((line) => line.trim()).map(escaped)].join('<br>');
}

/** Return the points of one colour with their bars; those of a front are larger. */
function points(entries, colour, leading) {
  const x = entries.map(placed);
  const latencies = entries.map((entry) => latency(entry, state.percentile));
  const open = entries.map((entry) => FILLINGS[entry.provenance].includes('open'));
  const small = entries.length > 100 ? 8 : 10;
  return {
    type: 'scatter',
    mode: 'markers',
    name: 'rows',
    x,
    y: entries.map((entry) => entry.top1_percent),
    customdata: entries.map((entry) => entry.index),
    hovertext: entries.map(hover),
    hoverinfo: 'text',
    marker: {
      symbol: entries.map(symbol),
      color: cssColour(colour),
      size: entries.map((entry) => (leading.has(entry) ? 13 : small) * (GROWN[shape(entry.target)] ?? 1)),
      // By default it is less where sizes differ.
      opacity: 1,
      line: { width: open.map((is) => (is ? 1.6 : 1)), color: open.map((is) => cssColour(is ? colour : '--card')) },
    },
    error_x: {
      type: 'data',
      symmetric: false,
      array: latencies.map(({ high_ms: high }, i) => Math.max(0, (high ?? x[i]) - x[i])),
      arrayminus: latencies.map(({ low_ms: low }, i) => Math.max(0, x[i] - (low ?? x[i]))),
      color: cssColour(colour).replace('rgb(', 'rgba(').replace(')', ', 0.5)'),
      thickness: 1.2,
      width: 2,
    },
  };
}

/** Return the stepped line of one device's front, which goes on to the right edge. */
function steps([device, line], number, several, { x: [, right] }) {
  return {
    type: 'scatter',
    mode: 'lines',
    name: `front ${REPORT.devices[device].label}`,
    x: [...line.map(placed), right],
    y: [...line, line.at(-1)].map((entry) => entry.top1_percent),
    line: {
      shape: 'hv',
      width: 1.8,
      color: cssColour(lineColour(device, several)),
      dash: several ? DASHES[number % DASHES.length] : 'solid',
    },
    opacity: 0.8,
    hoverinfo: 'skip',
  };
}

function lineColour(device, several) {
  return several && state.colour === 'device'
    ? colourName(VALUES.device.findIndex(([value]) => value === device))
    : '--ink';
}

/** Return names beside the corners of a front, without those that would cover another one. */
function names(line, view) {
  const taken = [];
  const named = line.filter((entry) => {
    const [x, y] = pixels(entry, view);
    const box = { left: x - (entry.model.length + 2) * LETTER.width, right: x, top: y - LETTER.height, bottom: y };
    const covers =
      box.left < 0 ||
      taken.some(
        (other) => box.left < other.right && other.left < box.right && box.top < other.bottom && other.top < box.bottom,
      );
    if (!covers) taken.push(box);
    return !covers;
  });
  return {
    type: 'scatter',
    mode: 'text',
    name: 'names',
    x: named.map(placed),
    y: named.map((entry) => entry.top1_percent),
    text: named.map((entry) => `${escaped(entry.model)}  `),
    textposition: 'top left',
    textfont: { size: 12, color: cssColour('--ink'), family: FONT },
    cliponaxis: false,
    hoverinfo: 'skip',
  };
}

function pixels(entry, { x, y, width, height }) {
  const scale = state.scale === 'log' ? Math.log10 : Number;
  const share = (value, [low, high]) => (value - low) / (high - low);
  return [width * share(scale(placed(entry)), x.map(scale)), height * (1 - share(entry.top1_percent, y))];
}

function rings(name, entries, colour, size) {
  return {
    type: 'scatter',
    mode: 'markers',
    name,
    x: entries.map(placed),
    y: entries.map((entry) => entry.top1_percent),
    hoverinfo: 'skip',
    marker: { symbol: 'circle-open', size, color: cssColour(colour), line: { width: 2.4 } },
  };
}
