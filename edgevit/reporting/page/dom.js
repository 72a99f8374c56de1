// Elements made from names, properties and children. Text is always text: no function here parses markup.

const SVG = 'http://www.w3.org/2000/svg';

function fill(element, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else if (name === 'checked')
      // The default is what a form is reset to.
      element.checked = element.defaultChecked = value;
    else if (name === 'hidden') element.hidden = value;
    else element.setAttribute(name, value === true ? '' : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== ''));
  return element;
}

function el(name, properties = {}, ...children) {
  return fill(document.createElement(name), properties, children);
}

function svg(name, properties = {}, ...children) {
  return fill(document.createElementNS(SVG, name), properties, children);
}

/** Return a name that may be broken behind its underscores. */
function breakable(name) {
  return name.split(/(?<=_)/).flatMap((part, i) => (i ? [el('wbr'), part] : [part]));
}

function byId(id) {
  return document.getElementById(id);
}

/** Return a list from [term, value, is it long]; terms without a value are left out. */
function facts(pairs) {
  const present = pairs.filter(([, value]) => value !== '' && value !== null && value !== undefined);
  return el(
    'dl',
    { class: 'facts' },
    present.map(([term, value, long]) =>
      el('div', { class: long ? 'long' : null }, el('dt', {}, term), el('dd', {}, value)),
    ),
  );
}

/** Return a table from columns [heading, is it a number, is it for wide screens only, class] and rows of cells. */
function simpleTable(columns, rows, caption) {
  const kind = ([, number, wide, name]) =>
    [number ? 'num' : '', wide ? 'wide' : '', name ?? ''].join(' ').trim() || null;
  const head = columns.map((column) => el('th', { scope: 'col', class: kind(column) }, column[0]));
  const body = rows.map((cells) =>
    el(
      'tr',
      {},
      cells.map((cell, i) => el('td', { class: kind(columns[i]) }, cell)),
    ),
  );
  return el('table', { 'aria-label': caption }, el('thead', {}, el('tr', {}, head)), el('tbody', {}, body));
}
