// Around the chart: the legend of its points, the rows it leaves out, and the picks within the budget.

function drawLegend() {
  const drawn = shown().filter(isDrawn);
  const grouped = groups();
  const list = (title, items) =>
    items.length ? el('ul', { 'aria-label': title }, el('li', { class: 'what' }, title), items) : null;
  const present = (values, of) => values.filter((value) => drawn.some((entry) => of(entry) === value));
  const colours = present(grouped.values, grouped.of).map((value) => {
    const number = grouped.values.indexOf(value);
    return el(
      'li',
      {},
      icon(state.colour === 'target' ? shape(value) : 'circle', colourName(number)),
      grouped.name(value),
    );
  });
  const targets =
    state.colour === 'target'
      ? []
      : present(TARGETS, (entry) => entry.target).map((target) => el('li', {}, icon(shape(target), '--ink'), target));
  const origins = present(ORIGINS, (entry) => entry.provenance).map((origin) =>
    el('li', {}, icon('circle', '--ink', origin), origin),
  );
  const drawnFronts = fronts();
  const several = drawnFronts.length > 1;
  const lines = drawnFronts.map(([device], number) =>
    el(
      'li',
      {},
      dash(number, lineColour(device, several), several),
      several ? REPORT.devices[device].label : 'on the front',
    ),
  );
  byId('legend').replaceChildren(
    ...[list(state.colour, colours), list('target', targets), list('origin', origins), list('front', lines)].filter(
      Boolean,
    ),
  );
}

// The strokes of DASHES.
const STROKES = ['', '6 4', '2 3', '6 3 2 3', '10 4', '10 3 2 3'];

function dash(number, colour, several) {
  const stroke = several ? STROKES[number % STROKES.length] : '';
  return svg(
    'svg',
    { class: 'icon line', viewBox: '0 0 28 16', 'aria-hidden': 'true' },
    svg('path', {
      d: 'M0,8H28',
      style: `stroke: var(${colour}); stroke-width: 2; stroke-dasharray: ${stroke || 'none'}`,
    }),
  );
}

function chartNotes() {
  const entries = shown();
  const usable = entries.filter((entry) => entry.usable);
  const silent = usable.filter((entry) => entry.top1_percent === null).length;
  const boundless = usable.filter((entry) => entry.top1_percent !== null && placed(entry) === null).length;
  const notes = [];
  if (!entries.length) notes.push('No row passes the filters.');
  else if (!usable.some(isDrawn)) notes.push('Of the rows shown none can be drawn.');
  if (silent)
    notes.push(
      `${count(silent, 'row has', 'rows have')} no known accuracy and ${silent === 1 ? 'is' : 'are'} in the table only.`,
    );
  const rebuilt = isOn('accuracy', REBUILT) ? 0 : shown('accuracy').filter(isRebuilt).length;
  if (rebuilt)
    notes.push([
      `${count(rebuilt, 'row', 'rows')} of models that were reconstructed from papers ${rebuilt === 1 ? 'is' : 'are'} left out, as edgevit choose leaves them out: their weights were not published. `,
      switchTo('accuracy', REBUILT, true, 'Show them'),
    ]);
  if (boundless)
    notes.push(
      `${count(boundless, 'row reports', 'rows report')} no ${state.at === 'bound' ? 'bound on ' : ''}p${state.percentile} and ${boundless === 1 ? 'is' : 'are'} in the table only.`,
    );
  byId('chart-notes').replaceChildren(...notes.map((note) => el('li', {}, note)));
}

function isRebuilt(entry) {
  return entry.usable && entry.top1_provenance === REBUILT;
}

/** Return a button in a sentence that sets a filter. */
function switchTo(key, value, on, text) {
  return el('button', { type: 'button', class: 'inline', onclick: () => turn(key, value, on) }, text);
}

function drawPicks() {
  const box = byId('picks');
  if (state.budget === null) {
    box.replaceChildren();
    return;
  }
  const lines = picks().map(([device, entry]) => {
    return el('p', {}, el('b', {}, REPORT.devices[device].label), `: `, pickWords(entry));
  });
  const lead = `Most accurate within ${short(state.budget)} ms at p${state.percentile}, by its upper bound${provenanceOfPicks()}:`;
  box.replaceChildren(...(lines.length ? [el('p', { class: 'muted' }, lead), ...lines] : []), ...unanswered());
}

/** Return a device's pick in words; as for `edgevit choose`, nothing of unknown accuracy is chosen. */
function pickWords(entry) {
  if (!entry) return ['nothing shown fits'];
  const lead = entry.top1_percent === null ? ['nothing is chosen, as no accuracy is known of what fits; the fastest is '] : [];
  return [...lead, selector(entry), pickFacts(entry)];
}

function pickFacts(entry) {
  const times = latency(entry, state.percentile);
  const rated = entry.top1_percent === null ? 'top-1 not known' : `top-1 ${accuracy(entry)}%`;
  const bound = `${times.upper_ms === null ? '' : 'at most '}${short(times.held_ms)} ms`;
  const basis = times.basis ? `predicted: ${restsOn(times.basis)}` : origin(entry);
  return `${weights(entry)}, ${entry.target} ${entry.precision}, ${threads(entry)}: ${rated}, ${bound} (${basis})`;
}

/** Return whether predictions count, where the report has any. */
function provenanceOfPicks() {
  if (!REPORT.entries.some(isPredicted)) return '';
  return isOn('latency', 'predicted') ? ', measured or predicted' : ', without predictions';
}

listeners.push(drawLegend, chartNotes, drawPicks);
