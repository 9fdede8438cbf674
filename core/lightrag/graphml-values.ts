/** What Python's `str.strip` removes, as far as XML allows it. */
const SPACES = '[\\t\\n\\r \\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000]*';
const DIGITS = '\\p{Nd}+(?:_\\p{Nd}+)*';
const INTEGER = new RegExp(`^${SPACES}[+-]?${DIGITS}${SPACES}$`, 'u');
const FLOAT = new RegExp(
  `^${SPACES}[+-]?(?:(?:${DIGITS}\\.?(?:${DIGITS})?|\\.${DIGITS})(?:e[+-]?${DIGITS})?|inf|infinity|nan)${SPACES}$`,
  'iu',
);
const BOOLEAN = /^(?:true|false|0|1)$/i;
/** Most digits of an integer that Python converts. */
const DIGITS_MAX = 4300;

/** A type of values in GraphML. */
export interface ValueType {
  readonly name: string;
  /** Reports whether networkx cannot convert a text; undefined for texts. */
  readonly isWrong?: (text: string) => boolean;
}

const isNoInteger = (text: string): boolean =>
  !INTEGER.test(text) || (text.length > DIGITS_MAX && (text.match(/\p{Nd}/gu)?.length ?? 0) > DIGITS_MAX);
const isNoFloat = (text: string): boolean => !FLOAT.test(text);
const isNoBoolean = (text: string): boolean => !BOOLEAN.test(text);

const TYPES: ReadonlyMap<string, ValueType> = new Map(
  [
    { name: 'string' },
    { name: 'yfiles' },
    { name: 'integer', isWrong: isNoInteger },
    { name: 'int', isWrong: isNoInteger },
    { name: 'long', isWrong: isNoInteger },
    { name: 'float', isWrong: isNoFloat },
    { name: 'double', isWrong: isNoFloat },
    { name: 'boolean', isWrong: isNoBoolean },
  ].map((type) => [type.name, type]),
);

/** Returns the type that an `attr.type` names; undefined for an unknown one. */
export function valueTypeOf(name: string): ValueType | undefined {
  return TYPES.get(name);
}
