/**
 * Whether all is well in the region and whether it pays: figures, who answers, and where nodes stand; and the nodes
 * themselves, a page at a time.
 */

import { path } from './api.js';
import { h } from './dom.js';
import { byName, bytes, count, counted, percent, ratio, share } from './format.js';
import { from } from './page.js';
import { empty, figures, incomplete, notice, pager, place, row, state, table, time } from './parts.js';
import { href } from './route.js';

/** The most blobs that are counted as being fetched. */
const MOST_FETCHING = 1000;
/** So many racks of a zone are shown at first. */
const SOME_RACKS = 36;
const PER_PAGE = 100;
const listed = new Intl.ListFormat('en');

export function fleet(page) {
  page.title = 'Fleet';
  const region = page.live('fleet');
  const saved = page.load(path(['savings'], { hours: 24 }), (it) => it.every);
  const unfolded = new Set();
  const unfold = (zone) => { unfolded.add(zone); page.update(); };
  const draw = (it) => [verdict(it), summary(it, saved), services(it), topology(it.zones, unfolded, unfold)];
  return () => from(region, 'The fleet', draw);
}

/** All that does not answer, in one place, or that nothing is wrong. */
function verdict({ schedulers, gateways, hub }) {
  const silent = schedulers.filter((it) => it.cause !== null);
  const rest = silent.length < schedulers.length ? 'the others take its blobs over' : 'nodes find each other through gateways';
  const wrong = [
    ...silent.map((it) => `The scheduler ${it.address} does not answer, ${rest}: ${it.cause}`),
    ...gateways.filter((it) => !it.answers).map((it) => `The gateway ${it.id} at ${it.address} does not answer.`),
    ...(hub && !hub.answers ? [`The hub does not answer: nothing new comes from ${listed.format(hub.registries)}.`] : []),
  ];
  if (wrong.length > 0) {
    const title = h('p', h('strong', counted(wrong.length, 'thing needs', 'things need'), ' attention'));
    return notice('warn', title, h('ul', wrong.map((it) => h('li', it))));
  }
  const verb = schedulers.length + gateways.length === 1 && !hub ? 'answers' : 'answer';
  const names = having([schedulers.length, 'scheduler'], [gateways.length, 'gateway'], [hub ? 1 : 0, 'hub']);
  return h('p.verdict', state('good', 'All is well:'), ` ${names} ${verb}.`);
}

/** `2 schedulers and 1 gateway`: of what there is any. */
function having(...all) {
  return listed.format(all.filter(([number]) => number > 0).map(([number, name]) => counted(number, name)));
}

function summary({ nodes, gateways, fetching }, { data, failure }) {
  const many = `${count(Math.min(fetching, MOST_FETCHING))}${fetching >= MOST_FETCHING ? '+' : ''}`;
  const { arrivedBytes: arrived = 0, registryBytes: read = 0 } = data?.total ?? {};
  const without = failure ? `Not known: ${failure.message}` : data ? 'No blob was delivered in this time.' : 'Loading …';
  const saved = h('a', { href: href('savings') }, percent(arrived - read, arrived));
  return figures(
    ['Sidecars', count(nodes.sidecars), 'in all zones'],
    ['Gateways', count(gateways.length), 'that read registries'],
    ['Blobs being fetched', h('a', { href: href('downloads') }, many), 'wanted by some node now'],
    ['Saved, last 24 h', saved, arrived ? `${bytes(arrived - read)} of ${bytes(arrived)} came from the fleet` : without],
    ['Registry bytes per delivered byte', ratio(read, arrived), arrived ? `${bytes(read)} read from registries` : without]);
}

function services({ schedulers, gateways, hub, regions }) {
  const none = empty('None is set: nodes find each other through the gateway alone.');
  const scheduler = (it) => service(it.address, it.cause === null, it.cause);
  const region = (it) => service(it.name, true, `${it.id}, ${it.address}, ${counted(it.streams, 'stream')}`, it.since);
  const reads = hub && `${hub.region} is this region’s name there; it reads ${listed.format(hub.registries) || 'no registry'}`;
  return h('div.columns',
    group('Schedulers', schedulers.length > 0 ? schedulers.map(scheduler) : none),
    group('Gateways', gateways.map((it) => service(it.id, it.answers, it.address + (it.isThis ? ', this one' : '')))),
    hub && group('Hub', service(hub.gateway ?? 'none of its gateways', hub.answers, reads, hub.since)),
    regions.length > 0 && group('Other regions', regions.map(region)));
}

