// The rows as a table that sorts, and the front as a short one.

const HIGH_FIRST = new Set(['top1']);
const GRADES = ['A', 'B', 'C', 'D', ''];
const NO_FRONT = 'There is no front: no row shown has both an accuracy and a latency.';

/** The columns: key, heading, what it sorts by, what its cell shows; number: right-aligned; wide: not on a phone. */
function columns(entries) {
  const told = (entry) => latency(entry, state.percentile);
  const digits = decimals(
    entries.flatMap((entry) => [told(entry).ms, told(entry).upper_ms]).filter((value) => value !== null),
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
      sort: (entry) => told(entry).ms,
      cell: (entry) => fixed(told(entry).ms),
      number: true,
      wide: true,
    },
    {
      key: 'bound',
      title: 'At most, ms',
      sort: (entry) => told(entry).upper_ms,
      cell: (entry) => fixed(told(entry).upper_ms),
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
  const spare = new Set([...['device', 'precision'].filter(isAlike), state.unusable ? '' : 'reason']);
  return all.filter(({ key }) => !spare.has(key));
}

/** Whether all rows of the report are alike in this: then a column of it says nothing. */
function isAlike(key) {
  return VALUES[key].length === 1;
}

/** A button that selects a row. */
function selector(entry) {
  return el('button', { type: 'button', class: 'pick', 'data-row': entry.place, onclick: () => select(entry, true) }, breakable(entry.model));
}

function modelCell(entry) {
  const grouped = groups();
  const told = latency(entry, state.percentile);
  const bare = told.upper_ms === null && told.ms !== null ? `p${state.percentile} ${short(told.ms)} ms, no bound` : '';
  const under = [
    bare,
    REPORT.devices.length > 1 ? deviceOf(entry) : '',
    `${entry.target} ${entry.precision}`,
    threads(entry),
    entry.provenance === 'measured' ? '' : origin(entry),
    entry.reason,
  ];
  return [
    icon(shape(entry.target), colourOf(entry, grouped), entry.provenance),
    ' ',
    selector(entry),
    el('span', { class: 'under' }, under.filter(Boolean).join(', ')),
  ];
}

/** What is not known comes last, whichever way it goes. Equal rows stay in the chooser's order, which sort() keeps. */
function sorted(entries, { sort }) {
  const sign = state.sort.down ? -1 : 1;
  const known = (entry) => sort(entry) !== null && sort(entry) !== '';
  return [...entries].sort((a, b) => {
    if (!known(a) || !known(b)) return Number(known(b)) - Number(known(a));
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
          'data-row': entry.place,
        },
        all.map((column) => el('td', { class: classes(column) }, column.cell(entry))),
      ),
    );
  const table = el(
    'table',
    {},
    el('caption', { class: 'sr' }, 'One row for each model, target, precision and number of threads on a device'),
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
  const left = Math.max(0, many - state.rows);
  byId('rows-count').textContent =
    `${count(many, 'row', 'rows')} of ${total.toLocaleString('en')}${predicted ? `, ${predicted.toLocaleString('en')} of them predicted` : ''}${left ? `, the first ${state.rows} drawn` : ''}. A model's name opens what is known of the row; a heading sorts.`;
  const more = byId('more');
  more.hidden = !left;
  more.textContent = `Draw ${Math.min(left, 5 * CHUNK)} more`;
}

function drawFront() {
  const several = REPORT.devices.length > 1;
  const found = fronts().flatMap(([, line]) => line);
  byId('front-lead').replaceChildren(...frontLead(found));
  const digits = decimals(found.map(placed));
  const shares = mostDigits(found.map(accuracy));
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
  const rows = found.map((entry) => [
    el(
      'span',
      {},
      icon(shape(entry.target), colourOf(entry, groups()), entry.provenance),
      ' ',
      selector(entry),
      el(
        'span',
        { class: 'under' },
        `${several ? `${deviceOf(entry)}, ` : ''}${entry.target} ${entry.precision}, ${threads(entry)}${entry.provenance === 'measured' ? '' : `, ${origin(entry)}`}`,
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

/** What the front is one of: whether predictions are in it, and how it would be without them. */
function frontLead(found) {
  const lead = ['No other row shown is both as accurate and as fast as one of these. '];
  if (!VALUES.latency.some(([value]) => value === 'predicted')) return lead;
  if (!isOn('latency', 'predicted'))
    return [...lead, 'Predictions are left out. ', switchTo('latency', 'predicted', true, 'With predictions')];
  const predicted = found.filter(isPredicted).length;
  const says = predicted
    ? `${predicted} of these ${found.length} ${predicted === 1 ? 'is' : 'are'} predicted. `
    : 'None of these is predicted. ';
  return [...lead, says, switchTo('latency', 'predicted', false, 'Without predictions')];
}

listeners.push(drawTable, drawFront);
byId('more').addEventListener('click', () => changed({ rows: state.rows + 5 * CHUNK }));
