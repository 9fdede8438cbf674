/** Skips unknown fields when a message is parsed. */
// There may be many, and each would become an object.
export const KNOWN_FIELDS = { readUnknownFields: false } as const;

/** Throws if a message holds a repeated field more than `most` times. Builds no objects. */
// Two bytes of a message can become an object of two hundred.
export function checkCount(bytes: Uint8Array, field: number, most: number): void {
  let count = 0;
  for (const found of fieldsOf(bytes)) {
    if (found.field === field && ++count > most)
      throw new Error(`field ${field} occurs more than ${most} times`);
  }
}

/** Throws if the messages in fields, along a path of fields, hold the last one more than `most` times in all. */
export function checkNestedCount(bytes: Uint8Array, path: readonly number[], most: number): void {
  if (countAlong(bytes, path, most) > most)
    throw new Error(`field ${path.join('.')} occurs more than ${most} times`);
}

/** Counts the last field of a path, up to `most` + 1. Builds no objects. */
function countAlong(bytes: Uint8Array, [outer, ...inner]: readonly number[], most: number): number {
  let count = 0;
  for (const { field, wireType, start, end } of fieldsOf(bytes)) {
    if (field !== outer) continue;
    if (inner.length === 0) count += 1;
    else if (wireType === LENGTH_DELIMITED)
      count += countAlong(bytes.subarray(start, end), inner, most - count);
    if (count > most) break;
  }
  return count;
}

const LENGTH_DELIMITED = 2;

interface Field {
  readonly field: number;
  readonly wireType: number;
  /** Place of its value. */
  readonly start: number;
  readonly end: number;
}

/** Yields the fields of a message. Ends at what is no field, which fails when the message is parsed. */
function* fieldsOf(bytes: Uint8Array): Generator<Field> {
  for (let at = 0; at < bytes.length; ) {
    const tag = varint(bytes, at);
    if (tag === undefined) return;
    const wireType = tag.value & 7;
    const end = after(bytes, tag.next, wireType);
    if (end === undefined) return;
    const length = wireType === LENGTH_DELIMITED ? varint(bytes, tag.next) : undefined;
    yield { field: tag.value >>> 3, wireType, start: length?.next ?? tag.next, end };
    at = end;
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
