// The parts that do not change with the filters: devices, models, the command that made the page.

function noise(device) {
  if (device.noise_share === null) return 'never measured: edgevit devices noise';
  return `${percent(device.noise_share)}, measured ${day(device.noise_measured)}`;
}

function grades(device) {
  const counts = Object.entries(device.grades).map(([grade, many]) => `${many} ${grade}`);
  return counts.join(', ') || 'none: grades are of measured rows';
}

function leftOut(device) {
  const counts = [
    [device.superseded, 'superseded by newer rows or a change of the device'],
    [device.published_left_out, 'published by others (--published takes them in)'],
    [device.not_asked, "at a camera's rate"],
  ].filter(([many]) => many);
  return counts.map(([many, why]) => `${many} ${why}`).join('; ');
}

/** Return how many candidates are predicted. */
function predictions(device) {
  if (REPORT.predicted_confidence === null) return ['Predicted', 'nothing: --measured-only'];
  return ['Predicted', count(device.predicted, 'candidate', 'candidates')];
}

function refused(device) {
  if (!device.unpredicted.length) return '';
  return el(
    'ul',
    { class: 'plain' },
    device.unpredicted.map(([why, many]) => el('li', {}, `${many}: ${why}`)),
  );
}

function jumps(device) {
  return device.epochs.map((epoch) =>
    el(
      'li',
      {},
      `epoch ${epoch.number}, ${day(epoch.started)}: ${short(epoch.ratio)} times the earlier latency; ${epoch.reason}`,
    ),
  );
}

function between({ first, last }) {
  if (!first) return 'dates not reported';
  return day(first) === day(last) ? day(first) : `${day(first)} to ${day(last)}`;
}

function devicePart(device) {
  const title = el(
    'summary',
    {},
    el('b', {}, device.label),
    el(
      'span',
      { class: 'muted' },
      `${count(device.usable, 'row', 'rows')}${device.predicted ? ` and ${count(device.predicted, 'prediction', 'predictions')}` : ''}, ${between(device)}`,
    ),
  );
  return el(
    'details',
    { class: 'part', open: REPORT.devices.length <= 3 },
    title,
    facts([
      ['Hardware', device.hosts.join('; ') || UNKNOWN],
      ['Class', device.device_class],
      ['Runs on', device.compute_units.join(', ')],
      ['Noise floor', noise(device)],
      ['Grades', grades(device)],
      [
        'Cannot be chosen',
        device.unusable ? `${count(device.unusable, 'row', 'rows')}: crashed, not proven, or otherwise measured` : '',
      ],
      ['Left out', leftOut(device)],
      predictions(device),
      ['Cannot be predicted', refused(device), true],
      ['Engines', device.engines.join(', ')],
      ['Models of the zoo never measured on it', device.unmeasured.join(', '), true],
    ]),
    device.epochs.length ? el('div', {}, el('h3', {}, 'When it changed'), el('ul', {}, jumps(device))) : '',
  );
}

function millions(number) {
  return number === null ? '' : (number / 1e6).toFixed(2);
}

function proofTable(model) {
  if (!model.proofs.length)
    return el('p', { class: 'muted' }, 'No row of this model was measured by edgevit, so nothing was compared.');
  return simpleTable(
    [['target'], ['precision'], ['parity of the measured file'], ['rows', true]],
    model.proofs.map((proof) => [proof.target, proof.precision, proof.status || UNKNOWN, proof.rows]),
    'Parity by the rows',
  );
}

function checkRows(artifact) {
  return artifact.checks.map((check) => [
    `${check.stage} against ${check.against}`,
    check.max_rel.toExponential(1),
    check.snr_db === null ? 'equal' : check.snr_db.toFixed(1),
    percent(check.top1_agreement, 1),
    check.tolerance,
    check.passed ? 'passed' : el('b', { class: 'warn' }, 'failed'),
    check.how,
  ]);
}

