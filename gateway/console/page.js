/**
 * What every page has: its heading, its sources of data with how current they are, and an end. A page is a function
 * that is given a `Page` and the route, opens its sources, and returns what draws it. Knows no particular page.
 */

import { follow, send } from './api.js';
import { h, show } from './dom.js';
import { clock } from './format.js';
import { notice, trouble } from './parts.js';

/** A place in the document, for as long as one page is shown there. */
export class Page {
  #place;
  #leave = new AbortController();
  #draw = () => [];
  #isDue = false;
  #live = null;
  /** The heading; the page above, as its address and name; and what can be done here. */
  title = '';
  above = null;
  actions = [];

  constructor(place) {
    this.#place = place;
  }

  get signal() { return this.#leave.signal; }

  /** Shows the page from now on. */
  open(draw) {
    this.#draw = draw;
    this.#render();
  }

  /** Draws anew, once for all that happens at the same time. */
  update() {
    if (this.#isDue) return;
    this.#isDue = true;
    queueMicrotask(() => {
      this.#isDue = false;
      if (!this.signal.aborted) this.#render();
    });
  }

  /** Ends all streams, requests and dialogs. */
  leave() {
    this.#leave.abort();
    document.querySelectorAll('dialog').forEach((it) => it.close());
  }

  /** A document that is followed; `changed` is told of each event, if somebody sets it. */
  live(where) {
    const source = { data: null, failure: null, since: null, isLive: false };
    this.#live = source;
    follow(where, this.signal, ({ data = source.data, failure = null, retry, isSaid = false }) => {
      const isCut = failure !== null && !isSaid;
      const since = isCut ? (source.since ?? new Date()) : null;
      Object.assign(source, { data, failure, retry, since, isLive: !isCut });
      source.changed?.();
      this.update();
    });
    return source;
  }

  /** A document that is read once, and anew by `again`; or after so many seconds, where `every` makes some of it. */
  load(where, every = () => 0) {
    const source = { data: null, failure: null };
    let timer;
    source.again = async () => {
      clearTimeout(timer);
      try {
        Object.assign(source, { data: await send('GET', where, { signal: this.signal }), failure: null });
        const seconds = every(source.data);
        if (seconds) timer = setTimeout(source.again, seconds * 1000);
      } catch (failure) {
        source.failure = failure;
      }
      this.update();
    };
    this.signal.addEventListener('abort', () => clearTimeout(timer));
    source.again();
    return source;
  }

  /** What the page draws. What it cannot draw, it does not understand. */
  #drawn() {
    try {
      return this.#draw();
    } catch (error) {
      console.error(error);
      return notice('bad', 'The gateway’s answer is not understood. Load this page again; its version may have changed.');
    }
  }

  #render() {
    const body = this.#drawn();
    document.title = `${this.title} – Shoal`;
    const above = this.above && h('p.above', h('a', { href: this.above[0] }, this.above[1]));
    const actions = h('div.actions', this.actions, this.#live && badge(this.#live));
    show(this.#place, h('div.head', h('div', above, h('h1', { tabindex: -1 }, this.title)), actions), body);
  }
}

/** What a source gives, drawn; or why it gives nothing. What is old stays, and it is said that it is. */
export function from({ data, failure, retry, again }, what, draw) {
  const button = again && h('button', { type: 'button', onclick: again }, 'Try again');
  const problem = failure && trouble(failure, `${what} cannot be shown${data ? ' as it is now' : ''}`, { retry, button });
  return data ? [problem, draw(data)] : (problem ?? h('p.quiet', 'Loading …'));
}

function badge({ isLive, since, data }) {
  const word = isLive ? 'live' : since ? (data ? `not live since ${clock(since)}` : 'not live') : 'connecting';
  return h('p.live', { role: 'status', 'data-state': since ? 'cut' : word }, word);
}
