/**
 * All blobs that the region holds, wants or seeds: a list that can be searched, and one of them with what is known of it
 * and its removal.
 */

import { path, send } from './api.js';
import { h } from './dom.js';
import { having, seed } from './downloads.js';
import { bytes, count, counted, share } from './format.js';
import { from } from './page.js';
import {
  bar, blob, confirm, empty, facts, field, folded, incomplete, input, notice, pager, repository, row, select, table, taskState,
} from './parts.js';
import { go, href } from './route.js';

const PER_PAGE = 50;
const FILTERS = ['state', 'registry', 'repository', 'digest'];
const STATES = [['', 'any'], ...['FETCHING', 'COMPLETE', 'PARTIAL'].map((it) => [it, it])];
const COLUMNS = ['Blob', 'State', 'Repository:wide', 'Size:number', 'Whole:number', 'Part:number', 'Wanting:number', 'Owner'];
/** The ways that bytes of a blob came and went at this gateway. */
const WAYS = {
  registry: 'read from the registry', hub: 'read from the hub', peers: 'taken from peers', sent: 'sent from its disk',
};

export const tasks = (page, route) => (route.id ? one(page, route.id) : list(page, route.parameters));

function list(page, parameters) {
  page.title = 'Tasks';
  const filter = Object.fromEntries(FILTERS.map((it) => [it, parameters.get(it) ?? '']));
  const isFiltered = Object.values(filter).some(Boolean);
  const after = parameters.get('after');
  const found = page.live(path(['tasks'], { ...filter, after, per_page: PER_PAGE }));
  const to = (next) => href('tasks', null, { ...filter, after: next });
  return () => [
    search(filter, isFiltered),
    from(found, 'The tasks', (it) => [
      incomplete(it.incomplete),
      it.tasks.length > 0 ? table('Tasks', COLUMNS, it.tasks.map(line)) : empty(nothing(isFiltered, it.next)),
      pager(!after, to(null), it.next && to(it.next)),
    ]),
  ];
}

function nothing(isFiltered, next) {
  if (next) return 'No blob of this part of the list is of that repository. There may be some on the next page.';
  if (isFiltered) return 'No blob is like that. A gateway knows the repositories that it has opened a blob for since it started.';
  return 'The region holds no blob yet: nothing has been pulled through it.';
}

function search(filter, isFiltered) {
  const submit = (event) => {
    event.preventDefault();
    const wanted = Object.fromEntries(FILTERS.map((it) => [it, event.target.elements[it].value.trim()]));
    if (/^[0-9a-f]{64}$/.test(wanted.digest)) wanted.digest = `sha256:${wanted.digest}`;
    go('tasks', null, wanted);
  };
  const text = (name, placeholder) => input(name, { value: filter[name], placeholder });
  return h('form.filter', { role: 'search', onsubmit: submit },
    field('State', select({ id: 'state', name: 'state' }, filter.state, STATES)),
    field('Registry', text('registry', 'harbor.example.com')),
    field('Its repository', text('repository', 'team/app')),
    field('Digest', text('digest', 'sha256:…')),
    h('p.buttons', h('button.primary', 'Search'), isFiltered && h('a.button', { href: href('tasks') }, 'Show all')));
}

function line(task) {
  const { whole, part, wanting } = task.nodes;
  const counts = [whole, part, wanting].map(count);
  const size = bytes(task.contentLength);
  return row(task.id, blob('tasks', task), taskState(task.state), repository(task), size, ...counts, task.gateway);
}

function one(page, id) {
  page.title = 'Task';
  page.above = [href('tasks'), 'Tasks'];
  const task = page.load(path(['tasks', id]));
  page.actions = [
    h('a.button', { href: href('swarm', id) }, 'Swarm'),
    h('button', { type: 'button', key: 'again', onclick: task.again }, 'Refresh'),
    h('button.danger', { type: 'button', onclick: () => remove(id, task.again) }, 'Remove …'),
  ];
  return () => from(task, 'The task', (it) => [description(it), h('div.columns', sources(it), traffic(it))]);
}

/** What a task is, here and on the page of its swarm. */
export function description(task, ...more) {
  const { whole, part, wanting } = task.nodes;
  return facts(
    ['Task', h('span.mono', task.id)],
    ['State', taskState(task.state)],
    ['Size', `${bytes(task.contentLength)} in ${counted(task.pieces, 'piece')} of ${bytes(task.pieceLength)}`],
    ['Nodes', having(task.nodes), ` ${count(whole)} hold it, ${count(part)} hold a part, ${count(wanting)} want it`],
    ['Owner', task.gateway],
    ['Read by this gateway', seed(task)],
    ...more);
}

function sources({ sources: all, moreSources }) {
  const none = empty('This gateway has not opened it for any repository since it started. Another of the region may have.');
  const lines = all.map((it) => row(`${it.registry}/${it.repository}`, it.registry, it.repository));
  return h('section', h('h2', 'Sources'), all.length > 0 ? table('Sources', ['Registry', 'Repository:wide'], lines) : none,
    moreSources && h('p.quiet', 'There were more repositories than are kept.'));
}

function traffic({ traffic: it }) {
  const most = Math.max(...Object.values(it ?? {}));
  const compared = (way) => bar(bytes(it[way]), [share(it[way], most), way === 'registry' ? 'warm' : 'main']);
  const line = ([way, words]) => row(way, words, compared(way), bytes(it[way]));
  const columns = ['What this gateway did', 'Compared', 'Bytes:number'];
  const savings = h('a', { href: href('savings') }, 'Savings');
  const none = empty('This gateway has moved nothing of it since it started.');
  return h('section', h('h2', 'Traffic by source'),
    it ? table('Traffic by source', columns, Object.entries(WAYS).map(line)) : none,
    h('p.quiet', 'What nodes send each other no gateway sees; what they receive in all is shown by ', savings, '.'));
}

function remove(id, after) {
  const question = [
    h('p', 'Every node and gateway of the region removes this blob:'), h('p.mono', id),
    h('p', 'A client’s stream over it may end early. The registry keeps it: whoever may read it gets it anew. ',
      'This can take half a minute.'),
  ];
  const run = async () => {
    const answer = await send('DELETE', path(['tasks', id]));
    after();
    return answer;
  };
  confirm('Remove the task?', { question, verb: 'Remove it everywhere', run, done: removal });
}

function removal({ nodes, failed, removed, rowsLeftOut, incomplete: silent }) {
  const isWhole = nodes.failed === 0 && silent.length === 0;
  const line = (it) => row(it.id, h('span.mono', it.id), it.address, it.cause ?? 'removed');
  const columns = ['Node', 'Address', 'What came of it:wide'];
  const counts = [['Removed at', nodes.removed], ['Had nothing', nodes.nothing], ['Failed', nodes.failed]];
  return [
    isWhole ? notice('good', 'Nothing is left of it.') : notice('warn', 'Something may be left: remove it again.'),
    facts(['Asked', counted(nodes.asked, 'node')], ...counts.map(([name, it]) => [name, count(it)])),
    incomplete(silent), folded('Failed', columns, failed.map(line), true), folded('Removed', columns, removed.map(line)),
    rowsLeftOut > 0 && h('p.quiet', `${counted(rowsLeftOut, 'more node is', 'more nodes are')} not listed.`),
  ];
}
