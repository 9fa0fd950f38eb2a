// Numbers as people read them, like app/report/quantities.py.

export function digits(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "not a number";
  if (value === 0) return "0";
  if (Math.abs(value) >= 999.5) return Math.round(value).toLocaleString("en");
  if (Math.abs(value) < 1e-3) return value.toPrecision(2);
  return value.toFixed(Math.max(0, 2 - Math.floor(Math.log10(Math.abs(value)) + 1e-12)));
}

export function count(value) {
  for (const [unit, size] of [[" T", 1e12], [" G", 1e9], [" M", 1e6], [" K", 1e3]])
    if (Math.abs(value) >= size * 0.9995) return digits(value / size) + unit;
  return `${value}`;
}

export function bytes(value) {
  for (const [unit, size] of [["TB", 1e12], ["GB", 1e9], ["MB", 1e6], ["kB", 1e3]])
    if (value >= size * 0.9995) return `${digits(value / size)} ${unit}`;
  return `${value} B`;
}

export function duration(seconds) {
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor(whole % 3600 / 60)} min`;
}
