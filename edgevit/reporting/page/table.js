// The table of all rows, which sorts, and the table of the front.

const HIGH_FIRST = new Set(['top1']);
const GRADES = ['A', 'B', 'C', 'D', ''];
const NO_FRONT = 'There is no front: no row shown has both an accuracy and a latency.';

/** Return the columns: key, heading, sort key, cell; number: right-aligned; wide: not on a phone. */
function columns(entries) {
  const times = (entry) => latency(entry, state.percentile);
  const digits = decimals(
    entries.flatMap((entry) => [times(entry).ms, times(entry).upper_ms]).filter((value) => value !== null),
  );
  const fixed = (value) => (value === null ? '' : value.toFixed(digits));
  const shares = mostDigits(entries.map(accuracy));
  const all = [
    { key: 'model', title: 'Model', sort: (entry) => entry.model.toLowerCase(), cell: modelCell, kind: 'model' },
    {
      key: 'device',
      title: 'Device',
      sort: (entry) => deviceOf(entry).toLowerCase(),
      cell: deviceOf,
      wide: true,
      kind: 'device',
    },
    {
      key: 'weights',
      title: 'Weights',
      sort: (entry) => entry.weights.toLowerCase(),
      cell: (entry) => breakable(entry.weights),
      wide: true,
    },
    { key: 'target', title: 'Target', sort: (entry) => entry.target, cell: (entry) => entry.target, wide: true },
    {
      key: 'precision',
      title: 'Precision',
      sort: (entry) => entry.precision,
      cell: (entry) => entry.precision,
      wide: true,
    },
    {
      key: 'threads',
      title: 'Threads',
      sort: (entry) => entry.threads || null,
      cell: (entry) => entry.threads || '',
      number: true,
      wide: true,
    },
    {
      key: 'top1',
      title: 'Top-1, %',
      sort: (entry) => entry.top1_percent,
      cell: (entry) => aligned(accuracy(entry), shares),
      number: true,
    },
    {
      key: 'latency',
      title: `p${state.percentile}, ms`,
      sort: (entry) => times(entry).ms,
      cell: (entry) => fixed(times(entry).ms),
      number: true,
      wide: true,
    },
    {
      key: 'bound',
      title: 'At most, ms',
      sort: (entry) => times(entry).upper_ms,
      cell: (entry) => fixed(times(entry).upper_ms),
      number: true,
    },
    {
      key: 'size',
      title: 'Size, MB',
      sort: (entry) => entry.size_mb,
      cell: (entry) => (entry.size_mb === null ? '' : entry.size_mb.toFixed(1)),
      number: true,
      wide: true,
    },
    {
      key: 'grade',
      title: 'Grade',
      sort: (entry) => GRADES.indexOf(entry.grade),
      cell: (entry) => (entry.grade ? el('span', { class: 'badge' }, entry.grade) : ''),
      wide: true,
    },
    {
      key: 'proof',
      title: 'Proof',
      sort: (entry) => entry.parity_status,
      cell: (entry) => entry.parity_status || (isPredicted(entry) ? 'not exported' : UNKNOWN),
      wide: true,
    },
    {
      key: 'origin',
      title: 'Origin',
      sort: (entry) => ORIGINS.indexOf(entry.provenance),
      cell: origin,
      wide: true,
    },
    {
      key: 'from',
      title: 'From',
      sort: (entry) => entry.origin.toLowerCase(),
      cell: (entry) => breakable(entry.origin || OWN),
      wide: true,
    },
    {
      key: 'measured',
      title: 'Date',
      sort: (entry) => entry.measured || null,
      cell: (entry) =>
        entry.measured
          ? el('span', { style: 'white-space: nowrap' }, day(entry.measured))
          : isPredicted(entry)
            ? ''
            : UNKNOWN,
      wide: true,
    },
    { key: 'reason', title: 'Why not', sort: (entry) => entry.reason, cell: (entry) => entry.reason, wide: true },
  ];
  const spare = new Set([...['device', 'precision'].filter(isAlike), state.unusable ? '' : 'reason', REPORT.entries.some((entry) => entry.weights) ? '' : 'weights', REPORT.entries.some((entry) => entry.origin) ? '' : 'from']);
  return all.filter(({ key }) => !spare.has(key));
}

/** Return whether all rows of the report are alike in this, so that a column of it is idle. */
function isAlike(key) {
  return VALUES[key].length === 1;
}

/** Return a button that selects a row. */
function selector(entry) {
  return el('button', { type: 'button', class: 'pick', 'data-row': entry.index, onclick: () => select(entry, true) }, breakable(entry.model));
}

function modelCell(entry) {
  const grouped = groups();
  const times = latency(entry, state.percentile);
  const withoutBound = times.upper_ms === null && times.ms !== null ? `p${state.percentile} ${short(times.ms)} ms, no bound` : '';
  const under = [
    withoutBound,
    REPORT.devices.length > 1 ? deviceOf(entry) : '',
    `${entry.target} ${entry.precision}`,
    threads(entry),
    entry.provenance === 'measured' ? '' : origin(entry),
    entry.origin,
    entry.reason,
  ];
  return [
    icon(shape(entry.target), colourOf(entry, grouped), entry.provenance),
    ' ',
    selector(entry),
    el('span', { class: 'under' }, under.filter(Boolean).join(', ')),
  ];
}

