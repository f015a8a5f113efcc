/**
 * Numbers, sizes, times and digests as people read them, in the words of `shoalctl`. Knows no page.
 */

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB', 'EiB'];
const WHOLE = new Intl.NumberFormat('en');
const pad = (number) => String(number).padStart(2, '0');

/** 9,800 */
export const count = (number) => WHOLE.format(number);

/** `1 node`, `9,800 nodes` */
export function counted(number, one, many = `${one}s`) {
  return `${count(number)} ${number === 1 ? one : many}`;
}

/** Three figures: `412 MiB`, `54.2 GiB`, `40 B`. */
export function bytes(number) {
  let [value, unit] = [Math.abs(number), 0];
  while (value >= 1023.5 && unit < UNITS.length - 1) [value, unit] = [value / 1024, unit + 1];
  const sign = number < 0 ? '−' : '';
  return `${sign}${unit === 0 ? value : figures(value)} ${UNITS[unit]}`;
}

/** So much of something, `93.4 %`. It is 100 % only where nothing is missing, and 0 % where there is nothing. */
export function percent(part, whole) {
  if (!whole) return '–';
  const value = (part / whole) * 100;
  if (value > 99.9 && value < 100) return '99.9 %';
  if (value > 0 && value < 0.1) return '0.1 %';
  const digits = value === 0 || value === 100 ? 0 : 1;
  return `${value < 0 ? '−' : ''}${Math.abs(value).toFixed(digits)} %`;
}

/** The same as a number from 0 to 1. */
export function share(part, whole) {
  return whole > 0 ? Math.min(1, Math.max(0, part / whole)) : 0;
}

/** How much there is of one thing for each of another: `0.066`. */
export function ratio(part, whole) {
  return whole > 0 ? Number((part / whole).toPrecision(part / whole < 1 ? 2 : 3)).toString() : '–';
}

/** A length of time, in the two largest units: `3 d 4 h`. */
export function duration(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  const units = [['d', 86400, Infinity], ['h', 3600, 24], ['min', 60, 60], ['s', 1, 60]];
  const parts = units.map(([unit, size, most]) => [Math.floor(whole / size) % most, unit]);
  const first = parts.findIndex(([number]) => number > 0);
  if (first < 0) return '0 s';
  return parts.slice(first, first + 2).filter(([number]) => number > 0).map((it) => it.join(' ')).join(' ');
}

/** `2026-11-27 05:00:12`, in the reader's own time zone. */
export function moment(at) {
  const it = new Date(at);
  return `${day(it)} ${clock(it)}`;
}

/** `2026-11-27` */
export function day(at) {
  const it = new Date(at);
  return `${it.getFullYear()}-${pad(it.getMonth() + 1)}-${pad(it.getDate())}`;
}

/** `05:00:12`, or without the seconds. */
export function clock(at, hasSeconds = true) {
  const it = new Date(at);
  return [it.getHours(), it.getMinutes(), ...(hasSeconds ? [it.getSeconds()] : [])].map(pad).join(':');
}

/** A digest's first figures, as `shoalctl top` shows it. */
export const brief = (digest) => digest.slice(digest.lastIndexOf(':') + 1).slice(0, 12);

/** The order of names, in which r2 comes before r10. */
export const byName = new Intl.Collator('en', { numeric: true }).compare;

function figures(value) {
  if (value >= 99.95) return value.toFixed(0);
  return value >= 9.995 ? value.toFixed(1) : value.toFixed(2);
}
