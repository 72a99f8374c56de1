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
  return `${short(told.ms)} ms, ${told.upper_ms === null ? 'no bound' : `at most ${short(told.upper_ms)} ms`}`;
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
  const spread = p50.upper_ms === null ? '' : ` (processes: ${short(p50.low_ms)} to ${short(p50.upper_ms)} ms)`;
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
      ['Ran as', `${entry.target} ${entry.precision}, ${threads(entry)}`],
      ['Engine', `${entry.engine} ${entry.engine_version} ${entry.provider}`.trim()],
      [
        'Top-1',
        entry.top1_percent === null ? UNKNOWN : `${accuracy(entry)}% (${entry.top1_provenance}; ${REPORT.dataset})`,
      ],
      ['p50', p50.ms === null ? UNKNOWN : `${short(p50.ms)} ms${spread}`],
      ['p90', span(p90)],
      ['p99', span(p99)],
      ['Latency is', entry.latency_provenance],
      ['Grade', entry.grade || 'none'],
      ['Runs', entry.runs ? `${entry.runs} in ${count(entry.processes, 'process', 'processes')}` : UNKNOWN],
      ['Proof', entry.parity_status || UNKNOWN],
      [
        'Artifact',
        entry.size_mb === null
          ? UNKNOWN
          : `${entry.size_mb.toFixed(1)} MB${entry.artifact_sha256 ? `, sha256 ${entry.artifact_sha256.slice(0, 12)}` : ''}`,
      ],
      ['Peak memory', entry.peak_memory_mb === null ? '' : `${entry.peak_memory_mb.toFixed(0)} MB`],
      ['Date', age(entry)],
      ['Epoch of the device', entry.epoch === null ? '' : String(entry.epoch)],
      ['Flags', entry.flags.join(', ')],
      ['Source', entry.source],
      ['Licence', entry.licence],
      [
        'In the database',
        entry.measurement_id ? el('code', {}, `edgevit db show ${entry.measurement_id.slice(0, 12)}`) : '',
      ],
    ]),
  );
}

document.addEventListener('keydown', (event) => {
  if (event.key === 'Escape' && state.selected) select(null);
});

listeners.push(drawDetail);
