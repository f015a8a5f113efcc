/**
 * The gateway's management API: the token, single requests, and live streams.
 *
 * The token is in this tab's session storage and in the header `Authorization`, and nowhere else. Streams are read by
 * `fetch`, since an EventSource cannot send that header. Knows no page.
 */

const BASE = new URL('../api/v1/', import.meta.url);
const KEY = 'shoal.token';
/** After how many milliseconds a lost stream is opened again; doubles up to the second. */
const [FIRST_WAIT, LONGEST_WAIT] = [1000, 30000];
/** A stream says something every 15 s; one that says nothing for so long is dead. */
const SILENCE = 40000;

/**
 * Why something was not answered. `status` is 0 where nobody was reached; `wait` is in seconds.
 */
class Failure extends Error {
  constructor(status, messages, wait = 0) {
    super(messages.join('; '));
    Object.assign(this, { status, messages, wait });
  }
}

let onRefused = () => {};

export const session = {
  get token() { return sessionStorage.getItem(KEY); },
  keep: (token) => sessionStorage.setItem(KEY, token),
  forget: () => sessionStorage.removeItem(KEY),
  /** Says who is told when the token is not good any more. */
  whenRefused: (handler) => { onRefused = handler; },
};

/** A path below the API, each part encoded, with those parameters that are not empty. */
export function path(parts, parameters = {}) {
  return parts.map(encodeURIComponent).join('/') + query(parameters);
}

/** What parameters are in an address; nothing, where all are empty. */
export function query(parameters) {
  const given = Object.entries(parameters).filter(([, it]) => it !== '' && it !== null && it !== undefined);
  return given.length > 0 ? `?${new URLSearchParams(given)}` : '';
}

/** Sends a request; gives the answer's JSON, or throws a `Failure`. */
export async function send(method, where, { body, signal, token = session.token } = {}) {
  const response = await ask(method, where, { body, signal, token, accept: 'application/json' });
  const data = parsed(await response.text().catch(rethrown));
  if (data === null) throw new Failure(response.status, ['the answer is no JSON; is it a gateway of about this version?']);
  return data;
}

/**
 * Follows a live document until `signal` ends it, or it is refused. `told` gets `{data}`; `{failure}`, with the seconds
 * until the next attempt as `retry` where there is one; or `{failure, isSaid}` where the stream itself says why there
 * is nothing at present. A hidden tab has no stream.
 */
export async function follow(where, signal, told) {
  let wait = FIRST_WAIT;
  const take = (event) => { wait = FIRST_WAIT; told(event); };
  while (!signal.aborted) {
    await visible(signal);
    const failure = await attempt(where, signal, take);
    if (failure.name === 'AbortError') continue;
    if (isFinal(failure)) return told({ failure });
    const pause = Math.max(wait, failure.wait * 1000);
    told({ failure, retry: Math.round(pause / 1000) });
    await sleep(pause, signal);
    wait = Math.min(wait * 2, LONGEST_WAIT);
  }
  return undefined;
}

/** Whether asking again would change nothing. */
const isFinal = ({ status }) => status >= 400 && status < 500 && status !== 408 && status !== 429;

/** One connection of a stream; gives why it ended. It ends when the tab is hidden, and after too long a silence. */
async function attempt(where, signal, told) {
  const end = new AbortController();
  const hide = () => document.hidden && end.abort();
  let [timer, isLate] = [0, false];
  const isAlive = () => {
    clearTimeout(timer);
    timer = setTimeout(() => { isLate = true; end.abort(); }, SILENCE);
  };
  document.addEventListener('visibilitychange', hide);
  isAlive();
  try {
    const options = { signal: AbortSignal.any([signal, end.signal]), token: session.token, accept: 'text/event-stream' };
    const response = await ask('GET', where, options);
    for await (const { event, data } of events(response.body, isAlive)) {
      if (event !== 'failed') told({ data: JSON.parse(data) });
      else told({ failure: said(parsed(data)), isSaid: true });
    }
    return new Failure(0, ['the stream has ended']);
  } catch (error) {
    return isLate ? new Failure(0, ['the gateway has said nothing for 40 s']) : asFailure(error);
  } finally {
    clearTimeout(timer);
    document.removeEventListener('visibilitychange', hide);
    end.abort();
  }
}

/** The server-sent events of a body. */
async function* events(body, onBytes) {
  let [rest, event, data] = ['', 'message', []];
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    onBytes();
    const lines = (rest + value).split('\n');
    rest = lines.pop();
    for (const line of lines.map((it) => it.replace(/\r$/, ''))) {
      if (line.startsWith('event:')) event = line.slice(6).trim();
      else if (line.startsWith('data:')) data.push(line.slice(5));
      else if (line === '') {
        if (data.length > 0) yield { event, data: data.join('\n') };
        [event, data] = ['message', []];
      }
    }
  }
}

async function ask(method, where, { body, signal, token, accept }) {
  const headers = { Accept: accept, Authorization: `Bearer ${token}` };
  if (body) headers['Content-Type'] = 'application/json';
  const options = { method, headers, signal, cache: 'no-store', credentials: 'omit', redirect: 'error' };
  const response = await fetch(new URL(where, BASE), { ...options, body: body && JSON.stringify(body) }).catch(rethrown);
  if (response.ok) return response;
  // A request that was sent with another token says nothing about this session's.
  if (response.status === 401 && token === session.token) onRefused();
  const answer = parsed(await response.text().catch(() => ''));
  throw new Failure(response.status, reasons(answer, response.status), Number(response.headers.get('Retry-After')) || 0);
}

/** What a stream says when there is nothing at present. */
const said = (it) => new Failure(it?.status ?? 200, reasons(it));

/** What an answer that is no success says. */
const reasons = (answer, status = '') => answer?.errors ?? [answer?.message ?? `the answer ${status} gives no reason`];

function parsed(text) {
  try { return JSON.parse(text); } catch { return null; }
}

function rethrown(error) {
  throw asFailure(error);
}

function asFailure(error) {
  if (error instanceof Failure || error.name === 'AbortError') return error;
  const isText = error instanceof SyntaxError;
  return new Failure(0, [isText ? 'the answer is not understood' : 'the gateway was not reached']);
}

/** Waits for the tab to be looked at. */
function visible(signal) {
  return new Promise((resolve) => {
    const stop = new AbortController();
    const look = () => {
      if (document.hidden && !signal.aborted) return;
      stop.abort();
      resolve();
    };
    document.addEventListener('visibilitychange', look, { signal: stop.signal });
    signal.addEventListener('abort', look, { signal: stop.signal });
    look();
  });
}

function sleep(millis, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, millis);
    signal.addEventListener('abort', () => { clearTimeout(timer); resolve(); }, { once: true });
  });
}