const group = (title, services) => h('section.card', { key: title }, h('h2', title), h('div.services', services));

function service(name, answers, about, since) {
  return h('div', { key: name + about },
    h('p.between', h('strong', name), state(answers ? 'good' : 'bad', answers ? 'answers' : 'does not answer')),
    about && h('p.quiet', about), since && h('p.quiet', 'since ', time(since)));
}

function topology(zones, unfolded, unfold) {
  const sign = h('span.gateway', { 'aria-hidden': 'true' });
  const intro = h('p.quiet', 'Sidecars in each rack; the bar compares racks. ', sign, ' is a gateway. A zone leads to its nodes.');
  const none = empty('No node has joined. A sidecar does when it is started with this gateway in its settings.');
  const most = Math.max(0, ...zones.flatMap((it) => it.racks.map((rack) => rack.sidecars)));
  const block = (it) => zone(it, most, unfolded.has(it.zone), () => unfold(it.zone));
  return h('section', h('h2', 'Topology'), zones.length > 0 ? [intro, zones.map(block)] : none);
}

function zone({ zone: name, racks }, most, isWhole, unfold) {
  const sum = (kind) => racks.reduce((all, it) => all + it[kind], 0);
  const about = having([racks.length, 'rack'], [sum('sidecars'), 'sidecar'], [sum('gateways'), 'gateway']);
  const shown = racks.toSorted((one, other) => byName(one.rack, other.rack)).slice(0, isWhole ? racks.length : SOME_RACKS);
  const title = h('h3', h('a', { href: href('nodes', null, { zone: name }) }, name ? `Zone ${name}` : 'Zone not stated'));
  return h('section.card.zone', { key: name },
    h('div.between', title, h('p.quiet', about)),
    h('ul.racks', { 'aria-label': `Racks of ${name || 'no zone'}` }, shown.map((it) => rack(it, most))),
    racks.length > shown.length && h('button', { type: 'button', onclick: unfold }, `Show all ${counted(racks.length, 'rack')}`));
}

function rack({ rack: name, sidecars, gateways }, most) {
  const sign = gateways > 0 && h('span.gateway', { role: 'img', 'aria-label': counted(gateways, 'gateway') });
  const title = `${name ? `Rack ${name}` : 'Rack not stated'}: ${having([sidecars, 'sidecar'], [gateways, 'gateway'])}`;
  const style = { '--share': share(sidecars, most) };
  return h('li', { key: name, title, style }, h('span', name || '–'), sign, h('b', count(sidecars)));
}

/** The nodes of a zone. The API takes no zone without a name, so nodes without one are found among all. */
export function nodes(page, { parameters }) {
  const [zone, after] = [parameters.get('zone') ?? '', parameters.get('after')];
  page.title = zone ? `Nodes of zone ${zone}` : 'Nodes of all zones';
  page.above = [href('fleet'), 'Fleet'];
  const list = page.load(path(['nodes'], { zone, after, per_page: PER_PAGE }));
  const to = (next) => href('nodes', null, { zone, after: next });
  const columns = ['Node', 'Role', 'Zone', 'Rack', 'Address', 'Blobs:number'];
  return () => from(list, 'The nodes', (it) => [
    incomplete(it.incomplete),
    it.nodes.length > 0 ? table(page.title, columns, it.nodes.map(node)) : empty('No such node has joined.'),
    h('p.quiet', 'Blobs are those that a node holds something of, or wants.'),
    pager(!after, to(null), it.next && to(it.next)),
  ]);
}

function node({ id, role, zone, rack, address, blobs }) {
  const held = blobs === null ? '–' : count(blobs);
  return row(id, h('span.mono', id), role, place(zone), place(rack), h('span.mono', address), held);
}
