/** Skips unknown fields when a message is parsed. */
// There may be many, and each would become an object.
export const KNOWN_FIELDS = { readUnknownFields: false } as const;

/** Throws if a message holds a repeated field more than `most` times. Builds no objects. */
// Two bytes of a message can become an object of two hundred.
export function checkCount(bytes: Uint8Array, field: number, most: number): void {
  let count = 0;
  for (let at = 0; at < bytes.length; ) {
    const tag = varint(bytes, at);
    if (tag === undefined) return;
    if (tag.value >>> 3 === field && ++count > most)
      throw new Error(`field ${field} occurs more than ${most} times`);
    const next = after(bytes, tag.next, tag.value & 7);
    // What is no message fails when it is parsed.
    if (next === undefined) return;
    at = next;
  }
}

function after(bytes: Uint8Array, at: number, wireType: number): number | undefined {
  if (wireType === 1) return at + 8;
  if (wireType === 5) return at + 4;
  if (wireType !== 0 && wireType !== 2) return undefined;
  const number = varint(bytes, at);
  return wireType === 0 || number === undefined ? number?.next : number.next + number.value;
}

/** Returns the low 32 bits of the varint at `at`, and the offset after it; undefined if it does not end. */
function varint(bytes: Uint8Array, at: number): { value: number; next: number } | undefined {
  let value = 0;
  for (let i = 0; i < 10; i++) {
    const byte = bytes[at + i];
    if (byte === undefined) return undefined;
    if (i < 5) value |= (byte & 0x7f) << (7 * i);
    if (byte < 0x80) return { value: value >>> 0, next: at + i + 1 };
  }
  return undefined;
}
