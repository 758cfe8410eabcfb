// The panel that explains the cell which is pointed at or focused.

import {byId, element} from './dom.mjs';
import {showUses} from './heatmap.mjs';

const partOf = ({text, role, raised}) => element(raised ? 'sup' : 'span', {class: role ? `role-${role}` : undefined}, text);

// `aloud`: whether screen readers say it, as they do for the keyboard's cell and not for all that a mouse passes over.
export function inspect(explanation, aloud) {
  byId('inspector').setAttribute('aria-live', aloud ? 'polite' : 'off');
  byId('inspector-heading').textContent = explanation.heading;
  byId('inspector-formula').replaceChildren(...explanation.parts.map(partOf));
  byId('inspector-note').textContent = explanation.note;
  showUses(document, explanation.uses);
}

export function clearInspector() {
  byId('inspector-heading').textContent = 'How is a number computed?';
  byId('inspector-formula').replaceChildren();
  byId('inspector-note').textContent = 'Point at a cell, touch it, or move to it with Tab and the arrow keys.';
  showUses(document, []);
}
