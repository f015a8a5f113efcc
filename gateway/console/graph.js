/**
 * Who is whose neighbour in a swarm. Members stand on a ring, rack beside rack and zone beside zone, and gateways within
 * it; so a member has the same place at each event, and lines across the ring are what goes beyond racks and zones.
 */

import { h } from './dom.js';
import { count, counted, percent } from './format.js';
import { empty } from './parts.js';

const [SIZE, RING, LABELS, ZONES] = [640, 236, 252, 300];
/** Room between racks and between zones, in members. */
const [RACK_GAP, ZONE_GAP] = [0.9, 2.4];
/** A member's size, where there is room for it. */
const RADIUS = 6;
/** How far lines bend to the centre. */
const BEND = 0.4;
/** So many lines can be told apart; more are drawn fainter. */
const MANY_LINES = 150;
/** A rack has a label where it takes up so many units of the ring, and so many letters of it. */
const [LABEL_ROOM, LABEL_LENGTH] = [12, 6];
/** So many neighbours of a member are named. */
const MOST_NAMED = 12;
const HINT = 'Each ring is a member, filled as far as it holds the blob; squares are gateways. '
  + 'Point at one, or go to it with Tab and the arrow keys, to see its neighbours.';

/** The graph; `pick` is called with the id of the member that somebody points at or goes to. */
export function graph({ members, names, task }, picked, pick) {
  if (members.length === 0) return empty('The swarm has no members.');
  const { places, racks, zones, radius } = layout(members);
  const chosen = members.find((it) => it.id === picked);
  const current = chosen ?? members[0];
  const kind = (it) => (it === chosen ? 'chosen' : !chosen ? null : chosen.neighbours.includes(it.number) ? 'near' : 'far');
  const held = (it) => percent(it.pieces, task.pieces);
  const words = (it) => `${it.id}, ${about(it)}, holds ${held(it)}, ${counted(it.neighbours.length, 'neighbour')}`;
  const node = (it) => dot(it, places.get(it.number), { isCurrent: it === current, kind: kind(it), words: words(it), radius, pick });
  const lines = (it, others) => others.map((other) => line(places.get(it.number), places.get(other))).join('');
  const edges = members.map((it) => lines(it, it.neighbours.filter((other) => other > it.number))).join('');
  const n_edges = members.reduce((sum, it) => sum + it.neighbours.length, 0) / 2;
  const faint = Math.max(0.3, Math.min(1, MANY_LINES / n_edges)).toFixed(2);
  const props = {
    viewBox: `0 0 ${SIZE} ${SIZE}`, role: 'listbox', 'aria-label': 'Members of the swarm',
    onkeydown: (event) => walk(event, members, current, pick), onpointerleave: () => pick(null),
  };
  return [
    h('svg.graph', props,
      h('path.edges', { d: edges, 'stroke-opacity': faint, 'data-dim': chosen ? 'yes' : null }),
      h('path.own', { d: chosen ? lines(chosen, chosen.neighbours) : '' }),
      zones.map(zone), racks.map(rack), members.map(node)),
    h('p.caption', chosen ? `${words(chosen)}: ${neighbours(chosen, names)}.` : HINT),
  ];
}

/** The names of a member's neighbours, as many as can be read. */
export function neighbours(member, names) {
  const some = member.neighbours.slice(0, MOST_NAMED).map((it) => names[it]);
  const n_more = member.neighbours.length - some.length;
  return some.length === 0 ? 'none' : some.join(', ') + (n_more > 0 ? ` and ${count(n_more)} more` : '');
}

const about = ({ role, zone, rack }) => [role, zone && `zone ${zone}`, rack && `rack ${rack}`].filter(Boolean).join(', ');

function dot(it, [x, y], { isCurrent, kind, words, radius, pick }) {
  const props = {
    key: it.id, 'data-id': it.id, 'data-kind': kind, transform: `translate(${x} ${y})`,
    role: 'option', 'aria-label': words, 'aria-selected': String(kind === 'chosen'), tabindex: isCurrent ? 0 : -1,
    onpointerenter: () => pick(it.id), onfocus: () => pick(it.id),
  };
  const square = (name, half) => h(name, { x: -half, y: -half, width: 2 * half, height: 2 * half });
  const inner = Math.sqrt(it.share);
  if (it.role === 'gateway') return h('g.node', props, square('rect.outer', 8), square('rect.inner', 6 * inner));
  return h('g.node', props, h('circle.outer', { r: radius }), h('circle.inner', { r: radius * 0.8 * inner }));
}

