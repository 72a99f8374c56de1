// The scatter, drawn by Plotly. Plotly takes markup in texts, so that every name is escaped on its way there.

const CHART = byId('chart');
const NARROW = 640; // pixels of the window
const DASHES = ['solid', 'dash', 'dot', 'dashdot', 'longdash', 'longdashdot'];
const LABELLED = 12; // corners of a front with names beside them
const FONT = 'system-ui, "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans", Arial, sans-serif';
const TICKS = [[1], [1, 2, 5], [1, 1.5, 2, 3, 4, 5, 6, 8], [1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 3.5, 4, 4.5, 5, 6, 7, 8, 9]];
const LEAST_TICKS = 5;

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

/** The points of one colour with their bars. */
function points(entries, colour) {
  const x = entries.map(placed);
  const told = entries.map((entry) => latency(entry, state.percentile));
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
      size: entries.length > 400 ? 8 : 11,
      line: { width: entries.map((entry) => (entry.provenance === 'reconstructed' ? 1.5 : 1.2)), color: entries.map((entry) => cssColour(entry.provenance === 'reconstructed' ? '--card' : colour)) },
    },
    error_x: {
      type: 'data',
      symmetric: false,
      array: told.map(({ upper_ms: upper }, i) => Math.max(0, (upper ?? x[i]) - x[i])),
      arrayminus: told.map(({ low_ms: low }, i) => Math.max(0, x[i] - (low ?? x[i]))),
      color: cssColour(colour),
      thickness: 1.2,
      width: 3,
    },
  };
}

/** The stepped line of one device's front, on to the right edge, with names at its corners where there is room. */
function steps([device, line], number, right, several) {
  const named = !several && line.length <= LABELLED && window.innerWidth > NARROW;
  const colour = cssColour(several && state.colour === 'device' ? colourName(VALUES.device.findIndex(([value]) => value === device)) : '--ink');
  const last = line.at(-1);
  return [{
    type: 'scatter',
    mode: 'lines',
    name: `front ${REPORT.devices[device].label}`,
    x: [...line.map(placed), right],
    y: [...line.map((entry) => entry.top1_percent), last.top1_percent],
    line: { shape: 'hv', width: 1.8, color: colour, dash: several ? DASHES[number % DASHES.length] : 'solid' },
    opacity: 0.75,
    hoverinfo: 'skip',
  }, {
    type: 'scatter',
    mode: 'text',
    name: 'names',
    x: named ? line.map(placed) : several ? [right] : [],
    y: named ? line.map((entry) => entry.top1_percent) : several ? [last.top1_percent] : [],
    text: named ? line.map((entry) => `${escaped(entry.model)}  `) : several ? [`${escaped(REPORT.devices[device].label)} `] : [],
    textposition: 'top left',
    textfont: { size: 12, color: colour, family: FONT },
    cliponaxis: false,
    hoverinfo: 'skip',
  }];
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

function ticks([low, high]) {
  for (const digits of TICKS) {
    const found = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power += 1) {
      found.push(...digits.map((digit) => Number((digit * 10 ** power).toPrecision(3))).filter((tick) => tick >= low && tick <= high));
    }
    if (found.length >= LEAST_TICKS || digits === TICKS.at(-1)) return found;
  }
  return [];
}

function horizontal(ends) {
  const bound = state.at === 'bound' ? `at most, ms (bound on p${state.percentile})` : `p${state.percentile}, ms`;
  const common = { title: { text: `Latency: ${bound}`, standoff: 12 }, ...lines() };
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

function layout(entries, ends) {
  const narrow = window.innerWidth <= NARROW;
  const heights = entries.map((entry) => entry.top1_percent);
  const [low, high] = [heights.reduce((a, b) => Math.min(a, b), 100), heights.reduce((a, b) => Math.max(a, b), 0)];
  const room = Math.max(0.6, (high - low) * 0.09);
  return {
    autosize: true,
    margin: { l: narrow ? 44 : 56, r: narrow ? 12 : 22, t: 26, b: 52 },
    paper_bgcolor: 'rgba(0,0,0,0)',
    plot_bgcolor: 'rgba(0,0,0,0)',
    font: { family: FONT, size: narrow ? 12 : 13, color: cssColour('--muted') },
    showlegend: false,
    hovermode: 'closest',
    hoverlabel: { bgcolor: cssColour('--card'), bordercolor: cssColour('--muted'), font: { family: FONT, size: 13, color: cssColour('--ink') }, align: 'left' },
    dragmode: window.matchMedia('(pointer: coarse)').matches ? false : 'zoom',
    xaxis: horizontal(ends),
    yaxis: { title: { text: 'Top-1 accuracy, %', standoff: 8 }, ...lines(), range: entries.length ? [low - room, Math.min(100.5, high + 1.4 * room)] : [0, 100] },
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
  const ends = reach(drawn);
  const found = fronts(drawn).filter(([, line]) => line.length);
  const traces = found.flatMap((one, number) => steps(one, number, state.scale === 'log' ? ends[1] * 0.995 : ends[1], found.length > 1));
  for (const colour of colours) traces.push(points(drawn.filter((entry) => colourOf(entry, grouped) === colour), colour));
  if (state.selected && drawn.includes(state.selected)) traces.push(ring(state.selected));
  plotly.react(CHART, traces, layout(drawn, ends), CONFIG);
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
  byId('legend').replaceChildren(...[list(state.colour, colours), list('target', targets), list('origin', origins)].filter(Boolean));
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
