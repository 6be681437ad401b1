// Figures as people read them; the same forms as on the command line.

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];

function three(number) {
  return number >= 100 ? number.toFixed(0) : String(Number(number.toPrecision(3)));
}

export function size(bytes) {
  let unit = 0;
  while (bytes >= 1024 && unit < UNITS.length - 1) {
    bytes /= 1024;
    unit += 1;
  }
  return `${three(bytes)} ${UNITS[unit]}`;
}

export function rate(bytesPerSecond) {
  let bits = bytesPerSecond * 8;
  for (const unit of ["bit/s", "kbit/s", "Mbit/s"]) {
    if (bits < 1000) return `${three(bits)} ${unit}`;
    bits /= 1000;
  }
  return `${three(bits)} Gbit/s`;
}

export function span(ms) {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  const seconds = ms / 1000;
  if (seconds < 60) return `${three(seconds)} s`;
  return `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")} min`;
}

export function moment(seconds) {
  return seconds ? new Date(seconds * 1000).toLocaleString() : "";
}
