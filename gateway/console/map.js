/**
 * The piece map: one row for each member of a swarm, which fills while it fetches, and above them how many members hold
 * each part of the blob. A row is a canvas of one pixel a cell, stretched by the style sheet. Its colours are the style
 * sheet's, too, so that they follow light and dark.
 */

import { h } from './dom.js';
import { percent } from './format.js';
import { empty, state } from './parts.js';

/** How high the row of all members is, in pixels of its canvas. */
const ALL_HEIGHT = 32;
/** How strong a cell is shown that has next to nothing. */
const FAINTEST = 0.25;
/** What is drawn on a canvas, which is not drawn again. */
const drawn = new WeakMap();

matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => {
  document.querySelectorAll('canvas').forEach(repaint);
});

export function map({ members, cells, task }) {
  if (cells === 0 || members.length === 0) return empty('The blob has no pieces, or no members.');
  const fills = members.map((it) => parse(it.fill));
  const shares = Array.from({ length: cells }, (_, cell) => fills.reduce((sum, fill) => sum + fill[cell], 0) / fills.length / 255);
  const rarest = percent(Math.min(...shares), 1);
  const each = cells < task.pieces ? `about ${Math.round(task.pieces / cells)} pieces` : 'one piece';
  const rows = members.map((it, index) => line(it, cells, fills[index], task.pieces));
  return [
    h('div.pieces.all',
      h('p', h('strong', 'All members'), h('span.quiet', 'share that holds each part')),
      canvas(cells, ALL_HEIGHT, shares.join(), columns(shares)),
      h('span.figure', { title: 'held of the rarest part' }, rarest)),
    h('ul.map', { tabindex: 0, 'aria-label': 'Pieces of each member' }, rows),
    h('p.quiet', `From the blob’s first piece, left, to its last; a cell is ${each}.`,
      ` Of the members ${rarest} hold the rarest part.`),
  ];
}

function line({ id, role, zone, rack, wants, pieces }, cells, fill, all) {
  const [kind, word] = pieces >= all ? ['good', 'whole'] : wants ? ['busy', 'wants it'] : ['none', 'a part'];
  return h('li.pieces', { key: id },
    h('p', { title: id }, h('span.mono', id), h('span.quiet', role === 'gateway' ? role : where({ zone, rack }))),
    canvas(cells, 1, String(fill), strengths(fill)),
    h('span.figure', { title: word }, percent(pieces, all), state(kind, h('span.hidden', word))));
}

/** The zone and rack of a member, as far as they are stated. */
export const where = ({ zone, rack }) => `${zone || '–'} / ${rack || '–'}`;

/** A canvas that is painted where `key` says something new. */
function canvas(width, height, key, paint) {
  const after = (it) => {
    if (drawn.get(it)?.key === key) return;
    drawn.set(it, { key, paint });
    repaint(it);
  };
  return h('canvas', { width, height, 'aria-hidden': 'true', after });
}

function repaint(it) {
  const brush = it.getContext('2d');
  brush.clearRect(0, 0, it.width, it.height);
  brush.fillStyle = getComputedStyle(it).color;
  drawn.get(it)?.paint(brush);
}

/** Cells as strong as they are full. */
function strengths(fill) {
  return (brush) => fill.forEach((value, cell) => {
    brush.globalAlpha = value === 0 ? 0 : FAINTEST + (1 - FAINTEST) * (value / 255);
    brush.fillRect(cell, 0, 1, 1);
  });
}

/** Columns as high as they are held. */
function columns(shares) {
  return (brush) => shares.forEach((it, cell) => brush.fillRect(cell, ALL_HEIGHT * (1 - it), 1, ALL_HEIGHT * it));
}

function parse(hex) {
  return Array.from({ length: hex.length / 2 }, (_, cell) => Number.parseInt(hex.slice(cell * 2, cell * 2 + 2), 16));
}
