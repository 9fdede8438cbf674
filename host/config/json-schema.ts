/** JSON Schema of one value, as far as settings need it. */
export interface JsonSchema {
  readonly description?: string;
  readonly type?: string | readonly string[];
  readonly enum?: readonly string[];
  readonly pattern?: string;
  readonly minLength?: number;
  readonly minimum?: number;
  readonly maximum?: number;
  readonly items?: JsonSchema;
  readonly properties?: Readonly<Record<string, JsonSchema>>;
  /** Schema of the values of other names; false for no other names. */
  readonly additionalProperties?: false | JsonSchema;
}

/** JSON Schema of a whole settings file. */
export interface SettingsJsonSchema extends JsonSchema {
  readonly $schema: string;
  readonly title: string;
}

/** Returns a pattern of these words in any case; patterns of JSON Schema have no flags. */
export function anyCasePattern(words: readonly string[]): string {
  const letters = (word: string) =>
    word.replace(/[a-z]/gi, (one) => `[${one.toLowerCase()}${one.toUpperCase()}]`);
  return `(?:${words.map(letters).join('|')})`;
}
