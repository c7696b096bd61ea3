/** Returns the nearest whole number, the even one of two as near, as Python and NumPy round. */
export function roundHalfEven(value) {
  const floor = Math.floor(value);
  const rest = value - floor;
  if (rest !== 0.5) return rest < 0.5 ? floor : floor + 1;
  return floor % 2 === 0 ? floor : floor + 1;
}

/** Returns a whole number with commas between thousands. */
export function withCommas(value) {
  return value.toLocaleString("en-US");
}

/** Returns a measure as remarks state it: two significant digits below 10, whole above. */
export function measureText(value) {
  if (Math.abs(value) >= 10) return String(roundHalfEven(value));
  if (value === 0) return "0";
  const [digits, exponent] = value.toExponential(1).split("e");
  const power = Number(exponent);
  if (power >= -4) return String(Number(value.toPrecision(2)));
  return `${Number(digits)}e-${String(-power).padStart(2, "0")}`;
}

/** Returns mean and population standard deviation of numbers. */
export function momentsOf(values) {
  let sum = 0;
  for (const value of values) sum += value;
  const mean = sum / values.length;
  let squares = 0;
  for (const value of values) squares += (value - mean) ** 2;
  return { mean, deviation: Math.sqrt(squares / values.length) };
}
