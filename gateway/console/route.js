/**
 * Which page an address means: `#/<page>/<id>?<parameters>`. What a page is filtered by stands in its address, so that
 * it can be kept, sent and gone back to. Knows no page.
 */

import { query } from './api.js';

/** The address of a page. Parameters that are empty are left out. */
export function href(page, id = null, parameters = {}) {
  return `#/${page}${id === null ? '' : `/${encodeURIComponent(id)}`}${query(parameters)}`;
}

/** Goes to a page. */
export function go(...to) {
  location.hash = href(...to);
}

/** The page that the address bar has; its id is null where there is none. */
export function current() {
  const [place, text = ''] = location.hash.replace(/^#\/?/, '').split('?');
  const [page, id] = place.split('/').map(decoded);
  return { page, id: id || null, parameters: new URLSearchParams(text) };
}

function decoded(text) {
  try { return decodeURIComponent(text); } catch { return text; }
}
