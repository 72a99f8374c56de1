// Points: the shape tells the target, the filling the origin, the colour a chosen group. Names are Plotly's.

const SHAPES = [
  'circle',
  'square',
  'diamond',
  'triangle-up',
  'hexagon',
  'triangle-down',
  'cross',
  'star',
  'pentagon',
  'x',
];
const FILLINGS = { measured: '', reconstructed: '-dot', predicted: '-open-dot', published: '-open' };
const COLOURS = 8;

const TARGETS = [...new Set(REPORT.entries.map((entry) => entry.target))].sort();

function shape(target) {
  return SHAPES[TARGETS.indexOf(target) % SHAPES.length];
}

function symbol(entry) {
  return shape(entry.target) + FILLINGS[entry.provenance];
}

/** Return the name of the colour of the n-th group; beyond the last colour all are "other". */
function colourName(number) {
  return number >= 0 && number < COLOURS ? `--c${number}` : '--other';
}

const probe = el('span', { hidden: true });
document.body.append(probe);

/** Return a colour of the style sheet in the present theme. */
function cssColour(name) {
  probe.style.color = `var(${name})`;
  return getComputedStyle(probe).color;
}

function corners(sides, radius, turn, inner = 1) {
  const points = [];
  const steps = inner === 1 ? sides : 2 * sides;
  for (let i = 0; i < steps; i += 1) {
    const angle = turn + (2 * Math.PI * i) / steps;
    const r = inner === 1 || i % 2 === 0 ? radius : radius * inner;
    points.push(`${(r * Math.cos(angle)).toFixed(2)},${(r * Math.sin(angle)).toFixed(2)}`);
  }
  return `M${points.join('L')}Z`;
}

const UP = -Math.PI / 2;
const CROSS = 'M-2,-6H2V-2H6V2H2V6H-2V2H-6V-2H-2Z';
const PATHS = {
  circle: 'M6,0A6,6 0 1,1 -6,0A6,6 0 1,1 6,0Z',
  square: 'M-5,-5H5V5H-5Z',
  diamond: corners(4, 7, UP),
  'triangle-up': corners(3, 7, UP),
  'triangle-down': corners(3, 7, -UP),
  hexagon: corners(6, 6.5, UP),
  star: corners(5, 7.5, UP, 0.45),
  cross: CROSS,
  pentagon: corners(5, 6.5, UP),
  x: CROSS,
};

/** Return a point as the chart draws it, for legends and tables. */
function icon(shapeName, colour, origin = 'measured') {
  const open = FILLINGS[origin].includes('open');
  const dot = FILLINGS[origin].includes('dot');
  const path = svg('path', {
    d: PATHS[shapeName],
    transform: shapeName === 'x' ? 'rotate(45)' : null,
    style: `fill: ${open ? 'none' : `var(${colour})`}; stroke: var(${colour}); stroke-width: 1.6`,
  });
  const middle = dot && svg('circle', { r: 1.8, style: `fill: var(${open ? colour : '--card'})` });
  return svg('svg', { class: 'icon', viewBox: '-8 -8 16 16', 'aria-hidden': 'true' }, path, middle || null);
}
