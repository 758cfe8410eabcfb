// From a number to a colour. Weights have the scale of the `attend` command's pictures, which reads in grey too; signed numbers go
// from blue over the paper's colour to orange. On light paper more is darker, on dark paper more is lighter.

const WEIGHTS = [
  [12, 8, 42],
  [58, 18, 98],
  [118, 34, 112],
  [180, 54, 94],
  [226, 92, 62],
  [248, 150, 52],
  [250, 206, 94],
  [253, 250, 200],
];
const SIGNED = {
  light: {
    negative: [
      [247, 245, 241],
      [158, 200, 222],
      [48, 124, 176],
      [16, 58, 110],
    ],
    positive: [
      [247, 245, 241],
      [248, 196, 140],
      [222, 112, 40],
      [130, 48, 10],
    ],
  },
  dark: {
    negative: [
      [40, 37, 54],
      [38, 82, 124],
      [72, 150, 204],
      [176, 220, 246],
    ],
    positive: [
      [40, 37, 54],
      [128, 66, 30],
      [226, 126, 56],
      [255, 214, 160],
    ],
  },
};

function mix(stops, fraction) {
  const position = Math.min(Math.max(fraction, 0), 1) * (stops.length - 1);
  const index = Math.min(Math.floor(position), stops.length - 2);
  return stops[index].map((channel, i) => Math.round(channel + (stops[index + 1][i] - channel) * (position - index)));
}

// WCAG's relative luminance.
function luminance(rgb) {
  const [red, green, blue] = rgb.map((channel) => {
    const share = channel / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}

// The contrast ratio of two colours, 1 to 21.
export function contrast(one, other) {
  const [dark, light] = [luminance(one), luminance(other)].sort((a, b) => a - b);
  return (light + 0.05) / (dark + 0.05);
}

export const css = (rgb) => `rgb(${rgb.join(' ')})`;
export const hex = (rgb) => `#${rgb.map((channel) => channel.toString(16).padStart(2, '0')).join('')}`;

// Black or white, whichever reads better on `background`: at least 4.5 on any.
export function inkOn(background) {
  return contrast([0, 0, 0], background) > contrast([255, 255, 255], background) ? [0, 0, 0] : [255, 255, 255];
}

export function weightColor(fraction, theme) {
  return mix(WEIGHTS, theme === 'light' ? 1 - fraction : fraction);
}

export function signedColor(fraction, theme) {
  const {negative, positive} = SIGNED[theme];
  return mix(fraction < 0 ? negative : positive, Math.abs(fraction));
}

// The colour of each number of a figure; null for a hidden one (minus infinity, or a weight of exactly 0).
export function colorsOf({values, scale}, theme) {
  const finite = values.flat().filter(Number.isFinite);
  const most = Math.max(...finite.map(Math.abs), 0);
  return (value) => {
    if (!Number.isFinite(value) || (scale === 'weight' && value === 0)) return null;
    const fraction = most === 0 ? 0 : value / most;
    return scale === 'weight' ? weightColor(fraction, theme) : signedColor(fraction, theme);
  };
}
