/**
 * One blob's swarm, live: which pieces each member holds, how many hold each part, and who is whose neighbour.
 */

import { path } from './api.js';
import { h } from './dom.js';
import { brief, byName, count, counted, percent, share } from './format.js';
import { graph, neighbours } from './graph.js';
import { map, where } from './map.js';
import { from } from './page.js';
import { notice, row, table } from './parts.js';
import { href } from './route.js';
import { description } from './tasks.js';

const COLUMNS = ['Member', 'Role', 'Zone / rack', 'Address', 'Pieces:number', 'Share:number', 'Wants it', 'Neighbours:wide'];

export function swarm(page, { id }) {
  const task = id ?? '';
  page.title = `Swarm of ${brief(task)}`;
  page.above = [href('downloads'), 'Downloads'];
  page.actions = [h('a.button', { href: href('tasks', task) }, 'Task')];
  const view = { picked: null, hasTable: false };
  const change = (changes) => { Object.assign(view, changes); page.update(); };
  const source = page.live(path(['tasks', task, 'swarm']));
  source.changed = () => { source.isGone = source.failure?.status === 404; };
  return () => {
    const data = source.data && sorted(source.data);
    const shown = (it) => from(it, 'The swarm', (found) => draw(found, view, change));
    return source.isGone ? [gone(), data && shown({ data })] : shown({ ...source, data });
  };
}

function gone() {
  const downloads = h('a', { href: href('downloads') }, 'See what is being fetched now');
  const title = h('strong', 'This task has ended:');
  return notice('warn', h('p', title, ' nobody in the region holds or wants the blob any more. ', downloads, '.'));
}

/** Members in the order of where they stand, gateways first; each with its number in what the API gave. */
function sorted(swarm) {
  const isGateway = (it) => Number(it.role === 'gateway');
  const order = (one, other) => isGateway(other) - isGateway(one)
    || byName(one.zone, other.zone) || byName(one.rack, other.rack) || byName(one.id, other.id);
  const members = swarm.members.map((it, number, { length }) => ({
    ...it, number, share: share(it.pieces, swarm.task.pieces), neighbours: it.neighbours.filter((other) => other < length),
  }));
  return { ...swarm, names: swarm.members.map((it) => it.id), members: members.sort(order) };
}

function draw(it, view, change) {
  const seeder = ['Seeded by', it.seeder ?? 'no gateway at present'];
  return [
    it.task.state !== 'FETCHING' && notice('good', 'Nobody wants this blob any more: who asked for it has it.'),
    description(it.task, seeder, ['Members', count(it.members.length + it.more)]),
    it.more > 0 && h('p.quiet', `${counted(it.more, 'more member is', 'more members are')} not shown.`),
    h('div.swarm',
      h('section.card', { key: 'map' }, h('h2', 'Pieces'), map(it)),
      h('section.card', { key: 'graph' }, h('h2', 'Peer connections'), graph(it, view.picked, (picked) => change({ picked })))),
    h('details', { ontoggle: (event) => change({ hasTable: event.target.open }) },
      h('summary', 'Members and their neighbours as a table'), view.hasTable && members(it)),
  ];
}

function members({ members: all, names, task }) {
  const line = (it) => row(it.id, h('span.mono', it.id), it.role, where(it), h('span.mono', it.address),
    count(it.pieces), percent(it.pieces, task.pieces), it.wants ? 'yes' : 'no', neighbours(it, names));
  return table('Members and their neighbours', COLUMNS, all.map(line));
}