function artifactPart(artifact) {
  const head = [
    ['comparison'],
    ['worst relative error', true],
    ['signal to noise, dB', true, true],
    ['same class', true, true],
    ['gate'],
    ['verdict'],
    ['computed by', false, true],
  ];
  const parts = [
    `${artifact.target} ${artifact.precision}`,
    artifact.status || 'never verified',
    `weights: ${artifact.weights}`,
    artifact.in_rows ? '' : 'no row here was measured of it',
  ];
  return el(
    'div',
    {},
    el('p', {}, el('b', {}, parts[0]), `, ${parts.slice(1).filter(Boolean).join(', ')}`),
    el(
      'p',
      { class: 'muted' },
      [
        artifact.fold_summary,
        artifact.inputs ? `compared on ${artifact.inputs}` : '',
        artifact.failing_stage ? `failing stage: ${artifact.failing_stage}` : '',
      ]
        .filter(Boolean)
        .join('; '),
    ),
    artifact.checks.length ? el('div', { class: 'scroll' }, simpleTable(head, checkRows(artifact), 'Comparisons')) : '',
  );
}

function giga(number) {
  return number === null ? '' : (number / 1e9).toFixed(2);
}

function remaining(trained, folded) {
  return trained && folded ? percent(folded / trained) : '';
}

/** Return the statuses of a model's measured rows as `12 passed, 1 failed`. */
function proven(model) {
  const counts = new Map();
  for (const proof of model.proofs)
    counts.set(proof.status || UNKNOWN, (counts.get(proof.status || UNKNOWN) ?? 0) + proof.rows);
  return [...counts].map(([status, many]) => `${many} ${status}`).join(', ') || 'nothing compared';
}

/** Return the worst relative error among the last comparisons of a model's artifacts, those of the exported files. */
function worst(model) {
  const errors = model.artifacts.flatMap((artifact) => artifact.checks.map((check) => check.max_rel));
  return errors.length ? Math.max(...errors).toExponential(1) : '';
}

function modelTable(models) {
  const head = [
    ['Model'],
    ['Parameters, M', true],
    ['folded', true, true],
    ['left', true, true],
    ['MACs, G', true],
    ['folded', true, true],
    ['left', true, true],
    ["Parity of the rows' files", false],
    ...(REPORT.artifacts_read ? [['Worst error', true, true]] : []),
  ];
  return el(
    'div',
    { class: 'scroll' },
    simpleTable(
      head,
      models.map((model) => [
        model.name,
        millions(model.params),
        millions(model.folded_params),
        remaining(model.params, model.folded_params),
        giga(model.macs),
        giga(model.folded_macs),
        remaining(model.macs, model.folded_macs),
        proven(model),
        ...(REPORT.artifacts_read ? [worst(model)] : []),
      ]),
      'Models: cost before and after folding, and parity',
    ),
  );
}

function classTable(evaluation) {
  const head = [['class'], ['right, %', true], ['images', true], ['most of the others given'], ['images', true]];
  return simpleTable(
    head,
    evaluation.classes.map((one) => [
      one.label,
      ((100 * one.right) / one.images).toFixed(1),
      one.images,
      one.taken_for,
      one.taken || '',
    ]),
    'Accuracy of each class, the worst first',
  );
}

function matrixTable(evaluation) {
  const head = [['images of'], ...evaluation.labels.map((label) => [label, true])];
  return simpleTable(
    head,
    evaluation.matrix.map((row, i) => [
      evaluation.labels[i],
      ...row.map((images, j) => (i === j && images ? el('b', {}, images) : images || '')),
    ]),
    'Confusion matrix: a row for the class of the images, a column for the class that they were given',
  );
}

