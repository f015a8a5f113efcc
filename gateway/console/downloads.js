/**
 * The blobs that some node wants now, and how far each is.
 */

import { path } from './api.js';
import { h } from './dom.js';
import { bytes, count, percent, share } from './format.js';
import { from } from './page.js';
import { bar, blob, empty, incomplete, measured, pager, progress, repository, row, state, table } from './parts.js';
import { href } from './route.js';

const PER_PAGE = 50;
const COLUMNS = [
  'Blob', 'Repository:wide', 'Size:number', 'Nodes', 'Whole:number', 'Part:number', 'Wanting:number',
  'Read by this gateway', 'Owner',
];

export function downloads(page, { parameters }) {
  page.title = 'Downloads';
  const after = parameters.get('after');
  const list = page.live(path(['tasks'], { state: 'FETCHING', after, per_page: PER_PAGE }));
  const to = (next) => href('downloads', null, { after: next });
  const tasks = h('a', { href: href('tasks') }, 'tasks');
  const none = empty('No node wants a blob at this moment. What was fetched before is among the ', tasks, '.');
  return () => from(list, 'The downloads', (it) => [
    incomplete(it.incomplete),
    it.tasks.length > 0 ? [table('Blobs being fetched', COLUMNS, it.tasks.map(download)), legend()] : none,
    pager(!after, to(null), it.next && to(it.next)),
  ]);
}

function download(task) {
  const { whole, part, wanting } = task.nodes;
  const counts = [whole, part, wanting].map(count);
  return row(task.id, blob('swarm', task), repository(task), bytes(task.contentLength), having(task.nodes), ...counts,
    seed(task), task.gateway);
}

function legend() {
  const sign = (kind) => h('i.swatch', { 'data-kind': kind });
  return h('p.quiet', 'Nodes that ', sign('main'), ' hold the whole, ', sign('soft'), ' hold a part and want the rest, ',
    sign('none'), ' wait for the first piece. A blob leads to its swarm.');
}

/** How many of those that hold the whole or want it are how far. */
export function having({ whole, part, wanting }) {
  const all = whole + wanting;
  const partly = Math.min(part, wanting);
  const label = `${count(whole)} of ${count(all)} hold the whole, ${count(partly)} a part`;
  return measured(bar(label, [share(whole, all), 'main'], [share(partly, all), 'soft']), percent(whole, all));
}

/** How far this gateway is with reading a blob. */
export function seed({ seed: it, contentLength }) {
  if (!it) return h('span.quiet', 'no');
  return it.queuePosition > 0 ? state('none', `waits, ${count(it.queuePosition)} before it`) : progress(it.offset, contentLength);
}
