// Around the chart: what its points mean, which rows it leaves out, and what fits the budget.

function drawLegend() {
  const drawn = shown().filter(isDrawn);
  const grouped = groups();
  const list = (what, items) =>
    items.length ? el('ul', { 'aria-label': what }, el('li', { class: 'what' }, what), items) : null;
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
  const found = fronts();
  const lines = found.map(([device], number) =>
    el(
      'li',
      {},
      dash(number, lineColour(device, found.length > 1), found.length > 1),
      found.length > 1 ? REPORT.devices[device].label : 'beaten by none',
    ),
  );
  byId('legend').replaceChildren(
    ...[list(state.colour, colours), list('target', targets), list('origin', origins), list('front', lines)].filter(
      Boolean,
    ),
  );
}

const STROKES = ['', '6 4', '2 3', '6 3 2 3', '10 4', '10 3 2 3']; // as DASHES

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
      `${count(rebuilt, 'row', 'rows')} of models that were reconstructed from papers ${rebuilt === 1 ? 'is' : 'are'} left out, as edgevit choose leaves them out: nobody published weights. `,
      switchTo('accuracy', REBUILT, true, 'Show them'),
    ]);
  if (boundless)
    notes.push(
      `${count(boundless, 'row tells', 'rows tell')} no ${state.at === 'bound' ? 'bound on ' : ''}p${state.percentile} and ${boundless === 1 ? 'is' : 'are'} in the table only.`,
    );
  byId('chart-notes').replaceChildren(...notes.map((note) => el('li', {}, note)));
}

function isRebuilt(entry) {
  return entry.usable && entry.top1_provenance === REBUILT;
}

/** A filter as a button in a sentence. */
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
    const answer = entry ? [selector(entry), pickFacts(entry)] : ['nothing shown fits'];
    return el('p', {}, el('b', {}, REPORT.devices[device].label), `: `, answer);
  });
  const lead = `Most accurate within ${short(state.budget)} ms at p${state.percentile}, by what it is at most${wherefrom()}:`;
  box.replaceChildren(...(lines.length ? [el('p', { class: 'muted' }, lead), ...lines] : []), ...unanswered());
}

function pickFacts(found) {
  const told = latency(found, state.percentile);
  const rated = found.top1_percent === null ? 'top-1 not known' : `top-1 ${accuracy(found)}%`;
  const bound = `${told.upper_ms === null ? '' : 'at most '}${short(told.held_ms)} ms`;
  const basis = told.basis ? `predicted: ${restsOn(told.basis)}` : origin(found);
  return `, ${found.target} ${found.precision}, ${threads(found)}: ${rated}, ${bound} (${basis})`;
}

/** Whether what is predicted counts, where anything is. */
function wherefrom() {
  if (!REPORT.entries.some(isPredicted)) return '';
  return isOn('latency', 'predicted') ? ', measured or predicted' : ', without predictions';
}

listeners.push(drawLegend, chartNotes, drawPicks);
