// The scatter: drawn by Plotly, as soon as its library has been unpacked.

const CHART = byId('chart');
const LEAST_WIDTH = 160; // pixels; less is a window on its way to another size, and Plotly cannot place a title in it
let plotly = null; // until then

const CONFIG = {
  displaylogo: false,
  displayModeBar: 'hover',
  modeBarButtons: [['zoomIn2d', 'zoomOut2d', 'resetScale2d', 'toImage']],
  toImageButtonOptions: { filename: 'edgevit-report', scale: 2 },
};

/** Drawn again where its place has another size. Plotly's own way to do so measures before the style has followed. */
const place = new ResizeObserver(() => {
  const { width, height } = CHART.layout ?? {};
  if (width !== CHART.clientWidth || height !== CHART.clientHeight) drawChart();
});

function drawChart() {
  if (!plotly || CHART.clientWidth < LEAST_WIDTH) return;
  const drawn = shown().filter(isDrawn);
  const grouped = groups();
  const colours = [...new Set(drawn.map((entry) => colourOf(entry, grouped)))].sort();
  const view = viewOf(drawn);
  const found = fronts();
  const leading = new Set(found.flatMap(([, line]) => line));
  const traces = found.map((one, number) => steps(one, number, found.length > 1, view));
  for (const colour of colours)
    traces.push(
      points(
        drawn.filter((entry) => colourOf(entry, grouped) === colour),
        colour,
        leading,
      ),
    );
  if (found.length === 1 && window.innerWidth > NARROW) traces.push(names(found[0][1], view));
  const picked = picks().map(([, entry]) => entry);
  traces.push(rings('picked', picked.filter((entry) => entry && isDrawn(entry)), '--warn', 24));
  if (state.selected && drawn.includes(state.selected)) traces.push(rings('selected', [state.selected], '--ink', 22));
  plotly.react(CHART, traces, layout(view), CONFIG);
}

/** Plotly out of its compressed block. It is a script of the page only because its digest is in the page's policy. */
async function unpack() {
  const packed = Uint8Array.from(atob(byId('library').textContent.trim()), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream('gzip'));
  document.head.append(el('script', {}, await new Response(stream).text()));
  plotly = window.Plotly;
  CHART.replaceChildren();
  drawChart();
  place.observe(CHART);
  CHART.on('plotly_click', ({ points: [point] }) => {
    if (point.customdata !== undefined) select(REPORT.entries[point.customdata]);
  });
  document.documentElement.dataset.drawn = Math.round(performance.now());
}

listeners.push(drawChart);
