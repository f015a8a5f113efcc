/**
 * The form that asks for a preheat job. What is wrong with it the gateway says.
 */

import { send } from './api.js';
import { h } from './dom.js';
import { field, input, select, trouble } from './parts.js';
import { go, href } from './route.js';

/** Where a job has an image, in the API's words and ours. */
export const SCOPES = {
  single_seed_peer: 'each blob at the gateway that owns it',
  all_seed_peers: 'everything at each gateway',
  all_peers: 'at the nodes',
};
const PICKS = [['', 'all'], ['count', 'so many'], ['percentage', 'so many of a hundred'], ['ips', 'those at these addresses']];
/** The fields that are lists, and those that are numbers. */
const LISTS = ['platforms', 'ips', 'regions'];
const NUMBERS = ['count', 'percentage', 'concurrent_task_count', 'concurrent_peer_count'];

export function form(page) {
  page.title = 'Start a preheat job';
  page.above = [href('preheat'), 'Preheat'];
  const view = { scope: 'single_seed_peer', pick: '', failure: null, isBusy: false };
  const change = (changes) => { Object.assign(view, changes); page.update(); };
  const submit = async (event) => {
    event.preventDefault();
    const body = asBody(event.target);
    change({ isBusy: true, failure: null });
    try {
      go('preheat', (await send('POST', 'preheat', { body, signal: page.signal })).id);
    } catch (failure) {
      change({ isBusy: false, failure });
    }
  };
  return () => h('form.sheet', { onsubmit: submit },
    common(view, change),
    h('details', h('summary', 'Other regions, limits and a credential'), further()),
    view.failure && trouble(view.failure, 'The job was not taken'),
    h('p.buttons',
      h('button.primary', { disabled: view.isBusy }, view.isBusy ? 'Asking …' : 'Start the job'),
      h('a.button', { href: href('preheat') }, 'Leave it')));
}

/** What is asked for, without what was left empty. */
function asBody(element) {
  const value = (name, it) => {
    if (LISTS.includes(name)) return it.split(/[\s,]+/).filter(Boolean);
    return NUMBERS.includes(name) ? Number(it) : it;
  };
  const given = [...new FormData(element)].map(([name, it]) => [name, name === 'password' ? it : it.trim()]);
  return Object.fromEntries(given.filter(([, it]) => it !== '').map(([name, it]) => [name, value(name, it)]));
}

const number = (name, max, placeholder) => input(name, { type: 'number', min: 1, max, placeholder });

function common({ scope, pick }, change) {
  const isNodes = scope === 'all_peers';
  const scopes = { id: 'scope', name: 'scope', onchange: (event) => change({ scope: event.target.value, pick: '' }) };
  const picks = { id: 'pick', onchange: (event) => change({ pick: event.target.value }) };
  const image = input('image', { required: true, placeholder: 'harbor.example.com/production/app:v2' });
  const ips = h('textarea', { id: 'ips', name: 'ips', rows: 3, spellcheck: 'false' });
  const platforms = input('platforms', { placeholder: 'linux/amd64' });
  return [
    field('Image', image, 'host/repository:tag, host/repository@sha256:…, or the URL of its manifest.'),
    field('Where', select(scopes, scope, Object.entries(SCOPES)), 'What gateways are to hold they read after what pulls want.'),
    isNodes && field('Which nodes', select(picks, pick, PICKS), 'So many are spread over zones and racks.'),
    pick === 'count' && field('How many nodes', number('count', 200), 'From 1 to 200.'),
    pick === 'percentage' && field('How many of a hundred', number('percentage', 100), 'Rounded down, at least one node.'),
    pick === 'ips' && field('Addresses', ips, 'Up to 100, separated by commas or white space.'),
    isNodes && field('Zone', input('zone'), 'Nodes of this zone only. Empty: all zones.'),
    field('Platforms', platforms, 'os/architecture, several with commas. Empty: all of the image.'),
  ];
}

function further() {
  const regions = input('regions', { placeholder: 'eu, us' });
  return [
    field('Other regions', regions, 'Their names with commas, or * for all that are connected.'),
    field('Blobs at once at a node', number('concurrent_task_count', 100, '8'), 'From 1 to 100.'),
    field('Nodes at once', number('concurrent_peer_count', 1000, '500'), 'From 1 to 1000.'),
    field('Timeout', input('timeout', { placeholder: '10m' }), 'No job runs for more than 1700 s.'),
    field('User name', input('username'), 'At the registry, where the caller’s own right is looked at. It is kept nowhere.'),
    field('Password', input('password', { type: 'password' })),
  ];
}
