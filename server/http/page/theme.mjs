// Light or dark: as the system has it, or as the switch says, which this browser remembers.

const KEY = 'attend-theme';
const system = matchMedia('(prefers-color-scheme: dark)');

// A browser may forbid the storage; then the choice lasts as long as the page.
function remembered() {
  try {
    return localStorage.getItem(KEY) ?? 'auto';
  } catch {
    return 'auto';
  }
}

function remember(choice) {
  try {
    localStorage.setItem(KEY, choice);
  } catch {
    // It is then not remembered.
  }
}

// 'light' or 'dark'.
export const theme = () => document.documentElement.dataset.theme;

function apply(choice) {
  document.documentElement.dataset.theme = choice === 'light' || choice === 'dark' ? choice : system.matches ? 'dark' : 'light';
  for (const button of document.querySelectorAll('[data-theme-choice]')) {
    button.setAttribute('aria-pressed', String(button.dataset.themeChoice === choice));
  }
}

// Calls `onChange` whenever the colours change.
export function followTheme(onChange) {
  let choice = remembered();
  const change = () => {
    apply(choice);
    onChange();
  };
  for (const button of document.querySelectorAll('[data-theme-choice]')) {
    button.addEventListener('click', () => {
      choice = button.dataset.themeChoice;
      remember(choice);
      change();
    });
  }
  system.addEventListener('change', change);
  apply(choice);
}