function evaluationPart(evaluation) {
  const error = evaluation.error_percent === null ? '' : ` ± ${evaluation.error_percent.toFixed(2)}`;
  const assumed = evaluation.assumed ? `; it rests on ${evaluation.assumed}` : '';
  return el(
    'div',
    {},
    el(
      'p',
      {},
      el('b', {}, `${evaluation.target} ${evaluation.precision}${weights(evaluation)} on ${evaluation.dataset}`),
      `, top-1 ${evaluation.percent.toFixed(2)}${error}% of ${count(evaluation.images, 'image', 'images')}, measured ${day(evaluation.measured)}`,
      el('span', { class: 'warn' }, assumed),
    ),
    el('div', { class: 'scroll' }, classTable(evaluation)),
    evaluation.matrix.length ? el('div', { class: 'scroll' }, matrixTable(evaluation)) : '',
  );
}

function modelPart(model) {
  const summary = [model.family, model.carded ? model.provenance : 'no card: not of this zoo', proven(model)];
  return el(
    'details',
    { class: 'part' },
    el('summary', {}, el('b', {}, model.name), el('span', { class: 'muted' }, summary.filter(Boolean).join('; '))),
    facts([
      ['Source', model.source],
      ['Licence', model.licence],
      [
        'Accuracy of the official weights',
        model.top1_percent === null ? '' : `${model.top1_percent}%, ${model.top1_source}`,
      ],
    ]),
    proofTable(model),
    model.artifacts.map(artifactPart),
    model.evaluations.map(evaluationPart),
  );
}

function readingPredicted() {
  const confidence = REPORT.predicted_confidence;
  if (confidence === null) return 'This page has no predictions: it was made with --measured-only.';
  return `A configuration without a row on the device, in an engine, precision and number of threads of which the device has rows. With ${share(confidence)} confidence the latency is not above the upper bound, and with the same confidence it is between the ends of the bar. Same graph: other weights of a network that ran there. Transfer: from rows of other devices and settings. Features: from the operators of the model alone. A prediction does not say whether the file can be made and is right: edgevit choose --export proves it, and a measurement replaces the prediction. The filter on latency leaves predictions out of chart, tables, front and picks.`;
}

function drawSections() {
  const { devices, models, entries } = REPORT;
  const predicted = entries.filter(isPredicted).length;
  const usable = entries.filter((entry) => entry.usable).length - predicted;
  const unusable = entries.length - usable - predicted;
  const named = new Set(entries.map((entry) => entry.model)).size;
  byId('summary').textContent =
    `${count(named, 'model', 'models')} on ${count(devices.length, 'device', 'devices')}, ${count(usable, 'row', 'rows')}${unusable ? ` and ${unusable} that cannot be chosen` : ''}${predicted ? `, ${count(predicted, 'prediction', 'predictions')}` : ''}${REPORT.published ? ', those that others published among them' : ''}; accuracy on ${REPORT.dataset}`;
  byId('chart-lead').textContent =
    'Up is more accurate, left is faster. No point beats one on the stepped line.';
  byId('reading-bound').textContent =
    `With ${percent(REPORT.confidence, 0)} confidence the percentile is not above this bound; for p50 it is the slowest process' median. A budget is compared with it, because a median says nothing of slow runs. Rows that others published have no bound: there the percentile itself counts.`;
  byId('reading-predicted').textContent = readingPredicted();
  byId('reading-dataset').textContent = REPORT.dataset;
  byId('made').textContent =
    `${REPORT.created.replace('T', ' ').replace('+00:00', ' UTC')} with edgevit ${REPORT.edgevit}`;
  byId('command').textContent = `$ ${REPORT.command}`;
  byId('device-parts').replaceChildren(...devices.map(devicePart));
  byId('models-lead').textContent = REPORT.artifacts_read
    ? 'Errors and gates come from the manifests of the artifacts that this report was given; rows keep the status alone.'
    : "Rows keep whether their file was proven, and not its errors. Errors and gates are in the artifacts' manifests: edgevit report --artifacts FOLDER shows them.";
  byId('model-parts').replaceChildren(
    ...REPORT.problems.map((problem) => el('p', { class: 'warn' }, problem)),
    modelTable(models),
    el(
      'details',
      { class: 'part' },
      el('summary', {}, el('b', {}, 'Each model: sources, targets and comparisons')),
      models.map(modelPart),
    ),
  );
}
