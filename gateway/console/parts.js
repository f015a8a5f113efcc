/**
 * What several pages are made of: states, bars, tables, lists of facts, notices, fields, dialogs, and how blobs and
 * times are named. Knows no page and no request.
 */

import { h, show } from './dom.js';
import { brief, count, moment, percent, share } from './format.js';
import { href } from './route.js';

/** A state: a sign, a colour and a word. `kind` is good, busy, warn, bad or none. */
export const state = (kind, ...words) => h('span.state', { 'data-kind': kind }, words);

/** Something that is to be noticed. */
export const notice = (kind, ...content) => h('div.notice', { 'data-kind': kind }, content);

/** Why there is nothing. */
export const empty = (...words) => h('p.empty', words);

/** What failed, and what to do. */
export function trouble(failure, what, { retry, button } = {}) {
  const lines = failure.messages ?? [failure.message];
  const isOne = lines.length === 1;
  return h('div.notice', { 'data-kind': 'bad', role: retry ? null : 'alert' },
    h('p', isOne ? `${what}: ${lines[0].replace(/\.$/, '')}.` : `${what}:`),
    !isOne && h('ul', lines.map((it) => h('li', it))),
    h('p', remedy(failure, retry), ' ', button));
}

function remedy({ status, wait }, retry) {
  if (retry) return `It is tried again by itself, next after ${retry} s.`;
  if (status === 0) return 'Check that the gateway runs and can be reached from here.';
  if (status === 200) return 'It is shown here as soon as the gateway has it.';
  if (status === 403) return 'Sign out, and sign in with a token that has this right.';
  if (status === 404) return 'It may have gone since the link to it was made.';
  if (status === 422) return 'Correct that, and try again.';
  if (status === 429) return `Too much is asked for at once: wait ${wait || 1} s, and try again.`;
  return status >= 500 ? 'The gateway’s log may say more.' : '';
}

/** The schedulers that did not answer, where there are some. */
export function incomplete(silent) {
  if (silent.length === 0) return null;
  const all = silent.map((it) => h('li', h('code', it.scheduler), `: ${it.cause}`));
  return notice('warn', h('p', 'These schedulers do not answer, and what they alone know is missing:'), h('ul', all));
}

/**
 * A table in a box of its own that scrolls. A column is its name, with `:number` or `:wide` where it is that. The first
 * cell of a row names it.
 */
export function table(caption, columns, rows) {
  const [names, kinds] = [0, 1].map((part) => columns.map((it) => it.split(':')[part]));
  const cell = (tag, scope) => (it, index) => h(tag, { scope, 'data-kind': kinds[index] }, it);
  const [column, name, other] = [cell('th', 'col'), cell('th', 'row'), cell('td')];
  const line = (it) => h('tr', { key: it.key }, it.map((content, index) => (index === 0 ? name : other)(content, index)));
  return h('div.scroll', { role: 'region', tabindex: 0, 'aria-label': caption },
    h('table', h('caption.hidden', caption), h('thead', h('tr', names.map(column))), h('tbody', rows.map(line))));
}

/** A row's cells, and a key that it keeps while others come and go. */
export const row = (key, ...cells) => Object.assign(cells, { key });

/** A table that is unfolded on demand, where it has rows. */
export function folded(title, columns, rows, isOpen = false) {
  if (rows.length === 0) return null;
  const summary = h('summary', `${title} (${count(rows.length)})`);
  return h('details', { key: title, open: isOpen }, summary, table(title, columns, rows));
}

/** Names and what they are; those without are left out. The first has a line of its own. */
export function facts(...pairs) {
  const isThere = ([, it]) => it !== null && it !== undefined && it !== false && it !== '';
  return h('dl.facts', pairs.filter(isThere).map(([name, ...it]) => h('div', { key: name }, h('dt', name), h('dd', it))));
}

/** A list of big figures: name, value, and more about it. */
export function figures(...all) {
  const [named, valued, about] = ['p.name', 'p.value', 'p.quiet'].map((kind) => (it) => h(kind, it));
  const figure = ([name, value, more]) => h('li', { key: name }, named(name), valued(value), about(more));
  return h('ul.figures', all.map(figure));
}

