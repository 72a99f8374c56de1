// All that is known of the selected row.

/** Select a row, or none. `come`: the reader asked for it from a list, and is taken to what it opens. */
function select(entry, come = false) {
  changed({ selected: entry === state.selected ? null : entry });
  if (come && state.selected) {
    byId('detail').scrollIntoView({ block: 'nearest' });
    byId('detail').focus({ preventScroll: true });
  }
}

function span(told) {
  if (told.ms === null) return UNKNOWN;
  const bound = told.upper_ms === null ? 'no bound' : `at most ${short(told.upper_ms)} ms`;
  return `${short(told.ms)} ms, ${bound}${told.basis ? ` (${interval(told.basis)})` : ''}`;
}

function median(told) {
  if (told.ms === null || told.basis) return span(told);
  const processes = told.upper_ms === null ? '' : ` (processes: ${short(told.low_ms)} to ${short(told.upper_ms)} ms)`;
  return `${short(told.ms)} ms${processes}`;
}

/** What is known of a row because it ran, or because of what its prediction rests on. */
function known(entry) {
  if (isPredicted(entry))
    return [
      ['Proof', entry.parity_status || 'not exported yet'],
      ...bases(entry),
      ['To measure it', measuring(entry), true],
    ];
  return [
    ['Grade', entry.grade || 'none'],
    ['Runs', entry.runs ? `${entry.runs} in ${count(entry.processes, 'process', 'processes')}` : UNKNOWN],
    ['Proof', entry.parity_status || UNKNOWN],
  ];
}

/** What the percentiles rest on, those together that rest on the same. */
function bases(entry) {
  const found = new Map();
  for (const q of PERCENTILES) {
    const { basis } = latency(entry, q);
    if (basis) found.set(restsOn(basis), [...(found.get(restsOn(basis)) ?? []), `p${q}`]);
  }
  return [...found].map(([says, which]) => [`${which.join(', ')} ${which.length > 1 ? 'rest' : 'rests'} on`, says, true]);
}

/** The command that measures what is predicted; nothing where its name and numbers do not tell the size of its input. */
function measuring(entry) {
  if (entry.model.includes('.py:') || entry.flags.includes('not_at_card_size')) return '';
  const words = ['edgevit sweep --models', entry.model, '--targets', entry.target, '--precision', entry.precision];
  if (entry.threads) words.push('--threads', entry.threads);
  return el('code', {}, [...words, '--device', 'DEVICE'].join(' '));
}

function drawDetail() {
  const entry = state.selected;
  const box = byId('detail');
  box.hidden = entry === null;
  if (entry === null) {
    box.replaceChildren();
    return;
  }
  const [p50, p90, p99] = PERCENTILES.map((q) => latency(entry, q));
  box.replaceChildren(
    el(
      'header',
      {},
      el(
        'h2',
        { id: 'detail-title' },
        icon(shape(entry.target), colourOf(entry, groups()), entry.provenance),
        ` ${entry.model}`,
      ),
      el('button', { type: 'button', onclick: () => select(null) }, 'Close'),
    ),
    entry.reason ? el('p', { class: 'warn' }, `It cannot be chosen: ${entry.reason}`) : '',
    facts([
      ['Device', deviceOf(entry)],
      [isPredicted(entry) ? 'Would run as' : 'Ran as', `${entry.target} ${entry.precision}, ${threads(entry)}`],
      ['Engine', `${entry.engine} ${entry.engine_version} ${entry.provider}`.trim()],
      [
        'Top-1',
        entry.top1_percent === null ? UNKNOWN : `${accuracy(entry)}% (${entry.top1_provenance}; ${REPORT.dataset})`,
      ],
      ['p50', median(p50)],
      ['p90', span(p90)],
      ['p99', span(p99)],
      ['Latency is', entry.latency_provenance],
      ...known(entry),
      [
        'Artifact',
        entry.size_mb === null
          ? UNKNOWN
          : `${entry.size_mb.toFixed(1)} MB${entry.artifact_sha256 ? `, sha256 ${entry.artifact_sha256.slice(0, 12)}` : ''}`,
      ],
      ['Peak memory', entry.peak_memory_mb === null ? '' : `${entry.peak_memory_mb.toFixed(0)} MB`],
      ['Date', age(entry)],
      ['Epoch of the device', entry.epoch === null ? '' : String(entry.epoch)],
      ['Flags', entry.remarks.join(', ')],
      ['Source', entry.source],
      ['Licence', entry.licence],
      [
        'In the database',
        isPredicted(entry) ? '' : el('code', {}, `edgevit db show ${entry.measurement_id.slice(0, 12)}`),
      ],
    ]),
  );
}

document.addEventListener('keydown', (event) => {
  if (event.key === 'Escape' && state.selected) select(null);
});

listeners.push(drawDetail);
