/**
 * Preheat jobs: a list, and one of them while it goes on and afterwards.
 */

import { path, send } from './api.js';
import { h } from './dom.js';
import { bytes, count, counted, duration, percent, share } from './format.js';
import { from } from './page.js';
import {
  bar, choices, confirm, digest, empty, facts, folded, notice, pager, progress, row, state, table, time,
} from './parts.js';
import { form, SCOPES } from './preheat-form.js';
import { href } from './route.js';

const PER_PAGE = 25;
const STATES = [['', 'All'], ['PENDING', 'Pending'], ['SUCCESS', 'Success'], ['FAILURE', 'Failure']];
const BRIEF = { single_seed_peer: 'owners', all_seed_peers: 'gateways', all_peers: 'nodes' };
const NONE = 'There is no job yet, or those that ended are older than a week. '
  + 'A job has an image on nodes or gateways before it is wanted.';
const COLUMNS = ['Job', 'Image:wide', 'State', 'Held', 'Nodes done:number', 'Where', 'Asked by', 'Asked for'];

export function preheat(page, route) {
  if (route.id === 'new') return form(page);
  return route.id ? one(page, route.id) : list(page, route.parameters);
}

/** How a job or its part in a region stands, and what it is at where it has not ended. */
function standing({ state: word, doing }) {
  return [state({ PENDING: 'busy', SUCCESS: 'good' }[word] ?? 'bad', word), word === 'PENDING' && ` ${doing}`];
}

function where({ request, regions = [] }, words) {
  return [words[request.scope] ?? request.scope, regions.length > 0 && `, ${counted(regions.length, 'other region')}`];
}

function list(page, parameters) {
  page.title = 'Preheat';
  page.actions = [h('a.button.primary', { href: href('preheat', 'new') }, 'Start a job')];
  const [wanted, number] = [parameters.get('state') ?? '', Number(parameters.get('page')) || 1];
  const jobs = page.live(path(['preheat'], { state: wanted, page: number, per_page: PER_PAGE }));
  const to = (it) => href('preheat', null, { state: wanted, page: it > 1 ? it : null });
  const choice = ([word, name]) => [name, href('preheat', null, { state: word }), word === wanted];
  const none = empty(wanted ? `No job is ${wanted}.` : NONE);
  return () => [
    choices('State', STATES.map(choice)),
    from(jobs, 'The jobs', (it) => [
      it.jobs.length > 0 ? table('Preheat jobs, the latest first', COLUMNS, it.jobs.map(line)) : none,
      it.total > 0 && h('p.quiet', `${counted(it.total, 'job')} in all.`),
      pager(number === 1, to(1), number * PER_PAGE < it.total && to(number + 1)),
    ]),
  ];
}

function line(it) {
  const { bytesHeld, bytes: all, nodesDone, nodes } = it.progress;
  return row(it.id, h('a', { href: href('preheat', it.id) }, it.id), it.request.image, standing(it), progress(bytesHeld, all),
    `${count(nodesDone)} of ${count(nodes)}`, where(it, BRIEF), it.askedBy, time(it.created));
}

function one(page, id) {
  page.title = `Preheat job ${id}`;
  page.above = [href('preheat'), 'Preheat'];
  const job = page.live(path(['preheat', id]));
  const stop = h('button.danger', { type: 'button', onclick: () => cancel(id) }, 'Cancel …');
  return () => {
    page.actions = job.data?.state === 'PENDING' ? [stop] : [];
    return from(job, 'The job', (it) => [
      it.errors.length > 0 && notice(it.state === 'FAILURE' ? 'bad' : 'warn', h('ul', it.errors.map((text) => h('li', text)))),
      asked(it),
      region('This region', it, it.request),
      (it.regions ?? []).map((other) => region(`Region ${other.name}`, other, it.request, other)),
    ]);
  };
}

function asked(job) {
  const { image, platforms, ips, count: n, percentage, zone, layers, nodes, timeout } = job.request;
  const chosen = [ips?.length && `those at ${ips.join(', ')}`, n && counted(n, 'node'), percentage && `${percentage} of a hundred`];
  return facts(
    ['Image', h('span.mono', image)],
    ['State', standing(job)],
    ['Where', where(job, SCOPES)],
    ['Which nodes', [...chosen, zone && `zone ${zone}`].filter(Boolean).join(', ')],
    ['Platforms', platforms?.join(', ') || 'all of the image'],
    ['At once', [layers && `${counted(layers, 'blob')} at a node`, nodes && counted(nodes, 'node')].filter(Boolean).join(', ')],
    ['Timeout', timeout && duration(timeout)],
    ['Asked by', job.askedBy, job.hasCredential && ', with a credential of its own'],
    ['Cancelled by', job.cancelledBy],
    ['Asked for', time(job.created)],
    ['As of', time(job.updated)]);
}

/** What is done in one region; `told` is what another region says of itself. */
function region(title, { progress: it, layers, success, failure, rowsLeftOut }, request, told) {
  // A blob that is kept by its owner is at one gateway, others are at all that the job has.
  const targets = request.scope === 'single_seed_peer' ? 1 : it.nodes;
  const held = `${bytes(it.bytesHeld)} of ${bytes(it.bytes)}, ${percent(it.bytesHeld, it.bytes)}`;
  const failed = it.nodesFailed > 0 ? `, ${count(it.nodesFailed)} failed` : '';
  const nodes = `${count(it.nodesDone)} of ${counted(it.nodes, 'node')} done${failed}`;
  const columns = ['Layer', 'Size:number', 'Nodes', 'Done:number', 'Failed:number'];
  return h('section.card', { key: title },
    h('div.between', h('h2', title), told && h('p', standing(told))),
    told?.errors.length > 0 && h('ul', told.errors.map((text) => h('li', text))),
    h('div.columns',
      meter('Bytes', bar(held, [share(it.bytesHeld, it.bytes), 'main']), held),
      meter('Nodes', nodesBar(it.nodesDone, it.nodesFailed, it.nodes), nodes)),
    layers.length > 0 && table(`Layers, ${title}`, columns, layers.map((layer) => layerRow(layer, targets))),
    folded('Failures', ['Node', 'Address', 'Blob', 'Cause:wide'], failure.map(blobAtNode), true),
    folded('Held', ['Node', 'Address', 'Blob'], success.map(blobAtNode)),
    rowsLeftOut > 0 && h('p.quiet', `${counted(rowsLeftOut, 'more row is', 'more rows are')} not listed.`));
}

const meter = (name, it, words) => h('div.meter', { key: name }, h('p.name', name), it, h('p', words));

function layerRow({ digest: it, size, nodesDone: done, nodesFailed: failed }, targets) {
  return row(it, digest(it), bytes(size), nodesBar(done, failed, Math.max(targets, done + failed)), count(done), count(failed));
}

function nodesBar(done, failed, all) {
  const label = `${count(done)} done, ${count(failed)} failed of ${count(all)}`;
  return bar(label, [share(done, all), 'main'], [share(failed, all), 'bad']);
}

/** A blob at a node that holds it, or does not, and why. */
function blobAtNode({ hostname, ip, url, description }) {
  const cells = [h('span.mono', hostname), ip, digest(url.slice(url.lastIndexOf('/') + 1))];
  return row(`${hostname} ${url}`, ...cells, ...(description ? [description] : []));
}

function cancel(id) {
  confirm('Cancel the job?', {
    question: h('p', 'Nodes stop fetching what nobody else wants. What they hold already stays.'),
    verb: 'Cancel the job',
    run: () => send('DELETE', path(['preheat', id])),
    done: (job) => h('p', 'The job is now ', standing(job), '.'),
  });
}
