// The axes of the chart: their ranges, their ticks, and the size of the chart.

// Windows of at most so many pixels are narrow.
const NARROW = 640;
const FONT = 'system-ui, "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans", Arial, sans-serif';
const TICKS = [
  [1],
  [1, 2, 5],
  [1, 1.5, 2, 3, 4, 5, 6, 8],
  [1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 3.5, 4, 4.5, 5, 6, 7, 8, 9],
];
const MOST_TICKS = { narrow: 6, wide: 12 };

/** Return the ends of the horizontal axis: they hold all bars, the budget, and room for names on the left. */
function reach(entries) {
  const latencies = entries.map((entry) => latency(entry, state.percentile));
  const ends = [
    ...entries.map(placed),
    ...latencies.map(({ high_ms: high }, i) => high ?? placed(entries[i])),
    ...latencies.map(({ low_ms: low }, i) => low ?? placed(entries[i])),
  ];
  if (state.budget !== null) ends.push(state.budget);
  const [low, high] = [ends.reduce((a, b) => Math.min(a, b), Infinity), ends.reduce((a, b) => Math.max(a, b), 0)];
  if (!ends.length) return [1, 100];
  if (state.scale === 'linear') return [0, high * 1.08];
  const room = Math.max(1.25, (high / low) ** 0.1);
  return [low / room ** 1.6, high * room];
}

/** Return the finest plain numbers along a logarithmic axis that leave each other room. */
function ticks([low, high]) {
  const most = MOST_TICKS[window.innerWidth <= NARROW ? 'narrow' : 'wide'];
  const series = TICKS.map((digits) => {
    const powers = Array.from(
      { length: Math.floor(Math.log10(high)) - Math.floor(Math.log10(low)) + 1 },
      (_, i) => Math.floor(Math.log10(low)) + i,
    );
    return powers
      .flatMap((power) => digits.map((digit) => Number((digit * 10 ** power).toPrecision(3))))
      .filter((tick) => tick >= low && tick <= high);
  });
  return series.filter((numbers) => numbers.length <= most).at(-1) ?? series[0];
}

function horizontal(ends) {
  const title = `Latency: p${state.percentile}${state.at === 'bound' ? ' upper bound' : ''}, ms`;
  const common = { title: { text: title, standoff: 12, font: { size: 13 } }, tickangle: 0, ...lines() };
  if (state.scale === 'linear') return { ...common, type: 'linear', range: ends };
  const positions = ticks(ends);
  return {
    ...common,
    type: 'log',
    range: ends.map(Math.log10),
    tickmode: 'array',
    tickvals: positions,
    ticktext: positions.map(String),
  };
}

function lines() {
  return {
    gridcolor: cssColour('--grid'),
    linecolor: cssColour('--line'),
    zeroline: false,
    showline: true,
    ticks: 'outside',
    tickcolor: cssColour('--line'),
  };
}

function budgetMark() {
  if (state.budget === null) return {};
  const line = { color: cssColour('--warn'), width: 2, dash: 'dash' };
  const x = state.scale === 'log' ? Math.log10(state.budget) : state.budget;
  return {
    shapes: [{ type: 'line', x0: state.budget, x1: state.budget, y0: 0, y1: 1, yref: 'paper', line }],
    annotations: [
      {
        x,
        y: 1,
        yref: 'paper',
        yanchor: 'bottom',
        showarrow: false,
        text: `budget ${short(state.budget)} ms`,
        font: { color: cssColour('--warn'), size: 12 },
      },
    ],
  };
}

/** Return the ranges of both axes, and the size of the plot in pixels. */
function viewOf(entries) {
  const margin = window.innerWidth <= NARROW ? { l: 58, r: 12, t: 26, b: 52 } : { l: 64, r: 22, t: 26, b: 54 };
  const heights = entries.map((entry) => entry.top1_percent);
  const [low, high] = [heights.reduce((a, b) => Math.min(a, b), 100), heights.reduce((a, b) => Math.max(a, b), 0)];
  const room = Math.max(0.6, (high - low) * 0.08);
  const y = entries.length ? [low - room, high + 1.3 * room] : [0, 100];
  return {
    x: reach(entries),
    y,
    margin,
    width: CHART.clientWidth - margin.l - margin.r,
    height: CHART.clientHeight - margin.t - margin.b,
  };
}

function layout({ x, y, margin }) {
  const narrow = window.innerWidth <= NARROW;
  return {
    width: CHART.clientWidth,
    height: CHART.clientHeight,
    margin,
    paper_bgcolor: 'rgba(0,0,0,0)',
    plot_bgcolor: 'rgba(0,0,0,0)',
    font: { family: FONT, size: narrow ? 12 : 13, color: cssColour('--muted') },
    showlegend: false,
    hovermode: 'closest',
    hoverlabel: {
      bgcolor: cssColour('--card'),
      bordercolor: cssColour('--muted'),
      font: { family: FONT, size: 13, color: cssColour('--ink') },
      align: 'left',
    },
    dragmode: window.matchMedia('(pointer: coarse)').matches ? false : 'zoom',
    xaxis: horizontal(x),
    yaxis: {
      title: { text: 'Top-1 accuracy, %', standoff: 8, font: { size: 13 } },
      ...lines(),
      range: y,
    },
    ...budgetMark(),
  };
}
