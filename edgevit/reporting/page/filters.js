// The forms: the filters, and the settings of the chart.

/** Return a choice of one of several, as buttons in a row. */
function choice(name, title, options, value, onchange) {
  const buttons = options.map(([key, text]) =>
    el(
      'label',
      {},
      el('input', {
        type: 'radio',
        name,
        value: key,
        checked: String(key) === String(value),
        onchange: () => onchange(key),
      }),
      el('span', {}, text),
    ),
  );
  return el('fieldset', { class: 'switch' }, el('legend', {}, title), buttons);
}

function viewForm() {
  const colours = [
    ['device', 'device'],
    ['target', 'target'],
    ['precision', 'precision'],
    ['family', 'model family'],
    ['latency', 'origin of latency'],
  ];
  byId('view').append(
    choice(
      'percentile',
      'Latency of',
      PERCENTILES.map((q) => [q, `p${q}`]),
      state.percentile,
      (percentile) => changed({ percentile }),
    ),
    choice(
      'at',
      'Drawn at',
      [
        ['bound', 'its upper bound'],
        ['value', 'the percentile'],
      ],
      state.at,
      (at) => changed({ at }),
    ),
    choice(
      'scale',
      'Scale',
      [
        ['log', 'logarithmic'],
        ['linear', 'linear'],
      ],
      state.scale,
      (scale) => changed({ scale }),
    ),
    el(
      'label',
      {},
      el('span', { class: 'label' }, 'Colour by'),
      el(
        'select',
        { name: 'colour', onchange: (event) => changed({ colour: event.target.value }) },
        colours.map(([key, text]) => el('option', { value: key, selected: key === state.colour }, text)),
      ),
    ),
    el(
      'label',
      {},
      el('span', { class: 'label' }, 'Budget, ms'),
      el('input', {
        type: 'number',
        name: 'budget',
        min: 0,
        step: 'any',
        inputmode: 'decimal',
        placeholder: 'none',
        oninput: (event) => {
          const budget = Number(event.target.value);
          changed({ budget: budget > 0 ? budget : null });
        },
      }),
    ),
  );
  byId('view').addEventListener('submit', (event) => event.preventDefault());
}

function filterForm() {
  const form = byId('filter-form');
  const search = el('input', {
    type: 'search',
    name: 'search',
    placeholder: 'model, engine …',
    oninput: (event) => changed({ search: event.target.value, rows: CHUNK }),
  });
  const facets = FACETS.filter((facet) => VALUES[facet.key].length > 1 || !isWide(facet)).map(facetSet);
  form.replaceChildren(el('label', {}, el('span', { class: 'label' }, 'Search'), search), ...facets);
  const unusable = REPORT.entries.filter((entry) => !entry.usable).length;
  if (unusable) {
    const box = el('input', {
      type: 'checkbox',
      name: 'unusable',
      checked: state.unusable,
      onchange: (event) => changed({ unusable: event.target.checked }),
    });
    form.append(
      el(
        'div',
        { class: 'facet' },
        el(
          'label',
          {},
          box,
          el('span', { class: 'name' }, 'Rows that cannot be chosen, in the table'),
          el('span', { class: 'many' }, String(unusable)),
        ),
      ),
    );
  }
  form.append(el('button', { type: 'button', id: 'clear', onclick: clear }, 'Clear filters'));
  form.addEventListener('submit', (event) => event.preventDefault());
}

function facetSet(facet) {
  const boxes = VALUES[facet.key].map(([value, many]) => {
    const box = el('input', {
      type: 'checkbox',
      name: facet.key,
      value,
      checked: isOn(facet.key, value),
      onchange: () => turn(facet.key, value, box.checked),
    });
    return el(
      'label',
      {},
      box,
      el('span', { class: 'name' }, breakable(facet.name(value))),
      el('span', { class: 'many' }, String(many)),
    );
  });
  const all = el(
    'button',
    { type: 'button', class: 'only', 'aria-label': `${facet.title}: all or none`, onclick: () => allOrNone(facet) },
    'all / none',
  );
  return el(
    'fieldset',
    { class: 'facet', id: `facet-${facet.key}` },
    el('legend', {}, facet.title, all),
    el('div', { class: 'values' }, boxes),
  );
}

function allOrNone(facet) {
  const every = VALUES[facet.key].map(([value]) => value);
  state.chosen[facet.key] = new Set(isWide(facet) ? [] : every);
  changed({ rows: CHUNK });
}

function clear() {
  byId('filter-form').reset();
  changed({
    chosen: everything(),
    search: '',
    unusable: byId('filter-form').elements.unusable?.checked ?? false,
    rows: CHUNK,
  });
}

/** Tick the boxes as the state has them. */
function tick() {
  for (const facet of FACETS) {
    for (const [value] of VALUES[facet.key]) {
      const box = document.querySelector(`#facet-${facet.key} input[value="${CSS.escape(String(value))}"]`);
      if (box) box.checked = isOn(facet.key, value);
    }
  }
}

listeners.push(() => {
  tick();
  const on = narrowed();
  byId('filters-on').textContent = on ? `(${on} on)` : '';
});
