/** Fields that this version does not know are passed over: they may be many, and each would be an object. */
export const KNOWN_FIELDS = { readUnknownFields: false } as const;

/**
 * Refuses a message that holds a repeated field more than `most` times, before anything is built of it: two bytes
 * of a message can make an object of two hundred.
 */
export function checkCount(bytes: Uint8Array, field: number, most: number): void {
  let count = 0;
  for (let at = 0; at < bytes.length; ) {
    const tag = varint(bytes, at);
    if (tag === undefined) return;
    if (tag.value >>> 3 === field && ++count > most) throw new Error(`field ${field} stands there too often`);
    const next = after(bytes, tag.next, tag.value & 7);
    // What is no message is refused by whoever reads it.
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

/** The number at a place, its low 32 bits, and where the next thing begins. */
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
