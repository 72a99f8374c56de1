// The scatter, drawn by Plotly. Plotly takes markup in texts, so that every name is escaped on its way there.

const CHART = byId('chart');
const NARROW = 640; // pixels of the window
const DASHES = ['solid', 'dash', 'dot', 'dashdot', 'longdash', 'longdashdot'];
const LABELLED = 12; // corners of a front with names beside them
const FONT = 'system-ui, "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans", Arial, sans-serif';
const TICKS = [[1], [1, 2, 5], [1, 1.5, 2, 3, 4, 5, 6, 8], [1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 3.5, 4, 4.5, 5, 6, 7, 8, 9]];
const MOST_TICKS = { narrow: 6, wide: 12 };
const GROWN = { 'triangle-up': 1.25, 'triangle-down': 1.25, star: 1.25 }; // shapes that Plotly draws smaller than others
const LETTER = { width: 7, height: 16 }; // pixels of a name, roughly: whether two would cover each other

let plotly = null; // until its library has been unpacked

function escaped(text) {
  return String(text).replace(/[&<>]/g, (letter) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;' })[letter]);
}

/** The groups that colours tell apart: of all rows of the report, so that a filter changes no colour. */
function groups() {
  const facet = FACETS.find(({ key }) => key === state.colour);
  const of = facet ? facet.of : (entry) => entry[state.colour];
  const name = facet ? facet.name : (value) => value || UNKNOWN;
  const values = facet ? VALUES[facet.key].map(([value]) => value) : [...new Set(REPORT.entries.map(of))].sort();
  return { of, name, values };
}

function colourOf(entry, { of, values }) {
  return colourName(values.indexOf(of(entry)));
}

function hover(entry) {
  const told = latency(entry, state.percentile);
  const bound = told.upper_ms === null ? 'no bound' : `at most ${short(told.upper_ms)} ms`;
  const ran = entry.runs ? `, ${entry.runs} runs in ${count(entry.processes, 'process', 'processes')}` : '';
  const lines = [
    `${entry.target} ${entry.precision}, ${threads(entry)}, on ${deviceOf(entry)}`,
    `p${state.percentile} ${short(told.ms)} ms, ${bound} (${entry.latency_provenance})`,
    `top-1 ${accuracy(entry)}% (${entry.top1_provenance})`,
    `${entry.grade ? `grade ${entry.grade}` : 'no grade'}${ran}`,
    `${entry.engine} ${entry.engine_version} ${entry.provider}`,
    `${age(entry)}${entry.epoch === null ? '' : `, epoch ${entry.epoch}`}`,
    ...entry.flags,
    entry.source,
  ];
  return [`<b>${escaped(entry.model)}</b>`, ...lines.filter((line) => line.trim()).map(escaped)].join('<br>');
}

/** The points of one colour with their bars; those of a front are larger. */
function points(entries, colour, leading) {
  const x = entries.map(placed);
  const told = entries.map((entry) => latency(entry, state.percentile));
  const open = entries.map((entry) => FILLINGS[entry.provenance].includes('open'));
  const small = entries.length > 100 ? 8 : 10;
  return {
    type: 'scatter',
    mode: 'markers',
    name: 'rows',
    x,
    y: entries.map((entry) => entry.top1_percent),
    customdata: entries.map((entry) => REPORT.entries.indexOf(entry)),
    hovertext: entries.map(hover),
    hoverinfo: 'text',
    marker: {
      symbol: entries.map(symbol),
      color: cssColour(colour),
      size: entries.map((entry) => (leading.has(entry) ? 13 : small) * (GROWN[shape(entry.target)] ?? 1)),
      opacity: 1, // which is less where sizes differ, if it is not told
      line: { width: open.map((is) => (is ? 1.6 : 1)), color: open.map((is) => cssColour(is ? colour : '--card')) },
    },
    error_x: {
      type: 'data',
      symmetric: false,
      array: told.map(({ upper_ms: upper }, i) => Math.max(0, (upper ?? x[i]) - x[i])),
      arrayminus: told.map(({ low_ms: low }, i) => Math.max(0, x[i] - (low ?? x[i]))),
      color: cssColour(colour).replace('rgb(', 'rgba(').replace(')', ', 0.5)'),
      thickness: 1.2,
      width: 2,
    },
  };
}

/** The stepped line of one device's front, on to the right edge. */
function steps([device, line], number, several, { x: [, right] }) {
  return {
    type: 'scatter',
    mode: 'lines',
    name: `front ${REPORT.devices[device].label}`,
    x: [...line.map(placed), right],
    y: [...line, line.at(-1)].map((entry) => entry.top1_percent),
    line: { shape: 'hv', width: 1.8, color: cssColour(lineColour(device, several)), dash: several ? DASHES[number % DASHES.length] : 'solid' },
    opacity: 0.8,
    hoverinfo: 'skip',
  };
}

function lineColour(device, several) {
  return several && state.colour === 'device' ? colourName(VALUES.device.findIndex(([value]) => value === device)) : '--ink';
}

/** Names beside the corners of a front, without those that would cover another one. */
function names(line, view) {
  const taken = [];
  const named = line.filter((entry) => {
    const [x, y] = pixels(entry, view);
    const box = { left: x - (entry.model.length + 2) * LETTER.width, right: x, top: y - LETTER.height, bottom: y };
    const covers = box.left < 0 || taken.some((other) => box.left < other.right && other.left < box.right && box.top < other.bottom && other.top < box.bottom);
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

function ring(entry) {
  return {
    type: 'scatter', mode: 'markers', name: 'selected', x: [placed(entry)], y: [entry.top1_percent], hoverinfo: 'skip',
    marker: { symbol: 'circle-open', size: 22, color: cssColour('--ink'), line: { width: 2 } },
  };
}

/** The ends of the horizontal axis: all bars, the budget, and room for names on the left. */
function reach(entries) {
  const told = entries.map((entry) => latency(entry, state.percentile));
  const at = [...entries.map(placed), ...told.map((one, i) => one.upper_ms ?? placed(entries[i])), ...told.map((one, i) => one.low_ms ?? placed(entries[i]))];
  if (state.budget !== null) at.push(state.budget);
  const [low, high] = [at.reduce((a, b) => Math.min(a, b), Infinity), at.reduce((a, b) => Math.max(a, b), 0)];
  if (!at.length) return [1, 100];
  if (state.scale === 'linear') return [0, high * 1.08];
  const room = Math.max(1.25, (high / low) ** 0.1);
  return [low / room ** 1.6, high * room];
}

/** The finest plain numbers along a logarithmic axis that leave each other room. */
function ticks([low, high]) {
  const most = MOST_TICKS[window.innerWidth <= NARROW ? 'narrow' : 'wide'];
  const found = TICKS.map((digits) => {
    const powers = Array.from({ length: Math.floor(Math.log10(high)) - Math.floor(Math.log10(low)) + 1 }, (_, i) => Math.floor(Math.log10(low)) + i);
    return powers.flatMap((power) => digits.map((digit) => Number((digit * 10 ** power).toPrecision(3)))).filter((tick) => tick >= low && tick <= high);
  });
  return found.filter((one) => one.length <= most).at(-1) ?? found[0];
}

function horizontal(ends) {
  const title = `Latency: p${state.percentile}${state.at === 'bound' ? ' at most' : ''}, ms`;
  const common = { title: { text: title, standoff: 12, font: { size: 13 } }, tickangle: 0, ...lines() };
  if (state.scale === 'linear') return { ...common, type: 'linear', range: ends };
  const at = ticks(ends);
  return { ...common, type: 'log', range: ends.map(Math.log10), tickmode: 'array', tickvals: at, ticktext: at.map(String) };
}

function lines() {
  return { gridcolor: cssColour('--grid'), linecolor: cssColour('--line'), zeroline: false, showline: true, ticks: 'outside', tickcolor: cssColour('--line') };
}

function budgetMark() {
  if (state.budget === null) return {};
  const at = { x: state.budget, yref: 'paper', line: { color: cssColour('--warn'), width: 2, dash: 'dash' } };
  const x = state.scale === 'log' ? Math.log10(state.budget) : state.budget;
  return {
    shapes: [{ type: 'line', x0: at.x, x1: at.x, y0: 0, y1: 1, yref: 'paper', line: at.line }],
    annotations: [{ x, y: 1, yref: 'paper', yanchor: 'bottom', showarrow: false, text: `budget ${short(state.budget)} ms`, font: { color: cssColour('--warn'), size: 12 } }],
  };
}

/** What of both axes is seen, and how large that is, in pixels. */
function viewOf(entries) {
  const margin = window.innerWidth <= NARROW ? { l: 46, r: 12, t: 26, b: 52 } : { l: 58, r: 22, t: 26, b: 54 };
  const heights = entries.map((entry) => entry.top1_percent);
  const [low, high] = [heights.reduce((a, b) => Math.min(a, b), 100), heights.reduce((a, b) => Math.max(a, b), 0)];
  const room = Math.max(0.6, (high - low) * 0.08);
  const y = entries.length ? [low - room, high + 1.3 * room] : [0, 100];
  return { x: reach(entries), y, margin, width: CHART.clientWidth - margin.l - margin.r, height: CHART.clientHeight - margin.t - margin.b };
}

function layout({ x, y, margin }) {
  const narrow = window.innerWidth <= NARROW;
  return {
    autosize: true,
    margin,
    paper_bgcolor: 'rgba(0,0,0,0)',
    plot_bgcolor: 'rgba(0,0,0,0)',
    font: { family: FONT, size: narrow ? 12 : 13, color: cssColour('--muted') },
    showlegend: false,
    hovermode: 'closest',
    hoverlabel: { bgcolor: cssColour('--card'), bordercolor: cssColour('--muted'), font: { family: FONT, size: 13, color: cssColour('--ink') }, align: 'left' },
    dragmode: window.matchMedia('(pointer: coarse)').matches ? false : 'zoom',
    xaxis: horizontal(x),
    yaxis: { title: { text: 'Top-1 accuracy, %', standoff: 8, font: { size: 13 } }, automargin: true, ...lines(), range: y },
    ...budgetMark(),
  };
}

const CONFIG = {
  responsive: true,
  displaylogo: false,
  displayModeBar: 'hover',
  modeBarButtons: [['zoomIn2d', 'zoomOut2d', 'resetScale2d', 'toImage']],
  toImageButtonOptions: { filename: 'edgevit-report', scale: 2 },
};

function drawChart() {
  if (!plotly) return;
  const drawn = shown().filter(isDrawn);
  const grouped = groups();
  const colours = [...new Set(drawn.map((entry) => colourOf(entry, grouped)))].sort();
  const view = viewOf(drawn);
  const found = fronts(drawn);
  const leading = new Set(found.flatMap(([, line]) => line));
  const traces = found.map((one, number) => steps(one, number, found.length > 1, view));
  for (const colour of colours) traces.push(points(drawn.filter((entry) => colourOf(entry, grouped) === colour), colour, leading));
  if (found.length === 1 && window.innerWidth > NARROW) traces.push(names(found[0][1], view));
  if (state.selected && drawn.includes(state.selected)) traces.push(ring(state.selected));
  plotly.react(CHART, traces, layout(view), CONFIG);
}

function drawLegend() {
  const drawn = shown().filter(isDrawn);
  const grouped = groups();
  const list = (what, items) => (items.length ? el('ul', { 'aria-label': what }, el('li', { class: 'what' }, what), items) : null);
  const present = (values, of) => values.filter((value) => drawn.some((entry) => of(entry) === value));
  const colours = present(grouped.values, grouped.of).map((value) => {
    const number = grouped.values.indexOf(value);
    return el('li', {}, icon(state.colour === 'target' ? shape(value) : 'circle', colourName(number)), grouped.name(value));
  });
  const targets = state.colour === 'target' ? [] : present(TARGETS, (entry) => entry.target).map((target) => el('li', {}, icon(shape(target), '--ink'), target));
  const origins = present(ORIGINS, (entry) => entry.provenance).map((origin) => el('li', {}, icon('circle', '--ink', origin), origin));
  const found = fronts(drawn);
  const lines = found.map(([device], number) => el('li', {}, dash(number, lineColour(device, found.length > 1), found.length > 1), found.length > 1 ? REPORT.devices[device].label : 'beaten by none'));
  byId('legend').replaceChildren(...[list(state.colour, colours), list('target', targets), list('origin', origins), list('front', lines)].filter(Boolean));
}

const STROKES = ['', '6 4', '2 3', '6 3 2 3', '10 4', '10 3 2 3']; // as DASHES

function dash(number, colour, several) {
  const stroke = several ? STROKES[number % STROKES.length] : '';
  return svg('svg', { class: 'icon line', viewBox: '0 0 28 16', 'aria-hidden': 'true' },
    svg('path', { d: 'M0,8H28', style: `stroke: var(${colour}); stroke-width: 2; stroke-dasharray: ${stroke || 'none'}` }));
}

function chartNotes() {
  const entries = shown();
  const usable = entries.filter((entry) => entry.usable);
  const silent = usable.filter((entry) => entry.top1_percent === null).length;
  const boundless = usable.filter((entry) => entry.top1_percent !== null && placed(entry) === null).length;
  const notes = [];
  if (!entries.length) notes.push('No row passes the filters.');
  else if (!usable.some(isDrawn)) notes.push('Of the rows shown none can be drawn.');
  if (silent) notes.push(`${count(silent, 'row has', 'rows have')} no known accuracy and ${silent === 1 ? 'is' : 'are'} in the table only.`);
  if (boundless) notes.push(`${count(boundless, 'row tells', 'rows tell')} no ${state.at === 'bound' ? 'bound on ' : ''}p${state.percentile} and ${boundless === 1 ? 'is' : 'are'} in the table only.`);
  byId('chart-notes').replaceChildren(...notes.map((note) => el('li', {}, note)));
}

function picks() {
  const box = byId('picks');
  if (state.budget === null) { box.replaceChildren(); return; }
  const told = fronts(shown()).map(([device, line]) => {
    const found = pick(line, state.budget);
    const says = found ? [selector(found), `, ${found.target} ${found.precision}, ${threads(found)}: top-1 ${accuracy(found)}%, ${state.at === 'bound' && found.latency_provenance !== 'published' ? 'at most ' : ''}${short(placed(found))} ms (${found.provenance})`] : ['nothing shown fits'];
    return el('p', {}, el('b', {}, REPORT.devices[device].label), `: `, says);
  });
  byId('picks').replaceChildren(el('p', { class: 'muted' }, `Most accurate within ${short(state.budget)} ms at p${state.percentile}:`), ...told);
}

/** Plotly out of its compressed block. It is a script of the page only because its digest is in the page's policy. */
async function unpack() {
  const packed = Uint8Array.from(atob(byId('library').textContent.trim()), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream('gzip'));
  document.head.append(el('script', {}, await new Response(stream).text()));
  plotly = window.Plotly;
  CHART.replaceChildren();
  drawChart();
  CHART.on('plotly_click', ({ points: [point] }) => {
    if (point.customdata !== undefined) select(REPORT.entries[point.customdata]);
  });
  document.documentElement.dataset.drawn = Math.round(performance.now());
}

listeners.push(drawLegend, chartNotes, picks, drawChart);
