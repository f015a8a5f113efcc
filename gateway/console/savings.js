/**
 * Whether the fleet pays, over time: what nodes received of blobs beside what gateways read from registries.
 */

import { path } from './api.js';
import { h } from './dom.js';
import { bytes, clock, day, duration, moment, percent, ratio } from './format.js';
import { from } from './page.js';
import { choices, empty, figures, row, table, time } from './parts.js';
import { href } from './route.js';

/** The times that can be chosen: hours, their name, seconds of one column, and hours between labels. */
const PERIODS = [[24, '24 hours', 1200, 4], [168, '7 days', 7200, 24], [720, '30 days', 28800, 120]];
const HEIGHT = 100;
/** About so many lines across the chart. */
const N_LINES = 4;
const LABEL = 'Bytes that arrived and bytes read from registries over time; the table below has the numbers';
const COLUMNS = ['Time', 'Arrived:number', 'Read from registries:number', 'Saved:number', 'Saved share:number'];

export function savings(page, { parameters }) {
  page.title = 'Savings';
  const asked = Number(parameters.get('hours'));
  const [hours, name, seconds, between] = PERIODS.find(([it]) => it === asked) ?? PERIODS[0];
  const source = page.load(path(['savings'], { hours }), (it) => it.every);
  const draw = (it) => {
    const columns = gather(it.steps, hours * 3600, Math.ceil(seconds / it.every) * it.every);
    const isShort = Date.now() - Date.parse(it.since) < hours * 3600e3;
    const none = empty(`No node received anything of a blob in the last ${name}.`);
    return [
      totals(it.total),
      isShort && h('p.quiet', 'There are records since ', time(it.since), ' only.'),
      it.steps.length > 0 ? [chart(columns, between), asTable(columns)] : none,
    ];
  };
  const choice = ([it, words]) => [words, href('savings', null, { hours: it }), it === hours];
  return () => [choices('Time', PERIODS.map(choice)), from(source, 'The savings', draw)];
}

function totals({ arrivedBytes: arrived, registryBytes: read }) {
  return figures(
    ['Arrived at nodes', bytes(arrived), 'of blobs, from peers and gateways'],
    ['Read from registries', bytes(read), 'by this region’s gateways'],
    ['Saved', bytes(arrived - read), 'that registries did not have to send'],
    ['Saved share', percent(arrived - read, arrived), 'of what arrived'],
    ['Registry bytes per delivered byte', ratio(read, arrived), 'the less the better']);
}

/** Steps added up to columns, of which there is one for each part of the time. */
function gather(steps, all, seconds) {
  const wide = seconds * 1000;
  const n_columns = Math.ceil(all / seconds);
  const first = Math.floor(Date.now() / wide) - n_columns + 1;
  const column = (_, index) => ({ at: (first + index) * wide, to: (first + index + 1) * wide, arrived: 0, read: 0 });
  const columns = Array.from({ length: n_columns }, column);
  for (const { at, arrivedBytes, registryBytes } of steps) {
    // Our clock may differ from the gateway's.
    const it = columns[Math.min(n_columns - 1, Math.max(0, Math.floor(Date.parse(at) / wide) - first))];
    it.arrived += arrivedBytes;
    it.read += registryBytes;
  }
  return columns;
}

function chart(columns, between) {
  const lines = scale(Math.max(1, ...columns.map((it) => Math.max(it.arrived, it.read))));
  const high = (it) => (it / lines.at(-1)) * HEIGHT;
  const rect = (kind, x, value) => h(kind, { x: x + 0.08, width: 0.84, y: HEIGHT - high(value), height: high(value) });
  const column = (it, x) => h('g', { key: it.at },
    h('title', words(it)), h('rect.hit', { x, width: 1, height: HEIGHT }),
    rect('rect.arrived', x, it.arrived), rect('rect.read', x, it.read));
  const across = (it) => h('line', { key: it, x2: columns.length, y1: HEIGHT - high(it), y2: HEIGHT - high(it) });
  const label = (it) => h('span', { key: it, style: { bottom: `${high(it)}%` } }, bytes(it));
  const key = (kind, name) => h('span', h('i.swatch', { 'data-kind': kind }), name);
  const each = duration((columns[0].to - columns[0].at) / 1000);
  const view = { viewBox: `0 0 ${columns.length} ${HEIGHT}`, preserveAspectRatio: 'none', role: 'img', 'aria-label': LABEL };
  return h('figure.card.chart',
    h('figcaption', key('soft', ' arrived at nodes'), key('warm', ' read from registries'), h('span.quiet', `a column is ${each}`)),
    h('div.plot',
      h('div.levels', { 'aria-hidden': 'true' }, lines.map(label)),
      h('svg', view, lines.map(across), columns.map(column)),
      h('div.times', { 'aria-hidden': 'true' }, times(columns[0].at, columns.at(-1).to, between))));
}

/** The same in numbers: those columns that have something. */
function asTable(columns) {
  const numbers = ({ arrived, read }) => [...[arrived, read, arrived - read].map(bytes), percent(arrived - read, arrived)];
  const line = (it) => row(it.at, span(it), ...numbers(it));
  const filled = columns.filter((it) => it.arrived > 0 || it.read > 0).reverse();
  return h('details', h('summary', 'As a table'), table('Savings over time, the latest first', COLUMNS, filled.map(line)));
}

const span = ({ at, to }) => `${moment(at).slice(0, -3)} – ${clock(to, false)}`;
const words = (it) => `${span(it)}: ${bytes(it.arrived)} arrived, ${bytes(it.read)} read from registries`;

/** Round values from 0 to at least `most`. */
function scale(most) {
  const unit = 1024 ** Math.floor(Math.log2(most) / 10);
  const rough = most / unit / N_LINES;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((it) => it * power >= rough) * power * unit;
  return Array.from({ length: Math.ceil(most / step) + 1 }, (_, index) => index * step);
}

/** Labels at round hours or days of the reader's clock, but for the edges, where they would be cut off. */
function times(start, end, between) {
  const isDays = between >= 24;
  const place = (at) => ((at - start) / (end - start)) * 100;
  const mark = new Date(end);
  mark.setHours(isDays ? 0 : mark.getHours() - (mark.getHours() % between), 0, 0, 0);
  const marks = [];
  for (; mark.getTime() >= start; mark.setHours(mark.getHours() - between)) marks.push(mark.getTime());
  const label = (at) => h('span', { key: at, style: { left: `${place(at)}%` } }, isDays ? day(at).slice(5) : clock(at, false));
  return marks.filter((at) => place(at) > 2 && place(at) < 97).map(label);
}
