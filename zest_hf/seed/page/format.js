// How figures are written: as in `zest status`.

const UNITS = ["B", "kB", "MB", "GB", "TB", "PB"];

export function size(bytes) {
  let unit = 0;
  while (bytes >= 999.95 && unit < UNITS.length - 1) {
    bytes /= 1000;
    unit += 1;
  }
  return `${unit ? bytes.toFixed(1) : Math.round(bytes)} ${UNITS[unit]}`;
}

export const rate = (bytesPerSecond) => `${size(bytesPerSecond)}/s`;

export function duration(seconds) {
  seconds = Math.max(0, Math.floor(seconds));
  const days = Math.floor(seconds / 86400);
  const hours = Math.floor(seconds / 3600) % 24;
  const minutes = Math.floor(seconds / 60) % 60;
  if (days) return `${days} d ${hours} h`;
  if (hours) return `${hours} h ${minutes} min`;
  return minutes ? `${minutes} min ${seconds % 60} s` : `${seconds} s`;
}

export const ratio = (value) => (value === null ? "–" : value.toFixed(2));

// What others wrote, with what is not to be seen made visible: a name must not read from right to left, say.
export const printable = (text) => String(text).replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, "\ufffd");

export const plural = (count, one, many = `${one}s`) => `${count} ${count === 1 ? one : many}`;