/** A bar of parts, each `[share, kind]`, with what it says in words. */
export function bar(label, ...parts) {
  const part = ([width, kind]) => h('span', { 'data-kind': kind, style: { width: `${width * 100}%` } });
  return h('span.bar', { role: 'img', 'aria-label': label, title: label }, parts.map(part));
}

/** A bar with a figure beside it. */
export const measured = (it, figure) => h('span.progress', it, h('span.figure', figure));

/** A bar of so much of a whole, with the percentage beside it. */
export function progress(part, whole) {
  return measured(bar(percent(part, whole), [share(part, whole), 'main']), percent(part, whole));
}

/** Links to other pages of a list: back to the first, and to the next. */
export function pager(isFirst, first, next, words = ['First page', 'Next page']) {
  if (isFirst && !next) return null;
  const link = (to, name) => h('a.button', { key: name, href: to }, name);
  return h('nav.pager', { 'aria-label': 'Pages of the list' }, !isFirst && link(first, words[0]), next && link(next, words[1]));
}

/** Choices, of which one is in force, as links: `[name, address, whether it is]`. */
export function choices(label, all) {
  const link = ([name, to, isCurrent]) => h('a', { href: to, 'aria-current': isCurrent ? 'true' : null }, name);
  return h('nav.choices', { 'aria-label': label }, all.map(link));
}

/** An input, which has an id, with its label and more about it. */
export function field(label, control, hint) {
  const { id } = control.props;
  if (hint) control.props['aria-describedby'] = `${id}-hint`;
  return h('div.field', { key: id }, h('label', { htmlFor: id }, label), control, hint && h('p.hint', { id: `${id}-hint` }, hint));
}

/** An input of text whose name is its id. */
export const input = (name, props) => h('input', { id: name, name, autocomplete: 'off', spellcheck: 'false', ...props });

/** A choice of one; options are values with their names. */
export function select(props, value, options) {
  return h('select', props, options.map(([it, name]) => h('option', { value: it, selected: it === value }, name)));
}

/** A blob's digest in short, as a link. */
export const blob = (page, { id, digest }) => h('a.mono', { href: href(page, id), title: digest }, brief(digest));

/** A digest in short. */
export const digest = (it) => h('span.mono', { title: it }, brief(it));

/** The first repository that a task was opened for. */
export function repository({ sources, trustGroup, moreSources }) {
  if (sources.length === 0) return h('span.quiet', trustGroup);
  const [{ registry, repository: name }, ...others] = sources;
  const n_more = others.length > 0 ? `${others.length}${moreSources ? '+' : ''}` : '';
  return [`${registry}/${name}`, n_more && h('span.quiet', ` and ${n_more} more`)];
}

/** A task's state in the API's word. */
export const taskState = (word) => state({ FETCHING: 'busy', COMPLETE: 'good' }[word] ?? 'none', word);

/** A moment, in the reader's time zone, with UTC in its title. */
export const time = (at) => (at ? h('time', { datetime: at, title: at }, moment(at)) : '–');

/** A zone or rack. */
export const place = (label) => label || h('span.quiet', 'not stated');

/** Asks before something is done, does it by `run`, and shows what came of it, as `done` draws it. */
export function confirm(title, { question, verb, run, done }) {
  const element = document.createElement('dialog');
  const close = () => element.close();
  const button = (kind, words, props) => h(kind, { type: 'button', key: words, ...props }, words);
  const draw = ({ isBusy = false, answer, failure }) => show(element,
    h('h2', { id: 'dialog-title' }, title),
    answer ? h('div', { key: 'done', role: 'status' }, done(answer)) : h('div', { key: 'question' }, question),
    failure && trouble(failure, 'It was not done'),
    h('p.buttons',
      !answer && button('button.danger', isBusy ? 'Please wait …' : verb, { key: 'do', disabled: isBusy, onclick: act }),
      button('button', answer ? 'Close' : 'Leave it', { key: 'leave', autofocus: true, onclick: close })));
  const act = async () => {
    draw({ isBusy: true });
    draw(await run().then((answer) => ({ answer }), (failure) => ({ failure })));
  };
  element.setAttribute('aria-labelledby', 'dialog-title');
  element.addEventListener('close', () => element.remove());
  document.body.append(element);
  draw({});
  element.showModal();
}
