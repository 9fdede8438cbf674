// C0, DEL, C1, separators of lines, and the marks that change the direction of text.
const CONTROLS = /[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/g;

/** Replaces characters that change a terminal, or the order of what it shows, by escapes. */
export function escapeControls(text: string): string {
  return text.replace(CONTROLS, (character) => {
    const code = character.charCodeAt(0);
    return code < 0x100
      ? `\\x${code.toString(16).padStart(2, '0')}`
      : `\\u${code.toString(16).padStart(4, '0')}`;
  });
}

/** Escapes, in the text of a JSON document, what JSON itself leaves as it is. */
export function escapeJson(json: string): string {
  // A line break or a tab of the document itself is not in a string.
  return json.replace(CONTROLS, (character) =>
    character < ' ' ? character : `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
}
