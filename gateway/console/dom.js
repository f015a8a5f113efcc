/**
 * What is on the page, described and put there.
 *
 * `h` describes an element; `show` makes the content of an element what is described, and changes only what differs, so
 * that focus, selection, scrolling and open <details> outlive the next event of a live stream. Text becomes text nodes
 * and attributes, never markup.
 */

const SVG = 'http://www.w3.org/2000/svg';
/** What a node was last described as. */
const SHOWN = Symbol('shown');
const DESCRIBED = Symbol('described');
/** What an element has as a property besides its attribute, which people change. */
const PROPERTIES = new Set(['value', 'checked', 'disabled', 'open', 'selected', 'htmlFor']);

/**
 * h('p.note', {title: 'x'}, 'text', other, [more], null): an element with classes, attributes and content.
 * Besides attributes there are `key` (which of its siblings it is), `on...` (handlers), `style` (an object of CSS
 * properties) and `after` (called with the element whenever it has been shown, once all is in its place).
 */
export function h(kind, ...rest) {
  const hasProps = rest.length > 0 && isProps(rest[0]);
  const props = hasProps ? rest[0] : {};
  return { [DESCRIBED]: true, kind, props, content: flat(hasProps ? rest.slice(1) : rest) };
}

/** Makes the content of `parent` what is described. */
export function show(parent, ...content) {
  const wanted = flat(content);
  const old = sorted(parent);
  const nodes = wanted.map((it) => update(take(old, it) ?? create(it, parent), it));
  for (const left of old.values()) left.forEach((it) => it.remove());
  let at = parent.firstChild;
  for (const node of nodes) {
    if (node === at) at = at.nextSibling;
    else parent.insertBefore(node, at);
  }
  // What is around it is put in place first.
  wanted.forEach((it, index) => it.props?.after && queueMicrotask(() => it.props.after(nodes[index])));
}

function isProps(it) {
  return typeof it === 'object' && it !== null && !Array.isArray(it) && !it[DESCRIBED];
}

function flat(content) {
  const there = content.flat(Infinity).filter((it) => it !== null && it !== undefined && it !== false && it !== '');
  return there.map((it) => (it[DESCRIBED] ? it : String(it)));
}

/** What a node and its description have in common if the one can become the other. */
function identity(it) {
  return typeof it === 'string' ? '#text' : `${it.kind} ${it.props.key ?? ''}`;
}

/** The nodes that are there, by identity, in their order. */
function sorted(parent) {
  const old = new Map();
  for (const node of parent.childNodes) {
    const key = node[SHOWN] === undefined ? '' : identity(node[SHOWN]);
    if (!old.has(key)) old.set(key, []);
    old.get(key).push(node);
  }
  return old;
}

function take(old, wanted) {
  return old.get(identity(wanted))?.shift();
}

function create(it, parent) {
  if (typeof it === 'string') return document.createTextNode(it);
  const [tag, ...classes] = it.kind.split('.');
  const isSvg = tag === 'svg' || parent.namespaceURI === SVG;
  const node = isSvg ? document.createElementNS(SVG, tag) : document.createElement(tag);
  if (classes.length > 0) node.setAttribute('class', classes.join(' '));
  return node;
}

function update(node, it) {
  const before = node[SHOWN];
  node[SHOWN] = it;
  if (typeof it === 'string') {
    if (node.data !== it) node.data = it;
    return node;
  }
  show(node, it.content);
  const past = before?.props ?? {};
  for (const name of new Set([...Object.keys(past), ...Object.keys(it.props)])) {
    if (past[name] !== it.props[name]) set(node, name, it.props[name]);
  }
  return node;
}

function set(node, name, value) {
  if (name === 'key' || name === 'after') return;
  if (name === 'style') {
    for (const [property, text] of Object.entries(value ?? {})) node.style.setProperty(property, text);
  } else if (name.startsWith('on')) {
    node[name] = value ?? null;
  } else if (PROPERTIES.has(name)) {
    node[name] = value ?? '';
  } else if (value === undefined || value === null || value === false) {
    node.removeAttribute(name);
  } else {
    node.setAttribute(name, value === true ? '' : String(value));
  }
}
