/**
 * The certificates that this gateway has, and how long each is good.
 */

import { h } from './dom.js';
import { duration } from './format.js';
import { from } from './page.js';
import { empty, notice, row, state, table, time } from './parts.js';

const DAY = 86400;
/** One that ends sooner is warned of. One of a short life is always near its end: it is renewed at two thirds of it. */
const [SOON, RENEWED_AT] = [7 * DAY, 2 / 3];
const USES = { own: 'this gateway’s own', authority: 'authority of the region', management: 'management API' };
const COLUMNS = ['Subject:wide', 'Use', 'State', 'Left', 'Issuer:wide', 'Good'];
const ADVICE = 'Certificates need attention. Those that a gateway issues are renewed by themselves at two thirds of their life; '
  + 'put others in place of the old files, which are read again when they change.';

export function certificates(page) {
  page.title = 'Certificates';
  const source = page.load('certificates');
  page.actions = [h('button', { type: 'button', onclick: source.again }, 'Refresh')];
  const none = empty('This gateway has no certificate: security.mtls is off, and nothing is proven or encrypted.');
  return () => from(source, 'The certificates', ({ certificates: all }) => {
    if (all.length === 0) return none;
    const sorted = all.toSorted((one, other) => left(one) - left(other));
    const isIll = all.some((it) => condition(it)[0] !== 'good');
    return [isIll && notice('warn', ADVICE), table('Certificates', COLUMNS, sorted.map(line))];
  });
}

/** Seconds until its end. */
const left = ({ notAfter }) => (Date.parse(notAfter) - Date.now()) / 1000;

function condition(it) {
  const [begin, end] = [it.notBefore, it.notAfter].map(Date.parse);
  if (left(it) <= 0) return ['bad', 'past'];
  if (begin > Date.now()) return ['warn', 'not yet good'];
  const isLate = left(it) < ((end - begin) / 1000) * (1 - RENEWED_AT);
  return left(it) < SOON && isLate ? ['warn', 'ends soon'] : ['good', 'good'];
}

function line(it) {
  const rest = Math.abs(left(it));
  const words = rest < 2 * DAY ? duration(rest) : `${Math.floor(rest / DAY)} days`;
  return row(`${it.subject} ${it.notAfter}`, h('span.mono', it.subject), USES[it.use] ?? it.use, state(...condition(it)),
    left(it) > 0 ? words : `${words} ago`, h('span.mono', it.issuer),
    [h('div', 'from ', time(it.notBefore)), h('div', 'until ', time(it.notAfter))]);
}