/** Arrow keys go round the ring. */
function walk(event, members, current, pick) {
  const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
  if (event.key === 'Escape') pick(null);
  if (!step) return;
  event.preventDefault();
  const next = members[(members.indexOf(current) + step + members.length) % members.length];
  event.currentTarget.querySelector(`[data-id="${CSS.escape(next.id)}"]`).focus();
}

/** A zone is an arc around its racks; its name is written along it, from left to right wherever it is. */
function zone({ name, from, to }, index) {
  const isBelow = Math.sin((from + to) / 2) > 0;
  const arc = (radius, isBack) => {
    const [start, end] = [from, to].map((it) => at(it, radius));
    const curve = `A${radius} ${radius} 0 ${to - from > Math.PI ? 1 : 0}`;
    return isBack ? `M${end} ${curve} 0 ${start}` : `M${start} ${curve} 1 ${end}`;
  };
  const label = { href: `#zone-${index}`, startOffset: '50%', 'text-anchor': 'middle' };
  return h('g', { key: name, 'aria-hidden': 'true' },
    h('path.arc', { d: arc(ZONES, false) }),
    h('path', { id: `zone-${index}`, d: arc(ZONES + (isBelow ? 16 : 6), isBelow) }),
    h('text', h('textPath', label, name || 'zone not stated')));
}

function rack({ zone: of, name, from, to }) {
  if ((to - from) * RING < LABEL_ROOM) return null;
  const middle = (from + to) / 2;
  const isLeft = Math.cos(middle) < 0;
  const [x, y] = at(middle, LABELS);
  const turn = ((middle * 180) / Math.PI + (isLeft ? 180 : 0)).toFixed(1);
  const props = {
    key: `${of} ${name}`, 'aria-hidden': 'true', transform: `translate(${x} ${y}) rotate(${turn})`,
    'text-anchor': isLeft ? 'end' : 'start', 'dominant-baseline': 'central',
  };
  return h('text.rack', props, name.length > LABEL_LENGTH ? `${name.slice(0, LABEL_LENGTH - 1)}…` : name || '–');
}

/** Where each member stands, by its number, and from where to where racks and zones reach. Members come sorted. */
function layout(members) {
  const [gateways, others] = [true, false].map((is) => members.filter((it) => (it.role === 'gateway') === is));
  const [racks, zones, slots] = [[], [], []];
  let slot = 0;
  others.forEach((it, index) => {
    const before = others[index - 1];
    const isZone = before?.zone !== it.zone;
    const isRack = isZone || before.rack !== it.rack;
    if (before) slot += isZone ? ZONE_GAP : isRack ? RACK_GAP : 0;
    if (isZone) zones.push({ name: it.zone, from: slot });
    if (isRack) racks.push({ zone: it.zone, name: it.rack, from: slot });
    slots.push(slot);
    slot += 1;
    zones.at(-1).to = slot;
    racks.at(-1).to = slot;
  });
  const angle = (it) => (it / (slot + ZONE_GAP)) * 2 * Math.PI - Math.PI / 2;
  const turned = (it) => ({ ...it, from: angle(it.from), to: angle(it.to) });
  const places = new Map(others.map((it, index) => [it.number, at(angle(slots[index] + 0.5), RING)]));
  const within = gateways.length > 1 ? 48 : 0;
  gateways.forEach((it, index) => places.set(it.number, at((index / gateways.length) * 2 * Math.PI, within)));
  const radius = Math.min(RADIUS, (0.45 * 2 * Math.PI * RING) / (slot + ZONE_GAP));
  return { places, racks: racks.map(turned), zones: zones.map(turned), radius };
}

function line([x1, y1], [x2, y2]) {
  const towards = (one, other) => SIZE / 2 + ((one + other) / 2 - SIZE / 2) * (1 - BEND);
  return `M${x1} ${y1}Q${towards(x1, x2).toFixed(1)} ${towards(y1, y2).toFixed(1)} ${x2} ${y2}`;
}

function at(angle, radius) {
  return [Math.cos(angle), Math.sin(angle)].map((it) => Math.round((SIZE / 2 + it * radius) * 10) / 10);
}
