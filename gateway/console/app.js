/**
 * The start: signing in and out, the list of pages, and which of them is shown.
 */

import { send, session } from './api.js';
import { audit } from './audit.js';
import { certificates } from './certificates.js';
import { h, show } from './dom.js';
import { downloads } from './downloads.js';
import { fleet, nodes } from './fleet.js';
import { Page } from './page.js';
import { field, input, trouble } from './parts.js';
import { preheat } from './preheat.js';
import { current, href } from './route.js';
import { savings } from './savings.js';
import { settings } from './settings.js';
import { swarm } from './swarm.js';
import { tasks } from './tasks.js';

/** What draws a page, and the page of the navigation that it belongs to. */
const PAGES = {
  fleet: [fleet, 'fleet'],
  nodes: [nodes, 'fleet'],
  downloads: [downloads, 'downloads'],
  swarm: [swarm, 'downloads'],
  tasks: [tasks, 'tasks'],
  preheat: [preheat, 'preheat'],
  savings: [savings, 'savings'],
  settings: [settings, 'settings'],
  certificates: [certificates, 'certificates'],
  audit: [audit, 'audit'],
};
const GROUPS = [
  ['Region', [['fleet', 'Fleet'], ['downloads', 'Downloads'], ['tasks', 'Tasks'], ['preheat', 'Preheat'], ['savings', 'Savings']]],
  ['This gateway', [['settings', 'Settings'], ['certificates', 'Certificates'], ['audit', 'Audit']]],
];

const [main, nav, menu] = ['main', 'nav', 'menu'].map((id) => document.getElementById(id));
let page = null;
let shown = '';

function start() {
  session.whenRefused(() => signOut('The gateway does not accept the token any more. It may have been withdrawn.'));
  addEventListener('hashchange', navigate);
  // The skip link is no page.
  document.querySelector('.skip').addEventListener('click', (event) => {
    event.preventDefault();
    main.focus();
  });
  menu.addEventListener('click', () => openMenu(menu.getAttribute('aria-expanded') !== 'true'));
  navigate();
}

/** Shows what the address says, or asks for a token first. */
function navigate() {
  if (!session.token) return askForToken();
  const route = current();
  const name = Object.hasOwn(PAGES, route.page) ? route.page : 'fleet';
  const [open, belongsTo] = PAGES[name];
  const place = `${name}/${route.id}`;
  const isMove = shown !== '' && shown !== place;
  page?.leave();
  // The same page with other parameters keeps what somebody has typed, and the focus.
  if (shown !== place) main.replaceChildren();
  page = new Page(main);
  openMenu(false);
  showNav(belongsTo);
  page.open(open(page, route));
  shown = place;
  if (!isMove) return undefined;
  main.querySelector('h1').focus({ preventScroll: true });
  scrollTo(0, 0);
  return undefined;
}

function showNav(belongsTo) {
  const link = ([name, title]) => h('li', h('a', { href: href(name), 'aria-current': name === belongsTo ? 'page' : null }, title));
  const group = ([title, pages], index) => {
    const id = `nav-${index}`;
    return [h('p', { id }, title), h('ul', { 'aria-labelledby': id }, pages.map(link))];
  };
  const leave = () => signOut('You have signed out. The token is forgotten here.');
  [nav.hidden, menu.hidden] = [false, false];
  show(nav, GROUPS.map(group), h('button', { type: 'button', onclick: leave }, 'Sign out'));
}

function openMenu(isOpen) {
  menu.setAttribute('aria-expanded', String(isOpen));
}

function signOut(reason) {
  session.forget();
  askForToken(reason);
}

function askForToken(reason = '') {
  page?.leave();
  [page, shown] = [null, ''];
  [nav.hidden, menu.hidden] = [true, true];
  document.title = 'Sign in – Shoal';
  drawLogin({ reason });
  main.querySelector('input').focus();
}

function drawLogin({ reason, failure, isBusy }) {
  const token = input('token', { type: 'password', required: true, 'aria-invalid': failure ? 'true' : null });
  const code = (text) => h('code', text);
  show(main, h('div.login.card',
    h('h1', 'Sign in'),
    reason && h('p.notice', { role: 'status', 'data-kind': 'warn' }, reason),
    failure,
    h('form', { onsubmit: signIn },
      field('Management token', token, 'It is kept in this tab until you sign out or close it.'),
      h('p.buttons', h('button.primary', { disabled: isBusy }, isBusy ? 'Signing in …' : 'Sign in'))),
    h('p.quiet', 'The gateway’s first start leaves a token in the file ', code('management-token'), ' in its storage directory. ',
      'The scope ', code('read'), ' shows everything, ', code('preheat'), ' starts jobs, ', code('delete'), ' removes tasks.')));
}

async function signIn(event) {
  event.preventDefault();
  const token = event.target.elements.token.value.trim();
  drawLogin({ isBusy: true });
  const failure = await check(token);
  if (failure) {
    drawLogin({ failure });
    main.querySelector('input').select();
    return;
  }
  session.keep(token);
  navigate();
}

/** Whether a token opens the console: it has to be known, and to have a scope that sees anything. */
async function check(token) {
  const no = (text) => h('p.notice', { 'data-kind': 'bad', role: 'alert' }, text);
  if (!/^[\x21-\x7e]+$/.test(token)) return no('This is no token: it has characters that no token has.');
  try {
    await send('GET', 'preheat?per_page=1', { token });
    return null;
  } catch (failure) {
    if (failure.status === 401) return no('The gateway does not know this token. Check that it is whole, and of this gateway.');
    if (failure.status === 403) return no(`The gateway knows this token, but it opens no page: ${failure.message}.`);
    return trouble(failure, 'The token could not be checked');
  }
}

start();
