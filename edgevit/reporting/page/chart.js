// The scatter, which Plotly draws once its library has been unpacked.

const CHART = byId('chart');
// A chart of fewer pixels belongs to a window that is being resized, and Plotly cannot place a title in it.
const LEAST_WIDTH = 160;
// Null until the library has been unpacked.
let plotly = null;

const CONFIG = {
  displaylogo: false,
  displayModeBar: 'hover',
  modeBarButtons: [['zoomIn2d', 'zoomOut2d', 'resetScale2d', 'toImage']],
  toImageButtonOptions: { filename: 'edgevit-report', scale: 2 },
};

/** Draw the chart again when its box has another size. Plotly's own way measures before the style has followed. */
const resizing = new ResizeObserver(() => {
  const { width, height } = CHART.layout ?? {};
  if (width !== CHART.clientWidth || height !== CHART.clientHeight) drawChart();
});

function drawChart() {
  if (!plotly || CHART.clientWidth < LEAST_WIDTH) return;
  const drawn = shown().filter(isDrawn);
  const grouped = groups();
  const colours = [...new Set(drawn.map((entry) => colourOf(entry, grouped)))].sort();
  const view = viewOf(drawn);
  const lines = fronts();
  const leading = new Set(lines.flatMap(([, line]) => line));
  const traces = lines.map((line, number) => steps(line, number, lines.length > 1, view));
  for (const colour of colours)
    traces.push(
      points(
        drawn.filter((entry) => colourOf(entry, grouped) === colour),
        colour,
        leading,
      ),
    );
  if (lines.length === 1 && window.innerWidth > NARROW) traces.push(names(lines[0][1], view));
  const picked = picks().map(([, entry]) => entry);
  traces.push(rings('picked', picked.filter((entry) => entry && isDrawn(entry)), '--warn', 24));
  if (state.selected && drawn.includes(state.selected)) traces.push(rings('selected', [state.selected], '--ink', 22));
  plotly.react(CHART, traces, layout(view), CONFIG);
}

/** Unpack Plotly and run it, which the page's policy allows because it lists the script's digest. */
async function unpack() {
  const packed = Uint8Array.from(atob(byId('library').textContent.trim()), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream('gzip'));
  document.head.append(el('script', {}, await new Response(stream).text()));
  plotly = window.Plotly;
  CHART.replaceChildren();
  drawChart();
  resizing.observe(CHART);
  CHART.on('plotly_click', ({ points: [point] }) => {
    if (point.customdata !== undefined) select(REPORT.entries[point.customdata]);
  });
  document.documentElement.dataset.drawn = Math.round(performance.now());
}

listeners.push(drawChart);
