/**
 * Who asked this gateway for what and what was decided, the newest first.
 */

import { path } from './api.js';
import { h } from './dom.js';
import { from } from './page.js';
import { digest, empty, field, input, pager, row, state, table, time } from './parts.js';
import { go, href } from './route.js';

const PER_PAGE = 50;
const COLUMNS = ['Time', 'Event', 'Who', 'What:wide', 'Outcome'];
const OUTCOMES = { allowed: 'good', refused: 'bad', failed: 'bad', undecided: 'warn' };
/** Each event in words: who came, what for, and how it ended. */
const EVENTS = {
  authorization: (it) => ({
    who: [it.node, `caller ${it.caller}`],
    what: ['blob ', digest(it.digest), ` of ${it.registry}/${it.repository}`],
    more: it.proof && `by ${it.proof}`,
  }),
  read: (it) => ({
    who: [it.node, it.client, `caller ${it.caller}`],
    what: [`${it.resource} of ${it.registry}/${it.repository}`],
    more: it.status,
  }),
  rejection: (it) => ({
    who: [it.node, it.client],
    what: [it.request, it.registry && ` at ${it.registry}`],
    outcome: 'refused',
    more: it.reason,
  }),
  certificate: (it) => ({
    who: [it.client, `by ${it.credential}`],
    what: ['certificate', it.node && ` for ${it.node}`, it.expires && [', until ', time(it.expires)]],
  }),
  management: (it) => ({
    who: [it.token ? `token ${it.token.name}` : 'no good token', it.client],
    what: [`${it.method} ${it.route}`, it.subject && ` of ${short(it.subject)}`],
    outcome: answered(it.status),
    more: it.status,
  }),
};

export function audit(page, { parameters }) {
  page.title = 'Audit';
  const [text, before] = [parameters.get('text') ?? '', parameters.get('before')];
  const log = page.load(path(['audit'], { before, text, per_page: PER_PAGE }));
  page.actions = [h('button', { type: 'button', onclick: log.again }, 'Refresh')];
  const to = (next) => href('audit', null, { text, before: next });
  return () => [
    search(text),
    from(log, 'The audit log', (it) => [
      it.lines.length > 0 ? table('Audit log, the newest first', COLUMNS, it.lines.map(line)) : empty(nothing(it, text)),
      pager(!before, to(null), it.next && to(it.next), ['Newest', 'Older']),
    ]),
  ];
}

function nothing({ kept, next }, text) {
  if (!kept) return 'The audit log is off, or goes to standard output (audit.file in the settings): there is nothing to read here.';
  if (next) return 'No line of this part of the log has that. There may be some among older ones.';
  return text ? 'No line has that.' : 'Nothing has been written yet.';
}

function search(text) {
  const submit = (event) => {
    event.preventDefault();
    go('audit', null, { text: event.target.elements.text.value.trim() });
  };
  return h('form.filter', { role: 'search', onsubmit: submit },
    field('Lines with this text', input('text', { type: 'search', value: text })),
    h('p.buttons', h('button.primary', 'Search'), text && h('a.button', { href: href('audit') }, 'Show all')));
}

const answered = (status) => (status < 400 ? 'allowed' : status < 500 ? 'refused' : 'failed');

/** A text with its digests in short. */
const short = (text) => text.replace(/sha256:[0-9a-f]{64}/g, (it) => `${it.slice(0, 19)}…`);

function line(it, index) {
  const { who = [], what = [], more, outcome = it.outcome } = EVENTS[it.event]?.(it) ?? {};
  const text = (value) => (typeof value === 'object' ? JSON.stringify(value) : String(value));
  const entry = ([key, value]) => h('div', { key, 'data-kind': 'leaf' }, h('dt', key), h('dd', text(value)));
  return row(`${it.time} ${index}`, time(it.time), it.event, who.filter(Boolean).map((name) => h('div', name)),
    [h('div', what), h('details', h('summary', 'All fields'), h('dl.tree.mono', Object.entries(it).map(entry)))],
    [outcome && state(OUTCOMES[outcome] ?? 'none', outcome), more && h('span.quiet', ' ', more)]);
}
