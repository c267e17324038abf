// Every run of results/: filtered, sorted, plotted, two side by side. RECORDS, in records.js, holds the files.
'use strict';
(() => {
const root = document.getElementById('runs');
if (!root) return;

const SVG = ['svg', 'g', 'line', 'circle', 'polyline', 'text', 'title'];
const COLOURS = ['#0072b2', '#e69f00', '#009e73', '#d55e00', '#cc79a7', '#56b4e9'], OTHERS = '#888888';
const FIRST = ['recipe.dataset', 'recipe.framework', 'recipe.technique', 'recipe.epochs', 'recipe.seed',
  'scores.knn20.accuracy', 'scores.linear.accuracy', 'cost.flops_ratio', 'cost.seconds_per_step'];

function make(tag, attributes = {}, ...children) {
  const e = document.createElementNS(`http://www.w3.org/${SVG.includes(tag) ? '2000/svg' : '1999/xhtml'}`, tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith('on')) e.addEventListener(name.slice(2), value);
    else if (value !== false) e.setAttribute(name, value === true ? '' : value);
  }
  e.append(...children);
  return e;
}

// ---- runs: one object of dotted names each
const flat = (value, before = '') => Object.entries(value).flatMap(([k, v]) =>
  v && typeof v === 'object' && !Array.isArray(v) ? flat(v, `${before}${k}.`)
    : [[before + k, Array.isArray(v) ? v.join(', ') : v]]);
const runs = Object.entries(RECORDS).filter(([, r]) => r.recipe).map(([file, {history, ...r}]) => {
  const values = Object.fromEntries(flat(r).filter(([, v]) => v !== null && v !== ''));
  return {file, history: history || [], values: {...values, 'recipe.technique': r.recipe.technique || 'dense', file}};
});
const columns = [...new Set(runs.flatMap(r => Object.keys(r.values)))];
const short = c => c.replace(/^(recipe|scores|cost)\./, '').replace(/\.accuracy$/, '');
const label = c => short(c).replaceAll('_', ' ') + (c.endsWith('.accuracy') ? ' %' : '');
const text = v => v === undefined ? '–' : typeof v === 'number' ? String(+v.toPrecision(4)) : String(v);
const shown = new Set(FIRST.filter(c => columns.includes(c)));
let sorted = 'scores.knn20.accuracy', up = false, picked = [];

function order(a, b) {  // what a run does not have comes last, whichever way
  const [x, y] = [a.values[sorted], b.values[sorted]];
  if (x === undefined || y === undefined) return (x === undefined) - (y === undefined);
  const less = typeof x === 'number' && typeof y === 'number' ? x - y : text(x).localeCompare(text(y));
  return up ? less : -less;
}

// ---- filter: all words, each anywhere, or as name=value, name>number
const COMPARE = {'=': (a, b) => text(a).toLowerCase() === b.toLowerCase(), '>': (a, b) => a > +b, '<': (a, b) => a < +b,
  '>=': (a, b) => a >= +b, '<=': (a, b) => a <= +b};
function test(word) {
  const [, name, sign, wanted] = word.match(/^([\w.]+)(>=|<=|=|<|>)(.*)$/) || [];
  if (!name) return v => Object.values(v).some(x => text(x).toLowerCase().includes(word));
  const column = columns.find(c => c.toLowerCase() === name || short(c).toLowerCase() === name);
  if (!column) throw `no column is called “${name}”: those that there are stand under Columns`;
  return v => v[column] !== undefined && COMPARE[sign](v[column], wanted);
}
function filter() {
  let tests = [], said = '';
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  try { tests = words.map(test); } catch (error) { said = `; ${error}`; }
  for (const r of runs) r.row.hidden = !tests.every(t => t(r.values));
  status.textContent = `${runs.filter(r => !r.row.hidden).length} of ${runs.length} runs${said}`;
  plot();
}

// ---- table
function head() {
  const button = c => make('button', {type: 'button', onclick: () => sort(c)}, label(c));
  const cell = c => make('th', {scope: 'col', title: c}, button(c));
  thead.replaceChildren(make('tr', {}, make('th', {scope: 'col'}, 'run'), ...[...shown].map(cell)));
  for (const r of runs) {
    const cells = [...shown].map(c => make('td', {class: typeof r.values[c]}, text(r.values[c])));
    r.row.replaceChildren(make('th', {scope: 'row'}, make('label', {}, r.box, ` ${r.values.id}`)), ...cells);
  }
  mark();
}
function mark() {
  [...shown].forEach((c, i) => thead.rows[0].cells[i + 1]
    .setAttribute('aria-sort', c !== sorted ? 'none' : up ? 'ascending' : 'descending'));
  tbody.append(...[...runs].sort(order).map(r => r.row));
}
function sort(column) {
  up = sorted === column ? !up : typeof runs.find(r => column in r.values).values[column] !== 'number';
  sorted = column;
  mark();
}
function pick(run) {
  picked = picked.includes(run) ? picked.filter(r => r !== run) : [...picked.slice(-1), run];
  for (const r of runs) r.box.checked = picked.includes(r);
  compare();
  plot();
}

// ---- plots
const FEW = 6, numbers = values => values.every(v => typeof v === 'number');
function scale(values, from, to) {
  if (!numbers(values)) {
    const names = [...new Set(values.map(text))].sort(), step = (to - from)/names.length;
    return {at: v => from + step*(names.indexOf(text(v)) + .5), ticks: names, words: true};
  }
  const low = Math.min(...values), high = Math.max(...values), pad = (high - low)*.05 || Math.abs(high)*.05 || 1;
  const rough = (high - low + 2*pad)/FEW, ten = 10**Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map(x => x*ten).find(x => x >= rough), first = Math.ceil((low - pad)/step);
  const ticks = Array.from({length: FEW + 1}, (_, i) => (first + i)*step).filter(t => t <= high + pad);
  return {at: v => from + (v - low + pad)/(high - low + 2*pad)*(to - from), ticks};
}
function axes(xs, ys, named, width, height) {
  const left = numbers(ys) ? 48 : 120, low = height - (numbers(xs) ? 40 : 110);
  const x = scale(xs, left, width - 10), y = scale(ys, low, 10);
  const svg = make('svg', {width, height, role: 'img', 'aria-label': named});
  for (const t of x.ticks) {
    const place = x.words ? {transform: `translate(${x.at(t) + 4} ${low + 14}) rotate(-40)`, 'text-anchor': 'end'}
      : {x: x.at(t), y: low + 16, 'text-anchor': 'middle'};
    svg.append(make('line', {x1: x.at(t), x2: x.at(t), y1: 10, y2: low}), make('text', place, text(t).slice(0, 18)));
  }
  for (const t of y.ticks) {
    svg.append(make('line', {x1: left, x2: width - 10, y1: y.at(t), y2: y.at(t)}),
      make('text', {x: left - 6, y: y.at(t) + 4, 'text-anchor': 'end'}, text(t).slice(0, 18)));
  }
  return {svg, x, y};
}
const swatch = colour => make('span', {class: 'swatch', style: `background:${colour}`});
const scrolled = (named, ...of) =>
  make('div', {class: 'scroll', role: 'region', 'aria-label': named, tabindex: 0}, ...of);
function plot() {
  const [cx, cy, cc] = chosen.map(s => s.value);
  const points = runs.filter(r => !r.row.hidden && r.values[cx] !== undefined && r.values[cy] !== undefined);
  const [xs, ys] = [cx, cy].map(c => points.map(r => r.values[c]));
  const named = `${label(cy)} against ${label(cx)}, ${points.length} runs`;
  if (!points.length) return drawn.replaceChildren('No run that is shown has both.');
  const groups = [...new Set(points.map(r => text(r.values[cc])))].sort();
  const colour = r => COLOURS[groups.indexOf(text(r.values[cc]))] || OTHERS;
  const {svg, x, y} = axes(xs, ys, named, Math.min(720, Math.max(280, root.clientWidth)), 360);
  for (const r of points) {
    const told = `${r.values.id}\n${label(cx)} ${text(r.values[cx])}\n${label(cy)} ${text(r.values[cy])}`;
    const at = {cx: x.at(r.values[cx]), cy: y.at(r.values[cy]), r: picked.includes(r) ? 8 : 5};
    svg.append(make('circle', {...at, fill: colour(r), onclick: () => pick(r)}, make('title', {}, told)));
  }
  const others = groups.length - COLOURS.length, names = groups.slice(0, COLOURS.length);
  const legend = [...names.map((g, i) => [COLOURS[i], g]), ...(others > 0 ? [[OTHERS, `${others} others`]] : [])];
  const entries = legend.map(([c, g]) => make('li', {}, swatch(c), g));
  drawn.replaceChildren(make('p', {}, named), svg, make('ul', {class: 'legend'}, ...entries));
}

// ---- two runs
function curves(name) {
  const points = picked.map(r => r.history.filter(h => typeof h[name] === 'number')), all = points.flat();
  const {svg, x, y} = axes(all.map(h => h.epoch), all.map(h => h[name]), `${name} by epoch`, 340, 220);
  points.forEach((some, i) => svg.append(make('polyline', {fill: 'none', stroke: COLOURS[i], 'stroke-width': 2,
    points: some.map(h => `${x.at(h.epoch)},${y.at(h[name])}`).join(' ')})));
  return make('figure', {}, make('figcaption', {}, `${name} by epoch`), svg);
}
function pairs(names, caption) {
  const [a, b] = picked.map(r => r.values);
  const line = c => make('tr', {}, make('th', {scope: 'row', title: c}, label(c)),
    make('td', {}, text(a[c])), make('td', {}, text(b[c])));
  const title = (id, i) => make('th', {scope: 'col'}, swatch(COLOURS[i]), id);
  const top = make('tr', {}, make('td'), title(a.id, 0), title(b.id, 1));
  return scrolled(caption, make('table', {}, make('caption', {}, caption), make('thead', {}, top),
    make('tbody', {}, ...names.map(line))));
}
function compare() {
  const left = 2 - picked.length;
  const ask = `Tick ${left === 2 ? 'two runs' : 'one more run'} in the table, or click on points.`;
  if (left) return beside.replaceChildren(make('p', {}, ask));
  const [a, b] = picked.map(r => r.values), names = columns.filter(c => c in a || c in b);
  const [same, other] = [true, false].map(is => names.filter(c => (text(a[c]) === text(b[c])) === is));
  const drawable = [...new Set(picked.flatMap(r => r.history.flatMap(Object.keys)))]
    .filter(n => !['epoch', 'seconds'].includes(n) && picked.some(r => r.history.some(h => typeof h[n] === 'number')));
  beside.replaceChildren(make('div', {class: 'curves'}, ...drawable.map(curves)),
    pairs(other, `Where they differ: ${other.length}`),
    make('details', {}, make('summary', {}, `Where they are alike: ${same.length}`), pairs(same, 'Alike')));
}

// ---- the page
for (const r of runs) {
  r.row = make('tr');
  r.box = make('input', {type: 'checkbox', onchange: () => pick(r)});
}
const search = make('input', {type: 'search', placeholder: 'technique=dense epochs>=7', oninput: filter});
const status = make('p', {role: 'status'}), thead = make('thead'), tbody = make('tbody');
const drawn = scrolled('Plot'), beside = make('section', {'aria-label': 'Two runs side by side'});
const toggle = (c, on) => { on ? shown.add(c) : shown.delete(c); head(); };
const toggled = c => ({type: 'checkbox', checked: shown.has(c), onchange: e => toggle(c, e.target.checked)});
const box = c => make('label', {}, make('input', toggled(c)), ` ${c}`);
const option = (value, of) => make('option', {value, selected: value === of}, label(value));
const choice = of => make('select', {onchange: plot}, ...columns.map(c => option(c, of)));
const chosen = ['cost.flops_ratio', 'scores.knn20.accuracy', 'recipe.framework'].map(choice);
const axis = (name, i) => make('label', {}, `${name} `, chosen[i]);
const caption = 'A heading sorts, a tick compares';
root.replaceChildren(make('label', {}, 'Filter, by words or as name=value, name>number ', search), status,
  make('details', {}, make('summary', {}, `Columns: ${columns.length}`),
    make('fieldset', {}, make('legend', {}, 'Shown in the table'), ...columns.map(box))),
  scrolled('Runs', make('table', {}, make('caption', {}, caption), thead, tbody)),
  make('h2', {}, 'One column against another'),
  make('div', {class: 'choices'}, ...['across', 'upwards', 'colour'].map(axis)), drawn,
  make('h2', {}, 'Two runs side by side'), beside);
root.children[3].classList.add('runs');
head();
compare();
filter();
addEventListener('resize', plot);
})();
