/**
 * The settings that count, by key, with a filter. What nobody has changed is told from what somebody has.
 */

import { h } from './dom.js';
import { byName } from './format.js';
import { from } from './page.js';
import { empty, field, input, select } from './parts.js';

const SHOWN = [['', 'all'], ['changed', 'those that were set']];

export function settings(page) {
  page.title = 'Settings';
  const source = page.load('settings');
  const view = { wanted: '', shown: '' };
  const change = (changes) => { Object.assign(view, changes); page.update(); };
  const filter = h('div.filter',
    field('Filter', input('filter', { type: 'search', oninput: ({ target }) => change({ wanted: target.value.trim().toLowerCase() }) }), 'A part of a key or of a value.'),
    field('Show', select({ id: 'shown', name: 'shown', onchange: ({ target }) => change({ shown: target.value }) }, view.shown, SHOWN)));
  return () => from(source, 'The settings', ({ settings: all }) => {
    const meant = all.filter((it) => isMeant(it, view)).sort((one, other) => byName(one.key, other.key));
    const groups = Map.groupBy(meant, ({ key }) => (key.includes('.') ? key.split('.')[0] : ''));
    return [
      filter,
      h('p.quiet', 'What this gateway runs with: its settings file, and defaults for the rest. Secrets are not shown.'),
      meant.length === 0 && empty('No such setting has that in its key or value.'),
      h('div.sheets', [...groups].map(group)),
    ];
  });
}

const isMeant = ({ key, value, isDefault }, { wanted, shown }) => `${key} ${value}`.toLowerCase().includes(wanted) && !(shown && isDefault);

/** The settings of one group; those of none stand in a card without a heading. */
function group([name, settings]) {
  const line = ({ key, value, isDefault }) => h('div', { key, 'data-kind': 'leaf' },
    h('dt.mono', key.slice(name && name.length + 1)),
    h('dd.mono', value || h('span.quiet', 'empty'), isDefault && h('span.quiet', ' (default)')));
  return h('section.card', { key: name }, name && h('h2.mono', name), h('dl.tree', settings.map(line)));
}
