// The facts of the selected row.

/** Select a row, or none. isScrolling: the page scrolls to what opens, because the row was pressed in a list. */
function select(entry, isScrolling = false) {
  changed({ selected: entry === state.selected ? null : entry });
  if (isScrolling && state.selected) {
    byId('detail').scrollIntoView({ block: 'nearest' });
    byId('detail').focus({ preventScroll: true });
  }
}

function span(times) {
  if (times.ms === null) return UNKNOWN;
  const bound = times.upper_ms === null ? 'no bound' : `at most ${short(times.upper_ms)} ms`;
  return `${short(times.ms)} ms, ${bound}${times.basis ? ` (${interval(times.basis)})` : ''}`;
}

function median(times) {
  if (times.ms === null || times.basis) return span(times);
  const processes = times.upper_ms === null ? '' : ` (processes: ${short(times.low_ms)} to ${short(times.upper_ms)} ms)`;
  return `${short(times.ms)} ms${processes}`;
}

/** Return the facts of a row's runs, or the evidence of its prediction. */
function evidence(entry) {
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

/** Return the evidence of each percentile's prediction; percentiles with the same evidence share a line. */
function bases(entry) {
  const percentiles = new Map();
  for (const q of PERCENTILES) {
    const { basis } = latency(entry, q);
    if (basis) percentiles.set(restsOn(basis), [...(percentiles.get(restsOn(basis)) ?? []), `p${q}`]);
  }
  return [...percentiles].map(([basis, names]) => [
    `${names.join(', ')} ${names.length > 1 ? 'rest' : 'rests'} on`,
    basis,
    true,
  ]);
}

/** Return the command that measures a predicted cell; nothing where its input size or its weights are not known. */
function measuring(entry) {
  if (entry.network_id || entry.flags.includes('not_at_card_size')) return '';
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
      ['Weights', entry.weights],
      [isPredicted(entry) ? 'Would run as' : 'Ran as', `${entry.target} ${entry.precision}, ${threads(entry)}`],
      ['Engine', `${entry.engine} ${entry.engine_version} ${entry.provider}`.trim()],
      [
        'Top-1',
        entry.top1_percent === null ? UNKNOWN : `${accuracy(entry)}% (${rating(entry)}; ${REPORT.dataset})`,
      ],
      ['p50', median(p50)],
      ['p90', span(p90)],
      ['p99', span(p99)],
      ['Latency is', entry.latency_provenance],
      ...evidence(entry),
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
      ['Row from', isPredicted(entry) ? '' : entry.origin || OWN],
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