/** Return the rows sorted, unknown values last both ways. Equal rows stay in the chooser's order, which sort() keeps. */
function sorted(entries, { sort }) {
  const sign = state.sort.down ? -1 : 1;
  const hasValue = (entry) => sort(entry) !== null && sort(entry) !== '';
  return [...entries].sort((a, b) => {
    if (!hasValue(a) || !hasValue(b)) return Number(hasValue(b)) - Number(hasValue(a));
    return sort(a) === sort(b) ? 0 : sign * (sort(a) < sort(b) ? -1 : 1);
  });
}

function heading(column) {
  const active = state.sort.key === column.key;
  const next = active ? !state.sort.down : HIGH_FIRST.has(column.key);
  const press = () => {
    changed({ sort: { key: column.key, down: next } });
    document.querySelector(`#table th[data-key="${column.key}"] button`).focus();
  };
  return el(
    'th',
    {
      scope: 'col',
      'data-key': column.key,
      class: classes(column),
      'aria-sort': active ? (state.sort.down ? 'descending' : 'ascending') : null,
    },
    el('button', { type: 'button', onclick: press }, column.title),
  );
}

function classes({ number, wide, kind }) {
  return [number ? 'num' : '', wide ? 'wide' : '', kind ?? ''].join(' ').trim() || null;
}

function drawTable() {
  const entries = shown();
  const all = columns(entries);
  const by = all.find(({ key }) => key === state.sort.key) ?? all[0];
  const rows = sorted(entries, by)
    .slice(0, state.rows)
    .map((entry) =>
      el(
        'tr',
        {
          class: [entry.usable ? '' : 'unusable', entry === state.selected ? 'chosen' : ''].join(' ').trim() || null,
          'data-row': entry.index,
        },
        all.map((column) => el('td', { class: classes(column) }, column.cell(entry))),
      ),
    );
  const table = el(
    'table',
    {},
    el('caption', { class: 'sr' }, 'One row for each network, target, precision and number of threads on a device'),
    el('thead', {}, el('tr', {}, all.map(heading))),
    el('tbody', {}, rows),
  );
  byId('table').replaceChildren(entries.length ? table : el('p', { class: 'empty' }, 'No row passes the filters.'));
  rowsCount(entries);
}

function rowsCount(entries) {
  const many = entries.length;
  const total = REPORT.entries.filter((entry) => entry.usable || state.unusable).length;
  const predicted = entries.filter(isPredicted).length;
  const remainder = Math.max(0, many - state.rows);
  byId('rows-count').textContent =
    `${count(many, 'row', 'rows')} of ${total.toLocaleString('en')}${predicted ? `, ${predicted.toLocaleString('en')} of them predicted` : ''}${remainder ? `, the first ${state.rows} drawn` : ''}. A model's name opens the facts of the row; a heading sorts.`;
  const more = byId('more');
  more.hidden = !remainder;
  more.textContent = `Draw ${Math.min(remainder, 5 * CHUNK)} more`;
}

function drawFront() {
  const several = REPORT.devices.length > 1;
  const corners = fronts().flatMap(([, line]) => line);
  byId('front-lead').replaceChildren(...frontLead(corners));
  const digits = decimals(corners.map(placed));
  const shares = mostDigits(corners.map(accuracy));
  const head = [
    ['Model', false, false, 'model'],
    ...(several ? [['Device', false, true, 'device']] : []),
    [state.at === 'bound' ? 'At most, ms' : `p${state.percentile}, ms`, true],
    ['Top-1, %', true],
    ['Target', false, true],
    ...(isAlike('precision') ? [] : [['Precision', false, true]]),
    ['Threads', true, true],
    ['Size, MB', true, true],
    ['Grade', false, true],
    ['Origin', false, true],
  ];
  const rows = corners.map((entry) => [
    el(
      'span',
      {},
      icon(shape(entry.target), colourOf(entry, groups()), entry.provenance),
      ' ',
      selector(entry),
      el(
        'span',
        { class: 'under' },
        `${several ? `${deviceOf(entry)}, ` : ''}${entry.target} ${entry.precision}, ${threads(entry)}${weights(entry)}${entry.provenance === 'measured' ? '' : `, ${origin(entry)}`}`,
      ),
    ),
    ...(several ? [deviceOf(entry)] : []),
    placed(entry).toFixed(digits),
    aligned(accuracy(entry), shares),
    entry.target,
    ...(isAlike('precision') ? [] : [entry.precision]),
    entry.threads || '',
    entry.size_mb === null ? '' : entry.size_mb.toFixed(1),
    entry.grade,
    origin(entry),
  ]);
  const questions = unanswered();
  if (rows.length) questions.push(simpleTable(head, rows, 'The front, fastest first'));
  byId('front').replaceChildren(...(questions.length ? questions : [el('p', { class: 'empty' }, NO_FRONT)]));
}

/** Return the lead of the front: whether predictions are in it, and a button for the other front. */
function frontLead(corners) {
  const lead = ['No other row shown is both as accurate and as fast as one of these. '];
  if (!VALUES.latency.some(([value]) => value === 'predicted')) return lead;
  if (!isOn('latency', 'predicted'))
    return [...lead, 'Predictions are left out. ', switchTo('latency', 'predicted', true, 'With predictions')];
  const predicted = corners.filter(isPredicted).length;
  const sentence = predicted
    ? `${predicted} of these ${corners.length} ${predicted === 1 ? 'is' : 'are'} predicted. `
    : 'None of these is predicted. ';
  return [...lead, sentence, switchTo('latency', 'predicted', false, 'Without predictions')];
}

listeners.push(drawTable, drawFront);
byId('more').addEventListener('click', () => changed({ rows: state.rows + 5 * CHUNK }));
